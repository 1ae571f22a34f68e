// Counts to tables, and tables to bits, in the integers of `crates/narrows/src/model`. One block; a warp to a table.
#pragma once
#include "element.cuh"

// Words of shared memory for the model's bits: 8 tables of 256 entries of at most 49 bits.
#define MODEL_WORDS 3200u
#define MAX_CELLS 2048u
#define MAX_TABLES 8u

// Mantissa bits that pay for themselves.
__device__ static inline u32 mantissa_bits(u32 symbols, u32 entries) {
    u32 bits = 0u;
    // log2 of symbols / (24 entries), halved and rounded: one more bit from every 2^(2k - 1) on.
    while (bits < 14u && (u64)symbols >= 24ull * larger(entries, 1u) << (2u * bits + 1u)) bits++;
    return bits;
}

__device__ static inline u32 log2_of(u64 value) { return 63u - (u32)__clzll((long long)value); }

// `count` out of `total`, scaled to 2^bits and rounded to `mantissa` bits.
__device__ static inline u32 weight_of(u32 count, u64 total, u32 bits, u32 mantissa) {
    if (count == 0u) return 0u;
    u64 scaled = ((u64)count << (bits + 16u)) / total;
    if (scaled < 65536u) return 1u;
    u32 exponent = log2_of(scaled) - 16u;
    u32 dropped = 16u + (exponent > mantissa ? exponent - mantissa : 0u);
    return (u32)((((scaled >> (dropped - 1u)) + 1u) >> 1) << (dropped - 16u));
}

__device__ static inline u32 exponent_of(u32 weight) { return 32u - (u32)__clz((int)weight); }

// The largest frequency, the lowest symbol of equals: every lane learns where it is.
__device__ static inline u32 largest_of(const u16* frequencies, u32 alphabet, u32 lane) {
    // Frequency above symbol, the symbol turned round, so that the largest of these is it.
    u32 best = 0u;
    for (u32 s = lane; s < alphabet; s += WARP) best = larger(best, (u32)frequencies[s] << 16 | (0xffffu - s));
    for (u32 step = 16u; step > 0u; step >>= 1) best = larger(best, __shfl_xor_sync(ALL_LANES, best, step));
    return 0xffffu - (best & 0xffffu);
}

// Frequencies of a table, made of its weights by one warp.
__device__ static inline void normalize(const u32* weights, u16* frequencies, u32 alphabet, u32 bits, u32 lane) {
    u32 present = 0u, total = 0u, full = 1u << bits;
    for (u32 s = lane; s < alphabet; s += WARP) {
        total += weights[s];
        present += weights[s] > 0u;
    }
    total = warp_sum(total);
    present = warp_sum(present);
    u32 sum = 0u;
    for (u32 s = lane; s < alphabet; s += WARP) {
        u32 w = weights[s], f = 0u;
        if (w > 0u) {
            u64 nearest = ((u64)w * full + total / 2u) / total;
            f = nearest < 1u ? 1u : nearest > full - 1u ? full - 1u : (u32)nearest;
        }
        frequencies[s] = (u16)f;
        sum += f;
    }
    sum = warp_sum(sum);
    __syncwarp();
    if (present == 1u) {
        // Read by all before one of them writes.
        u32 other = frequencies[0] > 0u ? 1u : 0u;
        __syncwarp();
        if (lane == 0u) frequencies[other] = 1u;
        __syncwarp();
        return;
    }
    i32 excess = (i32)sum - (i32)full;
    while (excess != 0) {
        u32 at = largest_of(frequencies, alphabet, lane), f = frequencies[at];
        i32 half = (i32)((f + 1u) / 2u);
        i32 change = excess < 0 ? excess : excess < half ? excess : half;
        __syncwarp();
        if (lane == 0u) frequencies[at] = (u16)((i32)f - change);
        __syncwarp();
        excess -= change;
    }
}

// Cumulative frequencies, one more than there are symbols, by one warp.
__device__ static inline void accumulate(const u16* frequencies, u16* cumulative, u32 alphabet, u32 lane) {
    u32 before = 0u;
    for (u32 base = 0u; base < alphabet; base += WARP) {
        u32 f = base + lane < alphabet ? frequencies[base + lane] : 0u;
        u32 running = warp_running_sum(f, lane);
        if (base + lane < alphabet) cumulative[base + lane] = (u16)(before + running - f);
        before += __shfl_sync(ALL_LANES, running, 31);
    }
    if (lane == 0u) cumulative[alphabet] = (u16)before;
}

// Set `count` <= 32 bits at a place of a bit stream that began as zeros.
__device__ static inline void put_bits(u32* stream, u32 at, u32 value, u32 count) {
    if (count == 0u) return;
    u32 word = at >> 5, shift = at & 31u;
    atomicOr(&stream[word], value << shift);
    if (shift + count > 32u) atomicOr(&stream[word + 1u], value >> (32u - shift));
}

// A weight as it is written: the code of its exponent's difference, and its mantissa.
struct Code {
    u32 difference;
    u32 exponent;
};

__device__ static inline Code code_of(const u32* weights, u32 s, u32 bits) {
    u32 exponent = exponent_of(weights[s]);
    i32 difference = (i32)exponent - (i32)(s == 0u ? bits : exponent_of(weights[s - 1u]));
    return Code{(u32)(difference << 1 ^ difference >> 31), exponent};
}

__device__ static inline u32 kept_bits(u32 exponent, u32 mantissa) {
    return exponent == 0u ? 0u : smaller(mantissa, exponent - 1u);
}

// The last symbol with a weight (0 if there is none), by one warp.
__device__ static inline u32 last_of(const u32* weights, u32 alphabet, u32 lane) {
    u32 last = 0u;
    for (u32 s = lane; s < alphabet; s += WARP) {
        if (weights[s] > 0u) last = s;
    }
    for (u32 step = 16u; step > 0u; step >>= 1) last = larger(last, __shfl_xor_sync(ALL_LANES, last, step));
    return last;
}

// The Rice parameter that makes the exponents of all tables shortest, by one warp.
__device__ static inline u32 best_rice(const u32* weights, u32 tables, u32 alphabet, u32 bits, u32 lane) {
    u32 lengths[4] = {0u, 0u, 0u, 0u};
    for (u32 table = 0u; table < tables; table++) {
        const u32* w = weights + table * alphabet;
        u32 last = last_of(w, alphabet, lane);
        for (u32 s = lane; s <= last; s += WARP) {
            u32 difference = code_of(w, s, bits).difference;
            for (u32 rice = 0u; rice < 4u; rice++) lengths[rice] += (difference >> rice) + 1u + rice;
        }
    }
    u32 best = 0u, shortest = 0xffffffffu;
    for (u32 rice = 0u; rice < 4u; rice++) {
        u32 length = warp_sum(lengths[rice]);
        if (length < shortest) {
            shortest = length;
            best = rice;
        }
    }
    return best;
}

// Write one table at bit `at`, by one warp; returns where it ends.
__device__ static inline u32 write_table(u32* stream, u32 at, const u32* weights, u32 alphabet, u32 bits, u32 mantissa,
                                         u32 rice, u32 lane) {
    u32 last = last_of(weights, alphabet, lane);
    if (lane == 0u) put_bits(stream, at, last, width_of(alphabet));
    at += width_of(alphabet);
    for (u32 base = 0u; base <= last; base += WARP) {
        u32 s = base + lane;
        bool on = s <= last;
        Code code = on ? code_of(weights, s, bits) : Code{0u, 0u};
        u32 ones = code.difference >> rice, kept = kept_bits(code.exponent, mantissa);
        u32 length = on ? ones + 1u + rice + kept : 0u;
        u32 running = warp_running_sum(length, lane), place = at + running - length;
        if (on) {
            put_bits(stream, place, ones == 0u ? 0u : 0xffffffffu >> (32u - ones), ones);
            put_bits(stream, place + ones + 1u, code.difference & ((1u << rice) - 1u), rice);
            if (kept > 0u) {
                u32 below = weights[s] & ((1u << (code.exponent - 1u)) - 1u);
                put_bits(stream, place + ones + 1u + rice, below >> (code.exponent - 1u - kept), kept);
            }
        }
        at += __shfl_sync(ALL_LANES, running, 31);
    }
    return at;
}

// Shared memory: weights, bits, frequencies, one word.
#define MODEL_SHARED ((MAX_CELLS + MODEL_WORDS + 64u) * 4u + MAX_CELLS * 2u)

__device__ static inline void phase_model(const EncodeJob& job, u8* shared) {
    u32* weights = (u32*)shared;
    u32* stream = weights + MAX_CELLS;
    u32* scratch = stream + MODEL_WORDS;
    u16* frequencies = (u16*)(scratch + 64u);
    u32 thread = threadIdx.x, lane = lane_of(thread), warp = thread / WARP, warps = blockDim.x / WARP;
    u32 cells = job.tables * job.alphabet, b = job.probability_bits, mine = 0u, entries;
    for (u32 i = thread; i < cells; i += blockDim.x) mine += job.counts[i] > 0u;
    block_sum_before(mine, scratch, entries);
    u32 mantissa = mantissa_bits(job.geometry.elements, entries);
    for (u32 i = thread; i < MODEL_WORDS; i += blockDim.x) stream[i] = 0u;
    for (u32 table = warp; table < job.tables; table += warps) {
        const u32* counts = job.counts + table * job.alphabet;
        u32* w = weights + table * job.alphabet;
        u16* f = frequencies + table * job.alphabet;
        u32 total = 0u;
        for (u32 s = lane; s < job.alphabet; s += WARP) total += counts[s];
        total = warp_sum(total);
        for (u32 s = lane; s < job.alphabet; s += WARP) w[s] = total == 0u ? s == 0u : weight_of(counts[s], total, b, mantissa);
        __syncwarp();
        normalize(w, f, job.alphabet, b, lane);
        accumulate(f, job.cumulative + table * (job.alphabet + 1u), job.alphabet, lane);
    }
    __syncthreads();
    if (warp == 0u) {
        u32 at = 2u;
        if (job.neighbours != 0u) {
            if (lane == 0u) {
                put_bits(stream, 0u, 1u, 2u);
                put_bits(stream, 2u, job.tables - 1u, 3u);
                for (u32 i = 0u; i + 1u < job.tables; i++) {
                    put_bits(stream, 5u + i * job.bin_width, (u32)(job.class_starts >> (8u * i)) & 255u, job.bin_width);
                }
            }
            at = 5u + (job.tables - 1u) * job.bin_width;
        }
        u32 rice = best_rice(weights, job.tables, job.alphabet, b, lane);
        if (lane == 0u) put_bits(stream, at, mantissa | rice << 4, 6u);
        at += 6u;
        for (u32 table = 0u; table < job.tables; table++) {
            at = write_table(stream, at, weights + table * job.alphabet, job.alphabet, b, mantissa, rice, lane);
        }
        if (lane == 0u) scratch[0] = at;
    }
    __syncthreads();
    u32 bytes = divide_up(scratch[0], 8u);
    for (u32 i = thread; i < bytes; i += blockDim.x) job.model[i] = (u8)(stream[i / 4u] >> (8u * (i % 4u)));
    if (thread == 0u) job.control[MODEL_BYTES] = bytes;
}
