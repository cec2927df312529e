// Rotary angles: out[r][i] = scale * cos(p f_i), out[r][D/2 + i] = scale * sin(p f_i), with p = positions[r] and i < D/2.
//
// The product p f is rounded to f32, as everywhere; its sine and cosine are computed in f64, so that large angles are as accurate as
// small ones (f32 functions would need a slow path that lives in local memory).
// Macros: COLUMNS = D, even; ANGLE_SCALE. Layouts: out [rows][D], inverse_frequencies [D/2].
// Grid: rows. Block: THREADS = 32 * clamp(ceil(D / 64), 1, 8). No dynamic shared memory.
#include "common/ptx.cuh"
#include "common/types.cuh"

constexpr int HALF = COLUMNS / 2;
constexpr int THREADS = HALF > 224 ? 256 : HALF > 0 ? (HALF + 31) / 32 * 32 : 32;

// The Taylor series on [-pi/4, pi/4]; what it leaves out is below 1e-12.
__device__ __forceinline__ double sine(double x) {
    double s = x * x;
    double p = -1.0 / 39916800 + s * (1.0 / 6227020800);
    p = 1.0 / 362880 + s * p;
    p = -1.0 / 5040 + s * p;
    p = 1.0 / 120 + s * p;
    p = -1.0 / 6 + s * p;
    return x + x * s * p;
}
__device__ __forceinline__ double cosine(double x) {
    double s = x * x;
    double p = 1.0 / 479001600 - s * (1.0 / 87178291200);
    p = -1.0 / 3628800 + s * p;
    p = 1.0 / 40320 + s * p;
    p = -1.0 / 720 + s * p;
    p = 1.0 / 24 + s * p;
    p = -0.5 + s * p;
    return 1.0 + s * p;
}

extern "C" __global__ void __launch_bounds__(THREADS)
angles(float *out, const float *inverse_frequencies, const u32 *positions, u32 rows) {
    pdl_launch();
    u64 row = blockIdx.x;
    if (row >= rows) return;
    pdl_wait();
    float position = (float)positions[row];
    for (int i = threadIdx.x; i < HALF; i += THREADS) {
        double angle = __fmul_rn(position, inverse_frequencies[i]);
        double quarters = rint(angle * 0.63661977236758134308);  // 2 / pi
        double rest = fma(quarters, -6.123233995736766e-17, fma(quarters, -1.5707963267948966, angle));
        int quadrant = (int)quarters & 3;
        double s = sine(rest), c = cosine(rest);
        double cos_angle = quadrant & 1 ? s : c, sin_angle = quadrant & 1 ? c : s;
        if (quadrant == 1 || quadrant == 2) cos_angle = -cos_angle;
        if (quadrant >= 2) sin_angle = -sin_angle;
        out[row * COLUMNS + i] = (float)cos_angle * (float)ANGLE_SCALE;
        out[row * COLUMNS + HALF + i] = (float)sin_angle * (float)ANGLE_SCALE;
    }
}
