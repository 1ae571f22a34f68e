//! Frames: one encoded tensor each, self-describing and checked. `docs/format.md` is the normative text.

mod cursor;
pub(crate) mod header;
pub(crate) mod quantizer;
pub(crate) mod stream;

pub(crate) use cursor::{Cursor, put_varint, unzigzag, varint_length, zigzag};
pub use header::{Content, Header, Limits, peek};

use crate::error::{Error, Result};

/// The first bytes of every frame.
pub const MAGIC: [u8; 3] = *b"NRW";
/// The newest format version this library reads, and the one it writes.
pub const VERSION: u8 = 1;

/// Bytes of the checksum at the end.
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// CRC-32C (Castagnoli) of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Append the checksum of everything from `start` on.
pub(crate) fn write_checksum(out: &mut Vec<u8>, start: usize) {
    let checksum = checksum(&out[start..]);
    out.extend(checksum.to_le_bytes());
}

/// The bytes before the checksum at the end, if it is theirs.
pub(crate) fn read_checksum(bytes: &[u8]) -> Result<&[u8]> {
    let Some((contents, stored)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        let (needed, available) = (CHECKSUM_BYTES, bytes.len());
        return Err(Error::Truncated { what: "checksum", offset: 0, needed, available });
    };
    let (stored, computed) = (u32::from_le_bytes(*stored), checksum(contents));
    if stored == computed { Ok(contents) } else { Err(Error::Checksum { stored, computed }) }
}
