//! Convolutions on the CPU, forward and backward.
//!
//! burn's flex backend computes the gradient of a convolution's weights as a convolution with the whole image as its
//! kernel, and that of its input as a transposed convolution. Here all three are matrix products of
//! columns (`im2col`, Chellapilla et al. 2006) that stay in the cache: a few images at a time, as many as
//! give the product about [`WIDTH`] columns. `docs/training.md` has the times.

use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_autodiff::{Autodiff, NodeId};
use burn_backend::TensorMetadata;
use burn_backend::ops::FloatTensorOps;
use burn_backend::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexTensor, Layout};
use burn_tensor::Tensor;
use rayon::prelude::*;

use narrows_weights::net::Convolution;

/// Columns of a product, about.
const WIDTH: usize = 784;
/// Parts of a batch whose gradients are summed one by one, so that the sum is the same however many threads there are.
const PARTS: usize = 16;

/// A convolution by columns if both tensors are on the flex backend.
///
/// `weights` has a row for each output channel.
pub(crate) fn by_columns(input: &Tensor<4>, weights: &Tensor<2>, window: Convolution) -> Option<Tensor<4>> {
    type Tracked = Autodiff<Flex, NoCheckpointing>;
    let (input, weights) = (input.clone(), weights.clone());
    if !input.is_autodiff() && !weights.is_autodiff() {
        let x = input.try_into_primitive::<Flex>().ok()?;
        let w = weights.try_into_primitive::<Flex>().ok()?;
        return Some(Tensor::from_primitive::<Flex>(forward(&x, &w, window)));
    }
    let x = input.autodiff().try_into_primitive::<Tracked>().ok()?;
    let w = weights.autodiff().try_into_primitive::<Tracked>().ok()?;
    let prepared = Columns.prepare::<NoCheckpointing>([x.node(), w.node()]).compute_bound().stateful();
    let output = match prepared {
        OpsKind::Tracked(mut prepared) => {
            let state = (prepared.checkpoint(&x), prepared.checkpoint(&w), window);
            prepared.finish(state, forward(x.primitive(), w.primitive(), window))
        }
        OpsKind::UnTracked(prepared) => prepared.finish(forward(x.primitive(), w.primitive(), window)),
    };
    Some(Tensor::from_primitive::<Tracked>(output))
}

/// The backward pass.
#[derive(Debug)]
struct Columns;

impl Backward<Flex, 2> for Columns {
    type State = (NodeId, NodeId, Convolution);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [input, weights] = ops.parents;
        let output = gradients.consume::<Flex>(&ops.node);
        let (x, w, window) = ops.state;
        let x = checkpointer.retrieve_node_output::<FlexTensor>(x);
        let w = checkpointer.retrieve_node_output::<FlexTensor>(w);
        let (to_input, to_weights) = backward(&x, &w, &output, window, input.is_some());
        if let (Some(node), Some(gradient)) = (input, to_input) {
            gradients.register::<Flex>(node.id, gradient);
        }
        if let Some(node) = weights {
            gradients.register::<Flex>(node.id, to_weights);
        }
    }
}

fn forward(input: &FlexTensor, weights: &FlexTensor, window: Convolution) -> FlexTensor {
    let (input, weights) = (input.to_contiguous(), weights.to_contiguous());
    let geometry = Geometry::new(&input, &weights, window);
    let mut output = vec![0.0; geometry.batch * geometry.outputs * geometry.positions()];
    let group = geometry.group();
    let inputs = input.storage::<f32>().par_chunks(group * geometry.image());
    let outputs = output.par_chunks_mut(group * geometry.outputs * geometry.positions());
    inputs.zip(outputs).for_each(|(images, output)| {
        let product = product(&weights, &geometry.columns(images));
        geometry.scatter(product.storage(), output);
    });
    let [height, width] = geometry.output;
    tensor(output, [geometry.batch, geometry.outputs, height, width])
}

/// Gradients of the input, if wanted, and of the weights.
fn backward(
    input: &FlexTensor,
    weights: &FlexTensor,
    output: &FlexTensor,
    window: Convolution,
    input_wanted: bool,
) -> (Option<FlexTensor>, FlexTensor) {
    let (input, weights, output) = (input.to_contiguous(), weights.to_contiguous(), output.to_contiguous());
    let geometry = Geometry::new(&input, &weights, window);
    let turned = weights.transpose(0, 1);
    let mut to_input = vec![0.0; if input_wanted { input.storage::<f32>().len() } else { geometry.batch }];
    let unit = if input_wanted { geometry.image() } else { 1 };
    let per_image = geometry.outputs * geometry.positions();
    let part = geometry.group() * geometry.batch.div_ceil(geometry.group()).div_ceil(PARTS);
    let inputs = input.storage::<f32>().par_chunks(part * geometry.image());
    let parts = inputs
        .zip(output.storage::<f32>().par_chunks(part * per_image))
        .zip(to_input.par_chunks_mut(part * unit));
    let sums = parts.map(|((images, output), to_input)| {
        let mut sum = vec![0.0; geometry.outputs * geometry.rows()];
        let group = geometry.group();
        let groups = images.chunks(group * geometry.image()).zip(output.chunks(group * per_image));
        for ((images, output), to_input) in groups.zip(to_input.chunks_mut(group * unit)) {
            let gathered = geometry.gather(output);
            add(&mut sum, product(&gathered, &geometry.columns(images).transpose(0, 1)).storage());
            if input_wanted {
                geometry.add_columns(product(&turned, &gathered).storage(), to_input);
            }
        }
        sum
    });
    let sums: Vec<_> = sums.collect();
    let mut to_weights = vec![0.0; geometry.outputs * geometry.rows()];
    sums.iter().for_each(|sum| add(&mut to_weights, sum));
    let [channels, height, width] = geometry.input;
    let to_input = input_wanted.then(|| tensor(to_input, [geometry.batch, channels, height, width]));
    (to_input, tensor(to_weights, [geometry.outputs, geometry.rows()]))
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

fn product(left: &FlexTensor, right: &FlexTensor) -> FlexTensor {
    Flex::float_matmul(left.clone(), right.clone()).to_contiguous()
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), DType::F32)
}

/// Shapes on both sides of a convolution.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    batch: usize,
    /// Channels, height, width.
    input: [usize; 3],
    outputs: usize,
    /// Height, width.
    output: [usize; 2],
    window: Convolution,
}

impl Geometry {
    fn new(input: &FlexTensor, weights: &FlexTensor, window: Convolution) -> Self {
        let [batch, channels, height, width] = input.shape().dims();
        let [outputs, _] = weights.shape().dims();
        let output = window.positions([height, width]).expect("the model's reader saw that a window fits");
        Self { batch, input: [channels, height, width], outputs, output, window }
    }

    /// Elements of an image.
    fn image(&self) -> usize {
        self.input.iter().product()
    }

    /// Windows in an image.
    const fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements in a window.
    const fn rows(&self) -> usize {
        self.input[0] * self.window.kernel[0] * self.window.kernel[1]
    }

    /// Images that are computed together.
    fn group(&self) -> usize {
        WIDTH.div_ceil(self.positions())
    }

    /// Call `each` with a row of columns, and the run of it and of a line of an image that lie on each other.
    ///
    /// The arguments are the start in the columns (row by row, all windows of all images), the start in the
    /// images, and the number of elements; in images they are [`Convolution::stride`] apart.
    fn runs(&self, images: usize, mut each: impl FnMut(usize, usize, usize)) {
        let [channels, height, width] = self.input;
        let ([out_height, out_width], [kernel_y, kernel_x]) = (self.output, self.window.kernel);
        let ([stride_y, stride_x], [pad_y, pad_x]) = (self.window.stride, self.window.padding);
        let across = images * self.positions();
        for row in 0..self.rows() {
            let (channel, y, x) = (row / (kernel_y * kernel_x), row / kernel_x % kernel_y, row % kernel_x);
            // Windows whose element x lies within the image: 0 <= window * stride + x - pad < width.
            let first = pad_x.saturating_sub(x).div_ceil(stride_x);
            let last = (width + pad_x).saturating_sub(x).div_ceil(stride_x).min(out_width);
            if first >= last {
                continue;
            }
            for image in 0..images {
                for out_y in 0..out_height {
                    let line = out_y * stride_y + y;
                    if line < pad_y || line - pad_y >= height {
                        continue;
                    }
                    let column = row * across + image * self.positions() + out_y * out_width + first;
                    let plane = (image * channels + channel) * height + (line - pad_y);
                    each(column, plane * width + first * stride_x + x - pad_x, last - first);
                }
            }
        }
    }

    /// The windows of some images as columns of a matrix.
    fn columns(&self, images: &[f32]) -> FlexTensor {
        let count = images.len() / self.image();
        let mut columns = vec![0.0; self.rows() * count * self.positions()];
        let stride = self.window.stride[1];
        self.runs(count, |column, from, length| {
            let target = &mut columns[column..column + length];
            if stride == 1 {
                target.copy_from_slice(&images[from..from + length]);
            } else {
                let source = images[from..].iter().step_by(stride);
                target.iter_mut().zip(source).for_each(|(target, source)| *target = *source);
            }
        });
        tensor(columns, [self.rows(), count * self.positions()])
    }

    /// Add each element of the columns to the element of the images that it was taken from.
    fn add_columns(&self, columns: &[f32], images: &mut [f32]) {
        let stride = self.window.stride[1];
        self.runs(images.len() / self.image(), |column, from, length| {
            let source = &columns[column..column + length];
            if stride == 1 {
                add(&mut images[from..from + length], source);
            } else {
                let target = images[from..].iter_mut().step_by(stride);
                target.zip(source).for_each(|(target, source)| *target += source);
            }
        });
    }

    /// Images of outputs as a matrix with a row for each channel.
    fn gather(&self, output: &[f32]) -> FlexTensor {
        let (positions, outputs) = (self.positions(), self.outputs);
        let images = output.len() / (outputs * positions);
        let mut matrix = vec![0.0; output.len()];
        for (at, plane) in output.chunks_exact(positions).enumerate() {
            let (image, channel) = (at / outputs, at % outputs);
            matrix[(channel * images + image) * positions..][..positions].copy_from_slice(plane);
        }
        tensor(matrix, [outputs, images * positions])
    }

    /// The same back.
    fn scatter(&self, matrix: &[f32], output: &mut [f32]) {
        let (positions, outputs) = (self.positions(), self.outputs);
        let images = output.len() / (outputs * positions);
        for (at, plane) in output.chunks_exact_mut(positions).enumerate() {
            let (image, channel) = (at / outputs, at % outputs);
            plane.copy_from_slice(&matrix[(channel * images + image) * positions..][..positions]);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn_tensor::{Device, Distribution};

    use super::*;
    use crate::run::direct;

    fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a.inner() - b.inner()).abs().max().into_scalar()
    }

    #[test]
    fn columns_give_what_the_backend_gives_forward_and_backward() {
        let device = Device::flex();
        let normal = Distribution::Normal(0.0, 1.0);
        // Channels, outputs, kernel, stride, padding, height, width, batch: groups of one and many, and a last one.
        for [c, o, k, s, p, h, w, n] in [
            [3, 5, 3, 1, 1, 28, 28, 4],
            [4, 6, 3, 2, 1, 14, 9, 11],
            [2, 3, 1, 2, 0, 7, 7, 35],
            [1, 2, 5, 3, 2, 11, 13, 9],
            [2, 4, 3, 1, 0, 5, 3, 3],
        ] {
            let window = Convolution { kernel: [k, k], stride: [s, s], padding: [p, p] };
            let x = Tensor::<4>::random([n, c, h, w], normal, &device);
            let weights = Tensor::<2>::random([o, c * k * k], normal, &device);
            let passes = [true, false].map(|columns| {
                let (x, weights) =
                    (x.clone().autodiff().require_grad(), weights.clone().autodiff().require_grad());
                let y = if columns {
                    by_columns(&x, &weights, window).expect("both are on the flex backend")
                } else {
                    direct(x.clone(), weights.clone(), window)
                };
                // Some loss whose gradient differs everywhere.
                let gradients = (y.clone() * y.clone() * 0.5 + y.clone()).sum().backward();
                (y, x.grad(&gradients).unwrap(), weights.grad(&gradients).unwrap())
            });
            let [(y, dx, dw), (y2, dx2, dw2)] = passes;
            assert!(difference(y, y2) < 1e-3, "outputs of {window:?}");
            assert!(difference(dx, dx2) < 1e-2, "gradient of the input of {window:?}");
            let scale: f32 = dw2.clone().abs().max().into_scalar();
            assert!(difference(dw, dw2) < 1e-4 * scale, "gradient of the weights of {window:?}");
        }
    }
}
