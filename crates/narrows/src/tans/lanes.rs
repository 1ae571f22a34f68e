//! The vector operations that [`rows`](super::rows) and [`encode_rows`](super::encode_rows) are written over.
//!
//! A vector holds a byte for each lane. Eight lanes are a group; the bytes of a group, the first lane's the
//! lowest, are a *word* of 64 bits, of which it has one window of its bit stream and one position in it.

/// At least eight bytes: so many can always be loaded at once.
#[derive(Clone, Copy)]
pub struct Payload<'a>(&'a [u8]);

impl<'a> Payload<'a> {
    /// `bytes`, if there are eight.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= 8).then_some(Self(bytes))
    }

    /// The bytes, eight at least.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// A set of instructions that works on 64 lanes at once; a value of it proves that the processor has them. It may
/// leave out lanes that no chunk has in use: they load as nothing and are not stored.
///
/// Words are unsigned; shifts by 64 or more give 0.
pub trait Lanes: Copy {
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
    /// Words moved down by `counts` (0 to 64) bits.
    fn shift_right_words(self, words: Self::Bytes, counts: Self::Bytes) -> Self::Bytes;
    /// For each word, 64 bits of `high:low` from bit `count` of `low` on, `count` at most `MOST`, 63 or 64.
    fn funnel<const MOST: u32>(self, low: Self::Bytes, high: Self::Bytes, count: Self::Bytes) -> Self::Bytes;
    /// Deal the bits of each word of `window` out to its bytes, from the lowest on: each byte's low `counts` bits are
    /// its own, those above anything.
    fn deal(self, window: Self::Bytes, counts: Self::Bytes) -> Self::Bytes;
    /// The same, sooner rather than with fewer instructions.
    #[inline(always)]
    fn deal_soon(self, window: Self::Bytes, counts: Self::Bytes) -> Self::Bytes {
        self.deal(window, counts)
    }
    /// Undo [`Lanes::deal`] for each half of a word: the low `counts` bits of four bytes, next to each other from
    /// the lowest bit of the half on. Bits above `counts` are zero.
    fn gather_halves(self, bits: Self::Bytes, counts: Self::Bytes) -> Self::Bytes;
    /// For each word, the payload's bits from bit `positions` on: `chunk::WINDOW` at least, zeros
    /// beyond its end.
    fn windows(self, payload: Payload<'_>, positions: Self::Bytes) -> Self::Bytes;
}

/// The same word for each group.
pub(crate) const fn each_word(word: [u8; 8]) -> [u8; 64] {
    let (mut bytes, mut at) = ([0; 64], 0);
    while at < 64 {
        bytes[at] = word[at % 8];
        at += 1;
    }
    bytes
}
