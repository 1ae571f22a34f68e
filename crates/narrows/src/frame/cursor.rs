//! Reading and writing the scalar fields of a frame.

use crate::error::{Error, Result};

/// Reads fields from bytes, remembering where it is.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// Nothing must be left after the last stream.
    pub(crate) fn expect_end(&self) -> Result<()> {
        match self.rest().len() as u64 {
            0 => Ok(()),
            value => Err(Error::InvalidHeader { what: "bytes after the last stream", value, bound: 0 }),
        }
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, what: &'static str, length: usize) -> Result<&'a [u8]> {
        let available = self.bytes.len() - self.offset;
        if length > available {
            return Err(Error::Truncated { what, offset: self.offset, needed: length, available });
        }
        let taken = &self.bytes[self.offset..self.offset + length];
        self.offset += length;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    /// An unsigned integer of at most `bound`, seven bits a byte, the lowest first (LEB128).
    pub(crate) fn varint(&mut self, what: &'static str, bound: u64) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // A longer spelling of the same number would make two frames of one tensor.
                if value > bound || (byte == 0 && shift > 0) {
                    return Err(Error::InvalidHeader { what, value, bound });
                }
                return Ok(value);
            }
        }
        Err(Error::InvalidHeader { what, value, bound })
    }
}

/// Append an unsigned integer, seven bits a byte, the lowest first (LEB128).
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of [`put_varint`].
pub(crate) const fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A signed integer as an unsigned one, small magnitudes first.
pub(crate) const fn zigzag(value: i32) -> u64 {
    ((value << 1) ^ (value >> 31)) as u32 as u64
}

/// Undoes [`zigzag`].
pub(crate) const fn unzigzag(code: u64) -> i32 {
    let code = code as u32;
    (code >> 1) as i32 ^ -((code & 1) as i32)
}
