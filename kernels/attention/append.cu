// Append: rotates the new tokens' keys and writes keys and values into the paged cache.
//
// k, v: [tokens][KV_HEADS * HEAD_DIM] half_t with row strides ldk, ldv (elements), 16-byte aligned rows; angles: [tokens][ROPE_DIM]
// f32 (unused, may be null, when ROPE_DIM is 0); cache: this layer's start; slots[t] = block * BLOCK_TOKENS + offset of token t.
//
// Macros: see cache.cuh. Grid: (ceil(tokens * KV_HEADS * HEAD_DIM / 8 / 256)) or more; block: 256; no dynamic shared memory.
// One thread moves eight elements of K and of V. Slots of one launch must differ.
#include "attention/cache.cuh"

extern "C" __global__ void __launch_bounds__(256) append(const half_t *k, const half_t *v, u32 ldk, u32 ldv, const float *angles,
                                                         void *cache, const u32 *slots, u32 tokens) {
    pdl_launch();
    pdl_wait();
    constexpr u32 VECTORS = HEAD_DIM / 8;
    const u32 index = blockIdx.x * 256 + threadIdx.x, d = index % VECTORS * 8, head = index / VECTORS % KV_HEADS,
              token = index / (VECTORS * KV_HEADS);
    if (token >= tokens) return;
    const u32 slot = slots[token];
    cache_t *to = (cache_t *)cache + tile_offset(slot / BLOCK_TOKENS, head) + slot % BLOCK_TOKENS * HEAD_DIM + d;
    float x[8];
    load8_rotated(x, k + (u64)token * ldk + head * HEAD_DIM, angles + (u64)token * ROPE_DIM, d);
    store8(to, x);
    load8(x, v + (u64)token * ldv + head * HEAD_DIM + d);
    store8(to + TILE, x);
}
