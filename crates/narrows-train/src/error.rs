use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong between a model file and a trained checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The network could not be read.
    #[error(transparent)]
    Model(#[from] narrows_weights::Error),
    /// Images, labels or their shapes do not fit the network or each other.
    #[error("{what}: {found}, expected {expected}")]
    Shape {
        /// What was looked at.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A setting is outside its range.
    #[error("{name} is {value}, it must be {range}")]
    InvalidSetting {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// The loss became infinite or not a number.
    #[error("training diverged: the loss is {loss} at step {step}")]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// A file is no checkpoint of this training.
    #[error("{}: not a checkpoint to go on from: {cause}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn setting(name: &'static str, value: &dyn Display, range: &'static str) -> Self {
        Self::InvalidSetting { name, value: value.to_string(), range }
    }
}
