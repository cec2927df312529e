// Linear layer of any shape, for what the tensor-core kernels do not take: out[M][N] = epilogue(x[M][K] . W[N][K]^T).
//
// linear(out, x, weight, weight2, scale, scale2, bias, bias2, residual, gain, rows, ldx); macros as in gemv.cu: N, K,
// WEIGHT_E4M3, NORM (with NORM_EPS), OUTPUT_F32, BIAS, ACTIVATION, GATED, RESIDUAL. No alignment beyond the elements' own.
// Block: 256 threads, a warp for each output. Grid: (ceil(N / 8), rows).
#include "common/ptx.cuh"
#include "linear/epilogue.cuh"

__device__ __forceinline__ float weight_at(const void *weight, u64 at) {
#ifdef WEIGHT_E4M3
    return unpack_e4m3x2(((const u8 *)weight)[at]).x;
#else
    return to_float(((const half_t *)weight)[at]);
#endif
}

__device__ __forceinline__ float warp_sum(float value) {
    for (u32 offset = 16; offset; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

extern "C" __global__ void __launch_bounds__(256)
    linear(void *out, const void *x, const void *weight, const void *weight2, const float *scale, const float *scale2,
           const float *bias, const float *bias2, const float *residual, const float *gain, u32 rows, u32 ldx) {
    pdl_launch();
    pdl_wait();
    u32 n = blockIdx.x * 8 + threadIdx.x / 32, m = blockIdx.y, lane = threadIdx.x % 32;
    if (n >= N || m >= rows) return;
#ifdef NORM
    const float *source = (const float *)x + (u64)m * ldx;
    float squares = 0.0f;
    for (u32 k = lane; k < K; k += 32) squares += source[k] * source[k];
    float inverse = rsqrtf(warp_sum(squares) / K + NORM_EPS);
#else
    const half_t *source = (const half_t *)x + (u64)m * ldx;
#endif
    float sum = 0.0f, sum2 = 0.0f;
    for (u32 k = lane; k < K; k += 32) {
#ifdef NORM
        float value = to_float(to_half(source[k] * inverse * gain[k]));
#else
        float value = to_float(source[k]);
#endif
        sum += value * weight_at(weight, (u64)n * K + k);
#ifdef GATED
        sum2 += value * weight_at(weight2, (u64)n * K + k);
#endif
    }
    sum = warp_sum(sum);
    sum2 = warp_sum(sum2);
    if (lane == 0) {
        Epilogue epilogue = {out, scale, scale2, bias, bias2, residual};
        store_output(epilogue, m, n, finish(load_terms(epilogue, m, n), sum, sum2));
    }
}
