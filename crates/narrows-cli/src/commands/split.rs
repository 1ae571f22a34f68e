//! `narrows split`.

use std::path::{Path, PathBuf};

use narrows_split::{Engine, Model, Split};
use serde::Serialize;

use crate::evaluate::engine;
use crate::failure::{Failure, Result};
use crate::output::{Output, grouped};

const EXAMPLES: &str = "\
Examples:
  narrows split model.onnx --at layer2 -o halves
  narrows split model.onnx --at layer2 -o halves --check --force";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The model, an ONNX file
    model: PathBuf,
    /// The tensor to cut at; `narrows cuts` lists them
    #[arg(long, value_name = "TENSOR")]
    at: String,
    /// The folder for head.onnx and tail.onnx; it is made if it does not exist
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Replace files that exist
    #[arg(long, short)]
    force: bool,
    /// Run random inputs through the halves and through the whole, and compare bit for bit
    #[arg(long)]
    check: bool,
}

/// What was done, as `--json` prints it.
#[derive(Serialize)]
struct Done<'a> {
    cut: &'a str,
    shape: &'a [usize],
    bytes: u64,
    head: String,
    tail: String,
    macs_before: u64,
    macs_after: u64,
    /// Random inputs for which whole and halves agreed bit for bit; none without `--check`.
    checked_inputs: usize,
}

/// Random inputs that `--check` runs.
const CHECKED_INPUTS: usize = 8;

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let name = args.model.display();
    let model = Model::read(&args.model)
        .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
    let split = narrows_split::split(&model, &args.at)
        .map_err(|error| Failure::model(format!("cannot split {name} at `{}`", args.at), &error))?;
    let [head, tail] = ["head.onnx", "tail.onnx"].map(|file| args.output.join(file));
    if let Some(there) = [&head, &tail].into_iter().find(|path| path.exists() && !args.force) {
        return Err(Failure::usage(format!("{} exists already", there.display())).hint("--force replaces it"));
    }
    // A pair that does not work must not be left behind.
    let checked_inputs = if args.check { check(&model, &split)? } else { 0 };
    std::fs::create_dir_all(&args.output)
        .map_err(|error| Failure::io("make the folder", &args.output, &error))?;
    write(&split.head, &head)?;
    write(&split.tail, &tail)?;
    let cut = &split.cut;
    if output.is_json() {
        return output.print_json(&Done {
            cut: &cut.name,
            shape: &cut.shape,
            bytes: cut.bytes,
            head: head.display().to_string(),
            tail: tail.display().to_string(),
            macs_before: cut.macs_before,
            macs_after: cut.macs_after,
            checked_inputs,
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
    if args.check {
        output.print(format!(
            "checked: on {checked_inputs} random inputs the halves give the bits of the whole"
        ))?;
    }
    Ok(())
}

fn write(model: &Model, path: &Path) -> Result<()> {
    model.write(path).map_err(|error| Failure::model(format!("cannot write {}", path.display()), &error))
}

/// Compare the halves with the whole; says on how many inputs.
fn check(whole: &Model, split: &Split) -> Result<usize> {
    let whole = engine(whole, "the whole model")?;
    let head = engine(&split.head, "the head")?;
    let tail = engine(&split.tail, "the tail")?;
    let elements = whole.input_shape().iter().product();
    let mut state = 1_u64;
    for input in 1..=CHECKED_INPUTS {
        let values: Vec<f32> = (0..elements).map(|_| uniform(&mut state)).collect();
        let run = |engine: &Engine, values: &[f32]| {
            engine.run(values).map_err(|error| Failure::model("the check failed", &error))
        };
        let expected = run(&whole, &values)?;
        let found = run(&tail, &run(&head, &values)?)?;
        let differing = expected.iter().zip(&found).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        if expected.len() != found.len() || differing > 0 {
            let cause = format!("{differing} of {} outputs differ on random input {input}", expected.len());
            return Err(Failure::data("the halves do not give the bits of the whole").because(cause));
        }
    }
    Ok(CHECKED_INPUTS)
}

/// A number from 0 to 1, and the next state of the generator (Knuth's MMIX constants).
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1_u64 << 24) as f32
}
