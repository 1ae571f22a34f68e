//! Rounding column by column, each error made up for by the columns that are still to come (Frantar et al. 2022,
//! arXiv:2210.17323), and by rate as well as by error.

use narrows::Path;
use rayon::prelude::*;

use crate::grid::{Grid, Quantized, counts};
use crate::kernel::Kernel;
use crate::reference::PARTIALS;

/// Rounds with code lengths from the round before.
const ROUNDS: usize = 2;

/// The second moments of a layer's inputs, `E[x x^T]`, and what follows from them for rounding.
#[derive(Debug)]
pub(crate) struct Moments {
    columns: usize,
    /// Sums of products, row-major; the lower triangle alone.
    sums: Vec<f64>,
}

/// The upper factor `U` of the inverse of the moments, `U^T U`: column `j` rounded with an error `e` costs
/// `(e / U[j][j])^2` once the columns behind it have moved by `-e U[j][k] / U[j][j]`.
pub(crate) struct Factor {
    columns: usize,
    upper: Vec<f32>,
}

impl Moments {
    pub fn new(columns: usize) -> Self {
        Self { columns, sums: vec![0.0; columns * columns] }
    }

    /// Take in inputs, one after the other.
    pub fn add(&mut self, inputs: &[f32]) {
        let (columns, count) = (self.columns, inputs.len() / self.columns);
        // Columns first, padded as the kernel wants them, so that a product is a sum over neighbours.
        let padded = count.next_multiple_of(PARTIALS);
        let mut by_column = vec![0.0_f32; columns * padded];
        for (at, input) in inputs.chunks_exact(columns).enumerate() {
            input.iter().enumerate().for_each(|(column, &x)| by_column[column * padded + at] = x);
        }
        let kernel = Kernel::of(Path::best(), 6, 0);
        self.sums.par_chunks_exact_mut(columns).enumerate().for_each(|(row, sums)| {
            let mut products = vec![0.0; row + 1];
            let own = &by_column[row * padded..][..padded];
            kernel.multiply(own, &by_column[..(row + 1) * padded], &mut products);
            sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += f64::from(product));
        });
    }

    /// Columns of the matrix that inputs are multiplied with.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// The factor of the damped moments' inverse. `damping` is added to the diagonal, relative to its mean: directions
    /// that inputs never took are not free, the less so the fewer inputs there were.
    pub fn factor(&self, damping: f64) -> Factor {
        let n = self.columns;
        let mean = (0..n).map(|i| self.sums[i * n + i]).sum::<f64>() / n as f64;
        let damping = if mean > 0.0 { damping * mean } else { 1.0 };
        // With the order of columns reversed the lower factor `L` of the moments is, reversed again, an upper one of which
        // `U` is the inverse: no need to invert the moments themselves.
        let mut lower = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let (a, b) = (n - 1 - j, n - 1 - i);
                lower[i * n + j] = self.sums[a * n + b] + if i == j { damping } else { 0.0 };
            }
        }
        cholesky(&mut lower, n);
        let inverse = inverse(&lower, n);
        let mut upper = vec![0.0_f32; n * n];
        for i in 0..n {
            for j in i..n {
                upper[i * n + j] = inverse[(n - 1 - i) * n + (n - 1 - j)] as f32;
            }
        }
        Factor { columns: n, upper }
    }
}

/// The lower factor of a positive matrix, in its place.
fn cholesky(matrix: &mut [f64], n: usize) {
    for j in 0..n {
        let (above, below) = matrix.split_at_mut((j + 1) * n);
        let row = &mut above[j * n..];
        let square = row[j] - row[..j].iter().map(|x| x * x).sum::<f64>();
        // Damping keeps it positive, but for rounding.
        let diagonal = square.max(1e-30).sqrt();
        row[j] = diagonal;
        let row = &*row;
        below.par_chunks_exact_mut(n).for_each(|other| {
            let product: f64 = other[..j].iter().zip(&row[..j]).map(|(a, b)| a * b).sum();
            other[j] = (other[j] - product) / diagonal;
        });
    }
}

/// The inverse of a lower triangular matrix.
fn inverse(lower: &[f64], n: usize) -> Vec<f64> {
    // Rows of the inverse's transpose, which are independent of each other.
    let mut columns = vec![0.0; n * n];
    columns.par_chunks_exact_mut(n).enumerate().for_each(|(j, column)| {
        column[j] = 1.0 / lower[j * n + j];
        for i in j + 1..n {
            let row = &lower[i * n..][..i];
            let product: f64 = row[j..].iter().zip(&column[j..i]).map(|(a, b)| a * b).sum();
            column[i] = -product / lower[i * n + i];
        }
    });
    let mut rows = vec![0.0; n * n];
    for i in 0..n {
        (0..=i).for_each(|j| rows[i * n + j] = columns[j * n + i]);
    }
    rows
}

impl Factor {
    /// The bins of weights (rows x columns). A bit is worth `lambda` squared steps of a column of mean cost.
    pub fn round(&self, grid: &Grid, weights: &[f32], lambda: f32) -> Quantized {
        let (columns, half) = (self.columns, grid.half());
        let diagonal = |j: usize| self.upper[j * columns + j];
        let costs: Vec<f32> = (0..columns).map(|j| diagonal(j).powi(-2)).collect();
        let mean = costs.iter().sum::<f32>() / columns as f32;
        let costs: Vec<f32> = costs.iter().map(|cost| cost / mean).collect();
        let mut values = vec![0_i8; weights.len()];
        let mut lengths = vec![0.0_f32; 2 * usize::from(half) + 1];
        for _ in 0..if lambda > 0.0 { 1 + ROUNDS } else { 1 } {
            let each = values.par_chunks_exact_mut(columns).zip(weights.par_chunks_exact(columns));
            each.enumerate().for_each(|(row, (values, weights))| {
                self.row((grid, row), weights, &costs, (&lengths, lambda), values);
            });
            let counts = counts(&values, half);
            let total = counts.iter().sum::<u64>() as f32;
            // What does not occur would cost as much as what occurs half a time.
            lengths = counts.iter().map(|&n| (total / (n as f32).max(0.5)).log2()).collect();
        }
        Quantized { values, grid: grid.clone(), rows: weights.len() / columns, columns }
    }

    fn row(
        &self,
        (grid, row): (&Grid, usize),
        weights: &[f32],
        costs: &[f32],
        (lengths, lambda): (&[f32], f32),
        values: &mut [i8],
    ) {
        let mut left = weights.to_vec();
        let step = grid.step(row);
        for j in 0..self.columns {
            let mut bin = [0];
            grid.round_row(row, &left[j..=j], &costs[j..=j], lengths, lambda, &mut bin);
            values[j] = bin[0];
            let upper = &self.upper[j * self.columns..][..self.columns];
            let error = (left[j] - f32::from(bin[0]) * step) / upper[j];
            for (left, upper) in left[j + 1..].iter_mut().zip(&upper[j + 1..]) {
                *left -= error * upper;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs of 24 columns that are mixtures of 24 random ones, and weights for them.
    fn inputs() -> (Vec<f32>, Vec<f32>) {
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut inputs = Vec::new();
        for _ in 0..500 {
            let mut last = 0.0;
            inputs.extend((0..24).map(|_| {
                last = 0.8 * last + random();
                last
            }));
        }
        (inputs, (0..24 * 8).map(|_| random()).collect())
    }

    fn error(inputs: &[f32], weights: &[f32], quantized: &Quantized) -> f64 {
        let mut sum = 0.0;
        for input in inputs.chunks_exact(24) {
            for (row, weights) in weights.chunks_exact(24).enumerate() {
                let bins = &quantized.values[row * 24..][..24];
                let errors =
                    weights.iter().zip(bins).map(|(w, &q)| w - f32::from(q) * quantized.grid.step(row));
                sum += f64::from(input.iter().zip(errors).map(|(x, e)| x * e).sum::<f32>()).powi(2);
            }
        }
        sum
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let (inputs, _) = inputs();
        let mut moments = Moments::new(24);
        moments.add(&inputs[..24 * 200]);
        moments.add(&inputs[24 * 200..]);
        let mut damped: Vec<f64> = moments.sums.clone();
        let mean = (0..24).map(|i| damped[i * 25]).sum::<f64>() / 24.0;
        (0..24).for_each(|i| damped[i * 25] += 0.01 * mean);
        let factor = moments.factor(0.01);
        // U^T U times the moments is one.
        for i in 0..24 {
            for j in 0..24 {
                let inverse = |a: usize, b: usize| -> f64 {
                    (0..24)
                        .map(|k| f64::from(factor.upper[k * 24 + a]) * f64::from(factor.upper[k * 24 + b]))
                        .sum()
                };
                let of = |a: usize, b: usize| damped[a.max(b) * 24 + a.min(b)];
                let found: f64 = (0..24).map(|k| inverse(i, k) * of(k, j)).sum();
                assert!((found - f64::from(u8::from(i == j))).abs() < 1e-3, "{i} {j}: {found}");
            }
        }
    }

    #[test]
    fn errors_that_are_made_up_for_cost_less_than_nearest_bins() {
        let (inputs, weights) = inputs();
        let mut moments = Moments::new(24);
        moments.add(&inputs);
        let grid = Grid::new(vec![0.4], 7).unwrap();
        let factor = moments.factor(0.01);
        let compensated = factor.round(&grid, &weights, 0.0);
        let mut nearest = compensated.clone();
        grid.quantize_row(0, &weights, &mut nearest.values);
        assert!(error(&inputs, &weights, &compensated) < 0.6 * error(&inputs, &weights, &nearest));
        let cheap = factor.round(&grid, &weights, 0.3);
        assert!(cheap.entropy() < compensated.entropy());
    }
}
