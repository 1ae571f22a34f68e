//! ONNX models: cuts, splitting, running.

use std::path::PathBuf;

use narrows::{Tensor, TensorView};
use narrows_split::{Error, Model, Place};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::array::{Array, WithTensor, with_tensor};
use crate::failure::{self, Kind};
use crate::numpy;

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
enum Source<'py> {
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

/// A tensor through which all data on the way from the model's inputs to its outputs pass.
///
/// Shapes and multiply-adds are for a batch of one where the model leaves the batch open.
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

/// All single-tensor cuts of an ONNX model, from its input to its output.
///
/// Args:
///     model: path of an ONNX file, or its bytes.
///
/// Raises:
///     ModelError: the model cannot be read, or its shapes cannot be worked out.
///     OSError: the file cannot be read.
#[pyfunction]
#[pyo3(signature = (model: "str | os.PathLike[str] | bytes"))]
pub(crate) fn cuts(py: Python<'_>, model: Source<'_>) -> PyResult<Vec<Cut>> {
    let model = model.read(py)?;
    let cuts = py.detach(|| narrows_split::cuts(&model)).map_err(|error| raise(py, &error))?;
    Ok(cuts.into_iter().map(Cut::from).collect())
}

/// Cut an ONNX model at an inner cut.
///
/// Args:
///     model: path of an ONNX file, or its bytes.
///     at: name of the tensor to cut at.
///
/// Returns:
///     Head and tail, each the bytes of a complete ONNX file.
///
/// Raises:
///     ModelError: there is no such tensor, or it is no inner cut; the nearest name is suggested.
///     OSError: the file cannot be read.
#[pyfunction]
#[pyo3(signature = (model: "str | os.PathLike[str] | bytes", at) -> "tuple[bytes, bytes]")]
pub(crate) fn split<'py>(py: Python<'py>, model: Source<'py>, at: &str) -> PyResult<Bound<'py, PyTuple>> {
    let model = model.read(py)?;
    let halves = py.detach(|| narrows_split::split(&model, at)).map_err(|error| raise(py, &error))?;
    let bytes = |half: &Model| PyBytes::new(py, &half.to_bytes());
    PyTuple::new(py, [bytes(&halves.head), bytes(&halves.tail)])
}

/// A model ready to run on this machine's processor (tract): one float32 input, one float32 output.
///
/// Args:
///     model: path of an ONNX file, or its bytes.
///
/// Threads may share one, and run it at the same time.
#[pyclass(frozen, module = "narrows.onnx")]
pub(crate) struct Engine(narrows_split::Engine);

struct Copied;

impl WithTensor for Copied {
    type Output = Vec<f32>;
    fn with(self, tensor: &TensorView<'_>) -> Vec<f32> {
        tensor.to_tensor().to_f32()
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (model: "str | os.PathLike[str] | bytes"))]
    fn new(py: Python<'_>, model: Source<'_>) -> PyResult<Self> {
        let model = model.read(py)?;
        py.detach(|| narrows_split::Engine::load(&model)).map(Self).map_err(|error| raise(py, &error))
    }

    /// Run the model once.
    ///
    /// Args:
    ///     input: float array with as many elements as `input_shape` (the batch axis may be left out).
    ///
    /// Returns:
    ///     A float32 NumPy array of `output_shape`.
    ///
    /// Raises:
    ///     ModelError: the input does not fill the model's input, or the run failed.
    ///     ArrayError: not a float array.
    fn run<'py>(&self, py: Python<'py>, input: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let array = Array::of(input)?;
        let values = with_tensor(py, &array, false, Copied)?;
        let output = py.detach(|| self.0.run(&values)).map_err(|error| raise(py, &error))?;
        let tensor =
            Tensor::new(output, self.0.output_shape()).map_err(|error| failure::codec(py, &error))?;
        numpy::array(py, tensor)
    }

    /// Name of the input.
    #[getter]
    fn input_name(&self) -> &str {
        self.0.input_name()
    }

    /// Shape of the input, the batch included.
    #[getter]
    fn input_shape(&self) -> Vec<usize> {
        self.0.input_shape().to_vec()
    }

    /// Name of the output.
    #[getter]
    fn output_name(&self) -> &str {
        self.0.output_name()
    }

    /// Shape of the output, the batch included.
    #[getter]
    fn output_shape(&self) -> Vec<usize> {
        self.0.output_shape().to_vec()
    }
}
