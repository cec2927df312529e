"""Attention over the paged cache: append, prefill, decode. `--time` adds timings."""

import concurrent.futures
import math
import multiprocessing
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import launch

ARCH = os.environ.get("ARCH", "sm_90a")
BLOCK = 16
# Context of every row and how many tokens it has in the step.
MIXED = [(context, length) for length in (1, 7, 64, 300) for context in (0, 5, 16, 1000)] + [(4999, 33), (3000, 1)]
DECODE = [0, 1, 14, 15, 16, 17, 63, 64, 65, 255, 256, 700, 1023, 2047, 4100, 5000, 33, 20000]


def config(dim=128, heads=8, kv=2, **more):
    return dict(dim=dim, heads=heads, kv=kv, rope=dim, window=0, cap=0, e4m3=False, f16=False, splits=8, threads=128, cluster=False, early=False,
                rows=None) | more


CONFIGS = [
    config(),
    config(dim=64, heads=6, kv=2, rope=64, cluster=True),
    config(dim=96, heads=4, kv=4, rope=48, splits=3),
    config(dim=256, heads=8, kv=1, rope=64, splits=5),
    config(heads=16, kv=1, splits=4, rope=0),
    config(heads=20, kv=1, dim=64, rope=16, splits=4),
    config(window=100, early=True),
    config(dim=256, heads=4, kv=2, window=1000, cap=50, splits=16),
    config(cap=20, rows=64, threads=256),
    config(heads=3, kv=1, f16=True, rope=32, splits=1),
    config(dim=64, heads=8, kv=1, f16=True, window=16, early=True, cluster=True),
    config(e4m3=True, cluster=True, early=True, splits=7),
    config(dim=64, e4m3=True, heads=2, kv=2, splits=2),
    config(dim=96, e4m3=True, heads=6, kv=2, cap=30),
    config(dim=256, e4m3=True, heads=16, kv=2, window=500),
    config(e4m3=True, f16=True, heads=12, kv=4, rows=64, threads=64),
]


def defines(c, **more):
    d = dict(HEADS=c["heads"], KV_HEADS=c["kv"], HEAD_DIM=c["dim"], ROPE_DIM=c["rope"], SCALE=f"{c['dim'] ** -0.5:.9f}f",
             WINDOW=c["window"], SOFTCAP=f"{c['cap']:.1f}f")
    if c["e4m3"]:
        d["CACHE_E4M3"] = None
    if c["f16"]:
        d["ELEMENT_F16"] = None
    return d | more


def decode_defines(c):
    flags = {name: None for name in ("CLUSTER", "EARLY") if c[name.lower()]}
    return defines(c, SPLITS=c["splits"], THREADS=c["threads"], **flags)


def tile_rows(c):
    return c["rows"] or (64 if c["dim"] > 128 else 128)


def programs(c):
    """name -> (source, defines)"""
    found = {
        "append": ("append", defines(c)),
        "prefill": ("prefill", defines(c, TILE_ROWS=tile_rows(c))),
        "decode": ("decode", decode_defines(c)),
    }
    if tile_rows(c) == 128:
        found["prefill64"] = ("prefill", defines(c, TILE_ROWS=64))
    if has_wgmma(c):
        found["wgmma"] = ("prefill_wgmma", defines(c))
    return found


def has_wgmma(c):
    return ARCH == "sm_90a" and c["dim"] != 96


def prefill_shape(c, name):
    """Rows of a tile, threads and dynamic shared memory of a prefill program."""
    rows = {"prefill": tile_rows(c), "prefill64": 64, "wgmma": 128}[name]
    if name == "wgmma":
        return rows, 384, rows * c["dim"] * 2 + (64 if c["dim"] > 128 else 128) * c["dim"] * (10 if c["e4m3"] else 8) + 1024
    return rows, 128, rows * c["dim"] * 2 + (32 if c["dim"] > 128 else 64) * c["dim"] * (6 if c["e4m3"] else 8)


def compile_one(job):
    source, macros = job
    return launch.compile(f"attention/{source}.cu", macros, ARCH)


class Kernels:
    """The programs of one configuration, and how they are launched."""

    def __init__(self, gpu, c, cubins):
        self.gpu, self.c, self.torch = gpu, c, gpu.torch
        self.group = c["heads"] // c["kv"]
        entry = lambda name: ("prefill", prefill_shape(c, name)[2]) if name in ("prefill", "prefill64", "wgmma") else (name, 0)
        self.functions = {name: gpu.function(cubin, *entry(name)) for name, cubin in cubins.items()}

    def append(self, k, v, ld, angles, cache, slots, tokens, **how):
        grid = -(-tokens * self.c["kv"] * self.c["dim"] // 16 // 256)
        self.gpu.launch(self.functions["append"], grid, 256, [k, v, ("u32", ld), ("u32", ld), angles, cache, slots, ("u32", tokens)], **how)

    def prefill(self, out, q, ld, angles, cache, rows, tables, lengths, name="prefill", **how):
        tile, threads, shared = prefill_shape(self.c, name)
        step = tile // self.group
        tiles = [(i, first) for i, length in enumerate(lengths) for first in range(0, length, step)]
        tiles = self.torch.tensor(tiles, dtype=self.torch.int32, device="cuda")
        run = lambda: self.gpu.launch(self.functions[name], (self.c["kv"], len(tiles)), threads,
                                      [out, q, ("u32", ld), angles, cache, rows, tables, tiles, ("u32", len(tiles))],
                                      shared=shared, **how)
        run()
        return run

    def per_block(self):
        most = 16 if self.group > 8 and self.c["dim"] <= 128 else 8
        return min(self.group, most)

    def y(self):
        return self.c["kv"] * -(-self.group // self.per_block())

    def scratch(self, count):
        size = count * self.y() * self.c["splits"] * self.per_block() * (self.c["dim"] + 2)
        return (self.torch.full((size,), float("nan"), device="cuda"),
                self.torch.zeros(count * self.y(), dtype=self.torch.int32, device="cuda"))

    def decode(self, out, qkv, angles, cache, rows, tables, scratch, count, extra=0, **how):
        q, k, v = qkv
        ld = ("u32", q.stride(0))
        self.gpu.launch(self.functions["decode"], (self.c["splits"], self.y(), count + extra), self.c["threads"],
                        [out, q, k, v, ld, ld, ld, angles, cache, rows, tables, *scratch, ("u32", count)],
                        cluster=(self.c["splits"], 1, 1) if self.c["cluster"] else None, **how)


def bits(tensor):
    """As integers: torch copies, indexes and compares those, NaN included, for every element type."""
    import torch

    return tensor.view({1: torch.int8, 2: torch.int16}[tensor.element_size()])


class Step:
    """Rows over a cache in which everything but their tokens is NaN, and random q, k, v of their new tokens."""

    def __init__(self, torch, c, rows, seed):
        self.torch, self.c, self.rows = torch, c, rows
        random = self.random = torch.Generator(device="cuda").manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, device="cuda", generator=random)
        self.half = torch.float16 if c["f16"] else torch.bfloat16
        self.element = torch.float8_e4m3fn if c["e4m3"] else self.half
        heads, kv, dim = c["heads"], c["kv"], c["dim"]
        self.tokens = sum(length for _, length in rows)
        need = [-(-(context + length) // BLOCK) for context, length in rows]
        ids = (torch.randperm(sum(need), device="cuda", generator=random) + 1).split(need)  # block 0 is nobody's: only NaN
        cache = torch.full((sum(need) + 1, kv, 2, BLOCK, dim), float("nan"), device="cuda")
        positions, tables, described, slots, at, token = [], [torch.zeros(3, device="cuda", dtype=torch.int64)], [], [], 3, 0
        for (context, length), blocks in zip(rows, ids):
            everything = torch.arange(context + length, device="cuda")
            slot = blocks[everything // BLOCK] * BLOCK + everything % BLOCK
            old = slot[:context]
            cache[old // BLOCK, :, :, old % BLOCK] = normal(context, kv, 2, dim)
            slots.append(slot[context:])
            positions.append(everything[context:])
            seen = blocks.clone()
            if c["window"]:
                seen[: max(0, context + 1 - c["window"]) // BLOCK] = 0
            tables += [seen, torch.zeros(2, device="cuda", dtype=torch.int64)]
            described.append((token, length, context, at))
            at, token = at + len(blocks) + 2, token + length
        self.blocks = ids
        self.cache = cache.to(self.element)
        self.slots = torch.cat(slots).int()
        self.positions = torch.cat(positions)
        self.tables = torch.cat(tables).int()
        self.described = described
        self.qkv = normal(self.tokens + 2, (heads + 2 * kv) * dim).to(self.half)
        self.q, self.k, self.v = self.qkv.split([heads * dim, kv * dim, kv * dim], 1)
        half = c["rope"] // 2
        turn = self.positions[:, None].double() * 10000.0 ** (-torch.arange(half, device="cuda") / max(half, 1))
        self.angles = torch.cat([turn.cos(), turn.sin()], 1).float().contiguous()
        self.out = torch.full((self.tokens + 2, heads * dim), float("nan"), device="cuda", dtype=self.half)

    def table(self, described):
        return self.torch.tensor(described, dtype=self.torch.int32, device="cuda")

    def rotated(self, x, heads):
        """f64 [tokens][heads][dim]"""
        x = x[: self.tokens].double().reshape(self.tokens, heads, self.c["dim"])
        half = self.c["rope"] // 2
        cosine, sine = self.angles.double()[:, None, :half], self.angles.double()[:, None, half:]
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return self.torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], -1)

    def reference(self):
        """f64, from the cache as it is, which must hold the new tokens."""
        torch, c = self.torch, self.c
        q = self.rotated(self.q, c["heads"])
        group, results = c["heads"] // c["kv"], []
        for (token, length, context, _), blocks in zip(self.described, self.blocks):
            stored = bits(self.cache)[blocks].view(self.element).double().permute(2, 1, 0, 3, 4).reshape(2, c["kv"], -1, c["dim"])[:, :, : context + length]
            mine = q[token : token + length].reshape(length, c["kv"], group, c["dim"]).permute(1, 2, 0, 3)
            scores = mine @ stored[0][:, None].transpose(-1, -2) * c["dim"] ** -0.5
            if c["cap"]:
                scores = c["cap"] * torch.tanh(scores / c["cap"])
            key, at = torch.arange(context + length, device="cuda"), context + torch.arange(length, device="cuda")[:, None]
            visible = key <= at
            if c["window"]:
                visible &= key > at - c["window"]
            weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
            results.append((weights @ stored[1][:, None]).permute(2, 0, 1, 3).reshape(length, -1))
        return torch.cat(results)


class Report:
    passed = failed = 0

    def case(self, name, measure, limit=None):
        """`measure` returns an error to compare with `limit`, or a truth."""
        try:
            value = measure()
            good = bool(value) if limit is None else value <= limit
            text = "" if limit is None else f"{value:.2e} (limit {limit:.0e})"
        except Exception as error:
            good, text = False, f"{type(error).__name__}: {error}"
        print("ok" if good else "FAILED", name, text, flush=True)
        self.passed, self.failed = self.passed + good, self.failed + (not good)


def rounding_limit(c):
    """The rotated query, the weights and the result are rounded once each: 2^-9 in bf16, 2^-12 in f16."""
    return 8e-4 if c["f16"] else 6e-3


def label(c):
    return "[" + " ".join(f"{k}={v}" for k, v in c.items() if v not in (None, False)) + "]"


def check_append(kernels, report, seed):
    """Values exactly, keys rounded once from f32; nothing else touched."""
    torch, c = kernels.torch, kernels.c
    step = Step(torch, c, MIXED, seed)
    raw = bits(step.cache)
    before = raw.clone()
    kernels.append(step.k, step.v, step.qkv.stride(0), step.angles, step.cache, step.slots, step.tokens)
    slots = step.slots.long()
    at = (slots // BLOCK, slice(None), slice(None), slots % BLOCK)
    fresh = raw[at]
    value = step.v[: step.tokens].reshape(step.tokens, c["kv"], c["dim"]).to(step.element)
    report.case(f"append values {label(c)}", lambda: torch.equal(fresh[:, :, 1], bits(value)))
    # Rounding errors are uniform up to 2^-4 (e4m3), 2^-9 (bf16), 2^-12 (f16) of an element's power of two.
    rounding = 4e-2 if c["e4m3"] else 4e-4 if c["f16"] else 2.5e-3
    report.case(f"append keys {label(c)}", lambda: launch.relative(fresh.view(step.element)[:, :, 0], step.rotated(step.k, c["kv"])), rounding)
    raw[at] = before[at]
    report.case(f"append leaves the rest {label(c)}", lambda: torch.equal(raw, before))


def check_prefill(kernels, report, seed, name):
    torch, c = kernels.torch, kernels.c
    step, limit = Step(torch, c, MIXED, seed), rounding_limit(c)
    ld = step.qkv.stride(0)
    kernels.append(step.k, step.v, ld, step.angles, step.cache, step.slots, step.tokens)
    reference = step.reference()

    def outputs(described, name):
        out = torch.full_like(step.out, float("nan"))
        kernels.prefill(out, step.q, ld, step.angles, step.cache, step.table(described), step.tables, [r[1] for r in described], name)
        return out

    out = outputs(step.described, name)
    report.case(f"{name} {label(c)}", lambda: launch.relative(out[: step.tokens], reference), limit)
    worst = lambda: max(launch.relative(out[t : t + n], reference[t : t + n]) for t, n, _, _ in step.described)
    report.case(f"{name}, worst row {label(c)}", worst, 2 * limit)
    report.case(f"{name} ends at the last token {label(c)}", lambda: out[step.tokens :].isnan().all())

    def again(name, pieces):
        """The same tokens in rows of other lengths: the same bits."""
        other = []
        for token, length, context, table in step.described:
            done, i = 0, 0
            while done < length:
                n = min(pieces[i % len(pieces)], length - done)
                other.append((token + done, n, context + done, table))
                done, i = done + n, i + 1
        return torch.equal(bits(outputs(other, name)), bits(out))

    report.case(f"{name} in pieces of 1, 13, 50: the same bits {label(c)}", lambda: again(name, [1, 13, 50]))
    if name == "prefill" and "prefill64" in kernels.functions:
        report.case(f"prefill in tiles of 64 rows: the same bits {label(c)}", lambda: again("prefill64", [1000]))


def check_decode(kernels, report, seed):
    """The new tokens' places in the cache hold NaN before; some rows are padding."""
    torch, c = kernels.torch, kernels.c
    contexts = DECODE + [131071] * (c["kv"] == 2 and c["dim"] == 128)
    step, limit = Step(torch, c, [(context, 1) for context in contexts], seed), rounding_limit(c)
    count, qkv, ld = len(contexts), (step.q, step.k, step.v), step.qkv.stride(0)
    appended = step.cache.clone()
    kernels.append(step.k, step.v, ld, step.angles, appended, step.slots, step.tokens)
    described = step.described[:5] + [(0, 0, 77, 1 << 30)] + step.described[5:] + [(0, 0, 0, 0)]
    scratch = kernels.scratch(count + 2)
    kernels.decode(step.out, qkv, step.angles, step.cache, step.table(described), step.tables, scratch, count + 2, extra=1)
    report.case(f"decode appends as append does {label(c)}", lambda: torch.equal(bits(step.cache), bits(appended)))
    reference = step.reference()
    report.case(f"decode {label(c)}", lambda: launch.relative(step.out[:count], reference), limit)
    report.case(f"decode, worst row {label(c)}", lambda: max(launch.relative(step.out[i], reference[i]) for i in range(count)), 2 * limit)
    report.case(f"decode ends at the last row {label(c)}", lambda: step.out[count:].isnan().all() and not scratch[1].any())
    out = torch.full_like(step.out, float("nan"))
    kernels.prefill(out, step.q, ld, step.angles, step.cache, step.table(step.described), step.tables, [1] * count)
    report.case(f"decode as prefill {label(c)}", lambda: launch.relative(step.out[:count], out[:count]), 2 * limit)

    def alone():
        """Rows one at a time, and in another order: the same bits."""
        one, turned = torch.full_like(step.out, float("nan")), torch.full_like(step.out, float("nan"))
        for row in step.described:
            kernels.decode(one, qkv, step.angles, step.cache, step.table([row]), step.tables, scratch, 1, pdl=True)
        kernels.decode(turned, qkv, step.angles, step.cache, step.table(step.described[::-1]), step.tables, scratch, count)
        return torch.equal(bits(one), bits(step.out)) and torch.equal(bits(turned), bits(step.out))

    report.case(f"decode alone and in another order: the same bits {label(c)}", alone)


def floor_rate(torch):
    """GB/s and TFLOP/s of the data sheet, as a floor to read the timings against."""
    return (4800 if "H200" in torch.cuda.get_device_name() else 3350), 989


TIMED = [(b, context) for b in (1, 8, 64, 256) for context in (256, 1024, 8192)]


def timing_jobs():
    jobs = {}
    for e4m3 in (False, True):
        c = config(heads=32, kv=8, e4m3=e4m3)
        jobs["prefill", e4m3] = ("prefill", defines(c, TILE_ROWS=128))
        jobs["prefill64", e4m3] = ("prefill", defines(c, TILE_ROWS=64))
        if has_wgmma(c):
            jobs["wgmma", e4m3] = ("prefill_wgmma", defines(c))
        jobs["append", e4m3] = ("append", defines(c))
        for variant in {v for b, _ in TIMED for v in variants(b)}:
            jobs["decode", e4m3, variant] = ("decode", decode_defines(c | dict(zip(VARIANT, variant))))
    return jobs


VARIANT = ("splits", "threads", "cluster", "early")


def decode_defaults(rows, y, sms=132):
    """Eight warps per multiprocessor: a block of eight, in clusters while rows are few, or blocks of four once there are many."""
    splits = max(1, min(8, sms // (rows * y)))
    return splits, 256 if rows * y * splits <= sms else 128, splits > 1, False


def variants(b):
    if "--variants" not in sys.argv:
        default = decode_defaults(b, 8)
        return [default, (*default[:3], True)]
    return {
        1: [(8, 128, True, False), (8, 128, True, True), (8, 256, True, False), (8, 256, True, True), (8, 512, True, False), (8, 512, True, True), (16, 128, False, False), (32, 128, False, False)],
        8: [(4, 128, True, False), (4, 128, True, True), (4, 128, False, False), (2, 256, True, False), (3, 128, True, False), (8, 64, True, False)],
        64: [(1, 128, False, False), (1, 128, False, True)],
        256: [(1, 128, False, False), (1, 64, False, False)],
    }[b]


def timings(gpu, cubins, late):
    torch = gpu.torch
    bandwidth, compute = floor_rate(torch)
    name = torch.cuda.get_device_name()
    memory = torch.empty(9 << 30, dtype=torch.uint8, device="cuda")
    memory.view(torch.bfloat16).normal_()
    print(f"# {name}")
    for e4m3 in (False, True):
        c = config(heads=32, kv=8, e4m3=e4m3)
        token_bytes = 2 * c["kv"] * c["dim"] * (1 if e4m3 else 2)
        block_bytes = token_bytes * BLOCK
        for b, context in [] if late else TIMED:
            per_row = context // BLOCK + 1
            layer = b * per_row * block_bytes
            if layer > memory.numel():
                continue
            layers = max(1, min(64 if b * context < 1 << 17 else 4, memory.numel() // layer))
            tables = torch.randperm(b * per_row, device="cuda").int()
            rows = torch.tensor([(i, 1, context, i * per_row) for i in range(b)], dtype=torch.int32, device="cuda")
            qkv = torch.randn(b, 48 * 128, device="cuda").bfloat16()
            views = qkv.split([4096, 1024, 1024], 1)
            angles = torch.randn(b, 128, device="cuda")
            out = torch.empty(b, 4096, dtype=torch.bfloat16, device="cuda")
            for variant in variants(b):
                kernels = Kernels(gpu, c | dict(zip(VARIANT, variant)), {"decode": cubins["decode", e4m3, variant]})
                scratch = kernels.scratch(b)

                def work(pdl):
                    for i in range(layers):
                        kernels.decode(out, views, angles, memory[i * layer :], rows, tables, scratch, b, pdl=pdl)

                plain, chained = (launch.median_us(torch, lambda: work(p), 8) / layers for p in (False, True))
                read = b * (context + 1) * token_bytes
                print(f"decode {'e4m3' if e4m3 else 'bf16'} B {b:3} context {context:4} {'/'.join(str(int(x)) for x in variant):10}: {plain:8.2f} us, "
                      f"PDL {chained:8.2f} us = {read / chained / 1e3:5.0f} GB/s; floor {read / bandwidth / 1e3:7.2f} us", flush=True)
        for length in (128, 512, 2048, 8192):
            blocks = length // BLOCK
            tables = torch.randperm(blocks, device="cuda").int()
            rows = torch.tensor([(0, length, 0, 0)], dtype=torch.int32, device="cuda")
            qkv = torch.randn(length, 48 * 128, device="cuda").bfloat16()
            q, k, v = qkv.split([4096, 1024, 1024], 1)
            angles = torch.randn(length, 128, device="cuda")
            out = torch.empty(length, 4096, dtype=torch.bfloat16, device="cuda")
            flop = 4 * 4096 * length**2 / 2
            kernels = Kernels(gpu, c, {n: cubins[n, e4m3] for n in ("prefill", "prefill64", "wgmma", "append") if (n, e4m3) in cubins})
            for variant in ["wgmma"] if late else ["prefill", "prefill64"]:
                if variant not in kernels.functions:
                    continue
                run = kernels.prefill(out, q, 48 * 128, angles, memory, rows, tables, [length], variant, pdl=True)
                us = launch.median_us(torch, lambda: [run() for _ in range(4)], 8) / 4
                print(f"{variant:9} {'e4m3' if e4m3 else 'bf16'} T {length:4}: {us:8.2f} us = {flop / us / 1e6:4.0f} TFLOP/s; floor {flop / compute / 1e6:7.2f} us")
            if late:
                continue
            slots = (tables.long()[:, None] * BLOCK + torch.arange(BLOCK, device="cuda")).flatten().int()
            us = launch.median_us(torch, lambda: [kernels.append(k, v, 48 * 128, angles, memory, slots, length, pdl=True) for _ in range(4)], 8) / 4
            moved = length * (2 * 1024 * 2 + token_bytes + 512)
            print(f"append {'e4m3' if e4m3 else 'bf16'} T {length:4}: {us:8.2f} us = {moved / us / 1e3:5.0f} GB/s; floor {moved / bandwidth / 1e3:7.2f} us")


def main():
    # Compilers run beside each other, forked before CUDA starts.
    jobs = {}
    if "--only-time" not in sys.argv:
        for i, c in enumerate(CONFIGS):
            jobs |= {(i, name): job for name, job in programs(c).items()}
    timed = timing_jobs() if "--time" in sys.argv or "--only-time" in sys.argv else {}
    everything = jobs | timed
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as workers:
        cubins = dict(zip(everything, workers.map(compile_one, everything.values())))
    gpu = launch.Gpu()
    report, seed = Report(), int.from_bytes(os.urandom(3), "little")
    if jobs:
        print("seed", seed)
    # What could hang or fault without the portable kernels comes last.
    for late in (False, True):
        for i, c in enumerate(CONFIGS if jobs else []):
            try:
                kernels = Kernels(gpu, c, {name: cubins[i, name] for (j, name) in jobs if j == i})
                if late and has_wgmma(c):
                    check_prefill(kernels, report, seed + 10 * i + 2, "wgmma")
                elif not late:
                    check_append(kernels, report, seed + 10 * i)
                    check_prefill(kernels, report, seed + 10 * i, "prefill")
                    check_decode(kernels, report, seed + 10 * i + 1)
            except Exception as error:
                report.case(f"{type(error).__name__}: {error} {label(c)}", lambda: False)
        if timed:
            timings(gpu, cubins, late)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
