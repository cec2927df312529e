// What the two sampling kernels share: the host's structures, order and weight of logits, the random number.
#pragma once

#include "common/types.cuh"

// One row to be sampled; 80 bytes, all of them given by the host.
struct alignas(16) SampleRow {
    u64 seed;                  //  0
    u32 logits;                //  8  row of the logits; several sample rows may share it
    u32 slot;                  // 12  where in `sampled` the token goes
    u32 sequence;              // 16  index among the request's sequences
    u32 position;              // 20  tokens generated before this one
    u32 active;                // 24  0: the row is left alone, nothing is written for it
    u32 top_k;                 // 28  0: no limit
    float temperature;         // 32  0: greedy
    float top_p;               // 36  1: no limit
    float min_p;               // 40  0: no limit
    float repetition_penalty;  // 44
    float presence_penalty;    // 48
    float frequency_penalty;   // 52
    u32 adjustments;           // 56  first of this row's adjustments,
    u32 adjustment_count;      // 60  and how many
    int last;                  // 64  index in `sampled` of a token that counts as one more generated one, or negative
    u32 unused[3];             // 68
};
static_assert(sizeof(SampleRow) == 80, "the host mirrors it");

// A change to one token's logit; 16 bytes. Adjustments of one token stand side by side in the order in which they apply: first one with
// `seen`, then biases, then a ban (a bias of -inf). Tokens beyond the vocabulary are passed over.
struct alignas(16) Adjustment {
    u32 token;      //  0
    u32 seen;       //  4  1: the token is in prompt or output: penalties; 0: add `bias`
    u32 generated;  //  8  with `seen`: how often it was generated, without the token of `last`
    float bias;     // 12  without `seen`: finite or -inf
};

// What comes back for a row; 16 bytes.
struct alignas(16) SampleResult {
    u32 token;          //  0  0 where status is not 0
    u32 status;         //  4  one of SAMPLE_*
    float logit;        //  8  of the token, before adjustments
    float log_sum_exp;  // 12  of the row, before adjustments: logit - log_sum_exp is the log-probability
};
#define SAMPLE_OK 0
#define SAMPLE_NOT_A_NUMBER 1  // a logit is NaN or +inf
#define SAMPLE_NO_TOKEN 2      // no token has a finite logit, or every token is banned

// What a block found in its slice of a row; 32 bytes.
struct alignas(16) Partial {
    u64 best;        // largest processed logit and its lowest token, as `best_of` packs them
    u64 weight;      // sum of weights against this slice's largest
    float raw_max;   // before adjustments
    float raw_sum;   // of exp(logit - raw_max)
    u32 broken;      // a logit is NaN or +inf
    float smallest;  // processed logit that is not -inf, else +inf; of rows with top-k, top-p or min-p
};

// A row is cut into slices of SLICE logits; thread t of 512 holds the four from 4 (t + 512 v), v = 0..3.
constexpr u32 SLICE = 8192;
constexpr u32 SLICES = (VOCAB + SLICE - 1) / SLICE;
// The largest processed logit of each thread's sixteen is a head: HEADS floats a row, slice by slice, behind the partials of all rows.
constexpr u32 HEADS_PER_SLICE = 512, HEADS = SLICES * HEADS_PER_SLICE;
#ifndef STRIDE
#define STRIDE VOCAB
#endif

#define MINUS_INFINITY __int_as_float(0xff800000)

__device__ __forceinline__ bool is_filtered(const SampleRow &row) {
    bool top_k = row.top_k > 0 && row.top_k < VOCAB;
    return row.temperature > 0.0f && (top_k || row.top_p < 1.0f || row.min_p > 0.0f);
}

// Four logits from `token` (a multiple of 4), -inf from `end` on. 16 bytes wide when all rows start at multiples of that. Through L2 alone:
// other blocks may have written them, and none is read twice soon.
__device__ __forceinline__ float4 load_logits(const float *row, u32 token, u32 end = VOCAB) {
    float4 x = make_float4(MINUS_INFINITY, MINUS_INFINITY, MINUS_INFINITY, MINUS_INFINITY);
    if (STRIDE % 4 == 0 && token < end) {
        x = __ldcg((const float4 *)(row + token));
    } else if (token < end) {
        x.x = __ldcg(row + token);
        if (token + 1 < end) x.y = __ldcg(row + token + 1);
        if (token + 2 < end) x.z = __ldcg(row + token + 2);
        if (token + 3 < end) x.w = __ldcg(row + token + 3);
    }
    if (STRIDE % 4 == 0 && VOCAB % 4 == 0) return x;  // `end` is VOCAB or a multiple of 4
    // Padding between VOCAB and STRIDE holds anything.
    if (token + 1 >= end) x.y = MINUS_INFINITY;
    if (token + 2 >= end) x.z = MINUS_INFINITY;
    if (token + 3 >= end) x.w = MINUS_INFINITY;
    return x;
}

// ---- Order: keys compare as unsigned numbers in IEEE's total order, -0 below +0 ----

__device__ __forceinline__ u32 order(float x) {
    u32 bits = __float_as_uint(x);
    return bits ^ ((u32)((int)bits >> 31) | 0x80000000u);
}
__device__ __forceinline__ float unorder(u32 key) { return __uint_as_float(key ^ (~(u32)((int)key >> 31) | 0x80000000u)); }

// The largest is the most likely token, the lowest id among equals (-0 and +0 are equal here).
__device__ __forceinline__ u64 best_of(float x, u32 token) { return (u64)order(x + 0.0f) << 32 | ~token; }
__device__ __forceinline__ float best_logit(u64 best) { return unorder((u32)(best >> 32)); }
__device__ __forceinline__ u32 best_token(u64 best) { return ~(u32)best; }

// ---- Weights: exp((x - max) / temperature) in units of 2^-44 ----
// The exponential is an f32 one, right to about 2^-21 where a token has any chance. Sums are of integers: exact, whatever their order and
// however a row is divided. A vocabulary below 2^19 cannot overflow them.

static_assert(VOCAB < (1 << 19), "sums of weights are 64-bit");
constexpr u64 UNIT = 1ull << 44;

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float weight_scale(float temperature) { return fminf(1.44269504f / temperature, 3e38f); }
__device__ __forceinline__ u64 weight(float x, float max, float scale) {
    u32 bits = __float_as_uint(exp2_fast((x - max) * scale));  // at most 1: the exponent is at most 127
    u64 mantissa = (u64)((bits & 0x7fffff) | 0x800000) << 21;
    return mantissa >> min(127 - (bits >> 23), 63u);
}

// By how much the weights of a slice, which are against its own maximum, count in its row.
__device__ __forceinline__ double share_of(const Partial &part, float max, float scale) {
    return exp2_fast((best_logit(part.best) - max) * scale);
}

// ---- Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): 53 random bits as a number in [0, 1) ----

__device__ __forceinline__ double uniform(u64 seed, u32 sequence, u32 position) {
    u32 x0 = position, x1 = sequence, x2 = 0, x3 = 0, key0 = (u32)seed, key1 = (u32)(seed >> 32);
#pragma unroll
    for (int i = 0; i < 10; i++) {
        u32 low_a = 0xD2511F53u * x0, high_a = __umulhi(0xD2511F53u, x0);
        u32 low_b = 0xCD9E8D57u * x2, high_b = __umulhi(0xCD9E8D57u, x2);
        x0 = high_b ^ x1 ^ key0, x1 = low_b;
        x2 = high_a ^ x3 ^ key1, x3 = low_a;
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return (double)(((u64)x1 << 32 | x0) >> 11) * 0x1p-53;
}

// ---- Sums and maxima of 64-bit numbers ----

__device__ __forceinline__ u64 warp_max(u64 value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}
__device__ __forceinline__ u64 warp_sum(u64 value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}
// Sum over this lane and those before.
__device__ __forceinline__ u64 warp_scan(u64 value) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) {
        u64 before = __shfl_up_sync(0xffffffffu, value, step);
        if (lane >= step) value += before;
    }
    return value;
}
