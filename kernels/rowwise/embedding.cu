// Rows of a table: out[r] = SCALE * table[index(r)].
//
// index(r) = tokens[r], or sampled[-1 - tokens[r]] where that is negative: the id that an earlier step chose and left on the device.
// INDEX_POSITIONS: index(r) = positions[r], unsigned, in the argument of tokens (the learned position table); sampled is not read.
// Macros: COLUMNS; SCALE (1); OUTPUT_F32 (else half_t); INDEX_POSITIONS; ELEMENT_F16. Layouts: table [ids][COLUMNS], out [rows][COLUMNS].
// Grid: (rows, ceil(COLUMNS / 2048)). Block: THREADS = 32 * min(ceil(COLUMNS / 256), 8). No dynamic shared memory.
// When COLUMNS is a multiple of 8, pointers are multiples of 16 bytes. The caller has checked the ids.
#include "common/ptx.cuh"
#include "rowwise/row.cuh"

#ifndef SCALE
#define SCALE 1.0f
#endif

constexpr int THREADS = row_threads(COLUMNS, 8);

extern "C" __global__ void __launch_bounds__(THREADS)
embedding(out_t *out, const half_t *table, const int *tokens, const u32 *sampled, u32 rows) {
    pdl_launch();
    u64 row = blockIdx.x;
    int column = 8 * (blockIdx.y * THREADS + threadIdx.x);
    if (row >= rows || column >= COLUMNS) return;
    pdl_wait();
    int index = tokens[row];
#ifndef INDEX_POSITIONS
    if (index < 0) index = (int)sampled[-1 - index];
#endif
    float v[8];
    load8<COLUMNS % 8 == 0>(v, table + (u64)(u32)index * COLUMNS + column, COLUMNS - column);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] *= SCALE;
    store8<COLUMNS % 8 == 0>(out + row * COLUMNS + column, v, COLUMNS - column);
}
