// What a linear layer does to its f32 sums before they are stored; the GEMV and the GEMMs share it.
//
// out[m][n] = residual[m][n] + act(acc * scale[n] + bias[n]) * (acc2 * scale2[n] + bias2[n])
//
// Each term exists only with its macro: WEIGHT_E4M3 without SCALE_BLOCK (scale), BIAS, ACTIVATION (0 none, 1 SiLU, 2 GELU by erf,
// 3 GELU by tanh, 4 ReLU), GATED (the second factor), RESIDUAL (f32 out), OUTPUT_F32 (f32 out, else half_t). N is the row stride.
#pragma once

#include "common/types.cuh"

#ifndef ACTIVATION
#define ACTIVATION 0
#endif

struct Epilogue {
    void *out;
    const float *scale, *scale2, *bias, *bias2, *residual;
};

// The terms of one output, to be loaded long before the sum is complete.
struct EpilogueTerms {
    float scale, scale2, bias, bias2, residual;
};

__device__ __forceinline__ float activate(float v) {
#if ACTIVATION == 1
    return v / (1.0f + __expf(-v));
#elif ACTIVATION == 2
    return 0.5f * v * (1.0f + erff(v * 0.70710678f));
#elif ACTIVATION == 3
    return 0.5f * v * (1.0f + tanhf(0.79788456f * (v + 0.044715f * v * v * v)));
#elif ACTIVATION == 4
    return fmaxf(v, 0.0f);
#else
    return v;
#endif
}

// After pdl_wait(): the residual is another kernel's work.
__device__ __forceinline__ EpilogueTerms load_terms(const Epilogue &e, u32 m, u32 n) {
    EpilogueTerms terms = {1.0f, 1.0f, 0.0f, 0.0f, 0.0f};
#if defined(WEIGHT_E4M3) && !defined(SCALE_BLOCK)
    terms.scale = e.scale[n];
#ifdef GATED
    terms.scale2 = e.scale2[n];
#endif
#endif
#ifdef BIAS
    terms.bias = e.bias[n];
#ifdef GATED
    terms.bias2 = e.bias2[n];
#endif
#endif
#ifdef RESIDUAL
    terms.residual = e.residual[(u64)m * N + n];
#endif
    return terms;
}

// The output of the sums `acc` (and `acc2` of the second weight when GATED).
__device__ __forceinline__ float finish(const EpilogueTerms &terms, float acc, float acc2) {
    float y = activate(acc * terms.scale + terms.bias);
#ifdef GATED
    y *= acc2 * terms.scale2 + terms.bias2;
#endif
#ifdef RESIDUAL
    y += terms.residual;
#endif
    return y;
}

__device__ __forceinline__ void store_output(const Epilogue &e, u32 m, u32 n, float y) {
    u64 at = (u64)m * N + n;
#if defined(OUTPUT_F32) || defined(RESIDUAL)
    ((float *)e.out)[at] = y;
#else
    ((half_t *)e.out)[at] = to_half(y);
#endif
}
