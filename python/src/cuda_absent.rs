//! What stands in for `cuda.rs` in builds without it.

use narrows::{EncodeOptions, Limits, Profiles};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::array::OnDevice;

const TEXT: &str = "this build of narrows has no CUDA: move it to the CPU (`.cpu()` in PyTorch)";

pub(crate) fn encode<'py>(
    _py: Python<'py>,
    array: &OnDevice<'py>,
    _options: &EncodeOptions,
) -> PyResult<Bound<'py, PyBytes>> {
    Err(array.refuse(TEXT))
}

pub(crate) fn decode_into(
    _py: Python<'_>,
    _frame: &[u8],
    out: &OnDevice<'_>,
    _profiles: Profiles,
    _limits: Limits,
) -> PyResult<()> {
    Err(out.refuse(TEXT))
}
