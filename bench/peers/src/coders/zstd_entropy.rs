//! FSE and Huff0, the entropy coders of zstd, on their own.

use std::ffi::c_void;

use super::{Coder, Entry, Failure};

/// What Huff0 takes at once.
const HUF_PIECE: usize = 128 << 10;
/// No piece grows by more than this, tables included.
const HUF_GROWTH: usize = 1 << 10;

/// A function of `native/zstd_entropy.c`: output and its capacity or length, input and its length; gives the
/// length of what was written, 0 on failure.
type Call = unsafe extern "C" fn(*mut c_void, usize, *const c_void, usize) -> usize;

unsafe extern "C" {
    fn bench_fse_encode(output: *mut c_void, capacity: usize, input: *const c_void, length: usize) -> usize;
    fn bench_fse_decode(output: *mut c_void, length: usize, input: *const c_void, bytes: usize) -> usize;
    fn bench_huf_encode(output: *mut c_void, capacity: usize, input: *const c_void, length: usize) -> usize;
    fn bench_huf_decode(output: *mut c_void, length: usize, input: *const c_void, bytes: usize) -> usize;
}

fn call(function: Call, output: &mut [u8], input: &[u8]) -> Result<usize, Failure> {
    let (to, from) = (output.as_mut_ptr().cast(), input.as_ptr().cast());
    // SAFETY: both are valid for their lengths, the functions stay within them, and one thread calls them.
    let written = unsafe { function(to, output.len(), from, input.len()) };
    if written == 0 || written > output.len() { Err("it gave up".into()) } else { Ok(written) }
}

/// The stream is one FSE table and its bits.
struct Fse;

impl Coder for Fse {
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        // Bytes that are there already are not cleared again.
        stream.resize(symbols.len() + symbols.len() / 64 + 1024, 0);
        let written = call(bench_fse_encode, stream, symbols)?;
        stream.truncate(written);
        Ok(())
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        let length = symbols.len();
        if call(bench_fse_decode, symbols, stream)? == length { Ok(()) } else { Err("too short".into()) }
    }
}

/// The stream is the pieces, each after its length (u32).
struct Huff0;

impl Coder for Huff0 {
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        let pieces = symbols.len().div_ceil(HUF_PIECE);
        stream.resize(symbols.len() + pieces * HUF_GROWTH, 0);
        let mut end = 0;
        for piece in symbols.chunks(HUF_PIECE) {
            let written = call(bench_huf_encode, &mut stream[end + 4..], piece)?;
            stream[end..end + 4].copy_from_slice(&u32::try_from(written)?.to_le_bytes());
            end += 4 + written;
        }
        stream.truncate(end);
        Ok(())
    }

    fn decode(&mut self, mut stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        for piece in symbols.chunks_mut(HUF_PIECE) {
            let (length, rest) = stream.split_first_chunk().ok_or("too short")?;
            let (bytes, rest) =
                rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("too short")?;
            call(bench_huf_decode, piece, bytes)?;
            stream = rest;
        }
        Ok(())
    }
}

pub fn entries() -> Vec<Entry> {
    vec![Entry::new("FSE", "native", Fse), Entry::new("Huff0", "native", Huff0)]
}
