// How sm90_gemm divides its work: tiles over blocks, sums over threads.
#pragma once

#include "common/types.cuh"

__host__ __device__ constexpr u32 ceil_div(u32 a, u32 b) { return (a + b - 1) / b; }

constexpr u32 CONSUMERS = 8;  // warps, in two warpgroups; a third holds the producers
constexpr u32 STEP = E4M3 ? 128 : 64;  // elements of K per stage: 128 bytes
constexpr u32 STEPS = ceil_div(K, STEP);
constexpr u32 WEIGHT_ROWS = GATED ? BN / 2 : BN;               // of each weight in a tile: its output columns
constexpr u32 CLUSTER_M = SHARE_X ? 1 : CLUSTER, CLUSTER_N = SHARE_X ? CLUSTER : 1;
constexpr u32 N_CLUSTERS = ceil_div(ceil_div(N, WEIGHT_ROWS), CLUSTER_N);

// A warpgroup multiplies 64 tokens by GROUP_COLUMNS columns, in pieces of one wgmma's width. Pieces split gate from up where the
// two do not lie together; narrow ones also need few registers each, for promotion with E4M3 and with 2 resident blocks.
constexpr int GROUP_COLUMNS = BM == 128 ? BN : BN / 2;
constexpr int PIECES = (BM == 64 && GATED) || (E4M3 && GROUP_COLUMNS > 128) || (RESIDENT == 2 && GROUP_COLUMNS > 64) ? 2 : 1;
constexpr int PIECE = GROUP_COLUMNS / PIECES;
constexpr int SUMS = GROUP_COLUMNS / 2;                        // per thread: 4 for every 8 columns, gates first
constexpr int OUT_COLUMNS = GATED ? GROUP_COLUMNS / 2 : GROUP_COLUMNS;

struct Tile {
    u32 m, n, split, begin, end;  // in tiles; which part of K and its steps
    u64 index;                    // over all tiles
};

// This cluster's units of work: first, first + stride, ... below units. A unit is one part of K of a cluster's tiles.
struct Schedule {
    u32 rank, m_clusters, first, units, stride;

    __device__ Schedule(u32 rows, u32 rank) : rank(rank) {
        m_clusters = ceil_div(ceil_div(rows, BM), CLUSTER_M);
        units = m_clusters * N_CLUSTERS * SPLIT_K;
        first = blockIdx.x / CLUSTER;
        stride = gridDim.x / CLUSTER;
    }
    // Parts of one tile run side by side; tiles along M follow each other, so that the weights they share are read once.
    __device__ Tile tile(u32 unit) const {
        constexpr u32 GROUP = GROUP_M / CLUSTER_M > 0 ? GROUP_M / CLUSTER_M : 1;
        Tile t;
        u32 cluster = unit / SPLIT_K;
        t.split = unit % SPLIT_K;
        t.begin = t.split * STEPS / SPLIT_K;
        t.end = (t.split + 1) * STEPS / SPLIT_K;
        u32 group = cluster / (GROUP * N_CLUSTERS), within = cluster % (GROUP * N_CLUSTERS);
        u32 height = min(GROUP, m_clusters - group * GROUP);
        t.m = (group * GROUP + within % height) * CLUSTER_M + (SHARE_X ? 0 : rank);
        t.n = within / height * CLUSTER_N + (SHARE_X ? rank : 0);
        t.index = (u64)t.m * (N_CLUSTERS * CLUSTER_N) + t.n;
        return t;
    }
};

// Where a consumer thread stands in a tile: its rows row0 and row0 + 8; of every 8 columns from `column` on, 2.
struct Thread {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp / 4;
    u32 row0 = (BM == 128 ? group * 64 : 0) + warp % 4 * 16 + lane / 4;
    u32 column = BM == 128 ? 0 : group * OUT_COLUMNS;
};
