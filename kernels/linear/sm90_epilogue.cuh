// What sm90_gemm does with a tile's sums: scales, bias, activation, gate, residual, and the way to memory.
#pragma once

#include "linear/sm90_tile.cuh"

struct Scales {
    const float *weight, *weight2, *x;
    u32 rows;
};

// SCALE_BLOCK: the factors of one step of K: two rows of x times the blocks of 128 weight rows under this thread's sums.
struct BlockScales {
    static constexpr int RUN = PIECE < OUT_COLUMNS ? (PIECE < 128 ? PIECE : 128) : (OUT_COLUMNS < 128 ? OUT_COLUMNS : 128);
    static constexpr int RUNS = GROUP_COLUMNS / RUN;
    static_assert(!SCALE_BLOCK || (E4M3 && 128 % RUN == 0 && (WEIGHT_ROWS % 128 == 0 || 128 % WEIGHT_ROWS == 0)), "runs lie inside blocks");
    float x[2], weight[RUNS];

    __device__ __forceinline__ void load(const Scales &scales, const Tile &tile, const Thread &at, u32 step) {
        u32 row = tile.m * BM + at.row0, last = scales.rows - 1;
        x[0] = scales.x[(u64)min(row, last) * STEPS + step];
        x[1] = scales.x[(u64)min(row + 8, last) * STEPS + step];
#pragma unroll
        for (int run = 0; run < RUNS; run++) {
            u32 column = tile.n * WEIGHT_ROWS + at.column + run * RUN % OUT_COLUMNS;
            const float *source = run * RUN < OUT_COLUMNS ? scales.weight : scales.weight2;
            weight[run] = source[min(column, (u32)N - 1) / 128 * STEPS + step];
        }
    }
    __device__ __forceinline__ float of(int i) const { return x[i / 2 % 2] * weight[i / 4 * 8 / RUN]; }
};

__device__ __forceinline__ float activate(float v) {
    if (ACTIVATION == 1) return __fdividef(v, 1.0f + __expf(-v));
    if (ACTIVATION == 2) return 0.5f * v * (1.0f + erff(v * 0.70710678f));
    // tanh by its exponential: v (1 + tanh u) / 2 = v / (1 + e^-2u)
    if (ACTIVATION == 3) return __fdividef(v, 1.0f + __expf(-1.59576912f * (v + 0.044715f * v * v * v)));
    if (ACTIVATION == 4) return fmaxf(v, 0.0f);
    return v;
}

struct Epilogue {
    Scales scales;
    const float *bias, *bias2, *residual;
    void *out;
    u32 rows;

    // y of the four sums d of two columns from `column` on: rows row0 (first two) and row0 + 8.
    __device__ __forceinline__ void finish(float (&y)[4], const float *d, u32 column, const float *scale, const float *bias,
                                           const float (&x_scale)[2]) const {
        bool inside = N % (WEIGHT_ROWS * CLUSTER_N) == 0 || column < N;
        float2 s = make_float2(1.0f, 1.0f), b = make_float2(0.0f, 0.0f);
        if (E4M3 && !SCALE_BLOCK && inside) s = __ldg((const float2 *)(scale + column));
        if (BIAS && inside) b = __ldg((const float2 *)(bias + column));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            y[i] = d[i];
            if (E4M3 && !SCALE_BLOCK) y[i] *= (i % 2 ? s.y : s.x) * x_scale[i / 2];
            if (BIAS) y[i] += i % 2 ? b.y : b.x;
        }
    }

    // Has the tile's residuals come to L2 while its products are computed.
    __device__ __forceinline__ void prefetch(const Tile &tile) const {
        constexpr u32 LINES = WEIGHT_ROWS / 32;  // of 128 bytes, per row
        for (u32 i = threadIdx.x; i < BM * LINES; i += 256) {
            u32 row = tile.m * BM + i / LINES, column = tile.n * WEIGHT_ROWS + i % LINES * 32;
            if (row < rows && column < N) asm volatile("prefetch.global.L2 [%0];" ::"l"(residual + (u64)row * N + column));
        }
    }

    __device__ __forceinline__ void run(const float (&sums)[SUMS], const Tile &tile, const Thread &at) const {
        u32 row[2] = {tile.m * BM + at.row0, tile.m * BM + at.row0 + 8}, t = at.lane % 4;
        u32 column0 = tile.n * WEIGHT_ROWS + at.column;
        float x_scale[2] = {1.0f, 1.0f};
        if (E4M3 && !SCALE_BLOCK) {
            for (int h = 0; h < 2; h++) x_scale[h] = scales.x[min(row[h], rows - 1)];
        }
        // BATCH times eight columns, the thread's two of each. Residuals are read a batch at a time.
        constexpr int ALL = OUT_COLUMNS / 8, BATCH = RESIDUAL && RESIDENT == 1 && !E4M3 ? 8 : 4;
        static_assert(ALL % 2 == 0, "pairs of eight columns");
        // In f32 neighbours trade halves of two groups: an even thread stores 4 columns of the first, an odd one of the second.
        u32 odd = t & 1, column4 = column0 + 8 * odd + 4 * (t / 2);
#pragma unroll
        for (int j = 0; j < ALL; j += BATCH) {
            int count = ALL - j < BATCH ? ALL - j : BATCH;
            float y[BATCH][4] = {};
            float4 old[BATCH / 2][2];
            if (RESIDUAL) {
#pragma unroll
                for (int q = 0; q < count; q += 2) {
#pragma unroll
                    for (int h = 0; h < 2; h++)
                        if (row[h] < rows && column4 + 8 * (j + q) < N)
                            old[q / 2][h] = *(const float4 *)(residual + (u64)row[h] * N + column4 + 8 * (j + q));
                }
            }
#pragma unroll
            for (int q = 0; q < count; q++) {
                u32 column = column0 + 8 * (j + q) + 2 * t;
                finish(y[q], sums + 4 * (j + q), column, scales.weight, bias, x_scale);
                float up[4];
                if (GATED) finish(up, sums + SUMS / 2 + 4 * (j + q), column, scales.weight2, bias2, x_scale);
#pragma unroll
                for (int i = 0; i < 4; i++) y[q][i] = GATED ? activate(y[q][i]) * up[i] : activate(y[q][i]);
            }
            if constexpr (OUTPUT_F32) {
#pragma unroll
                for (int q = 0; q < count; q += 2) {
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const float *first = y[q] + 2 * h, *second = y[q + 1] + 2 * h;
                        float got0 = __shfl_xor_sync(~0u, odd ? first[0] : second[0], 1);
                        float got1 = __shfl_xor_sync(~0u, odd ? first[1] : second[1], 1);
                        float4 value = odd ? make_float4(got0, got1, second[0], second[1]) : make_float4(first[0], first[1], got0, got1);
                        if (RESIDUAL) {
                            float4 r = old[q / 2][h];
                            value.x += r.x, value.y += r.y, value.z += r.z, value.w += r.w;
                        }
                        u32 column = column4 + 8 * (j + q);
                        if (row[h] < rows && column < N) *(float4 *)((float *)out + (u64)row[h] * N + column) = value;
                    }
                }
            } else {
                // The quad's threads trade words until thread t has all 8 columns of group j + t: 16 bytes to store.
                u32 column = column0 + 8 * (j + t);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    u32 w[4];
#pragma unroll
                    for (int q = 0; q < 4; q++) w[q] = pack_half2(y[q][2 * h], y[q][2 * h + 1]);
                    transpose_quad(w, t);
                    if (row[h] < rows && column < N && (count == 4 || t < count))
                        *(uint4 *)((half_t *)out + (u64)row[h] * N + column) = make_uint4(w[0], w[1], w[2], w[3]);
                }
            }
        }
    }

    // w[q] of thread t becomes w[t] of thread q, over the four threads of a quad.
    __device__ static __forceinline__ void transpose_quad(u32 (&w)[4], u32 t) {
        bool odd = t & 1, high = t & 2;
        u32 got0 = __shfl_xor_sync(~0u, odd ? w[0] : w[1], 1), got2 = __shfl_xor_sync(~0u, odd ? w[2] : w[3], 1);
        u32 a0 = odd ? got0 : w[0], a1 = odd ? w[1] : got0, b0 = odd ? got2 : w[2], b1 = odd ? w[3] : got2;
        u32 got0b = __shfl_xor_sync(~0u, high ? a0 : b0, 2), got1b = __shfl_xor_sync(~0u, high ? a1 : b1, 2);
        w[0] = high ? got0b : a0, w[1] = high ? got1b : a1;
        w[2] = high ? b0 : got0b, w[3] = high ? b1 : got1b;
    }
};
