//! Tensor to symbols and back: how the range is found, and the affine map over it.

mod affine;
mod range;

pub use affine::{Affine, MAX_LEVELS, MAX_ZERO};
pub(crate) use range::Scratch;
#[cfg(feature = "stages")]
pub(crate) use range::finite_range;

use crate::error::{Error, Result};
use crate::layout::Planes;
use crate::tensor::Element;

/// How much of a tensor's range a quantiser covers; what lies outside is moved to the nearest end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clip {
    /// From the smallest to the largest value.
    #[default]
    Full,
    /// From the value below which `100 - p` percent of the elements lie to the one below which `p`
    /// percent do; `p` in 50..=100. A few outliers no longer set the step for all the rest.
    Percentile(f32),
    /// The range, of 100 shrunken copies of the full one, whose mean squared error is least.
    MseOptimal,
}

/// How values become symbols.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantizer {
    /// Asymmetric integer quantisation to `2^bits` levels over the tensor's own (clipped) range;
    /// `bits` in 1..=8 (the reference work uses 2..=8).
    Aiq {
        /// log2 of the number of levels.
        bits: u8,
        /// The range covered.
        clip: Clip,
    },
    /// The same with a step and a zero point per channel.
    PerChannel {
        /// log2 of the number of levels.
        bits: u8,
        /// The range covered in each channel.
        clip: Clip,
    },
    /// A calibrated map, the same for every tensor.
    Fixed(Affine),
    /// None: every bit of every element is kept, NaN and infinity included.
    Lossless,
}

impl Default for Quantizer {
    fn default() -> Self {
        Self::aiq(4)
    }
}

impl Quantizer {
    /// AIQ over the full range.
    pub const fn aiq(bits: u8) -> Self {
        Self::Aiq { bits, clip: Clip::Full }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let (Self::Aiq { bits, clip } | Self::PerChannel { bits, clip }) = self else { return Ok(()) };
        if !(1..=8).contains(bits) {
            let allowed = "1 to 8 (2 to 8 in the reference work)";
            return Err(Error::InvalidOption { what: "bits", value: f64::from(*bits), allowed });
        }
        if let Clip::Percentile(p) = clip
            && !(50.0..=100.0).contains(p)
        {
            let allowed = "50 to 100 percent";
            return Err(Error::InvalidOption { what: "clip percentile", value: f64::from(*p), allowed });
        }
        Ok(())
    }
}

/// How to turn symbols back into values: one map, or one per channel.
#[derive(Clone, Debug, PartialEq)]
pub enum Dequantizer {
    /// One map for the whole tensor.
    Tensor(Affine),
    /// One map for each index along the channel axis; all have the same number of levels.
    PerChannel(Vec<Affine>),
}

impl Dequantizer {
    /// Size of the alphabet.
    pub fn levels(&self) -> u16 {
        match self {
            Self::Tensor(affine) => affine.levels(),
            Self::PerChannel(channels) => channels.first().map_or(2, Affine::levels),
        }
    }
}

/// What a quantiser found in a tensor.
pub(crate) enum Quantized {
    /// Every element has the same value; there is nothing to quantise.
    Constant,
    /// Symbols were written, to be undone with the dequantiser.
    Symbols,
}

/// Quantise `elements` (row-major) into `symbols` and set `dequantizer`; `planes` says where channels lie.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity.
pub(crate) fn quantize<T: Element>(
    quantizer: &Quantizer,
    elements: &[T],
    planes: &Planes,
    symbols: &mut Vec<u8>,
    dequantizer: &mut Dequantizer,
    scratch: &mut Scratch,
) -> Result<Quantized> {
    symbols.clear();
    let (min, max) = range::finite_range(elements)?;
    if let Quantizer::Fixed(affine) = quantizer {
        *dequantizer = Dequantizer::Tensor(*affine);
        let quantize = affine.quantizer();
        symbols.extend(elements.iter().map(|&x| quantize(x.to_f32())));
        return Ok(Quantized::Symbols);
    }
    if min == max {
        return Ok(Quantized::Constant);
    }
    match *quantizer {
        Quantizer::Aiq { bits, clip } => {
            let levels = 1_u16 << bits;
            let values = elements.iter().map(|&x| x.to_f32());
            let (min, max) = range::clipped(clip, values, min, max, levels, scratch);
            let affine = Affine::from_range(min, max, levels);
            *dequantizer = Dequantizer::Tensor(affine);
            let quantize = affine.quantizer();
            symbols.extend(elements.iter().map(|&x| quantize(x.to_f32())));
        }
        Quantizer::PerChannel { bits, clip } => {
            per_channel(bits, clip, elements, planes, symbols, dequantizer, scratch);
        }
        Quantizer::Fixed(_) | Quantizer::Lossless => unreachable!("handled before the range was taken"),
    }
    Ok(Quantized::Symbols)
}

fn per_channel<T: Element>(
    bits: u8,
    clip: Clip,
    elements: &[T],
    planes: &Planes,
    symbols: &mut Vec<u8>,
    dequantizer: &mut Dequantizer,
    scratch: &mut Scratch,
) {
    let levels = 1_u16 << bits;
    symbols.resize(elements.len(), 0);
    if !matches!(dequantizer, Dequantizer::PerChannel(_)) {
        *dequantizer = Dequantizer::PerChannel(Vec::new());
    }
    let Dequantizer::PerChannel(maps) = dequantizer else { unreachable!("it was just set") };
    maps.clear();
    for channel in 0..planes.channels() {
        let of_channel = || planes.channel_offsets(channel).map(|offset| elements[offset].to_f32());
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        of_channel().for_each(|x| (min, max) = (min.min(x), max.max(x)));
        let affine = if min < max {
            let (min, max) = range::clipped(clip, of_channel(), min, max, levels, scratch);
            Affine::from_range(min, max, levels).with_short_step()
        } else {
            Affine::of_constant(min, levels)
        };
        let quantize = affine.quantizer();
        planes
            .channel_offsets(channel)
            .for_each(|offset| symbols[offset] = quantize(elements[offset].to_f32()));
        maps.push(affine);
    }
}

/// Values of `symbols` (row-major), written over `out`.
pub(crate) fn dequantize<T: Element>(
    dequantizer: &Dequantizer,
    symbols: &[u8],
    planes: &Planes,
    out: &mut Vec<T>,
) {
    out.clear();
    match dequantizer {
        Dequantizer::Tensor(affine) => {
            let values = affine.values().map(T::from_f32);
            out.extend(symbols.iter().map(|&symbol| values[symbol as usize]));
        }
        Dequantizer::PerChannel(maps) => {
            out.resize(symbols.len(), T::from_f32(0.0));
            for (channel, affine) in maps.iter().enumerate() {
                let values = affine.values().map(T::from_f32);
                for offset in planes.channel_offsets(channel) {
                    out[offset] = values[symbols[offset] as usize];
                }
            }
        }
    }
}

/// The range that `clip` keeps of `values`; `None` if they are all the same.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity.
pub(crate) fn range_of(
    clip: Clip,
    values: &[f32],
    levels: u16,
    scratch: &mut Scratch,
) -> Result<Option<(f32, f32)>> {
    let (min, max) = range::finite_range(values)?;
    if min == max {
        return Ok(None);
    }
    Ok(Some(range::clipped(clip, values.iter().copied(), min, max, levels, scratch)))
}
