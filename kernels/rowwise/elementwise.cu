// Elementwise functions: out = f(x) op y.
//
// OPERATION: 0 f(x), 1 f(x) + y, 2 f(x) * y. ACTIVATION, the function f: 0 x itself, 1 silu x * sigmoid(x), 2 gelu x/2 (1 + erf(x / sqrt 2)),
// 3 gelu x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), 4 relu, 5 soft cap CAP tanh(x / CAP).
// Macros: COLUMNS, OPERATION, ACTIVATION; CAP (with ACTIVATION 5); X_F32, Y_F32, OUTPUT_F32 (else half_t); ELEMENT_F16.
// Layouts: x [rows][ldx], y [rows][ldy] (may be null for OPERATION 0), out [rows][ldo].
// Grid: (rows, ceil(COLUMNS / 2048)). Block: THREADS = 32 * min(ceil(COLUMNS / 256), 8). No dynamic shared memory.
// When COLUMNS is a multiple of 8: pointers are multiples of 16 bytes, strides of 8. out may be x or y where type and stride are the same.
#include "common/ptx.cuh"
#include "rowwise/row.cuh"

constexpr int THREADS = row_threads(COLUMNS, 8);

__device__ __forceinline__ float activate(float x) {
#if ACTIVATION == 1
    return x / (1.0f + expf(-x));
#elif ACTIVATION == 2
    // erfc keeps its relative accuracy where 1 + erf would cancel.
    return 0.5f * x * erfcf(x * -0.70710678f);
#elif ACTIVATION == 3
    // 1 + tanh(u) = 2 / (1 + exp(-2u)), without cancellation for negative u.
    float u = 0.79788456f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-2.0f * u));
#elif ACTIVATION == 4
    return fmaxf(x, 0.0f);
#elif ACTIVATION == 5
    return CAP * tanhf(x / CAP);
#else
    return x;
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
elementwise(out_t *out, const x_t *x, const y_t *y, u32 rows, u32 ldo, u32 ldx, u32 ldy) {
    constexpr bool WIDE = COLUMNS % 8 == 0;
    pdl_launch();
    u64 row = blockIdx.x;
    int column = 8 * (blockIdx.y * THREADS + threadIdx.x), count = COLUMNS - column;
    if (row >= rows || count <= 0) return;
    pdl_wait();
    float v[8];
    load8<WIDE>(v, x + row * ldx + column, count);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = activate(v[i]);
#if OPERATION
    float other[8];
    load8<WIDE>(other, y + row * ldy + column, count);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = OPERATION == 1 ? v[i] + other[i] : v[i] * other[i];
#endif
    store8<WIDE>(out + row * ldo + column, v, count);
}
