//! Reading a network of images from an ONNX file, and writing the file again with other weights.

mod attributes;
mod constant;
mod error;
mod proto;
mod read;

use std::ops::Range;
use std::path::Path;

use prost::Message as _;
use prost::bytes::Bytes;

pub use error::OnnxError;

use super::network::{Layer, Network};
use crate::error::Result;
use crate::file::map;

/// A network in an ONNX file: what it computes, and its float32 weights.
///
/// Read are convolutions and fully connected layers with biases, `Relu`, `Add`, `Sub`, `Mul` and `Div` by a number,
/// means over all positions, `MaxPool` and `Flatten`. Batch normalisation must have been folded into the
/// convolutions before it, as PyTorch's exporter does.
#[derive(Clone, Debug)]
pub struct Model {
    file: Bytes,
    network: Network,
    weights: Vec<LayerWeights>,
}

/// Weights and biases of one layer as the file holds them.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// Weights, the output channel outermost.
    pub weights: Vec<f32>,
    /// One bias for each output channel.
    pub biases: Vec<f32>,
    places: [Range<usize>; 2],
}

impl Model {
    /// Read an ONNX file; it is mapped, and must not be changed in place as long as the model is there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, otherwise as [`Model::from_bytes`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(Bytes::from_owner(map(path.as_ref())?))
    }

    /// Read the bytes of an ONNX file.
    ///
    /// # Errors
    /// [`OnnxError::Decode`] if they are no protobuf message, [`OnnxError::InvalidModel`] if they break a rule of ONNX,
    /// [`OnnxError::Unsupported`] if the model uses what is not known here.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        let file = bytes.into();
        let proto = proto::Model::decode(file.clone())
            .map_err(|error| OnnxError::Decode { bytes: file.len(), cause: error.to_string() })?;
        let missing =
            || OnnxError::InvalidModel { place: "the model".into(), rule: "it has no graph".into() };
        let graph = proto.graph.ok_or_else(missing)?;
        let (network, weights) = read::network(&graph, &file)?;
        Ok(Self { file, network, weights })
    }

    /// What the network computes.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Its layers with their weights, in the order in which they are computed.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = (&Layer, &LayerWeights)> {
        self.network.layers().iter().zip(&self.weights)
    }

    /// The file again with these weights and biases, one pair for each layer; nothing else changes.
    ///
    /// # Panics
    /// Panics if the lengths are not those of the layers.
    pub fn with_weights(&self, layers: &[(Vec<f32>, Vec<f32>)]) -> Vec<u8> {
        assert_eq!(layers.len(), self.weights.len(), "weights for each layer");
        let mut file = self.file.to_vec();
        for (own, (weights, biases)) in self.weights.iter().zip(layers) {
            for (place, values) in own.places.iter().zip([weights, biases]) {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                file[place.clone()].copy_from_slice(&bytes);
            }
        }
        file
    }
}
