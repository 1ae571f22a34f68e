// Elements to symbols: their range, and their symbols in coded order, counted by table.

@group(0) @binding(2) var<storage, read> elements: array<u32>;
// The first element that is not finite; for `range` then the keys of the smallest and the largest.
@group(0) @binding(3) var<storage, read_write> found: array<atomic<u32>>;
// Four symbols to a word.
@group(0) @binding(4) var<storage, read_write> coded: array<u32>;
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;

var<workgroup> smallest: atomic<u32>;
var<workgroup> largest: atomic<u32>;
var<workgroup> tally: array<atomic<u32>, 2048>;

// The element as the bits of an f32, exactly.
fn bits_of(index: u32) -> u32 {
    if (shape.dtype == 0u) {
        return elements[index];
    }
    let half = (elements[index >> 1u] >> (16u * (index & 1u))) & 0xffffu;
    if (shape.dtype == 2u) {
        return half << 16u;
    }
    let sign = (half & 0x8000u) << 16u;
    let exponent = (half >> 10u) & 31u;
    let mantissa = half & 0x3ffu;
    if (exponent == 31u) {
        return sign | 0x7f800000u | (mantissa << 13u);
    }
    if (exponent != 0u) {
        return sign | ((exponent + 112u) << 23u) | (mantissa << 13u);
    }
    // Multiples of 2^-24, normal as f32.
    return sign | bitcast<u32>(f32(mantissa) * 5.9604644775390625e-8);
}

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

fn quantize(bits: u32) -> u32 {
    let scaled = round(bitcast<f32>(bits) * shape.reciprocal) + shape.zero;
    return u32(clamp(scaled, 0.0, shape.top));
}

@compute @workgroup_size(WORKGROUP)
fn range(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    if (thread == 0u) {
        atomicStore(&smallest, 0xffffffffu);
        atomicStore(&largest, 0u);
    }
    workgroupBarrier();
    var low = 0xffffffffu;
    var high = 0u;
    for (var i = workgroup.x * WORKGROUP + thread; i < shape.elements; i += workgroups.x * WORKGROUP) {
        let bits = bits_of(i);
        if (!is_finite(bits)) {
            atomicMin(&found[0], i);
        }
        // Integers in the order of the values.
        let key = bits ^ select(0x80000000u, 0xffffffffu, (bits >> 31u) == 1u);
        low = min(low, key);
        high = max(high, key);
    }
    atomicMin(&smallest, low);
    atomicMax(&largest, high);
    workgroupBarrier();
    if (thread == 0u) {
        atomicMin(&found[1], atomicLoad(&smallest));
        atomicMax(&found[2], atomicLoad(&largest));
    }
}

@compute @workgroup_size(WORKGROUP)
fn count(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let cells = shape.tables * shape.alphabet;
    for (var i = thread; i < cells; i += WORKGROUP) {
        atomicStore(&tally[i], 0u);
    }
    workgroupBarrier();
    let groups_of_four = (shape.elements + 3u) / 4u;
    for (var i = workgroup.x * WORKGROUP + thread; i < groups_of_four; i += workgroups.x * WORKGROUP) {
        var word = 0u;
        for (var k = 0u; k < 4u; k++) {
            let index = i * 4u + k;
            if (index < shape.elements) {
                let symbol = count_one(index);
                word |= symbol << (8u * k);
            }
        }
        coded[i] = word;
    }
    workgroupBarrier();
    for (var i = thread; i < cells; i += WORKGROUP) {
        let n = atomicLoad(&tally[i]);
        if (n > 0u) {
            atomicAdd(&counts[i], n);
        }
    }
}

// The symbol at an index of the coded order, counted under its table.
fn count_one(index: u32) -> u32 {
    let of_group = shape.lanes * shape.positions;
    let group = index / of_group;
    let width = min(shape.lanes, shape.planes - group * shape.lanes);
    let within = index % of_group;
    let position = within / width;
    let plane = group * shape.lanes + within % width;
    let offset = position * shape.position_stride + plane * shape.plane_stride;
    let bits = bits_of(offset);
    if (!is_finite(bits)) {
        atomicMin(&found[0], offset);
    }
    let symbol = quantize(bits);
    var table = 0u;
    if (shape.neighbours == 1u) {
        let row = group * shape.positions + position;
        let has = neighbours_of_row(row, row / shape.chunk_rows * shape.chunk_rows);
        var left = 0u;
        var above = 0u;
        if (has.left) {
            left = quantize(bits_of(offset - shape.position_stride));
        }
        if (has.above) {
            above = quantize(bits_of(offset - shape.line * shape.position_stride));
        }
        table = class_of(sum_of(has, left, above));
    }
    atomicAdd(&tally[table * shape.alphabet + symbol], 1u);
    return symbol;
}
