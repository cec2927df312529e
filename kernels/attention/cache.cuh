// What the tensor-core attention kernels share: rotation, and the cache of layout.cuh as operands.
//
// Macros: KV_HEADS, HEAD_DIM (64, 96, 128, 256), ROPE_DIM (0: none; a multiple of 16, at most HEAD_DIM), CACHE_E4M3.
// Rotation: within the first ROPE_DIM dimensions the pair (i, i + ROPE_DIM/2) turns by the token's angle i;
// angles[token][0 .. ROPE_DIM/2) are cosines, [ROPE_DIM/2 .. ROPE_DIM) sines.
#pragma once

#include "attention/layout.cuh"

#ifndef ROPE_DIM
#define ROPE_DIM 0
#endif
static_assert(ROPE_DIM % 16 == 0 && ROPE_DIM <= HEAD_DIM, "rotation works on pairs of eight elements");

__device__ __forceinline__ void load8(float (&x)[8], const half_t *from) {
    const uint4 raw = *(const uint4 *)from;
    const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const float2 pair = unpack_half2(words[i]);
        x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
}

// A head is taken in HEAD_DIM / 16 slots of two chunks of eight elements, such that rotation stays within a slot.
constexpr int ROTATED_SLOTS = ROPE_DIM / 16;
__device__ __forceinline__ u32 slot_chunk(u32 slot, u32 which) {
    return (int)slot < ROTATED_SLOTS ? slot + which * ROTATED_SLOTS : 2 * slot + which;
}

// A slot's chunks of one head, rotated; `angles` is the token's line.
__device__ __forceinline__ void load_slot(float (&x)[2][8], const half_t *head, const float *angles, u32 slot) {
    load8(x[0], head + slot_chunk(slot, 0) * 8);
    load8(x[1], head + slot_chunk(slot, 1) * 8);
    if ((int)slot >= ROTATED_SLOTS) return;
#pragma unroll
    for (u32 i = 0; i < 8; i += 4) {
        const float4 cosine = *(const float4 *)(angles + slot * 8 + i), sine = *(const float4 *)(angles + ROPE_DIM / 2 + slot * 8 + i);
        const float cosines[4] = {cosine.x, cosine.y, cosine.z, cosine.w}, sines[4] = {sine.x, sine.y, sine.z, sine.w};
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const float first = x[0][i + j], second = x[1][i + j];
            // Spelled out, so that every kernel rounds alike.
            x[0][i + j] = fmaf(-second, sines[j], first * cosines[j]);
            x[1][i + j] = fmaf(first, sines[j], second * cosines[j]);
        }
    }
}

__device__ __forceinline__ uint4 pack8(const float (&x)[8]) {
    return make_uint4(pack_half2(x[0], x[1]), pack_half2(x[2], x[3]), pack_half2(x[4], x[5]), pack_half2(x[6], x[7]));
}

// Eight values rounded to the cache's type; `to` is aligned to eight elements.
__device__ __forceinline__ void store8(cache_t *to, const float (&x)[8]) {
#ifdef CACHE_E4M3
    *(uint2 *)to = make_uint2(pack_e4m3x2(x[0], x[1]) | (u32)pack_e4m3x2(x[2], x[3]) << 16,
                              pack_e4m3x2(x[4], x[5]) | (u32)pack_e4m3x2(x[6], x[7]) << 16);
#else
    *(uint4 *)to = pack8(x);
#endif
}

// ---- Operands of the tensor cores ----
// With an e4m3 cache they are f16, which holds every e4m3 value; queries beyond 65504 would overflow there.

#ifdef CACHE_E4M3
__device__ __forceinline__ u32 pack_operand(float low, float high) { return pack_f16x2(low, high); }
__device__ __forceinline__ void mma_operand(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_16816_f16(d, a, b0, b1); }
#else
__device__ __forceinline__ u32 pack_operand(float low, float high) { return pack_half2(low, high); }
__device__ __forceinline__ void mma_operand(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_16816(d, a, b0, b1); }
#endif

__device__ __forceinline__ uint4 pack8_operand(const float (&x)[8]) {
    return make_uint4(pack_operand(x[0], x[1]), pack_operand(x[2], x[3]), pack_operand(x[4], x[5]), pack_operand(x[6], x[7]));
}

// ---- Scores ----
#ifdef SCALE
#ifndef WINDOW
#define WINDOW 0
#endif
#ifndef SOFTCAP
#define SOFTCAP 0.0f
#endif

constexpr float LOG2E = 1.44269504088896f;
// Factor from what `capped` returns to a power of two's exponent.
constexpr float EXPONENT = (SOFTCAP) > 0 ? LOG2E : (SCALE) * LOG2E;
#define MASKED __uint_as_float(0xff800000u)  // minus infinity: the score of a key that is not seen

__device__ __forceinline__ float exp2_approx(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// A raw dot product, or its scaled and softly capped value. tanh through an exponential: the hardware's tanh is too coarse.
__device__ __forceinline__ float capped(float dot) {
    if ((SOFTCAP) > 0) {
        constexpr float CAP = (SOFTCAP) > 0 ? (SOFTCAP) : 1.0f;
        const float power = exp2_approx(dot * (2.0f * (SCALE) / CAP * LOG2E));
        return CAP - __fdividef(2.0f * CAP, power + 1.0f);
    }
    return dot;
}

// First position a token at `position` sees.
__device__ __forceinline__ u32 window_start(u32 position) { return WINDOW > 0 && position >= WINDOW ? position + 1 - WINDOW : 0; }
#endif
