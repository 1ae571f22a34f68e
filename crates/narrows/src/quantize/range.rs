//! The range a quantiser covers: the full one, a percentile, or the one of least squared error.

use super::{Affine, Clip, scan};
use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::tensor::Element;

/// Cells of the histogram over which the mean squared error is evaluated.
const CELLS: usize = 2048;
/// Shrunken ranges tried by [`Clip::MseOptimal`].
const CANDIDATES: u32 = 100;

/// Buffers that clipping needs, kept between calls.
#[derive(Default)]
pub(crate) struct Scratch {
    values: Vec<f32>,
    cells: Vec<u32>,
}

/// The smallest and largest of finite elements, with one zero for both signs; `(0, 0)` if there are none.
pub(crate) fn finite_range<T: Element>(path: Path, elements: &[T]) -> Result<(f32, f32)> {
    match extremes(path, elements) {
        Some(extremes) => Ok(extremes),
        None if elements.is_empty() => Ok((0.0, 0.0)),
        None => {
            let index = elements.iter().position(|&x| !x.to_f32().is_finite()).unwrap_or(0);
            Err(Error::NonFinite { index, value: elements[index].to_f32() })
        }
    }
}

/// The smallest and the largest element, if there are any and all are finite.
pub(super) fn extremes<T: Element>(path: Path, elements: &[T]) -> Option<(f32, f32)> {
    // What every path's scan must find; it is faster too where vectors would stay empty.
    if path != Path::Reference && elements.len() > 8 {
        return scan::extremes(path, elements);
    }
    let (mut min, mut max, mut finite) = (f32::INFINITY, f32::NEG_INFINITY, true);
    for x in elements.iter().map(|&x| x.to_f32()) {
        finite &= x.is_finite();
        min = min.min(x);
        max = max.max(x);
    }
    (finite && min <= max).then_some((min + 0.0, max + 0.0))
}

/// The part of `min..=max` that `clip` keeps; never empty (a clip that would leave one value keeps all).
pub(super) fn clipped(
    clip: Clip,
    values: impl Iterator<Item = f32>,
    min: f32,
    max: f32,
    levels: u16,
    scratch: &mut Scratch,
) -> (f32, f32) {
    let (low, high) = match clip {
        Clip::Full => (min, max),
        Clip::Percentile(p) => percentiles(p, values, scratch),
        Clip::MseOptimal => least_error(values, min, max, levels, scratch),
    };
    if low < high { (low, high) } else { (min, max) }
}

/// With `n` values in ascending order `v[0..n]` and `k = ceil(n * p / 100)`: `(v[n - k], v[k - 1])`.
fn percentiles(p: f32, values: impl Iterator<Item = f32>, scratch: &mut Scratch) -> (f32, f32) {
    let sorted = &mut scratch.values;
    sorted.clear();
    sorted.extend(values);
    let count = sorted.len();
    let kept = ((count as f64 * f64::from(p) / 100.0).ceil() as usize).clamp(1, count);
    let high = *sorted.select_nth_unstable_by(kept - 1, f32::total_cmp).1;
    let low = *sorted.select_nth_unstable_by(count - kept, f32::total_cmp).1;
    (low, high)
}

/// The best of the ranges `(a * min, a * max)` around zero (or around the middle, if zero lies
/// outside the range), `a` from 0.01 to 1, by the squared error over a histogram of the values.
fn least_error(
    values: impl Iterator<Item = f32>,
    min: f32,
    max: f32,
    levels: u16,
    scratch: &mut Scratch,
) -> (f32, f32) {
    let cells = &mut scratch.cells;
    cells.clear();
    cells.resize(CELLS, 0);
    let (origin, range) = (f64::from(min), f64::from(max) - f64::from(min));
    let scale = CELLS as f64 / range;
    for x in values {
        let cell = ((f64::from(x) - origin) * scale) as usize;
        cells[cell.min(CELLS - 1)] += 1;
    }
    let pivot = if min <= 0.0 && max >= 0.0 { 0.0 } else { min / 2.0 + max / 2.0 };
    let mut best = (f64::INFINITY, min, max);
    for candidate in (1..=CANDIDATES).rev() {
        let share = candidate as f32 / CANDIDATES as f32;
        let (low, high) = (pivot + (min - pivot) * share, pivot + (max - pivot) * share);
        if low >= high {
            break;
        }
        let error = squared_error(cells, origin, range, &Affine::from_range(low, high, levels));
        if error < best.0 {
            best = (error, low, high);
        }
    }
    (best.1, best.2)
}

fn squared_error(cells: &[u32], origin: f64, range: f64, affine: &Affine) -> f64 {
    let quantize = affine.quantizer();
    let values = affine.values();
    let cell_width = range / CELLS as f64;
    let error_of = |(cell, &count): (usize, &u32)| {
        let centre = origin + (cell as f64 + 0.5) * cell_width;
        let difference = centre - f64::from(values[quantize(centre as f32) as usize]);
        f64::from(count) * difference * difference
    };
    cells.iter().enumerate().filter(|(_, count)| **count > 0).map(error_of).sum()
}
