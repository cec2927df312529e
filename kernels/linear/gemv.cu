// Linear layer of few rows (decode): out[M][N] = epilogue(x[M][K] . W[N][K]^T), M = 1..16. Bound by reading W once.
//
// A block computes units of 16 * TILES weight rows (GATED: 8 * TILES outputs, whose rows of `weight` and `weight2` interleave by 8
// in a tile). A producer warp streams the unit's rows through a ring in chunks of CHUNK bytes per row; eight consumer warps take
// CHUNK / 8 bytes of each row, multiply with mma (weights are A, tokens are B's columns) and add up their parts at the unit's end.
// The ring fills with weights before pdl_wait(), so the previous kernel's end costs no bandwidth. No more than LIMIT chunks are in
// flight: queued weights would delay the activations. A column of mma depends on no other, so neither does a token.
//
// The order of k within an mma is free as long as both operands agree: a lane takes 16 consecutive bytes of its weight row and the
// activations that belong to them, with no shuffles and no ldmatrix.
//
// x is held in shared memory whole, or travels through the ring beside the weights (X_STREAM; read anew for each unit).
//
// linear(out, x, weight, weight2, scale, scale2, bias, bias2, residual, gain, rows, ldx); unused pointers are null.
//   N, K; ROWS 1, 2, 4, 8 or 16, rows <= ROWS; ldx: elements from one row of x to the next
//   WEIGHT_E4M3   weights are e4m3, f32 scale[N]; with SCALE_BLOCK f32 scale[ceil(N/128)][ceil(K/128)]. Else half_t
//   NORM          x is f32, becomes half_t(x * rsqrt(mean(x^2) + NORM_EPS) * gain[k]); not with X_STREAM. Else half_t
//   OUTPUT_F32, BIAS, ACTIVATION, GATED, RESIDUAL   see epilogue.cuh; out may be residual
//   TILES 1 or 2, CHUNK 512 or 1024, STAGES, LIMIT <= STAGES, X_STREAM
// K % 64 == 0 (e4m3: K % 128 == 0), any N. All pointers and rows of x multiples of 16 bytes.
// Block: 288 threads. Dynamic shared memory: SHARED_BYTES below. Best where two blocks fit on a multiprocessor but not three; where
// only one fits, the next kernel's weights are not fetched early. Grid: min(UNITS, blocks that fit on a multiprocessor (1 or 2) *
// multiprocessors) with UNITS = ceil(N / ((GATED ? 8 : 16) * TILES)).
#include "common/ptx.cuh"
#include "linear/epilogue.cuh"
#include "linear/ring.cuh"

#ifndef TILES
#define TILES 1
#endif
#ifndef CHUNK
#define CHUNK 1024
#endif
#ifndef STAGES
#define STAGES 6
#endif
#ifndef LIMIT
#define LIMIT 2
#endif

constexpr u32 CONSUMERS = 8, CONSUMER_THREADS = 32 * CONSUMERS;
#ifdef WEIGHT_E4M3
constexpr u32 WEIGHT_BYTES = 1;
// Pads keep the eight lanes that one 128-byte access serves in different banks: they are four pieces of two rows.
constexpr u32 X_PAD = 16;
#else
constexpr u32 WEIGHT_BYTES = 2;
constexpr u32 X_PAD = 64;
#endif
constexpr u32 WEIGHT_PAD = 64;
#ifdef X_STREAM
constexpr bool STREAM = true;
constexpr u32 X_COLUMNS = CHUNK / WEIGHT_BYTES;
#else
constexpr bool STREAM = false;
constexpr u32 X_COLUMNS = K;
#endif
constexpr u64 ROW_BYTES = (u64)K * WEIGHT_BYTES;
constexpr u32 CHUNKS = (ROW_BYTES + CHUNK - 1) / CHUNK, SLICE = CHUNK / CONSUMERS;
constexpr u32 WEIGHT_STRIDE = CHUNK + WEIGHT_PAD, X_STRIDE = 2 * X_COLUMNS + X_PAD;
constexpr u32 TILE_ROWS = 16 * TILES;
#ifdef GATED
constexpr u32 UNIT_OUTPUTS = TILE_ROWS / 2;
#else
constexpr u32 UNIT_OUTPUTS = TILE_ROWS;
#endif
constexpr u32 UNITS = (N + UNIT_OUTPUTS - 1) / UNIT_OUTPUTS;
constexpr u32 TOKEN_GROUPS = (ROWS + 7) / 8;
constexpr u32 OUTPUTS_PER_THREAD = (UNIT_OUTPUTS * ROWS + CONSUMER_THREADS - 1) / CONSUMER_THREADS;

constexpr u32 X_BYTES = ROWS * X_STRIDE;
constexpr u32 STAGE_BYTES = TILE_ROWS * WEIGHT_STRIDE + (STREAM ? X_BYTES : 0);
constexpr u32 X_AT = STAGES * STAGE_BYTES;
constexpr u32 PARTS_AT = X_AT + (STREAM ? 0 : X_BYTES);
constexpr u32 BARRIERS_AT = PARTS_AT + CONSUMERS * ROWS * TILE_ROWS * 4;
constexpr u32 SHARED_BYTES = BARRIERS_AT + 3 * STAGES * 8;
static_assert(SHARED_BYTES <= 227 * 1024 && LIMIT <= STAGES, "choose fewer or smaller stages, or X_STREAM");

__device__ __forceinline__ void consumers_sync() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMER_THREADS) : "memory"); }

__device__ __forceinline__ uint4 load_shared_16(u32 address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
    return v;
}

// d += 16 weight rows . 8 tokens over the k of 16 bytes per lane: `low`, `high` of weight rows g, g + 8, x at `tokens`.
__device__ __forceinline__ void multiply(float (&d)[4], uint4 low, uint4 high, u32 tokens) {
    u32 l[4] = {low.x, low.y, low.z, low.w}, h[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#ifdef WEIGHT_E4M3
        uint4 b = load_shared_16(tokens + 16 * i);
        u32 first[4] = {e4m3x2_to_half2<0>(l[2 * i]), e4m3x2_to_half2<0>(h[2 * i]), e4m3x2_to_half2<2>(l[2 * i]), e4m3x2_to_half2<2>(h[2 * i])};
        u32 second[4] = {e4m3x2_to_half2<0>(l[2 * i + 1]), e4m3x2_to_half2<0>(h[2 * i + 1]), e4m3x2_to_half2<2>(l[2 * i + 1]),
                         e4m3x2_to_half2<2>(h[2 * i + 1])};
        mma_16816(d, first, b.x, b.y);
        mma_16816(d, second, b.z, b.w);
#else
        if (i == 1) break;
        uint4 b = load_shared_16(tokens);
        u32 first[4] = {l[0], h[0], l[1], h[1]}, second[4] = {l[2], h[2], l[3], h[3]};
        mma_16816(d, first, b.x, b.y);
        mma_16816(d, second, b.z, b.w);
#endif
    }
}

// Fetches this block's chunks in order, those that fit the ring before pdl_wait().
__device__ __forceinline__ void produce(u32 shared, const u8 *x, const u8 *weight, const u8 *weight2, u32 rows, u32 ldx) {
    u32 full = shared + BARRIERS_AT, x_full = full + STAGES * 8, empty = x_full + STAGES * 8;
    u64 once = policy_evict_first(), again = policy_evict_last();
    u32 total = (UNITS - blockIdx.x + gridDim.x - 1) / gridDim.x * CHUNKS;
    auto bytes_of = [](u32 chunk) { return (u32)min((u64)CHUNK, ROW_BYTES - (u64)chunk * CHUNK); };
    auto fetch_weights = [&](u32 i) {
        if (i >= LIMIT) mbarrier_wait(full + (i - LIMIT) % STAGES * 8, (i - LIMIT) / STAGES & 1);
        u32 unit = blockIdx.x + i / CHUNKS * gridDim.x, chunk = i % CHUNKS, stage = i % STAGES;
        auto address = [&](u32 row) {
#ifdef GATED
            const u8 *base = row & 8 ? weight2 : weight;
            u32 n = unit * UNIT_OUTPUTS + row / 16 * 8 + row % 8;
#else
            const u8 *base = weight;
            u32 n = unit * UNIT_OUTPUTS + row;
#endif
            // Rows beyond the last are the last again; their sums are not stored.
            return base + min(n, (u32)N - 1) * ROW_BYTES + (u64)chunk * CHUNK;
        };
        copy_rows(shared + stage * STAGE_BYTES, WEIGHT_STRIDE, address, TILE_ROWS, bytes_of(chunk), full + stage * 8, once);
    };
    auto fetch_x = [&](u32 i) {
        u32 chunk = i % CHUNKS, stage = i % STAGES;
        auto address = [&](u32 row) { return x + ((u64)row * ldx + chunk * X_COLUMNS) * 2; };
        copy_rows(shared + stage * STAGE_BYTES + TILE_ROWS * WEIGHT_STRIDE, X_STRIDE, address, rows, bytes_of(chunk) * (2 / WEIGHT_BYTES),
                  x_full + stage * 8, again);
    };

    u32 early = min(total, STAGES);
    for (u32 i = 0; i < early; i++) fetch_weights(i);
    pdl_wait();
    if (STREAM)
        for (u32 i = 0; i < early; i++) fetch_x(i);
    for (u32 i = early; i < total; i++) {
        mbarrier_wait(empty + i % STAGES * 8, (i / STAGES - 1) & 1);
        fetch_weights(i);
        if (STREAM) fetch_x(i);
    }
}

// All of x to shared memory, normalised on the way when NORM.
__device__ __forceinline__ void load_x(u32 shared, float *scratch, const void *x, const float *gain, u32 rows, u32 ldx) {
#ifdef NORM
    constexpr u32 QUADS = K / 4, QUADS_PER_THREAD = (QUADS + CONSUMER_THREADS - 1) / CONSUMER_THREADS;
    float4 gains[QUADS_PER_THREAD];  // a constant: here before the wait
#pragma unroll
    for (u32 i = 0; i < QUADS_PER_THREAD; i++) {
        u32 quad = threadIdx.x + i * CONSUMER_THREADS;
        if (quad < QUADS) gains[i] = ((const float4 *)gain)[quad];
    }
    pdl_wait();
    for (u32 row = 0; row < rows; row++) {
        const float4 *source = (const float4 *)((const float *)x + (u64)row * ldx);
        float sum = 0.0f;
#pragma unroll
        for (u32 i = 0; i < QUADS_PER_THREAD; i++) {
            u32 quad = threadIdx.x + i * CONSUMER_THREADS;
            if (quad < QUADS) {
                float4 v = source[quad];
                sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
            }
        }
        for (u32 offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (threadIdx.x % 32 == 0) scratch[row * CONSUMERS + threadIdx.x / 32] = sum;
    }
    consumers_sync();
    for (u32 row = 0; row < rows; row++) {
        const float4 *source = (const float4 *)((const float *)x + (u64)row * ldx);
        float sum = 0.0f;
        for (u32 warp = 0; warp < CONSUMERS; warp++) sum += scratch[row * CONSUMERS + warp];
        float inverse = rsqrtf(sum / K + NORM_EPS);
#pragma unroll
        for (u32 i = 0; i < QUADS_PER_THREAD; i++) {
            u32 quad = threadIdx.x + i * CONSUMER_THREADS;
            if (quad < QUADS) {
                float4 v = source[quad], g = gains[i];
                u32 low = pack_half2(v.x * inverse * g.x, v.y * inverse * g.y), high = pack_half2(v.z * inverse * g.z, v.w * inverse * g.w);
                asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(shared + row * X_STRIDE + quad * 8), "r"(low), "r"(high) : "memory");
            }
        }
    }
#else
    pdl_wait();
#ifndef X_STREAM
    for (u32 row = 0; row < rows; row++) {
        const u8 *source = (const u8 *)x + (u64)row * ldx * 2;
        for (u32 at = threadIdx.x * 16; at < K * 2; at += CONSUMER_THREADS * 16) cp_async_16(shared + row * X_STRIDE + at, source + at);
    }
    cp_async_commit();
    cp_async_wait<0>();
#endif
#endif
    consumers_sync();
}

extern "C" __global__ void __launch_bounds__(CONSUMER_THREADS + 32, 2)
    linear(void *out, const void *x, const void *weight, const void *weight2, const float *scale, const float *scale2,
           const float *bias, const float *bias2, const float *residual, const float *gain, u32 rows, u32 ldx) {
    pdl_launch();
    extern __shared__ __align__(128) u8 memory[];
    u32 shared = shared_address(memory), full = shared + BARRIERS_AT, x_full = full + STAGES * 8, empty = x_full + STAGES * 8;
    float *parts = (float *)(memory + PARTS_AT);
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; stage++) {
            mbarrier_init(full + stage * 8, COPY_ARRIVALS);
            mbarrier_init(x_full + stage * 8, COPY_ARRIVALS);
            mbarrier_init(empty + stage * 8, CONSUMERS);
        }
#if COPY_BULK
        mbarrier_init_fence();
#endif
    }
    __syncthreads();

    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    if (warp == CONSUMERS) {
        produce(shared, (const u8 *)x, (const u8 *)weight, (const u8 *)weight2, rows, ldx);
        return;
    }
    load_x(shared + X_AT, parts, x, gain, rows, ldx);

    Epilogue epilogue = {out, scale, scale2, bias, bias2, residual};
    u32 stage = 0, phase = 0;
    for (u32 unit = blockIdx.x; unit < UNITS; unit += gridDim.x) {
        EpilogueTerms terms[OUTPUTS_PER_THREAD];
#pragma unroll
        for (u32 i = 0; i < OUTPUTS_PER_THREAD; i++) {
            u32 at = threadIdx.x + i * CONSUMER_THREADS, m = at / UNIT_OUTPUTS, n = unit * UNIT_OUTPUTS + at % UNIT_OUTPUTS;
            if (m < rows && n < N) terms[i] = load_terms(epilogue, m, n);
        }
        float acc[TILES][TOKEN_GROUPS][4] = {};
#pragma unroll 1
        for (u32 chunk = 0; chunk < CHUNKS; chunk++) {
            u32 first_byte = chunk * CHUNK + warp * SLICE;
            bool mine = first_byte < ROW_BYTES;
#ifdef SCALE_BLOCK
            float scales[TILES][2];
            for (u32 tile = 0; tile < TILES; tile++) {
                u64 block = (u64)(min(unit * UNIT_OUTPUTS + tile * (UNIT_OUTPUTS / TILES), (u32)N - 1) / 128) * ((K + 127) / 128) + first_byte / 128;
                scales[tile][0] = mine ? scale[block] : 0.0f;
#ifdef GATED
                scales[tile][1] = mine ? scale2[block] : 0.0f;
#else
                scales[tile][1] = scales[tile][0];
#endif
            }
#endif
            mbarrier_wait(full + stage * 8, phase);
            if (STREAM) mbarrier_wait(x_full + stage * 8, phase);
            if (mine) {
                u32 weights = shared + stage * STAGE_BYTES + g * WEIGHT_STRIDE + warp * SLICE + t * 16;
                u32 tokens = STREAM ? shared + stage * STAGE_BYTES + TILE_ROWS * WEIGHT_STRIDE + warp * SLICE * (2 / WEIGHT_BYTES)
                                    : shared + X_AT + first_byte * (2 / WEIGHT_BYTES);
                // Lanes of columns beyond ROWS repeat a token; their sums are not stored.
                tokens += g % ROWS * X_STRIDE + t * 16 * (2 / WEIGHT_BYTES);
#ifdef SCALE_BLOCK
                float sums[TILES][TOKEN_GROUPS][4] = {};
#else
                auto &sums = acc;
#endif
#pragma unroll
                for (u32 at = 0; at < SLICE; at += 64)
#pragma unroll
                    for (u32 tile = 0; tile < TILES; tile++) {
                        uint4 low = load_shared_16(weights + tile * 16 * WEIGHT_STRIDE + at);
                        uint4 high = load_shared_16(weights + (tile * 16 + 8) * WEIGHT_STRIDE + at);
#pragma unroll
                        for (u32 group = 0; group < TOKEN_GROUPS; group++)
                            multiply(sums[tile][group], low, high, tokens + group * 8 * X_STRIDE + at * (2 / WEIGHT_BYTES));
                    }
#ifdef SCALE_BLOCK
#pragma unroll
                for (u32 tile = 0; tile < TILES; tile++)
#pragma unroll
                    for (u32 group = 0; group < TOKEN_GROUPS; group++)
#pragma unroll
                        for (u32 i = 0; i < 4; i++) acc[tile][group][i] += scales[tile][i / 2] * sums[tile][group][i];
#endif
            }
            __syncwarp();
            if (lane == 0) mbarrier_arrive(empty + stage * 8);
            if (++stage == STAGES) stage = 0, phase ^= 1;
        }

        // parts[warp][token][weight row of the unit]
#pragma unroll
        for (u32 tile = 0; tile < TILES; tile++)
#pragma unroll
            for (u32 group = 0; group < TOKEN_GROUPS; group++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 token = group * 8 + 2 * t + i % 2, row = tile * 16 + g + i / 2 * 8;
                    if (token < ROWS) parts[(warp * ROWS + token) * TILE_ROWS + row] = acc[tile][group][i];
                }
        consumers_sync();
#pragma unroll
        for (u32 i = 0; i < OUTPUTS_PER_THREAD; i++) {
            u32 at = threadIdx.x + i * CONSUMER_THREADS, m = at / UNIT_OUTPUTS, o = at % UNIT_OUTPUTS, n = unit * UNIT_OUTPUTS + o;
            if (m >= rows || n >= N) continue;
            float sum = 0.0f, sum2 = 0.0f;
#ifdef GATED
            u32 row = o / 8 * 16 + o % 8;
#else
            u32 row = o;
#endif
            for (u32 w = 0; w < CONSUMERS; w++) {
                const float *part = parts + (w * ROWS + m) * TILE_ROWS + row;
                sum += part[0];
#ifdef GATED
                sum2 += part[8];
#endif
            }
            store_output(epilogue, m, n, finish(terms[i], sum, sum2));
        }
        consumers_sync();
    }
}
