// Attention of rows of one token over the paged cache, rope and append included: FlashDecoding (Dao et al., 2023) with the heads
// that share a kv head as the rows of one matrix product.
//
// A block serves one (row, kv head, split of its context); warps take the cache's blocks of 16 tokens in turn and keep sums of
// their own, added at the end in order. The last block to arrive of a (row, kv head) adds the splits, in order, so that a
// result depends on its own context alone. Keys and values go from memory to registers in fragment order: the order of k within
// an mma is free when both operands agree, as is the order of columns when the store knows it.
//
// decode(out, q, k, v, ldq, ldk, ldv, angles, cache, rows, tables, partial, counters, row_count)
//   out half_t [tokens][HEADS * HEAD_DIM]; q, k, v half_t with row strides in elements; angles f32 [tokens][ROPE_DIM]; cache: the
//   layer's start; rows: of len 1, or 0 for padding; partial f32 [row_count][KV_HEADS][SPLITS][GROUP][HEAD_DIM + 2], counters
//   u32 [row_count * KV_HEADS], zero before and after. k null: the new token is in the cache already.
// Macros: cache.cuh; SPLITS; GROUP <= 16. Block: 128 threads. Grid: (SPLITS, KV_HEADS, row_count).
#include "attention/cache.cuh"

constexpr u32 WARPS = 4, THREADS = 32 * WARPS;
constexpr u32 PARTS = HEAD_DIM + 2;  // sums, then maximum and divisor
constexpr u32 KEY_STEPS = HEAD_DIM / 32;
constexpr u32 VALUE_EACH = HEAD_DIM % 64 == 0 ? 8 : 4, VALUE_STEPS = HEAD_DIM / (8 * VALUE_EACH);
constexpr bool TALL = GROUP > 8;  // heads in the lower half of a tile
static_assert(GROUP <= 16 && HEAD_DIM % 32 == 0, "at most 16 heads for a kv head");

__device__ __forceinline__ u32 halves(u32 low, u32 high, u32 which) { return __byte_perm(low, high, which ? 0x7632 : 0x5410); }

struct Sums {
    float acc[VALUE_STEPS][VALUE_EACH][4];
    float most[2], total[2];
};

// One block of 16 cached tokens.
__device__ __forceinline__ void attend(Sums &s, const u32 (&q)[KEY_STEPS][2][4], const cache_t *keys, const cache_t *values, u32 base,
                                       u32 first, u32 end) {
    u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    uint4 raw[2][KEY_STEPS];
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
        for (u32 j = 0; j < KEY_STEPS; j++) raw[half][j] = load_cache_8(keys + (g + 8 * half) * HEAD_DIM + 32 * j + 8 * t);
    u32 v[VALUE_STEPS][4][VALUE_EACH / 2];
#pragma unroll
    for (u32 step = 0; step < VALUE_STEPS; step++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 token = 2 * t + i % 2 + i / 2 * 8;
            bool seen = base + token >= first && base + token < end;
            const cache_t *cells = values + token * HEAD_DIM + (step * 8 + g) * VALUE_EACH;
            if constexpr (VALUE_EACH == 8) {
                uint4 w = seen ? load_cache_8(cells) : make_uint4(0, 0, 0, 0);
                v[step][i][0] = w.x, v[step][i][1] = w.y, v[step][i][VALUE_EACH / 2 - 2] = w.z, v[step][i][VALUE_EACH / 2 - 1] = w.w;
            } else {
                uint2 w = seen ? load_cache_4(cells) : make_uint2(0, 0);
                v[step][i][0] = w.x, v[step][i][1] = w.y;
            }
        }
    float scores[2][4] = {};
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
        for (u32 j = 0; j < KEY_STEPS; j++) {
            mma_16816(scores[half], q[j][0], raw[half][j].x, raw[half][j].y);
            mma_16816(scores[half], q[j][1], raw[half][j].z, raw[half][j].w);
        }
    float highest[2] = {s.most[0], s.most[1]};
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 position = base + 8 * half + 2 * t + i % 2;
            scores[half][i] = position >= first && position < end ? exponent(scores[half][i]) : -INFINITY;
            highest[i / 2] = fmaxf(highest[i / 2], scores[half][i]);
        }
    float kept[2];
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 1));
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 2));
        float base2 = highest[r] == -INFINITY ? 0.0f : highest[r];
        kept[r] = exp2f(s.most[r] - base2);
        s.most[r] = highest[r];
        s.total[r] *= kept[r];
#pragma unroll
        for (u32 half = 0; half < 2; half++)
#pragma unroll
            for (u32 i = 2 * r; i < 2 * r + 2; i++) {
                scores[half][i] = exp2f(scores[half][i] - base2);
                s.total[r] += scores[half][i];
            }
    }
    u32 p[4] = {pack_half2(scores[0][0], scores[0][1]), TALL ? pack_half2(scores[0][2], scores[0][3]) : 0,
                pack_half2(scores[1][0], scores[1][1]), TALL ? pack_half2(scores[1][2], scores[1][3]) : 0};
#pragma unroll
    for (u32 step = 0; step < VALUE_STEPS; step++)
#pragma unroll
        for (u32 i = 0; i < VALUE_EACH; i++) {
            float(&acc)[4] = s.acc[step][i];
            acc[0] *= kept[0], acc[1] *= kept[0];
            if (TALL) acc[2] *= kept[1], acc[3] *= kept[1];
            mma_16816(acc, p, halves(v[step][0][i / 2], v[step][1][i / 2], i % 2), halves(v[step][2][i / 2], v[step][3][i / 2], i % 2));
        }
}

// Element `i` of the sums of several parts of one context, `stride` apart, each with its maximum and divisor.
__device__ __forceinline__ float merge(const float *parts, u32 count, u32 stride, u32 i, float &most, float &total) {
    most = -INFINITY, total = 0.0f;
    for (u32 p = 0; p < count; p++) most = fmaxf(most, parts[p * stride + HEAD_DIM]);
    float sum = 0.0f;
    for (u32 p = 0; p < count; p++) {
        const float *part = parts + p * stride;
        // A part without tokens has nothing to say, not even zeros.
        if (part[HEAD_DIM] == -INFINITY) continue;
        float weight = exp2f(part[HEAD_DIM] - most);
        sum += weight * part[i], total += weight * part[HEAD_DIM + 1];
    }
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    decode(half_t *out, const half_t *q, const half_t *k, const half_t *v, u32 ldq, u32 ldk, u32 ldv, const float *angles,
           cache_t *cache, const Row *rows, const u32 *tables, float *partial, u32 *counters, u32 row_count) {
    pdl_launch();
    pdl_wait();
    u32 split = blockIdx.x, head = blockIdx.y, index = blockIdx.z;
    Row row = rows[index];
    if (row.len == 0) return;
    const u32 *table = tables + row.table;
    u32 end = row.context + 1, first = first_seen(row.context);
    u32 first_block = first / BLOCK_TOKENS, blocks = (end + BLOCK_TOKENS - 1) / BLOCK_TOKENS - first_block;
    u32 each = (blocks + SPLITS - 1) / SPLITS, begin = min(split * each, blocks), stop = min(begin + each, blocks);
    const float *turn = angles + (u64)row.token * ROPE_DIM;

    __shared__ __align__(16) half_t queries[16][HEAD_DIM];
    __shared__ float merged[WARPS][GROUP][PARTS];
    u32 thread = threadIdx.x, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
    const half_t *query = q + (u64)row.token * ldq + head * GROUP * HEAD_DIM;
    for (u32 i = thread; i < 16 * HEAD_DIM; i += THREADS) {
        u32 h = i / HEAD_DIM;
        queries[h][i % HEAD_DIM] = to_half(h < GROUP ? rotated(query + h * HEAD_DIM, i % HEAD_DIM, turn) : 0.0f);
    }
    if (k && stop == blocks && begin < stop) {
        u32 block = table[row.context / BLOCK_TOKENS], at = row.context % BLOCK_TOKENS;
        const half_t *key = k + (u64)row.token * ldk + head * HEAD_DIM, *value = v + (u64)row.token * ldv + head * HEAD_DIM;
        for (u32 i = thread; i < HEAD_DIM; i += THREADS) {
            store_cache(cache + cache_offset(block, head, 0, at) + i, rotated(key, i, turn));
            store_cache(cache + cache_offset(block, head, 1, at) + i, to_float(value[i]));
        }
    }
    __syncthreads();

    u32 fragments[KEY_STEPS][2][4];
#pragma unroll
    for (u32 j = 0; j < KEY_STEPS; j++)
#pragma unroll
        for (u32 step = 0; step < 2; step++) {
            const u32 *low = (const u32 *)&queries[g][32 * j + 8 * t + 4 * step];
            const u32 *high = (const u32 *)&queries[g + 8][32 * j + 8 * t + 4 * step];
            fragments[j][step][0] = low[0], fragments[j][step][2] = low[1];
            fragments[j][step][1] = TALL ? high[0] : 0, fragments[j][step][3] = TALL ? high[1] : 0;
        }
    Sums s = {};
    s.most[0] = s.most[1] = -INFINITY;
    for (u32 i = begin + warp; i < stop; i += WARPS) {
        u32 block = table[first_block + i];
        const cache_t *keys = cache + cache_offset(block, head, 0, 0);
        attend(s, fragments, keys, keys + BLOCK_TOKENS * HEAD_DIM, (first_block + i) * BLOCK_TOKENS, first, end);
    }
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
        s.total[r] += __shfl_xor_sync(0xffffffffu, s.total[r], 1);
        s.total[r] += __shfl_xor_sync(0xffffffffu, s.total[r], 2);
        u32 h = g + 8 * r;
        if (h >= GROUP) continue;
#pragma unroll
        for (u32 step = 0; step < VALUE_STEPS; step++)
#pragma unroll
            for (u32 i = 0; i < VALUE_EACH; i++)
#pragma unroll
                for (u32 c = 0; c < 2; c++)
                    merged[warp][h][(step * 8 + 2 * t + c) * VALUE_EACH + i] = s.acc[step][i][2 * r + c];
        if (t == 0) merged[warp][h][HEAD_DIM] = s.most[r], merged[warp][h][HEAD_DIM + 1] = s.total[r];
    }
    __syncthreads();

    half_t *target = out + (u64)row.token * HEADS * HEAD_DIM + head * GROUP * HEAD_DIM;
    u64 place = ((u64)index * KV_HEADS + head) * SPLITS;
    for (u32 i = thread; i < GROUP * HEAD_DIM; i += THREADS) {
        u32 h = i / HEAD_DIM, dim = i % HEAD_DIM;
        float most, total, sum = merge(merged[0][h], WARPS, GROUP * PARTS, dim, most, total);
        if (SPLITS == 1) {
            target[i] = to_half(sum / total);
        } else {
            float *part = partial + ((place + split) * GROUP + h) * PARTS;
            part[dim] = sum;
            if (dim == 0) part[HEAD_DIM] = most, part[HEAD_DIM + 1] = total;
        }
    }
    if (SPLITS == 1) return;
    __threadfence();
    __syncthreads();
    __shared__ bool last;
    if (thread == 0) last = atomicAdd(counters + index * KV_HEADS + head, 1) == SPLITS - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (u32 i = thread; i < GROUP * HEAD_DIM; i += THREADS) {
        u32 h = i / HEAD_DIM;
        const float *parts = partial + (place * GROUP + h) * PARTS;
        float most, total, sum = merge(parts, SPLITS, GROUP * PARTS, i % HEAD_DIM, most, total);
        target[i] = to_half(sum / total);
    }
    if (thread == 0) counters[index * KV_HEADS + head] = 0;
}
