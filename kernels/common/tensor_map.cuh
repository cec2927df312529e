// Tiled copies from global to shared memory by the copy engine (sm_90 and later), to one block or to a cluster's.
#pragma once

#include "common/ptx.cuh"

// The driver's opaque description of a tensor (cuTensorMapEncodeTiled); a kernel takes it as `const __grid_constant__`.
struct __align__(64) TensorMap {
    u64 words[16];
};

__device__ __forceinline__ void tensor_map_prefetch(const TensorMap &map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// One box, from element `column` of row `row` on, to `shared`; what lies outside the tensor arrives as zeros. Its bytes (all
// of the box) count on `barrier`.
__device__ __forceinline__ void tensor_copy(u32 shared, const TensorMap &map, u32 column, u32 row, u32 barrier, u64 policy) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint"
        " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
        "l"(&map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
        : "memory");
}
// The same to this place in every block of the cluster whose bit is set in `blocks`, counting on each one's own barrier.
__device__ __forceinline__ void tensor_copy_multicast(u32 shared, const TensorMap &map, u32 column, u32 row, u32 barrier, u64 policy,
                                                      u16 blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint"
        " [%0], [%1, {%2, %3}], [%4], %5, %6;" ::"r"(shared),
        "l"(&map), "r"(column), "r"(row), "r"(barrier), "h"(blocks), "l"(policy)
        : "memory");
}

// Arrives at the barrier that lies at the same place in block `rank` of the cluster. It orders nothing but what this block sees:
// release at cluster scope would be a fence of the whole device each time, and reads by the tensor cores need none.
__device__ __forceinline__ void mbarrier_arrive_cluster(u32 barrier, u32 rank) {
    asm volatile(
        "{\n.reg .u32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}
