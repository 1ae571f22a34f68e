//! Strips of rows decoded into vector registers and consumed at once: multiplied, or stored.
//!
//! A chunk is a strip of matrix rows. Its 64 lanes hold 64 neighbouring columns, so that what a step decodes meets 64
//! neighbouring inputs and nothing is transposed. Four chunks are decoded side by side: one waits for itself.

use narrows::machine::{
    ByteStates, LANES_PER_STREAM, Lanes, MAX_LANES, MAX_STREAMS, Payload, Strip, Tables, Take, decode_rows,
};

use crate::encode::SIDE_BY_SIDE;
use crate::frame::{Place, Tans};
use crate::reference::{PARTIALS, fold};

/// What multiplying takes beyond decoding.
pub(crate) trait Multiply: Lanes {
    /// Proof that the processor can do what multiplying takes beyond what decoding does.
    type Proof: Copy;
    /// [`PARTIALS`] sums in f32.
    type Sums: Copy;
    /// Sums of 32-bit integers, as many as suit.
    type Totals: Copy;

    /// Partial sums of nothing.
    fn no_sums(self, proof: Self::Proof) -> Self::Sums;
    /// Add the products of 64 values (bytes with a sign) and inputs, column `c` to partial sum `c % 16`, ascending.
    fn add_products(
        self,
        proof: Self::Proof,
        sums: Self::Sums,
        values: Self::Bytes,
        x: &[f32; 64],
    ) -> Self::Sums;
    /// The same for values of -8 to 7, in whatever way is fastest for so few.
    #[inline(always)]
    fn add_few_products(
        self,
        proof: Self::Proof,
        sums: Self::Sums,
        values: Self::Bytes,
        x: &[f32; 64],
    ) -> Self::Sums {
        self.add_products(proof, sums, values, x)
    }
    /// Add the products of 16 weights and inputs, each to its partial sum.
    fn add_floats(
        self,
        proof: Self::Proof,
        sums: Self::Sums,
        weights: &[f32; 16],
        x: &[f32; 16],
    ) -> Self::Sums;
    /// The partial sums.
    fn partials(self, proof: Self::Proof, sums: Self::Sums) -> [f32; PARTIALS];
    /// Totals of nothing.
    fn no_totals(self, proof: Self::Proof) -> Self::Totals;
    /// Add the products of 64 values (bytes with a sign) and inputs (bytes without).
    fn add_int_products(
        self,
        proof: Self::Proof,
        totals: Self::Totals,
        values: Self::Bytes,
        x: &[u8; 64],
    ) -> Self::Totals;
    /// The sum of all totals.
    fn total(self, proof: Self::Proof, totals: Self::Totals) -> i32;
}

/// Inputs that a row of weights is multiplied with at once: a sum waits for the one before.
const INPUTS: usize = 8;

/// Multiply a row of weights with inputs, one after the other in `x`. Both are padded with zeros to a multiple of 16.
#[inline(always)]
pub(crate) fn multiply<L: Multiply>(lanes: L, proof: L::Proof, weights: &[f32], x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks(INPUTS * weights.len()).zip(y.chunks_mut(INPUTS)) {
        if y.len() == INPUTS {
            y.copy_from_slice(&multiply_row::<L, INPUTS>(lanes, proof, weights, x));
        } else {
            for (x, y) in x.chunks_exact(weights.len()).zip(y) {
                [*y] = multiply_row::<L, 1>(lanes, proof, weights, x);
            }
        }
    }
}

/// The product of a row of values and `x`, which goes on with 64 zeros.
#[inline(always)]
pub(crate) fn dot<L: Multiply>(lanes: L, proof: L::Proof, values: &[i8], x: &[f32]) -> f32 {
    let mut sums = lanes.no_sums(proof);
    for (at, values) in bytemuck::cast_slice::<i8, u8>(values).chunks(MAX_LANES).enumerate() {
        let mut bytes = [0; MAX_LANES];
        bytes[..values.len()].copy_from_slice(values);
        let x = x[at * MAX_LANES..].first_chunk().expect("64 zeros follow");
        sums = lanes.add_products(proof, sums, lanes.load(&bytes), x);
    }
    fold(lanes.partials(proof, sums))
}

#[inline(always)]
fn multiply_row<L: Multiply, const N: usize>(
    lanes: L,
    proof: L::Proof,
    weights: &[f32],
    x: &[f32],
) -> [f32; N] {
    let mut sums = [lanes.no_sums(proof); N];
    let (weights, _) = weights.as_chunks::<16>();
    let inputs: [&[[f32; 16]]; N] =
        std::array::from_fn(|n| x[n * weights.len() * 16..(n + 1) * weights.len() * 16].as_chunks().0);
    for (at, weights) in weights.iter().enumerate() {
        for n in 0..N {
            sums[n] = lanes.add_floats(proof, sums[n], weights, &inputs[n][at]);
        }
    }
    sums.map(|sums| fold(lanes.partials(proof, sums)))
}

/// What is done with the values of a row, 64 columns at a time.
pub(crate) trait Consume<L: Lanes> {
    /// What a row has come to so far.
    type Row: Copy;
    /// What a row comes to, or where its values go.
    type Output: Copy;

    fn start(&self, lanes: L) -> Self::Row;
    /// `values` are those of 64 columns from `column` on.
    fn take(
        &self,
        lanes: L,
        row: Self::Row,
        values: L::Bytes,
        column: usize,
        output: &mut [Self::Output],
    ) -> Self::Row;
    /// The same of fewer columns; values beyond these are zero.
    #[inline(always)]
    fn take_few(
        &self,
        lanes: L,
        row: Self::Row,
        values: L::Bytes,
        column: usize,
        output: &mut [Self::Output],
    ) -> Self::Row {
        self.take(lanes, row, values, column, output)
    }
    fn finish(&self, lanes: L, row: Self::Row, output: &mut [Self::Output]);
    /// Elements of the output that a row has.
    fn width(&self) -> usize;
}

/// Products in f32; `x` goes on with 64 zeros. With `FEW` all values are [`FEW_VALUES`].
pub(crate) struct Floats<'a, P, const FEW: bool> {
    pub(crate) proof: P,
    pub(crate) x: &'a [f32],
}

/// What [`Multiply::add_few_products`] takes.
pub(crate) const FEW_VALUES: std::ops::RangeInclusive<i8> = -8..=7;

impl<L: Multiply, const FEW: bool> Consume<L> for Floats<'_, L::Proof, FEW> {
    type Row = L::Sums;
    type Output = f32;

    #[inline(always)]
    fn start(&self, lanes: L) -> L::Sums {
        lanes.no_sums(self.proof)
    }

    #[inline(always)]
    fn take(&self, lanes: L, row: L::Sums, values: L::Bytes, column: usize, _: &mut [f32]) -> L::Sums {
        let x = self.x[column..].first_chunk().expect("64 zeros follow");
        if FEW {
            lanes.add_few_products(self.proof, row, values, x)
        } else {
            lanes.add_products(self.proof, row, values, x)
        }
    }

    #[inline(always)]
    fn finish(&self, lanes: L, row: L::Sums, output: &mut [f32]) {
        output[0] = fold(lanes.partials(self.proof, row));
    }

    fn width(&self) -> usize {
        1
    }
}

/// Products with bytes; `x` goes on with 64 zeros.
pub(crate) struct Ints<'a, P> {
    pub(crate) proof: P,
    pub(crate) x: &'a [u8],
    /// What stands for zero in `x`.
    pub(crate) zero: u8,
    /// One for each column, if `zero` is not 0; 64 zeros after them.
    pub(crate) ones: &'a [u8],
}

impl<L: Multiply> Consume<L> for Ints<'_, L::Proof> {
    type Row = [L::Totals; 2];
    type Output = i32;

    #[inline(always)]
    fn start(&self, lanes: L) -> Self::Row {
        [lanes.no_totals(self.proof); 2]
    }

    #[inline(always)]
    fn take(&self, lanes: L, row: Self::Row, values: L::Bytes, column: usize, _: &mut [i32]) -> Self::Row {
        let x = self.x[column..].first_chunk().expect("64 zeros follow");
        let products = lanes.add_int_products(self.proof, row[0], values, x);
        if self.zero == 0 {
            return [products, row[1]];
        }
        let ones = self.ones[column..].first_chunk().expect("64 zeros follow");
        [products, lanes.add_int_products(self.proof, row[1], values, ones)]
    }

    #[inline(always)]
    fn finish(&self, lanes: L, row: Self::Row, output: &mut [i32]) {
        let [products, sums] = row.map(|totals| lanes.total(self.proof, totals));
        output[0] = products - i32::from(self.zero) * sums;
    }

    fn width(&self) -> usize {
        1
    }
}

/// The values themselves.
pub(crate) struct Store {
    pub(crate) columns: usize,
}

impl<L: Lanes> Consume<L> for Store {
    type Row = ();
    type Output = i8;

    #[inline(always)]
    fn start(&self, _: L) {}

    #[inline(always)]
    fn take(&self, lanes: L, (): (), values: L::Bytes, column: usize, output: &mut [i8]) {
        let output: &mut [u8] = bytemuck::cast_slice_mut(&mut output[column..]);
        lanes.store(values, output.first_chunk_mut().expect("64 columns"));
    }

    #[inline(always)]
    fn take_few(&self, lanes: L, (): (), values: L::Bytes, column: usize, output: &mut [i8]) {
        let output: &mut [u8] = bytemuck::cast_slice_mut(&mut output[column..]);
        if let Some(whole) = output.first_chunk_mut() {
            lanes.store(values, whole);
        } else {
            let mut bytes = [0; MAX_LANES];
            lanes.store(values, &mut bytes);
            output.copy_from_slice(&bytes[..output.len()]);
        }
    }

    #[inline(always)]
    fn finish(&self, _: L, (): (), _: &mut [i8]) {}

    fn width(&self) -> usize {
        self.columns
    }
}

/// What chunks are decoded with.
#[derive(Clone, Copy)]
pub(crate) struct Coded<'a> {
    pub(crate) bytes: Payload<'a>,
    pub(crate) tans: &'a Tans,
    /// The machines of all contexts as one, symbols as values.
    pub(crate) states: &'a ByteStates,
    /// The most bits that a state reads.
    pub(crate) most_bits: u32,
    /// The largest value.
    pub(crate) half: u8,
    pub(crate) columns: usize,
}

/// Decode these chunks, one after the other in `output`, `rows` matrix rows each but the last, which may have fewer.
///
/// Returns the first chunk that no encoder wrote, and what does not hold.
#[inline(always)]
pub(crate) fn run<L: Lanes, C: Consume<L>>(
    lanes: L,
    coded: Coded<'_>,
    places: &[Place],
    rows: usize,
    consumer: &C,
    output: &mut [C::Output],
) -> Result<(), (usize, &'static str)> {
    match (coded.tans.table_bits(), coded.most_bits) {
        (6, _) => run_with::<L, C, 6, 63>(lanes, coded, places, rows, consumer, output),
        (7, _) => run_with::<L, C, 7, 63>(lanes, coded, places, rows, consumer, output),
        (8, 0..8) => run_with::<L, C, 8, 63>(lanes, coded, places, rows, consumer, output),
        (8, _) => run_with::<L, C, 8, 64>(lanes, coded, places, rows, consumer, output),
        _ => unreachable!("states fit into bytes"),
    }
}

#[inline(always)]
fn run_with<L: Lanes, C: Consume<L>, const BITS: u32, const MOST: u32>(
    lanes: L,
    coded: Coded<'_>,
    places: &[Place],
    rows: usize,
    consumer: &C,
    output: &mut [C::Output],
) -> Result<(), (usize, &'static str)> {
    let tables = Tables::new(lanes, coded.states, BITS);
    let size = rows * consumer.width();
    let (mut rest, mut output, mut done) = (places, output, 0);
    while !rest.is_empty() {
        // All but the last chunk have as many rows as the others.
        let wrong = if let Some((together, after)) = rest.split_first_chunk::<SIDE_BY_SIDE>()
            && output.len() >= SIDE_BY_SIDE * size
        {
            let (own, others) = std::mem::take(&mut output).split_at_mut(SIDE_BY_SIDE * size);
            (rest, output) = (after, others);
            let mut parts = own.chunks_mut(size);
            let outputs = std::array::from_fn(|_| parts.next().expect("as many"));
            strips::<L, C, BITS, MOST, false, SIDE_BY_SIDE>(
                lanes, coded, &tables, together, consumer, outputs,
            )
        } else {
            let (alone, after) = rest.split_first_chunk::<1>().expect("there is one");
            let length = size.min(output.len());
            let (own, others) = std::mem::take(&mut output).split_at_mut(length);
            (rest, output) = (after, others);
            strips::<L, C, BITS, MOST, true, 1>(lanes, coded, &tables, alone, consumer, [own])
        };
        wrong.map_err(|(chunk, what)| (done + chunk, what))?;
        done = places.len() - rest.len();
    }
    Ok(())
}

/// Decode `N` chunks of as many rows each.
#[inline(always)]
fn strips<L: Lanes, C: Consume<L>, const BITS: u32, const MOST: u32, const AHEAD: bool, const N: usize>(
    lanes: L,
    coded: Coded<'_>,
    tables: &Tables<L>,
    places: &[Place; N],
    consumer: &C,
    outputs: [&mut [C::Output]; N],
) -> Result<(), (usize, &'static str)> {
    let (payload, width, columns) = (coded.bytes, consumer.width(), coded.columns);
    let mut strips: [Strip<L, BITS, MOST, AHEAD>; N] = std::array::from_fn(|at| {
        let (states, positions) = coded.first(&places[at]);
        Strip::at(lanes, &states, positions, payload)
    });
    let step = coded.tans.lanes;
    let (used, used_last) = (used(lanes, step), used(lanes, columns % step));
    let whole = columns / step;
    let rows = outputs[0].len() / width;
    let mut rows_out = outputs.map(|output| output.chunks_exact_mut(width));
    for _ in 0..rows {
        let mut own = rows_out.each_mut().map(|rows| rows.next().expect("as many rows"));
        let mut sums = [consumer.start(lanes); N];
        if step == MAX_LANES {
            let mut taker = Row { consumer, sums, outputs: &mut own };
            decode_rows(lanes, &mut strips, (tables, payload), whole, &mut taker);
            sums = taker.sums;
        } else {
            for at in 0..whole {
                for n in 0..N {
                    let values = lanes.and(used, strips[n].row_of(lanes, tables, payload, used));
                    sums[n] = consumer.take_few(lanes, sums[n], values, at * step, own[n]);
                }
            }
        }
        for n in 0..N {
            if columns % step != 0 {
                let values = strips[n].row_of(lanes, tables, payload, used_last);
                let values = lanes.and(used_last, values);
                sums[n] = consumer.take_few(lanes, sums[n], values, whole * step, own[n]);
            }
            consumer.finish(lanes, sums[n], own[n]);
        }
    }
    for (n, (strip, place)) in strips.iter().zip(places).enumerate() {
        let (states, positions) = strip.place(lanes);
        coded.check(place, &states, &positions).map_err(|what| (n, what))?;
    }
    Ok(())
}

/// A matrix row of each of `N` chunks, on its way to a consumer.
struct Row<'a, 'o, L: Lanes, C: Consume<L>, const N: usize> {
    consumer: &'a C,
    sums: [C::Row; N],
    outputs: &'a mut [&'o mut [C::Output]; N],
}

impl<L: Lanes, C: Consume<L>, const N: usize> Take<L> for Row<'_, '_, L, C, N> {
    type Mark = [C::Row; N];

    #[inline(always)]
    fn mark(&self) -> [C::Row; N] {
        self.sums
    }

    #[inline(always)]
    fn back(&mut self, mark: [C::Row; N]) {
        self.sums = mark;
    }

    #[inline(always)]
    fn take(&mut self, lanes: L, strip: usize, row: usize, symbols: L::Bytes) {
        let output = &mut *self.outputs[strip];
        self.sums[strip] = self.consumer.take(lanes, self.sums[strip], symbols, row * MAX_LANES, output);
    }
}

/// 255 in the bytes of the first `count` lanes.
#[inline(always)]
fn used<L: Lanes>(lanes: L, count: usize) -> L::Bytes {
    let mut used = [0; MAX_LANES];
    used[..count].fill(255);
    lanes.load(&used)
}

impl Coded<'_> {
    /// A chunk's first states, and where its bit streams begin.
    fn first(&self, place: &Place) -> ([u8; MAX_LANES], [u64; MAX_STREAMS]) {
        let (mut states, bits) = ([0; MAX_LANES], self.tans.state_bits as usize);
        for (lane, state) in states[..self.tans.lanes_used(self.columns)].iter_mut().enumerate() {
            let (at, shift) = (place.start + lane * bits / 8, lane * bits % 8);
            // The checksum follows the chunks: there is a next byte.
            let both = u16::from_le_bytes([self.bytes.bytes()[at], self.bytes.bytes()[at + 1]]);
            *state = (both >> shift & ((1 << bits) - 1)) as u8;
        }
        (states, place.streams.map(|start| 8 * u64::from(start)))
    }

    /// Whether a chunk was left as an encoder begins it, once every row is decoded. A position only ever moves
    /// forward, so one that ran over its stream's end at any time is beyond it now.
    fn check(
        &self,
        place: &Place,
        states: &[u8; MAX_LANES],
        positions: &[u64; MAX_STREAMS],
    ) -> Result<(), &'static str> {
        let bytes = self.bytes.bytes();
        let lanes = self.tans.lanes_used(self.columns);
        let used = lanes * self.tans.state_bits as usize % 8;
        let states_end = place.start + self.tans.states_bytes(self.columns);
        if used > 0 && bytes[states_end - 1] >> used != 0 {
            return Err("bits are set after the lanes' first states");
        }
        for group in 0..lanes.div_ceil(LANES_PER_STREAM) {
            let end = place.streams.get(group + 1).map_or(place.streams_end, |&end| end as usize);
            let (end, position) = (end.min(place.streams_end) as u64, positions[group]);
            if position > 8 * end {
                return Err("the bits end before the weights do");
            }
            let (byte, used) = ((position / 8) as usize, position % 8);
            if position.div_ceil(8) != end || (used > 0 && bytes[byte] >> used != 0) {
                return Err("bits are left over");
            }
        }
        // Whatever context the last weights leave.
        if states[..lanes].iter().any(|&state| u32::from(state) % (1 << self.tans.state_bits) != 0) {
            return Err("a lane does not end at state 0");
        }
        Ok(())
    }
}
