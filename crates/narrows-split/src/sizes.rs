//! Dimensions that a model leaves open, and the sizes they are taken to have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

use crate::graph::Graph;
use crate::{Error, Model, Result};

/// One dimension of a tensor as a model declares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// It is always this long.
    Fixed(usize),
    /// It is as long as the input makes it. The text is a symbol (`sequence_length`), a sum of symbols and numbers
    /// (`past_sequence_length + sequence_length`), or empty where the model gives no name.
    Open(String),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Open(symbol) if symbol.is_empty() => f.write_str("?"),
            Self::Open(symbol) => f.write_str(symbol),
        }
    }
}

/// Sizes for dimensions that a model leaves open: the batch is 1 and every other one
/// [`DEFAULT`](Self::DEFAULT) unless [`with`](Self::with) says otherwise.
///
/// A symbol counts as the batch if its name contains `batch`, or if it only ever is the first dimension of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    given: BTreeMap<String, usize>,
}

impl Sizes {
    /// What an open dimension other than the batch is taken as, in elements.
    pub const DEFAULT: usize = 16;

    /// The same with `symbol` taken as `size` elements.
    #[must_use]
    pub fn with(mut self, symbol: impl Into<String>, size: usize) -> Self {
        self.given.insert(symbol.into(), size);
        self
    }

    /// The open dimensions of a model, and what they are taken as.
    ///
    /// # Errors
    /// [`Error::NoSuchDimension`], and [`Error::UnknownShape`] or [`Error::Unsupported`] for an input without dimensions.
    pub fn of(&self, model: &Model) -> Result<BTreeMap<String, usize>> {
        Ok(self.resolve(&model.graph()?)?.sizes)
    }

    /// The size of every symbol in the inputs of a model; an error if one was given that the model does not have.
    pub(crate) fn resolve(&self, graph: &Graph<'_>) -> Result<Resolved> {
        let mut axes: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for input in graph.data_inputs() {
            for (axis, dim) in dims(input)?.iter().enumerate() {
                for symbol in symbols(dim) {
                    axes.entry(symbol.to_owned()).or_default().insert(axis);
                }
            }
        }
        if let Some(unknown) = self.given.keys().find(|symbol| !axes.contains_key(*symbol)) {
            let known = axes.into_keys().collect();
            return Err(Error::NoSuchDimension { symbol: unknown.clone(), known });
        }
        let size = |symbol: &str, axes: &BTreeSet<usize>| {
            let is_batch = symbol.contains("batch") || axes.iter().all(|&axis| axis == 0);
            self.given.get(symbol).copied().unwrap_or(if is_batch { 1 } else { Self::DEFAULT })
        };
        Ok(Resolved {
            sizes: axes.iter().map(|(symbol, axes)| (symbol.clone(), size(symbol, axes))).collect(),
        })
    }
}

/// The size of every symbol of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) sizes: BTreeMap<String, usize>,
}

impl Resolved {
    /// The size of a dimension; `None` if it is open and nothing is known of it. A first dimension without a name
    /// is a batch of one.
    pub(crate) fn size(&self, dim: &Dim, axis: usize) -> Option<usize> {
        match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Open(symbol) if symbol.is_empty() => (axis == 0).then_some(1),
            Dim::Open(sum) => terms(sum).try_fold(0_usize, |sum, term| {
                sum.checked_add(match term.parse() {
                    Ok(number) => number,
                    Err(_) => *self.sizes.get(term)?,
                })
            }),
        }
    }

    /// The shape of an input.
    pub(crate) fn shape(&self, input: &ValueInfoProto) -> Result<Vec<usize>> {
        let size = |(axis, dim): (usize, &Dim)| {
            self.size(dim, axis).ok_or_else(|| Error::UnknownShape {
                name: input.name.clone(),
                known: format!("dimension {axis} is open and has no name"),
            })
        };
        dims(input)?.iter().enumerate().map(size).collect()
    }
}

/// The dimensions declared for a tensor.
pub(crate) fn dims(info: &ValueInfoProto) -> Result<Vec<Dim>> {
    use dimension::Value;
    let name = || info.name.clone();
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &info.r#type else {
        let what = "a type other than tensor".into();
        return Err(Error::Unsupported { place: format!("`{}`", info.name), what });
    };
    let no_shape = || Error::UnknownShape { name: name(), known: "it is declared without a shape".into() };
    let shape = tensor.shape.as_ref().ok_or_else(no_shape)?;
    let dims = shape.dim.iter().enumerate().map(|(axis, dim)| match &dim.value {
        Some(Value::DimValue(size)) => usize::try_from(*size)
            .map(Dim::Fixed)
            .map_err(|_| Error::UnknownShape { name: name(), known: format!("dimension {axis} is {size}") }),
        Some(Value::DimParam(symbol)) => Ok(Dim::Open(symbol.clone())),
        None => Ok(Dim::Open(String::new())),
    });
    dims.collect()
}

/// Dimensions as a file declares them.
pub(crate) fn declaration(dims: &[Dim]) -> TensorShapeProto {
    let value = |dim: &Dim| match dim {
        Dim::Fixed(size) => Some(dimension::Value::DimValue(*size as i64)),
        Dim::Open(symbol) if symbol.is_empty() => None,
        Dim::Open(symbol) => Some(dimension::Value::DimParam(symbol.clone())),
    };
    let dim = dims.iter().map(|dim| Dimension { value: value(dim), ..Dimension::default() });
    TensorShapeProto { dim: dim.collect() }
}

/// The symbols of a dimension.
pub(crate) fn symbols(dim: &Dim) -> impl Iterator<Item = &str> {
    let sum = match dim {
        Dim::Open(sum) => sum.as_str(),
        Dim::Fixed(_) => "",
    };
    terms(sum).filter(|term| !term.is_empty() && term.parse::<usize>().is_err())
}

fn terms(sum: &str) -> impl Iterator<Item = &str> {
    sum.split('+').map(str::trim)
}
