//! The list of a chunk's outliers, written and read: gaps, signs and magnitudes in Rice codes, until the bits end.

use narrows::machine::BitWriter;

use crate::error::{Error, Result as Checked};
use crate::grid::Quantized;

/// The largest Rice parameter of gaps.
const MAX_GAPS: u32 = 31;
/// The largest of magnitudes.
const MAX_MAGNITUDES: u32 = 7;

/// How a tensor's outliers are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListCode {
    /// Rice parameter of gaps.
    gaps: u32,
    /// Rice parameter of magnitudes.
    magnitudes: u32,
    /// The least magnitude in the list.
    least: u8,
}

impl ListCode {
    pub(crate) fn to_bytes(self) -> [u8; 2] {
        [(self.gaps | self.magnitudes << 5) as u8, self.least]
    }

    /// # Errors
    /// [`Error::InvalidHeader`] for a least magnitude that is not 1 to `half`.
    pub(crate) fn from_bytes([rice, least]: [u8; 2], half: u8) -> Checked<Self> {
        if !(1..=half).contains(&least) {
            let (what, value, bound) = ("least magnitude of the outliers", least.into(), half.into());
            return Err(Error::InvalidHeader { what, value, bound });
        }
        Ok(Self { gaps: u32::from(rice & 31), magnitudes: u32::from(rice >> 5), least })
    }
}

/// Bins without a weight: where in the coded order, and what.
pub(crate) struct Listed {
    /// Index of each in row-major order, and its value.
    pub(crate) list: Vec<(u64, i8)>,
    /// None without outliers.
    pub(crate) code: Option<ListCode>,
}

impl Listed {
    /// `weights` has those of every bin, context by context.
    pub(crate) fn of(quantized: &Quantized, weights: &[u32]) -> Self {
        let half = quantized.grid.half();
        // In every context the same.
        let bins = usize::from(quantized.grid.bins());
        let listed: Vec<bool> = weights[..bins].iter().map(|&weight| weight == 0).collect();
        let is = |value: i8| listed[(i32::from(value) + i32::from(half)) as usize];
        let all = quantized.values.iter().enumerate().filter(|(_, value)| is(**value));
        let list: Vec<(u64, i8)> = all.map(|(index, &value)| (index as u64, value)).collect();
        let least = list.iter().map(|(_, value)| value.unsigned_abs()).min();
        let code = least.map(|least| {
            let before = std::iter::once(0).chain(list.iter().map(|(index, _)| index + 1));
            let gaps = before.zip(&list).map(|(before, (index, _))| index - before);
            let magnitudes = list.iter().map(|(_, value)| u64::from(value.unsigned_abs() - least));
            let (gaps, magnitudes): (Vec<u64>, Vec<u64>) = gaps.zip(magnitudes).unzip();
            let bits =
                |numbers: &[u64], rice| numbers.iter().map(|n| (n >> rice) + u64::from(rice)).sum::<u64>();
            ListCode {
                gaps: best(MAX_GAPS, |rice| bits(&gaps, rice)),
                magnitudes: best(MAX_MAGNITUDES, |rice| bits(&magnitudes, rice)),
                least,
            }
        });
        Self { list, code }
    }
}

/// The Rice parameter up to `most` with the fewest bits.
fn best<T: PartialOrd>(most: u32, bits: impl Fn(u32) -> T) -> u32 {
    let (mut rice, mut fewest) = (0, bits(0));
    for next in 1..=most {
        let found = bits(next);
        if found < fewest {
            (rice, fewest) = (next, found);
        }
    }
    rice
}

/// Bits of a list of bins that occur as often as `counts` says for each, anywhere among `total` weights.
pub(crate) fn bits(counts: &[u64], total: u64) -> f64 {
    let zero = counts.len() / 2;
    let magnitudes =
        || counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(s, &n)| (s.abs_diff(zero), n));
    let Some(least) = magnitudes().map(|(magnitude, _)| magnitude).min() else { return 0.0 };
    let listed = magnitudes().map(|(_, n)| n).sum::<u64>() as f64;
    // Gaps are geometric: one is `2^k` times `i` or longer with probability `q^i`.
    let share = listed / total as f64;
    let gap = |rice: u32| {
        let q = (1.0 - share).powf(f64::from(rice).exp2());
        f64::from(rice) + q / (1.0 - q)
    };
    let magnitude = |rice: u32| {
        let upper: u64 = magnitudes().map(|(magnitude, n)| n * ((magnitude - least) as u64 >> rice)).sum();
        f64::from(rice) + upper as f64 / listed
    };
    // The zero bits of two codes, and a sign.
    let each = 3.0 + gap(best(MAX_GAPS, gap)) + magnitude(best(MAX_MAGNITUDES, magnitude));
    listed * each
}

/// Append a list, of a chunk that begins at weight `start`: for each the gap to the one before it, its sign and its
/// magnitude.
pub(crate) fn write(list: &[(u64, i8)], start: u64, code: ListCode, payload: &mut Vec<u8>) {
    let mut bits = BitWriter::new(payload);
    let (mut next, mut length) = (start, 0);
    for &(index, value) in list {
        length += put_rice(&mut bits, index - next, code.gaps);
        bits.put(u32::from(value < 0), 1);
        length += 1 + put_rice(&mut bits, u64::from(value.unsigned_abs() - code.least), code.magnitudes);
        next = index + 1;
    }
    // A gap that never ends: the list does.
    let padding = (8 - length % 8) as u32 % 8;
    bits.put((1 << padding) - 1, padding);
    bits.finish();
}

/// A Rice code: the upper bits in unary, ones and a zero, then the lower ones; returns its length.
fn put_rice(bits: &mut BitWriter<'_>, value: u64, parameter: u32) -> u64 {
    let upper = value >> parameter;
    for _ in 0..upper {
        bits.put(1, 1);
    }
    bits.put(0, 1);
    bits.put((value & ((1 << parameter) - 1)) as u32, parameter);
    upper + 1 + u64::from(parameter)
}

/// Reads a list; safe on any bytes.
pub(crate) struct Outliers<'a> {
    bytes: &'a [u8],
    /// Bits taken.
    position: usize,
    code: ListCode,
    /// Index after the last one read, within the chunk.
    next: u64,
    /// Weights of the chunk, and the largest magnitude.
    bounds: (u64, u8),
}

impl<'a> Outliers<'a> {
    pub(crate) const fn new(bytes: &'a [u8], code: ListCode, weights: usize, half: u8) -> Self {
        Self { bytes, position: 0, code, next: 0, bounds: (weights as u64, half) }
    }

    /// The next outlier: its index in the chunk, row-major, and its bin; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, i8)>, &'static str> {
        let Some(gap) = self.rice(self.code.gaps) else {
            let padding = self.bytes.len() * 8 - self.position;
            // An unfinished prefix is all that may be left, of less than a byte.
            let ones = padding < 8 && (0..padding).all(|bit| self.bit(self.position + bit));
            return if ones { Ok(None) } else { Err("the outliers end early") };
        };
        let index = self.next.saturating_add(gap);
        if index >= self.bounds.0 {
            return Err("an outlier lies outside its chunk");
        }
        self.next = index + 1;
        let sign = self.take(1).ok_or("the outliers end early")?;
        let magnitude = self.rice(self.code.magnitudes).ok_or("the outliers end early")?;
        let magnitude = magnitude.saturating_add(self.code.least.into());
        if magnitude > u64::from(self.bounds.1) {
            return Err("an outlier is off the grid");
        }
        let magnitude = magnitude as i8;
        Ok(Some((index as usize, if sign == 1 { -magnitude } else { magnitude })))
    }

    fn bit(&self, position: usize) -> bool {
        self.bytes[position / 8] >> (position % 8) & 1 == 1
    }

    /// 57 bits at least from the position on, ones beyond the end.
    fn window(&self) -> u64 {
        let at = self.position / 8;
        let mut window = [255; 8];
        let rest = &self.bytes[at.min(self.bytes.len())..];
        let length = rest.len().min(8);
        window[..length].copy_from_slice(&rest[..length]);
        let bits = u64::from_le_bytes(window) >> (self.position % 8);
        bits | !(u64::MAX >> (self.position % 8))
    }

    fn take(&mut self, count: u32) -> Option<u64> {
        if self.position + count as usize > self.bytes.len() * 8 {
            return None;
        }
        let bits = self.window() & ((1 << count) - 1);
        self.position += count as usize;
        Some(bits)
    }

    /// A Rice code; the position stays where it is if the bits end before its prefix does.
    fn rice(&mut self, parameter: u32) -> Option<u64> {
        let (start, mut upper) = (self.position, 0_u64);
        loop {
            let ones = self.window().trailing_ones().min(56);
            if self.position + ones as usize >= self.bytes.len() * 8 {
                self.position = start;
                return None;
            }
            upper += u64::from(ones);
            self.position += ones as usize;
            if ones < 56 {
                break;
            }
        }
        self.position += 1;
        let lower = self.take(parameter)?;
        upper.checked_shl(parameter)?.checked_add(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

    const HALF: u8 = 60;
    const COLUMNS: usize = 500;

    /// Weights of a heavy tail, and a table without those of magnitude 9 and more.
    fn heavy_tailed() -> (Quantized, Vec<u32>) {
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1_u32 << 31)
        };
        let mut value = || {
            let scale = if random() < 0.1 { 8.0 } else { 2.0 };
            let magnitude = (-scale * (1.0 - random()).ln()).min(f64::from(HALF)) as i8;
            if random() < 0.5 { -magnitude } else { magnitude }
        };
        let values = (0..200 * COLUMNS).map(|_| value()).collect();
        let grid = Grid::new(vec![1.0], 2 * u16::from(HALF) + 1).unwrap();
        let weights = (0..=2 * HALF).map(|bin| u32::from(bin.abs_diff(HALF) < 9)).collect();
        (Quantized { values, grid, rows: 200, columns: COLUMNS }, weights)
    }

    #[test]
    fn a_list_takes_what_it_was_estimated_to_and_comes_back() {
        let (quantized, weights) = heavy_tailed();
        let Listed { list, code } = Listed::of(&quantized, &weights);
        let code = code.expect("some are beyond 8");
        assert_eq!((code.least, ListCode::from_bytes(code.to_bytes(), HALF).unwrap()), (9, code));
        let mut bytes = Vec::new();
        write(&list, 0, code, &mut bytes);
        let mut counts = quantized.counts();
        counts.iter_mut().zip(&weights).filter(|(_, weight)| **weight > 0).for_each(|(n, _)| *n = 0);
        let ratio = bits(&counts, quantized.values.len() as u64) / (8 * bytes.len()) as f64;
        assert!((0.99..1.01).contains(&ratio), "{ratio}");
        let mut reader = Outliers::new(&bytes, code, quantized.values.len(), HALF);
        for &(index, value) in &list {
            assert_eq!(reader.next(), Ok(Some((index as usize, value))));
        }
        assert_eq!(reader.next(), Ok(None));
        // A grid that the list goes beyond.
        let mut reader = Outliers::new(&bytes, code, quantized.values.len(), 8);
        assert_eq!(reader.next(), Err("an outlier is off the grid"));
    }

    #[test]
    fn a_least_magnitude_off_the_grid_is_refused() {
        for least in [0, HALF + 1, 255] {
            let refused = ListCode::from_bytes([3, least], HALF);
            assert!(matches!(refused, Err(Error::InvalidHeader { .. })), "{least}: {refused:?}");
        }
    }
}
