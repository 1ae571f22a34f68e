//! What each tensor of a sentence encoder is worth, found by running it: how far embeddings turn when a tensor alone is
//! rounded, and the second moments of what each matrix is multiplied with.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::net::Bert;
use crate::net::bert::Source;
use crate::net::compensate::Moments;
use crate::steps::{Calibration, is_matrix};

/// The step that a tensor is rounded with alone, in root mean squares of its weights: coarse enough for embeddings to turn by
/// much more than f32 rounding does, fine enough for the turn to grow with the step's square.
const ALONE: f32 = 0.5;
/// What names of a sentence encoder's word embeddings end with.
const WORDS: &str = "embeddings.word_embeddings.weight";

impl Calibration {
    /// Run the sentence encoder of a checkpoint (BERT's tensor names) on sentences of word numbers. `each` hears how many
    /// runs over all sentences are done, and how many there are.
    ///
    /// The importance of a tensor is the mean of `1 - cos` between the embeddings with and without it rounded, for each
    /// weight and squared step. Tensors that no embedding depends on are rounded as finely, relative to their weights, as
    /// the median of the others. Matrices are then rounded with error feedback.
    ///
    /// # Errors
    /// [`Error::Container`] if the checkpoint has no such encoder; [`Error::Shape`] for no sentences; and as
    /// [`Bert::of`] and [`Bert::embed`].
    pub fn of_sentences(
        checkpoint: &Checkpoint,
        sentences: &[Vec<u32>],
        heads: usize,
        each: impl Fn(usize, usize) + Sync,
    ) -> Result<Self> {
        let prefix = checkpoint.tensors().keys().find_map(|name| name.strip_suffix(WORDS));
        let none = || Error::container(format!("no sentence encoder: no tensor is called ...{WORDS}"));
        let prefix = prefix.ok_or_else(none)?;
        if sentences.is_empty() {
            return Err(Error::Shape { what: "number of sentences", value: 0, bound: 1 });
        }
        let names: Vec<&String> = checkpoint
            .tensors()
            .iter()
            .filter(|(_, tensor)| is_matrix(tensor))
            .map(|(name, _)| name)
            .collect();
        let (runs, done) = (names.len() + 1, std::sync::atomic::AtomicUsize::new(0));
        let count = || each(1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed), runs);
        let mut moments: HashMap<String, Moments> = HashMap::new();
        let encoder = Bert::from_source(checkpoint, prefix, heads)?;
        let mut hear = |name: &str, inputs: &[f32]| {
            let columns = checkpoint.tensors()[name].shape[1..].iter().product();
            moments.entry(name.to_owned()).or_insert_with(|| Moments::new(columns)).add(inputs);
        };
        let embed = |words: &Vec<u32>| encoder.embed_heard(words, &mut hear);
        let expected = sentences.iter().map(embed).collect::<Result<Vec<_>>>()?;
        drop(encoder);
        count();
        let losses: Vec<Loss> = names
            .into_par_iter()
            .map(|name| {
                let (rounded, mut loss) = Rounded::of(checkpoint, name)?;
                let encoder = Bert::from_source(&rounded, prefix, heads)?;
                for (words, expected) in sentences.iter().zip(&expected) {
                    loss.turn += turn(&encoder.embed(words)?, expected) / sentences.len() as f64;
                }
                count();
                Ok(loss)
            })
            .collect::<Result<_>>()?;
        Ok(Self::from_values(importance(&losses)).with_moments(moments))
    }
}

/// What rounding a tensor alone did.
struct Loss {
    name: String,
    elements: usize,
    /// The root mean square of its weights.
    size: f64,
    /// The mean of `1 - cos`.
    turn: f64,
}

/// A turn that f32 rounding makes.
const NOTHING: f64 = 1e-7;

/// The importance of a weight of each tensor, for each squared step.
fn importance(losses: &[Loss]) -> HashMap<String, Vec<f32>> {
    let each = |loss: &Loss| {
        let step = f64::from(ALONE) * loss.size;
        loss.turn / (loss.elements as f64 * step * step)
    };
    let matters = |loss: &&Loss| loss.turn > NOTHING && loss.size > 0.0;
    // Importance times the square of the weights: of the same unit for all tensors.
    let mut relative: Vec<f64> =
        losses.iter().filter(matters).map(|loss| each(loss) * loss.size * loss.size).collect();
    relative.sort_by(f64::total_cmp);
    let median = relative.get(relative.len() / 2).copied().unwrap_or(1.0);
    let of = |loss: &Loss| {
        if matters(&loss) { each(loss) } else { median / (loss.size * loss.size).max(1e-30) }
    };
    losses.iter().map(|loss| (loss.name.clone(), vec![of(loss) as f32])).collect()
}

/// `1 - cos` of vectors of length 1.
fn turn(a: &[f32], b: &[f32]) -> f64 {
    1.0 - a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
}

/// A checkpoint with one tensor rounded.
struct Rounded<'a> {
    checkpoint: &'a Checkpoint,
    name: &'a str,
    values: Vec<f32>,
    shape: Vec<usize>,
}

impl<'a> Rounded<'a> {
    fn of(checkpoint: &'a Checkpoint, name: &'a str) -> Result<(Self, Loss)> {
        let (mut values, shape) = Source::floats(checkpoint, name)?;
        let squares: f64 = values.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
        let size = (squares / values.len() as f64).sqrt();
        let step = ALONE * size as f32;
        if step.is_normal() {
            values.iter_mut().for_each(|w| *w = (*w / step).round_ties_even() * step);
        }
        let loss = Loss { name: name.to_owned(), elements: values.len(), size, turn: 0.0 };
        Ok((Self { checkpoint, name, values, shape }, loss))
    }
}

impl Source for Rounded<'_> {
    fn names(&self) -> Vec<String> {
        Source::names(self.checkpoint)
    }

    fn floats(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        if name == self.name {
            return Ok((self.values.clone(), self.shape.clone()));
        }
        self.checkpoint.floats(name)
    }
}
