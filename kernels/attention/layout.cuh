// Where keys and values of one layer lie: [block][kv_head][K, then V][BLOCK_TOKENS][HEAD_DIM] of cache_t, so that the K tile of a
// (block, head) is contiguous and its V tile follows. A request's block table lists the blocks of its tokens in order. cache_t is half_t, or e4m3 (scale 1) with -DCACHE_E4M3.
#pragma once

#include "common/ptx.cuh"

constexpr u32 BLOCK_TOKENS = 16;

#ifdef CACHE_E4M3
struct cache_t {
    u8 bits;
};
#else
typedef half_t cache_t;
#endif

// A request's share of a step: its first token among the step's packed tokens, how many it has there, how many of its tokens
// the cache held before, and where its block table starts.
struct Row {
    u32 token, len, context, table;
};

constexpr u32 TILE = BLOCK_TOKENS * HEAD_DIM;  // elements of a K tile

// First element of the K tile of a block and head; the V tile is TILE further.
__device__ __forceinline__ u64 tile_offset(u32 block, u32 head) { return ((u64)block * KV_HEADS + head) * (2 * TILE); }
