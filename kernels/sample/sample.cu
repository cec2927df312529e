// Sampling, first kernel: checks each row, applies penalties, biases and bans, and chooses the token of rows that are greedy or limited by
// temperature alone. Rows with top-k, top-p or min-p are finished by `filter`, which is to follow.
//
// Exactly the host's semantics: penalties (repetition, then presence and frequency), biases in their order, bans; results are clamped to
// the largest finite f32 and what is -inf stays so; ties go to the lower id; the token of a row is the inverse of the cumulative distribution in
// id order at Philox(seed; position, sequence). A row's result depends on that row alone, to the bit.
//
// Macros: VOCAB; STRIDE between rows of `logits` and of `processed` (default VOCAB).
// Layouts: results [rows]; sampled [slots]; logits [any][STRIDE] f32; row [rows]; adjustments [any]; processed [rows][STRIDE] f32, written for
//   rows with adjustments only; partials [rows][SLICES], then heads [rows][HEADS] f32; arrived [rows], zero before the first launch, left at zero.
//   No row's `slot` is another row's `last` in the same launch.
// Grid: (SLICES = ceil(VOCAB / 8192), rows). Block: 512. No dynamic shared memory. When STRIDE is a multiple of 4, logits and processed are
// aligned to 16 bytes; the structures always are.
#include "common/ptx.cuh"
#include "sample/row.cuh"

constexpr u32 THREADS = 512, WARPS = THREADS / 32;

__device__ __forceinline__ float penalise(float x, const SampleRow &row, u32 generated) {
    float repeated = x > 0.0f ? __fdiv_rn(x, row.repetition_penalty) : __fmul_rn(x, row.repetition_penalty);
    if (generated == 0) return repeated;
    return __fsub_rn(__fsub_rn(repeated, row.presence_penalty), __fmul_rn(row.frequency_penalty, (float)generated));
}

// Applies the adjustments of this slice's tokens to `processed`, whose slice holds the raw logits. All threads of the block come here.
__device__ void adjust(float *processed, const SampleRow &row, const Adjustment *adjustments, const u32 *sampled, u32 begin) {
    const float LARGEST = 3.40282347e38f;
    const Adjustment *list = adjustments + row.adjustments;
    u32 count = row.adjustment_count, last = row.last >= 0 ? sampled[row.last] : ~0u;
    bool found = false;
    for (u32 i = threadIdx.x; i < count; i += THREADS) {
        u32 token = list[i].token;
        if (token - begin >= SLICE || token >= VOCAB || (i > 0 && list[i - 1].token == token)) continue;
        float x = processed[token];
        if (token == last) {
            found = true;
            if (!list[i].seen && x != MINUS_INFINITY) x = fminf(penalise(x, row, 1), LARGEST);
        }
        for (u32 j = i; j < count && list[j].token == token; j++) {
            Adjustment a = list[j];
            if (x == MINUS_INFINITY) break;
            x = fminf(a.seen ? penalise(x, row, a.generated + (token == last)) : __fadd_rn(x, a.bias), LARGEST);
        }
        processed[token] = x;
    }
    if (!__syncthreads_or(found) && threadIdx.x == 0 && last - begin < SLICE && last < VOCAB) {
        float x = processed[last];
        if (x != MINUS_INFINITY) processed[last] = fminf(penalise(x, row, 1), LARGEST);
    }
    __syncthreads();
}

constexpr u64 BROKEN = ~0ull;  // as a best: a logit is NaN or +inf

__device__ __forceinline__ u64 best_in(const float4 (&x)[4], u32 begin) {
    float largest = MINUS_INFINITY;
    u32 token = begin + 4 * threadIdx.x;
    bool broken = false;
#pragma unroll
    for (u32 v = 0; v < 4; v++) {
        float values[4] = {x[v].x, x[v].y, x[v].z, x[v].w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            broken |= !(values[i] < -MINUS_INFINITY);  // NaN fails every comparison
            if (values[i] > largest) largest = values[i], token = begin + 4 * (threadIdx.x + THREADS * v) + i;
        }
    }
    return broken ? BROKEN : best_of(largest, token);
}

__device__ __forceinline__ u64 block_max(u64 value, u64 (&shared)[WARPS]) {
    value = warp_max(value);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_max(shared[threadIdx.x % WARPS]);
}

__device__ __forceinline__ u64 weights_of(float4 x, float max, float scale) {
    return weight(x.x, max, scale) + weight(x.y, max, scale) + weight(x.z, max, scale) + weight(x.w, max, scale);
}

// The token at which the cumulative weight of the slice first exceeds `target`; the one thread that finds it returns true.
__device__ bool pick(const float4 (&x)[4], float max, float scale, u64 target, u32 begin, u32 &token) {
    __shared__ u64 sums[4 * WARPS];
    u32 warp = threadIdx.x / 32;
    u64 scanned[4];
#pragma unroll
    for (u32 v = 0; v < 4; v++) {
        scanned[v] = warp_scan(weights_of(x[v], max, scale));
        if (threadIdx.x % 32 == 31) sums[v * WARPS + warp] = scanned[v];
    }
    __syncthreads();
    // 64 sums in the order of ids: each warp scans them, two to a lane.
    u32 lane = threadIdx.x % 32;
    u64 first = sums[2 * lane], second = sums[2 * lane + 1], before_both = warp_scan(first + second) - first - second;
    bool found = false;
#pragma unroll
    for (u32 v = 0; v < 4; v++) {
        u32 at = v * WARPS + warp;
        u64 before = __shfl_sync(0xffffffffu, at % 2 ? before_both + first : before_both, at / 2);
        u64 a = weight(x[v].x, max, scale), b = a + weight(x[v].y, max, scale), c = b + weight(x[v].z, max, scale);
        u64 own = c + weight(x[v].w, max, scale), rest = target - (before + scanned[v] - own);
        // `rest` wraps round where the target lies before this thread's four.
        if (rest >= own) continue;
        token = begin + 4 * (threadIdx.x + THREADS * v) + (rest >= a) + (rest >= b) + (rest >= c);
        found = true;
    }
    return found;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
sample(SampleResult *results, u32 *sampled, const float *logits, const SampleRow *sample_rows, const Adjustment *adjustments, float *processed,
       Partial *partials, u32 *arrived, u32 rows) {
    pdl_launch();
    u32 r = blockIdx.y, begin = blockIdx.x * SLICE;
    if (r >= rows) return;
    __shared__ u64 shared_max[2][WARPS], shared_weight[WARPS];
    __shared__ float shared_sum[WARPS], shared_min[WARPS];
    __shared__ u32 is_last;
    pdl_wait();
    const SampleRow &row = sample_rows[r];
    if (!row.active) return;
    const float *raw = logits + (u64)row.logits * STRIDE, *from = raw;

    float4 x[4];
#pragma unroll
    for (u32 v = 0; v < 4; v++) x[v] = load_logits(raw, begin + 4 * (threadIdx.x + THREADS * v));
    u64 own = best_in(x, begin), best = block_max(own, shared_max[0]);
    bool broken = best == BROKEN;
    float raw_max = best_logit(best), raw_sum = 0.0f;
#pragma unroll
    for (u32 v = 0; v < 4; v++) {
        const float scale = 1.44269504f;
        raw_sum += exp2_fast((x[v].x - raw_max) * scale) + exp2_fast((x[v].y - raw_max) * scale);
        raw_sum += exp2_fast((x[v].z - raw_max) * scale) + exp2_fast((x[v].w - raw_max) * scale);
    }

    if (row.adjustment_count > 0 || row.last >= 0) {
        float *changed = processed + (u64)r * STRIDE;
#pragma unroll
        for (u32 v = 0; v < 4; v++) {
            u32 token = begin + 4 * (threadIdx.x + THREADS * v);
            if (STRIDE % 4 == 0) {
                if (token < VOCAB) *(float4 *)(changed + token) = x[v];
            } else {
                if (token < VOCAB) changed[token] = x[v].x;
                if (token + 1 < VOCAB) changed[token + 1] = x[v].y;
                if (token + 2 < VOCAB) changed[token + 2] = x[v].z;
                if (token + 3 < VOCAB) changed[token + 3] = x[v].w;
            }
        }
        __syncthreads();
        adjust(changed, row, adjustments, sampled, begin);
#pragma unroll
        for (u32 v = 0; v < 4; v++) x[v] = load_logits(changed, begin + 4 * (threadIdx.x + THREADS * v));
        own = best_in(x, begin);
        best = block_max(own, shared_max[1]);
        from = changed;
    }
    bool filtered = is_filtered(row);
    float smallest = INFINITY;
    if (filtered) {
        float *heads = (float *)(partials + (u64)rows * SLICES) + (u64)r * HEADS;
        heads[blockIdx.x * HEADS_PER_SLICE + threadIdx.x] = best_logit(own);
#pragma unroll
        for (u32 v = 0; v < 4; v++) {
            const float values[4] = {x[v].x, x[v].y, x[v].z, x[v].w};
            for (float value : values) smallest = value > MINUS_INFINITY ? fminf(smallest, value) : smallest;
        }
        for (u32 step = 16; step > 0; step /= 2) smallest = fminf(smallest, __shfl_xor_sync(0xffffffffu, smallest, step));
    }

    // Sums over this slice, against its own maximum.
    float scale = weight_scale(row.temperature), slice_max = best_logit(best);
    u64 weights = 0;
    if (row.temperature > 0.0f && slice_max > MINUS_INFINITY) {
#pragma unroll
        for (u32 v = 0; v < 4; v++) weights += weights_of(x[v], slice_max, scale);
    }
    weights = warp_sum(weights);
    raw_sum = warp_sum(raw_sum);
    if (threadIdx.x % 32 == 0) shared_weight[threadIdx.x / 32] = weights, shared_sum[threadIdx.x / 32] = raw_sum, shared_min[threadIdx.x / 32] = smallest;
    __syncthreads();
    if (threadIdx.x == 0) {
        weights = 0, raw_sum = 0.0f;
        for (u32 w = 0; w < WARPS; w++) weights += shared_weight[w], raw_sum += shared_sum[w], smallest = fminf(smallest, shared_min[w]);
        partials[r * SLICES + blockIdx.x] = Partial{best, weights, raw_max, raw_max > MINUS_INFINITY ? raw_sum : 0.0f, broken, smallest};
        __threadfence();
        // Wraps to zero at the last arrival: ready for the next launch.
        is_last = atomicInc(&arrived[r], SLICES - 1) == SLICES - 1;
        __threadfence();
    }
    __syncthreads();
    if (!is_last) return;

    // The last block of the row to arrive finishes it; every thread puts the slices together.
    __shared__ Partial parts[SLICES];
    for (u32 i = threadIdx.x; i < 2 * SLICES; i += THREADS) ((uint4 *)parts)[i] = __ldcg((const uint4 *)(partials + r * SLICES) + i);
    __syncthreads();
    broken = false, best = 0, raw_max = MINUS_INFINITY;
#pragma unroll 2
    for (const Partial &part : parts) {
        broken |= part.broken;
        best = max(best, part.best);
        raw_max = fmaxf(raw_max, part.raw_max);
    }
    float max = best_logit(best);
    u32 status = broken ? SAMPLE_NOT_A_NUMBER : max == MINUS_INFINITY ? SAMPLE_NO_TOKEN : SAMPLE_OK;
    u32 token = status == SAMPLE_OK ? best_token(best) : 0;
    bool writer = threadIdx.x == 0;
    if (status == SAMPLE_OK && row.temperature > 0.0f && !filtered) {
        // A slice's weights count by how far its maximum lies below the row's.
        double total = 0.0, end = 0.0, before = 0.0;
#pragma unroll 2
        for (const Partial &part : parts) total += share_of(part, max, scale) * part.weight;
        double target = uniform(row.seed, row.sequence, row.position) * total;
        u32 chosen = 0;
#pragma unroll 2
        for (u32 s = 0; s < SLICES && target >= end; s++) {
            double amount = share_of(parts[s], max, scale) * parts[s].weight;
            // Should rounding leave the target at the total, the last slice with any weight stays chosen.
            if (amount > 0.0) chosen = s, before = end;
            end += amount;
        }
        u64 inside = (u64)fmax((target - before) / share_of(parts[chosen], max, scale), 0.0);
        inside = min(inside, parts[chosen].weight - 1);
#pragma unroll
        for (u32 v = 0; v < 4; v++) x[v] = load_logits(from, chosen * SLICE + 4 * (threadIdx.x + THREADS * v));
        writer = pick(x, best_logit(parts[chosen].best), scale, inside, chosen * SLICE, token);
    }
    if (!writer) return;
    float raw_total = 0.0f;
#pragma unroll 2
    for (const Partial &part : parts) raw_total += part.raw_sum * exp2_fast((part.raw_max - raw_max) * 1.44269504f);
    results[r] = SampleResult{token, status, raw[token], raw_max + logf(raw_total)};
    // A filtered row's token and its logit are for the next kernel.
    if (status != SAMPLE_OK || !filtered) sampled[row.slot] = token;
}
