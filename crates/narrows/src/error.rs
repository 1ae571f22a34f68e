//! The one error type of the library: each variant says what, where and the bound.

use crate::profile::ProfileId;

/// Everything that can go wrong while encoding or decoding a tensor.
///
/// Variants are meant to be matched on: [`Error::Truncated`] asks for more bytes,
/// [`Error::UnknownProfile`] for a profile, [`Error::LimitExceeded`] for a larger
/// [`Limits`](crate::Limits); the rest says that a frame is not what its writer wrote.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// The first bytes are not a frame's (or a profile's).
    #[error("not a narrows {what}: the first bytes are {found:02x?}, expected {expected:02x?}")]
    BadMagic {
        /// `"frame"` or `"profile"`.
        what: &'static str,
        /// The bytes found.
        found: [u8; 3],
        /// The bytes every one begins with.
        expected: [u8; 3],
    },
    /// Written by a later format version.
    #[error("format version {found} is newer than {supported}, the latest this reader knows")]
    UnsupportedVersion {
        /// The version in the header.
        found: u8,
        /// The newest version this library reads.
        supported: u8,
    },
    /// The frame needs a feature this reader does not have.
    #[error("the frame needs features {unknown:#b} that this reader does not know")]
    UnsupportedFeature {
        /// The feature bits that are set and unknown.
        unknown: u32,
    },
    /// CRC-32C over the whole frame differs.
    #[error("checksum mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// The checksum in the last four bytes.
        stored: u32,
        /// The checksum of the bytes before them.
        computed: u32,
    },
    /// A length is above the caller's limit; nothing was allocated for it.
    #[error("{what} is {value}, above the limit of {limit}")]
    LimitExceeded {
        /// What was limited.
        what: &'static str,
        /// Its value in the input.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// A header field has a value no writer produces.
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
    #[error("invalid table {table}: {what}")]
    InvalidTable {
        /// Index of the table in its stream.
        table: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The coded symbols contradict the header (the checksum matched, so the writer erred).
    #[error("corrupt payload in chunk {chunk}: {what}")]
    CorruptPayload {
        /// Index of the chunk.
        chunk: usize,
        /// What does not hold.
        what: &'static str,
    },
    /// The frame was coded with a profile the decoder was not given.
    #[error("the frame was coded with profile {id}, which this decoder does not have")]
    UnknownProfile {
        /// The profile's name.
        id: ProfileId,
    },
    /// A tensor, or a frame, that the profile it names was not made for.
    #[error("profile {id} does not fit: {what}")]
    ProfileMismatch {
        /// The profile's name.
        id: ProfileId,
        /// What does not fit.
        what: &'static str,
    },
    /// NaN or infinity, which only the lossless mode carries.
    #[error("element {index} is {value}; quantisers need finite values (the lossless mode carries them)")]
    NonFinite {
        /// Index of the element in row-major order.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A shape that is not one, or does not match the data.
    #[error("shape: {what} is {value}, the bound is {bound}")]
    Shape {
        /// What is wrong with it.
        what: &'static str,
        /// The value found.
        value: usize,
        /// The value required, or the bound.
        bound: usize,
    },
    /// An option outside its range.
    #[error("option {what} is {value}, allowed is {allowed}")]
    InvalidOption {
        /// The option.
        what: &'static str,
        /// The value given.
        value: f64,
        /// The values allowed, in words.
        allowed: &'static str,
    },
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
