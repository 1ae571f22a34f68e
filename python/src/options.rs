//! What an encoder can be asked, in Python's words.

use std::sync::Arc;

use narrows::{Clip, CoderChoice, EncodeOptions, LayoutChoice, Quantizer, Reshape, Target};
use pyo3::prelude::*;

use crate::failure::{self, Kind};
use crate::profile::Profile;

/// `clip` as it is given: a percentile, or `"mse"`.
#[derive(FromPyObject)]
pub(crate) enum ClipArgument {
    Percentile(f32),
    Name(String),
}

/// The keyword arguments of everything that encodes.
pub(crate) struct Words<'a> {
    pub(crate) bits: i64,
    pub(crate) quantizer: &'a str,
    pub(crate) clip: Option<ClipArgument>,
    pub(crate) layout: &'a str,
    pub(crate) coder: &'a str,
    pub(crate) target: &'a str,
    pub(crate) axis: Option<usize>,
    pub(crate) profile: Option<&'a Bound<'a, Profile>>,
}

impl Words<'_> {
    /// The encoder's own options.
    ///
    /// # Errors
    /// `OptionError` for a word that is none, or a number out of range that the encoder would not see.
    pub(crate) fn options(&self, py: Python<'_>) -> PyResult<EncodeOptions> {
        let clip = match &self.clip {
            None => Clip::Full,
            Some(ClipArgument::Percentile(percent)) => Clip::Percentile(*percent),
            Some(ClipArgument::Name(name)) => clip(name).ok_or_else(|| {
                unknown(py, "clip", name, "None, a percentile of 50 to 100 such as 99.9, or \"mse\"")
            })?,
        };
        let quantizer = match self.quantizer {
            "lossless" => Quantizer::Lossless,
            "aiq" => Quantizer::Aiq { bits: self.bits(py)?, clip },
            "per-channel" => Quantizer::PerChannel { bits: self.bits(py)?, clip },
            other => return Err(unknown(py, "quantizer", other, "\"aiq\", \"per-channel\" or \"lossless\"")),
        };
        let layout = layout(self.layout).ok_or_else(|| {
            let allowed =
                "\"auto\", \"natural\", \"planes\", \"csr\", \"csr-exhaustive\" or \"csr-separate\"";
            unknown(py, "layout", self.layout, allowed)
        })?;
        let coder = coder(self.coder).ok_or_else(|| {
            let allowed =
                "\"auto\", \"packed\", \"rans\", \"tans\" or \"tans:STATES\" with 64, 128, ... 4096";
            unknown(py, "coder", self.coder, allowed)
        })?;
        let target = match self.target {
            "size" => Target::Size,
            "latency" => Target::Latency,
            "speed" => Target::Speed,
            other => return Err(unknown(py, "target", other, "\"size\", \"latency\" or \"speed\"")),
        };
        let profile = self.profile.map(|profile| Arc::clone(&profile.get().0));
        Ok(EncodeOptions { quantizer, layout, coder, target, axis: self.axis, profile })
    }

    fn bits(&self, py: Python<'_>) -> PyResult<u8> {
        if let Ok(bits @ 1..=8) = u8::try_from(self.bits) {
            return Ok(bits);
        }
        let text = format!("option bits is {}, allowed is 1 to 8 (2 to 8 in the reference work)", self.bits);
        Err(failure::raise(py, Kind::Option, &text))
    }
}

fn unknown(py: Python<'_>, what: &str, found: &str, allowed: &str) -> PyErr {
    failure::raise(py, Kind::Option, &format!("option {what} is {found:?}, allowed is {allowed}"))
}

/// A clip by name.
pub(crate) fn clip(name: &str) -> Option<Clip> {
    match name {
        "full" => Some(Clip::Full),
        "mse" => Some(Clip::MseOptimal),
        _ => None,
    }
}

fn layout(name: &str) -> Option<LayoutChoice> {
    Some(match name {
        "auto" => LayoutChoice::Auto,
        "natural" => LayoutChoice::Natural,
        "planes" => LayoutChoice::Planes,
        "csr" => LayoutChoice::CsrJoint(Reshape::Algorithm1),
        "csr-exhaustive" => LayoutChoice::CsrJoint(Reshape::EveryDivisor),
        "csr-separate" => LayoutChoice::CsrSeparate(Reshape::EveryDivisor),
        _ => return None,
    })
}

fn coder(name: &str) -> Option<CoderChoice> {
    Some(match name {
        "auto" => CoderChoice::Auto,
        "packed" => CoderChoice::Packed,
        "rans" => CoderChoice::Rans,
        "tans" => CoderChoice::Tans { state_bits: 10 },
        _ => {
            let states: u32 = name.strip_prefix("tans:")?.parse().ok()?;
            let known = states.is_power_of_two() && (64..=4096).contains(&states);
            CoderChoice::Tans { state_bits: known.then(|| states.ilog2())? }
        }
    })
}

/// Whether an encoder with these options looks at elements again in ways that rely on what it saw before, so that
/// they must not change (see [`crate::array`]).
pub(crate) fn wants_snapshot(options: &EncodeOptions) -> bool {
    options.profile.is_none() && !matches!(options.quantizer, Quantizer::Aiq { clip: Clip::Full, .. })
}
