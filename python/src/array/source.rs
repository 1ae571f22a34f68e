//! Where an array's memory comes from.

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;

use narrows::{Dtype, MAX_RANK, Shape};

use super::device::OnDevice;
use super::{Array, Seen, dlpack};
use crate::failure::{self, Kind};

/// What keeps an array's memory.
#[expect(dead_code, reason = "held, not looked at again")]
pub(super) enum Source {
    Buffer(PyUntypedBuffer),
    /// Of DLPack.
    Capsule(Py<PyAny>),
}

pub(super) const KINDS: &str = "float32, float16 or bfloat16 of the machine's byte order";

/// The array inside `object`.
pub(super) fn open<'py>(object: &Bound<'py, PyAny>) -> PyResult<Seen<'py>> {
    let py = object.py();
    match PyUntypedBuffer::get(object) {
        Ok(buffer) => of_buffer(py, buffer).map(Seen::Host),
        Err(error) => {
            // NumPy has bfloat16 (of ml_dtypes) but no buffer format for it: its bits are what is needed.
            if let Some(array) = of_numpy_bfloat16(object)? {
                return Ok(Seen::Host(array));
            }
            if object.hasattr("__dlpack__")? {
                return of_dlpack(object);
            }
            let class = object.get_type().name()?;
            let refused =
                error.is_instance_of::<PyBufferError>(py) || error.is_instance_of::<PyValueError>(py);
            let text = if refused {
                format!("{class} does not show its memory ({}); elements are {KINDS}", error.value(py))
            } else {
                format!("{class} is no array: it has neither the buffer protocol nor `__dlpack__`")
            };
            Err(failure::raise(py, Kind::Array, &text))
        }
    }
}

fn of_buffer(py: Python<'_>, buffer: PyUntypedBuffer) -> PyResult<Array> {
    let format = buffer.format();
    let dtype = match format.to_bytes() {
        b"f" | b"@f" | b"=f" => Dtype::F32,
        b"e" | b"@e" | b"=e" => Dtype::F16,
        b"<f" if cfg!(target_endian = "little") => Dtype::F32,
        b"<e" if cfg!(target_endian = "little") => Dtype::F16,
        _ => {
            let text =
                format!("elements have the buffer format {:?}; needed are {KINDS}", format.to_string_lossy());
            return Err(failure::raise(py, Kind::Array, &text));
        }
    };
    of_elements(py, buffer, dtype)
}

fn of_elements(py: Python<'_>, buffer: PyUntypedBuffer, dtype: Dtype) -> PyResult<Array> {
    if buffer.item_size() != dtype.size() || buffer.suboffsets().is_some() {
        return Err(failure::raise(py, Kind::Array, "elements do not lie in one piece of memory"));
    }
    let shape = shape(py, buffer.shape())?;
    let mut strides = [0; MAX_RANK];
    strides[..shape.rank()].copy_from_slice(buffer.strides());
    let (data, writable) = (buffer.buf_ptr().cast(), !buffer.readonly());
    Ok(Array { _source: Source::Buffer(buffer), data, dtype, shape, strides, writable })
}

fn of_numpy_bfloat16(object: &Bound<'_, PyAny>) -> PyResult<Option<Array>> {
    let py = object.py();
    let is = object.hasattr("__array_interface__")?
        && object.getattr("dtype").is_ok_and(|dtype| {
            dtype
                .getattr("name")
                .is_ok_and(|name| name.extract::<&str>().is_ok_and(|name| name == "bfloat16"))
        });
    if !is {
        return Ok(None);
    }
    let bits = object.call_method1("view", ("uint16",))?;
    of_elements(py, PyUntypedBuffer::get(&bits)?, Dtype::Bf16).map(Some)
}

fn of_dlpack<'py>(object: &Bound<'py, PyAny>) -> PyResult<Seen<'py>> {
    let py = object.py();
    let said = dlpack::device(object)?;
    if let Some(device) = said.filter(|device| !device.is_host()) {
        return OnDevice::of(object, device).map(Seen::Device);
    }
    let lent = dlpack::open(object, None)?;
    if !lent.device.is_host() {
        return Err(lent.device.refuse(py, "what `__dlpack_device__` said is something else"));
    }
    let dlpack::Lent { capsule, data, dtype, shape, strides, .. } = lent;
    // DLPack 0.x does not say who may write; NumPy's read-only arrays have the buffer protocol and say it there.
    let source = Source::Capsule(capsule);
    Ok(Seen::Host(Array { _source: source, data, dtype, shape, strides, writable: true }))
}

pub(super) fn shape(py: Python<'_>, dims: &[usize]) -> PyResult<Shape> {
    Shape::new(dims).map_err(|error| failure::codec(py, &error))
}
