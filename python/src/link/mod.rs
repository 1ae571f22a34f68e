//! The link: the Rust client and server, with frames as bytes; `narrows.client` and `narrows.server` put arrays
//! around them.

mod client;
mod server;

pub(crate) use client::{Answer, Client};
pub(crate) use server::Server;

use std::time::Duration;

use narrows_link::{Code, Error};
use pyo3::prelude::*;

use crate::failure::{self, Kind};

/// Seconds as a duration.
///
/// # Errors
/// `OptionError` for a negative or absurd number.
fn seconds(py: Python<'_>, what: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        let text = format!("option {what} is {value}, allowed are seconds from 0 on");
        failure::raise(py, Kind::Option, &text)
    })
}

/// What a failure's code is called in Python.
fn code_name(code: Code) -> String {
    code.to_string().replace(' ', "-")
}

/// The link's error.
fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Refused(refusal) => failure::with_fields(py, Kind::Refused, &text, |fields| {
            fields.set_item("code", code_name(refusal.code()))?;
            fields.set_item("text", refusal.text())
        }),
        Error::Deadline { .. } => failure::raise(py, Kind::Deadline, &text),
        Error::LimitExceeded { value, limit, .. } => failure::limit_exceeded(py, &text, *value, *limit),
        Error::Tls { .. } | Error::Setting { .. } | Error::InvalidSetting { .. } => {
            failure::raise(py, Kind::Option, &text)
        }
        _ => failure::raise(py, Kind::Link, &text),
    }
}
