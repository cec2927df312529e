// Hopper's warpgroup matrix multiply-accumulate, both operands in shared memory, f32 sums (sm_90a).
//
// wgmma<WIDTH>(d, a, b, keep): d[64][WIDTH] = keep * d + a[64][k] b[WIDTH][k]^T, k being 32 bytes: 16 of half_t, or 32 of e4m3 with -DE4M3.
// WIDTH is a multiple of 16 up to 256. Thread i of the warpgroup, warp w = i / 32, g = i % 32 / 4, t = i % 4, holds of every 8
// columns j: d[4j], d[4j+1] = row 16w+g, columns 8j+2t, +1; d[4j+2], d[4j+3] = row 16w+g+8.
// The sums are valid after wgmma_wait and wgmma_hold, which keeps the compiler from reading them earlier.
#pragma once

#include "common/ptx.cuh"

// An operand of rows of 128 bytes, 8-row atoms of 1024 bytes (aligned to that) in the copy engine's 128-byte swizzle. Inside an
// atom, the operand's next 32 bytes of K are 2 further in the descriptor.
__device__ __forceinline__ u64 wgmma_descriptor(u32 shared) {
    return (u64)((shared & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

template <int COUNT>
__device__ __forceinline__ void wgmma_hold(float *d) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// A whole warpgroup gives registers up or waits for them: a multiple of 8 per thread, in kernels with __launch_bounds__(n, m).
template <int COUNT>
__device__ __forceinline__ void registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
__device__ __forceinline__ void registers_increase() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int WIDTH>
__device__ __forceinline__ void wgmma(float *d, u64 a, u64 b, int keep);

#if E4M3
#define WGMMA_KIND "k32.f32.e4m3.e4m3"
#define WGMMA_MODES "1, 1"
#elif defined(ELEMENT_F16)
#define WGMMA_KIND "k16.f32.f16.f16"
#define WGMMA_MODES "1, 1, 0, 0"
#else
#define WGMMA_KIND "k16.f32.bf16.bf16"
#define WGMMA_MODES "1, 1, 0, 0"
#endif

// Names and operands of the first N / 2 registers, eight more at a time.
#define WGMMA_NAMES_16 "%0,%1,%2,%3,%4,%5,%6,%7"
#define WGMMA_NAMES_32 WGMMA_NAMES_16 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define WGMMA_NAMES_48 WGMMA_NAMES_32 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define WGMMA_NAMES_64 WGMMA_NAMES_48 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES_80 WGMMA_NAMES_64 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define WGMMA_NAMES_96 WGMMA_NAMES_80 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_NAMES_112 WGMMA_NAMES_96 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define WGMMA_NAMES_128 WGMMA_NAMES_112 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_NAMES_144 WGMMA_NAMES_128 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define WGMMA_NAMES_160 WGMMA_NAMES_144 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define WGMMA_NAMES_176 WGMMA_NAMES_160 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define WGMMA_NAMES_192 WGMMA_NAMES_176 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_NAMES_208 WGMMA_NAMES_192 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define WGMMA_NAMES_224 WGMMA_NAMES_208 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define WGMMA_NAMES_240 WGMMA_NAMES_224 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define WGMMA_NAMES_256 WGMMA_NAMES_240 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA_EIGHT(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_SUMS_16 WGMMA_EIGHT(0)
#define WGMMA_SUMS_32 WGMMA_SUMS_16, WGMMA_EIGHT(8)
#define WGMMA_SUMS_48 WGMMA_SUMS_32, WGMMA_EIGHT(16)
#define WGMMA_SUMS_64 WGMMA_SUMS_48, WGMMA_EIGHT(24)
#define WGMMA_SUMS_80 WGMMA_SUMS_64, WGMMA_EIGHT(32)
#define WGMMA_SUMS_96 WGMMA_SUMS_80, WGMMA_EIGHT(40)
#define WGMMA_SUMS_112 WGMMA_SUMS_96, WGMMA_EIGHT(48)
#define WGMMA_SUMS_128 WGMMA_SUMS_112, WGMMA_EIGHT(56)
#define WGMMA_SUMS_144 WGMMA_SUMS_128, WGMMA_EIGHT(64)
#define WGMMA_SUMS_160 WGMMA_SUMS_144, WGMMA_EIGHT(72)
#define WGMMA_SUMS_176 WGMMA_SUMS_160, WGMMA_EIGHT(80)
#define WGMMA_SUMS_192 WGMMA_SUMS_176, WGMMA_EIGHT(88)
#define WGMMA_SUMS_208 WGMMA_SUMS_192, WGMMA_EIGHT(96)
#define WGMMA_SUMS_224 WGMMA_SUMS_208, WGMMA_EIGHT(104)
#define WGMMA_SUMS_240 WGMMA_SUMS_224, WGMMA_EIGHT(112)
#define WGMMA_SUMS_256 WGMMA_SUMS_240, WGMMA_EIGHT(120)

#define WGMMA(WIDTH, A, B, KEEP)                                                                                    \
    template <>                                                                                                     \
    __device__ __forceinline__ void wgmma<WIDTH>(float *d, u64 a, u64 b, int keep) {                                \
        asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" #KEEP ", 0;\n"                                      \
                     "wgmma.mma_async.sync.aligned.m64n" #WIDTH WGMMA_KIND " {" WGMMA_NAMES_##WIDTH "}, %" #A ", %" #B\
                     ", keep, " WGMMA_MODES ";\n}"                                                                  \
                     : WGMMA_SUMS_##WIDTH                                                                           \
                     : "l"(a), "l"(b), "r"(keep));                                                                  \
    }
WGMMA(16, 8, 9, 10)
WGMMA(32, 16, 17, 18)
WGMMA(48, 24, 25, 26)
WGMMA(64, 32, 33, 34)
WGMMA(80, 40, 41, 42)
WGMMA(96, 48, 49, 50)
WGMMA(112, 56, 57, 58)
WGMMA(128, 64, 65, 66)
WGMMA(144, 72, 73, 74)
WGMMA(160, 80, 81, 82)
WGMMA(176, 88, 89, 90)
WGMMA(192, 96, 97, 98)
WGMMA(208, 104, 105, 106)
WGMMA(224, 112, 113, 114)
WGMMA(240, 120, 121, 122)
WGMMA(256, 128, 129, 130)
