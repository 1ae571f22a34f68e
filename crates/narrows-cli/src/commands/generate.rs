//! `narrows generate`.

use std::path::PathBuf;

use narrows_split::{Session, Value};
use serde::Serialize;

use crate::commands::embed::{far, rate};
use crate::engine_args::EngineArgs;
use crate::evaluate::{Crossing, SplitText, TextModel, timed, token_inputs};
use crate::failure::{Failure, Result};
use crate::link_args::LinkArgs;
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows generate llama-kv.onnx --at TENSOR --prompt 1,15,42 --new 32
  narrows generate llama-kv.onnx --at TENSOR --prompt 1,15,42 --rate 4 --check
  narrows generate halves --prompt 1,15,42 --server 127.0.0.1:7000     # the tail at `narrows serve --tail halves`

The head reads the prompt (prefill), then one token at a time; the hidden state of each step crosses as a frame, and
caches stay with their layers on either side. Tokens are chosen greedily.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The decoder, an ONNX file with or without key-value caches, or a folder made by `narrows split`
    model: PathBuf,
    /// The tensor to cut at, if it is not split yet; `narrows cuts` lists them
    #[arg(long, value_name = "TENSOR")]
    at: Option<String>,
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
    /// Ask the tail at this address, which `narrows serve` printed [default: it runs here]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    link: LinkArgs,
}

/// How often a stream that is lost is begun again.
const MAX_RESTARTS: u32 = 3;

/// A step, as `--json` prints it.
#[derive(Serialize)]
struct Step {
    token: i64,
    tokens_before: usize,
    elements: usize,
    frame_bytes: usize,
    side_bytes: usize,
    head_state_bytes: usize,
    /// Of the tail; unknown if it is elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    tail_state_bytes: Option<u64>,
    ms: f64,
    /// What the whole model would have chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    whole_token: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_difference: Option<f32>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let model = TextModel::read(&args.model)?;
    let runtime = args.engine.engine;
    if args.at.is_none() && model.whole().is_some() {
        let failure = Failure::usage(format!("{} is not split, and --at is not given", model.name()));
        return Err(failure.hint("`narrows cuts` lists where it can be cut"));
    }
    let cutter = model.cutter(&args.engine.sizes())?;
    let cut = cutter.cuts(args.at.as_slice())?.swap_remove(0);
    let server = args.server.as_deref();
    let parts = cutter.halves(&cut, server.is_none())?;
    let far = far(server, &args.link, parts.tail.as_ref(), runtime)?;
    let mut halves = SplitText::new(&parts.head, &parts.manifest, runtime, far)?;
    halves.set_coding(args.rate.map_or(Crossing::Lossless, Crossing::Within))?;
    let mut whole = args.check.then(|| whole(&model, args)).transpose()?;
    let names = model.inputs()?;
    let mut tokens = args.prompt.clone();
    let mut steps: Vec<Step> = Vec::new();
    // Tokens that both sides have state of: without caches every step reads all tokens again.
    let (mut past, mut restarts) = (0, 0);
    let progress = output.progress(args.new.into(), "tokens");
    while steps.len() < args.new as usize {
        let inputs = token_inputs(&names, &tokens[past..], past)?;
        let (result, duration) = timed(|| halves.step(&inputs));
        let (outputs, crossed) = match result {
            Err(_) if halves.is_gone() && past > 0 && restarts < MAX_RESTARTS => {
                output.note("the server has lost the stream; everything is sent again");
                halves.reset();
                (past, restarts) = (0, restarts + 1);
                continue;
            }
            result => result?,
        };
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
            whole.compare(&names, &tokens, &logits, &mut step)?;
        }
        past = if head_state_bytes == 0 && !halves.has_stream() { 0 } else { tokens.len() };
        tokens.push(token);
        steps.push(step);
        progress.inc(1);
    }
    progress.finish_and_clear();
    if output.is_json() {
        return output.print_json(&serde_json::json!({
            "model": model.name(), "cut": cut, "engine": runtime.name(), "server": server, "rate": args.rate,
            "prompt": args.prompt, "tokens": tokens[args.prompt.len()..], "restarts": restarts, "steps": steps,
        }));
    }
    print(output, &steps)
}

/// The unsplit model, over the same tokens.
struct Whole {
    session: Session,
    /// Tokens that it has state of.
    past: usize,
}

fn whole(model: &TextModel, args: &Args) -> Result<Whole> {
    let whole = model.whole().ok_or_else(|| {
        Failure::usage("--check compares with the whole model")
            .hint("give the model, with --at, not its halves")
    })?;
    let session = Session::new(whole, args.engine.engine);
    let session = session.map_err(|error| Failure::model("cannot run the whole model", &error))?;
    Ok(Whole { session, past: 0 })
}

impl Whole {
    /// What it makes of the tokens, beside what the halves made of them.
    fn compare(&mut self, names: &[String], tokens: &[i64], logits: &[f32], step: &mut Step) -> Result<()> {
        let inputs = token_inputs(names, &tokens[self.past..], self.past)?;
        let given: Vec<_> = inputs.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let outputs = self.session.step(&given);
        let outputs = outputs.map_err(|error| Failure::model("the whole model failed", &error))?;
        self.past = if self.session.has_state() { tokens.len() } else { 0 };
        let expected = last_logits(&outputs)?;
        let differences = logits.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
        step.largest_difference = Some(differences.fold(0.0, f32::max));
        step.whole_token = Some(largest(&expected));
        Ok(())
    }
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
            last.tail_state_bytes.map_or_else(|| "-".to_owned(), grouped),
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
