//! `narrows cuts`.

use std::path::PathBuf;

use narrows_split::{Cut, Model, Place, cuts};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows cuts model.onnx
  narrows cuts model.onnx --all
  narrows cuts model.onnx --json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The model, an ONNX file
    model: PathBuf,
    /// Also list the cuts that nobody would choose: with no work on one side, or right before an activation
    #[arg(long)]
    all: bool,
}

/// A cut, as `--json` prints it.
#[derive(Serialize)]
struct Row<'a> {
    index: usize,
    tensor: &'a str,
    op: Option<&'a str>,
    shape: &'a [usize],
    dtype: &'a str,
    bytes: u64,
    macs_before: u64,
    macs_after: u64,
    weight_bytes_before: u64,
    weight_bytes_after: u64,
}

impl<'a> From<&'a Cut> for Row<'a> {
    fn from(cut: &'a Cut) -> Self {
        Self {
            index: cut.index,
            tensor: &cut.name,
            op: cut.op.as_deref(),
            shape: &cut.shape,
            dtype: cut.dtype,
            bytes: cut.bytes,
            macs_before: cut.macs_before,
            macs_after: cut.macs_after,
            weight_bytes_before: cut.weight_bytes_before,
            weight_bytes_after: cut.weight_bytes_after,
        }
    }
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let name = args.model.display();
    let model = Model::read(&args.model)
        .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
    let all =
        cuts(&model).map_err(|error| Failure::model(format!("cannot find the cuts of {name}"), &error))?;
    let shown: Vec<&Cut> = all.iter().filter(|cut| args.all || is_worthwhile(cut, &all)).collect();
    if output.is_json() {
        let rows: Vec<Row<'_>> = shown.iter().map(|&cut| cut.into()).collect();
        return output.print_json(&serde_json::json!({ "model": name.to_string(), "cuts": rows }));
    }
    let mut table = table(&[
        ("#", Align::Right),
        ("tensor", Align::Left),
        ("op", Align::Left),
        ("shape", Align::Left),
        ("bytes f32", Align::Right),
        ("MACs before", Align::Right),
        ("MACs after", Align::Right),
        ("weights before", Align::Right),
        ("weights after", Align::Right),
    ]);
    for cut in &shown {
        table.add_row([
            cut.index.to_string(),
            cut.name.clone(),
            cut.op.clone().unwrap_or_else(|| "(input)".into()),
            cut.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x"),
            grouped(cut.bytes),
            count(cut.macs_before),
            count(cut.macs_after),
            size(cut.weight_bytes_before),
            size(cut.weight_bytes_after),
        ]);
    }
    output.print(table)?;
    let left_out = all.len() - shown.len();
    if left_out > 0 {
        output.note(format!("{left_out} more that nobody would choose: --all lists them"));
    }
    Ok(())
}

/// Whether there is work on either side, and no later cut is the same in work and bytes. A tensor and
/// its rectified twin are such a pair: the later one has no negative values left, and compresses better.
pub(super) fn is_worthwhile(cut: &Cut, all: &[Cut]) -> bool {
    let size = |cut: &Cut| (cut.macs_before, cut.macs_after, cut.bytes);
    let is_twin = |later: &Cut| later.place == Place::Inner && size(later) == size(cut);
    let splits_work = cut.macs_before > 0 && cut.macs_after > 0;
    cut.place == Place::Inner && splits_work && !all[cut.index + 1..].iter().any(is_twin)
}

/// A number of multiply-adds, with three digits that count.
fn count(number: u64) -> String {
    scaled(number as f64, ["", " k", " M", " G", " T"])
}

/// A number of bytes, with three digits that count.
fn size(bytes: u64) -> String {
    scaled(bytes as f64, [" B", " kB", " MB", " GB", " TB"])
}

fn scaled(mut number: f64, units: [&str; 5]) -> String {
    let mut unit = 0;
    while number >= 1000.0 && unit + 1 < units.len() {
        number /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || number >= 100.0 { 0 } else { 1 + usize::from(number < 10.0) };
    format!("{number:.decimals$}{}", units[unit])
}
