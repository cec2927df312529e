// Prefill attention: causal attention of a step's tokens over the paged cache, which already holds the step's own keys.
//
//   out[token][head] = sum over visible keys of softmax(cap(SCALE * rope(q) . k)) v
//
// A tile is Q_TOKENS = TILE_ROWS / GROUP neighbouring tokens of one row times the GROUP = HEADS / KV_HEADS heads that share a
// key head: TILE_ROWS rows of the score matrix, row r being token r / GROUP and head r % GROUP. Keys come in steps of KEYS at
// absolute multiples of KEYS; a softmax runs online beside them (f32). A token's result has the same bits whatever tile it is
// in: each row is computed by itself, and a step in which it sees nothing leaves it exactly as it was.
//
// out: [T][HEADS * HEAD_DIM] half_t; q: [T] rows of stride ldq (elements), 16-byte aligned; angles: [T][ROPE_DIM] f32;
// tiles[i] = (row index, first token within the row); tokens first .. first + Q_TOKENS - 1 that exist are computed.
//
// Macros: HEADS, SCALE, WINDOW (0: none), SOFTCAP (0: none), TILE_ROWS (64 or 128), and those of cache.cuh.
// Grid: (KV_HEADS, at least tile_count); block: 128. Dynamic shared memory: TILE_ROWS * HEAD_DIM * 2
// + KEYS * HEAD_DIM * (CACHE_E4M3 ? 6 : 8) bytes. Tiles are taken from the last to the first: put the longest last.
#include "attention/cache.cuh"

#ifndef TILE_ROWS
#define TILE_ROWS (HEAD_DIM > 128 ? 64 : 128)
#endif

constexpr u32 GROUP = HEADS / KV_HEADS, Q_TOKENS = TILE_ROWS / GROUP;
constexpr u32 KEYS = HEAD_DIM > 128 ? 32 : 64;
constexpr u32 WARPS = 4, WARP_ROWS = TILE_ROWS / WARPS, FRAGMENTS = WARP_ROWS / 16;  // m16 tiles of a warp
constexpr u32 LINE = HEAD_DIM * 2;                                                  // bytes of a row in shared memory
constexpr u32 STAGE = 2 * KEYS * LINE;                                              // K and V of one step
static_assert(HEADS % KV_HEADS == 0 && Q_TOKENS >= 1, "heads share key heads evenly");
static_assert(HEAD_DIM <= 128 || FRAGMENTS == 1, "the sums of two fragments would not fit the registers");

// A row's maximum only follows once it is exceeded by this many powers of two: sums stay far from overflow and are rarely rescaled.
constexpr float SLACK = 8.0f;

extern __shared__ __align__(1024) u8 shared[];

// 16-byte chunks of a row are permuted so that eight rows of one column lie in different banks.
__device__ __forceinline__ u32 chunk_key(u32 row) { return HEAD_DIM == 96 ? row / 2 % 4 : row % 8; }
__device__ __forceinline__ u32 chunk_offset(u32 row, u32 chunk) { return row * LINE + (chunk ^ chunk_key(row)) * 16; }

// The address `chunks` (even) further along the row of `at`, whose own chunk is 0 or 1.
__device__ __forceinline__ u32 along(u32 at, u32 chunks) {
    constexpr u32 PERMUTED = HEAD_DIM == 96 ? 3 : 7;
    return (at ^ (chunks & PERMUTED) * 16) + (chunks & ~PERMUTED) * 16;
}

// Brings the keys and values of one step into shared memory. Each warp copies its share of one block's neighbouring K and V tiles.
struct Loader {
    static constexpr u32 SHARES = WARPS / (KEYS / BLOCK_TOKENS);               // warps per block
    static constexpr u32 CHUNKS = 2 * TILE * sizeof(cache_t) / 16 / SHARES;    // 16-byte pieces of a warp
    static constexpr u32 ROW_CHUNKS = HEAD_DIM * sizeof(cache_t) / 16;
    const cache_t *cache;
    const u32 *table;
    u32 first, limit;  // tokens that may be read; `first` is its block's first
    u32 offset, lane;  // this warp's block within a step, in tokens

    __device__ __forceinline__ bool readable(u32 key) const { return key >= first && key < limit; }
    // The block this warp reads in the step at `start`; fetched a step ahead, for its latency.
    __device__ __forceinline__ u32 block(u32 start) const {
        const u32 key = start + offset;
        return readable(key) ? table[key / BLOCK_TOKENS] : 0;
    }
    // Keys outside are replaced by zeros: what lies there may be anything, even NaN.
    __device__ __forceinline__ void copy(u32 to, u32 start, u32 block, u32 head, u32 share) const {
        const u8 *from = (const u8 *)(cache + tile_offset(block, head));
#pragma unroll
        for (u32 i = 0; i < CHUNKS; i += 32) {
            if (CHUNKS % 32 != 0 && i + lane >= CHUNKS) break;
            const u32 piece = share * CHUNKS + i + lane, line = piece / ROW_CHUNKS, chunk = piece % ROW_CHUNKS;
            const u32 is_value = line / BLOCK_TOKENS, key = offset + line % BLOCK_TOKENS, row = is_value * KEYS + key;
#ifdef CACHE_E4M3
            const u32 at = row * HEAD_DIM + chunk * 16;
#else
            const u32 at = chunk_offset(row, chunk);
#endif
            cp_async_16(to + at, from + piece * 16, readable(start + key) ? 16 : 0);
        }
    }
};

#ifdef CACHE_E4M3
// A step's raw e4m3 becomes f16 in the layout the tensor cores read.
__device__ __forceinline__ void expand(u32 to, const u8 *raw) {
    for (u32 i = threadIdx.x; i < STAGE / 16; i += WARPS * 32) {
        const uint2 eight = ((const uint2 *)raw)[i];
        const u32 at = to + chunk_offset(i / (HEAD_DIM / 8), i % (HEAD_DIM / 8));
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(e4m3x2_to_f16x2(eight.x)),
                     "r"(e4m3x2_to_f16x2(eight.x >> 16)), "r"(e4m3x2_to_f16x2(eight.y)), "r"(e4m3x2_to_f16x2(eight.y >> 16))
                     : "memory");
    }
}
#endif

extern "C" __global__ void __launch_bounds__(WARPS * 32, HEAD_DIM <= 128 ? 2 : 1)
    prefill(half_t *out, const half_t *q, u32 ldq, const float *angles, const void *cache, const Row *rows, const u32 *tables,
            const uint2 *tiles, u32 tile_count) {
    pdl_launch();
    pdl_wait();
    if (blockIdx.y >= tile_count) return;
    const uint2 tile = tiles[tile_count - 1 - blockIdx.y];
    const Row row = rows[tile.x];
    const u32 head = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 tokens = min(Q_TOKENS, row.len - tile.y), used = tokens * GROUP;
    const u32 position = row.context + tile.y;  // of the tile's first token
    const u32 warp_row = warp * WARP_ROWS;

    const u32 queries = shared_address(shared), stages = queries + TILE_ROWS * LINE;
    const u32 start = window_start(position), begin = start / KEYS * KEYS, end = position + tokens;
    const u32 share = warp % Loader::SHARES;
    const Loader loader = {(const cache_t *)cache, tables + row.table, start / BLOCK_TOKENS * BLOCK_TOKENS, end,
                           warp / Loader::SHARES * BLOCK_TOKENS, lane};
#ifdef CACHE_E4M3
    const u32 incoming = stages + STAGE;
#else
    const u32 incoming = stages;
#endif
    loader.copy(incoming, begin, loader.block(begin), head, share);
    cp_async_commit();
    u32 next_block = loader.block(begin + KEYS);

    // This warp's queries, rotated. Rows without a token repeat the last one's: nobody reads their results.
    constexpr u32 SLOTS = HEAD_DIM / 16;
#pragma unroll 4
    for (u32 i = lane; i < WARP_ROWS * SLOTS; i += 32) {
        const u32 r = warp_row + i / SLOTS, slot = i % SLOTS, from = min(r, used - 1);
        const u64 token = row.token + tile.y + from / GROUP;
        float x[2][8];
        load_slot(x, q + token * ldq + (head * GROUP + from % GROUP) * HEAD_DIM, angles + token * ROPE_DIM, slot);
#pragma unroll
        for (u32 j = 0; j < 2; j++) *(uint4 *)(shared + chunk_offset(r, slot_chunk(slot, j))) = pack8_operand(x[j]);
    }
    __syncwarp();

    // Where this lane's rows lie for ldmatrix, within queries, keys and values.
    const u32 query_at = queries + chunk_offset(warp_row + lane % 16, lane / 16);
    const u32 key_at = chunk_offset(lane % 8 + lane / 16 * 8, lane / 8 % 2), value_at = chunk_offset(lane % 16, lane / 16);

    float sum[FRAGMENTS][HEAD_DIM / 8][4] = {}, maximum[FRAGMENTS][2], total[FRAGMENTS][2] = {};
#pragma unroll
    for (u32 f = 0; f < FRAGMENTS; f++) maximum[f][0] = maximum[f][1] = MASKED;

    u32 stage = 0;
    for (u32 first_key = begin; first_key < end; first_key += KEYS) {
        cp_async_wait<0>();
        __syncthreads();
#ifdef CACHE_E4M3
        expand(stages, shared + TILE_ROWS * LINE + STAGE);
        __syncthreads();
#else
        stage ^= 1;
#endif
        if (first_key + KEYS < end) {
            loader.copy(incoming + stage * STAGE, first_key + KEYS, next_block, head, share);
            next_block = loader.block(first_key + 2 * KEYS);
        }
        cp_async_commit();
#ifdef CACHE_E4M3
        const u32 keys = stages;
#else
        const u32 keys = stages + (stage ^ 1) * STAGE;
#endif
        const u32 values = keys + KEYS * LINE;

        // Opaque, lest eight addresses of the queries occupy registers throughout.
        u32 query = query_at;
        asm volatile("" : "+r"(query));
        float s[FRAGMENTS][KEYS / 8][4] = {};
#pragma unroll
        for (u32 k = 0; k < HEAD_DIM / 16; k++) {
            u32 a[FRAGMENTS][4];
#pragma unroll
            for (u32 f = 0; f < FRAGMENTS; f++)
                ldmatrix_x4(a[f], along(query, 2 * k) + f * 16 * LINE);
            const u32 column = along(keys + key_at, 2 * k);
#pragma unroll
            for (u32 n = 0; n < KEYS / 16; n++) {
                u32 b[4];
                ldmatrix_x4(b, column + n * 16 * LINE);
#pragma unroll
                for (u32 f = 0; f < FRAGMENTS; f++) {
                    mma_operand(s[f][2 * n], a[f], b[0], b[1]);
                    mma_operand(s[f][2 * n + 1], a[f], b[2], b[3]);
                }
            }
        }

        const u32 low = position + warp_row / GROUP, high = position + (warp_row + WARP_ROWS - 1) / GROUP;
        const bool edge = first_key + KEYS - 1 > low || first_key < window_start(high);
#pragma unroll
        for (u32 f = 0; f < FRAGMENTS; f++) {
            if ((SOFTCAP) > 0) {
#pragma unroll
                for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (u32 i = 0; i < 4; i++) s[f][n][i] = capped(s[f][n][i]);
            }
            if (edge) {
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    const u32 at = position + (warp_row + f * 16 + half * 8 + g) / GROUP, from = window_start(at);
#pragma unroll
                    for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
                        for (u32 i = 0; i < 2; i++) {
                            const u32 key = first_key + n * 8 + 2 * t + i;
                            if (key > at || key < from) s[f][n][2 * half + i] = MASKED;
                        }
                }
            }
            float factor[2];
            bool moved = false;
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                float top = MASKED;
#pragma unroll
                for (u32 n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[f][n][2 * half], s[f][n][2 * half + 1]));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 2)) * EXPONENT;
                const bool follow = top > maximum[f][half] + SLACK;
                factor[half] = follow ? exp2_approx(maximum[f][half] - top) : 1.0f;
                if (follow) maximum[f][half] = top;
                moved |= follow;
                // A row that has seen nothing yet has no maximum; its masked scores still give zeros.
                const float base = maximum[f][half] == MASKED ? 0.0f : maximum[f][half];
                float part = 0;
#pragma unroll
                for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (u32 i = 0; i < 2; i++) {
                        float &x = s[f][n][2 * half + i];
                        x = exp2_approx(fmaf(x, EXPONENT, -base));
                        part += x;
                    }
                total[f][half] = total[f][half] * factor[half] + part;
            }
            if (__any_sync(~0u, moved)) {
#pragma unroll
                for (u32 n = 0; n < HEAD_DIM / 8; n++)
#pragma unroll
                    for (u32 i = 0; i < 4; i++) sum[f][n][i] *= factor[i / 2];
            }
        }

#pragma unroll
        for (u32 k = 0; k < KEYS / 16; k++) {
            u32 a[FRAGMENTS][4];
#pragma unroll
            for (u32 f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (u32 i = 0; i < 4; i++)
                    a[f][i] = pack_operand(s[f][2 * k + i / 2][i % 2 * 2], s[f][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (u32 n = 0; n < HEAD_DIM / 16; n++) {
                u32 b[4];
                ldmatrix_x4_trans(b, along(values + value_at, 2 * n) + k * 16 * LINE);
#pragma unroll
                for (u32 f = 0; f < FRAGMENTS; f++) {
                    mma_operand(sum[f][2 * n], a[f], b[0], b[1]);
                    mma_operand(sum[f][2 * n + 1], a[f], b[2], b[3]);
                }
            }
        }
    }

    // Through this warp's own part of the queries' space, so that the stores to global memory are whole lines.
#pragma unroll
    for (u32 f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            float all = total[f][half];
            all += __shfl_xor_sync(~0u, all, 1);
            all += __shfl_xor_sync(~0u, all, 2);
            const float inverse = 1.0f / all;
            const u32 r = warp_row + f * 16 + half * 8 + g;
#pragma unroll
            for (u32 n = 0; n < HEAD_DIM / 8; n++)
                *(u32 *)(shared + chunk_offset(r, n) + t * 4) = pack_half2(sum[f][n][2 * half] * inverse, sum[f][n][2 * half + 1] * inverse);
        }
    __syncwarp();
    for (u32 i = lane; i < WARP_ROWS * HEAD_DIM / 8; i += 32) {
        const u32 r = warp_row + i / (HEAD_DIM / 8), chunk = i % (HEAD_DIM / 8);
        if (r >= used) break;
        const u64 token = row.token + tile.y + r / GROUP;
        *(uint4 *)(out + (token * HEADS + head * GROUP + r % GROUP) * HEAD_DIM + chunk * 8) = *(const uint4 *)(shared + chunk_offset(r, chunk));
    }
}
