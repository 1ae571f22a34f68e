// Payload to elements in one launch: a warp is a chunk, a lane is a lane, tables are built in shared memory.
//
// Bound by the latency of one row after the other: slot, table, multiply-add, vote, count, word.
#pragma once
#include "element.cuh"

// Threads of a block: four chunks, one to each scheduler of a multiprocessor.
#define DECODE_THREADS 128u
// Rows of symbols gathered before they are stored along their planes.
#define TILE_ROWS 32u
#define TILE_BYTES (TILE_ROWS * 33u)

struct DecodeTables {
    // DIRECT: symbol, frequency and bias in one word for every slot.
    const u32* slots;
    const u16* cumulative;
    // Each bucket's first symbol: a byte, or two where alphabets need them.
    const u8* buckets;
    const u8* classes;
    // The bits of each symbol's value, with one channel.
    const u32* values;
};

// The symbol of a slot, by halving.
__device__ static inline u32 symbol_by_search(const u16* cumulative, u32 alphabet, u32 slot) {
    u32 low = 0u, high = alphabet;
    while (high - low > 1u) {
        u32 middle = (low + high) >> 1;
        if (cumulative[middle] <= slot) low = middle; else high = middle;
    }
    return low;
}

// Where things lie in shared memory; `src/launch/decode.rs` computes the same size.
__device__ static inline DecodeTables build_decode_tables(const DecodeJob& job, u8* shared, u32& used) {
    DecodeTables t;
    u32 b = job.probability_bits, thread = threadIdx.x, threads = blockDim.x;
    u32* values = (u32*)shared;
    used = 0u;
    if (job.channels == 1u && job.dtype != SYMBOLS) {
        used = job.alphabet * 4u;
        for (u32 s = thread; s < job.alphabet; s += threads) values[s] = value_bits(job.maps[0], s, job.dtype);
    }
    u8* classes = shared + used;
    if (job.chooser == NEIGHBOURS) {
        used += 64u;
        if (thread < 64u) classes[thread] = job.classes[thread];
    }
    u32 entries = job.tables * (job.alphabet + 1u);
    if (job.bucket_shift == DIRECT) {
        u32* slots = (u32*)(shared + used);
        used += job.tables << b << 2;
        // A warp fills the slots of a symbol.
        u32 lane = lane_of(thread), warps = threads / WARP;
        for (u32 i = thread / WARP; i < job.tables * job.alphabet; i += warps) {
            u32 table = i / job.alphabet, symbol = i % job.alphabet;
            const u16* c = job.cumulative + table * (job.alphabet + 1u) + symbol;
            u32 low = c[0], frequency = c[1] - low;
            for (u32 bias = lane; bias < frequency; bias += WARP) {
                slots[(table << b) + low + bias] = symbol << (2u * b) | frequency << b | bias;
            }
        }
        t.slots = slots;
        t.cumulative = 0;
        t.buckets = 0;
    } else {
        u16* cumulative = (u16*)(shared + used);
        used += (entries + 1u) / 2u * 4u;
        for (u32 i = thread; i < entries; i += threads) cumulative[i] = job.cumulative[i];
        __syncthreads();
        u8* buckets = shared + used;
        u32 each = 1u << (b - job.bucket_shift), wide = job.alphabet > 256u;
        used += (job.tables * each * (1u + wide) + 3u) / 4u * 4u;
        for (u32 i = thread; i < job.tables * each; i += threads) {
            const u16* c = cumulative + i / each * (job.alphabet + 1u);
            u32 symbol = symbol_by_search(c, job.alphabet, i % each << job.bucket_shift);
            if (wide) ((u16*)buckets)[i] = (u16)symbol; else buckets[i] = (u8)symbol;
        }
        t.slots = 0;
        t.cumulative = cumulative;
        t.buckets = buckets;
    }
    t.classes = classes;
    t.values = values;
    return t;
}

// Symbol, frequency and the slot's distance from the symbol's first.
template <bool HAS_SLOTS>
__device__ static inline void look_up(const DecodeJob& job, const DecodeTables& t, u32 table, u32 slot, u32& symbol,
                                      u32& frequency, u32& bias) {
    u32 b = job.probability_bits;
    if (HAS_SLOTS) {
        u32 entry = t.slots[(table << b) + slot], mask = (1u << b) - 1u;
        symbol = entry >> (2u * b);
        frequency = entry >> b & mask;
        bias = entry & mask;
        return;
    }
    const u16* c = t.cumulative + table * (job.alphabet + 1u);
    u32 bucket = (table << (b - job.bucket_shift)) + (slot >> job.bucket_shift);
    symbol = job.alphabet > 256u ? ((const u16*)t.buckets)[bucket] : t.buckets[bucket];
    u32 low = c[symbol], high = c[symbol + 1u];
    // Ends at the latest where the table does, since its last entry is above every slot.
    while (high <= slot) {
        symbol += 1u;
        low = high;
        high = c[symbol + 1u];
    }
    frequency = high - low;
    bias = slot - low;
}

__device__ static inline void store_symbol(const DecodeJob& job, const DecodeTables& t, u64 offset, u32 symbol) {
    if (job.dtype == SYMBOLS) {
        ((u16*)job.elements)[offset] = (u16)symbol;
    } else if (job.channels == 1u) {
        store_bits(job.elements, job.dtype, offset, t.values[symbol]);
    } else {
        u32 channel = (u32)(offset / job.inner % job.channels);
        store_bits(job.elements, job.dtype, offset, value_bits(job.maps[channel], symbol, job.dtype));
    }
}

// Store a tile of `rows` rows: each plane's positions lie side by side.
__device__ static inline void store_tile(const DecodeJob& job, const DecodeTables& t, const u8* tile, u32 rows, u32 plane,
                                         u32 position, u32 width, u32 lane) {
    __syncwarp();
    if (lane < rows) {
        for (u32 p = 0u; p < width; p++) {
            u64 offset = (u64)(plane + p) * job.geometry.plane_stride + position + lane;
            store_symbol(job, t, offset, tile[lane * 33u + p]);
        }
    }
    __syncwarp();
}

// The words that come next, so that no row waits for memory: each lane holds one of the 32 from `base` on (low half), one of
// the 32 after these (high half), and has one of the 32 after those on its way.
struct WordWindow {
    u32 base;
    u32 held;
    u32 ahead;
};

__device__ static inline u32 word_or_zero(const u16* words, u32 count, u32 at) { return at < count ? words[at] : 0u; }

__device__ static inline WordWindow open_window(const u16* words, u32 count, u32 lane) {
    u32 held = word_or_zero(words, count, lane) | word_or_zero(words, count, lane + 32u) << 16;
    return WordWindow{0u, held, word_or_zero(words, count, lane + 64u)};
}

// The word at an index less than 63 from the base. All lanes ask together.
__device__ static inline u32 word_in(const WordWindow& window, u32 at) {
    u32 place = at - window.base;
    u32 both = __shfl_sync(ALL_LANES, window.held, (int)(place & 31u));
    return place < 32u ? both & 0xffffu : both >> 16;
}

// Move on once the first 32 have been taken, which are at most those of one row.
__device__ static inline void advance_window(WordWindow& window, const u16* words, u32 count, u32 taken, u32 lane) {
    if (taken - window.base < 32u) return;
    window.base += 32u;
    window.held = window.held >> 16 | window.ahead << 16;
    window.ahead = word_or_zero(words, count, window.base + 64u + lane);
}

// One way of decoding a chunk: what chooses the table, whether slots have entries of their own, and whether planes lie side by
// side. Compiled for each, so that a row asks for none of it.
template <u32 CHOOSER, bool HAS_SLOTS, bool TILED>
__device__ static void decode_chunk(const DecodeJob& job, const DecodeTables& t, u32 chunk, u8* tile, u8* ring) {
    const Geometry& g = job.geometry;
    u32 lane = lane_of(threadIdx.x), b = job.probability_bits, mask = (1u << b) - 1u;
    u32 first = chunk * g.chunk_rows, end = smaller(first + g.chunk_rows, g.rows);
    u32 width = width_of_row(g, first), used = width;
    u32 start = job.chunks[2u * chunk], count = job.chunks[2u * chunk + 1u];
    const u16* words = job.payload + start + 2u * used;
    u32 x = 0x10000u, fault = DIRECT;
    if (lane < used) {
        const u16* state = job.payload + start + 2u * lane;
        x = state[0] | (u32)state[1] << 16;
        if (x < 0x10000u) fault = BAD_FIRST_STATE;
    }
    u32 group = first / g.positions, position = first % g.positions, column = position % g.line;
    u32 taken = 0u, left = 0u, tile_rows = 0u, ring_row = 0u;
    u64 natural = (u64)first * g.lanes;
    WordWindow window = open_window(words, count, lane);
    for (u32 row = first; row < end; row++) {
        bool on = lane < width;
        u32 table = 0u;
        if (CHOOSER == NEIGHBOURS) {
            bool has_left = column != 0u && row != first, has_above = position >= g.line && row - first >= g.line;
            u32 above = has_above ? ring[ring_row * WARP + lane] : 0u;
            u32 a = has_left ? left : above, c = has_above ? above : left;
            u32 sum = has_left || has_above ? a + c : 0u;
            table = t.classes[sum >> job.sum_shift & 63u];
        } else if (CHOOSER == SEGMENTS) {
            u64 index = natural + lane;
            table = (u32)(index >= job.segment_ends[0]) + (u32)(index >= job.segment_ends[1]);
        }
        u32 symbol, frequency, bias;
        look_up<HAS_SLOTS>(job, t, table, x & mask, symbol, frequency, bias);
        u32 moved = frequency * (x >> b) + bias;
        bool wants = on && moved < 0x10000u;
        u32 votes = __ballot_sync(ALL_LANES, wants);
        u32 at = taken + lanes_below(votes, lane), word = word_in(window, at);
        if (wants) {
            if (at >= count) fault = ENDS_EARLY;
            moved = moved << 16 | word;
        }
        taken += __popc(votes);
        advance_window(window, words, count, taken, lane);
        if (on) x = moved;
        left = symbol;
        if (CHOOSER == NEIGHBOURS && g.line <= g.chunk_rows) {
            ring[ring_row * WARP + lane] = (u8)symbol;
            ring_row = ring_row + 1u == g.line ? 0u : ring_row + 1u;
        }
        if (TILED) {
            tile[tile_rows * 33u + lane] = (u8)symbol;
            tile_rows++;
        } else if (on) {
            u64 offset = (u64)position * g.position_stride + group * g.lanes + lane;
            store_symbol(job, t, offset, symbol);
        }
        natural += g.lanes;
        position++;
        column = column + 1u == g.line ? 0u : column + 1u;
        bool group_ends = position == g.positions;
        if (TILED && (tile_rows == TILE_ROWS || group_ends || row + 1u == end)) {
            store_tile(job, t, tile, tile_rows, group * g.lanes, position - tile_rows, width, lane);
            tile_rows = 0u;
        }
        if (group_ends) {
            position = 0u;
            column = 0u;
            group++;
            width = row + 1u < end ? smaller(g.lanes, g.planes - group * g.lanes) : 0u;
        }
    }
    if (fault == DIRECT && taken < count) fault = WORDS_LEFT;
    if (fault == DIRECT && lane < used && x != 0x10000u) fault = BAD_LAST_STATE;
    if (fault != DIRECT) atomicMin(job.status, chunk * 8u + fault);
}

template <u32 CHOOSER>
__device__ static inline void decode_chunk_by(const DecodeJob& job, const DecodeTables& t, u32 chunk, u8* tile, u8* ring) {
    bool has_slots = job.bucket_shift == DIRECT, tiled = job.geometry.plane_stride != 1u;
    if (has_slots && tiled) return decode_chunk<CHOOSER, true, true>(job, t, chunk, tile, ring);
    if (has_slots) return decode_chunk<CHOOSER, true, false>(job, t, chunk, tile, ring);
    if (tiled) return decode_chunk<CHOOSER, false, true>(job, t, chunk, tile, ring);
    return decode_chunk<CHOOSER, false, false>(job, t, chunk, tile, ring);
}

// Grid: x over chunks, y over jobs.
NARROWS_KERNEL(128, 6) decode(const DecodeJob* jobs) {
    // A copy, so that the compiler keeps it in registers across stores.
    const DecodeJob job = jobs[blockIdx.y];
    u8* shared = shared_memory();
    u32 used;
    DecodeTables tables = build_decode_tables(job, shared, used);
    __syncthreads();
    u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    u8* tile = shared + used + warp * TILE_BYTES;
    u32 line_bytes = job.history_rows * WARP;
    u32 step = gridDim.x * warps;
    for (u32 chunk = blockIdx.x * warps + warp; chunk < job.geometry.chunks; chunk += step) {
        u8* ring = job.history ? job.history + (u64)chunk * line_bytes : shared + used + warps * TILE_BYTES + warp * line_bytes;
        if (job.chooser == NEIGHBOURS) {
            decode_chunk_by<NEIGHBOURS>(job, tables, chunk, tile, ring);
        } else if (job.chooser == SEGMENTS) {
            // The modified CSR: one plane.
            decode_chunk<SEGMENTS, false, false>(job, tables, chunk, tile, ring);
        } else {
            decode_chunk_by<NO_CHOICE>(job, tables, chunk, tile, ring);
        }
    }
}
