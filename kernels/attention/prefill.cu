// Causal attention of rows of any length over the paged cache, which holds the step's own tokens already: FlashAttention-2 (Dao,
// 2023), with the heads that share a kv head packed into one tile of queries.
//
// A tile has Q_TOKENS tokens of one row times GROUP heads, 16 (token, head) pairs for each warp. Keys are visited from the first
// block in steps of KEYS by absolute position, and keys that a token does not see change nothing, so that a token's bits do not
// depend on the tile it is in.
//
// prefill(out, q, ldq, angles, cache, rows, tables, tiles, tile_count)
//   out half_t [tokens][HEADS * HEAD_DIM]; q half_t, row stride in elements; angles f32 [tokens][ROPE_DIM]; cache: the layer's
//   start; tiles[i] = (row, first token of the tile within it).
// Macros: cache.cuh; Q_TOKENS with Q_TOKENS * GROUP <= 128. Block: 256 threads. Grid: (tile_count, KV_HEADS).
// Dynamic shared memory: 4 * KEYS * HEAD_DIM * 2 bytes.
#include "attention/cache.cuh"

constexpr u32 WARPS = 8, THREADS = 32 * WARPS, KEYS = HEAD_DIM > 128 ? 32 : 64;
constexpr u32 CHUNKS = HEAD_DIM / 8;  // of 16 bytes in a row
constexpr u32 TILE_BYTES = KEYS * HEAD_DIM * 2;
static_assert(Q_TOKENS * GROUP <= 16 * WARPS, "a warp has 16 queries");

// Where a chunk of a row lies: the rows that one access touches are in different banks.
__device__ __forceinline__ u32 swizzled(u32 row, u32 chunk) { return (row * CHUNKS + (chunk ^ (row & (CHUNKS % 8 == 0 ? 7 : 3)))) * 16; }

// Fetches KEYS keys or values from position `base`; those outside [first, end) become zeros.
__device__ __forceinline__ void fetch(u32 shared, const cache_t *cache, const u32 *table, u32 head, u32 which, u32 base, u32 first, u32 end) {
    for (u32 i = threadIdx.x; i < KEYS * CHUNKS; i += THREADS) {
        u32 key = i / CHUNKS, chunk = i % CHUNKS, position = base + key;
        bool seen = position >= first && position < end;
        u32 block = seen ? table[position / BLOCK_TOKENS] : 0;
        const cache_t *cells = cache + cache_offset(block, head, which, position % BLOCK_TOKENS) + chunk * 8;
#ifdef CACHE_E4M3
        uint4 w = seen ? load_cache_8(cells) : make_uint4(0, 0, 0, 0);
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared + swizzled(key, chunk)), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w)
                     : "memory");
#else
        cp_async_16(shared + swizzled(key, chunk), seen ? cells : cache, seen ? 16 : 0);
#endif
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    prefill(half_t *out, const half_t *q, u32 ldq, const float *angles, const cache_t *cache, const Row *rows, const u32 *tables,
            const uint2 *tiles, u32 tile_count) {
    pdl_launch();
    pdl_wait();
    extern __shared__ __align__(128) u8 memory[];
    u32 shared = shared_address(memory);
    // Long rows' last tiles see most keys: they start first.
    uint2 tile = tiles[tile_count - 1 - blockIdx.x];
    u32 head = blockIdx.y, thread = threadIdx.x, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
    Row row = rows[tile.x];
    const u32 *table = tables + row.table;
    u32 count = min(Q_TOKENS, row.len - tile.y), first_position = row.context + tile.y;
    u32 end = first_position + count, first = first_seen(first_position), begin = first / KEYS * KEYS;

    // Query fragments: this lane's two (token, head) pairs, rotated.
    u32 fragments[HEAD_DIM / 16][4];
    u32 position[2];
    bool live[2];
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
        u32 pair = warp * 16 + g + 8 * r, token = pair / GROUP;
        live[r] = token < count;
        position[r] = first_position + (live[r] ? token : 0);
        u64 at = row.token + tile.y + (live[r] ? token : 0);
        const half_t *query = q + at * ldq + (head * GROUP + pair % GROUP) * HEAD_DIM;
        const float *turn = angles + at * ROPE_DIM;
#pragma unroll
        for (u32 j = 0; j < HEAD_DIM / 16; j++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 dim = 16 * j + 8 * half + 2 * t;
                fragments[j][r + 2 * half] = live[r] ? pack_half2(rotated(query, dim, turn), rotated(query, dim + 1, turn)) : 0;
            }
    }

    float acc[HEAD_DIM / 8][4] = {};
    float most[2] = {-INFINITY, -INFINITY}, total[2] = {};
    auto keys_at = [&](u32 stage) { return shared + stage * 2 * TILE_BYTES; };
    auto load = [&](u32 stage, u32 base) {
        fetch(keys_at(stage), cache, table, head, 0, base, first, end);
        fetch(keys_at(stage) + TILE_BYTES, cache, table, head, 1, base, first, end);
        cp_async_commit();
    };
    load(0, begin);
    u32 stage = 0;
    for (u32 base = begin; base < end; base += KEYS, stage ^= 1) {
        if (base + KEYS < end) {
            load(stage ^ 1, base + KEYS);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();
        u32 keys = keys_at(stage), values = keys + TILE_BYTES;
        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (u32 j = 0; j < HEAD_DIM / 16; j++)
#pragma unroll
            for (u32 n = 0; n < KEYS / 16; n++) {
                u32 b[4];
                ldmatrix_x4(b, keys + swizzled(n * 16 + lane / 16 * 8 + lane % 8, 2 * j + lane / 8 % 2));
                mma_16816(scores[2 * n], fragments[j], b[0], b[1]);
                mma_16816(scores[2 * n + 1], fragments[j], b[2], b[3]);
            }
        float highest[2] = {most[0], most[1]};
#pragma unroll
        for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 key = base + n * 8 + 2 * t + i % 2, at = position[i / 2];
                bool seen = key <= at && key >= first_seen(at);
                scores[n][i] = seen ? exponent(scores[n][i]) : -INFINITY;
                highest[i / 2] = fmaxf(highest[i / 2], scores[n][i]);
            }
        float kept[2];
#pragma unroll
        for (u32 r = 0; r < 2; r++) {
            highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 1));
            highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 2));
            float base2 = highest[r] == -INFINITY ? 0.0f : highest[r];
            kept[r] = exp2f(most[r] - base2);
            most[r] = highest[r];
            float sum = 0.0f;
#pragma unroll
            for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (u32 i = 2 * r; i < 2 * r + 2; i++) {
                    scores[n][i] = exp2f(scores[n][i] - base2);
                    sum += scores[n][i];
                }
            total[r] = total[r] * kept[r] + sum;
        }
#pragma unroll
        for (u32 n = 0; n < HEAD_DIM / 8; n++) acc[n][0] *= kept[0], acc[n][1] *= kept[0], acc[n][2] *= kept[1], acc[n][3] *= kept[1];
#pragma unroll
        for (u32 j = 0; j < KEYS / 16; j++) {
            u32 p[4] = {pack_half2(scores[2 * j][0], scores[2 * j][1]), pack_half2(scores[2 * j][2], scores[2 * j][3]),
                        pack_half2(scores[2 * j + 1][0], scores[2 * j + 1][1]), pack_half2(scores[2 * j + 1][2], scores[2 * j + 1][3])};
#pragma unroll
            for (u32 n = 0; n < HEAD_DIM / 16; n++) {
                u32 b[4];
                ldmatrix_x4_trans(b, values + swizzled(j * 16 + lane % 16, 2 * n + lane / 16));
                mma_16816(acc[2 * n], p, b[0], b[1]);
                mma_16816(acc[2 * n + 1], p, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
        if (!live[r]) continue;
        u32 pair = warp * 16 + g + 8 * r;
        u64 at = row.token + tile.y + pair / GROUP;
        u32 *target = (u32 *)(out + (at * HEADS + head * GROUP + pair % GROUP) * HEAD_DIM);
        float inverse = 1.0f / total[r];
#pragma unroll
        for (u32 n = 0; n < HEAD_DIM / 8; n++) target[n * 4 + t] = pack_half2(acc[n][2 * r] * inverse, acc[n][2 * r + 1] * inverse);
    }
}
