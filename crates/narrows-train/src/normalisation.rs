//! Batch normalisation on the CPU, forward and backward.
//!
//! burn composes it of a dozen operations, each of which reads and writes the whole tensor. Here a channel is taken after the
//! other, all images of it, so that it stays in the cache from the sums to the outputs.

use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_autodiff::{Autodiff, NodeId};
use burn_backend::{Bytes, DType, Shape, TensorMetadata};
use burn_flex::{Flex, FlexTensor, Layout};
use burn_tensor::Tensor;
use rayon::prelude::*;

/// Sums of this many elements are kept side by side, so that adding up can use vectors.
const LANES: usize = 16;

/// Outputs of a normalisation, and what it normalised by.
pub(crate) struct Normalised {
    pub(crate) output: Tensor<4>,
    /// Mean and variance of each channel.
    pub(crate) means: Vec<f32>,
    pub(crate) variances: Vec<f32>,
}

/// `gain (x - mean) / sqrt(variance + epsilon) + bias` with the batch's own statistics, if the tensors are on the flex backend.
pub(crate) fn by_batch(
    input: &Tensor<4>,
    gains: &Tensor<1>,
    biases: &Tensor<1>,
    epsilon: f32,
) -> Option<Normalised> {
    type Tracked = Autodiff<Flex, NoCheckpointing>;
    let (input, gains, biases) = (input.clone(), gains.clone(), biases.clone());
    if !input.is_autodiff() && !gains.is_autodiff() && !biases.is_autodiff() {
        let x = input.try_into_primitive::<Flex>().ok()?;
        let (g, b) = (gains.try_into_primitive::<Flex>().ok()?, biases.try_into_primitive::<Flex>().ok()?);
        let statistics = Statistics::of(&x, epsilon);
        let output = Tensor::from_primitive::<Flex>(statistics.normalise(x, &g, &b));
        return Some(Normalised { output, means: statistics.means, variances: statistics.variances });
    }
    let x = input.autodiff().try_into_primitive::<Tracked>().ok()?;
    let g = gains.autodiff().try_into_primitive::<Tracked>().ok()?;
    let b = biases.autodiff().try_into_primitive::<Tracked>().ok()?;
    let statistics = Statistics::of(x.primitive(), epsilon);
    let output = statistics.normalise(x.primitive().clone(), g.primitive(), b.primitive());
    let (means, variances) = (statistics.means.clone(), statistics.variances.clone());
    let prepared =
        Channels.prepare::<NoCheckpointing>([x.node(), g.node(), b.node()]).compute_bound().stateful();
    let output = match prepared {
        OpsKind::Tracked(mut prepared) => {
            let state = (prepared.checkpoint(&x), prepared.checkpoint(&g), statistics);
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Some(Normalised { output: Tensor::from_primitive::<Tracked>(output), means, variances })
}

/// `scale x + shift` for each channel, if the tensor is on the flex backend and no gradient is wanted.
pub(crate) fn affine(input: &Tensor<4>, scales: &[f32], shifts: &[f32]) -> Option<Tensor<4>> {
    if input.is_autodiff() {
        return None;
    }
    let mut x = contiguous(input.clone().try_into_primitive::<Flex>().ok()?);
    let [_, channels, height, width] = x.shape().dims();
    let images = x.storage_mut::<f32>().par_chunks_mut((channels * height * width).max(1));
    images.for_each(|image| {
        let planes = image.chunks_exact_mut((height * width).max(1));
        for (plane, (scale, shift)) in planes.zip(scales.iter().zip(shifts)) {
            plane.iter_mut().for_each(|x| *x = *x * scale + shift);
        }
    });
    Some(Tensor::from_primitive::<Flex>(x))
}

/// The backward pass.
#[derive(Debug)]
struct Channels;

impl Backward<Flex, 3> for Channels {
    type State = (NodeId, NodeId, Statistics);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [input, gains, biases] = ops.parents;
        let output = gradients.consume::<Flex>(&ops.node);
        let (x, g, statistics) = ops.state;
        let x = checkpointer.retrieve_node_output::<FlexTensor>(x);
        let g = checkpointer.retrieve_node_output::<FlexTensor>(g);
        let (to_input, to_gains, to_biases) = statistics.backward(x, &g, output);
        if let Some(node) = input {
            gradients.register::<Flex>(node.id, to_input);
        }
        if let Some(node) = gains {
            gradients.register::<Flex>(node.id, vector(to_gains));
        }
        if let Some(node) = biases {
            gradients.register::<Flex>(node.id, vector(to_biases));
        }
    }
}

/// What a batch is normalised by.
#[derive(Clone, Debug)]
struct Statistics {
    means: Vec<f32>,
    variances: Vec<f32>,
    /// `1 / sqrt(variance + epsilon)`
    inverses: Vec<f32>,
}

impl Statistics {
    /// Mean and variance of each channel over all images and places.
    fn of(x: &FlexTensor, epsilon: f32) -> Self {
        let x = x.to_contiguous();
        let [_, channels, height, width] = x.shape().dims();
        let places = height * width;
        let values = x.storage::<f32>();
        let planes = |channel| values.chunks_exact(places.max(1)).skip(channel).step_by(channels);
        let count = (values.len() / channels.max(1)).max(1) as f64;
        let found = (0..channels).into_par_iter().map(|channel| {
            let total: f64 = planes(channel).map(|plane| f64::from(sum(plane, |x| x))).sum();
            let mean = (total / count) as f32;
            let squares = |plane| f64::from(sum(plane, |x| (x - mean) * (x - mean)));
            (mean, (planes(channel).map(squares).sum::<f64>() / count) as f32)
        });
        let (means, variances): (Vec<_>, Vec<f32>) = found.unzip();
        let inverses = variances.iter().map(|variance| (variance + epsilon).sqrt().recip()).collect();
        Self { means, variances, inverses }
    }

    fn normalise(&self, x: FlexTensor, gains: &FlexTensor, biases: &FlexTensor) -> FlexTensor {
        let mut x = contiguous(x);
        let (gains, biases) = (gains.to_contiguous(), biases.to_contiguous());
        let (gains, biases) = (gains.storage::<f32>(), biases.storage::<f32>());
        let [_, channels, height, width] = x.shape().dims();
        let images = x.storage_mut::<f32>().par_chunks_mut((channels * height * width).max(1));
        images.for_each(|image| {
            for (channel, plane) in image.chunks_exact_mut((height * width).max(1)).enumerate() {
                let scale = gains[channel] * self.inverses[channel];
                let (mean, bias) = (self.means[channel], biases[channel]);
                plane.iter_mut().for_each(|x| *x = (*x - mean) * scale + bias);
            }
        });
        x
    }

    /// Gradients of inputs, gains and biases from those of the outputs `dy` (Ioffe and Szegedy 2015, section 3).
    ///
    /// With `n` elements in a channel and `u = (x - mean) / sqrt(variance + epsilon)`: `dbias = sum dy`,
    /// `dgain = sum dy u`, `dx = gain / sqrt(variance + epsilon) (dy - dbias / n - u dgain / n)`.
    fn backward(
        &self,
        x: FlexTensor,
        gains: &FlexTensor,
        output: FlexTensor,
    ) -> (FlexTensor, Vec<f32>, Vec<f32>) {
        let (x, mut output, gains) = (contiguous(x), contiguous(output), gains.to_contiguous());
        let [_, channels, height, width] = x.shape().dims();
        let places = (height * width).max(1);
        let (inputs, gains) = (x.storage::<f32>(), gains.storage::<f32>());
        let count = (inputs.len() / channels.max(1)).max(1) as f32;
        let mut planes: Vec<Vec<(&[f32], &mut [f32])>> = (0..channels).map(|_| Vec::new()).collect();
        let pairs = inputs.chunks_exact(places).zip(output.storage_mut::<f32>().chunks_exact_mut(places));
        pairs.enumerate().for_each(|(at, pair)| planes[at % channels].push(pair));
        let sums = planes.into_par_iter().enumerate().map(|(channel, mut planes)| {
            let (mean, inverse) = (self.means[channel], self.inverses[channel]);
            let (mut to_bias, mut to_gain) = (0.0_f64, 0.0_f64);
            for (x, dy) in &planes {
                to_bias += f64::from(sum(dy, |dy| dy));
                to_gain += f64::from(sum_of_products(x, dy, mean)) * f64::from(inverse);
            }
            let scale = gains[channel] * inverse;
            let (constant, slope) = (to_bias as f32 / count, to_gain as f32 / count * inverse);
            for (x, dy) in &mut planes {
                for (x, dy) in x.iter().zip(dy.iter_mut()) {
                    *dy = scale * (*dy - constant - (x - mean) * slope);
                }
            }
            (to_gain as f32, to_bias as f32)
        });
        let (to_gains, to_biases) = sums.unzip();
        (output, to_gains, to_biases)
    }
}

/// The sum of `f(x)`.
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| f(*x)).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += f(*x));
    }
    lanes.iter().sum::<f32>() + rest
}

/// The sum of `(x - mean) dy`.
fn sum_of_products(x: &[f32], dy: &[f32], mean: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (xs, dys) = (x.chunks_exact(LANES), dy.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(dys.remainder());
    let rest: f32 = rest.map(|(x, dy)| (x - mean) * dy).sum();
    for (x, dy) in xs.zip(dys) {
        for (lane, (x, dy)) in lanes.iter_mut().zip(x.iter().zip(dy)) {
            *lane += (x - mean) * dy;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

fn vector(values: Vec<f32>) -> FlexTensor {
    let shape = Shape::from([values.len()]);
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

#[cfg(test)]
mod tests {
    use burn_tensor::module::batch_norm_train;
    use burn_tensor::{Device, Distribution};

    use super::*;

    fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a.inner() - b.inner()).abs().max().into_scalar()
    }

    #[test]
    fn channels_give_what_the_backend_gives_forward_and_backward() {
        let device = Device::flex();
        let normal = Distribution::Normal(0.4, 1.7);
        for shape in [[4, 3, 28, 28], [7, 5, 3, 5], [9, 2, 1, 1], [1, 1, 4, 4]] {
            let x = Tensor::<4>::random(shape, normal, &device);
            let [gains, biases] = [(); 2].map(|()| Tensor::<1>::random([shape[1]], normal, &device));
            let weights = Tensor::<4>::random(shape, normal, &device);
            let passes = [true, false].map(|ours| {
                let [g, b] = [&gains, &biases].map(|tensor| tensor.clone().autodiff().require_grad());
                let x = x.clone().autodiff().require_grad();
                let (y, statistics) = if ours {
                    let ours = by_batch(&x, &g, &b, 1e-5).expect("they are on the flex backend");
                    (ours.output, [ours.means, ours.variances])
                } else {
                    let theirs = batch_norm_train(x.clone(), g.clone(), b.clone(), 1e-5);
                    let vectors = [theirs.mean, theirs.variance];
                    (theirs.output, vectors.map(|tensor| tensor.inner().try_into_vec_as().unwrap()))
                };
                let gradients = (y.clone() * y.clone() * weights.clone().autodiff()).sum().backward();
                let [dg, db] = [&g, &b].map(|tensor| tensor.grad(&gradients).unwrap());
                (y, x.grad(&gradients).unwrap(), dg, db, statistics)
            });
            let [(y, dx, dg, db, s), (y2, dx2, dg2, db2, s2)] = passes;
            assert!(difference(y, y2) < 1e-4, "outputs of {shape:?}");
            for (ours, theirs) in [(dg, dg2), (db, db2)] {
                let scale: f32 = theirs.clone().abs().max().into_scalar();
                assert!(difference(ours, theirs) < 1e-4 * scale.max(1.0), "gains and biases of {shape:?}");
            }
            let scale: f32 = dx2.clone().abs().max().into_scalar();
            assert!(difference(dx, dx2) < 1e-4 * scale.max(1.0), "gradient of the input of {shape:?}");
            for (ours, theirs) in s.iter().flatten().zip(s2.iter().flatten()) {
                assert!((ours - theirs).abs() < 1e-4, "statistics of {shape:?}: {ours}, not {theirs}");
            }
        }
    }

    #[test]
    fn an_affine_map_takes_each_channel_by_its_own_numbers() {
        let device = Device::flex();
        let x = Tensor::<4>::random([3, 2, 4, 5], Distribution::Normal(0.0, 1.0), &device);
        let mapped = affine(&x, &[2.0, -0.5], &[1.0, 3.0]).expect("it is on the flex backend");
        let column = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device).reshape([1, 2, 1, 1]);
        assert!(difference(mapped, x.clone() * column([2.0, -0.5]) + column([1.0, 3.0])) < 1e-6);
        assert!(affine(&x.autodiff().require_grad(), &[1.0; 2], &[0.0; 2]).is_none());
    }
}
