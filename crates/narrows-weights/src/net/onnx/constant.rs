//! Constants of a model as numbers.

use std::collections::HashMap;
use std::ops::Range;

use prost::bytes::Bytes;

use super::error::{OnnxError as Error, Result};
use super::proto::{Graph, Tensor};

const FLOAT32: i32 = 1;

/// The float32 constants of a graph by name.
pub struct Constants<'a> {
    by_name: HashMap<&'a str, &'a Tensor>,
    file: &'a Bytes,
}

impl<'a> Constants<'a> {
    /// Initialisers, and the outputs of `Constant` nodes.
    pub fn of(graph: &'a Graph, file: &'a Bytes) -> Self {
        let stored = graph.initialisers.iter().map(|tensor| (tensor.name.as_str(), tensor));
        let computed = graph.nodes.iter().filter(|node| node.op == "Constant").filter_map(|node| {
            let value = node.attributes.iter().find(|attribute| attribute.name == "value")?;
            Some((node.outputs.first()?.as_str(), value.tensor.as_ref()?))
        });
        Self { by_name: stored.chain(computed).collect(), file }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The constant's shape.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let dims = &self.tensor(name)?.dims;
        let lengths = dims.iter().map(|&length| usize::try_from(length).ok().filter(|&n| n > 0));
        lengths.collect::<Option<_>>().ok_or_else(|| invalid(name, format!("its shape is {dims:?}")))
    }

    /// Its values.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        if tensor.data_type != FLOAT32 {
            return Err(unsupported(name, format!("element type {}", tensor.data_type)));
        }
        if tensor.location != 0 {
            return Err(unsupported(name, "data in a separate file".into()));
        }
        let expected = self.shape(name)?.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
        let values: Vec<f32> = if tensor.raw.is_empty() {
            tensor.floats.clone()
        } else {
            tensor.raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let fills = expected == Some(values.len()) && tensor.raw.len().is_multiple_of(4);
        if !fills {
            let rule = format!("it holds {} elements, its shape is {:?}", values.len(), tensor.dims);
            return Err(invalid(name, rule));
        }
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(invalid(name, format!("it holds {value}"))),
            None => Ok(values),
        }
    }

    /// Where in the file its values are.
    pub fn place(&self, name: &str) -> Result<Range<usize>> {
        let raw = &self.tensor(name)?.raw;
        let start = (raw.as_ptr() as usize).wrapping_sub(self.file.as_ptr() as usize);
        if raw.is_empty() || start >= self.file.len() {
            return Err(unsupported(name, "values that are not stored as raw data".into()));
        }
        Ok(start..start + raw.len())
    }

    fn tensor(&self, name: &str) -> Result<&'a Tensor> {
        let found = self.by_name.get(name).copied();
        found.ok_or_else(|| unsupported(name, "a weight that is computed, not stored,".into()))
    }
}

fn invalid(name: &str, rule: String) -> Error {
    Error::InvalidModel { place: format!("constant `{name}`"), rule }
}

fn unsupported(name: &str, what: String) -> Error {
    let supported = "float32 values stored as raw data in the model's file";
    Error::Unsupported { place: format!("constant `{name}`"), what, supported }
}
