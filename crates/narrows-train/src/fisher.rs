//! Precision without training: steps from the Fisher information of each layer.

use burn_tensor::activation::log_softmax;
use burn_tensor::{Device, Tensor, TensorData};
use narrows_weights::net::Model;

use crate::curve::Curve;
use crate::examples::{Augmentation, Examples};
use crate::quantise::{Grid, Rate};
use crate::random::Random;
use crate::run::run;
use crate::settings::MOST_BINS;
use crate::trained::Trained;
use crate::trainer::NORMALISED_ON;
use crate::weights::{State, Statistics, Upstream, numbers_of};
use crate::{Error, Result};

/// The mean Fisher information of the weights of each layer: the mean square of the gradient of `log p(y | x)`, over images
/// `x` and answers `y` that the network itself would give.
///
/// An error `e` of a weight of information `F` costs `F e^2 / 2` of the loss, to second order.
///
/// # Errors
/// [`Error::Shape`] if the images do not fit the network.
pub fn fisher_information(
    model: &Model,
    examples: &Examples,
    images: usize,
    seed: u64,
    device: &Device,
) -> Result<Vec<f64>> {
    let network = model.network();
    examples.check(network)?;
    let stored = model.layers().map(|(_, stored)| (&stored.weights, &stored.biases));
    let state = State::folded_from(network, stored);
    let images = images.clamp(1, examples.len());
    let mut random = Random::new(seed, 0);
    let mut sums = vec![0.0; network.layers().len()];
    // Squares are of single images' gradients: a batch's gradient is their sum.
    for number in random.permutation(examples.len()).into_iter().take(images) {
        let batch = examples.batch(&[number], network.classes(), Augmentation::NONE, &mut random, device);
        let layers = network.layers().iter();
        let tensors: Vec<_> = state
            .tensors(network, device)
            .into_iter()
            .zip(layers)
            .map(|(t, l)| t.tracked(l.is_normalised()))
            .collect();
        let logits = run(network, batch.images, |number, input| {
            tensors[number].forward(number, &network.layers()[number], input, &mut Statistics::Running)
        });
        let likelihoods = log_softmax(logits, 1);
        let answer = drawn(&numbers_of(likelihoods.clone()), &mut random);
        let mut one_hot = vec![0.0_f32; network.classes()];
        one_hot[answer] = 1.0;
        let answer = Tensor::<2>::from_data(TensorData::new(one_hot, [1, network.classes()]), device);
        let mut gradients = (likelihoods * answer).sum().backward();
        for (sum, tensors) in sums.iter_mut().zip(&tensors) {
            let [weights, ..] = tensors.gradients(&mut gradients);
            let squares: f64 = weights.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
            *sum += squares / weights.len() as f64;
        }
    }
    Ok(sums.into_iter().map(|sum| sum / images as f64).collect())
}

/// A class, drawn with these logarithms of probabilities.
fn drawn(likelihoods: &[f32], random: &mut Random) -> usize {
    let mut left = random.next() as f64 / (u64::MAX as f64 + 1.0);
    for (class, likelihood) in likelihoods.iter().enumerate() {
        left -= f64::from(*likelihood).exp();
        if left < 0.0 {
            return class;
        }
    }
    likelihoods.len() - 1
}

/// A model quantised without training to about so many bits a weight, tables, steps, biases and names counted.
///
/// Steps are in inverse proportion to the root of the layers' [`fisher_information`], so that a bit saved
/// costs as much in every layer (with a loss `F step^2 / 24` a weight and a rate that falls by one bit for each doubling
/// of the step); then the statistics of batch normalisation are estimated anew on `examples`.
///
/// # Errors
/// [`Error::InvalidSetting`] if the information is not one positive number for each layer, or if so few bits
/// are too few for what is not weights; [`Error::Shape`] if the images do not fit the network.
pub fn allocate(
    model: &Model,
    examples: &Examples,
    information: &[f64],
    bits_per_weight: f64,
    device: &Device,
) -> Result<Trained> {
    let network = model.network();
    examples.check(network)?;
    let positive = information.iter().all(|&f| f.is_finite() && f > 0.0);
    if !positive || information.len() != network.layers().len() {
        let found = format!("{information:?}");
        return Err(Error::setting("Fisher information", &found, "a positive number for each layer"));
    }
    let mut state = State::from_model(model, examples, NORMALISED_ON, device);
    let quantise = |log_scale: f64| {
        let grids = state.layers.iter().zip(information).map(|(layer, f)| {
            let widest = layer.weights.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
            // A layer that wants more bins than there are gets wider ones; nothing is clamped.
            let step = ((log_scale.exp2() / f.sqrt()) as f32).max(widest / (MOST_BINS / 2) as f32);
            let bins = 2 * (widest / step).round().clamp(1.0, (MOST_BINS / 2) as f32) as u32 + 1;
            Grid { step, bins }
        });
        let grids: Vec<_> = grids.collect();
        let histograms: Vec<_> =
            state.layers.iter().zip(&grids).map(|(l, grid)| grid.histogram(&l.weights)).collect();
        (Rate::of(network, &histograms).bits_per_weight(), grids, histograms)
    };
    // The rate falls as steps grow: halve the interval of their logarithms until it is narrow.
    let (mut low, mut high) = (-60.0, 60.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if quantise(middle).0 > bits_per_weight { low = middle } else { high = middle }
    }
    let (bits, grids, histograms) = quantise(high);
    if bits > bits_per_weight {
        return Err(Error::setting(
            "bits per weight",
            &bits_per_weight,
            "more than tables, steps, biases and names take",
        ));
    }
    for (layer, grid) in state.layers.iter_mut().zip(&grids) {
        layer.weights = grid.dequantise(&grid.quantise(&layer.weights));
    }
    state.estimate(network, examples, NORMALISED_ON, device, Upstream::Normalised);
    Ok(Trained::new(network.clone(), &state, &grids, &histograms, Curve::default()))
}
