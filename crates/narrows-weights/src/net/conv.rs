//! Convolutions in two dimensions, as products with the patches of an image.

use std::ops::Range;

use super::{Convolution, Linear, Weights};
use crate::error::{Error, Result};

/// Elements of patches that are multiplied at once: they stay in the second-level cache, and decoding the weights anew for
/// each part takes a tenth of the time of its products.
const PART: usize = 1 << 15;

/// A convolution of `channels x height x width` images, no groups; the weights' rows are output channels, and their columns
/// input channels x kernel rows x kernel columns.
#[derive(Debug)]
pub struct Conv2d {
    linear: Linear,
    window: Convolution,
}

impl Conv2d {
    /// A convolution that slides its weights so.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weights' columns are no multiple of the kernel's size, the bias does not fit, or a stride is 0.
    pub fn new(weights: Weights, bias: Vec<f32>, window: Convolution) -> Result<Self> {
        let ((_, columns), size) = (weights.shape(), window.kernel[0] * window.kernel[1]);
        if size == 0 || !columns.is_multiple_of(size) {
            let what = "columns of a convolution's weights";
            return Err(Error::Shape { what, value: columns, bound: size });
        }
        if window.stride.contains(&0) {
            return Err(Error::Shape { what: "stride", value: 0, bound: 1 });
        }
        Ok(Self { linear: Linear::new(weights, bias)?, window })
    }

    /// Output channels.
    pub fn channels(&self) -> usize {
        self.linear.shape().0
    }

    /// The same with its hot loops on this path.
    #[must_use]
    pub fn with_path(self, path: narrows::Path) -> Self {
        Self { linear: self.linear.with_path(path), ..self }
    }

    /// The output and its height and width, for an image of this height and width.
    ///
    /// # Errors
    /// [`Error::Shape`] if the image has not as many elements as it should, or is smaller than the kernel; and as
    /// [`Linear::run`].
    pub fn run(&self, image: &[f32], size: [usize; 2]) -> Result<(Vec<f32>, [usize; 2])> {
        let (rows, columns) = self.linear.shape();
        let bound = columns / (self.window.kernel[0] * self.window.kernel[1]) * size[0] * size[1];
        if image.len() != bound {
            return Err(Error::Shape { what: "elements of the image", value: image.len(), bound });
        }
        let value = size[0].min(size[1]);
        let bound = self.window.kernel[0].max(self.window.kernel[1]);
        let out = self.window.positions(size);
        let out = out.ok_or(Error::Shape { what: "side of the image", value, bound })?;
        let positions = out[0] * out[1];
        let mut by_channel = vec![0.0; positions * rows];
        let (part, mut patches) = ((PART / columns).max(16), Vec::new());
        for start in (0..positions).step_by(part) {
            let some = start..(start + part).min(positions);
            self.window.patches(image, size, some.clone(), &mut patches);
            let values = self.linear.run(&patches)?;
            for (position, values) in some.zip(values.chunks_exact(rows)) {
                for (row, &value) in values.iter().enumerate() {
                    by_channel[row * positions + position] = value;
                }
            }
        }
        Ok((by_channel, out))
    }
}

impl Convolution {
    /// What the windows at `positions` see of an image, one after the other over `patches`: channels x kernel rows x
    /// kernel columns each, zero where they hang over.
    pub(super) fn patches(
        &self,
        image: &[f32],
        [height, width]: [usize; 2],
        positions: Range<usize>,
        patches: &mut Vec<f32>,
    ) {
        let [kernel_height, kernel_width] = self.kernel;
        let across = (width + 2 * self.padding[1] - kernel_width) / self.stride[1] + 1;
        let channels = image.len() / (height * width);
        patches.clear();
        patches.resize(positions.len() * channels * kernel_height * kernel_width, 0.0);
        let mut rows = patches.chunks_exact_mut(kernel_width);
        for position in positions {
            let top = (position / across * self.stride[0]).wrapping_sub(self.padding[0]);
            // Columns of the window that lie inside the image.
            let left = position % across * self.stride[1];
            let first = self.padding[1].saturating_sub(left).min(kernel_width);
            let end = (width + self.padding[1]).saturating_sub(left).clamp(first, kernel_width);
            for channel in image.chunks_exact(height * width) {
                for dy in 0..kernel_height {
                    let row = rows.next().expect("there is room for all");
                    let y = top.wrapping_add(dy);
                    if y < height && first < end {
                        let start = y * width + left + first - self.padding[1];
                        row[first..end].copy_from_slice(&channel[start..start + end - first]);
                    }
                }
            }
        }
    }
}
