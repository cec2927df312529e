"""Row kernels: norm, quantise, embedding, gather, elementwise, angles, rope. `--time` adds timings at Llama-8B sizes."""

import math
import pathlib
import subprocess
import sys
from functools import partial
from multiprocessing.pool import ThreadPool

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import launch  # noqa: E402
import torch  # noqa: E402
from launch import median_us, relative  # noqa: E402

gpu = launch.Gpu()
seed = torch.seed() % 2**31
torch.manual_seed(seed)
passed = failed = 0
PARTS = 6
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
# Rounding to 8 bits of mantissa is at most 2^-9 relative an element (f16: 2^-12), 0.6 of that in norm; f32 sums leave about 1e-6.
TOLERANCE = {BF16: 2**-9, F16: 2**-12, F32: 4e-6}


def case(name, error, tolerance):
    global passed, failed
    good = error <= tolerance
    passed, failed = passed + good, failed + (not good)
    print(f"{'ok' if good else 'FAILED'} {name} {error:.2e}" + ("" if good else f" > {tolerance:.2e}"), flush=True)


def attempt(name, work):
    try:
        work()
    except Exception as e:  # one failure must not hide the others
        case(f"{name}: {e}", math.inf, 0)


def half_defines(dtype):
    return {"ELEMENT_F16": None} if dtype == F16 else {}


def kernel(source, name, **defines):
    return gpu.function(launch.compile(f"rowwise/{source}.cu", defines, gpu.arch), name)


def threads(columns, most=32):
    return 32 * max(1, min(most, -(-columns // 256)))


def piece_grid(rows, columns):
    return (rows, -(-columns // 2048)), threads(columns, 8)


def poison(rows, columns, dtype):
    if dtype == torch.uint8:
        return torch.full((rows, columns), 0xA5, dtype=dtype, device="cuda")
    return torch.full((rows, columns), math.nan, dtype=dtype, device="cuda")


def unharmed(buffer, rows):
    rest = buffer[rows:]
    return bool((rest == 0xA5).all() if buffer.dtype == torch.uint8 else rest.isnan().all())


def check(name, buffer, rows, reference, tolerance=None):
    error = relative(buffer[:rows], reference) if unharmed(buffer, rows) else math.inf
    case(name, error, TOLERANCE[buffer.dtype] if tolerance is None else tolerance)


def data(rows, columns, dtype, stride=None):
    """Random rows of `stride` elements, of which the view has `columns`."""
    whole = torch.randn(rows, stride or columns, device="cuda").mul_(2).add_(0.3).to(dtype)
    return whole[:, :columns]


def e4m3(value, block):
    """Codes and scales of rows of half_t, in the kernel's arithmetic."""
    rows, columns = value.shape
    width = 128 if block else columns
    padded = torch.nn.functional.pad(value.float(), (0, -columns % width)).view(rows, -1, width)
    largest = padded.abs().amax(-1).clamp_min(2.0**-100)
    inverse = torch.full_like(largest, 448.0) / largest  # (a number over a tensor is rounded twice)
    codes = (padded * inverse[..., None]).to(torch.float8_e4m3fn).view(torch.uint8).view(rows, -1)[:, :columns]
    return codes, largest / 448.0


def norm(columns, rows, half=BF16, x32=False, y32=False, out32=False, add=False, layer=False, quantise=False, block=False, keep=False, alias=False):
    flags = dict(X_F32=x32, Y_F32=y32, OUTPUT_F32=out32, ADD=add, LAYER=layer, QUANTISE=quantise, QUANTISE_BLOCK=block, KEEP_OUTPUT=keep)
    name = f"norm {columns}x{rows} {str(half)[6:]} " + " ".join(k for k, v in flags.items() if v) + (" alias" if alias else "")
    f = kernel("norm", "norm_rows", COLUMNS=columns, EPS="1e-5f", **half_defines(half), **{k: None for k, v in flags.items() if v})
    ldx, ldy = columns if alias else columns + 16, columns + 8
    x, y = data(rows, columns, F32 if x32 else half, ldx), data(rows, columns, F32 if y32 else half, ldy)
    gain, bias = torch.randn(columns, device="cuda"), torch.randn(columns, device="cuda")
    out, total = poison(rows + 2, columns, F32 if out32 else half), poison(rows + 2, columns, F32)
    codes, scales = poison(rows + 2, columns, torch.uint8), poison(rows + 2, -(-columns // 128) if block else 1, F32)
    v = (x.double() + y.double() if add else x.double())
    summed = v.float()
    v = summed.double()
    centred = v - v.mean(-1, keepdim=True) if layer else v
    reference = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain.double() + (bias.double() if layer else 0)
    sum_argument = x if alias else total
    # A grid larger than the count: the blocks beyond have nothing to do.
    gpu.launch(f, rows + 1, threads(columns), [out, sum_argument, x, y, gain, bias, codes, scales, ("u32", rows), ("u32", ldx), ("u32", ldy)], pdl=True)
    torch.cuda.synchronize()
    # With one column a layer norm is its bias.
    tolerance = None if columns > 1 else 2**-8
    if not quantise or keep:
        check(name, out, rows, reference, tolerance)
    if add:
        same = bool((sum_argument[:rows] == summed).all()) and (alias or unharmed(total, rows))
        case(f"{name}: sum", 0.0 if same else math.inf, 0)
    if quantise:
        value = out[:rows] if keep else reference.to(half)
        want, want_scales = e4m3(value, block)
        intact = unharmed(codes, rows) and unharmed(scales, rows)
        case(f"{name}: scales", relative(scales[:rows], want_scales) if intact else math.inf, 1e-6 if keep else 2**-8)
        if keep:
            case(f"{name}: codes that differ", float((codes[:rows] != want).sum()), 0)
        else:
            restored = codes[:rows].view(torch.float8_e4m3fn).double() * columnwise(scales[:rows], columns, block)
            case(f"{name}: restored", relative(restored, reference), 0.04)  # 3 bits of mantissa: at most 2^-4, about 0.6 of 2^-4


def norm_groups(columns, groups, rows, half=BF16, x32=False):
    """Heads of a row that are normed by themselves, between columns that are not theirs."""
    flags = {"X_F32": None} if x32 else {}
    f = kernel("norm", "norm_rows", COLUMNS=columns, EPS="1e-5f", GROUPS=groups, **half_defines(half), **flags)
    ldx, width = groups * columns + 16, groups * columns
    x, gain = data(rows, width, F32 if x32 else half, ldx), torch.randn(columns, device="cuda")
    out = poison(rows + 1, width, half)
    gpu.launch(f, (rows, groups), threads(columns), [out, None, x, None, gain, None, None, None, ("u32", rows), ("u32", ldx), ("u32", 0)], pdl=True)
    torch.cuda.synchronize()
    v = x.double().reshape(rows, groups, columns)
    reference = v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain.double()
    check(f"norm of {groups} groups {columns}x{rows} {str(half)[6:]} f32={x32}", out, rows, reference.reshape(rows, width), None if columns > 1 else 2**-8)


def columnwise(scales, columns, block):
    """The scale of each element, f64."""
    return (scales.repeat_interleave(128, 1)[:, :columns] if block else scales).double()


def quantise(columns, rows, half, block):
    f = kernel("quantise", "quantise", COLUMNS=columns, **half_defines(half), **({"QUANTISE_BLOCK": None} if block else {}))
    x = data(rows, columns, half, columns + 8)
    x[0] = 0
    if rows > 1:
        x[1] *= 1e-30 if half == BF16 else 1e-4
    codes, scales = poison(rows + 1, columns, torch.uint8), poison(rows + 1, -(-columns // 128) if block else 1, F32)
    gpu.launch(f, rows, threads(columns), [codes, scales, x, ("u32", rows), ("u32", columns + 8)])
    torch.cuda.synchronize()
    want, want_scales = e4m3(x, block)
    intact = unharmed(codes, rows) and unharmed(scales, rows)
    wrong = float((codes[:rows] != want).sum()) + float(((scales[:rows] - want_scales).abs() > 1e-6 * want_scales).sum())
    name = f"quantise {columns}x{rows} {str(half)[6:]} block={block}"
    case(f"{name}: codes and scales that differ", wrong if intact else math.inf, 0)
    restored = codes[:rows].view(torch.float8_e4m3fn).double() * columnwise(scales[:rows], columns, block)
    # Half a unit in the last of 3 bits, or of the smallest numbers: 2^-4 of the value or 2^-10 of the scale; f32 arithmetic at ties.
    bound = torch.maximum(x.double().abs() * 2**-4, columnwise(scales[:rows], columns, block) * 2**-10)
    case(f"{name}: error over e4m3's own", float(((restored - x.double()).abs() / bound).max()), 1 + 2**-16)


def embedding(columns, rows, half, out32, positions, scale=1.0):
    defines = {**half_defines(half), **({"OUTPUT_F32": None} if out32 else {}), **({"INDEX_POSITIONS": None} if positions else {})}
    if scale != 1:
        defines["SCALE"] = f"{scale}f"
    f = kernel("embedding", "embedding", COLUMNS=columns, **defines)
    table, sampled = data(1000, columns, half), torch.randint(0, 1000, (64,), dtype=torch.int32, device="cuda")
    ids = torch.randint(0, 1000, (rows,), dtype=torch.int32, device="cuda")
    late = torch.randint(0, 64, (rows,), dtype=torch.int32, device="cuda")
    use = torch.zeros(rows, dtype=torch.bool, device="cuda") if positions else torch.rand(rows, device="cuda") < 0.5
    tokens = torch.where(use, -1 - late, ids)
    index = torch.where(use, sampled[late.long()], ids).long()
    out = poison(rows + 1, columns, F32 if out32 else half)
    gpu.launch(f, *piece_grid(rows + 1, columns), [out, table, tokens, sampled, ("u32", rows)], pdl=True)
    torch.cuda.synchronize()
    # A 16-bit value times an f32 is rounded once.
    reference = (table[index].float() * torch.tensor(scale, device="cuda")).to(out.dtype)
    check(f"embedding {columns}x{rows} {str(half)[6:]} f32={out32} positions={positions} scale={scale}", out, rows, reference, 0)


def gather(columns, rows, x32, out32):
    defines = {**({"X_F32": None} if x32 else {}), **({"OUTPUT_F32": None} if out32 else {})}
    f = kernel("gather", "gather", COLUMNS=columns, **defines)
    x = data(50, columns, F32 if x32 else BF16, columns + 8)
    indices = torch.randint(0, 50, (rows,), dtype=torch.int32, device="cuda")
    out = poison(rows + 1, columns, F32 if out32 else BF16)
    gpu.launch(f, *piece_grid(rows, columns), [out, x, indices, ("u32", rows), ("u32", columns + 8)])
    torch.cuda.synchronize()
    check(f"gather {columns}x{rows} {x32} {out32}", out, rows, x[indices.long()].to(out.dtype), 0)


def elementwise(columns, rows, operation, activation, x32=False, y32=False, out32=True, half=BF16):
    flags = dict(X_F32=x32, Y_F32=y32, OUTPUT_F32=out32)
    cap = {"CAP": "1.5f"} if activation == 5 else {}
    f = kernel("elementwise", "elementwise", COLUMNS=columns, OPERATION=operation, ACTIVATION=activation, **cap, **half_defines(half), **{k: None for k, v in flags.items() if v})
    x, y = data(rows, columns, F32 if x32 else half, columns + 8), data(rows, columns, F32 if y32 else half, columns + 16)
    x[0] *= 20
    v = x.double()
    functions = [lambda v: v, torch.nn.functional.silu, torch.nn.functional.gelu, lambda v: torch.nn.functional.gelu(v, approximate="tanh"), torch.relu, lambda v: 1.5 * torch.tanh(v / 1.5)]
    v = functions[activation](v)
    reference = [v, v + y.double(), v * y.double()][operation]
    out = poison(rows + 1, columns + 8, F32 if out32 else half)
    gpu.launch(f, *piece_grid(rows, columns), [out, x, y, ("u32", rows), ("u32", columns + 8), ("u32", columns + 8), ("u32", columns + 16)])
    torch.cuda.synchronize()
    intact = bool(out[:, columns:].isnan().all()) and bool(out[rows].isnan().all())
    tolerance = TOLERANCE[out.dtype]
    case(f"elementwise {columns}x{rows} op {operation} activation {activation} {flags}", relative(out[:rows, :columns], reference) if intact else math.inf, tolerance)


def angles(columns, rows):
    f = kernel("angles", "angles", COLUMNS=columns, ANGLE_SCALE="1.25f")
    frequencies = (10000.0 ** (-torch.arange(0, columns, 2, device="cuda").double() / columns)).float()
    positions = torch.randint(0, 131073, (rows,), dtype=torch.int32, device="cuda")
    positions[0] = 131072
    out = poison(rows + 1, columns, F32)
    gpu.launch(f, rows, 32 * max(1, min(8, -(-columns // 64))), [out, frequencies, positions, ("u32", rows)])
    torch.cuda.synchronize()
    p = (positions.float()[:, None] * frequencies).double()
    reference = torch.cat([p.cos(), p.sin()], 1).float() * 1.25
    # The f32 value nearest to the f64 function, save where that lies close between two.
    error = float((out[:rows] - reference).abs().max()) if unharmed(out, rows) and bool(out[:rows].isfinite().all()) else math.inf
    case(f"angles {columns}x{rows}", error, 1.2e-7)


def rope(heads, dim, rotary, rows, half, in_place):
    f = kernel("rope", "rope", HEADS=heads, HEAD_DIM=dim, ROTARY_DIM=rotary, **half_defines(half))
    columns, ld = heads * dim, heads * dim + 16
    x = data(rows, columns, half, ld)
    p = torch.rand(rows, rotary // 2, device="cuda") * 100
    table = torch.cat([p.cos(), p.sin()], 1)
    v, h = x.double().view(rows, heads, dim) if rows else None, rotary // 2
    a, b, c, s = v[..., :h], v[..., h:rotary], table[:, None, :h].double(), table[:, None, h:].double()
    reference = torch.cat([a * c - b * s, b * c + a * s, v[..., rotary:]], -1).reshape(rows, columns).clone()
    out = poison(rows + 1, ld, half)
    if in_place:
        out[:rows, :columns] = x
    gpu.launch(f, rows, 256, [out, out if in_place else x, table, ("u32", rows), ("u32", ld), ("u32", ld)])
    torch.cuda.synchronize()
    intact = bool(out[:, columns:].isnan().all()) and bool(out[rows].isnan().all())
    case(f"rope {heads}x{dim}/{rotary} x{rows} {str(half)[6:]} in_place={in_place}", relative(out[:rows, :columns], reference) if intact else math.inf, TOLERANCE[half])


def independent():
    """A row's bits do not depend on the rows beside it."""
    f = kernel("norm", "norm_rows", COLUMNS=4096, EPS="1e-5f", X_F32=None, ADD=None)
    x, y, gain = data(64, 4096, F32), data(64, 4096, BF16), torch.randn(4096, device="cuda")
    outs = []
    for rows in (64, 1):
        out, total = poison(64, 4096, BF16), poison(64, 4096, F32)
        for first in range(0, 64, rows):
            gpu.launch(f, rows, 512, [out[first:], total[first:], x[first:], y[first:], gain, None, None, None, ("u32", rows), ("u32", 4096), ("u32", 4096)])
        outs.append(out)
    torch.cuda.synchronize()
    case("norm: rows are independent", float((outs[0].view(torch.int16) != outs[1].view(torch.int16)).sum()), 0)


def together(columns, block, add):
    """A norm that quantises gives the bits of a norm and a quantisation after it."""
    flags = {"X_F32": None, **({"ADD": None} if add else {})}
    scaling = {"QUANTISE_BLOCK": None} if block else {}
    plain = kernel("norm", "norm_rows", COLUMNS=columns, EPS="1e-5f", **flags)
    fused = kernel("norm", "norm_rows", COLUMNS=columns, EPS="1e-5f", QUANTISE=None, **flags, **scaling)
    after = kernel("quantise", "quantise", COLUMNS=columns, **scaling)
    rows, width = 33, columns // 128 if block else 1
    x, y, gain = data(rows, columns, F32), data(rows, columns, BF16), torch.randn(columns, device="cuda")
    n, ld, made = ("u32", rows), ("u32", columns), []
    for functions in ((plain, after), (fused,)):
        out, total = poison(rows, columns, BF16), poison(rows, columns, F32)
        codes, scales = poison(rows + 1, columns, torch.uint8), poison(rows + 1, width, F32)
        writes = (out, None, None) if len(functions) == 2 else (None, codes, scales)
        gpu.launch(functions[0], rows, threads(columns), [writes[0], total, x, y, gain, None, *writes[1:], n, ld, ld], pdl=True)
        for f in functions[1:]:
            gpu.launch(f, rows, threads(columns), [codes, scales, out, n, ld], pdl=True)
        made.append((codes, scales))
    torch.cuda.synchronize()
    differ = sum(float((a[:rows] != b[:rows]).sum()) for a, b in zip(*made))
    intact = all(unharmed(buffer, rows) for pair in made for buffer in pair)
    case(f"norm and quantise {columns} block={block} add={add}: bits that differ", differ if intact else math.inf, 0)


def timings():
    print(f"{'kernel':34} {'rows':>5} {'us':>8} {'GB/s':>8} {'floor us':>9}")
    peak = 4.6e12 if "H200" in torch.cuda.get_device_name() else 2.95e12
    turns = 16  # launches in one graph on rotated buffers

    def line(name, rows, bytes_each, launches):
        us = median_us(torch, lambda: [one() for one in launches]) / len(launches)
        print(f"{name:34} {rows:5} {us:8.2f} {bytes_each / us / 1e3:8.0f} {bytes_each / peak * 1e6:9.2f}", flush=True)

    functions = {
        "norm add": kernel("norm", "norm_rows", COLUMNS=4096, EPS="1e-5f", X_F32=None, ADD=None),
        "norm add quantise": kernel("norm", "norm_rows", COLUMNS=4096, EPS="1e-5f", X_F32=None, ADD=None, QUANTISE=None),
    }
    alone = {
        "norm": kernel("norm", "norm_rows", COLUMNS=4096, EPS="1e-5f", X_F32=None),
        "norm quantise": kernel("norm", "norm_rows", COLUMNS=4096, EPS="1e-5f", X_F32=None, QUANTISE=None),
        "norm quantise by 128": kernel("norm", "norm_rows", COLUMNS=4096, EPS="1e-5f", X_F32=None, QUANTISE=None, QUANTISE_BLOCK=None),
    }
    after = kernel("quantise", "quantise", COLUMNS=4096)
    embed = kernel("embedding", "embedding", COLUMNS=4096, OUTPUT_F32=None)
    quant = kernel("quantise", "quantise", COLUMNS=14336)
    gate = kernel("elementwise", "elementwise", COLUMNS=14336, OPERATION=2, ACTIVATION=1)
    table = data(128256, 4096, BF16)
    for rows in (1, 64, 256, 2048, 8192):
        x, y = [data(rows, 4096, F32) for _ in range(turns)], [data(rows, 4096, BF16) for _ in range(turns)]
        out, codes, scales = data(rows, 4096, BF16), poison(rows, 14336, torch.uint8), poison(rows, 32, F32)
        gains = [torch.randn(4096, device="cuda") for _ in range(turns)]
        n, ld = ("u32", rows), ("u32", 4096)
        for name, f in functions.items():
            work = [lambda i=i, f=f: gpu.launch(f, rows, 512, [out, x[i], x[i], y[i], gains[i], None, codes, scales, n, ld, ld], pdl=True) for i in range(turns)]
            line(name + ", sum in place, PDL", rows, rows * 4096 * (4 + 4 + 2 + (1 if "quant" in name else 2)), work)
        norm_of = lambda f, i: gpu.launch(f, rows, 512, [out, None, x[i], None, gains[i], None, codes, scales, n, ld, ld], pdl=True)
        for name, f in alone.items():
            line(name + ", PDL", rows, rows * 4096 * (4 + (1 if "quant" in name else 2)), [lambda i=i, f=f: norm_of(f, i) for i in range(turns)])
        pair = lambda i: (norm_of(alone["norm"], i), gpu.launch(after, rows, 512, [codes, scales, out, n, ld], pdl=True))
        line("norm, then quantise, PDL", rows, rows * 4096 * (4 + 2 + 2 + 1), [lambda i=i: pair(i) for i in range(turns)])
        tokens = [torch.randint(0, 128256, (rows,), dtype=torch.int32, device="cuda") for _ in range(turns)]
        work = [lambda i=i: gpu.launch(embed, *piece_grid(rows, 4096), [x[i], table, tokens[i], tokens[i], n], pdl=True) for i in range(turns)]
        line("embedding to f32, PDL", rows, rows * 4096 * 6, work)
        wide = [data(rows, 14336, BF16) for _ in range(3)]
        work = [lambda i=i: gpu.launch(quant, rows, 1024, [codes, scales, wide[i % 3], n, ("u32", 14336)], pdl=True) for i in range(turns)]
        line("quantise 14336, PDL", rows, rows * 14336 * 3, work)
        ldw = ("u32", 14336)
        work = [lambda i=i: gpu.launch(gate, *piece_grid(rows, 14336), [wide[2], wide[0], wide[1], n, ldw, ldw, ldw], pdl=True) for i in range(turns)]
        line("silu * y 14336, PDL", rows, rows * 14336 * 6, work)


def cases():
    for columns in (1, 37, 4096, 14336):
        rows = 3 if columns > 1000 else 7
        yield partial(norm, columns, rows, x32=True, add=True)
        yield partial(norm, columns, rows, layer=True, out32=True)
        yield partial(norm, columns, rows, layer=True, add=True, y32=True, out32=True, quantise=True, block=True)
        yield partial(norm, columns, rows, half=F16, x32=True, add=True, quantise=True, keep=True, alias=True)
        yield partial(quantise, columns, rows, BF16, columns % 2 == 0)
        yield partial(embedding, columns, rows, BF16, True, False)
        yield partial(gather, columns, rows, columns % 2 == 0, True)
    yield partial(norm, 4096, 5)
    yield partial(norm, 5120, 2, x32=True, add=True, quantise=True, block=True, keep=True)
    for columns, add in ((256, False), (4096, False), (4096, True), (14336, True)):
        for block in (False, True):
            yield partial(together, columns, block, add)
    yield partial(norm, 4096, 5, x32=True, quantise=True)
    yield partial(norm, 4096, 5, x32=True, add=True, quantise=True, block=True)
    yield partial(norm, 8192, 3, half=F16, layer=True, quantise=True, block=True, keep=True)
    yield partial(quantise, 4096, 3, F16, False)
    yield partial(quantise, 4096, 70, BF16, True)
    yield partial(quantise, 14336, 9, F16, True)
    yield partial(quantise, 200, 3, BF16, True)
    yield partial(embedding, 4096, 300, F16, False, False)
    yield partial(embedding, 768, 9, BF16, True, True)
    yield partial(gather, 4096, 9, False, False)
    yield partial(gather, 128, 9, True, False)
    yield partial(embedding, 2304, 9, BF16, True, False, scale=48.0)
    yield partial(embedding, 5, 9, F16, False, False, scale=0.3)
    for columns, groups in ((128, 40), (256, 4), (16, 5), (37, 3), (1, 4)):
        yield partial(norm_groups, columns, groups, 9, x32=columns % 2 == 0)
        yield partial(norm_groups, columns, groups, 3, half=F16)
    for activation in range(6):
        yield partial(elementwise, 4096, 3, activation % 3, activation, x32=True)
    yield partial(elementwise, 37, 3, 2, 1, x32=True, y32=True)
    yield partial(elementwise, 14336, 2, 2, 1, out32=False)
    yield partial(elementwise, 1, 5, 1, 0, y32=True, out32=False, half=F16)
    yield partial(angles, 128, 500)
    yield partial(angles, 6, 3)
    yield partial(rope, 32, 128, 128, 5, BF16, False)
    yield partial(rope, 8, 128, 64, 5, F16, True)
    yield partial(rope, 3, 37, 10, 4, BF16, True)
    yield partial(rope, 2, 80, 32, 4, BF16, False)
    yield partial(independent)


def run_part(part):
    print(f"seed {seed}, {torch.cuda.get_device_name()}", flush=True)
    for work in list(cases())[part::PARTS]:
        attempt(work.func.__name__, work)


def run_all():
    """A process for each part, side by side, as most of the time goes into compiling; a fault in one leaves the others whole."""
    run = lambda part: subprocess.run([sys.executable, __file__, "--part", str(part)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with ThreadPool(PARTS) as pool:
        for done in pool.map(run, range(PARTS)):
            print(done.stdout, end="", flush=True)
            lines = done.stdout.splitlines()
            wrong = sum(line.startswith("FAILED ") for line in lines)
            yield sum(line.startswith("ok ") for line in lines), wrong or int(done.returncode != 0)


if __name__ == "__main__":
    if "--part" in sys.argv:
        run_part(int(sys.argv[-1]))
        sys.exit(failed > 0)
    passed, failed = map(sum, zip(*run_all()))
    if "--time" in sys.argv:
        timings()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)
