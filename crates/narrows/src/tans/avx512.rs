//! AVX-512 (F, BW, DQ, VL, VBMI, VBMI2): a vector of 64 lanes is one register.
//!
//! Decoding differs from the other sets of instructions in that a byte permutation looks up in 64 or 128 entries,
//! `vpmultishiftqb` deals a window out at once, and `vpshrdvq` shifts 128 bits.
#![allow(clippy::wildcard_imports, reason = "intrinsics")]
#![allow(
    unsafe_code,
    reason = "intrinsics; every one is behind `Avx512`, a proof that the processor has them"
)]

use std::arch::x86_64::*;

use super::backward::Backward;
use super::chunk::{Chunk, Runs};
use super::lanes::{Lanes, Payload};
use super::spec::Machine;
use super::{MAX_LANES, avx2, encode_rows, rows};
use crate::cpu::Path;

/// Fewest lanes for which 64 at once beat scalar code.
const LEAST_LANES: usize = 8;

/// Proof that the processor has what [`Path::Avx512`] needs.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if it holds.
    pub fn new() -> Option<Self> {
        Path::Avx512.is_available().then_some(Self(()))
    }
}

/// Decode every row of `batch`; the caller has seen to it that the path is available.
pub(super) fn decode(batch: &mut [Chunk<'_>], machine: &Machine, payload: &[u8]) {
    let proof = Avx512::new().expect("paths are chosen among those available");
    let lanes = batch.first().map_or(0, |chunk| chunk.runs.lanes());
    match Payload::new(payload) {
        Some(payload) if machine.bits <= 8 && lanes >= LEAST_LANES => {
            // SAFETY: `proof` says that the processor has these instructions.
            unsafe { decode_with(proof, batch, machine, payload) }
        }
        _ => avx2::decode(batch, machine, payload),
    }
}

/// Whether [`encode_chunk`] takes chunks like these.
pub(super) fn encodes(machine: &Machine, lanes: usize) -> bool {
    machine.bits <= 8 && machine.steps.len() <= encode_rows::MAX_ALPHABET && lanes >= LEAST_LANES
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn decode_with(proof: Avx512, batch: &mut [Chunk<'_>], machine: &Machine, payload: Payload<'_>) {
    rows::decode(proof, batch, machine, payload);
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
    let proof = Avx512::new().expect("paths are chosen among those available");
    // SAFETY: `proof` says that the processor has these instructions.
    unsafe { encode_with(proof, coded, runs, machine, backward, payload, lengths) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn encode_with(
    proof: Avx512,
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    encode_rows::encode(proof, coded, runs, machine, backward, payload, lengths)
}

impl Lanes for Avx512 {
    type Bytes = __m512i;
    type Table = [__m512i; 4];
    type Mask = __mmask64;

    #[inline(always)]
    fn load(self, bytes: &[u8; 64]) -> __m512i {
        // SAFETY: `self` is the proof of the instructions; 64 bytes are read.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, vector: __m512i, bytes: &mut [u8; 64]) {
        // SAFETY: `self` is the proof of the instructions; 64 bytes are written.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
    }

    #[inline(always)]
    fn table(self, entries: &[u8; 256]) -> Self::Table {
        let (quarters, _) = entries.as_chunks();
        [self.load(&quarters[0]), self.load(&quarters[1]), self.load(&quarters[2]), self.load(&quarters[3])]
    }

    #[inline(always)]
    fn look_up<const BITS: u32>(self, table: &Self::Table, index: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe {
            match BITS {
                4 => _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm512_castsi512_si128(table[0])), index),
                6 => _mm512_permutexvar_epi8(index, table[0]),
                7 => _mm512_permutex2var_epi8(table[0], index, table[1]),
                _ => {
                    let low = _mm512_permutex2var_epi8(table[0], index, table[1]);
                    let high = _mm512_permutex2var_epi8(table[2], index, table[3]);
                    _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high)
                }
            }
        }
    }

    #[inline(always)]
    fn low_bits(self, counts: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe {
            let masks = _mm_setr_epi8(0, 1, 3, 7, 15, 31, 63, 127, -1, -1, -1, -1, -1, -1, -1, -1);
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(masks), counts)
        }
    }

    #[inline(always)]
    fn select(self, mask: __m512i, yes: __m512i, no: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions. 0xca: the first operand chooses.
        unsafe { _mm512_ternarylogic_epi64::<0xca>(mask, yes, no) }
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_add_epi64(a, b) }
    }

    #[inline(always)]
    fn totals(self, counts: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_sad_epu8(counts, _mm512_setzero_si512()) }
    }

    #[inline(always)]
    fn funnel<const MOST: u32>(self, low: __m512i, high: __m512i, count: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe {
            if MOST < 64 {
                _mm512_shrdv_epi64(low, high, count)
            } else {
                let rest = _mm512_sub_epi64(_mm512_set1_epi64(64), count);
                _mm512_or_si512(_mm512_srlv_epi64(low, count), _mm512_sllv_epi64(high, rest))
            }
        }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn add_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_add_epi8(a, b) }
    }

    #[inline(always)]
    fn shift_right(self, bytes: __m512i, counts: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe {
            // Eight bits of the word from there on, less those of the next byte.
            let at = _mm512_add_epi8(counts, _mm512_set1_epi64(0x3830_2820_1810_0800));
            let high = _mm_setr_epi8(-1, 127, 63, 31, 15, 7, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0);
            let mask = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(high), counts);
            _mm512_and_si512(_mm512_multishift_epi64_epi8(at, bytes), mask)
        }
    }

    #[inline(always)]
    fn less(self, a: __m512i, b: __m512i) -> __mmask64 {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_cmplt_epu8_mask(a, b) }
    }

    #[inline(always)]
    fn choose(self, mask: __mmask64, yes: __m512i, no: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_mask_blend_epi8(mask, no, yes) }
    }

    #[inline(always)]
    fn any_above(self, words: __m512i, bound: u64) -> bool {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_cmpgt_epu64_mask(words, _mm512_set1_epi64(bound as i64)) != 0 }
    }

    #[inline(always)]
    fn shift_left_words(self, words: __m512i, counts: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_sllv_epi64(words, counts) }
    }

    #[inline(always)]
    fn shift_right_words(self, words: __m512i, counts: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_srlv_epi64(words, counts) }
    }

    #[inline(always)]
    fn gather_halves(self, bits: __m512i, counts: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions. 0xf8: the first operand, or both of the others.
        unsafe {
            let bytes = _mm512_set1_epi16(0x00ff);
            let evens = _mm512_and_si512(counts, bytes);
            let high = _mm512_sllv_epi16(_mm512_srli_epi16::<8>(bits), evens);
            let pairs = _mm512_ternarylogic_epi64::<0xf8>(high, bits, bytes);
            let counts = _mm512_add_epi16(evens, _mm512_srli_epi16::<8>(counts));
            let words = _mm512_set1_epi32(0xffff);
            let evens = _mm512_and_si512(counts, words);
            let high = _mm512_sllv_epi32(_mm512_srli_epi32::<16>(pairs), evens);
            _mm512_ternarylogic_epi64::<0xf8>(high, pairs, words)
        }
    }

    #[inline(always)]
    fn deal(self, window: __m512i, counts: __m512i) -> __m512i {
        // Where each lane's bits begin: the sum of the counts below it, at most 56.
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_multishift_epi64_epi8(sums_below(counts), window) }
    }

    #[inline(always)]
    fn deal_soon(self, window: __m512i, counts: __m512i) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe {
            let below = _mm512_slli_epi64::<8>(counts);
            let below = _mm512_add_epi8(below, _mm512_slli_epi64::<8>(below));
            let below = _mm512_add_epi8(below, _mm512_slli_epi64::<16>(below));
            let below = _mm512_add_epi8(below, _mm512_slli_epi64::<32>(below));
            _mm512_multishift_epi64_epi8(below, window)
        }
    }

    #[inline(always)]
    fn windows(self, payload: Payload<'_>, positions: __m512i) -> __m512i {
        let bytes = payload.bytes();
        // SAFETY: `self` is the proof of the instructions. Eight bytes are loaded from an offset only where it is
        // at most `bytes.len() - 8`, so that they lie within `bytes`; the subtraction cannot wrap, since a
        // payload has 8 bytes.
        unsafe {
            let offsets = _mm512_srli_epi64::<3>(positions);
            let inside = _mm512_cmple_epu64_mask(offsets, _mm512_set1_epi64((bytes.len() - 8) as i64));
            if inside != 0xff {
                return windows_at_end(bytes, positions);
            }
            let zero = _mm512_setzero_si512();
            let loaded = _mm512_mask_i64gather_epi64::<1>(zero, inside, offsets, bytes.as_ptr().cast());
            _mm512_srlv_epi64(loaded, _mm512_and_si512(positions, _mm512_set1_epi64(7)))
        }
    }
}

/// [`Lanes::windows`] where one of them reaches beyond the payload.
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn windows_at_end(bytes: &[u8], positions: __m512i) -> __m512i {
    let offsets =
        _mm512_min_epu64(_mm512_srli_epi64::<3>(positions), _mm512_set1_epi64((bytes.len() - 8) as i64));
    // SAFETY: no offset is above `bytes.len() - 8` (a payload has 8 bytes), so that the 8 bytes loaded from each lie
    // within `bytes`.
    let loaded = unsafe { _mm512_i64gather_epi64::<1>(offsets, bytes.as_ptr().cast()) };
    // Beyond the last offset this shifts by 8 and more: in come zeros.
    _mm512_srlv_epi64(loaded, _mm512_sub_epi64(positions, _mm512_slli_epi64::<3>(offsets)))
}

/// For each byte, the sum of those below it in its word: one product.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn sums_below(bytes: __m512i) -> __m512i {
    let ones = _mm512_set1_epi64(0x0101_0101_0101_0100);
    let sums;
    // Golden Cove's `vpmullq` waits for what its destination held, which would tie strips together: cleared first, it held
    // nothing.
    // SAFETY: two instructions on registers, which the enabled features have.
    unsafe {
        std::arch::asm!(
            "vpxord {sums}, {sums}, {sums}",
            "vpmullq {sums}, {bytes}, {ones}",
            sums = out(zmm_reg) sums,
            bytes = in(zmm_reg) bytes,
            ones = in(zmm_reg) ones,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
