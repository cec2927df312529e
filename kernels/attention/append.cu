// Writes the step's keys, rotated, and values to the cache.
//
// append(k, v, ldk, ldv, angles, cache, slots, tokens): k, v half_t [tokens][KV_HEADS * HEAD_DIM] with row strides in elements;
// angles f32 [tokens][ROPE_DIM] (cosines, then sines); cache: the layer's start; slots[t] = block * BLOCK_TOKENS + offset.
// Macros: cache.cuh. Block: 256 threads. Grid: tokens.
#include "attention/cache.cuh"

extern "C" __global__ void __launch_bounds__(256)
    append(const half_t *k, const half_t *v, u32 ldk, u32 ldv, const float *angles, cache_t *cache, const u32 *slots, u32 tokens) {
    pdl_launch();
    pdl_wait();
    u32 token = blockIdx.x;
    if (token >= tokens) return;
    u32 block = slots[token] / BLOCK_TOKENS, at = slots[token] % BLOCK_TOKENS;
    for (u32 column = threadIdx.x; column < KV_HEADS * HEAD_DIM; column += 256) {
        u32 head = column / HEAD_DIM, i = column % HEAD_DIM;
        const half_t *key = k + (u64)token * ldk + head * HEAD_DIM;
        store_cache(cache + cache_offset(block, head, 0, at) + i, rotated(key, i, angles + (u64)token * ROPE_DIM));
        store_cache(cache + cache_offset(block, head, 1, at) + i, to_float(v[(u64)token * ldv + column]));
    }
}
