// What every kernel knows of its tensor. The fields are written by `wgpu/job.rs`, in this order.

struct Shape {
    planes: u32,
    positions: u32,
    // Positions of a line of a plane.
    line: u32,
    lanes: u32,
    chunk_rows: u32,
    rows: u32,
    // Elements from a position to the next, and from a plane to the next.
    position_stride: u32,
    plane_stride: u32,
    chunks: u32,
    elements: u32,
    alphabet: u32,
    probability_bits: u32,
    tables: u32,
    // 1 if the neighbours' sum chooses the table.
    neighbours: u32,
    // A sum is shifted down by so much to its bin.
    sum_shift: u32,
    // A slot is shifted down by so much to its bucket.
    bucket_shift: u32,
    // 0 f32, 1 f16, 2 bf16.
    dtype: u32,
    // Channels with values of their own, and elements of one channel in a row.
    channels: u32,
    inner: u32,
    // Rows of a chunk's history.
    history_rows: u32,
    // The quantiser: reciprocal of the step, zero point, largest symbol.
    reciprocal: f32,
    zero: f32,
    top: f32,
    padding: u32,
}

// `lists`: the class of each of 64 bins; then for each table its cumulative frequencies (alphabet + 1); then for each chunk
// where it begins in the payload and its words, both in units of two bytes.
const CLASSES: u32 = 0u;
const CUMULATIVE: u32 = 64u;

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> lists: array<u32>;

// Lanes of a row, or of a chunk that begins with it.
fn width_of_row(row: u32) -> u32 {
    let first_plane = row / shape.positions * shape.lanes;
    return min(shape.lanes, shape.planes - first_plane);
}

// Where a row's symbols lie in the coded order.
fn start_of_row(row: u32) -> u32 {
    let group = row / shape.positions;
    return group * shape.lanes * shape.positions + row % shape.positions * width_of_row(row);
}

// The neighbours that a row has within its chunk.
struct Neighbours {
    left: bool,
    above: bool,
}

fn neighbours_of_row(row: u32, first: u32) -> Neighbours {
    let position = row % shape.positions;
    return Neighbours(position % shape.line != 0u && row > first, position >= shape.line && row - first >= shape.line);
}

// The sum that chooses a table; a neighbour that is missing is replaced by the other.
fn sum_of(has: Neighbours, left: u32, above: u32) -> u32 {
    let a = select(above, left, has.left);
    let b = select(left, above, has.above);
    return select(0u, a + b, has.left || has.above);
}

fn class_of(sum: u32) -> u32 {
    return lists[CLASSES + (sum >> shape.sum_shift)];
}
