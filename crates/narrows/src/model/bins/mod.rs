//! Counting symbols by the sum of their neighbours, straight from row-major order.
//!
//! Which symbols are whose neighbours does not depend on lanes, so nothing needs to be brought into the coded
//! order to be counted: what is to the left is one symbol before (one row of channels, with the channels
//! last), what is above one line before. Indices are computed in vectors; counting takes one increment for
//! each symbol, or with AVX-512 only for those that are not zero among zeros.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::Path;
use crate::layout::{Planes, Rows};
use crate::simd::for_paths;

use super::Classes;

/// Symbols whose indices are computed together.
const BLOCK: usize = 512;
/// Counters of alphabets up to 32: 63 bins of 32 symbols.
const SMALL: usize = 2048;
/// Counters of alphabets up to 256: 64 bins of 256 symbols.
const LARGE: usize = 1 << 14;
/// Tables that take turns, so that equal neighbours do not wait for each other's count.
const TABLES: usize = 4;

/// Counters, made when they are needed and kept between calls; all zero between them.
#[derive(Default)]
pub(crate) struct BinCounter {
    small: Vec<[u32; SMALL]>,
    large: Vec<u32>,
    /// [`Run::edges`] of some planes in a row.
    edges: Vec<u8>,
}

/// Symbols in a row, and their neighbours.
#[derive(Clone, Copy)]
struct Run<'a> {
    symbols: &'a [u8],
    left: &'a [u8],
    above: &'a [u8],
    /// [`NO_LEFT`] and [`NO_ABOVE`] where those are not neighbours; empty if all are.
    edges: &'a [u8],
}

/// There is no left neighbour: the one above counts twice.
const NO_LEFT: u8 = 1;
/// There is no neighbour above: the left one counts twice.
const NO_ABOVE: u8 = 2;
/// Symbols of planes that are counted as one run, if planes are smaller.
const TILE: usize = 1024;

/// How a sum and a symbol make an index.
#[derive(Clone, Copy)]
struct Index {
    shift: u32,
    alphabet: u16,
}

impl BinCounter {
    /// Count the symbols of `natural` (row-major): `counts[bin * alphabet + symbol]`. Chunks of `chunk_rows` of
    /// the rows, whole lines each, begin without neighbours above.
    pub(crate) fn count(
        &mut self,
        path: Path,
        natural: &[u8],
        planes: &Planes,
        (rows, chunk_rows): (&Rows, usize),
        alphabet: usize,
        counts: &mut Vec<u32>,
    ) {
        debug_assert!(chunk_rows >= rows.count() || chunk_rows.is_multiple_of(rows.line()));
        let index = Index { shift: Classes::shift(alphabet), alphabet: alphabet as u16 };
        let mut edges = std::mem::take(&mut self.edges);
        let cut = chunk_rows < rows.count() && !chunk_rows.is_multiple_of(rows.positions());
        if !planes.channels_last() {
            set_edges(
                &mut edges,
                rows,
                if cut { 1 } else { (TILE / rows.positions()).clamp(1, planes.count()) },
            );
        }
        if !cut && planes.channels_last() {
            let side = planes.channels();
            self.count_side_by_side(
                path,
                natural,
                (side, 0..side),
                rows.line(),
                &(0..rows.positions()),
                index,
            );
        } else if !cut {
            // What lies before the first plane is not there to be left out.
            let (first, others) = (rows.positions(), natural.len() - rows.positions());
            self.count_plane(path, &natural[..first], rows.line(), &edges[..first], index);
            for start in (0..others).step_by(edges.len()) {
                let span = first + start..natural.len().min(first + start + edges.len());
                let before = |by: usize| &natural[span.start - by..span.end - by];
                let (left, above) = (before(1), before(rows.line()));
                let run = Run { symbols: before(0), left, above, edges: &edges[..span.len()] };
                self.add(path, run, index);
            }
        } else {
            self.count_cut(path, natural, planes, (rows, chunk_rows), &edges, index);
        }
        self.edges = edges;
        self.finish(alphabet, counts);
    }

    /// Count where chunks begin within planes: up to a chunk's end at a time.
    fn count_cut(
        &mut self,
        path: Path,
        natural: &[u8],
        planes: &Planes,
        (rows, chunk_rows): (&Rows, usize),
        edges: &[u8],
        index: Index,
    ) {
        let positions = rows.positions();
        for (number, group) in rows.groups().enumerate() {
            let mut top = 0;
            while top < positions {
                let row = number * positions + top;
                let next = (row / chunk_rows + 1) * chunk_rows - number * positions;
                let span = top..next.min(positions);
                if planes.channels_last() {
                    let lanes = (planes.channels(), group.first..group.first + group.width);
                    self.count_side_by_side(path, natural, lanes, rows.line(), &span, index);
                } else {
                    for plane in group.first..group.first + group.width {
                        let plane = &natural[plane * positions..][span.clone()];
                        self.count_plane(path, plane, rows.line(), edges, index);
                    }
                }
                top = span.end;
            }
        }
    }

    /// Count lines of one plane, of which the first has nothing above it.
    fn count_plane(&mut self, path: Path, plane: &[u8], line: usize, edges: &[u8], index: Index) {
        // The very first has no neighbours: its sum is zero.
        self.add(path, Run { symbols: &plane[..1], left: &[0], above: &[0], edges: &[] }, index);
        let left = &plane[..line - 1];
        self.add(path, Run { symbols: &plane[1..line], left, above: left, edges: &[] }, index);
        let (symbols, above) = (&plane[line..], &plane[..plane.len() - line]);
        let left = &plane[line - 1..plane.len() - 1];
        // Lines are all alike, but for the first.
        self.add(path, Run { symbols, left, above, edges: &edges[line..plane.len()] }, index);
    }

    /// Count positions `span` of the planes `lanes` out of `side` that lie side by side; the first line
    /// has nothing above it.
    fn count_side_by_side(
        &mut self,
        path: Path,
        natural: &[u8],
        (side, lanes): (usize, std::ops::Range<usize>),
        line: usize,
        span: &std::ops::Range<usize>,
        index: Index,
    ) {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        let row = |position: usize| &natural[position * side..][lanes.clone()];
        for position in span.clone() {
            let symbols = row(position);
            let left = (!position.is_multiple_of(line)).then(|| row(position - 1));
            let above = (position >= span.start + line).then(|| row(position - line));
            if let Some(one) = left.or(above) {
                let (left, above) = (left.unwrap_or(one), above.unwrap_or(one));
                self.add(path, Run { symbols, left, above, edges: &[] }, index);
            } else {
                for symbols in symbols.chunks(BLOCK) {
                    let zeros = &ZEROS[..symbols.len()];
                    self.add(path, Run { symbols, left: zeros, above: zeros, edges: &[] }, index);
                }
            }
        }
    }

    fn add(&mut self, path: Path, run: Run<'_>, index: Index) {
        if index.alphabet <= 32 {
            self.small.resize(TABLES, [0; SMALL]);
            let small = self.small.as_mut_slice().try_into().expect("it has this length");
            add_small(path, small, run, index);
        } else {
            self.large.resize(LARGE, 0);
            let large = self.large.as_mut_slice().try_into().expect("it has this length");
            add_large(path, large, run, index);
        }
    }

    /// Move what was counted to `counts`.
    fn finish(&mut self, alphabet: usize, counts: &mut Vec<u32>) {
        let used = Classes::bins(alphabet) * alphabet;
        counts.clear();
        if alphabet <= 32 {
            counts.resize(used, 0);
            for table in &mut self.small {
                counts.iter_mut().zip(&*table).for_each(|(sum, n)| *sum += n);
                table[..used].fill(0);
            }
        } else {
            let large = &mut self.large[..used];
            counts.extend_from_slice(large);
            large.fill(0);
        }
    }
}

for_paths! {
    fn add_small(tables: &mut [[u32; SMALL]; TABLES], run: Run<'_>, index: Index) = small, avx512 avx512::small
}
for_paths! {
    fn add_large(table: &mut [u32; LARGE], run: Run<'_>, index: Index) = large
}

#[inline(always)]
fn small(tables: &mut [[u32; SMALL]; TABLES], run: Run<'_>, index: Index) {
    for_indices(run, index, |indices| increment(tables, indices));
}

#[inline(always)]
fn large(table: &mut [u32; LARGE], run: Run<'_>, index: Index) {
    for_indices(run, index, |indices| {
        indices.iter().for_each(|&k| table[k as usize % LARGE] += 1);
    });
}

/// Count indices in all tables in turns.
#[inline(always)]
fn increment(tables: &mut [[u32; SMALL]; TABLES], indices: &[u16]) {
    let [a, b, c, d] = tables;
    let (fours, rest) = indices.as_chunks::<TABLES>();
    for four in fours {
        a[four[0] as usize % SMALL] += 1;
        b[four[1] as usize % SMALL] += 1;
        c[four[2] as usize % SMALL] += 1;
        d[four[3] as usize % SMALL] += 1;
    }
    rest.iter().for_each(|&k| a[k as usize % SMALL] += 1);
}

/// The indices of a run's symbols, some at a time.
#[inline(always)]
fn for_indices(run: Run<'_>, index: Index, mut count: impl FnMut(&[u16])) {
    let mut indices = [0; BLOCK];
    for start in (0..run.symbols.len()).step_by(BLOCK) {
        let length = BLOCK.min(run.symbols.len() - start);
        let (symbols, left) = (&run.symbols[start..][..length], &run.left[start..][..length]);
        let above = &run.above[start..][..length];
        let out = &mut indices[..length];
        if run.edges.is_empty() {
            for k in 0..length {
                out[k] = index.of(u16::from(left[k]) + u16::from(above[k]), symbols[k]);
            }
        } else {
            let edges = &run.edges[start..][..length];
            for k in 0..length {
                let (l, a) = (u16::from(left[k]), u16::from(above[k]));
                let sum = match edges[k] {
                    0 => l + a,
                    NO_LEFT => 2 * a,
                    NO_ABOVE => 2 * l,
                    _ => 0,
                };
                out[k] = index.of(sum, symbols[k]);
            }
        }
        count(out);
    }
}

/// Edges of `planes` planes in a row.
fn set_edges(edges: &mut Vec<u8>, rows: &Rows, planes: usize) {
    edges.clear();
    edges.resize(planes * rows.positions(), 0);
    edges.iter_mut().step_by(rows.line()).for_each(|edge| *edge |= NO_LEFT);
    for plane in edges.chunks_mut(rows.positions()) {
        plane[..rows.line()].iter_mut().for_each(|edge| *edge |= NO_ABOVE);
    }
}

impl Index {
    #[inline(always)]
    fn of(self, sum: u16, symbol: u8) -> u16 {
        (sum >> self.shift) * self.alphabet + u16::from(symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Context;
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
                    rows.gather(Path::Reference, &planes, &natural, &mut coded);
                    for lines in [1, 2, 3, usize::MAX / rows.line()] {
                        let chunk_rows = (lines * rows.line()).min(rows.count());
                        Context::count_by_sum(&coded, &rows, chunk_rows, alphabet, &mut expected);
                        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                            let chunks = (&rows, chunk_rows);
                            counter.count(path, &natural, &planes, chunks, alphabet, &mut counts);
                            assert_eq!(counts, expected, "{path:?} {dims:?} {alphabet} {lanes} {lines}");
                        }
                    }
                }
            }
        }
    }
}
