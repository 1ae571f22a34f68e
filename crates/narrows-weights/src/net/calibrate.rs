//! Packing a network of images without training, from what it does with a few hundred unlabelled images.
//!
//! Three things are learned from them, with forward passes alone. *Steps*: a layer is rounded by itself, and the divergence
//! of the network's answers says how much an error of its weights costs. *Rounding*: each column's error is made up for by
//! the columns behind it (`compensate`). *Statistics*: the mean and the deviation of each output channel of a
//! convolution are brought back to those of the float network, by its step and its bias, as estimating batch
//! normalisation anew would.

use std::collections::{BTreeMap, HashMap};

use half::{bf16, f16};
use rayon::prelude::*;

use super::classifier::Product;
use super::compensate::{Factor, Moments};
use super::{Images, Kind, Layer, LayerWeights, Model, Network};
use crate::checkpoint::Checkpoint;
use crate::encode::PackOptions;
use crate::error::{Error, Result};
use crate::grid::{Grid, Quantized};
use crate::pack::{floats, network_bytes};
use crate::search::{Next, Search};
use crate::steps::{Calibration, Counted, Settings, grids};

/// Inputs of a layer that its second moments are taken from.
const INPUTS: usize = 1 << 13;
/// How often, at most, the network is rounded: the target of the steps is corrected by the rate that rounding led to. More often
/// where nothing has been small enough yet.
const CORRECTIONS: usize = 4;
const MOST_CORRECTIONS: usize = 10;
/// The most that a channel's step is changed to bring its deviation back.
const MOST_STRETCH: f64 = 2.0;

/// A layer on its grid.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// Bins, with a step for each output channel.
    pub quantized: Quantized,
    /// Biases, each a float16 number.
    pub biases: Vec<f32>,
}

/// Means and deviations of the channels of a layer's outputs.
struct Statistics {
    means: Vec<f64>,
    deviations: Vec<f64>,
}

/// All weights of a model on grids of `settings.bits` a weight, its statistics corrected; `each` hears how far it is, from 0
/// to 1. Where these are the file's ([`Counted::File`]), it is the file that [`pack_network`](crate::pack_network) makes
/// with `options`.
///
/// Images are as the network takes them; a few hundred will do. Settings but for bits, bins and lambda are not looked at.
///
/// # Errors
/// [`Error::Shape`] for images that do not fit the network, or none; [`Error::InvalidOption`] as [`grids`];
/// [`Error::TooFewBits`] for a file that cannot be.
pub fn calibrated(
    model: &Model,
    images: &Images,
    settings: &Settings,
    options: &PackOptions,
    mut each: impl FnMut(f64),
) -> Result<Vec<Calibrated>> {
    if images.count() == 0 {
        return Err(Error::Shape { what: "number of images", value: 0, bound: 1 });
    }
    let float = Float::of(model, images)?;
    let layers = model.layers().len();
    let settings = Settings { least_weights: 0, keep: Vec::new(), ..settings.clone() };
    let checkpoint = checkpoint(model);
    let rounds = (layers + CORRECTIONS) as f64;
    let mut importance = HashMap::new();
    let alone = grids(&checkpoint, &settings, None)?;
    for (number, (layer, _)) in model.layers().enumerate() {
        let cost = float.cost(model, images, number, &alone[&layer.name])?;
        importance.insert(layer.name.clone(), vec![cost as f32]);
        each((number + 1) as f64 / rounds);
    }
    let importance = Calibration::from_values(importance);
    let mut search = Search::of(model, &settings);
    let mut best = None;
    for correction in 0..MOST_CORRECTIONS {
        if correction >= CORRECTIONS && best.is_some() {
            break;
        }
        let asked = Settings { bits: search.asked, lambda: 0.0, ..settings.clone() };
        let found = float.quantised(
            model,
            images,
            &grids(&checkpoint, &asked, Some(&importance))?,
            settings.lambda,
        )?;
        let next = search.found(match settings.counted {
            Counted::Entropy => entropy_bytes(&found),
            Counted::File => network_bytes(model, &found, options)?,
        })?;
        each(((layers + correction + 1) as f64 / rounds).min(1.0));
        // Of an entropy, what is above is as good as what is below.
        if next != Next::TooMany || settings.counted == Counted::Entropy {
            best = Some(found);
        }
        if next == Next::Done {
            break;
        }
    }
    each(1.0);
    best.ok_or_else(|| search.too_few())
}

impl Search {
    /// The search for a network's file, or the entropy of its weights.
    fn of(model: &Model, settings: &Settings) -> Self {
        let (mut weights, mut rows) = (0, 0);
        for (layer, stored) in model.layers() {
            (weights, rows) = (weights + stored.weights.len(), rows + layer.outputs());
        }
        let (weights, rows) = (weights as f64, rows as f64);
        match settings.counted {
            Counted::Entropy => Self::of_entropy(settings.bits, weights),
            Counted::File => {
                let layers = model.layers().len() as f64;
                Self::about(settings.bits, (weights + rows, weights, 0.0), 3.0 * rows + 200.0 * layers)
            }
        }
    }
}

/// Bytes of all bins, by entropy.
fn entropy_bytes(layers: &[Calibrated]) -> u64 {
    let bits: f64 = layers.iter().map(|l| l.quantized.entropy() * l.quantized.values.len() as f64).sum();
    (bits / 8.0) as u64
}

/// A model's weights as a checkpoint.
fn checkpoint(model: &Model) -> Checkpoint {
    let tensors =
        model.layers().map(|(layer, stored)| (layer.name.clone(), floats(&layer.shape, &stored.weights)));
    Checkpoint::from_tensors(tensors.collect())
}

/// What the float network does with the images.
struct Float {
    statistics: Vec<Statistics>,
    logits: Vec<f32>,
}

impl Float {
    fn of(model: &Model, images: &Images) -> Result<Self> {
        let products: Vec<Product> = model
            .layers()
            .map(|(layer, stored)| Product::dense(layer, &stored.weights, &stored.biases))
            .collect::<Result<_>>()?;
        let mut statistics: BTreeMap<usize, Statistics> = BTreeMap::new();
        let logits = model.network().compute(images.clone(), |number, input| {
            let output = products[number].run(&input)?;
            statistics.insert(number, Statistics::of(&output));
            Ok(output)
        })?;
        if let Some(logit) = logits.iter().find(|logit| !logit.is_finite()) {
            let what = format!("the network answers {logit}: it cannot be calibrated");
            return Err(Error::container(what));
        }
        Ok(Self { statistics: statistics.into_values().collect(), logits })
    }

    /// What a squared error of one weight of layer `alone` costs: the divergence of the network's answers when only that
    /// layer is rounded, over the sum of squared errors.
    fn cost(&self, model: &Model, images: &Images, alone: usize, grid: &Grid) -> Result<f64> {
        let mut error = 0.0;
        let layers: Vec<(&Layer, &LayerWeights)> = model.layers().collect();
        let logits = model.network().compute(images.clone(), |number, input| {
            let (layer, stored) = layers[number];
            if number != alone {
                return Product::dense(layer, &stored.weights, &stored.biases)?.run(&input);
            }
            let rounded = nearest(layer, stored, grid);
            error = squared_error(&rounded, &stored.weights);
            let rounded = self.corrected(number, layer, rounded, stored, &input)?;
            dense(layer, &rounded)?.run(&input)
        })?;
        let divergence = divergence(&self.logits, &logits, model.network());
        Ok((divergence / error.max(1e-30)).max(1e-30))
    }

    /// The network with all layers rounded, one after the other: each sees what those before it, rounded, make of the images.
    fn quantised(
        &self,
        model: &Model,
        images: &Images,
        grids: &BTreeMap<String, Grid>,
        lambda: f32,
    ) -> Result<Vec<Calibrated>> {
        let layers: Vec<(&Layer, &LayerWeights)> = model.layers().collect();
        let mut done: BTreeMap<usize, Calibrated> = BTreeMap::new();
        model.network().compute(images.clone(), |number, input| {
            let (layer, stored) = layers[number];
            let factor = moments(layer, &input);
            let quantized = factor.round(&grids[&layer.name], &stored.weights, lambda);
            let calibrated = self.corrected(number, layer, quantized, stored, &input)?;
            let output = dense(layer, &calibrated)?.run(&input)?;
            done.insert(number, calibrated);
            Ok(output)
        })?;
        Ok(done.into_values().collect())
    }

    /// Steps and biases for which the layer's outputs have the float network's means and, for convolutions, deviations.
    fn corrected(
        &self,
        number: usize,
        layer: &Layer,
        mut quantized: Quantized,
        stored: &LayerWeights,
        input: &Images,
    ) -> Result<Calibrated> {
        let before = Calibrated { quantized: quantized.clone(), biases: vec![0.0; layer.outputs()] };
        let found = Statistics::of(&dense(layer, &before)?.run(input)?);
        let wanted = &self.statistics[number];
        let (mut steps, mut biases) = (Vec::new(), Vec::new());
        for row in 0..layer.outputs() {
            let step = quantized.grid.step(row);
            let stretch = match layer.kind {
                Kind::Convolution(_) if found.deviations[row] > 0.0 && wanted.deviations[row] > 0.0 => {
                    wanted.deviations[row] / found.deviations[row]
                }
                _ => 1.0,
            };
            let stretch = stretch.clamp(1.0 / MOST_STRETCH, MOST_STRETCH);
            // In 16 bits: what a packed tensor stores of a step.
            let stored_step = bf16::from_f64(f64::from(step) * stretch);
            let stored_step = if stored_step.is_normal() { stored_step.to_f32() } else { step };
            let stretch = f64::from(stored_step) / f64::from(step);
            let bias = wanted.means[row] - stretch * found.means[row];
            let bias = if bias.is_finite() { bias as f32 } else { stored.biases[row] };
            biases.push(f16::from_f32(bias.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_f32());
            steps.push(stored_step);
        }
        quantized.grid = Grid::new(steps, quantized.grid.bins())?;
        Ok(Calibrated { quantized, biases })
    }
}

/// The layer with quantised weights, as floats.
fn dense(layer: &Layer, calibrated: &Calibrated) -> Result<Product> {
    let Quantized { values, grid, columns, .. } = &calibrated.quantized;
    let mut weights = vec![0.0; values.len()];
    let rows = values.chunks_exact(*columns).zip(weights.chunks_exact_mut(*columns));
    rows.enumerate().for_each(|(row, (values, weights))| grid.dequantize_row(row, values, weights));
    Product::dense(layer, &weights, &calibrated.biases)
}

/// Every weight in its nearest bin.
fn nearest(layer: &Layer, stored: &LayerWeights, grid: &Grid) -> Quantized {
    let (rows, columns) = (layer.outputs(), layer.weights() / layer.outputs());
    let mut values = vec![0; stored.weights.len()];
    let each = values.chunks_exact_mut(columns).zip(stored.weights.chunks_exact(columns));
    each.enumerate().for_each(|(row, (values, weights))| grid.quantize_row(row, weights, values));
    Quantized { values, grid: grid.clone(), rows, columns }
}

/// The sum over all weights.
fn squared_error(quantized: &Quantized, weights: &[f32]) -> f64 {
    let columns = quantized.columns;
    let each = quantized.values.iter().zip(weights).enumerate();
    let squares =
        each.map(|(at, (&q, w))| f64::from(w - f32::from(q) * quantized.grid.step(at / columns)).powi(2));
    squares.sum()
}

/// What is added to the diagonal of second moments, relative to its mean.
const DAMPING: f64 = 0.01;

/// The second moments of a layer's inputs, from as many places of the images as are needed.
fn moments(layer: &Layer, input: &Images) -> Factor {
    let columns = layer.weights() / layer.outputs();
    let mut moments = Moments::new(columns);
    let Kind::Convolution(window) = layer.kind else {
        moments.add(&input.values);
        return moments.factor(DAMPING);
    };
    let [_, height, width] = input.shape;
    let positions = window.positions([height, width]).map_or(0, |[y, x]| y * x);
    let wanted = INPUTS.div_ceil(input.count()).clamp(1, positions.max(1));
    let each: Vec<&[f32]> = input.each().collect();
    let of = |(number, image): (usize, &&[f32])| {
        // Places spread over the image, others in each.
        let (mut all, mut some) = (Vec::new(), Vec::new());
        for place in 0..wanted {
            let position = (place * positions / wanted + number * 7) % positions;
            window.patches(image, [height, width], position..position + 1, &mut some);
            all.extend_from_slice(&some);
        }
        all
    };
    for images in each.chunks(64) {
        let patches: Vec<Vec<f32>> = images.par_iter().enumerate().map(of).collect();
        moments.add(&patches.concat());
    }
    moments.factor(DAMPING)
}

impl Statistics {
    fn of(output: &Images) -> Self {
        let [channels, height, width] = output.shape;
        let (mut sums, mut squares) = (vec![0.0_f64; channels], vec![0.0_f64; channels]);
        for (at, values) in output.values.chunks_exact(height * width).enumerate() {
            for &value in values {
                sums[at % channels] += f64::from(value);
                squares[at % channels] += f64::from(value).powi(2);
            }
        }
        let count = (output.count() * height * width) as f64;
        let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        let variances = squares.iter().zip(&means).map(|(square, mean)| square / count - mean * mean);
        Self { deviations: variances.map(|variance| variance.max(0.0).sqrt()).collect(), means }
    }
}

/// The mean divergence of answers from others: `sum p ln (p / q)`.
fn divergence(of: &[f32], from: &[f32], network: &Network) -> f64 {
    let classes = network.classes();
    let each = of.chunks_exact(classes).zip(from.chunks_exact(classes)).map(|(p, q)| {
        let [p, q] = [p, q].map(log_softmax);
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    });
    each.sum::<f64>() / (of.len() / classes) as f64
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
    logits.iter().map(|x| f64::from(x - most) - sum.ln()).collect()
}
