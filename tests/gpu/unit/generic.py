"""linear/generic.cu against f64 at every odd shape and alignment, and its invariance bit by bit."""

import itertools
import os
import random
import sys

import mma_gemm
from mma_gemm import launch

SOURCE = "linear/generic.cu"


def cases():
    norm = {"NORM": None, "NORM_EPS": "1e-5f"}
    flags = mma_gemm.FLAGS + [{**norm, "OUTPUT_F32": None}, {**norm, "RESIDUAL": None, "BIAS": None}, {**norm, "GATED": None, "ACTIVATION": 1},
                              {**norm, "GATED": None, "ACTIVATION": 3, "BIAS": None, "ELEMENT_F16": None}]
    listed, turn = [], itertools.cycle(flags)
    for _ in range(random.randrange(len(flags))):
        next(turn)
    for n, k, weight in itertools.product((1, 7, 24, 96, 1030), (1, 32, 37, 96, 352, 4096), mma_gemm.WEIGHTS):
        listed.append({"N": n, "K": k, **weight, **next(turn)})
    return listed


def main():
    seed = int(os.environ.get("SEED", int.from_bytes(os.urandom(4), "little")))
    print("seed", seed)
    random.seed(seed)
    layers = cases()
    kernels = mma_gemm.Kernels([(SOURCE, d) for d in layers], os.environ.get("ARCH", "sm_90a"))
    print(len(kernels.cubins), "compiled", *(c for c in kernels.cubins.values() if isinstance(c, RuntimeError)), flush=True)
    if "--compile-only" in sys.argv:
        return 0
    gpu = launch.Gpu()
    gpu.torch.manual_seed(seed)
    verdict = mma_gemm.Verdicts()
    for d in layers:
        def launch_with(args, rows):
            gpu.launch(kernels.get(gpu, SOURCE, d), (-(-d["N"] // 16), -(-rows // 4)), 128, args)

        try:
            mma_gemm.check_rows(verdict, d, mma_gemm.Data(gpu.torch, d, max(mma_gemm.ROWS), pad=1), launch_with)
        except Exception as problem:
            verdict(False, mma_gemm.name_of(d), problem)
    return verdict.finish()


if __name__ == "__main__":
    sys.exit(main())
