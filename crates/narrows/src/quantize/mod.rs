//! Tensor to symbols and back: how the range is found, and the affine map over it.

mod affine;
mod range;
mod scan;
mod symbols;
mod values;

pub use affine::{Affine, MAX_LEVELS, MAX_ZERO};
pub(crate) use range::Scratch;
#[cfg(feature = "stages")]
pub(crate) use range::finite_range;

use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::layout::{Planes, Rows};
use crate::model::tally::Tally;
use crate::tensor::Element;
pub(crate) use values::Values;

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
    Symbols {
        /// The symbol of the smallest element and that of the largest, if one map made them all: no other
        /// symbol lies outside.
        ends: Option<[u8; 2]>,
    },
}

/// Quantise `elements` (row-major) into `symbols`, count them and set `dequantizer`; `planes` says where
/// channels lie.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity.
pub(crate) fn quantize<T: Element>(
    path: Path,
    quantizer: &Quantizer,
    elements: &[T],
    planes: &Planes,
    output: Output<'_>,
    scratch: &mut Scratch,
) -> Result<Quantized> {
    let Output { symbols, mut tally, dequantizer, coded } = output;
    let (min, max) = range::finite_range(path, elements)?;
    let largest = max.max(-min);
    // Symbols of the tensor before are written over, not cleared first.
    symbols.resize(elements.len(), 0);
    let affine = match *quantizer {
        Quantizer::Fixed(affine) => affine,
        _ if min == max => return Ok(Quantized::Constant),
        Quantizer::Aiq { bits, clip } => {
            let levels = 1_u16 << bits;
            let values = elements.iter().map(|&x| x.to_f32());
            let (min, max) = range::clipped(clip, values, min, max, levels, scratch);
            Affine::from_range(min, max, levels)
        }
        Quantizer::PerChannel { bits, clip } => {
            per_channel(path, (bits, clip), elements, planes, symbols, dequantizer, scratch);
            if let Some(tally) = tally {
                tally.start(dequantizer.levels().into());
                tally.add(path, symbols);
            }
            if let Some((rows, coded)) = coded {
                rows.gather(path, planes, symbols, coded);
            }
            return Ok(Quantized::Symbols { ends: None });
        }
        Quantizer::Lossless => unreachable!("lossless tensors are not quantised"),
    };
    *dequantizer = Dequantizer::Tensor(affine);
    if let Some(tally) = &mut tally {
        tally.start(affine.levels().into());
    }
    match coded {
        Some((rows, coded)) if path != Path::Reference && !planes.channels_last() => {
            // Group by group, while its symbols are in the first-level cache.
            coded.resize(elements.len(), 0);
            for group in rows.groups() {
                let of_group = group.symbols(rows.positions());
                let (elements, natural) = (&elements[of_group.clone()], &mut symbols[of_group]);
                symbols::quantize(path, &affine, largest, elements, natural, tally.as_deref_mut());
                rows.gather_group(path, planes, &group, symbols, coded);
            }
        }
        coded => {
            symbols::quantize(path, &affine, largest, elements, symbols, tally);
            if let Some((rows, coded)) = coded {
                rows.gather(path, planes, symbols, coded);
            }
        }
    }
    Ok(Quantized::Symbols { ends: Some([min, max].map(affine.quantizer())) })
}

/// Where a quantiser writes.
pub(crate) struct Output<'a> {
    pub(crate) symbols: &'a mut Vec<u8>,
    /// Not wanted where a profile says what symbols cost.
    pub(crate) tally: Option<&'a mut Tally>,
    pub(crate) dequantizer: &'a mut Dequantizer,
    /// The symbols in the order of these rows, if that is known to be wanted.
    pub(crate) coded: Option<(&'a Rows, &'a mut Vec<u8>)>,
}

fn per_channel<T: Element>(
    path: Path,
    (bits, clip): (u8, Clip),
    elements: &[T],
    planes: &Planes,
    symbols: &mut [u8],
    dequantizer: &mut Dequantizer,
    scratch: &mut Scratch,
) {
    let levels = 1_u16 << bits;
    if !matches!(dequantizer, Dequantizer::PerChannel(_)) {
        *dequantizer = Dequantizer::PerChannel(Vec::new());
    }
    let Dequantizer::PerChannel(maps) = dequantizer else { unreachable!("it was just set") };
    maps.clear();
    for channel in 0..planes.channels() {
        let of_channel = || planes.channel_offsets(channel).map(|offset| elements[offset].to_f32());
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        for run in planes.channel_runs(channel) {
            let (low, high) = range::extremes(path, &elements[run]).expect("all were found to be finite");
            (min, max) = (min.min(low), max.max(high));
        }
        let affine = if min < max {
            let (low, high) = range::clipped(clip, of_channel(), min, max, levels, scratch);
            Affine::from_range(low, high, levels).with_short_step()
        } else {
            Affine::of_constant(min, levels)
        };
        for run in planes.channel_runs(channel) {
            let largest = max.max(-min);
            symbols::quantize(path, &affine, largest, &elements[run.clone()], &mut symbols[run], None);
        }
        maps.push(affine);
    }
}

/// Values of `coded`, symbols in the order of `rows` (row-major without rows), written over `out`; the
/// symbols in row-major order are left in `natural`.
pub(crate) fn dequantize<T: Element>(
    path: Path,
    dequantizer: &Dequantizer,
    planes: &Planes,
    coded: Option<(&Rows, &[u8])>,
    natural: &mut Vec<u8>,
    out: &mut Vec<T>,
) {
    if let (Some((rows, coded)), Dequantizer::Tensor(affine), false) =
        (coded, dequantizer, planes.channels_last())
    {
        // Group by group, while its symbols are in the first-level cache.
        let values = Values::new(path, affine);
        natural.resize(coded.len(), 0);
        out.resize(coded.len(), T::from_bits(0));
        for group in rows.groups() {
            rows.scatter_group(path, planes, &group, coded, natural);
            let symbols = group.symbols(rows.positions());
            values.write(path, &natural[symbols.clone()], &mut out[symbols]);
        }
        return;
    }
    if let Some((rows, coded)) = coded {
        rows.scatter(path, planes, coded, natural);
    }
    // Elements of the tensor before are written over, not cleared first.
    out.resize(natural.len(), T::from_bits(0));
    match dequantizer {
        Dequantizer::Tensor(affine) => Values::new(path, affine).write(path, natural, out),
        Dequantizer::PerChannel(maps) => {
            for (channel, affine) in maps.iter().enumerate() {
                let values = Values::new(path, affine);
                for run in planes.channel_runs(channel) {
                    match run.len() {
                        1 => out[run.start] = values.of(natural[run.start]),
                        _ => values.write(path, &natural[run.clone()], &mut out[run]),
                    }
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
    let (min, max) = range::finite_range(Path::best(), values)?;
    if min == max {
        return Ok(None);
    }
    Ok(Some(range::clipped(clip, values.iter().copied(), min, max, levels, scratch)))
}
