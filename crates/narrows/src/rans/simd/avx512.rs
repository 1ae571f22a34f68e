//! AVX-512 (F, BW, DQ, VL, VBMI, VBMI2): a row is one register.
//!
//! Numbers of 32 bits are held as two registers, those of the even and those of the odd lanes: shifts and
//! blends join and split them, where packing would take the shuffle port that everything else needs.
#![allow(unsafe_code, reason = "intrinsics of a target feature")]
#![allow(clippy::unused_self, reason = "the token is the proof that a call is sound")]
#![allow(clippy::wildcard_imports, reason = "intrinsics have names of their own")]

use std::arch::x86_64::*;
use std::hint::black_box;

use super::{
    BANK, ByteRow, CoarseSteps, Job, LowBytes, MOST_BITS, Pairs, RATIO_EXCESS, Ratios, Row, Simd, Slots,
    Step, Steps, WIDE_CLASS_BITS, WIDE_SYMBOL_BITS, WINDOW,
};
use crate::cpu::Path;

/// Proof that the processor has what [`Path::Avx512`] asks for.
#[derive(Clone, Copy)]
pub(in crate::rans) struct Avx512(());

impl Avx512 {
    /// The proof, where the processor has it.
    pub(in crate::rans) fn new() -> Option<Self> {
        Path::Avx512.is_available().then_some(Self(()))
    }
}

/// Intrinsics in a method of [`Avx512`].
macro_rules! intrinsics {
    ($($body:tt)*) => {
        // SAFETY: the only requirement of these intrinsics is the target features, and an `Avx512` exists
        // only where the processor has them. What takes a pointer besides says so at its place.
        unsafe { $($body)* }
    };
}

/// The job, compiled for AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn run<J: Job>(simd: Avx512, job: J) -> J::Output {
    job.run(simd)
}

/// Bytes `first, first + step, ...`, each followed by the last of 64.
const fn every_other(first: u8, step: i8) -> [u8; 64] {
    let mut bytes = [63; 64];
    let mut at = 0;
    while at < 32 {
        bytes[2 * at] = first.wrapping_add_signed(step * at as i8);
        at += 1;
    }
    bytes
}

const fn low_bytes_first() -> [u8; 64] {
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < 32 {
        bytes[at] = 2 * at as u8;
        at += 1;
    }
    bytes
}

static REVERSED: [u8; 64] = every_other(31, -1);
static LOW_BYTES: [u8; 64] = low_bytes_first();

impl Avx512 {
    #[inline(always)]
    fn constant(self, bytes: &'static [u8; 64]) -> __m512i {
        // The pointer is to 64 bytes.
        intrinsics! { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// The lower halves of `even`, the upper halves of `odd`.
    #[inline(always)]
    fn halves(self, even: __m512i, odd: __m512i) -> __m512i {
        // Bit by bit: `lower ? even : odd`.
        intrinsics! { _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(0xffff), even, odd) }
    }

    /// The even and the odd lanes of `high << 16 | low`.
    #[inline(always)]
    fn join(self, low: __m512i, high: __m512i) -> (__m512i, __m512i) {
        intrinsics! {
            (
                self.halves(low, _mm512_slli_epi32::<16>(high)),
                self.halves(_mm512_srli_epi32::<16>(low), high),
            )
        }
    }

    /// The low and the high halves of numbers in even and odd lanes.
    #[inline(always)]
    fn split(self, even: __m512i, odd: __m512i) -> (__m512i, __m512i) {
        // The same exchange as joining.
        self.join(even, odd)
    }

    /// `(1 + RATIO_EXCESS) / frequency`: the processor's 14 bits and one step of Newton's.
    ///
    /// With `r = (1 + d) / f`, `|d| <= 2^-14`, the step gives `(1 + e + d * e - d^2) / f` for `e` the excess,
    /// within `2^-28 + 2^-35` of `(1 + e) / f`, and then is rounded: `2^-24`.
    #[inline(always)]
    fn newton(self, frequency: __m512i) -> __m512 {
        intrinsics! {
            let f = _mm512_cvtepi32_ps(frequency);
            let r = _mm512_rcp14_ps(f);
            let error = _mm512_fnmadd_ps(r, f, _mm512_set1_ps((1.0 + RATIO_EXCESS) as f32));
            _mm512_fmadd_ps(r, error, r)
        }
    }
}

impl Simd for Avx512 {
    type Lanes = __m512i;
    type Mask = __mmask32;
    type Shift = __m512i;
    type Bank = [__m512i; BANK / 32];
    type Bytes = __m512i;
    type RatioBank = [__m512; 2];
    type LowBytes = [__m512i; 4];
    /// Of the even and of the odd lanes.
    type Ratios = [__m512; 2];

    const BANK_BITS: u32 = 7;
    const LOOKS_UP_STEPS: bool = true;
    const LOOKS_UP_COARSE_STEPS: bool = true;

    fn step<T: Step>(self, step: T, left: usize) -> T::Output {
        match left {
            1 => step.take::<_, 1>(self),
            2 => step.take::<_, 2>(self),
            // Five and six are better off as three and the rest.
            3 | 5 | 6 => step.take::<_, 3>(self),
            _ => step.take::<_, 4>(self),
        }
    }

    #[inline(always)]
    fn vectorize<J: Job>(self, job: J) -> J::Output {
        intrinsics! { run(self, job) }
    }

    #[inline(always)]
    fn splat(self, value: u16) -> __m512i {
        intrinsics! { _mm512_set1_epi16(value as i16) }
    }
    #[inline(always)]
    fn load(self, row: &Row) -> __m512i {
        // The pointer is to 64 bytes.
        intrinsics! { _mm512_loadu_si512(row.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, lanes: __m512i, row: &mut Row) {
        // The pointer is to 64 bytes.
        intrinsics! { _mm512_storeu_si512(row.as_mut_ptr().cast(), lanes) }
    }
    #[inline(always)]
    fn widen(self, row: &ByteRow) -> __m512i {
        // The pointer is to 32 bytes.
        intrinsics! { _mm512_cvtepu8_epi16(_mm256_loadu_si256(row.as_ptr().cast())) }
    }
    #[inline(always)]
    fn widen_reversed(self, row: &ByteRow) -> __m512i {
        let order = self.constant(&REVERSED);
        // The pointer is to 32 bytes.
        intrinsics! {
            _mm512_permutexvar_epi8(order, _mm512_zextsi256_si512(_mm256_loadu_si256(row.as_ptr().cast())))
        }
    }
    #[inline(always)]
    fn narrow(self, lanes: __m512i, row: &mut ByteRow) {
        let order = self.constant(&LOW_BYTES);
        // The pointer is to 32 bytes.
        intrinsics! {
            let packed = _mm512_castsi512_si256(_mm512_permutexvar_epi8(order, lanes));
            _mm256_storeu_si256(row.as_mut_ptr().cast(), packed);
        }
    }

    #[inline(always)]
    fn first(self, count: usize) -> u32 {
        ((1_u64 << count) - 1) as u32
    }
    #[inline(always)]
    fn last(self, count: usize) -> u32 {
        self.first(count).reverse_bits()
    }
    #[inline(always)]
    fn select(self, mask: u32, yes: __m512i, no: __m512i) -> __m512i {
        intrinsics! { _mm512_mask_mov_epi16(no, mask, yes) }
    }
    #[inline(always)]
    fn negative(self, a: __m512i) -> u32 {
        intrinsics! { _mm512_movepi16_mask(a) }
    }
    #[inline(always)]
    fn zero_among(self, mask: u32, a: __m512i) -> u32 {
        intrinsics! { _mm512_mask_testn_epi16_mask(mask, a, a) }
    }
    #[inline(always)]
    fn add_where(self, mask: u32, a: __m512i, b: __m512i) -> __m512i {
        intrinsics! { _mm512_mask_add_epi16(a, mask, a, b) }
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics! { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics! { _mm512_add_epi16(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics! { _mm512_sub_epi16(a, b) }
    }
    #[inline(always)]
    fn shift(self, bits: u32) -> __m512i {
        // Not a constant, of which the compiler would make other shifts; but below 16 for all it knows, as it would add
        // instructions for counts that are not.
        self.splat(black_box(bits as u16) & 15)
    }
    #[inline(always)]
    fn shift_left(self, a: __m512i, bits: __m512i) -> __m512i {
        intrinsics! { _mm512_sllv_epi16(a, bits) }
    }
    #[inline(always)]
    fn shift_right(self, a: __m512i, bits: __m512i) -> __m512i {
        intrinsics! { _mm512_srlv_epi16(a, bits) }
    }
    #[inline(always)]
    fn shift_both(self, high: __m512i, low: __m512i, left: __m512i, _: __m512i) -> __m512i {
        intrinsics! { _mm512_shldv_epi16(high, low, left) }
    }
    #[inline(always)]
    fn mul_low(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics! { _mm512_mullo_epi16(a, b) }
    }
    #[inline(always)]
    fn mul_high(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics! { _mm512_mulhi_epu16(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512i, b: __m512i, c: __m512i, one: __m512i) -> (__m512i, __m512i) {
        intrinsics! {
            let low = _mm512_add_epi16(_mm512_mullo_epi16(a, b), c);
            let high = _mm512_mulhi_epu16(a, b);
            let carry = _mm512_cmplt_epu16_mask(low, c);
            (low, _mm512_mask_add_epi16(high, carry, high, one))
        }
    }
    #[inline(always)]
    fn append_above(self, index: __m512i, slot: __m512i, boundary: __m512i) -> __m512i {
        intrinsics! { _mm512_shldi_epi16::<1>(index, _mm512_sub_epi16(boundary, slot)) }
    }

    #[inline(always)]
    fn bank(self, entries: &[u16; BANK], bits: u32) -> Self::Bank {
        let mut bank = [self.splat(entries[0]); BANK / 32];
        if bits > 0 {
            let rows = entries.as_chunks().0;
            for (register, row) in bank.iter_mut().zip(rows) {
                *register = self.load(row);
            }
        }
        bank
    }
    #[inline(always)]
    fn look_up(self, bank: &Self::Bank, index: __m512i, bits: u32) -> __m512i {
        intrinsics! {
            match bits {
                0 => bank[0],
                1..=5 => _mm512_permutexvar_epi16(index, bank[0]),
                6 => _mm512_permutex2var_epi16(bank[0], index, bank[1]),
                _ => {
                    let upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
                    let low = _mm512_permutex2var_epi16(bank[0], index, bank[1]);
                    let high = _mm512_permutex2var_epi16(bank[2], index, bank[3]);
                    _mm512_mask_mov_epi16(low, upper, high)
                }
            }
        }
    }
    #[inline(always)]
    fn bytes(self, entries: &[u8; 64]) -> __m512i {
        // The pointer is to 64 bytes.
        intrinsics! { _mm512_loadu_si512(entries.as_ptr().cast()) }
    }
    #[inline(always)]
    fn look_up_byte(self, bytes: &__m512i, index: __m512i) -> __m512i {
        // The upper byte of each index looks up the first entry, which is 0.
        intrinsics! { _mm512_permutexvar_epi8(index, *bytes) }
    }
    #[inline(always)]
    fn look_up_slot(self, slots: &Slots, class: __m512i, slot: __m512i, bits: u32) -> __m512i {
        let bits = bits.min(MOST_BITS);
        let classes = self.and(class, self.splat((1 << WIDE_CLASS_BITS) - 1));
        let slot = self.and(slot, self.splat(((1_u32 << bits) - 1) as u16));
        // The pointers are to `class << bits | slot`, below 2^17, and the three bytes after it.
        intrinsics! {
            let (low, high) = (_mm512_set1_epi32(0xffff), _mm512_set1_epi32(bits as i32));
            let at = |class: __m512i, slot| _mm512_or_si512(_mm512_sllv_epi32(class, high), slot);
            let even = at(_mm512_and_si512(classes, low), _mm512_and_si512(slot, low));
            let odd = at(_mm512_srli_epi32::<16>(classes), _mm512_srli_epi32::<16>(slot));
            let even = _mm512_i32gather_epi32::<1>(even, slots.as_ptr().cast());
            let odd = _mm512_i32gather_epi32::<1>(odd, slots.as_ptr().cast());
            let both = self.halves(even, _mm512_slli_epi32::<16>(odd));
            _mm512_and_si512(both, _mm512_set1_epi16(0xff))
        }
    }
    #[inline(always)]
    fn look_up_pair(self, pairs: &Pairs, index: __m512i) -> (__m512i, __m512i) {
        let index = self.and(index, self.splat((1 << (WIDE_CLASS_BITS + WIDE_SYMBOL_BITS)) - 1));
        // The pointers are to entries below 2^11, of as many.
        let (even, odd) = intrinsics! {
            let even = _mm512_and_si512(index, _mm512_set1_epi32(0xffff));
            let odd = _mm512_srli_epi32::<16>(index);
            (
                _mm512_i32gather_epi32::<4>(even, pairs.as_ptr().cast()),
                _mm512_i32gather_epi32::<4>(odd, pairs.as_ptr().cast()),
            )
        };
        self.split(even, odd)
    }

    #[inline(always)]
    fn low_bytes(self, bytes: &LowBytes) -> [__m512i; 4] {
        let parts = bytes.as_chunks::<64>().0;
        [self.bytes(&parts[0]), self.bytes(&parts[1]), self.bytes(&parts[2]), self.bytes(&parts[3])]
    }
    #[inline(always)]
    fn look_up_step(
        self,
        steps: &Steps,
        low_bytes: &[__m512i; 4],
        slot: __m512i,
    ) -> (__m512i, __m512i, __m512i) {
        // The pointers are to entries below 2^14, of as many.
        intrinsics! {
            let below = _mm512_set1_epi32((1 << MOST_BITS) - 1);
            let even = _mm512_and_si512(slot, below);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(slot), below);
            let even = _mm512_i32gather_epi32::<4>(even, steps.as_ptr().cast());
            let odd = _mm512_i32gather_epi32::<4>(odd, steps.as_ptr().cast());
            let (found, offset) = self.split(even, odd);
            // Of each lane the lower byte looks up a lower byte; what the upper one finds is not used.
            let first = _mm512_permutex2var_epi8(low_bytes[0], found, low_bytes[1]);
            let second = _mm512_permutex2var_epi8(low_bytes[2], found, low_bytes[3]);
            let low = _mm512_mask_mov_epi8(first, _mm512_movepi8_mask(found), second);
            let lower = _mm512_set1_epi16(0xff);
            // Bit by bit: `lower ? low : found`.
            let scaled = _mm512_ternarylogic_epi32::<0xca>(lower, low, found);
            (_mm512_and_si512(found, lower), scaled, offset)
        }
    }
    /// The upper bytes of symbols are not zero; [`Simd::narrow`] does not take them.
    #[inline(always)]
    fn look_up_coarse_step(self, steps: &CoarseSteps, slot: __m512i) -> (__m512i, __m512i, __m512i) {
        // The pointers are to entries below 2^12, of as many: an index counts bytes.
        intrinsics! {
            let whole = _mm512_set1_epi32(((1 << MOST_BITS) - 1) & !3);
            let even = _mm512_and_si512(slot, whole);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(slot), whole);
            let even = _mm512_i32gather_epi32::<1>(even, steps.as_ptr().cast());
            let odd = _mm512_i32gather_epi32::<1>(odd, steps.as_ptr().cast());
            let (low, high) = self.split(even, odd);
            // Bit by bit: `lowest ? low : high << 4`, and `whole ? high >> 2 : slot`.
            let lowest = _mm512_set1_epi16(0x0f);
            let symbol = _mm512_ternarylogic_epi32::<0xca>(lowest, low, _mm512_slli_epi16::<4>(high));
            let whole = _mm512_set1_epi16(((1 << MOST_BITS) - 1) & !3);
            let offset = _mm512_ternarylogic_epi32::<0xca>(whole, _mm512_srli_epi16::<2>(high), slot);
            (symbol, _mm512_andnot_si512(lowest, low), offset)
        }
    }

    #[inline(always)]
    fn refill(
        self,
        low: __m512i,
        high: __m512i,
        among: u32,
        words: &[u8; WINDOW],
    ) -> (__m512i, __m512i, usize) {
        // The pointer is to 64 bytes.
        intrinsics! {
            let take = _mm512_mask_testn_epi16_mask(among, high, high);
            let words = _mm512_loadu_si512(words.as_ptr().cast());
            (
                _mm512_mask_expand_epi16(low, take, words),
                _mm512_mask_mov_epi16(high, take, low),
                take.count_ones() as usize,
            )
        }
    }
    #[inline(always)]
    fn put_out(
        self,
        low: __m512i,
        high: __m512i,
        limit: __m512i,
        among: u32,
        zero: __m512i,
        words: &mut Row,
    ) -> (__m512i, __m512i, usize) {
        // The pointer is to 64 bytes.
        intrinsics! {
            let out = _mm512_mask_cmpge_epu16_mask(among, high, limit);
            _mm512_storeu_si512(words.as_mut_ptr().cast(), _mm512_maskz_compress_epi16(out, low));
            (
                _mm512_mask_mov_epi16(low, out, high),
                _mm512_mask_mov_epi16(high, out, zero),
                out.count_ones() as usize,
            )
        }
    }

    #[inline(always)]
    fn ratio_bank(self, entries: &Ratios) -> Self::RatioBank {
        // The pointers are to 64 bytes each.
        intrinsics! { [_mm512_loadu_ps(entries.as_ptr()), _mm512_loadu_ps(entries[16..].as_ptr())] }
    }
    #[inline(always)]
    fn ratios(self, bank: &Self::RatioBank, index: __m512i, frequency: __m512i, bits: u32) -> Self::Ratios {
        intrinsics! {
            // Permutes do not look at the upper bits of an index.
            let (even, odd) = (index, _mm512_srli_epi32::<16>(index));
            match bits {
                0..=4 => [_mm512_permutexvar_ps(even, bank[0]), _mm512_permutexvar_ps(odd, bank[0])],
                5 => [
                    _mm512_permutex2var_ps(bank[0], even, bank[1]),
                    _mm512_permutex2var_ps(bank[0], odd, bank[1]),
                ],
                _ => [
                    self.newton(_mm512_and_si512(frequency, _mm512_set1_epi32(0xffff))),
                    self.newton(_mm512_srli_epi32::<16>(frequency)),
                ],
            }
        }
    }
    #[inline(always)]
    fn quotient(self, low: __m512i, high: __m512i, ratios: Self::Ratios) -> (__m512i, __m512i) {
        let (even, odd) = self.join(low, high);
        let (even, odd) = intrinsics! {
            (
                _mm512_cvttps_epu32(_mm512_mul_ps(_mm512_cvtepu32_ps(even), ratios[0])),
                _mm512_cvttps_epu32(_mm512_mul_ps(_mm512_cvtepu32_ps(odd), ratios[1])),
            )
        };
        self.split(even, odd)
    }
}
