//! The decoder's row, over any backend: [`reference::decode_chunk`](super::reference::decode_chunk), 32 lanes at a time.
//!
//! A state is two numbers of 16 bits, so that a row needs no wider arithmetic. With `h` and `l` the halves of
//! `x`, and `F = f << (16 - b)` from the tables,
//!
//! ```text
//! slot = l % 2^b          f * (x >> b) = F * h + (F * (l - slot) >> 16)
//! ```
//!
//! exactly: `F * h` is `f * (h << (16 - b))`, and `l - slot` is `(l >> b) << b`. The second product and
//! `slot - c` add up to less than 2^16, and so one multiplication with a carry makes the new state.
//!
//! A symbol is searched for bit by bit: the sign of `boundary - slot`, appended to the bits (and the class) found so
//! far, is the index of the next boundary.
//!
//! What bounds it, at 16 symbols on AVX-512 (two vector ports, Sapphire Rapids): about 30 operations a row, so 15 cycles;
//! measured 22 with four chunks in lock-step; one alone (measured with 4 symbols: 54) waits for its own last row.

use super::simd::{ByteRow, Job, Row, Simd, WINDOW, for_each_chunk};
use super::tables::{DecodeTables, Place};
use super::walk::Walk;
use super::{LOWER_BOUND, MAX_LANES};

/// The words of a chunk, in windows that are whole even at their end.
pub(super) struct Words<'a> {
    bytes: &'a [u8],
    /// What was left of them when it no longer filled a window, and as many zeros.
    ending: [u8; 2 * WINDOW],
    /// The length of the ending with its zeros, once it is in use.
    ending_length: usize,
    /// Bytes taken, of whichever is in use.
    pub(super) taken: usize,
}

impl<'a> Words<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, ending: [0; 2 * WINDOW], ending_length: 0, taken: 0 }
    }

    #[inline(always)]
    pub(super) fn in_use(&self) -> &[u8] {
        if self.ending_length > 0 { &self.ending[..self.ending_length] } else { self.bytes }
    }

    /// Put the ending to use if a window no longer fits; false if more words were taken than there are.
    pub(super) fn fits_or_turns(&mut self) -> bool {
        if self.in_use().len() >= self.taken + WINDOW {
            return true;
        }
        if self.ending_length > 0 || self.taken > self.bytes.len() {
            return false;
        }
        let left = &self.bytes[self.taken..];
        self.ending[..left.len()].copy_from_slice(left);
        self.ending_length = left.len() + WINDOW;
        self.taken = 0;
        true
    }

    /// Whether every word was taken, and none that is not there.
    fn all_taken(&self) -> bool {
        let length = if self.ending_length > 0 { self.ending_length - WINDOW } else { self.bytes.len() };
        self.taken == length
    }
}

/// A chunk that is being decoded.
pub(super) struct Chunk<'a> {
    /// Its symbols, as far as they are known.
    pub(super) coded: &'a mut [u8],
    pub(super) words: Words<'a>,
    pub(super) low: Row,
    pub(super) high: Row,
    /// The row to decode next.
    pub(super) walk: Walk,
}

impl<'a> Chunk<'a> {
    /// The chunk of this payload, first states and words, about to be decoded into `coded`.
    pub(super) fn new(coded: &'a mut [u8], payload: &'a [u8], walk: Walk) -> Self {
        let (states, words) = payload.split_at(4 * walk.width);
        let (mut low, mut high) = ([0; _], [0; _]);
        for (lane, state) in states.as_chunks::<4>().0.iter().enumerate() {
            low[lane] = u16::from_le_bytes([state[0], state[1]]);
            high[lane] = u16::from_le_bytes([state[2], state[3]]);
        }
        Self { coded, words: Words::new(words), low, high, walk }
    }

    /// Whether the states of the first `lanes` lanes may be an encoder's.
    pub(super) fn starts_well(&self, lanes: usize) -> bool {
        self.high[..lanes].iter().all(|&high| high > 0)
    }

    /// Whether those lanes are where an encoder starts, with all words taken.
    pub(super) fn ends_well(&self, lanes: usize) -> bool {
        let state = |lane: usize| u32::from(self.high[lane]) << 16 | u32::from(self.low[lane]);
        self.words.all_taken() && (0..lanes).all(|lane| state(lane) == LOWER_BOUND)
    }
}

/// Decode `rows` rows, all of the same width, of each of the chunks (which are full, if several); false if
/// words are missing.
///
/// `LEVELS` and `CLASS_BITS` are [`Kernel::bits`](super::tables::Kernel::bits) of the tables.
pub(super) fn decode_rows<S: Simd, const LEVELS: u32, const CLASS_BITS: u32, const CHUNKS: usize>(
    simd: S,
    tables: &DecodeTables,
    chunks: &mut [Chunk<'_>; CHUNKS],
    rows: usize,
) -> bool {
    if CHUNKS > 1 {
        return run_to_end::<S, LEVELS, CLASS_BITS, CHUNKS, true>(simd, tables, chunks, rows);
    }
    let chunk = std::array::from_mut(&mut chunks[0]);
    let fitting = chunk[0].walk.fitting_rows(chunk[0].coded.len(), rows);
    run_to_end::<S, LEVELS, CLASS_BITS, 1, true>(simd, tables, chunk, fitting)
        && run_to_end::<S, LEVELS, CLASS_BITS, 1, false>(simd, tables, chunk, rows - fitting)
}

fn run_to_end<S: Simd, const LEVELS: u32, const CLASS_BITS: u32, const CHUNKS: usize, const FITTING: bool>(
    simd: S,
    tables: &DecodeTables,
    chunks: &mut [Chunk<'_>; CHUNKS],
    mut rows: usize,
) -> bool {
    while rows > 0 {
        rows -= simd.vectorize(Rows::<LEVELS, CLASS_BITS, CHUNKS, FITTING> { tables, chunks, count: rows });
        if rows == 0 {
            break;
        }
        // A chunk has come to its last words.
        if !chunks.iter_mut().all(|chunk| chunk.words.fits_or_turns()) {
            return false;
        }
    }
    true
}

/// As many rows as there are windows of words for; gives their number. Unless `FITTING`, 32 symbols from a row's
/// start on may be more than there are.
struct Rows<'a, 'b, const LEVELS: u32, const CLASS_BITS: u32, const CHUNKS: usize, const FITTING: bool> {
    tables: &'a DecodeTables,
    chunks: &'a mut [Chunk<'b>; CHUNKS],
    /// How many.
    count: usize,
}

impl<const LEVELS: u32, const CLASS_BITS: u32, const CHUNKS: usize, const FITTING: bool> Job
    for Rows<'_, '_, LEVELS, CLASS_BITS, CHUNKS, FITTING>
{
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        let Self { tables, chunks, count: rows } = self;
        let decoder = RowDecoder::<S, LEVELS, CLASS_BITS, FITTING>::new(simd, tables);
        // Several chunks are full, which saves them the mask.
        let active = simd.first(if CHUNKS > 1 { MAX_LANES } else { chunks[0].walk.width });
        let mut lanes = [Lanes { low: simd.splat(0), high: simd.splat(0), left: simd.splat(0) }; CHUNKS];
        let mut walks = [chunks[0].walk; CHUNKS];
        let mut taken = [0; CHUNKS];
        for_each_chunk!(CHUNKS, k => {
            let Chunk { coded, words, low, high, walk } = &chunks[k];
            let left = match walk.left() {
                Some(start) => simd.widen(row_at::<false>(coded, start, &mut [0; _])),
                None => simd.splat(0),
            };
            lanes[k] = Lanes { low: simd.load(low), high: simd.load(high), left };
            (walks[k], taken[k]) = (*walk, words.taken);
        });
        let parts = chunks.each_mut().map(|chunk| (&mut *chunk.coded, chunk.words.in_use()));
        let mut done = 0;
        'rows: while done < rows {
            let mut windows = [&[0; WINDOW]; CHUNKS];
            for_each_chunk!(CHUNKS, k => {
                match parts[k].1.get(taken[k]..).and_then(<[u8]>::first_chunk) {
                    Some(window) => windows[k] = window,
                    None => break 'rows,
                }
            });
            for_each_chunk!(CHUNKS, k => {
                let coded = &mut *parts[k].0;
                let before = lanes[k];
                let count;
                (lanes[k], count) = decoder.decode(before, &walks[k], active, windows[k], coded);
                if CHUNKS == 1 {
                    lanes[k].low = simd.select(active, lanes[k].low, before.low);
                    lanes[k].high = simd.select(active, lanes[k].high, before.high);
                }
                taken[k] += 2 * count;
                if CLASS_BITS == 0 {
                    walks[k].start += walks[k].width;
                } else {
                    walks[k].advance();
                }
            });
            done += 1;
        }
        for_each_chunk!(CHUNKS, k => {
            let chunk = &mut chunks[k];
            simd.store(lanes[k].low, &mut chunk.low);
            simd.store(lanes[k].high, &mut chunk.high);
            (chunk.walk, chunk.words.taken) = (walks[k], taken[k]);
        });
        done
    }
}

/// A row's states, and the symbols of the row before.
#[derive(Clone, Copy)]
struct Lanes<V> {
    low: V,
    high: V,
    left: V,
}

/// 32 symbols from `start` on; zeros after the last, unless they are known to be `FITTING`.
#[inline(always)]
pub(super) fn row_at<'a, const FITTING: bool>(
    symbols: &'a [u8],
    start: usize,
    spare: &'a mut ByteRow,
) -> &'a ByteRow {
    let rest = &symbols[start..];
    if let Some(row) = rest.first_chunk() {
        return row;
    }
    assert!(!FITTING, "a row fits");
    spare[..rest.len()].copy_from_slice(rest);
    spare
}

/// 32 symbols to `start` and on, as far as there is room: what a narrower row has too many, later rows write over.
#[inline(always)]
fn store_at<S: Simd, const FITTING: bool>(simd: S, lanes: S::Lanes, symbols: &mut [u8], start: usize) {
    let rest = &mut symbols[start..];
    if let Some(row) = rest.first_chunk_mut() {
        return simd.narrow(lanes, row);
    }
    assert!(!FITTING, "a row fits");
    let mut row = [0; _];
    simd.narrow(lanes, &mut row);
    rest.copy_from_slice(&row[..rest.len()]);
}

/// `value` in every lane, without the compiler's knowledge: what it makes of adding a constant under a mask is
/// slower than that.
#[inline(always)]
pub(super) fn opaque<S: Simd>(simd: S, value: u16) -> S::Lanes {
    simd.splat(std::hint::black_box(value))
}

/// Tables in registers, as far as they fit.
struct RowDecoder<'a, S: Simd, const LEVELS: u32, const CLASS_BITS: u32, const FITTING: bool> {
    simd: S,
    tables: &'a DecodeTables,
    slot_mask: S::Lanes,
    one: S::Lanes,
    boundaries: [S::Bank; 8],
    scaled: S::Bank,
    cumulative: S::Bank,
    low_bytes: S::LowBytes,
    class_of_bin: S::Bytes,
    bin_shift: S::Shift,
    class_shift: S::Shift,
}

impl<'a, S: Simd, const LEVELS: u32, const CLASS_BITS: u32, const FITTING: bool>
    RowDecoder<'a, S, LEVELS, CLASS_BITS, FITTING>
{
    #[inline(always)]
    fn new(simd: S, tables: &'a DecodeTables) -> Self {
        let bank = |entries: &super::tables::Bank, bits| simd.bank(&entries.0, bits);
        let b = &tables.boundaries;
        Self {
            simd,
            tables,
            one: opaque(simd, 1),
            slot_mask: simd.splat(((1_u32 << tables.basis.bits) - 1) as u16),
            boundaries: [
                bank(&b[0], CLASS_BITS),
                bank(&b[1], CLASS_BITS + 1),
                bank(&b[2], CLASS_BITS + 2),
                bank(&b[3], CLASS_BITS + 3),
                bank(&b[4], CLASS_BITS + 4),
                bank(&b[5], CLASS_BITS + 5),
                bank(&b[6], CLASS_BITS + 6),
                bank(&b[7], CLASS_BITS + 7),
            ],
            scaled: bank(&tables.scaled, CLASS_BITS + LEVELS),
            cumulative: bank(&tables.cumulative, CLASS_BITS + LEVELS),
            low_bytes: simd.low_bytes(&tables.low_bytes.0),
            class_of_bin: simd.bytes(&tables.basis.class_of_bin),
            bin_shift: simd.shift(tables.basis.bin_shift),
            class_shift: simd.shift(LEVELS),
        }
    }

    /// One row: its symbols go to `coded`, its next states and the number of words they took are returned.
    #[inline(always)]
    fn decode(
        &self,
        lanes: Lanes<S::Lanes>,
        walk: &Walk,
        active: S::Mask,
        words: &[u8; WINDOW],
        coded: &mut [u8],
    ) -> (Lanes<S::Lanes>, usize) {
        let (simd, Lanes { low, high, left }) = (self.simd, lanes);
        let class = self.classes(walk, left, coded);
        let slot = simd.and(low, self.slot_mask);
        let (symbol, scaled, offset) = self.find(class, slot);
        store_at::<S, FITTING>(simd, symbol, coded, walk.start);
        let above = simd.mul_high(scaled, simd.sub(low, slot));
        let rest = simd.add(above, offset);
        let (low, high) = simd.mul_add(high, scaled, rest, self.one);
        let (low, high, count) = simd.refill(low, high, active, words);
        (Lanes { low, high, left: symbol }, count)
    }

    /// The class of each lane, from its neighbours; `left` holds the row before.
    #[inline(always)]
    fn classes(&self, walk: &Walk, left: S::Lanes, coded: &[u8]) -> S::Lanes {
        let simd = self.simd;
        if CLASS_BITS == 0 {
            return simd.splat(0);
        }
        let upper = walk.upper().map(|start| simd.widen(row_at::<FITTING>(coded, start, &mut [0; _])));
        let sum = match (walk.left(), upper) {
            (Some(_), Some(upper)) => simd.add(left, upper),
            (Some(_), None) => simd.add(left, left),
            (None, Some(upper)) => simd.add(upper, upper),
            (None, None) => return simd.splat(0),
        };
        simd.look_up_byte(&self.class_of_bin, simd.shift_right(sum, self.bin_shift))
    }

    /// The symbol of each slot, `f << (16 - b)` and `slot - c`.
    #[inline(always)]
    fn find(&self, class: S::Lanes, slot: S::Lanes) -> (S::Lanes, S::Lanes, S::Lanes) {
        let simd = self.simd;
        let tables = self.tables;
        let index_bits = CLASS_BITS + LEVELS;
        let place = const { Place::of(CLASS_BITS + LEVELS, S::BANK_BITS) };
        if matches!(place, Place::CoarseSlots) {
            // As below.
            let Some(steps) = &tables.coarse_steps else { return (slot, slot, slot) };
            return simd.look_up_coarse_step(steps, slot);
        }
        if matches!(place, Place::Slots) {
            // As below.
            let Some(steps) = &tables.steps else { return (slot, slot, slot) };
            return simd.look_up_step(steps, &self.low_bytes, slot);
        }
        let index = if matches!(place, Place::Memory) {
            // Without them there are no rows to decode: the model was not set.
            let Some(slots) = &tables.slots else { return (slot, slot, slot) };
            let symbol = simd.look_up_slot(slots, class, slot, tables.basis.bits);
            simd.add(simd.shift_left(class, self.class_shift), symbol)
        } else {
            self.search(class, slot)
        };
        let (scaled, c) = if matches!(place, Place::Registers) {
            (simd.look_up(&self.scaled, index, index_bits), simd.look_up(&self.cumulative, index, index_bits))
        } else {
            let Some(pairs) = &tables.pairs else { return (slot, slot, slot) };
            simd.look_up_pair(pairs, index)
        };
        let symbol = if CLASS_BITS == 0 { index } else { simd.and(index, simd.splat((1 << LEVELS) - 1)) };
        (symbol, scaled, simd.sub(slot, c))
    }

    /// `class << LEVELS | symbol`, bit by bit.
    #[inline(always)]
    fn search(&self, class: S::Lanes, slot: S::Lanes) -> S::Lanes {
        let mut index = class;
        index = self.next_bit(index, slot, 0);
        index = self.next_bit(index, slot, 1);
        index = self.next_bit(index, slot, 2);
        if LEVELS > 3 {
            index = self.next_bit(index, slot, 3);
        }
        if LEVELS > 4 {
            index = self.next_bit(index, slot, 4);
        }
        if LEVELS > 5 {
            index = self.next_bit(index, slot, 5);
        }
        if LEVELS > 6 {
            index = self.next_bit(index, slot, 6);
        }
        if LEVELS > 7 {
            index = self.next_bit(index, slot, 7);
        }
        index
    }

    /// A class and the first `level` bits of a symbol, and the next bit.
    #[inline(always)]
    fn next_bit(&self, index: S::Lanes, slot: S::Lanes, level: u32) -> S::Lanes {
        let boundary = self.simd.look_up(&self.boundaries[level as usize], index, CLASS_BITS + level);
        self.simd.append_above(index, slot, boundary)
    }
}
