//! Frames as Python sees them: bytes in, and what a header says.

use narrows::{Content, Layout};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::failure::{self, Kind};

/// The bytes of a frame: lent by a `bytes`, which nobody can change, or else copied.
pub(crate) enum Bytes<'py> {
    Lent(Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

impl<'py> Bytes<'py> {
    /// # Errors
    /// `ArrayError` for what holds no bytes.
    pub(crate) fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Lent(bytes.clone()));
        }
        let py = object.py();
        let buffer = PyBuffer::<u8>::get(object).map_err(|_| {
            let class = object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
            failure::raise(py, Kind::Array, &format!("a frame is bytes, not {class}"))
        })?;
        Ok(Self::Copied(buffer.to_vec(py)?))
    }

    pub(crate) fn get(&self, _py: Python<'_>) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes.as_bytes(),
            Self::Copied(bytes) => bytes,
        }
    }
}

/// What a frame's header says.
#[pyclass(frozen, module = "narrows")]
#[derive(Clone)]
pub(crate) struct Header(pub(crate) narrows::Header);

#[pymethods]
impl Header {
    /// Format version.
    #[getter]
    fn version(&self) -> u8 {
        self.0.version
    }

    /// Type of the elements: `"f32"`, `"f16"` or `"bf16"`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.dtype.name()
    }

    /// The tensor's axis lengths, outermost first.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.shape.dims())
    }

    /// Number of elements.
    #[getter]
    fn elements(&self) -> usize {
        self.0.shape.elements()
    }

    /// How elements are held: `"raw"`, `"constant"`, `"quantized"` or `"lossless"`.
    #[getter]
    fn content(&self) -> &'static str {
        match self.0.content {
            Content::Raw => "raw",
            Content::Constant => "constant",
            Content::Quantized { .. } => "quantized",
            Content::Lossless { .. } => "lossless",
            _ => "unknown",
        }
    }

    /// Number of levels, if elements are quantised and the header says it (not a profile).
    #[getter]
    fn levels(&self) -> Option<u16> {
        self.0.levels()
    }

    /// The order of the symbols: `"natural"`, `"planes"`, `"csr"` or `"csr-separate"`; None if not quantised.
    #[getter]
    fn layout(&self) -> Option<&'static str> {
        match self.0.content {
            Content::Quantized { layout, .. } => Some(match layout {
                Layout::Natural => "natural",
                Layout::Planes => "planes",
                Layout::CsrJoint { .. } => "csr",
                Layout::CsrSeparate { .. } => "csr-separate",
            }),
            _ => None,
        }
    }

    /// The name of the profile the frame was coded with, if any.
    #[getter]
    fn profile(&self) -> Option<String> {
        self.0.profile.map(|id| id.to_string())
    }

    /// Bytes of the header.
    #[getter]
    fn bytes(&self) -> usize {
        self.0.bytes
    }

    fn __repr__(&self) -> String {
        let Self(header) = self;
        format!("<narrows.Header {} {}, {}>", header.dtype, header.shape, self.content())
    }
}

/// What a frame would cost, without one having been made.
#[pyclass(frozen, module = "narrows", get_all)]
pub(crate) struct Plan {
    /// Bytes of the whole frame, an estimate within 1 % from about 1,000 bytes on.
    bytes: f64,
    /// The same in bits for each element.
    bits_per_element: f64,
    /// How many times smaller than the elements.
    ratio: f64,
    /// Entropy of the symbols given their contexts, bits: what ideal tables, sent for nothing, would leave.
    entropy_bits: f64,
    /// Bytes of context classes and tables.
    model_bytes: usize,
    /// Number of frequency tables.
    tables: usize,
    /// Lanes of a chunk.
    lanes: usize,
    /// Chunks, which decode independently.
    chunks: usize,
}

impl Plan {
    pub(crate) fn new(estimate: &narrows::Estimate, elements: usize, raw_bytes: usize) -> Self {
        Self {
            bytes: estimate.bytes,
            bits_per_element: 8.0 * estimate.bytes / elements.max(1) as f64,
            ratio: raw_bytes as f64 / estimate.bytes,
            entropy_bits: estimate.entropy_bits,
            model_bytes: estimate.model_bytes,
            tables: estimate.tables,
            lanes: estimate.lanes,
            chunks: estimate.chunks,
        }
    }
}

#[pymethods]
impl Plan {
    fn __repr__(&self) -> String {
        format!("<narrows.Plan {:.0} bytes, {:.3} bits per element>", self.bytes, self.bits_per_element)
    }
}
