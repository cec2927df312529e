// Rotary angles: out[r][i] = scale * cos(p f_i), out[r][D/2 + i] = scale * sin(p f_i), p = positions[r], i < D/2.
//
// angles(out, inverse_frequencies, positions, rows). COLUMNS = D, ANGLE_SCALE. f32 throughout; the product is rounded to f32 as
// the reference implementations do it, its sine and cosine are exact to rounding.
// Block: 256 threads. Grid: rows.
#include "rowwise/row.cuh"

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    angles(float *out, const float *inverse_frequencies, const u32 *positions, u32 rows) {
    pdl_launch();
    pdl_wait();
    u32 row = blockIdx.x;
    if (row >= rows) return;
    float position = (float)positions[row];
    for (u32 i = threadIdx.x; i < COLUMNS / 2; i += ROW_THREADS) {
        float sine, cosine;
        sincosf(__fmul_rn(position, inverse_frequencies[i]), &sine, &cosine);
        out[(u64)row * COLUMNS + i] = ANGLE_SCALE * cosine;
        out[(u64)row * COLUMNS + COLUMNS / 2 + i] = ANGLE_SCALE * sine;
    }
}
