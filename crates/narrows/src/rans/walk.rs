//! Rows of a chunk one after the other, without a division for each.

use std::ops::Range;

use super::MAX_LANES;
use crate::layout::Rows;

/// One row of a chunk: where its symbols lie and which neighbours they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// Where its symbols start, counted from the chunk's first.
    pub(super) start: usize,
    /// Its lanes.
    pub(super) width: usize,
    /// Rows between the chunk's first and this one.
    behind: usize,
    /// Its position in its planes, and within a line of them.
    position: usize,
    column: usize,
    positions: usize,
    line: usize,
}

impl Walk {
    /// Row `row` of the chunk that starts with row `first`.
    pub(super) fn at(rows: &Rows, first: usize, row: usize) -> Self {
        let (positions, line) = (rows.positions().max(1), rows.line().max(1));
        let position = row % positions;
        Self {
            start: rows.start(row) - rows.start(first),
            width: rows.width(row),
            behind: row - first,
            position,
            column: position % line,
            positions,
            line,
        }
    }

    /// How many of `rows` rows from this one on, of the same width, start 32 symbols or more before the end.
    pub(super) fn fitting_rows(&self, symbols: usize, rows: usize) -> usize {
        match symbols.checked_sub(self.start + MAX_LANES) {
            Some(last) => rows.min(last / self.width + 1),
            None => 0,
        }
    }

    /// Go on to the next row, of the same width.
    #[inline(always)]
    pub(super) fn advance(&mut self) {
        self.start += self.width;
        self.behind += 1;
        self.position += 1;
        self.column += 1;
        if self.column == self.line {
            self.column = 0;
        }
        if self.position == self.positions {
            self.position = 0;
        }
    }

    /// Go back to the row before, of the same width, of which there is one.
    #[inline(always)]
    pub(super) fn retreat(&mut self) {
        self.start = self.start.wrapping_sub(self.width);
        self.behind = self.behind.wrapping_sub(1);
        if self.position == 0 {
            self.position = self.positions;
        }
        if self.column == 0 {
            self.column = self.line;
        }
        self.position -= 1;
        self.column -= 1;
    }

    /// Where the left neighbours of its symbols lie, if they have any.
    #[inline(always)]
    pub(super) fn left(&self) -> Option<usize> {
        (self.column > 0 && self.behind > 0).then(|| self.start - self.width)
    }

    /// Where the upper neighbours of its symbols lie, if they have any.
    #[inline(always)]
    pub(super) fn upper(&self) -> Option<usize> {
        (self.position >= self.line && self.behind >= self.line).then(|| self.start - self.line * self.width)
    }
}

/// The runs of equally wide rows of a chunk: one, or two where it ends in a narrower last group.
pub(super) fn runs(rows: &Rows, chunk: &Range<usize>) -> [Range<usize>; 2] {
    let last = chunk.end - 1;
    let cut = if rows.width(chunk.start) == rows.width(last) {
        chunk.end
    } else {
        last / rows.positions() * rows.positions()
    };
    [chunk.start..cut, cut..chunk.end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Planes;
    use crate::tensor::Shape;

    #[test]
    fn steps_come_to_the_same_rows_as_divisions() {
        let natural = Rows::natural(75, 32);
        let dims = [37, 4, 3];
        let planes = Planes::new(&Shape::new(&dims).unwrap(), 0).unwrap();
        for rows in [natural, Rows::of_planes(&planes, 16), Rows::of_planes(&planes, 1)] {
            for first in [0, 1, 2] {
                for run in runs(&rows, &(first..rows.count())) {
                    let mut walk = Walk::at(&rows, first, run.start);
                    for row in run.clone() {
                        assert_eq!(walk, Walk::at(&rows, first, row));
                        if row + 1 < run.end {
                            walk.advance();
                        }
                    }
                    for row in run.rev() {
                        assert_eq!(walk, Walk::at(&rows, first, row));
                        walk.retreat();
                    }
                }
            }
        }
    }
}
