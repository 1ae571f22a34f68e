//! **narrows** squeezes neural-network tensors through the narrowest place on their way: the link between
//! the two halves of a split network.
//!
//! ```
//! use narrows::{TensorView, decode, encode};
//!
//! // The features a network's head made of one image: 64 channels of 14 x 14 positions.
//! let features: Vec<f32> = (0..64 * 14 * 14).map(|i| ((i / 14) as f32 * 0.7).sin().max(0.0)).collect();
//! let frame = encode(&TensorView::new(&features, &[64, 14, 14])?, 4)?; // 4 bits: 16 levels
//! let tensor = decode(&frame)?;
//!
//! assert!(frame.len() < features.len() * 4 / 8);
//! assert_eq!(tensor.shape().dims(), [64, 14, 14]);
//! # Ok::<(), narrows::Error>(())
//! ```
//!
//! # How it works
//!
//! ```text
//! tensor -> quantise -> layout -> model -> entropy coder -> frame        (encode)
//! frame  -> entropy coder -> model -> layout -> dequantise -> tensor     (decode)
//! ```
//!
//! [Quantisers](Quantizer) turn values into **symbols** of a small **alphabet**. A layout puts these in
//! order. In [plane order](Planes) a **lane** is a channel and a **row** a position, so that what lies to
//! the left of a symbol and above it is decoded before it, and can choose the frequency table it is
//! coded with. The coder is **rANS**: each lane has a state of 32 bits that swallows symbols in as many bits
//! as their frequency says; lanes take turns, one symbol each in a row, so that they can run side by side.
//! Runs of rows make **chunks**, which decode independently. A **frame** is one tensor with all that is
//! needed to decode it, and a checksum; what both ends agree on beforehand lives in a [`Profile`], which a
//! frame names by its hash.
//!
//! [`encode`] and [`decode`] are the short way; [`Encoder`] and [`Decoder`] keep their buffers and take
//! [options](EncodeOptions). Decoders are safe on any bytes: they return a typed [`Error`], take no more
//! memory than their [`Limits`] say, and never panic.

// SIMD modules allow it, one by one; nothing else does.
#![deny(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "a kernel has the target features of the function it is inlined into"
)]
#![allow(clippy::needless_range_loop, reason = "loops over the lanes of several arrays, in step")]

mod bits;
mod codec;
mod cpu;
mod error;
mod frame;
mod layout;
#[doc(hidden)]
pub mod machine;
mod model;
mod profile;
mod quantize;
mod rans;
mod simd;
#[cfg(feature = "stages")]
#[doc(hidden)]
pub mod stages;
#[doc(hidden)]
pub mod stream;
mod tans;
mod tensor;

pub use codec::{
    CoderChoice, Decoder, EncodeOptions, Encoder, Estimate, Inspection, LayoutChoice, Reshape,
    StreamInspection, SymbolDecoder, SymbolEncoder, SymbolLayout, Target, encode_raw, inspect,
};
pub use cpu::Path;
pub use error::{Error, Result};
pub use frame::stream::{Coder, Parts};
pub use frame::{Content, Header, Limits, MAGIC, VERSION, peek};
pub use layout::{Csr, Layout, Planes, ReshapeSearch, Visit, best as best_reshape};
pub use profile::{Calibration, Profile, ProfileId, Profiles};
pub use quantize::{Affine, Clip, Dequantizer, MAX_LEVELS, MAX_ZERO, Quantizer};
#[cfg(feature = "stages")]
#[doc(hidden)]
pub use tans::stages as tans_stages;
pub use tensor::{Dtype, Element, Elements, MAX_RANK, Shape, Storage, Tensor, TensorView};

/// Encode a tensor with AIQ at `bits` bits (1 to 8) and everything else chosen for the smallest frame.
///
/// # Errors
/// As [`Encoder::encode_into`], and [`Error::InvalidOption`] for `bits` out of range.
pub fn encode(tensor: &TensorView<'_>, bits: u8) -> Result<Vec<u8>> {
    Encoder::new(EncodeOptions::bits(bits))?.encode(tensor)
}

/// Decode a frame that needs no profile.
///
/// # Errors
/// As [`Decoder::decode_into`].
pub fn decode(frame: &[u8]) -> Result<Tensor> {
    Decoder::new().decode(frame)
}
