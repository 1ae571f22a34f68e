//! Which symbols are neighbours, in row-major order.
//!
//! That does not depend on lanes: what is to the left is one symbol before (one row of channels, with the channels
//! last), what is above one line before. So symbols need not be brought into the coded order for what only
//! adds up over all of them.

use std::ops::Range;

use crate::layout::{Planes, Rows};

/// Symbols in a row, and their neighbours.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) symbols: &'a [u8],
    pub(super) left: &'a [u8],
    pub(super) above: &'a [u8],
    /// [`NO_LEFT`] and [`NO_ABOVE`] where those are not neighbours; empty if all are.
    pub(super) edges: &'a [u8],
}

/// There is no left neighbour: the one above counts twice.
pub(super) const NO_LEFT: u8 = 1;
/// There is no neighbour above: the left one counts twice.
pub(super) const NO_ABOVE: u8 = 2;

/// Symbols of planes that make one run, if planes are smaller.
const TILE: usize = 1024;

impl Run<'_> {
    /// A run of those of `range`.
    #[inline(always)]
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let edges = if self.edges.is_empty() { self.edges } else { &self.edges[range.clone()] };
        let (symbols, left) = (&self.symbols[range.clone()], &self.left[range.clone()]);
        Run { symbols, left, above: &self.above[range], edges }
    }

    /// Calls `take` with the sum of each symbol's neighbours and the symbol.
    #[inline(always)]
    pub(super) fn sums(&self, mut take: impl FnMut(usize, u16, u8)) {
        let length = self.symbols.len();
        let (symbols, left, above) = (&self.symbols[..length], &self.left[..length], &self.above[..length]);
        if self.edges.is_empty() {
            (0..length).for_each(|k| take(k, u16::from(left[k]) + u16::from(above[k]), symbols[k]));
            return;
        }
        let edges = &self.edges[..length];
        for k in 0..length {
            let (l, a) = (u16::from(left[k]), u16::from(above[k]));
            let sum = match edges[k] {
                0 => l + a,
                NO_LEFT => 2 * a,
                NO_ABOVE => 2 * l,
                _ => 0,
            };
            take(k, sum, symbols[k]);
        }
    }
}

/// A tensor's symbols, and how they lie.
#[derive(Clone, Copy)]
pub(crate) struct Neighbours<'a> {
    /// The symbols in row-major order.
    pub(crate) natural: &'a [u8],
    pub(crate) planes: &'a Planes,
    pub(crate) rows: &'a Rows,
    /// Rows of a chunk, whole lines; a chunk begins without neighbours above.
    pub(crate) chunk_rows: usize,
}

impl<'a> Neighbours<'a> {
    /// All symbols in one chunk.
    pub(crate) fn in_one_chunk(natural: &'a [u8], planes: &'a Planes, rows: &'a Rows) -> Self {
        Self { natural, planes, rows, chunk_rows: rows.count().max(1) }
    }

    /// Calls `take` with runs that together hold every symbol once. `edges` is memory to be used again.
    pub(super) fn runs(&self, edges: &mut Vec<u8>, mut take: impl FnMut(Run<'_>)) {
        let Self { natural, planes, rows, chunk_rows } = *self;
        debug_assert!(chunk_rows >= rows.count() || chunk_rows.is_multiple_of(rows.line()));
        let positions = rows.positions();
        if chunk_rows < rows.count() && !chunk_rows.is_multiple_of(positions) {
            self.cut_runs(edges, take);
        } else if planes.channels_last() {
            let side = planes.channels();
            side_by_side(natural, (side, 0..side), rows.line(), &(0..positions), &mut take);
        } else {
            set_edges(edges, rows, (TILE / positions).clamp(1, planes.count()));
            // What lies before the first plane is not there to be left out.
            plane_runs(&natural[..positions], rows.line(), edges, &mut take);
            for start in (positions..natural.len()).step_by(edges.len()) {
                let end = natural.len().min(start + edges.len());
                let before = |by: usize| &natural[start - by..end - by];
                let (symbols, left, above) = (before(0), before(1), before(rows.line()));
                take(Run { symbols, left, above, edges: &edges[..end - start] });
            }
        }
    }

    /// The runs where chunks begin within planes: up to a chunk's end at a time.
    fn cut_runs(&self, edges: &mut Vec<u8>, mut take: impl FnMut(Run<'_>)) {
        let Self { natural, planes, rows, chunk_rows } = *self;
        let positions = rows.positions();
        set_edges(edges, rows, 1);
        for (number, group) in rows.groups().enumerate() {
            let mut top = 0;
            while top < positions {
                let row = number * positions + top;
                let next = (row / chunk_rows + 1) * chunk_rows - number * positions;
                let span = top..next.min(positions);
                if planes.channels_last() {
                    let lanes = (planes.channels(), group.first..group.first + group.width);
                    side_by_side(natural, lanes, rows.line(), &span, &mut take);
                } else {
                    for plane in group.first..group.first + group.width {
                        let plane = &natural[plane * positions..][span.clone()];
                        plane_runs(plane, rows.line(), edges, &mut take);
                    }
                }
                top = span.end;
            }
        }
    }
}

/// Lines of one plane, of which the first has nothing above it.
fn plane_runs(plane: &[u8], line: usize, edges: &[u8], take: &mut impl FnMut(Run<'_>)) {
    // The very first has no neighbours: its sum is zero.
    take(Run { symbols: &plane[..1], left: &[0], above: &[0], edges: &[] });
    let left = &plane[..line - 1];
    take(Run { symbols: &plane[1..line], left, above: left, edges: &[] });
    let (symbols, above) = (&plane[line..], &plane[..plane.len() - line]);
    let left = &plane[line - 1..plane.len() - 1];
    // Lines are all alike, but for the first.
    take(Run { symbols, left, above, edges: &edges[line..plane.len()] });
}

/// Positions `span` of the planes `lanes` out of `side` that lie side by side; the first line has nothing above it.
fn side_by_side(
    natural: &[u8],
    (side, lanes): (usize, Range<usize>),
    line: usize,
    span: &Range<usize>,
    take: &mut impl FnMut(Run<'_>),
) {
    const ZEROS: [u8; 64] = [0; 64];
    let row = |position: usize| &natural[position * side..][lanes.clone()];
    for position in span.clone() {
        let symbols = row(position);
        let left = (!position.is_multiple_of(line)).then(|| row(position - 1));
        let above = (position >= span.start + line).then(|| row(position - line));
        if let Some(one) = left.or(above) {
            let (left, above) = (left.unwrap_or(one), above.unwrap_or(one));
            take(Run { symbols, left, above, edges: &[] });
        } else {
            for symbols in symbols.chunks(ZEROS.len()) {
                let zeros = &ZEROS[..symbols.len()];
                take(Run { symbols, left: zeros, above: zeros, edges: &[] });
            }
        }
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
