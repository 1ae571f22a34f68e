//! Uniform quantisation with a learned step, and the rate of what comes out.
//!
//! Plain loops over weights: they take a thousandth of the time of a training step.

mod rate;

pub use rate::{Rate, entropy, table_bits};

/// A uniform quantiser: `bins` multiples of `step`, the middle one at zero if `bins` is odd.
///
/// A weight `w` falls into bin `i = round(w / step + K)`, clamped to `0..bins`, with `K = (bins - 1) / 2`, and is
/// stored as `(i - K) step`. With an even number of bins there is none at zero: those nearest are at half a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Distance between two bins, above 0.
    pub step: f32,
    /// Number of bins, at least 2.
    pub bins: u32,
}

impl Grid {
    fn centre(self) -> f32 {
        (self.bins - 1) as f32 / 2.0
    }

    /// A first step for training: wide bins if there are few of them (`2 mean|w| / sqrt(K)`), else the whole range.
    ///
    /// Learned step size quantisation (Esser et al. 2020) starts like this.
    pub fn start(weights: &[f32], bins: u32) -> Self {
        let centre = (bins - 1) as f32 / 2.0;
        let step = if bins <= 63 {
            let mean = weights.iter().map(|w| w.abs()).sum::<f32>() / weights.len().max(1) as f32;
            2.0 * mean / centre.max(0.5).sqrt()
        } else {
            weights.iter().fold(0.0, |max: f32, w| max.max(w.abs())) / centre
        };
        Self { step: step.max(f32::MIN_POSITIVE), bins }
    }

    /// The bin of each weight, as its signed distance from the centre rounded down: 0 is the centre of an odd grid.
    pub fn quantise(self, weights: &[f32]) -> Vec<i32> {
        let (inverse, centre) = (self.step.recip(), self.centre());
        let offset = (self.bins / 2) as i32;
        let bin = |w: &f32| (w * inverse + centre).round().clamp(0.0, (self.bins - 1) as f32) as i32 - offset;
        weights.iter().map(bin).collect()
    }

    /// The value that stands for each bin.
    pub fn dequantise(self, bins: &[i32]) -> Vec<f32> {
        let shift = (self.bins / 2) as f32 - self.centre();
        bins.iter().map(|&bin| (bin as f32 + shift) * self.step).collect()
    }

    /// How many weights fall into each bin.
    pub fn histogram(self, weights: &[f32]) -> Vec<u64> {
        self.count(&self.quantise(weights))
    }

    /// How often each bin occurs among bins of [`Grid::quantise`].
    pub(crate) fn count(self, bins: &[i32]) -> Vec<u64> {
        let mut counts = vec![0; self.bins as usize];
        let offset = (self.bins / 2) as i32;
        bins.iter().for_each(|bin| counts[(bin + offset) as usize] += 1);
        counts
    }

    /// Gradients through the quantiser, the straight-through way, and of the rate.
    ///
    /// With `u = w / step`: the weight takes the loss's gradient `g` where `|u| <= K` and 0 elsewhere; the step takes
    /// `sum g (q - u)` inside and `sum g q` outside (Esser et al. 2020, eq. 3). The rate of a weight between two
    /// bins lies on the line between their code lengths, `(1 - f) L[i] + f L[i + 1]`, so that its gradient
    /// is their difference. Gradients of the step are taken with respect to `log2 step`.
    ///
    /// `gradient` holds the loss's and becomes that of both; what is returned is that of `log2 step`.
    pub(crate) fn backward(
        self,
        weights: &[f32],
        gradient: &mut [f32],
        lengths: &[f32],
        rate_weight: f32,
    ) -> f64 {
        let (inverse, centre) = (self.step.recip(), self.centre());
        let (mut loss_step, mut rate_step) = (0.0_f64, 0.0_f64);
        for (w, g) in weights.iter().zip(gradient) {
            let u = w * inverse;
            let clamped = u.clamp(-centre, centre);
            let bin = (clamped + centre).round() - centre;
            let inside = u.abs() <= centre;
            loss_step += f64::from(*g * (bin - if inside { u } else { 0.0 }));
            let position = clamped + centre;
            let low = (position as usize).min(lengths.len() - 2);
            let slope = lengths[low + 1] - lengths[low];
            if inside {
                rate_step -= f64::from(slope * u);
                *g += rate_weight * slope * inverse;
            } else {
                *g = 0.0;
            }
        }
        let to_log = std::f64::consts::LN_2;
        to_log * (f64::from(self.step) * loss_step + f64::from(rate_weight) * rate_step)
    }
}

/// Code lengths under what was counted lately, constants as far as gradients are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) probabilities: Vec<f32>,
}

/// What is left of the old histogram after each step: a window of about 28 steps.
const MEMORY: f32 = 0.965;
/// Added to each count, so that empty bins have a finite length.
const UNSEEN: f32 = 0.3;

impl Running {
    pub(crate) fn new(counts: &[u64]) -> Self {
        Self { probabilities: smoothed(counts) }
    }

    pub(crate) fn update(&mut self, counts: &[u64]) {
        for (old, new) in self.probabilities.iter_mut().zip(smoothed(counts)) {
            *old = MEMORY * *old + (1.0 - MEMORY) * new;
        }
    }

    /// Bits for each bin.
    pub(crate) fn lengths(&self) -> Vec<f32> {
        self.probabilities.iter().map(|p| -p.log2()).collect()
    }
}

fn smoothed(counts: &[u64]) -> Vec<f32> {
    let total = counts.iter().sum::<u64>() as f32 + UNSEEN * counts.len() as f32;
    counts.iter().map(|&count| (count as f32 + UNSEEN) / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: [f32; 8] = [-0.9, -0.31, -0.12, -0.02, 0.0, 0.07, 0.26, 0.55];

    #[test]
    fn an_odd_grid_has_a_bin_at_zero_and_an_even_one_has_not() {
        let odd = Grid { step: 0.25, bins: 5 };
        let bins = odd.quantise(&WEIGHTS);
        assert_eq!(bins, [-2, -1, 0, 0, 0, 0, 1, 2]);
        assert_eq!(odd.dequantise(&bins), [-0.5, -0.25, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5]);
        assert_eq!(odd.count(&bins), [1, 1, 4, 1, 1]);
        let even = Grid { step: 0.5, bins: 2 };
        assert_eq!(even.dequantise(&even.quantise(&[-0.9, -0.1, 0.1, 3.0])), [-0.25, -0.25, 0.25, 0.25]);
    }

    #[test]
    fn quantised_weights_are_where_quantising_again_leaves_them() {
        for bins in 2..40 {
            let grid = Grid { step: 0.0371, bins };
            let once = grid.dequantise(&grid.quantise(&WEIGHTS));
            assert_eq!(grid.dequantise(&grid.quantise(&once)), once, "{bins} bins");
        }
    }

    /// The interpolated rate as its definition says it.
    fn rate(grid: Grid, weights: &[f32], lengths: &[f32]) -> f64 {
        let centre = f64::from(grid.bins - 1) / 2.0;
        let bits = |w: &f32| {
            let position = (f64::from(*w) / f64::from(grid.step)).clamp(-centre, centre) + centre;
            let low = (position.floor() as usize).min(lengths.len() - 2);
            let part = position - low as f64;
            (1.0 - part) * f64::from(lengths[low]) + part * f64::from(lengths[low + 1])
        };
        weights.iter().map(bits).sum()
    }

    #[test]
    fn gradients_of_the_rate_are_its_differences() {
        let lengths = [5.2, 3.1, 0.4, 2.9, 6.0];
        let grid = Grid { step: 0.23, bins: 5 };
        let mut gradient = [0.0; 8];
        let log_step = grid.backward(&WEIGHTS, &mut gradient, &lengths, 1.0);
        let nudge = 1e-3;
        for (at, found) in gradient.iter().enumerate() {
            let moved = [nudge, -nudge].map(|nudge| {
                let mut weights = WEIGHTS;
                weights[at] += nudge;
                rate(grid, &weights, &lengths)
            });
            // A weight on a bin has a kink there, whose two sides differ.
            if WEIGHTS[at] != 0.0 {
                let expected = (moved[0] - moved[1]) / (2.0 * f64::from(nudge));
                assert!((f64::from(*found) - expected).abs() < 0.02, "weight {at}: {found}, not {expected}");
            }
        }
        let moved = [1e-4_f32, -1e-4]
            .map(|log| rate(Grid { step: grid.step * log.exp2(), ..grid }, &WEIGHTS, &lengths));
        let expected = (moved[0] - moved[1]) / 2e-4;
        assert!((log_step - expected).abs() < 0.05, "{log_step} is not {expected}");
    }

    #[test]
    fn the_loss_reaches_weights_inside_and_the_step_as_in_the_paper() {
        let grid = Grid { step: 0.5, bins: 3 };
        let mut gradient = [1.0, 1.0, 1.0];
        // u = 0.4, 1.6 (outside, to 1), -0.8.
        let log_step = grid.backward(&[0.2, 0.8, -0.4], &mut gradient, &[1.0, 1.0, 1.0], 0.0);
        assert_eq!(gradient, [1.0, 0.0, 1.0]);
        let by_step = (0.0 - 0.4) + 1.0 + (-1.0 + 0.8);
        assert!((log_step - std::f64::consts::LN_2 * 0.5 * by_step).abs() < 1e-6);
    }

    #[test]
    fn lengths_follow_what_is_counted_and_are_finite_for_empty_bins() {
        let mut running = Running::new(&[100, 100, 0]);
        (0..500).for_each(|_| running.update(&[0, 0, 200]));
        let lengths = running.lengths();
        assert!(lengths.iter().all(|bits| bits.is_finite()));
        assert!(lengths[2] < 0.02 && lengths[0] > 8.0, "{lengths:?}");
    }
}
