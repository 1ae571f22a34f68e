//! Rows: the symbols in the order in which they are coded.
//!
//! A row holds one symbol of every lane. In plane order planes are taken in groups of as many as
//! there are lanes; the rows of a group are its positions, in order, and lane `l` of group `g` is
//! plane `g * lanes + l`. The last group may have fewer planes; its rows are that much shorter.
//! Natural order is the same with every symbol a plane of its own, of one position.

use std::ops::Range;

use super::{Planes, transpose};
use crate::cpu::Path;
use crate::simd::for_paths;

/// The division of a stream of symbols into rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    planes: usize,
    positions: usize,
    line: usize,
    lanes: usize,
}

impl Rows {
    /// Rows of `lanes` symbols each, in the stream's own order.
    pub(crate) const fn natural(symbols: usize, lanes: usize) -> Self {
        Self { planes: symbols, positions: 1, line: 1, lanes }
    }

    /// Rows in plane order.
    pub(crate) const fn of_planes(planes: &Planes, lanes: usize) -> Self {
        Self { planes: planes.count(), positions: planes.positions(), line: planes.width(), lanes }
    }

    pub(crate) const fn lanes(&self) -> usize {
        self.lanes
    }

    /// Rows of one line of a plane; the row of the upper neighbour is this many before a row.
    pub(crate) const fn line(&self) -> usize {
        self.line
    }

    /// Rows of one group of planes.
    pub(crate) const fn positions(&self) -> usize {
        self.positions
    }

    /// Number of rows.
    pub(crate) const fn count(&self) -> usize {
        self.planes.div_ceil(self.lanes) * self.positions
    }

    /// Number of symbols in all rows.
    pub(crate) const fn symbols(&self) -> usize {
        self.planes * self.positions
    }

    /// Lanes that row `row` uses.
    pub(crate) fn width(&self, row: usize) -> usize {
        let first_plane = row / self.positions * self.lanes;
        self.lanes.min(self.planes - first_plane)
    }

    /// Where the symbols of row `row` lie in the coded order; `row == count()` gives the end.
    pub(crate) fn start(&self, row: usize) -> usize {
        if row == self.count() {
            return self.symbols();
        }
        let group = row / self.positions;
        group * self.lanes * self.positions + row % self.positions * self.width(row)
    }

    /// The symbols of rows `rows` in the coded order.
    pub(crate) fn range(&self, rows: &Range<usize>) -> Range<usize> {
        self.start(rows.start)..self.start(rows.end)
    }

    /// Write symbols from row-major order into the coded order.
    pub(crate) fn gather(&self, path: Path, planes: &Planes, natural: &[u8], coded: &mut Vec<u8>) {
        // Symbols of the tensor before are written over, not cleared first.
        coded.resize(natural.len(), 0);
        if path == Path::Reference {
            let mut coded = coded.iter_mut();
            return self.visit(planes, |offset| {
                *coded.next().expect("one symbol per offset") = natural[offset];
            });
        }
        for group in self.groups() {
            self.gather_group(path, planes, &group, natural, coded);
        }
    }

    /// The part of [`Rows::gather`] that concerns one group. What comes after it is unspecified then: groups are gathered
    /// in order. With planes in one piece, later groups may still be missing from `natural`.
    pub(crate) fn gather_group(
        &self,
        path: Path,
        planes: &Planes,
        group: &Group,
        natural: &[u8],
        coded: &mut [u8],
    ) {
        let symbols = group.symbols(self.positions);
        let coded = &mut coded[symbols.start..];
        if planes.channels_last() {
            let coded = &mut coded[..symbols.len()];
            copy_rows(path, &natural[group.first..], planes.channels(), coded, group.width, group.width);
        } else {
            let shape = (group.width, self.positions);
            transpose::planes_to_rows(path, &natural[symbols.start..], shape, coded);
        }
    }

    /// Write symbols from the coded order back into row-major order.
    pub(crate) fn scatter(&self, path: Path, planes: &Planes, coded: &[u8], natural: &mut Vec<u8>) {
        natural.resize(coded.len(), 0);
        if path == Path::Reference {
            let mut symbols = coded.iter();
            return self
                .visit(planes, |offset| natural[offset] = *symbols.next().expect("one symbol per offset"));
        }
        for group in self.groups() {
            self.scatter_group(path, planes, &group, coded, natural);
        }
    }

    /// The part of [`Rows::scatter`] that concerns one group. What comes after it is unspecified then: groups are
    /// scattered in order.
    pub(crate) fn scatter_group(
        &self,
        path: Path,
        planes: &Planes,
        group: &Group,
        coded: &[u8],
        natural: &mut [u8],
    ) {
        let symbols = group.symbols(self.positions);
        if planes.channels_last() {
            let coded = &coded[symbols];
            let natural = &mut natural[group.first..];
            copy_rows(path, coded, group.width, natural, planes.channels(), group.width);
        } else {
            let shape = (group.width, self.positions);
            transpose::rows_to_planes(path, &coded[symbols.start..], shape, &mut natural[symbols.start..]);
        }
    }

    /// The groups of planes, in order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let Self { planes, lanes, .. } = *self;
        (0..planes).step_by(lanes).map(move |first| Group { first, width: lanes.min(planes - first) })
    }

    fn visit(&self, planes: &Planes, mut symbol_at: impl FnMut(usize)) {
        for first in (0..self.planes).step_by(self.lanes) {
            let group = first..self.planes.min(first + self.lanes);
            for position in 0..self.positions {
                group.clone().for_each(|plane| symbol_at(planes.offset(plane, position)));
            }
        }
    }
}

/// Planes that share rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// The first plane.
    pub(crate) first: usize,
    /// Number of planes.
    pub(crate) width: usize,
}

impl Group {
    /// Where its symbols lie in the coded order; with planes in one piece, in row-major order too.
    pub(crate) const fn symbols(&self, positions: usize) -> Range<usize> {
        self.first * positions..(self.first + self.width) * positions
    }
}

for_paths! {
    /// Copy `width` symbols every `from_stride` of `from` to every `to_stride` of `to`, until either ends.
    fn copy_rows(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize, width: usize) = copy
}

#[inline(always)]
fn copy(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize, width: usize) {
    match width {
        // Of a width the compiler knows, so that no call is made for each.
        32 => copy_fixed::<32>(from, from_stride, to, to_stride),
        16 => copy_fixed::<16>(from, from_stride, to, to_stride),
        8 => copy_fixed::<8>(from, from_stride, to, to_stride),
        4 => copy_fixed::<4>(from, from_stride, to, to_stride),
        _ => {
            for (from, to) in from.chunks(from_stride).zip(to.chunks_mut(to_stride)) {
                to[..width].copy_from_slice(&from[..width]);
            }
        }
    }
}

#[inline(always)]
fn copy_fixed<const WIDTH: usize>(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    for (from, to) in from.chunks(from_stride).zip(to.chunks_mut(to_stride)) {
        if let (Some(from), Some(to)) = (from.first_chunk::<WIDTH>(), to.first_chunk_mut()) {
            *to = *from;
        }
    }
}
