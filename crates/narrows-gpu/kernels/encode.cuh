// Symbols to words: a warp is a chunk, last row first, words written backward from where the chunk's room ends.
//
// Bound by the latency of one row after the other: compare, vote, count, multiply, add. Table entries do not depend on
// the state, and are there before they are needed.
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

// Rows whose symbols are loaded while the rows after them are coded.
#define ROWS_AHEAD 4u
// Instead of a table entry: this lane has no symbol in the row.
#define NO_ENTRY 0xffffffffu

// A row on the way from the last to the first of a chunk.
struct RowCursor {
    u32 row;
    u32 group;
    u32 position;
    u32 width;
    u32 start;
};

__device__ static inline RowCursor cursor_at(const Geometry& g, u32 row) {
    return RowCursor{row, row / g.positions, row % g.positions, width_of_row(g, row), start_of_row(g, row)};
}

__device__ static inline void step_back(const Geometry& g, RowCursor& at) {
    at.row--;
    if (at.position == 0u) {
        at.group--;
        at.position = g.positions - 1u;
        at.width = smaller(g.lanes, g.planes - at.group * g.lanes);
        at.start = at.group * g.lanes * g.positions + at.position * at.width;
    } else {
        at.position--;
        at.start -= at.width;
    }
}

// Which entry a lane's symbol of a row is coded with: known from the symbols alone, long before the state is.
template <typename Symbol>
__device__ static inline u32 entry_of_row(const EncodeJob& job, const u8* classes, const Symbol* coded, const RowCursor& at,
                                          u32 first, u32 lane) {
    const Geometry& g = job.geometry;
    if (lane >= at.width) return NO_ENTRY;
    const Symbol* symbol = coded + at.start + lane;
    if (job.neighbours == 0u) return *symbol;
    bool has_left = at.position % g.line != 0u && at.row > first;
    bool has_above = at.position >= g.line && at.row - first >= g.line;
    u32 left = has_left ? *(symbol - at.width) : 0u, above = has_above ? *(symbol - g.line * at.width) : 0u;
    return table_of(job, classes, has_left, has_above, left, above) * job.alphabet + *symbol;
}

// `coded` holds the symbols in coded order: bytes, or two bytes each for the modified CSR.
template <typename Symbol>
__device__ static inline void encode_chunk(const EncodeJob& job, const EncodeEntry* entries, const u8* classes,
                                           const Symbol* coded, u32 chunk) {
    const Geometry& g = job.geometry;
    u32 lane = lane_of(threadIdx.x), b = job.probability_bits;
    u32 first = chunk * g.chunk_rows, end = smaller(first + g.chunk_rows, g.rows), rows = end - first;
    RowCursor at = cursor_at(g, end - 1u);
    u16* room_end = job.words + at.start + at.width;
    u32 x = 0x10000u, put = 0u, loaded = 0u, ahead[ROWS_AHEAD] = {};
    for (u32 batch = 0u; batch <= divide_up(rows, ROWS_AHEAD); batch++) {
        EncodeEntry now[ROWS_AHEAD];
        bool on[ROWS_AHEAD];
        NARROWS_UNROLL
        for (u32 k = 0u; k < ROWS_AHEAD; k++) {
            on[k] = batch > 0u && ahead[k] != NO_ENTRY;
            now[k] = entries[on[k] ? ahead[k] : 0u];
        }
        NARROWS_UNROLL
        for (u32 k = 0u; k < ROWS_AHEAD; k++) {
            ahead[k] = NO_ENTRY;
            if (loaded < rows) {
                ahead[k] = entry_of_row(job, classes, coded, at, first, lane);
                loaded++;
                if (loaded < rows) step_back(g, at);
            }
        }
        NARROWS_UNROLL
        for (u32 k = 0u; k < ROWS_AHEAD; k++) {
            u32 f = now[k].frequency_and_low & 0xffffu, low = now[k].frequency_and_low >> 16;
            bool full = on[k] && x >= f << (32u - b);
            u32 votes = __ballot_sync(ALL_LANES, full), all = __popc(votes);
            if (full) {
                *(room_end - put - all + lanes_below(votes, lane)) = (u16)x;
                x >>= 16;
            }
            put += all;
            if (on[k]) {
                u32 remainder, quotient = divide(x, f, now[k].reciprocal, remainder);
                x = (quotient << b) + low + remainder;
            }
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
