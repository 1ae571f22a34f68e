//! `narrows embed`.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use narrows::Profiles;
use narrows_link::StreamLimits;
use narrows_split::{Runtime, Session, Value};
use npyz::WriterBuilder as _;
use serde::Serialize;

use crate::engine_args::EngineArgs;
use crate::evaluate::{Crossing, Cutter, Far, SplitText, TextModel, cosine, profile_within, token_inputs};
use crate::failure::{Failure, Result};
use crate::link_args::LinkArgs;
use crate::output::{Align, Output, grouped, table};
use crate::tails::{Served, Tails};

const EXAMPLES: &str = "\
Examples:
  narrows embed minilm.onnx --tokens sentences.ids                           # at every cut, 2.5 and 4 bits an element
  narrows embed minilm.onnx --tokens sentences.ids --at TENSOR --rate 3 --rate 2
  narrows embed minilm.onnx --tokens sentences.ids --calibrate others.ids     # with a profile that both ends have
  narrows embed minilm.onnx --tokens sentences.ids --at TENSOR --rate 4 -o embeddings.npy
  narrows embed halves --tokens sentences.ids --rate 4 -o embeddings.npy --server 127.0.0.1:7000
                                             # the head here, the tail at `narrows serve --tail halves`

The tokens are a text file: a sentence on each line, its token numbers with spaces between them. The embedding is
the model's last output. The cosine is that of its angle to the unsplit model's, where that is known.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The encoder, an ONNX file, or a folder made by `narrows split`
    model: PathBuf,
    /// Sentences as token numbers, one sentence a line
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// The tensor to cut at; again for more [default: every cut that `narrows cuts` lists]
    #[arg(long, value_name = "TENSOR")]
    at: Vec<String>,
    /// The most bits that an element may take, the whole frame counted; again for more [default: 2.5 and 4].
    /// With a profile, the mean over the sentences it was calibrated on
    #[arg(long, value_name = "BITS", value_parser = rate)]
    rate: Vec<f32>,
    /// Other sentences to calibrate a profile on, for each cut and rate: frames then carry no tables
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// A file for the embeddings of the last cut and rate, .npy
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Ask the tail at this address, which `narrows serve` printed [default: it runs here]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    link: LinkArgs,
}

/// Where the tail of a text model is, for the command line.
pub fn far(
    server: Option<&str>,
    link: &LinkArgs,
    tail: Option<&narrows_split::Model>,
    runtime: Runtime,
) -> Result<Far> {
    match (server, tail) {
        (Some(server), _) => Ok(Far::There(Box::new(link.connect(server, None, None)?))),
        (None, Some(tail)) => {
            let tail = Served::new(tail, "the tail", runtime)?;
            Ok(Far::Here(Box::new(Tails::new(vec![tail], Profiles::default(), StreamLimits::default())?)))
        }
        (None, None) => Err(Failure::usage("there is no tail to ask")),
    }
}

/// A rate in bits for each element.
pub fn rate(text: &str) -> Result<f32, String> {
    let rate: f32 = text.parse().map_err(|_| format!("`{text}` is not a number of bits"))?;
    if (0.1..=8.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("a rate is 0.1 to 8 bits for each element".into())
    }
}

/// A cut and a rate, as `--json` prints them.
#[derive(Default, Serialize)]
struct Row {
    tensor: String,
    rate: f32,
    sentences: usize,
    bytes_per_sentence: f64,
    side_bytes_per_sentence: f64,
    bits_per_element: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cosine_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cosine_mean: Option<f64>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let model = TextModel::read(&args.model)?;
    let sentences = read_tokens(&args.tokens)?;
    let cutter = model.cutter(&args.engine.sizes())?;
    let cuts = cutter.cuts(&args.at)?;
    let rates = if args.rate.is_empty() { vec![2.5, 4.0] } else { args.rate.clone() };
    let names = model.inputs()?;
    let fed = |sentences: &[Vec<i64>]| {
        sentences.iter().map(|tokens| token_inputs(&names, tokens, 0)).collect::<Result<Vec<_>>>()
    };
    let inputs = fed(&sentences)?;
    let calibration = match &args.calibrate {
        Some(path) => fed(&read_tokens(path)?)?,
        None => Vec::new(),
    };
    let progress = output.progress((inputs.len() * (1 + cuts.len() * rates.len())) as u64, "sentences");
    let expected = whole_embeddings(&model, args.engine.engine, &inputs, &progress)?;
    let (mut rows, mut last) = (Vec::new(), Vec::new());
    for cut in &cuts {
        let mut halves = split_text(args, &cutter, cut)?;
        let samples = calibration.iter().map(|inputs| halves.payload(inputs)).collect::<Result<Vec<_>>>()?;
        for &rate in &rates {
            halves.set_coding(if samples.is_empty() {
                Crossing::Within(rate)
            } else {
                let failed = |error| Failure::codec(format!("cannot calibrate a profile at {cut}"), &error);
                Crossing::Profile(profile_within(&samples, rate).map_err(failed)?)
            })?;
            let (row, found) = measure(&mut halves, &inputs, expected.as_deref(), &progress)?;
            rows.push(Row { tensor: cut.clone(), rate, ..row });
            last = found;
        }
    }
    progress.finish_and_clear();
    if let Some(path) = &args.output {
        write_npy(path, &last)?;
    }
    if output.is_json() {
        return output.print_json(&serde_json::json!({
            "model": model.name(), "sha256": model.sha256(), "engine": args.engine.engine.name(),
            "server": args.server, "calibrated_on": calibration.len(), "results": rows,
        }));
    }
    print(output, &rows)
}

fn split_text(args: &Args, cutter: &Cutter<'_>, cut: &str) -> Result<SplitText> {
    let (server, runtime) = (args.server.as_deref(), args.engine.engine);
    let halves = cutter.halves(cut, server.is_none())?;
    let far = far(server, &args.link, halves.tail.as_ref(), runtime)?;
    SplitText::new(&halves.head, &halves.manifest, runtime, far)
}

/// What the unsplit model gives, if it is known.
fn whole_embeddings(
    model: &TextModel,
    runtime: Runtime,
    inputs: &[Vec<(String, Value)>],
    progress: &ProgressBar,
) -> Result<Option<Vec<Vec<f32>>>> {
    let Some(whole) = model.whole() else { return Ok(None) };
    let failed = |error| Failure::model(format!("cannot run {}", model.name()), &error);
    let mut whole = Session::new(whole, runtime).map_err(failed)?;
    let mut embeddings = Vec::new();
    for inputs in inputs {
        let given: Vec<_> = inputs.iter().map(|(name, value)| (name.as_str(), value)).collect();
        embeddings.push(embedding(&whole.step(&given).map_err(failed)?)?);
        progress.inc(1);
    }
    Ok(Some(embeddings))
}

/// All sentences at one cut and rate: the row but for its name, and the embeddings.
fn measure(
    halves: &mut SplitText,
    inputs: &[Vec<(String, Value)>],
    expected: Option<&[Vec<f32>]>,
    progress: &ProgressBar,
) -> Result<(Row, Vec<Vec<f32>>)> {
    let mut row = Row { sentences: inputs.len(), ..Row::default() };
    let (mut elements, mut found, mut cosines) = (0, Vec::new(), Vec::new());
    for (index, inputs) in inputs.iter().enumerate() {
        halves.reset();
        let (outputs, crossed) = halves.step(inputs)?;
        let embedding = embedding(&outputs)?;
        cosines.extend(expected.map(|expected| cosine(&embedding, &expected[index])));
        row.bytes_per_sentence += crossed.frame as f64;
        row.side_bytes_per_sentence += crossed.side as f64;
        elements += crossed.elements;
        found.push(embedding);
        progress.inc(1);
    }
    row.bits_per_element = row.bytes_per_sentence * 8.0 / elements.max(1) as f64;
    let count = inputs.len().max(1) as f64;
    row.bytes_per_sentence /= count;
    row.side_bytes_per_sentence /= count;
    row.cosine_min = cosines.iter().copied().reduce(f64::min);
    row.cosine_mean = row.cosine_min.map(|_| cosines.iter().sum::<f64>() / count);
    Ok((row, found))
}

fn print(output: &Output, rows: &[Row]) -> Result<()> {
    let mut table = table(&[
        ("tensor", Align::Left),
        ("rate", Align::Right),
        ("bits/element", Align::Right),
        ("bytes/sentence", Align::Right),
        ("side", Align::Right),
        ("cosine min", Align::Right),
        ("mean", Align::Right),
    ]);
    let cosine = |cosine: Option<f64>| cosine.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.5}"));
    for row in rows {
        table.add_row([
            row.tensor.clone(),
            row.rate.to_string(),
            format!("{:.3}", row.bits_per_element),
            grouped(row.bytes_per_sentence.round() as u64),
            grouped(row.side_bytes_per_sentence.round() as u64),
            cosine(row.cosine_min),
            cosine(row.cosine_mean),
        ]);
    }
    output.print(table)
}

/// The last output, a vector for the one sentence.
fn embedding(outputs: &[(String, Value)]) -> Result<Vec<f32>> {
    let last = outputs.iter().rev().find(|(_, value)| value.shape().len() == 2);
    let values = last.and_then(|(_, value)| value.f32());
    values.map(<[f32]>::to_vec).ok_or_else(|| {
        Failure::data("the model gives no embedding")
            .because("none of its outputs is a float32 tensor of rank 2")
    })
}

/// Sentences of a file, as token numbers.
pub fn read_tokens(path: &Path) -> Result<Vec<Vec<i64>>> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
    let mut sentences = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let tokens: Result<Vec<i64>, _> = line.split_whitespace().map(str::parse).collect();
        sentences.push(tokens.map_err(|error| {
            let failure =
                Failure::data(format!("{} holds something other than token numbers", path.display()));
            failure.because(format!("line {}: {error}", index + 1))
        })?);
    }
    if sentences.is_empty() {
        return Err(Failure::data(format!("{} holds no sentence", path.display())));
    }
    Ok(sentences)
}

fn write_npy(path: &Path, rows: &[Vec<f32>]) -> Result<()> {
    let failed = |error: std::io::Error| Failure::io("write", path, &error);
    let shape = [rows.len() as u64, rows.first().map_or(0, Vec::len) as u64];
    let file = BufWriter::new(File::create(path).map_err(failed)?);
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd().map_err(failed)?;
    writer.extend(rows.iter().flatten().copied()).map_err(failed)?;
    writer.finish().map_err(failed)
}
