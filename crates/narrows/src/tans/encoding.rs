//! The encoder: the machine run backward. This is the specification; the fast paths give the same bytes.

use std::ops::Range;

use super::spec::Machine;
use super::{LANES_PER_STREAM, MAX_LANES};
use crate::bits::BitWriter;
use crate::layout::Rows;
use crate::model::Table;

/// What chunks are written to.
pub(crate) struct Output<'a> {
    /// Bits each symbol puts out, and how many; kept between calls for its memory.
    pub(crate) taken: &'a mut Vec<(u16, u8)>,
    /// First states and bit streams are appended here.
    pub(crate) payload: &'a mut Vec<u8>,
    /// The bytes of each bit stream are appended here.
    pub(crate) lengths: &'a mut Vec<u32>,
}

/// Encode the symbols of rows `chunk` (`coded` holds just these): the first state of each lane of the
/// chunk's first row, `bits` bits each, then the bit streams.
pub(crate) fn encode_chunk(
    coded: &[u8],
    rows: &Rows,
    chunk: &Range<usize>,
    (table, machine): (&Table, &Machine),
    output: Output<'_>,
) {
    let Output { taken, payload: out, lengths } = output;
    let lanes = rows.width(chunk.start);
    let base = rows.start(chunk.start);
    let mut states = [0_u32; MAX_LANES];
    taken.clear();
    taken.resize(coded.len(), (0, 0));
    for row in chunk.clone().rev() {
        let (start, width) = (rows.start(row) - base, rows.width(row));
        for lane in 0..width {
            let symbol = coded[start + lane] as usize;
            let (f, c) = (u32::from(table.frequencies()[symbol]), usize::from(table.cumulative()[symbol]));
            // So many low bits go that what is left lies in [f, 2 f).
            let x = states[lane] + (1 << machine.bits);
            let bits = (x / f).ilog2();
            taken[start + lane] = ((x & ((1 << bits) - 1)) as u16, bits as u8);
            states[lane] = u32::from(machine.of_symbol[c + ((x >> bits) - f) as usize]);
        }
    }
    let mut first = BitWriter::new(out);
    states[..lanes].iter().for_each(|&state| first.put(state, machine.bits));
    first.finish();
    for group in (0..lanes).step_by(LANES_PER_STREAM) {
        let before = out.len();
        let mut stream = BitWriter::new(out);
        for row in chunk.clone() {
            let (start, width) = (rows.start(row) - base, rows.width(row));
            for lane in group..width.min(group + LANES_PER_STREAM) {
                let (value, bits) = taken[start + lane];
                stream.put(u32::from(value), u32::from(bits));
            }
        }
        stream.finish();
        lengths.push((out.len() - before) as u32);
    }
}
