// Symbols to words: a warp is a chunk, last row first, words written backward from where the chunk's room ends.
//
// Bound by the latency of one row after the other: compare, vote, count, multiply, add. Table entries do not depend on
// the state, and are there before they are needed.
#pragma once
#include "quantize.cuh"
#include "model.cuh"

// What coding a symbol needs: frequency and cumulative frequency, and the reciprocal of the frequency. The last entry has all
// frequency there is: it leaves every state as it is, for lanes without a symbol.
struct EncodeEntry {
    u32 frequency_and_low;
    u32 reciprocal;
};

__device__ static inline EncodeEntry entry_of(u32 frequency, u32 low) {
    // A symbol without a frequency is never coded; the division has to be defined all the same.
    return EncodeEntry{frequency | low << 16, 0xffffffffu / larger(frequency, 1u)};
}

// The state after a symbol: (x / f << b) + low + x % f, which is x + x / f * (2^b - f) + low. The reciprocal's product is the
// quotient or one less.
__device__ static inline u32 put_symbol(u32 x, const EncodeEntry& entry, u32 b) {
    u32 f = entry.frequency_and_low & 0xffffu, rest = (1u << b) - f, quotient = __umulhi(x, entry.reciprocal);
    u32 next = x + quotient * rest + (entry.frequency_and_low >> 16);
    return x - quotient * f >= f ? next + rest : next;
}

// Rows whose symbols are loaded while the rows after them are coded.
#define ROWS_AHEAD 4u

// A row on the way from the last to the first of a chunk.
struct RowCursor {
    u32 row;
    u32 position;
    u32 column;
    u32 width;
    u32 start;
};

__device__ static inline RowCursor cursor_at(const Geometry& g, u32 row) {
    u32 position = row % g.positions;
    return RowCursor{row, position, position % g.line, width_of_row(g, row), start_of_row(g, row)};
}

template <bool NEIGHBOURS>
__device__ static inline void step_back(const Geometry& g, RowCursor& at, u32 first) {
    if (!NEIGHBOURS) {
        // Natural order: every row but the last is full.
        at.row--;
        at.width = g.lanes;
        at.start -= g.lanes;
    } else if (at.position != 0u || at.row == first) {
        at.row--;
        at.position--;
        at.column = (at.column == 0u ? g.line : at.column) - 1u;
        at.start -= at.width;
    } else {
        at = cursor_at(g, at.row - 1u);
    }
}

// Which entry a lane's symbol of a row is coded with: known from the symbols alone, long before the state is. `none` is the
// entry of lanes without a symbol, and of rows before the chunk's first.
template <typename Symbol, bool NEIGHBOURS>
__device__ static inline u32 entry_of_row(const EncodeJob& job, const u8* classes, const Symbol* coded, const RowCursor& at,
                                          u32 first, u32 lane, u32 none) {
    const Geometry& g = job.geometry;
    if (lane >= at.width || (i32)(at.row - first) < 0) return none;
    const Symbol* symbol = coded + (at.start + lane);
    if (!NEIGHBOURS) return *symbol;
    bool has_left = at.column != 0u && at.row > first;
    bool has_above = at.position >= g.line && at.row - first >= g.line;
    u32 left = has_left ? *(symbol - at.width) : 0u, above = has_above ? *(symbol - g.line * at.width) : 0u;
    return table_of(job, classes, has_left, has_above, left, above) * job.alphabet + *symbol;
}

// `coded` holds the symbols in coded order: bytes, or two bytes each for the modified CSR.
template <typename Symbol, bool NEIGHBOURS>
__device__ static inline void encode_chunk(const EncodeJob& job, const EncodeEntry* entries, const u8* classes,
                                           const Symbol* coded, u32 chunk) {
    const Geometry& g = job.geometry;
    u32 lane = lane_of(threadIdx.x), below = (1u << lane) - 1u, b = job.probability_bits;
    u32 first = chunk * g.chunk_rows, end = smaller(first + g.chunk_rows, g.rows), none = job.tables * job.alphabet;
    RowCursor at = cursor_at(g, end - 1u);
    // Words are put before here.
    u32 room_end = at.start + at.width, free = room_end, x = 0x10000u, ahead[ROWS_AHEAD];
    NARROWS_UNROLL
    for (u32 k = 0u; k < ROWS_AHEAD; k++) {
        ahead[k] = entry_of_row<Symbol, NEIGHBOURS>(job, classes, coded, at, first, lane, none);
        step_back<NEIGHBOURS>(g, at, first);
    }
    for (u32 batches = divide_up(end - first, ROWS_AHEAD); batches > 0u; batches--) {
        EncodeEntry now[ROWS_AHEAD];
        NARROWS_UNROLL
        for (u32 k = 0u; k < ROWS_AHEAD; k++) now[k] = entries[ahead[k]];
        NARROWS_UNROLL
        for (u32 k = 0u; k < ROWS_AHEAD; k++) {
            ahead[k] = entry_of_row<Symbol, NEIGHBOURS>(job, classes, coded, at, first, lane, none);
            step_back<NEIGHBOURS>(g, at, first);
        }
        NARROWS_UNROLL
        for (u32 k = 0u; k < ROWS_AHEAD; k++) {
            bool full = x >> (32u - b) >= (now[k].frequency_and_low & 0xffffu);
            u32 votes = __ballot_sync(ALL_LANES, full);
            free -= __popc(votes);
            if (full) {
                job.words[free + __popc(votes & below)] = (u16)x;
                x >>= 16;
            }
            x = put_symbol(x, now[k], b);
        }
    }
    job.states[chunk * WARP + lane] = x;
    if (lane == 0u) job.lengths[chunk] = room_end - free;
}

// Shared memory: classes, then an entry for each symbol of each table.
__device__ static inline void phase_encode(const EncodeJob& job, u8* shared) {
    u8* classes = shared;
    EncodeEntry* entries = (EncodeEntry*)(shared + 64u);
    if (job.control[KIND] != CODED) return;
    if (threadIdx.x < 64u) classes[threadIdx.x] = job.classes[threadIdx.x];
    for (u32 i = threadIdx.x; i < job.tables * job.alphabet; i += blockDim.x) {
        const u16* c = job.cumulative + i / job.alphabet * (job.alphabet + 1u) + i % job.alphabet;
        entries[i] = entry_of((u32)(c[1] - c[0]), c[0]);
    }
    if (threadIdx.x == 0u) entries[job.tables * job.alphabet] = entry_of(1u << job.probability_bits, 0u);
    __syncthreads();
    u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (u32 chunk = blockIdx.x * warps + warp; chunk < job.geometry.chunks; chunk += gridDim.x * warps) {
        if (job.csr_rows != 0u) {
            encode_chunk<u16, false>(job, entries, classes, job.sequence, chunk);
        } else if (job.neighbours != 0u) {
            encode_chunk<u8, true>(job, entries, classes, job.coded, chunk);
        } else {
            encode_chunk<u8, false>(job, entries, classes, job.coded, chunk);
        }
    }
}
