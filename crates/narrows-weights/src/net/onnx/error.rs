//! What an ONNX file may have that no network here can be made of.

/// Why a network cannot be read from an ONNX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
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
    /// The model is valid and uses something that is not known here.
    #[error("{place}: {what} is not supported; supported are {supported}")]
    Unsupported {
        /// The node or tensor.
        place: String,
        /// What the model uses.
        what: String,
        /// What it may use instead.
        supported: &'static str,
    },
}

pub(super) type Result<T, E = OnnxError> = std::result::Result<T, E>;
