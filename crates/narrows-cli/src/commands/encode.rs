//! `narrows encode`: tensors to frames.

use std::collections::HashSet;
use std::path::PathBuf;

use narrows::{CoderChoice, Decoder, EncodeOptions, Encoder, Quantizer, Tensor};
use serde::Serialize;

use crate::destination::{Destination, Existing};
use crate::failure::{Failure, Result};
use crate::input::{self, Named, Source};
use crate::options::{self, LayoutName, Quantization, TargetName};
use crate::output::{Output, grouped};

const EXAMPLES: &str = "\
Examples:
  narrows encode features.npy                       features.nrw, 16 levels
  narrows encode features.npy --bits 3 --clip 99.9  8 levels over all but the outliers
  narrows encode features.npy --check               and report the error
  narrows encode model.safetensors --lossless       a frame for each tensor
  narrows encode features.npy --profile cut.nrp     step and tables from a profile
  produce | narrows encode - | consume              .npy in, a frame out";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An .npy, .npz or .safetensors file of f32, f16 or bf16; - reads standard input
    input: PathBuf,
    /// File to write, a folder for several tensors, or - for standard output
    /// [default: beside the input, ending in .nrw]
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Encode this tensor of the file; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    tensor: Vec<String>,
    #[command(flatten)]
    quantization: Quantization,
    /// Keep every bit of every element
    #[arg(long, conflicts_with_all = ["bits", "clip", "per_channel", "layout", "coder"])]
    lossless: bool,
    /// Take quantiser and tables from this profile
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["bits", "clip", "per_channel", "axis", "lossless", "layout", "coder"]
    )]
    profile: Option<PathBuf>,
    /// Order of the symbols
    #[arg(long, value_enum, default_value_t = LayoutName::Auto)]
    layout: LayoutName,
    /// Entropy coder: auto, packed, rans, tans, or tans:STATES with 64 to 4096 states
    #[arg(long, value_name = "CODER", default_value = "auto", value_parser = options::coder)]
    coder: CoderChoice,
    /// What lanes and chunks are for
    #[arg(long, value_enum, default_value_t = TargetName::Size)]
    target: TargetName,
    /// Decode each frame and report its largest and its mean squared error
    #[arg(long)]
    check: bool,
    /// Replace files that are there already
    #[arg(long, short)]
    force: bool,
}

/// One tensor encoded.
#[derive(Serialize)]
struct Report {
    tensor: Option<String>,
    output: Option<PathBuf>,
    dtype: &'static str,
    shape: Vec<usize>,
    raw_bytes: usize,
    bytes: usize,
    ratio: f64,
    bits_per_element: f64,
    #[serde(flatten)]
    distortion: Option<Distortion>,
}

/// How far the decoded elements are from the original ones.
#[derive(Serialize)]
struct Distortion {
    /// Every bit is the same.
    exact: bool,
    max_error: f64,
    mse: f64,
    /// Peak signal-to-noise ratio over the tensor's own range; none without an error.
    psnr_db: Option<f64>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let options = args.options()?;
    let source = Source::from(args.input.as_path());
    let tensors = input::tensors(&source, &args.tensor)?;
    let destinations = args.destinations(&source, &tensors)?;
    let existing = Existing::replace_if(args.force);
    destinations.iter().try_for_each(|destination| destination.check(existing))?;
    let to_stdout = destinations.contains(&Destination::Stdout);
    let output = if to_stdout { output.beside_data() } else { output.clone() };

    let usage = |error: &narrows::Error| Failure::codec("these options do not go together", error);
    let mut encoder = Encoder::new(options).map_err(|error| usage(&error))?;
    let mut reports = Vec::with_capacity(tensors.len());
    let bar = output.progress(if tensors.len() > 1 { tensors.len() as u64 } else { 0 }, "encoding");
    for (named, destination) in tensors.iter().zip(&destinations) {
        let tensor = &named.tensor;
        let frame = encoder.encode(&tensor.view()).map_err(|error| {
            let subject =
                named.name.as_ref().map_or(source.to_string(), |name| format!("{source}, tensor {name}"));
            Failure::codec(format!("cannot encode {subject}"), &error)
        })?;
        let distortion = if args.check { Some(check(&encoder, tensor, &frame)?) } else { None };
        destination.write(&frame)?;
        let report = Report::new(named, destination, frame.len(), distortion);
        bar.suspend(|| output.note(report.line(destination)));
        bar.inc(1);
        reports.push(report);
    }
    bar.finish_and_clear();
    if output.is_json() { output.print_json(&serde_json::json!({ "frames": reports })) } else { Ok(()) }
}

impl Args {
    fn options(&self) -> Result<EncodeOptions> {
        let target = self.target.into();
        if let Some(path) = &self.profile {
            return Ok(EncodeOptions { target, ..options::profile(path)?.options() });
        }
        if self.coder == CoderChoice::Packed && !matches!(self.layout, LayoutName::Auto | LayoutName::Natural)
        {
            let failure = Failure::usage("bit packing goes with the natural layout only");
            return Err(failure.hint("leave --layout away"));
        }
        let quantizer = if self.lossless { Quantizer::Lossless } else { self.quantization.quantizer() };
        let (layout, coder, axis) = (self.layout.into(), self.coder, self.quantization.axis);
        Ok(EncodeOptions { quantizer, layout, coder, target, axis, profile: None })
    }

    /// A place for each tensor's frame.
    fn destinations(&self, source: &Source, tensors: &[Named]) -> Result<Vec<Destination>> {
        let several = tensors.len() > 1;
        let folder = match (&self.output, source) {
            (Some(path), _) if several && !path.is_dir() => {
                let failure =
                    Failure::usage(format!("{source} holds {} tensors, one frame each", tensors.len()));
                return Err(failure.hint("choose one with --tensor, or let -o name a folder that is there"));
            }
            (Some(path), _) if path.is_dir() => path.clone(),
            (Some(path), _) => return Ok(vec![Destination::from(path.as_path())]),
            (None, Source::Stdin) if !several => return Ok(vec![Destination::Stdout]),
            (None, Source::Stdin) => {
                let failure =
                    Failure::usage(format!("standard input holds {} tensors, one frame each", tensors.len()));
                return Err(failure.hint("choose one with --tensor, or let -o name a folder"));
            }
            (None, Source::File(path)) => path.with_file_name(""),
        };
        let stem = match source {
            Source::Stdin => "stdin".into(),
            Source::File(path) => path.file_stem().unwrap_or_default().to_string_lossy(),
        };
        let mut taken = HashSet::new();
        tensors
            .iter()
            .map(|named| {
                let file = match &named.name {
                    Some(name) => format!("{stem}.{}.nrw", file_name(name)),
                    None => format!("{stem}.nrw"),
                };
                if !taken.insert(file.clone()) {
                    let failure = Failure::data(format!("two tensors of {source} would both be {file}"));
                    return Err(failure.hint("encode them one by one with --tensor and -o"));
                }
                Ok(Destination::File(folder.join(file)))
            })
            .collect()
    }
}

/// A tensor's name as part of a file's: nothing in it leads to another folder.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if matches!(c, '/' | '\\' | ':') || c.is_control() { '_' } else { c }).collect()
}

fn check(encoder: &Encoder, tensor: &Tensor, frame: &[u8]) -> Result<Distortion> {
    let mut decoder = Decoder::new().with_limits(narrows::Limits { max_elements: u64::MAX });
    if let Some(profile) = &encoder.options().profile {
        decoder.profiles_mut().insert(profile.clone());
    }
    let decoded = decoder.decode(frame).map_err(|error| {
        Failure::codec("the frame just encoded does not decode", &error)
            .hint("this is a bug: please report it")
    })?;
    let exact = decoded.to_le_bytes() == tensor.to_le_bytes();
    let (original, decoded) = (tensor.to_f32(), decoded.to_f32());
    let errors = original
        .iter()
        .zip(&decoded)
        .map(|(&a, &b)| if a.to_bits() == b.to_bits() { 0.0 } else { (f64::from(a) - f64::from(b)).abs() });
    let (max_error, squares) = errors.fold((0.0_f64, 0.0), |(largest, sum), e| (largest.max(e), sum + e * e));
    let mse = squares / original.len().max(1) as f64;
    let (min, max) =
        original.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)));
    let range = f64::from(max) - f64::from(min);
    let psnr_db = (mse > 0.0 && range > 0.0).then(|| 10.0 * (range * range / mse).log10());
    Ok(Distortion { exact, max_error, mse, psnr_db })
}

impl Report {
    fn new(named: &Named, destination: &Destination, bytes: usize, distortion: Option<Distortion>) -> Self {
        let view = named.tensor.view();
        let output = match destination {
            Destination::Stdout => None,
            Destination::File(path) => Some(path.clone()),
        };
        Self {
            tensor: named.name.clone(),
            output,
            dtype: view.dtype().name(),
            shape: view.shape().dims().to_vec(),
            raw_bytes: view.bytes(),
            bytes,
            ratio: view.bytes() as f64 / bytes as f64,
            bits_per_element: 8.0 * bytes as f64 / view.shape().elements().max(1) as f64,
            distortion,
        }
    }

    fn line(&self, destination: &Destination) -> String {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let (raw, bytes) = (grouped(self.raw_bytes as u64), grouped(self.bytes as u64));
        let mut line = format!(
            "{destination}: {} {}, {raw} -> {bytes} bytes, {:.2}x, {:.2} bits/element",
            self.dtype,
            shape.join("x"),
            self.ratio,
            self.bits_per_element,
        );
        if let Some(distortion) = &self.distortion {
            line.push_str(&distortion.to_string());
        }
        line
    }
}

impl std::fmt::Display for Distortion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.exact {
            return f.write_str(", every bit the same");
        }
        write!(f, ", max error {:.3e}, MSE {:.3e}", self.max_error, self.mse)?;
        match self.psnr_db {
            Some(psnr) => write!(f, ", PSNR {psnr:.1} dB"),
            None => Ok(()),
        }
    }
}
