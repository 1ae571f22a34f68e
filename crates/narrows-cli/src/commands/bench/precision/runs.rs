//! Which trainings there are, and what became of those that are done.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use narrows_train::{Goal, Precision, Settings};
use serde::{Deserialize, Serialize};

use super::unusable;
use crate::destination::Destination;
use crate::failure::{Failure, Result as Outcome};

/// Numbers of bins with and without one at zero.
pub const BINS: [u32; 6] = [2, 3, 4, 5, 7, 15];
/// The price of the rate beside none.
const PRICE: f64 = 0.05;
const FISHER_BITS: [f64; 5] = [0.8, 1.0, 1.3, 1.6, 2.5];
const ENTROPY_BITS: [f64; 5] = [0.4, 0.5, 0.7, 1.0, 1.5];
/// Bins where the rate, not their number, is the limit.
const MANY_BINS: u32 = 31;

/// How weights come to their precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Float,
    /// So many bins in every layer, steps learned for accuracy alone.
    Fixed,
    /// So many bins, and a price for the rate.
    Priced,
    /// Not trained: steps by Fisher information, to so many bits a weight.
    Fisher,
    /// Trained to so many bits a weight.
    Entropy,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub family: Family,
    /// Bins or bits a weight.
    pub value: f64,
    pub seed: u64,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Result {
    #[serde(flatten)]
    pub run: Run,
    pub accuracy_percent: f64,
    /// Of the stored network, everything counted; none for float32.
    pub bits_per_weight: Option<f64>,
    pub entropy_per_weight: Option<f64>,
    pub seconds: f64,
}

/// All that are done, and what they have in common.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub epochs: usize,
    /// Training images, if not all.
    pub images: Option<usize>,
    pub rows: Vec<Result>,
}

/// All runs: first what everything is compared with.
pub fn planned(seeds: u64) -> Vec<Run> {
    let bins = || BINS.iter().map(|&bins| f64::from(bins));
    let kinds = [(Family::Float, 32.0)]
        .into_iter()
        .chain(FISHER_BITS.map(|bits| (Family::Fisher, bits)))
        .chain(ENTROPY_BITS.map(|bits| (Family::Entropy, bits)))
        .chain(bins().map(|bins| (Family::Fixed, bins)))
        .chain(bins().map(|bins| (Family::Priced, bins)));
    let kinds: Vec<_> = kinds.collect();
    let run = |seed| kinds.iter().map(move |&(family, value)| Run { family, value, seed });
    (1..=seeds).flat_map(run).collect()
}

impl Run {
    pub fn settings(&self, epochs: usize, images: usize) -> Settings {
        let defaults = Settings::default();
        let learned = |bins, goal| Precision::Learned { bins, goal };
        let precision = match self.family {
            Family::Float => Precision::Float,
            Family::Fixed => learned(self.value as u32, Goal::Price(0.0)),
            Family::Priced => learned(self.value as u32, Goal::Price(PRICE)),
            Family::Fisher | Family::Entropy => learned(MANY_BINS, Goal::BitsPerWeight(self.value)),
        };
        let held_out = defaults.held_out.min(images / 10).max(1);
        Settings { precision, epochs, seed: self.seed, held_out, ..defaults }
    }

    pub fn title(&self) -> String {
        match self.family {
            Family::Float => "float32".to_owned(),
            Family::Fixed => format!("{} bins", self.value),
            Family::Priced => format!("{} bins, rate priced", self.value),
            Family::Fisher => format!("Fisher, {} bits", self.value),
            Family::Entropy => format!("trained, {} bits", self.value),
        }
    }
}

impl Result {
    pub fn in_words(&self) -> String {
        let bits = self.bits_per_weight.map(|bits| format!(" at {bits:.3} bits a weight"));
        let (title, seed) = (self.run.title(), self.run.seed);
        let (accuracy, bits, seconds) = (self.accuracy_percent, bits.unwrap_or_default(), self.seconds);
        format!("{title}, seed {seed}: {accuracy:.2} %{bits} ({seconds:.0} s)")
    }
}

/// What earlier calls have left.
pub fn kept(file: &Path, epochs: usize, images: Option<usize>) -> Outcome<Results> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Results { epochs, images, rows: Vec::new() });
        }
        Err(error) => return Err(Failure::io("read", file, &error)),
    };
    let results: Results = serde_json::from_str(&text).map_err(|error| unusable(file, error))?;
    if (results.epochs, results.images) == (epochs, images) {
        return Ok(results);
    }
    let cause = format!("its runs have {} epochs of {:?} images", results.epochs, results.images);
    Err(unusable(file, cause).hint("give the same --epochs and --images, or another -o"))
}

pub fn keep(file: &Path, results: &Results) -> Outcome<()> {
    let json = serde_json::to_vec_pretty(results).expect("results are plain data");
    Destination::File(file.to_owned()).write(&json)
}
