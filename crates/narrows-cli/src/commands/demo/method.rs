//! The ways to send features that the demo compares.

use narrows::{CoderChoice, EncodeOptions, LayoutChoice};
use serde::Serialize;

/// A way to turn features into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The elements as they are.
    Raw,
    /// Symbols of a fixed number of bits.
    Packed,
    /// Modified CSR with a joint table, its shape found by Algorithm 1.
    Reference,
    /// rANS with one table over the symbols in natural order.
    Order0,
    /// Whatever the encoder finds smallest.
    Default,
}

impl Method {
    /// Those that quantise: at the same bit width all code the same symbols.
    pub const QUANTISED: [Self; 4] = [Self::Packed, Self::Reference, Self::Order0, Self::Default];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Packed => "packed",
            Self::Reference => "reference",
            Self::Order0 => "order0",
            Self::Default => "default",
        }
    }

    /// What asks an encoder for it; `None` if it takes no encoder.
    pub fn options(self, bits: u8) -> Option<EncodeOptions> {
        let natural =
            |coder| EncodeOptions { layout: LayoutChoice::Natural, coder, ..EncodeOptions::bits(bits) };
        match self {
            Self::Raw => None,
            Self::Packed => Some(natural(CoderChoice::Packed)),
            Self::Reference => Some(EncodeOptions::reference(bits)),
            Self::Order0 => Some(natural(CoderChoice::Rans)),
            Self::Default => Some(EncodeOptions::bits(bits)),
        }
    }
}
