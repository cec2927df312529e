// The search that all questions of `filter` come to.
#pragma once

#include "sample/places.cuh"

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
            meet();
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
            if (source.together()) meet();  // the others have read the sums
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
            meet();
            u32 own = count, block = block_of_cluster(), before = 0;
            count = 0;
            for (u32 b = 0; b < BLOCKS; b++) {
                if (b == block) before = count;
                count += read_in(b, small.count);
                low = min(low, read_in(b, small.lowest_of_block)), high = max(high, read_in(b, small.highest_of_block));
            }
            for (u32 i = thread; count <= room && block > 0 && i < own; i += THREADS) write_in(0, large->places[before + i], large->places[i]);
            meet();
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
    if (cluster) meet();
    return cluster ? read_in(0, small.found) : small.found;
}
