// Linear layer on Hopper's tensor cores: out[M][N] = epilogue(x[M][K] . W[N][K]^T), operands half_t, or both e4m3 (E4M3).
//
// A block is one producer warp and two consumer warpgroups around a ring of STAGES pieces, 128 bytes of K each, which the copy
// engine fills. BM 128: each warpgroup has 64 rows; BM 64: both have the same rows and half of the columns. Blocks are persistent:
// the producer runs ahead into the next tile while the consumers store theirs, and weights are fetched before pdl_wait().
//
// Tiles go to blocks in turn, neighbours in M first, so that they share weights in L2. With STREAM_K the work is cut by pieces of K
// instead, an equal share for each block (Osama et al., "Stream-K", PPoPP 2023): few rows are bound by reading weights, and so all
// multiprocessors read all the time. Of a tile that several blocks share, each leaves its sums in `partial`; the last to arrive
// adds them in the order of blocks.
//
// e4m3: the tensor cores' sums are added to f32 every 128 of K, because they keep few bits; token m's scale is x_scale[m].
//
// linear(x, weight, weight2, out, scale, scale2, x_scale, bias, bias2, residual, partial, counters, rows)
//   x, weight, weight2: tensor maps over [max rows][K] and [N][K], boxes of 128 bytes by BM and by BOX_ROWS rows.
//   partial f32 [grid][2][BM * BN], counters u32 [tiles], zero before and after: with STREAM_K.
// Macros as in gemv.cu: N, K, WEIGHT_E4M3 (with E4M3), OUTPUT_F32, BIAS, ACTIVATION, GATED, RESIDUAL; BM, BN, STAGES. K a multiple of 128 bytes.
// Block: 384 threads. Grid: at most one block for a multiprocessor; without STREAM_K at most the tiles.
// Dynamic shared memory: STAGES * (BM + BN) * 128 + 1024 + 16 * STAGES.
#include "common/wgmma.cuh"
#include "linear/epilogue.cuh"

struct alignas(64) TensorMap {
    u64 opaque[16];
};

#ifdef E4M3
constexpr u32 BK = 128;
#else
constexpr u32 BK = 64;
#endif
#ifdef GATED
constexpr u32 OUTPUTS = BN / 2, MATRICES = 2;
#else
constexpr u32 OUTPUTS = BN, MATRICES = 1;
#endif
constexpr u32 GROUPS_N = BM == 64 ? 2 : 1;
constexpr u32 WN = BN / GROUPS_N;           // columns of a warpgroup, gate and up together
constexpr u32 BOX_ROWS = WN / MATRICES;     // rows of one weight box
constexpr u32 PIECES = (K + BK - 1) / BK;
constexpr u32 X_BYTES = BM * 128, STAGE_BYTES = X_BYTES + BN * 128;
constexpr u32 COLUMN_TILES = (N + OUTPUTS - 1) / OUTPUTS;

__device__ __forceinline__ void load_box(u32 shared, const TensorMap &map, u32 column, u32 row, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(shared),
                 "l"(&map), "r"(column), "r"(row), "r"(barrier)
                 : "memory");
}

// A run of pieces of one tile.
struct Part {
    u32 tile, begin, end;
};

// The parts of this block, in order.
struct Schedule {
    u32 next, stop;  // in pieces with STREAM_K, else in tiles
    __device__ __forceinline__ Schedule(u32 row_tiles) {
        u32 tiles = row_tiles * COLUMN_TILES;
#ifdef STREAM_K
        u64 pieces = (u64)tiles * PIECES;
        next = (u32)(pieces * blockIdx.x / gridDim.x), stop = (u32)(pieces * (blockIdx.x + 1) / gridDim.x);
#else
        next = blockIdx.x, stop = tiles;
#endif
    }
    __device__ __forceinline__ bool take(Part &part) {
        if (next >= stop) return false;
#ifdef STREAM_K
        part.tile = next / PIECES, part.begin = next % PIECES;
        part.end = min(PIECES, part.begin + stop - next);
        next += part.end - part.begin;
#else
        part = {next, 0, PIECES};
        next += gridDim.x;
#endif
        return true;
    }
};

struct Ring {
    u32 shared, full, empty, stage, phase;
    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

__device__ __forceinline__ void load_weights(const Ring &ring, const TensorMap &weight, const TensorMap &weight2, u32 n0, u32 piece) {
    u32 barrier = ring.full + ring.stage * 8, place = ring.shared + ring.stage * STAGE_BYTES + X_BYTES;
    mbarrier_expect(barrier, STAGE_BYTES);
#pragma unroll
    for (u32 group = 0; group < GROUPS_N; group++) {
        u32 row = n0 + group * BOX_ROWS;
        load_box(place + group * WN * 128, weight, piece * BK, row, barrier);
#ifdef GATED
        load_box(place + (group * WN + BOX_ROWS) * 128, weight2, piece * BK, row, barrier);
#endif
    }
}

__device__ __forceinline__ void produce(Ring ring, const TensorMap &x, const TensorMap &weight, const TensorMap &weight2, u32 row_tiles) {
    // Weights of the first stages do not wait for the kernel before this one.
    Schedule early(row_tiles);
    Ring ahead = ring;
    Part part;
    for (u32 filled = 0; filled < STAGES && early.take(part);)
        for (u32 piece = part.begin; piece < part.end && filled < STAGES; piece++, filled++) {
            load_weights(ahead, weight, weight2, part.tile / row_tiles * OUTPUTS, piece);
            ahead.advance();
        }
    pdl_wait();
    Schedule schedule(row_tiles);
    u32 filled = 0;
    while (schedule.take(part))
        for (u32 piece = part.begin; piece < part.end; piece++, filled++) {
            if (filled >= STAGES) {
                mbarrier_wait(ring.empty + ring.stage * 8, ring.phase ^ 1);
                load_weights(ring, weight, weight2, part.tile / row_tiles * OUTPUTS, piece);
            }
            load_box(ring.shared + ring.stage * STAGE_BYTES, x, piece * BK, part.tile % row_tiles * BM, ring.full + ring.stage * 8);
            ring.advance();
        }
}

// Sums of pieces of one tile.
__device__ __forceinline__ void multiply(float (&acc)[WN / 2], Ring &ring, u32 a_offset, u32 b_offset, u32 pieces) {
#ifdef E4M3
    float sum[WN / 2];
#endif
#pragma unroll
    for (u32 i = 0; i < WN / 2; i++) acc[i] = 0.0f;
    u32 lane = threadIdx.x % 128;
    for (u32 piece = 0; piece < pieces; piece++) {
        mbarrier_wait(ring.full + ring.stage * 8, ring.phase);
        u32 place = ring.shared + ring.stage * STAGE_BYTES;
        u64 a = wgmma_descriptor(place + a_offset), b = wgmma_descriptor(place + X_BYTES + b_offset);
        wgmma_fence();
#pragma unroll
        for (u32 k = 0; k < 4; k++)
#ifdef E4M3
            wgmma(sum, a + 2 * k, b + 2 * k, k > 0);
#else
            wgmma(acc, a + 2 * k, b + 2 * k, 1);
#endif
        wgmma_commit();
#ifdef E4M3
        wgmma_wait<0>();
        if (lane == 0) mbarrier_arrive(ring.empty + ring.stage * 8);
#pragma unroll
        for (u32 i = 0; i < WN / 2; i++) acc[i] += sum[i];
#else
        // The piece before this one has been read.
        wgmma_wait<1>();
        if (piece > 0 && lane == 0) mbarrier_arrive(ring.empty + (ring.stage + STAGES - 1) % STAGES * 8);
#endif
        ring.advance();
    }
#ifndef E4M3
    wgmma_wait<0>();
    if (lane == 0) mbarrier_arrive(ring.empty + (ring.stage + STAGES - 1) % STAGES * 8);
#endif
}

__device__ __forceinline__ void store_tile(const float (&acc)[WN / 2], const Epilogue &epilogue, const float *x_scale, u32 rows, u32 m0, u32 n0) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 m = m0 + warp * 16 + lane / 4 + 8 * half;
        if (m >= rows) continue;
#ifdef E4M3
        float token = x_scale[m];
#else
        float token = 1.0f;
#endif
#pragma unroll
        for (u32 j = 0; j < BOX_ROWS / 8; j++) {
            u32 n = n0 + 8 * j + 2 * (lane % 4);
            if (n >= N) continue;  // N is even: both columns or none
            float y[2];
#pragma unroll
            for (u32 c = 0; c < 2; c++) {
#ifdef GATED
                float second = acc[4 * (j + BOX_ROWS / 8) + 2 * half + c] * token;
#else
                float second = 0.0f;
#endif
                y[c] = finish(load_terms(epilogue, m, n + c), acc[4 * j + 2 * half + c] * token, second);
            }
            u64 at = (u64)m * N + n;
#if defined(OUTPUT_F32) || defined(RESIDUAL)
            *(float2 *)((float *)epilogue.out + at) = make_float2(y[0], y[1]);
#else
            *(u32 *)((half_t *)epilogue.out + at) = pack_half2(y[0], y[1]);
#endif
        }
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    linear(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap weight2, void *out,
           const float *scale, const float *scale2, const float *x_scale, const float *bias, const float *bias2, const float *residual,
           float *partial, u32 *counters, u32 rows) {
    pdl_launch();
    extern __shared__ u8 memory[];
    u32 shared = (shared_address(memory) + 1023) & ~1023u, row_tiles = (rows + BM - 1) / BM;
    Ring ring = {shared, shared + STAGES * STAGE_BYTES, shared + STAGES * (STAGE_BYTES + 8), 0, 0};
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; stage++) {
            mbarrier_init(ring.full + stage * 8, 1);
            mbarrier_init(ring.empty + stage * 8, 2);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    u32 group = threadIdx.x / 128;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) produce(ring, x, weight, weight2, row_tiles);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        u32 consumer = group - 1;
        u32 a_offset = GROUPS_N == 1 ? consumer * 64 * 128 : 0, b_offset = GROUPS_N == 1 ? 0 : consumer * WN * 128;
        u32 m_offset = GROUPS_N == 1 ? consumer * 64 : 0, n_offset = GROUPS_N == 1 ? 0 : consumer * BOX_ROWS;
        Epilogue epilogue = {out, scale, scale2, bias, bias2, residual};
        pdl_wait();
        Schedule schedule(row_tiles);
        Part part;
        float acc[WN / 2];
        while (schedule.take(part)) {
            multiply(acc, ring, a_offset, b_offset, part.end - part.begin);
            u32 m0 = part.tile % row_tiles * BM + m_offset, n0 = part.tile / row_tiles * OUTPUTS + n_offset;
#ifdef STREAM_K
            if (part.end - part.begin < PIECES) {
                u64 pieces = (u64)row_tiles * COLUMN_TILES * PIECES, first = (u64)part.tile * PIECES;
                // The block that has a piece: the last whose share begins at or before it.
                auto block_of = [&](u64 piece) {
                    u32 block = (u32)(piece * gridDim.x / pieces);
                    while (block + 1 < gridDim.x && pieces * (block + 1) / gridDim.x <= piece) block++;
                    while (pieces * block / gridDim.x > piece) block--;
                    return block;
                };
                // A block shares the tile that it begins with or the one that it ends with: the first one has slot 0.
                auto sums_of = [&](u32 block) {
                    u32 slot = pieces * block / gridDim.x / PIECES == part.tile ? 0 : 1;
                    return partial + ((u64)block * 2 + slot) * (BM * BN) + consumer * 64 * WN + threadIdx.x % 128;
                };
                float *mine = sums_of(blockIdx.x);
#pragma unroll
                for (u32 i = 0; i < WN / 2; i++) mine[i * 128] = acc[i];
                u32 from = block_of(first), to = block_of(first + PIECES - 1);
                __threadfence();
                asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
                __shared__ u32 arrived[2];
                u32 *counter = counters + part.tile * 2 + consumer;
                if (threadIdx.x % 128 == 0) arrived[consumer] = atomicAdd(counter, 1);
                asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
                if (arrived[consumer] != to - from) continue;
                __threadfence();
                if (threadIdx.x % 128 == 0) *counter = 0;
#pragma unroll
                for (u32 i = 0; i < WN / 2; i++) acc[i] = 0.0f;
                for (u32 block = from; block <= to; block++) {
                    const float *sums = sums_of(block);
#pragma unroll
                    for (u32 i = 0; i < WN / 2; i++) acc[i] += __ldcg(sums + i * 128);
                }
            }
#endif
            store_tile(acc, epilogue, x_scale, rows, m0, n0);
        }
    }
}
