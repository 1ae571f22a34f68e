//! NEON: a row is four registers, and tables are looked up in 64 bytes at a time.
//!
//! Run under emulation only so far (`qemu-aarch64`): right there, byte for byte, but never timed on hardware.
#![allow(unsafe_code, reason = "intrinsics of a target feature")]
#![allow(clippy::unused_self, reason = "the token is the proof that a call is sound")]
#![allow(clippy::wildcard_imports, reason = "intrinsics have names of their own")]

use std::arch::aarch64::*;

use super::portable::{coarse_step_by_step, pair_by_pair, slot_by_slot, step_by_step};
use super::{
    BANK, ByteRow, CoarseSteps, Job, LowBytes, Pairs, RATIO_EXCESS, Ratios, Row, Simd, Slots, Step, Steps,
    WINDOW,
};
use crate::cpu::Path;
use crate::rans::MAX_LANES;

/// Proof that the processor has NEON.
#[derive(Clone, Copy)]
pub(in crate::rans) struct Neon(());

impl Neon {
    /// The proof, where the processor has it.
    pub(in crate::rans) fn new() -> Option<Self> {
        Path::Neon.is_available().then_some(Self(()))
    }
}

/// Intrinsics in a method of [`Neon`].
macro_rules! intrinsics {
    ($($body:tt)*) => {
        // SAFETY: the only requirement of these intrinsics is NEON, and a `Neon` exists only where the
        // processor has it. What takes a pointer besides says so at its place.
        unsafe { $($body)* }
    };
}

/// An intrinsic on the four registers of each argument.
macro_rules! each {
    ($intrinsic:ident ( $($argument:expr),* )) => {
        intrinsics! { [
            $intrinsic($($argument[0]),*),
            $intrinsic($($argument[1]),*),
            $intrinsic($($argument[2]),*),
            $intrinsic($($argument[3]),*),
        ] }
    };
}

/// The job, compiled for NEON.
#[target_feature(enable = "neon")]
fn run<J: Job>(simd: Neon, job: J) -> J::Output {
    job.run(simd)
}

type Eights = [uint16x8_t; 4];

/// For each set of eight lanes: the word that each of them takes, if words are taken in order.
static EXPANDED: [[u8; 16]; 256] = super::word_shuffles(true);
/// For each set of eight lanes: the lanes in it, one after the other.
static COMPRESSED: [[u8; 16]; 256] = super::word_shuffles(false);

impl Neon {
    #[inline(always)]
    fn sixteen(self, bytes: &[u8; 16]) -> uint8x16_t {
        // The pointer is to 16 bytes.
        intrinsics! { vld1q_u8(bytes.as_ptr()) }
    }

    #[inline(always)]
    fn sixty_four(self, bytes: &[u8; 64]) -> uint8x16x4_t {
        let parts = bytes.as_chunks().0;
        let at = |part: usize| self.sixteen(&parts[part]);
        uint8x16x4_t(at(0), at(1), at(2), at(3))
    }

    /// Each set of eight lanes as bits, and how many they are.
    #[inline(always)]
    fn sets(self, mask: Eights) -> [(usize, usize); 4] {
        let weights = [1, 2, 4, 8, 16, 32, 64, 128];
        mask.map(|mask| {
            // The pointer is to 16 bytes.
            let set = intrinsics! { vaddvq_u16(vandq_u16(mask, vld1q_u16(weights.as_ptr()))) };
            (usize::from(set as u8), set.count_ones() as usize)
        })
    }

    /// Byte tables of up to 64 entries: bytes whose index is above 63 are 0.
    #[inline(always)]
    fn of_sixty_four(self, table: uint8x16x4_t, index: uint16x8_t) -> uint16x8_t {
        intrinsics! { vreinterpretq_u16_u8(vqtbl4q_u8(table, vreinterpretq_u8_u16(index))) }
    }
}

impl Simd for Neon {
    type Lanes = Eights;
    /// All ones in the lanes meant.
    type Mask = Eights;
    type Shift = int16x8_t;
    /// The low bytes of up to 64 entries, and the high bytes.
    type Bank = [uint8x16x4_t; 2];
    type Bytes = uint8x16x4_t;
    type RatioBank = ();
    type LowBytes = LowBytes;
    /// Lanes 0-3, 4-7 of each register.
    type Ratios = [[float32x4_t; 2]; 4];

    const BANK_BITS: u32 = 6;
    const LOOKS_UP_STEPS: bool = false;
    const LOOKS_UP_COARSE_STEPS: bool = false;

    #[inline(always)]
    fn step<T: Step>(self, step: T, left: usize) -> T::Output {
        if left > 1 { step.take::<_, 2>(self) } else { step.take::<_, 1>(self) }
    }
    #[inline(always)]
    fn vectorize<J: Job>(self, job: J) -> J::Output {
        intrinsics! { run(self, job) }
    }

    #[inline(always)]
    fn splat(self, value: u16) -> Eights {
        [intrinsics! { vdupq_n_u16(value) }; 4]
    }
    #[inline(always)]
    fn load(self, row: &Row) -> Eights {
        // The pointers are to 16 bytes each.
        let at = |eight: usize| intrinsics! { vld1q_u16(row.as_chunks::<8>().0[eight].as_ptr()) };
        [at(0), at(1), at(2), at(3)]
    }
    #[inline(always)]
    fn store(self, lanes: Eights, row: &mut Row) {
        for (lanes, eight) in lanes.into_iter().zip(row.as_chunks_mut::<8>().0) {
            // The pointer is to 16 bytes.
            intrinsics! { vst1q_u16(eight.as_mut_ptr(), lanes) }
        }
    }
    #[inline(always)]
    fn widen(self, row: &ByteRow) -> Eights {
        let [a, b] = [0, 1].map(|half| self.sixteen(&row.as_chunks().0[half]));
        intrinsics! { [vmovl_u8(vget_low_u8(a)), vmovl_high_u8(a), vmovl_u8(vget_low_u8(b)), vmovl_high_u8(b)] }
    }
    #[inline(always)]
    fn widen_reversed(self, row: &ByteRow) -> Eights {
        let [a, b] = [0, 1].map(|half| self.sixteen(&row.as_chunks().0[half]));
        intrinsics! {
            let (a, b) = (vrev64q_u8(a), vrev64q_u8(b));
            [vmovl_high_u8(b), vmovl_u8(vget_low_u8(b)), vmovl_high_u8(a), vmovl_u8(vget_low_u8(a))]
        }
    }
    #[inline(always)]
    fn narrow(self, lanes: Eights, row: &mut ByteRow) {
        let [a, b] = row.as_chunks_mut::<16>().0 else { unreachable!("32 are two of 16") };
        // The pointers are to 16 bytes each.
        intrinsics! {
            vst1q_u8(a.as_mut_ptr(), vmovn_high_u16(vmovn_u16(lanes[0]), lanes[1]));
            vst1q_u8(b.as_mut_ptr(), vmovn_high_u16(vmovn_u16(lanes[2]), lanes[3]));
        }
    }

    #[inline(always)]
    fn first(self, count: usize) -> Eights {
        let mut row = [0; 32];
        row[..count].fill(u16::MAX);
        self.load(&row)
    }
    #[inline(always)]
    fn last(self, count: usize) -> Eights {
        let mut row = [0; 32];
        row[32 - count..].fill(u16::MAX);
        self.load(&row)
    }
    #[inline(always)]
    fn select(self, mask: Eights, yes: Eights, no: Eights) -> Eights {
        each!(vbslq_u16(mask, yes, no))
    }
    #[inline(always)]
    fn negative(self, a: Eights) -> Eights {
        a.map(|a| intrinsics! { vcltzq_s16(vreinterpretq_s16_u16(a)) })
    }
    #[inline(always)]
    fn zero_among(self, mask: Eights, a: Eights) -> Eights {
        self.and(mask, each!(vceqzq_u16(a)))
    }
    #[inline(always)]
    fn add_where(self, mask: Eights, a: Eights, b: Eights) -> Eights {
        self.add(a, self.and(b, mask))
    }

    #[inline(always)]
    fn and(self, a: Eights, b: Eights) -> Eights {
        each!(vandq_u16(a, b))
    }
    #[inline(always)]
    fn add(self, a: Eights, b: Eights) -> Eights {
        each!(vaddq_u16(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Eights, b: Eights) -> Eights {
        each!(vsubq_u16(a, b))
    }
    #[inline(always)]
    fn shift(self, bits: u32) -> int16x8_t {
        intrinsics! { vdupq_n_s16(bits as i16) }
    }
    #[inline(always)]
    fn shift_left(self, a: Eights, bits: int16x8_t) -> Eights {
        a.map(|a| intrinsics! { vshlq_u16(a, bits) })
    }
    #[inline(always)]
    fn shift_right(self, a: Eights, bits: int16x8_t) -> Eights {
        a.map(|a| intrinsics! { vshlq_u16(a, vnegq_s16(bits)) })
    }
    #[inline(always)]
    fn mul_low(self, a: Eights, b: Eights) -> Eights {
        each!(vmulq_u16(a, b))
    }
    #[inline(always)]
    fn mul_high(self, a: Eights, b: Eights) -> Eights {
        self.mul_add(a, b, self.splat(0), self.splat(0)).1
    }
    #[inline(always)]
    fn mul_add(self, a: Eights, b: Eights, c: Eights, _: Eights) -> (Eights, Eights) {
        let (mut low, mut high) = (a, a);
        for i in 0..4 {
            intrinsics! {
                let first = vmlal_u16(vmovl_u16(vget_low_u16(c[i])), vget_low_u16(a[i]), vget_low_u16(b[i]));
                let second = vmlal_high_u16(vmovl_high_u16(c[i]), a[i], b[i]);
                let (first, second) = (vreinterpretq_u16_u32(first), vreinterpretq_u16_u32(second));
                (low[i], high[i]) = (vuzp1q_u16(first, second), vuzp2q_u16(first, second));
            }
        }
        (low, high)
    }
    #[inline(always)]
    fn append_above(self, index: Eights, slot: Eights, boundary: Eights) -> Eights {
        let difference = self.sub(boundary, slot);
        let twice = self.add(index, index);
        let mut appended = twice;
        for (appended, difference) in appended.iter_mut().zip(difference) {
            *appended = intrinsics! { vsraq_n_u16::<15>(*appended, difference) };
        }
        appended
    }

    #[inline(always)]
    fn bank(self, entries: &[u16; BANK], _: u32) -> Self::Bank {
        let (mut low, mut high) = ([0; 64], [0; 64]);
        for ((low, high), entry) in low.iter_mut().zip(&mut high).zip(entries) {
            [*low, *high] = entry.to_le_bytes();
        }
        [self.sixty_four(&low), self.sixty_four(&high)]
    }
    #[inline(always)]
    fn look_up(self, bank: &Self::Bank, index: Eights, _: u32) -> Eights {
        index.map(|index| {
            // An index of 255 in the byte that is not looked up.
            intrinsics! {
                let low = self.of_sixty_four(bank[0], vorrq_u16(index, vdupq_n_u16(0xff00)));
                let index = vorrq_u16(vshlq_n_u16::<8>(index), vdupq_n_u16(0x00ff));
                vorrq_u16(low, self.of_sixty_four(bank[1], index))
            }
        })
    }
    #[inline(always)]
    fn bytes(self, entries: &[u8; 64]) -> uint8x16x4_t {
        self.sixty_four(entries)
    }
    #[inline(always)]
    fn look_up_byte(self, bytes: &uint8x16x4_t, index: Eights) -> Eights {
        // The upper byte of each index looks up the first entry, which is 0.
        index.map(|index| self.of_sixty_four(*bytes, index))
    }
    #[inline(always)]
    fn look_up_slot(self, slots: &Slots, class: Eights, slot: Eights, bits: u32) -> Eights {
        let (mut classes, mut indices) = ([0; 32], [0; 32]);
        self.store(class, &mut classes);
        self.store(slot, &mut indices);
        self.load(&slot_by_slot(slots, &classes, &indices, bits))
    }
    #[inline(always)]
    fn look_up_pair(self, pairs: &Pairs, index: Eights) -> (Eights, Eights) {
        let mut indices = [0; 32];
        self.store(index, &mut indices);
        let (low, high) = pair_by_pair(pairs, &indices);
        (self.load(&low), self.load(&high))
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
        let mut slots = [0; MAX_LANES];
        self.store(slot, &mut slots);
        let (symbol, scaled, offset) = coarse_step_by_step(steps, &slots);
        (self.load(&symbol), self.load(&scaled), self.load(&offset))
    }

    #[inline(always)]
    fn refill(
        self,
        low: Eights,
        high: Eights,
        among: Eights,
        words: &[u8; WINDOW],
    ) -> (Eights, Eights, usize) {
        let take = self.zero_among(among, high);
        let (mut next, mut taken) = (low, 0);
        for (next, (set, count)) in next.iter_mut().zip(self.sets(take)) {
            let words = words[2 * taken..].first_chunk().expect("at most 8 words for each 8 lanes");
            let order = self.sixteen(&EXPANDED[set]);
            *next = intrinsics! { vreinterpretq_u16_u8(vqtbl1q_u8(self.sixteen(words), order)) };
            taken += count;
        }
        (self.select(take, next, low), self.select(take, low, high), taken)
    }
    #[inline(always)]
    fn put_out(
        self,
        low: Eights,
        high: Eights,
        limit: Eights,
        among: Eights,
        _: Eights,
        words: &mut Row,
    ) -> (Eights, Eights, usize) {
        let out = self.and(among, each!(vcgeq_u16(high, limit)));
        let mut put = 0;
        for (lanes, (set, count)) in low.into_iter().zip(self.sets(out)) {
            let room: &mut [u16; 8] =
                words[put..].first_chunk_mut().expect("at most 8 words for each 8 lanes");
            let order = self.sixteen(&COMPRESSED[set]);
            // The pointer is to 16 bytes.
            intrinsics! {
                let packed = vqtbl1q_u8(vreinterpretq_u8_u16(lanes), order);
                vst1q_u16(room.as_mut_ptr(), vreinterpretq_u16_u8(packed));
            }
            put += count;
        }
        (self.select(out, high, low), each!(vbicq_u16(high, out)), put)
    }

    #[inline(always)]
    fn ratio_bank(self, _: &Ratios) {}
    #[inline(always)]
    fn ratios(self, (): &(), _: Eights, frequency: Eights, _: u32) -> Self::Ratios {
        frequency.map(|f| {
            intrinsics! {
                let one = vdupq_n_f32((1.0 + RATIO_EXCESS) as f32);
                let (first, second) = (vmovl_u16(vget_low_u16(f)), vmovl_high_u16(f));
                [vdivq_f32(one, vcvtq_f32_u32(first)), vdivq_f32(one, vcvtq_f32_u32(second))]
            }
        })
    }
    #[inline(always)]
    fn quotient(self, low: Eights, high: Eights, ratios: Self::Ratios) -> (Eights, Eights) {
        let (mut quotient_low, mut quotient_high) = (low, high);
        for i in 0..4 {
            intrinsics! {
                let first = vreinterpretq_u32_u16(vzip1q_u16(low[i], high[i]));
                let second = vreinterpretq_u32_u16(vzip2q_u16(low[i], high[i]));
                let first = vcvtq_u32_f32(vmulq_f32(vcvtq_f32_u32(first), ratios[i][0]));
                let second = vcvtq_u32_f32(vmulq_f32(vcvtq_f32_u32(second), ratios[i][1]));
                let (first, second) = (vreinterpretq_u16_u32(first), vreinterpretq_u16_u32(second));
                quotient_low[i] = vuzp1q_u16(first, second);
                quotient_high[i] = vuzp2q_u16(first, second);
            }
        }
        (quotient_low, quotient_high)
    }
}
