//! `narrows pack`: a checkpoint, or the weights of an ONNX model, to packed weights.

mod onnx;
mod sentences;

use std::path::{Path, PathBuf};

use narrows_weights::{
    Calibration, Checkpoint, Contexts, Counted, Mode, Outcome, PackOptions, Packed, Scope, Settings, States,
    pack_checkpoint,
};
use serde::Serialize;

use crate::destination::{Destination, Existing};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows pack model.safetensors                        model.packed.safetensors, 4 bits a weight
  narrows pack model.safetensors --bits 1.6 --rdo 0.1   coarser, and rounded where that saves bits
  narrows pack model.safetensors --per-channel          a step for each output channel
  narrows pack model.safetensors --tokens some.ids      a sentence encoder, rounded for its embeddings
  narrows pack trained.safetensors                      weights of `narrows train` keep their grid
  narrows pack model.safetensors.index.json             a checkpoint in several files
  narrows pack model.safetensors --lossless             every bit of every tensor
  narrows pack model.onnx                               the weights of an ONNX model
  narrows pack model.onnx --dataset DIR --bits 1.5      a network of images, calibrated with some of them: steps by
                                                        how much each layer matters, errors made up for, statistics
                                                        brought back";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct Args {
    /// A .safetensors file, the .index.json of a checkpoint in several, or an .onnx model
    checkpoint: PathBuf,
    /// File to write [default: beside the input, ending in .packed.safetensors]
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Bits a weight of the file: every byte of it, over the elements of all tensors but those that --keep names
    /// [default: 4, of which a small file's header and what is not packed are not a part]
    #[arg(long, value_name = "BITS")]
    bits: Option<f64>,
    /// The most bins, an odd number from 3 to 255
    #[arg(long, value_name = "N", default_value_t = 255)]
    bins: u16,
    /// A step for each output channel instead of one for each tensor
    #[arg(long)]
    per_channel: bool,
    /// Round for rate as well as for error: a bit is worth this many squared steps, 0.05 to 0.2 say
    /// [default: 0, with --dataset 0.1]
    #[arg(long, value_name = "LAMBDA")]
    rdo: Option<f32>,
    /// Statistics of a calibration run: Fisher information NAME, or second moments of inputs NAME.inputs
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Run the sentence encoder (BERT's tensor names) on these sentences, a line of token numbers each: what turns
    /// embeddings most is rounded most finely, and errors are fed back
    #[arg(long, value_name = "FILE", conflicts_with_all = ["calibration", "dataset", "per_channel"])]
    tokens: Option<PathBuf>,
    /// Attention heads of the sentence encoder [default: as config.json beside the checkpoint says]
    #[arg(long, value_name = "N", requires = "tokens")]
    heads: Option<usize>,
    /// Calibrate a network of images (.onnx) with training images of this folder, gzipped IDX files as in Debian's
    /// dataset-fashion-mnist
    #[arg(long, value_name = "DIR", conflicts_with_all = ["calibration", "keep", "least_weights", "per_channel"])]
    dataset: Option<PathBuf>,
    /// Images to calibrate with
    #[arg(long, value_name = "N", default_value_t = 512, requires = "dataset", value_parser = images)]
    images: usize,
    /// Leave tensors as they are whose name contains this; may be given several times
    #[arg(long, value_name = "NAME")]
    keep: Vec<String>,
    /// Leave tensors of fewer weights as they are
    #[arg(long, value_name = "N", default_value_t = Settings::default().least_weights)]
    least_weights: usize,
    /// States of the coder: registers (64 to 256, decoded fastest), smallest, or a power of two from 64 to 4096
    #[arg(long, value_name = "STATES", default_value = "registers", value_parser = states)]
    states: States,
    /// Code weights in the context of their neighbours where that saves 1 %: sparse convolutions get smaller, products slower
    #[arg(long)]
    contexts: bool,
    /// Keep every bit of every tensor
    #[arg(long, conflicts_with_all = [
        "bits", "bins", "per_channel", "rdo", "calibration", "tokens", "dataset", "keep", "least_weights", "states", "contexts",
    ])]
    lossless: bool,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
}

/// More would fill the memory with what layers hand on.
const MOST_IMAGES: usize = 4096;

fn images(text: &str) -> Result<usize, String> {
    let count = text.parse::<usize>().ok().filter(|count| (1..=MOST_IMAGES).contains(count));
    count.ok_or_else(|| format!("it is a number from 1 to {MOST_IMAGES}"))
}

fn states(text: &str) -> Result<States, String> {
    match text {
        "registers" => Ok(States::Registers),
        "smallest" => Ok(States::Smallest),
        _ => match text.parse::<u32>() {
            Ok(states) if states.is_power_of_two() && (64..=4096).contains(&states) => {
                Ok(States::Exactly(states.ilog2()))
            }
            _ => Err("it is registers, smallest, or a power of two from 64 to 4096".to_owned()),
        },
    }
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    bytes_before: u64,
    bytes: u64,
    ratio: f64,
    /// Of all elements, header and everything that is not packed included.
    bits_per_weight: f64,
    /// Of the tensors that were quantised.
    packed_bits_per_weight: Option<f64>,
    entropy_bits_per_weight: Option<f64>,
    tensors: &'a [Packed],
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let path = args.output.clone().unwrap_or_else(|| default_output(args));
    Destination::File(path.clone()).check(Existing::replace_if(args.force))?;
    let open = |path: &PathBuf| {
        Checkpoint::open(path)
            .map_err(|error| Failure::weights(format!("cannot read {}", path.display()), &error))
    };
    let is_onnx = args.checkpoint.extension().is_some_and(|extension| extension == "onnx");
    let contexts = if args.contexts { Contexts::Neighbour } else { Contexts::One };
    let options = PackOptions { states: args.states, contexts, chunk_rows: None };
    if let Some(folder) = &args.dataset {
        let packed = with_bits(args, CALIBRATED_RDO, output, |settings| {
            let calibrated = (args.checkpoint.as_path(), is_onnx);
            onnx::calibrated(calibrated, (folder.as_path(), args.images), settings, &options, &path, output)
        })?;
        return report(&path, &packed, output);
    }
    let checkpoint = if is_onnx { onnx::checkpoint(&args.checkpoint)? } else { open(&args.checkpoint)? };
    if checkpoint.texts().contains_key("narrows") {
        let failure = Failure::usage(format!("{} is packed already", args.checkpoint.display()));
        return Err(failure.hint("`narrows unpack` makes a plain file of it"));
    }
    let calibration = match &args.tokens {
        Some(tokens) => {
            Some(sentences::calibrated((&args.checkpoint, &checkpoint), tokens, args.heads, output)?)
        }
        None => args.calibration.as_ref().map(open).transpose()?.as_ref().map(Calibration::of),
    };
    let pack = |mode: &Mode| {
        let progress = output.progress(PERMILLE as u64, "packing");
        let tell = |done: f64| progress.set_position((PERMILLE * done) as u64);
        let packed = pack_checkpoint(&checkpoint, &path, mode, &options, tell);
        progress.finish_and_clear();
        packed.map_err(|error| Unpacked::of(format!("cannot pack {}", args.checkpoint.display()), &error))
    };
    let packed = if args.lossless {
        pack(&Mode::Lossless).map_err(Unpacked::into_failure)?
    } else {
        with_bits(args, 0.0, output, |settings| pack(&Mode::Quantize(settings.clone(), calibration.clone())))?
    };
    report(&path, &packed, output)
}

/// How finely progress is told.
const PERMILLE: f64 = 1000.0;
/// Bits a weight, unless they are asked for.
const DEFAULT_BITS: f64 = 4.0;

/// Why nothing was packed.
enum Unpacked {
    /// The file cannot have so few bits a weight.
    TooFewBits(Failure),
    Other(Failure),
}

impl Unpacked {
    fn of(sentence: String, error: &narrows_weights::Error) -> Self {
        let too_few = matches!(error, narrows_weights::Error::TooFewBits { .. });
        let failure = Failure::weights(sentence, error);
        if too_few {
            let hint = "ask for more --bits, or for none: then weights alone have 4 where the file cannot";
            Self::TooFewBits(failure.hint(hint))
        } else {
            Self::Other(failure)
        }
    }

    fn into_failure(self) -> Failure {
        match self {
            Self::TooFewBits(failure) | Self::Other(failure) => failure,
        }
    }
}

/// Pack to a file of the bits that are asked for. If none are, and the file cannot have as few as is usual because so little of
/// it is weights, the weights alone have them.
fn with_bits(
    args: &Args,
    rdo: f32,
    output: &Output,
    pack: impl Fn(&Settings) -> Result<Outcome, Unpacked>,
) -> Result<Outcome> {
    let settings = settings(args, rdo);
    match pack(&settings) {
        Err(Unpacked::TooFewBits(_)) if args.bits.is_none() => {
            output.note(format!(
                "so little of {} is weights to pack that these have {DEFAULT_BITS} bits each, not the file",
                args.checkpoint.display()
            ));
            pack(&Settings { counted: Counted::Entropy, ..settings }).map_err(Unpacked::into_failure)
        }
        packed => packed.map_err(Unpacked::into_failure),
    }
}

/// What a bit is worth when rounding with calibration, in squared steps: the slope of rate and error of a fine grid.
const CALIBRATED_RDO: f32 = 0.1;

fn settings(args: &Args, rdo: f32) -> Settings {
    Settings {
        bits: args.bits.unwrap_or(DEFAULT_BITS),
        counted: Counted::File,
        bins: args.bins,
        scope: if args.per_channel { Scope::Row } else { Scope::Tensor },
        lambda: args.rdo.unwrap_or(rdo),
        least_weights: args.least_weights,
        keep: args.keep.clone(),
    }
}

fn default_output(args: &Args) -> PathBuf {
    let name = args.checkpoint.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.trim_end_matches(".json").trim_end_matches(".index");
    let stem = stem.trim_end_matches(".safetensors").trim_end_matches(".onnx");
    args.checkpoint.with_file_name(format!("{stem}.packed.safetensors"))
}

fn report(path: &Path, Outcome { bytes, tensors }: &Outcome, output: &Output) -> Result<()> {
    let bytes = *bytes;
    let bytes_before: u64 = tensors.iter().map(|tensor| tensor.bytes_before as u64).sum();
    let elements: usize = tensors.iter().map(|tensor| tensor.elements).sum();
    let packed = || tensors.iter().filter(|tensor| tensor.entropy.is_some());
    let weights: usize = packed().map(|tensor| tensor.elements).sum();
    let mean = |sum: f64| (weights > 0).then(|| sum / weights as f64);
    let report = Report {
        file: path.display().to_string(),
        bytes_before,
        bytes,
        ratio: bytes_before as f64 / bytes as f64,
        bits_per_weight: 8.0 * bytes as f64 / elements.max(1) as f64,
        packed_bits_per_weight: mean(packed().map(|tensor| 8.0 * tensor.bytes as f64).sum()),
        entropy_bits_per_weight: mean(packed().map(|t| t.entropy.unwrap_or(0.0) * t.elements as f64).sum()),
        tensors,
    };
    if output.is_json() {
        return output.print_json(&report);
    }
    if output.is_quiet() {
        return Ok(());
    }
    let right = Align::Right;
    let mut drawn = table(&[
        ("tensor", Align::Left),
        ("shape", Align::Left),
        ("", Align::Left),
        ("bytes", right),
        ("bits/weight", right),
        ("entropy", right),
        ("zeros", right),
        ("error", right),
    ]);
    for tensor in tensors {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        drawn.add_row([
            tensor.name.clone(),
            shape.join("x"),
            tensor.kind.to_owned(),
            grouped(tensor.bytes as u64),
            format!("{:.3}", 8.0 * tensor.bytes as f64 / tensor.elements.max(1) as f64),
            tensor.entropy.map_or_else(String::new, |entropy| format!("{entropy:.3}")),
            tensor.zeros.map_or_else(String::new, percent),
            tensor.relative_error.map_or_else(String::new, percent),
        ]);
    }
    output.print(drawn)?;
    let (file, before, after) = (&report.file, grouped(bytes_before), grouped(bytes));
    let packed = match (report.packed_bits_per_weight, report.entropy_bits_per_weight) {
        (Some(bits), Some(entropy)) => {
            format!("; {} packed weights: {bits:.3} bits, entropy {entropy:.3}", grouped(weights as u64))
        }
        _ => String::new(),
    };
    output.print(format!(
        "\n{file}: {before} to {after} bytes ({:.2}x), {:.3} bits/element{packed}",
        report.ratio, report.bits_per_weight
    ))
}

/// Whether a file is one of packed weights, whole or not.
pub fn is_packed(path: &Path) -> bool {
    use std::io::Read;
    // The header's length, then a JSON object, whose first entries are the metadata.
    const LOOKED_AT: u64 = 4096;
    let mut first = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut first));
    let mark = b"\"narrows.check\"";
    read.is_ok() && first.get(8) == Some(&b'{') && first.windows(mark.len()).any(|window| window == mark)
}
