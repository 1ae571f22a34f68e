//! Computing a network on burn's tensors.

use burn_tensor::Tensor;
use burn_tensor::activation::relu;
use burn_tensor::module::{conv2d, max_pool2d};
use burn_tensor::ops::{ConvOptions, MaxPoolOptions};

use super::{Convolution, Network, Op};
use crate::convolution::by_columns;

impl Network {
    /// The logits (batch x classes) of images (batch x channels x height x width).
    ///
    /// Vectors are images of one position. `layer` computes a layer, given its number and its input.
    pub(crate) fn run(
        &self,
        images: Tensor<4>,
        mut layer: impl FnMut(usize, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<2> {
        let batch = images.dims()[0];
        let mut values: Vec<Option<Tensor<4>>> = vec![Some(images)];
        for (index, step) in self.steps.iter().enumerate() {
            let first = self.value(&mut values, index, step.inputs[0]);
            let computed = match step.op {
                Op::Layer(number) => layer(number, first),
                Op::Relu => relu(first),
                Op::Add => first + self.value(&mut values, index, step.inputs[1]),
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
        let output = self.value(&mut values, self.steps.len(), self.output);
        output.reshape([batch, self.classes])
    }

    /// A value for the step `at`; kept only if a later one reads it again.
    fn value(&self, values: &mut [Option<Tensor<4>>], at: usize, value: usize) -> Tensor<4> {
        let later = self.steps.iter().skip(at + 1).any(|step| step.inputs.contains(&value));
        let twice = self.steps.get(at).is_some_and(|step| step.inputs == [value, value]);
        let kept = later || twice || (value == self.output && at < self.steps.len());
        let found = if kept { values[value].clone() } else { values[value].take() };
        found.expect("a step reads what earlier ones computed, and nobody took it")
    }
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
