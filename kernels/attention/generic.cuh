// What the attention kernels for heads of any size share.
//
// Macros: HEADS, KV_HEADS, HEAD_DIM, SCALE, WINDOW (0: none; a token sees the last WINDOW tokens, itself included), SOFTCAP (0:
// none), ROPE_DIM (0: none), CACHE_E4M3.
#pragma once

#include "attention/layout.cuh"

constexpr u32 GROUP = HEADS / KV_HEADS;
constexpr float LOG2E = 1.4426950408889634f;

// Element 0 of a token's K (which 0) or V (which 1).
__device__ __forceinline__ u64 cache_offset(u32 block, u32 head, u32 which, u32 token) {
    return tile_offset(block, head) + which * TILE + token * HEAD_DIM;
}

// The first position that a token at `position` sees.
__device__ __forceinline__ u32 first_seen(u32 position) {
    return WINDOW > 0 && position + 1 > WINDOW ? position + 1 - WINDOW : 0;
}

// A raw score as the exponent of 2 that softmax takes.
__device__ __forceinline__ float exponent(float score) {
    if (SOFTCAP > 0.0f) return SOFTCAP * LOG2E * tanhf(score * (SCALE / (SOFTCAP > 0.0f ? SOFTCAP : 1.0f)));
    return score * (SCALE * LOG2E);
}

// Dimension `i` of a head after rotation; `angles` are the token's.
__device__ __forceinline__ float rotated(const half_t *head, u32 i, const float *angles) {
    float value = to_float(head[i]);
#if ROPE_DIM > 0
    constexpr u32 HALF = ROPE_DIM / 2;
    if (i < HALF) return value * angles[i] - to_float(head[i + HALF]) * angles[HALF + i];
    if (i < ROPE_DIM) return value * angles[i - HALF] + to_float(head[i - HALF]) * angles[i];
#endif
    return value;
}

__device__ __forceinline__ void store_cache(cache_t *cell, float value) {
#ifdef CACHE_E4M3
    // Rounded as every other value of the step first.
    cell->bits = (u8)pack_e4m3x2(to_float(to_half(value)), 0.0f);
#else
    *cell = to_half(value);
#endif
}
