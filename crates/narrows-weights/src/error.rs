//! What can go wrong: each variant says what, where and the bound.

use std::path::PathBuf;

/// Everything that can go wrong with packed weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a file failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not a safetensors file, or its metadata are not those of packed weights.
    #[error("{what}")]
    Container {
        /// What does not hold.
        what: String,
    },
    /// The file has no tensor of that name.
    #[error("there is no tensor called {name}")]
    NoSuchTensor {
        /// The name asked for.
        name: String,
    },
    /// Something is wrong with one tensor of a file.
    #[error("tensor {name}: {source}")]
    InTensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The bytes end before a field does.
    #[error("truncated: {what} at byte {offset} needs {needed} bytes, {available} are left")]
    Truncated {
        /// The field that was being read.
        what: &'static str,
        /// Where it starts.
        offset: usize,
        /// Its length in bytes.
        needed: usize,
        /// What is left from there on.
        available: usize,
    },
    /// The first bytes are not a packed tensor's.
    #[error("not a packed tensor: it begins with {found:02x?}")]
    BadMagic {
        /// The bytes found.
        found: [u8; 3],
    },
    /// Written by a later format version.
    #[error("format version {found} is newer than {supported}, the latest this reader knows")]
    UnsupportedVersion {
        /// The version found.
        found: u64,
        /// The newest version this library reads.
        supported: u64,
    },
    /// A CRC-32C differs.
    #[error("checksum of the {what} differs: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// What it covers.
        what: &'static str,
        /// The checksum stored.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A field has a value that no writer produces.
    #[error("invalid header: {what} is {value}, the bound is {bound}")]
    InvalidHeader {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The largest (or only) value allowed.
        bound: u64,
    },
    /// A frequency table that is not one.
    #[error("invalid frequency table: {what}")]
    InvalidTable {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The coded symbols contradict the header.
    #[error("corrupt payload in chunk {chunk}: {what}")]
    CorruptPayload {
        /// Index of the chunk.
        chunk: usize,
        /// What does not hold.
        what: &'static str,
    },
    /// Sizes that do not fit each other, or are out of bounds.
    #[error("{what} is {value}, the bound is {bound}")]
    Shape {
        /// What is wrong.
        what: &'static str,
        /// The value found.
        value: usize,
        /// The value required, or the bound.
        bound: usize,
    },
    /// An option outside its range.
    #[error("{what} is {value}, allowed is {allowed}")]
    InvalidOption {
        /// The option.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A file of so few bits a weight cannot be.
    #[error(
        "{bits} bits a weight are too few: headers, tables, steps and what is not packed take {least:.3} of them alone"
    )]
    TooFewBits {
        /// What was asked for.
        bits: f64,
        /// What is taken by everything but the packed weights themselves.
        least: f64,
    },
    /// NaN or infinity, which only the lossless mode carries.
    #[error("element {index} is {value}; quantisers need finite values (the lossless mode carries them)")]
    NonFinite {
        /// Index of the element in row-major order.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// No network could be read from an ONNX file.
    #[error(transparent)]
    Onnx(#[from] crate::net::OnnxError),
    /// The codec of lossless tensors, or of wide alphabets, refused.
    #[error(transparent)]
    Codec(#[from] narrows::Error),
}

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The same about the tensor that it happened to.
    #[must_use]
    pub fn in_tensor(self, name: &str) -> Self {
        Self::InTensor { name: name.to_owned(), source: Box::new(self) }
    }

    pub(crate) fn container(what: impl Into<String>) -> Self {
        Self::Container { what: what.into() }
    }
}
