//! The part of the DLPack ABI that is needed to look at somebody else's tensor (`dlpack.h`, version 0.x: what
//! `__dlpack__()` without arguments gives everywhere).

use std::ffi::c_void;

use narrows::{Dtype, MAX_RANK, Shape};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use super::source::{KINDS, shape};
use crate::failure::{self, Kind};

/// The name of a capsule whose tensor nobody has taken yet.
const CAPSULE: &std::ffi::CStr = c"dltensor";

/// Ordinary memory; pinned memory of CUDA and of ROCm can be read as such.
const HOST_DEVICES: [i32; 3] = [1, 3, 11];
/// Memory of an NVIDIA GPU, and memory that moves there when it is used.
const CUDA_DEVICES: [i32; 2] = [2, 13];

const FLOAT: u8 = 2;
const BFLOAT: u8 = 4;

/// `DLDevice`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    kind: i32,
    index: i32,
}

impl Device {
    /// Whether the CPU can read what lies there.
    pub(super) fn is_host(self) -> bool {
        HOST_DEVICES.contains(&self.kind)
    }

    /// The number of an NVIDIA GPU.
    pub(super) fn cuda(self) -> Option<usize> {
        CUDA_DEVICES.contains(&self.kind).then(|| usize::try_from(self.index).ok()).flatten()
    }

    /// Its name for a person.
    pub(super) fn name(self) -> String {
        match self.kind {
            2 | 13 => format!("CUDA device {}", self.index),
            10 => format!("ROCm device {}", self.index),
            8 => "Metal".to_owned(),
            kind => format!("device {kind}:{} of DLPack", self.index),
        }
    }

    /// The exception for memory that the codec cannot look at.
    pub(super) fn refuse(self, py: Python<'_>, text: &str) -> PyErr {
        failure::raise(py, Kind::Device, &format!("the array lies in the memory of {}; {text}", self.name()))
    }
}

/// `DLDataType`.
#[repr(C)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor`; the first member of a `DLManagedTensor`.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device: Device,
    rank: i32,
    dtype: DataType,
    /// `rank` axis lengths.
    shape: *const i64,
    /// `rank` strides in elements, or null for row-major.
    strides: *const i64,
    byte_offset: u64,
}

/// Somebody else's tensor, looked at.
pub(super) struct Lent {
    /// Keeps the memory. It was not taken, so that it frees its tensor itself.
    pub(super) capsule: Py<PyAny>,
    pub(super) device: Device,
    pub(super) data: *mut u8,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    /// In bytes.
    pub(super) strides: [isize; MAX_RANK],
}

/// Where the object's `__dlpack_device__` says that it lies; nothing if it does not say.
pub(super) fn device(object: &Bound<'_, PyAny>) -> PyResult<Option<Device>> {
    let Ok(answer) = object.call_method0("__dlpack_device__") else { return Ok(None) };
    let (kind, index) = answer.extract()?;
    Ok(Some(Device { kind, index }))
}

/// The tensor that `__dlpack__` gives; for a device's memory, `stream` is where it will be used.
///
/// # Errors
/// `ArrayError` if the object gives none, or one that is not a tensor of ours.
pub(super) fn open(object: &Bound<'_, PyAny>, stream: Option<usize>) -> PyResult<Lent> {
    let py = object.py();
    let wrong = |text: &str| failure::raise(py, Kind::Array, text);
    let given = match stream {
        None => object.call_method0("__dlpack__"),
        Some(stream) => {
            let keywords = PyDict::new(py);
            keywords.set_item("stream", stream.into_bound_py_any(py)?)?;
            object.call_method("__dlpack__", (), Some(&keywords))
        }
    };
    let capsule = given.map_err(|error| {
        let class = object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        let raised = wrong(&format!("{class} does not show its memory: {}", error.value(py)));
        raised.set_cause(py, Some(error));
        raised
    })?;
    let tensor = capsule
        .cast::<PyCapsule>()
        .ok()
        .and_then(|capsule| capsule.pointer_checked(Some(CAPSULE)).ok())
        .ok_or_else(|| wrong("`__dlpack__` gave something else than a tensor"))?
        .cast::<DlTensor>();
    // SAFETY: a capsule of this name holds a `DLManagedTensor`, whose first member is the tensor; nobody has taken it,
    // and it lives as long as the capsule, which is held on to.
    let tensor = unsafe { tensor.as_ref() };
    let dtype = dtype(&tensor.dtype).map_err(|text| wrong(&text))?;
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
        strides
            .iter_mut()
            .zip(given)
            .for_each(|(stride, &given)| *stride = (given as isize).wrapping_mul(width));
    }
    let data = tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize);
    Ok(Lent { device: tensor.device, data, dtype, shape, strides, capsule: capsule.unbind() })
}

fn dtype(of: &DataType) -> Result<Dtype, String> {
    match (of.code, of.bits, of.lanes) {
        (FLOAT, 32, 1) => Ok(Dtype::F32),
        (FLOAT, 16, 1) => Ok(Dtype::F16),
        (BFLOAT, 16, 1) => Ok(Dtype::Bf16),
        (code, bits, lanes) => {
            let kind = match code {
                0 => "signed integers",
                1 => "unsigned integers",
                FLOAT => "floats",
                5 => "complex numbers",
                6 => "booleans",
                _ => "numbers",
            };
            Err(format!("elements are {kind} of {bits} bits in {lanes} lanes; needed are {KINDS}"))
        }
    }
}
