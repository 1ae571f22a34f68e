//! `narrows calibrate`: a profile from sample tensors, or a table of operating points.

mod table;

use std::path::PathBuf;
use std::sync::Arc;

use narrows::{Calibration, Clip, Element, Elements, Profile, Tensor, TensorView};

use crate::destination::{Destination, Existing};
use crate::evaluate::{Batch, End, Half, smallest_agreeing};
use crate::failure::{Failure, Result};
use crate::input::{self, Source};
use crate::options;
use crate::output::{Output, counted, grouped};

const EXAMPLES: &str = "\
Examples:
  narrows calibrate features/*.npy -o cut.nrp                16 levels over 99.5 % of the values
  narrows calibrate batch.npy --batched -o cut.nrp           the first axis counts samples
  narrows calibrate batch.npy --batched --levels 6 -o q6.nrp any number of levels, 2 to 256
  narrows calibrate batch.npy --batched --tail tail.onnx -o cut.nrp
                                                             the smallest that keeps 99 % of the answers
  narrows calibrate images.npz --head head.onnx --tail tail.onnx --labels images.npz -o cut
                                                             every operating point: bytes, accuracy, times
  narrows encode features.npy --profile cut.nrp              use it; the decoder needs it too";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files of sample tensors (.npy, .npz, .safetensors); - reads standard input
    #[arg(required = true)]
    sample: Vec<PathBuf>,
    /// The profile to write, usually ending in .nrp; - for standard output; with --labels a folder
    #[arg(long, short)]
    output: PathBuf,
    /// Take only the tensors of this name; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    tensor: Vec<String>,
    /// The first axis of each array counts samples
    #[arg(long)]
    batched: bool,
    /// Quantise to 2^BITS levels, 1 to 8 [default: 4]
    #[arg(long, short, value_name = "BITS", conflicts_with = "levels", value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: Option<u8>,
    /// Quantise to this many levels, 2 to 256
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=256))]
    levels: Option<u16>,
    /// Range that the levels span: full, mse (least squared error), or a percentile
    #[arg(long, value_name = "RANGE", default_value = "99.5", value_parser = options::clip)]
    clip: Clip,
    /// Axis of a sample that holds the channels [default: 0 for tensors of rank 1 and 3, 1 otherwise]
    #[arg(long, value_name = "AXIS")]
    axis: Option<usize>,
    /// Choose levels and range: the smallest frames with which this tail (an ONNX file) gives the same
    /// top-1 as without compression
    #[arg(long, value_name = "TAIL", conflicts_with_all = ["bits", "levels", "clip"])]
    tail: Option<PathBuf>,
    /// With --tail: for how many of the samples it must, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0, requires = "tail")]
    agreement: f64,
    /// The samples are inputs of the network: run this head (an ONNX file) on them first
    #[arg(long, value_name = "HEAD", conflicts_with_all = ["tensor", "batched"])]
    head: Option<PathBuf>,
    /// With --tail: measure size, accuracy and times of every operating point, with these labels of the samples
    /// (.npy, or .npz with an array `labels`)
    #[arg(long, value_name = "LABELS", requires = "tail", conflicts_with = "agreement")]
    labels: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long, short)]
    force: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let tail = args.tail.as_deref().map(|tail| Half::read(tail, End::Tail)).transpose()?;
    if let (Some(labels), Some(tail)) = (&args.labels, &tail) {
        return table::run(args, labels, tail, &args.features(output)?, output);
    }
    let destination = Destination::from(args.output.as_path());
    destination.check(Existing::replace_if(args.force))?;
    let output = if destination == Destination::Stdout { output.beside_data() } else { output.clone() };

    let features = args.features(&output)?;
    let samples: Vec<TensorView<'_>> = features.iter().map(Tensor::view).collect();
    let bar = output.progress(1, "calibrating");
    let (profile, agreement) = if let Some(tail) = &tail {
        let choice = smallest_agreeing(tail, &features, args.axis, args.agreement, &bar)?;
        (choice.profile, Some(choice.agreement))
    } else {
        let levels = args.levels.or(args.bits.map(|bits| 1 << bits)).unwrap_or(16);
        let calibration = Calibration { levels, clip: args.clip, axis: args.axis };
        let profile = Profile::calibrate(&samples, &calibration);
        let profile = profile.map_err(|error| Failure::codec("cannot calibrate on these samples", &error))?;
        (Arc::new(profile), None)
    };
    bar.finish_and_clear();
    let bytes = profile.to_bytes();
    destination.write(&bytes)?;

    let (affine, elements) =
        (profile.affine(), samples.iter().map(|sample| sample.shape().elements()).sum::<usize>());
    let (low, high) = (affine.dequantize(0), affine.dequantize((affine.levels() - 1) as u8));
    if output.is_json() {
        let path = if destination == Destination::Stdout { None } else { Some(&args.output) };
        return output.print_json(&serde_json::json!({
            "output": path, "id": profile.id().to_string(), "bytes": bytes.len(),
            "samples": samples.len(), "elements": elements, "axis": profile.axis(),
            "levels": affine.levels(), "step": affine.step(), "zero": affine.zero(), "low": low, "high": high,
            "tables": profile.tables(), "agreement": agreement,
        }));
    }
    output.note(format_args!(
        "{destination}: profile {}, {} bytes\n  from {}, {}\n  \
         {} levels from {low:.4} to {high:.4}: step {:.6}, zero at symbol {}\n  \
         {}, channels along axis {}",
        profile.id(),
        grouped(bytes.len() as u64),
        counted(samples.len(), "sample"),
        counted(elements, "element"),
        affine.levels(),
        affine.step(),
        affine.zero(),
        counted(profile.tables(), "table"),
        profile.axis(),
    ));
    if let Some(agreement) = agreement {
        output.note(format_args!("  the tail gives the same top-1 for {agreement:.2} % of the samples"));
    }
    Ok(())
}

impl Args {
    /// The features to calibrate on, one tensor each.
    fn features(&self, output: &Output) -> Result<Vec<Tensor>> {
        let bar = output.progress(self.sample.len() as u64, "reading");
        let mut features = Vec::new();
        if let Some(head) = &self.head {
            let head = Half::read(head, End::Head)?;
            for path in &self.sample {
                let batch = Batch::read(path, head.input_dims(), None)?;
                bar.set_message("head");
                bar.inc_length(batch.len() as u64 - 1);
                for input in batch.iter() {
                    let run = head.run(input);
                    features.push(run.map_err(|error| Failure::model("cannot run the head", &error))?);
                    bar.inc(1);
                }
            }
        } else {
            let mut tensors = Vec::new();
            for path in &self.sample {
                let named = input::tensors(&Source::from(path.as_path()), &self.tensor)?;
                tensors.extend(named.into_iter().map(|named| named.tensor));
                bar.inc(1);
            }
            features.extend(self.samples(&tensors)?.iter().map(TensorView::to_tensor));
        }
        bar.finish_and_clear();
        Ok(features)
    }

    /// The samples in these tensors: each is one, or a batch of them.
    fn samples<'a>(&self, tensors: &'a [Tensor]) -> Result<Vec<TensorView<'a>>> {
        if !self.batched {
            return Ok(tensors.iter().map(Tensor::view).collect());
        }
        let mut samples = Vec::new();
        for tensor in tensors {
            let dims = tensor.shape().dims();
            if dims.len() < 2 {
                let failure = Failure::usage(format!(
                    "--batched needs two axes or more, and a tensor is {}",
                    tensor.shape()
                ));
                return Err(failure.hint("leave --batched away: the tensor is one sample"));
            }
            let cut = match tensor.elements() {
                Elements::F32(elements) => cut(elements, &dims[1..], &mut samples),
                Elements::F16(elements) => cut(elements, &dims[1..], &mut samples),
                Elements::Bf16(elements) => cut(elements, &dims[1..], &mut samples),
            };
            cut.map_err(|error| Failure::codec("not a batch of samples", &error))?;
        }
        Ok(samples)
    }
}

/// Cut a batch into its samples of shape `dims`.
fn cut<'a, T: Element>(
    batch: &'a [T],
    dims: &[usize],
    samples: &mut Vec<TensorView<'a>>,
) -> narrows::Result<()> {
    let length = dims.iter().product::<usize>().max(1);
    for sample in batch.chunks_exact(length) {
        samples.push(TensorView::new(sample, dims)?);
    }
    Ok(())
}
