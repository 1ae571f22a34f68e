//! The numbers of a network while it is trained, in plain memory: what optimisers, quantisers and checkpoints work on.

use burn_tensor::module::{batch_norm, batch_norm_train};
use burn_tensor::{Device, Gradients, Tensor, TensorData};
use narrows_weights::net::{Kind, Layer, Model, Network};

use crate::examples::{Augmentation, Examples};
use crate::normalisation;
use crate::random::Random;
use crate::run::{convolve, run};

/// Added to variances before their root is taken.
const EPSILON: f64 = 1e-5;
/// How much of the running statistics a batch replaces.
const MOMENTUM: f32 = 0.1;
/// Images of a batch when nothing is learned.
pub(crate) const QUIET_BATCH: usize = 125;

/// What one layer learned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerState {
    /// Weights, a row for each output channel.
    pub(crate) weights: Vec<f32>,
    /// Factors of the normalised outputs; empty for layers that are not normalised.
    pub(crate) gains: Vec<f32>,
    /// What is added to the outputs.
    pub(crate) biases: Vec<f32>,
    /// Running means and variances of the outputs; empty for layers that are not normalised.
    pub(crate) means: Vec<f32>,
    pub(crate) variances: Vec<f32>,
}

/// All layers of a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) layers: Vec<LayerState>,
}

/// The tensors of a layer for one pass.
pub(crate) struct LayerTensors {
    pub(crate) weights: Tensor<2>,
    pub(crate) gains: Tensor<1>,
    pub(crate) biases: Tensor<1>,
    means: Tensor<1>,
    variances: Tensor<1>,
    /// What running statistics make of gains and biases: factors of the outputs and what is added then.
    folded: [Vec<f32>; 2],
}

/// What later layers see while statistics are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// The network as it computes now.
    AsItIs,
    /// Outputs normalised by the new statistics.
    Normalised,
}

/// Where a pass takes the statistics of batch normalisation from.
pub(crate) enum Statistics<'a> {
    /// From the past.
    Running,
    /// From the batch; they are handed out, for each layer that is normalised.
    Batch(&'a mut Vec<(usize, Vec<f32>, Vec<f32>)>),
}

impl State {
    /// A model's weights, with batch normalisation put between convolutions and their biases again.
    ///
    /// The gain of a channel is the standard deviation of its outputs on these images and its bias grows by their mean,
    /// so that the network computes what it did, and training can change both.
    pub(crate) fn from_model(model: &Model, examples: &Examples, images: usize, device: &Device) -> Self {
        let stored = model.layers().map(|(_, stored)| (&stored.weights, &stored.biases));
        let mut state = Self::folded_from(model.network(), stored);
        state.estimate(model.network(), examples, images, device, Upstream::AsItIs);
        for (layer, _) in
            state.layers.iter_mut().zip(model.layers()).filter(|(_, (layer, _))| layer.is_normalised())
        {
            for channel in 0..layer.gains.len() {
                layer.gains[channel] = (layer.variances[channel] + EPSILON as f32).sqrt();
                layer.biases[channel] += layer.means[channel];
            }
        }
        state
    }

    /// Weights and biases with normalisation that changes nothing.
    pub(crate) fn folded_from<'a>(
        network: &Network,
        stored: impl Iterator<Item = (&'a Vec<f32>, &'a Vec<f32>)>,
    ) -> Self {
        let layers = network.layers().iter().zip(stored).map(|(layer, (weights, biases))| {
            let channels = if layer.is_normalised() { layer.outputs() } else { 0 };
            LayerState {
                weights: weights.clone(),
                gains: vec![1.0; channels],
                biases: biases.clone(),
                means: vec![0.0; channels],
                variances: vec![1.0 - EPSILON as f32; channels],
            }
        });
        Self { layers: layers.collect() }
    }

    /// Means and variances of batch normalisation anew, from images as they are.
    pub(crate) fn estimate(
        &mut self,
        network: &Network,
        examples: &Examples,
        images: usize,
        device: &Device,
        upstream: Upstream,
    ) {
        let tensors = self.tensors(network, device);
        let count = images.min(examples.len());
        let mut random = Random::new(0, 0);
        let (mut sums, mut batches) = (vec![[Vec::new(), Vec::new()]; self.layers.len()], 0);
        for start in (0..count).step_by(QUIET_BATCH) {
            let numbers: Vec<u32> = (start as u32..(start + QUIET_BATCH).min(count) as u32).collect();
            let batch = examples.batch(&numbers, network.classes(), Augmentation::NONE, &mut random, device);
            let mut seen = Vec::new();
            run(network, batch.images, |layer, input| {
                let kind = &network.layers()[layer];
                let raw = tensors[layer].product(kind, input);
                if !kind.is_normalised() {
                    return raw + tensors[layer].biases.clone().reshape([1, kind.outputs(), 1, 1]);
                }
                let normalised =
                    tensors[layer].normalise(layer, raw.clone(), &mut Statistics::Batch(&mut seen));
                match upstream {
                    Upstream::Normalised => normalised,
                    Upstream::AsItIs => tensors[layer].normalise(layer, raw, &mut Statistics::Running),
                }
            });
            for (layer, mean, variance) in seen {
                add(&mut sums[layer][0], &mean);
                add(&mut sums[layer][1], &variance);
            }
            batches += 1;
        }
        for (layer, [means, variances]) in self.layers.iter_mut().zip(sums) {
            layer.means = means.iter().map(|sum| sum / batches as f32).collect();
            layer.variances = variances.iter().map(|sum| sum / batches as f32).collect();
        }
    }

    /// Move the running statistics towards those of a batch.
    pub(crate) fn follow(&mut self, seen: Vec<(usize, Vec<f32>, Vec<f32>)>) {
        let towards = |old: &mut [f32], new: &[f32]| {
            old.iter_mut().zip(new).for_each(|(old, new)| *old += MOMENTUM * (new - *old));
        };
        for (layer, mean, variance) in seen {
            towards(&mut self.layers[layer].means, &mean);
            towards(&mut self.layers[layer].variances, &variance);
        }
    }

    /// The tensors of all layers.
    pub(crate) fn tensors(&self, network: &Network, device: &Device) -> Vec<LayerTensors> {
        let layers = self.layers.iter().zip(network.layers());
        layers.map(|(state, layer)| LayerTensors::new(state, layer, device)).collect()
    }
}

impl LayerState {
    /// What each output channel is multiplied with.
    pub(crate) fn scales(&self) -> Vec<f32> {
        if self.gains.is_empty() {
            return vec![1.0; self.biases.len()];
        }
        let root = |(gain, variance): (&f32, &f32)| gain / (variance + EPSILON as f32).sqrt();
        self.gains.iter().zip(&self.variances).map(root).collect()
    }

    /// What is added to each output channel after that.
    pub(crate) fn folded_biases(&self) -> Vec<f32> {
        if self.gains.is_empty() {
            return self.biases.clone();
        }
        let scales = self.scales();
        self.biases
            .iter()
            .zip(&self.means)
            .zip(scales)
            .map(|((bias, mean), scale)| bias - mean * scale)
            .collect()
    }
}

impl LayerTensors {
    fn new(state: &LayerState, layer: &Layer, device: &Device) -> Self {
        let vector =
            |values: &[f32]| Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
        let rows = [layer.outputs(), layer.weights() / layer.outputs()];
        Self {
            weights: Tensor::from_data(TensorData::new(state.weights.clone(), rows), device),
            gains: vector(&state.gains),
            biases: vector(&state.biases),
            means: vector(&state.means),
            variances: vector(&state.variances),
            folded: [state.scales(), state.folded_biases()],
        }
    }

    /// The same with gradients wanted.
    pub(crate) fn tracked(mut self, normalised: bool) -> Self {
        self.weights = self.weights.autodiff().require_grad();
        self.biases = self.biases.autodiff().require_grad();
        if normalised {
            self.gains = self.gains.autodiff().require_grad();
        }
        self
    }

    /// Gradients of weights, gains and biases; empty where there are none.
    pub(crate) fn gradients(&self, gradients: &mut Gradients) -> [Vec<f32>; 3] {
        let taken = |tensor: &Tensor<1>, gradients: &mut Gradients| {
            if tensor.is_autodiff() { tensor.grad_remove(gradients).map(numbers_of) } else { None }
        };
        let weights = self.weights.grad_remove(gradients).map(numbers_of);
        let [gains, biases] = [&self.gains, &self.biases].map(|tensor| taken(tensor, gradients));
        [weights, gains, biases].map(Option::unwrap_or_default)
    }

    /// The layer's outputs.
    pub(crate) fn forward(
        &self,
        number: usize,
        layer: &Layer,
        input: Tensor<4>,
        statistics: &mut Statistics<'_>,
    ) -> Tensor<4> {
        let raw = self.product(layer, input);
        if layer.is_normalised() {
            self.normalise(number, raw, statistics)
        } else {
            raw + self.biases.clone().reshape([1, layer.outputs(), 1, 1])
        }
    }

    fn product(&self, layer: &Layer, input: Tensor<4>) -> Tensor<4> {
        match layer.kind {
            Kind::Convolution(window) => convolve(input, self.weights.clone(), window),
            Kind::Linear => {
                let [batch, features, ..] = input.dims();
                let product = input.reshape([batch, features]).matmul(self.weights.clone().transpose());
                product.reshape([batch, layer.outputs(), 1, 1])
            }
        }
    }

    fn normalise(&self, number: usize, raw: Tensor<4>, statistics: &mut Statistics<'_>) -> Tensor<4> {
        match statistics {
            Statistics::Running => self.normalise_by_the_past(raw),
            Statistics::Batch(seen) => {
                let Some(normalised) =
                    normalisation::by_batch(&raw, &self.gains, &self.biases, EPSILON as f32)
                else {
                    let theirs = batch_norm_train(raw, self.gains.clone(), self.biases.clone(), EPSILON);
                    seen.push((number, numbers_of(theirs.mean), numbers_of(theirs.variance)));
                    return theirs.output;
                };
                seen.push((number, normalised.means, normalised.variances));
                normalised.output
            }
        }
    }

    fn normalise_by_the_past(&self, raw: Tensor<4>) -> Tensor<4> {
        let (gains, biases) = (self.gains.clone(), self.biases.clone());
        if !raw.is_autodiff() {
            let [scales, shifts] = &self.folded;
            if let Some(output) = normalisation::affine(&raw, scales, shifts) {
                return output;
            }
        }
        batch_norm(raw, gains, biases, self.means.clone(), self.variances.clone(), EPSILON)
    }
}

/// A tensor's numbers.
pub(crate) fn numbers_of<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().try_into_vec_as().expect("tensors here are float32 and on a device that answers")
}

fn add(sums: &mut Vec<f32>, values: &[f32]) {
    sums.resize(values.len(), 0.0);
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}
