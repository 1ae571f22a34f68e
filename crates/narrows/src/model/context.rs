//! Which table codes which symbol.

use std::ops::Range;

use super::histogram;
use crate::bits::{BitReader, BitWriter, width_of};
use crate::layout::Rows;
use crate::rans::Symbol;

/// The largest number of classes, and so of tables, of a neighbour context.
pub const MAX_CLASSES: usize = 8;
/// The sums of two neighbours are told apart in at most this many bins.
const MAX_BINS: usize = 64;
const CLASSES_WIDTH: u32 = 3;

/// How the sum of a symbol's left and upper neighbour chooses its table.
///
/// The sum lies in `0..=2 * (alphabet - 1)`; its bin is `sum >> shift` with the least shift that leaves
/// at most 64 bins, and a class is a run of bins. At the left edge of a plane (or of a chunk's first row)
/// the upper neighbour is taken twice, at the upper edge the left one, and at the very first position
/// both are symbol 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Classes {
    alphabet: usize,
    count: usize,
    of_bin: [u8; MAX_BINS],
}

impl Default for Classes {
    fn default() -> Self {
        Self { alphabet: 2, count: 1, of_bin: [0; MAX_BINS] }
    }
}

impl Classes {
    /// What a sum is shifted down by to give its bin.
    pub(crate) fn shift(alphabet: usize) -> u32 {
        width_of(2 * alphabet - 1).saturating_sub(width_of(MAX_BINS))
    }

    /// Bins of the neighbours' sum for this alphabet.
    pub(crate) fn bins(alphabet: usize) -> usize {
        ((2 * (alphabet - 1)) >> Self::shift(alphabet)) + 1
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn of_sum(&self, sum: usize) -> u8 {
        self.of_bin[sum >> Self::shift(self.alphabet)]
    }

    /// The class of each bin, and by how much a sum is shifted down to its bin.
    pub(crate) fn bins_and_shift(&self) -> (&[u8; MAX_BINS], u32) {
        (&self.of_bin, Self::shift(self.alphabet))
    }

    /// Add up counts by bin to counts by class.
    pub(crate) fn fold(&self, counts: &mut Vec<u32>) {
        let alphabet = self.alphabet;
        let mut starts = [0; MAX_CLASSES + 1];
        starts[self.count] = Self::bins(alphabet);
        starts[1..self.count].iter_mut().zip(self.starts()).for_each(|(start, bin)| *start = bin);
        for class in 0..self.count {
            let bins = starts[class] * alphabet..starts[class + 1] * alphabet;
            let into = class * alphabet;
            for symbol in 0..alphabet {
                counts[into + symbol] = counts[bins.clone()].iter().skip(symbol).step_by(alphabet).sum();
            }
        }
        counts.truncate(self.count * alphabet);
    }

    /// The class of each bin.
    pub(crate) const fn of_bins(&self) -> &[u8; MAX_BINS] {
        &self.of_bin
    }

    /// Classes whose first bins (all but the first class's, which is 0) are `starts`.
    pub(crate) fn from_starts(alphabet: usize, starts: &[usize]) -> Self {
        let mut classes = Self { alphabet, count: starts.len() + 1, of_bin: [0; MAX_BINS] };
        for (bin, class) in classes.of_bin.iter_mut().enumerate() {
            *class = starts.iter().filter(|&&start| start <= bin).count() as u8;
        }
        classes
    }

    fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        (1..MAX_BINS).filter(|&bin| self.of_bin[bin] != self.of_bin[bin - 1])
    }

    /// Merge the bins of `counts` (bins x alphabet) to the classes that code them in the fewest bits,
    /// tables of about `bits_per_entry` for each symbol in use included, and merge their counts alike.
    ///
    /// Neighbouring bins are merged pair by pair, the most gainful first, until every merge left would
    /// cost bits and no more than [`MAX_CLASSES`] remain.
    pub(crate) fn merge(alphabet: usize, counts: &mut Vec<u32>, bits_per_entry: f64) -> Self {
        let mut runs = Runs::new(alphabet, counts, bits_per_entry);
        while let Some(left) = runs.next_merge() {
            runs.merge(left);
        }
        let (starts, count) = (runs.start, runs.count);
        for (class, &start) in starts[..count].iter().enumerate() {
            counts.copy_within(start * alphabet..(start + 1) * alphabet, class * alphabet);
        }
        counts.truncate(count * alphabet);
        Self::from_starts(alphabet, &starts[1..count])
    }

    pub(crate) fn write(&self, bits: &mut BitWriter<'_>) {
        bits.put(self.count as u32 - 1, CLASSES_WIDTH);
        let width = width_of(Self::bins(self.alphabet));
        self.starts().for_each(|start| bits.put(start as u32, width));
    }

    pub(crate) fn read(bits: &mut BitReader<'_>, alphabet: usize) -> Result<Self, &'static str> {
        let bins = Self::bins(alphabet);
        let count = bits.take(CLASSES_WIDTH).ok_or("the classes end early")? as usize;
        let mut starts = [0; MAX_CLASSES];
        for index in 0..count {
            let start = bits.take(width_of(bins)).ok_or("the classes end early")? as usize;
            let least = if index == 0 { 1 } else { starts[index - 1] + 1 };
            if start < least || start >= bins {
                return Err("a class starts out of order or beyond the bins");
            }
            starts[index] = start;
        }
        Ok(Self::from_starts(alphabet, &starts[..count]))
    }
}

/// Neighbouring bins on their way to classes.
struct Runs<'a> {
    alphabet: usize,
    bits_per_entry: f64,
    /// Counts of bins; those of a run are summed in its first bin's place.
    counts: &'a mut [u32],
    /// Runs left over.
    count: usize,
    /// The first bin of each.
    start: [usize; MAX_BINS],
    /// What each costs, bits.
    cost: [f64; MAX_BINS],
    /// What each would cost together with its right neighbour.
    merged: [f64; MAX_BINS],
}

impl<'a> Runs<'a> {
    fn new(alphabet: usize, counts: &'a mut [u32], bits_per_entry: f64) -> Self {
        let (start, cost, merged) = ([0; MAX_BINS], [0.0; MAX_BINS], [0.0; MAX_BINS]);
        let mut runs = Self { alphabet, bits_per_entry, counts, count: 0, start, cost, merged };
        for bin in 0..Classes::bins(alphabet) {
            // Empty bins cost nothing and join their left neighbour at once.
            if bin > 0 && runs.of_bin(bin).iter().all(|&n| n == 0) {
                continue;
            }
            runs.start[runs.count] = bin;
            runs.cost[runs.count] = runs.bits(runs.of_bin(bin).iter().copied());
            runs.count += 1;
        }
        (1..runs.count).for_each(|right| runs.merged[right - 1] = runs.bits_together(right - 1));
        runs
    }

    fn of_bin(&self, bin: usize) -> &[u32] {
        &self.counts[bin * self.alphabet..(bin + 1) * self.alphabet]
    }

    /// Bits of the symbols counted and of their table.
    fn bits(&self, counts: impl Iterator<Item = u32> + Clone) -> f64 {
        let present = counts.clone().map(|n| u32::from(n > 0)).sum::<u32>();
        histogram::entropy_bits(counts) + self.bits_per_entry * f64::from(present)
    }

    /// Bits of run `left` and the one after it as one.
    fn bits_together(&self, left: usize) -> f64 {
        let (a, b) = (self.of_bin(self.start[left]), self.of_bin(self.start[left + 1]));
        self.bits(a.iter().zip(b).map(|(a, b)| a + b))
    }

    /// The left one of the two runs to merge next, if any are.
    fn next_merge(&self) -> Option<usize> {
        let loss = |left: usize| self.merged[left] - self.cost[left] - self.cost[left + 1];
        let left = (0..self.count.saturating_sub(1)).min_by(|&a, &b| loss(a).total_cmp(&loss(b)))?;
        (loss(left) <= 0.0 || self.count > MAX_CLASSES).then_some(left)
    }

    fn merge(&mut self, left: usize) {
        let (into, from) = (self.start[left] * self.alphabet, self.start[left + 1] * self.alphabet);
        let (a, b) = self.counts.split_at_mut(from);
        a[into..into + self.alphabet].iter_mut().zip(&*b).for_each(|(a, b)| *a += b);
        self.cost[left] = self.merged[left];
        self.start.copy_within(left + 2..self.count, left + 1);
        self.cost.copy_within(left + 2..self.count, left + 1);
        self.merged.copy_within(left + 1..self.count, left);
        self.count -= 1;
        if left > 0 {
            self.merged[left - 1] = self.bits_together(left - 1);
        }
        if left + 1 < self.count {
            self.merged[left] = self.bits_together(left);
        }
    }
}

/// What chooses a symbol's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Context {
    /// Nothing: one table for all.
    #[default]
    None,
    /// The symbols before and above it in its own lane.
    Neighbours(Classes),
    /// Its place in the stream: symbols before `ends[0]` have table 0, those before `ends[1]` table 1,
    /// the rest table 2.
    Segments {
        /// Where the first and the second segment end.
        ends: [usize; 2],
    },
}

impl Context {
    pub(crate) const fn tables(&self) -> usize {
        match self {
            Self::None => 1,
            Self::Neighbours(classes) => classes.count(),
            Self::Segments { .. } => 3,
        }
    }

    /// The tables of one row's symbols, written over `out`; `coded` holds the symbols of all rows of
    /// this chunk before it, and `first` is the chunk's first row.
    #[inline]
    pub(crate) fn of_row<S: Symbol>(
        &self,
        rows: &Rows,
        row: usize,
        first: usize,
        coded: &[S],
        out: &mut [u8],
    ) {
        match self {
            Self::None => out.fill(0),
            Self::Segments { ends } => {
                let start = rows.start(row);
                for (lane, table) in out.iter_mut().enumerate() {
                    *table = ends.iter().filter(|&&end| start + lane >= end).count() as u8;
                }
            }
            Self::Neighbours(classes) => {
                let lanes = out.len();
                Self::sums(rows, row, first, coded, lanes, |lane, sum| out[lane] = classes.of_sum(sum));
            }
        }
    }

    /// The sum of each lane's left and upper neighbour in row `row`.
    #[inline]
    fn sums<S: Symbol>(
        rows: &Rows,
        row: usize,
        first: usize,
        coded: &[S],
        lanes: usize,
        mut set: impl FnMut(usize, usize),
    ) {
        let (position, width) = (row % rows.positions(), rows.line());
        let base = rows.start(row) - rows.start(first);
        let has_left = !position.is_multiple_of(width) && row > first;
        let has_upper = position >= width && row - first >= width;
        // Rows of one group are equally long, so a neighbour lies a whole number of rows back.
        let (left, upper) = (base.wrapping_sub(lanes), base.wrapping_sub(width * lanes));
        let at = |start: usize, lane: usize| coded[start + lane].index();
        match (has_left, has_upper) {
            (true, true) => (0..lanes).for_each(|l| set(l, at(left, l) + at(upper, l))),
            (true, false) => (0..lanes).for_each(|l| set(l, 2 * at(left, l))),
            (false, true) => (0..lanes).for_each(|l| set(l, 2 * at(upper, l))),
            (false, false) => (0..lanes).for_each(|l| set(l, 0)),
        }
    }

    /// Count symbols by the bin of their neighbours' sum: `counts[bin * alphabet + symbol]`.
    /// `chunk_rows` is the number of rows of a chunk.
    pub(crate) fn count_by_sum<S: Symbol>(
        coded: &[S],
        rows: &Rows,
        chunk_rows: usize,
        alphabet: usize,
        counts: &mut Vec<u32>,
    ) {
        counts.clear();
        counts.resize(Classes::bins(alphabet) * alphabet, 0);
        let shift = Classes::shift(alphabet);
        for row in 0..rows.count() {
            let first = row / chunk_rows * chunk_rows;
            let (chunk, start, lanes) = (rows.start(first), rows.start(row), rows.width(row));
            Self::sums(rows, row, first, &coded[chunk..], lanes, |lane, sum| {
                counts[(sum >> shift) * alphabet + coded[start + lane].index()] += 1;
            });
        }
    }

    /// Count symbols by table: `counts[table * alphabet + symbol]`.
    pub(crate) fn count<S: Symbol>(
        &self,
        coded: &[S],
        rows: &Rows,
        chunk_rows: usize,
        alphabet: usize,
        counts: &mut Vec<u32>,
    ) {
        counts.clear();
        counts.resize(self.tables() * alphabet, 0);
        let mut tables = [0; crate::rans::MAX_LANES];
        for chunk in chunks(rows, chunk_rows) {
            let chunk_start = rows.start(chunk.start);
            for row in chunk.clone() {
                let (start, lanes) = (rows.start(row), rows.width(row));
                self.of_row(rows, row, chunk.start, &coded[chunk_start..], &mut tables[..lanes]);
                for (lane, &table) in tables[..lanes].iter().enumerate() {
                    counts[table as usize * alphabet + coded[start + lane].index()] += 1;
                }
            }
        }
    }
}

/// The row ranges of the chunks.
pub(crate) fn chunks(rows: &Rows, chunk_rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let count = rows.count();
    (0..count).step_by(chunk_rows.max(1)).map(move |first| first..count.min(first + chunk_rows))
}
