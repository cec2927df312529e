// The paged cache of one layer: [block][kv head][K, then V][BLOCK_TOKENS][HEAD_DIM], of half_t, or e4m3 with CACHE_E4M3.
//
// Macros of every attention kernel: HEADS, KV_HEADS, HEAD_DIM (a multiple of 32), SCALE, WINDOW (0: none; a token sees the last
// WINDOW tokens, itself included), SOFTCAP (0: none), ROPE_DIM (0: none).
#pragma once

#include "common/ptx.cuh"

constexpr u32 BLOCK_TOKENS = 16;
constexpr u32 GROUP = HEADS / KV_HEADS;
constexpr float LOG2E = 1.4426950408889634f;

#ifdef CACHE_E4M3
typedef u8 cache_t;
#else
typedef half_t cache_t;
#endif

// One request's part of a step; its first table entry is tables[table].
struct Row {
    u32 token, len, context, table;
};

// Element 0 of a token's K (which 0) or V (which 1).
__device__ __forceinline__ u64 cache_offset(u32 block, u32 head, u32 which, u32 token) {
    return ((((u64)block * KV_HEADS + head) * 2 + which) * BLOCK_TOKENS + token) * HEAD_DIM;
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
    *cell = (u8)pack_e4m3x2(to_float(to_half(value)), 0.0f);
#else
    *cell = to_half(value);
#endif
}

// Eight neighbouring elements as four pairs of half_t.
__device__ __forceinline__ uint4 load_cache_8(const cache_t *cells) {
#ifdef CACHE_E4M3
    uint2 codes = *(const uint2 *)cells;
    float2 a = unpack_e4m3x2((u16)codes.x), b = unpack_e4m3x2((u16)(codes.x >> 16));
    float2 c = unpack_e4m3x2((u16)codes.y), d = unpack_e4m3x2((u16)(codes.y >> 16));
    return make_uint4(pack_half2(a.x, a.y), pack_half2(b.x, b.y), pack_half2(c.x, c.y), pack_half2(d.x, d.y));
#else
    return *(const uint4 *)cells;
#endif
}
__device__ __forceinline__ uint2 load_cache_4(const cache_t *cells) {
#ifdef CACHE_E4M3
    u32 codes = *(const u32 *)cells;
    float2 a = unpack_e4m3x2((u16)codes), b = unpack_e4m3x2((u16)(codes >> 16));
    return make_uint2(pack_half2(a.x, a.y), pack_half2(b.x, b.y));
#else
    return *(const uint2 *)cells;
#endif
}
