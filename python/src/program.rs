//! The `narrows` program inside the extension module.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Run the program with these arguments (its own name first) and give its exit code; `command` starts it in another
/// process.
#[pyfunction]
pub(crate) fn run_program(py: Python<'_>, args: Vec<OsString>, command: Vec<OsString>) -> u8 {
    py.detach(|| narrows_cli::main(args, command))
}
