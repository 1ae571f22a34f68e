//! zstd, one context each way kept from call to call.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use super::{Coder, Entry, Failure};
use crate::data::Data;

/// Slow levels are for small data.
const SLOW_UP_TO: usize = 10_000;

struct Zstd {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
}

impl Coder for Zstd {
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        stream.clear();
        stream.reserve(compress_bound(symbols.len()));
        self.compressor.compress_to_buffer(symbols, stream)?;
        Ok(())
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        self.decompressor.decompress_to_buffer(stream, symbols.as_mut_slice())?;
        Ok(())
    }
}

pub fn entries(data: &Data) -> Vec<Entry> {
    let levels: &[i32] = if data.symbols.len() <= SLOW_UP_TO { &[1, 3, 19] } else { &[1, 3] };
    let entry = |&level: &i32| {
        let compressor = Compressor::new(level).expect("a level");
        let decompressor = Decompressor::new().expect("a decompressor");
        Entry::new(&format!("zstd level {level}"), "native", Zstd { compressor, decompressor })
    };
    levels.iter().map(entry).collect()
}
