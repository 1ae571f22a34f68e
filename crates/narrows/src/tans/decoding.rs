//! The decoder: the machine run forward. This is the specification; the fast paths give the same symbols and
//! refuse the same bytes.

use std::ops::Range;

use super::spec::Machine;
use super::{LANES_PER_STREAM, MAX_LANES};
use crate::bits::BitReader;
use crate::layout::Rows;

/// Decode rows `chunk` into `coded` (just as long as their symbols) from `payload`: the lanes' first states,
/// then bit streams of `lengths` bytes, which add up to the rest of it.
///
/// Safe on any input; says what does not hold if the payload is not an encoder's.
pub(crate) fn decode_chunk(
    coded: &mut [u8],
    rows: &Rows,
    chunk: &Range<usize>,
    machine: &Machine,
    payload: &[u8],
    lengths: &[u32],
) -> Result<(), &'static str> {
    let lanes = rows.width(chunk.start);
    let base = rows.start(chunk.start);
    let mut states = [0; MAX_LANES];
    let mut first = BitReader::new(payload);
    for state in &mut states[..lanes] {
        *state = first.take(machine.bits).ok_or("the lanes' first states end early")? as u16;
    }
    if !first.padding_is_zero() {
        return Err("bits are set after the lanes' first states");
    }
    let mut streams = &payload[first.bytes_taken()..];
    for (group, &length) in (0..lanes).step_by(LANES_PER_STREAM).zip(lengths) {
        let (stream, rest) = streams.split_at_checked(length as usize).ok_or("a bit stream ends early")?;
        streams = rest;
        let mut bits = BitReader::new(stream);
        for row in chunk.clone() {
            let (start, width) = (rows.start(row) - base, rows.width(row));
            for lane in group..width.min(group + LANES_PER_STREAM) {
                let state = machine.states[states[lane] as usize];
                coded[start + lane] = state.symbol();
                let low = bits.take(state.bits()).ok_or("the bits end before the symbols do")?;
                states[lane] = state.base() + low as u16;
            }
        }
        if bits.bytes_taken() != stream.len() || !bits.padding_is_zero() {
            return Err("bits are left over");
        }
    }
    if states[..lanes].iter().any(|&state| state != 0) {
        return Err("a lane does not end at state 0");
    }
    Ok(())
}
