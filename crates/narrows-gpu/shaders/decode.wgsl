// Payload to elements: 32 lanes a chunk, tables in workgroup memory, values stored where they belong.

@group(0) @binding(2) var<storage, read> payload: array<u32>;
// The bits of each channel's values.
@group(0) @binding(3) var<storage, read> values: array<u32>;
@group(0) @binding(4) var<storage, read_write> elements: array<atomic<u32>>;
// The lowest chunk that is not an encoder's, times 4, and what is wrong with it.
@group(0) @binding(5) var<storage, read_write> status: array<atomic<u32>>;
// Each chunk's last lines of symbols, for the neighbour above.
@group(0) @binding(6) var<storage, read_write> history: array<u32>;

const ENDS_EARLY: u32 = 0u;
const WORDS_LEFT: u32 = 1u;
const BAD_FIRST_STATE: u32 = 2u;
const BAD_LAST_STATE: u32 = 3u;

fn half_at(index: u32) -> u32 {
    return (payload[index >> 1u] >> (16u * (index & 1u))) & 0xffffu;
}

fn report(chunk: u32, what: u32) {
    atomicMin(&status[0], chunk * 4u + what);
}

fn store(row: u32, lane: u32, symbol: u32) {
    let plane = row / shape.positions * shape.lanes + lane;
    let offset = row % shape.positions * shape.position_stride + plane * shape.plane_stride;
    var value = symbol;
    if (shape.channels > 1u) {
        value += offset / shape.inner % shape.channels * shape.alphabet;
    }
    let bits = values[value];
    if (shape.dtype == 0u) {
        atomicStore(&elements[offset], bits);
    } else {
        // Two elements share a word, which began as zero.
        atomicOr(&elements[offset >> 1u], bits << (16u * (offset & 1u)));
    }
}

@compute @workgroup_size(WORKGROUP)
fn decode(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    SUBGROUP_BUILTINS
) {
    load_cumulative(thread);
    workgroupBarrier();
    fill_buckets(thread);
    workgroupBarrier();

    let at = place(thread, subgroup, invocation);
    let chunk = (workgroup.y * workgroups.x + workgroup.x) * CHUNKS_EACH + at.chunk;
    // Threads beyond the last chunk vote with the rest, and touch nothing.
    let live = chunk < shape.chunks;
    let own = select(0u, chunk, live);
    let entry = CUMULATIVE + shape.tables * (shape.alphabet + 1u) + own * 2u;
    let words = lists[entry + 1u];
    let first = own * shape.chunk_rows;
    let used = select(0u, width_of_row(first), live);
    let states = lists[entry];
    let first_word = states + 2u * width_of_row(first);
    let end = min(first + shape.chunk_rows, shape.rows);
    let mask = (1u << shape.probability_bits) - 1u;
    let history_start = own * shape.history_rows * 32u;

    var x: array<u32, LANES_EACH>;
    var left: array<u32, LANES_EACH>;
    for (var k = 0u; k < LANES_EACH; k++) {
        let lane = k * SPAN + at.lane;
        x[k] = 0x10000u;
        left[k] = 0u;
        if (lane < used) {
            x[k] = half_at(states + lane * 2u) | (half_at(states + lane * 2u + 1u) << 16u);
            if (x[k] < 0x10000u) {
                report(chunk, BAD_FIRST_STATE);
            }
        }
    }

    var taken = 0u;
    var short = false;
    // Every chunk of a workgroup takes the same number of turns, so that all vote together.
    for (var i = 0u; i < shape.chunk_rows; i++) {
        let row = first + i;
        let width = select(0u, width_of_row(min(row, shape.rows - 1u)), live && row < end);
        let has = neighbours_of_row(row, first);
        for (var k = 0u; k < LANES_EACH; k++) {
            let lane = k * SPAN + at.lane;
            let on = lane < width;
            var moved = 0x10000u;
            var symbol = 0u;
            if (on) {
                var table = 0u;
                if (shape.neighbours == 1u) {
                    var above = 0u;
                    if (has.above) {
                        above = history[history_start + row % shape.history_rows * 32u + lane];
                    }
                    table = class_of(sum_of(has, left[k], above));
                }
                let e = entry_of(table, x[k] & mask);
                symbol = e.symbol;
                moved = e.frequency * (x[k] >> shape.probability_bits) + e.bias;
            }
            let wants = on && moved < 0x10000u;
            let votes = vote(wants, at);
            if (wants) {
                let word = taken + votes.below;
                short = short || word >= words;
                moved = (moved << 16u) | half_at(first_word + min(word, max(words, 1u) - 1u));
            }
            taken += votes.all;
            if (on) {
                x[k] = moved;
                left[k] = symbol;
                if (shape.neighbours == 1u) {
                    history[history_start + row % shape.history_rows * 32u + lane] = symbol;
                }
                store(row, lane, symbol);
            }
        }
    }

    if (live) {
        if (short) {
            report(chunk, ENDS_EARLY);
        } else if (taken < words) {
            report(chunk, WORDS_LEFT);
        }
        for (var k = 0u; k < LANES_EACH; k++) {
            if (k * SPAN + at.lane < used && x[k] != 0x10000u) {
                report(chunk, BAD_LAST_STATE);
            }
        }
    }
}
