// What the row kernels share: eight neighbouring elements at a time, sums over a block in one fixed order, e4m3 with a scale.
//
// A thread owns the eight columns from 8 * (v * blockDim.x + threadIdx.x) for v = 0, 1, ... Accesses are 16 bytes wide when COLUMNS is a
// multiple of 8 (every row then has to start at a multiple of 16 bytes), and element by element otherwise.
#pragma once

#include "common/types.cuh"

#define FULL_WARP 0xffffffffu

// Operands are half_t unless a macro says f32.
#ifdef X_F32
typedef float x_t;
#else
typedef half_t x_t;
#endif
#ifdef Y_F32
typedef float y_t;
#else
typedef half_t y_t;
#endif
#ifdef OUTPUT_F32
typedef float out_t;
#else
typedef half_t out_t;
#endif

// Threads for a row of `columns`, or for a piece of it where `most` warps do not reach the end.
__host__ __device__ constexpr int row_threads(int columns, int most) {
    return 32 * ((columns + 255) / 256 < most ? (columns + 255) / 256 : most);
}

// ---- Eight elements, of which the first `count` exist; the others read as 0 and are not written. Wide: all or none exist. ----

template <bool WIDE>
__device__ __forceinline__ void load8(float (&v)[8], const float *from, int count) {
    if (WIDE && count > 0) {
        float4 a = *(const float4 *)from, b = *(const float4 *)(from + 4);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = !WIDE && i < count ? from[i] : 0.0f;
}
template <bool WIDE>
__device__ __forceinline__ void load8(float (&v)[8], const half_t *from, int count) {
    if (WIDE && count > 0) {
        uint4 packed = *(const uint4 *)from;
        float2 a = unpack_half2(packed.x), b = unpack_half2(packed.y), c = unpack_half2(packed.z), d = unpack_half2(packed.w);
        v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y, v[4] = c.x, v[5] = c.y, v[6] = d.x, v[7] = d.y;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = !WIDE && i < count ? to_float(from[i]) : 0.0f;
}

template <bool WIDE>
__device__ __forceinline__ void store8(float *to, const float (&v)[8], int count) {
    if (WIDE && count > 0) {
        *(float4 *)to = make_float4(v[0], v[1], v[2], v[3]);
        *(float4 *)(to + 4) = make_float4(v[4], v[5], v[6], v[7]);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (!WIDE && i < count) to[i] = v[i];
    }
}
template <bool WIDE>
__device__ __forceinline__ void store8(half_t *to, const float (&v)[8], int count) {
    if (WIDE && count > 0) {
        *(uint4 *)to = make_uint4(pack_half2(v[0], v[1]), pack_half2(v[2], v[3]), pack_half2(v[4], v[5]), pack_half2(v[6], v[7]));
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (!WIDE && i < count) to[i] = to_half(v[i]);
    }
}

// ---- Reductions; every thread gets the result, whose bits depend on the block's size alone ----

struct Sum {
    static __device__ __forceinline__ float of(float a, float b) { return a + b; }
};
struct Max {
    static __device__ __forceinline__ float of(float a, float b) { return fmaxf(a, b); }
};

// Over the aligned group of LANES lanes.
template <class Op, int LANES>
__device__ __forceinline__ float reduce_lanes(float value) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) value = Op::of(value, __shfl_xor_sync(FULL_WARP, value, step));
    return value;
}

// Over the block; `shared` is not used by another reduction of this block. Values for Max are not negative.
template <class Op, int THREADS>
__device__ __forceinline__ float reduce_block(float value, float (&shared)[32]) {
    value = reduce_lanes<Op, 32>(value);
    if (THREADS == 32) return value;
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    value = threadIdx.x % 32 < THREADS / 32 ? shared[threadIdx.x % 32] : 0.0f;
    return reduce_lanes<Op, 32>(value);
}

// ---- e4m3: code = value * 448 / m, scale = m / 448, where m is the largest magnitude and at least 2^-100 ----

__device__ __forceinline__ float largest_magnitude(const float (&v)[8]) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) largest = fmaxf(largest, fabsf(v[i]));
    return largest;
}

template <bool WIDE>
__device__ __forceinline__ void store8_e4m3(u8 *to, const float (&v)[8], float largest, int count) {
    float inverse = 448.0f / fmaxf(largest, 0x1p-100f);
    u16 codes[4];
#pragma unroll
    for (int i = 0; i < 4; i++) codes[i] = pack_e4m3x2(v[2 * i] * inverse, v[2 * i + 1] * inverse);
    if (WIDE && count > 0) *(uint2 *)to = make_uint2(codes[0] | (u32)codes[1] << 16, codes[2] | (u32)codes[3] << 16);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (!WIDE && i < count) to[i] = (u8)(codes[i / 2] >> (8 * (i % 2)));
    }
}

__device__ __forceinline__ float scale_of(float largest) { return fmaxf(largest, 0x1p-100f) / 448.0f; }

#ifdef QUANTISE_BLOCK
constexpr bool SCALE_BLOCK = true;
#else
constexpr bool SCALE_BLOCK = false;
#endif

__host__ __device__ constexpr int row_scales(int columns) { return SCALE_BLOCK ? (columns + 127) / 128 : 1; }

// Writes row `row` as e4m3, with one scale or (QUANTISE_BLOCK) a scale per 128 columns. `v` holds values of half_t, 0 past the end.
template <int COLUMN_COUNT, int THREADS, int VECTORS>
__device__ __forceinline__ void quantise_row(u8 *codes, float *scales, u64 row, const float (&v)[VECTORS][8], float (&shared)[32]) {
    constexpr bool WIDE = COLUMN_COUNT % 8 == 0;
    u8 *out = codes + row * COLUMN_COUNT;
    float *scale = scales + row * row_scales(COLUMN_COUNT), whole = 0.0f;
    if (!SCALE_BLOCK) {
#pragma unroll
        for (int i = 0; i < VECTORS; i++) whole = fmaxf(whole, largest_magnitude(v[i]));
        whole = reduce_block<Max, THREADS>(whole, shared);
        if (threadIdx.x == 0) *scale = scale_of(whole);
    }
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        int column = 8 * (i * THREADS + threadIdx.x), count = min(8, COLUMN_COUNT - column);
        float largest = whole;
        if (SCALE_BLOCK) {
            largest = reduce_lanes<Max, 16>(largest_magnitude(v[i]));
            if (threadIdx.x % 16 == 0 && count > 0) scale[column / 128] = scale_of(largest);
        }
        store8_e4m3<WIDE>(out + column, v[i], largest, count);
    }
}
