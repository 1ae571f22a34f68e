//! Where an array's memory comes from.

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use narrows::{Dtype, MAX_RANK, Shape};

use super::{Array, dlpack};
use crate::failure::{self, Kind};

/// What keeps an array's memory.
#[expect(dead_code, reason = "held, not looked at again")]
pub(super) enum Source {
    Buffer(PyUntypedBuffer),
    /// The capsule was not taken, so that it frees its tensor itself.
    Capsule(Py<PyAny>),
}

const KINDS: &str = "float32, float16 or bfloat16 of the machine's byte order";

/// The array inside `object`.
pub(super) fn open(object: &Bound<'_, PyAny>) -> PyResult<Array> {
    let py = object.py();
    match PyUntypedBuffer::get(object) {
        Ok(buffer) => of_buffer(py, buffer),
        Err(error) => {
            // NumPy has bfloat16 (of ml_dtypes) but no buffer format for it: its bits are what is needed.
            if let Some(array) = of_numpy_bfloat16(object)? {
                return Ok(array);
            }
            if let Ok(method) = object.getattr("__dlpack__") {
                return of_dlpack(object, &method);
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

fn of_dlpack(object: &Bound<'_, PyAny>, method: &Bound<'_, PyAny>) -> PyResult<Array> {
    let py = object.py();
    let wrong = |text: &str| failure::raise(py, Kind::Array, text);
    let class = object.get_type().name()?;
    if let Ok(device) = object.call_method0("__dlpack_device__") {
        let (kind, index): (i32, i32) = device.extract()?;
        expect_host(py, kind, index)?;
    }
    let capsule = method.call0().map_err(|error| {
        let text = format!("{class} does not show its memory: {}", error.value(py));
        let raised = wrong(&text);
        raised.set_cause(py, Some(error));
        raised
    })?;
    let tensor = capsule
        .cast::<PyCapsule>()
        .ok()
        .and_then(|capsule| capsule.pointer_checked(Some(dlpack::CAPSULE)).ok())
        .ok_or_else(|| wrong("`__dlpack__` gave something else than a tensor"))?
        .cast::<dlpack::Tensor>();
    // SAFETY: a capsule of this name holds a `DLManagedTensor`, whose first member is the tensor; nobody has taken it,
    // and it lives as long as the capsule, which is held on to.
    let tensor = unsafe { tensor.as_ref() };
    expect_host(py, tensor.device.kind, tensor.device.index)?;
    let dtype = match (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) {
        (dlpack::FLOAT, 32, 1) => Dtype::F32,
        (dlpack::FLOAT, 16, 1) => Dtype::F16,
        (dlpack::BFLOAT, 16, 1) => Dtype::Bf16,
        (code, bits, lanes) => {
            let kind = match code {
                0 => "signed integers",
                1 => "unsigned integers",
                dlpack::FLOAT => "floats",
                5 => "complex numbers",
                6 => "booleans",
                _ => "numbers",
            };
            let text = format!("elements are {kind} of {bits} bits in {lanes} lanes; needed are {KINDS}");
            return Err(wrong(&text));
        }
    };
    let rank = usize::try_from(tensor.rank).map_err(|_| wrong("a tensor of negative rank"))?;
    if rank == 0 {
        shape(py, &[])?;
    }
    // SAFETY: the exporter's arrays have `rank` members.
    let lengths = unsafe { std::slice::from_raw_parts(tensor.shape, rank) };
    let lengths: Option<Vec<usize>> = lengths.iter().map(|&length| usize::try_from(length).ok()).collect();
    let shape = shape(py, &lengths.ok_or_else(|| wrong("a tensor with an axis of negative length"))?)?;
    let width = dtype.size() as isize;
    let mut strides = shape.strides().map(|stride| stride as isize * width);
    if !tensor.strides.is_null() {
        // SAFETY: as above.
        let given = unsafe { std::slice::from_raw_parts(tensor.strides, rank) };
        strides.iter_mut().zip(given).for_each(|(stride, &given)| *stride = given as isize * width);
    }
    let data = tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize);
    // DLPack 0.x does not say who may write; NumPy's read-only arrays have the buffer protocol and say it there.
    Ok(Array { _source: Source::Capsule(capsule.unbind()), data, dtype, shape, strides, writable: true })
}

fn expect_host(py: Python<'_>, kind: i32, index: i32) -> PyResult<()> {
    if dlpack::HOST_DEVICES.contains(&kind) {
        return Ok(());
    }
    let place = match kind {
        2 => format!("CUDA device {index}"),
        10 => format!("ROCm device {index}"),
        8 => "Metal".to_owned(),
        _ => format!("device {kind}:{index} of DLPack"),
    };
    let text =
        format!("the array lies in the memory of {place}; move it to the CPU, or see narrows.torch for CUDA");
    Err(failure::raise(py, Kind::Device, &text))
}

fn shape(py: Python<'_>, dims: &[usize]) -> PyResult<Shape> {
    Shape::new(dims).map_err(|error| failure::codec(py, &error))
}
