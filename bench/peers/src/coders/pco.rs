//! pco at its default level, which must be told that bytes are numbers.

use pco::ChunkConfig;
use pco::standalone::{simple_compress_into, simple_decompress_into};

use super::{Coder, Failure};

pub struct Pco {
    config: ChunkConfig,
}

impl Default for Pco {
    fn default() -> Self {
        Self { config: ChunkConfig::default().with_enable_8_bit(true) }
    }
}

impl Coder for Pco {
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        stream.clear();
        simple_compress_into(symbols, &self.config, stream)?;
        Ok(())
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        simple_decompress_into(stream, symbols.as_mut_slice())?;
        Ok(())
    }
}
