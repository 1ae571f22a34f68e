//! Convolutions in two dimensions, as products with the patches of an image.

use super::{Linear, Weights};
use crate::error::{Error, Result};

/// A convolution of `channels x height x width` images, no groups; the weights' rows are output channels, and their columns
/// input channels x kernel rows x kernel columns.
#[derive(Debug)]
pub struct Conv2d {
    linear: Linear,
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// A convolution with a kernel of these rows and columns.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weights' columns are no multiple of the kernel's size, the bias does not fit, or the stride is 0.
    pub fn new(
        weights: Weights,
        bias: Vec<f32>,
        kernel: [usize; 2],
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let ((_, columns), size) = (weights.shape(), kernel[0] * kernel[1]);
        if size == 0 || !columns.is_multiple_of(size) {
            return Err(Error::Shape {
                what: "columns of a convolution's weights",
                value: columns,
                bound: size,
            });
        }
        if stride == 0 {
            return Err(Error::Shape { what: "stride", value: 0, bound: 1 });
        }
        Ok(Self { linear: Linear::new(weights, bias)?, kernel, stride, padding })
    }

    /// The output and its height and width, for an image of this height and width.
    ///
    /// # Errors
    /// [`Error::Shape`] if the image has not as many elements as it should, or is smaller than the kernel; and as
    /// [`Linear::run`].
    pub fn run(&self, image: &[f32], [height, width]: [usize; 2]) -> Result<(Vec<f32>, [usize; 2])> {
        let (rows, columns) = self.linear.shape();
        let [kernel_height, kernel_width] = self.kernel;
        let channels = columns / (kernel_height * kernel_width);
        if image.len() != channels * height * width {
            let bound = channels * height * width;
            return Err(Error::Shape { what: "elements of the image", value: image.len(), bound });
        }
        let places = |length: usize, kernel: usize| {
            let padded = length + 2 * self.padding;
            let small = Error::Shape { what: "padded side of the image", value: padded, bound: kernel };
            padded.checked_sub(kernel).map(|rest| rest / self.stride + 1).ok_or(small)
        };
        let out = [places(height, kernel_height)?, places(width, kernel_width)?];
        let mut patches = vec![0.0; out[0] * out[1] * columns];
        for (position, patch) in patches.chunks_exact_mut(columns).enumerate() {
            let (top, left) = (position / out[1] * self.stride, position % out[1] * self.stride);
            for (at, element) in patch.iter_mut().enumerate() {
                let (channel, within) =
                    (at / (kernel_height * kernel_width), at % (kernel_height * kernel_width));
                // Less the padding; what lies outside stays zero.
                let row = (top + within / kernel_width).wrapping_sub(self.padding);
                let column = (left + within % kernel_width).wrapping_sub(self.padding);
                if row < height && column < width {
                    *element = image[(channel * height + row) * width + column];
                }
            }
        }
        let by_position = self.linear.run(&patches)?;
        let positions = out[0] * out[1];
        let mut by_channel = vec![0.0; by_position.len()];
        for (position, values) in by_position.chunks_exact(rows).enumerate() {
            values
                .iter()
                .enumerate()
                .for_each(|(row, &value)| by_channel[row * positions + position] = value);
        }
        Ok((by_channel, out))
    }
}
