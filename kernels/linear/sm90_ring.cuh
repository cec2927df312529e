// sm90_gemm's stages in shared memory and the threads that have them filled.
#pragma once

#include "common/ptx.cuh"
#include "common/tensor_map.cuh"
#include "linear/sm90_tile.cuh"

constexpr u32 STAGE_BYTES = (BM + BN) * 128;
constexpr u32 COPIED_BYTES = (X_ROWS + BN) * 128;
constexpr u32 X_SLICE = SHARE_X ? X_ROWS / CLUSTER : X_ROWS;
constexpr u32 WEIGHT_SLICE = SHARE_X ? WEIGHT_ROWS : WEIGHT_ROWS / CLUSTER;

// The ring: stage s lies at base + s * STAGE_BYTES, x before the weights; behind the stages its two barriers.
struct Ring {
    u32 base, stage = 0, parity = 0;
    __device__ u32 x() const { return base + stage * STAGE_BYTES; }
    __device__ u32 weight() const { return x() + BM * 128; }
    __device__ u32 full() const { return base + STAGES * STAGE_BYTES + stage * 16; }
    __device__ u32 empty() const { return full() + 8; }
    __device__ void advance() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// A producer thread's side of the ring: one fills the weights' part of the stages, one x's. A stage is full when both are there;
// only the weights' thread arrives at its barrier, announcing the bytes of both.
struct Producer {
    Ring ring;
    u32 rank;

    __device__ void copy(u32 shared, const TensorMap &map, u32 step, u32 row, u64 policy, bool multicast) {
        u32 column = step * STEP;
        if (CLUSTER > 1 && multicast)
            tensor_copy_multicast(shared, map, column, row, ring.full(), policy, (1 << CLUSTER) - 1);
        else
            tensor_copy(shared, map, column, row, ring.full(), policy);
    }
    // Weights are constant: they fill the ring without waiting for the kernels that make x.
    __device__ void run_weights(const Schedule &schedule, const TensorMap &weight, const TensorMap &weight2, u64 policy) {
        for (u32 unit = schedule.first; unit < schedule.units; unit += schedule.stride) {
            Tile tile = schedule.tile(unit);
            u32 slice = SHARE_X ? 0 : rank * WEIGHT_SLICE, row = tile.n * WEIGHT_ROWS + slice;
            for (u32 step = tile.begin; step < tile.end; step++) {
                mbarrier_wait(ring.empty(), ring.parity ^ 1);
                mbarrier_expect(ring.full(), COPIED_BYTES);
                copy(ring.weight() + slice * 128, weight, step, row, policy, !SHARE_X);
                if (GATED) copy(ring.weight() + (WEIGHT_ROWS + slice) * 128, weight2, step, row, policy, !SHARE_X);
                ring.advance();
            }
        }
    }
    __device__ void run_x(const Schedule &schedule, const TensorMap &x, u64 policy) {
        pdl_wait();
        for (u32 unit = schedule.first; unit < schedule.units; unit += schedule.stride) {
            Tile tile = schedule.tile(unit);
            u32 slice = SHARE_X ? rank * X_SLICE : 0;
            for (u32 step = tile.begin; step < tile.end; step++) {
                mbarrier_wait(ring.empty(), ring.parity ^ 1);
                copy(ring.x() + slice * 128, x, step, tile.m * BM + slice, policy, SHARE_X);
                ring.advance();
            }
        }
    }
};

// Tells every block whose copies write here that this warp has read the stage.
__device__ __forceinline__ void release(const Ring &ring, u32 lane) {
    if (CLUSTER == 1) {
        if (lane == 0) mbarrier_arrive(ring.empty());
    } else if (lane < CLUSTER) {
        mbarrier_arrive_cluster(ring.empty(), lane);
    }
}
