"""kernels/linear/sm90_gemm.cu against f64, and beside cuBLAS.

    sm90_gemm.py            every variant, in groups of their own processes
    sm90_gemm.py --time     the shapes of Llama-3.1-8B with the default tactics
    sm90_gemm.py --sweep    the candidates that the tactics were chosen from
"""

import ctypes as c
import multiprocessing
import os
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import launch

SOURCE = "linear/sm90_gemm.cu"
TUNING = ("BM", "BN", "STAGES", "SPLIT_K", "RESIDENT", "CLUSTER", "SHARE_X", "X_ROWS", "GROUP_M")


def ceil(a, b):
    return -(-a // b)


# ---- Default tactics: what the sweep found ----
def tactic(m, n, k, e4m3, gated):
    if m <= 64:
        return dict(BM=64, BN=256 if gated else 128, STAGES=5 if gated else 8, SPLIT_K=1 if gated else max(1, min(4, 132 // ceil(n, 128))))
    if m <= 128:
        return dict(BM=128, BN=256 if gated else 128, STAGES=4 if gated else 6, SPLIT_K=1 if gated else max(1, min(4, 132 // ceil(n, 128))))
    return dict(BM=128, BN=256, STAGES=4, CLUSTER=2)


_cubins = {}


def compile_one(defines):
    try:
        return launch.compile(SOURCE, dict(defines))
    except Exception as e:
        return str(e)


def compile_all(list_of_defines):
    """Cubins of many variants, compiled side by side."""
    wanted = sorted({tuple(sorted(d.items())) for d in list_of_defines} - set(_cubins))
    with multiprocessing.get_context("spawn").Pool(min(16, os.cpu_count())) as pool:
        for key, cubin in zip(wanted, pool.map(compile_one, wanted, chunksize=1)):
            _cubins[key] = cubin


class Gemm:
    """One specialisation: its launch parameters are what an engine needs, too."""

    def __init__(self, gpu, defines):
        self.gpu, self.d = gpu, defines
        get = lambda name, default=0: defines.get(name, default)
        self.n, self.k, self.bm, self.bn = (defines[i] for i in ("N", "K", "BM", "BN"))
        self.split, self.cluster, self.share_x = get("SPLIT_K", 1), get("CLUSTER", 1), get("SHARE_X")
        self.x_rows, self.resident = get("X_ROWS", self.bm), get("RESIDENT", 1)
        self.e4m3, self.gated = get("E4M3"), get("GATED")
        self.f32 = get("OUTPUT_F32") or get("RESIDUAL")
        self.weight_rows = self.bn // 2 if self.gated else self.bn
        self.shared = 1024 + defines["STAGES"] * ((self.bm + self.bn) * 128 + 16)
        key = tuple(sorted(defines.items()))
        if key not in _cubins:
            _cubins[key] = compile_one(key)
        if isinstance(_cubins[key], str):
            raise RuntimeError(_cubins[key])
        self.function = gpu.function(_cubins[key], "linear", self.shared)
        # Clusters that fit the device at once.
        attribute = (launch.Attribute * 1)(launch.Attribute(4, 0, (c.c_uint * 16)(self.cluster, 1, 1)))
        config = launch.LaunchConfig(self.cluster, 1, 1, 384, 1, 1, self.shared, None, c.addressof(attribute), 1)
        clusters = c.c_int()
        gpu.check(gpu.d.cuOccupancyMaxActiveClusters(c.byref(clusters), self.function, c.byref(config)), "clusters")
        self.fits = clusters.value

    def tiles(self, rows):
        up = lambda a, b: ceil(a, b) * b
        return up(ceil(rows, self.bm), 1 if self.share_x else self.cluster) * up(ceil(self.n, self.weight_rows), self.cluster if self.share_x else 1)

    def map(self, tensor, box_rows):
        rows, k = tensor.shape
        size = tensor.element_size()
        return self.gpu.tensor_map(tensor, 0 if size == 1 else 9, (k, rows), (tensor.stride(0) * size,), (128 // size, box_rows))

    def maps(self, x, weight, weight2):
        x_map = self.map(x, self.x_rows // (self.cluster if self.share_x else 1))
        w = [self.map(t, self.weight_rows // (1 if self.share_x else self.cluster)) for t in (weight, weight2 if weight2 is not None else weight)]
        return x_map, *w

    def workspace(self, rows):
        torch = self.gpu.torch
        tiles = self.tiles(rows)
        partial = torch.empty(tiles * self.split * self.bm * self.bn if self.split > 1 else 1, device="cuda")
        return partial, torch.zeros(tiles * 8, dtype=torch.int32, device="cuda")

    def __call__(self, maps, out, rows, work, scale=None, scale2=None, x_scale=None, bias=None, bias2=None, residual=None, per_sm=None, pdl=False):
        # Blocks per multiprocessor can be fewer than fit: the next kernel's then start early.
        fits = self.fits if per_sm is None else self.fits * per_sm // self.resident
        grid = min(self.tiles(rows) * self.split // self.cluster, fits) * self.cluster
        self.gpu.launch(
            self.function, grid, 384, [*maps, out, scale, scale2, x_scale, bias, bias2, residual, *work, ("u32", rows)],
            shared=self.shared, cluster=(self.cluster, 1, 1) if self.cluster > 1 else None, pdl=pdl)


# ---- Correctness ----
# f64 references from the same rounded inputs. A bf16 result differs by its rounding, 2^-9 of each element at most, beside what its
# sums are off. f32 results of bf16 carry the tensor cores' f32 sums: 1e-5. e4m3 sums are kept to about 14 bits inside 128
# of K: 1e-3 in f32.
ROWS = (1, 17, 64, 65, 127, 128, 200, 2048)
SMALL = dict(N=328, K=448)
TILES = {"wide": dict(BM=128, BN=256, STAGES=4), "few": dict(BM=64, BN=128, STAGES=4, RESIDENT=2)}


def cases(group):
    fp8 = dict(E4M3=1, N=328, K=640)
    block = dict(E4M3=1, SCALE_BLOCK=1, N=456, K=640)
    if group == "bf16":
        for tile in TILES.values():
            yield {**SMALL, **tile}
            yield {**SMALL, **tile, "OUTPUT_F32": 1, "BIAS": 1}
            yield {**SMALL, **tile, "GATED": 1, "ACTIVATION": 1}
            yield {**SMALL, **tile, "RESIDUAL": 1, "BIAS": 1, "ACTIVATION": 2}
            yield {**SMALL, **tile, "GATED": 1, "BIAS": 1, "ACTIVATION": 3, "OUTPUT_F32": 1}
        yield {**SMALL, "BM": 64, "BN": 64, "STAGES": 6, "ACTIVATION": 4}
        yield {**SMALL, "BM": 64, "BN": 192, "STAGES": 5, "OUTPUT_F32": 1}
        yield {**SMALL, "BM": 64, "BN": 256, "STAGES": 5, "OUTPUT_F32": 1, "GATED": 1}
        yield {**SMALL, "BM": 128, "BN": 64, "STAGES": 3, "GATED": 1, "ACTIVATION": 1}
        yield {**SMALL, "BM": 128, "BN": 192, "STAGES": 2, "OUTPUT_F32": 1, "GROUP_M": 3}
        yield {**SMALL, "N": 4096, "K": 4096, "BM": 128, "BN": 256, "STAGES": 4, "OUTPUT_F32": 1}
    if group == "split":
        for tile in TILES.values():
            yield {**SMALL, **tile, "SPLIT_K": 3, "OUTPUT_F32": 1}
            yield {**SMALL, **tile, "SPLIT_K": 7, "RESIDUAL": 1}
            yield {**SMALL, **tile, "SPLIT_K": 2, "GATED": 1, "ACTIVATION": 1}
            yield {**fp8, **tile, "SPLIT_K": 4, "BIAS": 1}
    if group == "cluster":
        for tile in TILES.values():
            for cluster in (2, 4):
                yield {**SMALL, **tile, "CLUSTER": cluster, "OUTPUT_F32": 1}
                yield {**SMALL, **tile, "CLUSTER": cluster, "SHARE_X": 1, "SPLIT_K": 2}
                yield {**SMALL, **tile, "CLUSTER": cluster, "GATED": 1, "ACTIVATION": 1}
            yield {**fp8, **tile, "CLUSTER": 2, "SHARE_X": 1, "GATED": 1}
        yield {**SMALL, **TILES["few"], "X_ROWS": 32, "CLUSTER": 2, "SHARE_X": 1}
    if group == "e4m3":
        for tile in (*TILES.values(), dict(BM=128, BN=192, STAGES=4), dict(BM=64, BN=256, STAGES=5), dict(BM=128, BN=128, STAGES=6)):
            yield {**fp8, **tile}
            yield {**fp8, **tile, "OUTPUT_F32": 1, "BIAS": 1}
            yield {**fp8, **tile, "GATED": 1, "ACTIVATION": 1} if tile["BN"] % 128 == 0 else {**fp8, **tile, "RESIDUAL": 1}
            if tile["BN"] != 192:
                yield {**block, **tile, "OUTPUT_F32": 1}
                yield {**block, **tile, "GATED": 1, "BIAS": 1}
        yield {**block, "BM": 64, "BN": 64, "STAGES": 5, "RESIDUAL": 1}


def label(d):
    return " ".join(f"{k}={v}" for k, v in d.items())


class Data:
    """Random operands of a variant and the f64 result; x has more rows than any launch, the rest NaN."""

    def __init__(self, torch, d, most):
        g = lambda *shape: torch.randn(*shape, device="cuda")
        n, k = d["N"], d["K"]
        self.torch, self.d, self.n = torch, d, n
        e4m3, blocks = d.get("E4M3"), d.get("SCALE_BLOCK")
        quantise = (lambda t: (t * 20).to(torch.float8_e4m3fn)) if e4m3 else (lambda t: t.to(torch.bfloat16))
        # A row stride beyond K, as in a wider buffer.
        full = torch.full((most + 150, k + 64), float("nan"), device="cuda").to(torch.float8_e4m3fn if e4m3 else torch.bfloat16)
        self.x = full[:, :k]
        self.x[:most] = quantise(g(most, k))
        self.weight, self.weight2 = (quantise(g(n, k) / k**0.5) for _ in range(2))
        self.scale = self.scale2 = self.x_scale = self.bias = self.bias2 = None
        if blocks:
            self.x_scale = torch.rand(most, k // 128, device="cuda") + 0.5
            self.scale, self.scale2 = (torch.rand(ceil(n, 128), k // 128, device="cuda") / 400 + 0.001 for _ in range(2))
        elif e4m3:
            self.x_scale = torch.rand(most, device="cuda") + 0.5
            self.scale, self.scale2 = (torch.rand(n, device="cuda") / 400 + 0.001 for _ in range(2))
        if d.get("BIAS"):
            self.bias, self.bias2 = g(n), g(n)
        self.residual = g(most, n) if d.get("RESIDUAL") else None
        self.reference = self.compute(most)

    def product(self, rows, weight, scale, bias):
        torch, d = self.torch, self.d
        x, w = self.x[:rows].double(), weight.double()
        if d.get("SCALE_BLOCK"):
            x = x * self.x_scale[:rows].double().repeat_interleave(128, 1)
            w = w * scale.double().repeat_interleave(128, 0)[: self.n].repeat_interleave(128, 1)
        y = x @ w.T
        if d.get("E4M3") and not d.get("SCALE_BLOCK"):
            y = y * scale.double() * self.x_scale[:rows, None].double()
        return y if bias is None else y + bias.double()

    def compute(self, rows):
        f = self.torch.nn.functional
        act = [lambda v: v, f.silu, f.gelu, lambda v: f.gelu(v, approximate="tanh"), f.relu][self.d.get("ACTIVATION", 0)]
        y = act(self.product(rows, self.weight, self.scale, self.bias))
        if self.d.get("GATED"):
            y = y * self.product(rows, self.weight2, self.scale2, self.bias2)
        return y if self.residual is None else y + self.residual.double()

    def arguments(self):
        return dict(scale=self.scale, scale2=self.scale2, x_scale=self.x_scale, bias=self.bias, bias2=self.bias2)


def run_group(group):
    gpu = launch.Gpu()
    torch = gpu.torch
    seed = random.randrange(1 << 30)
    torch.manual_seed(seed)
    print(f"group {group} seed {seed}")
    passed = failed = 0

    def verdict(good, name, text):
        nonlocal passed, failed
        passed, failed = passed + good, failed + (not good)
        print("ok" if good else "FAILED", name, text)

    variants = list(cases(group))
    if group == "e4m3":
        variants.append(dict(N=512, K=14336, E4M3=1, OUTPUT_F32=1, BM=128, BN=256, STAGES=4))
    compile_all(variants)
    for d in variants:
        try:
            if d["K"] == 14336:
                verdict(*accuracy(gpu, d))
                continue
            gemm, data = Gemm(gpu, d), Data(torch, d, 2048)
            # Of a gated layer two sums are multiplied.
            sums = (1e-3 if d.get("E4M3") else 1e-5) * (2 if d.get("GATED") else 1)
            tolerance = sums if gemm.f32 else 2e-3 + sums
            work = gemm.workspace(2048)
            worst, bad, previous = 0.0, [], None
            for rows in ROWS:
                if rows > gemm.x_rows and gemm.x_rows < gemm.bm:
                    continue
                results = []
                for _ in range(2):
                    out = torch.full((rows + 140, d["N"]), float("nan"), device="cuda", dtype=torch.float32 if gemm.f32 else torch.bfloat16)
                    if data.residual is not None:
                        out[:rows] = data.residual[:rows]
                    # Once the map ends with the rows, so that tiles reach beyond it.
                    x = data.x[:rows] if rows == 200 else data.x
                    gemm(gemm.maps(x, data.weight, data.weight2), out, rows, work, residual=out if data.residual is not None else None, **data.arguments())
                    torch.cuda.synchronize()
                    results.append(out)
                error = launch.relative(out[:rows], data.reference[:rows])
                worst = max(worst, error)
                if not error < tolerance:
                    bad.append(f"M={rows} error {error:.1e}")
                if not bool(out[rows:].isnan().all()):
                    bad.append(f"M={rows} wrote beyond its rows")
                if not torch.equal(results[0][:rows], results[1][:rows]):
                    bad.append(f"M={rows} differs between two launches")
                if previous is not None and not torch.equal(previous, out[: len(previous)]):
                    bad.append(f"M={rows} rows depend on the row count")
                previous = out[:rows]
            if int(work[1].count_nonzero()):
                bad.append("counters are not zero")
            verdict(not bad, label(d), f"{worst:.1e} " + "; ".join(bad[:4]))
        except Exception as e:
            verdict(False, label(d), str(e)[:500])
    print(f"{passed} passed, {failed} failed")
    return failed


def accuracy(gpu, d):
    """Positive operands at large K: the tensor cores' own e4m3 sums drift, promoted ones must not."""
    torch = gpu.torch
    x = (torch.rand(256, d["K"], device="cuda") + 0.1).to(torch.float8_e4m3fn)
    w = (torch.rand(d["N"], d["K"], device="cuda") + 0.1).to(torch.float8_e4m3fn)
    one, ones = torch.ones(256, device="cuda"), torch.ones(d["N"], device="cuda")
    gemm = Gemm(gpu, d)
    out = torch.empty(256, d["N"], device="cuda")
    gemm(gemm.maps(x, w, None), out, 256, gemm.workspace(256), scale=ones, x_scale=one)
    reference = x.double() @ w.double().T
    raw = torch._scaled_mm(x, w.T, one[:1, None].expand(256, 1).contiguous(), ones[None].contiguous(), out_dtype=torch.bfloat16, use_fast_accum=True)
    ours, theirs = launch.relative(out, reference), launch.relative(raw, reference)
    # Of 128 products' sum each is cut off at 2^-13 of that sum: some 4e-4.
    return ours < 1e-3 and ours < theirs / 2, label(d), f"promoted {ours:.1e}, cuBLAS with fast accumulation (bf16 out) {theirs:.1e}"


# ---- Time ----
SHAPES = {"qkv": (6144, 4096), "o": (4096, 4096), "gate-up": (14336, 4096), "down": (4096, 14336), "head": (128256, 4096)}
EPILOGUES = {"o": dict(RESIDUAL=1), "down": dict(RESIDUAL=1), "gate-up": dict(GATED=1, ACTIVATION=1), "head": dict(OUTPUT_F32=1)}


class Bench:
    """One shape with enough copies of its weights that each launch finds them outside L2."""

    def __init__(self, gpu, name, e4m3):
        torch = gpu.torch
        self.gpu, self.torch, self.name, self.e4m3 = gpu, torch, name, e4m3
        self.n, self.k = SHAPES[name]
        self.gated = name == "gate-up"
        total = self.n * (2 if self.gated else 1)
        self.bytes = total * self.k * (1 if e4m3 else 2)
        kind = torch.float8_e4m3fn if e4m3 else torch.bfloat16
        self.weights = [(torch.randn(total, self.k, device="cuda", dtype=torch.bfloat16) * (1 if e4m3 else self.k**-0.5)).to(kind) for _ in range(max(2, ceil(300 << 20, self.bytes)))]
        self.kind = kind
        self.scale = torch.full((total,), self.k**-0.5, device="cuda")

    def x(self, m):
        return self.torch.randn(m, self.k, device="cuda", dtype=self.torch.bfloat16).to(self.kind)

    def median(self, call, budget_us=15000):
        """`call(i)` launches on weights i; median of some graph replays over all of them, per launch."""
        torch, count = self.torch, len(self.weights)
        call(0)
        torch.cuda.synchronize()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for i in range(count):
            call(i)
        end.record()
        end.synchronize()
        rough = begin.elapsed_time(end) * 1000 / count
        passes = max(1, int(1500 / (rough * count)))
        replays = max(3, min(9, int(budget_us / (rough * count * passes))))

        def work():
            for _ in range(passes):
                for i in range(count):
                    call(i)

        return launch.median_us(torch, work, replays, 1) / (passes * count)

    def ours(self, m, config):
        torch = self.torch
        per_sm = config.pop("per_sm", None)
        d = defines(self.name, self.e4m3, config)
        gemm, x = Gemm(self.gpu, d), self.x(m)
        halves = [(w[: self.n], w[self.n :]) if self.gated else (w, None) for w in self.weights]
        maps = [gemm.maps(x, *h) for h in halves]
        out = torch.zeros(m, self.n, device="cuda", dtype=torch.float32 if gemm.f32 else torch.bfloat16)
        work = gemm.workspace(m)
        scales = dict(scale=self.scale, scale2=self.scale[self.n :] if self.gated else None, x_scale=torch.ones(m, device="cuda")) if self.e4m3 else {}
        call = lambda i: gemm(maps[i], out, m, work, residual=out if "RESIDUAL" in d else None, per_sm=per_sm, pdl=True, **scales)
        call(0)
        torch.cuda.synchronize()
        reference = (x.to(torch.bfloat16) @ self.weights[0].to(torch.bfloat16).T).float() * (self.k**-0.5 if self.e4m3 else 1)
        if self.gated:
            reference = torch.nn.functional.silu(reference[:, : self.n]) * reference[:, self.n :]
        error = launch.relative(out, reference)
        us = self.median(call)
        return us if error < 1e-2 else float("nan")

    def theirs(self, m):
        torch, x = self.torch, self.x(m)
        if self.e4m3:
            one, scale = torch.ones(m, 1, device="cuda"), self.scale[None]
            return self.median(lambda i: torch._scaled_mm(x, self.weights[i].T, one, scale, out_dtype=torch.bfloat16, use_fast_accum=True))
        return self.median(lambda i: torch.matmul(x, self.weights[i].T))


def defines(name, e4m3, config):
    n, k = SHAPES[name]
    return {"N": n, "K": k, **({"E4M3": 1} if e4m3 else {}), **EPILOGUES.get(name, {}), **{k: v for k, v in config.items() if k != "per_sm"}}


def short(config):
    text = f"{config['BM']}x{config['BN']}/{config['STAGES']}"
    for key, letter in (("SPLIT_K", "k"), ("CLUSTER", "c"), ("SHARE_X", "x"), ("RESIDENT", "r"), ("per_sm", "p"), ("X_ROWS", "m"), ("GROUP_M", "g")):
        if key in config:
            text += f" {letter}{config[key]}"
    return text


def candidates(name, m, e4m3):
    n, k = SHAPES[name]
    gated = name == "gate-up"
    ring = lambda bm, bn, resident=1: min(12, 225000 // resident // ((bm + bn) * 128))

    def one(bm, bn, split=1, cluster=1, share_x=0, resident=1, per_sm=None):
        d = dict(BM=bm, BN=bn, STAGES=ring(bm, bn, resident))
        for key, value, default in (("SPLIT_K", split, 1), ("CLUSTER", cluster, 1), ("SHARE_X", share_x, 0), ("RESIDENT", resident, 1)):
            if value != default:
                d[key] = value
        if per_sm:
            d["per_sm"] = per_sm
        if m <= 32:
            d["X_ROWS"] = 32
        return d

    wide = gated or name == "head"
    if m > 512:
        yield one(128, 256, 1, 2)
    elif m > 256:
        for bn in (256, 224, 192) if wide else (192,) if n == 6144 else (128,):
            yield one(128, bn, 1, 2)
        if not wide and n != 6144:
            yield one(128, 256, 2, 2)
            yield one(128, 256, 2, 2, 1)
            yield one(128, 128, 1, 2, 1)
    elif m > 128:
        for bn, split in ((256, 1), (224, 1), (128, 1)) if wide else ((192, 2), (96, 1)) if n == 6144 else ((256, 4), (128, 2), (64, 1)):
            yield one(128, bn, split, 2)
    elif m > 64:
        for bn, split in ((128, 1), (224, 1)) if wide else ((64, 1), (96, 2)) if n == 6144 else ((64, 2), (128, 4)):
            yield one(128, bn, split, 2, 1)
    else:
        for bn, split in ((128, 1), (256, 1)) if wide else ((64, 1), (96, 2), (192, 4)) if n == 6144 else ((32, 1), (64, 2), (128, 4)):
            yield one(64, bn, split)
            yield one(64, bn, split, 2, 1)
        if not wide:
            yield one(64, 64, 2 if n == 4096 else 1, resident=2, per_sm=1)
            yield one(64, 64, 4 if n == 4096 else 2, resident=2)


def sweep(what):
    begin = time.time()
    limit = float(os.environ.get("LIMIT", "1e9"))
    gpu = None
    plan = []
    for item in what:
        name, m, e4m3 = item.split(":")[0], int(item.split(":")[1]), item.endswith(":e4m3")
        plan.append((name, m, e4m3, list({short(cfg): cfg for cfg in candidates(name, m, e4m3)}.values())))
    compile_all([defines(name, e4m3, cfg) for name, _, e4m3, cfgs in plan for cfg in cfgs])
    print(f"compiled {len(_cubins)} at {time.time() - begin:.1f} s")
    gpu = launch.Gpu()
    bench = None
    for name, m, e4m3, cfgs in plan:
        if bench is None or (bench.name, bench.e4m3) != (name, e4m3):
            bench = None
            bench = Bench(gpu, name, e4m3)
        results = []
        for cfg in cfgs:
            if time.time() - begin > limit:
                break
            try:
                results.append((bench.ours(m, dict(cfg)), short(cfg)))
            except Exception as e:
                print("FAILED", name, m, short(cfg), str(e)[:300])
                if "illegal" in str(e) or "unspecified" in str(e):
                    raise
        results.sort(key=lambda r: (r[0] != r[0], r[0]))
        flops = 2 * m * bench.bytes / (1 if e4m3 else 2)
        print(f"{name} M={m} {'e4m3' if e4m3 else 'bf16'}: torch {bench.theirs(m):.1f} us; " + "; ".join(f"{s}: {t:.1f}" for t, s in results[:9]) + f" ... {results[-1][0]:.1f} | best {flops / results[0][0] / 1e6:.0f} TFLOP/s {bench.bytes / results[0][0] / 1e3:.0f} GB/s")
    print(f"done at {time.time() - begin:.1f} s")


def table():
    rows, plan = (32, 64, 128, 512, 2048), []
    for e4m3 in (0, 1):
        plan += [(name, m, e4m3, tactic(m, *SHAPES[name], e4m3, name == "gate-up")) for name in SHAPES for m in rows]
    compile_all([defines(name, e4m3, cfg) for name, _, e4m3, cfg in plan])
    gpu = launch.Gpu()
    total = {}
    bench = None
    for name, m, e4m3, cfg in plan:
        if bench is None or (bench.name, bench.e4m3) != (name, e4m3):
            bench = None
            bench = Bench(gpu, name, e4m3)
        us, torch_us = bench.ours(m, dict(cfg)), bench.theirs(m)
        flops = 2 * m * bench.bytes / (1 if e4m3 else 2)
        kind = "e4m3" if e4m3 else "bf16"
        print(f"{kind} {name:8} M={m:<5} {us:8.1f} us {flops / us / 1e6:6.0f} TFLOP/s {bench.bytes / us / 1e3:5.0f} GB/s | cuBLAS {torch_us:8.1f} us {flops / torch_us / 1e6:6.0f} | {short(cfg)}")
        # 32 layers; the head for at most 128 rows, as a prompt needs it for its last.
        if name != "head" or m <= 128:
            times = 1 if name == "head" else 32
            a, b = total.get((kind, m), (0, 0))
            total[kind, m] = a + us * times, b + torch_us * times
    for (kind, m), (a, b) in total.items():
        print(f"whole model {kind} M={m}: {a / 1000:.2f} ms, cuBLAS {b / 1000:.2f} ms" + (" (without head)" if m > 128 else ""))


GROUPS = ("bf16", "split", "cluster", "e4m3")

if __name__ == "__main__":
    if sys.argv[1:2] == ["--sweep"]:
        sweep(sys.argv[2:])
    elif sys.argv[1:2] == ["--time"]:
        table()
    elif sys.argv[1:2] == ["--group"]:
        sys.exit(run_group(sys.argv[2]) > 0)
    else:
        # A process each, side by side: a fault in one leaves the others whole.
        jobs = [(g, subprocess.Popen([sys.executable, __file__, "--group", g], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)) for g in GROUPS]
        passed = failed = 0
        for group, job in jobs:
            try:
                text = job.communicate(timeout=float(os.environ.get("LIMIT", "300")))[0]
            except subprocess.TimeoutExpired:
                job.kill()
                text = job.communicate()[0] + f"\nFAILED {group} did not end"
            print(text)
            passed += sum(line.startswith("ok ") for line in text.splitlines())
            failed += sum(line.startswith("FAILED ") for line in text.splitlines()) or (job.returncode != 0)
        print(f"{passed} passed, {failed} failed")
        sys.exit(failed > 0)
