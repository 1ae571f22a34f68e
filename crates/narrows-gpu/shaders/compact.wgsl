// Chunks moved together: where each one goes, then first states and words, two to a word.

@group(0) @binding(2) var<storage, read> words: array<u32>;
@group(0) @binding(3) var<storage, read> states: array<u32>;
@group(0) @binding(4) var<storage, read> lengths: array<u32>;
// Where each chunk begins, and the last one ends, in units of two bytes.
@group(0) @binding(5) var<storage, read_write> starts: array<u32>;
@group(0) @binding(6) var<storage, read_write> payload: array<u32>;

var<workgroup> sums: array<u32, WORKGROUP>;

// One workgroup: every thread sums a run of chunks, then all find out what comes before theirs.
@compute @workgroup_size(WORKGROUP)
fn scan(@builtin(local_invocation_index) thread: u32) {
    let each = (shape.chunks + WORKGROUP - 1u) / WORKGROUP;
    let begin = min(thread * each, shape.chunks);
    let end = min(begin + each, shape.chunks);
    var sum = 0u;
    for (var chunk = begin; chunk < end; chunk++) {
        sum += lengths[chunk] + 2u * width_of_row(chunk * shape.chunk_rows);
    }
    sums[thread] = sum;
    workgroupBarrier();
    var at = 0u;
    for (var other = 0u; other < thread; other++) {
        at += sums[other];
    }
    for (var chunk = begin; chunk < end; chunk++) {
        starts[chunk] = at;
        at += lengths[chunk] + 2u * width_of_row(chunk * shape.chunk_rows);
    }
    if (end == shape.chunks) {
        starts[shape.chunks] = at;
    }
}

// The half word at an index of the payload.
fn half_at(index: u32) -> u32 {
    if (index >= starts[shape.chunks]) {
        return 0u;
    }
    var low = 0u;
    var high = shape.chunks;
    while (high - low > 1u) {
        let middle = (low + high) >> 1u;
        if (starts[middle] <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let first = low * shape.chunk_rows;
    let within = index - starts[low];
    let of_states = 2u * width_of_row(first);
    if (within < of_states) {
        return (states[low * 32u + (within >> 1u)] >> (16u * (within & 1u))) & 0xffffu;
    }
    let last = min(first + shape.chunk_rows, shape.rows) - 1u;
    let room_end = start_of_row(last) + width_of_row(last);
    return words[room_end - lengths[low] + within - of_states];
}

@compute @workgroup_size(WORKGROUP)
fn compact(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let total = (starts[shape.chunks] + 1u) / 2u;
    for (var i = workgroup.x * WORKGROUP + thread; i < total; i += workgroups.x * WORKGROUP) {
        payload[i] = half_at(i * 2u) | (half_at(i * 2u + 1u) << 16u);
    }
}
