// Tokens in the order of their places, where `filter` looks at them: in a row, in a list in shared memory, shared by the blocks of a cluster or not.
#pragma once

#include "common/cluster.cuh"
#include "common/ptx.cuh"
#include "sample/row.cuh"

#ifndef BLOCKS
#define BLOCKS 1
#endif
constexpr u32 THREADS = 1024, WARPS = 32;
constexpr u32 RANKED = THREADS / 4;      // most tokens that are compared with each other
constexpr u32 LISTED = 4096 - RANKED;    // most tokens of the list
constexpr u32 BINS = 512, COPIES = 8;    // lanes add to copies of the bins, as they often meet in one bin
constexpr u32 FULL = 0xffffffffu;
constexpr u32 NOTHING = 0x007fffffu;  // order(-inf): keys above it belong to logits that count
constexpr u32 LAST = ~(VOCAB - 1u);   // the last token, as in its place

__device__ __forceinline__ u32 key_of(u64 place) { return (u32)(place >> 32); }
__device__ __forceinline__ u32 token_of(u64 place) { return ~(u32)place; }

// In the block's dynamic memory.
struct Large {
    u64 places[LISTED + RANKED];  // the list, and what a cut of it leaves
    uint4 low[BINS * COPIES / 4], high[BINS * COPIES / 4];  // the sums of the histogram, in halves; zero outside `cut`
};
static_assert(sizeof(Large) == 65536, "the host gives as much");
extern __shared__ Large large[];

__shared__ struct {
    u64 amounts[RANKED];
    u64 sums[WARPS], lowest[WARPS], highest[WARPS];
    u64 found, before;
    u32 bin, count, key;
    u16 groups[LISTED];
    u64 bins[BINS], lowest_of_block, highest_of_block;  // for the other blocks
} small;

// ---- Blocks of a cluster: the first one leads, and has what all have found ----

#if BLOCKS > 1
static_assert(BLOCKS <= 8, "portable clusters");
__device__ __forceinline__ u32 block_of_cluster() { return cluster_rank(); }
// Warps come to it apart, in which case it must not be `.aligned`.
__device__ __forceinline__ void meet() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
template <class T>
__device__ __forceinline__ u32 address_in(u32 block, const T &own) {
    return cluster_address(shared_address(&own), block);
}
__device__ __forceinline__ u64 read_in(u32 block, const u64 &own) {
    u64 value;
    asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(value) : "r"(address_in(block, own)) : "memory");
    return value;
}
__device__ __forceinline__ u32 read_in(u32 block, const u32 &own) {
    u32 value;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(address_in(block, own)) : "memory");
    return value;
}
__device__ __forceinline__ void write_in(u32 block, u64 &own, u64 value) {
    asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(address_in(block, own)), "l"(value) : "memory");
}
#else
__device__ __forceinline__ u32 block_of_cluster() { return 0; }
__device__ __forceinline__ void meet() {}
__device__ __forceinline__ u64 read_in(u32, const u64 &own) { return own; }
__device__ __forceinline__ u32 read_in(u32, const u32 &own) { return own; }
__device__ __forceinline__ void write_in(u32, u64 &own, u64 value) { own = value; }
#endif

// Where tokens are: `count` logits (or heads), or, should there be none of those, places in shared memory.
struct Source {
    const float *values;
    u32 list, count;
    bool shared;  // the blocks of the cluster have a part each; else this block has all

    __device__ __forceinline__ bool together() const { return BLOCKS > 1 && shared; }

    // Those in an interval, and more: four places at a time, lower ones than all tokens' where there is nothing.
    template <class Body>
    __device__ __forceinline__ void each(u64 low, u64 high, Body body) const {
        if (!values) {
            for (u32 i = threadIdx.x; i < count; i += THREADS) {
                const u64 places[4] = {large->places[list + i], 0, 0, 0};
                const float x[4] = {unorder(key_of(places[0])), 0.0f, 0.0f, 0.0f};
                body(places, x);
            }
            return;
        }
        // Where only ids are left to decide, they are an interval.
        bool ids = key_of(low) == key_of(high);
        u32 first = ids ? token_of(high) : 0, end = ids ? min(token_of(low) + 1, count) : count;
        u32 thread = threadIdx.x, threads = THREADS;
        if (together()) thread += block_of_cluster() * THREADS, threads *= BLOCKS;
        for (u32 start = (first & ~3u) + 4 * thread; start < end; start += 16 * threads) {
            float4 x[4];
#pragma unroll
            for (u32 v = 0; v < 4; v++) x[v] = load_logits(values, start + 4 * threads * v, count);
#pragma unroll
            for (u32 v = 0; v < 4; v++) {
                u32 token = start + 4 * threads * v;
                const u64 places[4] = {place(x[v].x, token), place(x[v].y, token + 1), place(x[v].z, token + 2), place(x[v].w, token + 3)};
                const float four[4] = {x[v].x, x[v].y, x[v].z, x[v].w};
                body(places, four);
            }
        }
    }
    static __device__ __forceinline__ u64 place(float x, u32 token) { return (u64)order(x) << 32 | (u32)~token; }
};

// The members of four places, given by bits, to a list that keeps the first `room`; the count passes that if there are more.
__device__ __forceinline__ void append(u32 list, u32 room, const u64 (&places)[4], u32 members) {
    if (members == 0 || *(volatile u32 *)&small.count > room) return;
    u32 at = atomicAdd(&small.count, __popc(members));
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (!(members >> i & 1)) continue;
        if (at < room) large->places[list + at] = places[i];
        at++;
    }
}
