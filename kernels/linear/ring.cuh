// Copies that fill a ring of buffers in shared memory while others are computed on: bulk copies from sm_90 on, 16-byte cp.async
// before. Either way a buffer's arrival completes a phase of its barrier.
#pragma once

#include "common/ptx.cuh"

#ifndef COPY_BULK
#define COPY_BULK (__CUDA_ARCH__ >= 900)
#endif

// Arrivals that one copy_rows() makes on its barrier.
constexpr u32 COPY_ARRIVALS = COPY_BULK ? 1 : 32;

// One warp copies `bytes` (a multiple of 128) of each of `rows` rows; `address(row)` is the source, rows lie `stride` apart in
// shared memory. All addresses are multiples of 16.
template <typename Address>
__device__ __forceinline__ void copy_rows(u32 shared, u32 stride, Address address, u32 rows, u32 bytes, u32 barrier, u64 policy) {
    u32 lane = threadIdx.x % 32;
#if COPY_BULK
    if (lane == 0) mbarrier_expect(barrier, rows * bytes);
    __syncwarp();
    for (u32 row = lane; row < rows; row += 32) bulk_copy(shared + row * stride, address(row), bytes, barrier, policy);
#else
    for (u32 row = lane / 8; row < rows; row += 4) {
        const u8 *source = address(row);
        for (u32 at = lane % 8 * 16; at < bytes; at += 128)
            asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared + row * stride + at),
                         "l"(source + at), "l"(policy)
                         : "memory");
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
#endif
}
