//! The coder in scalar code, one group of lanes after the other: for machines of any size and few lanes.
//!
//! A group's states stay in registers and its bits in a window of 64, filled again every eight symbols or so, or
//! every four where these can take more than 57 bits. The encoder runs backward and puts its bits out backward
//! ([`Backward`]), so that nothing is kept between a pass over the symbols and one over the bits.
//! Bound by instructions: about ten a symbol.

use super::backward::Backward;
use super::chunk::{Chunk, Run, Runs, WINDOW, window};
use super::spec::Machine;
use super::{LANES_PER_STREAM, MAX_LANES};

/// Call `$rows!(lanes, rows that make eight symbols or so)`.
macro_rules! by_lanes {
    ($lanes:expr, $rows:ident) => {
        match $lanes {
            1 => $rows!(1, 8),
            2 => $rows!(2, 4),
            3 => $rows!(3, 2),
            4 => $rows!(4, 2),
            5 => $rows!(5, 1),
            6 => $rows!(6, 1),
            7 => $rows!(7, 1),
            8 => $rows!(8, 1),
            _ => {}
        }
    };
}

/// Decode every row of `chunk`.
#[inline(always)]
pub(crate) fn decode_chunk(chunk: &mut Chunk<'_>, machine: &Machine, payload: &[u8]) {
    let Chunk { coded, runs, states, positions, .. } = chunk;
    let groups = states.0[..runs.lanes()].chunks_mut(LANES_PER_STREAM).zip(positions);
    for (group, (states, position)) in groups.enumerate() {
        let first = group * LANES_PER_STREAM;
        for (Run { width, .. }, range) in runs.iter() {
            let symbols = &mut coded[range];
            let lanes = LANES_PER_STREAM.min(width.saturating_sub(first));
            let states = &mut states[..lanes];
            let group = Group { width, first };
            macro_rules! rows {
                ($n:literal, $rows:literal) => {{
                    let cut = symbols.len() / ($rows * width) * ($rows * width);
                    let (blocks, rest) = symbols.split_at_mut(cut);
                    if machine.most_bits * ($n * $rows) <= WINDOW {
                        decode_rows::<$n, $rows, 8>(blocks, group, states, machine, payload, position);
                        decode_rows::<$n, 1, 8>(rest, group, states, machine, payload, position);
                    } else {
                        decode_rows::<$n, $rows, 4>(blocks, group, states, machine, payload, position);
                        decode_rows::<$n, 1, 4>(rest, group, states, machine, payload, position);
                    }
                }};
            }
            by_lanes!(lanes, rows);
        }
    }
}

/// The lanes from `first` on of rows of `width` symbols.
#[derive(Clone, Copy)]
struct Group {
    width: usize,
    first: usize,
}

/// Decode `N` lanes of the rows of `symbols`, of which there are a multiple of `ROWS`, filling the window every `FILL`
/// symbols.
#[inline(always)]
fn decode_rows<const N: usize, const ROWS: usize, const FILL: usize>(
    symbols: &mut [u8],
    Group { width, first }: Group,
    lanes: &mut [u16],
    machine: &Machine,
    payload: &[u8],
    position: &mut u64,
) {
    let mut at = [0; N];
    at.iter_mut().zip(&*lanes).for_each(|(at, &lane)| *at = usize::from(lane));
    let mut taken = *position;
    for rows in symbols.chunks_exact_mut(ROWS * width) {
        let mut bits = 0;
        for row in 0..ROWS {
            let symbols = &mut rows[row * width + first..][..N];
            for lane in 0..N {
                if (row * N + lane).is_multiple_of(FILL) {
                    bits = window(payload, taken);
                }
                let state = machine.states[at[lane]];
                symbols[lane] = state.symbol();
                at[lane] = usize::from(state.base()) + (bits & !(!0 << state.bits())) as usize;
                bits >>= state.bits();
                taken += u64::from(state.bits());
            }
        }
    }
    *position = taken;
    lanes.iter_mut().zip(at).for_each(|(lane, at)| *lane = at as u16);
}

/// Encode every row of a chunk: appends its bit streams to `payload` and their lengths to `lengths`, and
/// returns the lanes' first states.
#[inline(always)]
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
            let group = Group { width, first };
            macro_rules! rows {
                ($n:literal, $rows:literal) => {{
                    let cut = symbols.len() / ($rows * width) * ($rows * width);
                    let (blocks, rest) = symbols.split_at(cut);
                    if machine.most_bits * ($n * $rows) < WINDOW {
                        encode_rows::<$n, 1, 8>(rest, group, states, machine, backward);
                        encode_rows::<$n, $rows, 8>(blocks, group, states, machine, backward);
                    } else {
                        encode_rows::<$n, 1, 4>(rest, group, states, machine, backward);
                        encode_rows::<$n, $rows, 4>(blocks, group, states, machine, backward);
                    }
                }};
            }
            by_lanes!(lanes, rows);
        }
        lengths.push(backward.finish(payload) as u32);
    }
    states
}

/// Encode `N` lanes of the rows of `symbols`, of which there are a multiple of `ROWS`, last row first, putting bits
/// out every `FLUSH` symbols.
#[inline(always)]
fn encode_rows<const N: usize, const ROWS: usize, const FLUSH: usize>(
    symbols: &[u8],
    Group { width, first }: Group,
    lanes: &mut [u16],
    machine: &Machine,
    backward: &mut Backward,
) {
    let all = 1 << machine.bits;
    let mut at = [0; N];
    at.iter_mut().zip(&*lanes).for_each(|(at, &lane)| *at = u32::from(lane));
    let mut bits = backward.bits();
    for rows in symbols.chunks_exact(ROWS * width).rev() {
        for row in (0..ROWS).rev() {
            let symbols = &rows[row * width + first..][..N];
            for lane in (0..N).rev() {
                let step = machine.steps[usize::from(symbols[lane])];
                let x = at[lane] + all;
                let count = x.wrapping_add(step.more) >> 16;
                bits.put(x & !(!0 << count), count);
                at[lane] = u32::from(machine.of_symbol[(x >> count).wrapping_add(step.offset) as usize]);
                if (row * N + lane).is_multiple_of(FLUSH) {
                    bits.flush();
                }
            }
        }
    }
    bits.keep();
    lanes.iter_mut().zip(at).for_each(|(lane, at)| *lane = at as u16);
}
