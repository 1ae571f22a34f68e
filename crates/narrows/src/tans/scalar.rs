//! The coder in scalar code, one group of lanes after the other: for machines of any size and few lanes.
//!
//! A group's states stay in registers and its bits in a window of 64, filled again once a row, or every four
//! lanes where a row can take more than 57 bits. The encoder runs backward and puts its bits out backward
//! ([`Backward`]), so that nothing is kept between a pass over the symbols and one over the bits.
//! Bound by instructions: about ten a symbol.

use super::backward::Backward;
use super::chunk::{Chunk, Run, Runs, window};
use super::lanes::WINDOW;
use super::spec::{Machine, State};
use super::{LANES_PER_STREAM, MAX_LANES};

/// Decode every row of `chunk`.
pub(crate) fn decode_chunk(chunk: &mut Chunk<'_>, machine: &Machine, payload: &[u8]) {
    let Chunk { coded, runs, states, positions, .. } = chunk;
    let groups = states.0[..runs.lanes()].chunks_mut(LANES_PER_STREAM).zip(positions);
    for (group, (states, position)) in groups.enumerate() {
        let first = group * LANES_PER_STREAM;
        for (Run { width, .. }, range) in runs.iter() {
            let symbols = &mut coded[range];
            let lanes = LANES_PER_STREAM.min(width.saturating_sub(first));
            let states = &mut states[..lanes];
            macro_rules! rows {
                ($n:literal) => {
                    if machine.most_bits * $n <= WINDOW {
                        decode_rows::<$n, $n>(symbols, width, first, states, &machine.states, payload, position)
                    } else {
                        decode_rows::<$n, 4>(symbols, width, first, states, &machine.states, payload, position)
                    }
                };
            }
            match lanes {
                1 => rows!(1),
                2 => rows!(2),
                3 => rows!(3),
                4 => rows!(4),
                5 => rows!(5),
                6 => rows!(6),
                7 => rows!(7),
                8 => rows!(8),
                _ => {}
            }
        }
    }
}

/// Decode lanes `first..first + N` of the rows of `width` symbols, filling the window every `FILL` lanes.
fn decode_rows<const N: usize, const FILL: usize>(
    symbols: &mut [u8],
    width: usize,
    first: usize,
    lanes: &mut [u16],
    states: &[State],
    payload: &[u8],
    position: &mut u64,
) {
    let mut at = [0; N];
    at.iter_mut().zip(&*lanes).for_each(|(at, &lane)| *at = usize::from(lane));
    let mut taken = *position;
    for row in symbols.chunks_exact_mut(width) {
        let row = &mut row[first..first + N];
        let mut bits = 0;
        for lane in 0..N {
            if lane % FILL == 0 {
                bits = window(payload, taken);
            }
            let state = states[at[lane]];
            row[lane] = state.symbol();
            at[lane] = usize::from(state.base()) + (bits & !(!0 << state.bits())) as usize;
            bits >>= state.bits();
            taken += u64::from(state.bits());
        }
    }
    *position = taken;
    lanes.iter_mut().zip(at).for_each(|(lane, at)| *lane = at as u16);
}

/// Encode every row of a chunk: appends its bit streams to `payload` and their lengths to `lengths`, and
/// returns the lanes' first states.
pub(crate) fn encode_chunk(
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    let mut states = [0; MAX_LANES];
    for (group, states) in states[..runs.lanes()].chunks_mut(LANES_PER_STREAM).enumerate() {
        let first = group * LANES_PER_STREAM;
        backward.start(runs.rows() * LANES_PER_STREAM * machine.most_bits as usize);
        for (Run { width, .. }, range) in runs.iter().rev() {
            let symbols = &coded[range];
            let lanes = LANES_PER_STREAM.min(width.saturating_sub(first));
            let states = &mut states[..lanes];
            macro_rules! rows {
                ($n:literal) => {
                    if machine.most_bits * $n < WINDOW {
                        encode_rows::<$n, $n>(symbols, width, first, states, machine, backward)
                    } else {
                        encode_rows::<$n, 4>(symbols, width, first, states, machine, backward)
                    }
                };
            }
            match lanes {
                1 => rows!(1),
                2 => rows!(2),
                3 => rows!(3),
                4 => rows!(4),
                5 => rows!(5),
                6 => rows!(6),
                7 => rows!(7),
                8 => rows!(8),
                _ => {}
            }
        }
        lengths.push(backward.finish(payload) as u32);
    }
    states
}

/// Encode lanes `first..first + N` of the rows of `width` symbols, last row first, putting bits out every
/// `FLUSH` lanes.
fn encode_rows<const N: usize, const FLUSH: usize>(
    symbols: &[u8],
    width: usize,
    first: usize,
    lanes: &mut [u16],
    machine: &Machine,
    backward: &mut Backward,
) {
    let all = 1 << machine.bits;
    let mut at = [0; N];
    at.iter_mut().zip(&*lanes).for_each(|(at, &lane)| *at = u32::from(lane));
    let mut bits = backward.bits();
    for row in symbols.chunks_exact(width).rev() {
        let row = &row[first..first + N];
        for lane in (0..N).rev() {
            let step = machine.steps[usize::from(row[lane])];
            let x = at[lane] + all;
            let count = x.wrapping_add(step.more) >> 16;
            bits.put(x & !(!0 << count), count);
            at[lane] = u32::from(machine.of_symbol[(x >> count).wrapping_add(step.offset) as usize]);
            if lane % FLUSH == 0 {
                bits.flush();
            }
        }
    }
    bits.keep();
    lanes.iter_mut().zip(at).for_each(|(lane, at)| *lane = at as u16);
}
