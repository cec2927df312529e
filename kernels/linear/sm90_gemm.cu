// Dense layer over many tokens on Hopper: out[m][n] = epilogue(sum over k of x[m][k] weight[n][k]), sm_90a.
//
// A persistent, warp-specialised matrix multiplication. A block takes tiles of BM tokens by BN weight rows. Two threads of its last
// warpgroup are the producers: they have the copy engine fill a ring of STAGES stages, each 128 bytes of K of both operands. Two
// consumer warpgroups multiply straight from shared memory into registers and finish each tile themselves: BM = 128 gives each 64
// tokens and all BN columns (prefill), BM = 64 gives each all tokens and half of the columns (a few tokens, where the work is to
// read the weights). The weights' producer does not wait for the kernels that make x.
//
// Macros:
//   N, K            outputs (of each weight), inputs. N % 8 == 0; K % 64 == 0, with E4M3 K % 128 == 0.
//   BM, BN, STAGES  tile and ring. BM 64 or 128. BN % 32 == 0 up to 256, with BM = 64 and GATED BN % 64 == 0.
//   SPLIT_K         (1) blocks that share one tile's K. Each writes its f32 sums to `partial`; the last to arrive (counted per
//                   consumer warp) adds all of them in their order and goes on with the epilogue. Deterministic.
//   RESIDENT        (1) blocks per multiprocessor that registers must allow: 2 leaves a consumer 104 instead of 232.
//   CLUSTER         (1) blocks that share an operand: each copies 1 / CLUSTER of it to all. 1, 2 or 4.
//   SHARE_X         (0) what they share: 0: the weights (blocks along M), 1: x (blocks along N).
//   X_ROWS          (BM) rows of x that are copied, where no launch has more: X_ROWS % (8 CLUSTER) == 0.
//   GROUP_M         (16) tiles along M that follow each other before the next weights are taken.
//   E4M3            both operands e4m3; y = sum * scale[n] * x_scale[m]. The tensor cores' sums go to f32 registers every 128 of K.
//   SCALE_BLOCK     with E4M3: scale[ceil(N/128)][K/128] per 128 x 128 block of weights, x_scale[M][K/128] per token. BN a power of 2.
//   BIAS            y += bias[n] (f32).      ACTIVATION  0 none, 1 silu, 2 gelu (erf), 3 gelu (tanh), 4 relu.
//   GATED           out = activation(y) * y2, y2 by weight2, scale2, bias2. A tile is BN/2 rows of each weight.
//   OUTPUT_F32      out is f32, else half_t.
//   RESIDUAL        out[m][n] = residual[m][n] + y in f32 (with OUTPUT_F32); residual may be out.
//   ELEMENT_F16     half_t is f16.
//
// Tensor maps (rank 2, 128-byte swizzle, element half_t or u8, box of 128 bytes by the rows below):
//   x       dims {K, any row count >= rows}, row stride any multiple of 16 bytes; box rows X_ROWS / (SHARE_X ? CLUSTER : 1).
//           Rows >= `rows` may hold anything.
//   weight  dims {K, N}; box rows (GATED ? BN/2 : BN) / (SHARE_X ? 1 : CLUSTER). weight2 the same.
// out, residual: rows of N, 16-byte aligned; rows >= `rows` are not touched. scale, bias: 8-byte aligned.
// partial: TILES * SPLIT_K * BM * BN f32. counters: TILES * 8 u32, zero before the first launch, left zero by each.
//   TILES = roundup(ceil(rows / BM), SHARE_X ? 1 : CLUSTER) * roundup(ceil(N / (GATED ? BN/2 : BN)), SHARE_X ? CLUSTER : 1).
// Grid: a multiple of CLUSTER, at most TILES * SPLIT_K; best what fits the device at once. Cluster (CLUSTER, 1, 1).
// Block: 384. Dynamic shared memory: 1024 + STAGES * ((BM + BN) * 128 + 16).
//
// A row's result depends on that row, the weights and the macros alone.

#ifndef SPLIT_K
#define SPLIT_K 1
#endif
#ifndef RESIDENT
#define RESIDENT 1
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif
#ifndef SHARE_X
#define SHARE_X 0
#endif
#ifndef X_ROWS
#define X_ROWS BM
#endif
#ifndef GROUP_M
#define GROUP_M 16
#endif
#ifndef E4M3
#define E4M3 0
#endif
#ifndef SCALE_BLOCK
#define SCALE_BLOCK 0
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef ACTIVATION
#define ACTIVATION 0
#endif
#ifndef GATED
#define GATED 0
#endif
#ifndef RESIDUAL
#define RESIDUAL 0
#endif
#ifndef OUTPUT_F32
#define OUTPUT_F32 RESIDUAL
#endif

#include "common/cluster.cuh"
#include "common/ptx.cuh"
#include "common/tensor_map.cuh"
#include "common/types.cuh"
#include "common/wgmma.cuh"
#include "linear/sm90_epilogue.cuh"
#include "linear/sm90_ring.cuh"
#include "linear/sm90_split_k.cuh"
#include "linear/sm90_tile.cuh"

// Registers per thread: the block's 3 warpgroups share them out again at the start.
constexpr int CONSUMER_REGISTERS = RESIDENT == 1 ? 232 : 104, PRODUCER_REGISTERS = RESIDENT == 1 ? 40 : 24;

static_assert(BM == 64 || BM == 128, "BM");
static_assert(PIECE % 16 == 0 && PIECE <= 256 && OUT_COLUMNS % 8 == 0 && WEIGHT_ROWS % 8 == 0, "BN");
static_assert(X_ROWS <= BM && X_SLICE % 8 == 0 && WEIGHT_SLICE % 8 == 0, "slices are whole swizzle atoms");
static_assert(SPLIT_K <= STEPS, "every part of K has a step");
static_assert(!RESIDUAL || OUTPUT_F32, "a residual is f32");

// The warpgroup's operands in the current stage, and its share of a tile's sums.
__device__ __forceinline__ u64 x_descriptor(const Ring &ring, u32 group) {
    return wgmma_descriptor(ring.x() + (BM == 128 ? group * 64 * 128 : 0));
}
__device__ __forceinline__ u64 weight_descriptor(const Ring &ring, u32 group, u32 piece) {
    u32 row = BM == 128 ? piece * PIECE : GATED ? piece * WEIGHT_ROWS + group * PIECE : group * (BN / 2) + piece * PIECE;
    return wgmma_descriptor(ring.weight() + row * 128);
}

#if E4M3
__device__ __forceinline__ void multiply(float (&sums)[SUMS], const Tile &tile, Ring &ring, const Thread &at, const Scales &scales) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] = 0.0f;
    float part[PIECE / 2];
    for (u32 step = tile.begin; step < tile.end; step++) {
        BlockScales block;
        if (SCALE_BLOCK) block.load(scales, tile, at, step);
        mbarrier_wait(ring.full(), ring.parity);
        u64 a = x_descriptor(ring, at.group);
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            u64 b = weight_descriptor(ring, at.group, piece);
            wgmma_hold<PIECE / 2>(part);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; k++) wgmma<PIECE>(part, a + 2 * k, b + 2 * k, k > 0);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_hold<PIECE / 2>(part);
            if (piece == PIECES - 1) release(ring, at.lane);
#pragma unroll
            for (int i = 0; i < PIECE / 2; i++) {
                float &sum = sums[piece * (PIECE / 2) + i];
                sum = SCALE_BLOCK ? sum + part[i] * block.of(piece * (PIECE / 2) + i) : sum + part[i];
            }
        }
        ring.advance();
    }
}
#else
__device__ __forceinline__ void multiply(float (&sums)[SUMS], const Tile &tile, Ring &ring, const Thread &at, const Scales &) {
    Ring previous = ring;
    wgmma_hold<SUMS>(sums);
    for (u32 step = tile.begin; step < tile.end; step++) {
        mbarrier_wait(ring.full(), ring.parity);
        u64 a = x_descriptor(ring, at.group);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; k++) {
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++)
                wgmma<PIECE>(sums + piece * (PIECE / 2), a + 2 * k, weight_descriptor(ring, at.group, piece) + 2 * k, k > 0 || step > tile.begin);
        }
        wgmma_commit();
        // One step's products stay under way while the next is waited for.
        wgmma_wait<1>();
        if (step > tile.begin) release(previous, at.lane);
        previous = ring;
        ring.advance();
    }
    wgmma_wait<0>();
    wgmma_hold<SUMS>(sums);
    release(previous, at.lane);
}
#endif

extern "C" __global__ void __launch_bounds__(384, RESIDENT)
    linear(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap weight2,
           void *out, const float *scale, const float *scale2, const float *x_scale, const float *bias, const float *bias2,
           const float *residual, float *partial, u32 *counters, u32 rows) {
    pdl_launch();
    extern __shared__ u8 shared[];
    Ring ring;
    ring.base = (shared_address(shared) + 1023) & ~1023u;
    u32 rank = CLUSTER > 1 ? cluster_rank() : 0;
    if (threadIdx.x == 0) {
        for (Ring r = ring; r.parity == 0; r.advance()) {
            mbarrier_init(r.full(), 1);
            mbarrier_init(r.empty(), CONSUMERS * CLUSTER);
        }
        mbarrier_init_fence();
    }
    if (CLUSTER > 1)
        cluster_sync_relaxed();
    else
        __syncthreads();

    Schedule schedule(rows, rank);
    Thread at;
    if (at.warp >= CONSUMERS) {
        registers_decrease<PRODUCER_REGISTERS>();
        // Weights that no second row of tiles will read need no place in L2, where x then belongs.
        bool once = rows <= BM;
        Producer producer = {ring, rank};
        if (at.warp == CONSUMERS && at.lane == 0)
            producer.run_weights(schedule, weight, weight2, once ? policy_evict_first() : policy_evict_normal());
        if (at.warp == CONSUMERS + 1 && at.lane == 0) producer.run_x(schedule, x, once ? policy_evict_last() : policy_evict_normal());
        __syncwarp();
    } else {
        registers_increase<CONSUMER_REGISTERS>();
        pdl_wait();
        float sums[SUMS];
        Scales scales = {scale, scale2, x_scale};
        Epilogue epilogue = {scales, bias, bias2, residual, out, rows};
        scales.rows = rows;
        for (u32 unit = schedule.first; unit < schedule.units; unit += schedule.stride) {
            Tile tile = schedule.tile(unit);
            if (RESIDUAL) epilogue.prefetch(tile);
            multiply(sums, tile, ring, at, scales);
            // Warps without a row that counts have nothing to hand over.
            if (tile.m * BM + at.row0 - at.lane / 4 >= rows) continue;
            if (SPLIT_K > 1 && !combine(sums, tile, at, partial, counters)) continue;
            epilogue.run(sums, tile, at);
        }
    }
    // A block's shared memory and barriers stay until its neighbours have made their last use of them.
    if (CLUSTER > 1) cluster_sync_relaxed();
}
