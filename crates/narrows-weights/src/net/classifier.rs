//! A network of images that runs from packed weights.

use rayon::prelude::*;

use super::linear::dense;
use super::{Conv2d, Images, Kind, Layer, Linear, Model, Network, Weights};
use crate::error::{Error, Result};
use crate::file::PackedFile;

/// A network that tells images apart. What is packed stays packed: weights are decoded on the way to the multiplier.
#[derive(Debug)]
pub struct Classifier {
    network: Network,
    layers: Vec<Product>,
}

/// What a layer multiplies with.
#[derive(Debug)]
pub(super) enum Product {
    Convolution(Conv2d),
    Linear(Linear),
}

impl Classifier {
    /// The network with the weights of a packed file, under the names that the model gave them.
    ///
    /// # Errors
    /// As [`PackedFile::tensor`], and [`Error::Shape`] for weights or biases that are not as large as the layers.
    pub fn of(network: &Network, file: &PackedFile) -> Result<Self> {
        let layers = network.layers().iter().map(|layer| {
            let (bias, _) = dense(file, &layer.bias)?;
            let product = Product::of(layer, Weights::of(file, &layer.name)?, bias);
            product.map_err(|error| error.in_tensor(&layer.name))
        });
        Ok(Self { layers: layers.collect::<Result<_>>()?, network: network.clone() })
    }

    /// The network with a model's own weights, as floats in memory.
    ///
    /// # Errors
    /// [`Error::Shape`] for layers without weights.
    pub fn dense(model: &Model) -> Result<Self> {
        let layers =
            model.layers().map(|(layer, stored)| Product::dense(layer, &stored.weights, &stored.biases));
        Ok(Self { layers: layers.collect::<Result<_>>()?, network: model.network().clone() })
    }

    /// The same with its hot loops on this path, for tests; packed layers give the same bits on every path.
    #[must_use]
    pub fn with_path(mut self, path: narrows::Path) -> Self {
        self.layers = self.layers.into_iter().map(|layer| layer.with_path(path)).collect();
        self
    }

    /// What it computes.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The logits of images, one after the other; images are shared out among rayon's threads, which does not change them.
    ///
    /// # Errors
    /// [`Error::Shape`] if the images do not fit the network; [`Error::CorruptPayload`] if weights are no encoder's.
    pub fn run(&self, images: Images) -> Result<Vec<f32>> {
        self.network.compute(images, |number, input| self.layers[number].run(&input))
    }
}

impl Product {
    fn of(layer: &Layer, weights: Weights, bias: Vec<f32>) -> Result<Self> {
        let (value, bound) = (weights.shape(), (layer.outputs(), layer.weights() / layer.outputs()));
        for (what, value, bound) in [
            ("rows of a layer's weights", value.0, bound.0),
            ("columns of a layer's weights", value.1, bound.1),
        ] {
            if value != bound {
                return Err(Error::Shape { what, value, bound });
            }
        }
        Ok(match layer.kind {
            Kind::Convolution(window) => Self::Convolution(Conv2d::new(weights, bias, window)?),
            Kind::Linear => Self::Linear(Linear::new(weights, bias)?),
        })
    }

    /// The same of floats, row-major.
    pub(super) fn dense(layer: &Layer, weights: &[f32], biases: &[f32]) -> Result<Self> {
        let weights = Weights::dense(weights, layer.outputs(), layer.weights() / layer.outputs())?;
        Self::of(layer, weights, biases.to_vec())
    }

    fn with_path(self, path: narrows::Path) -> Self {
        match self {
            Self::Convolution(conv) => Self::Convolution(conv.with_path(path)),
            Self::Linear(linear) => Self::Linear(linear.with_path(path)),
        }
    }

    /// The layer's outputs.
    pub(super) fn run(&self, input: &Images) -> Result<Images> {
        let [_, height, width] = input.shape;
        match self {
            Self::Linear(linear) => Images::new(linear.run(&input.values)?, [linear.shape().0, 1, 1]),
            Self::Convolution(conv) => {
                let images: Vec<&[f32]> = input.each().collect();
                let done = images.into_par_iter().map(|image| conv.run(image, [height, width]));
                let done: Vec<(Vec<f32>, [usize; 2])> = done.collect::<Result<_>>()?;
                let [height, width] = done.first().map_or([1, 1], |(_, size)| *size);
                let values: Vec<f32> = done.into_iter().flat_map(|(values, _)| values).collect();
                Images::new(values, [conv.channels(), height, width])
            }
        }
    }
}
