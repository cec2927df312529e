// half_t rows to e4m3 with a scale each: scale[r] = max|x[r]| / 448 (1 for a row of zeros), out = x / scale.
//
// quantise(out, scale, x, rows, ldx). COLUMNS, a multiple of 2; ldx: row stride of x in elements; out [rows][COLUMNS].
// Block: 256 threads. Grid: rows.
#include "rowwise/row.cuh"

constexpr u32 PAIRS = COLUMNS / 2, EACH = (PAIRS + ROW_THREADS - 1) / ROW_THREADS;

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    quantise(u8 *out, float *scale, const half_t *x, u32 rows, u32 ldx) {
    pdl_launch();
    pdl_wait();
    u32 row = blockIdx.x;
    if (row >= rows) return;
    const u32 *source = (const u32 *)(x + (u64)row * ldx);
    float2 values[EACH];
    float most = 0.0f;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        u32 pair = threadIdx.x + i * ROW_THREADS;
        values[i] = pair < PAIRS ? unpack_half2(source[pair]) : make_float2(0.0f, 0.0f);
        most = fmaxf(most, fmaxf(fabsf(values[i].x), fabsf(values[i].y)));
    }
    most = block_max(most);
    float divisor = most > 0.0f ? most / 448.0f : 1.0f, factor = 1.0f / divisor;
    if (threadIdx.x == 0) scale[row] = divisor;
    u16 *target = (u16 *)(out + (u64)row * COLUMNS);
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        u32 pair = threadIdx.x + i * ROW_THREADS;
        if (pair < PAIRS) target[pair] = pack_e4m3x2(values[i].x * factor, values[i].y * factor);
    }
}
