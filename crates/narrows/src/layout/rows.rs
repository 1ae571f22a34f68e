//! Rows: the symbols in the order in which they are coded.
//!
//! A row holds one symbol of every lane. In plane order planes are taken in groups of as many as
//! there are lanes; the rows of a group are its positions, in order, and lane `l` of group `g` is
//! plane `g * lanes + l`. The last group may have fewer planes; its rows are that much shorter.
//! Natural order is the same with every symbol a plane of its own, of one position.

use std::ops::Range;

use super::Planes;

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
    pub(crate) fn gather(&self, planes: &Planes, natural: &[u8], coded: &mut Vec<u8>) {
        coded.clear();
        coded.reserve(natural.len());
        self.visit(planes, |offset| coded.push(natural[offset]));
    }

    /// Write symbols from the coded order back into row-major order.
    pub(crate) fn scatter(&self, planes: &Planes, coded: &[u8], natural: &mut Vec<u8>) {
        natural.clear();
        natural.resize(coded.len(), 0);
        let mut symbols = coded.iter();
        self.visit(planes, |offset| natural[offset] = *symbols.next().expect("one symbol per offset"));
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
