// Rows of a table: out[r] = table[index(r)].
//
// embedding(out, table, tokens, sampled, rows). COLUMNS; table half_t [..][COLUMNS]; out half_t, or f32 with OUTPUT_F32.
//   index(r) = tokens[r] where that is not negative, else sampled[-1 - tokens[r]]: what an earlier step sampled and the host has
//   not seen. INDEX_POSITIONS: `tokens` are positions and taken as they are.
// Block: 256 threads. Grid: rows.
#include "rowwise/row.cuh"

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    embedding(void *out, const half_t *table, const int *tokens, const u32 *sampled, u32 rows) {
    pdl_launch();
    pdl_wait();
    u32 row = blockIdx.x;
    if (row >= rows) return;
    int token = tokens[row];
#ifndef INDEX_POSITIONS
    if (token < 0) token = (int)sampled[-1 - token];
#endif
    const half_t *source = table + (u64)token * COLUMNS;
    void *target = row_of<OUTPUT_IS_F32>(out, row, COLUMNS);
    for (u32 column = threadIdx.x; column < COLUMNS; column += ROW_THREADS)
        store_element<OUTPUT_IS_F32>(target, column, to_float(source[column]));
}
