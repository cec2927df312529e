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
#include "common/ptx.cuh"
#include "sample/row.cuh"

#ifndef BLOCKS
#define BLOCKS 1
#endif
constexpr u32 THREADS = 1024, WARPS = 32;
constexpr u32 RANKED = THREADS / 4;      // most tokens that are compared with each other
constexpr u32 LISTED = 4096 - RANKED;    // most tokens of the list
constexpr u32 BINS = 512, COPIES = 8;    // lanes add to copies of the bins, as they often meet in one bin
constexpr u32 FULL = 0xffffffffu;
constexpr u32 NOTHING = 0x007fffffu;  // order(-inf): keys above it belong to logits that count

constexpr u32 LAST = ~(VOCAB - 1u);  // the last token, as in its place

__device__ __forceinline__ u32 key_of(u64 place) { return (u32)(place >> 32); }
__device__ __forceinline__ u32 token_of(u64 place) { return ~(u32)place; }

// In the block's dynamic memory.
struct Large {
    u64 places[LISTED + RANKED];  // the list, and what a cut of it leaves
    uint4 low[BINS * COPIES / 4], high[BINS * COPIES / 4];  // the sums of the histogram, in halves; zero outside `cut`
};
static_assert(sizeof(Large) == 65536, "the host gives as much");
extern __shared__ Large large[];

__shared__ struct {
    u64 amounts[RANKED];
    u64 sums[WARPS], lowest[WARPS], highest[WARPS];
    u64 found, before;
    u32 bin, count, key;
    u16 groups[LISTED];
    u64 bins[BINS], lowest_of_block, highest_of_block;  // for the other blocks
} small;

// ---- Blocks of a cluster: the first one leads, and has what all have found ----

#if BLOCKS > 1
static_assert(BLOCKS <= 8, "portable clusters");
__device__ __forceinline__ u32 block_of_cluster() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
template <class T>
__device__ __forceinline__ u32 address_in(u32 block, const T &own) {
    u32 address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(&own)), "r"(block));
    return address;
}
__device__ __forceinline__ u64 read_in(u32 block, const u64 &own) {
    u64 value;
    asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(value) : "r"(address_in(block, own)) : "memory");
    return value;
}
__device__ __forceinline__ u32 read_in(u32 block, const u32 &own) {
    u32 value;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(address_in(block, own)) : "memory");
    return value;
}
__device__ __forceinline__ void write_in(u32 block, u64 &own, u64 value) {
    asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(address_in(block, own)), "l"(value) : "memory");
}
#else
__device__ __forceinline__ u32 block_of_cluster() { return 0; }
__device__ __forceinline__ void cluster_sync() {}
__device__ __forceinline__ u64 read_in(u32, const u64 &own) { return own; }
__device__ __forceinline__ u32 read_in(u32, const u32 &own) { return own; }
__device__ __forceinline__ void write_in(u32, u64 &own, u64 value) { own = value; }
#endif

// Where tokens are: `count` logits (or heads), or, should there be none of those, places in shared memory.
struct Source {
    const float *values;
    u32 list, count;
    bool shared;  // the blocks of the cluster have a part each; else this block has all

    __device__ __forceinline__ bool together() const { return BLOCKS > 1 && shared; }

    // Those in an interval, and more: four places at a time, lower ones than all tokens' where there is nothing.
    template <class Body>
    __device__ __forceinline__ void each(u64 low, u64 high, Body body) const {
        if (!values) {
            for (u32 i = threadIdx.x; i < count; i += THREADS) {
                const u64 places[4] = {large->places[list + i], 0, 0, 0};
                const float x[4] = {unorder(key_of(places[0])), 0.0f, 0.0f, 0.0f};
                body(places, x);
            }
            return;
        }
        // Where only ids are left to decide, they are an interval.
        bool ids = key_of(low) == key_of(high);
        u32 first = ids ? token_of(high) : 0, end = ids ? min(token_of(low) + 1, count) : count;
        u32 thread = threadIdx.x, threads = THREADS;
        if (together()) thread += block_of_cluster() * THREADS, threads *= BLOCKS;
        for (u32 start = (first & ~3u) + 4 * thread; start < end; start += 16 * threads) {
            float4 x[4];
#pragma unroll
            for (u32 v = 0; v < 4; v++) x[v] = load_logits(values, start + 4 * threads * v, count);
#pragma unroll
            for (u32 v = 0; v < 4; v++) {
                u32 token = start + 4 * threads * v;
                const u64 places[4] = {place(x[v].x, token), place(x[v].y, token + 1), place(x[v].z, token + 2), place(x[v].w, token + 3)};
                const float four[4] = {x[v].x, x[v].y, x[v].z, x[v].w};
                body(places, four);
            }
        }
    }
    static __device__ __forceinline__ u64 place(float x, u32 token) { return (u64)order(x) << 32 | (u32)~token; }
};

// What a token adds: its weight. One, in units of weight, where logits count for nothing.
struct Amount {
    float max, scale;

    __device__ __forceinline__ u64 operator()(float x) const { return weight(x, max, scale); }
};
constexpr Amount ONE = {0.0f, 0.0f};

// The division of an interval of places, from the highest down: even in logits where those vary much, in places otherwise.
struct Bins {
    u64 low, high;
    float top, factor;
    u32 shift;

    __device__ Bins(u64 low, u64 high) : low(low), high(high), top(0.0f), factor(0.0f), shift(0) {
        if (key_of(high) - key_of(low) >= 1u << 24) {
            float half = 0.5f * unorder(key_of(high));  // halves have a finite difference
            factor = fminf(BINS / (half - 0.5f * unorder(key_of(low))), 3e38f);
            top = half * factor, factor *= 0.5f;
        } else if (high > low) {
            u32 bits = 64 - __clzll(high - low);
            shift = bits > 9 ? bits - 9 : 0;
        }
    }
    __device__ __forceinline__ bool even_in_logits() const { return factor > 0.0f; }
    // Never falls as logits fall.
    __device__ __forceinline__ u32 of(float x) const { return min((u32)fmaf(-factor, x, top), BINS - 1); }

    // The least key in `bin` or in one above it. Each warp looks at 32 keys at a time.
    __device__ u32 least_key(u32 bin) const {
        u32 from = key_of(low), to = key_of(high);
        while (from < to) {
            u32 step = (to - from) / 32 + 1, key = min(from + step * (threadIdx.x % 32), to);
            u32 first = __ffs(__ballot_sync(FULL, key == to || of(unorder(key)) <= bin)) - 1;  // 0: none
            if (first == FULL) {
                from += 31 * step + 1;
            } else {
                to = min(from + step * first, to);
                if (first > 0) from += step * (first - 1) + 1;
            }
        }
        return to;
    }
    // The places of `bin`.
    __device__ void narrow(u32 bin, u64 &least, u64 &most) const {
        if (even_in_logits()) {
            least = max(low, (u64)least_key(bin) << 32);
            if (bin > 0) most = ((u64)least_key(bin - 1) << 32) - 1;
        } else {
            most = high - ((u64)bin << shift);
            least = max(low, most - (1ull << shift) + 1);
        }
    }
};
static_assert(BINS == 1 << 9, "the shift leaves nine bits");

// Two 32-bit additions and a carry: 64-bit ones in shared memory would be loops. `copies`: the address of this lane's copy of bin 0.
__device__ __forceinline__ void add_to_bin(u32 copies, u32 bin, u64 amount) {
    u32 at = copies + bin * (COPIES * 4), low = (u32)amount, high = (u32)(amount >> 32), old;
    asm volatile("atom.shared.add.u32 %0, [%1], %2;" : "=r"(old) : "r"(at), "r"(low) : "memory");
    high += old + low < old;
    if (high) asm volatile("red.shared.add.u32 [%0], %1;" ::"r"(at + (u32)sizeof(large->low)), "r"(high) : "memory");
}

// The members of four places, given by bits, to a list that keeps the first `room`; the count passes that if there are more.
__device__ __forceinline__ void append(u32 list, u32 room, const u64 (&places)[4], u32 members) {
    if (members == 0 || *(volatile u32 *)&small.count > room) return;
    u32 at = atomicAdd(&small.count, __popc(members));
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (!(members >> i & 1)) continue;
        if (at < room) large->places[list + at] = places[i];
        at++;
    }
}

// The place from `low` to `high` at which the sum of amounts reaches `wanted`, or, should that be 0, a share of their total; 0 if none does.
// With BY_TOKEN places count by id alone, those from `least` on, and it is the place at which the sum exceeds that share. All threads come here.
template <bool BY_TOKEN>
__device__ __noinline__ u64 cut(Source source, u64 low, u64 high, Amount amount, u64 wanted, double share = 0.0, u64 least = 0) {
    auto rank = [](u64 place) { return BY_TOKEN ? (u64)(u32)place : place; };
    auto inside = [&](u64 place) {
        return BY_TOKEN ? (u32)high - (u32)place <= (u32)high - (u32)low && place >= least : place >= low && place <= high;
    };
    auto amount_inside = [&](u64 place, float x) {
        u64 adding = amount(x);
        return inside(place) ? adding : 0;
    };
    auto want = [&](u64 total) {
        if (wanted) return;
        wanted = BY_TOKEN ? min((u64)(share * (double)total), total - 1) + 1 : max((u64)ceil(share * (double)total), 1ull);
    };
    u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    u32 copies = shared_address(large->low) + 4 * (thread % COPIES);
    const bool cluster = source.together();
    __syncthreads();
    while (source.values || source.count > RANKED) {
        Bins bins(low, high);
        source.each(low, high, [&](const u64 (&places)[4], const float (&x)[4]) {
            u64 amounts[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) amounts[i] = amount_inside(places[i], x[i]);
            if (BY_TOKEN) {
                // Neighbours are mostly of one bin.
                u32 bin[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) bin[i] = ((u32)high - (u32)places[i]) >> bins.shift;
#pragma unroll
                for (u32 i = 0; i < 3; i++) {
                    if (bin[i] == bin[i + 1]) amounts[i + 1] += amounts[i], amounts[i] = 0;
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    if (amounts[i]) add_to_bin(copies, bin[i], amounts[i]);
                }
            } else if (bins.even_in_logits()) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    if (amounts[i]) add_to_bin(copies, bins.of(x[i]), amounts[i]);
                }
            } else {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    if (amounts[i]) add_to_bin(copies, (u32)((high - places[i]) >> bins.shift), amounts[i]);
                }
            }
        });
        __syncthreads();

        u64 mine = 0;
        if (thread < BINS) {
#pragma unroll
            for (u32 i = thread * COPIES / 4; i < (thread + 1) * COPIES / 4; i++) {
                uint4 a = large->low[i], b = large->high[i];
                mine += (u64)a.x + a.y + a.z + a.w + ((u64)(b.x + b.y + b.z + b.w) << 32);
                large->low[i] = large->high[i] = make_uint4(0, 0, 0, 0);
            }
        }
        if (thread == 0) small.count = 0;
        if (source.together()) {
            if (thread < BINS) small.bins[thread] = mine;
            cluster_sync();
            mine = 0;
            for (u32 b = 0; b < BLOCKS && thread < BINS; b++) mine += read_in(b, small.bins[thread]);
        }
        u64 scanned = warp_scan(mine);
        if (lane == 31) small.sums[warp] = scanned;
        __syncthreads();
        u64 warps = warp_scan(small.sums[lane]), total = __shfl_sync(FULL, warps, 31);
        scanned += __shfl_sync(FULL, warps, (warp + 31) % 32) * (warp > 0);
        want(total);
        if (wanted > total) {
            if (source.together()) cluster_sync();  // the others have read the sums
            return 0;
        }
        if (scanned - mine < wanted && wanted <= scanned) small.bin = thread, small.before = scanned - mine;
        __syncthreads();

        // On with the tokens of that bin: in a list of their own, if they fit one.
        u32 bin = small.bin, room = source.values ? LISTED : RANKED, list = source.values ? 0 : LISTED;
        u64 lowest = ~0ull, highest = 0;
        wanted -= small.before;
        bins.narrow(bin, low, high);
        source.each(low, high, [&](const u64 (&places)[4], const float (&x)[4]) {
            u32 members = 0;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                if (!inside(places[i]) || amount(x[i]) == 0) continue;
                lowest = min(lowest, rank(places[i])), highest = max(highest, rank(places[i]));
                members |= 1 << i;
            }
            append(list, room, places, members);
        });
        lowest = ~warp_max(~lowest), highest = warp_max(highest);
        if (lane == 0) small.lowest[warp] = lowest, small.highest[warp] = highest;
        __syncthreads();
        low = ~warp_max(~small.lowest[lane]), high = warp_max(small.highest[lane]);
        u32 count = small.count;
        if (source.together()) {
            // The leader lists what the blocks have listed, one after the other, and goes on alone.
            if (thread == 0) small.lowest_of_block = low, small.highest_of_block = high;
            cluster_sync();
            u32 own = count, block = block_of_cluster(), before = 0;
            count = 0;
            for (u32 b = 0; b < BLOCKS; b++) {
                if (b == block) before = count;
                count += read_in(b, small.count);
                low = min(low, read_in(b, small.lowest_of_block)), high = max(high, read_in(b, small.highest_of_block));
            }
            for (u32 i = thread; count <= room && block > 0 && i < own; i += THREADS) write_in(0, large->places[before + i], large->places[i]);
            cluster_sync();
            if (count <= room) source = {nullptr, list, block > 0 ? 0 : count, false};
        } else if (count <= room) {
            source = {nullptr, list, count, false};
        }
    }

    // Four threads for each token that is left add up what stands before it.
    u64 own = 0, before = 0, total = 0;
    if (thread < source.count) {
        u64 place = large->places[source.list + thread];
        small.amounts[thread] = amount_inside(place, unorder(key_of(place)));
    }
    if (thread == 0) small.found = 0;
    __syncthreads();
    u32 i = thread / 4;
    if (i < source.count) {
        own = large->places[source.list + i];
        for (u32 j = thread % 4; j < source.count; j += 4) {
            u64 adding = small.amounts[j];
            total += adding;
            if (rank(large->places[source.list + j]) > rank(own)) before += adding;
        }
    }
#pragma unroll
    for (u32 step = 1; step < 4; step *= 2) before += __shfl_xor_sync(FULL, before, step), total += __shfl_xor_sync(FULL, total, step);
    if (i < source.count && thread % 4 == 0) {
        want(total);
        if (before < wanted && wanted <= before + small.amounts[i]) small.found = own;
    }
    __syncthreads();
    if (cluster) cluster_sync();
    return cluster ? read_in(0, small.found) : small.found;
}

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
    if (source.together()) cluster_sync();  // nobody leaves whose memory is read
    if (threadIdx.x == 0 && block_of_cluster() == 0) {
        u32 token = token_of(drawn);
        sampled[row.slot] = token;
        results[r].token = token;
        results[r].logit = raw[token];
    }
}
