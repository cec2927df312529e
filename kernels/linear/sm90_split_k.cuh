// How the blocks that share a tile's K in sm90_gemm bring their sums together.
#pragma once

#include "linear/sm90_tile.cuh"

// What other multiprocessors wrote lies in L2; volatile, so that it stays behind the counter.
__device__ __forceinline__ float4 load_l2(const float4 *pointer) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(pointer) : "memory");
    return v;
}

// Leaves this warp's sums with those of the other parts of K. True in the last warp to come, which then has the whole.
__device__ __forceinline__ bool combine(float (&sums)[SUMS], const Tile &tile, const Thread &at, float *partial, u32 *counters) {
    constexpr u64 STRIDE = (u64)CONSUMERS * SUMS * 32 / 4;  // of one part, in float4
    float4 *parts = (float4 *)partial + tile.index * SPLIT_K * STRIDE + at.warp * (SUMS * 32 / 4) + at.lane;
#pragma unroll
    for (int i = 0; i < SUMS / 4; i++)
        __stcg(parts + tile.split * STRIDE + i * 32, make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]));
    __syncwarp();
    u32 before = 0, *counter = counters + tile.index * CONSUMERS + at.warp;
    if (at.lane == 0) {
        before = arrive(counter);
        if (before == SPLIT_K - 1) *counter = 0;
    }
    __syncwarp();
    if (__shfl_sync(~0u, before, 0) != SPLIT_K - 1) return false;
#pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] = 0.0f;
    // One part's loads are under way at once: those of all would need more registers than there are.
#pragma unroll 1
    for (int split = 0; split < SPLIT_K; split++) {
#pragma unroll
        for (int i = 0; i < SUMS / 4; i++) {
            float4 part = load_l2(parts + split * STRIDE + i * 32);
            sums[4 * i] += part.x, sums[4 * i + 1] += part.y, sums[4 * i + 2] += part.z, sums[4 * i + 3] += part.w;
        }
    }
    return true;
}
