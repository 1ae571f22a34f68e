//! What can go wrong beyond the codec's own errors.

/// The error type of this crate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The frame, the tensor or an option: as on the CPU.
    #[error(transparent)]
    Codec(#[from] narrows::Error),
    /// There is no such device, or no driver for one.
    #[error("no {kind} device: {cause}")]
    NoDevice {
        /// `CUDA`, or `Vulkan or Metal`.
        kind: &'static str,
        /// Why, in the driver's words where it has some.
        cause: String,
    },
    /// A call to the driver failed.
    #[error("{what} failed: {cause}")]
    Device {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        cause: String,
    },
    /// A buffer of the caller's is too small, or the device cannot make one so large.
    #[error("{what} needs {needed} bytes, {available} are available")]
    Room {
        /// The buffer.
        what: &'static str,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// An option that this device does not offer; the CPU does.
    #[error("{what} is not offered on a GPU; encode on the CPU")]
    NotOffered {
        /// The option.
        what: &'static str,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
