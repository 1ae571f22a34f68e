//! What a training is asked to do.

use serde::{Deserialize, Serialize};

use crate::examples::Augmentation;
use crate::{Error, Result};

/// Settings of a training; the defaults are the measured recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What weights may be.
    pub precision: Precision,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a batch.
    pub batch: usize,
    /// Orders and augmentations follow from it.
    pub seed: u64,
    /// Learning rate of weights, biases and gains under SGD (Nesterov momentum 0.9), at its start; it ends at 0 along a
    /// cosine.
    pub weight_rate: f64,
    /// Learning rate of `log2 step` under Adam, likewise. With a rate to reach it is higher in trainings of less than 1,200
    /// steps, which would end before their steps are there.
    pub step_rate: f64,
    /// Share of the original network's answers in what is learned, from 0 (labels alone) to 1.
    pub distillation: f32,
    /// What happens to images before they are learned from.
    pub augmentation: Augmentation,
    /// How many of the last training images are only looked at, never learned from.
    pub held_out: usize,
}

/// What weights may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Any float32 number: the network that others are compared with.
    Float,
    /// One of so many multiples of a learned step, each layer its own.
    Learned {
        /// The most different values in a layer.
        bins: u32,
        /// How much their rate counts.
        goal: Goal,
    },
}

/// What decides how much the rate counts beside the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// A fixed price of one bit a weight, in units of the loss; 0 learns steps for accuracy alone.
    Price(f64),
    /// A price that brings the whole network, tables, steps, biases and names counted, to so many bits a weight.
    BitsPerWeight(f64),
    /// A price that gives away at most so many points of accuracy, measured on the images held out.
    Drop(f64),
}

/// Bins of a layer at most: as many as a packed tensor can have.
pub(crate) const MOST_BINS: u32 = 2 * narrows_weights::MAX_HALF as u32 + 1;

impl Default for Settings {
    fn default() -> Self {
        Self {
            precision: Precision::Learned { bins: 31, goal: Goal::BitsPerWeight(0.5) },
            epochs: 8,
            batch: 128,
            seed: 1,
            weight_rate: 0.03,
            step_rate: 0.01,
            distillation: 0.5,
            augmentation: Augmentation { mirror: true, shift: 2 },
            held_out: 2000,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        let positive = |name, value: f64, most: f64| {
            let fits = value > 0.0 && value <= most;
            if fits { Ok(()) } else { Err(Error::setting(name, &value, "above 0 and not enormous")) }
        };
        positive("number of epochs", self.epochs as f64, 1e6)?;
        positive("batch size", self.batch as f64, 65_536.0)?;
        positive("learning rate of weights", self.weight_rate, 10.0)?;
        positive("learning rate of steps", self.step_rate, 10.0)?;
        if self.batch == 1 {
            return Err(Error::setting(
                "batch size",
                &1,
                "at least 2: a batch is normalised by its own variance",
            ));
        }
        if !(0.0..=1.0).contains(&self.distillation) {
            return Err(Error::setting("distillation", &self.distillation, "from 0 to 1"));
        }
        if self.augmentation.shift > 64 {
            return Err(Error::setting("shift", &self.augmentation.shift, "at most 64 pixels"));
        }
        let Precision::Learned { bins, goal } = self.precision else { return Ok(()) };
        // Without a bin at zero they are every other one of a packed tensor's.
        let most = if bins % 2 == 1 { MOST_BINS } else { MOST_BINS.div_ceil(2) };
        if !(2..=most).contains(&bins) {
            let range = "odd from 3 to 255 or even from 2 to 128, which is what packed weights hold";
            return Err(Error::setting("number of bins", &bins, range));
        }
        match goal {
            Goal::Price(price) if !(0.0..=1e3).contains(&price) => {
                Err(Error::setting("price of the rate", &price, "from 0 to 1000"))
            }
            Goal::BitsPerWeight(bits) => positive("bits per weight", bits, 32.0),
            Goal::Drop(points) => positive("accuracy to give away", points, 100.0),
            Goal::Price(_) => Ok(()),
        }
    }
}
