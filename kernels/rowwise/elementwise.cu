// out = x + y (ADD), x * y (MUL), or act(x) (ACTIVATION 1 SiLU, 2 GELU by erf, 3 GELU by tanh, 4 ReLU).
//
// elementwise(out, x, y, rows, ldx, ldy). COLUMNS; x, y, out half_t or f32 (X_F32, Y_F32, OUTPUT_F32), computed in f32; ldx, ldy:
// row strides in elements, out has COLUMNS.
// Block: 256 threads. Grid: rows.
#include "rowwise/row.cuh"

#define N COLUMNS
#include "linear/epilogue.cuh"

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    elementwise(void *out, const void *x, const void *y, u32 rows, u32 ldx, u32 ldy) {
    pdl_launch();
    pdl_wait();
    u32 row = blockIdx.x;
    if (row >= rows) return;
    const void *left = row_of<X_IS_F32>(x, row, ldx), *right = row_of<Y_IS_F32>(y, row, ldy);
    void *target = row_of<OUTPUT_IS_F32>(out, row, COLUMNS);
    for (u32 column = threadIdx.x; column < COLUMNS; column += ROW_THREADS) {
        float value = load_element<X_IS_F32>(left, column);
#if defined(ADD)
        value += load_element<Y_IS_F32>(right, column);
#elif defined(MUL)
        value *= load_element<Y_IS_F32>(right, column);
#else
        value = activate(value);
#endif
        store_element<OUTPUT_IS_F32>(target, column, value);
    }
}
