//! Decoding 64 lanes at once, for machines of up to 256 states: the state table is three byte tables (symbol,
//! bits, base) that vector registers hold, and a look-up is a permutation.
//!
//! Each group of eight lanes has a window of 128 bits of its bit stream, from the very bit it is at. A row takes
//! 64 at most, and what follows is loaded before the row is known: a load has two rows' time to arrive, and so
//! a row waits for the row before only for as long as it takes to look up, add up and deal out.
//!
//! Any bytes are safe: positions only move forward by what rows take, and [`Lanes::windows`] gives zeros
//! beyond the payload. Whether a bit stream was left is seen at its end (`Chunk::check`). Since the base of a state
//! is a multiple of `2^bits`, states stay below the number of states.

use super::chunk::Chunk;
use super::lanes::{Lanes, Payload};
use super::spec::{ByteStates, Machine};
use super::{LANES_PER_STREAM, MAX_LANES, MAX_STREAMS, SIDE_BY_SIDE};

/// A machine in registers.
#[derive(Clone, Copy)]
pub(crate) struct Tables<L: Lanes> {
    symbols: L::Table,
    bits: L::Table,
    bases: L::Table,
}

impl<L: Lanes> Tables<L> {
    #[inline(always)]
    pub(crate) fn new(lanes: L, states: &ByteStates) -> Self {
        Self {
            symbols: lanes.table(&states.symbols),
            bits: lanes.table(&states.bits),
            bases: lanes.table(&states.bases),
        }
    }
}

/// 64 lanes on their way through a chunk.
///
/// `BITS` is log2 of the number of states; `MOST` bits at most are taken by a row, 63 or 64: what a window surely
/// has after a load is 57, which is enough unless states take 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Strip<L: Lanes, const BITS: u32, const MOST: u32> {
    states: L::Bytes,
    /// The 64 bits each group is at, and the 64 after these.
    near: L::Bytes,
    far: L::Bytes,
    /// Where the bits after those begin.
    positions: L::Bytes,
}

impl<L: Lanes, const BITS: u32, const MOST: u32> Strip<L, BITS, MOST> {
    #[inline(always)]
    pub(crate) fn new(lanes: L, chunk: &Chunk<'_>, payload: Payload<'_>) -> Self {
        let mut states = [0; MAX_LANES];
        states.iter_mut().zip(chunk.states.0).for_each(|(byte, state)| *byte = state as u8);
        let at = |bits| words(lanes, chunk.positions.map(|position| position + bits));
        // Bit streams begin on bytes: these are whole.
        let (near, far) = (lanes.windows(payload, at(0)), lanes.windows(payload, at(64)));
        Self { states: lanes.load(&states), near, far, positions: at(128) }
    }

    /// Decode one row: the symbols of all lanes.
    #[inline(always)]
    pub(crate) fn row(&mut self, lanes: L, tables: &Tables<L>, payload: Payload<'_>) -> L::Bytes {
        let counts = lanes.look_up::<BITS>(&tables.bits, self.states);
        let states = self.take(lanes, tables, payload, counts);
        let symbols = lanes.look_up::<BITS>(&tables.symbols, self.states);
        self.states = states;
        symbols
    }

    /// Decode one row of the lanes whose bytes in `used` are 255; the others stay as they are.
    #[inline(always)]
    pub(crate) fn row_of(
        &mut self,
        lanes: L,
        tables: &Tables<L>,
        payload: Payload<'_>,
        used: L::Bytes,
    ) -> L::Bytes {
        let counts = lanes.and(used, lanes.look_up::<BITS>(&tables.bits, self.states));
        let states = self.take(lanes, tables, payload, counts);
        let symbols = lanes.look_up::<BITS>(&tables.symbols, self.states);
        self.states = lanes.select(used, states, self.states);
        symbols
    }

    /// Take `counts` bits; returns the states they lead to.
    #[inline(always)]
    fn take(
        &mut self,
        lanes: L,
        tables: &Tables<L>,
        payload: Payload<'_>,
        counts: L::Bytes,
    ) -> L::Bytes {
        let mut next = lanes.windows(payload, self.positions);
        if MOST == 64 {
            let upper = lanes.windows(payload, lanes.add(self.positions, lanes.load(&HALVES)));
            let zero = lanes.load(&[0; 64]);
            let upper = lanes.funnel::<63>(zero, upper, lanes.load(&HALVES));
            next = lanes.select(lanes.load(&LOWER_HALVES), next, upper);
        }
        let dealt = lanes.deal(self.near, counts);
        let bases = lanes.look_up::<BITS>(&tables.bases, self.states);
        let taken = lanes.totals(counts);
        self.near = lanes.funnel::<MOST>(self.near, self.far, taken);
        self.far = lanes.funnel::<MOST>(self.far, next, taken);
        self.positions = lanes.add(self.positions, taken);
        lanes.select(lanes.low_bits(counts), dealt, bases)
    }

    /// Hand the states and positions back.
    #[inline(always)]
    fn keep(&self, lanes: L, chunk: &mut Chunk<'_>) {
        let mut bytes = [0; MAX_LANES];
        lanes.store(self.states, &mut bytes);
        chunk.states.0.iter_mut().zip(bytes).for_each(|(state, byte)| *state = u16::from(byte));
        lanes.store(self.positions, &mut bytes);
        let (words, _) = bytes.as_chunks();
        for (position, &word) in chunk.positions.iter_mut().zip(words) {
            *position = u64::from_le_bytes(word) - 128;
        }
    }
}

/// 32 in each word, and the lower 32 bits of each.
const HALVES: [u8; 64] = each_word([32, 0, 0, 0, 0, 0, 0, 0]);
const LOWER_HALVES: [u8; 64] = each_word([255, 255, 255, 255, 0, 0, 0, 0]);

const fn each_word(word: [u8; 8]) -> [u8; 64] {
    let (mut bytes, mut at) = ([0; 64], 0);
    while at < 64 {
        bytes[at] = word[at % 8];
        at += 1;
    }
    bytes
}

#[inline(always)]
fn words<L: Lanes>(lanes: L, words: [u64; MAX_STREAMS]) -> L::Bytes {
    let mut bytes = [0; MAX_LANES];
    let (to, _) = bytes.as_chunks_mut();
    to.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    lanes.load(&bytes)
}

/// Decode every row of up to [`SIDE_BY_SIDE`] chunks.
#[inline(always)]
pub(crate) fn decode<L: Lanes>(lanes: L, batch: &mut [Chunk<'_>], machine: &Machine, payload: Payload<'_>) {
    match (machine.bits, machine.most_bits) {
        (6, _) => decode_batch::<L, 6, 63>(lanes, batch, machine, payload),
        (7, _) => decode_batch::<L, 7, 63>(lanes, batch, machine, payload),
        (8, 0..8) => decode_batch::<L, 8, 63>(lanes, batch, machine, payload),
        (8, _) => decode_batch::<L, 8, 64>(lanes, batch, machine, payload),
        _ => unreachable!("states fit into bytes"),
    }
}

#[inline(always)]
fn decode_batch<L: Lanes, const BITS: u32, const MOST: u32>(
    lanes: L,
    mut batch: &mut [Chunk<'_>],
    machine: &Machine,
    payload: Payload<'_>,
) {
    let tables = Tables::new(lanes, &machine.bytes);
    let rows = batch.first().map_or(0, |chunk| chunk.runs.rows());
    let alike = |chunk: &Chunk<'_>| chunk.runs.all_of(MAX_LANES) && chunk.runs.rows() == rows;
    let alike = batch.iter().take_while(|chunk| alike(chunk)).count();
    if alike == SIDE_BY_SIDE {
        let (together, rest) = batch.split_first_chunk_mut().expect("as many");
        side_by_side::<L, BITS, MOST, SIDE_BY_SIDE>(lanes, together, &tables, payload);
        batch = rest;
    } else if alike >= 2 {
        let (together, rest) = batch.split_first_chunk_mut().expect("as many");
        side_by_side::<L, BITS, MOST, 2>(lanes, together, &tables, payload);
        batch = rest;
    }
    for chunk in batch {
        alone::<L, BITS, MOST>(lanes, chunk, &tables, payload);
    }
}

/// Decode `N` chunks of equally many rows of 64 symbols.
#[inline(always)]
fn side_by_side<L: Lanes, const BITS: u32, const MOST: u32, const N: usize>(
    lanes: L,
    chunks: &mut [Chunk<'_>; N],
    tables: &Tables<L>,
    payload: Payload<'_>,
) {
    let rows = chunks[0].runs.rows();
    let mut strips: [Strip<L, BITS, MOST>; N] = [Strip::new(lanes, &chunks[0], payload); N];
    for (strip, chunk) in strips.iter_mut().zip(&*chunks) {
        *strip = Strip::new(lanes, chunk, payload);
    }
    {
        let mut outs = chunks.each_mut().map(|chunk| chunk.coded.as_chunks_mut().0.iter_mut());
        for _ in 0..rows {
            for (strip, out) in strips.iter_mut().zip(&mut outs) {
                let symbols = strip.row(lanes, tables, payload);
                if let Some(out) = out.next() {
                    lanes.store(symbols, out);
                }
            }
        }
    }
    for (strip, chunk) in strips.iter().zip(chunks) {
        strip.keep(lanes, chunk);
    }
}

/// Decode one chunk of rows of any widths.
#[inline(always)]
fn alone<L: Lanes, const BITS: u32, const MOST: u32>(
    lanes: L,
    chunk: &mut Chunk<'_>,
    tables: &Tables<L>,
    payload: Payload<'_>,
) {
    let mut strip = Strip::<L, BITS, MOST>::new(lanes, chunk, payload);
    for (run, range) in chunk.runs.iter() {
        let symbols = &mut chunk.coded[range];
        if run.width == MAX_LANES {
            for row in symbols.as_chunks_mut().0 {
                lanes.store(strip.row(lanes, tables, payload), row);
            }
            continue;
        }
        let mut used = [0; MAX_LANES];
        used[..run.width].fill(255);
        let used = lanes.load(&used);
        for row in 0..run.rows {
            let decoded = strip.row_of(lanes, tables, payload, used);
            let rest = &mut symbols[row * run.width..];
            // What is written beyond a row is overwritten by those after it.
            if let Some(out) = rest.first_chunk_mut() {
                lanes.store(decoded, out);
            } else {
                let mut bytes = [0; MAX_LANES];
                lanes.store(decoded, &mut bytes);
                let length = rest.len().min(run.width);
                rest[..length].copy_from_slice(&bytes[..length]);
            }
        }
    }
    strip.keep(lanes, chunk);
}

const _: () = assert!(MAX_LANES == LANES_PER_STREAM * MAX_STREAMS);
