//! The encoder's row, over any backend: [`reference::encode_chunk`](super::reference::encode_chunk), 32 lanes at a time.
//!
//! Lanes are held in descending order: the words that a row puts out then lie in ascending order of memory, and the
//! words of a chunk are its words from last to first.
//!
//! **The quotient is exact.** After renormalisation `x < f * 2^(32 - b)`, so that `x / f < 2^20` (`b >= 12`).
//! It is estimated as `fl(fl(x) * r)`, where `r` is `1 / f` made larger by `2^-21`, give or take `2^-22`
//! ([`RATIO_EXCESS`](super::simd::RATIO_EXCESS)). Each `fl` adds or takes away at most `2^-24`, relatively,
//! so that the estimate is larger than `x / f`, by more than `2^-23 - 2^-45` and less than `2^-20`, relatively: by
//! less than 1 in all. Truncated, it is the quotient `q` or `q + 1`. What is left, `x - estimate * f`, is then
//! `x % f` or that less `f`, and as `f < 2^14`, its low 16 bits say which of the two.
//!
//! What bounds it, at 16 symbols on AVX-512 (two vector ports, Sapphire Rapids): about 40 operations a row, 22 of them on
//! one port; measured 23 cycles with four chunks in lock-step; one alone takes 57 (measured with 4 symbols).

use super::LOWER_BOUND;
use super::MAX_LANES;
use super::decoding::{opaque, row_at};
use super::simd::{Job, Row, Simd, for_each_chunk};
use super::tables::EncodeTables;
use super::walk::Walk;

/// A chunk that is being encoded.
pub(super) struct Chunk<'a> {
    pub(super) coded: &'a [u8],
    /// Its words from the last on; longer by a row than there can be words.
    pub(super) words: &'a mut [u16],
    pub(super) put: usize,
    pub(super) low: Row,
    pub(super) high: Row,
    /// The row to encode next.
    pub(super) walk: Walk,
}

impl<'a> Chunk<'a> {
    /// The chunk of these symbols, about to be encoded from row `walk` backward.
    pub(super) fn new(coded: &'a [u8], words: &'a mut [u16], walk: Walk) -> Self {
        debug_assert!(words.len() >= coded.len() + MAX_LANES);
        let (low, high) = ([LOWER_BOUND as u16; _], [(LOWER_BOUND >> 16) as u16; _]);
        Self { coded, words, put: 0, low, high, walk }
    }

    /// The first states of `lanes` lanes.
    pub(super) fn states(&self, lanes: usize) -> impl Iterator<Item = u32> {
        let (low, high) = (self.low.iter().rev(), self.high.iter().rev());
        let states = low.zip(high).map(|(&low, &high)| u32::from(high) << 16 | u32::from(low));
        states.take(lanes)
    }

    /// Its words, from the last to the first.
    pub(super) fn words(&self) -> &[u16] {
        &self.words[..self.put]
    }
}

/// Encode `rows` rows backward, all of the same width, of each of the chunks (which are full, if several).
///
/// `LEVELS` and `CLASS_BITS` are [`Kernel::bits`](super::tables::Kernel::bits) of the tables.
pub(super) fn encode_rows<S: Simd, const LEVELS: u32, const CLASS_BITS: u32, const CHUNKS: usize>(
    simd: S,
    tables: &EncodeTables,
    chunks: &mut [Chunk<'_>; CHUNKS],
    rows: usize,
) {
    if CHUNKS > 1 || rows == 0 {
        return simd.vectorize(Rows::<LEVELS, CLASS_BITS, CHUNKS, true> { tables, chunks, count: rows });
    }
    let chunks = std::array::from_mut(&mut chunks[0]);
    let mut first = chunks[0].walk;
    first.start -= (rows - 1) * first.width;
    let fitting = first.fitting_rows(chunks[0].coded.len(), rows);
    let rows = rows - fitting;
    simd.vectorize(Rows::<LEVELS, CLASS_BITS, 1, false> { tables, chunks, count: rows });
    simd.vectorize(Rows::<LEVELS, CLASS_BITS, 1, true> { tables, chunks, count: fitting });
}

/// Unless `FITTING`, 32 symbols from a row's start on may be more than there are.
struct Rows<'a, 'b, const LEVELS: u32, const CLASS_BITS: u32, const CHUNKS: usize, const FITTING: bool> {
    tables: &'a EncodeTables,
    chunks: &'a mut [Chunk<'b>; CHUNKS],
    /// How many.
    count: usize,
}

impl<const LEVELS: u32, const CLASS_BITS: u32, const CHUNKS: usize, const FITTING: bool> Job
    for Rows<'_, '_, LEVELS, CLASS_BITS, CHUNKS, FITTING>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { tables, chunks, count: rows } = self;
        if rows == 0 {
            return;
        }
        let encoder = RowEncoder::<S, LEVELS, CLASS_BITS, FITTING>::new(simd, tables);
        // Several chunks are full, which saves them the mask.
        let active = simd.last(if CHUNKS > 1 { MAX_LANES } else { chunks[0].walk.width });
        let mut low = [simd.splat(0); CHUNKS];
        let mut high = [simd.splat(0); CHUNKS];
        let mut walks = [chunks[0].walk; CHUNKS];
        let mut put = [0; CHUNKS];
        for_each_chunk!(CHUNKS, k => {
            (low[k], high[k]) = (simd.load(&chunks[k].low), simd.load(&chunks[k].high));
            (walks[k], put[k]) = (chunks[k].walk, chunks[k].put);
        });
        let mut parts = chunks.each_mut().map(|chunk| (chunk.coded, &mut *chunk.words));
        for _ in 0..rows {
            for_each_chunk!(CHUNKS, k => {
                let (coded, words) = &mut parts[k];
                let index = encoder.index(&walks[k], coded);
                let room: &mut Row = words[put[k]..].first_chunk_mut().expect("a row's room is left");
                let (new_low, new_high, count) = encoder.encode(low[k], high[k], index, active, room);
                (low[k], high[k]) = if CHUNKS > 1 {
                    (new_low, new_high)
                } else {
                    (simd.select(active, new_low, low[k]), simd.select(active, new_high, high[k]))
                };
                put[k] += count;
                if CLASS_BITS == 0 {
                    walks[k].start = walks[k].start.wrapping_sub(walks[k].width);
                } else {
                    walks[k].retreat();
                }
            });
        }
        for_each_chunk!(CHUNKS, k => {
            let chunk = &mut chunks[k];
            simd.store(low[k], &mut chunk.low);
            simd.store(high[k], &mut chunk.high);
            (chunk.walk, chunk.put) = (walks[k], put[k]);
        });
    }
}

/// Words as bytes, the last word first.
pub(super) struct Reversed<'a> {
    pub(super) words: &'a [u16],
    /// Two bytes for each.
    pub(super) room: &'a mut [u8],
}

impl Job for Reversed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // In rows, whose length the compiler knows.
        let (rows, ends) = self.room.as_chunks_mut::<2>().0.as_chunks_mut::<MAX_LANES>();
        let (starts, from) = self.words.as_rchunks::<MAX_LANES>();
        for (row, words) in rows.iter_mut().zip(from.iter().rev()) {
            for (lane, place) in row.iter_mut().enumerate() {
                *place = words[MAX_LANES - 1 - lane].to_le_bytes();
            }
        }
        ends.iter_mut().zip(starts.iter().rev()).for_each(|(place, word)| *place = word.to_le_bytes());
    }
}

/// Tables in registers, as far as they fit.
struct RowEncoder<'a, S: Simd, const LEVELS: u32, const CLASS_BITS: u32, const FITTING: bool> {
    simd: S,
    tables: &'a EncodeTables,
    frequency: S::Bank,
    cumulative: S::Bank,
    ratio: S::RatioBank,
    class_of_bin: S::Bytes,
    bin_shift: S::Shift,
    class_shift: S::Shift,
    /// Probability bits, and 16 less these.
    bits: S::Shift,
    other_bits: S::Shift,
    full: S::Lanes,
    minus_one: S::Lanes,
    zero: S::Lanes,
}

impl<'a, S: Simd, const LEVELS: u32, const CLASS_BITS: u32, const FITTING: bool>
    RowEncoder<'a, S, LEVELS, CLASS_BITS, FITTING>
{
    #[inline(always)]
    fn new(simd: S, tables: &'a EncodeTables) -> Self {
        Self {
            simd,
            tables,
            frequency: simd.bank(&tables.frequency.0, CLASS_BITS + LEVELS),
            cumulative: simd.bank(&tables.cumulative.0, CLASS_BITS + LEVELS),
            ratio: simd.ratio_bank(&tables.ratio),
            class_of_bin: simd.bytes(&tables.basis.class_of_bin),
            bin_shift: simd.shift(tables.basis.bin_shift),
            class_shift: simd.shift(LEVELS),
            bits: simd.shift(tables.basis.bits),
            other_bits: simd.shift(16 - tables.basis.bits),
            full: simd.splat(1 << tables.basis.bits),
            minus_one: opaque(simd, u16::MAX),
            zero: opaque(simd, 0),
        }
    }

    /// `class << LEVELS | symbol` of a row.
    #[inline(always)]
    fn index(&self, walk: &Walk, coded: &[u8]) -> S::Lanes {
        let simd = self.simd;
        let at = |start| simd.widen_reversed(row_at::<FITTING>(coded, start, &mut [0; _]));
        let symbol = at(walk.start);
        if CLASS_BITS == 0 {
            return symbol;
        }
        let sum = match (walk.left(), walk.upper()) {
            (Some(left), Some(upper)) => simd.add(at(left), at(upper)),
            (Some(start), None) | (None, Some(start)) => {
                let only = at(start);
                simd.add(only, only)
            }
            (None, None) => return symbol,
        };
        let class = simd.look_up_byte(&self.class_of_bin, simd.shift_right(sum, self.bin_shift));
        simd.add(simd.shift_left(class, self.class_shift), symbol)
    }

    /// The states after one symbol each; words go to `room`, their number is returned.
    #[inline(always)]
    fn encode(
        &self,
        low: S::Lanes,
        high: S::Lanes,
        index: S::Lanes,
        active: S::Mask,
        room: &mut Row,
    ) -> (S::Lanes, S::Lanes, usize) {
        let simd = self.simd;
        let bank_bits = CLASS_BITS + LEVELS;
        let (f, c) = if bank_bits > S::BANK_BITS {
            // Without them there are no rows to encode: the model was not set.
            let Some(pairs) = &self.tables.pairs else { return (low, high, 0) };
            simd.look_up_pair(pairs, index)
        } else {
            (
                simd.look_up(&self.frequency, index, bank_bits),
                simd.look_up(&self.cumulative, index, bank_bits),
            )
        };
        let limit = simd.shift_left(f, self.other_bits);
        let (low, high, count) = simd.put_out(low, high, limit, active, self.zero, room);
        let ratios = simd.ratios(&self.ratio, index, f, CLASS_BITS + LEVELS);
        let (quotient, quotient_high) = simd.quotient(low, high, ratios);
        let rest = simd.sub(low, simd.mul_low(quotient, f));
        // One too many: a quotient less, and so 2^b less, and f more.
        let over = simd.negative(rest);
        let rest = simd.add_where(over, simd.add(rest, c), simd.sub(f, self.full));
        let new_low = simd.shift_left(quotient, self.bits);
        let new_high = simd.shift_both(quotient_high, quotient, self.bits, self.other_bits);
        let borrow = simd.zero_among(over, new_low);
        (simd.add(new_low, rest), simd.add_where(borrow, new_high, self.minus_one), count)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "aarch64")]
    use super::super::simd::neon;
    #[cfg(target_arch = "x86_64")]
    use super::super::simd::{avx2, avx512};
    use super::super::simd::{portable, ratio};
    use super::*;

    /// Estimates of `x / f` for 32 states.
    struct Estimates<'a> {
        states: &'a [u32],
        frequency: u16,
        /// Bits of the bank that ratios are looked up in; above 5 they may be computed.
        bits: u32,
    }

    impl Job for Estimates<'_> {
        type Output = [u32; MAX_LANES];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [u32; MAX_LANES] {
            let (mut low, mut high) = ([0; MAX_LANES], [0; MAX_LANES]);
            for (lane, &state) in self.states.iter().enumerate() {
                (low[lane], high[lane]) = (state as u16, (state >> 16) as u16);
            }
            let bank = simd.ratio_bank(&[ratio(self.frequency); 32]);
            let ratios = simd.ratios(&bank, simd.splat(1), simd.splat(self.frequency), self.bits);
            let quotients = simd.quotient(simd.load(&low), simd.load(&high), ratios);
            simd.store(quotients.0, &mut low);
            simd.store(quotients.1, &mut high);
            std::array::from_fn(|lane| u32::from(high[lane]) << 16 | u32::from(low[lane]))
        }
    }

    /// Every frequency, with states on both sides of where quotients change, up to the largest there are.
    fn check<S: Simd>(simd: S) {
        let mut states = Vec::new();
        for bits in 12..=14 {
            for f in 1..1_u16 << bits {
                let (f, below) = (u64::from(f), u64::from(f) << (32 - bits));
                let most = (below - 1) / f;
                states.clear();
                for q in [1, 2, 255, 65_535, 65_536, most / 3, most / 2, most - 2, most - 1, most] {
                    states.extend([q * f - 1, q * f, q * f + f - 1].map(|x| x.min(below - 1) as u32));
                }
                for bank_bits in [4, 5, 7] {
                    let job = Estimates { states: &states, frequency: f as u16, bits: bank_bits };
                    let estimates = simd.vectorize(job);
                    for (&x, estimate) in states.iter().zip(estimates) {
                        let quotient = x / f as u32;
                        assert!(estimate == quotient || estimate == quotient + 1, "{x} / {f}: {estimate}");
                    }
                }
            }
        }
    }

    #[test]
    fn estimates_are_the_quotient_or_one_more() {
        check(portable::Portable);
        #[cfg(target_arch = "x86_64")]
        {
            avx2::Avx2::new().into_iter().for_each(check);
            avx512::Avx512::new().into_iter().for_each(check);
        }
        #[cfg(target_arch = "aarch64")]
        neon::Neon::new().into_iter().for_each(check);
    }
}
