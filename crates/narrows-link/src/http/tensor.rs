//! Plain tensors for clients that know nothing of frames.

use std::fmt;

use serde_json::{Value, json};

use crate::Failure;

/// Turns plain tensors into frames and replies into plain tensors: what this crate, which knows
/// nothing of tensors, cannot do itself.
pub trait Tensors: Send + Sync {
    /// What the route's tail takes and gives; `None` if it has no plain tensors.
    fn specs(&self, route: &str) -> Option<(TensorSpec, TensorSpec)>;

    /// A frame with this tensor, for the route's tail.
    ///
    /// # Errors
    /// The failure to tell the client.
    fn encode(&self, route: &str, tensor: &PlainTensor) -> Result<Vec<u8>, Failure>;

    /// The tensor in a reply of the route's tail.
    ///
    /// # Errors
    /// The failure to tell the client.
    fn decode(&self, route: &str, reply: &[u8]) -> Result<PlainTensor, Failure>;
}

impl fmt::Debug for dyn Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tensors")
    }
}

/// A tensor's name and shape; its elements are FP32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name.
    pub name: String,
    /// The dimensions; -1 is any.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    pub(super) fn to_json(&self) -> Value {
        json!({ "name": self.name, "datatype": "FP32", "shape": self.shape })
    }
}

/// A dense tensor of FP32 in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainTensor {
    /// The dimensions; their product is the number of values.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Vec<f32>,
}
