// Sampling, second kernel: the token of rows with top-k, top-p or min-p. Follows `sample` on the same arguments; other rows return at once.
//
// A token's place is its logit's order above its id's, lower ids higher: unique, and the order in which top-k and top-p take tokens. Every
// question is the same one, `cut`: of tokens from the highest place down, at which does the sum of their amounts reach a given one? Top-k sums
// ones, top-p weights; the draw sums the weights of what is kept, in the order of ids alone. A cut histograms the interval that holds the answer
// into 512 bins, goes on in one of them, and compares all pairs once few tokens are left. Sums are integers: no order of summation matters.
//
// Of a row, its heads are looked at first (see `sample`: every sixteenth logit or so, the largest ones among them). The cut of the heads bounds that
// of the row from below, and only where a head reaches the bound need the row be read: those tokens are listed in shared memory. A row of which
// too many tokens reach the bound is searched itself.
//
// Macros: those of `sample`; BLOCKS (default 1): as many blocks, a cluster, search a row; above 1 for few rows, on sm_90 and later. The token is the
// same whatever it is. Layouts: see `sample`. Grid: (BLOCKS, rows). Block: 1024. Dynamic shared memory: 65536 bytes.
#include "sample/cut.cuh"

// The tokens from place `low` on, found by the heads that reach it; or the whole row if they are too many. All threads come here.
__device__ __forceinline__ Source list_from(const float *heads, const float *row, u64 low) {
    const Source whole = {row, 0, VOCAB, true};
    float bound = unorder(key_of(low));
    __syncthreads();
    if (threadIdx.x == 0) small.count = 0;
    __syncthreads();
    for (u32 start = 4 * threadIdx.x; start < HEADS; start += 4 * THREADS) {
        float4 x = load_logits(heads, start, HEADS);
        const float four[4] = {x.x, x.y, x.z, x.w};
        u32 members = 0;
#pragma unroll
        for (u32 i = 0; i < 4; i++) members |= (u32)(four[i] >= bound) << i;
        if (members == 0 || *(volatile u32 *)&small.count > LISTED) continue;
        u32 at = atomicAdd(&small.count, __popc(members));
        for (u32 i = 0; i < 4; i++) {
            if (!(members >> i & 1)) continue;
            if (at < LISTED) small.groups[at] = (u16)(start + i);
            at++;
        }
    }
    __syncthreads();
    u32 groups = small.count;
    if (groups > LISTED) return whole;
    __syncthreads();
    if (threadIdx.x == 0) small.count = 0;
    __syncthreads();
    // A head's sixteen logits lie as `sample` has read them.
    for (u32 i = threadIdx.x; i < 4 * groups; i += THREADS) {
        u32 head = small.groups[i / 4], token = head / HEADS_PER_SLICE * SLICE + 4 * (head % HEADS_PER_SLICE + HEADS_PER_SLICE * (i % 4));
        float4 x = load_logits(row, token);
        const u64 places[4] = {Source::place(x.x, token), Source::place(x.y, token + 1), Source::place(x.z, token + 2), Source::place(x.w, token + 3)};
        u32 members = 0;
#pragma unroll
        for (u32 j = 0; j < 4; j++) members |= (u32)(places[j] >= low) << j;
        append(0, LISTED, places, members);
    }
    __syncthreads();
    return small.count <= LISTED ? Source{nullptr, 0, small.count, false} : whole;
}

// The least key whose logit has exp((logit - max) / temperature) >= min_p, in the host's arithmetic. One warp.
__device__ u32 least_key(float max, float temperature, float min_p) {
    auto passes = [&](u32 key) { return exp(((double)unorder(key) - (double)max) / (double)temperature) >= (double)min_p; };
    u32 fails = NOTHING, holds = order(max), near = order(max + temperature * logf(min_p));
    // It is mostly within 16 of the f32 result.
    u32 key = near - 16 + threadIdx.x % 32;
    u32 passing = __ballot_sync(FULL, near > NOTHING + 16 && key <= holds && passes(key));
    if (passing) {
        u32 first = __ffs(passing) - 1;
        holds = near - 16 + first;
        if (first > 0) return holds;
    }
    while (holds - fails > 1) {
        u32 middle = fails + (holds - fails) / 2;
        if (passes(middle)) holds = middle;
        else fails = middle;
    }
    return holds;
}

extern "C" __global__ void __launch_bounds__(THREADS)
#if BLOCKS > 1
__cluster_dims__(BLOCKS, 1, 1)
#endif
filter(SampleResult *results, u32 *sampled, const float *logits, const SampleRow *sample_rows, const Adjustment *adjustments,
       const float *processed, const Partial *partials, const u32 *arrived, u32 rows) {
    pdl_launch();
    u32 r = blockIdx.y, lane = threadIdx.x % 32;
    if (r >= rows) return;
    for (u32 i = threadIdx.x; i < BINS * COPIES / 4; i += THREADS) large->low[i] = large->high[i] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x == 0) small.count = 0;
    pdl_wait();
    const SampleRow row = sample_rows[r];
    if (!row.active || !is_filtered(row) || results[r].status != SAMPLE_OK) return;
    const float *raw = logits + (u64)row.logits * STRIDE;
    const float *from = row.adjustment_count > 0 || row.last >= 0 ? processed + (u64)r * STRIDE : raw;
    const float *heads = (const float *)(partials + (u64)rows * SLICES) + (u64)r * HEADS;
    bool top_k = row.top_k > 0 && row.top_k < VOCAB, top_p = row.top_p < 1.0f;

    // The row's largest and smallest logit, and the sum of its weights: top-p's whole without top-k.
    const Partial *parts = partials + (u64)r * SLICES;
    u64 best = 0, whole = 0;
    u32 smallest = ~0u;
    for (u32 s = lane; s < SLICES; s += 32) best = max(best, parts[s].best), smallest = min(smallest, order(parts[s].smallest));
    best = warp_max(best);
    float max_logit = best_logit(best), scale = weight_scale(row.temperature);
    for (u32 s = lane; s < SLICES; s += 32) whole += (u64)(share_of(parts[s], max_logit, scale) * (double)parts[s].weight);
    whole = warp_sum(whole);
    smallest = __reduce_min_sync(FULL, smallest);
    u32 min_p_key = smallest;
    if (row.min_p > 0.0f) {
        if (threadIdx.x < 32) small.key = least_key(max_logit, row.temperature, row.min_p);
        __syncthreads();
        min_p_key = max(min_p_key, small.key);
    }

    // A bound that every token of the final set reaches. Heads are tokens: as many of the row reach the k-th of them, and as much weight stands
    // above the head at which theirs reaches top-p's share. Also, top-p never needs a token whose weight is below (1 - p) / VOCAB of the total,
    // as all of those together weigh less than 1 - p (half of that, for rounding); nor does min-p. (Not with top-k, whose sum for top-p has them.)
    u64 high = (u64)order(max_logit) << 32 | FULL, low = (u64)smallest << 32 | LAST;
    u64 wanted_weight = max((u64)ceil((double)row.top_p * (double)whole), 1ull);
    u32 bound = top_k ? smallest : min_p_key;
    Amount weights = {max_logit, scale};
    if (top_k ? row.top_k <= LISTED : top_p) {
        u64 head = cut<false>({heads, 0, HEADS, false}, low, high, top_k ? ONE : weights, top_k ? row.top_k * UNIT : wanted_weight);
        bound = max(bound, key_of(head));
        if (!top_k) {
            float least = (1.0f - row.top_p) * ((float)whole / (float)UNIT) * (0.5f / VOCAB);
            bound = max(bound, order(max_logit + log2f(least) / scale));
        }
    }
    bound -= bound == order(0.0f);  // heads have no -0
    low = (u64)bound << 32 | LAST;

    // The blocks of a cluster have come here with the same; a list is for one of them.
    Source source = list_from(heads, from, low);
    if (!source.values && block_of_cluster() > 0) return;

    u64 threshold = low;  // kept are the places from here
    if (top_k) threshold = max(threshold, cut<false>(source, low, high, ONE, row.top_k * UNIT));
    if (top_p) {
        threshold = max(threshold, cut<false>(source, threshold, high, weights, top_k ? 0 : wanted_weight, row.top_p));
    }
    threshold = max(threshold, (u64)min_p_key << 32);
    double share = uniform(row.seed, row.sequence, row.position);
    u64 drawn = cut<true>(source, LAST, FULL, weights, 0, share, threshold);
    if (source.together()) meet();  // nobody leaves whose memory is read
    if (threadIdx.x == 0 && block_of_cluster() == 0) {
        u32 token = token_of(drawn);
        sampled[row.slot] = token;
        results[r].token = token;
        results[r].logit = raw[token];
    }
}
