// Sampling, second kernel: the token of rows with top-k, top-p or min-p. Follows `sample` on the same arguments; other rows return at once.
//
// Every question is the same one, `select`: of candidates in the order of a key, at which key do their amounts, summed from the largest key
// down, reach a given sum? Top-k sums ones by logit, top-p weights by logit, the choice of ties ones by id, the draw weights by id. It is
// answered by radix select (a histogram of 2048 digits at a time) in integers, so that no order of summation matters. Candidates are the tokens
// that may pass, gathered in shared memory by a bound that needs no search; should they be too many, the row itself is searched.
//
// Macros, layouts: see `sample`. Grid: rows. Block: 1024. Dynamic shared memory: 8 * 8192 = 65536 bytes.
#include "common/ptx.cuh"
#include "sample/row.cuh"

constexpr u32 THREADS = 1024, WARPS = 32, CAPACITY = 8192, DIGITS = 11, BINS = 1 << DIGITS;
constexpr u32 FULL = 0xffffffffu;
constexpr u32 NOTHING = 0x007fffffu;  // order(-inf): keys above it belong to logits that count

struct Candidates {
    const u32 *keys, *tokens;  // in shared memory
    const float *row;          // or the whole row, when not null
    u32 count;

    __device__ __forceinline__ u32 key(u32 i) const { return row ? order(__ldcg(row + i)) : keys[i]; }
    __device__ __forceinline__ u32 token(u32 i) const { return row ? i : tokens[i]; }
};

struct Shared {
    u32 low[BINS], high[BINS];  // the sums of the histogram, in halves
    u64 sums[WARPS];
    u64 above;
    u32 digit, count;
};

__device__ __forceinline__ u64 block_sum(u64 value, Shared &shared) {
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.sums[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_sum(shared.sums[threadIdx.x % 32]);
}

// Two 32-bit additions and a carry: 64-bit ones in shared memory would be loops.
__device__ __forceinline__ void add_to_bin(Shared &shared, u32 bin, u64 amount) {
    u32 low = (u32)amount, high = (u32)(amount >> 32);
    u32 old = atomicAdd(&shared.low[bin], low);
    high += old + low < old;
    if (high) atomicAdd(&shared.high[bin], high);
}

// The same for a warp, whose lanes often meet in one bin. Amounts are at most UNIT.
__device__ __forceinline__ void add_to_bins(Shared &shared, u32 bin, u64 amount) {
    u32 adding = __ballot_sync(FULL, amount != 0);
    if (adding == 0) return;
    u32 first = __ffs(adding) - 1, common = __shfl_sync(FULL, bin, first);
    if (__all_sync(FULL, amount == 0 || bin == common)) {
        u32 low = __reduce_add_sync(FULL, (u32)amount & 0x3fffffu), high = __reduce_add_sync(FULL, (u32)(amount >> 22));
        if (threadIdx.x % 32 == first) add_to_bin(shared, common, low + ((u64)high << 22));
    } else if (amount != 0) {
        add_to_bin(shared, bin, amount);
    }
}

struct Selected {
    bool found;
    u32 key;        // the largest at which the sum reaches what is wanted
    u64 remaining;  // wanted, less the sum over larger keys: at least 1
};

// `sort_key(key, token)` has BITS bits, `amount(key, token)` is at most UNIT; `extra` is added at `extra_key`. All threads come here.
template <u32 BITS, class Key, class Amount>
__device__ Selected select(Shared &shared, const Candidates &candidates, u64 wanted, Key sort_key, Amount amount, u32 extra_key = 0, u64 extra = 0) {
    u32 prefix = 0;
    for (u32 left = BITS; left > 0;) {
        u32 width = min(left, DIGITS), shift = left - width, mask = (1 << width) - 1;
        for (u32 i = threadIdx.x; i < BINS; i += THREADS) shared.low[i] = shared.high[i] = 0;
        __syncthreads();
        if (threadIdx.x == 0) shared.digit = BINS;
        for (u32 start = 0; start < candidates.count; start += THREADS) {
            u32 i = start + threadIdx.x, bin = 0;
            u64 adding = 0;
            if (i < candidates.count) {
                u32 key = candidates.key(i), token = candidates.token(i), by = sort_key(key, token);
                bin = by >> shift & mask;
                if ((u64)by >> left == prefix) adding = amount(key, token);
            }
            add_to_bins(shared, bin, adding);
        }
        if (threadIdx.x == 0 && extra && (u64)extra_key >> left == prefix) add_to_bin(shared, extra_key >> shift & mask, extra);
        __syncthreads();

        // Thread t has bins BINS - 1 - 2t and the one below; one thread finds where the sum from above reaches what is wanted.
        u32 bin = BINS - 1 - 2 * threadIdx.x;
        u64 upper = (u64)shared.high[bin] << 32 | shared.low[bin], lower = (u64)shared.high[bin - 1] << 32 | shared.low[bin - 1];
        u64 scanned = warp_scan(upper + lower);
        if (threadIdx.x % 32 == 31) shared.sums[threadIdx.x / 32] = scanned;
        __syncthreads();
        u64 warp = warp_scan(shared.sums[threadIdx.x % 32]);
        if (threadIdx.x >= 32) scanned += __shfl_sync(FULL, warp, threadIdx.x / 32 - 1);
        u64 before = scanned - upper - lower;
        if (before < wanted && wanted <= scanned) {
            bool in_upper = before + upper >= wanted;
            shared.digit = in_upper ? bin : bin - 1;
            shared.above = in_upper ? before : before + upper;
        }
        __syncthreads();
        if (shared.digit == BINS) return {false, 0, 0};
        prefix = prefix << width | shared.digit;
        wanted -= shared.above;
        left = shift;
    }
    return {true, prefix, wanted};
}

__device__ constexpr u32 bits_of(u32 number) { return number ? 1 + bits_of(number / 2) : 0; }
constexpr u32 TOKEN_BITS = VOCAB > 1 ? bits_of(VOCAB - 1) : 1;

// The least key whose logit has exp((logit - max) / temperature) >= min_p, in the host's arithmetic. One thread.
__device__ u32 least_key(float max, float temperature, float min_p) {
    auto passes = [&](u32 key) { return exp(((double)unorder(key) - (double)max) / (double)temperature) >= (double)min_p; };
    u32 fails = NOTHING, holds = order(max), near = order(max + temperature * logf(min_p));
    if (near < holds && near > NOTHING + 16) {
        if (near + 16 < holds && passes(near + 16)) holds = near + 16;
        if (!passes(near - 16)) fails = near - 16;
    }
    while (holds - fails > 1) {
        u32 middle = fails + (holds - fails) / 2;
        if (passes(middle)) holds = middle;
        else fails = middle;
    }
    return holds;
}

// Every four logits of a row, of which the threads have several under way.
template <class Body>
__device__ __forceinline__ void for_logits(const float *row, Body body) {
    for (u32 start = 4 * threadIdx.x; start < VOCAB; start += 16 * THREADS) {
        float4 x[4];
#pragma unroll
        for (u32 v = 0; v < 4; v++) x[v] = load_logits(row, start + 4 * THREADS * v);
#pragma unroll
        for (u32 v = 0; v < 4; v++) body(start + 4 * THREADS * v, x[v]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
filter(SampleResult *results, u32 *sampled, const float *logits, const SampleRow *sample_rows, const Adjustment *adjustments,
       const float *processed, const Partial *partials, const u32 *arrived, u32 rows) {
    pdl_launch();
    u32 r = blockIdx.x;
    if (r >= rows) return;
    __shared__ Shared shared;
    extern __shared__ u32 list[];
    u32 *keys = list, *tokens = list + CAPACITY;
    pdl_wait();
    const SampleRow row = sample_rows[r];
    if (!row.active || !is_filtered(row) || results[r].status != SAMPLE_OK) return;
    const float *raw = logits + (u64)row.logits * STRIDE;
    const float *from = row.adjustment_count > 0 || row.last >= 0 ? processed + (u64)r * STRIDE : raw;
    u64 best = 0;
    for (u32 s = threadIdx.x % 32; s < SLICES; s += 32) best = max(best, partials[r * SLICES + s].best);
    best = warp_max(best);
    float max_logit = best_logit(best), scale = weight_scale(row.temperature);
    bool top_k = row.top_k > 0 && row.top_k < VOCAB, top_p = row.top_p < 1.0f;

    auto by_logit = [](u32 key, u32) { return key; };
    auto by_token = [](u32, u32 token) { return VOCAB - 1 - token; };  // lower ids first

    // First look at the row: each thread's largest logit, and the sum of weights, which is top-p's whole without top-k.
    u32 largest = NOTHING;
    u64 total = 0;
    for_logits(from, [&](u32, float4 x) {
        largest = max(max(largest, max(order(x.x), order(x.y))), max(order(x.z), order(x.w)));
        if (top_p && !top_k) {
            total += weight(x.x, max_logit, scale) + weight(x.y, max_logit, scale);
            total += weight(x.z, max_logit, scale) + weight(x.w, max_logit, scale);
        }
    });
    total = block_sum(total, shared);
    u32 min_p_key = NOTHING + 1;
    if (row.min_p > 0.0f) {
        if (threadIdx.x == 0) shared.digit = least_key(max_logit, row.temperature, row.min_p);
        __syncthreads();
        min_p_key = shared.digit;
    }

    // A bound that every token of the final set reaches. With top-k: the k-th largest of the threads' largest is at most the k-th largest of
    // all. Without: top-p never needs a token whose weight is below (1 - p) / VOCAB of the total, as all of those together weigh less than 1 - p
    // (half of that, for rounding); nor does min-p. (Not with top-k, whose sum for top-p has them.)
    u32 bound = NOTHING + 1;
    if (top_k && row.top_k <= THREADS) {
        keys[threadIdx.x] = largest;
        __syncthreads();
        Candidates heads = {keys, keys, nullptr, THREADS};
        Selected kth = select<32>(shared, heads, row.top_k, by_logit, [](u32 key, u32) { return (u64)(key > NOTHING); });
        if (kth.found) bound = kth.key;
        __syncthreads();
    } else if (!top_k) {
        bound = min_p_key;
        if (top_p) {
            float least = (1.0f - row.top_p) * ((float)total / (float)UNIT) * (0.5f / VOCAB);
            bound = max(bound, order(max_logit + log2f(least) / scale));
        }
    }

    // Gather what reaches it.
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    for_logits(from, [&](u32 token, float4 x) {
        u32 four[4] = {order(x.x), order(x.y), order(x.z), order(x.w)}, mine = 0;
#pragma unroll
        for (u32 i = 0; i < 4; i++) mine += four[i] >= bound;
        if (mine == 0) return;
        u32 at = atomicAdd(&shared.count, mine);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            if (four[i] < bound) continue;
            if (at < CAPACITY) keys[at] = four[i], tokens[at] = token + i;
            at++;
        }
    });
    __syncthreads();
    Candidates candidates = {keys, tokens, nullptr, shared.count};
    if (shared.count > CAPACITY) candidates = {keys, tokens, from, VOCAB};

    // Kept are keys above `threshold`, and the `ties` lowest ids at it.
    u32 threshold = NOTHING;
    u64 ties = 0;
    auto weight_above = [&](u32 key, u32) { return key > threshold ? weight(unorder(key), max_logit, scale) : 0; };
    if (top_k) {
        Selected kth = select<32>(shared, candidates, row.top_k, by_logit, [](u32 key, u32) { return (u64)(key > NOTHING); });
        if (kth.found) threshold = kth.key, ties = kth.remaining;
    }
    if (top_p) {
        u64 tied = ties ? ties * weight(unorder(threshold), max_logit, scale) : 0;
        if (top_k) {
            u64 sum = 0;
            for (u32 i = threadIdx.x; i < candidates.count; i += THREADS) sum += weight_above(candidates.key(i), 0);
            total = block_sum(sum, shared) + tied;
        }
        u64 wanted = (u64)ceil((double)row.top_p * (double)total);
        Selected last = select<32>(shared, candidates, max(wanted, 1ull), by_logit, weight_above, threshold, tied);
        if (last.found) {
            u64 one = weight(unorder(last.key), max_logit, scale);
            threshold = last.key, ties = (last.remaining + one - 1) / one;
        }
    }
    if (min_p_key > threshold) threshold = min_p_key - 1, ties = 0;
    u32 last_tie = 0;
    if (ties) {
        Selected last = select<TOKEN_BITS>(shared, candidates, ties, by_token, [&](u32 key, u32) { return (u64)(key == threshold); });
        last_tie = VOCAB - 1 - last.key;
    }

    auto kept_weight = [&](u32 key, u32 token) {
        bool kept = key > threshold || (ties && key == threshold && token <= last_tie);
        return kept ? weight(unorder(key), max_logit, scale) : 0;
    };
    u64 sum = 0;
    for (u32 i = threadIdx.x; i < candidates.count; i += THREADS) sum += kept_weight(candidates.key(i), candidates.token(i));
    sum = block_sum(sum, shared);
    u64 target = (u64)(uniform(row.seed, row.sequence, row.position) * (double)sum);
    Selected drawn = select<TOKEN_BITS>(shared, candidates, min(target, sum - 1) + 1, by_token, kept_weight);
    if (threadIdx.x == 0) {
        u32 token = VOCAB - 1 - drawn.key;
        sampled[row.slot] = token;
        results[r].token = token;
        results[r].logit = raw[token];
    }
}
