//! The extension module of the Python package `narrows`: the codec, the link, ONNX models and the program, in one
//! library.

#![deny(unsafe_code)]
#![allow(clippy::needless_pass_by_value, reason = "arguments come from Python as values")]
#![allow(clippy::doc_markdown, reason = "documentation in here is read by Python's users")]
#![allow(clippy::missing_errors_doc, reason = "errors are documented as exceptions")]

mod array;
mod codec;
#[cfg_attr(not(feature = "cuda"), path = "cuda_absent.rs")]
mod cuda;
mod failure;
mod frame;
mod link;
mod measure;
mod numpy;
#[cfg(feature = "onnx")]
mod onnx;
mod options;
mod profile;
#[cfg(feature = "program")]
mod program;

use pyo3::prelude::*;

/// The compiled part of narrows.
#[pymodule(gil_used = false)]
mod _narrows {
    #[pymodule_export]
    use crate::codec::{Decoder, Encoder, decode, encode, peek, plan};
    #[pymodule_export]
    use crate::frame::{Header, Plan};
    #[pymodule_export]
    use crate::link::{Answer, Client, Server};
    #[pymodule_export]
    use crate::measure::_measure;
    #[cfg(feature = "onnx")]
    #[pymodule_export]
    use crate::onnx::{Cut, Engine, cuts, split};
    #[pymodule_export]
    use crate::profile::Profile;
    #[cfg(feature = "program")]
    #[pymodule_export]
    use crate::program::run_program;

    /// The package's version.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
