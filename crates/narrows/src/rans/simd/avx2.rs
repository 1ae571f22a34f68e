//! AVX2: a row is two registers, and tables are shuffles of 16 bytes.
//!
//! There is neither expansion nor compression of words: shuffles by a set of eight lanes, from tables of 4 KiB,
//! stand in.
#![allow(unsafe_code, reason = "intrinsics of a target feature")]
#![allow(clippy::unused_self, reason = "the token is the proof that a call is sound")]
#![allow(clippy::wildcard_imports, reason = "intrinsics have names of their own")]

use std::arch::x86_64::*;

use super::portable::step_by_step;
use super::{
    BANK, ByteRow, CoarseSteps, Job, LowBytes, MOST_BITS, Pairs, RATIO_EXCESS, Ratios, Row, Simd, Slots,
    Step, Steps, WIDE_CLASS_BITS, WIDE_SYMBOL_BITS, WINDOW,
};
use crate::cpu::Path;
use crate::rans::MAX_LANES;

/// Proof that the processor has what [`Path::Avx2`] asks for.
#[derive(Clone, Copy)]
pub(in crate::rans) struct Avx2(());

impl Avx2 {
    /// The proof, where the processor has it.
    pub(in crate::rans) fn new() -> Option<Self> {
        Path::Avx2.is_available().then_some(Self(()))
    }
}

/// Intrinsics in a method of [`Avx2`].
macro_rules! intrinsics {
    ($($body:tt)*) => {
        // SAFETY: the only requirement of these intrinsics is the target features, and an `Avx2` exists
        // only where the processor has them. What takes a pointer besides says so at its place.
        unsafe { $($body)* }
    };
}

/// An intrinsic on both registers of each argument.
macro_rules! both {
    ($intrinsic:ident ( $($argument:expr),* )) => {
        intrinsics! { [$intrinsic($($argument[0]),*), $intrinsic($($argument[1]),*)] }
    };
}

/// The job, compiled for AVX2.
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn run<J: Job>(simd: Avx2, job: J) -> J::Output {
    job.run(simd)
}

/// For each set of eight lanes: the word that each of them takes, if words are taken in order.
static EXPANDED: [[u8; 16]; 256] = super::word_shuffles(true);
/// For each set of eight lanes: the lanes in it, one after the other.
static COMPRESSED: [[u8; 16]; 256] = super::word_shuffles(false);

/// A table of up to 32 entries of two bytes, the low and the high bytes of 16 each; 8 fit one register whole.
#[derive(Clone, Copy)]
pub(in crate::rans) struct Planes {
    whole: __m256i,
    low: [__m256i; 2],
    high: [__m256i; 2],
}

impl Avx2 {
    /// 16 bytes, twice.
    #[inline(always)]
    fn twice(self, bytes: &[u8; 16]) -> __m256i {
        // The pointer is to 16 bytes.
        intrinsics! { _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn splat_bytes(self, value: u8) -> __m256i {
        intrinsics! { _mm256_set1_epi8(value as i8) }
    }

    /// Sets of eight lanes each, in order, as bits.
    #[inline(always)]
    fn sets(self, mask: [__m256i; 2]) -> [usize; 4] {
        // Packing leaves the second and the third eight in each other's place.
        let bits = intrinsics! { _mm256_movemask_epi8(_mm256_packs_epi16(mask[0], mask[1])) } as u32;
        [bits & 255, bits >> 16 & 255, bits >> 8 & 255, bits >> 24].map(|set| set as usize)
    }

    /// Lanes 0-3, 4-7 of each half as 32 bits, for each register: the order that [`Avx2::out_of_wide`] undoes.
    #[inline(always)]
    fn wide(self, a: [__m256i; 2]) -> [__m256i; 4] {
        intrinsics! {
            let zero = _mm256_setzero_si256();
            [
                _mm256_unpacklo_epi16(a[0], zero),
                _mm256_unpackhi_epi16(a[0], zero),
                _mm256_unpacklo_epi16(a[1], zero),
                _mm256_unpackhi_epi16(a[1], zero),
            ]
        }
    }

    /// The low and the high halves.
    #[inline(always)]
    fn out_of_wide(self, a: [__m256i; 4]) -> ([__m256i; 2], [__m256i; 2]) {
        intrinsics! {
            let low = _mm256_set1_epi32(0xffff);
            let low = [
                _mm256_packus_epi32(_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low)),
                _mm256_packus_epi32(_mm256_and_si256(a[2], low), _mm256_and_si256(a[3], low)),
            ];
            let high = [
                _mm256_packus_epi32(_mm256_srli_epi32::<16>(a[0]), _mm256_srli_epi32::<16>(a[1])),
                _mm256_packus_epi32(_mm256_srli_epi32::<16>(a[2]), _mm256_srli_epi32::<16>(a[3])),
            ];
            (low, high)
        }
    }

    /// A table of 16 bytes for each 16 values of an index below 128: bytes whose index is above 127 are 0.
    #[inline(always)]
    fn of_sixteens(self, tables: &[__m256i], index: __m256i) -> __m256i {
        let mut found = self.splat_bytes(0);
        for (sixteen, &table) in tables.iter().enumerate() {
            intrinsics! {
                // What is in another sixteen goes above 127, where a shuffle gives 0.
                let within = _mm256_xor_si256(index, self.splat_bytes(16 * sixteen as u8));
                let within = _mm256_adds_epu8(within, self.splat_bytes(0x70));
                found = _mm256_or_si256(found, _mm256_shuffle_epi8(table, within));
            }
        }
        found
    }

    #[inline(always)]
    fn look_up_one(self, bank: &Planes, index: __m256i, bits: u32) -> __m256i {
        intrinsics! {
            if bits <= 3 {
                let pairs = _mm256_mullo_epi16(index, _mm256_set1_epi16(0x0202));
                let pairs = _mm256_add_epi16(pairs, _mm256_set1_epi16(0x0100));
                return _mm256_shuffle_epi8(bank.whole, pairs);
            }
            let low = _mm256_or_si256(index, _mm256_set1_epi16(0x8000_u16 as i16));
            let high = _mm256_or_si256(_mm256_slli_epi16::<8>(index), _mm256_set1_epi16(0x80));
            let (low, high) = if bits == 4 {
                (_mm256_shuffle_epi8(bank.low[0], low), _mm256_shuffle_epi8(bank.high[0], high))
            } else {
                (self.of_sixteens(&bank.low, low), self.of_sixteens(&bank.high, high))
            };
            _mm256_or_si256(low, high)
        }
    }
}

impl Simd for Avx2 {
    type Lanes = [__m256i; 2];
    /// All ones in the lanes meant.
    type Mask = [__m256i; 2];
    type Shift = __m128i;
    type Bank = Planes;
    type Bytes = [__m256i; 4];
    type RatioBank = ();
    type LowBytes = LowBytes;
    /// In the order of [`Avx2::wide`].
    type Ratios = [__m256; 4];

    const BANK_BITS: u32 = 5;
    const LOOKS_UP_STEPS: bool = false;
    const LOOKS_UP_COARSE_STEPS: bool = true;

    fn step<T: Step>(self, step: T, left: usize) -> T::Output {
        match left {
            4.. => step.take::<_, 4>(self),
            2.. => step.take::<_, 2>(self),
            _ => step.take::<_, 1>(self),
        }
    }

    #[inline(always)]
    fn vectorize<J: Job>(self, job: J) -> J::Output {
        intrinsics! { run(self, job) }
    }

    #[inline(always)]
    fn splat(self, value: u16) -> Self::Lanes {
        [intrinsics! { _mm256_set1_epi16(value as i16) }; 2]
    }
    #[inline(always)]
    fn load(self, row: &Row) -> Self::Lanes {
        // The pointers are to 32 bytes each.
        let at = |half: &[u16]| intrinsics! { _mm256_loadu_si256(half[..16].as_ptr().cast()) };
        [at(&row[..16]), at(&row[16..])]
    }
    #[inline(always)]
    fn store(self, lanes: Self::Lanes, row: &mut Row) {
        for (lanes, half) in lanes.into_iter().zip(row.as_chunks_mut::<16>().0) {
            // The pointer is to 32 bytes.
            intrinsics! { _mm256_storeu_si256(half.as_mut_ptr().cast(), lanes) }
        }
    }
    #[inline(always)]
    fn widen(self, row: &ByteRow) -> Self::Lanes {
        // The pointers are to 16 bytes each.
        intrinsics! {
            [
                _mm256_cvtepu8_epi16(_mm_loadu_si128(row.as_ptr().cast())),
                _mm256_cvtepu8_epi16(_mm_loadu_si128(row[16..].as_ptr().cast())),
            ]
        }
    }
    #[inline(always)]
    fn widen_reversed(self, row: &ByteRow) -> Self::Lanes {
        // The pointers are to 16 bytes each.
        intrinsics! {
            let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let (a, b) = (_mm_loadu_si128(row.as_ptr().cast()), _mm_loadu_si128(row[16..].as_ptr().cast()));
            [
                _mm256_cvtepu8_epi16(_mm_shuffle_epi8(b, order)),
                _mm256_cvtepu8_epi16(_mm_shuffle_epi8(a, order)),
            ]
        }
    }
    #[inline(always)]
    fn narrow(self, lanes: Self::Lanes, row: &mut ByteRow) {
        // The pointer is to 32 bytes.
        intrinsics! {
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(lanes[0], lanes[1]));
            _mm256_storeu_si256(row.as_mut_ptr().cast(), packed);
        }
    }

    #[inline(always)]
    fn first(self, count: usize) -> Self::Mask {
        let mut row = [0; 32];
        row[..count].fill(u16::MAX);
        self.load(&row)
    }
    #[inline(always)]
    fn last(self, count: usize) -> Self::Mask {
        let mut row = [0; 32];
        row[32 - count..].fill(u16::MAX);
        self.load(&row)
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, yes: Self::Lanes, no: Self::Lanes) -> Self::Lanes {
        both!(_mm256_blendv_epi8(no, yes, mask))
    }
    #[inline(always)]
    fn negative(self, a: Self::Lanes) -> Self::Mask {
        intrinsics! { [_mm256_srai_epi16::<15>(a[0]), _mm256_srai_epi16::<15>(a[1])] }
    }
    #[inline(always)]
    fn zero_among(self, mask: Self::Mask, a: Self::Lanes) -> Self::Mask {
        let zero = self.splat(0);
        self.and(mask, both!(_mm256_cmpeq_epi16(a, zero)))
    }
    #[inline(always)]
    fn add_where(self, mask: Self::Mask, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        self.add(a, self.and(b, mask))
    }

    #[inline(always)]
    fn and(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        both!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        both!(_mm256_add_epi16(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        both!(_mm256_sub_epi16(a, b))
    }
    #[inline(always)]
    fn shift(self, bits: u32) -> __m128i {
        intrinsics! { _mm_cvtsi32_si128(bits as i32) }
    }
    #[inline(always)]
    fn shift_left(self, a: Self::Lanes, bits: __m128i) -> Self::Lanes {
        intrinsics! { [_mm256_sll_epi16(a[0], bits), _mm256_sll_epi16(a[1], bits)] }
    }
    #[inline(always)]
    fn shift_right(self, a: Self::Lanes, bits: __m128i) -> Self::Lanes {
        intrinsics! { [_mm256_srl_epi16(a[0], bits), _mm256_srl_epi16(a[1], bits)] }
    }
    #[inline(always)]
    fn mul_low(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        both!(_mm256_mullo_epi16(a, b))
    }
    #[inline(always)]
    fn mul_high(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        both!(_mm256_mulhi_epu16(a, b))
    }
    #[inline(always)]
    fn mul_add(
        self,
        a: Self::Lanes,
        b: Self::Lanes,
        c: Self::Lanes,
        one: Self::Lanes,
    ) -> (Self::Lanes, Self::Lanes) {
        let low = self.add(self.mul_low(a, b), c);
        // No carry where the sum is not below what was added: all ones there.
        let least = both!(_mm256_min_epu16(low, c));
        let no_carry = both!(_mm256_cmpeq_epi16(least, c));
        let high = self.add(self.mul_high(a, b), one);
        (low, self.add(high, no_carry))
    }
    #[inline(always)]
    fn append_above(self, index: Self::Lanes, slot: Self::Lanes, boundary: Self::Lanes) -> Self::Lanes {
        self.sub(self.add(index, index), both!(_mm256_cmpgt_epi16(slot, boundary)))
    }

    #[inline(always)]
    fn bank(self, entries: &[u16; BANK], bits: u32) -> Planes {
        let (mut whole, mut low, mut high) = ([0; 16], [[0; 16]; 2], [[0; 16]; 2]);
        for (at, &entry) in entries[..32].iter().enumerate() {
            let [below, above] = entry.to_le_bytes();
            (low[at / 16][at % 16], high[at / 16][at % 16]) = (below, above);
            if at < 8 {
                (whole[2 * at], whole[2 * at + 1]) = (below, above);
            }
        }
        let whole = if bits > 0 { self.twice(&whole) } else { self.splat(entries[0])[0] };
        let sixteens = |bytes: [[u8; 16]; 2]| [self.twice(&bytes[0]), self.twice(&bytes[1])];
        Planes { whole, low: sixteens(low), high: sixteens(high) }
    }
    #[inline(always)]
    fn look_up(self, bank: &Planes, index: Self::Lanes, bits: u32) -> Self::Lanes {
        if bits == 0 {
            return [bank.whole; 2];
        }
        [self.look_up_one(bank, index[0], bits), self.look_up_one(bank, index[1], bits)]
    }
    #[inline(always)]
    fn bytes(self, entries: &[u8; 64]) -> Self::Bytes {
        let sixteens = entries.as_chunks().0;
        [
            self.twice(&sixteens[0]),
            self.twice(&sixteens[1]),
            self.twice(&sixteens[2]),
            self.twice(&sixteens[3]),
        ]
    }
    #[inline(always)]
    fn look_up_byte(self, bytes: &Self::Bytes, index: Self::Lanes) -> Self::Lanes {
        // The upper byte of each index looks up the first entry, which is 0.
        [self.of_sixteens(bytes, index[0]), self.of_sixteens(bytes, index[1])]
    }
    #[inline(always)]
    fn look_up_slot(self, slots: &Slots, class: Self::Lanes, slot: Self::Lanes, bits: u32) -> Self::Lanes {
        let bits = bits.min(MOST_BITS);
        let class = self.wide(self.and(class, self.splat((1 << WIDE_CLASS_BITS) - 1)));
        let slot = self.wide(self.and(slot, self.splat(((1_u32 << bits) - 1) as u16)));
        let mut symbols = class;
        for (symbols, slot) in symbols.iter_mut().zip(slot) {
            // The pointers are to `class << bits | slot`, below 2^17, and the three bytes after it.
            intrinsics! {
                let class = _mm256_sll_epi32(*symbols, _mm_cvtsi32_si128(bits as i32));
                let at = _mm256_or_si256(class, slot);
                *symbols = _mm256_i32gather_epi32::<1>(slots.as_ptr().cast(), at);
            }
        }
        self.and(self.out_of_wide(symbols).0, self.splat(0xff))
    }
    #[inline(always)]
    fn look_up_pair(self, pairs: &Pairs, index: Self::Lanes) -> (Self::Lanes, Self::Lanes) {
        let mut found =
            self.wide(self.and(index, self.splat((1 << (WIDE_CLASS_BITS + WIDE_SYMBOL_BITS)) - 1)));
        for entries in &mut found {
            // The pointers are to entries below 2^11, of as many.
            *entries = intrinsics! { _mm256_i32gather_epi32::<4>(pairs.as_ptr().cast(), *entries) };
        }
        self.out_of_wide(found)
    }

    #[inline(always)]
    fn low_bytes(self, bytes: &LowBytes) -> LowBytes {
        *bytes
    }
    #[inline(always)]
    fn look_up_step(
        self,
        steps: &Steps,
        low_bytes: &LowBytes,
        slot: Self::Lanes,
    ) -> (Self::Lanes, Self::Lanes, Self::Lanes) {
        let mut slots = [0; MAX_LANES];
        self.store(slot, &mut slots);
        let (symbol, scaled, offset) = step_by_step(steps, low_bytes, &slots);
        (self.load(&symbol), self.load(&scaled), self.load(&offset))
    }
    #[inline(always)]
    fn look_up_coarse_step(
        self,
        steps: &CoarseSteps,
        slot: Self::Lanes,
    ) -> (Self::Lanes, Self::Lanes, Self::Lanes) {
        let mut found = self.wide(self.and(slot, self.splat(((1 << MOST_BITS) - 1) & !3)));
        for steps_of in &mut found {
            // The pointers are to entries below 2^12, of as many: an index counts bytes.
            *steps_of = intrinsics! { _mm256_i32gather_epi32::<1>(steps.as_ptr().cast(), *steps_of) };
        }
        let (low, high) = self.out_of_wide(found);
        intrinsics! {
            let nibble = self.splat(0x0f);
            let others = self.and(high, nibble).map(|v| _mm256_slli_epi16::<4>(v));
            let symbol = self.add(self.and(low, nibble), others);
            let offset = high.map(|v| _mm256_slli_epi16::<2>(_mm256_srli_epi16::<4>(v)));
            (symbol, self.and(low, self.splat(0xfff0)), self.add(offset, self.and(slot, self.splat(3))))
        }
    }

    #[inline(always)]
    fn refill(
        self,
        low: Self::Lanes,
        high: Self::Lanes,
        among: Self::Mask,
        words: &[u8; WINDOW],
    ) -> (Self::Lanes, Self::Lanes, usize) {
        let take = self.zero_among(among, high);
        let sets = self.sets(take);
        let mut eights = intrinsics! { [_mm_setzero_si128(); 4] };
        let mut taken = 0;
        for (eight, set) in eights.iter_mut().zip(sets) {
            let words: &[u8; 16] =
                words[2 * taken..].first_chunk().expect("at most 8 words for each 8 lanes");
            // The pointers are to 16 bytes each.
            *eight = intrinsics! {
                let order = _mm_loadu_si128(EXPANDED[set].as_ptr().cast());
                _mm_shuffle_epi8(_mm_loadu_si128(words.as_ptr().cast()), order)
            };
            taken += set.count_ones() as usize;
        }
        let words = intrinsics! {
            [_mm256_set_m128i(eights[1], eights[0]), _mm256_set_m128i(eights[3], eights[2])]
        };
        (self.select(take, words, low), self.select(take, low, high), taken)
    }
    #[inline(always)]
    fn put_out(
        self,
        low: Self::Lanes,
        high: Self::Lanes,
        limit: Self::Lanes,
        among: Self::Mask,
        _: Self::Lanes,
        words: &mut Row,
    ) -> (Self::Lanes, Self::Lanes, usize) {
        let largest = both!(_mm256_max_epu16(high, limit));
        let out = self.and(among, both!(_mm256_cmpeq_epi16(largest, high)));
        let sets = self.sets(out);
        let mut put = 0;
        for (half, lanes) in low.into_iter().enumerate() {
            let eights =
                intrinsics! { [_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes)] };
            for (eight, &set) in eights.into_iter().zip(&sets[2 * half..]) {
                let room: &mut [u16; 8] =
                    words[put..].first_chunk_mut().expect("at most 8 words for each 8 lanes");
                // The pointers are to 16 bytes each.
                intrinsics! {
                    let order = _mm_loadu_si128(COMPRESSED[set].as_ptr().cast());
                    _mm_storeu_si128(room.as_mut_ptr().cast(), _mm_shuffle_epi8(eight, order));
                }
                put += set.count_ones() as usize;
            }
        }
        (self.select(out, high, low), both!(_mm256_andnot_si256(out, high)), put)
    }

    #[inline(always)]
    fn ratio_bank(self, _: &Ratios) {}
    #[inline(always)]
    fn ratios(self, (): &(), _: Self::Lanes, frequency: Self::Lanes, _: u32) -> Self::Ratios {
        let f = self.wide(frequency);
        intrinsics! {
            let one = _mm256_set1_ps((1.0 + RATIO_EXCESS) as f32);
            [
                _mm256_div_ps(one, _mm256_cvtepi32_ps(f[0])),
                _mm256_div_ps(one, _mm256_cvtepi32_ps(f[1])),
                _mm256_div_ps(one, _mm256_cvtepi32_ps(f[2])),
                _mm256_div_ps(one, _mm256_cvtepi32_ps(f[3])),
            ]
        }
    }
    #[inline(always)]
    fn quotient(
        self,
        low: Self::Lanes,
        high: Self::Lanes,
        ratios: Self::Ratios,
    ) -> (Self::Lanes, Self::Lanes) {
        let (mut quotients, high) = (self.wide(low), self.wide(high));
        for ((quotient, high), ratios) in quotients.iter_mut().zip(high).zip(ratios) {
            intrinsics! {
                // Both halves are exact, and so the sum is rounded once.
                let high = _mm256_mul_ps(_mm256_cvtepi32_ps(high), _mm256_set1_ps(65_536.0));
                let state = _mm256_add_ps(high, _mm256_cvtepi32_ps(*quotient));
                *quotient = _mm256_cvttps_epi32(_mm256_mul_ps(state, ratios));
            }
        }
        self.out_of_wide(quotients)
    }
}
