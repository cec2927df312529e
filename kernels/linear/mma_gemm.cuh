// Parts of mma_gemm.cu: how tiles lie in shared memory, and pairs of e4m3 and of outputs.
#pragma once

#include "common/ptx.cuh"
#include "linear/epilogue.cuh"

#ifndef BK
#define BK 64
#endif

#ifdef WEIGHT_E4M3
constexpr u32 WEIGHT_BYTES = 1;
#else
constexpr u32 WEIGHT_BYTES = 2;
#endif
#ifdef GATED
constexpr u32 MATRICES = 2;
#else
constexpr u32 MATRICES = 1;
#endif
constexpr u32 TILE_OUTPUTS = BN / MATRICES;

__device__ __forceinline__ u32 load_shared_2(u32 address) {
    u16 v;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(address) : "memory");
    return v;
}

// ROWS x BK elements of BYTES bytes to shared memory as [BK/64][ROWS][64]. A thread copies 16 bytes of each FIRST_ROWS-th row.
template <u32 ROWS, u32 BYTES, u32 THREADS>
struct TileCopy {
    static constexpr u32 PIECE = 16 / BYTES, PIECES = BK / PIECE, FIRST_ROWS = THREADS / PIECES;
    static constexpr u32 SLICE_PIECES = 64 / PIECE, SLICE_ROW = 64 * BYTES;

    __device__ __forceinline__ static u32 first_row() { return threadIdx.x / PIECES; }
    __device__ __forceinline__ static u32 first_k() { return threadIdx.x % PIECES * PIECE; }

    // copy(address in shared memory, rows after the thread's first) for each of the thread's rows.
    template <class Copy>
    __device__ __forceinline__ static void each(u32 shared, Copy copy) {
        u32 piece = threadIdx.x % PIECES, column = piece % SLICE_PIECES;
        shared += (piece / SLICE_PIECES * ROWS + first_row()) * SLICE_ROW;
#pragma unroll
        for (u32 rows = 0; rows < ROWS; rows += FIRST_ROWS) {
            if (ROWS % FIRST_ROWS != 0 && first_row() >= ROWS) break;
            u32 row = first_row() + rows, exchanged = column ^ (BYTES == 2 ? row % 8 : row / 2 % 4);
            copy(shared + rows * SLICE_ROW + exchanged * 16, rows);
        }
    }
};

// One or two neighbouring f32; two at once where rows are an even number of elements long.
__device__ __forceinline__ void load_pair(float (&v)[2], const float *source, u32 count) {
    if (N % 2 == 0) {
        float2 pair = *(const float2 *)source;
        v[0] = pair.x, v[1] = pair.y;
    } else {
        v[0] = source[0], v[1] = count == 2 ? source[1] : 0.0f;
    }
}

__device__ __forceinline__ void store_pair(const Epilogue &e, u32 m, u32 n, u32 count, const float (&y)[2]) {
    if (N % 2 == 0) {
        u64 at = (u64)m * N + n;
#if defined(OUTPUT_F32) || defined(RESIDUAL)
        *(float2 *)((float *)e.out + at) = make_float2(y[0], y[1]);
#else
        *(u32 *)((half_t *)e.out + at) = pack_half2(y[0], y[1]);
#endif
    } else {
        store_output(e, m, n, y[0]);
        if (count == 2) store_output(e, m, n + 1, y[1]);
    }
}
