//! A model's tables in the shapes that the lane algorithms look things up in; made once for each model.

use super::simd::{
    BANK, COARSE_BITS, CoarseSteps, LowBytes, MOST_BITS, Pairs, Ratios, Simd, Slots, Steps, WIDE_CLASS_BITS,
    WIDE_SYMBOL_BITS, ratio,
};
use crate::model::{Context, Model, Table};

/// For how many symbols and classes a row is compiled; an index is `class << levels | symbol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Up to 8 symbols.
    Of8,
    /// Up to 16 symbols.
    Of16,
    /// Up to 32 symbols.
    Of32,
    /// Up to 64 symbols.
    Of64,
    /// Up to 256 symbols.
    Of256,
    /// Up to 256 symbols, decoded without asking for the symbol first: the slot is the index.
    OfSlots,
    /// The same with frequencies that are multiples of four: four slots have one entry.
    OfCoarseSlots,
    /// Up to 8 symbols in up to 8 classes.
    Of8In8,
    /// Up to 16 symbols in up to 4 classes.
    Of16In4,
    /// Up to 16 symbols in up to 8 classes.
    Of16In8,
    /// Up to 32 symbols in up to 8 classes.
    Of32In8,
    /// Up to 256 symbols in up to 8 classes.
    Of256In8,
}

impl Kernel {
    fn of(alphabet: usize, classes: usize) -> Self {
        match (alphabet, classes) {
            (..=8, 1) => Self::Of8,
            (..=16, 1) => Self::Of16,
            (..=32, 1) => Self::Of32,
            (..=64, 1) => Self::Of64,
            (_, 1) => Self::Of256,
            (..=8, _) => Self::Of8In8,
            (..=16, ..=4) => Self::Of16In4,
            (..=16, _) => Self::Of16In8,
            (..=32, _) => Self::Of32In8,
            _ => Self::Of256In8,
        }
    }

    /// Bits of a symbol and of a class in an index.
    pub(super) const fn bits(self) -> (u32, u32) {
        match self {
            Self::Of8 => (3, 0),
            Self::Of16 => (4, 0),
            Self::Of32 => (5, 0),
            Self::Of64 => (6, 0),
            Self::Of256 => (WIDE_SYMBOL_BITS, 0),
            Self::OfSlots => (MOST_BITS, 0),
            Self::OfCoarseSlots => (COARSE_BITS, 0),
            Self::Of8In8 => (3, 3),
            Self::Of16In4 => (4, 2),
            Self::Of16In8 => (4, 3),
            Self::Of32In8 => (5, 3),
            Self::Of256In8 => (WIDE_SYMBOL_BITS, WIDE_CLASS_BITS),
        }
    }

    const fn index_bits(self) -> u32 {
        let (levels, class_bits) = self.bits();
        levels + class_bits
    }
}

/// Where a decoder looks things up, given the bits of an index and of the largest [`Bank`] to be kept in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Everything in registers.
    Registers,
    /// The search in registers; frequencies, which take a bit more, in memory.
    Both,
    /// Everything in memory.
    Memory,
    /// Everything in memory, by slot instead of by symbol.
    Slots,
    /// The same by sets of four slots.
    CoarseSlots,
}

impl Place {
    pub(super) const fn of(index_bits: u32, bank_bits: u32) -> Self {
        if index_bits == MOST_BITS {
            Self::Slots
        } else if index_bits == COARSE_BITS {
            Self::CoarseSlots
        } else if index_bits <= bank_bits {
            Self::Registers
        } else if index_bits == bank_bits + 1 {
            Self::Both
        } else {
            Self::Memory
        }
    }
}

/// Whether the lane algorithms are made for a model; the reference is, for any.
pub(super) fn covers(model: &Model) -> bool {
    let alphabet = model.tables()[0].frequencies().len();
    !matches!(model.context, Context::Segments { .. }) && alphabet <= 1 << WIDE_SYMBOL_BITS
}

/// What looks things up, and how much that is worth preparing for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LookUps {
    /// Bits of the largest [`Bank`] to be kept in registers; 0 if nothing is to be.
    pub(super) bank_bits: u32,
    /// Whether large alphabets are looked up by slot.
    pub(super) by_slot: bool,
    /// Whether they are looked up by sets of four slots, where frequencies allow it.
    pub(super) by_coarse_slot: bool,
}

impl LookUps {
    /// Nothing kept in registers: code without vectors.
    pub(super) const PLAIN: Self = Self { bank_bits: 0, by_slot: false, by_coarse_slot: false };

    /// Those of a backend, for this many symbols.
    pub(super) fn of<S: Simd>(symbols: usize) -> Self {
        Self {
            bank_bits: S::BANK_BITS,
            by_slot: S::LOOKS_UP_STEPS && symbols >= BY_SLOT_FROM,
            by_coarse_slot: S::LOOKS_UP_COARSE_STEPS && symbols >= COARSE_FROM,
        }
    }
}

/// Symbols that are worth an entry for each slot: about as many as there are slots.
const BY_SLOT_FROM: usize = 1 << MOST_BITS;

/// Symbols that are worth an entry for each set of four slots: from here on a decoder gains by frequencies that are
/// multiples of four.
pub(crate) const COARSE_FROM: usize = 1 << COARSE_BITS;

/// What is made of a model for either direction, and which model that was.
pub(super) struct Basis {
    pub(super) kernel: Kernel,
    /// Probability bits.
    pub(super) bits: u32,
    /// The class of each bin of a neighbours' sum, and by how much a sum is shifted down to its bin.
    pub(super) class_of_bin: [u8; 64],
    pub(super) bin_shift: u32,
    look_ups: LookUps,
    context: Context,
    /// The frequencies of all tables; none before the first model.
    frequencies: Vec<u16>,
}

impl Default for Basis {
    fn default() -> Self {
        Self {
            kernel: Kernel::Of8,
            bits: 0,
            class_of_bin: [0; 64],
            bin_shift: 0,
            look_ups: LookUps::PLAIN,
            context: Context::None,
            frequencies: Vec::new(),
        }
    }
}

impl Basis {
    /// Take up a model, to be looked up like this; false if nothing changed.
    fn set(&mut self, model: &Model, look_ups: LookUps) -> bool {
        let tables = model.tables();
        let alphabet = tables[0].frequencies().len();
        let same = self.bits == tables[0].bits()
            && self.look_ups == look_ups
            && self.context == model.context
            && self.frequencies.len() == alphabet * tables.len()
            && self.frequencies.chunks_exact(alphabet).zip(tables).all(|(f, table)| f == table.frequencies());
        if same {
            return false;
        }
        self.look_ups = look_ups;
        self.bits = tables[0].bits();
        self.context = model.context.clone();
        self.frequencies.clear();
        tables.iter().for_each(|table| self.frequencies.extend_from_slice(table.frequencies()));
        self.kernel = Kernel::of(alphabet, tables.len());
        // One class, unless neighbours tell.
        self.class_of_bin = [0; 64];
        if let Context::Neighbours(classes) = &model.context {
            let (of_bin, shift) = classes.bins_and_shift();
            (self.class_of_bin, self.bin_shift) = (*of_bin, shift);
        }
        true
    }

    /// Take up the next model as if it were another.
    #[cfg(feature = "stages")]
    pub(super) fn forget(&mut self) {
        self.frequencies.clear();
    }

    /// Whether neighbours choose among several classes.
    pub(super) fn has_classes(&self) -> bool {
        self.context.tables() > 1
    }
}

/// Tables to decode with.
#[derive(Default)]
pub(super) struct DecodeTables {
    pub(super) basis: Basis,
    /// For each bit of a symbol from the top, by the class and the bits above: one less than the
    /// cumulative frequency from which on the bit is 1.
    pub(super) boundaries: [Bank; 8],
    /// By class and symbol: `f << (16 - b)`, and `c`.
    pub(super) scaled: Bank,
    pub(super) cumulative: Bank,
    /// As `scaled` in the lower half and `cumulative` in the upper one.
    pub(super) pairs: Option<Box<Pairs>>,
    pub(super) slots: Option<Box<Slots>>,
    pub(super) steps: Option<Box<Steps>>,
    pub(super) coarse_steps: Option<Box<CoarseSteps>>,
    pub(super) low_bytes: LowByteTable,
}

/// Tables to encode with.
#[derive(Default)]
pub(super) struct EncodeTables {
    pub(super) basis: Basis,
    /// By class and symbol: `f`, `c`, and the first [`ratio`]s.
    pub(super) frequency: Bank,
    pub(super) cumulative: Bank,
    pub(super) ratio: Ratios,
    /// `f`, and `c` above it.
    pub(super) pairs: Option<Box<Pairs>>,
    pub(super) divisors: Option<Box<Divisors>>,
}

/// Frequencies to divide by, by class and symbol (`class << 8 | symbol`).
pub(super) type Divisors = [Divisor; 1 << (WIDE_CLASS_BITS + WIDE_SYMBOL_BITS)];

/// A frequency `f` to divide states by.
#[derive(Clone, Copy, Default)]
pub(super) struct Divisor {
    /// `(2^64 - 1) / f`, rounded down.
    reciprocal: u64,
    /// `f << (32 - b)`: where a word goes out.
    pub(super) limit: u32,
    /// `2^b - f`.
    pub(super) rest: u16,
    pub(super) cumulative: u16,
}

impl Divisor {
    fn new(f: u16, cumulative: u16, bits: u32) -> Self {
        let reciprocal = u64::MAX / u64::from(f.max(1));
        Self { reciprocal, limit: u32::from(f) << (32 - bits), rest: (1 << bits) - f, cumulative }
    }

    /// `x / f`, exactly.
    ///
    /// With `r = (2^64 - 1) % f`, the reciprocal is `(2^64 - 1 - r) / f` and `(x + 1) * reciprocal / 2^64` is less than
    /// `(x + 1) / f` by `(x + 1) * (1 + r) / 2^64 / f`, which is more than 0 and, as `x + 1 <= 2^32` and
    /// `1 + r <= 2^14`, less than `1 / f`: it lies in `x / f .. (x + 1) / f`, where no whole number but `x / f` can be.
    #[inline(always)]
    pub(super) fn quotient(&self, x: u32) -> u32 {
        ((u128::from(u64::from(x) + 1) * u128::from(self.reciprocal)) >> 64) as u32
    }
}

/// A table of up to 128 entries, which registers can hold.
#[derive(Clone, Copy)]
pub(super) struct Bank(pub(super) [u16; BANK]);

impl Default for Bank {
    fn default() -> Self {
        Self([0; BANK])
    }
}

/// [`LowBytes`] that start as zeros.
#[derive(Clone, Copy)]
pub(super) struct LowByteTable(pub(super) LowBytes);

impl Default for LowByteTable {
    fn default() -> Self {
        Self([0; _])
    }
}

/// Zeros that never lie on the stack.
#[allow(clippy::unnecessary_box_returns, reason = "arrays of up to 128 KiB")]
fn zeros<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N].try_into().unwrap_or_else(|_| unreachable!("a vector of N"))
}

impl DecodeTables {
    /// Make the tables of a model that is [covered](covers), unless they are made; see [`Basis::set`].
    pub(super) fn set(&mut self, model: &Model, look_ups: LookUps) {
        if !self.basis.set(model, look_ups) {
            return;
        }
        let LookUps { bank_bits, by_slot, by_coarse_slot } = look_ups;
        if by_coarse_slot && matches!(self.basis.kernel, Kernel::Of64 | Kernel::Of256) {
            let table = &model.tables()[0];
            if table.bits() == MOST_BITS && table.frequencies().iter().all(|f| f % 4 == 0) {
                self.basis.kernel = Kernel::OfCoarseSlots;
                return self.set_coarse_steps(table);
            }
        }
        if self.basis.kernel == Kernel::Of256 && by_slot {
            self.basis.kernel = Kernel::OfSlots;
            return self.set_steps(&model.tables()[0]);
        }
        if Place::of(self.basis.kernel.index_bits(), bank_bits) == Place::Memory {
            let one_class = bank_bits > 0 && !self.basis.has_classes();
            self.basis.kernel = if one_class { Kernel::Of256 } else { Kernel::Of256In8 };
        }
        let (levels, _) = self.basis.kernel.bits();
        let place = Place::of(self.basis.kernel.index_bits(), bank_bits);
        for (class, table) in model.tables().iter().enumerate() {
            if place == Place::Memory {
                set_slots(self.slots.get_or_insert_with(zeros), class, table);
            } else {
                self.set_boundaries(class, table);
            }
            let scale = 16 - table.bits();
            let symbols = table.frequencies().iter().zip(table.cumulative()).enumerate();
            let indexed = symbols.map(|(symbol, (&f, &c))| (class << levels | symbol, f << scale, c));
            if place == Place::Registers {
                for (index, scaled, c) in indexed {
                    (self.scaled.0[index], self.cumulative.0[index]) = (scaled, c);
                }
            } else {
                let pairs = self.pairs.get_or_insert_with(zeros);
                for (index, scaled, c) in indexed {
                    pairs[index] = u32::from(c) << 16 | u32::from(scaled);
                }
            }
        }
    }

    fn set_steps(&mut self, table: &Table) {
        let scale = 16 - table.bits();
        let steps = self.steps.get_or_insert_with(zeros);
        let ranges = table.frequencies().iter().zip(table.cumulative());
        for (symbol, (&f, &c)) in ranges.enumerate() {
            let [low, high] = (f << scale).to_le_bytes();
            self.low_bytes.0[symbol] = low;
            let first = u32::from_le_bytes([symbol as u8, high, 0, 0]);
            let range = usize::from(c)..usize::from(c) + usize::from(f);
            for (offset, step) in steps[range].iter_mut().enumerate() {
                *step = (offset as u32) << 16 | first;
            }
        }
    }

    fn set_coarse_steps(&mut self, table: &Table) {
        let steps = self.coarse_steps.get_or_insert_with(zeros);
        let mut left = steps.as_mut_slice();
        for (symbol, &f) in table.frequencies().iter().enumerate() {
            let first = (symbol & 0x0f | symbol >> 4 << 16) as u32 | u32::from(f) << 2;
            let range;
            (range, left) = left.split_at_mut(usize::from(f / 4));
            range.iter_mut().enumerate().for_each(|(offset, step)| *step = (offset as u32) << 20 | first);
        }
    }

    fn set_boundaries(&mut self, class: usize, table: &Table) {
        let (levels, _) = self.basis.kernel.bits();
        let full = 1 << table.bits();
        let c = |symbol: usize| table.cumulative().get(symbol).copied().unwrap_or(full);
        for (level, bank) in self.boundaries[..levels as usize].iter_mut().enumerate() {
            let half = 1 << (levels as usize - 1 - level);
            for above in 0..1 << level {
                bank.0[class << level | above] = c(2 * half * above + half).wrapping_sub(1);
            }
        }
    }
}

fn set_slots(slots: &mut Slots, class: usize, table: &Table) {
    debug_assert!(table.bits() <= MOST_BITS && class < 1 << WIDE_CLASS_BITS);
    let slots = &mut slots[class << table.bits()..];
    for (symbol, (&f, &c)) in table.frequencies().iter().zip(table.cumulative()).enumerate() {
        // In whole steps: what goes too far is written over by the symbols and classes that follow.
        for at in (0..f.into()).step_by(32) {
            let at = usize::from(c) + at;
            match slots[at..].first_chunk_mut::<32>() {
                Some(step) => *step = [symbol as u8; 32],
                None => slots[at..].fill(symbol as u8),
            }
        }
    }
}

impl EncodeTables {
    /// As [`DecodeTables::set`].
    pub(super) fn set(&mut self, model: &Model, look_ups: LookUps) {
        if !self.basis.set(model, look_ups) {
            return;
        }
        let bank_bits = look_ups.bank_bits;
        if bank_bits == 0 {
            self.basis.kernel = Kernel::Of256In8;
        }
        let (levels, _) = self.basis.kernel.bits();
        let in_registers = Place::of(self.basis.kernel.index_bits(), bank_bits) == Place::Registers;
        let mut pairs = (!in_registers).then(|| self.pairs.get_or_insert_with(zeros));
        let mut divisors = (bank_bits == 0).then(|| self.divisors.get_or_insert_with(zeros));
        for (class, table) in model.tables().iter().enumerate() {
            for (symbol, (&f, &c)) in table.frequencies().iter().zip(table.cumulative()).enumerate() {
                let index = class << levels | symbol;
                if let Some(divisors) = &mut divisors {
                    divisors[index] = Divisor::new(f, c, table.bits());
                }
                if let Some(pairs) = &mut pairs {
                    pairs[index] = u32::from(c) << 16 | u32::from(f);
                } else {
                    self.frequency.0[index] = f;
                    self.cumulative.0[index] = c;
                    if let Some(entry) = self.ratio.get_mut(index) {
                        *entry = ratio(f);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_exact_where_they_change() {
        for f in 1..1 << MOST_BITS {
            let divisor = Divisor::new(f, 0, MOST_BITS);
            let f = u32::from(f);
            let last = u32::MAX / f;
            let few = [1, 2, 3, last / 3, last / 2, last - 1, last];
            let exact = few.iter().flat_map(|&q| [-1_i64, 0, 1].map(|d| i64::from(q) * i64::from(f) + d));
            for x in exact.chain([0, u32::MAX.into()]).filter_map(|x| u32::try_from(x).ok()) {
                assert_eq!(divisor.quotient(x), x / f, "{x} / {f}");
            }
        }
    }
}
