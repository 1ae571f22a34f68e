//! Errors as the exceptions of `narrows.errors`.

use narrows::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The exceptions raised from here; each is a class of `narrows.errors` with this name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Array,
    Checksum,
    Deadline,
    Device,
    Frame,
    Limit,
    Link,
    Model,
    NonFinite,
    Option,
    Profile,
    Refused,
    Shape,
    Truncated,
    UnknownProfile,
    Unsupported,
}

impl Kind {
    const fn class(self) -> &'static str {
        match self {
            Self::Array => "ArrayError",
            Self::Checksum => "ChecksumError",
            Self::Deadline => "DeadlineError",
            Self::Device => "DeviceError",
            Self::Frame => "FrameError",
            Self::Limit => "LimitError",
            Self::Link => "LinkError",
            Self::Model => "ModelError",
            Self::NonFinite => "NonFiniteError",
            Self::Option => "OptionError",
            Self::Profile => "ProfileError",
            Self::Refused => "RefusedError",
            Self::Shape => "ShapeError",
            Self::Truncated => "TruncatedError",
            Self::UnknownProfile => "UnknownProfileError",
            Self::Unsupported => "UnsupportedError",
        }
    }
}

/// An exception of this kind.
pub(crate) fn raise(py: Python<'_>, kind: Kind, message: &str) -> PyErr {
    with_fields(py, kind, message, |_| Ok(()))
}

/// An exception of this kind with attributes.
pub(crate) fn with_fields(
    py: Python<'_>,
    kind: Kind,
    message: &str,
    set: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>,
) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let class = py.import("narrows.errors")?.getattr(kind.class())?;
        let exception = class.call1((message,))?;
        let fields = PyDict::new(py);
        set(&fields)?;
        for (name, value) in &fields {
            exception.setattr(name.cast::<pyo3::types::PyString>()?, value)?;
        }
        Ok(PyErr::from_value(exception))
    };
    // What stood in the way of the exception is what there is to say then.
    make().unwrap_or_else(|error| error)
}

/// The codec's error, with what a caller can act upon as attributes.
pub(crate) fn codec(py: Python<'_>, error: &Error) -> PyErr {
    let text = error.to_string();
    let plain = |kind| raise(py, kind, &text);
    match *error {
        Error::Truncated { offset, needed, available, .. } => {
            with_fields(py, Kind::Truncated, &text, |fields| {
                fields.set_item("offset", offset)?;
                fields.set_item("needed", needed)?;
                fields.set_item("available", available)
            })
        }
        Error::Checksum { stored, computed } => with_fields(py, Kind::Checksum, &text, |fields| {
            fields.set_item("stored", stored)?;
            fields.set_item("computed", computed)
        }),
        Error::LimitExceeded { value, limit, .. } => limit_exceeded(py, &text, value, limit),
        Error::UnknownProfile { id } => {
            let hint = format!("{text}; add it to the decoder's `profiles`");
            with_fields(py, Kind::UnknownProfile, &hint, |fields| fields.set_item("profile", id.to_string()))
        }
        Error::ProfileMismatch { id, .. } => {
            with_fields(py, Kind::Profile, &text, |fields| fields.set_item("profile", id.to_string()))
        }
        Error::NonFinite { index, value } => with_fields(py, Kind::NonFinite, &text, |fields| {
            fields.set_item("index", index)?;
            fields.set_item("value", value)
        }),
        Error::UnsupportedVersion { .. } | Error::UnsupportedFeature { .. } => plain(Kind::Unsupported),
        Error::Shape { .. } => plain(Kind::Shape),
        Error::InvalidOption { .. } => plain(Kind::Option),
        _ => plain(Kind::Frame),
    }
}

/// A GPU's error.
#[cfg(feature = "cuda")]
pub(crate) fn gpu(py: Python<'_>, error: &narrows_gpu::Error) -> PyErr {
    match error {
        narrows_gpu::Error::Codec(error) => codec(py, error),
        narrows_gpu::Error::NotOffered { what } => {
            let text =
                format!("{what} is not offered on a GPU; move the tensor to the CPU (`.cpu()` in PyTorch)");
            raise(py, Kind::Device, &text)
        }
        other => raise(py, Kind::Device, &other.to_string()),
    }
}

/// A size above its limit.
pub(crate) fn limit_exceeded(py: Python<'_>, text: &str, value: u64, limit: u64) -> PyErr {
    with_fields(py, Kind::Limit, text, |fields| {
        fields.set_item("value", value)?;
        fields.set_item("limit", limit)
    })
}
