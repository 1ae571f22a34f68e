//! One step downhill, in plain memory.

use serde::{Deserialize, Serialize};

/// SGD with Nesterov momentum (Sutskever et al. 2013), as PyTorch computes it.
pub(crate) const MOMENTUM: f32 = 0.9;

/// Move `values` against their gradients.
pub(crate) fn descend(values: &mut [f32], velocity: &mut [f32], gradient: &[f32], rate: f64, decay: f32) {
    let rate = rate as f32;
    for ((value, velocity), g) in values.iter_mut().zip(velocity).zip(gradient) {
        let g = g + decay * *value;
        *velocity = MOMENTUM * *velocity + g;
        *value -= rate * (g + MOMENTUM * *velocity);
    }
}

/// Adam (Kingma and Ba 2015) for a single number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Adam {
    first: f64,
    second: f64,
    steps: i32,
}

impl Adam {
    /// What to add to the number.
    pub(crate) fn step(&mut self, gradient: f64, rate: f64) -> f64 {
        const FIRST: f64 = 0.9;
        const SECOND: f64 = 0.999;
        self.steps = self.steps.saturating_add(1);
        self.first = FIRST * self.first + (1.0 - FIRST) * gradient;
        self.second = SECOND * self.second + (1.0 - SECOND) * gradient * gradient;
        let mean = self.first / (1.0 - FIRST.powi(self.steps));
        let root = (self.second / (1.0 - SECOND.powi(self.steps))).sqrt();
        -rate * mean / (root + 1e-8)
    }
}

/// A rate that starts at `start` and ends at 0 along half a cosine.
pub(crate) fn cosine(start: f64, done: f64) -> f64 {
    start * 0.5 * (1.0 + (std::f64::consts::PI * done.clamp(0.0, 1.0)).cos())
}
