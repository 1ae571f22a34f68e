// The frame put together: header, model, directory by one block; then payload and checksum by all.
#pragma once
#include "encode.cuh"

// Bytes that one thread copies and sums at a time.
#define SEGMENT_BYTES 64u
#define CASTAGNOLI 0x82f63b78u

// x^(8 * 2^k) modulo the polynomial, reflected.
NARROWS_CONSTANT u32 POWERS[32] = {
    0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
    0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
    0xfe7740e6, 0xf946610b, 0x3c204f8f, 0x538586e3, 0x59726915, 0x734d5309, 0xbc1ac763, 0x7d0722cc,
    0xd289cabe, 0xe94ca9bc, 0x05b74f3f, 0xa51e1f42, 0x40000000, 0x20000000, 0x08000000, 0x00800000
};

// The product of two polynomials modulo the polynomial, reflected: bit 31 is x^0.
__device__ static inline u32 multiply(u32 a, u32 b) {
    u32 product = 0u;
    for (u32 bit = 0x80000000u; bit != 0u; bit >>= 1) {
        if (a & bit) product ^= b;
        b = b & 1u ? b >> 1 ^ CASTAGNOLI : b >> 1;
    }
    return product;
}

// A checksum moved on over `bytes` zeros.
__device__ static inline u32 advance(u32 checksum, u32 bytes) {
    for (u32 k = 0u; bytes != 0u; k++, bytes >>= 1) {
        if (bytes & 1u) checksum = multiply(POWERS[k], checksum);
    }
    return checksum;
}

// Four tables of 256, for four bytes at a step.
__device__ static inline void build_checksum_tables(u32* tables) {
    for (u32 i = threadIdx.x; i < 256u; i += blockDim.x) {
        u32 c = i;
        for (u32 k = 0u; k < 8u; k++) c = c & 1u ? c >> 1 ^ CASTAGNOLI : c >> 1;
        tables[i] = c;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < 256u; i += blockDim.x) {
        u32 c = tables[i];
        for (u32 k = 1u; k < 4u; k++) {
            c = tables[c & 255u] ^ c >> 8;
            tables[k * 256u + i] = c;
        }
    }
    __syncthreads();
}

__device__ static inline u32 sum_byte(const u32* tables, u32 checksum, u32 byte) {
    return tables[(checksum ^ byte) & 255u] ^ checksum >> 8;
}

__device__ static inline u32 sum_word(const u32* tables, u32 checksum, u32 word) {
    u32 c = checksum ^ word;
    return tables[768u + (c & 255u)] ^ tables[512u + (c >> 8 & 255u)] ^ tables[256u + (c >> 16 & 255u)] ^ tables[c >> 24];
}

__device__ static inline u32 varint_bytes(u32 value) {
    u32 bytes = 1u;
    while (value >= 128u) {
        value >>= 7;
        bytes++;
    }
    return bytes;
}

__device__ static inline u32 write_varint(u8* out, u32 value) {
    u32 at = 0u;
    while (value >= 128u) {
        out[at++] = (u8)(value | 128u);
        value >>= 7;
    }
    out[at++] = (u8)value;
    return at;
}

// The bit of a stream's form that says its chunks are more than one.
#define FORM_CHUNKED 32u

__device__ static inline bool is_chunked(const EncodeJob& job) { return job.geometry.chunk_rows < job.geometry.rows; }

// Everything before the directory; returns its length. One block.
__device__ static inline u32 write_head(const EncodeJob& job, u32* scratch) {
    u32 thread = threadIdx.x;
    for (u32 i = thread; i < job.head_bytes; i += blockDim.x) job.frame[i] = job.head[i];
    if (thread == 0u) {
        u8* out = job.frame;
        u32 at = job.head_bytes;
        if (job.csr_rows != 0u) at += write_varint(out + at, job.control[NONZEROS]);
        if (job.has_profile == 0u) {
            out[at++] = (u8)(job.levels - 1u);
            u32 step = job.control[STEP];
            for (u32 k = 0u; k < 4u; k++) out[at++] = (u8)(step >> (8u * k));
            i32 zero = (i32)job.control[ZERO];
            at += write_varint(out + at, (u32)(zero << 1 ^ zero >> 31));
        }
        out[at++] = (u8)(is_chunked(job) ? job.form | FORM_CHUNKED : job.form);
        scratch[0] = at;
    }
    __syncthreads();
    u32 at = scratch[0], model = job.has_profile != 0u ? 0u : job.control[MODEL_BYTES];
    __syncthreads();
    for (u32 i = thread; i < model; i += blockDim.x) job.frame[at + i] = job.model[i];
    at += model;
    if (!is_chunked(job)) return at;
    if (thread < job.chunk_rows_bytes) job.frame[at + thread] = (u8)(job.chunk_rows_varint >> (8u * thread));
    return at + job.chunk_rows_bytes;
}

// Header, model and directory, and where each chunk goes. One block; `scratch` is 64 words.
__device__ static inline void phase_directory(const EncodeJob& job, u32* scratch) {
    if (job.control[KIND] != CODED) return;
    const Geometry& g = job.geometry;
    u32 at = write_head(job, scratch), start = 0u;
    for (u32 base = 0u; base < g.chunks; base += blockDim.x) {
        u32 chunk = base + threadIdx.x, length = 0u, bytes = 0u, halves = 0u;
        if (chunk < g.chunks) {
            length = job.lengths[chunk];
            bytes = varint_bytes(length);
            halves = length + 2u * width_of_row(g, chunk * g.chunk_rows);
        }
        u32 all_bytes, all_halves;
        u32 bytes_before = block_sum_before(bytes, scratch, all_bytes);
        u32 halves_before = block_sum_before(halves, scratch, all_halves);
        if (chunk < g.chunks) {
            write_varint(job.frame + at + bytes_before, length);
            job.starts[chunk] = start + halves_before;
        }
        at += all_bytes;
        start += all_halves;
    }
    if (threadIdx.x == 0u) {
        job.starts[g.chunks] = start;
        job.control[PAYLOAD_AT] = at;
    }
}

// A place in the payload, moved forward only.
struct PayloadCursor {
    u32 chunk;
    u32 start;
    u32 end;
    u32 of_states;
    const u16* words;
};

__device__ static inline void enter_chunk(const EncodeJob& job, PayloadCursor& at, u32 chunk) {
    const Geometry& g = job.geometry;
    u32 first = chunk * g.chunk_rows, last = smaller(first + g.chunk_rows, g.rows) - 1u;
    at.chunk = chunk;
    at.start = job.starts[chunk];
    at.end = job.starts[chunk + 1u];
    at.of_states = 2u * width_of_row(g, first);
    at.words = job.words + start_of_row(g, last) + width_of_row(g, last) - job.lengths[chunk];
}

__device__ static inline void find_chunk(const EncodeJob& job, PayloadCursor& at, u32 half) {
    u32 low = 0u, high = job.geometry.chunks;
    while (high - low > 1u) {
        u32 middle = (low + high) >> 1;
        if (job.starts[middle] <= half) low = middle; else high = middle;
    }
    enter_chunk(job, at, low);
}

// Two bytes of the payload; beyond its end zero.
__device__ static inline u32 half_at(const EncodeJob& job, PayloadCursor& at, u32 half) {
    while (half >= at.end) {
        if (at.chunk + 1u == job.geometry.chunks) return 0u;
        enter_chunk(job, at, at.chunk + 1u);
    }
    u32 within = half - at.start;
    if (within < at.of_states) return job.states[at.chunk * WARP + (within >> 1)] >> (16u * (within & 1u)) & 0xffffu;
    return at.words[within - at.of_states];
}

// Copy one segment of the frame and sum it. The frame begins at a multiple of 4, so a segment does.
__device__ static inline u32 compact_segment(const EncodeJob& job, const u32* tables, u32 from, u32 to, u32 payload_at) {
    PayloadCursor cursor;
    u32 sum = 0u, at = from;
    while (at < to && at < payload_at) sum = sum_byte(tables, sum, job.frame[at++]);
    if (at == to) return sum;
    find_chunk(job, cursor, (at - payload_at) >> 1);
    while (at < to && at % 4u != 0u) {
        u32 byte = half_at(job, cursor, (at - payload_at) >> 1) >> (8u * ((at - payload_at) & 1u)) & 255u;
        job.frame[at++] = (u8)byte;
        sum = sum_byte(tables, sum, byte);
    }
    if (at >= to) return sum;
    // From here on the half that is begun is kept between words.
    u32 odd = (at - payload_at) & 1u, half = (at - payload_at) >> 1;
    u32 pending = odd != 0u ? half_at(job, cursor, half++) : 0u;
    while (at + 4u <= to) {
        u32 low = half_at(job, cursor, half), high = half_at(job, cursor, half + 1u), word = low | high << 16;
        if (odd != 0u) word = pending >> 8 | low << 8 | high << 24;
        pending = high;
        half += 2u;
        *(u32*)(job.frame + at) = word;
        sum = sum_word(tables, sum, word);
        at += 4u;
    }
    if (at < to) {
        u32 low = half_at(job, cursor, half), high = half_at(job, cursor, half + 1u), word = low | high << 16;
        if (odd != 0u) word = pending >> 8 | low << 8 | high << 24;
        for (u32 k = 0u; at < to; k++, at++) {
            job.frame[at] = (u8)(word >> (8u * k));
            sum = sum_byte(tables, sum, word >> (8u * k) & 255u);
        }
    }
    return sum;
}

// Shared memory: 1,024 words of tables. Everything up to the checksum.
__device__ static inline void phase_compact(const EncodeJob& job, u32* tables) {
    if (job.control[KIND] != CODED) return;
    build_checksum_tables(tables);
    u32 payload_at = job.control[PAYLOAD_AT], total = payload_at + 2u * job.starts[job.geometry.chunks];
    u32 segments = divide_up(total, SEGMENT_BYTES), sum = 0u;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < segments; i += gridDim.x * blockDim.x) {
        u32 from = i * SEGMENT_BYTES, to = smaller(from + SEGMENT_BYTES, total);
        sum ^= advance(compact_segment(job, tables, from, to, payload_at), total - to);
    }
    sum = warp_xor(sum);
    if (lane_of(threadIdx.x) == 0u && sum != 0u) atomicXor(&job.control[CHECKSUM], sum);
}

// A frame of one value, whole: it is some twenty bytes. One thread; `tables` are for checksums.
__device__ static inline u32 write_constant(const EncodeJob& job) {
    const u8* head = job.head + job.head_bytes;
    u32 at = 0u, width = job.dtype == F32 ? 4u : 2u, sum = 0xffffffffu;
    for (; at < job.constant_head_bytes; at++) job.frame[at] = head[at];
    for (u32 k = 0u; k < width; k++) job.frame[at++] = ((const u8*)job.elements)[k];
    for (u32 i = 0u; i < at; i++) {
        sum ^= job.frame[i];
        for (u32 k = 0u; k < 8u; k++) sum = sum & 1u ? sum >> 1 ^ CASTAGNOLI : sum >> 1;
    }
    sum = ~sum;
    for (u32 k = 0u; k < 4u; k++) job.frame[at++] = (u8)(sum >> (8u * k));
    return at;
}

// The checksum, the result, and everything ready for the next frame. One block.
__device__ static inline void phase_finish(const EncodeJob& job) {
    u32* control = job.control;
    if (threadIdx.x == 0u) {
        u32 kind = control[NOT_FINITE] != 0xffffffffu ? (u32)REFUSED : control[KIND], bytes = 0u;
        if (kind == CONSTANT) {
            bytes = write_constant(job);
        } else if (kind == CODED) {
            u32 total = control[PAYLOAD_AT] + 2u * job.starts[job.geometry.chunks];
            u32 sum = ~(control[CHECKSUM] ^ advance(0xffffffffu, total));
            for (u32 k = 0u; k < 4u; k++) job.frame[total + k] = (u8)(sum >> (8u * k));
            bytes = total + 4u;
        }
        job.result[0] = kind;
        job.result[1] = bytes;
        job.result[2] = control[NOT_FINITE];
        reset_control(control);
    }
    for (u32 i = threadIdx.x; i < job.tables * job.alphabet; i += blockDim.x) job.counts[i] = 0u;
}
