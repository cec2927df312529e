"""Compiles the kernels with NVRTC and launches them through the driver: what the unit tests stand on.

Compiling works without a GPU. `LIBNVRTC` may name the library (else it is looked for by its usual names and in
Python's nvidia packages).
"""

import ctypes as c
import glob
import os
import pathlib
import sys

KERNELS = pathlib.Path(os.environ.get("KERNELS", pathlib.Path(__file__).resolve().parents[2] / "kernels"))


def find_nvrtc():
    found = [os.environ["LIBNVRTC"]] if "LIBNVRTC" in os.environ else []
    for root in sys.path:
        found += sorted(glob.glob(f"{root}/nvidia/cu13/lib/libnvrtc.so.13")) + sorted(glob.glob(f"{root}/nvidia/cuda_nvrtc/lib/libnvrtc.so.1[23]"))
    found += ["libnvrtc.so.13", "/usr/local/cuda/lib64/libnvrtc.so.13", "libnvrtc.so"]
    for path in found:
        # The library looks for its builtins by bare name; having them open already satisfies it.
        for builtins in sorted(glob.glob(os.path.join(os.path.dirname(path), "libnvrtc-builtins.so.*"))):
            c.CDLL(builtins)
        try:
            return c.CDLL(path)
        except OSError:
            continue
    raise RuntimeError("libnvrtc was not found")


_nvrtc = None


def compile(source, defines=None, arch="sm_90a", options=()):
    """Cubin of `kernels/<source>` with `-D` for each entry of `defines` (None: defined without a value)."""
    global _nvrtc
    _nvrtc = _nvrtc or find_nvrtc()
    n = _nvrtc
    headers = {str(p.relative_to(KERNELS)): p.read_bytes() for p in KERNELS.rglob("*.cuh")}
    program = c.c_void_p()
    texts = (c.c_char_p * len(headers))(*headers.values())
    names = (c.c_char_p * len(headers))(*[k.encode() for k in headers])
    code = (KERNELS / source).read_bytes()
    assert n.nvrtcCreateProgram(c.byref(program), code, source.encode(), len(headers), texts, names) == 0
    flags = [f"--gpu-architecture={arch}", "--std=c++17", *options]
    flags += [f"-D{k}" if v is None else f"-D{k}={v}" for k, v in (defines or {}).items()]
    argv = (c.c_char_p * len(flags))(*[f.encode() for f in flags])
    result = n.nvrtcCompileProgram(program, len(flags), argv)
    size = c.c_size_t()
    n.nvrtcGetProgramLogSize(program, c.byref(size))
    log = c.create_string_buffer(size.value)
    n.nvrtcGetProgramLog(program, log)
    text = log.value.decode()
    if result != 0:
        raise RuntimeError(f"{source} {defines} {arch}:\n{text}")
    if text.strip():
        print(text, file=sys.stderr)
    n.nvrtcGetCUBINSize(program, c.byref(size))
    cubin = c.create_string_buffer(size.value)
    n.nvrtcGetCUBIN(program, cubin)
    n.nvrtcDestroyProgram(c.byref(program))
    return cubin.raw


class LaunchConfig(c.Structure):
    _fields_ = [(n, c.c_uint) for n in ("gx", "gy", "gz", "bx", "by", "bz", "shared")] + [
        ("stream", c.c_void_p), ("attributes", c.c_void_p), ("count", c.c_uint)]


class Attribute(c.Structure):
    _fields_ = [("id", c.c_int), ("pad", c.c_int), ("value", c.c_uint * 16)]


class Gpu:
    """Device 0 in torch's context: tensors of torch are the memory. Launches go to torch's current stream."""

    def __init__(self):
        import torch

        torch.zeros(1, device="cuda")
        self.torch = torch
        self.d = c.CDLL("libcuda.so.1")
        major, minor = torch.cuda.get_device_capability()
        self.arch = f"sm_{major}{minor}" + ("a" if major in (9, 10, 12) else "")

    def check(self, status, what):
        if status:
            text = c.c_char_p()
            self.d.cuGetErrorString(status, c.byref(text))
            raise RuntimeError(f"{what}: {text.value.decode()} ({status})")

    def function(self, cubin, name, shared=0):
        module, function = c.c_void_p(), c.c_void_p()
        self.check(self.d.cuModuleLoadData(c.byref(module), cubin), "cuModuleLoadData")
        self.check(self.d.cuModuleGetFunction(c.byref(function), module, name.encode()), "cuModuleGetFunction")
        if shared > 48 * 1024:
            self.check(self.d.cuFuncSetAttribute(function, 8, c.c_int(shared)), "shared memory size")
        return function

    def launch(self, function, grid, block, args, shared=0, cluster=None, pdl=False):
        """`args`: torch tensors (passed as addresses), ints as ("u32"|"i32"|"u64"|"f32", value), bytes (by value)."""
        grid, block = (tuple(x) + (1, 1, 1) for x in ((grid,) if isinstance(grid, int) else grid, (block,) if isinstance(block, int) else block))
        kinds = {"u32": c.c_uint, "i32": c.c_int, "u64": c.c_ulonglong, "f32": c.c_float}
        values = []
        for a in args:
            if a is None:
                values.append(c.c_void_p(0))
            elif isinstance(a, bytes):
                # 64-byte alignment, as tensor maps want it.
                raw = c.create_string_buffer(len(a) + 64)
                at = (c.addressof(raw) + 63) & ~63
                c.memmove(at, a, len(a))
                held = (c.c_char * len(a)).from_address(at)
                held._raw = raw
                values.append(held)
            elif isinstance(a, tuple):
                values.append(kinds[a[0]](a[1]))
            else:
                values.append(c.c_void_p(a.data_ptr()))
        pointers = (c.c_void_p * max(1, len(values)))(*[c.addressof(v) for v in values])
        attributes = []
        if cluster:
            attributes.append(Attribute(4, 0, (c.c_uint * 16)(*cluster)))
        if pdl:
            attributes.append(Attribute(6, 0, (c.c_uint * 16)(1)))
        array = (Attribute * max(1, len(attributes)))(*attributes)
        stream = self.torch.cuda.current_stream().cuda_stream
        config = LaunchConfig(*grid[:3], *block[:3], shared, stream, c.addressof(array), len(attributes))
        self.check(self.d.cuLaunchKernelEx(c.byref(config), function, pointers, None), "cuLaunchKernelEx")

    def tensor_map(self, tensor, kind, dims, strides, box, swizzle=3):
        """`kind`: 9 bf16, 6 f16, 0 u8, 7 f32. dims and box innermost first; strides in bytes of dims 1..; swizzle 3 is 128 B."""
        rank = len(dims)
        raw = c.create_string_buffer(128 + 64)
        at = (c.addressof(raw) + 63) & ~63
        self.check(
            self.d.cuTensorMapEncodeTiled(
                c.c_void_p(at), kind, rank, c.c_void_p(tensor.data_ptr()), (c.c_ulonglong * rank)(*dims),
                (c.c_ulonglong * max(1, rank - 1))(*strides), (c.c_uint * rank)(*box), (c.c_uint * rank)(*([1] * rank)),
                0, swizzle, 2, 0),
            "cuTensorMapEncodeTiled")
        return c.string_at(at, 128)


def relative(out, reference):
    """Frobenius norm of the difference over that of the reference, in f64; NaN counts as infinite."""
    out, reference = out.double(), reference.double()
    if not bool(out.isfinite().all()):
        return float("inf")
    return float((out - reference).norm() / reference.norm().clamp_min(1e-30))


def median_us(torch, work, replays=20, warm=3):
    """Median time of one `work()` as replays of a captured graph, in microseconds."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()
    times = []
    for i in range(warm + replays):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000)
    return sorted(times[warm:])[replays // 2]
