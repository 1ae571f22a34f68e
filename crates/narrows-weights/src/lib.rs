//! Neural-network weights stored below one bit each, and decoded on the way from memory to the multiplier.
//!
//! ```text
//! weights -> Grid -> bins -> tANS -> packed tensor -> packed file        (pack)
//! packed file -> packed tensor -> Matrix -> rows, or products            (use)
//! ```
//!
//! A [`Grid`] rounds weights to an odd number of bins, the middle one at zero. [`pack`] codes the bins with a tANS machine of
//! 64 to 256 states, whose table vector registers hold, in 64 **lanes**: neighbouring columns of a matrix row. A
//! **chunk** is a strip of matrix rows and decodes independently. A [`Matrix`] multiplies what it decodes at once:
//! from memory comes nothing but the packed bytes.

#![deny(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "a kernel has the target features of the function it is inlined into"
)]
#![allow(clippy::needless_range_loop, reason = "loops over several strips, in step")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod checkpoint;
mod choice;
mod contexts;
mod data;
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub mod dense;
mod encode;
mod error;
mod file;
mod frame;
mod grid;
mod kernel;
mod layout;
mod lossless;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod net;
mod outliers;
mod pack;
mod reference;
mod search;
mod sensitivity;
mod steps;
mod strips;

pub use checkpoint::{Checkpoint, OneOrMany, STEPS_KEY, Steps};
pub use choice::States;
pub use contexts::Contexts;
pub use data::Data;
pub use encode::{PackOptions, pack};
pub use error::{Error, Result};
pub use file::{FILE_VERSION, PackedFile, Plain, Stream, Tensor, Writer};
pub use frame::matrix_of;
pub use grid::{Grid, MAX_HALF, Quantized, entropy};
pub use layout::Layout;
pub use matrix::{MAX_INT8_COLUMNS, Matrix};
pub use pack::{Mode, Outcome, Packed, Unpacker, pack_checkpoint, pack_network, unpack_file};
pub use steps::{Calibration, Counted, Scope, Settings, grids, quantize};
