//! Tensors as NumPy arrays, without a copy: NumPy is shown the tensor's own memory.

#![allow(unsafe_code, reason = "the buffer protocol hands out a pointer")]

use std::ffi::{c_int, c_void};

use narrows::{Dtype, Elements, Tensor};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::array::Array;
use crate::failure;

const _: () = assert!(align_of::<Memory>() <= 16, "what Python aligns to");

/// The memory behind an array that `decode` returned.
#[pyclass(frozen, module = "narrows")]
pub(crate) struct Memory(Tensor);

impl Memory {
    fn bytes(&self) -> (*mut c_void, usize) {
        match self.0.elements() {
            Elements::F32(elements) => (elements.as_ptr().cast_mut().cast(), size_of_val(elements)),
            Elements::F16(elements) => (elements.as_ptr().cast_mut().cast(), size_of_val(elements)),
            Elements::Bf16(elements) => (elements.as_ptr().cast_mut().cast(), size_of_val(elements)),
        }
    }
}

#[pymethods]
impl Memory {
    // SAFETY (of the contract with Python): `view` is a buffer to be filled, as the protocol says.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no buffer to fill"));
        }
        let (data, length) = slf.get().bytes();
        // SAFETY: `view` is valid; the memory is as long as said, lives as long as `slf`, whose reference the buffer
        // takes, and is touched through the buffer only: nothing in here reads or writes it again.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), data, length as isize, 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// `numpy.ndarray` and the three types.
struct Names {
    ndarray: Py<PyAny>,
    float32: Py<PyAny>,
    float16: Py<PyAny>,
    /// Of `ml_dtypes`, if that is installed.
    bfloat16: Option<Py<PyAny>>,
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

fn names(py: Python<'_>) -> PyResult<&Names> {
    NAMES.get_or_try_init(py, || {
        let numpy = py.import("numpy")?;
        let dtype = |name: Bound<'_, PyAny>| Ok::<_, PyErr>(numpy.getattr("dtype")?.call1((name,))?.unbind());
        let bfloat16 = match py.import("ml_dtypes") {
            Ok(module) => Some(dtype(module.getattr("bfloat16")?)?),
            Err(_) => None,
        };
        Ok(Names {
            ndarray: numpy.getattr("ndarray")?.unbind(),
            float32: dtype(numpy.getattr("float32")?)?,
            float16: dtype(numpy.getattr("float16")?)?,
            bfloat16,
        })
    })
}

/// The tensor as a NumPy array that owns it.
///
/// # Errors
/// NumPy is not installed.
pub(crate) fn array(py: Python<'_>, tensor: Tensor) -> PyResult<Bound<'_, PyAny>> {
    let names = names(py)?;
    let (dtype, tensor) = match (tensor.dtype(), &names.bfloat16) {
        (Dtype::F32, _) => (&names.float32, tensor),
        (Dtype::F16, _) => (&names.float16, tensor),
        (Dtype::Bf16, Some(bfloat16)) => (bfloat16, tensor),
        (Dtype::Bf16, None) => {
            let wide = Tensor::new(tensor.to_f32(), tensor.shape().dims());
            (&names.float32, wide.map_err(|error| failure::codec(py, &error))?)
        }
    };
    let shape = PyTuple::new(py, tensor.shape().dims())?;
    let memory = Bound::new(py, Memory(tensor))?;
    names.ndarray.bind(py).call1((shape, dtype, memory))
}

/// Copy the tensor into `out`.
///
/// # Errors
/// `ArrayError` or `ShapeError` if it does not fit.
pub(crate) fn copy_out(py: Python<'_>, tensor: &Tensor, out: &Array) -> PyResult<()> {
    out.expect_output(py, tensor.dtype(), tensor.shape())?;
    py.detach(|| match tensor.elements() {
        Elements::F32(elements) => out.fill(elements),
        Elements::F16(elements) => out.fill(elements),
        Elements::Bf16(elements) => out.fill(elements),
    });
    Ok(())
}
