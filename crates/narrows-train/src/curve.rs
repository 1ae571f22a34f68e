//! What happened during a training.

use narrows_weights::net::Layer;
use serde::{Deserialize, Serialize};

use crate::quantise::{Grid, Rate, entropy};

/// Loss, accuracy, rate and steps over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// In the order in which they happened.
    pub points: Vec<Point>,
    /// Sum and number of the losses since the last point.
    since: (f64, u32),
}

/// A training at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps done.
    pub step: usize,
    /// The same in passes over the images.
    pub epoch: f64,
    /// Mean loss since the point before, rate not counted.
    pub loss: f64,
    /// Top-1 accuracy on the images held out, in percent, where it was measured.
    pub accuracy: Option<f64>,
    /// Price of a bit a weight.
    pub price: f64,
    /// What the network takes; none for float32.
    pub rate: Option<Rate>,
    /// Its layers; none for float32.
    pub layers: Vec<LayerPoint>,
}

/// A layer at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerPoint {
    /// Name of its weights.
    pub name: String,
    /// Its step.
    pub step: f32,
    /// Entropy of its bins, in bits a weight.
    pub bits: f64,
    /// Share of its weights that are zero.
    pub zeros: f64,
    /// Bins in use.
    pub bins: usize,
}

impl LayerPoint {
    pub(crate) fn new(layer: &Layer, grid: Grid, counts: &[u64]) -> Self {
        let zeros = if counts.len() % 2 == 1 { counts[counts.len() / 2] } else { 0 };
        Self {
            name: layer.name.clone(),
            step: grid.step,
            bits: entropy(counts),
            zeros: zeros as f64 / layer.weights() as f64,
            bins: counts.iter().filter(|&&count| count > 0).count(),
        }
    }
}

impl Curve {
    pub(crate) fn smooth(&mut self, loss: f32) {
        self.since = (self.since.0 + f64::from(loss), self.since.1 + 1);
    }

    /// Add a point; its loss is the mean of all since the last one.
    pub(crate) fn push(&mut self, point: Point) {
        let (sum, count) = std::mem::take(&mut self.since);
        self.points.push(Point { loss: sum / f64::from(count.max(1)), ..point });
    }

    /// The latest accuracy that was measured.
    pub fn accuracy(&self) -> Option<f64> {
        self.points.iter().rev().find_map(|point| point.accuracy)
    }
}
