//! Counting symbols by the sum of their neighbours, straight from row-major order.
//!
//! Indices are computed in vectors; counting takes one increment for each symbol, or with AVX-512 only for
//! those that are not zero among zeros.

#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::neighbours;

use std::ops::Range;

use crate::cpu::Path;
use crate::simd::for_paths;

use super::neighbours::{Neighbours, Run};
use super::{Classes, Context};

/// Symbols whose indices are computed together.
const BLOCK: usize = 512;
/// Symbols of a step, of which a sample takes some whole.
const STEP: usize = 64;
/// Counters of alphabets up to 32: 63 bins of 32 symbols.
const SMALL: usize = 2048;
/// Alphabets up to this one are counted as if they were as large: then a product is a shift.
const SPACE: u16 = 16;
/// Counters of alphabets up to 256: 64 bins of 256 symbols.
const LARGE: usize = 1 << 14;
/// Tables that take turns, so that equal neighbours do not wait for each other's count.
const TABLES: usize = 4;

/// Counters, made when they are needed and kept between calls; all zero between them.
#[derive(Default)]
pub(crate) struct BinCounter {
    small: Vec<[u32; SMALL]>,
    large: Vec<u32>,
    edges: Vec<u8>,
    /// Symbols in the coded order, which only the reference needs.
    coded: Vec<u8>,
}

/// The steps of a run that are counted: one of `every`, from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    first: usize,
    every: usize,
}

impl Sample {
    /// Where the symbols of each step of a run lie.
    #[inline(always)]
    fn steps(self, length: usize) -> impl Iterator<Item = Range<usize>> {
        let starts = (self.first * STEP..length).step_by(self.every * STEP);
        starts.map(move |start| start..length.min(start + STEP))
    }
}

/// How a sum and a symbol make an index.
#[derive(Clone, Copy)]
pub(super) struct Index {
    shift: u32,
    alphabet: u16,
}

impl BinCounter {
    /// Count symbols by their neighbours' sum: `counts[bin * alphabet + symbol]`.
    pub(crate) fn count(
        &mut self,
        path: Path,
        symbols: &Neighbours<'_>,
        alphabet: usize,
        counts: &mut Vec<u32>,
    ) {
        if path == Path::Reference {
            return self.count_coded(symbols, symbols.rows.count().max(1), alphabet, counts);
        }
        self.sample(path, symbols, alphabet, 1, counts);
    }

    /// As [`BinCounter::count`], of one step of 64 symbols in `every`: the same on every path.
    pub(crate) fn sample(
        &mut self,
        path: Path,
        symbols: &Neighbours<'_>,
        alphabet: usize,
        every: usize,
        counts: &mut Vec<u32>,
    ) {
        let index = Index::spaced(alphabet);
        let mut edges = std::mem::take(&mut self.edges);
        let mut steps = 0;
        symbols.runs(&mut edges, |run| {
            // As if runs followed one another in steps.
            let first = (every - steps % every) % every;
            steps += run.symbols.len().div_ceil(STEP);
            self.add(path, run, index, Sample { first, every });
        });
        self.edges = edges;
        self.finish(alphabet, counts);
    }

    /// Correct counts by class (`counts[class * alphabet + symbol]`) of all symbols in one chunk for chunks of
    /// `chunk_rows` rows, whole lines: where these begin within planes, their first lines have other neighbours.
    pub(crate) fn cut(
        &mut self,
        path: Path,
        symbols: &Neighbours<'_>,
        chunk_rows: usize,
        (classes, alphabet): (&Classes, usize),
        counts: &mut Vec<u32>,
    ) {
        if path == Path::Reference {
            self.count_coded(symbols, chunk_rows, alphabet, counts);
            return classes.fold(counts);
        }
        let (of_bin, shift) = classes.bins_and_shift();
        symbols.at_cuts(chunk_rows, |symbol, sums| {
            let [from, to] = sums
                .map(|sum| usize::from(of_bin[usize::from(sum >> shift)]) * alphabet + usize::from(symbol));
            counts[from] -= 1;
            counts[to] += 1;
        });
    }

    /// What the specification counts, in the coded order.
    fn count_coded(
        &mut self,
        symbols: &Neighbours<'_>,
        chunk_rows: usize,
        alphabet: usize,
        counts: &mut Vec<u32>,
    ) {
        let Neighbours { natural, planes, rows } = *symbols;
        rows.gather(Path::Reference, planes, natural, &mut self.coded);
        Context::count_by_sum(&self.coded, rows, chunk_rows, alphabet, counts);
    }

    fn add(&mut self, path: Path, run: Run<'_>, index: Index, sample: Sample) {
        if index.alphabet <= 32 {
            self.small.resize(TABLES, [0; SMALL]);
            let small = self.small.as_mut_slice().try_into().expect("it has this length");
            add_small(path, small, run, index, sample);
        } else {
            self.large.resize(LARGE, 0);
            let large = self.large.as_mut_slice().try_into().expect("it has this length");
            add_large(path, large, run, index, sample);
        }
    }

    /// Move what was counted to `counts`.
    fn finish(&mut self, alphabet: usize, counts: &mut Vec<u32>) {
        let bins = Classes::bins(alphabet);
        counts.clear();
        if alphabet <= 32 {
            let space = usize::from(Index::spaced(alphabet).alphabet);
            counts.resize(bins * alphabet, 0);
            for table in &mut self.small {
                let used = &mut table[..bins * space];
                for (counts, bin) in counts.chunks_exact_mut(alphabet).zip(used.chunks_exact(space)) {
                    counts.iter_mut().zip(bin).for_each(|(sum, n)| *sum += n);
                }
                used.fill(0);
            }
        } else {
            let large = &mut self.large[..bins * alphabet];
            counts.extend_from_slice(large);
            large.fill(0);
        }
    }
}

for_paths! {
    fn add_small(tables: &mut [[u32; SMALL]; TABLES], run: Run<'_>, index: Index, sample: Sample) = small, avx512 avx512::small
}
for_paths! {
    fn add_large(table: &mut [u32; LARGE], run: Run<'_>, index: Index, sample: Sample) = large
}

#[inline(always)]
fn small(tables: &mut [[u32; SMALL]; TABLES], run: Run<'_>, index: Index, sample: Sample) {
    for_indices_of(run, index, sample, |indices| increment(tables, indices));
}

#[inline(always)]
fn large(table: &mut [u32; LARGE], run: Run<'_>, index: Index, sample: Sample) {
    for_indices_of(run, index, sample, |indices| {
        indices.iter().for_each(|&k| table[k as usize % LARGE] += 1);
    });
}

/// Count indices in all tables in turns.
#[inline(always)]
fn increment(tables: &mut [[u32; SMALL]; TABLES], indices: &[u16]) {
    let [a, b, c, d] = tables;
    let (fours, rest) = indices.as_chunks::<TABLES>();
    for &four in fours {
        // One load for four.
        let four: u64 = bytemuck::cast(four);
        a[four as usize % SMALL] += 1;
        b[(four >> 16) as usize % SMALL] += 1;
        c[(four >> 32) as usize % SMALL] += 1;
        d[(four >> 48) as usize % SMALL] += 1;
    }
    rest.iter().for_each(|&k| a[k as usize % SMALL] += 1);
}

/// The indices of the symbols of a sample, some at a time.
#[inline(always)]
fn for_indices_of(run: Run<'_>, index: Index, sample: Sample, mut count: impl FnMut(&[u16])) {
    if sample.every == 1 {
        return for_indices(run, index, count);
    }
    for step in sample.steps(run.symbols.len()) {
        for_indices(run.part(step), index, &mut count);
    }
}

/// The indices of a run's symbols, some at a time.
#[inline(always)]
pub(super) fn for_indices(run: Run<'_>, index: Index, mut count: impl FnMut(&[u16])) {
    let mut indices = [0; BLOCK];
    for start in (0..run.symbols.len()).step_by(BLOCK) {
        let part = run.part(start..run.symbols.len().min(start + BLOCK));
        part.sums(|k, sum, symbol| indices[k] = index.of(sum, symbol));
        count(&indices[..part.symbols.len()]);
    }
}

impl Index {
    /// `bin * alphabet + symbol`.
    pub(super) fn new(alphabet: usize) -> Self {
        Self { shift: Classes::shift(alphabet), alphabet: alphabet as u16 }
    }

    /// The same with at least [`SPACE`] places for a bin's symbols.
    fn spaced(alphabet: usize) -> Self {
        Self { alphabet: (alphabet as u16).max(SPACE), ..Self::new(alphabet) }
    }

    #[inline(always)]
    fn of(self, sum: u16, symbol: u8) -> u16 {
        (sum >> self.shift) * self.alphabet + u16::from(symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Planes, Rows};
    use crate::tensor::Shape;

    #[test]
    fn every_path_counts_what_the_coded_order_counts() {
        let (mut counter, mut coded, mut counts, mut expected) =
            (BinCounter::default(), Vec::new(), Vec::new(), Vec::new());
        let shapes: [(&[usize], usize); 9] = [
            (&[3, 5, 7], 0),
            (&[40, 9, 6], 0),
            (&[2, 33, 1, 50], 1),
            (&[12, 1], 0),
            (&[31, 48], 1),
            (&[5, 6, 70], 2),
            (&[9], 0),
            (&[3, 28, 28], 0),
            (&[7, 40], 0),
        ];
        let mut state = 1_u64;
        for (dims, axis) in shapes {
            let planes = Planes::new(&Shape::new(dims).unwrap(), axis).unwrap();
            for alphabet in [2_usize, 6, 16, 32, 33, 200, 256] {
                let natural: Vec<u8> = (0..dims.iter().product())
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let symbol = (state >> 33) as usize % alphabet;
                        if state >> 62 == 0 { 0 } else { symbol as u8 }
                    })
                    .collect();
                for lanes in [1, 4, 32] {
                    let rows = Rows::of_planes(&planes, lanes);
                    let symbols = Neighbours { natural: &natural, planes: &planes, rows: &rows };
                    rows.gather(Path::Reference, &planes, &natural, &mut coded);
                    Context::count_by_sum(&coded, &rows, rows.count(), alphabet, &mut expected);
                    for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                        counter.count(path, &symbols, alphabet, &mut counts);
                        assert_eq!(counts, expected, "{path:?} {dims:?} {alphabet} {lanes}");
                    }
                    for every in [1, 2, 7] {
                        let mut sampled = Vec::new();
                        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                            counter.sample(path, &symbols, alphabet, every, &mut counts);
                            if path == Path::Reference {
                                sampled.clone_from(&counts);
                            }
                            assert_eq!(counts, sampled, "{path:?} {dims:?} {alphabet} one in {every}");
                        }
                        assert!(sampled.iter().zip(&expected).all(|(part, all)| part <= all));
                    }
                    let classes = Classes::merge(alphabet, &mut expected, 4.5);
                    for lines in [1, 2, 3, usize::MAX / rows.line()] {
                        let chunk_rows = (lines * rows.line()).min(rows.count());
                        let mut cut = Vec::new();
                        Context::count_by_sum(&coded, &rows, chunk_rows, alphabet, &mut cut);
                        classes.fold(&mut cut);
                        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                            counts.clone_from(&expected);
                            counter.cut(path, &symbols, chunk_rows, (&classes, alphabet), &mut counts);
                            assert_eq!(counts, cut, "{path:?} {dims:?} {alphabet} {lanes} {lines}");
                        }
                    }
                }
            }
        }
    }
}
