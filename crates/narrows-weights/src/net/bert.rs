//! The encoder of BERT (Devlin et al. 2018, arXiv:1810.04805) under its usual tensor names, for sentence embeddings.

use super::attention::Heads;
use super::linear::dense;
use super::{Linear, Weights};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::file::PackedFile;

/// Where an encoder's tensors come from.
pub(crate) trait Source {
    fn names(&self) -> Vec<String>;
    /// All elements of a tensor, and its axes.
    fn floats(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)>;
    /// A matrix, packed if it is stored so.
    fn weights(&self, name: &str) -> Result<Weights> {
        let (values, shape) = self.floats(name)?;
        let (rows, columns) = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product());
        Weights::dense(&values, rows, columns).map_err(|error| error.in_tensor(name))
    }
}

impl Source for PackedFile {
    fn names(&self) -> Vec<String> {
        Self::names(self)
    }

    fn floats(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        dense(self, name)
    }

    fn weights(&self, name: &str) -> Result<Weights> {
        Weights::of(self, name)
    }
}

impl Source for Checkpoint {
    fn names(&self) -> Vec<String> {
        self.tensors().keys().cloned().collect()
    }

    fn floats(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let tensor = self.tensors().get(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() })?;
        if tensor.float().is_none() {
            return Err(Error::container("its elements are not floats").in_tensor(name));
        }
        let mut values = Vec::new();
        tensor.read_f32(0..tensor.elements(), &mut values);
        Ok((values, tensor.shape.clone()))
    }
}

/// Hears of every matrix that is multiplied: its name, and its inputs one after the other.
pub(crate) type Listener<'a> = dyn FnMut(&str, &[f32]) + 'a;

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
    name: String,
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
        Self::from_source(file, prefix, heads)
    }

    /// The same from a checkpoint: all weights dense.
    ///
    /// # Errors
    /// As [`Bert::of`].
    pub fn of_checkpoint(checkpoint: &Checkpoint, prefix: &str, heads: usize) -> Result<Self> {
        Self::from_source(checkpoint, prefix, heads)
    }

    pub(crate) fn from_source(source: &dyn Source, prefix: &str, heads: usize) -> Result<Self> {
        let name = |rest: &str| format!("{prefix}{rest}");
        let words = source.weights(&name("embeddings.word_embeddings.weight"))?;
        let (_, features) = words.shape();
        if heads == 0 || !features.is_multiple_of(heads) {
            return Err(Error::Shape { what: "number of heads", value: heads, bound: features });
        }
        let (mut positions, _) = source.floats(&name("embeddings.position_embeddings.weight"))?;
        let (segments, _) = source.floats(&name("embeddings.token_type_embeddings.weight"))?;
        if !positions.len().is_multiple_of(features) || segments.len() < features {
            let value = positions.len().min(segments.len());
            return Err(Error::Shape { what: "embeddings", value, bound: features });
        }
        for position in positions.chunks_exact_mut(features) {
            position.iter_mut().zip(&segments).for_each(|(position, segment)| *position += segment);
        }
        let norm = Norm::of(source, &name("embeddings.LayerNorm"), features)?;
        let names = source.names();
        let is_there = |index: usize| {
            names.iter().any(|found| found.starts_with(&name(&format!("encoder.layer.{index}."))))
        };
        let layer = |index: usize| Layer::of(source, &name(&format!("encoder.layer.{index}")), features);
        let layers = (0..).take_while(|&index| is_there(index)).map(layer).collect::<Result<_>>()?;
        Ok(Self { words, positions, norm, layers, heads })
    }

    /// The embedding of a sentence of these words.
    ///
    /// # Errors
    /// [`Error::Shape`] for no words, more than there are positions for, or one that is not in the vocabulary.
    pub fn embed(&self, words: &[u32]) -> Result<Vec<f32>> {
        self.embed_heard(words, &mut |_, _| {})
    }

    /// The same, telling what each matrix is multiplied with.
    pub(crate) fn embed_heard(&self, words: &[u32], heard: &mut Listener<'_>) -> Result<Vec<f32>> {
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
            x = layer.run(&x, self.heads, heard)?;
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
    fn of(source: &dyn Source, name: &str, features: usize) -> Result<Self> {
        let part = |part: &str| {
            let (values, _) = source.floats(&format!("{name}.{part}"))?;
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
    fn of(source: &dyn Source, name: &str, features: usize) -> Result<Self> {
        let linear = |part: &str, inputs: usize| {
            let name = format!("{name}.{part}");
            let (bias, _) = source.floats(&format!("{name}.bias"))?;
            let linear = Linear::new(source.weights(&format!("{name}.weight"))?, bias)
                .map_err(|error| error.in_tensor(&name))?;
            let (_, value) = linear.shape();
            let wrong = Error::Shape { what: "inputs of a layer", value, bound: inputs };
            if value == inputs { Ok(linear) } else { Err(wrong.in_tensor(&name)) }
        };
        let wide = linear("intermediate.dense", features)?;
        let narrow = linear("output.dense", wide.shape().0)?;
        Ok(Self {
            name: name.to_owned(),
            query: linear("attention.self.query", features)?,
            key: linear("attention.self.key", features)?,
            value: linear("attention.self.value", features)?,
            attended: linear("attention.output.dense", features)?,
            attended_norm: Norm::of(source, &format!("{name}.attention.output.LayerNorm"), features)?,
            wide,
            narrow,
            norm: Norm::of(source, &format!("{name}.output.LayerNorm"), features)?,
        })
    }

    fn run(&self, x: &[f32], heads: usize, heard: &mut Listener<'_>) -> Result<Vec<f32>> {
        let mut hear = |part: &str, x: &[f32]| heard(&format!("{}.{part}.weight", self.name), x);
        ["query", "key", "value"].iter().for_each(|part| hear(&format!("attention.self.{part}"), x));
        let (query, key, value) = (self.query.run(x)?, self.key.run(x)?, self.value.run(x)?);
        let (features, words) = (self.attended_norm.scale.len(), x.len() / self.attended_norm.scale.len());
        let heads = Heads { queries: heads, keys: heads, size: features / heads };
        let mixed = heads.attend(&query, &key, &value, |_| words);
        hear("attention.output.dense", &mixed);
        let mut attended = self.attended.run(&mixed)?;
        attended.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        self.attended_norm.apply(&mut attended);
        hear("intermediate.dense", &attended);
        let mut wide = self.wide.run(&attended)?;
        wide.iter_mut().for_each(|x| *x = gelu(*x));
        hear("output.dense", &wide);
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
