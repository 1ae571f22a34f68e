//! The pieces that packed weights are coded with: bits, tables, the tANS machine and its rows of 64 lanes. For
//! `narrows-weights`, whose products run a row's decoder on the way to the multiplier; not part of the stable interface.

pub use crate::bits::{BitReader, BitWriter, width_of};
pub use crate::model::coding::{Scale, mantissa_bits, read_weights, weight, write as write_weights};
pub use crate::model::table::Table;
#[cfg(target_arch = "x86_64")]
pub use crate::tans::avx2::{Avx2, MOST_BITS as MOST_BITS_AVX2};
#[cfg(target_arch = "x86_64")]
pub use crate::tans::avx512::Avx512;
pub use crate::tans::lanes::{Lanes, Payload};
#[cfg(target_arch = "aarch64")]
pub use crate::tans::neon::Neon;
pub use crate::tans::rows::{Strip, Tables, Take, decode_rows};
pub use crate::tans::spec::{ByteStates, Machine, State, Step};
pub use crate::tans::{LANES_PER_STREAM, MAX_LANES, MAX_STREAMS, STATE_BITS};

/// CRC-32C of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    crate::frame::checksum(bytes)
}
