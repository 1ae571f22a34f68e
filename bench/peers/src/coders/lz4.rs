//! LZ4's block format, its default (fast) compressor: what no entropy coder at all gives.

use lz4::block::{compress_bound, compress_to_buffer, decompress_to_buffer};

use super::{Coder, Failure};

pub struct Lz4;

impl Coder for Lz4 {
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        stream.resize(compress_bound(symbols.len())?, 0);
        let written = compress_to_buffer(symbols, None, false, stream)?;
        stream.truncate(written);
        Ok(())
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        decompress_to_buffer(stream, Some(i32::try_from(symbols.len())?), symbols)?;
        Ok(())
    }
}
