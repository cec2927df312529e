// Element types without CUDA's headers, so that a kernel compiles under NVRTC with nothing beside it.
//
// A kernel's 16-bit type is `half_t`: bfloat16, or IEEE half with -DELEMENT_F16. Values are computed in f32.
// Eight-bit floats are e4m3 (no infinities, 448 is the largest).
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

struct half_t {
    u16 bits;
};

// Two neighbours in 32 bits, the first in the low half.
#ifdef ELEMENT_F16
__device__ __forceinline__ u32 pack_half2(float low, float high) {
    u32 packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
__device__ __forceinline__ float to_float(half_t value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
__device__ __forceinline__ float2 unpack_half2(u32 packed) {
    half_t low = {(u16)packed}, high = {(u16)(packed >> 16)};
    return make_float2(to_float(low), to_float(high));
}
#else
__device__ __forceinline__ u32 pack_half2(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
__device__ __forceinline__ float to_float(half_t value) { return __uint_as_float((u32)value.bits << 16); }
__device__ __forceinline__ float2 unpack_half2(u32 packed) {
    return make_float2(__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u));
}
#endif

__device__ __forceinline__ half_t to_half(float value) {
    half_t result = {(u16)pack_half2(value, 0.0f)};
    return result;
}

// f32 in, e4m3 out: saturating, round to nearest even.
__device__ __forceinline__ u16 pack_e4m3x2(float low, float high) {
#if __CUDA_ARCH__ >= 890
    u16 packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
#else
    u16 packed = 0;
    float values[2] = {low, high};
    for (int i = 0; i < 2; i++) {
        float magnitude = fminf(fabsf(values[i]), 448.0f);
        u32 sign = __float_as_uint(values[i]) >> 31 << 7, code;
        if (magnitude < 0.015625f) {
            code = (u32)__float2int_rn(magnitude * 512.0f);  // subnormals in steps of 2^-9
        } else {
            u32 bits = __float_as_uint(magnitude);
            bits += 0x7ffffu + ((bits >> 20) & 1);  // to nearest even at 3 bits of mantissa
            code = (bits >> 20) - (120u << 3);
        }
        if (magnitude != magnitude) code = 0x7f;
        packed |= (u16)((sign | code) << (8 * i));
    }
    return packed;
#endif
}

// Two e4m3 to two f32; exact.
__device__ __forceinline__ float2 unpack_e4m3x2(u16 packed) {
#if __CUDA_ARCH__ >= 890
    u32 halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(packed));
    float2 result;
    asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}" : "=f"(result.x), "=f"(result.y) : "r"(halves));
    return result;
#else
    float values[2];
    for (int i = 0; i < 2; i++) {
        u32 code = (packed >> (8 * i)) & 0xff, magnitude = code & 0x7f;
        // As the high bits of a half of 5 exponent bits, whose bias is 8 larger.
        float value = __uint_as_float(magnitude << 20) * 0x1p120f;
        if (magnitude == 0x7f) value = __uint_as_float(0x7fffffffu);
        values[i] = code & 0x80 ? -value : value;
    }
    return make_float2(values[0], values[1]);
#endif
}

// Two f32 to IEEE halves and two e4m3 to IEEE halves (exact), whatever half_t is.
__device__ __forceinline__ u32 pack_f16x2(float low, float high) {
    u32 packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
__device__ __forceinline__ u32 e4m3x2_to_f16x2(u16 packed) {
    u32 halves;
#if __CUDA_ARCH__ >= 890
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(packed));
#else
    // Moved into a half's fields the exponent's bias is 8 too small. (A NaN becomes 480.)
    const u32 spread = (packed & 0xffu) << 8 | (packed & 0xff00u) << 16;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(halves) : "r"((spread & 0x80008000u) | (spread & 0x7f007f00u) >> 1), "r"(0x5c005c00u));
#endif
    return halves;
}

// Two e4m3 (bytes LOW and LOW + 1) to half_t: the bits in place of a small number's, then its exponent's bias put right; exact.
// (bf16 has a product before sm_90 only as a fused multiply-add.)
template <u32 LOW>
__device__ __forceinline__ u32 e4m3x2_to_half2(u32 packed) {
    u32 spread = __byte_perm(packed, 0, LOW == 0 ? 0x1404 : 0x3424), result;
#ifdef ELEMENT_F16
    u32 small = (spread >> 1 & 0x3f803f80u) | (spread & 0x80008000u);
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(small), "r"(0x5c005c00u), "r"(0x80008000u));
#else
    u32 small = (spread >> 4 & 0x07f007f0u) | (spread & 0x80008000u);
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(small), "r"(0x7b807b80u), "r"(0x80008000u));
#endif
    return result;
}
