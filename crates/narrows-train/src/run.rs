//! Computing a network on burn's tensors.

use burn_tensor::Tensor;
use burn_tensor::activation::relu;
use burn_tensor::module::{conv2d, max_pool2d};
use burn_tensor::ops::{ConvOptions, MaxPoolOptions};

use narrows_weights::net::{Convolution, Network, Op};

use crate::convolution::by_columns;

/// The logits (batch x classes) of images (batch x channels x height x width).
///
/// Vectors are images of one position. `layer` computes a layer, given its number and its input.
pub(crate) fn run(
    network: &Network,
    images: Tensor<4>,
    mut layer: impl FnMut(usize, Tensor<4>) -> Tensor<4>,
) -> Tensor<2> {
    let batch = images.dims()[0];
    let mut values: Vec<Option<Tensor<4>>> = vec![Some(images)];
    for (index, step) in network.steps().iter().enumerate() {
        let first = value(network, &mut values, index, step.inputs[0]);
        let computed = match step.op {
            Op::Layer(number) => layer(number, first),
            Op::Relu => relu(first),
            Op::Add => first + value(network, &mut values, index, step.inputs[1]),
            Op::Shift(by) => first + by,
            Op::Scale(by) => first * by,
            Op::MeanPool => first.mean_dim(3).mean_dim(2),
            Op::MaxPool(window) => max_pool2d(first, pooling(window)),
            Op::Flatten => {
                let features = first.dims()[1..].iter().product::<usize>();
                first.reshape([batch, features, 1, 1])
            }
        };
        values.push(Some(computed));
    }
    let output = value(network, &mut values, network.steps().len(), network.output());
    output.reshape([batch, network.classes()])
}

/// A value for the step `at`; kept only if a later one reads it again.
fn value(network: &Network, values: &mut [Option<Tensor<4>>], at: usize, value: usize) -> Tensor<4> {
    let found = if network.is_read_again(value, at) { values[value].clone() } else { values[value].take() };
    found.expect("a step reads what earlier ones computed, and nobody took it")
}

/// A convolution without bias; `weights` are a matrix with a row for each output channel.
pub(crate) fn convolve(input: Tensor<4>, weights: Tensor<2>, window: Convolution) -> Tensor<4> {
    by_columns(&input, &weights, window).unwrap_or_else(|| direct(input, weights, window))
}

/// The same as the backend computes it.
pub(crate) fn direct(input: Tensor<4>, weights: Tensor<2>, window: Convolution) -> Tensor<4> {
    let [outputs, _] = weights.dims();
    let channels = input.dims()[1];
    let weights = weights.reshape([outputs, channels, window.kernel[0], window.kernel[1]]);
    conv2d(input, weights, None, ConvOptions::new(window.stride, window.padding, [1, 1], 1))
}

fn pooling(window: Convolution) -> MaxPoolOptions<2> {
    let Convolution { kernel, stride, padding } = window;
    MaxPoolOptions::new(kernel).with_stride(stride).with_padding(padding)
}
