use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong between a model file and a trained checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bytes are not an ONNX protobuf message.
    #[error("not an ONNX model ({bytes} bytes): {cause}")]
    Decode {
        /// Length of the input.
        bytes: usize,
        /// What the protobuf decoder said.
        cause: String,
    },
    /// The model breaks a rule of ONNX, or its parts do not fit each other.
    #[error("not a valid ONNX model: {place}: {rule}")]
    InvalidModel {
        /// The node or tensor.
        place: String,
        /// The rule and what was found instead.
        rule: String,
    },
    /// The model is valid and uses something that cannot be trained here.
    #[error("{place}: {what} is not supported; supported are {supported}")]
    Unsupported {
        /// The node or tensor.
        place: String,
        /// What the model uses.
        what: String,
        /// What it may use instead.
        supported: &'static str,
    },
    /// Images, labels or their shapes do not fit the network or each other.
    #[error("{what}: {found}, expected {expected}")]
    Shape {
        /// What was looked at.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A setting is outside its range.
    #[error("{name} is {value}, it must be {range}")]
    InvalidSetting {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// The loss became infinite or not a number.
    #[error("training diverged: the loss is {loss} at step {step}")]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// A file is no checkpoint of this training.
    #[error("{}: not a checkpoint to go on from: {cause}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn setting(name: &'static str, value: &dyn Display, range: &'static str) -> Self {
        Self::InvalidSetting { name, value: value.to_string(), range }
    }
}
