// What decoding looks symbols up in: made in shared memory by every block, of the tables' cumulative frequencies.
#pragma once
#include "element.cuh"

// Bits of the probabilities where every slot has an entry: one table, and at most 16 kinds of symbols.
#define SLOT_BITS 12u

// Where in shared memory they begin.
struct DecodeTables {
    // DIRECT, of u32: frequency, bias and symbol in one word for every slot.
    u32 slots;
    // Otherwise, of u32, frequency and cumulative frequency (in the upper half) of each symbol of each table;
    u32 entries;
    // in segments, where alphabets may be large, of u16 the cumulative frequencies alone;
    u32 cumulative;
    // and each bucket's first symbol: a byte, or two where alphabets need them.
    u32 buckets;
    // Of u32: for each bin of the neighbours' sum the first bucket of its table, and the first entry (in the upper half).
    u32 classes;
    // What follows all of them. The bits of each symbol's value, with one channel, begin the memory.
    u32 end;
};

__device__ static inline u32 slot_entry(u32 symbol, u32 frequency, u32 bias) {
    return frequency << 20 | bias << 8 | symbol;
}

// Of each run of places, first to last, by its number: a warp takes as many runs as there are for it, and its lanes lie side by
// side in each.
template <typename Run, typename Put>
__device__ static inline void for_each_run(u32 count, Run run, Put put) {
    u32 lane = lane_of(threadIdx.x), warps = blockDim.x / WARP, each = smaller(divide_up(count, warps), WARP);
    for (u32 base = threadIdx.x / WARP * each; base < count; base += warps * each) {
        u32 i = base + lane, first = 0u, end = 0u;
        if (lane < each && i < count) run(i, first, end);
        for (u32 k = 0u; k < each; k++) {
            u32 from = __shfl_sync(ALL_LANES, first, (int)k), to = __shfl_sync(ALL_LANES, end, (int)k);
            for (u32 at = from + lane; at < to; at += WARP) put(base + k, at, from);
        }
    }
}

__device__ static inline void fill_slots(const DecodeJob& job, u32* slots) {
    const u16* c = job.cumulative;
    auto run = [&](u32 symbol, u32& first, u32& end) {
        first = c[symbol];
        end = c[symbol + 1u];
    };
    for_each_run(job.alphabet, run, [&](u32 symbol, u32 at, u32 first) {
        slots[at] = slot_entry(symbol, c[symbol + 1u] - first, at - first);
    });
}

__device__ static inline u32 buckets_each(const DecodeJob& job) { return 1u << (job.probability_bits - job.bucket_shift); }

// Where a symbol of a table begins.
__device__ static inline const u16* cumulative_of(const DecodeJob& job, u32 i) {
    return job.cumulative + i / job.alphabet * (job.alphabet + 1u) + i % job.alphabet;
}

// A symbol is its bucket's first if the bucket begins in its slots.
__device__ static inline void fill_buckets(const DecodeJob& job, u8* buckets, bool wide) {
    u32 each = buckets_each(job), up = (1u << job.bucket_shift) - 1u;
    auto run = [&](u32 i, u32& first, u32& end) {
        const u16* c = cumulative_of(job, i);
        first = i / job.alphabet * each + ((c[0] + up) >> job.bucket_shift);
        end = i / job.alphabet * each + ((c[1] + up) >> job.bucket_shift);
    };
    for_each_run(job.tables * job.alphabet, run, [&](u32 i, u32 at, u32) {
        if (wide) ((u16*)buckets)[at] = (u16)(i % job.alphabet); else buckets[at] = (u8)(i % job.alphabet);
    });
}

// `src/launch/decode.rs` computes the same size.
__device__ static inline DecodeTables build_decode_tables(const DecodeJob& job) {
    DecodeTables t = {};
    u32 thread = threadIdx.x, threads = blockDim.x;
    if (job.channels == 1u && job.dtype != SYMBOLS) {
        t.end = job.alphabet * 4u;
        for (u32 s = thread; s < job.alphabet; s += threads) shared_at<u32>(0u)[s] = value_bits(job.maps[0], s, job.dtype);
    }
    if (job.bucket_shift == DIRECT) {
        t.slots = t.end;
        t.end += 4u << SLOT_BITS;
        fill_slots(job, shared_at<u32>(t.slots));
        return t;
    }
    u32 each = buckets_each(job), cells = job.tables * job.alphabet;
    if (job.chooser == NEIGHBOURS) {
        t.classes = t.end;
        t.end += 64u * 4u;
        if (thread < 64u) shared_at<u32>(t.classes)[thread] = job.classes[thread] * (job.alphabet << 16 | each);
    }
    if (job.chooser == SEGMENTS) {
        u32 count = cells + job.tables;
        t.cumulative = t.end;
        t.end += (count + 1u) / 2u * 4u;
        for (u32 i = thread; i < count; i += threads) shared_at<u16>(t.cumulative)[i] = job.cumulative[i];
    } else {
        t.entries = t.end;
        t.end += cells * 4u;
        for (u32 i = thread; i < cells; i += threads) {
            const u16* c = cumulative_of(job, i);
            shared_at<u32>(t.entries)[i] = (u32)c[0] << 16 | (u32)(c[1] - c[0]);
        }
    }
    bool wide = job.alphabet > 256u;
    t.buckets = t.end;
    t.end += (job.tables * each * (1u + wide) + 3u) / 4u * 4u;
    fill_buckets(job, shared_at<u8>(t.buckets), wide);
    return t;
}

// A symbol, its frequency, and the slot's distance from its first.
struct Found {
    u32 symbol;
    u32 frequency;
    u32 bias;
};

__device__ static inline Found find_in_slots(const DecodeTables& t, u32 slot) {
    u32 entry = shared_at<u32>(t.slots)[slot];
    return Found{entry & 0xffu, entry >> 20, entry >> 8 & 0xfffu};
}

template <bool WIDE>
__device__ static inline u32 first_of_bucket(const DecodeJob& job, const DecodeTables& t, u32 bucket) {
    if (WIDE && job.alphabet > 256u) return shared_at<u16>(t.buckets)[bucket];
    return shared_at<u8>(t.buckets)[bucket];
}

// From the bucket's first symbol on; `base` is the table's first bucket, and its first entry in the upper half. Ends at the
// latest where the table does, since its last symbol ends above every slot.
template <bool WIDE>
__device__ static inline Found find_in_entries(const DecodeJob& job, const DecodeTables& t, u32 base, u32 slot) {
    u32 symbol = first_of_bucket<WIDE>(job, t, (base & 0xffffu) + (slot >> job.bucket_shift));
    const u32* entry = shared_at<u32>(t.entries) + (base >> 16) + symbol;
    u32 bias = slot - (*entry >> 16), frequency = *entry & 0xffffu;
    while (bias >= frequency) {
        entry++;
        symbol++;
        bias = slot - (*entry >> 16);
        frequency = *entry & 0xffffu;
    }
    return Found{symbol, frequency, bias};
}

__device__ static inline Found find_in_segment(const DecodeJob& job, const DecodeTables& t, u32 table, u32 slot) {
    const u16* c = shared_at<u16>(t.cumulative) + table * (job.alphabet + 1u);
    u32 symbol = first_of_bucket<true>(job, t, table * buckets_each(job) + (slot >> job.bucket_shift));
    u32 low = c[symbol], high = c[symbol + 1u];
    while (high <= slot) {
        symbol++;
        low = high;
        high = c[symbol + 1u];
    }
    return Found{symbol, high - low, slot - low};
}
