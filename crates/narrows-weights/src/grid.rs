//! Zero-point uniform quantisation: an odd number of bins, the middle one at zero.
//!
//! A weight `w` of a matrix row becomes `q = clamp(rne(w / step), -half, half)` and comes back as `q * step`, with one
//! step for all rows or one for each (a row is an output channel). Zero is always a bin, so that pruned weights and
//! padding stay what they are, and a product needs no correction for a zero point.

use crate::error::{Error, Result};

/// The most bins on one side of zero.
pub const MAX_HALF: u8 = 127;

/// Steps, and how many bins there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    steps: Vec<f32>,
    half: u8,
}

impl Grid {
    /// A grid of `bins` bins (odd, 3 to 255) with these steps: one, or one for each row.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for other numbers of bins, no steps, or a step that is not positive and normal.
    pub fn new(steps: Vec<f32>, bins: u16) -> Result<Self> {
        if bins.is_multiple_of(2) || !(3..=2 * u16::from(MAX_HALF) + 1).contains(&bins) {
            let value = f64::from(bins);
            return Err(Error::InvalidOption {
                what: "number of bins",
                value,
                allowed: "an odd number from 3 to 255",
            });
        }
        if steps.is_empty() {
            return Err(Error::InvalidOption { what: "number of steps", value: 0.0, allowed: "1 at least" });
        }
        if let Some(&step) = steps.iter().find(|step| !step.is_normal() || **step < 0.0) {
            return Err(Error::InvalidOption {
                what: "step",
                value: f64::from(step),
                allowed: "a positive normal number",
            });
        }
        Ok(Self { steps, half: (bins / 2) as u8 })
    }

    /// One step, or one for each row.
    pub fn steps(&self) -> &[f32] {
        &self.steps
    }

    /// Bins on one side of zero.
    pub const fn half(&self) -> u8 {
        self.half
    }

    /// Bins, the one of zero included.
    pub const fn bins(&self) -> u16 {
        2 * self.half as u16 + 1
    }

    /// The step of a row.
    pub fn step(&self, row: usize) -> f32 {
        if self.steps.len() == 1 { self.steps[0] } else { self.steps[row] }
    }

    /// The nearest bin of each weight of a row; weights are finite.
    pub fn quantize_row(&self, row: usize, weights: &[f32], values: &mut [i8]) {
        let (step, half) = (self.step(row), f32::from(self.half));
        for (value, &weight) in values.iter_mut().zip(weights) {
            *value = (weight / step).round_ties_even().clamp(-half, half) as i8;
        }
    }

    /// What the bins of a row stand for: `q * step`, rounded to f32.
    pub fn dequantize_row(&self, row: usize, values: &[i8], weights: &mut [f32]) {
        let step = self.step(row);
        for (weight, &value) in weights.iter_mut().zip(values) {
            *weight = f32::from(value) * step;
        }
    }

    /// Rate-distortion-optimised rounding of a row: of the two bins around each weight (and zero) the one that is least
    /// in `importance * (error / step)^2 + lambda * bits`, `bits` being the code length of each bin from `-half` on.
    ///
    /// `importance` weighs columns (the second moment of what each is multiplied with); empty if all count the same.
    pub fn round_row(
        &self,
        row: usize,
        weights: &[f32],
        importance: &[f32],
        bits: &[f32],
        lambda: f32,
        values: &mut [i8],
    ) {
        let (step, half) = (self.step(row), f32::from(self.half));
        let zero = usize::from(self.half);
        for (column, (value, &weight)) in values.iter_mut().zip(weights).enumerate() {
            let place = (weight / step).clamp(-half, half);
            let nearest = place.round_ties_even();
            let inner = if nearest > 0.0 { nearest - 1.0 } else { nearest + 1.0 };
            let weigh = importance.get(column).copied().unwrap_or(1.0);
            let cost = |bin: f32| {
                let error = weight / step - bin;
                weigh * error * error + lambda * bits[(zero as f32 + bin) as usize]
            };
            let mut best = (cost(nearest), nearest);
            if nearest != 0.0 {
                for bin in [inner, 0.0] {
                    let cost = cost(bin);
                    if cost < best.0 {
                        best = (cost, bin);
                    }
                }
            }
            *value = best.1 as i8;
        }
    }
}

/// Weights as bins of a grid: `rows x columns`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Bins, `-half` to `half`.
    pub values: Vec<i8>,
    /// What they stand for.
    pub grid: Grid,
    /// Rows: output channels.
    pub rows: usize,
    /// Columns: weights of an output channel.
    pub columns: usize,
}

impl Quantized {
    /// How often each bin occurs, from `-half` on.
    pub fn counts(&self) -> Vec<u64> {
        counts(&self.values, self.grid.half)
    }

    /// Order-0 entropy, bits a weight.
    pub fn entropy(&self) -> f64 {
        entropy(&self.counts())
    }
}

/// How often each bin occurs, from `-half` on.
pub(crate) fn counts(values: &[i8], half: u8) -> Vec<u64> {
    let mut all = [0_u64; 256];
    for &value in values {
        all[usize::from(value as u8 ^ 0x80)] += 1;
    }
    let zero = 128;
    all[zero - usize::from(half)..=zero + usize::from(half)].to_vec()
}

/// Order-0 entropy of what was counted so, bits a symbol.
pub fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    counts.iter().filter(|&&n| n > 0).map(|&n| -(n as f64 / total) * (n as f64 / total).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_on_the_grid_are_kept_exactly() {
        let grid = Grid::new(vec![0.013, 0.07], 15).unwrap();
        let values: Vec<i8> = (-7..=7).collect();
        let (mut weights, mut back) = ([0.0; 15], [0; 15]);
        for row in 0..2 {
            grid.dequantize_row(row, &values, &mut weights);
            grid.quantize_row(row, &weights, &mut back);
            assert_eq!(values, back);
        }
    }

    #[test]
    fn the_middle_bin_is_at_zero_and_the_outer_ones_saturate() {
        let grid = Grid::new(vec![1.0], 5).unwrap();
        let mut values = [0; 6];
        grid.quantize_row(0, &[0.0, -0.4, 0.6, 9.0, -9.0, 1.5], &mut values);
        assert_eq!(values, [0, 0, 1, 2, -2, 2]);
    }

    #[test]
    fn grids_that_are_none_are_refused() {
        for (steps, bins) in [(vec![1.0], 4), (vec![1.0], 1), (vec![1.0], 257), (vec![], 3)] {
            assert!(Grid::new(steps, bins).is_err());
        }
        for step in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
            assert!(Grid::new(vec![step], 3).is_err());
        }
    }

    #[test]
    fn rounding_by_rate_and_distortion_never_costs_more_than_rounding_to_the_nearest() {
        let grid = Grid::new(vec![0.1], 7).unwrap();
        let weights: Vec<f32> = (0..200).map(|i| (i as f32 * 0.37).sin() * 0.4).collect();
        let bits = [6.0, 5.0, 3.0, 1.0, 3.0, 5.0, 6.0];
        let cost = |values: &[i8]| -> f32 {
            let each = values.iter().zip(&weights).map(|(&q, w)| {
                let error = w / 0.1 - f32::from(q);
                error * error + 0.1 * bits[(q + 3) as usize]
            });
            each.sum()
        };
        let (mut nearest, mut rounded) = ([0; 200], [0; 200]);
        grid.quantize_row(0, &weights, &mut nearest);
        grid.round_row(0, &weights, &[], &bits, 0.1, &mut rounded);
        assert!(cost(&rounded) < cost(&nearest));
        assert!(rounded.iter().zip(&nearest).all(|(a, b)| a.abs() <= b.abs()));
    }
}
