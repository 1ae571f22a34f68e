//! The encoder of BERT (Devlin et al. 2018, arXiv:1810.04805) under its usual tensor names, for sentence embeddings.

use super::attention::Heads;
use super::linear::dense;
use super::{Linear, Weights};
use crate::error::{Error, Result};
use crate::file::PackedFile;

/// What is added to a variance.
const EPSILON: f32 = 1e-12;

/// A sentence encoder: words in, a vector of length 1 out (the mean over the words, as sentence transformers take it).
#[derive(Debug)]
pub struct Bert {
    words: Weights,
    /// Positions x features, the embedding of the first segment added.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
}

#[derive(Debug)]
struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attended_norm: Norm,
    wide: Linear,
    narrow: Linear,
    norm: Norm,
}

impl Bert {
    /// The encoder whose tensors are called `PREFIX` and the usual names (`embeddings.word_embeddings.weight` ...).
    ///
    /// # Errors
    /// As [`PackedFile::tensor`], and [`Error::Shape`] for layers that do not fit each other.
    pub fn of(file: &PackedFile, prefix: &str, heads: usize) -> Result<Self> {
        let name = |rest: &str| format!("{prefix}{rest}");
        let words = Weights::of(file, &name("embeddings.word_embeddings.weight"))?;
        let (_, features) = words.shape();
        if heads == 0 || !features.is_multiple_of(heads) {
            return Err(Error::Shape { what: "number of heads", value: heads, bound: features });
        }
        let (mut positions, _) = dense(file, &name("embeddings.position_embeddings.weight"))?;
        let (segments, _) = dense(file, &name("embeddings.token_type_embeddings.weight"))?;
        if !positions.len().is_multiple_of(features) || segments.len() < features {
            let value = positions.len().min(segments.len());
            return Err(Error::Shape { what: "embeddings", value, bound: features });
        }
        for position in positions.chunks_exact_mut(features) {
            position.iter_mut().zip(&segments).for_each(|(position, segment)| *position += segment);
        }
        let norm = Norm::of(file, &name("embeddings.LayerNorm"), features)?;
        let names = file.names();
        let is_there = |index: usize| {
            names.iter().any(|found| found.starts_with(&name(&format!("encoder.layer.{index}."))))
        };
        let layer = |index: usize| Layer::of(file, &name(&format!("encoder.layer.{index}")), features);
        let layers = (0..).take_while(|&index| is_there(index)).map(layer).collect::<Result<_>>()?;
        Ok(Self { words, positions, norm, layers, heads })
    }

    /// The embedding of a sentence of these words.
    ///
    /// # Errors
    /// [`Error::Shape`] for no words, more than there are positions for, or one that is not in the vocabulary.
    pub fn embed(&self, words: &[u32]) -> Result<Vec<f32>> {
        let (_, features) = self.words.shape();
        let bound = self.positions.len() / features;
        if words.is_empty() || words.len() > bound {
            return Err(Error::Shape { what: "number of words", value: words.len(), bound });
        }
        let mut x = Vec::with_capacity(words.len() * features);
        for (&word, position) in words.iter().zip(self.positions.chunks_exact(features)) {
            let row = self.words.row(word as usize)?;
            x.extend(row.iter().zip(position).map(|(word, position)| word + position));
        }
        self.norm.apply(&mut x);
        for layer in &self.layers {
            x = layer.run(&x, self.heads)?;
        }
        let mut mean = vec![0.0; features];
        for x in x.chunks_exact(features) {
            mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += x);
        }
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        mean.iter_mut().for_each(|x| *x /= length);
        Ok(mean)
    }
}

impl Norm {
    fn of(file: &PackedFile, name: &str, features: usize) -> Result<Self> {
        let part = |part: &str| {
            let (values, _) = dense(file, &format!("{name}.{part}"))?;
            let length = values.len();
            let wrong = Error::Shape { what: "length of a layer norm", value: length, bound: features };
            if length == features { Ok(values) } else { Err(wrong.in_tensor(name)) }
        };
        Ok(Self { scale: part("weight")?, shift: part("bias")? })
    }

    fn apply(&self, x: &mut [f32]) {
        for x in x.chunks_exact_mut(self.scale.len()) {
            let count = x.len() as f32;
            let mean = x.iter().sum::<f32>() / count;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count;
            let by = 1.0 / (variance + EPSILON).sqrt();
            for (x, (scale, shift)) in x.iter_mut().zip(self.scale.iter().zip(&self.shift)) {
                *x = (*x - mean) * by * scale + shift;
            }
        }
    }
}

impl Layer {
    fn of(file: &PackedFile, name: &str, features: usize) -> Result<Self> {
        let linear = |part: &str, inputs: usize| {
            let name = format!("{name}.{part}");
            let linear = Linear::of(file, &name)?;
            let (_, value) = linear.shape();
            let wrong = Error::Shape { what: "inputs of a layer", value, bound: inputs };
            if value == inputs { Ok(linear) } else { Err(wrong.in_tensor(&name)) }
        };
        let wide = linear("intermediate.dense", features)?;
        let narrow = linear("output.dense", wide.shape().0)?;
        Ok(Self {
            query: linear("attention.self.query", features)?,
            key: linear("attention.self.key", features)?,
            value: linear("attention.self.value", features)?,
            attended: linear("attention.output.dense", features)?,
            attended_norm: Norm::of(file, &format!("{name}.attention.output.LayerNorm"), features)?,
            wide,
            narrow,
            norm: Norm::of(file, &format!("{name}.output.LayerNorm"), features)?,
        })
    }

    fn run(&self, x: &[f32], heads: usize) -> Result<Vec<f32>> {
        let (query, key, value) = (self.query.run(x)?, self.key.run(x)?, self.value.run(x)?);
        let (features, words) = (self.attended_norm.scale.len(), x.len() / self.attended_norm.scale.len());
        let heads = Heads { queries: heads, keys: heads, size: features / heads };
        let mut attended = self.attended.run(&heads.attend(&query, &key, &value, |_| words))?;
        attended.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        self.attended_norm.apply(&mut attended);
        let mut wide = self.wide.run(&attended)?;
        wide.iter_mut().for_each(|x| *x = gelu(*x));
        let mut y = self.narrow.run(&wide)?;
        y.iter_mut().zip(&attended).for_each(|(y, x)| *y += x);
        self.norm.apply(&mut y);
        Ok(y)
    }
}

/// `x` times the normal distribution function, by erf as in Abramowitz and Stegun, 7.1.26 (within 1.5e-7).
fn gelu(x: f32) -> f32 {
    let z = x.abs() / std::f32::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t + 0.254_829_6) * t;
    let erf = 1.0 - series * (-z * z).exp();
    0.5 * x * (1.0 + erf.copysign(x))
}
