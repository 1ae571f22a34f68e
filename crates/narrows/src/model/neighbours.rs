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
}

impl Neighbours<'_> {
    /// Calls `take` with runs that together hold every symbol once, all in one chunk. `edges` is memory to be used again.
    pub(super) fn runs(&self, edges: &mut Vec<u8>, mut take: impl FnMut(Run<'_>)) {
        let Self { natural, planes, rows } = *self;
        let positions = rows.positions();
        if planes.channels_last() {
            side_by_side(natural, planes.channels(), rows.line(), &mut take);
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

    /// Calls `take` with the symbols in the first line of every chunk that begins within a plane, and with the sums
    /// of each one's neighbours had the chunk not begun there, and as it is: then none is above.
    pub(super) fn at_cuts(&self, chunk_rows: usize, mut take: impl FnMut(u8, [u16; 2])) {
        let Self { natural, planes, rows } = *self;
        let (positions, line) = (rows.positions(), rows.line());
        debug_assert!(chunk_rows >= rows.count() || chunk_rows.is_multiple_of(line));
        let step = planes.offset(0, 1);
        for first in (0..rows.count()).step_by(chunk_rows).filter(|row| !row.is_multiple_of(positions)) {
            let (plane, top) = (first / positions * rows.lanes(), first % positions);
            for plane in plane..plane + rows.width(first) {
                let start = planes.offset(plane, top);
                for at in (start..).step_by(step).take(line) {
                    let [left, above] = [at - step, at - line * step].map(|at| u16::from(natural[at]));
                    // The line's first row has no neighbour to the left either.
                    let sums = if at == start { [2 * above, 0] } else { [left + above, 2 * left] };
                    take(natural[at], sums);
                }
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

/// All positions of `side` planes that lie side by side; the first line has nothing above it.
fn side_by_side(natural: &[u8], side: usize, line: usize, take: &mut impl FnMut(Run<'_>)) {
    const ZEROS: [u8; 64] = [0; 64];
    let row = |position: usize| &natural[position * side..][..side];
    for position in 0..natural.len() / side {
        let symbols = row(position);
        let left = (!position.is_multiple_of(line)).then(|| row(position - 1));
        let above = (position >= line).then(|| row(position - line));
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
