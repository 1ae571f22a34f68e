//! Tabled asymmetric numeral systems (tANS; Duda 2013, arXiv:1311.2540): a state machine of 64 to
//! 4,096 states, built in [`spec`], run by its two twins [`encoding`] and [`decoding`].
//!
//! A chunk's lanes each run the machine on their own symbols. Eight neighbouring lanes share a bit
//! stream: within a row they take their bits in ascending lane order, least significant bit first.

pub(crate) mod decoding;
pub(crate) mod encoding;
pub(crate) mod spec;

/// The largest number of lanes.
pub const MAX_LANES: usize = 64;
/// Lanes that share a bit stream.
pub(crate) const LANES_PER_STREAM: usize = 8;
/// log2 of the least and the largest number of states.
pub const STATE_BITS: std::ops::RangeInclusive<u32> = 6..=12;
