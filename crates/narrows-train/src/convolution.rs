//! Convolutions on the CPU, forward and backward.
//!
//! burn's flex backend computes the gradient of a convolution's weights as a convolution with the whole image as its
//! kernel, and that of its input as a transposed convolution. Here all three are matrix products of
//! columns (`im2col`, Chellapilla et al. 2006) that stay in the cache: a few images at a time, as many as
//! give the product about [`WIDTH`] columns. `docs/training.md` has the times.

use std::iter::repeat_n;
use std::ops::Range;

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
use narrows_weights::net::Convolution;
use rayon::prelude::*;

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
                geometry.add_columns(product(&turned, &gathered), to_input);
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

/// Zeros where windows of a line are not inside.
fn clear_outside(plane: &mut [f32], width: usize, inside: &Range<usize>) {
    if inside.len() < width {
        for line in plane.chunks_exact_mut(width) {
            line[..inside.start].fill(0.0);
            line[inside.end..].fill(0.0);
        }
    }
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

    /// Windows across whose element `x` of a line lies within the image: `0 <= window * stride + x - pad < width`.
    fn inside(&self, x: usize) -> Range<usize> {
        let ([_, _, width], [_, stride], [_, pad]) = (self.input, self.window.stride, self.window.padding);
        let first = pad.saturating_sub(x).div_ceil(stride).min(self.output[1]);
        let last = (width + pad).saturating_sub(x).div_ceil(stride).min(self.output[1]);
        first..last.max(first)
    }

    /// The line of an image that element `y` of window `out_y` lies on, if it is within.
    fn line(&self, out_y: usize, y: usize) -> Option<usize> {
        let line = (out_y * self.window.stride[0] + y).checked_sub(self.window.padding[0])?;
        (line < self.input[1]).then_some(line)
    }

    /// Row by row of the columns, image by image, window line by window line: where in the image the first window that is inside
    /// takes its element from, and which windows are inside; none if all of them lie beyond the edge.
    fn lines(&self, images: usize, mut each: impl FnMut(Option<usize>, &Range<usize>)) {
        let ([channels, height, width], [kernel_y, kernel_x]) = (self.input, self.window.kernel);
        for row in 0..self.rows() {
            let (channel, y, x) = (row / (kernel_y * kernel_x), row / kernel_x % kernel_y, row % kernel_x);
            let inside = self.inside(x);
            let first = (inside.start * self.window.stride[1] + x).wrapping_sub(self.window.padding[1]);
            for image in 0..images {
                let plane = (image * channels + channel) * height;
                for out_y in 0..self.output[0] {
                    let line = self.line(out_y, y).filter(|_| !inside.is_empty());
                    each(line.map(|line| (plane + line) * width + first), &inside);
                }
            }
        }
    }

    /// Whether windows lie one place apart and as many as an image has places: the columns' planes are those of the image, moved.
    fn moves_planes(&self) -> bool {
        self.window.stride == [1, 1] && self.output == self.input[1..]
    }

    /// For windows that move planes, row by row of the columns and image by image: where the plane starts in the images, which part of
    /// the columns' plane comes from it, where in it this part starts, and which windows of a line are inside.
    ///
    /// Elements of the part that are not inside come from the line above or below.
    fn planes(&self, images: usize, mut each: impl FnMut(usize, Range<usize>, usize, &Range<usize>)) {
        let ([channels, _, width], [kernel_y, kernel_x]) = (self.input, self.window.kernel);
        let ([pad_y, pad_x], places) = (self.window.padding, self.positions());
        for row in 0..self.rows() {
            let (channel, y, x) = (row / (kernel_y * kernel_x), row / kernel_x % kernel_y, row % kernel_x);
            let (forward, back) = (y * width + x, pad_y * width + pad_x);
            let part =
                back.saturating_sub(forward).min(places)..(places + back).saturating_sub(forward).min(places);
            let from = forward.saturating_sub(back);
            let inside = self.inside(x);
            (0..images).for_each(|image| {
                each((image * channels + channel) * places, part.clone(), from, &inside);
            });
        }
    }

    /// The windows of some images as columns of a matrix.
    fn columns(&self, images: &[f32]) -> FlexTensor {
        let count = images.len() / self.image();
        let mut columns = Vec::with_capacity(self.rows() * count * self.positions());
        if self.moves_planes() {
            self.planes(count, |plane, part, from, inside| {
                let start = columns.len();
                columns.extend(repeat_n(0.0, part.start));
                columns.extend_from_slice(&images[plane + from..][..part.len()]);
                columns.extend(repeat_n(0.0, self.positions() - part.end));
                clear_outside(&mut columns[start..], self.output[1], inside);
            });
            return tensor(columns, [self.rows(), count * self.positions()]);
        }
        let (across, stride) = (self.output[1], self.window.stride[1]);
        self.lines(count, |from, inside| {
            let Some(from) = from else { return columns.extend(repeat_n(0.0, across)) };
            columns.extend(repeat_n(0.0, inside.start));
            if stride == 1 {
                columns.extend_from_slice(&images[from..from + inside.len()]);
            } else {
                let line = &images[from..=from + (inside.len() - 1) * stride];
                columns.extend(line.chunks(stride).map(|elements| elements[0]));
            }
            columns.extend(repeat_n(0.0, across - inside.end));
        });
        tensor(columns, [self.rows(), count * self.positions()])
    }

    /// Add each element of the columns to the element of the images that it was taken from.
    fn add_columns(&self, mut columns: FlexTensor, images: &mut [f32]) {
        let (columns, stride) = (columns.storage_mut::<f32>(), self.window.stride[1]);
        if self.moves_planes() {
            let mut planes = columns.chunks_exact_mut(self.positions());
            self.planes(images.len() / self.image(), |plane, part, from, inside| {
                let source = planes.next().unwrap_or_default();
                clear_outside(source, self.output[1], inside);
                add(&mut images[plane + from..][..part.len()], &source[part]);
            });
            return;
        }
        let mut lines = columns.chunks_exact(self.output[1]);
        self.lines(images.len() / self.image(), |from, inside| {
            let line = lines.next().unwrap_or_default();
            let Some(from) = from else { return };
            let source = &line[inside.clone()];
            if stride == 1 {
                add(&mut images[from..from + source.len()], source);
            } else {
                let line = &mut images[from..=from + (source.len() - 1) * stride];
                line.chunks_mut(stride).zip(source).for_each(|(elements, source)| elements[0] += source);
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
