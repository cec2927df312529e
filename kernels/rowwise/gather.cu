// Chosen rows: out[r] = x[indices[r]], as for the rows whose logits are wanted.
//
// Macros: COLUMNS; X_F32, OUTPUT_F32 (else half_t); ELEMENT_F16. Layouts: x [any][ldx], out [rows][COLUMNS].
// Grid: (rows, ceil(COLUMNS / 2048)). Block: THREADS = 32 * min(ceil(COLUMNS / 256), 8). No dynamic shared memory.
// When COLUMNS is a multiple of 8: pointers are multiples of 16 bytes, ldx of 8. Nothing may alias.
#include "common/ptx.cuh"
#include "rowwise/row.cuh"

constexpr int THREADS = row_threads(COLUMNS, 8);

extern "C" __global__ void __launch_bounds__(THREADS) gather(out_t *out, const x_t *x, const u32 *indices, u32 rows, u32 ldx) {
    pdl_launch();
    u64 row = blockIdx.x;
    int column = 8 * (blockIdx.y * THREADS + threadIdx.x);
    if (row >= rows || column >= COLUMNS) return;
    pdl_wait();
    float v[8];
    load8<COLUMNS % 8 == 0>(v, x + (u64)indices[row] * ldx + column, COLUMNS - column);
    store8<COLUMNS % 8 == 0>(out + row * COLUMNS + column, v, COLUMNS - column);
}
