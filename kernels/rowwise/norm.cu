// RMS norm and layer norm, with or without an addition before and e4m3 behind.
//
//   s = x + y (ADD) or x                                     sum[r] = s, f32 (ADD)
//   RMS norm: s / sqrt(mean(s^2) + EPS) * gain
//   LAYER:    (s - mean(s)) / sqrt(mean((s - mean(s))^2) + EPS) * gain + bias
//
// Macros: COLUMNS, EPS; ADD, LAYER; X_F32, Y_F32, OUTPUT_F32 (else half_t); ELEMENT_F16;
//   GROUPS (1): so many times COLUMNS columns of a row, each normed by itself with the same gain (heads); without ADD and QUANTISE;
//   QUANTISE: the result, rounded to half_t, as e4m3 with a scale per row (largest magnitude / 448), in the place of `out`;
//   QUANTISE_BLOCK: with QUANTISE, a scale per 128 columns instead; KEEP_OUTPUT: with QUANTISE, `out` is written too.
// Layouts: x [rows][ldx], y [rows][ldy]; out [rows][GROUPS][COLUMNS]; sum, quantised [rows][COLUMNS]; gain, bias [COLUMNS];
//   quantised_scale [rows], or [rows][ceil(COLUMNS / 128)]. Arguments without a use may be null.
// Grid: (rows, GROUPS). Block: THREADS = 32 * clamp(ceil(COLUMNS / 256), 1, 32). No dynamic shared memory.
// When COLUMNS is a multiple of 8: pointers are multiples of 16 bytes, ldx and ldy of 8. sum may be x (then ldx = COLUMNS), out may be y's
// or x's memory when type and stride are the same. gain and bias are constant: they are read ahead of the kernels before.
#include "common/ptx.cuh"
#include "rowwise/row.cuh"

#ifndef GROUPS
#define GROUPS 1
#endif
#if GROUPS > 1 && (defined(ADD) || defined(QUANTISE))
#error "groups are normed alone"
#endif

constexpr int THREADS = row_threads(COLUMNS, 32);
constexpr int VECTORS = (COLUMNS + 8 * THREADS - 1) / (8 * THREADS);
constexpr bool WIDE = COLUMNS % 8 == 0;

extern "C" __global__ void __launch_bounds__(THREADS)
norm_rows(out_t *out, float *sum, const x_t *x, const y_t *y, const float *gain, const float *bias, u8 *quantised, float *quantised_scale,
     u32 rows, u32 ldx, u32 ldy) {
    pdl_launch();
    u64 row = blockIdx.x;
    if (row >= rows) return;
    u32 group = GROUPS > 1 ? blockIdx.y : 0;
    __shared__ float shared[3][32];

    float g[VECTORS][8], v[VECTORS][8];
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        int column = 8 * (i * THREADS + threadIdx.x);
        load8<WIDE>(g[i], gain + column, COLUMNS - column);
    }
    pdl_wait();
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        int column = 8 * (i * THREADS + threadIdx.x);
        load8<WIDE>(v[i], x + row * ldx + group * COLUMNS + column, COLUMNS - column);
#ifdef ADD
        float added[8];
        load8<WIDE>(added, y + row * ldy + column, COLUMNS - column);
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] += added[j];
        store8<WIDE>(sum + row * COLUMNS + column, v[i], COLUMNS - column);
#endif
    }

    float mean = 0.0f;
#ifdef LAYER
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) mean += v[i][j];
    }
    mean = reduce_block<Sum, THREADS>(mean, shared[0]) / COLUMNS;
#endif
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        int count = COLUMNS - 8 * (i * THREADS + (int)threadIdx.x);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            v[i][j] -= mean;
            if (j < count) squares += v[i][j] * v[i][j];
        }
    }
    float scale = 1.0f / sqrtf(reduce_block<Sum, THREADS>(squares, shared[1]) / COLUMNS + EPS);

#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        [[maybe_unused]] int column = 8 * (i * THREADS + threadIdx.x);
        float b[8] = {};
#ifdef LAYER
        load8<WIDE>(b, bias + column, COLUMNS - column);
#endif
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] = v[i][j] * scale * g[i][j] + b[j];
#if !defined(QUANTISE) || defined(KEEP_OUTPUT)
        store8<WIDE>(out + (row * GROUPS + group) * COLUMNS + column, v[i], COLUMNS - column);
#endif
#ifdef QUANTISE
        // Past the end v is -mean * scale * 0 + 0 = 0.
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] = to_float(to_half(v[i][j]));
#endif
    }
#ifdef QUANTISE
    quantise_row<COLUMNS, THREADS>(quantised, quantised_scale, row, v, shared[2]);
#endif
}
