// Warpgroup matrix multiply-accumulate of operands as mma_operand takes them (cache.cuh), f32 sums (sm_90a): d[64 x N] += a[64 x 16] b[16 x N].
//
// A thread's sums are laid out as those of mma m16n8k16, tile after tile of eight columns; warp w of the group has rows 16w .. 16w+15.
// Operands in shared memory are panels of 64 columns (128 bytes): line after line, each line's 16-byte chunks permuted by the line's
// number modulo 8 ("128-byte swizzle"). Panels start at multiples of 1024 bytes.
#pragma once

#include "common/ptx.cuh"

// A panel whose lines are rows of a, or columns of b, and run along the summed dimension. The next 16 of it: + 2.
__device__ __forceinline__ u64 panel_descriptor(u32 shared) { return 1ull << 62 | 64ull << 32 | 1ull << 16 | shared >> 4; }
// Panels, `stride` bytes apart, whose lines are the summed dimension of b and run along its columns. The next 16 lines: + 128.
__device__ __forceinline__ u64 transposed_descriptor(u32 shared, u32 stride) {
    return 1ull << 62 | 64ull << 32 | (u64)(stride >> 4) << 16 | shared >> 4;
}

// Values of a multiplication in flight must not be touched before its wait: this keeps the compiler from moving uses up.
template <u32 N>
__device__ __forceinline__ void wgmma_hold(float (&d)[N]) {
#pragma unroll
    for (u32 i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#if defined(ELEMENT_F16) || defined(CACHE_E4M3)
#define WGMMA_TYPES "f32.f16.f16"
#else
#define WGMMA_TYPES "f32.bf16.bf16"
#endif

#define LIST_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_64 \
    LIST_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LIST_128 \
    LIST_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SUMS_8(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS_32(i) SUMS_8(i), SUMS_8(i + 8), SUMS_8(i + 16), SUMS_8(i + 24)
#define SUMS_64 SUMS_32(0), SUMS_32(32)
#define SUMS_128 SUMS_64, SUMS_32(64), SUMS_32(96)

// wgmma: a and b by panel_descriptor; d is overwritten unless `accumulate`. wgmma_transposed: a from registers (as mma_16816's),
// b by transposed_descriptor; always adds.
#define DEFINE_WGMMA(COLUMNS, COUNT, LIST, SUMS, P0, P1, P2, P3, P4, P5)                                                             \
    __device__ __forceinline__ void wgmma(float (&d)[COUNT], u64 a, u64 b, u32 accumulate) {                                         \
        asm volatile("{.reg .pred p; setp.ne.b32 p, " P2 ", 0; wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16." WGMMA_TYPES         \
                     " {" LIST "}, " P0 ", " P1 ", p, 1, 1, 0, 0;}"                                                                   \
                     : SUMS                                                                                                          \
                     : "l"(a), "l"(b), "r"(accumulate));                                                                             \
    }                                                                                                                                \
    __device__ __forceinline__ void wgmma_transposed(float (&d)[COUNT], const u32 (&a)[4], u64 b) {                                  \
        asm volatile("{.reg .pred p; setp.ne.b32 p, " P5 ", 0; wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16." WGMMA_TYPES         \
                     " {" LIST "}, {" P0 ", " P1 ", " P2 ", " P3 "}, " P4 ", p, 1, 1, 1;}"                                            \
                     : SUMS                                                                                                          \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));                                                  \
    }
DEFINE_WGMMA("64", 32, LIST_32, SUMS_32(0), "%32", "%33", "%34", "%35", "%36", "%37")
DEFINE_WGMMA("128", 64, LIST_64, SUMS_64, "%64", "%65", "%66", "%67", "%68", "%69")
DEFINE_WGMMA("256", 128, LIST_128, SUMS_128, "%128", "%129", "%130", "%131", "%132", "%133")
