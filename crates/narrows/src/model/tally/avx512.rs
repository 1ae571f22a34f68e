//! Counting with AVX-512: eight symbols' counters are the eight bits of a byte.
//!
//! A permutation turns a symbol into a byte with the bit of that symbol set, so counting becomes counting
//! bits by their place in a byte. Full adders (two three-input operations each) add up 16 such vectors to bits
//! that stand for sixteen; only these are taken apart. For 16 symbols that makes about 9 operations for
//! 64 symbols, where counting one by one takes 64 loads and 64 stores.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi8, _mm512_add_epi64, _mm512_and_si512, _mm512_maskz_permutexvar_epi8,
    _mm512_permutexvar_epi8, _mm512_reduce_add_epi64, _mm512_sad_epu8, _mm512_set1_epi8,
    _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_ternarylogic_epi64,
};

use crate::simd::avx512::{first, load, load_part, store};

/// As many as one permutation looks up.
pub(super) const MAX_ALPHABET: usize = 64;
/// Symbols whose counters share a byte.
const GROUP: usize = 8;
const GROUPS: usize = MAX_ALPHABET / GROUP;
/// Vectors added up at a time.
const ROUND: usize = 16;
/// Rounds until a counter of one byte is full.
const ROUNDS: u32 = 255;

/// Bits of eight symbols, on their way to counts.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Group {
    /// Bits that stand for 1, 2, 4 and 8.
    partial: [[u8; 64]; 4],
    /// For each bit of a byte, how often it stood for 16.
    sixteens: [[u8; 64]; GROUP],
}

const EMPTY: Group = Group { partial: [[0; 64]; 4], sixteens: [[0; 64]; GROUP] };

/// Counters of all symbols.
#[derive(Clone)]
pub(super) struct Bits {
    groups: [Group; GROUPS],
    used: usize,
    /// Rounds since counters of bytes were empty.
    rounds: u32,
    dirty: bool,
}

impl Default for Bits {
    fn default() -> Self {
        Self { groups: [EMPTY; GROUPS], used: 0, rounds: 0, dirty: false }
    }
}

impl Bits {
    pub(super) fn start(&mut self, alphabet: usize) {
        let used = alphabet.min(MAX_ALPHABET).div_ceil(GROUP);
        if self.dirty {
            self.groups.fill(EMPTY);
        }
        (self.used, self.rounds, self.dirty) = (used, 0, false);
    }

    /// Count `symbols`; counters that would overflow are emptied into `counts`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    pub(super) fn add(&mut self, symbols: &[u8], counts: &mut [u32; 256]) {
        self.dirty = true;
        for symbols in symbols.chunks(ROUND * 64 * 8) {
            let rounds = symbols.len().div_ceil(ROUND * 64) as u32;
            if self.rounds + rounds > ROUNDS {
                self.empty(counts);
            }
            self.rounds += rounds;
            for (index, group) in self.groups[..self.used].iter_mut().enumerate() {
                group.add(index, symbols);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    fn empty(&mut self, counts: &mut [u32; 256]) {
        let groups = self.groups[..self.used].iter_mut();
        for (group, counts) in groups.zip(counts.as_chunks_mut::<GROUP>().0) {
            group.empty(counts);
        }
        self.rounds = 0;
    }

    /// Add everything to `counts`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    pub(super) fn finish(&mut self, counts: &mut [u32; 256]) {
        if self.dirty {
            self.empty(counts);
            self.dirty = false;
        }
    }
}

/// `(sum, carry)` of three bits in every place.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_bits(a: __m512i, b: __m512i, c: __m512i) -> (__m512i, __m512i) {
    (_mm512_ternarylogic_epi64::<0x96>(a, b, c), _mm512_ternarylogic_epi64::<0xe8>(a, b, c))
}

/// Bits move across bytes, but those that arrive from the next byte are masked away.
#[inline]
#[target_feature(enable = "avx512f")]
fn shift_right(vector: __m512i, bits: usize) -> __m512i {
    match bits {
        0 => vector,
        1 => _mm512_srli_epi64::<1>(vector),
        2 => _mm512_srli_epi64::<2>(vector),
        3 => _mm512_srli_epi64::<3>(vector),
        4 => _mm512_srli_epi64::<4>(vector),
        5 => _mm512_srli_epi64::<5>(vector),
        6 => _mm512_srli_epi64::<6>(vector),
        _ => _mm512_srli_epi64::<7>(vector),
    }
}

impl Group {
    /// Count those of `symbols` that are among the eight of group `index`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    fn add(&mut self, index: usize, symbols: &[u8]) {
        let mut table = [0; 64];
        (0..GROUP).for_each(|bit| table[index * GROUP + bit] = 1 << bit);
        let table = load(&table);
        let [mut ones, mut twos, mut fours, mut eights] = [0, 1, 2, 3].map(|k| load(&self.partial[k]));
        let mut sixteens = [_mm512_setzero_si512(); GROUP];
        (0..GROUP).for_each(|bit| sixteens[bit] = load(&self.sixteens[bit]));
        let lowest = _mm512_set1_epi8(1);

        macro_rules! round {
            ($at:expr) => {{
                let [mut two, mut four, mut eight] = [_mm512_setzero_si512(); 3];
                let mut sixteen = _mm512_setzero_si512();
                for pair in 0..ROUND / 2 {
                    let carry;
                    (ones, carry) = add_bits(ones, $at(2 * pair), $at(2 * pair + 1));
                    // Two carries of a place make one addition in the next.
                    if pair % 2 == 0 {
                        two = carry;
                        continue;
                    }
                    let carry_2;
                    (twos, carry_2) = add_bits(twos, two, carry);
                    if pair % 4 == 1 {
                        four = carry_2;
                        continue;
                    }
                    let carry_4;
                    (fours, carry_4) = add_bits(fours, four, carry_2);
                    if pair % 8 == 3 {
                        eight = carry_4;
                        continue;
                    }
                    (eights, sixteen) = add_bits(eights, eight, carry_4);
                }
                for (bit, counter) in sixteens.iter_mut().enumerate() {
                    let shifted = shift_right(sixteen, bit);
                    *counter = _mm512_add_epi8(*counter, _mm512_and_si512(shifted, lowest));
                }
            }};
        }
        let (vectors, rest) = symbols.as_chunks::<64>();
        let (rounds, last) = vectors.as_chunks::<ROUND>();
        for round in rounds {
            round!(|k: usize| _mm512_permutexvar_epi8(load(&round[k]), table));
        }
        if last.len() + rest.len() > 0 {
            round!(|k: usize| match last.get(k) {
                Some(vector) => _mm512_permutexvar_epi8(load(vector), table),
                None if k == last.len() => {
                    _mm512_maskz_permutexvar_epi8(first(rest.len()), load_part(rest), table)
                }
                None => _mm512_setzero_si512(),
            });
        }
        for (bytes, vector) in self.partial.iter_mut().zip([ones, twos, fours, eights]) {
            store(bytes, vector);
        }
        for (bytes, vector) in self.sixteens.iter_mut().zip(sixteens) {
            store(bytes, vector);
        }
    }

    /// Move all counts to `counts`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn empty(&mut self, counts: &mut [u32; GROUP]) {
        let (zero, lowest) = (_mm512_setzero_si512(), _mm512_set1_epi8(1));
        let partial = [0, 1, 2, 3].map(|k| load(&self.partial[k]));
        for (bit, count) in counts.iter_mut().enumerate() {
            // sum = ((sixteens * 2 + eights) * 2 + fours) * 2 ...
            let mut sum = _mm512_sad_epu8(load(&self.sixteens[bit]), zero);
            for vector in partial.into_iter().rev() {
                let ones = _mm512_and_si512(shift_right(vector, bit), lowest);
                sum = _mm512_add_epi64(_mm512_slli_epi64::<1>(sum), _mm512_sad_epu8(ones, zero));
            }
            *count += _mm512_reduce_add_epi64(sum) as u32;
        }
        *self = EMPTY;
    }
}
