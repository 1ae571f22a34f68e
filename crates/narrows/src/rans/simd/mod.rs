//! The few vector operations that the lane algorithms are written over, and who provides them.
//!
//! A backend is a token: a value of its type proves that the processor has the instructions, so that
//! its operations are safe to call. All work on 32 lanes of 16 bits, however many registers these take.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod portable;

use crate::rans::MAX_LANES;

/// One 16-bit number a lane, in memory.
pub(super) type Row = [u16; MAX_LANES];
/// One symbol a lane, in memory.
pub(super) type ByteRow = [u8; MAX_LANES];
/// Bytes that a row of words can take.
pub(super) const WINDOW: usize = 2 * MAX_LANES;
/// Entries of the largest table that is looked up in registers.
pub(super) const BANK: usize = 128;
/// Class bits and symbol bits of the tables looked up in memory.
pub(super) const WIDE_CLASS_BITS: u32 = 3;
pub(super) const WIDE_SYMBOL_BITS: u32 = 8;
/// The most probability bits.
pub(super) const MOST_BITS: u32 = 14;

/// Symbols by class and slot (`class << b | slot`), padded so that four bytes can be read anywhere.
pub(super) type Slots = [u8; (1 << (WIDE_CLASS_BITS + MOST_BITS)) + 4];
/// Frequencies (low half) and cumulative frequencies (high half) by class and symbol (`class << 8 | symbol`).
pub(super) type Pairs = [u32; 1 << (WIDE_CLASS_BITS + WIDE_SYMBOL_BITS)];

/// All that a decoder asks of a slot, of models with one table: the symbol in the lowest byte, above it the upper byte of
/// `f << (16 - b)`, and in the upper half `slot - c`. What is missing are that number's [`LowBytes`].
pub(super) type Steps = [u32; 1 << MOST_BITS];
/// By symbol, the lower byte of `f << (16 - b)`.
pub(super) type LowBytes = [u8; 1 << WIDE_SYMBOL_BITS];

/// All that a decoder asks of four slots in a row, of models with one table of 14 probability bits whose frequencies are
/// multiples of four: the lowest four bits of the symbol, the upper twelve of `f << 2`, the other four bits of the
/// symbol, and from bit 20 on `(slot - c) / 4`.
pub(super) type CoarseSteps = [u32; 1 << COARSE_BITS];
/// Bits that tell sets of four slots apart.
pub(super) const COARSE_BITS: u32 = MOST_BITS - 2;

/// Run the body for each of up to four chunks, written out: a loop that the compiler does not unroll would keep
/// the chunks' vectors in memory.
macro_rules! for_each_chunk {
    ($chunks:ident, $k:ident => $body:block) => {
        for_each_chunk!(@one $k 0 $body);
        if $chunks > 1 {
            for_each_chunk!(@one $k 1 $body);
        }
        if $chunks > 2 {
            for_each_chunk!(@one $k 2 $body);
        }
        if $chunks > 3 {
            for_each_chunk!(@one $k 3 $body);
        }
    };
    (@one $k:ident $index:literal $body:block) => {{
        let $k = $index;
        $body
    }};
}
pub(super) use for_each_chunk;

/// Something to be run with a backend's instructions.
pub(super) trait Job {
    /// What comes of it.
    type Output;
    /// Run it; always inlined, into a function compiled for the backend's instructions.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Something to be done with some chunks in lock-step.
pub(super) trait Step {
    /// What comes of it.
    type Output;
    /// Do it with the next `CHUNKS` chunks.
    fn take<S: Simd, const CHUNKS: usize>(self, simd: S) -> Self::Output;
}

/// Vectors of 32 lanes of 16 bits.
pub(super) trait Simd: Copy {
    /// An unsigned 16-bit number in each lane.
    type Lanes: Copy;
    /// Some of the lanes.
    type Mask: Copy;
    /// A number of bits to shift by.
    type Shift: Copy;
    /// A table of 16-bit numbers.
    type Bank: Copy;
    /// A table of 64 bytes.
    type Bytes: Copy;
    /// A table of `f32`.
    type RatioBank: Copy;
    /// An `f32` for each lane.
    type Ratios: Copy;
    /// [`LowBytes`], for [`Simd::look_up_step`].
    type LowBytes: Copy;

    /// Rows of up to this many lanes are coded [by scalar code](crate::rans::few): 8 where there are vectors.
    const FEW_LANES: usize = 8;
    /// Bits of the largest table that [`Simd::look_up`] is fast for, up to 7.
    const BANK_BITS: u32;
    /// Whether [`Simd::look_up_step`] is fast.
    const LOOKS_UP_STEPS: bool;
    /// Whether [`Simd::look_up_coarse_step`] is fast.
    const LOOKS_UP_COARSE_STEPS: bool;

    /// Take a step over one or more of `left` chunks: the latency of one hides behind the others. Gives
    /// what comes of it, for as many chunks as were taken.
    fn step<T: Step>(self, step: T, left: usize) -> T::Output;
    /// Run a job in a function compiled for this backend's instructions.
    fn vectorize<J: Job>(self, job: J) -> J::Output;

    /// `value` in every lane.
    fn splat(self, value: u16) -> Self::Lanes;
    /// From memory.
    fn load(self, row: &Row) -> Self::Lanes;
    /// To memory.
    fn store(self, lanes: Self::Lanes, row: &mut Row);
    /// Symbols from memory.
    fn widen(self, row: &ByteRow) -> Self::Lanes;
    /// Symbols from memory, the last one in the first lane.
    fn widen_reversed(self, row: &ByteRow) -> Self::Lanes;
    /// Symbols (below 256) to memory.
    fn narrow(self, lanes: Self::Lanes, row: &mut ByteRow);

    /// The first `count` lanes.
    fn first(self, count: usize) -> Self::Mask;
    /// The last `count` lanes.
    fn last(self, count: usize) -> Self::Mask;
    /// `yes` in the lanes of the mask, `no` in the others.
    fn select(self, mask: Self::Mask, yes: Self::Lanes, no: Self::Lanes) -> Self::Lanes;
    /// Lanes with the top bit set.
    fn negative(self, a: Self::Lanes) -> Self::Mask;
    /// Those lanes of the mask that are 0.
    fn zero_among(self, mask: Self::Mask, a: Self::Lanes) -> Self::Mask;
    /// `a + b` in the lanes of the mask, `a` in the others.
    fn add_where(self, mask: Self::Mask, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// `a & b`.
    fn and(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a + b`, wrapping.
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a - b`, wrapping.
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// A shift by `bits`, less than 16.
    fn shift(self, bits: u32) -> Self::Shift;
    /// `a << bits`.
    fn shift_left(self, a: Self::Lanes, bits: Self::Shift) -> Self::Lanes;
    /// `a >> bits`.
    fn shift_right(self, a: Self::Lanes, bits: Self::Shift) -> Self::Lanes;
    /// The high half of `(high << 16 | low) << left`, where `right` is 16 less `left`.
    #[inline(always)]
    fn shift_both(
        self,
        high: Self::Lanes,
        low: Self::Lanes,
        left: Self::Shift,
        right: Self::Shift,
    ) -> Self::Lanes {
        self.add(self.shift_left(high, left), self.shift_right(low, right))
    }
    /// The low half of `a * b`.
    fn mul_low(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The high half of `a * b`.
    fn mul_high(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The low and the high half of `a * b + c`; `one` is 1 in each lane.
    fn mul_add(
        self,
        a: Self::Lanes,
        b: Self::Lanes,
        c: Self::Lanes,
        one: Self::Lanes,
    ) -> (Self::Lanes, Self::Lanes);
    /// `index << 1`, plus 1 where `slot > boundary`, both in `-1..2^15`.
    fn append_above(self, index: Self::Lanes, slot: Self::Lanes, boundary: Self::Lanes) -> Self::Lanes;

    /// The first `2^bits` (at most 128) entries, for [`Simd::look_up`].
    fn bank(self, entries: &[u16; BANK], bits: u32) -> Self::Bank;
    /// The entry of each index, modulo some power of two that is `2^bits` or more.
    fn look_up(self, bank: &Self::Bank, index: Self::Lanes, bits: u32) -> Self::Lanes;
    /// A table of bytes, the first of them 0.
    fn bytes(self, entries: &[u8; 64]) -> Self::Bytes;
    /// The byte of each index (below 64).
    fn look_up_byte(self, bytes: &Self::Bytes, index: Self::Lanes) -> Self::Lanes;
    /// The symbol of each class (modulo 8) and slot (modulo `2^14`).
    fn look_up_slot(self, slots: &Slots, class: Self::Lanes, slot: Self::Lanes, bits: u32) -> Self::Lanes;
    /// The low and high halves of each index's entry (modulo the number of entries).
    fn look_up_pair(self, pairs: &Pairs, index: Self::Lanes) -> (Self::Lanes, Self::Lanes);

    /// [`LowBytes`] at hand.
    fn low_bytes(self, bytes: &LowBytes) -> Self::LowBytes;
    /// The symbol of each slot (modulo `2^14`), `f << (16 - b)` and `slot - c`.
    fn look_up_step(
        self,
        steps: &Steps,
        low_bytes: &Self::LowBytes,
        slot: Self::Lanes,
    ) -> (Self::Lanes, Self::Lanes, Self::Lanes);
    /// As [`Simd::look_up_step`], of frequencies that are multiples of four; slots are below `2^14`.
    fn look_up_coarse_step(
        self,
        steps: &CoarseSteps,
        slot: Self::Lanes,
    ) -> (Self::Lanes, Self::Lanes, Self::Lanes);

    /// Decoder's renormalisation: where `high` is 0, `low` moves up and the next of the words (two bytes
    /// each) takes its place; also how many were taken. Only in the lanes of the mask.
    fn refill(
        self,
        low: Self::Lanes,
        high: Self::Lanes,
        among: Self::Mask,
        words: &[u8; WINDOW],
    ) -> (Self::Lanes, Self::Lanes, usize);

    /// Encoder's renormalisation: where `high >= limit`, `low` is put out and `high` moves down; also how many
    /// words were put out. Only in the lanes of the mask; `zero` is 0 in each. Words above that number are unspecified.
    fn put_out(
        self,
        low: Self::Lanes,
        high: Self::Lanes,
        limit: Self::Lanes,
        among: Self::Mask,
        zero: Self::Lanes,
        words: &mut Row,
    ) -> (Self::Lanes, Self::Lanes, usize);

    /// The first 32 of these ratios, for [`Simd::ratios`] with at most 5 bits.
    fn ratio_bank(self, entries: &Ratios) -> Self::RatioBank;
    /// [`ratio`] of the frequency of each lane, to within `2^-22`; from the bank by index, or computed.
    fn ratios(
        self,
        bank: &Self::RatioBank,
        index: Self::Lanes,
        frequency: Self::Lanes,
        bits: u32,
    ) -> Self::Ratios;
    /// The low and high halves of `(high << 16 | low) * ratio`, truncated; the number and the product
    /// are rounded to `f32`.
    fn quotient(
        self,
        low: Self::Lanes,
        high: Self::Lanes,
        ratios: Self::Ratios,
    ) -> (Self::Lanes, Self::Lanes);
}

/// Ratios in memory.
pub(super) type Ratios = [f32; 32];

/// `1 / f`, a little too large: see `encoding.rs` for how little, and why.
pub(super) fn ratio(frequency: u16) -> f32 {
    ((1.0 + RATIO_EXCESS) / f64::from(frequency)) as f32
}

/// How much too large a ratio is, relative to itself.
pub(super) const RATIO_EXCESS: f64 = 1.0 / (1 << 21) as f64;

/// For each set of eight lanes, as bits, a shuffle of 16 bytes: the lanes' words out of words in order (`expand`), or
/// in order out of the lanes.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) const fn word_shuffles(expand: bool) -> [[u8; 16]; 256] {
    let mut shuffles = [[0; 16]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut rank) = (0, 0);
        while lane < 8 {
            if set >> lane & 1 == 1 {
                let (to, from) = if expand { (lane, rank) } else { (rank, lane) };
                shuffles[set][2 * to] = 2 * from as u8;
                shuffles[set][2 * to + 1] = 2 * from as u8 + 1;
                rank += 1;
            }
            lane += 1;
        }
        set += 1;
    }
    shuffles
}
