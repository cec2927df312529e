// half_t to e4m3: code = x / scale, scale = largest magnitude / 448 of the row or (QUANTISE_BLOCK) of each 128 columns.
//
// Macros: COLUMNS; QUANTISE_BLOCK; ELEMENT_F16. Layouts: x [rows][ldx]; out [rows][COLUMNS]; scales [rows], or [rows][ceil(COLUMNS / 128)].
// Grid: rows. Block: THREADS = 32 * clamp(ceil(COLUMNS / 256), 1, 32). No dynamic shared memory.
// When COLUMNS is a multiple of 8: pointers are multiples of 16 bytes, ldx of 8. Nothing may alias.
#include "common/ptx.cuh"
#include "rowwise/row.cuh"

constexpr int THREADS = row_threads(COLUMNS, 32);
constexpr int VECTORS = (COLUMNS + 8 * THREADS - 1) / (8 * THREADS);

extern "C" __global__ void __launch_bounds__(THREADS) quantise(u8 *out, float *scales, const half_t *x, u32 rows, u32 ldx) {
    pdl_launch();
    u64 row = blockIdx.x;
    if (row >= rows) return;
    __shared__ float shared[32];
    pdl_wait();
    float v[VECTORS][8];
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        int column = 8 * (i * THREADS + threadIdx.x);
        load8<COLUMNS % 8 == 0>(v[i], x + row * ldx + column, COLUMNS - column);
    }
    quantise_row<COLUMNS, THREADS>(out, scales, row, v, shared);
}
