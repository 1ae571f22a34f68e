//! htscodecs: rANS 32x16, order 0 and 1, by its back ends, with and without packing. 4x16 for small data,
//! where its own `RANS_ORDER_SIMD_AUTO` takes it.

use std::ffi::{c_int, c_uchar, c_uint};

use super::{Coder, Entry, Failure};
use crate::data::{Data, LARGE};

const ORDER_1: c_int = 1;
const X32: c_int = 0x04;
const PACK: c_int = 0x80;
/// Below, `RANS_ORDER_SIMD_AUTO` takes four lanes.
const X32_FROM: usize = 50_000;
/// The most kinds of symbols that `PACK` can put two to a byte.
const PACK_ALPHABET: u16 = 16;

/// The bits of `rans_set_cpu`: encoder and decoder each may use SSE4, AVX2, AVX-512.
const SCALAR: c_int = 0;
const AVX2: c_int = 0x0303;
const AVX512: c_int = 0x0707;

type Set = unsafe extern "C" fn(c_int);
type Bound = unsafe extern "C" fn(c_uint, c_int) -> c_uint;
type Encode = unsafe extern "C" fn(*const c_uchar, c_uint, *mut c_uchar, *mut c_uint, c_int) -> *mut c_uchar;
type Decode = unsafe extern "C" fn(*const c_uchar, c_uint, *mut c_uchar, *mut c_uint) -> *mut c_uchar;

unsafe extern "C" {
    fn rans_set_cpu(cpu: c_int);
    fn rans_compress_bound_4x16(length: c_uint, order: c_int) -> c_uint;
    fn rans_compress_to_4x16(
        input: *const c_uchar,
        length: c_uint,
        output: *mut c_uchar,
        capacity: *mut c_uint,
        order: c_int,
    ) -> *mut c_uchar;
    fn rans_uncompress_to_4x16(
        input: *const c_uchar,
        bytes: c_uint,
        output: *mut c_uchar,
        length: *mut c_uint,
    ) -> *mut c_uchar;
    fn gather_rans_set_cpu(cpu: c_int);
    fn gather_rans_compress_bound_4x16(length: c_uint, order: c_int) -> c_uint;
    fn gather_rans_compress_to_4x16(
        input: *const c_uchar,
        length: c_uint,
        output: *mut c_uchar,
        capacity: *mut c_uint,
        order: c_int,
    ) -> *mut c_uchar;
    fn gather_rans_uncompress_to_4x16(
        input: *const c_uchar,
        bytes: c_uint,
        output: *mut c_uchar,
        length: *mut c_uint,
    ) -> *mut c_uchar;
}

/// One of the two builds of the library.
#[derive(Clone, Copy)]
struct Build {
    set: Set,
    bound: Bound,
    encode: Encode,
    decode: Decode,
}

const RELEASED: Build = Build {
    set: rans_set_cpu,
    bound: rans_compress_bound_4x16,
    encode: rans_compress_to_4x16,
    decode: rans_uncompress_to_4x16,
};
const GATHER: Build = Build {
    set: gather_rans_set_cpu,
    bound: gather_rans_compress_bound_4x16,
    encode: gather_rans_compress_to_4x16,
    decode: gather_rans_uncompress_to_4x16,
};

struct Htscodecs {
    build: Build,
    cpu: c_int,
    order: c_int,
}

impl Coder for Htscodecs {
    fn prepare(&mut self) {
        // SAFETY: it takes any bits; one thread calls this library.
        unsafe { (self.build.set)(self.cpu) };
    }

    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        let length = c_uint::try_from(symbols.len())?;
        // SAFETY: it only computes.
        let mut bytes = unsafe { (self.build.bound)(length, self.order) };
        stream.clear();
        stream.reserve(bytes as usize);
        // SAFETY: `bytes` is the capacity of `stream`, and the library writes no more than that.
        let result = unsafe {
            (self.build.encode)(symbols.as_ptr(), length, stream.as_mut_ptr(), &raw mut bytes, self.order)
        };
        if result.is_null() {
            return Err("rans_compress_to_4x16 failed".into());
        }
        // SAFETY: the library wrote so many.
        unsafe { stream.set_len(bytes as usize) };
        Ok(())
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        let (bytes, mut length) = (c_uint::try_from(stream.len())?, c_uint::try_from(symbols.len())?);
        // SAFETY: the library reads the `bytes` of `stream` and writes no more than `length`.
        let result =
            unsafe { (self.build.decode)(stream.as_ptr(), bytes, symbols.as_mut_ptr(), &raw mut length) };
        if result.is_null() || length as usize != symbols.len() {
            return Err("rans_uncompress_to_4x16 failed".into());
        }
        Ok(())
    }
}

pub fn entries(data: &Data) -> Vec<Entry> {
    let x86 = cfg!(target_arch = "x86_64");
    let avx2 = x86 && narrows::Path::Avx2.is_available();
    let avx512 = x86 && narrows::Path::Avx512.is_available();
    let paths = [
        ("scalar", RELEASED, SCALAR, true),
        ("avx2", RELEASED, AVX2, avx2),
        ("avx512", RELEASED, AVX512, avx512),
        ("avx2 gather", GATHER, AVX2, avx2),
        ("avx512 gather", GATHER, AVX512, avx512),
    ];
    let mut entries = Vec::new();
    for (name, order) in [("order-0", 0), ("order-1", ORDER_1)] {
        for (suffix, pack) in [("", 0), (" packed", PACK)] {
            if pack != 0 && (data.alphabet > PACK_ALPHABET || data.symbols.len() >= LARGE) {
                continue;
            }
            let name = format!("htscodecs {name}{suffix}");
            for &(path, build, cpu, _) in paths.iter().filter(|(_, _, _, available)| *available) {
                entries.push(Entry::new(&name, path, Htscodecs { build, cpu, order: order | pack | X32 }));
            }
            if data.symbols.len() < X32_FROM {
                let few_lanes = Htscodecs { build: RELEASED, cpu: SCALAR, order: order | pack };
                entries.push(Entry::new(&name, "4 lanes", few_lanes));
            }
        }
    }
    entries
}
