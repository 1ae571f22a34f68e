//! `narrows embed`.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use narrows_split::{Model, Place, Session, Splitter, Value, offered};
use npyz::WriterBuilder as _;
use serde::Serialize;

use crate::engine_args::EngineArgs;
use crate::evaluate::{Crossing, SplitText, cosine, profile_within, token_inputs};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows embed minilm.onnx --tokens sentences.ids                           # at every cut, 2.5 and 4 bits an element
  narrows embed minilm.onnx --tokens sentences.ids --at TENSOR --rate 3 --rate 2
  narrows embed minilm.onnx --tokens sentences.ids --calibrate others.ids     # with a profile that both ends have
  narrows embed minilm.onnx --tokens sentences.ids --at TENSOR --rate 4 -o embeddings.npy

The tokens are a text file: a sentence on each line, its token numbers with spaces between them. The embedding is
the model's last output. The cosine is that of its angle to the unsplit model's.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The encoder, an ONNX file
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
    #[command(flatten)]
    engine: EngineArgs,
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
#[derive(Serialize)]
struct Row {
    tensor: String,
    rate: f32,
    sentences: usize,
    bytes_per_sentence: f64,
    side_bytes_per_sentence: f64,
    bits_per_element: f64,
    cosine_min: f64,
    cosine_mean: f64,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let name = args.model.display();
    let model = Model::read(&args.model)
        .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
    let sentences = read_tokens(&args.tokens)?;
    let failed = |error| Failure::model(format!("cannot split {name}"), &error);
    let splitter = Splitter::new(&model, &args.engine.sizes()).map_err(failed)?;
    let cuts: Vec<String> = match args.at.as_slice() {
        [] => offered(splitter.cuts())
            .iter()
            .filter(|cut| cut.place == Place::Inner)
            .map(|cut| cut.name.clone())
            .collect(),
        given => given.to_vec(),
    };
    if cuts.is_empty() {
        return Err(Failure::data(format!("{name} has no cut")));
    }
    let rates = if args.rate.is_empty() { vec![2.5, 4.0] } else { args.rate.clone() };
    let mut whole = Session::new(&model, args.engine.engine)
        .map_err(|error| Failure::model(format!("cannot run {name}"), &error))?;
    let ports = whole.engine().inputs().to_vec();
    let inputs =
        sentences.iter().map(|tokens| token_inputs(&ports, tokens, 0)).collect::<Result<Vec<_>>>()?;
    let calibration = match &args.calibrate {
        Some(path) => read_tokens(path)?,
        None => Vec::new(),
    };
    let calibration =
        calibration.iter().map(|tokens| token_inputs(&ports, tokens, 0)).collect::<Result<Vec<_>>>()?;
    let progress = output.progress((inputs.len() * (1 + cuts.len() * rates.len())) as u64, "sentences");
    let mut expected = Vec::new();
    for inputs in &inputs {
        let given: Vec<_> = inputs.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let outputs = whole.step(&given).map_err(|error| Failure::model("the whole model failed", &error))?;
        expected.push(embedding(&outputs)?);
        progress.inc(1);
    }
    let (mut rows, mut last) = (Vec::new(), Vec::new());
    for cut in &cuts {
        let split = splitter.split(cut).map_err(failed)?;
        let mut halves = SplitText::new(&split, args.engine.engine, Crossing::Plain)?;
        let samples = calibration.iter().map(|inputs| halves.payload(inputs)).collect::<Result<Vec<_>>>()?;
        for &rate in &rates {
            halves.set_coding(if samples.is_empty() {
                Crossing::Within(rate)
            } else {
                let failed = |error| Failure::codec(format!("cannot calibrate a profile at {cut}"), &error);
                Crossing::Profile(profile_within(&samples, rate).map_err(failed)?)
            });
            last.clear();
            let mut row = Row::new(cut, rate, inputs.len());
            let mut elements = 0;
            for (inputs, expected) in inputs.iter().zip(&expected) {
                halves.reset();
                let (outputs, crossed) = halves.step(inputs)?;
                let found = embedding(&outputs)?;
                let cosine = cosine(&found, expected);
                row.bytes_per_sentence += crossed.frame as f64;
                row.side_bytes_per_sentence += crossed.side as f64;
                row.cosine_min = row.cosine_min.min(cosine);
                row.cosine_mean += cosine;
                elements += crossed.elements;
                last.push(found);
                progress.inc(1);
            }
            row.bits_per_element = row.bytes_per_sentence * 8.0 / elements.max(1) as f64;
            let count = inputs.len().max(1) as f64;
            for sum in [&mut row.bytes_per_sentence, &mut row.side_bytes_per_sentence, &mut row.cosine_mean] {
                *sum /= count;
            }
            rows.push(row);
        }
    }
    progress.finish_and_clear();
    if let Some(path) = &args.output {
        write_npy(path, &last)?;
    }
    if output.is_json() {
        return output.print_json(&serde_json::json!({
            "model": name.to_string(), "sha256": model.sha256(), "engine": args.engine.engine.name(),
            "calibrated_on": calibration.len(), "results": rows,
        }));
    }
    print(output, &rows)
}

impl Row {
    fn new(tensor: &str, rate: f32, sentences: usize) -> Self {
        Self {
            tensor: tensor.into(),
            rate,
            sentences,
            bytes_per_sentence: 0.0,
            side_bytes_per_sentence: 0.0,
            bits_per_element: 0.0,
            cosine_min: 1.0,
            cosine_mean: 0.0,
        }
    }
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
    for row in rows {
        table.add_row([
            row.tensor.clone(),
            row.rate.to_string(),
            format!("{:.3}", row.bits_per_element),
            grouped(row.bytes_per_sentence.round() as u64),
            grouped(row.side_bytes_per_sentence.round() as u64),
            format!("{:.5}", row.cosine_min),
            format!("{:.5}", row.cosine_mean),
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
