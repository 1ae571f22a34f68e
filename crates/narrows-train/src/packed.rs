//! Packed weights for networks of burn: layers that decode while they multiply, and tensors to fill a module with.

use burn_tensor::{Tensor, TensorData};
use narrows_weights::PackedFile;
use narrows_weights::net::{Conv2d, Convolution, Linear, Weights, dense};

use crate::weights::numbers_of;
use crate::{Error, Result};

/// A linear layer whose weights stay packed: `y = W x + b`, computed on the CPU, without gradients.
///
/// It holds no parameters of burn: in a module it is a field with `#[module(skip)]`.
#[derive(Debug)]
pub struct PackedLinear(Linear);

impl PackedLinear {
    /// The layer with the tensors `NAME.weight` (outputs x inputs, as PyTorch has them) and `NAME.bias` of a packed file.
    ///
    /// # Errors
    /// [`Error::Model`] for tensors that are not there, damaged, or of other shapes.
    pub fn of(file: &PackedFile, name: &str) -> Result<Self> {
        Ok(Self(Linear::of(file, name)?))
    }

    /// The outputs for inputs in the last axis.
    ///
    /// # Errors
    /// [`Error::Shape`] for inputs of another length; [`Error::Model`] if weights are no encoder's.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>> {
        let (outputs, inputs) = self.0.shape();
        let (mut dims, device) = (input.dims(), input.device());
        if dims[D - 1] != inputs {
            return Err(shape("last axis of the input", &dims, &inputs));
        }
        let output = self.0.run(&numbers_of(input))?;
        dims[D - 1] = outputs;
        Ok(Tensor::from_data(TensorData::new(output, dims), &device))
    }
}

/// A convolution of images (batch x channels x height x width) whose weights stay packed; as [`PackedLinear`].
#[derive(Debug)]
pub struct PackedConv2d {
    conv: Conv2d,
    channels: usize,
}

impl PackedConv2d {
    /// The convolution with the tensors `NAME.weight` (outputs x inputs x kernel height x kernel width) and `NAME.bias`.
    ///
    /// # Errors
    /// As [`PackedLinear::of`], and for a window that is not the weights'.
    pub fn of(file: &PackedFile, name: &str, window: Convolution) -> Result<Self> {
        let weights = Weights::of(file, &format!("{name}.weight"))?;
        let channels = weights.shape().1 / (window.kernel[0] * window.kernel[1]).max(1);
        let (bias, _) = dense(file, &format!("{name}.bias"))?;
        Ok(Self { conv: Conv2d::new(weights, bias, window)?, channels })
    }

    /// The outputs for a batch of images.
    ///
    /// # Errors
    /// As [`PackedLinear::forward`], and [`Error::Model`] for images smaller than the window.
    pub fn forward(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        let ([batch, channels, height, width], device) = (images.dims(), images.device());
        if channels != self.channels || images.dims().contains(&0) {
            return Err(shape("channels of the images", &images.dims(), &self.channels));
        }
        let (mut output, mut size) = (Vec::new(), [0, 0]);
        for image in numbers_of(images).chunks_exact(channels * height * width) {
            let (values, found) = self.conv.run(image, [height, width])?;
            output.extend(values);
            size = found;
        }
        let dims = [batch, self.conv.channels(), size[0], size[1]];
        Ok(Tensor::from_data(TensorData::new(output, dims), &device))
    }
}

/// A tensor of a packed file, unpacked: what fills a parameter of a module (`Param::from_data`).
///
/// # Errors
/// [`Error::Model`] for a tensor that is not there, damaged, or not of floats.
pub fn tensor_data(file: &PackedFile, name: &str) -> Result<TensorData> {
    let (values, dims) = dense(file, name)?;
    Ok(TensorData::new(values, dims))
}

fn shape(what: &'static str, found: &[usize], expected: &usize) -> Error {
    Error::Shape { what, found: format!("{found:?}"), expected: expected.to_string() }
}
