// Append: rotates the new tokens' keys and writes keys and values into the paged cache.
//
// k, v: [tokens][KV_HEADS * HEAD_DIM] half_t with row strides ldk, ldv (elements), 16-byte aligned rows; angles: [tokens][ROPE_DIM]
// f32 (unused, may be null, when ROPE_DIM is 0); cache: this layer's start; slots[t] = block * BLOCK_TOKENS + offset of token t.
//
// Macros: see cache.cuh. Grid: (ceil(tokens * KV_HEADS * HEAD_DIM / 16 / 256)) or more; block: 256; no dynamic shared memory.
// One thread moves sixteen elements of K and of V. Slots of one launch must differ.
#include "attention/cache.cuh"

extern "C" __global__ void __launch_bounds__(256) append(const half_t *k, const half_t *v, u32 ldk, u32 ldv, const float *angles,
                                                         void *cache, const u32 *slots, u32 tokens) {
    pdl_launch();
    pdl_wait();
    constexpr u32 SLOTS = HEAD_DIM / 16;
    const u32 index = blockIdx.x * 256 + threadIdx.x, slot = index % SLOTS, head = index / SLOTS % KV_HEADS, token = index / (SLOTS * KV_HEADS);
    if (token >= tokens) return;
    const u32 place = slots[token];
    cache_t *to = (cache_t *)cache + tile_offset(place / BLOCK_TOKENS, head) + place % BLOCK_TOKENS * HEAD_DIM;
    float x[2][8];
    load_slot(x, k + (u64)token * ldk + head * HEAD_DIM, angles + (u64)token * ROPE_DIM, slot);
#pragma unroll
    for (u32 i = 0; i < 2; i++) store8(to + slot_chunk(slot, i) * 8, x[i]);
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        load8(x[i], v + (u64)token * ldv + head * HEAD_DIM + slot_chunk(slot, i) * 8);
        store8(to + TILE + slot_chunk(slot, i) * 8, x[i]);
    }
}
