//! `narrows split`.

use std::path::{Path, PathBuf};

use narrows_split::{Checked, Difference, MANIFEST, Model, Sizes, Split, Splitter, compare, random_inputs};
use serde::Serialize;

use crate::engine_args::EngineArgs;
use crate::failure::{Failure, Result};
use crate::output::{Output, grouped};

const EXAMPLES: &str = "\
Examples:
  narrows split model.onnx --at layer2 -o halves
  narrows split model.onnx --at layer2 -o halves --check --force
  narrows split model.onnx --at layer2 -o halves --check --engine onnxruntime

The folder gets head.onnx, tail.onnx and manifest.json, which says what the halves take and give, and which files
belong together.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The model, an ONNX file
    model: PathBuf,
    /// The tensor to cut at; `narrows cuts` lists them
    #[arg(long, value_name = "TENSOR")]
    at: String,
    /// The folder for head.onnx, tail.onnx and manifest.json; it is made if it does not exist
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Replace files that exist
    #[arg(long, short)]
    force: bool,
    /// Run random inputs through the halves and through the whole, and compare bit for bit
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What was done, as `--json` prints it.
#[derive(Serialize)]
struct Done<'a> {
    cut: &'a str,
    shape: &'a [usize],
    bytes: u64,
    head: String,
    tail: String,
    manifest: String,
    /// Tensors that the tail needs beside the cut, and inputs of state on either side.
    side: Vec<&'a str>,
    state_before: Vec<&'a str>,
    state_after: Vec<&'a str>,
    macs_before: u64,
    macs_after: u64,
    /// Random inputs for which whole and halves were compared; none without `--check`.
    checked_inputs: usize,
    /// The largest difference found; 0 if they agreed bit for bit.
    largest_difference: f32,
}

/// Random inputs that `--check` runs.
const CHECKED_INPUTS: usize = 8;

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let name = args.model.display();
    let model = Model::read(&args.model)
        .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
    let failed = |error| Failure::model(format!("cannot split {name} at `{}`", args.at), &error);
    let split = Splitter::new(&model, &args.engine.sizes()).and_then(|splitter| splitter.split(&args.at));
    let split = split.map_err(failed)?;
    let [head, tail, manifest] = ["head.onnx", "tail.onnx", MANIFEST].map(|file| args.output.join(file));
    if let Some(there) = [&head, &tail, &manifest].into_iter().find(|path| path.exists() && !args.force) {
        return Err(Failure::usage(format!("{} exists already", there.display())).hint("--force replaces it"));
    }
    // A pair that does not work must not be left behind.
    let checked = if args.check { Some(check(args, &model, &split)?) } else { None };
    std::fs::create_dir_all(&args.output)
        .map_err(|error| Failure::io("make the folder", &args.output, &error))?;
    let unwritten = |error| Failure::model(format!("cannot write to {}", args.output.display()), &error);
    split.write(&args.output, checked.clone()).map_err(unwritten)?;
    let cut = &split.cut;
    if output.is_json() {
        return output.print_json(&Done {
            cut: &cut.name,
            shape: &cut.shape,
            bytes: cut.bytes,
            head: head.display().to_string(),
            tail: tail.display().to_string(),
            manifest: manifest.display().to_string(),
            side: cut.side.iter().map(|side| side.name.as_str()).collect(),
            state_before: cut.head_states.iter().map(|state| state.input.as_str()).collect(),
            state_after: cut.tail_states.iter().map(|state| state.input.as_str()).collect(),
            macs_before: cut.macs_before,
            macs_after: cut.macs_after,
            checked_inputs: checked.as_ref().map_or(0, |checked| checked.inputs),
            largest_difference: checked.as_ref().map_or(0.0, |checked| checked.largest_difference),
        });
    }
    let shape = cut.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    let line = |path: &Path, macs: u64| {
        let share = 100.0 * macs as f64 / (cut.macs_before + cut.macs_after).max(1) as f64;
        format!("  {}  {share:.0} % of the multiply-adds", path.display())
    };
    output.print(format!("cut at {}: {shape}, {} bytes as float32", cut.name, grouped(cut.bytes)))?;
    output.print(line(&head, cut.macs_before))?;
    output.print(line(&tail, cut.macs_after))?;
    output.print(format!("  {}", manifest.display()))?;
    if !cut.side.is_empty() {
        let side: Vec<_> = cut.side.iter().map(|side| side.name.as_str()).collect();
        output.print(format!("the tail also takes {}", side.join(", ")))?;
    }
    if !cut.head_states.is_empty() || !cut.tail_states.is_empty() {
        let [head, tail] = [cut.head_states.len(), cut.tail_states.len()];
        output.print(format!("state: {head} tensors stay with the head, {tail} with the tail"))?;
    }
    if let Some(checked) = checked {
        let result = match checked.largest_difference {
            0.0 => "give the bits of the whole".to_owned(),
            largest => format!("are within {largest:.1e} of the whole"),
        };
        let (inputs, engine) = (checked.inputs, checked.engine);
        output.print(format!("checked: on {inputs} random inputs the halves {result} ({engine})"))?;
    }
    Ok(())
}

/// The most that halves may differ from the whole where an engine does not promise every bit, relative to the
/// whole's largest output.
const TOLERANCE: f32 = 1e-4;

/// Compare the halves with the whole.
fn check(args: &Args, model: &Model, split: &Split) -> Result<Checked> {
    let whole = args.engine.load(model, "the whole model")?;
    let head = args.engine.load(&split.head, "the head")?;
    let tail = args.engine.load(&split.tail, "the tail")?;
    let sizes: Sizes = args.engine.sizes();
    let failed = |error| Failure::model("the check failed", &error);
    let mut difference = Difference::default();
    for seed in 1..=CHECKED_INPUTS {
        let inputs = random_inputs(model, &sizes, seed as u64).map_err(failed)?;
        difference = difference.max(compare(&whole, &head, &tail, &inputs).map_err(failed)?);
    }
    if difference.relative() > TOLERANCE {
        let cause = format!(
            "{} outputs differ, by up to {:.1e} of the largest output",
            difference.elements,
            difference.relative()
        );
        return Err(Failure::data("the halves do not do what the whole does").because(cause));
    }
    Ok(Checked::new(args.engine.engine, CHECKED_INPUTS, difference.largest))
}
