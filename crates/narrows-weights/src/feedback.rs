//! Rounding with error feedback: what a weight loses to its bin, those to the right of it make up for.
//!
//! A row `w` rounded to `q` changes its outputs by `(w - q) x`, whose mean square is `d^T M d` with `d = w - q` and the
//! inputs' second moments `M = mean(x x^T)`. With `M = T^T T`, `T` lower triangular, that is the sum over `j` of
//! `T[j][j]^2 (d[j] + sum_{i < j} F[j][i] d[i])^2`, `F[j][i] = T[j][i] / T[j][j]`: column by column the bracket is made small by
//! rounding `w[j] + sum F[j][i] d[i]` instead of `w[j]`. (GPTQ, Frantar et al. 2022, arXiv:2210.17323, as Babai's nearest
//! plane.)

use crate::grid::Grid;

/// What is added to the diagonal of the moments, as a share of its mean: a calibration run sees few inputs, and what it
/// has not seen must not be believed to be free. 0.3 and 0.1 were worse on MiniLM.
const DAMPING: f64 = 1.0;
const PARTS: usize = 16;

/// The factors `F` of a matrix whose inputs have certain second moments.
#[derive(Debug)]
pub(crate) struct Feedback {
    columns: usize,
    /// Row `j` has `F[j][0..j]`; what follows is zero.
    factors: Vec<f32>,
}

impl Feedback {
    /// The factors for these moments, `columns x columns`, symmetric and not negative definite; `None` if they are all zero
    /// or not finite.
    pub(crate) fn of(moments: &[f32], columns: usize) -> Option<Self> {
        let mean = (0..columns).map(|j| f64::from(moments[j * columns + j])).sum::<f64>() / columns as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return None;
        }
        // Reversed, so that the usual factor L L^T is T^T T of the original.
        let mut lower: Vec<f64> = (0..columns * columns)
            .map(|at| {
                let (row, column) = (columns - 1 - at / columns, columns - 1 - at % columns);
                let damping = if row == column { DAMPING * mean } else { 0.0 };
                f64::from(moments[row * columns + column]) + damping
            })
            .collect();
        factor(&mut lower, columns)?;
        let mut factors = vec![0.0; columns * columns];
        for j in 0..columns {
            let diagonal = columns - 1 - j;
            for i in 0..j {
                // T[j][i] is L[n - 1 - i][n - 1 - j].
                let (row, column) = (columns - 1 - i, diagonal);
                let by = lower[row * columns + column] / lower[diagonal * columns + diagonal];
                factors[j * columns + i] = by as f32;
            }
        }
        Some(Self { columns, factors })
    }

    /// The bins of a row; `errors` is memory for it.
    pub(crate) fn round_row(
        &self,
        grid: &Grid,
        row: usize,
        weights: &[f32],
        errors: &mut Vec<f32>,
        values: &mut [i8],
    ) {
        let (step, half) = (grid.step(row), f32::from(grid.half()));
        errors.clear();
        for (j, (value, &weight)) in values.iter_mut().zip(weights).enumerate() {
            let wanted = weight + dot(&self.factors[j * self.columns..][..j], errors);
            let bin = (wanted / step).round_ties_even().clamp(-half, half);
            *value = bin as i8;
            errors.push(weight - bin * step);
        }
    }
}

/// Cholesky's factor of a symmetric matrix over its lower triangle; `None` if it is not positive definite.
fn factor(matrix: &mut [f64], size: usize) -> Option<()> {
    for j in 0..size {
        let (own, below) = matrix[j * size..].split_at_mut(size);
        let squares: f64 = own[..j].iter().map(|x| x * x).sum();
        let diagonal = (own[j] - squares).sqrt();
        if !(diagonal.is_finite() && diagonal > 0.0) {
            return None;
        }
        own[j] = diagonal;
        let own = &own[..j];
        for row in below.chunks_exact_mut(size) {
            let (mut sums, (a, tail_a), (b, tail_b)) =
                ([0.0; 8], row[..j].as_chunks::<8>(), own.as_chunks::<8>());
            for (a, b) in a.iter().zip(b) {
                (0..8).for_each(|i| sums[i] += a[i] * b[i]);
            }
            let tail: f64 = tail_a.iter().zip(tail_b).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - sums.iter().sum::<f64>() - tail) / diagonal;
        }
    }
    Some(())
}

/// A sum of products in [`PARTS`] parts, which a vector can hold.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (mut sums, (a, tail_a), (b, tail_b)) = ([0.0; PARTS], a.as_chunks::<PARTS>(), b.as_chunks::<PARTS>());
    for (a, b) in a.iter().zip(b) {
        (0..PARTS).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter().sum::<f32>() + tail_a.iter().zip(tail_b).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs that go together, and weights.
    fn inputs(columns: usize) -> (Vec<f32>, Vec<f32>) {
        let x: Vec<f32> = (0..200 * columns)
            .map(|at| {
                let (n, c) = ((at / columns) as f32, (at % columns) as f32);
                (n * 0.37).sin() * (1.0 + c * 0.05) + 0.2 * (n * 1.7 + c * 2.3).sin()
            })
            .collect();
        // Most are rounded down to a step of 0.3.
        let weights = (0..columns).map(|c| 0.13 * (1 + c % 3) as f32).collect();
        (x, weights)
    }

    fn moments(x: &[f32], columns: usize) -> Vec<f32> {
        let mut moments = vec![0.0; columns * columns];
        for x in x.chunks_exact(columns) {
            for (row, &a) in x.iter().enumerate() {
                x.iter().enumerate().for_each(|(column, b)| moments[row * columns + column] += a * b);
            }
        }
        moments
    }

    #[test]
    fn outputs_change_less_than_with_rounding_to_the_nearest() {
        let columns = 40;
        let (x, weights) = inputs(columns);
        let grid = Grid::new(vec![0.3], 15).unwrap();
        let feedback = Feedback::of(&moments(&x, columns), columns).unwrap();
        let (mut nearest, mut fed) = (vec![0; columns], vec![0; columns]);
        grid.quantize_row(0, &weights, &mut nearest);
        feedback.round_row(&grid, 0, &weights, &mut Vec::new(), &mut fed);
        let error = |values: &[i8]| -> f32 {
            let each = x.chunks_exact(columns).map(|x| {
                let difference = |(c, &q): (usize, &i8)| (weights[c] - f32::from(q) * 0.3) * x[c];
                values.iter().enumerate().map(difference).sum::<f32>().powi(2)
            });
            each.sum()
        };
        assert!(error(&fed) < 0.5 * error(&nearest), "{} and {}", error(&fed), error(&nearest));
    }

    #[test]
    fn inputs_that_do_not_go_together_leave_rounding_to_the_nearest() {
        let (_, weights) = inputs(9);
        let identity: Vec<f32> = (0..81).map(|at| f32::from(u8::from(at % 10 == 0))).collect();
        let grid = Grid::new(vec![0.2], 255).unwrap();
        let (mut nearest, mut fed) = ([0; 9], [0; 9]);
        grid.quantize_row(0, &weights, &mut nearest);
        Feedback::of(&identity, 9).unwrap().round_row(&grid, 0, &weights, &mut Vec::new(), &mut fed);
        assert_eq!(nearest, fed);
        assert!(Feedback::of(&[0.0; 81], 9).is_none() && Feedback::of(&[f32::NAN; 81], 9).is_none());
    }
}
