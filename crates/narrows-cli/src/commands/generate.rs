//! `narrows generate`.

use std::path::PathBuf;

use narrows_split::{Model, Session, Splitter, Value};
use serde::Serialize;

use crate::commands::embed::rate;
use crate::engine_args::EngineArgs;
use crate::evaluate::{Crossing, SplitText, timed, token_inputs};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows generate llama-kv.onnx --at TENSOR --prompt 1,15,42 --new 32
  narrows generate llama-kv.onnx --at TENSOR --prompt 1,15,42 --rate 4 --check

The head reads the prompt (prefill), then one token at a time; the hidden state of each step crosses as a frame, and
caches stay with their layers on either side. Tokens are chosen greedily.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The decoder, an ONNX file with or without key-value caches
    model: PathBuf,
    /// The tensor to cut at; `narrows cuts` lists them
    #[arg(long, value_name = "TENSOR")]
    at: String,
    /// The prompt's token numbers
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', required = true)]
    prompt: Vec<i64>,
    /// How many tokens to generate
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    new: u32,
    /// The most bits that an element of the hidden state may take, the whole frame counted [default: as it is]
    #[arg(long, value_name = "BITS", value_parser = rate)]
    rate: Option<f32>,
    /// Also run the whole model over the same tokens, and compare
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// A step, as `--json` prints it.
#[derive(Serialize)]
struct Step {
    token: i64,
    tokens_before: usize,
    elements: usize,
    frame_bytes: usize,
    side_bytes: usize,
    head_state_bytes: usize,
    tail_state_bytes: usize,
    ms: f64,
    /// What the whole model would have chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    whole_token: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_difference: Option<f32>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let name = args.model.display();
    let model = Model::read(&args.model)
        .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
    let failed = |error| Failure::model(format!("cannot split {name} at `{}`", args.at), &error);
    let splitter = Splitter::new(&model, &args.engine.sizes()).map_err(failed)?;
    let split = splitter.split(&args.at).map_err(failed)?;
    let ports = narrows_split::inputs(&model).map_err(failed)?;
    let states = narrows_split::states(&model).map_err(failed)?;
    let ports: Vec<_> =
        ports.into_iter().filter(|port| states.iter().all(|state| state.input != port.name)).collect();
    let mut halves =
        SplitText::new(&split, args.engine.engine, args.rate.map_or(Crossing::Plain, Crossing::Within))?;
    let whole = if args.check { Some(Session::new(&model, args.engine.engine)) } else { None };
    let mut whole =
        whole.transpose().map_err(|error| Failure::model("cannot run the whole model", &error))?;
    let mut tokens = args.prompt.clone();
    let mut steps: Vec<Step> = Vec::new();
    let mut past = 0;
    let progress = output.progress(args.new.into(), "tokens");
    for _ in 0..args.new {
        let inputs = token_inputs(&ports, &tokens[past..], past)?;
        let (result, duration) = timed(|| halves.step(&inputs));
        let (outputs, crossed) = result?;
        let logits = last_logits(&outputs)?;
        let token = largest(&logits);
        let (head_state_bytes, tail_state_bytes) = halves.state_bytes();
        let mut step = Step {
            token,
            tokens_before: tokens.len(),
            elements: crossed.elements,
            frame_bytes: crossed.frame,
            side_bytes: crossed.side,
            head_state_bytes,
            tail_state_bytes,
            ms: duration.as_secs_f64() * 1e3,
            whole_token: None,
            largest_difference: None,
        };
        if let Some(whole) = &mut whole {
            let given: Vec<_> = inputs.iter().map(|(name, value)| (name.as_str(), value)).collect();
            let outputs =
                whole.step(&given).map_err(|error| Failure::model("the whole model failed", &error))?;
            let expected = last_logits(&outputs)?;
            let differences = logits.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
            step.largest_difference = Some(differences.fold(0.0, f32::max));
            step.whole_token = Some(largest(&expected));
        }
        // Without caches every step reads all tokens again.
        past = if states.is_empty() { 0 } else { tokens.len() };
        tokens.push(token);
        steps.push(step);
        progress.inc(1);
    }
    progress.finish_and_clear();
    if output.is_json() {
        return output.print_json(&serde_json::json!({
            "model": name.to_string(), "cut": args.at, "engine": args.engine.engine.name(), "rate": args.rate,
            "prompt": args.prompt, "tokens": tokens[args.prompt.len()..], "steps": steps,
        }));
    }
    print(output, &steps)
}

fn print(output: &Output, steps: &[Step]) -> Result<()> {
    let tokens: Vec<_> = steps.iter().map(|step| step.token.to_string()).collect();
    output.print(tokens.join(" "))?;
    let mut table = table(&[
        ("step", Align::Left),
        ("frame", Align::Right),
        ("bits/element", Align::Right),
        ("side", Align::Right),
        ("caches head", Align::Right),
        ("tail", Align::Right),
        ("ms", Align::Right),
    ]);
    let mut row = |name: &str, steps: &[Step]| {
        let Some(last) = steps.last() else { return };
        let mean = |value: fn(&Step) -> f64| steps.iter().map(value).sum::<f64>() / steps.len() as f64;
        let bits = 8.0 * mean(|step| step.frame_bytes as f64) / mean(|step| step.elements as f64).max(1.0);
        table.add_row([
            name.to_owned(),
            grouped(mean(|step| step.frame_bytes as f64).round() as u64),
            format!("{bits:.2}"),
            grouped(mean(|step| step.side_bytes as f64).round() as u64),
            grouped(last.head_state_bytes as u64),
            grouped(last.tail_state_bytes as u64),
            format!("{:.1}", mean(|step| step.ms)),
        ]);
    };
    let (prefill, rest) = steps.split_at(1.min(steps.len()));
    row("prefill", prefill);
    row("each token", rest);
    output.print(table)?;
    let compared: Vec<_> = steps
        .iter()
        .filter_map(|step| Some((step.token == step.whole_token?, step.largest_difference?)))
        .collect();
    if !compared.is_empty() {
        let same = compared.iter().filter(|(same, _)| *same).count();
        let largest = compared.iter().map(|(_, difference)| *difference).fold(0.0, f32::max);
        let line = if largest == 0.0 {
            "every logit is the whole model's, bit for bit".to_owned()
        } else {
            format!(
                "the whole model chooses the same token at {same} of {} steps; logits differ by up to {largest:.2e}",
                compared.len()
            )
        };
        output.print(line)?;
    }
    Ok(())
}

/// Logits after the last token: of the first output of rank 3.
fn last_logits(outputs: &[(String, Value)]) -> Result<Vec<f32>> {
    let found = outputs.iter().find(|(name, _)| name == "logits");
    let values = found.and_then(|(_, value)| Some((value.f32()?, *value.shape().last()?)));
    match values {
        Some((values, width)) if width > 0 && values.len() >= width => {
            Ok(values[values.len() - width..].to_vec())
        }
        _ => {
            Err(Failure::data("the model gives no logits").because("it has no float32 output called logits"))
        }
    }
}

fn largest(logits: &[f32]) -> i64 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as i64
}
