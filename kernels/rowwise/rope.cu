// Rotary embedding of every head: pairs (i, i + ROTARY_DIM/2) of the leading ROTARY_DIM dimensions turn by the row's angles.
//
// rope(out, x, angles, rows, ldx). COLUMNS = heads * HEAD_DIM; x half_t with row stride ldx, out half_t [rows][COLUMNS];
// angles f32 [rows][ROTARY_DIM]: cosines, then sines.
// Block: 256 threads. Grid: rows.
#include "rowwise/row.cuh"

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    rope(half_t *out, const half_t *x, const float *angles, u32 rows, u32 ldx) {
    pdl_launch();
    pdl_wait();
    u32 row = blockIdx.x;
    if (row >= rows) return;
    constexpr u32 HALF = ROTARY_DIM / 2;
    const half_t *source = x + (u64)row * ldx;
    const float *turn = angles + (u64)row * ROTARY_DIM;
    for (u32 column = threadIdx.x; column < COLUMNS; column += ROW_THREADS) {
        u32 i = column % HEAD_DIM;
        float value = to_float(source[column]);
        if (i < HALF)
            value = value * turn[i] - to_float(source[column + HALF]) * turn[HALF + i];
        else if (i < ROTARY_DIM)
            value = value * turn[i - HALF] + to_float(source[column - HALF]) * turn[i];
        out[(u64)row * COLUMNS + column] = to_half(value);
    }
}
