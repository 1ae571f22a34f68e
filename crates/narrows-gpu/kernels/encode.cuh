// Symbols to words: a warp is a chunk, last row first, words written backward from where the chunk's room ends.
//
// Bound by the latency of one row after the other: compare, vote, count, multiply, add. Table entries do not depend on
// the state, and are on their way before they are needed.
#pragma once
#include "quantize.cuh"
#include "model.cuh"

// What coding a symbol needs: frequency and cumulative frequency, and the reciprocal of the frequency.
struct EncodeEntry {
    u32 frequency_and_low;
    u32 reciprocal;
};

// x / f, exactly: the reciprocal's product is the quotient or one less.
__device__ static inline u32 divide(u32 x, u32 f, u32 reciprocal, u32& remainder) {
    u32 quotient = __umulhi(x, reciprocal);
    remainder = x - quotient * f;
    if (remainder >= f) {
        quotient++;
        remainder -= f;
    }
    return quotient;
}

// `coded` holds the symbols in coded order: bytes, or two bytes each for the modified CSR.
template <typename Symbol>
__device__ static inline void encode_chunk(const EncodeJob& job, const EncodeEntry* entries, const u8* classes,
                                           const Symbol* coded, u32 chunk) {
    const Geometry& g = job.geometry;
    u32 lane = lane_of(threadIdx.x), b = job.probability_bits;
    u32 first = chunk * g.chunk_rows, end = smaller(first + g.chunk_rows, g.rows);
    u32 last = end - 1u, group = last / g.positions, position = last % g.positions;
    u32 width = width_of_row(g, last), start = start_of_row(g, last);
    u16* room_end = job.words + start + width;
    u32 x = 0x10000u, put = 0u;
    for (u32 row = end; row-- > first;) {
        bool on = lane < width;
        u32 symbol = on ? coded[start + lane] : 0u, table = 0u;
        if (job.neighbours != 0u) {
            bool has_left = position % g.line != 0u && row > first, has_above = position >= g.line && row - first >= g.line;
            u32 left = on && has_left ? coded[start + lane - width] : 0u;
            u32 above = on && has_above ? coded[start + lane - g.line * width] : 0u;
            table = table_of(job, classes, has_left, has_above, left, above);
        }
        EncodeEntry entry = entries[table * job.alphabet + symbol];
        u32 f = entry.frequency_and_low & 0xffffu, low = entry.frequency_and_low >> 16;
        bool full = on && x >= f << (32u - b);
        u32 votes = __ballot_sync(ALL_LANES, full), all = __popc(votes);
        if (full) {
            *(room_end - put - all + lanes_below(votes, lane)) = (u16)x;
            x >>= 16;
        }
        put += all;
        if (on) {
            u32 remainder, quotient = divide(x, f, entry.reciprocal, remainder);
            x = (quotient << b) + low + remainder;
        }
        if (position == 0u && row > first) {
            group--;
            position = g.positions - 1u;
            width = smaller(g.lanes, g.planes - group * g.lanes);
            start = group * g.lanes * g.positions + position * width;
        } else {
            position--;
            start -= width;
        }
    }
    job.states[chunk * WARP + lane] = x;
    if (lane == 0u) job.lengths[chunk] = put;
}

// Shared memory: classes, then an entry for each symbol of each table.
__device__ static inline void phase_encode(const EncodeJob& job, u8* shared) {
    u8* classes = shared;
    EncodeEntry* entries = (EncodeEntry*)(shared + 64u);
    if (job.control[KIND] != CODED) return;
    if (threadIdx.x < 64u) classes[threadIdx.x] = job.classes[threadIdx.x];
    for (u32 i = threadIdx.x; i < job.tables * job.alphabet; i += blockDim.x) {
        const u16* c = job.cumulative + i / job.alphabet * (job.alphabet + 1u) + i % job.alphabet;
        u32 low = c[0], f = c[1] - low;
        // A symbol without a frequency is never coded; the division has to be defined all the same.
        entries[i] = EncodeEntry{f | low << 16, 0xffffffffu / larger(f, 1u)};
    }
    __syncthreads();
    u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (u32 chunk = blockIdx.x * warps + warp; chunk < job.geometry.chunks; chunk += gridDim.x * warps) {
        if (job.csr_rows != 0u) {
            encode_chunk(job, entries, classes, job.sequence, chunk);
        } else {
            encode_chunk(job, entries, classes, job.coded, chunk);
        }
    }
}
