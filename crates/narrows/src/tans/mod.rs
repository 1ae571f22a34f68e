//! Tabled asymmetric numeral systems (tANS; Duda 2013, arXiv:1311.2540): a state machine of 64 to
//! 4,096 states, built in [`spec`], run by its two twins [`encoding`] and [`decoding`].
//!
//! A chunk's lanes each run the machine on their own symbols. Eight neighbouring lanes share a bit
//! stream: within a row they take their bits in ascending lane order, least significant bit first.
//!
//! The fast paths: [`scalar`] for any machine and any lanes; `rows` and `encode_rows` take 64 lanes at once, for
//! machines of up to 256 states, whose tables are held in vector registers. They are written over the few
//! operations of `lanes::Lanes`, which each set of instructions has, and plain arrays for tests.
#![allow(
    clippy::inline_always,
    reason = "vector code must be compiled into the function that enables the instructions"
)]

#[cfg(test)]
mod arrays;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
mod backward;
mod chunk;
pub(crate) mod decoding;
#[cfg(any(test, target_arch = "x86_64", target_arch = "aarch64"))]
mod encode_rows;
pub(crate) mod encoding;
pub mod lanes;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod rows;
mod scalar;
pub mod spec;
#[cfg(feature = "stages")]
pub mod stages;
#[cfg(test)]
mod tests;

use crate::cpu::Path;
use crate::layout::Rows;
use crate::model::{Table, chunks};
use backward::Backward;
use chunk::{Chunk, Runs};
use spec::Machine;

/// The largest number of lanes.
pub const MAX_LANES: usize = 64;
/// Lanes that share a bit stream.
pub const LANES_PER_STREAM: usize = 8;
/// The most bit streams of a chunk.
pub const MAX_STREAMS: usize = MAX_LANES / LANES_PER_STREAM;
/// log2 of the least and the largest number of states.
pub const STATE_BITS: std::ops::RangeInclusive<u32> = 6..=12;

/// Chunks that are decoded side by side: a row of one waits for the row before, those of others do not.
const SIDE_BY_SIDE: usize = 4;

/// What encoding needs memory for.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Bits each symbol puts out, and how many (the reference).
    taken: Vec<(u16, u8)>,
    backward: Backward,
}

/// Encode all symbols, chunks of `chunk_rows` rows: first states and bit streams are appended to `payload`, the
/// bytes of each bit stream to `lengths`. The same on every path.
pub(crate) fn encode(
    path: Path,
    coded: &[u8],
    (rows, chunk_rows): (&Rows, usize),
    (table, machine): (&Table, &Machine),
    scratch: &mut Scratch,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) {
    if path != Path::Reference {
        let encoder_of = |runs: &Runs| encoder_of(path, runs, machine);
        return encode_by(encoder_of, coded, (rows, chunk_rows), machine, scratch, payload, lengths);
    }
    for chunk in chunks(rows, chunk_rows) {
        let output = encoding::Output { taken: &mut scratch.taken, payload, lengths };
        encoding::encode_chunk(&coded[rows.range(&chunk)], rows, &chunk, (table, machine), output);
    }
}

fn encode_by(
    encoder_of: impl Fn(&Runs) -> ChunkEncoder,
    coded: &[u8],
    (rows, chunk_rows): (&Rows, usize),
    machine: &Machine,
    scratch: &mut Scratch,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) {
    for chunk in chunks(rows, chunk_rows) {
        let coded = &coded[rows.range(&chunk)];
        let runs = Runs::new(rows, &chunk);
        // The first states are known last.
        let first = payload.len();
        payload.resize(first + (runs.lanes() * machine.bits as usize).div_ceil(8), 0);
        let encode_chunk = encoder_of(&runs);
        let states = encode_chunk(coded, &runs, machine, &mut scratch.backward, payload, lengths);
        write_states(&states[..runs.lanes()], machine.bits, &mut payload[first..]);
    }
}

/// Encodes every row of a chunk: appends its bit streams and their lengths; returns the lanes' first states.
type ChunkEncoder =
    fn(&[u8], &Runs, &Machine, &mut Backward, &mut Vec<u8>, &mut Vec<u32>) -> [u16; MAX_LANES];

/// The best encoder that the path has for chunks like this.
fn encoder_of(path: Path, runs: &Runs, machine: &Machine) -> ChunkEncoder {
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 if avx512::encodes(machine, runs.lanes()) => avx512::encode_chunk,
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 | Path::Avx2 => avx2::encode_chunk,
        #[cfg(target_arch = "aarch64")]
        Path::Neon => neon::encode_chunk,
        _ => {
            let _ = (runs, machine);
            scalar::encode_chunk
        }
    }
}

/// Pack states of `bits` bits each into the first of `bytes`.
fn write_states(states: &[u16], bits: u32, bytes: &mut [u8]) {
    let (mut pending, mut count, mut at) = (0_u64, 0, 0);
    for &state in states {
        pending |= u64::from(state) << count;
        count += bits;
        while count >= 8 {
            bytes[at] = pending as u8;
            at += 1;
            pending >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        bytes[at] = pending as u8;
    }
}

/// Decode all symbols, chunks of `chunk_rows` rows, into `coded` (just as long) from `payload`, whose bit
/// streams have `lengths` bytes: together with the first states just as many as it has.
///
/// Safe on any bytes; says which chunk is no encoder's, and what does not hold. The same on every path.
pub(crate) fn decode(
    path: Path,
    coded: &mut [u8],
    order: (&Rows, usize),
    machine: &Machine,
    payload: &[u8],
    lengths: &[u32],
) -> Result<(), (usize, &'static str)> {
    if path == Path::Reference {
        return decode_by_reference(coded, order, machine, payload, lengths);
    }
    let decode_batch = |batch: &mut [Chunk<'_>]| decode_batch(path, batch, machine, payload);
    decode_by(decode_batch, coded, order, machine.bits, payload, lengths)
}

fn decode_by(
    decode_batch: impl Fn(&mut [Chunk<'_>]),
    mut coded: &mut [u8],
    (rows, chunk_rows): (&Rows, usize),
    state_bits: u32,
    payload: &[u8],
    mut lengths: &[u32],
) -> Result<(), (usize, &'static str)> {
    let mut ranges = chunks(rows, chunk_rows).enumerate().peekable();
    let mut offset = 0;
    while let Some(&(first, _)) = ranges.peek() {
        let mut batch: [Chunk<'_>; SIDE_BY_SIDE] = Default::default();
        let mut count = 0;
        for (chunk, (_, range)) in batch.iter_mut().zip(ranges.by_ref().take(SIDE_BY_SIDE)) {
            let runs = Runs::new(rows, &range);
            let (symbols, rest) = std::mem::take(&mut coded).split_at_mut(rows.range(&range).len());
            let (streams, others) = lengths.split_at(runs.streams());
            (coded, lengths) = (rest, others);
            (*chunk, offset) = Chunk::new(symbols, runs, state_bits, payload, offset, streams);
            count += 1;
        }
        decode_batch(&mut batch[..count]);
        for (index, chunk) in batch[..count].iter().enumerate() {
            chunk.check(payload).map_err(|what| (first + index, what))?;
        }
    }
    Ok(())
}

fn decode_by_reference(
    coded: &mut [u8],
    (rows, chunk_rows): (&Rows, usize),
    machine: &Machine,
    mut payload: &[u8],
    mut lengths: &[u32],
) -> Result<(), (usize, &'static str)> {
    for (index, chunk) in chunks(rows, chunk_rows).enumerate() {
        let lanes = rows.width(chunk.start);
        let (streams, others) = lengths.split_at(lanes.div_ceil(LANES_PER_STREAM));
        let states = (lanes * machine.bits as usize).div_ceil(8);
        let bytes = states + streams.iter().map(|&length| length as usize).sum::<usize>();
        let (own, rest) = payload.split_at(bytes);
        (payload, lengths) = (rest, others);
        let coded = &mut coded[rows.range(&chunk)];
        decoding::decode_chunk(coded, rows, &chunk, machine, own, streams).map_err(|what| (index, what))?;
    }
    Ok(())
}

/// Decode every row of up to [`SIDE_BY_SIDE`] chunks as well as the path can.
fn decode_batch(path: Path, batch: &mut [Chunk<'_>], machine: &Machine, payload: &[u8]) {
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => avx512::decode(batch, machine, payload),
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => avx2::decode(batch, machine, payload),
        #[cfg(target_arch = "aarch64")]
        Path::Neon => neon::decode(batch, machine, payload),
        _ => batch.iter_mut().for_each(|chunk| scalar::decode_chunk(chunk, machine, payload)),
    }
}
