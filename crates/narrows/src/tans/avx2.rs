//! AVX2 and BMI2: a vector of 64 lanes is two registers; up to 32 lanes take one.
//!
//! `vpshufb` looks up in 16 entries, so that a look-up in 64 is four, of which all but one give zero. Bits are dealt
//! out by halves: 64 to two times 32, 32 to two times 16, 16 to two bytes, each by a shift of the upper part. The last
//! step multiplies, since there is no shift of 16-bit lanes by different counts; that is why states may take
//! [`MOST_BITS`] bits at most.
//!
//! The scalar code is compiled here once more: BMI2 shifts by a register in one instruction.
#![allow(clippy::wildcard_imports, reason = "intrinsics")]
#![allow(unsafe_code, reason = "intrinsics; every one is behind `Avx2`, a proof that the processor has them")]

use std::arch::x86_64::*;

use super::backward::Backward;
use super::chunk::{Chunk, Runs, window};
use super::lanes::{Lanes, Payload};
use super::spec::Machine;
use super::{MAX_LANES, encode_rows, rows, scalar};
use crate::cpu::Path;

/// Fewest lanes for which 32 or 64 at once beat scalar code.
const LEAST_LANES: usize = 16;
/// The most bits a state may take, and log2 of the most states, to be run in registers.
pub const MOST_BITS: u32 = 7;

/// Proof that the processor has what [`Path::Avx2`] needs; a vector is `N` registers.
#[derive(Clone, Copy)]
pub struct Avx2<const N: usize>(());

impl<const N: usize> Avx2<N> {
    fn new() -> Self {
        Self::proof().expect("paths are chosen among those available")
    }

    /// The proof, if it holds.
    pub fn proof() -> Option<Self> {
        Path::Avx2.is_available().then_some(Self(()))
    }
}

fn in_registers(machine: &Machine, lanes: usize) -> bool {
    machine.bits <= MOST_BITS && machine.most_bits <= MOST_BITS && lanes >= LEAST_LANES
}

/// Decode every row of `batch`; the caller has seen to it that the path is available.
pub(super) fn decode(batch: &mut [Chunk<'_>], machine: &Machine, payload: &[u8]) {
    let lanes = batch.first().map_or(0, |chunk| chunk.runs.lanes());
    let (one, two) = (Avx2::<1>::new(), Avx2::<2>::new());
    // SAFETY: `one` says that the processor has these instructions.
    unsafe {
        match Payload::new(payload) {
            Some(payload) if in_registers(machine, lanes) && lanes <= 32 => {
                decode_with(one, batch, machine, payload);
            }
            Some(payload) if in_registers(machine, lanes) => decode_with(two, batch, machine, payload),
            _ => decode_scalar(batch, machine, payload),
        }
    }
}

#[target_feature(enable = "avx2,bmi2")]
fn decode_with<const N: usize>(
    proof: Avx2<N>,
    batch: &mut [Chunk<'_>],
    machine: &Machine,
    payload: Payload<'_>,
) {
    rows::decode(proof, batch, machine, payload);
}

#[target_feature(enable = "avx2,bmi2")]
fn decode_scalar(batch: &mut [Chunk<'_>], machine: &Machine, payload: &[u8]) {
    batch.iter_mut().for_each(|chunk| scalar::decode_chunk(chunk, machine, payload));
}

/// Encode every row of a chunk as `scalar::encode_chunk` does; the caller has seen to it that the path is available.
pub(super) fn encode_chunk(
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    let few_symbols = machine.steps.len() <= encode_rows::MAX_ALPHABET;
    let (one, two) = (Avx2::<1>::new(), Avx2::<2>::new());
    // SAFETY: `one` says that the processor has these instructions.
    unsafe {
        if !few_symbols || !in_registers(machine, runs.lanes()) {
            encode_scalar(coded, runs, machine, backward, payload, lengths)
        } else if runs.lanes() <= 32 {
            encode_with(one, coded, runs, machine, backward, payload, lengths)
        } else {
            encode_with(two, coded, runs, machine, backward, payload, lengths)
        }
    }
}

#[target_feature(enable = "avx2,bmi2")]
fn encode_with<const N: usize>(
    proof: Avx2<N>,
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    encode_rows::encode(proof, coded, runs, machine, backward, payload, lengths)
}

#[target_feature(enable = "avx2,bmi2")]
fn encode_scalar(
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    scalar::encode_chunk(coded, runs, machine, backward, payload, lengths)
}

/// The same operation on each register.
macro_rules! each {
    ($n:ident, $i:ident => $operation:expr) => {{
        // SAFETY: the caller holds an `Avx2`, the proof of the instructions.
        let mut result = [unsafe { _mm256_setzero_si256() }; $n];
        let mut $i = 0;
        while $i < $n {
            // SAFETY: as above.
            result[$i] = unsafe { $operation };
            $i += 1;
        }
        result
    }};
}

/// 16 entries in both halves of a register.
#[inline(always)]
fn twice<const N: usize>(_: Avx2<N>, entries: [i8; 16]) -> __m256i {
    // SAFETY: the first argument is the proof of the instructions; 16 bytes are read.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(entries.as_ptr().cast())) }
}

impl<const N: usize> Lanes for Avx2<N> {
    type Bytes = [__m256i; N];
    type Table = [__m256i; 16];
    type Mask = [__m256i; N];

    #[inline(always)]
    fn load(self, bytes: &[u8; 64]) -> Self::Bytes {
        let (halves, _) = bytes.as_chunks::<32>();
        each!(N, i => _mm256_loadu_si256(halves[i].as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, vector: Self::Bytes, bytes: &mut [u8; 64]) {
        let (halves, _) = bytes.as_chunks_mut::<32>();
        for (half, register) in halves.iter_mut().zip(vector) {
            // SAFETY: `self` is the proof of the instructions; 32 bytes are written.
            unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), register) }
        }
    }

    #[inline(always)]
    fn table(self, entries: &[u8; 256]) -> Self::Table {
        let (parts, _) = entries.as_chunks::<16>();
        let mut table = [twice(self, [0; 16]); 16];
        for (register, part) in table.iter_mut().zip(parts) {
            *register = twice(self, part.map(|byte| byte as i8));
        }
        table
    }

    #[inline(always)]
    fn look_up<const BITS: u32>(self, table: &Self::Table, index: Self::Bytes) -> Self::Bytes {
        if BITS == 4 {
            return each!(N, i => _mm256_shuffle_epi8(table[0], index[i]));
        }
        each!(N, i => {
            let mut result = _mm256_setzero_si256();
            let mut part = 0;
            while part < 1 << (BITS - 4) {
                // Below 16 only in this part; then the sum is below 128, else not, and that gives zero.
                let within = _mm256_xor_si256(index[i], _mm256_set1_epi8((part << 4) as i8));
                let within = _mm256_adds_epu8(within, _mm256_set1_epi8(0x70));
                result = _mm256_or_si256(result, _mm256_shuffle_epi8(table[part], within));
                part += 1;
            }
            result
        })
    }

    #[inline(always)]
    fn low_bits(self, counts: Self::Bytes) -> Self::Bytes {
        let masks = twice(self, [0, 1, 3, 7, 15, 31, 63, 127, -1, 0, 0, 0, 0, 0, 0, 0]);
        each!(N, i => _mm256_shuffle_epi8(masks, counts[i]))
    }

    #[inline(always)]
    fn select(self, mask: Self::Bytes, yes: Self::Bytes, no: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_or_si256(_mm256_and_si256(mask[i], yes[i]), _mm256_andnot_si256(mask[i], no[i])))
    }

    #[inline(always)]
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_and_si256(a[i], b[i]))
    }

    #[inline(always)]
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_or_si256(a[i], b[i]))
    }

    #[inline(always)]
    fn add_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_add_epi8(a[i], b[i]))
    }

    #[inline(always)]
    fn shift_right(self, bytes: Self::Bytes, counts: Self::Bytes) -> Self::Bytes {
        // Up by 7 - count in 16 bits, then down by 7: even bytes, then odd ones.
        let ups = twice(self, [-128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        each!(N, i => {
            let up = _mm256_shuffle_epi8(ups, counts[i]);
            let low = _mm256_set1_epi16(0xff);
            let even = _mm256_mullo_epi16(_mm256_and_si256(bytes[i], low), _mm256_and_si256(up, low));
            let odd = _mm256_mullo_epi16(_mm256_srli_epi16::<8>(bytes[i]), _mm256_srli_epi16::<8>(up));
            let odd = _mm256_slli_epi16::<8>(_mm256_srli_epi16::<7>(odd));
            _mm256_or_si256(_mm256_srli_epi16::<7>(even), odd)
        })
    }

    #[inline(always)]
    fn less(self, a: Self::Bytes, b: Self::Bytes) -> Self::Mask {
        // Signed comparison, of bytes with the sign turned.
        each!(N, i => {
            let sign = _mm256_set1_epi8(-128);
            _mm256_cmpgt_epi8(_mm256_xor_si256(b[i], sign), _mm256_xor_si256(a[i], sign))
        })
    }

    #[inline(always)]
    fn choose(self, mask: Self::Mask, yes: Self::Bytes, no: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_blendv_epi8(no[i], yes[i], mask[i]))
    }

    #[inline(always)]
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_add_epi64(a[i], b[i]))
    }

    #[inline(always)]
    fn totals(self, counts: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_sad_epu8(counts[i], _mm256_setzero_si256()))
    }

    #[inline(always)]
    fn any_above(self, words: Self::Bytes, bound: u64) -> bool {
        let above = each!(N, i => _mm256_cmpgt_epi64(words[i], _mm256_set1_epi64x(bound as i64)));
        any(self, above)
    }

    #[inline(always)]
    fn shift_left_words(self, words: Self::Bytes, counts: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_sllv_epi64(words[i], counts[i]))
    }

    #[inline(always)]
    fn shift_right_words(self, words: Self::Bytes, counts: Self::Bytes) -> Self::Bytes {
        each!(N, i => _mm256_srlv_epi64(words[i], counts[i]))
    }

    #[inline(always)]
    fn funnel<const MOST: u32>(self, low: Self::Bytes, high: Self::Bytes, count: Self::Bytes) -> Self::Bytes {
        each!(N, i => {
            let rest = _mm256_sub_epi64(_mm256_set1_epi64x(64), count[i]);
            _mm256_or_si256(_mm256_srlv_epi64(low[i], count[i]), _mm256_sllv_epi64(high[i], rest))
        })
    }

    #[inline(always)]
    fn deal(self, window: Self::Bytes, counts: Self::Bytes) -> Self::Bytes {
        let ups = twice(self, [-128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        each!(N, i => {
            let firsts = _mm256_and_si256(counts[i], _mm256_set1_epi16(0xff));
            let pairs = _mm256_add_epi16(firsts, _mm256_srli_epi16::<8>(counts[i]));
            let first_pairs = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
            let fours = _mm256_add_epi32(first_pairs, _mm256_srli_epi32::<16>(pairs));
            let first_fours = _mm256_and_si256(fours, _mm256_set1_epi64x(0xffff));
            let up = _mm256_sub_epi64(_mm256_set1_epi64x(32), first_fours);
            let halves = _mm256_blend_epi32::<0xaa>(window[i], _mm256_sllv_epi64(window[i], up));
            let up = _mm256_sub_epi32(_mm256_set1_epi32(16), first_pairs);
            let quarters = _mm256_blend_epi16::<0xaa>(halves, _mm256_sllv_epi32(halves, up));
            // Up by 8 - count, from 1 to 8: by one, and then 7 - count.
            let up = _mm256_and_si256(_mm256_shuffle_epi8(ups, firsts), _mm256_set1_epi16(0xff));
            let upper = _mm256_mullo_epi16(_mm256_add_epi16(quarters, quarters), up);
            _mm256_blendv_epi8(quarters, upper, _mm256_set1_epi16(-256))
        })
    }

    #[inline(always)]
    fn gather_halves(self, bits: Self::Bytes, counts: Self::Bytes) -> Self::Bytes {
        let ups = twice(self, [1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0]);
        each!(N, i => {
            let low = _mm256_set1_epi16(0xff);
            let firsts = _mm256_and_si256(counts[i], low);
            let up = _mm256_and_si256(_mm256_shuffle_epi8(ups, firsts), low);
            let upper = _mm256_mullo_epi16(_mm256_srli_epi16::<8>(bits[i]), up);
            let pairs = _mm256_or_si256(_mm256_and_si256(bits[i], low), upper);
            let counts = _mm256_add_epi16(firsts, _mm256_srli_epi16::<8>(counts[i]));
            let low = _mm256_set1_epi32(0xffff);
            let upper = _mm256_sllv_epi32(_mm256_srli_epi32::<16>(pairs), _mm256_and_si256(counts, low));
            _mm256_or_si256(_mm256_and_si256(pairs, low), upper)
        })
    }

    #[inline(always)]
    fn windows(self, payload: Payload<'_>, positions: Self::Bytes) -> Self::Bytes {
        let bytes = payload.bytes();
        let offsets = each!(N, i => _mm256_srli_epi64::<3>(positions[i]));
        let last = bytes.len() - 8;
        if self.any_above(offsets, last as u64) {
            return windows_at_end(self, bytes, positions);
        }
        each!(N, i => {
            // SAFETY: no offset is above `bytes.len() - 8` (they are below 2^61, and so compare as signed
            // numbers), so that the 8 bytes loaded from each lie within `bytes`.
            let loaded = _mm256_i64gather_epi64::<1>(bytes.as_ptr().cast(), offsets[i]);
            _mm256_srlv_epi64(loaded, _mm256_and_si256(positions[i], _mm256_set1_epi64x(7)))
        })
    }
}

/// Whether any bit is set.
#[inline(always)]
fn any<const N: usize>(_: Avx2<N>, vector: [__m256i; N]) -> bool {
    let mut any = vector[0];
    for register in vector {
        // SAFETY: the first argument is the proof of the instructions.
        any = unsafe { _mm256_or_si256(any, register) };
    }
    // SAFETY: as above.
    unsafe { _mm256_movemask_epi8(any) != 0 }
}

/// [`Lanes::windows`] where one of them reaches beyond the payload.
#[cold]
#[inline(never)]
fn windows_at_end<const N: usize>(proof: Avx2<N>, payload: &[u8], positions: [__m256i; N]) -> [__m256i; N] {
    let mut bytes = [0; MAX_LANES];
    proof.store(positions, &mut bytes);
    for word in bytes.as_chunks_mut().0 {
        *word = window(payload, u64::from_le_bytes(*word)).to_le_bytes();
    }
    proof.load(&bytes)
}
