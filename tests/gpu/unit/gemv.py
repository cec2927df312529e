"""linear/gemv.cu against f64, and with --time its bandwidth: shape by shape and as Llama-3.1-8B's chain of 129 layers."""

import concurrent.futures
import itertools
import multiprocessing
import os
import pathlib
import random
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import launch

PAIR = 228 * 1024 // 2 - 1024  # shared memory of a block when two share a multiprocessor
SINGLE = 227 * 1024


def shared_bytes(d):
    """SHARED_BYTES of the kernel."""
    e4m3, rows, tile_rows = "WEIGHT_E4M3" in d, d["ROWS"], 16 * d["TILES"]
    columns = d["CHUNK"] // (1 if e4m3 else 2) if "X_STREAM" in d else d["K"]
    x = rows * (2 * columns + (16 if e4m3 else 64))
    stage = tile_rows * (d["CHUNK"] + 64) + (x if "X_STREAM" in d else 0)
    return d["STAGES"] * (stage + 24) + (0 if "X_STREAM" in d else x) + 8 * rows * tile_rows * 4


def plan(d, **forced):
    """The tuning macros: x whole in shared memory where four stages fit beside it, else through the ring."""

    def with_stages(budget, most=6, **tuning):
        t = {**d, "CHUNK": 1024, "TILES": 1, **tuning, "STAGES": 1}
        one, two = shared_bytes(t), shared_bytes({**t, "STAGES": 2})
        t["STAGES"] = min(most, 1 + (budget - one) // (two - one)) if one <= budget else 0
        t["LIMIT"] = min(t["STAGES"], max(1, 32768 // (t["CHUNK"] * 16 * t["TILES"])))
        return t

    if forced:
        budget = forced.pop("budget", PAIR)
        limit = forced.pop("LIMIT", None)
        most = forced.pop("most", 12)
        t = with_stages(budget, most, **forced)
        if t["STAGES"] == 0:
            t = with_stages(budget, most, **forced, X_STREAM=None)
        if limit:
            t["LIMIT"] = min(limit, t["STAGES"])
        return t
    t = with_stages(PAIR)
    if t["STAGES"] >= 4:
        return t
    if "NORM" in d:
        t = with_stages(PAIR, CHUNK=512)
        return t if t["STAGES"] >= 4 else with_stages(SINGLE)
    if d["ROWS"] <= 4:
        return with_stages(PAIR, X_STREAM=None)
    return with_stages(PAIR, X_STREAM=None, TILES=2, CHUNK=512)


def units(d):
    outputs = (8 if "GATED" in d else 16) * d["TILES"]
    return (d["N"] + outputs - 1) // outputs


def compile_one(job):
    source, d, arch = job
    return launch.compile(source, {k: v for k, v in d.items() if k != "blocks"}, arch)


class Kernels:
    """Cubins of many variants, compiled side by side before CUDA starts."""

    def __init__(self, variants, arch, extra=()):
        unique = {tuple(sorted(v.items(), key=str)): v for v in variants}
        jobs = [("linear/gemv.cu", v, arch) for v in unique.values()] + list(extra)
        with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
            cubins = list(pool.map(compile_one, jobs))
        self.cubins = dict(zip(unique, cubins))
        self.extra = cubins[len(unique):]
        self.functions = {}

    def get(self, gpu, d):
        key = tuple(sorted(d.items(), key=str))
        if key not in self.functions:
            self.functions[key] = gpu.function(self.cubins[key], "linear", shared_bytes(d))
        return self.functions[key]

    def run(self, gpu, d, args, pdl=False):
        blocks = min(units(d), d.get("blocks", 2) * gpu.torch.cuda.get_device_properties(0).multi_processor_count)
        gpu.launch(self.get(gpu, d), blocks, 288, args, shared_bytes(d), pdl=pdl)


def case(n, k, capacity, rows, tuning=None, **flags):
    d = {"N": n, "K": k, "ROWS": capacity, **flags}
    if "NORM" in d:
        d["NORM_EPS"] = "1e-5f"
    return plan(d, **(tuning or {})), rows


def cases():
    e4m3 = {"WEIGHT_E4M3": None}
    block = {**e4m3, "SCALE_BLOCK": None}
    listed = []
    for weight in ({}, e4m3, block):
        least = 128 if weight else 64
        listed += [case(n, k, c, r, **weight) for n, k, c, r in (
            (8, least, 1, 1), (24, least * 3, 2, 2), (136, 1408, 4, 3), (1000, 2176, 8, 5), (4096, 4096, 1, 1), (6144, 4096, 8, 8), (1032, 14336, 16, 11),
            (4096, 14336, 1, 1), (2056, 5120, 16, 16), (13, least, 1, 1))]
        listed += [case(n, k, c, r, GATED=None, ACTIVATION=1, BIAS=None, **weight) for n, k, c, r in (
            (8, least, 1, 1), (152, 1152, 4, 2), (14336, 4096, 1, 1), (1416, 4096, 16, 11))]
        listed += [case(n, k, c, r, RESIDUAL=None, NORM=None, **weight) for n, k, c, r in (
            (8, least, 2, 1), (520, 4096, 1, 1), (3072, 2048, 8, 5), (264, 4096, 16, 16), (72, 1408, 4, 3))]
        listed += [case(n, k, 16, r, tuning={"X_STREAM": None, "TILES": 2, "CHUNK": 1024}, OUTPUT_F32=None, **weight) for n, k, r in ((520, 14336, 16), (40, 1408, 9))]
        listed += [case(264, 4096, 8, 7, tuning={"CHUNK": 512, "TILES": 2}, OUTPUT_F32=None, GATED=None, **weight)]
        listed += [case(264, 4096, 8, 7, tuning={"COPY_BULK": 0}, OUTPUT_F32=None, **weight),
                   case(272, 14336, 2, 2, tuning={"COPY_BULK": 0, "X_STREAM": None}, OUTPUT_F32=None, GATED=None, **weight)]
    for activation in range(5):
        listed.append(case(264, 1024, 4, 3, ACTIVATION=activation, OUTPUT_F32=None, BIAS=None))
    listed += [case(264, 1024, 8, 5, ELEMENT_F16=None, **w) for w in ({}, e4m3, block)]
    listed.append(case(264, 1024, 1, 1, ELEMENT_F16=None, NORM=None, GATED=None, ACTIVATION=1))
    listed.append(case(128256, 4096, 1, 1, OUTPUT_F32=None))
    return listed


def tolerance(d):
    """Frobenius: rounding to half_t once is at most 2^-8 = 3.9e-3 (bf16; 1.7e-3 over many) or an eighth of that (f16); f32 sums of up to 14336 terms in
    the tensor core's truncating adders stay below 3e-5. With NORM an activation in 10^4 may round to its other neighbour."""
    if "OUTPUT_F32" not in d and "RESIDUAL" not in d:
        return 5e-4 if "ELEMENT_F16" in d else 4e-3
    return 3e-4 if "NORM" in d else 5e-5


class Data:
    def __init__(self, torch, d, rows):
        n, k = d["N"], d["K"]
        self.half = torch.float16 if "ELEMENT_F16" in d else torch.bfloat16
        on = dict(device="cuda")
        weights, self.dequantised = [], []
        self.scales = [None, None]
        for i in range(2 if "GATED" in d else 1):
            w = torch.randn(n, k, **on) / k**0.5
            if "WEIGHT_E4M3" in d:
                # Steep: many subnormals, some saturated.
                q = (w * k**0.5 * torch.exp2(torch.randint(-10, 8, (n, 1), **on).float())).clamp(-448, 448).to(torch.float8_e4m3fn)
                if "SCALE_BLOCK" in d:
                    s = torch.rand((n + 127) // 128, (k + 127) // 128, **on) + 0.1
                    full = s.repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
                else:
                    s = torch.rand(n, **on) + 0.1
                    full = s[:, None]
                self.scales[i] = s
                weights.append(q.view(torch.uint8))
                self.dequantised.append(q.double() * full.double())
            else:
                weights.append(w.to(self.half))
                self.dequantised.append(weights[-1].double())
        self.weights = weights + [None] * (2 - len(weights))
        self.ldx = k + 8 * random.choice((0, 1, 5))
        self.gain = (1 + 0.1 * torch.randn(k, **on)) if "NORM" in d else None
        self.x = torch.full((rows, self.ldx), float("nan"), **on)
        self.x[:, :k] = torch.randn(rows, k, **on) * 2
        if "NORM" not in d:
            self.x = self.x.to(self.half)
        self.bias = [torch.randn(n, **on) for _ in self.dequantised] + [None] if "BIAS" in d else [None, None]
        wide = "OUTPUT_F32" in d or "RESIDUAL" in d
        self.out = torch.full((rows + 2, n), float("nan"), dtype=torch.float32 if wide else self.half, **on)
        self.residual = None
        if "RESIDUAL" in d:
            self.residual = self.out  # in place, as decode does it
            self.out[:rows] = torch.randn(rows, n, **on) * 3
        self.reference = self.compute(torch, d, rows)

    def compute(self, torch, d, rows):
        x = self.x[:, : d["K"]].double()
        if "NORM" in d:
            x = (x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-5) * self.gain.double()).to(self.half).double()
        y = [x @ w.T for w in self.dequantised]
        y = [a + b.double() if b is not None else a for a, b in zip(y, self.bias)]
        f = torch.nn.functional
        first = [lambda v: v, f.silu, f.gelu, lambda v: f.gelu(v, approximate="tanh"), f.relu][d.get("ACTIVATION", 0)](y[0])
        if len(y) == 2:
            first = first * y[1]
        if self.residual is not None:
            first = first + self.residual[:rows].double()
        return first

    def args(self, rows):
        return [self.out, self.x, *self.weights, *self.scales, self.bias[0], self.bias[1] if len(self.bias) > 1 else None, self.residual, self.gain,
                ("u32", rows), ("u32", self.ldx)]


def name_of(d, rows):
    rest = " ".join(k if v is None else f"{k}={v}" for k, v in d.items() if k not in ("N", "K", "ROWS", "NORM_EPS"))
    return f"{rows}/{d['ROWS']} x {d['N']} x {d['K']} {rest}"


def check(gpu, kernels, listed, independent):
    torch, passed, failed = gpu.torch, 0, 0

    def verdict(good, name, text):
        nonlocal passed, failed
        passed, failed = passed + good, failed + (not good)
        print("ok" if good else "FAILED", name, text, flush=True)

    for d, rows in listed:
        try:
            data = Data(torch, d, rows)
            kernels.run(gpu, d, data.args(rows))
            torch.cuda.synchronize()
            error = launch.relative(data.out[:rows], data.reference)
            clean = bool(data.out[rows:].isnan().all())
            verdict(error <= tolerance(d) and clean, name_of(d, rows), f"{error:.1e}" + ("" if clean else " wrote rows beyond the count"))
        except Exception as problem:
            verdict(False, name_of(d, rows), problem)

    for d, rows in independent:
        # One row alone, at another place, among other rows: the same bits.
        data = Data(torch, d, rows)
        kernels.run(gpu, d, data.args(rows))
        all_rows = data.out.clone()
        last = data.x[rows - 1].clone()
        data.x.fill_(float("nan"))
        data.x[0] = last
        data.out.fill_(float("nan"))
        kernels.run(gpu, d, data.args(1))
        torch.cuda.synchronize()
        verdict(bool(torch.equal(all_rows[rows - 1], data.out[0])) and bool(data.out[1:].isnan().all()), "row alone: " + name_of(d, rows), "")
    return passed, failed


READ_ONLY = """
#include "common/ptx.cuh"
extern "C" __global__ void __launch_bounds__(1024) read_only(const uint4 *source, u32 *out, u64 count) {
    u32 sum = 0;
    u64 step = (u64)gridDim.x * 1024;
    for (u64 i = blockIdx.x * 1024ull + threadIdx.x; i < count; i += step * 8) {
        uint4 v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = i + j * step < count ? source[i + j * step] : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < 8; j++) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    if (sum == 0x9e3779b9u) *out = sum;
}
"""

SHAPES = {"qkv": (6144, 4096), "o": (4096, 4096), "gate-up": (14336, 4096), "down": (4096, 14336), "head": (128256, 4096)}


def layer(name, capacity, e4m3, **forced):
    n, k = SHAPES[name]
    d = {"N": n, "K": k, "ROWS": capacity}
    if name == "gate-up":
        d.update(GATED=None, ACTIVATION=1)
    if name == "head":
        d.update(OUTPUT_F32=None)
    elif e4m3:
        d.update(WEIGHT_E4M3=None)
    return plan(d, **forced)


def chain_plan(capacity, e4m3, forced=None):
    """`forced`: tuning of every shape (a dict), or of some by name."""
    forced = forced or {}
    by_name = forced if set(forced) & set(SHAPES) else {name: forced for name in SHAPES}
    return {name: layer(name, capacity, e4m3, **by_name.get(name, {})) for name in SHAPES}


class Chain:
    def __init__(self, gpu):
        torch = self.torch = gpu.torch
        self.gpu = gpu
        self.layers = {False: [], True: []}
        for e4m3 in (False, True):
            for _ in range(32):
                w = {}
                for name in ("qkv", "o", "gate", "up", "down"):
                    n, k = SHAPES.get(name, SHAPES["gate-up"])
                    if e4m3:
                        w[name] = (torch.randint(0, 256, (n, k), dtype=torch.uint8, device="cuda") & 0xbf, torch.full((n,), 1 / k**0.5, device="cuda"))
                    else:
                        w[name] = (torch.empty(n, k, dtype=torch.bfloat16, device="cuda").normal_(0, k**-0.5), None)
                self.layers[e4m3].append(w)
        self.head = torch.empty(SHAPES["head"], dtype=torch.bfloat16, device="cuda").normal_(0, 1 / 64)
        new = lambda n: torch.randn(16, n, device="cuda").bfloat16()
        self.x, self.qkv, self.o, self.h = new(4096), new(6144), new(4096), new(14336)
        self.logits = torch.zeros(16, 128256, device="cuda")

    def run(self, kernels, plans, name, e4m3, i, rows, pdl):
        w = self.layers[e4m3][i % 32]
        out, x, first, second = {
            "qkv": (self.qkv, self.x, "qkv", None), "o": (self.o, self.qkv, "o", None), "gate-up": (self.h, self.o, "gate", "up"),
            "down": (self.x, self.h, "down", None), "head": (self.logits, self.x, None, None)}[name]
        weight, scale = (self.head, None) if name == "head" else w[first]
        weight2, scale2 = w[second] if second else (None, None)
        args = [out, x, weight, weight2, scale, scale2, None, None, None, None, ("u32", rows), ("u32", x.shape[1])]
        kernels.run(self.gpu, plans[name], args, pdl)

    def step_us(self, kernels, plans, e4m3, rows, pdl, replays=10):
        def work():
            for i in range(32):
                for name in ("qkv", "o", "gate-up", "down"):
                    self.run(kernels, plans, name, e4m3, i, rows, pdl)
            self.run(kernels, plans, "head", e4m3, 0, rows, pdl)

        return launch.median_us(self.torch, work, replays)

    def shape_us(self, kernels, plans, name, e4m3, rows, pdl):
        count = 4 if name == "head" else 32

        def work():
            for i in range(count):
                self.run(kernels, plans, name, e4m3, i, rows, pdl)

        return launch.median_us(self.torch, work, 10) / count


def step_bytes(e4m3):
    layers = sum(n * k * (2 if name == "gate-up" else 1) for name, (n, k) in SHAPES.items() if name != "head") * 32
    return layers * (1 if e4m3 else 2) + 128256 * 4096 * 2


def time_all(gpu, kernels, rows_listed, trials):
    torch = gpu.torch
    chain = Chain(gpu)
    read = gpu.function(kernels.extra[0], "read_only")
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    flag = torch.zeros(1, dtype=torch.int32, device="cuda")
    count = chain.head.numel() // 8
    rate = 1e-3 * chain.head.numel() * 2 / launch.median_us(torch, lambda: gpu.launch(read, multiprocessors * 2, 1024, [chain.head, flag, ("u64", count)]))
    print(f"{torch.cuda.get_device_name()}: read-only {rate:.0f} GB/s", flush=True)
    for rows, e4m3, tuning in trials:
        plans = chain_plan(rows, e4m3, tuning)
        step = chain.step_us(kernels, plans, e4m3, rows, True, 6)
        each = [chain.shape_us(kernels, plans, name, e4m3, rows, True) for name in SHAPES]
        stages = [plans[name]["STAGES"] for name in SHAPES]
        print(f"M={rows} {'fp8 ' if e4m3 else 'bf16'} {step:6.0f} / {step_bytes(e4m3) / rate * 1e-3:.0f} us", *(f"{u:6.2f}" for u in each), str(tuning).replace("'", "").replace(": None", ""), stages, flush=True)
    if trials:
        return
    for e4m3, rows in itertools.product((False, True), rows_listed):
        plans = chain_plan(rows, e4m3)
        times = [chain.step_us(kernels, plans, e4m3, rows, pdl) for pdl in (False, True)]
        floor = step_bytes(e4m3) / rate * 1e-3
        print(f"chain M={rows} {'fp8' if e4m3 else 'bf16'}: {times[0]:.0f} us, with PDL {times[1]:.0f}, floor {floor:.0f} ({floor / times[1] * 100:.1f} %)", flush=True)
        for name, (n, k) in SHAPES.items():
            size = n * k * (2 if name == "gate-up" else 1) * (1 if e4m3 and name != "head" else 2)
            plain, pdl = (chain.shape_us(kernels, plans, name, e4m3, rows, p) for p in (False, True))
            print(f"  {name:8} {plain:7.2f} us {size / plain * 1e-3:5.0f} GB/s   with PDL {pdl:7.2f} us {size / pdl * 1e-3:5.0f} GB/s", flush=True)


def main():
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    random.seed(seed)
    timed, listed = "--time" in sys.argv, [] if "--time-only" in sys.argv else cases()
    timed = timed or "--time-only" in sys.argv
    independent = [] if not listed else [case(520, 4096, 8, 5), case(520, 4096, 16, 13, WEIGHT_E4M3=None), case(520, 14336, 16, 16, WEIGHT_E4M3=None, SCALE_BLOCK=None)]
    rows_listed = (1, 4, 8, 16)
    trials = eval(os.environ.get("TRIALS", "[]"))
    variants = [d for d, _ in listed + independent]
    extra = []
    if timed:
        variants += [d for e, r in itertools.product((False, True), [] if trials else rows_listed) for d in chain_plan(r, e).values()]
        variants += [d for r, e, t in trials for d in chain_plan(r, e, t).values()]
        path = pathlib.Path(tempfile.mkdtemp()) / "read_only.cu"
        path.write_text(READ_ONLY)
        extra = [(path, {}, "sm_90a")]
    arch = os.environ.get("ARCH", "sm_90a")
    kernels = Kernels(variants, arch, [(str(p), d, arch) for p, d, _ in extra])
    if "--compile-only" in sys.argv:
        print(len(kernels.cubins), "compiled")
        return
    gpu = launch.Gpu()
    gpu.torch.manual_seed(seed)
    passed, failed = check(gpu, kernels, listed, independent)
    if timed:
        time_all(gpu, kernels, rows_listed, trials)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
