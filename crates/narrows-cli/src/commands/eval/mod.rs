//! `narrows eval`: a model on a data set, at cuts, bit widths and methods, as a report.

mod charts;
mod method;
mod page;
mod state;
mod subject;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use indicatif::ProgressBar;
use narrows::{Calibration, Profile, TensorView};
use serde_json::json;

use crate::destination::Destination;
use crate::evaluate::{measure_alike, parse_rate, parse_time, rate_in_words, reference_rate};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, counted, grouped, table};
use method::{Kind, Method};
use state::{Point, State};
use subject::{AtCut, Subject};

const EXAMPLES: &str = "\
Examples:
  narrows eval model.onnx --data images.npz -o report
  narrows eval model.onnx --data images/ --labels labels.npy --cuts layer2 --bits 3,4 -o report
  narrows eval model.onnx --data images.npz --methods contexts,reference --rate 1M -o report

Stopped? The same command goes on where it was. The folder then holds report.json and report.html.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The model, an ONNX file
    model: PathBuf,
    /// Inputs: .npz with an array `images`, .npy, or a folder of .npy files, one input or a batch in each
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Their labels [default: the array `labels` of the .npz, or labels.npy in the folder; else what the model says]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The folder for the report, and for what has been measured so far
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Where to cut [default: all that `narrows cuts` lists]
    #[arg(long, value_name = "TENSORS", value_delimiter = ',')]
    cuts: Vec<String>,
    /// Bit widths of the symbols
    #[arg(long, short, value_name = "BITS", value_delimiter = ',', default_value = "2,3,4,6,8", value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: Vec<u8>,
    /// What to compare [default: all]
    #[arg(long, value_enum, value_name = "METHODS", value_delimiter = ',')]
    methods: Vec<Method>,
    /// Use only the first inputs
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: Option<usize>,
    /// How many inputs, from the first on, profiles are calibrated on
    #[arg(long, value_name = "N", default_value = "200", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    calibration: usize,
    /// Rate of the link in bit/s [default: the reference work's 143.6k]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Round trip of the link for no bytes at all
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_time)]
    round_trip: Duration,
    /// Forget what was measured before in this folder
    #[arg(long, short)]
    force: bool,
}

/// The files of the report.
const JSON: &str = "report.json";
const HTML: &str = "report.html";

/// All points of a cut, and what it takes to draw them.
struct Evaluated {
    at: AtCut,
    points: Vec<Point>,
}

/// The link that times are told for.
#[derive(Clone, Copy)]
struct Crossing {
    rate: f64,
    round_trip: f64,
}

impl Crossing {
    /// Milliseconds that so many bytes take.
    fn milliseconds(self, bytes: f64) -> f64 {
        1e3 * (self.round_trip + bytes * 8.0 / self.rate)
    }
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let crossing = Crossing {
        rate: args.rate.map_or_else(reference_rate, Ok)?,
        round_trip: args.round_trip.as_secs_f64(),
    };
    let subject = Subject::read(args)?;
    let mut state = State::open(&args.output, &subject.identity(args.calibration), args.force)?;
    let jobs = args.jobs(&subject, &state);
    let progress = output.progress((jobs.len() * subject.inputs()) as u64, "evaluating");
    let mut evaluated = Vec::new();
    for cut in &subject.cuts {
        progress.set_message(cut.clone());
        let mut at = subject.at(cut)?;
        for job in jobs.iter().filter(|job| &job.cut == cut) {
            args.measure(job, &subject, &mut at, &mut state, &progress)?;
        }
        at.release();
        let points = args.wanted().filter_map(|(method, bits)| state.find(cut, method, bits).cloned());
        evaluated.push(Evaluated { points: points.collect(), at });
    }
    progress.finish_and_clear();
    let report = report(&subject, &evaluated, crossing);
    let file = |name: &str| Destination::File(args.output.join(name));
    file(JSON).write(serde_json::to_string_pretty(&report).expect("a report is plain data").as_bytes())?;
    file(HTML).write(page::render(&subject, &evaluated, crossing)?.as_bytes())?;
    if output.is_json() {
        return output.print_json(&report);
    }
    print(&subject, &evaluated, crossing, output)?;
    output.note(format!("\n{}: {JSON} and {HTML}", args.output.display()));
    Ok(())
}

/// Methods that carry the same tensors, at one cut.
struct Job {
    cut: String,
    bits: u8,
    kind: Kind,
    methods: Vec<Method>,
}

impl Args {
    /// Methods and bit widths, in the order of the report.
    fn wanted(&self) -> impl Iterator<Item = (Method, u8)> + '_ {
        let methods = if self.methods.is_empty() { Method::ALL } else { &self.methods };
        let mut bits = self.bits.clone();
        bits.sort_unstable();
        bits.dedup();
        methods.iter().flat_map(move |&method| {
            let all = method.kind().only_bits().map_or_else(|| bits.clone(), |only| vec![only]);
            all.into_iter().map(move |bits| (method, bits))
        })
    }

    /// What is left to measure.
    fn jobs(&self, subject: &Subject, state: &State) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        for cut in &subject.cuts {
            for (method, bits) in
                self.wanted().filter(|&(method, bits)| state.find(cut, method, bits).is_none())
            {
                let kind = method.kind();
                let same = |job: &&mut Job| &job.cut == cut && (job.kind, job.bits) == (kind, bits);
                match jobs.iter_mut().find(same) {
                    Some(job) => job.methods.push(method),
                    None => jobs.push(Job { cut: cut.clone(), bits, kind, methods: vec![method] }),
                }
            }
        }
        jobs
    }

    fn measure(
        &self,
        job: &Job,
        subject: &Subject,
        at: &mut AtCut,
        state: &mut State,
        progress: &ProgressBar,
    ) -> Result<()> {
        let profile =
            if job.kind == Kind::Calibrated { Some(self.profile(job.bits, subject, at)?) } else { None };
        let mut codecs = Vec::new();
        for method in &job.methods {
            codecs.push(method.codec(job.bits, profile.as_ref())?);
        }
        at.first(subject, subject.inputs())?;
        let measured = measure_alike(&mut codecs, &at.features(subject), &at.tail, progress)?;
        for (&method, measured) in job.methods.iter().zip(&measured) {
            let key = (job.cut.as_str(), method, job.bits);
            state.keep(Point::new(key, measured, at.elements(), &subject.expected, &subject.unsplit))?;
        }
        Ok(())
    }

    fn profile(&self, bits: u8, subject: &Subject, at: &mut AtCut) -> Result<Arc<Profile>> {
        let features = at.first(subject, self.calibration)?;
        let samples: Vec<TensorView<'_>> = features.iter().map(narrows::Tensor::view).collect();
        let calibration = Calibration { levels: 1 << bits, ..Calibration::default() };
        let profile = Profile::calibrate(&samples, &calibration);
        Ok(Arc::new(profile.map_err(|error| Failure::codec("cannot calibrate a profile", &error))?))
    }
}

fn report(subject: &Subject, evaluated: &[Evaluated], crossing: Crossing) -> serde_json::Value {
    let cuts: Vec<_> = evaluated
        .iter()
        .map(|Evaluated { at, points }| {
            let points: Vec<_> = points
                .iter()
                .map(|point| {
                    let mut json = serde_json::to_value(point).expect("a point is plain data");
                    json["link_ms"] = crossing.milliseconds(point.bytes_mean).into();
                    json
                })
                .collect();
            json!({ "cut": at.name, "shape": at.dims(), "head_us": at.head_us, "points": points })
        })
        .collect();
    json!({
        "format": "narrows-evaluation", "version": 1, "model": subject.name, "inputs": subject.inputs(),
        "labels": subject.labelled, "top1_percent": subject.top1(), "rate_bits_per_second": crossing.rate,
        "round_trip_ms": crossing.round_trip * 1e3, "cuts": cuts,
    })
}

fn print(subject: &Subject, evaluated: &[Evaluated], crossing: Crossing, output: &Output) -> Result<()> {
    let right = Align::Right;
    let mut drawn = table(&[
        ("cut", Align::Left),
        ("Q", right),
        ("method", Align::Left),
        ("bytes", right),
        ("bits/el.", right),
        ("top-1 %", right),
        ("encode µs", right),
        ("link ms", right),
        ("decode µs", right),
        ("tail µs", right),
    ]);
    for Evaluated { at, points } in evaluated {
        let mut cut = at.name.as_str();
        for point in points {
            drawn.add_row([
                std::mem::take(&mut cut).to_owned(),
                point.bits.to_string(),
                point.method.name().to_owned(),
                grouped(point.bytes_mean.round() as u64),
                format!("{:.3}", point.bits_per_element),
                format!("{:.2}", point.top1_percent),
                format!("{:.0}", point.encode_us),
                format!("{:.1}", crossing.milliseconds(point.bytes_mean)),
                format!("{:.0}", point.decode_us),
                format!("{:.0}", point.tail_us),
            ]);
        }
    }
    output.print(drawn)?;
    output.print(format!(
        "\n{}: {}, top-1 {:.2} % without compression; link {}",
        subject.name,
        counted(subject.inputs(), "input"),
        subject.top1(),
        rate_in_words(crossing.rate),
    ))
}
