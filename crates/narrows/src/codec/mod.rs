//! From tensor to frame and back: the five steps put together.

pub(crate) mod decoder;
pub(crate) mod encoder;
mod inspect;
mod lossless;
mod options;
pub(crate) mod plan;
mod range;
pub(crate) mod stream;
mod symbols;
#[cfg(feature = "rayon")]
mod threads;

pub use decoder::Decoder;
pub use encoder::{Encoder, Estimate, encode_raw};
pub use inspect::{Inspection, StreamInspection, inspect};
pub use options::{CoderChoice, EncodeOptions, LayoutChoice, Reshape, Target};
pub use symbols::{SymbolDecoder, SymbolEncoder, SymbolLayout};
