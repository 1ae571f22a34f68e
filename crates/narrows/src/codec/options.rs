//! What a caller can ask of an encoder.

use std::sync::Arc;

use crate::bits::width_of;
use crate::error::{Error, Result};
use crate::frame::stream::Coder;
use crate::profile::Profile;
use crate::quantize::Quantizer;
use crate::tans;

/// How the reshape dimension of the modified CSR is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reshape {
    /// Algorithm 1 of the reference work: from large `N` down, until the cost rises.
    #[default]
    Algorithm1,
    /// Every divisor of the number of elements.
    EveryDivisor,
}

/// The order of symbols, or `Auto` for the smallest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayoutChoice {
    /// Natural or plane order, whichever comes out smaller.
    #[default]
    Auto,
    /// Natural order, one table (order 0).
    Natural,
    /// Plane order with neighbour contexts.
    Planes,
    /// Modified CSR with a joint table: the reference method.
    CsrJoint(Reshape),
    /// Modified CSR with a table each for values, columns and counts.
    CsrSeparate(Reshape),
}

/// The entropy coder, or `Auto` for the one that suits the [`Target`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CoderChoice {
    /// rANS, or bit packing where that is smaller; in natural order with [`Target::Speed`] tANS with 64 states, where that
    /// takes at most 12 % more bytes than rANS and decodes in half the time.
    #[default]
    Auto,
    /// A fixed number of bits for each symbol.
    Packed,
    /// Range asymmetric numeral systems.
    Rans,
    /// Tabled asymmetric numeral systems (natural order only).
    Tans {
        /// log2 of the number of states, 6 to 12.
        state_bits: u32,
    },
}

impl CoderChoice {
    /// # Errors
    /// [`Error::InvalidOption`] for tANS with states out of range, or in another order than the natural one.
    pub(crate) fn check(self, natural: bool) -> Result<()> {
        let Self::Tans { state_bits } = self else { return Ok(()) };
        let value = f64::from(state_bits);
        if !tans::STATE_BITS.contains(&state_bits) {
            return Err(Error::InvalidOption { what: "log2 of tANS states", value, allowed: "6 to 12" });
        }
        if !natural {
            let allowed = "with the natural layout only";
            return Err(Error::InvalidOption { what: "tANS", value, allowed });
        }
        Ok(())
    }

    /// tANS with `state_bits`, or with as many as it takes for every symbol that occurs to have a state.
    pub(crate) fn tans(state_bits: u32, counts: &[u32]) -> Coder {
        let present = counts.iter().filter(|&&n| n > 0).count();
        Coder::Tans { state_bits: state_bits.max(width_of(present + 1)) }
    }
}

/// What to trade bytes for: lanes and chunks decode side by side, and cost about 3 bytes a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// At most about 1 % for lanes and chunks (small frames have at least 4 lanes from 400 bytes on).
    #[default]
    Size,
    /// At most about 2.5 %.
    Latency,
    /// The fewest microseconds on a core, for links faster than a gigabit, files in memory, and peers measured in
    /// bytes a second. It costs
    ///
    /// - about 100 bytes for each chunk, of which there are four (fewer where these would have few rows), all with 32 lanes;
    /// - up to 12 % where tANS takes the place of rANS (see [`CoderChoice::Auto`]);
    /// - from about 32,000 symbols on, what a sample misses (of features with contexts 0.6 % at 4 bits, 4.2 % at 8): tables fit a
    ///   sample of the symbols. Where the payload comes out more than 10 % above what the sample promised, the stream is
    ///   coded again with tables that fit all symbols;
    /// - with one table for more than 32 kinds of symbols, frequencies that are multiples of four.
    Speed,
}

impl Target {
    /// The share of a payload that lanes and chunks may cost.
    pub(crate) const fn overhead(self) -> f64 {
        match self {
            // Beyond chunks for one core, more buy nothing there.
            Self::Size | Self::Speed => 0.01,
            Self::Latency => 0.025,
        }
    }
}

/// Everything an encoder can be asked; the default is AIQ at 4 bits and the smallest frame.
///
/// ```
/// use narrows::{Clip, EncodeOptions, Quantizer};
/// let options = EncodeOptions {
///     quantizer: Quantizer::Aiq { bits: 3, clip: Clip::Percentile(99.9) },
///     ..EncodeOptions::default()
/// };
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
pub struct EncodeOptions {
    /// How values become symbols. Ignored with a profile, which has a quantiser of its own.
    pub quantizer: Quantizer,
    /// The order of symbols. Ignored with a profile.
    pub layout: LayoutChoice,
    /// The entropy coder. Ignored with a profile.
    pub coder: CoderChoice,
    /// Bytes or speed.
    pub target: Target,
    /// The axis that holds the channels, if not [the usual one](crate::Planes::usual_axis).
    pub axis: Option<usize>,
    /// Parameters both ends have; frames name it instead of carrying tables.
    pub profile: Option<Arc<Profile>>,
}

impl EncodeOptions {
    /// The default with AIQ at `bits` bits.
    pub fn bits(bits: u8) -> Self {
        Self { quantizer: Quantizer::aiq(bits), ..Self::default() }
    }

    /// The default without loss.
    pub fn lossless() -> Self {
        Self { quantizer: Quantizer::Lossless, ..Self::default() }
    }

    /// The reference method: AIQ at `bits` bits, modified CSR with a joint table, Algorithm 1.
    pub fn reference(bits: u8) -> Self {
        Self {
            layout: LayoutChoice::CsrJoint(Reshape::Algorithm1),
            coder: CoderChoice::Rans,
            ..Self::bits(bits)
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.quantizer.check()?;
        self.coder.check(matches!(self.layout, LayoutChoice::Auto | LayoutChoice::Natural))
    }
}
