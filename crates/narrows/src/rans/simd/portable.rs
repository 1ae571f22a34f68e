//! The lane algorithms over plain arrays: for any processor, and how the algorithms themselves are tested.

use super::{
    BANK, ByteRow, CoarseSteps, Job, LowBytes, Pairs, Ratios, Row, Simd, Slots, Step, Steps, WIDE_CLASS_BITS,
    WIDE_SYMBOL_BITS, WINDOW, ratio,
};
use crate::rans::MAX_LANES;

/// No instructions in particular.
#[derive(Clone, Copy)]
pub(in crate::rans) struct Portable;

#[inline(always)]
fn map(mut of: impl FnMut(usize) -> u16) -> Row {
    let mut lanes = [0; MAX_LANES];
    for (lane, value) in lanes.iter_mut().enumerate() {
        *value = of(lane);
    }
    lanes
}

impl Simd for Portable {
    type Lanes = Row;
    /// All ones in the lanes meant.
    type Mask = Row;
    type Shift = u32;
    type Bank = [u16; BANK];
    type Bytes = [u8; 64];
    type RatioBank = ();
    type LowBytes = LowBytes;
    type Ratios = Ratios;

    /// Vectors that are arrays are slower than scalar code; but tests of the lane algorithms are about these.
    const FEW_LANES: usize = if cfg!(test) { 8 } else { MAX_LANES };
    const BANK_BITS: u32 = 7;
    const LOOKS_UP_STEPS: bool = true;
    const LOOKS_UP_COARSE_STEPS: bool = true;

    fn step<T: Step>(self, step: T, _: usize) -> T::Output {
        step.take::<_, 1>(self)
    }

    fn vectorize<J: Job>(self, job: J) -> J::Output {
        job.run(self)
    }

    #[inline(always)]
    fn splat(self, value: u16) -> Row {
        [value; MAX_LANES]
    }
    #[inline(always)]
    fn load(self, row: &Row) -> Row {
        *row
    }
    #[inline(always)]
    fn store(self, lanes: Row, row: &mut Row) {
        *row = lanes;
    }
    #[inline(always)]
    fn widen(self, row: &ByteRow) -> Row {
        map(|l| u16::from(row[l]))
    }
    #[inline(always)]
    fn widen_reversed(self, row: &ByteRow) -> Row {
        map(|l| u16::from(row[MAX_LANES - 1 - l]))
    }
    #[inline(always)]
    fn narrow(self, lanes: Row, row: &mut ByteRow) {
        row.iter_mut().zip(lanes).for_each(|(symbol, lane)| *symbol = lane as u8);
    }

    #[inline(always)]
    fn first(self, count: usize) -> Row {
        map(|l| if l < count { u16::MAX } else { 0 })
    }
    #[inline(always)]
    fn last(self, count: usize) -> Row {
        map(|l| if l + count >= MAX_LANES { u16::MAX } else { 0 })
    }
    #[inline(always)]
    fn select(self, mask: Row, yes: Row, no: Row) -> Row {
        map(|l| yes[l] & mask[l] | no[l] & !mask[l])
    }
    #[inline(always)]
    fn negative(self, a: Row) -> Row {
        map(|l| ((a[l] as i16) >> 15) as u16)
    }
    #[inline(always)]
    fn zero_among(self, mask: Row, a: Row) -> Row {
        map(|l| if a[l] == 0 { mask[l] } else { 0 })
    }
    #[inline(always)]
    fn add_where(self, mask: Row, a: Row, b: Row) -> Row {
        map(|l| a[l].wrapping_add(b[l] & mask[l]))
    }

    #[inline(always)]
    fn and(self, a: Row, b: Row) -> Row {
        map(|l| a[l] & b[l])
    }
    #[inline(always)]
    fn add(self, a: Row, b: Row) -> Row {
        map(|l| a[l].wrapping_add(b[l]))
    }
    #[inline(always)]
    fn sub(self, a: Row, b: Row) -> Row {
        map(|l| a[l].wrapping_sub(b[l]))
    }
    #[inline(always)]
    fn shift(self, bits: u32) -> u32 {
        bits
    }
    #[inline(always)]
    fn shift_left(self, a: Row, bits: u32) -> Row {
        map(|l| a[l] << bits)
    }
    #[inline(always)]
    fn shift_right(self, a: Row, bits: u32) -> Row {
        map(|l| a[l] >> bits)
    }
    #[inline(always)]
    fn mul_low(self, a: Row, b: Row) -> Row {
        map(|l| a[l].wrapping_mul(b[l]))
    }
    #[inline(always)]
    fn mul_high(self, a: Row, b: Row) -> Row {
        map(|l| ((u32::from(a[l]) * u32::from(b[l])) >> 16) as u16)
    }
    #[inline(always)]
    fn mul_add(self, a: Row, b: Row, c: Row, _: Row) -> (Row, Row) {
        let (mut low, mut high) = ([0; MAX_LANES], [0; MAX_LANES]);
        for l in 0..MAX_LANES {
            let sum = u32::from(a[l]) * u32::from(b[l]) + u32::from(c[l]);
            (low[l], high[l]) = (sum as u16, (sum >> 16) as u16);
        }
        (low, high)
    }
    #[inline(always)]
    fn append_above(self, index: Row, slot: Row, boundary: Row) -> Row {
        map(|l| index[l] << 1 | boundary[l].wrapping_sub(slot[l]) >> 15)
    }

    #[inline(always)]
    fn bank(self, entries: &[u16; BANK], _: u32) -> [u16; BANK] {
        *entries
    }
    #[inline(always)]
    fn look_up(self, bank: &[u16; BANK], index: Row, _: u32) -> Row {
        map(|l| bank[usize::from(index[l]) % BANK])
    }
    #[inline(always)]
    fn bytes(self, entries: &[u8; 64]) -> [u8; 64] {
        *entries
    }
    #[inline(always)]
    fn look_up_byte(self, bytes: &[u8; 64], index: Row) -> Row {
        map(|l| u16::from(bytes[usize::from(index[l]) % 64]))
    }
    #[inline(always)]
    fn look_up_slot(self, slots: &Slots, class: Row, slot: Row, bits: u32) -> Row {
        slot_by_slot(slots, &class, &slot, bits)
    }
    #[inline(always)]
    fn look_up_pair(self, pairs: &Pairs, index: Row) -> (Row, Row) {
        pair_by_pair(pairs, &index)
    }

    #[inline(always)]
    fn low_bytes(self, bytes: &LowBytes) -> LowBytes {
        *bytes
    }
    #[inline(always)]
    fn look_up_step(self, steps: &Steps, low_bytes: &LowBytes, slot: Row) -> (Row, Row, Row) {
        step_by_step(steps, low_bytes, &slot)
    }
    #[inline(always)]
    fn look_up_coarse_step(self, steps: &CoarseSteps, slot: Row) -> (Row, Row, Row) {
        coarse_step_by_step(steps, &slot)
    }

    #[inline(always)]
    fn refill(self, mut low: Row, mut high: Row, among: Row, words: &[u8; WINDOW]) -> (Row, Row, usize) {
        let mut taken = 0;
        for l in 0..MAX_LANES {
            let take = high[l] == 0 && among[l] != 0;
            // At most one word a lane: `taken <= l`.
            let word = u16::from_le_bytes([words[2 * taken], words[2 * taken + 1]]);
            (high[l], low[l]) = if take { (low[l], word) } else { (high[l], low[l]) };
            taken += usize::from(take);
        }
        (low, high, taken)
    }

    #[inline(always)]
    fn put_out(
        self,
        mut low: Row,
        mut high: Row,
        limit: Row,
        among: Row,
        _: Row,
        words: &mut Row,
    ) -> (Row, Row, usize) {
        let mut put = 0;
        for l in 0..MAX_LANES {
            let out = high[l] >= limit[l] && among[l] != 0;
            words[put] = low[l];
            (low[l], high[l]) = if out { (high[l], 0) } else { (low[l], high[l]) };
            put += usize::from(out);
        }
        (low, high, put)
    }

    #[inline(always)]
    fn ratio_bank(self, _: &Ratios) {}
    #[inline(always)]
    fn ratios(self, (): &(), _: Row, frequency: Row, _: u32) -> Ratios {
        let mut ratios = [0.0; MAX_LANES];
        for (r, f) in ratios.iter_mut().zip(frequency) {
            *r = ratio(f);
        }
        ratios
    }
    #[inline(always)]
    fn quotient(self, low: Row, high: Row, ratios: Ratios) -> (Row, Row) {
        let (mut quotient_low, mut quotient_high) = ([0; MAX_LANES], [0; MAX_LANES]);
        for l in 0..MAX_LANES {
            let state = u32::from(high[l]) << 16 | u32::from(low[l]);
            let quotient = (state as f32 * ratios[l]) as u32;
            (quotient_low[l], quotient_high[l]) = (quotient as u16, (quotient >> 16) as u16);
        }
        (quotient_low, quotient_high)
    }
}

/// [`Simd::look_up_slot`] without gathers.
#[inline(always)]
pub(super) fn slot_by_slot(slots: &Slots, class: &Row, slot: &Row, bits: u32) -> Row {
    map(|l| {
        let class = usize::from(class[l]) % (1 << WIDE_CLASS_BITS);
        u16::from(slots[(class << bits | usize::from(slot[l])) % (slots.len() - 4)])
    })
}

/// [`Simd::look_up_pair`] without gathers.
#[inline(always)]
pub(super) fn pair_by_pair(pairs: &Pairs, index: &Row) -> (Row, Row) {
    let (mut low, mut high) = ([0; MAX_LANES], [0; MAX_LANES]);
    for l in 0..MAX_LANES {
        let pair = pairs[usize::from(index[l]) % (1 << (WIDE_CLASS_BITS + WIDE_SYMBOL_BITS))];
        (low[l], high[l]) = (pair as u16, (pair >> 16) as u16);
    }
    (low, high)
}

/// [`Simd::look_up_step`] without gathers.
#[inline(always)]
pub(super) fn step_by_step(steps: &Steps, low_bytes: &LowBytes, slot: &Row) -> (Row, Row, Row) {
    let (mut symbols, mut scaled, mut offsets) = ([0; MAX_LANES], [0; MAX_LANES], [0; MAX_LANES]);
    for l in 0..MAX_LANES {
        let [symbol, high, offset @ ..] = steps[usize::from(slot[l]) % steps.len()].to_le_bytes();
        symbols[l] = u16::from(symbol);
        scaled[l] = u16::from_le_bytes([low_bytes[usize::from(symbol)], high]);
        offsets[l] = u16::from_le_bytes(offset);
    }
    (symbols, scaled, offsets)
}

/// [`Simd::look_up_coarse_step`] without gathers.
#[inline(always)]
pub(super) fn coarse_step_by_step(steps: &CoarseSteps, slot: &Row) -> (Row, Row, Row) {
    let (mut symbols, mut scaled, mut offsets) = ([0; MAX_LANES], [0; MAX_LANES], [0; MAX_LANES]);
    for l in 0..MAX_LANES {
        let step = steps[usize::from(slot[l] >> 2) % steps.len()];
        let (low, high) = (step as u16, (step >> 16) as u16);
        symbols[l] = low & 0x0f | (high & 0x0f) << 4;
        scaled[l] = low & 0xfff0;
        offsets[l] = high >> 4 << 2 | slot[l] & 3;
    }
    (symbols, scaled, offsets)
}
