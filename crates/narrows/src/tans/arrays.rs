//! [`Lanes`] on plain arrays: what tests run the lane algorithms on, operation by operation as vectors do them.

use std::array::from_fn;

use super::chunk::window;
use super::lanes::{Lanes, Payload};

/// Plain arrays, a word for each group: what tests run where there are no vectors.
#[derive(Clone, Copy)]
pub(crate) struct Arrays;

type Words = [u64; 8];

/// Each word's pieces of `WIDTH` bits, the upper of two moved up by what the lower does not use: both start on a
/// multiple of `WIDTH` bits then. `used` has in the lowest byte of both the bits that the lower takes.
///
/// Three of these, from 32 bits down to 8, deal a window out to bytes; vectors do the same with shifts of lanes of
/// 64, 32 and 16 bits.
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
        from_fn(|word| a[word].wrapping_add(b[word]))
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
    fn shift_right_words(self, words: Words, counts: Words) -> Words {
        from_fn(|word| words[word].checked_shr(counts[word] as u32).unwrap_or(0))
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
