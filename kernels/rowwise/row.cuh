// Operands of kernels that work row by row: half_t or f32, read and written as f32.
#pragma once

#include "common/ptx.cuh"

template <bool F32>
__device__ __forceinline__ float load_element(const void *row, u32 column) {
    if constexpr (F32) return ((const float *)row)[column];
    return to_float(((const half_t *)row)[column]);
}

template <bool F32>
__device__ __forceinline__ void store_element(void *row, u32 column, float value) {
    if constexpr (F32)
        ((float *)row)[column] = value;
    else
        ((half_t *)row)[column] = to_half(value);
}

// Row `row` of a matrix with this row stride in elements.
template <bool F32>
__device__ __forceinline__ const void *row_of(const void *matrix, u64 row, u32 stride) {
    return (const u8 *)matrix + row * stride * (F32 ? 4 : 2);
}
template <bool F32>
__device__ __forceinline__ void *row_of(void *matrix, u64 row, u32 stride) {
    return (u8 *)matrix + row * stride * (F32 ? 4 : 2);
}

// Sum and maximum over the 256 threads of a block, in one order whatever the row; every thread gets the result.
constexpr u32 ROW_THREADS = 256;

__device__ __forceinline__ float block_sum(float value) {
    __shared__ float parts[ROW_THREADS / 32];
    for (u32 offset = 16; offset; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < ROW_THREADS / 32; warp++) sum += parts[warp];
    __syncthreads();
    return sum;
}

__device__ __forceinline__ float block_max(float value) {
    __shared__ float parts[ROW_THREADS / 32];
    for (u32 offset = 16; offset; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    float most = parts[0];
    for (u32 warp = 1; warp < ROW_THREADS / 32; warp++) most = fmaxf(most, parts[warp]);
    __syncthreads();
    return most;
}

#ifdef X_F32
constexpr bool X_IS_F32 = true;
#else
constexpr bool X_IS_F32 = false;
#endif
#ifdef Y_F32
constexpr bool Y_IS_F32 = true;
#else
constexpr bool Y_IS_F32 = false;
#endif
#ifdef OUTPUT_F32
constexpr bool OUTPUT_IS_F32 = true;
#else
constexpr bool OUTPUT_IS_F32 = false;
#endif
