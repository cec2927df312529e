"""linear/mma_gemm.cu against f64, its invariance bit by bit, and with --time its speed on Llama-3.1-8B's layers beside torch.matmul."""

import concurrent.futures
import itertools
import multiprocessing
import os
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import launch

# (BM, BN, WM, WN, BK, STAGES)
SQUARE, WIDE, EIGHT_WARPS = (128, 128, 64, 64, 64, 3), (128, 256, 64, 64, 64, 2), (128, 128, 64, 32, 64, 3)
TILES = [SQUARE, WIDE, EIGHT_WARPS, (64, 128, 32, 64, 64, 4), (64, 64, 32, 32, 64, 4), (64, 32, 32, 16, 128, 4), (32, 64, 16, 32, 64, 4),
         (16, 128, 16, 32, 64, 4), (16, 64, 16, 16, 128, 4), (16, 32, 16, 16, 128, 6),
         (16, 32, 16, 16, 256, 4), (64, 64, 32, 32, 128, 3), (128, 64, 64, 32, 64, 4)]
ROWS = (513, 1, 3, 16, 17, 64, 129)
WEIGHTS = ({}, {"WEIGHT_E4M3": None}, {"WEIGHT_E4M3": None, "SCALE_BLOCK": None})


def variant(n, k, tile, **flags):
    if "SCALE_BLOCK" in flags and tile[2:4] == (64, 64):  # twice the sums: half the warp's tile
        tile = (tile[0], 128, 64, 32, *tile[4:])
    if "SCALE_BLOCK" in flags and tile[4] > 128:
        tile = (*tile[:4], 128, tile[5])
    return {**flags, "N": n, "K": k, **dict(zip(("BM", "BN", "WM", "WN", "BK", "STAGES"), tile))}


def block(d):
    return 32 * (d["BM"] // d["WM"]) * (d["BN"] // d["WN"])


def grid(d, rows):
    outputs = d["BN"] // 2 if "GATED" in d else d["BN"]
    return -(-rows // d["BM"]) * -(-d["N"] // outputs)


def shared(d):
    return d["STAGES"] * d["BK"] * (2 * d["BM"] + (1 if "WEIGHT_E4M3" in d else 2) * d["BN"])


def tactic(d, rows, multiprocessors=132):
    """The default tile of layer `d` (N, K and flags), as measured on an H100: enough blocks first, then few reads of x."""

    def blocks(tile):
        return grid({**d, "BM": tile[0], "BN": tile[1]}, rows)

    small, medium, tall = (64, 32, 32, 16, 128, 4), (64, 64, 32, 32, 128, 3), (128, 64, 64, 32, 64, 4)
    if rows <= 16:
        return (16, 32, 16, 16, 128, 6)
    if rows <= 128 and blocks(small) <= 2 * multiprocessors:
        return small
    if rows <= 64 or rows <= 128 and blocks(medium) <= 2 * multiprocessors:
        return medium
    if blocks(SQUARE) < 3 * multiprocessors:
        return tall
    return EIGHT_WARPS if rows < 2048 else SQUARE


def key_of(source, d):
    return source, tuple(sorted(d.items(), key=str))


def compile_one(job):
    source, d, arch = job
    try:
        return launch.compile(source, d, arch)
    except RuntimeError as problem:
        return problem


class Kernels:
    """Cubins of many variants, compiled side by side before CUDA starts."""

    def __init__(self, jobs, arch):
        unique = {key_of(source, d): (source, d, arch) for source, d in jobs}
        with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
            self.cubins = dict(zip(unique, pool.map(compile_one, unique.values())))
        self.functions = {}

    def get(self, gpu, source, d, shared=0):
        key = key_of(source, d)
        if isinstance(self.cubins[key], RuntimeError):
            raise self.cubins[key]
        if key not in self.functions:
            self.functions[key] = gpu.function(self.cubins[key], "linear", shared)
        return self.functions[key]

    def mma(self, gpu, d, args, rows, pdl=False):
        gpu.launch(self.get(gpu, "linear/mma_gemm.cu", d, shared(d)), grid(d, rows), block(d), args, shared(d), pdl=pdl)


class Data:
    """Fresh operands of a layer and its result in f64 for `rows` rows."""

    def __init__(self, torch, d, rows, pad=8):
        n, k = d["N"], d["K"]
        on = dict(device="cuda")
        self.d, self.torch, self.rows = d, torch, rows
        self.half = torch.float16 if "ELEMENT_F16" in d else torch.bfloat16
        count = 2 if "GATED" in d else 1
        self.weights, self.scales, self.bias, self.dequantised = [None, None], [None, None], [None, None], []
        for i in range(count):
            if "WEIGHT_E4M3" in d:
                # Rows of all magnitudes: some mostly subnormal, some mostly 448.
                q = torch.randn(n, k, **on) * torch.exp2(torch.randint(-8, 9, (n, 1), **on).float())
                q = q.clamp(-448, 448).to(torch.float8_e4m3fn)
                if "SCALE_BLOCK" in d:
                    s = (torch.rand(-(-n // 128), -(-k // 128), **on) + 0.1) / (32 * k**0.5)
                    full = s.repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
                else:
                    s = (torch.rand(n, **on) + 0.1) / (32 * k**0.5)
                    full = s[:, None]
                self.scales[i], self.weights[i] = s, q.view(torch.uint8)
                self.dequantised.append(q.double() * full.double())
            else:
                self.weights[i] = (torch.randn(n, k, **on) / k**0.5).to(self.half)
                self.dequantised.append(self.weights[i].double())
            if "BIAS" in d:
                self.bias[i] = torch.randn(n, **on)
        self.ldx = k + pad * random.choice((0, 1, 5))
        self.x = torch.full((rows, self.ldx), float("nan"), **on)
        self.x[:, :k] = torch.randn(rows, k, **on) * 2
        self.gain = 1 + 0.1 * torch.randn(k, **on) if "NORM" in d else None
        if "NORM" not in d:
            self.x = self.x.to(self.half)
        self.wide = "OUTPUT_F32" in d or "RESIDUAL" in d
        self.residual = torch.randn(rows, n, **on) * 3 if "RESIDUAL" in d else None
        self.in_place = random.random() < 0.5
        self.reference = self.compute()

    def compute(self):
        torch, d = self.torch, self.d
        x = self.x[:, : d["K"]].double()
        if "NORM" in d:
            x = (x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-5) * self.gain.double()).to(self.half).double()
        y = [x @ w.T if b is None else x @ w.T + b.double() for w, b in zip(self.dequantised, self.bias)]
        f = torch.nn.functional
        out = [lambda v: v, f.silu, f.gelu, lambda v: f.gelu(v, approximate="tanh"), f.relu][d.get("ACTIVATION", 0)](y[0])
        out = out * y[1] if len(y) == 2 else out
        return out if self.residual is None else out + self.residual.double()

    def errors(self, out):
        """Frobenius norms of what rounding to the output's type does not explain, and of the whole difference, over the reference's
        norm or, where the rows are few and happen to be small, that of rows of the usual size. Rounding to nearest moves an element
        by at most 2^-8 of it (bf16) or 2^-11 (f16), and a subnormal f16 by 2^-25."""
        reference = self.reference[: len(out)]
        if not bool(out.isfinite().all()):
            return float("inf"), float("inf")
        size = max(float(reference.norm()), float(self.reference.norm()) * (len(out) / self.rows) ** 0.5, 1e-30)
        difference = (out.double() - reference).abs()
        excess = difference
        if not self.wide:
            relative, least = (2.0**-11, 2.0**-25) if self.half == self.torch.float16 else (2.0**-8, 0.0)
            excess = (difference - relative * reference.abs() - least).clamp_min(0)
        return float(excess.norm()) / size, float(difference.norm()) / size

    def run(self, launch_with, rows, first=0):
        """The output of `rows` rows from row `first`, and whether what lies beyond it was left alone."""
        torch = self.torch
        out = torch.full((rows + 2, self.d["N"]), float("nan"), dtype=torch.float32 if self.wide else self.half, device="cuda")
        residual = None if self.residual is None else self.residual[first:]
        if residual is not None and self.in_place:
            out[:rows] = residual[:rows]
            residual = out
        launch_with([out, self.x[first:], *self.weights, *self.scales, *self.bias, residual, self.gain, ("u32", rows), ("u32", self.ldx)], rows)
        torch.cuda.synchronize()
        return out[:rows], bool(out[rows:].isnan().all())


def tolerance(d):
    """Beyond rounding, what is left is from f32 sums: of up to 4096 terms in the tensor cores' truncating adders about 1e-5. With
    NORM one activation in some ten thousands rounds to its other neighbour, 2^-8 of it away."""
    return 3e-4 if "NORM" in d else 3e-5


def name_of(d):
    return f"{d['N']} x {d['K']} " + " ".join(k if v is None else f"{k}={v}" for k, v in d.items() if k not in ("N", "K", "NORM_EPS"))


class Verdicts:
    passed = failed = 0

    def __call__(self, good, name, text=""):
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        print("ok" if good else "FAILED", name, text, flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


FLAGS = [{}, {"OUTPUT_F32": None, "ACTIVATION": 2}, {"GATED": None, "ACTIVATION": 1}, {"RESIDUAL": None}, {"BIAS": None, "ACTIVATION": 4, "ELEMENT_F16": None},
         {"GATED": None, "ACTIVATION": 3, "BIAS": None, "OUTPUT_F32": None}, {"RESIDUAL": None, "BIAS": None}, {"OUTPUT_F32": None, "ELEMENT_F16": None},
         {"GATED": None, "RESIDUAL": None, "BIAS": None, "ACTIVATION": 1}, {"OUTPUT_F32": None, "BIAS": None, "ACTIVATION": 1},
         {"GATED": None, "ACTIVATION": 1, "ELEMENT_F16": None}]


def check_rows(verdict, d, data, launch_with):
    """Each number of rows against f64, and against the same rows of the largest run bit by bit; then rows at another place."""
    whole = None
    for rows in ROWS:
        out, clean = data.run(launch_with, rows)
        whole = out if whole is None else whole
        (error, all_of_it), same = data.errors(out), data.torch.equal(out, whole[:rows])
        text = f"{error:.1e} beyond rounding, {all_of_it:.1e} in all" + ("" if clean else " wrote rows beyond the count") + ("" if same else " other bits than among more rows")
        verdict(error <= tolerance(d) and clean and same, f"{rows} x {name_of(d)}", text)
    moved, _ = data.run(launch_with, 19, first=70)
    verdict(data.torch.equal(moved, whole[70:89]), f"moved rows: {name_of(d)}")


def layer_cases():
    """Every N with every K and weight; the flags and tiles pass by in turn, from a random one on."""
    listed, flags, tiles = [], itertools.cycle(FLAGS), itertools.cycle(TILES)
    for _ in range(random.randrange(110)):
        next(flags), next(tiles)
    for n, k, weight in itertools.product((1, 7, 24, 96, 4096), (32, 64, 96, 352, 4096), WEIGHTS):
        listed.append(variant(n, k, next(tiles), **weight, **next(flags)))
    return listed


def tile_groups():
    """Layers in all tiles: the bits must agree within a group."""
    deep = {"BIAS": None, "ACTIVATION": 1, "OUTPUT_F32": None}
    return [[variant(96, 352, tile, **weight, **deep) for tile in TILES] for weight in WEIGHTS] + [
        [variant(520, 4096, tile, **weight, **deep) for tile in TILES[::3]] for weight in WEIGHTS] + [
        [variant(96, 1120, tile, GATED=None, ACTIVATION=1, **weight) for tile in TILES[::2]] for weight in WEIGHTS]


def check(gpu, kernels, layers, groups):
    torch, verdict = gpu.torch, Verdicts()
    for d in layers:
        try:
            check_rows(verdict, d, Data(torch, d, max(ROWS)), lambda args, rows: kernels.mma(gpu, d, args, rows))
        except Exception as problem:
            verdict(False, name_of(d), problem)
    for group in groups:
        try:
            data, first = Data(torch, group[0], 129), None
            for d in group:
                out, clean = data.run(lambda args, rows: kernels.mma(gpu, d, args, rows), 129)
                first = out if first is None else first
                error, _ = data.errors(out)
                verdict(error <= tolerance(d) and clean and torch.equal(out, first), f"same bits in every tile: {name_of(d)}", f"{error:.1e}")
        except Exception as problem:
            verdict(False, name_of(group[0]), problem)
    return verdict


SHAPES = {"qkv": (6144, 4096, {}), "o": (4096, 4096, {"RESIDUAL": None}), "gate-up": (14336, 4096, {"GATED": None, "ACTIVATION": 1}), "down": (4096, 14336, {"RESIDUAL": None})}
CANDIDATES = {
    16: [(16, 32, 16, 16, 256, 4), (16, 32, 16, 16, 128, 6), (16, 32, 16, 16, 128, 8), (16, 64, 16, 16, 128, 4), (16, 64, 16, 32, 128, 4)],
    64: [(64, 32, 32, 16, 128, 4), (64, 32, 16, 16, 128, 4), (64, 64, 32, 32, 64, 4), (64, 64, 32, 32, 128, 3), (64, 64, 32, 16, 128, 3), (32, 64, 16, 32, 128, 4),
         (64, 64, 16, 32, 128, 3)],
    128: [(64, 32, 32, 16, 128, 4), (64, 64, 32, 32, 64, 4), (64, 64, 32, 32, 128, 3), (128, 32, 64, 16, 64, 4), (128, 32, 32, 16, 64, 4), (128, 64, 64, 32, 64, 4)],
    512: [SQUARE, EIGHT_WARPS, (64, 128, 32, 64, 64, 4), (64, 64, 32, 32, 64, 4), (128, 64, 64, 32, 64, 4), (64, 128, 32, 32, 64, 4)],
    2048: [SQUARE, EIGHT_WARPS, (128, 128, 64, 64, 64, 2), (128, 256, 64, 64, 64, 2)],
}


def timed():
    """(name, rows, layer) of everything timed."""
    for weight in WEIGHTS[:2]:
        for name, rows in itertools.product(SHAPES, CANDIDATES):
            n, k, flags = SHAPES[name]
            yield name, rows, [variant(n, k, tile, **weight, **flags) for tile in CANDIDATES[rows]]
        yield "cube", 4096, [variant(4096, 4096, tile, **weight) for tile in CANDIDATES[2048]]
    for rows in CANDIDATES:
        yield "qkv, block scales", rows, [variant(6144, 4096, tile, **WEIGHTS[2]) for tile in CANDIDATES[rows] if tile[4] <= 128]


def time_all(gpu, kernels):
    torch = gpu.torch
    print(torch.cuda.get_device_name())
    room = torch.randn(256 << 20, device="cuda").bfloat16()  # 512 MB
    room8 = torch.randint(0, 256, (512 << 20,), dtype=torch.uint8, device="cuda") & 0xBF
    x = torch.randn(4096, 14336, device="cuda").bfloat16()
    out = torch.zeros(4096 * 14336, device="cuda")
    for name, rows, layers in timed():
        d = layers[0]
        n, k, e4m3, matrices = d["N"], d["K"], "WEIGHT_E4M3" in d, 2 if "GATED" in d else 1
        size, source = n * k * matrices, room8 if e4m3 else room
        copies = max(1, min(8, source.numel() // size))
        weights = [source[i * size : (i + 1) * size].view(matrices, n, k) for i in range(copies)]
        scales = torch.full((n * 128,), k**-0.5, device="cuda")
        flop, replays = 2 * rows * size, 10 if rows < 512 else 5

        def speed(us):
            return f"{us:7.1f} us {flop / us * 1e-6:4.0f} T {(size * (1 if e4m3 else 2)) / us * 1e-3:5.0f} GB/s"

        tight = x[:rows, :k].contiguous()
        text = ""
        if not e4m3:
            result = torch.empty(rows, n * matrices, dtype=torch.bfloat16, device="cuda")
            text = "torch " + speed(launch.median_us(torch, lambda: [torch.matmul(tight, w.view(-1, k).T, out=result) for w in weights], replays) / copies)
        print(f"{name} {'e4m3' if e4m3 else 'bf16'} M={rows} {text}", flush=True)
        times = []
        for d in layers:
            def work():
                for w in weights:
                    args = [out, tight, w[0], w[-1], scales, scales, None, None, out, None, ("u32", rows), ("u32", k)]
                    kernels.mma(gpu, d, args, rows, pdl=True)

            try:
                times.append((launch.median_us(torch, work, replays) / copies, d))
            except Exception as problem:
                print("  ", name_of(d), problem)
        for us, d in sorted(times, key=lambda pair: pair[0])[:3]:
            print(" *" if tuple(d[key] for key in ("BM", "BN", "WM", "WN", "BK", "STAGES")) == tactic(d, rows) else "  ", speed(us), *(d[key] for key in ("BM", "BN", "WM", "WN", "BK", "STAGES")), f"{shared(d) >> 10} KB {grid(d, rows)} blocks", flush=True)


def main():
    seed = int(os.environ.get("SEED", int.from_bytes(os.urandom(4), "little")))
    print("seed", seed)
    random.seed(seed)
    layers, groups = ([], []) if "--time-only" in sys.argv else (layer_cases(), tile_groups())
    timing = "--time" in sys.argv or "--time-only" in sys.argv
    variants = layers + sum(groups, []) + ([d for _, _, each in timed() for d in each] if timing else [])
    kernels = Kernels([("linear/mma_gemm.cu", d) for d in variants], os.environ.get("ARCH", "sm_90a"))
    print(len(kernels.cubins), "compiled", *(c for c in kernels.cubins.values() if isinstance(c, RuntimeError)), flush=True)
    if "--compile-only" in sys.argv:
        return 0
    gpu = launch.Gpu()
    gpu.torch.manual_seed(seed)
    verdict = check(gpu, kernels, layers, groups)
    if timing:
        time_all(gpu, kernels)
    return verdict.finish()


if __name__ == "__main__":
    sys.exit(main())
