// Linear layer of any number of rows on the tensor cores of every arch since sm_80: out[M][N] = epilogue(x[M][K] . W[N][K]^T).
//
// A block computes a tile of BM x BN outputs over all of K, in one order of k whatever M, so that a row's bits depend on nothing
// but the row (the invariant mode relies on it). Operands travel by cp.async through a ring of STAGES pieces of 64 in K, rows of
// 128 bytes with their 16-byte chunks permuted so that ldmatrix meets no bank twice. When GATED, a warp's columns are one half
// rows of `weight` and one half the same rows of `weight2`. e4m3 weights become half_t on their way to the tensor cores.
//
// linear(out, x, weight, weight2, scale, scale2, bias, bias2, residual, gain, rows, ldx); macros as in gemv.cu: N, K,
// WEIGHT_E4M3, OUTPUT_F32, BIAS, ACTIVATION, GATED, RESIDUAL; BM, BN, STAGES, WARPS_M, WARPS_N. K % 64 == 0, rows of x at
// multiples of 16 bytes.
// Block: 32 * WARPS_M * WARPS_N. Grid: (ceil(N / OUTPUTS), ceil(rows / BM)), OUTPUTS = GATED ? BN / 2 : BN.
// Dynamic shared memory: STAGES * (BM * 128 + BN * (WEIGHT_E4M3 ? 80 : 128)).
#include "common/ptx.cuh"
#include "linear/epilogue.cuh"

constexpr u32 BK = 64, THREADS = 32 * WARPS_M * WARPS_N;
constexpr u32 WM = BM / WARPS_M, WN = BN / WARPS_N, M_TILES = WM / 16, N_TILES = WN / 8;
#ifdef GATED
constexpr u32 OUTPUTS = BN / 2, WARP_OUTPUTS = WN / 2;
#else
constexpr u32 OUTPUTS = BN, WARP_OUTPUTS = WN;
#endif
#ifdef WEIGHT_E4M3
// 64 bytes and a pad that spreads rows over the banks.
constexpr u32 WEIGHT_BYTES = 1, WEIGHT_STRIDE = 80;
#else
constexpr u32 WEIGHT_BYTES = 2, WEIGHT_STRIDE = 128;
#endif
constexpr u32 X_TILE = BM * 128, STAGE = X_TILE + BN * WEIGHT_STRIDE, WEIGHT_CHUNKS = BK * WEIGHT_BYTES / 16;
static_assert(WM % 16 == 0 && WN % 16 == 0 && K % BK == 0, "whole fragments");

__device__ __forceinline__ u32 swizzled(u32 row, u32 chunk) { return row * 128 + (chunk ^ (row & 7)) * 16; }

__device__ __forceinline__ void fetch(u32 stage, const half_t *x, u32 ldx, const u8 *weight, const u8 *weight2, u32 rows, u32 m0, u32 n0,
                                      u32 k0) {
    for (u32 i = threadIdx.x; i < BM * 8; i += THREADS) {
        u32 row = i / 8, chunk = i % 8, m = m0 + row;
        const half_t *source = x + (u64)min(m, rows - 1) * ldx + k0 + chunk * 8;
        cp_async_16(stage + swizzled(row, chunk), source, m < rows ? 16 : 0);
    }
    for (u32 i = threadIdx.x; i < BN * WEIGHT_CHUNKS; i += THREADS) {
        u32 row = i / WEIGHT_CHUNKS, chunk = i % WEIGHT_CHUNKS, n = n0 + row;
        const u8 *matrix = weight;
#ifdef GATED
        u32 column = row % WN;
        n = n0 + row / WN * WARP_OUTPUTS + column % WARP_OUTPUTS;
        if (column >= WARP_OUTPUTS) matrix = weight2;
#endif
        const u8 *source = matrix + ((u64)min(n, (u32)N - 1) * K + k0) * WEIGHT_BYTES + chunk * 16;
#ifdef WEIGHT_E4M3
        u32 place = row * WEIGHT_STRIDE + chunk * 16;
#else
        u32 place = swizzled(row, chunk);
#endif
        cp_async_16(stage + X_TILE + place, source, n < N ? 16 : 0);
    }
}

#ifdef WEIGHT_E4M3
__device__ __forceinline__ u32 load_pair(u32 shared) {
    u16 codes;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(codes) : "r"(shared));
    float2 values = unpack_e4m3x2(codes);
    return pack_half2(values.x, values.y);
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    linear(void *out, const void *x, const void *weight, const void *weight2, const float *scale, const float *scale2,
           const float *bias, const float *bias2, const float *residual, const float *gain, u32 rows, u32 ldx) {
    pdl_launch();
    extern __shared__ __align__(128) u8 memory[];
    u32 shared = shared_address(memory), m0 = blockIdx.y * BM, n0 = blockIdx.x * OUTPUTS;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    u32 wm = warp / WARPS_N * WM, wn = warp % WARPS_N * WN;
    pdl_wait();

    auto load = [&](u32 step) {
        if (step < K / BK)
            fetch(shared + step % STAGES * STAGE, (const half_t *)x, ldx, (const u8 *)weight, (const u8 *)weight2, rows, m0, n0, step * BK);
        cp_async_commit();
    };
#pragma unroll
    for (u32 step = 0; step < STAGES - 1; step++) load(step);
    float acc[M_TILES][N_TILES][4] = {};
    for (u32 step = 0; step < K / BK; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        load(step + STAGES - 1);
        u32 tile = shared + step % STAGES * STAGE, weights = tile + X_TILE;
#pragma unroll
        for (u32 k = 0; k < BK / 16; k++) {
            u32 a[M_TILES][4], b[N_TILES][2];
#pragma unroll
            for (u32 i = 0; i < M_TILES; i++) ldmatrix_x4(a[i], tile + swizzled(wm + i * 16 + lane % 16, 2 * k + lane / 16));
#ifdef WEIGHT_E4M3
#pragma unroll
            for (u32 j = 0; j < N_TILES; j++) {
                u32 at = weights + (wn + j * 8 + g) * WEIGHT_STRIDE + k * 16 + 2 * t;
                b[j][0] = load_pair(at), b[j][1] = load_pair(at + 8);
            }
#else
#pragma unroll
            for (u32 j = 0; j < N_TILES; j += 2) {
                u32 pair[4];
                ldmatrix_x4(pair, weights + swizzled(wn + j * 8 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
                b[j][0] = pair[0], b[j][1] = pair[1], b[j + 1][0] = pair[2], b[j + 1][1] = pair[3];
            }
#endif
#pragma unroll
            for (u32 i = 0; i < M_TILES; i++)
#pragma unroll
                for (u32 j = 0; j < N_TILES; j++) mma_16816(acc[i][j], a[i], b[j][0], b[j][1]);
        }
    }

    Epilogue epilogue = {out, scale, scale2, bias, bias2, residual};
#ifdef GATED
    constexpr u32 OUT_TILES = N_TILES / 2;
#else
    constexpr u32 OUT_TILES = N_TILES;
#endif
    u32 columns = n0 + warp % WARPS_N * WARP_OUTPUTS;
#pragma unroll
    for (u32 i = 0; i < M_TILES; i++)
#pragma unroll
        for (u32 j = 0; j < OUT_TILES; j++)
#pragma unroll
            for (u32 c = 0; c < 4; c++) {
                u32 m = m0 + wm + i * 16 + g + c / 2 * 8, n = columns + j * 8 + 2 * t + c % 2;
                if (m >= rows || n >= N) continue;
#ifdef GATED
                float second = acc[i][j + OUT_TILES][c];
#else
                float second = 0.0f;
#endif
                store_output(epilogue, m, n, finish(load_terms(epilogue, m, n), acc[i][j][c], second));
            }
}
