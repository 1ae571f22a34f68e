//! `narrows cuts`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use narrows::{EncodeOptions, Encoder, TensorView};
use narrows_split::{
    Cut, Difference, Engine, Model, Origin, Splitter, Value, compare, offered, random_inputs,
};
use serde::Serialize;

use crate::engine_args::{EngineArgs, read_inputs};
use crate::evaluate::{timed, without_batch};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows cuts model.onnx
  narrows cuts model.onnx --time                           # and how long head and tail take here
  narrows cuts minilm.onnx --dim sequence_length=64 --inputs tokens.npz
  narrows cuts model.onnx --check --engine onnxruntime     # do head and tail give the bits of the whole?
  narrows cuts model.onnx --json

A cut has three classes of tensor. The payload is coded and sent. Side tensors (masks, positions, shapes) are small
integers that the far side needs too. State (key-value caches) stays where it is. A * marks the cuts that no
other beats in both bytes and work before it.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The model, an ONNX file
    model: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
    /// What the model is fed to estimate bytes: an .npz archive with an array for each input, or an .npy file
    /// [default: random numbers]
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Bits of the quantiser that the estimate is for
    #[arg(long, default_value_t = 4, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: u8,
    /// Measure how long head and tail of each cut take
    #[arg(long)]
    time: bool,
    /// Cut at each, and compare head and tail with the whole
    #[arg(long)]
    check: bool,
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
    /// Of the payload's frame; nothing if the model could not be run.
    estimated_bytes: Option<u64>,
    side: Vec<Side<'a>>,
    state_before: Vec<&'a str>,
    state_after: Vec<&'a str>,
    macs_before: u64,
    macs_after: u64,
    weight_bytes_before: u64,
    weight_bytes_after: u64,
    /// Whether no other cut has both fewer bytes and less work before it.
    pareto: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tail_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
}

#[derive(Serialize)]
struct Side<'a> {
    tensor: &'a str,
    /// `input` of the model, or computed by the `head`.
    from: &'static str,
    dtype: &'a str,
    shape: &'a [usize],
    bytes: u64,
}

/// How halves and whole compare.
#[derive(Serialize)]
struct Check {
    identical: bool,
    differing_elements: usize,
    largest_difference: f32,
    relative_difference: f32,
}

impl From<Difference> for Check {
    fn from(difference: Difference) -> Self {
        Self {
            identical: difference.elements == 0,
            differing_elements: difference.elements,
            largest_difference: difference.largest,
            relative_difference: difference.relative(),
        }
    }
}

impl<'a> Row<'a> {
    fn new(cut: &'a Cut) -> Self {
        let side = cut.side.iter().map(|side| Side {
            tensor: &side.name,
            from: if side.origin == Origin::Input { "input" } else { "head" },
            dtype: side.dtype,
            shape: &side.shape,
            bytes: side.bytes,
        });
        Self {
            index: cut.index,
            tensor: &cut.name,
            op: cut.op.as_deref(),
            shape: &cut.shape,
            dtype: cut.dtype,
            bytes: cut.bytes,
            estimated_bytes: None,
            side: side.collect(),
            state_before: cut.head_states.iter().map(|state| state.input.as_str()).collect(),
            state_after: cut.tail_states.iter().map(|state| state.input.as_str()).collect(),
            macs_before: cut.macs_before,
            macs_after: cut.macs_after,
            weight_bytes_before: cut.weight_bytes_before,
            weight_bytes_after: cut.weight_bytes_after,
            pareto: false,
            head_ms: None,
            tail_ms: None,
            check: None,
        }
    }

    fn side_bytes(&self) -> u64 {
        self.side.iter().map(|side| side.bytes).sum()
    }

    /// What crosses the link, as far as it is known.
    fn sent(&self) -> u64 {
        self.estimated_bytes.unwrap_or(self.bytes).saturating_add(self.side_bytes())
    }
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let name = args.model.display().to_string();
    let model = Model::read(&args.model)
        .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
    let sizes = args.engine.sizes();
    let failed = |error| Failure::model(format!("cannot find the cuts of {name}"), &error);
    let splitter = Splitter::new(&model, &sizes).map_err(failed)?;
    let cuts = splitter.cuts();
    let shown: Vec<&Cut> = if args.all { cuts.iter().collect() } else { offered(cuts) };
    let mut rows: Vec<Row<'_>> = shown.iter().map(|&cut| Row::new(cut)).collect();
    let inputs = match inputs(args, &model) {
        Ok(inputs) => Some(inputs),
        Err(failure) if args.time || args.check || args.inputs.is_some() => return Err(failure),
        Err(failure) => {
            output.note(format!("no estimate of compressed bytes: {failure}"));
            None
        }
    };
    if let Some(inputs) = &inputs {
        match estimate(args, &model, inputs, &mut rows) {
            Ok(()) => {}
            Err(failure) if args.time || args.check => return Err(failure),
            Err(failure) => output.note(format!("no estimate of compressed bytes: {failure}")),
        }
        if args.time || args.check {
            measure(args, &model, &splitter, inputs, &mut rows, output)?;
        }
    }
    mark_pareto(&mut rows);
    if output.is_json() {
        return output.print_json(&serde_json::json!({
            "model": name, "sha256": model.sha256(), "engine": args.engine.engine.name(),
            "dimensions": sizes.of(&model).map_err(failed)?, "bits": args.bits, "cuts": rows,
        }));
    }
    print(args, output, &rows)?;
    output.note(legend(&rows));
    let left_out = cuts.len() - shown.len();
    if left_out > 0 {
        output.note(format!("{left_out} more that nobody would choose: --all lists them"));
    }
    let dimensions = sizes.of(&model).map_err(failed)?;
    if args.inputs.is_none() && !dimensions.is_empty() {
        let dimensions: Vec<_> =
            dimensions.iter().map(|(symbol, size)| format!("{symbol} = {size}")).collect();
        output.note(format!("for random inputs with {} (--dim changes that)", dimensions.join(", ")));
    }
    Ok(())
}

/// What people cannot know of the columns.
fn legend(rows: &[Row<'_>]) -> String {
    let mut legend = "* no other sends fewer bytes after fewer multiply-adds".to_owned();
    if rows.iter().any(|row| !row.side.is_empty()) {
        legend.push_str("; side: bytes that the tail needs besides, before packing");
    }
    if rows.iter().any(|row| !row.state_before.is_empty() || !row.state_after.is_empty()) {
        legend.push_str("; state: tensors that stay with head | tail");
    }
    legend
}

/// What the model is fed.
fn inputs(args: &Args, model: &Model) -> Result<Vec<Value>> {
    let failed = |error| Failure::model("cannot make inputs for the model", &error);
    match &args.inputs {
        Some(path) => {
            let ports = narrows_split::inputs(model).map_err(failed)?;
            read_inputs(path, &ports)
        }
        None => random_inputs(model, &args.engine.sizes(), 1).map_err(failed),
    }
}

/// Run the model once with every payload as an output, and ask the codec what their frames would cost.
fn estimate(args: &Args, model: &Model, inputs: &[Value], rows: &mut [Row<'_>]) -> Result<()> {
    let failed = |error| Failure::model("cannot run the model", &error);
    let ports = narrows_split::outputs(model).map_err(failed)?;
    let is_hidden = |row: &&Row<'_>| row.op.is_some() && ports.iter().all(|port| port.name != row.tensor);
    let names: Vec<&str> = rows.iter().filter(is_hidden).map(|row| row.tensor).collect();
    let exposed = model.exposing(&names).map_err(failed)?;
    let engine = args.engine.load(&exposed, "the model")?;
    let outputs = engine.infer(&inputs.iter().collect::<Vec<_>>()).map_err(failed)?;
    let mut encoder = Encoder::new(EncodeOptions::bits(args.bits))
        .map_err(|error| Failure::codec("cannot estimate", &error))?;
    for row in rows {
        let output = engine.outputs().iter().position(|port| port.name == row.tensor);
        let Some((value, features)) = output.and_then(|at| Some((&outputs[at], outputs[at].f32()?))) else {
            continue;
        };
        // A random network may overflow somewhere; that cut has no estimate.
        let tensor = TensorView::new(features, without_batch(value.shape())).ok();
        let estimate = tensor.and_then(|tensor| encoder.estimate(&tensor).ok());
        row.estimated_bytes = estimate.map(|estimate| estimate.bytes.ceil() as u64);
    }
    Ok(())
}

/// Cut at every row, and time or compare the halves.
fn measure(
    args: &Args,
    model: &Model,
    splitter: &Splitter<'_>,
    inputs: &[Value],
    rows: &mut [Row<'_>],
    output: &Output,
) -> Result<()> {
    let whole = if args.check { Some(args.engine.load(model, "the whole model")?) } else { None };
    let progress = output.progress(rows.len() as u64, "measuring");
    for row in rows.iter_mut().filter(|row| row.macs_before > 0 || row.op.is_some()) {
        let at = row.tensor;
        let Ok(split) = splitter.split(at) else { continue };
        let failed =
            |error: narrows_split::Error| Failure::model(format!("the halves at {at} failed"), &error);
        let head = args.engine.load(&split.head, &format!("the head of {at}"))?;
        let tail = args.engine.load(&split.tail, &format!("the tail of {at}"))?;
        drop(split);
        if let Some(whole) = &whole {
            row.check = Some(compare(whole, &head, &tail, inputs).map_err(failed)?.into());
        }
        if args.time {
            let (head_ms, tail_ms) = time(model, &head, &tail, inputs).map_err(failed)?;
            (row.head_ms, row.tail_ms) = (Some(head_ms), Some(tail_ms));
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// Milliseconds of head and tail, the fastest of some runs: what the work takes when nothing else wants the processor.
fn time(model: &Model, head: &Engine, tail: &Engine, inputs: &[Value]) -> narrows_split::Result<(f64, f64)> {
    let mut known: Vec<(String, Value)> =
        narrows_split::inputs(model)?.into_iter().map(|port| port.name).zip(inputs.iter().cloned()).collect();
    let mut times = [0.0; 2];
    for (time, half) in times.iter_mut().zip([head, tail]) {
        let find = |port: &narrows_split::Port| {
            known.iter().find(|(name, _)| *name == port.name).map(|(_, value)| value)
        };
        let given: Vec<&Value> = half.inputs().iter().filter_map(find).collect();
        let mut outputs = half.infer(&given)?;
        let mut fastest = Duration::MAX;
        let start = Instant::now();
        for run in 1..=TIMED_RUNS.1 {
            let (result, duration) = timed(|| half.infer(&given));
            outputs = result?;
            fastest = fastest.min(duration);
            if run >= TIMED_RUNS.0 && start.elapsed().as_millis() > TIMED_MS {
                break;
            }
        }
        *time = fastest.as_secs_f64() * 1e3;
        known.extend(half.outputs().iter().map(|port| port.name.clone()).zip(outputs));
    }
    Ok((times[0], times[1]))
}

/// Runs that are timed, at least and at most.
const TIMED_RUNS: (usize, usize) = (3, 50);
/// After so many milliseconds the least number of runs is enough.
const TIMED_MS: u128 = 300;

/// A cut is worth a thought if every other sends more, or does more work before it sends.
fn mark_pareto(rows: &mut [Row<'_>]) {
    let points: Vec<(u64, u64)> = rows.iter().map(|row| (row.sent(), row.macs_before)).collect();
    for (row, &(sent, macs)) in rows.iter_mut().zip(&points) {
        let beats = |other: &(u64, u64)| other.0 <= sent && other.1 <= macs && *other != (sent, macs);
        row.pareto = !points.iter().any(beats);
    }
}

fn print(args: &Args, output: &Output, rows: &[Row<'_>]) -> Result<()> {
    let estimate = format!("est. {} bit", args.bits);
    let has_side = rows.iter().any(|row| !row.side.is_empty());
    let has_state = rows.iter().any(|row| !row.state_before.is_empty() || !row.state_after.is_empty());
    let mut headings = vec![
        ("", Align::Left),
        ("#", Align::Right),
        ("tensor", Align::Left),
        ("op", Align::Left),
        ("shape", Align::Left),
        ("bytes f32", Align::Right),
        (&estimate, Align::Right),
    ];
    let optional = [
        (has_side, vec![("side", Align::Right)]),
        (has_state, vec![("state", Align::Right)]),
        (true, vec![("MACs before", Align::Right), ("after", Align::Right)]),
        (args.time, vec![("head ms", Align::Right), ("tail ms", Align::Right)]),
        (!args.time, vec![("weights before", Align::Right), ("after", Align::Right)]),
        (args.check, vec![("difference", Align::Right)]),
    ];
    headings.extend(optional.into_iter().filter(|(is_shown, _)| *is_shown).flat_map(|(_, columns)| columns));
    let mut table = table(&headings);
    for row in rows {
        let mut cells = vec![
            if row.pareto { "*" } else { "" }.to_owned(),
            row.index.to_string(),
            row.tensor.to_owned(),
            row.op.unwrap_or("(input)").to_owned(),
            joined(row.shape),
            grouped(row.bytes),
            row.estimated_bytes.map_or_else(|| "-".into(), grouped),
        ];
        if has_side {
            cells.push(grouped(row.side_bytes()));
        }
        if has_state {
            cells.push(format!("{} | {}", row.state_before.len(), row.state_after.len()));
        }
        cells.extend([count(row.macs_before), count(row.macs_after)]);
        if args.time {
            let ms = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.2}"));
            cells.extend([ms(row.head_ms), ms(row.tail_ms)]);
        } else {
            cells.extend([size(row.weight_bytes_before), size(row.weight_bytes_after)]);
        }
        if args.check {
            let difference = |check: &Check| match check.largest_difference {
                _ if check.identical => "none".to_owned(),
                largest => format!("{largest:.1e}"),
            };
            cells.push(row.check.as_ref().map(difference).unwrap_or_default());
        }
        table.add_row(cells);
    }
    output.print(table)
}

fn joined(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
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
