// Elements to symbols: their range, and their symbols in coded order, counted by table.
#pragma once
#include "element.cuh"

#define ENCODE_THREADS 256u
// Words of shared memory for counts: as many copies as fit, so that warps do not wait for each other.
#define TALLY_WORDS 4096u

__device__ static inline void reset_control(u32* control) {
    control[RANGE_ARRIVALS] = 0u;
    control[COUNT_ARRIVALS] = 0u;
    control[ENCODE_ARRIVALS] = 0u;
    control[COMPACT_ARRIVALS] = 0u;
    control[BARRIER] = 0u;
    control[CSR_ARRIVALS] = 0u;
    control[SMALLEST_KEY] = 0xffffffffu;
    control[LARGEST_KEY] = 0u;
    control[NOT_FINITE] = 0xffffffffu;
    control[CHECKSUM] = 0u;
}

// Integers in the order of the values they stand for, and back.
__device__ static inline u32 key_of(u32 bits) { return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u); }
__device__ static inline float value_of_key(u32 key) { return __uint_as_float(key >> 31 ? key ^ 0x80000000u : ~key); }

// Asymmetric integer quantisation over a range (`Affine::from_range` of the codec, in the same f64 steps).
__device__ static inline void affine_from_range(float min, float max, u32 levels, float& step, i32& zero) {
    double range = __dadd_rn((double)max, -(double)min);
    double floor = __ddiv_rn((double)fmaxf(fabsf(min), fabsf(max)), 1073741824.0);
    double wanted = __ddiv_rn(range, (double)(levels - 1u)), least = __dmul_rn(floor, 1.001);
    step = __double2float_rn(wanted > least ? wanted : least);
    step = fminf(fmaxf(step, 1.17549435082228750797e-38f), 3.40282346638528859812e38f);
    double exact = rint(__ddiv_rn(-(double)min, (double)step));
    if (exact > 1073741824.0) exact = 1073741824.0;
    if (exact < -1073741824.0) exact = -1073741824.0;
    zero = (i32)exact;
}

// What the frame will be, once the range is known.
__device__ static inline void settle_map(const EncodeJob& job) {
    u32* control = job.control;
    float step = job.step;
    i32 zero = job.zero;
    control[KIND] = CODED;
    if (job.own_range != 0u) {
        float min = value_of_key(control[SMALLEST_KEY]), max = value_of_key(control[LARGEST_KEY]);
        if (control[NOT_FINITE] != 0xffffffffu) {
            control[KIND] = REFUSED;
        } else if (min == max) {
            control[KIND] = CONSTANT;
        } else {
            affine_from_range(min, max, job.levels, step, zero);
        }
    }
    control[STEP] = bits_of(step);
    control[ZERO] = (u32)zero;
}

// Elements of the tensor; the modified CSR's geometry counts those of its sequence.
__device__ static inline u32 tensor_elements(const EncodeJob& job) {
    return job.csr_rows != 0u ? job.csr_rows * job.csr_columns : job.geometry.elements;
}

// Elements that can be loaded four at a time, from the first on; in units of four.
__device__ static inline u32 whole_fours(const EncodeJob& job) {
    return job.dtype == F32 && ((u64)job.elements & 15u) == 0u ? tensor_elements(job) / 4u : 0u;
}

// Every element, by its index, the bits of its f32, and its place among the four it was loaded with (4 if it was loaded
// alone): each thread of the grid takes its share.
template <typename Visit>
__device__ static inline void for_each_element(const EncodeJob& job, Visit visit) {
    u32 n = tensor_elements(job), fours = whole_fours(job), step = gridDim.x * blockDim.x;
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    NARROWS_UNROLL_BY(2)
    for (u32 i = thread; i < fours; i += step) {
        FourWords four = ((const FourWords*)job.elements)[i];
        NARROWS_UNROLL
        for (u32 k = 0u; k < 4u; k++) visit(4u * i + k, four.word[k], k);
    }
    for (u32 i = 4u * fours + thread; i < n; i += step) visit(i, bits_of(load_element(job.elements, job.dtype, i)), 4u);
}

__device__ static inline void phase_range(const EncodeJob& job, u32* shared) {
    u32 low = 0xffffffffu, high = 0u;
    for_each_element(job, [&](u32, u32 bits, u32) {
        u32 key = key_of(bits);
        low = smaller(low, key);
        high = larger(high, key);
    });
    // What is not finite lies beyond the largest numbers; where it is, is seldom asked.
    if (low < key_of(0xff7fffffu) || high > key_of(0x7f7fffffu)) {
        for_each_element(job, [&](u32 i, u32 bits, u32) {
            if (!is_finite(bits)) atomicMin(&job.control[NOT_FINITE], i);
        });
    }
    if (threadIdx.x == 0u) {
        shared[0] = 0xffffffffu;
        shared[1] = 0u;
    }
    __syncthreads();
    for (u32 step = 16u; step > 0u; step >>= 1) {
        low = smaller(low, __shfl_xor_sync(ALL_LANES, low, step));
        high = larger(high, __shfl_xor_sync(ALL_LANES, high, step));
    }
    if (lane_of(threadIdx.x) == 0u) {
        atomicMin(&shared[0], low);
        atomicMax(&shared[1], high);
    }
    __syncthreads();
    if (threadIdx.x == 0u) {
        atomicMin(&job.control[SMALLEST_KEY], shared[0]);
        atomicMax(&job.control[LARGEST_KEY], shared[1]);
    }
}

// Where symbols are counted: this warp's copy of the cells.
struct Tally {
    u32* cells;
    // Zeros under table 0, half of what a ReLU leaves, are counted by each thread for itself.
    u32 zeros;
};

__device__ static inline void tally(const EncodeJob& job, Tally& t, u32 table, u32 symbol) {
    if (job.has_profile != 0u || job.csr_rows != 0u) return;
    u32 cell = table * job.alphabet + symbol;
    if (cell == 0u) {
        t.zeros++;
    } else {
        atomicAdd(&t.cells[cell], 1u);
    }
}

// The symbol of an element's bits; remembers the first that is not finite.
__device__ static inline u32 symbol_of_bits(const EncodeJob& job, const QuantizerNumbers& q, u32 bits, u32 offset) {
    if (!is_finite(bits)) {
        atomicMin(&job.control[NOT_FINITE], offset);
        return 0u;
    }
    return quantize(q, __uint_as_float(bits));
}

__device__ static inline u32 symbol_of(const EncodeJob& job, const QuantizerNumbers& q, u32 offset) {
    return symbol_of_bits(job, q, bits_of(load_element(job.elements, job.dtype, offset)), offset);
}

__device__ static inline u32 table_of(const EncodeJob& job, const u8* classes, bool has_left, bool has_above, u32 left,
                                      u32 above) {
    if (job.neighbours == 0u || !(has_left || has_above)) return job.neighbours == 0u ? 0u : classes[0];
    u32 a = has_left ? left : above, c = has_above ? above : left;
    return classes[(a + c) >> job.sum_shift & 63u];
}

// Natural order: symbols lie as their elements do.
__device__ static inline void count_in_order(const EncodeJob& job, const QuantizerNumbers& q, const u8* classes, Tally& t) {
    u32 table = table_of(job, classes, false, false, 0u, 0u), packed = 0u;
    for_each_element(job, [&](u32 i, u32 bits, u32 of_four) {
        u32 symbol = symbol_of_bits(job, q, bits, i);
        tally(job, t, table, symbol);
        packed = packed >> 8 | symbol << 24;
        if (of_four == 3u) ((u32*)job.coded)[i / 4u] = packed;
        if (of_four == 4u) job.coded[i] = (u8)symbol;
    });
}

// Rows lie side by side (channels last): one coded symbol after the other.
__device__ static inline void count_rows(const EncodeJob& job, const QuantizerNumbers& q, const u8* classes, Tally& t) {
    const Geometry& g = job.geometry;
    u32 of_group = g.lanes * g.positions, n = tensor_elements(job);
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        u32 group = i / of_group, within = i % of_group;
        u32 width = smaller(g.lanes, g.planes - group * g.lanes);
        u32 position = within / width, plane = group * g.lanes + within % width;
        u32 offset = position * g.position_stride + plane * g.plane_stride;
        u32 symbol = symbol_of(job, q, offset), row = group * g.positions + position;
        job.coded[i] = (u8)symbol;
        if (job.has_profile != 0u) continue;
        u32 of_chunk = row % g.chunk_rows;
        bool has_left = position % g.line != 0u && of_chunk != 0u;
        bool has_above = position >= g.line && of_chunk >= g.line;
        u32 left = has_left ? symbol_of(job, q, offset - g.position_stride) : 0u;
        u32 above = has_above ? symbol_of(job, q, offset - g.line * g.position_stride) : 0u;
        tally(job, t, table_of(job, classes, has_left, has_above, left, above), symbol);
    }
}

// Planes lie side by side (channels first): a warp turns 32 positions of a group of planes.
__device__ static inline void count_planes(const EncodeJob& job, const QuantizerNumbers& q, const u8* classes, u8* tile,
                                           Tally& t) {
    const Geometry& g = job.geometry;
    u32 lane = lane_of(threadIdx.x), warps = blockDim.x / WARP;
    u32 segments = divide_up(g.positions, WARP), groups = divide_up(g.planes, g.lanes);
    u32 warp = blockIdx.x * warps + threadIdx.x / WARP;
    for (u32 unit = warp; unit < segments * groups; unit += gridDim.x * warps) {
        u32 group = unit / segments, position0 = unit % segments * WARP, position = position0 + lane;
        u32 width = smaller(g.lanes, g.planes - group * g.lanes);
        bool on = position < g.positions;
        u32 of_chunk = (group * g.positions + position) % g.chunk_rows;
        bool has_left = position % g.line != 0u && of_chunk != 0u;
        bool has_above = position >= g.line && of_chunk >= g.line;
        for (u32 p = 0u; p < width; p++) {
            u32 offset = (group * g.lanes + p) * g.plane_stride + position;
            u32 symbol = on ? symbol_of(job, q, offset) : 0u;
            u32 left = __shfl_up_sync(ALL_LANES, symbol, 1u);
            tile[p * 33u + lane] = (u8)symbol;
            if (on && job.has_profile == 0u) {
                if (lane == 0u && has_left) left = symbol_of(job, q, offset - 1u);
                u32 above = has_above ? symbol_of(job, q, offset - g.line) : 0u;
                tally(job, t, table_of(job, classes, has_left, has_above, left, above), symbol);
            }
        }
        __syncwarp();
        u32 rows = smaller(WARP, g.positions - position0);
        u64 start = (u64)group * g.lanes * g.positions + (u64)position0 * width;
        for (u32 r = 0u; r < rows; r++) {
            if (lane < width) job.coded[start + r * width + lane] = tile[lane * 33u + r];
        }
        __syncwarp();
    }
}

// Shared memory: classes, tiles, counts; `src/launch/encode.rs` computes the same size.
__device__ static inline void phase_count(const EncodeJob& job, u8* shared) {
    u32 thread = threadIdx.x, warp = thread / WARP, warps = blockDim.x / WARP;
    u8* classes = shared;
    u8* tile = shared + 64u + warp * (WARP * 33u);
    u32* cells = (u32*)(shared + 64u + warps * (WARP * 33u));
    u32 count = job.tables * job.alphabet;
    u32 copies = smaller(warps, larger(TALLY_WORDS / count, 1u));
    if (thread < 64u) classes[thread] = job.classes[thread];
    for (u32 i = thread; i < copies * count; i += blockDim.x) cells[i] = 0u;
    __syncthreads();
    QuantizerNumbers q = quantizer(__uint_as_float(job.control[STEP]), (i32)job.control[ZERO], job.levels);
    Tally t = {cells + warp % copies * count, 0u};
    if (job.control[KIND] == CODED) {
        if (job.geometry.positions == 1u) {
            count_in_order(job, q, classes, t);
        } else if (job.geometry.plane_stride == 1u) {
            count_rows(job, q, classes, t);
        } else {
            count_planes(job, q, classes, tile, t);
        }
    }
    u32 zeros = warp_sum(t.zeros);
    if (lane_of(thread) == 0u && zeros > 0u) atomicAdd(&t.cells[0], zeros);
    __syncthreads();
    for (u32 i = thread; i < count; i += blockDim.x) {
        u32 sum = 0u;
        for (u32 copy = 0u; copy < copies; copy++) sum += cells[copy * count + i];
        if (sum > 0u) atomicAdd(&job.counts[i], sum);
    }
}
