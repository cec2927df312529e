// Rotary embedding of whole heads: for each head and i < ROTARY_DIM / 2, with a = x[i], b = x[i + ROTARY_DIM / 2] and the row's cosine and sine,
//   out[i] = a cos_i - b sin_i,   out[i + ROTARY_DIM / 2] = b cos_i + a sin_i;   columns past ROTARY_DIM are copied.
//
// Macros: HEADS, HEAD_DIM, ROTARY_DIM (even, at most HEAD_DIM); ELEMENT_F16.
// Layouts: x [rows][ldx] and out [rows][ldo] of half_t, each row HEADS * HEAD_DIM; angles f32 [rows][ROTARY_DIM], cosines then sines.
// Grid: rows. Block: 256. No dynamic shared memory. out may be x (then ldo = ldx).
// When HEAD_DIM is a multiple of 8 and ROTARY_DIM of 16: pointers are multiples of 16 bytes, ldx and ldo of 8.
#include "common/ptx.cuh"
#include "rowwise/row.cuh"

constexpr int HALF = ROTARY_DIM / 2;
constexpr int PAIRS = (HALF + 7) / 8;                    // pieces of eight pairs of a head
constexpr int COPIES = (HEAD_DIM - ROTARY_DIM + 7) / 8;  // and of eight columns that do not rotate
constexpr bool WIDE = HEAD_DIM % 8 == 0 && ROTARY_DIM % 16 == 0;

extern "C" __global__ void __launch_bounds__(256) rope(half_t *out, const half_t *x, const float *angles, u32 rows, u32 ldo, u32 ldx) {
    pdl_launch();
    u64 row = blockIdx.x;
    if (row >= rows) return;
    pdl_wait();
    const float *cosines = angles + row * ROTARY_DIM;
    for (int piece = threadIdx.x; piece < HEADS * (PAIRS + COPIES); piece += 256) {
        int head = piece / (PAIRS + COPIES), part = piece % (PAIRS + COPIES);
        const half_t *from = x + row * ldx + head * HEAD_DIM;
        half_t *to = out + row * ldo + head * HEAD_DIM;
        float a[8], b[8], c[8], s[8];
        if (part < PAIRS) {
            int i = 8 * part, count = HALF - i;
            load8<WIDE>(a, from + i, count);
            load8<WIDE>(b, from + HALF + i, count);
            load8<WIDE>(c, cosines + i, count);
            load8<WIDE>(s, cosines + HALF + i, count);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float rotated = a[j] * c[j] - b[j] * s[j];
                b[j] = b[j] * c[j] + a[j] * s[j];
                a[j] = rotated;
            }
            store8<WIDE>(to + i, a, count);
            store8<WIDE>(to + HALF + i, b, count);
        } else {
            int i = ROTARY_DIM + 8 * (part - PAIRS);
            load8<WIDE>(a, from + i, HEAD_DIM - i);
            store8<WIDE>(to + i, a, HEAD_DIM - i);
        }
    }
}
