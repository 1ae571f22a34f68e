//! ONNX models: cuts, splitting, running.

use std::collections::BTreeMap;
use std::path::PathBuf;

use narrows_split::{Data, ElementType, Error, Model, Place, Port, Runtime, Sizes, Splitter, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::failure::{self, Kind};

fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::NoSuchTensor { nearest, .. }
        | Error::NotACut { nearest, .. }
        | Error::NothingToSplit { nearest, .. } => {
            let hint = nearest.first().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
            failure::raise(py, Kind::Model, &format!("{text}{hint}"))
        }
        Error::Io { source, .. } => std::io::Error::new(source.kind(), text).into(),
        _ => failure::raise(py, Kind::Model, &text),
    }
}

/// A model as it is given: the bytes of a file, or its path.
#[derive(FromPyObject)]
pub(crate) enum Source<'py> {
    Bytes(Bound<'py, PyBytes>),
    Path(PathBuf),
}

impl Source<'_> {
    fn read(&self, py: Python<'_>) -> PyResult<Model> {
        let model = match self {
            Self::Bytes(bytes) => {
                let bytes = bytes.as_bytes();
                py.detach(|| Model::from_bytes(bytes))
            }
            Self::Path(path) => py.detach(|| Model::read(path)),
        };
        model.map_err(|error| raise(py, &error))
    }
}

/// A tensor through which all data on the way from the model's inputs to its outputs pass, but for small ones beside it.
///
/// Shapes and multiply-adds are for the sizes that open dimensions were taken to have.
#[pyclass(frozen, module = "narrows.onnx", get_all)]
pub(crate) struct Cut {
    /// Position in the list of cuts, counted from the model's input.
    index: usize,
    /// `"input"`, `"inner"` (where `split` applies) or `"output"`.
    place: &'static str,
    /// Name of the tensor.
    name: String,
    /// Operator that computes it, such as `Relu`; None for an input.
    op: Option<String>,
    /// Shape of the tensor, the batch included.
    shape: Vec<usize>,
    /// Element type, such as `float32`.
    dtype: &'static str,
    /// Bytes if sent uncompressed.
    bytes: u64,
    /// Names of small tensors (masks, positions) that the tail needs beside it.
    side: Vec<String>,
    /// Bytes of those.
    side_bytes: u64,
    /// Inputs that hold state (caches of a decoder) and stay with the head.
    head_states: Vec<String>,
    /// Inputs that hold state and stay with the tail.
    tail_states: Vec<String>,
    /// Multiply-adds of the head.
    macs_before: u64,
    /// Multiply-adds of the tail.
    macs_after: u64,
    /// Bytes of constants that the head holds.
    weight_bytes_before: u64,
    /// Bytes of constants that the tail holds.
    weight_bytes_after: u64,
}

impl From<narrows_split::Cut> for Cut {
    fn from(cut: narrows_split::Cut) -> Self {
        Self {
            index: cut.index,
            place: match cut.place {
                Place::Input => "input",
                Place::Inner => "inner",
                Place::Output => "output",
            },
            name: cut.name,
            op: cut.op,
            shape: cut.shape,
            dtype: cut.dtype,
            bytes: cut.bytes,
            side_bytes: cut.side.iter().map(|side| side.bytes).sum(),
            side: cut.side.into_iter().map(|side| side.name).collect(),
            head_states: cut.head_states.into_iter().map(|state| state.input).collect(),
            tail_states: cut.tail_states.into_iter().map(|state| state.input).collect(),
            macs_before: cut.macs_before,
            macs_after: cut.macs_after,
            weight_bytes_before: cut.weight_bytes_before,
            weight_bytes_after: cut.weight_bytes_after,
        }
    }
}

#[pymethods]
impl Cut {
    fn __repr__(&self) -> String {
        format!("<narrows.onnx.Cut {:?} {:?}, {} bytes>", self.name, self.shape, self.bytes)
    }
}

/// All cuts of an ONNX model, from its input to its output.
///
/// Args:
///     model: path of an ONNX file, or its bytes.
///     sizes: lengths for dimensions that the model leaves open, by their names; 1 for the batch and 16 for others if
///         not given.
///
/// Raises:
///     ModelError: the model cannot be read, or its shapes cannot be worked out.
///     OSError: the file cannot be read.
#[pyfunction]
#[pyo3(signature = (model: "str | os.PathLike[str] | bytes", *, sizes: "collections.abc.Mapping[str, int] | None"=None))]
pub(crate) fn cuts(
    py: Python<'_>,
    model: Source<'_>,
    sizes: Option<BTreeMap<String, usize>>,
) -> PyResult<Vec<Cut>> {
    let (model, sizes) = (model.read(py)?, open(sizes));
    let cuts = py.detach(|| narrows_split::cuts_for(&model, &sizes)).map_err(|error| raise(py, &error))?;
    Ok(cuts.into_iter().map(Cut::from).collect())
}

fn open(sizes: Option<BTreeMap<String, usize>>) -> Sizes {
    sizes.into_iter().flatten().fold(Sizes::default(), |sizes, (symbol, size)| sizes.with(symbol, size))
}

/// Cut an ONNX model at an inner cut.
///
/// Args:
///     model: path of an ONNX file, or its bytes.
///     at: name of the tensor to cut at.
///     sizes: as of `cuts`.
///
/// Returns:
///     Head and tail, each the bytes of a complete ONNX file.
///
/// Raises:
///     ModelError: there is no such tensor, or it is no inner cut; the nearest name is suggested.
///     OSError: the file cannot be read.
#[pyfunction]
#[pyo3(signature = (model: "str | os.PathLike[str] | bytes", at, *, sizes: "collections.abc.Mapping[str, int] | None"=None) -> "tuple[bytes, bytes]")]
pub(crate) fn split<'py>(
    py: Python<'py>,
    model: Source<'py>,
    at: &str,
    sizes: Option<BTreeMap<String, usize>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let (model, sizes) = (model.read(py)?, open(sizes));
    let halves = py.detach(|| Splitter::new(&model, &sizes)?.split(at)).map_err(|error| raise(py, &error))?;
    let bytes = |half: &Model| PyBytes::new(py, &half.to_bytes());
    PyTuple::new(py, [bytes(&halves.head), bytes(&halves.tail)])
}

/// A tensor on its way into an engine or out of one: element type, shape, little-endian bytes.
type Plain = (String, Vec<usize>, Vec<u8>);

/// The engine behind `narrows.onnx.Engine`, which gives it arrays as bytes.
#[pyclass(frozen, module = "narrows._narrows", name = "_Engine")]
pub(crate) struct Engine(narrows_split::Engine);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (model: "str | os.PathLike[str] | bytes", runtime))]
    fn new(py: Python<'_>, model: Source<'_>, runtime: &str) -> PyResult<Self> {
        let runtime: Runtime = runtime.parse().map_err(|error| raise(py, &error))?;
        let model = model.read(py)?;
        let engine = py.detach(|| narrows_split::Engine::load_on(&model, runtime));
        engine.map(Self).map_err(|error| raise(py, &error))
    }

    fn run(&self, py: Python<'_>, inputs: Vec<Plain>) -> PyResult<Vec<Plain>> {
        let values = inputs.into_iter().map(|plain| value(py, plain)).collect::<PyResult<Vec<_>>>()?;
        let values: Vec<&Value> = values.iter().collect();
        let outputs = py.detach(|| self.0.infer(&values)).map_err(|error| raise(py, &error))?;
        Ok(outputs.into_iter().map(plain).collect())
    }

    #[getter]
    fn inputs(&self) -> Vec<(String, String, Vec<String>)> {
        self.0.inputs().iter().map(port).collect()
    }

    #[getter]
    fn outputs(&self) -> Vec<(String, String, Vec<String>)> {
        self.0.outputs().iter().map(port).collect()
    }
}

fn port(port: &Port) -> (String, String, Vec<String>) {
    let dims = port.dims.iter().map(ToString::to_string).collect();
    (port.name.clone(), port.element_type.name().into(), dims)
}

fn value(py: Python<'_>, (kind, shape, bytes): Plain) -> PyResult<Value> {
    let words = |bytes: &[u8]| bytes.as_chunks::<8>().0.iter().map(|&x| i64::from_le_bytes(x)).collect();
    let data = match ElementType::of_name(&kind) {
        Some(ElementType::F32) => {
            Data::F32(bytes.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect())
        }
        Some(ElementType::I64) => Data::I64(words(&bytes)),
        Some(ElementType::Bool) => Data::Bool(bytes.iter().map(|&x| x != 0).collect()),
        None => {
            let text = format!("an engine takes float32, int64 and bool, not {kind}");
            return Err(failure::raise(py, Kind::Array, &text));
        }
    };
    Value::new(shape, data).map_err(|error| raise(py, &error))
}

fn plain(value: Value) -> Plain {
    let (kind, shape) = (value.element_type().name().to_owned(), value.shape().to_vec());
    let bytes = match value.into_data() {
        Data::F32(values) => values.into_iter().flat_map(f32::to_le_bytes).collect(),
        Data::I64(values) => values.into_iter().flat_map(i64::to_le_bytes).collect(),
        Data::Bool(values) => values.into_iter().map(u8::from).collect(),
    };
    (kind, shape, bytes)
}
