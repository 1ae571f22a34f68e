//! What can go wrong on the wire, in variants a caller can act on.

use std::{io, sync::Arc, time::Duration};

use crate::Failure;

/// An error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end before the thing they began.
    #[error("{what} is truncated: {needed} bytes needed, {available} there")]
    Truncated {
        /// The field or message that was cut.
        what: &'static str,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there were.
        available: u64,
    },
    /// A length or count is above its bound; nothing was allocated for it.
    #[error("{what} is {value}, above the limit of {limit}")]
    LimitExceeded {
        /// The length or count.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Its bound.
        limit: u64,
    },
    /// The first byte of a message names no kind of message.
    #[error("unknown message kind {kind}")]
    UnknownKind {
        /// The byte found.
        kind: u8,
    },
    /// The peer does not speak this protocol.
    #[error("bad magic {found:02x?}: the peer does not speak the narrows link protocol")]
    BadMagic {
        /// The four bytes found in its place.
        found: [u8; 4],
    },
    /// Bytes changed on the way.
    #[error("checksum of {what} is {computed:#010x}, {stored:#010x} was sent: bytes changed on the way")]
    Checksum {
        /// What was checked.
        what: &'static str,
        /// The checksum that came with it.
        stored: u32,
        /// The checksum of what came.
        computed: u32,
    },
    /// The peers have no protocol version in common.
    #[error("protocol version {version} is not supported, the highest supported is {supported}")]
    UnsupportedVersion {
        /// The peer's version.
        version: u16,
        /// The highest version spoken here.
        supported: u16,
    },
    /// A text field is not UTF-8.
    #[error("{what} is not valid UTF-8")]
    Utf8 {
        /// The text field.
        what: &'static str,
    },
    /// A reserved field that must be zero is not.
    #[error("reserved bytes of {what} are {value:#x}, they must be zero")]
    Reserved {
        /// Where the field is.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A message is longer than its fields.
    #[error("{count} bytes after the last field of {what}")]
    TrailingBytes {
        /// The message.
        what: &'static str,
        /// How many bytes too many.
        count: u64,
    },
    /// A valid message that has no place at this point of the conversation.
    #[error("a {found} message where {expected} was expected")]
    Unexpected {
        /// The kind of message that came.
        found: &'static str,
        /// What may come here.
        expected: &'static str,
    },
    /// An answer to something that was not asked.
    #[error("answer to {received}, which is not waiting for one")]
    WrongId {
        /// The id (or ping nonce) received.
        received: u64,
    },
    /// The peer refused, and said why.
    #[error("the peer refused: {0}")]
    Refused(Failure),
    /// The peer did not come in time.
    #[error("{what} took longer than {limit:?}")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The peer ended the connection, between messages.
    #[error("the connection is closed")]
    Closed,
    /// A key, certificate or host name that TLS cannot work with.
    #[error("{what}: {cause}")]
    Tls {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: String,
    },
    /// A setting whose text makes no sense.
    #[error("{what}: {cause}")]
    Setting {
        /// The setting, and where it came from.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A setting outside its range.
    #[error("{what} is {value}, it must be {expected}")]
    InvalidSetting {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        expected: &'static str,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// For `map_err`: an operating-system error, with what was tried. An error of this crate that
    /// travelled through `std::io` comes out as it went in.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| {
            source.downcast::<Error>().unwrap_or_else(|source| Error::Io { what, source: Arc::new(source) })
        }
    }
}
