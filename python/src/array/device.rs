//! Arrays in the memory of NVIDIA GPUs, by DLPack: an address, and the stream on which it may be used.

use narrows::{Dtype, Shape};
use pyo3::prelude::*;

use super::dlpack::{self, Device};
use super::is_row_major;
use crate::failure::{self, Kind};

/// An array on a GPU; its memory has not been asked for yet.
pub(crate) struct OnDevice<'py> {
    object: Bound<'py, PyAny>,
    device: Device,
    index: usize,
}

/// Row-major elements on a GPU, kept alive.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a GPU's codec looks at it"))]
pub(crate) struct DeviceArray {
    _capsule: Py<PyAny>,
    /// Where they begin.
    pub(crate) address: u64,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Shape,
}

impl<'py> OnDevice<'py> {
    /// # Errors
    /// `DeviceError` if it is not a GPU of NVIDIA.
    pub(super) fn of(object: &Bound<'py, PyAny>, device: Device) -> PyResult<Self> {
        match device.cuda() {
            Some(index) => Ok(Self { object: object.clone(), device, index }),
            None => Err(device.refuse(object.py(), "move it to the CPU")),
        }
    }

    /// The array itself.
    pub(crate) fn into_object(self) -> Bound<'py, PyAny> {
        self.object
    }

    /// The exception for those who want the CPU to look at it.
    pub(crate) fn refuse(&self, text: &str) -> PyErr {
        self.device.refuse(self.object.py(), text)
    }
}

#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a GPU's codec asks"))]
impl OnDevice<'_> {
    /// The GPU's number.
    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    /// Ask for the memory, to be used on `stream`: the exporter makes that wait for what it is still doing there.
    ///
    /// # Errors
    /// `ArrayError` if it is not what was announced, or not row-major.
    pub(crate) fn open(&self, stream: usize) -> PyResult<DeviceArray> {
        let py = self.object.py();
        let wrong = |text: &str| Err(failure::raise(py, Kind::Array, text));
        let lent = dlpack::open(&self.object, Some(stream))?;
        if lent.device != self.device {
            let (said, is) = (self.device.name(), lent.device.name());
            return wrong(&format!("`__dlpack_device__` says {said}, `__dlpack__` gives memory of {is}"));
        }
        if !is_row_major(&lent.shape, &lent.strides, lent.dtype) {
            return wrong(
                "the array on the GPU is not row-major and contiguous; copy it (`.contiguous()` in PyTorch)",
            );
        }
        let dlpack::Lent { capsule, data, dtype, shape, .. } = lent;
        Ok(DeviceArray { _capsule: capsule, address: data.addr() as u64, dtype, shape })
    }
}
