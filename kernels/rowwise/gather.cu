// Rows by index: out[r] = x[indices[r]].
//
// gather(out, x, indices, rows, ldx). COLUMNS; x and out both half_t, or f32 with X_F32; ldx: row stride of x in elements.
// Block: 256 threads. Grid: rows.
#include "rowwise/row.cuh"

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    gather(void *out, const void *x, const u32 *indices, u32 rows, u32 ldx) {
    pdl_launch();
    pdl_wait();
    u32 row = blockIdx.x;
    if (row >= rows) return;
    const void *source = row_of<X_IS_F32>(x, indices[row], ldx);
    void *target = row_of<X_IS_F32>(out, row, COLUMNS);
    for (u32 column = threadIdx.x; column < COLUMNS; column += ROW_THREADS)
        store_element<X_IS_F32>(target, column, load_element<X_IS_F32>(source, column));
}
