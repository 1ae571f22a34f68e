//! Range asymmetric numeral systems (rANS; Duda 2013, arXiv:1311.2540), interleaved over lanes.
//!
//! - `reference` is the specification of the stream in code, for any symbols and any model;
//! - `decoding` and `encoding` are its row, 32 lanes at a time, over the operations of `simd`;
//! - `few` are rows of up to eight lanes, without vectors;
//! - `tables` are a model's tables as all of these look them up, `walk` where a chunk's rows lie;
//! - `coder` is all chunks of a stream, by the path asked for.
#![allow(
    clippy::inline_always,
    reason = "intrinsics are inlined only into functions of their target features"
)]

mod coder;
mod decoding;
#[cfg(test)]
mod differential;
mod encoding;
mod few;
pub(crate) mod reference;
mod simd;
mod tables;
mod walk;

pub(crate) use coder::{ChunkDecoder, ChunkEncoder, Input, Output, Run};
pub(crate) use tables::COARSE_FROM;

/// The largest number of lanes.
pub const MAX_LANES: usize = 32;

/// A lane's state is at least this, `2^16`, and below `2^32`; encoders start at it and decoders end at it.
pub(crate) const LOWER_BOUND: u32 = 1 << 16;

/// A symbol in memory: `u8` in dense layouts, `u16` where alphabets can exceed 256.
pub(crate) trait Symbol: Copy + Default + Send + Sync {
    /// The symbol as an index into tables.
    fn index(self) -> usize;
    /// The symbol of an index; the caller has made sure that it fits.
    fn from_index(index: usize) -> Self;
    /// The symbols as bytes, if they are bytes.
    fn as_bytes(symbols: &[Self]) -> Option<&[u8]>;
    /// The symbols as bytes to write, if they are bytes.
    fn as_bytes_mut(symbols: &mut [Self]) -> Option<&mut [u8]>;
}

impl Symbol for u8 {
    fn index(self) -> usize {
        usize::from(self)
    }
    fn from_index(index: usize) -> Self {
        debug_assert!(index < 256);
        index as u8
    }
    fn as_bytes(symbols: &[Self]) -> Option<&[u8]> {
        Some(symbols)
    }
    fn as_bytes_mut(symbols: &mut [Self]) -> Option<&mut [u8]> {
        Some(symbols)
    }
}

impl Symbol for u16 {
    fn index(self) -> usize {
        usize::from(self)
    }
    fn from_index(index: usize) -> Self {
        debug_assert!(index < 65_536);
        index as u16
    }
    fn as_bytes(_: &[Self]) -> Option<&[u8]> {
        None
    }
    fn as_bytes_mut(_: &mut [Self]) -> Option<&mut [u8]> {
        None
    }
}
