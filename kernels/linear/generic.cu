// Linear layer of any shape: out[M][N] = epilogue(x[M][K] . W[N][K]^T) for any N, K >= 1, rows and alignment. Right, not fast.
//
// A warp computes ROWS x COLUMNS outputs: its lanes share out k (lane l takes l, l + 32, ...), then add up their parts pairwise.
// Invariance: an output's order of summation depends on K only, so a row's bits depend neither on `rows` nor on its place.
//
// linear(out, x, weight, weight2, scale, scale2, bias, bias2, residual, gain, rows, ldx); unused pointers are null.
//   N, K; x half_t, ldx: elements from one row of x to the next; weight [N][K]; out [rows][N]
//   WEIGHT_E4M3   weights are e4m3, f32 scale[N]; with SCALE_BLOCK f32 scale[ceil(N/128)][ceil(K/128)]. Else half_t
//   NORM          x is f32, becomes half_t(x * rsqrt(mean(x^2) + NORM_EPS) * gain[k])
//   OUTPUT_F32, BIAS, ACTIVATION, GATED, RESIDUAL   see epilogue.cuh; out may be residual
// Pointers are aligned to their elements only.
// Block: 128 threads. Grid: ceil(N / 16), ceil(rows / 4) as x, y (rows up to 262140). No dynamic shared memory.
#include "common/ptx.cuh"
#include "linear/epilogue.cuh"

constexpr u32 ROWS = 4, COLUMNS = 4, WARPS = 4;

__device__ __forceinline__ float warp_sum(float v) {
    for (u32 offset = 16; offset; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

__device__ __forceinline__ float load_weight(const void *weight, const float *scale, u32 n, u32 k) {
    u64 at = (u64)n * K + k;
#ifdef WEIGHT_E4M3
    float v = unpack_e4m3x2(((const u8 *)weight)[at]).x;
#ifdef SCALE_BLOCK
    v *= scale[(u64)(n / 128) * ((K + 127) / 128) + k / 128];
#endif
    return v;
#else
    return to_float(((const half_t *)weight)[at]);
#endif
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    linear(void *out, const void *x, const void *weight, const void *weight2, const float *scale, const float *scale2,
           const float *bias, const float *bias2, const float *residual, const float *gain, u32 rows, u32 ldx) {
    pdl_launch();
    pdl_wait();
    u32 lane = threadIdx.x % 32, n0 = (blockIdx.x * WARPS + threadIdx.x / 32) * COLUMNS, m0 = blockIdx.y * ROWS;
    if (n0 >= N) return;
    // Rows and columns beyond the last are the last again; their sums are not stored.
    auto row = [&](u32 r) { return min(m0 + r, rows - 1); };
    auto column = [&](u32 c) { return min(n0 + c, (u32)N - 1); };

#ifdef NORM
    float inverse[ROWS];
    for (u32 r = 0; r < ROWS; r++) {
        const float *values = (const float *)x + (u64)row(r) * ldx;
        float sum = 0.0f;
        for (u32 k = lane; k < K; k += 32) sum += values[k] * values[k];
        inverse[r] = rsqrtf(warp_sum(sum) / K + NORM_EPS);
    }
#endif

    float acc[ROWS][COLUMNS] = {};
#ifdef GATED
    float acc2[ROWS][COLUMNS] = {};
#endif
    for (u32 k = lane; k < K; k += 32) {
        float values[ROWS];
        for (u32 r = 0; r < ROWS; r++) {
            u64 at = (u64)row(r) * ldx + k;
#ifdef NORM
            values[r] = to_float(to_half(((const float *)x)[at] * inverse[r] * gain[k]));
#else
            values[r] = to_float(((const half_t *)x)[at]);
#endif
        }
        for (u32 c = 0; c < COLUMNS; c++) {
            float w = load_weight(weight, scale, column(c), k);
            for (u32 r = 0; r < ROWS; r++) acc[r][c] += values[r] * w;
#ifdef GATED
            float w2 = load_weight(weight2, scale2, column(c), k);
            for (u32 r = 0; r < ROWS; r++) acc2[r][c] += values[r] * w2;
#endif
        }
    }

    Epilogue epilogue = {out, scale, scale2, bias, bias2, residual};
    for (u32 r = 0; r < ROWS; r++)
        for (u32 c = 0; c < COLUMNS; c++) {
            float sum = warp_sum(acc[r][c]), sum2 = 0.0f;
#ifdef GATED
            sum2 = warp_sum(acc2[r][c]);
#endif
            u32 m = m0 + r, n = n0 + c;
            if (lane == r * COLUMNS + c && m < rows && n < N) store_output(epilogue, m, n, finish(load_terms(epilogue, m, n), sum, sum2));
        }
}
