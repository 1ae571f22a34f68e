//! Entropy-driven mixed-precision training: weights that compress below one bit.
//!
//! A network is read from an ONNX file ([`Model`]) and trained on labelled images ([`Examples`]) by a
//! [`Trainer`]: every layer's weights are rounded to multiples of a step that is learned with them, and the bits that an
//! entropy coder will spend on them are part of what is minimised. What comes out ([`Trained`]) are float32
//! weights that lie on their grid, in a checkpoint that says which grid that is.
//!
//! Tensors are burn's; any of its devices will do.

#![forbid(unsafe_code)]

mod checkpoint;
mod convolution;
mod curve;
mod error;
mod examples;
mod fisher;
mod normalisation;
mod optimise;
mod packed;
mod price;
mod quantise;
mod random;
mod run;
mod settings;
mod trained;
mod trainer;
mod weights;

pub use burn_tensor::Device;
pub use curve::{Curve, LayerPoint, Point};
pub use error::{Error, Result};
pub use examples::{Augmentation, Examples};
pub use fisher::{allocate, fisher_information};
pub use narrows_weights::net::{Convolution, Kind, Layer, LayerWeights, Model, Network};
pub use packed::{PackedConv2d, PackedLinear, tensor_data};
pub use quantise::{Grid, Rate, entropy, table_bits};
pub use settings::{Goal, Precision, Settings};
pub use trained::{STEPS_KEY, Steps, Trained};
pub use trainer::{StepReport, Trainer};
