//! The vector operations that [`rows`](super::rows) is written over, and what they are on plain arrays.
//!
//! A vector holds a byte for each lane. Eight lanes are a group; the bytes of a group, the first lane's the
//! lowest, are a *word* of 64 bits, of which it has one window of its bit stream and one position in it.

use std::array::from_fn;

use super::chunk::window;

/// Fewest lanes for which decoding 64 at once beats scalar code on plain arrays.
pub(crate) const LEAST_LANES: usize = 8;

/// Bits that a window surely has: 64, less up to 7 of its first byte that are behind the position.
pub(crate) const WINDOW: u32 = 57;

/// At least eight bytes: so many can always be loaded at once.
#[derive(Clone, Copy)]
pub(crate) struct Payload<'a>(&'a [u8]);

impl<'a> Payload<'a> {
    /// `bytes`, if there are eight.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= 8).then_some(Self(bytes))
    }

    /// The bytes, eight at least.
    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// A set of instructions that works on 64 lanes at once; a value of it proves that the processor has them.
///
/// Words are unsigned; shifts by 64 or more give 0.
pub(crate) trait Lanes: Copy {
    /// A byte for each of 64 lanes.
    type Bytes: Copy;
    /// 256 bytes to look up in.
    type Table: Copy;
    /// Yes or no for each lane.
    type Mask: Copy;

    /// The lanes' bytes.
    fn load(self, bytes: &[u8; 64]) -> Self::Bytes;
    /// Write the lanes' bytes.
    fn store(self, vector: Self::Bytes, bytes: &mut [u8; 64]);
    /// The table of these entries.
    fn table(self, entries: &[u8; 256]) -> Self::Table;
    /// The entries at `index`; only the first `2^BITS` (4 or 6 to 8) count, and indices
    /// are below that.
    fn look_up<const BITS: u32>(self, table: &Self::Table, index: Self::Bytes) -> Self::Bytes;
    /// Bytes with the lowest `counts` (0 to 8) bits set.
    fn low_bits(self, counts: Self::Bytes) -> Self::Bytes;
    /// Bits of `yes` where those of `mask` are set, of `no` elsewhere.
    fn select(self, mask: Self::Bytes, yes: Self::Bytes, no: Self::Bytes) -> Self::Bytes;
    /// Bits set in both.
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bits set in either.
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Sums of bytes, modulo 256.
    fn add_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bytes moved down by `counts` (0 to 8) bits.
    fn shift_right(self, bytes: Self::Bytes, counts: Self::Bytes) -> Self::Bytes;
    /// Where a byte is less than another.
    fn less(self, a: Self::Bytes, b: Self::Bytes) -> Self::Mask;
    /// Bytes of `yes` where `mask` says so, of `no` elsewhere.
    fn choose(self, mask: Self::Mask, yes: Self::Bytes, no: Self::Bytes) -> Self::Bytes;
    /// Sums of words.
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// For each word, the sum of its bytes, at most 64.
    fn totals(self, counts: Self::Bytes) -> Self::Bytes;
    /// Whether any word is above `bound`.
    fn any_above(self, words: Self::Bytes, bound: u64) -> bool;
    /// Words moved up by `counts` (0 to 64) bits.
    fn shift_left_words(self, words: Self::Bytes, counts: Self::Bytes) -> Self::Bytes;
    /// For each word, 64 bits of `high:low` from bit `count` of `low` on, `count` at most `MOST`, 63 or 64.
    fn funnel<const MOST: u32>(self, low: Self::Bytes, high: Self::Bytes, count: Self::Bytes) -> Self::Bytes;
    /// Deal the bits of each word of `window` out to its bytes, from the lowest on: each byte's low `counts` bits are
    /// its own, those above anything.
    fn deal(self, window: Self::Bytes, counts: Self::Bytes) -> Self::Bytes;
    /// Undo [`Lanes::deal`] for each half of a word: the low `counts` bits of four bytes, next to each other from the lowest
    /// bit of the half on. Bits above `counts` are zero.
    fn gather_halves(self, bits: Self::Bytes, counts: Self::Bytes) -> Self::Bytes;
    /// For each word, the payload's bits from bit `positions` on: 57 at least, zeros beyond its end.
    fn windows(self, payload: Payload<'_>, positions: Self::Bytes) -> Self::Bytes;
}

/// Plain arrays, a word for each group: [`Path::Portable`](crate::Path::Portable).
#[derive(Clone, Copy)]
pub(crate) struct Arrays;

type Words = [u64; 8];

/// Each word's pieces of `WIDTH` bits, the upper of two moved up by what the lower does not use: both start on a
/// multiple of `WIDTH` bits then. `used` has in the lowest byte of both the bits that the lower takes.
///
/// Three of these, from 32 bits down to 8, deal a window out to bytes; vectors do the same with shifts of 64, 32 and 16 bit
/// lanes.
const fn part<const WIDTH: u32>(word: u64, used: u64) -> u64 {
    let both = 2 * WIDTH;
    let (mut result, mut at) = (0, 0);
    while at < 64 {
        let piece = word >> at & (!0 >> (64 - both));
        let low = (used >> at & 0xff) as u32;
        let low_mask = (1 << WIDTH) - 1;
        let high = piece << (WIDTH - low) & (low_mask << WIDTH);
        result |= (piece & low_mask | high) << at;
        at += both;
    }
    result
}

/// The inverse of [`part`]: the upper of two pieces moved down to where the lower ends.
const fn join<const WIDTH: u32>(word: u64, used: u64) -> u64 {
    let both = 2 * WIDTH;
    let (mut result, mut at) = (0, 0);
    while at < 64 {
        let (low, high) = (word >> at & ((1 << WIDTH) - 1), word >> (at + WIDTH) & ((1 << WIDTH) - 1));
        result |= (low | high << (used >> at & 0xff)) << at;
        at += both;
    }
    result
}

/// The lower byte of each 16 bits.
const EVEN_BYTES: u64 = 0x00ff_00ff_00ff_00ff;

#[inline]
fn each_byte(words: Words, others: Words, operation: impl Fn(u8, u8) -> u8) -> Words {
    let mut result = [0; 8];
    for word in 0..8 {
        let (mut bytes, others) = (words[word].to_le_bytes(), others[word].to_le_bytes());
        for at in 0..8 {
            bytes[at] = operation(bytes[at], others[at]);
        }
        result[word] = u64::from_le_bytes(bytes);
    }
    result
}

impl Lanes for Arrays {
    type Bytes = Words;
    type Table = [u8; 256];
    type Mask = Words;

    #[inline]
    fn load(self, bytes: &[u8; 64]) -> Words {
        let (words, _) = bytes.as_chunks();
        from_fn(|word| u64::from_le_bytes(words[word]))
    }

    #[inline]
    fn store(self, vector: Words, bytes: &mut [u8; 64]) {
        let (words, _) = bytes.as_chunks_mut();
        words.iter_mut().zip(vector).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    }

    #[inline]
    fn table(self, entries: &[u8; 256]) -> Self::Table {
        *entries
    }

    #[inline]
    fn look_up<const BITS: u32>(self, table: &Self::Table, index: Words) -> Words {
        each_byte(index, index, |at, _| table[usize::from(at)])
    }

    #[inline]
    fn low_bits(self, counts: Words) -> Words {
        each_byte(counts, counts, |count, _| ((1_u32 << count) - 1) as u8)
    }

    #[inline]
    fn or(self, a: Words, b: Words) -> Words {
        from_fn(|word| a[word] | b[word])
    }

    #[inline]
    fn add_bytes(self, a: Words, b: Words) -> Words {
        each_byte(a, b, u8::wrapping_add)
    }

    #[inline]
    fn shift_right(self, bytes: Words, counts: Words) -> Words {
        each_byte(bytes, counts, |byte, count| (u32::from(byte) >> count) as u8)
    }

    #[inline]
    fn less(self, a: Words, b: Words) -> Words {
        each_byte(a, b, |a, b| if a < b { 255 } else { 0 })
    }

    #[inline]
    fn choose(self, mask: Words, yes: Words, no: Words) -> Words {
        self.select(mask, yes, no)
    }

    #[inline]
    fn select(self, mask: Words, yes: Words, no: Words) -> Words {
        from_fn(|word| mask[word] & yes[word] | !mask[word] & no[word])
    }

    #[inline]
    fn and(self, a: Words, b: Words) -> Words {
        from_fn(|word| a[word] & b[word])
    }

    #[inline]
    fn add(self, a: Words, b: Words) -> Words {
        from_fn(|word| a[word] + b[word])
    }

    #[inline]
    fn totals(self, counts: Words) -> Words {
        // The top byte of the product is the sum of all.
        from_fn(|word| counts[word].wrapping_mul(0x0101_0101_0101_0101) >> 56)
    }

    #[inline]
    fn funnel<const MOST: u32>(self, low: Words, high: Words, count: Words) -> Words {
        from_fn(|word| {
            let both = u128::from(high[word]) << 64 | u128::from(low[word]);
            (both >> count[word]) as u64
        })
    }

    #[inline]
    fn any_above(self, words: Words, bound: u64) -> bool {
        words.iter().any(|&word| word > bound)
    }

    #[inline]
    fn shift_left_words(self, words: Words, counts: Words) -> Words {
        from_fn(|word| words[word].checked_shl(counts[word] as u32).unwrap_or(0))
    }

    #[inline]
    fn gather_halves(self, bits: Words, counts: Words) -> Words {
        from_fn(|word| {
            let pairs = (counts[word] & EVEN_BYTES) + (counts[word] >> 8 & EVEN_BYTES);
            join::<16>(join::<8>(bits[word], counts[word]), pairs)
        })
    }

    #[inline]
    fn deal(self, window: Words, counts: Words) -> Words {
        from_fn(|word| {
            let pairs = counts[word] + (counts[word] >> 8);
            let fours = (pairs & EVEN_BYTES) + (pairs >> 16 & EVEN_BYTES);
            let halves = part::<32>(window[word], fours);
            let quarters = part::<16>(halves, pairs);
            part::<8>(quarters, counts[word])
        })
    }

    #[inline]
    fn windows(self, payload: Payload<'_>, positions: Words) -> Words {
        from_fn(|word| window(payload.bytes(), positions[word]))
    }
}
