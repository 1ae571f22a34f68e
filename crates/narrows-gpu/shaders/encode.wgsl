// Symbols to words, last row first; a chunk's words end where its room does.

@group(0) @binding(2) var<storage, read> coded: array<u32>;
// A word to each symbol.
@group(0) @binding(3) var<storage, read_write> words: array<u32>;
@group(0) @binding(4) var<storage, read_write> states: array<u32>;
@group(0) @binding(5) var<storage, read_write> lengths: array<u32>;

fn symbol_at(index: u32) -> u32 {
    return (coded[index >> 2u] >> (8u * (index & 3u))) & 0xffu;
}

@compute @workgroup_size(WORKGROUP)
fn encode(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    SUBGROUP_BUILTINS
) {
    load_cumulative(thread);
    workgroupBarrier();

    let at = place(thread, subgroup, invocation);
    let chunk = (workgroup.y * workgroups.x + workgroup.x) * CHUNKS_EACH + at.chunk;
    let live = chunk < shape.chunks;
    let own = select(0u, chunk, live);
    let first = own * shape.chunk_rows;
    let rows = min(first + shape.chunk_rows, shape.rows) - first;
    let b = shape.probability_bits;
    // Where the last row ends.
    let last = first + rows - 1u;
    let room_end = start_of_row(last) + width_of_row(last);

    var x: array<u32, LANES_EACH>;
    for (var k = 0u; k < LANES_EACH; k++) {
        x[k] = 0x10000u;
    }
    var put = 0u;
    for (var i = 0u; i < shape.chunk_rows; i++) {
        let on_row = live && i < rows;
        let row = select(first, last - i, i < rows);
        let width = select(0u, width_of_row(row), on_row);
        let start = start_of_row(row);
        let has = neighbours_of_row(row, first);
        // Lanes in descending order, so that words read forward come in ascending order.
        for (var j = 0u; j < LANES_EACH; j++) {
            let k = LANES_EACH - 1u - j;
            let lane = k * SPAN + at.lane;
            let on = lane < width;
            var frequency = 1u;
            var low = 0u;
            if (on) {
                var table = 0u;
                if (shape.neighbours == 1u) {
                    var left = 0u;
                    var above = 0u;
                    if (has.left) {
                        left = symbol_at(start + lane - width);
                    }
                    if (has.above) {
                        above = symbol_at(start + lane - shape.line * width);
                    }
                    table = class_of(sum_of(has, left, above));
                }
                let index = table * (shape.alphabet + 1u) + symbol_at(start + lane);
                low = cumulative_at(index);
                frequency = cumulative_at(index + 1u) - low;
            }
            // A frequency is below 2^b, so the bound fits.
            let full = on && x[k] >= (frequency << (32u - b));
            let votes = vote(full, at);
            if (full) {
                words[room_end - put - votes.all + votes.below] = x[k] & 0xffffu;
                x[k] = x[k] >> 16u;
            }
            put += votes.all;
            if (on && frequency > 0u) {
                let quotient = x[k] / frequency;
                x[k] = (quotient << b) + low + (x[k] - quotient * frequency);
            }
        }
    }
    if (live) {
        for (var k = 0u; k < LANES_EACH; k++) {
            states[chunk * 32u + k * SPAN + at.lane] = x[k];
        }
        if (at.lane == 0u) {
            lengths[chunk] = put;
        }
    }
}
