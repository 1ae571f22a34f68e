//! Decoding 64 lanes at once, for machines of up to 256 states: the state table is three byte tables (symbol,
//! bits, base) that vector registers hold, and a look-up is a permutation.
//!
//! A row on AVX-512 is 14 vector operations on two ports, and loading eight words takes about 12 more: as many rows as
//! nearly always find their bits in one word are decoded from it. Rows of four strips side by side at 64 states take
//! 9 cycles each at 0.85 bits a symbol (20 Gsymbols/s at 3 GHz), four of them from a word, and 12 where each loads its own.
//!
//! Any bytes are safe: positions only move forward by what rows take, and [`Lanes::windows`] gives zeros
//! beyond the payload. Whether a bit stream was left is seen at its end (`Chunk::check`). Since the base of a state
//! is a multiple of `2^bits`, states stay below the number of states.

use std::ops::Range;

use super::chunk::{Chunk, WINDOW};
use super::lanes::{Lanes, Payload, each_word};
use super::spec::{ByteStates, Machine};
use super::{LANES_PER_STREAM, MAX_LANES, MAX_STREAMS, SIDE_BY_SIDE};

/// A machine in registers.
#[derive(Clone, Copy)]
pub struct Tables<L: Lanes> {
    symbols: L::Table,
    bits: L::Table,
    bases: L::Table,
    /// Rows whose bits are nearly always in one word, and which are decoded together.
    together: usize,
}

impl<L: Lanes> Tables<L> {
    /// The registers of this machine of `2^bits` states.
    #[inline(always)]
    pub fn new(lanes: L, states: &ByteStates, bits: u32) -> Self {
        Self {
            symbols: lanes.table(&states.symbols),
            bits: lanes.table(&states.bits),
            bases: lanes.table(&states.bases),
            together: rows_in_a_word(&states.bits[..1 << bits]),
        }
    }
}

/// Rows whose bits a word of 64 has, but for some of a thousand: the largest `K` with
/// `8 K mean + 4 deviation sqrt(8 K) <= 60`, states taken as equally frequent; 1 to 8.
fn rows_in_a_word(bits: &[u8]) -> usize {
    let sum: u32 = bits.iter().map(|&bits| u32::from(bits)).sum();
    let squares: u32 = bits.iter().map(|&bits| u32::from(bits) * u32::from(bits)).sum();
    let (mean, count) = (sum as f32 / bits.len() as f32, bits.len() as f32);
    let variance = (squares as f32 / count - mean * mean).max(0.0);
    // A word begins up to 7 bits before what is its.
    let root = 120.0 / (4.0 * variance.sqrt() + (16.0 * variance + 240.0 * mean).sqrt());
    ((root * root / LANES_PER_STREAM as f32) as usize).clamp(1, 8)
}

/// 64 lanes on their way through a chunk of a machine of `2^BITS` states, of which a row takes `MOST` bits at
/// most, 63 or 64: 64 only where states take 8 bits.
///
/// With `AHEAD`, each group has the 128 bits that follow, from the very bit it is at, and what a row loads follows
/// these: it has two rows' time to arrive, and a row waits for the row before only as long as it takes to look
/// up, add up and deal out. Without, a row loads its own bits, which takes fewer instructions: better if other
/// strips fill the wait.
#[derive(Clone, Copy)]
pub struct Strip<L: Lanes, const BITS: u32, const MOST: u32, const AHEAD: bool> {
    states: L::Bytes,
    /// The 64 bits each group is at, and the 64 after these.
    near: L::Bytes,
    far: L::Bytes,
    /// Where the next bits to load begin.
    positions: L::Bytes,
}

impl<L: Lanes, const BITS: u32, const MOST: u32, const AHEAD: bool> Strip<L, BITS, MOST, AHEAD> {
    /// Bits loaded ahead.
    const LOADED: u64 = if AHEAD { 128 } else { 0 };

    #[inline(always)]
    pub(crate) fn new(lanes: L, chunk: &Chunk<'_>, payload: Payload<'_>) -> Self {
        let mut states = [0; MAX_LANES];
        states.iter_mut().zip(chunk.states.0).for_each(|(byte, state)| *byte = state as u8);
        Self::at(lanes, &states, chunk.positions, payload)
    }

    /// Lanes in `states`, whose bit streams go on at these bits of `payload`.
    #[inline(always)]
    pub fn at(
        lanes: L,
        states: &[u8; MAX_LANES],
        positions: [u64; MAX_STREAMS],
        payload: Payload<'_>,
    ) -> Self {
        let after = |bits| words(lanes, positions.map(|position| position.wrapping_add(bits)));
        let (near, far) = if AHEAD {
            // Bit streams begin on bytes: these are whole.
            (lanes.windows(payload, after(0)), lanes.windows(payload, after(64)))
        } else {
            let none = lanes.load(&[0; MAX_LANES]);
            (none, none)
        };
        Self { states: lanes.load(states), near, far, positions: after(Self::LOADED) }
    }

    /// The lanes' states, and the bits at which their streams go on; those not in use may be anything.
    #[inline(always)]
    pub fn place(&self, lanes: L) -> ([u8; MAX_LANES], [u64; MAX_STREAMS]) {
        let (mut states, mut bytes, mut positions) = ([0; MAX_LANES], [0; MAX_LANES], [0; MAX_STREAMS]);
        lanes.store(self.states, &mut states);
        lanes.store(self.positions, &mut bytes);
        let (words, _) = bytes.as_chunks();
        for (position, &word) in positions.iter_mut().zip(words) {
            *position = u64::from_le_bytes(word).wrapping_sub(Self::LOADED);
        }
        (states, positions)
    }

    /// Decode one row: the symbols of all lanes.
    #[inline(always)]
    pub fn row(&mut self, lanes: L, tables: &Tables<L>, payload: Payload<'_>) -> L::Bytes {
        let counts = lanes.look_up::<BITS>(&tables.bits, self.states);
        let symbols = lanes.look_up::<BITS>(&tables.symbols, self.states);
        self.states = self.take(lanes, tables, payload, counts);
        symbols
    }

    /// Decode one row of the lanes whose bytes in `used` are 255; the others stay as they are.
    #[inline(always)]
    pub fn row_of(&mut self, lanes: L, tables: &Tables<L>, payload: Payload<'_>, used: L::Bytes) -> L::Bytes {
        let counts = lanes.and(used, lanes.look_up::<BITS>(&tables.bits, self.states));
        let symbols = lanes.look_up::<BITS>(&tables.symbols, self.states);
        let states = self.take(lanes, tables, payload, counts);
        self.states = lanes.select(used, states, self.states);
        symbols
    }

    /// Take `counts` bits; returns the states they lead to.
    #[inline(always)]
    fn take(&mut self, lanes: L, tables: &Tables<L>, payload: Payload<'_>, counts: L::Bytes) -> L::Bytes {
        let taken = lanes.totals(counts);
        let mut loaded = lanes.windows(payload, self.positions);
        if MOST > WINDOW + 6 && lanes.any_above(taken, u64::from(WINDOW)) {
            loaded = whole_windows(lanes, payload, self.positions, loaded);
        }
        let bases = lanes.look_up::<BITS>(&tables.bases, self.states);
        let dealt = if AHEAD {
            let near = self.near;
            self.near = lanes.funnel::<MOST>(near, self.far, taken);
            self.far = lanes.funnel::<MOST>(self.far, loaded, taken);
            lanes.deal_soon(near, counts)
        } else {
            lanes.deal(loaded, counts)
        };
        self.positions = lanes.add(self.positions, taken);
        lanes.select(lanes.low_bits(counts), dealt, bases)
    }

    /// The bits that groups are at, and a count that bits taken from these may bring to 63.
    #[inline(always)]
    fn window(&self, lanes: L, payload: Payload<'_>) -> (L::Bytes, L::Bytes) {
        if AHEAD {
            (self.near, lanes.load(&BEYOND_WINDOW))
        } else {
            let before = lanes.and(self.positions, lanes.load(&IN_BYTE));
            (lanes.windows(payload, self.positions), before)
        }
    }

    /// Go on to where `taken` says: what [`Strip::window`] gave and the bits taken since, 63 at most.
    #[inline(always)]
    fn move_on(&mut self, lanes: L, taken: L::Bytes, payload: Payload<'_>) {
        if AHEAD {
            let taken = lanes.add(taken, lanes.load(&LESS_BEYOND_WINDOW));
            let loaded = lanes.windows(payload, self.positions);
            self.near = lanes.funnel::<63>(self.near, self.far, taken);
            self.far = lanes.funnel::<63>(self.far, loaded, taken);
            self.positions = lanes.add(self.positions, taken);
        } else {
            let byte = lanes.and(self.positions, lanes.load(&OF_BYTE));
            self.positions = lanes.add(byte, taken);
        }
    }

    /// Hand the states and positions back.
    #[inline(always)]
    fn keep(&self, lanes: L, chunk: &mut Chunk<'_>) {
        let (states, positions) = self.place(lanes);
        chunk.states.0.iter_mut().zip(states).for_each(|(state, byte)| *state = u16::from(byte));
        chunk.positions = positions;
    }
}

/// What is done with the symbols of rows of strips.
pub trait Take<L: Lanes> {
    /// What it has come to.
    type Mark: Copy;

    /// What it has come to so far.
    fn mark(&self) -> Self::Mark;
    /// Back to `mark`: what was taken since is void.
    fn back(&mut self, mark: Self::Mark);
    /// These are the symbols of row `row` of strip `strip`.
    fn take(&mut self, lanes: L, strip: usize, row: usize, symbols: L::Bytes);
}

/// Decode `count` full rows of each of these strips, side by side.
#[inline(always)]
pub fn decode_rows<L: Lanes, const BITS: u32, const MOST: u32, const AHEAD: bool, const N: usize>(
    lanes: L,
    strips: &mut [Strip<L, BITS, MOST, AHEAD>; N],
    (tables, payload): (&Tables<L>, Payload<'_>),
    count: usize,
    taker: &mut impl Take<L>,
) {
    if tables.together == 1 {
        for row in 0..count {
            for n in 0..N {
                taker.take(lanes, n, row, strips[n].row(lanes, tables, payload));
            }
        }
        return;
    }
    for start in (0..count).step_by(tables.together) {
        let rows = start..count.min(start + tables.together);
        let mark = taker.mark();
        if !rows_together(lanes, strips, (tables, payload), rows.clone(), taker) {
            taker.back(mark);
            for row in rows {
                for n in 0..N {
                    taker.take(lanes, n, row, strips[n].row(lanes, tables, payload));
                }
            }
        }
    }
}

/// Decode these rows of each of these strips, groups loading bits once for all of them.
///
/// Returns whether these sufficed: if not, the strips are as they were, and what `taker` took is void.
#[inline(always)]
fn rows_together<L: Lanes, const BITS: u32, const MOST: u32, const AHEAD: bool, const N: usize>(
    lanes: L,
    strips: &mut [Strip<L, BITS, MOST, AHEAD>; N],
    (tables, payload): (&Tables<L>, Payload<'_>),
    rows: Range<usize>,
    taker: &mut impl Take<L>,
) -> bool {
    let none = lanes.load(&[0; MAX_LANES]);
    let (mut windows, mut taken, mut states) = ([none; N], [none; N], [none; N]);
    for n in 0..N {
        (windows[n], taken[n]) = strips[n].window(lanes, payload);
        states[n] = strips[n].states;
    }
    // Beyond a word there are zeros: symbols are then wrong, but states stay below their number.
    for row in rows {
        for n in 0..N {
            let counts = lanes.look_up::<BITS>(&tables.bits, states[n]);
            taker.take(lanes, n, row, lanes.look_up::<BITS>(&tables.symbols, states[n]));
            let bases = lanes.look_up::<BITS>(&tables.bases, states[n]);
            let total = lanes.totals(counts);
            // One strip alone waits for itself.
            let dealt =
                if N > 1 { lanes.deal(windows[n], counts) } else { lanes.deal_soon(windows[n], counts) };
            windows[n] = lanes.shift_right_words(windows[n], total);
            taken[n] = lanes.add(taken[n], total);
            states[n] = lanes.select(lanes.low_bits(counts), dealt, bases);
        }
    }
    // If any is above 63, a bit above the lowest six is set in all of them together.
    let mut any = taken[0];
    for &taken in &taken[1..] {
        any = lanes.or(any, taken);
    }
    if lanes.any_above(any, 63) {
        return false;
    }
    for n in 0..N {
        strips[n].states = states[n];
        strips[n].move_on(lanes, taken[n], payload);
    }
    true
}

/// They are stored.
struct Store<'a, const N: usize>([&'a mut [[u8; MAX_LANES]]; N]);

impl<L: Lanes, const N: usize> Take<L> for Store<'_, N> {
    type Mark = ();

    #[inline(always)]
    fn mark(&self) {}

    #[inline(always)]
    fn back(&mut self, (): ()) {}

    #[inline(always)]
    fn take(&mut self, lanes: L, strip: usize, row: usize, symbols: L::Bytes) {
        lanes.store(symbols, &mut self.0[strip][row]);
    }
}

/// All 64 bits from `positions` on, of which `loaded` has the first [`WINDOW`].
#[inline(always)]
fn whole_windows<L: Lanes>(
    lanes: L,
    payload: Payload<'_>,
    positions: L::Bytes,
    loaded: L::Bytes,
) -> L::Bytes {
    let half = lanes.load(&HALVES);
    let upper = lanes.windows(payload, lanes.add(positions, half));
    let upper = lanes.funnel::<63>(lanes.load(&[0; 64]), upper, half);
    lanes.select(lanes.load(&LOWER_HALVES), loaded, upper)
}

/// What brings more than [`WINDOW`] bits above 63, and what takes it away.
const BEYOND_WINDOW: [u8; 64] = each_word([63 - WINDOW as u8, 0, 0, 0, 0, 0, 0, 0]);
const LESS_BEYOND_WINDOW: [u8; 64] = each_word((WINDOW as u64).wrapping_sub(63).to_le_bytes());
/// The part of a position within its byte, and its byte's.
const IN_BYTE: [u8; 64] = each_word([7, 0, 0, 0, 0, 0, 0, 0]);
const OF_BYTE: [u8; 64] = each_word([!7, 255, 255, 255, 255, 255, 255, 255]);

/// 32 in each word, and the lower and the upper 32 bits of each.
pub(crate) const HALVES: [u8; 64] = each_word([32, 0, 0, 0, 0, 0, 0, 0]);
pub(crate) const LOWER_HALVES: [u8; 64] = each_word([255, 255, 255, 255, 0, 0, 0, 0]);
pub(crate) const UPPER_HALVES: [u8; 64] = each_word([0, 0, 0, 0, 255, 255, 255, 255]);

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
    let tables = Tables::new(lanes, &machine.bytes, BITS);
    while !batch.is_empty() {
        let full = |chunk: &&Chunk<'_>| chunk.runs.full_rows(MAX_LANES) > 0;
        let full = batch.iter().take_while(full).count();
        if full == SIDE_BY_SIDE {
            let (together, rest) = batch.split_first_chunk_mut().expect("as many");
            decode_chunks::<L, BITS, MOST, false, SIDE_BY_SIDE>(lanes, together, &tables, payload);
            batch = rest;
        } else if full >= 2 {
            let (together, rest) = batch.split_first_chunk_mut().expect("as many");
            decode_chunks::<L, BITS, MOST, true, 2>(lanes, together, &tables, payload);
            batch = rest;
        } else {
            let (alone, rest) = batch.split_first_chunk_mut().expect("there is one");
            decode_chunks::<L, BITS, MOST, true, 1>(lanes, alone, &tables, payload);
            batch = rest;
        }
    }
}

/// Decode `N` chunks: side by side as far as they all have full rows, then one after the other.
#[inline(always)]
fn decode_chunks<L: Lanes, const BITS: u32, const MOST: u32, const AHEAD: bool, const N: usize>(
    lanes: L,
    chunks: &mut [Chunk<'_>; N],
    tables: &Tables<L>,
    payload: Payload<'_>,
) {
    let mut strips: [Strip<L, BITS, MOST, AHEAD>; N] = [Strip::new(lanes, &chunks[0], payload); N];
    for (strip, chunk) in strips.iter_mut().zip(&*chunks) {
        *strip = Strip::new(lanes, chunk, payload);
    }
    let rows = chunks.iter().map(|chunk| chunk.runs.full_rows(MAX_LANES)).min().unwrap_or(0);
    let mut store = Store(chunks.each_mut().map(|chunk| &mut chunk.coded.as_chunks_mut().0[..rows]));
    decode_rows(lanes, &mut strips, (tables, payload), rows, &mut store);
    for (strip, chunk) in strips.iter_mut().zip(chunks) {
        finish(lanes, strip, chunk, rows, tables, payload);
        strip.keep(lanes, chunk);
    }
}

/// Decode what is left of a chunk after `done` full rows.
#[inline(always)]
fn finish<L: Lanes, const BITS: u32, const MOST: u32, const AHEAD: bool>(
    lanes: L,
    strip: &mut Strip<L, BITS, MOST, AHEAD>,
    chunk: &mut Chunk<'_>,
    done: usize,
    tables: &Tables<L>,
    payload: Payload<'_>,
) {
    let rest = &mut chunk.coded[done * MAX_LANES..];
    let mut at = 0;
    for run in chunk.runs.after(done) {
        let mut used = [0; MAX_LANES];
        used[..run.width].fill(255);
        let used = lanes.load(&used);
        for _ in 0..run.rows {
            let symbols = strip.row_of(lanes, tables, payload, used);
            // What is written beyond a row is overwritten by those after it.
            if let Some(out) = rest[at..].first_chunk_mut() {
                lanes.store(symbols, out);
            } else {
                let mut bytes = [0; MAX_LANES];
                lanes.store(symbols, &mut bytes);
                rest[at..at + run.width].copy_from_slice(&bytes[..run.width]);
            }
            at += run.width;
        }
    }
}

const _: () = assert!(MAX_LANES == LANES_PER_STREAM * MAX_STREAMS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_share_a_word_as_fit_into_it() {
        // Nothing to read; 1 and 2 bits each; more than a word has.
        assert_eq!(rows_in_a_word(&[0; 64]), 8);
        assert_eq!(rows_in_a_word(&[1; 64]), 7);
        assert_eq!(rows_in_a_word(&[2; 64]), 3);
        assert_eq!(rows_in_a_word(&[8; 256]), 1);
        // Mean and deviation of 1: `n + 4 sqrt(n) = 60` for 36 lanes.
        let half: Vec<u8> = (0..64).map(|state| 2 * (state % 2)).collect();
        assert_eq!(rows_in_a_word(&half), 4);
    }
}
