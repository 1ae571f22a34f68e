//! Bins to a packed tensor.

use narrows::machine::{BitWriter, LANES_PER_STREAM, MAX_LANES, Machine};
use narrows::{Dtype, Shape, SymbolEncoder, SymbolLayout, Target};

use crate::choice::{self, Choice, States};
use crate::contexts::{self, Contexts};
use crate::error::{Error, Result};
use crate::frame::{Content, GROUP, Header, Tans, matrix_of, put_varint, seal};
use crate::grid::Quantized;
use crate::outliers::{self, Listed};

/// The share of a payload that first states and bit-stream lengths may cost.
const OVERHEAD: f64 = 0.002;
/// Bits of a lane's first state that its stream does not give back, about, less those of the state itself.
const STREAM_BYTES: f64 = 2.5;
/// Chunks that a product decodes side by side.
pub(crate) const SIDE_BY_SIDE: usize = 4;

/// What packing can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PackOptions {
    /// How many states tensors are coded with.
    pub states: States,
    /// Whether weights are coded in the context of their neighbours.
    pub contexts: Contexts,
    /// Matrix rows of a chunk, if not as many as make chunks cost 0.2 %.
    pub chunk_rows: Option<usize>,
}

/// Pack bins of a tensor of type `dtype` and this shape.
///
/// # Errors
/// [`Error::Shape`] if there are not as many bins as the shape says, or one is off the grid;
/// [`Error::InvalidOption`] for states out of range.
pub fn pack(quantized: &Quantized, dtype: Dtype, shape: &Shape, options: &PackOptions) -> Result<Vec<u8>> {
    check(quantized, shape)?;
    if let States::Exactly(bits) = options.states
        && !narrows::machine::STATE_BITS.contains(&bits)
    {
        let value = f64::from(bits);
        return Err(Error::InvalidOption { what: "log2 of the states", value, allowed: "6 to 12" });
    }
    let counts = quantized.counts();
    let (rows, columns) = (quantized.rows, quantized.columns);
    let header = |content, chunk_rows| Header {
        dtype,
        shape: *shape,
        grid: quantized.grid.clone(),
        content,
        chunk_rows,
    };
    let mut out = Vec::new();
    let first = quantized.values[0];
    if quantized.values.iter().all(|&value| value == first) {
        header(Content::Constant(first), rows).write(&mut out);
        seal(&mut out);
        return Ok(out);
    }
    let Some(choice) = choice::choose(&counts, options.states) else {
        let chunk_rows =
            options.chunk_rows.unwrap_or(choice::STREAM_SYMBOLS.div_ceil(columns)).clamp(1, rows);
        return write_streams(quantized, &header(Content::Streams, chunk_rows));
    };
    let lanes = lanes_for(choice.bits / 8.0, choice.state_bits);
    let chunk_rows = options.chunk_rows.unwrap_or_else(|| chunk_rows_for(&choice, lanes, (rows, columns)));
    let chunk_rows = chunk_rows.clamp(1, rows);
    let in_contexts = match options.contexts {
        Contexts::One => None,
        Contexts::Neighbour => in_contexts(quantized, lanes, chunk_rows, &choice),
    };
    let (choice, ordered) = in_contexts.map_or((choice, None), |(choice, ordered)| (choice, Some(ordered)));
    let quantized = ordered.as_ref().unwrap_or(quantized);
    let listed = Listed::of(quantized, &choice.weights);
    let tans = Tans {
        state_bits: choice.state_bits,
        lanes,
        weights: choice.weights,
        contexts: choice.contexts,
        mantissa: choice.mantissa,
        outliers: listed.code,
    };
    write_chunks(quantized, &header(Content::Tans(tans), chunk_rows), &listed, &mut out);
    Ok(out)
}

/// As many matrix rows for a chunk as make chunks cost no more than they may.
fn chunk_rows_for(choice: &Choice, lanes: usize, (rows, columns): (usize, usize)) -> usize {
    let cost = chunk_cost(lanes.min(columns), choice.state_bits);
    let chunks = (choice.bits / 8.0 * OVERHEAD / cost) as usize;
    // Whole groups of chunks, so that none is decoded alone.
    let chunks = if chunks > SIDE_BY_SIDE { chunks / SIDE_BY_SIDE * SIDE_BY_SIDE } else { chunks.max(1) };
    rows.div_ceil(chunks)
}

/// Machines for two contexts and the bins in the order that these take, if that is worth it.
fn in_contexts(
    quantized: &Quantized,
    lanes: usize,
    chunk_rows: usize,
    one: &Choice,
) -> Option<(Choice, Quantized)> {
    let (columns, half) = (quantized.columns, quantized.grid.half());
    let lanes = lanes.min(columns);
    let values = contexts::to_order(&contexts::order(columns, lanes), &quantized.values);
    let counts = contexts::counts(&values, half, (columns, lanes, chunk_rows));
    let two = choice::choose_contexts([&counts[0], &counts[1]])?;
    let worth_it = two.bits < one.bits * (1.0 - contexts::WORTH_IT);
    let ordered = || Quantized { values, grid: quantized.grid.clone(), rows: quantized.rows, columns };
    worth_it.then(|| (two, ordered()))
}

fn check(quantized: &Quantized, shape: &Shape) -> Result<()> {
    let Quantized { values, grid, rows, columns } = quantized;
    if matrix_of(shape) != (*rows, *columns) || values.len() != shape.elements() || values.is_empty() {
        let (value, bound) = (values.len(), shape.elements().max(1));
        return Err(Error::Shape { what: "number of quantised weights", value, bound });
    }
    if grid.steps().len() != 1 && grid.steps().len() != *rows {
        return Err(Error::Shape { what: "number of steps", value: grid.steps().len(), bound: *rows });
    }
    if let Some(value) = values.iter().find(|value| value.unsigned_abs() > grid.half()) {
        let (value, bound) = (usize::from(value.unsigned_abs()), usize::from(grid.half()));
        return Err(Error::Shape { what: "magnitude of a bin", value, bound });
    }
    Ok(())
}

/// Bytes that a chunk costs: first states, and lengths and last bits of bit streams.
fn chunk_cost(lanes: usize, state_bits: u32) -> f64 {
    lanes as f64 * f64::from(state_bits) / 8.0 + (lanes.div_ceil(GROUP) as f64) * STREAM_BYTES
}

/// As many lanes as a payload of so many bytes can pay for; 64 are what products decode fastest.
pub(crate) fn lanes_for(bytes: f64, state_bits: u32) -> usize {
    let affordable = |&lanes: &usize| chunk_cost(lanes, state_bits) <= 2.0 * OVERHEAD * bytes;
    [MAX_LANES, 32].into_iter().find(affordable).unwrap_or(16)
}

fn write_chunks(quantized: &Quantized, header: &Header, listed: &Listed, out: &mut Vec<u8>) {
    let Content::Tans(tans) = &header.content else { unreachable!("made by the caller") };
    let machines = choice::machines(&tans.weights, tans.contexts, tans.state_bits).expect("they were chosen");
    header.write(out);
    let (mut payload, mut scratch) = (Vec::new(), Vec::new());
    let mut listed = listed.list.as_slice();
    for chunk in 0..header.chunks() {
        let rows = header.rows_of(chunk);
        let values = &quantized.values[rows.start * quantized.columns..rows.end * quantized.columns];
        for length in encode_chunk(values, quantized, tans, &machines, &mut scratch, &mut payload) {
            put_varint(out, length as u64);
        }
        if let Some(code) = tans.outliers {
            let end = (rows.end * quantized.columns) as u64;
            let (own, rest) = listed.split_at(listed.partition_point(|(index, _)| *index < end));
            listed = rest;
            let before = payload.len();
            outliers::write(own, (rows.start * quantized.columns) as u64, code, &mut payload);
            put_varint(out, (payload.len() - before) as u64);
        }
    }
    out.append(&mut payload);
    seal(out);
}

/// Append the first states and bit streams of a chunk's values; returns the streams' bytes.
fn encode_chunk(
    values: &[i8],
    quantized: &Quantized,
    tans: &Tans,
    machines: &[Machine],
    taken: &mut Vec<(u16, u8)>,
    payload: &mut Vec<u8>,
) -> Vec<usize> {
    let columns = quantized.columns;
    let (lanes, half) = (tans.lanes_used(columns), i32::from(quantized.grid.half()));
    let bits = machines[0].bits;
    // An outlier is coded as a zero.
    let coded = |value: i8| {
        let symbol = (i32::from(value) + half) as usize;
        if tans.weights[symbol] == 0 { half as usize } else { symbol }
    };
    let context = |row: usize, place: usize| {
        let before = contexts::before(values, columns, lanes, row, place);
        usize::from(before.is_some_and(|before| coded(before) != half as usize))
    };
    let mut states = [0_u32; MAX_LANES];
    taken.clear();
    taken.resize(values.len(), (0, 0));
    let rows = values.chunks_exact(columns).zip(taken.chunks_exact_mut(columns));
    for (row, (values, taken)) in rows.enumerate().rev() {
        for (at, &value) in values.iter().enumerate().rev() {
            let machine = if machines.len() > 1 { &machines[context(row, at)] } else { &machines[0] };
            let (state, step) = (&mut states[at % tans.lanes], machine.steps[coded(value)]);
            let x = *state + (1 << bits);
            let count = (x + step.more) >> 16;
            taken[at] = ((x & ((1 << count) - 1)) as u16, count as u8);
            *state = u32::from(machine.of_symbol[(x >> count).wrapping_add(step.offset) as usize]);
        }
    }
    let mut first = BitWriter::new(payload);
    states[..lanes].iter().for_each(|&state| first.put(state, bits));
    first.finish();
    let mut lengths = Vec::with_capacity(lanes.div_ceil(LANES_PER_STREAM));
    for group in (0..lanes).step_by(LANES_PER_STREAM) {
        let before = payload.len();
        let mut stream = BitWriter::new(payload);
        for row in taken.chunks_exact(columns) {
            for step in row.chunks(tans.lanes) {
                let own = step.iter().skip(group).take(LANES_PER_STREAM);
                own.for_each(|&(bits, count)| stream.put(bits.into(), count.into()));
            }
        }
        stream.finish();
        lengths.push(payload.len() - before);
    }
    lengths
}

/// The packed tensor whose chunks are bare streams of rANS.
fn write_streams(quantized: &Quantized, header: &Header) -> Result<Vec<u8>> {
    let (mut out, mut payload, mut stream) = (Vec::new(), Vec::new(), Vec::new());
    header.write(&mut out);
    let bytes = quantized.entropy() / 8.0 * (header.chunk_rows * quantized.columns) as f64;
    let mut encoder = SymbolEncoder::new(Target::Size).with_chunks(choice::rans_chunks(bytes));
    let half = quantized.grid.half();
    for chunk in 0..header.chunks() {
        let rows = header.rows_of(chunk);
        let values = &quantized.values[rows.start * quantized.columns..rows.end * quantized.columns];
        let symbols: Vec<u8> =
            values.iter().map(|&value| (i16::from(value) + i16::from(half)) as u8).collect();
        let layout = SymbolLayout::natural(symbols.len(), quantized.grid.bins())?;
        encoder.encode_into(&symbols, &layout, &mut stream)?;
        put_varint(&mut out, stream.len() as u64);
        payload.extend_from_slice(&stream);
    }
    out.append(&mut payload);
    seal(&mut out);
    Ok(out)
}
