//! What the encoding commands can be asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use narrows::{Clip, CoderChoice, LayoutChoice, Profile, Profiles, Quantizer, Reshape, Target};

use crate::failure::{Code, Failure, Result};
use crate::input::Source;

/// How values become symbols.
#[derive(clap::Args, Clone, Debug)]
pub struct Quantization {
    /// Quantise to 2^BITS levels, 1 to 8
    #[arg(long, short, value_name = "BITS", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub bits: u8,
    /// Range that the levels span: full, mse (least squared error), or a percentile such as 99.9
    #[arg(long, value_name = "RANGE", default_value = "full", value_parser = clip)]
    pub clip: Clip,
    /// Give each channel a step and a zero point of its own
    #[arg(long)]
    pub per_channel: bool,
    /// Axis that holds the channels [default: 0 for tensors of rank 1 and 3, 1 otherwise]
    #[arg(long, value_name = "AXIS")]
    pub axis: Option<usize>,
}

impl Quantization {
    pub fn quantizer(&self) -> Quantizer {
        let (bits, clip) = (self.bits, self.clip);
        if self.per_channel { Quantizer::PerChannel { bits, clip } } else { Quantizer::Aiq { bits, clip } }
    }
}

/// `full`, `mse`, or a percentage with or without its sign.
pub fn clip(text: &str) -> Result<Clip, String> {
    match text {
        "full" => Ok(Clip::Full),
        "mse" => Ok(Clip::MseOptimal),
        _ => match text.trim_end_matches('%').parse::<f32>() {
            Ok(percent) if (50.0..=100.0).contains(&percent) => Ok(Clip::Percentile(percent)),
            _ => Err("give full, mse, or a percentile of 50 to 100 such as 99.9".to_owned()),
        },
    }
}

/// The names of [`LayoutChoice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LayoutName {
    /// Natural or planes, whichever is smaller
    Auto,
    /// Natural order, one frequency table
    Natural,
    /// Channel by channel, tables chosen by the neighbours
    Planes,
    /// Modified CSR, one table, Algorithm 1: the reference method
    Csr,
    /// Modified CSR, one table, the best of all divisors
    CsrExhaustive,
    /// Modified CSR with a table each for values, columns and counts
    CsrSeparate,
}

impl From<LayoutName> for LayoutChoice {
    fn from(name: LayoutName) -> Self {
        match name {
            LayoutName::Auto => Self::Auto,
            LayoutName::Natural => Self::Natural,
            LayoutName::Planes => Self::Planes,
            LayoutName::Csr => Self::CsrJoint(Reshape::Algorithm1),
            LayoutName::CsrExhaustive => Self::CsrJoint(Reshape::EveryDivisor),
            LayoutName::CsrSeparate => Self::CsrSeparate(Reshape::EveryDivisor),
        }
    }
}

/// `auto`, `packed`, `rans`, or `tans` with its number of states.
pub fn coder(text: &str) -> Result<CoderChoice, String> {
    match text {
        "auto" => Ok(CoderChoice::Auto),
        "packed" => Ok(CoderChoice::Packed),
        "rans" => Ok(CoderChoice::Rans),
        "tans" => Ok(CoderChoice::Tans { state_bits: 10 }),
        _ => {
            let states = text.strip_prefix("tans:").and_then(|states| states.parse::<u32>().ok());
            match states {
                Some(states) if states.is_power_of_two() && (64..=4096).contains(&states) => {
                    Ok(CoderChoice::Tans { state_bits: states.ilog2() })
                }
                _ => Err("give auto, packed, rans, tans, or tans:STATES with 64, 128, ... 4096".to_owned()),
            }
        }
    }
}

/// The names of [`Target`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetName {
    /// Few lanes and chunks: at most about 1 % for them
    #[default]
    Size,
    /// More that can be decoded side by side: at most about 2.5 %
    Latency,
    /// All that can be decoded side by side, whatever it costs in bytes
    Speed,
}

impl From<TargetName> for Target {
    fn from(name: TargetName) -> Self {
        match name {
            TargetName::Size => Self::Size,
            TargetName::Latency => Self::Latency,
            TargetName::Speed => Self::Speed,
        }
    }
}

/// The profile in a file.
pub fn profile(path: &Path) -> Result<Arc<Profile>> {
    let bytes = Source::from(path).read()?;
    let profile = Profile::from_bytes(&bytes).map_err(|error| {
        let failure = Failure::codec(format!("{} is not a profile", path.display()), &error);
        failure.with_code(Code::Configuration).or_hint("`narrows calibrate` makes profiles")
    })?;
    Ok(Arc::new(profile))
}

/// The profiles in these files.
pub fn profiles(paths: &[PathBuf]) -> Result<Profiles> {
    let mut profiles = Profiles::default();
    for path in paths {
        profiles.insert(profile(path)?);
    }
    Ok(profiles)
}
