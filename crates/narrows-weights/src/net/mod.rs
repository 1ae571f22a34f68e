//! Networks that run from packed files: what is packed stays packed, in the mapped file.

mod attention;
pub(crate) mod bert;
mod calibrate;
mod classifier;
pub(crate) mod compensate;
mod conv;
mod images;
mod linear;
mod llama;
mod network;
mod onnx;

pub use bert::Bert;
pub use calibrate::{Calibrated, calibrated};
pub use classifier::Classifier;
pub use conv::Conv2d;
pub use images::Images;
pub use linear::{Linear, Weights, dense};
pub use llama::{Llama, LlamaConfig, Seen};
pub use network::{Convolution, Kind, Layer, Network, Op, Step};
pub use onnx::{LayerWeights, Model, OnnxError};
