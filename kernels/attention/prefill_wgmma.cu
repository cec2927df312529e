// Prefill attention on Hopper's warpgroup instructions (sm_90a): prefill.cu's function, arguments, tiles and invariance, for
// HEAD_DIM 64, 128 or 256. A result's bits differ from prefill.cu's (other steps), never among its own tiles.
//
// A block is one producer warpgroup, which copies steps of KEYS keys and values into two buffers each, and two consumer
// warpgroups with 64 of the tile's 128 rows each. A consumer multiplies the next step's scores and this step's values at once and
// works on the softmax of the one while the other still runs. Buffers are handed over by barriers: `full` counts the producer's
// threads, `empty` the consumers' warps.
//
// Macros: HEADS, SCALE, WINDOW (0: none), SOFTCAP (0: none), and those of cache.cuh. Q_TOKENS = 128 / GROUP.
// Grid: (KV_HEADS, at least tile_count); block: 384. Dynamic shared memory: 128 * HEAD_DIM * 2 + KEYS * HEAD_DIM * (CACHE_E4M3 ? 10 : 8)
// + 1024 bytes.
#include "attention/cache.cuh"
#include "attention/wgmma.cuh"

constexpr u32 GROUP = HEADS / KV_HEADS, CONSUMERS = 2, TILE_ROWS = 64 * CONSUMERS, Q_TOKENS = TILE_ROWS / GROUP;
constexpr u32 KEYS = HEAD_DIM > 128 ? 64 : 128;
constexpr u32 BUFFER = KEYS * HEAD_DIM * 2;          // bytes of a step's keys, or values
constexpr u32 CHUNKS = HEAD_DIM / 8;                 // 16-byte pieces of a line
constexpr u32 STEP_BLOCKS = KEYS / BLOCK_TOKENS / 4;  // cache blocks per producer warp and step
static_assert(HEADS % KV_HEADS == 0 && Q_TOKENS >= 1, "heads share key heads evenly");
static_assert(HEAD_DIM % 64 == 0, "prefill.cu has the other sizes");

// A row's maximum only follows once it is exceeded by this many powers of two: sums stay far from overflow and are rarely rescaled.
constexpr float SLACK = 8.0f;

extern __shared__ __align__(1024) u8 dynamic[];

// Offset of a 16-byte chunk in panels of `lines` lines.
__device__ __forceinline__ u32 panel_offset(u32 lines, u32 line, u32 chunk) {
    return chunk / 8 * (lines * 128) + line * 128 + (chunk % 8 ^ line % 8) * 16;
}

template <u32 REGISTERS>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <u32 REGISTERS>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
// One warpgroup's own barrier.
__device__ __forceinline__ void group_sync(u32 group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); }

// Barriers of buffer i of the keys (0, 1) and of the values (2, 3).
struct Barriers {
    u32 base;
    __device__ __forceinline__ u32 full(u32 i) const { return base + i * 16; }
    __device__ __forceinline__ u32 empty(u32 i) const { return base + i * 16 + 8; }
};

#ifdef CACHE_E4M3
__device__ __forceinline__ void load_shared(u32 (&words)[4], u32 from) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(from) : "memory");
}
// Eight e4m3 as f16.
__device__ __forceinline__ void store_expanded(u32 to, u32 low, u32 high) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(e4m3x2_to_f16x2(low)), "r"(e4m3x2_to_f16x2(low >> 16)),
                 "r"(e4m3x2_to_f16x2(high)), "r"(e4m3x2_to_f16x2(high >> 16))
                 : "memory");
}
#endif

// What a tile looks at.
struct Span {
    u32 position, tokens, first, begin, end;  // of its tokens; the first readable key; the first step's and past the last key
};

__device__ __forceinline__ void produce(const cache_t *cache, const u32 *table, const Span span, u32 head, u32 buffers, Barriers barriers) {
    const u32 warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    // A warp takes LINES lines of a cache block at a time, 16 bytes a lane; where those go repeats every eight lines.
    constexpr u32 PIECES = HEAD_DIM * sizeof(cache_t) / 16, LINES = 32 / PIECES, PERIOD = 8 / LINES, PASSES = BLOCK_TOKENS / LINES;
    const u32 line = warp * BLOCK_TOKENS + lane / PIECES;
    u32 offsets[PERIOD];
#pragma unroll
    for (u32 i = 0; i < PERIOD; i++) offsets[i] = panel_offset(KEYS, line + i * LINES, lane % PIECES * (2 / sizeof(cache_t)));
    auto place = [&](u32 b, u32 i) { return offsets[i % PERIOD] + (b * (4 * BLOCK_TOKENS) + i / PERIOD * 8) * 128; };

    // Copies are handed on LAG copies later, when this thread's part has surely landed.
    auto wait_empty = [&](u32 step, u32 is_value) {
        if (step >= 2) mbarrier_wait(barriers.empty(2 * is_value + step % 2), (step / 2 + 1) % 2);
    };
#ifdef CACHE_E4M3
    // Bytes land where only the thread that copies them reads them, and are expanded from there.
    constexpr u32 LAG = 1;
    const u32 landing = buffers + 4 * BUFFER + (threadIdx.x % 128) * 16;
    auto landing_place = [&](u32 copy, u32 b, u32 i) { return landing + ((copy % 2 * STEP_BLOCKS + b) * PASSES + i) * 2048; };
    auto hand_on = [&](u32 copy, u32 step, u32 is_value) {
        const u32 buffer = 2 * is_value + step % 2;
        wait_empty(step, is_value);
#pragma unroll
        for (u32 b = 0; b < STEP_BLOCKS; b++)
#pragma unroll
            for (u32 i = 0; i < PASSES; i++) {
                u32 raw[4];
                load_shared(raw, landing_place(copy, b, i));
                const u32 to = buffers + buffer * BUFFER + place(b, i);
                store_expanded(to, raw[0], raw[1]);
                store_expanded(to ^ 16, raw[2], raw[3]);
            }
        fence_async_shared();
        mbarrier_arrive(barriers.full(buffer));
    };
#else
    constexpr u32 LAG = 2;
    auto hand_on = [&](u32, u32 step, u32 is_value) {
        fence_async_shared();
        mbarrier_arrive(barriers.full(2 * is_value + step % 2));
    };
#endif
    u32 copies = 0, waiting[LAG][2] = {};  // step and whether values, of the last LAG copies, oldest first
    auto pass_on = [&](u32 step, u32 is_value) {
        if (copies >= LAG) hand_on(copies - LAG, waiting[0][0], waiting[0][1]);
#pragma unroll
        for (u32 i = 1; i < LAG; i++) waiting[i - 1][0] = waiting[i][0], waiting[i - 1][1] = waiting[i][1];
        waiting[LAG - 1][0] = step, waiting[LAG - 1][1] = is_value;
        copies++;
    };
    auto copy = [&](u32 step, u32 is_value, const u32 (&blocks)[STEP_BLOCKS]) {
        const u32 start = span.begin + step * KEYS;
#ifndef CACHE_E4M3
        const u32 buffer = 2 * is_value + step % 2;
        wait_empty(step, is_value);
#endif
#pragma unroll
        for (u32 b = 0; b < STEP_BLOCKS; b++) {
            const u8 *from = (const u8 *)(cache + tile_offset(blocks[b], head) + is_value * TILE) + lane * 16;
#pragma unroll
            for (u32 i = 0; i < PASSES; i++) {
                const u32 key = start + line + b * (4 * BLOCK_TOKENS) + i * LINES;
#ifdef CACHE_E4M3
                const u32 to = landing_place(copies, b, i);
#else
                const u32 to = buffers + buffer * BUFFER + place(b, i);
#endif
                // Keys outside are replaced by zeros: what lies there may be anything, even NaN.
                cp_async_16(to, from + i * 512, key >= span.first && key < span.end ? 16 : 0);
            }
        }
        cp_async_commit();
        cp_async_wait<LAG>();
        pass_on(step, is_value);
    };
    auto look_up = [&](u32 (&blocks)[STEP_BLOCKS], u32 step) {
#pragma unroll
        for (u32 b = 0; b < STEP_BLOCKS; b++) {
            const u32 key = span.begin + step * KEYS + (warp + 4 * b) * BLOCK_TOKENS;
            blocks[b] = key >= span.first && key < span.end ? table[key / BLOCK_TOKENS] : 0;
        }
    };
    const u32 steps = (span.end - span.begin + KEYS - 1) / KEYS;
    u32 older[STEP_BLOCKS], current[STEP_BLOCKS], next[STEP_BLOCKS];
    look_up(current, 0);
    for (u32 step = 0; step <= steps; step++) {
        look_up(next, step + 1);
        if (step < steps) copy(step, 0, current);
        if (step > 0) copy(step - 1, 1, older);
#pragma unroll
        for (u32 b = 0; b < STEP_BLOCKS; b++) older[b] = current[b], current[b] = next[b];
    }
    cp_async_wait<0>();
#pragma unroll
    for (u32 i = 0; i < LAG; i++) pass_on(0, 0);
}

// Turns scores into weights and updates a row pair's maximum and total; returns whether sums must be rescaled by `factor`.
__device__ __forceinline__ bool soften(float (&s)[KEYS / 2], float (&maximum)[2], float (&total)[2], float (&factor)[2]) {
    bool moved = false;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        float top = MASKED;
#pragma unroll
        for (u32 n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[4 * n + 2 * half], s[4 * n + 2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2)) * EXPONENT;
        const bool follow = top > maximum[half] + SLACK;
        factor[half] = follow ? exp2_approx(maximum[half] - top) : 1.0f;
        if (follow) maximum[half] = top;
        moved |= follow;
        // A row that has seen nothing yet has no maximum; its masked scores still give zeros.
        const float base = maximum[half] == MASKED ? 0.0f : maximum[half];
        float part = 0;
#pragma unroll
        for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                float &x = s[4 * n + 2 * half + i];
                x = exp2_approx(fmaf(x, EXPONENT, -base));
                part += x;
            }
        total[half] = total[half] * factor[half] + part;
    }
    return __any_sync(~0u, moved);
}

// Caps the scores of the step at `start` and masks what the rows of this lane (g and g + 8 of the warp's) do not see.
__device__ __forceinline__ void mask(float (&s)[KEYS / 2], u32 start, u32 position, u32 warp_row) {
    if ((SOFTCAP) > 0) {
#pragma unroll
        for (u32 i = 0; i < KEYS / 2; i++) s[i] = capped(s[i]);
    }
    const u32 low = position + warp_row / GROUP, high = position + (warp_row + 15) / GROUP;
    if (start + KEYS - 1 <= low && start >= window_start(high)) return;
    const u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 at = position + (warp_row + half * 8 + g) / GROUP, from = window_start(at);
#pragma unroll
        for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                const u32 key = start + n * 8 + 2 * t + i;
                if (key > at || key < from) s[4 * n + 2 * half + i] = MASKED;
            }
    }
}

extern "C" __global__ void __launch_bounds__(128 * (CONSUMERS + 1), 1)
    prefill(half_t *out, const half_t *q, u32 ldq, const float *angles, const void *cache, const Row *rows, const u32 *tables,
            const uint2 *tiles, u32 tile_count) {
    __shared__ __align__(16) u64 barrier_words[8];
    pdl_launch();
    const u32 misaligned = shared_address(dynamic) % 1024, shift = misaligned ? 1024 - misaligned : 0;
    u8 *queries = dynamic + shift;
    const u32 queries_at = shared_address(queries), buffers = queries_at + TILE_ROWS * HEAD_DIM * 2;
    const Barriers barriers = {shared_address(barrier_words)};
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < 4; i++) mbarrier_init(barriers.full(i), 128), mbarrier_init(barriers.empty(i), 4 * CONSUMERS);
        mbarrier_init_fence();
    }
    __syncthreads();
    pdl_wait();
    if (blockIdx.y >= tile_count) return;
    const uint2 tile = tiles[tile_count - 1 - blockIdx.y];
    const Row row = rows[tile.x];
    const u32 head = blockIdx.x;
    Span span;
    span.position = row.context + tile.y;
    span.tokens = min(Q_TOKENS, row.len - tile.y);
    span.first = window_start(span.position) / BLOCK_TOKENS * BLOCK_TOKENS;
    span.begin = span.first / KEYS * KEYS;
    span.end = span.position + span.tokens;

    if (threadIdx.x >= 128 * CONSUMERS) {
        give_registers<56>();
        produce((const cache_t *)cache, tables + row.table, span, head, buffers, barriers);
        return;
    }
    take_registers<224>();
    const u32 group = threadIdx.x / 128, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 used = span.tokens * GROUP, warp_row = warp * 16;

    u8 *mine = queries + group * 64 * HEAD_DIM * 2;
    // This warp's queries, rotated, into the group's panels. Rows without a token repeat the last one's: nobody reads their results.
    constexpr u32 SLOTS = HEAD_DIM / 16;
#pragma unroll 4
    for (u32 i = lane; i < 16 * SLOTS; i += 32) {
        const u32 r = warp_row + i / SLOTS, slot = i % SLOTS, from = min(r, used - 1);
        const u64 token = row.token + tile.y + from / GROUP;
        float x[2][8];
        load_slot(x, q + token * ldq + (head * GROUP + from % GROUP) * HEAD_DIM, angles + token * ROPE_DIM, slot);
#pragma unroll
        for (u32 j = 0; j < 2; j++) *(uint4 *)(mine + panel_offset(64, r % 64, slot_chunk(slot, j))) = pack8_operand(x[j]);
    }
    fence_async_shared();
    group_sync(group);

    const u64 query = panel_descriptor(queries_at + group * 64 * HEAD_DIM * 2);
    float sum[HEAD_DIM / 2] = {}, s[KEYS / 2] = {}, maximum[2] = {MASKED, MASKED}, total[2] = {}, factor[2];
    u32 weights[KEYS / 16][4];

    auto scores = [&](u32 step) {
        const u32 buffer = step % 2;
        mbarrier_wait(barriers.full(buffer), step / 2 % 2);
        const u64 key = panel_descriptor(buffers + buffer * BUFFER);
        wgmma_fence();
#pragma unroll
        for (u32 k = 0; k < HEAD_DIM / 16; k++)
            wgmma(s, query + (k / 4 * (64 * 128 / 16) + k % 4 * 2), key + (k / 4 * (KEYS * 128 / 16) + k % 4 * 2), k > 0);
        wgmma_commit();
    };
    auto weigh = [&](u32 step) {
        const u32 buffer = 2 + step % 2;
        mbarrier_wait(barriers.full(buffer), step / 2 % 2);
        const u64 value = transposed_descriptor(buffers + buffer * BUFFER, KEYS * 128);
        wgmma_fence();
#pragma unroll
        for (u32 k = 0; k < KEYS / 16; k++) wgmma_transposed(sum, weights[k], value + k * 128);
        wgmma_commit();
    };
    auto release = [&](u32 buffer) {
        if (lane == 0) mbarrier_arrive(barriers.empty(buffer));
    };
    auto pack = [&]() {
#pragma unroll
        for (u32 k = 0; k < KEYS / 16; k++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) weights[k][i] = pack_operand(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
    };

    scores(0);
    wgmma_wait<0>();
    wgmma_hold(s);
    release(0);
    mask(s, span.begin, span.position, warp_row);
    soften(s, maximum, total, factor);
    pack();
    const u32 steps = (span.end - span.begin + KEYS - 1) / KEYS;
    for (u32 step = 1; step < steps; step++) {
        scores(step);
        weigh(step - 1);
        wgmma_wait<1>();
        wgmma_hold(s);
        release(step % 2);
        mask(s, span.begin + step * KEYS, span.position, warp_row);
        const bool moved = soften(s, maximum, total, factor);
        wgmma_wait<0>();
        wgmma_hold(sum);
        release(2 + (step - 1) % 2);
        if (moved) {
#pragma unroll
            for (u32 i = 0; i < HEAD_DIM / 2; i++) sum[i] *= factor[i / 2 % 2];
        }
        pack();
    }
    weigh(steps - 1);
    wgmma_wait<0>();
    wgmma_hold(sum);

    // Through the queries' space, so that the stores to global memory are whole lines; the group's reads of it are over.
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        float all = total[half];
        all += __shfl_xor_sync(~0u, all, 1);
        all += __shfl_xor_sync(~0u, all, 2);
        const float inverse = 1.0f / all;
        const u32 r = warp_row % 64 + half * 8 + g;
#pragma unroll
        for (u32 n = 0; n < CHUNKS; n++)
            *(u32 *)(mine + panel_offset(64, r, n) + t * 4) = pack_half2(sum[4 * n + 2 * half] * inverse, sum[4 * n + 2 * half + 1] * inverse);
    }
    __syncwarp();
    for (u32 i = lane; i < 16 * CHUNKS; i += 32) {
        const u32 r = warp_row + i / CHUNKS, chunk = i % CHUNKS;
        if (r >= used) break;
        const u64 token = row.token + tile.y + r / GROUP;
        *(uint4 *)(out + (token * HEADS + head * GROUP + r % GROUP) * HEAD_DIM + chunk * 8) =
            *(const uint4 *)(mine + panel_offset(64, r % 64, chunk));
    }
}
