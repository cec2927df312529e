// Decode attention: one new token per row, appended to the paged cache and attended with everything before it, in one launch.
//
//   out[token][head] = sum over visible keys of softmax(cap(SCALE * rope(q) . k)) v,  the new token's key and value included
//
// A row's visible blocks are cut into at most SPLITS slices of whole multiples of WARPS blocks; the cut depends on the row's own
// context alone, so a request's bits do not depend on its neighbours. Block (split, y, row) computes one slice for up to
// HEADS_PER_BLOCK heads that share a key head, each warp every WARPS-th cache block with its own online softmax. Keys and
// values go from global memory straight into tensor core fragments: the order of the summed dimension is free, so lanes load
// 16-byte pieces and the queries are read in the same order. The results of several slices are summed in the order of the
// slices: with CLUSTER, the blocks of a (row, y) are a cluster and read each other's shared memory; else results meet in
// `partial`, and the block that arrives last sums them.
//
// out: [T][HEADS * HEAD_DIM] half_t; q, k, v: [T] lines with strides ldq, ldk, ldv (elements), 16-byte aligned; angles: [T][ROPE_DIM]
// f32; rows (16-byte aligned): len is 1, or 0 for padding (nothing is read through it or written). partial: row_count *
// gridDim.y * SPLITS * HEADS_PER_BLOCK * (HEAD_DIM + 2) f32 of scratch; counters: row_count * gridDim.y, zero before and after;
// neither is used with CLUSTER or SPLITS 1.
//
// Macros: HEADS, SCALE, WINDOW (0: none), SOFTCAP (0: none), SPLITS, THREADS (a multiple of 32), and those of cache.cuh.
// CLUSTER (sm_90): launched in clusters of (SPLITS, 1, 1), SPLITS <= 8. EARLY: rows, tables and the cached tokens were complete
// before the last kernel boundary without programmatic launch, so their reading need not wait for the kernel before.
// Grid: (SPLITS, KV_HEADS * ceil(GROUP / HEADS_PER_BLOCK), at least row_count); block: THREADS; no dynamic shared memory.
#include "attention/cache.cuh"
#include "common/cluster.cuh"

#ifndef SPLITS
#define SPLITS 1
#endif
#ifndef THREADS
#define THREADS 128
#endif

constexpr u32 GROUP = HEADS / KV_HEADS, WARPS = THREADS / 32;
constexpr u32 HEAD_TILES = GROUP > 8 && HEAD_DIM <= 128 ? 2 : 1;  // n8 tiles of heads
constexpr u32 HEADS_PER_BLOCK = GROUP < 8 * HEAD_TILES ? GROUP : 8 * HEAD_TILES;
constexpr u32 PARTS = (GROUP + HEADS_PER_BLOCK - 1) / HEADS_PER_BLOCK;  // blocks that share a key head
constexpr u32 STEPS = HEAD_DIM / 16;                                     // k16 steps of a score, m16 tiles of the output

// Elements a lane loads at once: a key's line is spread over 4 lanes, a value's over 8.
__device__ constexpr u32 vector_elements(u32 lanes) {
    u32 n = 16 / sizeof(cache_t);
    while (HEAD_DIM % (lanes * n) != 0) n /= 2;
    return n;
}
constexpr u32 K_VECTOR = vector_elements(4), V_VECTOR = vector_elements(8);
constexpr u32 K_WORDS = HEAD_DIM / 4 * sizeof(cache_t) / 4, V_WORDS = HEAD_DIM / 8 * sizeof(cache_t) / 4;  // of a lane, per line

constexpr u32 Q_STRIDE = HEAD_DIM + (HEAD_DIM % 64 == 0 ? 32 : 0);  // lines of two heads lie in different banks
constexpr u32 SUM_STRIDE = HEAD_DIM + 2;                            // a head's sums, maximum and total
static_assert(WARPS * HEADS_PER_BLOCK * SUM_STRIDE * 4 <= 40 * 1024, "too many THREADS for this many heads");

template <u32 WORDS>
__device__ __forceinline__ void load_words(u32 *to, const void *from) {
    if constexpr (WORDS == 4)
        asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "l"(from));
    else if constexpr (WORDS == 2)
        asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "l"(from));
    else
        asm volatile("ld.global.L1::no_allocate.u32 %0, [%1];" : "=r"(to[0]) : "l"(from));
}

// The token of a block that entry i of a lane's value fragment belongs to.
__device__ __forceinline__ u32 value_token(u32 i, u32 t) { return 2 * t + i % 2 + i / 2 * 8; }

// A lane's piece of one block's keys: tokens g and g + 8, vectors t, t + 4, ... of each.
__device__ __forceinline__ void load_keys(u32 (&k)[2][K_WORDS], const cache_t *tile, u32 g, u32 t) {
#pragma unroll
    for (u32 r = 0; r < 2; r++)
#pragma unroll
        for (u32 j = 0; j < HEAD_DIM / 4 / K_VECTOR; j++)
            load_words<K_VECTOR * sizeof(cache_t) / 4>(&k[r][j * K_VECTOR * sizeof(cache_t) / 4],
                                                      tile + (g + 8 * r) * HEAD_DIM + (4 * j + t) * K_VECTOR);
}
// And of its values: four tokens, vectors g, g + 8, ... of each.
__device__ __forceinline__ void load_values(u32 (&v)[4][V_WORDS], const cache_t *tile, u32 g, u32 t) {
#pragma unroll
    for (u32 r = 0; r < 4; r++)
#pragma unroll
        for (u32 j = 0; j < HEAD_DIM / 8 / V_VECTOR; j++)
            load_words<V_VECTOR * sizeof(cache_t) / 4>(&v[r][j * V_VECTOR * sizeof(cache_t) / 4],
                                                      tile + value_token(r, t) * HEAD_DIM + (8 * j + g) * V_VECTOR);
}

// Fragment a of k16 step `s` of the scores: dimensions key_dimension(s, t) .. + 3 of tokens g and g + 8.
__device__ __forceinline__ void key_fragment(u32 (&a)[4], const u32 (&k)[2][K_WORDS], u32 s) {
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
#ifdef CACHE_E4M3
        a[r] = e4m3x2_to_f16x2(k[r][s]), a[2 + r] = e4m3x2_to_f16x2(k[r][s] >> 16);
#else
        a[r] = k[r][2 * s], a[2 + r] = k[r][2 * s + 1];
#endif
    }
}
__device__ __forceinline__ u32 key_dimension(u32 s, u32 t) { return (4 * (4 * s / K_VECTOR) + t) * K_VECTOR + 4 * s % K_VECTOR; }

// Fragment a of m16 tile `s` of the transposed output: dimensions value_dimension(s, g) (rows g) and the next (rows g + 8).
__device__ __forceinline__ void value_fragment(u32 (&a)[4], const u32 (&v)[4][V_WORDS], u32 s) {
#pragma unroll
    for (u32 r = 0; r < 4; r += 2) {
#ifdef CACHE_E4M3
        const u32 pairs = __byte_perm(v[r][s / 2], v[r + 1][s / 2], s % 2 ? 0x7362 : 0x5140);
        a[r] = e4m3x2_to_f16x2(pairs), a[r + 1] = e4m3x2_to_f16x2(pairs >> 16);
#else
        a[r] = __byte_perm(v[r][s], v[r + 1][s], 0x5410), a[r + 1] = __byte_perm(v[r][s], v[r + 1][s], 0x7632);
#endif
    }
}
__device__ __forceinline__ u32 value_dimension(u32 s, u32 g) { return (8 * (2 * s / V_VECTOR) + g) * V_VECTOR + 2 * s % V_VECTOR; }

#ifdef CLUSTER
__device__ __forceinline__ float2 load_remote(const float2 *local, u32 block) {
    float2 value;
    asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
                 : "=f"(value.x), "=f"(value.y)
                 : "r"(cluster_address(shared_address(local), block))
                 : "memory");
    return value;
}
#endif

// Sums weighted by exp2(maximum) relative to the largest seen, two dimensions of a head.
struct Merged {
    float top = MASKED, all = 0, x = 0, y = 0;
    __device__ __forceinline__ void add(float2 state, float2 pair) {
        const float next = fmaxf(top, state.x), mine = exp2_approx(top - next), theirs = exp2_approx(state.x - next);
        top = next, all = all * mine + state.y * theirs, x = x * mine + pair.x * theirs, y = y * mine + pair.y * theirs;
    }
};

constexpr u32 RESULT = HEADS_PER_BLOCK * SUM_STRIDE / 2;  // pairs of a slice's results

// Sixteen warps on a multiprocessor where they matter: with many rows.
#if defined(CLUSTER) || THREADS > 256
constexpr u32 RESIDENT = 1;
#else
constexpr u32 RESIDENT = HEAD_DIM * HEAD_TILES <= 128 ? 512 / THREADS : 1;
#endif

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    decode(half_t *out, const half_t *q, const half_t *k, const half_t *v, u32 ldq, u32 ldk, u32 ldv, const float *angles, void *cache,
           const Row *rows, const u32 *tables, float *partial, u32 *counters, u32 row_count) {
    __shared__ __align__(16) u16 queries[8 * HEAD_TILES * Q_STRIDE];
    __shared__ __align__(16) cache_t fresh[2 * HEAD_DIM];  // the new token's key and value, as the cache holds them
    __shared__ float2 sums[WARPS * RESULT];
    pdl_launch();
#ifndef EARLY
    pdl_wait();
#endif
    Row row = {};
    if (blockIdx.z < row_count) {
        const uint4 words = *(const uint4 *)(rows + blockIdx.z);
        row = {words.x, words.y, words.z, words.w};
    }
    const u32 position = row.context, start = window_start(position), first_block = start / BLOCK_TOKENS,
              last_block = position / BLOCK_TOKENS, blocks = last_block + 1 - first_block;
    const u32 slice = ((blocks + SPLITS - 1) / SPLITS + WARPS - 1) / WARPS * WARPS, slices = (blocks + slice - 1) / slice;
    if (row.len == 0 || blockIdx.x >= slices) {
#ifdef EARLY
        pdl_wait();
#endif
        return;
    }
    const u32 head = blockIdx.y / PARTS, first_head = head * GROUP + blockIdx.y % PARTS * HEADS_PER_BLOCK,
              heads = min(HEADS_PER_BLOCK, (head + 1) * GROUP - first_head);
    const u32 begin = first_block + blockIdx.x * slice, end = min(begin + slice, last_block + 1);
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;

    // This warp's next 32 block ids, one per lane.
    const u32 *table = tables + row.table;
    u32 ids = begin + warp + lane * WARPS < end ? table[begin + warp + lane * WARPS] : 0;
    const u32 last_id = table[last_block];
    u32 keys[2][K_WORDS], values[4][V_WORDS];
    if (begin + warp < end) {
        const cache_t *tile = (const cache_t *)cache + tile_offset(__shfl_sync(~0u, ids, 0), head);
        load_keys(keys, tile, g, t);
        load_values(values, tile + TILE, g, t);
    }
#ifdef EARLY
    pdl_wait();
#endif

    // Meanwhile: the queries, zeros for heads that are not there, and in the last slice the new token.
    const float *line_angles = angles + (u64)row.token * ROPE_DIM;
    constexpr u32 SLOTS = HEAD_DIM / 16;
    for (u32 i = threadIdx.x; i < 8 * HEAD_TILES * SLOTS; i += THREADS) {
        const u32 h = i / SLOTS, slot = i % SLOTS;
        float x[2][8] = {};
        if (h < heads) load_slot(x, q + (u64)row.token * ldq + (first_head + h) * HEAD_DIM, line_angles, slot);
#pragma unroll
        for (u32 j = 0; j < 2; j++) *(uint4 *)(queries + h * Q_STRIDE + slot_chunk(slot, j) * 8) = pack8_operand(x[j]);
    }
    // The last threads, which have the fewest queries, take the new token.
    const bool appends = end == last_block + 1;
    if (appends && threadIdx.x >= THREADS - 2 * SLOTS) {
        const u32 index = THREADS - 1 - threadIdx.x, is_value = index / SLOTS, slot = index % SLOTS;
        float x[2][8];
        if (is_value) {
#pragma unroll
            for (u32 j = 0; j < 2; j++) load8(x[j], v + (u64)row.token * ldv + head * HEAD_DIM + slot_chunk(slot, j) * 8);
        } else {
            load_slot(x, k + (u64)row.token * ldk + head * HEAD_DIM, line_angles, slot);
        }
#pragma unroll
        for (u32 j = 0; j < 2; j++) store8(fresh + is_value * HEAD_DIM + slot_chunk(slot, j) * 8, x[j]);
    }
    __syncthreads();

    // Transposed: lane holds scores of tokens g, g + 8 and outputs of dimensions g, g + 8 for heads 2t, 2t + 1 of each tile.
    float sum[HEAD_TILES][STEPS][4] = {}, maximum[HEAD_TILES][2], total[HEAD_TILES][2] = {};
#pragma unroll
    for (u32 n = 0; n < HEAD_TILES; n++) maximum[n][0] = maximum[n][1] = MASKED;

    u32 turn = 0;
    for (u32 block = begin + warp; block < end; block += WARPS) {
        const bool edge = block == last_block || (WINDOW > 0 && block == first_block);
        const u32 base = block * BLOCK_TOKENS;
        if (edge) {
            // What lies outside may be anything, even NaN. The new token's place is not read from the cache.
#pragma unroll
            for (u32 r = 0; r < 2; r++)
                if (base + g + 8 * r == position) {
#pragma unroll
                    for (u32 j = 0; j < K_WORDS; j++) {
                        constexpr u32 W = K_VECTOR * sizeof(cache_t) / 4;
                        keys[r][j] = ((const u32 *)fresh)[(4 * (j / W) + t) * W + j % W];
                    }
                }
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const u32 token = base + value_token(r, t);
#pragma unroll
                for (u32 j = 0; j < V_WORDS; j++) {
                    constexpr u32 W = V_VECTOR * sizeof(cache_t) / 4;
                    if (token == position) values[r][j] = ((const u32 *)(fresh + HEAD_DIM))[(8 * (j / W) + g) * W + j % W];
                    if (token > position || token < start) values[r][j] = 0;
                }
            }
        }

        // In two chains, for the latency.
        float s[HEAD_TILES][4] = {}, odd[HEAD_TILES][4] = {};
#pragma unroll
        for (u32 i = 0; i < STEPS; i++) {
            u32 a[4];
            key_fragment(a, keys, i);
#pragma unroll
            for (u32 n = 0; n < HEAD_TILES; n++) {
                const uint2 b = *(const uint2 *)(queries + (8 * n + g) * Q_STRIDE + key_dimension(i, t));
                mma_operand(i % 2 ? odd[n] : s[n], a, b.x, b.y);
            }
        }
#pragma unroll
        for (u32 n = 0; n < HEAD_TILES; n++)
#pragma unroll
            for (u32 j = 0; j < 4; j++) s[n][j] += odd[n][j];

        turn++;
        if (turn % 32 == 0) ids = block + (1 + lane) * WARPS < end ? table[block + (1 + lane) * WARPS] : 0;
        const cache_t *next = (const cache_t *)cache + tile_offset(__shfl_sync(~0u, ids, turn % 32), head);
        const bool more = block + WARPS < end;
        if (more) load_keys(keys, next, g, t);

        u32 weights[HEAD_TILES][2];
#pragma unroll
        for (u32 n = 0; n < HEAD_TILES; n++) {
            float factor[2];
#pragma unroll
            for (u32 c = 0; c < 2; c++) {
                float &x = s[n][c], &y = s[n][2 + c];
                x = capped(x), y = capped(y);
                if (edge) {
                    if (base + g > position || base + g < start) x = MASKED;
                    if (base + g + 8 > position || base + g + 8 < start) y = MASKED;
                }
                float top = fmaxf(x, y);
#pragma unroll
                for (u32 other = 4; other < 32; other *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, other));
                top = fmaxf(maximum[n][c], top * EXPONENT);
                factor[c] = exp2_approx(maximum[n][c] - top);
                maximum[n][c] = top;
                x = exp2_approx(fmaf(x, EXPONENT, -top)), y = exp2_approx(fmaf(y, EXPONENT, -top));
                total[n][c] = total[n][c] * factor[c] + (x + y);
            }
            weights[n][0] = movmatrix_trans(pack_operand(s[n][0], s[n][1]));
            weights[n][1] = movmatrix_trans(pack_operand(s[n][2], s[n][3]));
#pragma unroll
            for (u32 i = 0; i < STEPS; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) sum[n][i][j] *= factor[j % 2];
        }
#pragma unroll
        for (u32 i = 0; i < STEPS; i++) {
            u32 a[4];
            value_fragment(a, values, i);
#pragma unroll
            for (u32 n = 0; n < HEAD_TILES; n++) mma_operand(sum[n][i], a, weights[n][0], weights[n][1]);
        }
        if (more) load_values(values, next + TILE, g, t);
    }

    // The new token's place, which no block reads in this launch.
    constexpr u32 LINE_WORDS = HEAD_DIM * sizeof(cache_t) / 4;
    if (appends && blockIdx.y % PARTS == 0) {
        u32 *to = (u32 *)((cache_t *)cache + tile_offset(last_id, head) + position % BLOCK_TOKENS * HEAD_DIM);
        for (u32 i = threadIdx.x; i < 2 * LINE_WORDS; i += THREADS)
            to[i / LINE_WORDS * (TILE * sizeof(cache_t) / 4) + i % LINE_WORDS] = ((const u32 *)fresh)[i];
    }

    // The warps' sums meet in shared memory.
#pragma unroll
    for (u32 n = 0; n < HEAD_TILES; n++)
#pragma unroll
        for (u32 c = 0; c < 2; c++) {
            const u32 h = 8 * n + 2 * t + c;
            float all = total[n][c];
#pragma unroll
            for (u32 other = 4; other < 32; other *= 2) all += __shfl_xor_sync(~0u, all, other);
            if (h < heads) {
                float2 *line = sums + warp * RESULT + h * (SUM_STRIDE / 2);
#pragma unroll
                for (u32 i = 0; i < STEPS; i++) line[value_dimension(i, g) / 2] = make_float2(sum[n][i][c], sum[n][i][2 + c]);
                if (g == 0) line[HEAD_DIM / 2] = make_float2(maximum[n][c], all);
            }
        }
    __syncthreads();

    // Pair i of the result: where it and its head's state lie among RESULT pairs, and its place in the output.
    const u32 pairs = heads * (HEAD_DIM / 2);
    auto pair_at = [](u32 i) { return i / (HEAD_DIM / 2) * (SUM_STRIDE / 2) + i % (HEAD_DIM / 2); };
    auto state_at = [](u32 i) { return i / (HEAD_DIM / 2) * (SUM_STRIDE / 2) + HEAD_DIM / 2; };
    u32 *result = (u32 *)(out + ((u64)row.token * HEADS + first_head) * HEAD_DIM);
    auto finish = [&](u32 i, const Merged &merged) { result[i] = pack_half2(merged.x / merged.all, merged.y / merged.all); };
    auto merge_warps = [&](u32 i) {
        Merged merged;
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) merged.add(sums[w * RESULT + state_at(i)], sums[w * RESULT + pair_at(i)]);
        return merged;
    };
    if (slices == 1) {
        for (u32 i = threadIdx.x; i < pairs; i += THREADS) finish(i, merge_warps(i));
        return;
    }
#ifdef CLUSTER
    __shared__ float2 mine[RESULT];
#else
    float2 *all_slices = (float2 *)partial + ((u64)blockIdx.z * gridDim.y + blockIdx.y) * SPLITS * RESULT, *mine = all_slices + blockIdx.x * RESULT;
#endif
    for (u32 i = threadIdx.x; i < pairs; i += THREADS) {
        const Merged merged = merge_warps(i);
        mine[pair_at(i)] = make_float2(merged.x, merged.y);
        if (i % (HEAD_DIM / 2) == 0) mine[state_at(i)] = make_float2(merged.top, merged.all);
    }
#ifdef CLUSTER
    // Blocks without a slice have left and do not count.
    cluster_sync();
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < pairs; i += slices * THREADS) {
        // All on their way before the first is needed.
        float2 states[SPLITS], values[SPLITS];
#pragma unroll
        for (u32 j = 0; j < SPLITS; j++) {
            const u32 block = min(j, slices - 1);
            states[j] = load_remote(mine + state_at(i), block), values[j] = load_remote(mine + pair_at(i), block);
        }
        Merged merged;
#pragma unroll
        for (u32 j = 0; j < SPLITS; j++)
            if (j < slices) merged.add(states[j], values[j]);
        finish(i, merged);
    }
    cluster_sync();
#else
    __shared__ u32 before;
    u32 *counter = counters + blockIdx.z * gridDim.y + blockIdx.y;
    __syncthreads();
    if (threadIdx.x == 0) before = arrive(counter);
    __syncthreads();
    if (before != slices - 1) return;
    if (threadIdx.x == 0) *counter = 0;
    for (u32 i = threadIdx.x; i < pairs; i += THREADS) {
        Merged merged;
#pragma unroll 8
        for (u32 j = 0; j < slices; j++) merged.add(all_slices[j * RESULT + state_at(i)], all_slices[j * RESULT + pair_at(i)]);
        finish(i, merged);
    }
#endif
}
