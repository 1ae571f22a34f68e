// Payload to elements in one launch: a warp is a chunk, a lane is a lane, tables are built in shared memory.
//
// Small tensors are bound by the latency of one row after the other (slot, table, multiply-add, vote, count, word), large
// ones by the instructions of a row: so rows come in runs, over which nothing changes but states and places.
#pragma once
#include "decode_tables.cuh"

// Rows of symbols gathered before they are stored along their planes.
#define TILE_ROWS 32u
#define TILE_BYTES (TILE_ROWS * 33u)
// Words of a chunk in shared memory: those of four rows.
#define WINDOW_WORDS 128u
#define WINDOW_BYTES (WINDOW_WORDS * 2u)

__device__ static inline void store_symbol(const DecodeJob& job, u32 offset, u32 symbol) {
    u32 bits = symbol;
    if (job.channels != 1u) {
        bits = value_bits(job.maps[offset / job.inner % job.channels], symbol, job.dtype);
    } else if (job.dtype != SYMBOLS) {
        bits = shared_at<u32>(0u)[symbol];
    }
    store_bits(job.elements, job.dtype, offset, bits);
}

// Store a tile of `rows` rows: each plane's positions lie side by side.
__device__ static inline void store_tile(const DecodeJob& job, const u8* tile, u32 rows, u32 plane, u32 position,
                                         u32 width, u32 lane) {
    __syncwarp();
    if (lane < rows) {
        u32 offset = plane * job.geometry.plane_stride + position + lane;
        NARROWS_UNROLL_BY(4)
        for (u32 p = 0u; p < width; p++) {
            store_symbol(job, offset, tile[lane * 33u + p]);
            offset += job.geometry.plane_stride;
        }
    }
    __syncwarp();
}

// The words that come next, in shared memory, so that no row waits for device memory: each lane has the pair after those
// shared on its way.
struct WordWindow {
    u32* shared;
    const u32* pairs;
    u32 count;
    // The pair that the window begins with, and the word that comes next, counted from there.
    u32 base;
    u32 at;
    // This lane's pair of the window's second half, and of what follows.
    u32 held;
    u32 ahead;
};

__device__ static inline u32 pair_or_zero(const WordWindow& w, u32 at) { return at < w.count ? w.pairs[at] : 0u; }

// `start` is where the words begin in the payload, which begins at a multiple of 4.
__device__ static inline WordWindow open_window(const DecodeJob& job, u32 start, u32 words, u32* shared, u32 lane) {
    u32 odd = start & 1u;
    WordWindow w = {shared, (const u32*)job.payload + (start >> 1), (odd + words + 1u) >> 1, 0u, odd, 0u, 0u};
    u32 first = pair_or_zero(w, lane);
    w.held = pair_or_zero(w, lane + 32u);
    w.ahead = pair_or_zero(w, lane + 64u);
    __syncwarp();
    shared[lane] = first;
    shared[lane + 32u] = w.held;
    __syncwarp();
    return w;
}

// Move on once half of the window has been taken. The other half is as much as two rows take.
__device__ static inline void advance_window(WordWindow& w, u32 lane) {
    if (w.at < WINDOW_WORDS / 2u) return;
    w.at -= WINDOW_WORDS / 2u;
    w.base += 32u;
    __syncwarp();
    w.shared[lane] = w.held;
    w.shared[lane + 32u] = w.ahead;
    __syncwarp();
    w.held = w.ahead;
    w.ahead = pair_or_zero(w, w.base + 64u + lane);
}

// One symbol of every lane that is on, by the table that `base` says.
template <u32 CHOOSER, bool HAS_SLOTS>
__device__ static inline u32 decode_row(const DecodeJob& job, const DecodeTables& t, WordWindow& w, u32& x, u32 base, bool on,
                                        u32 below) {
    u32 b = HAS_SLOTS ? SLOT_BITS : job.probability_bits, slot = x & ((1u << b) - 1u);
    Found found;
    if (HAS_SLOTS) {
        found = find_in_slots(t, slot);
    } else if (CHOOSER == SEGMENTS) {
        found = find_in_segment(job, t, base, slot);
    } else {
        found = find_in_entries<CHOOSER == NO_CHOICE>(job, t, base, slot);
    }
    u32 moved = found.frequency * (x >> b) + found.bias;
    bool wants = on && moved < 0x10000u;
    u32 votes = __ballot_sync(ALL_LANES, wants);
    if (wants) moved = moved << 16 | ((const u16*)w.shared)[w.at + __popc(votes & below)];
    w.at += __popc(votes);
    if (on) x = moved;
    return found.symbol;
}

// Where a warp is in its chunk.
struct Place {
    u32 row;
    u32 group;
    u32 position;
    // Of the position's line.
    u32 column;
    // Of the history, which is as long as a line.
    u32 line_row;
    u32 tile_rows;
    u32 width;
};

// Rows from here on over which width, neighbours and tile stay the same.
template <u32 CHOOSER, bool TILED>
__device__ static inline u32 rows_of_run(const Geometry& g, const Place& at, u32 end) {
    if (CHOOSER != NEIGHBOURS && !TILED && g.positions == 1u) {
        // Natural order: all rows but the last are full.
        u32 full = smaller(g.planes / g.lanes, end);
        return at.row < full ? full - at.row : 1u;
    }
    u32 run = smaller(end - at.row, g.positions - at.position);
    if (CHOOSER == NEIGHBOURS) run = smaller(run, g.line - larger(at.column, at.line_row));
    return TILED ? smaller(run, TILE_ROWS - at.tile_rows) : run;
}

// One way of decoding a chunk: what chooses the table, whether slots have entries of their own, and whether planes lie side by
// side. Compiled for each, so that a row asks for none of it. `lines` holds the last line of symbols of each lane.
template <u32 CHOOSER, bool HAS_SLOTS, bool TILED>
__device__ static void decode_chunk(const DecodeJob& job, const DecodeTables& t, u32 chunk, u8* tile, u8* lines, u32* window) {
    const Geometry& g = job.geometry;
    u32 lane = lane_of(threadIdx.x), below = (1u << lane) - 1u;
    u32 first = chunk * g.chunk_rows, end = smaller(first + g.chunk_rows, g.rows);
    u32 used = width_of_row(g, first), start = job.chunks[2u * chunk], count = job.chunks[2u * chunk + 1u];
    u32 x = 0x10000u, fault = DIRECT, left = 0u;
    if (lane < used) {
        const u16* state = job.payload + start + 2u * lane;
        x = state[0] | (u32)state[1] << 16;
        if (x < 0x10000u) fault = BAD_FIRST_STATE;
    }
    u32 odd = start & 1u;
    WordWindow w = open_window(job, start + 2u * used, count, window, lane);
    Place at = {first, first / g.positions, first % g.positions, first % g.positions % g.line, 0u, 0u, used};
    bool remembers = CHOOSER == NEIGHBOURS && g.line <= g.chunk_rows;
    u32 step = g.positions == 1u ? g.lanes : g.position_stride;
    while (at.row < end) {
        u32 run = rows_of_run<CHOOSER, TILED>(g, at, end);
        bool on = lane < at.width;
        u8* above_at = lines + at.line_row * WARP + lane;
        bool has_above = at.position >= g.line && at.row - first >= g.line;
        // A neighbour that is missing is replaced by the other, or else is 0.
        if (CHOOSER == NEIGHBOURS && (at.column == 0u || at.row == first)) left = has_above ? *above_at : 0u;
        u8* tile_at = tile + at.tile_rows * 33u + lane;
        u32 offset = at.position * g.position_stride + at.group * g.lanes + lane;
        auto decode_next = [&](u32 k) {
            u32 base = 0u;
            if (CHOOSER == NEIGHBOURS) {
                u32 above = has_above ? above_at[k * WARP] : left;
                base = shared_at<u32>(t.classes)[(left + above) >> job.sum_shift];
            } else if (CHOOSER == SEGMENTS) {
                base = (u32)(offset >= job.segment_ends[0]) + (u32)(offset >= job.segment_ends[1]);
            }
            u32 symbol = decode_row<CHOOSER, HAS_SLOTS>(job, t, w, x, base, on, below);
            left = symbol;
            if (remembers) above_at[k * WARP] = (u8)symbol;
            if (TILED) {
                tile_at[k * 33u] = (u8)symbol;
            } else {
                if (on) store_symbol(job, offset, symbol);
                offset += step;
            }
        };
        for (u32 rows = run >> 1; rows > 0u; rows--) {
            decode_next(0u);
            decode_next(1u);
            advance_window(w, lane);
            above_at += 2u * WARP;
            tile_at += 2u * 33u;
        }
        if (run & 1u) {
            decode_next(0u);
            advance_window(w, lane);
        }
        at.row += run;
        at.position += run;
        at.column += run;
        at.line_row += run;
        if (at.column == g.line) at.column = 0u;
        if (at.line_row == g.line) at.line_row = 0u;
        bool group_ends = at.position >= g.positions;
        if (TILED) {
            at.tile_rows += run;
            if (at.tile_rows == TILE_ROWS || group_ends || at.row == end) {
                u32 plane = at.group * g.lanes;
                store_tile(job, tile, at.tile_rows, plane, at.position - at.tile_rows, at.width, lane);
                at.tile_rows = 0u;
            }
        }
        if (group_ends) {
            at.group = at.row / g.positions;
            at.position = 0u;
            at.column = 0u;
            if (at.row < end) at.width = width_of_row(g, at.row);
        }
    }
    u32 taken = 2u * w.base + w.at - odd;
    if (fault == DIRECT && taken != count) fault = taken > count ? ENDS_EARLY : WORDS_LEFT;
    if (fault == DIRECT && lane < used && x != 0x10000u) fault = BAD_LAST_STATE;
    if (fault != DIRECT) atomicMin(job.status, chunk * 8u + fault);
}

template <u32 CHOOSER, bool HAS_SLOTS>
__device__ static inline void decode_chunk_by(const DecodeJob& job, const DecodeTables& t, u32 chunk, u8* tile, u8* lines,
                                              u32* window) {
    if (job.geometry.plane_stride != 1u) return decode_chunk<CHOOSER, HAS_SLOTS, true>(job, t, chunk, tile, lines, window);
    decode_chunk<CHOOSER, HAS_SLOTS, false>(job, t, chunk, tile, lines, window);
}

// Grid: x over chunks, y over jobs.
NARROWS_KERNEL(128, 6) decode(const DecodeJob* jobs) {
    // A copy, so that the compiler keeps it in registers across stores.
    const DecodeJob job = load_job(jobs);
    DecodeTables tables = build_decode_tables(job);
    __syncthreads();
    u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    u32* window = shared_at<u32>(tables.end + warp * WINDOW_BYTES);
    u32 tiles = tables.end + warps * WINDOW_BYTES, lines_at = tiles + warps * TILE_BYTES;
    u8* tile = shared_at<u8>(tiles + warp * TILE_BYTES);
    u32 line_bytes = job.history_rows * WARP;
    u32 step = gridDim.x * warps;
    for (u32 chunk = blockIdx.x * warps + warp; chunk < job.geometry.chunks; chunk += step) {
        u8* lines = job.history ? job.history + (u64)chunk * line_bytes : shared_at<u8>(lines_at + warp * line_bytes);
        if (job.chooser == NEIGHBOURS) {
            decode_chunk_by<NEIGHBOURS, false>(job, tables, chunk, tile, lines, window);
        } else if (job.chooser == SEGMENTS) {
            // The modified CSR: one plane.
            decode_chunk<SEGMENTS, false, false>(job, tables, chunk, tile, lines, window);
        } else if (job.bucket_shift == DIRECT) {
            decode_chunk_by<NO_CHOICE, true>(job, tables, chunk, tile, lines, window);
        } else {
            decode_chunk_by<NO_CHOICE, false>(job, tables, chunk, tile, lines, window);
        }
    }
}
