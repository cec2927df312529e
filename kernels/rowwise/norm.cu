// RMS norm: out = v / sqrt(mean(v^2) + EPS) * gain. With LAYER: out = (v - mean(v)) / sqrt(var(v) + EPS) * gain + bias.
// v = x, or with ADD v = x + y, which is written to `sum` too.
//
// row_norm(out, sum, x, y, gain, bias, quantised, quantised_scale, rows, ldx, ldy). COLUMNS, EPS; x, y, out half_t or f32 (X_F32,
// Y_F32, OUTPUT_F32), sum f32; ldx, ldy: row strides in elements, out and sum have COLUMNS. sum may be x. Statistics in f32, in
// one order for every row.
// Block: 256 threads. Grid: rows.
#include "rowwise/row.cuh"

constexpr u32 EACH = (COLUMNS + ROW_THREADS - 1) / ROW_THREADS;

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    row_norm(void *out, float *sum, const void *x, const void *y, const float *gain, const float *bias, u8 *quantised,
         float *quantised_scale, u32 rows, u32 ldx, u32 ldy) {
    pdl_launch();
    pdl_wait();
    u32 row = blockIdx.x;
    if (row >= rows) return;
    const void *source = row_of<X_IS_F32>(x, row, ldx);
#ifdef ADD
    const void *other = row_of<Y_IS_F32>(y, row, ldy);
#endif
    float values[EACH], total = 0.0f;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        u32 column = threadIdx.x + i * ROW_THREADS;
        values[i] = 0.0f;
        if (column < COLUMNS) {
            values[i] = load_element<X_IS_F32>(source, column);
#ifdef ADD
            values[i] += load_element<Y_IS_F32>(other, column);
            sum[(u64)row * COLUMNS + column] = values[i];
#endif
        }
#ifdef LAYER
        total += values[i];
#else
        total += values[i] * values[i];
#endif
    }
    float mean = 0.0f, squares = block_sum(total);
#ifdef LAYER
    mean = squares / COLUMNS;
    total = 0.0f;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        float distance = threadIdx.x + i * ROW_THREADS < COLUMNS ? values[i] - mean : 0.0f;
        total += distance * distance;
    }
    squares = block_sum(total);
#endif
    float inverse = rsqrtf(squares / COLUMNS + EPS);
    void *target = row_of<OUTPUT_IS_F32>(out, row, COLUMNS);
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        u32 column = threadIdx.x + i * ROW_THREADS;
        if (column >= COLUMNS) break;
        float normed = (values[i] - mean) * inverse * gain[column];
#ifdef LAYER
        normed += bias[column];
#endif
        store_element<OUTPUT_IS_F32>(target, column, normed);
    }
}
