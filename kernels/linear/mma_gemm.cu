// Linear layer of any number of rows by mma.sync: out[M][N] = epilogue(x[M][K] . W[N][K]^T). Runs on sm_80 and later.
//
// A block computes BM x BN outputs (GATED: BM x BN/2; rows of `weight` and `weight2` interleave by 8 in the tile). Slices of BK k
// of both operands pass through a ring of STAGES in shared memory by cp.async; each warp multiplies a WM x WN part.
//
// In shared memory a row's 64 k lie together; its 16-byte pieces are exchanged by xor with bits of the row's number, so that the
// eight rows which one access touches are in different banks. ldmatrix gives half_t as mma wants it. Of e4m3, a lane takes the two
// bytes that belong together and makes half_t of them; nothing is ever written back.
//
// Invariance: an output is one chain of mma over k = 0..K-1, 16 at a time in a fixed order, whatever `rows`, the row's place, BM,
// BN, WM, WN, BK and STAGES. So a row's bits depend only on the row (and on N, K and the macros of the layer below).
//
// linear(out, x, weight, weight2, scale, scale2, bias, bias2, residual, gain, rows, ldx); unused pointers are null, gain is unused.
//   N, K; x half_t, ldx: elements from one row of x to the next; weight [N][K]; out [rows][N]
//   WEIGHT_E4M3   weights are e4m3, f32 scale[N]; with SCALE_BLOCK f32 scale[ceil(N/128)][ceil(K/128)]. Else half_t
//   OUTPUT_F32, BIAS, ACTIVATION, GATED, RESIDUAL   see epilogue.cuh; out may be residual
//   BM, BN        powers of two;  WM, WN multiples of 16 that divide them, WM * WN <= 64 * 64 (SCALE_BLOCK: 64 * 32) for the registers
//   BK            64 (default), 128 or, without SCALE_BLOCK, 256;  STAGES >= 2
// K % 8 == 0 (e4m3: K % 16 == 0), any N, any rows. x, weights and rows of x: multiples of 16 bytes; out, residual: of 8.
// Block: 32 * (BM / WM) * (BN / WN) threads. Grid: ceil(rows / BM) * ceil(N / (GATED ? BN / 2 : BN)), one dimension.
// Dynamic shared memory: STAGES * BK * (2 * BM + WEIGHT_BYTES * BN).
#include "common/ptx.cuh"
#include "linear/epilogue.cuh"
#include "linear/mma_gemm.cuh"

constexpr u32 WARPS_N = BN / WN, THREADS = 32 * (BM / WM) * WARPS_N;
constexpr u32 X_STAGE = BM * BK * 2, WEIGHT_STAGE = BN * BK * WEIGHT_BYTES, STAGE_BYTES = X_STAGE + WEIGHT_STAGE;
constexpr u32 STEPS = (K + BK - 1) / BK;
constexpr u32 TILES_N = (N + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
constexpr u32 MI = WM / 16, NI = WN / 8;  // mma per warp and k of 16
// Tile rows that share their weights: blocks run together on about as many rows of x as of W, which then stay in L2.
constexpr u32 GROUP = (2048 + BM - 1) / BM;
static_assert(BM % WM == 0 && WM % 16 == 0 && BN % WN == 0 && WN % 16 == 0 && BK % 64 == 0 && STAGES >= 2, "tile");
#ifdef SCALE_BLOCK
static_assert(BK <= 128, "a stage has one scale");
#endif
static_assert(THREADS % (BK / 8) == 0 && K % (16 / WEIGHT_BYTES) == 0, "copies are of 16 bytes");

struct Tile {
    u32 m, n;
};

__device__ __forceinline__ Tile choose_tile(u32 rows) {
    u32 tiles_m = (rows + BM - 1) / BM, first = blockIdx.x / (GROUP * TILES_N) * GROUP;
    u32 within = blockIdx.x % (GROUP * TILES_N), height = min(tiles_m - first, GROUP);
    return {(first + within % height) * BM, within / height * TILE_OUTPUTS};
}

// Fragments are loaded so many 16 k ahead of their mma: all of a slice's at once where a few warps' latencies are in the way.
constexpr u32 AHEAD = MI + NI / 2 <= 4 ? 3 : 1;

// The registers of 16 k. x: rows i * 16 on; weight: rows j * 16 on, b0 and b1 of two mma.
struct Fragments {
    u32 x[MI][4], weight[NI / 2][4];
};

// Fragments of k = 16 * part.. of a slice.
__device__ __forceinline__ void load_fragments(Fragments &f, u32 x, u32 weight, u32 part, u32 lane) {
    u32 in_eight = lane % 8, first = lane / 8 % 2, second = lane / 16;
    u32 x_at = x + (in_eight + first * 8) * 128 + ((part * 2 + second) ^ in_eight) * 16;
#pragma unroll
    for (u32 i = 0; i < MI; i++) ldmatrix_x4(f.x[i], x_at + i * 16 * 128);
#ifdef WEIGHT_E4M3
    u32 g = lane / 4, t = lane % 4, weight_at = weight + g * 64 + (part ^ g / 2) * 16 + t * 2;
#pragma unroll
    for (u32 j = 0; j < NI; j++)
#pragma unroll
        for (u32 h = 0; h < 2; h++) f.weight[j / 2][j % 2 * 2 + h] = load_shared_2(weight_at + j * 8 * 64 + h * 8);
#else
    u32 weight_at = weight + (in_eight + second * 8) * 128 + ((part * 2 + first) ^ in_eight) * 16;
#pragma unroll
    for (u32 j = 0; j < NI / 2; j++) ldmatrix_x4(f.weight[j], weight_at + j * 16 * 128);
#endif
}

// acc += the product of the 64 k in one slice of both operands.
__device__ __forceinline__ void multiply_slice(float (&acc)[MI][NI][4], u32 x, u32 weight, u32 lane) {
    Fragments f[AHEAD + 1];
#pragma unroll
    for (u32 part = 0; part < AHEAD; part++) load_fragments(f[part], x, weight, part, lane);
#pragma unroll
    for (u32 part = 0; part < 4; part++) {
        if (part + AHEAD < 4) load_fragments(f[(part + AHEAD) % (AHEAD + 1)], x, weight, part + AHEAD, lane);
        const Fragments &now = f[part % (AHEAD + 1)];
#pragma unroll
        for (u32 j = 0; j < NI; j++) {
            u32 b0 = now.weight[j / 2][j % 2 * 2], b1 = now.weight[j / 2][j % 2 * 2 + 1];
#ifdef WEIGHT_E4M3
            b0 = e4m3x2_to_half2<0>(b0), b1 = e4m3x2_to_half2<0>(b1);
#endif
#pragma unroll
            for (u32 i = 0; i < MI; i++) mma_16816(acc[i][j], now.x[i], b0, b1);
        }
    }
}

// The warp's part of the output, from row m and output n.
__device__ __forceinline__ void store_tile(const Epilogue &e, const float (&acc)[MI][NI][4], u32 m, u32 n, u32 rows, u32 g, u32 t) {
#pragma unroll
    for (u32 j = 0; j < NI; j += MATRICES) {
        u32 column = n + j / MATRICES * 8 + 2 * t, columns = column < N ? min((u32)N - column, 2u) : 0;
        if (columns == 0 || m >= rows) continue;
        EpilogueTerms terms[2];
        for (u32 c = 0; c < 2; c++) terms[c] = load_terms(e, m, min(column + c, (u32)N - 1));
#ifdef RESIDUAL
        float residual[MI][2][2];  // all loads before the stores, which might be to the same memory
#pragma unroll
        for (u32 i = 0; i < MI * 2; i++) {
            u32 row = m + i * 8 + g;
            if (row < rows) load_pair(residual[i / 2][i % 2], e.residual + (u64)row * N + column, columns);
        }
#endif
#pragma unroll
        for (u32 i = 0; i < MI * 2; i++) {
            u32 row = m + i * 8 + g;
            if (row >= rows) continue;
            float y[2];
#pragma unroll
            for (u32 c = 0; c < 2; c++) {
#ifdef RESIDUAL
                terms[c].residual = residual[i / 2][i % 2][c];
#endif
                y[c] = finish(terms[c], acc[i / 2][j][i % 2 * 2 + c], acc[i / 2][j + MATRICES - 1][i % 2 * 2 + c]);
            }
            store_pair(e, row, column, columns, y);
        }
    }
}

// Two blocks to a multiprocessor where the sums leave registers for it.
#ifdef SCALE_BLOCK
constexpr u32 SUMS = 2 * MI * NI * 4;
#else
constexpr u32 SUMS = MI * NI * 4;
#endif
constexpr u32 RESIDENT = THREADS <= (SUMS <= 64 ? 256 : 128) ? 2 : 1;

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    linear(void *out, const void *x, const void *weight, const void *weight2, const float *scale, const float *scale2,
           const float *bias, const float *bias2, const float *residual, const float *gain, u32 rows, u32 ldx) {
    pdl_launch();
    extern __shared__ __align__(128) u8 memory[];
    Tile tile = choose_tile(rows);
    u32 shared = shared_address(memory), warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;

    // Both fetch steps one after the other; what lies outside the matrices becomes zeros. Addresses advance from copy to copy:
    // there are too few registers to hold one for each.
    using XCopy = TileCopy<BM, 2, THREADS>;
    using WeightCopy = TileCopy<BN, WEIGHT_BYTES, THREADS>;
    const u8 *x_from = (const u8 *)x + ((u64)(tile.m + XCopy::first_row()) * ldx + XCopy::first_k()) * 2;
    u64 x_advance = (u64)ldx * (XCopy::FIRST_ROWS * 2);
    int x_rows = (int)(rows - tile.m - XCopy::first_row());  // from the thread's first row on
    auto load_x = [&](u32 stage, u32 step) {
        const u8 *from = x_from;
        bool inside = K % BK == 0 || step * BK + XCopy::first_k() < K;
        XCopy::each(shared + stage * STAGE_BYTES, [&](u32 to, u32 row) {
            cp_async_16(to, from, inside && (int)row < x_rows ? 16 : 0);
            from += x_advance;
        });
        x_from += BK * 2;
    };
    // Of a row's number in the tile, GATED, the bit of 8 chooses the matrix and the others count its rows.
    auto row_of = [](u32 row) { return MATRICES == 2 ? row / 16 * 8 + row % 8 : row; };
    u32 first = WeightCopy::first_row(), weight_row = tile.n + row_of(first);
    u64 weight_at = ((u64)weight_row * K + WeightCopy::first_k()) * WEIGHT_BYTES;
    bool swapped = MATRICES == 2 && (first & 8);
    const u8 *weight_from[2] = {(const u8 *)(swapped ? weight2 : weight) + weight_at, (const u8 *)(swapped ? weight : weight2) + weight_at};
    auto load_weight = [&](u32 stage, u32 step) {
        bool inside = K % BK == 0 || step * BK + WeightCopy::first_k() < K;
        WeightCopy::each(shared + stage * STAGE_BYTES + X_STAGE, [&](u32 to, u32 row) {
            const u8 *from = weight_from[MATRICES == 2 && (row & 8)] + (u64)row_of(row) * K * WEIGHT_BYTES;
            cp_async_16(to, from, inside && (N % TILE_OUTPUTS == 0 || weight_row + row_of(row) < N) ? 16 : 0);
        });
        weight_from[0] += BK * WEIGHT_BYTES;
        if (MATRICES == 2) weight_from[1] += BK * WEIGHT_BYTES;
    };

    constexpr u32 EARLY = STEPS < STAGES - 1 ? STEPS : STAGES - 1;
    for (u32 s = 0; s < EARLY; s++) load_weight(s, s);
    pdl_wait();
    for (u32 s = 0; s < STAGES - 1; s++) {
        if (s < EARLY) load_x(s, s);
        cp_async_commit();
    }

    u32 warp_m = warp / WARPS_N * WM, warp_n = warp % WARPS_N * WN, n = tile.n + warp_n / MATRICES;
    float acc[MI][NI][4] = {};
#ifdef SCALE_BLOCK
    float sums[MI][NI][4] = {};  // of the current 128 k
#else
    auto &sums = acc;
#endif
    u32 stage = 0, next = STAGES - 1;
#pragma unroll 1
    for (u32 step = 0; step < STEPS; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // the stage is complete, and all warps have left the one before it
        if (step + STAGES - 1 < STEPS) {
            load_weight(next, step + STAGES - 1);
            load_x(next, step + STAGES - 1);
        }
        cp_async_commit();
#ifdef SCALE_BLOCK
        u64 block = (u64)(min(n, (u32)N - 1) / 128) * ((K + 127) / 128) + step * BK / 128;
        float scales[2] = {scale[block], MATRICES == 2 ? scale2[block] : 0.0f};
#endif
        u32 x_tile = shared + stage * STAGE_BYTES, weight_tile = x_tile + X_STAGE;
#pragma unroll
        for (u32 slice = 0; slice < BK / 64; slice++)
            multiply_slice(sums, x_tile + (slice * BM + warp_m) * 128, weight_tile + (slice * BN + warp_n) * 64 * WEIGHT_BYTES, lane);
#ifdef SCALE_BLOCK
        if ((step + 1) * BK % 128 == 0 || step + 1 == STEPS)
            for (u32 i = 0; i < MI; i++)
                for (u32 j = 0; j < NI; j++)
                    for (u32 c = 0; c < 4; c++) {
                        acc[i][j][c] += scales[j % MATRICES] * sums[i][j][c];
                        sums[i][j][c] = 0.0f;
                    }
#endif
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }
    store_tile({out, scale, scale2, bias, bias2, residual}, acc, tile.m + warp_m, n, rows, g, t);
}
