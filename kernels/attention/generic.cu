// Attention of rows of any length for heads of any size: what the tensor-core kernels do not take. A warp for each (token, head).
//
// attend(out, q, ldq, angles, cache, rows, tables, tiles, tile_count): as prefill.cu; Q_TOKENS any. Sums in order of position.
// Macros: generic.cuh. Block: 256 threads. Grid: (tile_count, KV_HEADS).
#include "attention/generic.cuh"

constexpr u32 EACH = (HEAD_DIM + 31) / 32;

__device__ __forceinline__ float load_cell(const cache_t *cell) {
#ifdef CACHE_E4M3
    return unpack_e4m3x2(cell->bits).x;
#else
    return to_float(*cell);
#endif
}

extern "C" __global__ void __launch_bounds__(256)
    attend(half_t *out, const half_t *q, u32 ldq, const float *angles, const cache_t *cache, const Row *rows, const u32 *tables,
           const uint2 *tiles, u32 tile_count) {
    pdl_launch();
    pdl_wait();
    uint2 tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    Row row = rows[tile.x];
    u32 count = min(Q_TOKENS, row.len - tile.y);
    for (u32 pair = warp; pair < count * GROUP; pair += 8) {
        u32 token = tile.y + pair / GROUP, position = row.context + token, own = head * GROUP + pair % GROUP;
        u64 at = row.token + token;
        const half_t *query = q + at * ldq + own * HEAD_DIM;
        float rotated_query[EACH], acc[EACH] = {}, most = -INFINITY, total = 0.0f;
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            u32 dim = lane + 32 * i;
            rotated_query[i] = dim < HEAD_DIM ? to_float(to_half(rotated(query, dim, angles + at * ROPE_DIM))) : 0.0f;
        }
        for (u32 key = first_seen(position); key <= position; key++) {
            u32 block = tables[row.table + key / BLOCK_TOKENS];
            const cache_t *keys = cache + cache_offset(block, head, 0, key % BLOCK_TOKENS);
            const cache_t *values = cache + cache_offset(block, head, 1, key % BLOCK_TOKENS);
            float score = 0.0f;
#pragma unroll
            for (u32 i = 0; i < EACH; i++)
                if (lane + 32 * i < HEAD_DIM) score += rotated_query[i] * load_cell(keys + lane + 32 * i);
            for (u32 offset = 16; offset; offset /= 2) score += __shfl_xor_sync(0xffffffffu, score, offset);
            score = exponent(score);
            float highest = fmaxf(most, score), kept = exp2f(most - highest), weight = exp2f(score - highest);
            most = highest;
            total = total * kept + weight;
#pragma unroll
            for (u32 i = 0; i < EACH; i++)
                if (lane + 32 * i < HEAD_DIM) acc[i] = acc[i] * kept + weight * load_cell(values + lane + 32 * i);
        }
#pragma unroll
        for (u32 i = 0; i < EACH; i++)
            if (lane + 32 * i < HEAD_DIM) out[(at * HEADS + own) * HEAD_DIM + lane + 32 * i] = to_half(acc[i] / total);
    }
}
