// What a kernel is told of a tensor. The Rust twins of these structures are in `src/launch/job.rs`.
#pragma once
#include "platform.cuh"

struct Geometry {
    u32 planes;
    u32 positions;
    // Positions of a line.
    u32 line;
    u32 lanes;
    u32 chunk_rows;
    u32 rows;
    u32 chunks;
    // Elements from a position to the next, and from a plane to the next.
    u32 position_stride;
    u32 plane_stride;
    u32 elements;
};

__device__ static inline u32 width_of_row(const Geometry& g, u32 row) {
    return smaller(g.lanes, g.planes - row / g.positions * g.lanes);
}

// Where a row's symbols lie in the coded order.
__device__ static inline u32 start_of_row(const Geometry& g, u32 row) {
    return row / g.positions * g.lanes * g.positions + row % g.positions * width_of_row(g, row);
}

// Element types; `SYMBOLS` is u16 symbols instead of values.
enum { F32 = 0u, F16 = 1u, BF16 = 2u, SYMBOLS = 3u };

struct Map {
    float step;
    i32 zero;
};

struct DecodeJob {
    const u16* payload;
    // For each chunk where it begins in the payload, in units of two bytes, and its words.
    const u32* chunks;
    // alphabet + 1 for each table.
    const u16* cumulative;
    // The class of each of 64 bins.
    const u8* classes;
    const Map* maps;
    void* elements;
    // A line of symbols for every lane of every chunk; null if it fits in shared memory.
    u8* history;
    // Smallest chunk that is not an encoder's, times 8, and what is wrong; all ones if nothing is.
    u32* status;
    Geometry geometry;
    u32 alphabet;
    u32 probability_bits;
    u32 tables;
    // What chooses the table: 0 nothing, 1 neighbours, 2 segments.
    u32 chooser;
    u32 sum_shift;
    u32 segment_ends[2];
    // A slot is shifted down by so much to its bucket; `DIRECT` if slots have entries of their own.
    u32 bucket_shift;
    u32 dtype;
    u32 channels;
    // Elements of one channel in a row.
    u32 inner;
    u32 history_rows;
};

enum { DIRECT = 0xffffffffu };
enum { NO_CHOICE = 0u, NEIGHBOURS = 1u, SEGMENTS = 2u };
enum { ENDS_EARLY = 0u, WORDS_LEFT = 1u, BAD_FIRST_STATE = 2u, BAD_LAST_STATE = 3u };

// The modified CSR: D decoded to symbols, to be spread out.
struct CsrJob {
    // v, c and r, one after the other.
    const u16* symbols;
    // Where each row's symbols begin.
    u32* starts;
    const Map* maps;
    void* elements;
    u32* status;
    u32 rows;
    u32 columns;
    u32 nonzeros;
    u32 levels;
    u32 dtype;
    u32 channels;
    u32 inner;
    u32 padding;
};

enum { BAD_COUNTS = 4u, BAD_COLUMN = 5u, BAD_VALUE = 6u };

// Words of `EncodeJob::control`. All are as `reset_control` leaves them before a frame and after it.
enum {
    RANGE_ARRIVALS,
    COUNT_ARRIVALS,
    ENCODE_ARRIVALS,
    COMPACT_ARRIVALS,
    BARRIER,
    SMALLEST_KEY,
    LARGEST_KEY,
    NOT_FINITE,
    CHECKSUM,
    // Set in passing, not reset: what is known of the frame so far.
    KIND,
    STEP,
    ZERO,
    MODEL_BYTES,
    PAYLOAD_AT,
    // Of the modified CSR: how many symbols are not 0.
    NONZEROS,
    CSR_ARRIVALS,
    CONTROL_WORDS = 16
};

enum { CODED = 0u, CONSTANT = 1u, REFUSED = 2u };

struct EncodeJob {
    const void* elements;
    u8* frame;
    // Kind, bytes of the frame, first element that is not finite, step, zero.
    u32* result;
    u32* control;
    u8* coded;
    u32* counts;
    // alphabet + 1 for each table; a profile's are set, others are made.
    u16* cumulative;
    const u8* classes;
    u16* words;
    u32* states;
    u32* lengths;
    // Where each chunk begins in the payload, and the last one ends, in units of two bytes.
    u32* starts;
    u8* model;
    // The header up to the quantiser's parameters, then that of a constant frame.
    const u8* head;
    // Of the modified CSR: D = v + c + r, and where each row's symbols begin in v (and the last one ends).
    u16* sequence;
    u32* row_starts;
    Geometry geometry;
    u32 head_bytes;
    u32 constant_head_bytes;
    u32 alphabet;
    u32 probability_bits;
    u32 tables;
    u32 neighbours;
    u32 sum_shift;
    // Bits that tell the bins of a sum apart.
    u32 bin_width;
    u32 dtype;
    // 1 if the range is the tensor's own; 1 if map and tables are a profile's.
    u32 own_range;
    u32 has_profile;
    // The quantiser, unless the range is the tensor's own.
    float step;
    i32 zero;
    u32 form;
    // Bytes of that varint, none with a single chunk.
    u32 chunk_rows_bytes;
    u32 levels;
    // The modified CSR is coded, of so many rows and columns; 0 if not. Its geometry is known on the device alone.
    u32 csr_rows;
    u32 csr_columns;
    // Where each class but the first begins, and the varint of a chunk's rows: bytes, the lowest first.
    u64 class_starts;
    u64 chunk_rows_varint;
};

// The block's job. In kernels made for one kind of job (`src/cuda/special.rs`) what all of that kind have in common is constant.
__device__ static inline DecodeJob load_job(const DecodeJob* jobs) {
    DecodeJob job = jobs[blockIdx.y];
#ifdef NARROWS_DECODE_CONSTANTS
    NARROWS_DECODE_CONSTANTS
#endif
    return job;
}

__device__ static inline EncodeJob load_job(const EncodeJob* jobs) {
    EncodeJob job = jobs[blockIdx.y];
#ifdef NARROWS_ENCODE_CONSTANTS
    NARROWS_ENCODE_CONSTANTS
#endif
    return job;
}

static_assert(sizeof(DecodeJob) == 152 && sizeof(CsrJob) == 72 && sizeof(EncodeJob) == 256, "as in src/launch/job.rs");
