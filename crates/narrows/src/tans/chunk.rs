//! Chunks as the fast paths see them: runs of rows of one width, and a bit position for each bit stream.

use std::ops::Range;

use super::{LANES_PER_STREAM, MAX_LANES, MAX_STREAMS};
use crate::layout::Rows;

/// Consecutive rows of the same number of symbols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

/// The rows of a chunk: full ones, then (perhaps) shorter ones, since only a stream's last group of lanes is
/// narrower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    full: Run,
    short: Run,
}

impl Runs {
    pub(crate) fn new(rows: &Rows, chunk: &Range<usize>) -> Self {
        let (width, last) = (rows.width(chunk.start), rows.width(chunk.end - 1));
        let symbols = rows.range(chunk).len();
        let short = if last < width { (chunk.len() * width - symbols) / (width - last) } else { 0 };
        Self { full: Run { rows: chunk.len() - short, width }, short: Run { rows: short, width: last } }
    }

    /// Lanes in use.
    pub(crate) fn lanes(&self) -> usize {
        self.full.width
    }

    /// Bit streams in use.
    pub(crate) fn streams(&self) -> usize {
        self.lanes().div_ceil(LANES_PER_STREAM)
    }

    /// Rows of all runs.
    pub(crate) fn rows(&self) -> usize {
        self.full.rows + self.short.rows
    }

    /// Each run with where its symbols lie.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Run, Range<usize>)> + use<> {
        let (full, short) = (self.full.rows * self.full.width, self.short.rows * self.short.width);
        [(self.full, 0..full), (self.short, full..full + short)].into_iter()
    }

    /// Rows of just `width` symbols, all before the others.
    pub(crate) fn full_rows(&self, width: usize) -> usize {
        if self.full.width == width { self.full.rows } else { 0 }
    }

    /// The runs without the first `done` full rows.
    pub(crate) fn after(&self, done: usize) -> [Run; 2] {
        [Run { rows: self.full.rows - done, ..self.full }, self.short]
    }
}

/// A chunk while it is decoded.
#[derive(Debug, Default)]
pub(crate) struct Chunk<'a> {
    /// Where its symbols go.
    pub(crate) coded: &'a mut [u8],
    pub(crate) runs: Runs,
    /// The state of each lane; 0 for those not in use.
    pub(crate) states: Lanes16,
    /// Where each bit stream is being read, in bits from the start of the payload.
    pub(crate) positions: [u64; MAX_STREAMS],
    /// Where each bit stream ends, in bytes from the start of the payload.
    ends: [usize; MAX_STREAMS],
    /// The lanes' first states are followed by set bits.
    bad_padding: bool,
}

/// One `u16` for each lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes16(pub(crate) [u16; MAX_LANES]);

impl Default for Lanes16 {
    fn default() -> Self {
        Self([0; MAX_LANES])
    }
}

impl<'a> Chunk<'a> {
    /// The chunk whose first states lie at `offset` of `payload`, its bit streams of `lengths` bytes after
    /// them, and where it ends.
    ///
    /// Panics if it reaches beyond the payload: the directory was checked against that.
    pub(crate) fn new(
        coded: &'a mut [u8],
        runs: Runs,
        state_bits: u32,
        payload: &[u8],
        offset: usize,
        lengths: &[u32],
    ) -> (Self, usize) {
        let states_end = offset + (runs.lanes() * state_bits as usize).div_ceil(8);
        let (mut states, mut at) = (Lanes16::default(), 8 * offset as u64);
        for state in &mut states.0[..runs.lanes()] {
            *state = (window(payload, at) & ((1 << state_bits) - 1)) as u16;
            at += u64::from(state_bits);
        }
        let bad_padding = at % 8 > 0 && payload[states_end - 1] >> (at % 8) != 0;
        let (mut positions, mut ends) = ([0; MAX_STREAMS], [0; MAX_STREAMS]);
        let mut end = states_end;
        for ((position, stream_end), &length) in positions.iter_mut().zip(&mut ends).zip(lengths) {
            *position = 8 * end as u64;
            end += length as usize;
            *stream_end = end;
        }
        assert!(end <= payload.len(), "the directory was checked");
        (Self { coded, runs, states, positions, ends, bad_padding }, end)
    }

    /// Whether all was as an encoder leaves it, once every row is decoded.
    ///
    /// A position only ever moves forward, so one that ran over its stream's end at any time is beyond it now.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), &'static str> {
        if self.bad_padding {
            return Err("bits are set after the lanes' first states");
        }
        for (&position, &end) in self.positions.iter().zip(&self.ends[..self.runs.streams()]) {
            if position > 8 * end as u64 {
                return Err("the bits end before the symbols do");
            }
            let (byte, used) = ((position / 8) as usize, position % 8);
            if position.div_ceil(8) != end as u64 || (used > 0 && payload[byte] >> used != 0) {
                return Err("bits are left over");
            }
        }
        if self.states.0[..self.runs.lanes()].iter().any(|&state| state != 0) {
            return Err("a lane does not end at state 0");
        }
        Ok(())
    }
}

/// Bits that a window surely has: 64, less up to 7 of its first byte that are behind the position.
pub(crate) const WINDOW: u32 = 57;

/// The bits from bit `position` on, [`WINDOW`] at least; zeros beyond the end.
#[inline(always)]
pub(crate) fn window(payload: &[u8], position: u64) -> u64 {
    let at = (position / 8) as usize;
    if let Some(bytes) = payload.get(at..at + 8) {
        return u64::from_le_bytes(bytes.try_into().expect("8 bytes")) >> (position % 8);
    }
    let rest = payload.get(at..).unwrap_or_default();
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(bytes) >> (position % 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Planes;
    use crate::tensor::Shape;

    #[test]
    fn runs_are_the_rows_one_by_one() {
        let mut all = vec![Rows::natural(1000, 64), Rows::natural(64, 64), Rows::natural(5, 8)];
        let planes = Planes::new(&Shape::new(&[37, 3, 5]).unwrap(), 0).unwrap();
        all.extend([1, 2, 8, 16, 64].map(|lanes| Rows::of_planes(&planes, lanes)));
        for rows in all {
            for start in 0..rows.count() {
                for end in start + 1..=rows.count() {
                    let runs = Runs::new(&rows, &(start..end));
                    let widths: Vec<usize> =
                        runs.iter().flat_map(|(run, _)| std::iter::repeat_n(run.width, run.rows)).collect();
                    let expected: Vec<usize> = (start..end).map(|row| rows.width(row)).collect();
                    assert_eq!(widths, expected);
                    let base = rows.start(start);
                    for (run, range) in runs.iter().filter(|(run, _)| run.rows > 0) {
                        assert_eq!(range.len(), run.rows * run.width);
                        assert!(range.end <= rows.start(end) - base);
                    }
                }
            }
        }
    }
}
