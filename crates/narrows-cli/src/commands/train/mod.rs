//! `narrows train`: a network whose weights compress, by training or by its Fisher information.

mod chart;
pub mod examples;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::ProgressBar;
use narrows_train::{
    Device, Error, Examples, Goal, Model, Precision, Settings, Trained, Trainer, allocate, fisher_information,
};
use serde::Serialize;

use crate::destination::{Destination, Existing};
use crate::failure::{Code, Failure, Result};
use crate::output::{Align, Output, table};

const EXAMPLES: &str = "\
Examples:
  bench/fashion-mnist                              fetches the data set into bench/out
  narrows train model.onnx --dataset bench/out/fashion-mnist --bits 0.5
                                                   half a bit a weight, everything counted
  narrows train model.onnx --dataset DIR --drop 1  as few bits as cost at most one point of accuracy
  narrows train model.onnx --dataset DIR --fisher 1.6
                                                   1.6 bits a weight without training, in a minute
  narrows train model.onnx --dataset DIR --float   the network to compare with
  narrows train ... --resume                       go on where a run was stopped

Beside the checkpoint come a model with the trained weights (.onnx), the result and the curve (.json) and a
drawing of it (.svg). `narrows pack` takes the checkpoint with the steps that were learned.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("goal").args(["bits", "drop", "price", "fisher", "float"]))]
pub struct Args {
    /// The network, an ONNX file with batch normalisation folded in
    model: PathBuf,
    /// Folder of gzipped IDX files (MNIST's format), named as in Debian's dataset-fashion-mnist
    #[arg(long, value_name = "DIR")]
    dataset: PathBuf,
    /// Checkpoint to write
    #[arg(long, short, value_name = "FILE", default_value = "trained.safetensors")]
    output: PathBuf,
    /// Bits a weight to reach, tables, steps, biases and names counted [default: 0.5]
    #[arg(long, value_name = "BITS")]
    bits: Option<f64>,
    /// Points of accuracy that may be lost, for as few bits as that allows
    #[arg(long, value_name = "POINTS")]
    drop: Option<f64>,
    /// A fixed price for one bit a weight, in units of the loss; 0 ignores the rate
    #[arg(long, value_name = "PRICE")]
    price: Option<f64>,
    /// Do not train: steps by Fisher information, for so many bits a weight
    #[arg(long, value_name = "BITS")]
    fisher: Option<f64>,
    /// Train float32 weights in the same way, the network that others are compared with
    #[arg(long)]
    float: bool,
    /// The most different values in a layer: odd, 3 to 255, or even (none of them zero), 2 to 128
    #[arg(long, value_name = "N", default_value_t = 31)]
    bins: u32,
    /// Passes over the training images
    #[arg(long, value_name = "N", default_value_t = 8)]
    epochs: usize,
    /// Images of a batch
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch: usize,
    /// Orders and augmentations follow from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Share of the original network's answers in what is learned, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    distillation: f32,
    /// Use only the first training and test images
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Go on where a run with the same arguments was stopped
    #[arg(long)]
    resume: bool,
    /// Replace files that are there
    #[arg(long, short)]
    force: bool,
}

/// Steps between two states on disk.
const SAVED_EVERY: usize = 100;
/// Images that the Fisher information is estimated on.
const FISHER_IMAGES: usize = 512;

#[derive(Serialize)]
struct Report<'a> {
    model: &'a Path,
    checkpoint: &'a Path,
    accuracy_percent: f64,
    original_percent: f64,
    test_images: usize,
    bits_per_weight: Option<f64>,
    entropy_per_weight: Option<f64>,
    rate: Option<&'a narrows_train::Rate>,
    layers: &'a [narrows_train::LayerPoint],
    settings: &'a Settings,
    fisher_bits: Option<f64>,
    seconds: f64,
    curve: &'a narrows_train::Curve,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let beside = |extension: &str| args.output.with_extension(extension);
    let destination = Destination::from(args.output.as_path());
    destination.check(Existing::replace_if(args.force || args.resume))?;
    let model =
        Model::open(&args.model).map_err(|error| Failure::weights("cannot read the network", &error))?;
    let (mut training, mut test) = examples::read(&args.dataset, &model)?;
    if let Some(images) = args.images {
        training.truncate(images);
        test.truncate(images);
    }
    let (device, started) = (Device::default(), Instant::now());
    let settings = settings(args, &training);
    let original = Trained::untrained(&model).accuracy(&test, &device);
    let original = original.map_err(|error| failure("the images do not fit the network", &error))?;
    let trained = match args.fisher {
        Some(bits) => without_training(args, bits, &model, &training, &device, output)?,
        None => with_training(&settings, &model, training, &device, &beside("resume"), args.resume, output)?,
    };
    let accuracy =
        trained.accuracy(&test, &device).map_err(|error| failure("cannot measure accuracy", &error))?;
    let quantised = !trained.layers().is_empty();
    let rate = quantised.then(|| trained.rate());
    if let (Some(asked), Some(found)) = (bits_to_reach(&settings, args.fisher), rate) {
        note_if_missed(asked, found.bits_per_weight(), output);
    }
    let report = Report {
        model: &args.model,
        checkpoint: &args.output,
        accuracy_percent: accuracy,
        original_percent: original,
        test_images: test.len(),
        bits_per_weight: rate.map(narrows_train::Rate::bits_per_weight),
        entropy_per_weight: rate.map(narrows_train::Rate::entropy_per_weight),
        rate,
        layers: trained.layers(),
        settings: &settings,
        fisher_bits: args.fisher,
        seconds: started.elapsed().as_secs_f64(),
        curve: trained.curve(),
    };
    destination.write(&trained.checkpoint())?;
    Destination::File(beside("onnx")).write(&trained.onnx(&model))?;
    Destination::File(beside("json")).write(&serde_json::to_vec(&report).expect("reports are plain data"))?;
    if !trained.curve().points.is_empty() {
        Destination::File(beside("svg")).write(chart::draw(trained.curve(), original).as_bytes())?;
    }
    // The run is over: nothing to go on with.
    let _ = fs::remove_file(beside("resume"));
    if output.is_json() { output.print_json(&report) } else { print(&report, output) }
}

/// How much more than asked for is not worth a word, relative.
const NEAR: f64 = 0.02;

/// The bits a weight that a training was asked to reach, if it was asked for bits.
const fn bits_to_reach(settings: &Settings, fisher: Option<f64>) -> Option<f64> {
    match settings.precision {
        Precision::Learned { goal: Goal::BitsPerWeight(bits), .. } if fisher.is_none() => Some(bits),
        _ => None,
    }
}

fn note_if_missed(asked: f64, found: f64, output: &Output) {
    if found > asked * (1.0 + NEAR) {
        output.note(format!(
            "{found:.3} bits a weight, not the {asked} that were asked for: give more --epochs (or more --images)"
        ));
    }
}

fn settings(args: &Args, training: &Examples) -> Settings {
    let goal = match (args.price, args.drop, args.bits) {
        (Some(price), ..) => Goal::Price(price),
        (_, Some(points), _) => Goal::Drop(points),
        (.., bits) => Goal::BitsPerWeight(bits.unwrap_or(0.5)),
    };
    let precision = if args.float { Precision::Float } else { Precision::Learned { bins: args.bins, goal } };
    let defaults = Settings::default();
    Settings {
        precision,
        epochs: args.epochs,
        batch: args.batch,
        seed: args.seed,
        distillation: args.distillation,
        // A small set keeps most of its images for learning.
        held_out: defaults.held_out.min(training.len() / 10).max(1),
        ..defaults
    }
}

fn without_training(
    args: &Args,
    bits: f64,
    model: &Model,
    training: &Examples,
    device: &Device,
    output: &Output,
) -> Result<Trained> {
    output.note(format!("Fisher information from {FISHER_IMAGES} images"));
    fisher_information(model, training, FISHER_IMAGES, args.seed, device)
        .and_then(|information| allocate(model, training, &information, bits, device))
        .map_err(|error| failure("cannot quantise the network", &error))
}

fn with_training(
    settings: &Settings,
    model: &Model,
    training: Examples,
    device: &Device,
    state: &Path,
    resume: bool,
    output: &Output,
) -> Result<Trained> {
    let cannot = |error: &Error| failure("cannot train the network", error);
    let trainer = if resume {
        Trainer::resume(model, training, settings.clone(), device, state)
    } else {
        Trainer::new(model, training, settings.clone(), device)
    };
    let mut trainer = trainer.map_err(|error| cannot(&error))?;
    let progress = output.progress(trainer.steps() as u64, "training");
    progress.set_position(trainer.steps_done() as u64);
    progress.reset_eta();
    while !trainer.is_done() {
        let report = trainer.step().map_err(|error| cannot(&error))?;
        progress.set_position(report.steps as u64);
        tell(&trainer, &progress, output);
        if report.steps.is_multiple_of(SAVED_EVERY) {
            trainer.save(state).map_err(|error| failure("cannot save the training", &error))?;
        }
    }
    progress.finish_and_clear();
    Ok(trainer.finish())
}

/// A line for each pass over the images.
fn tell(trainer: &Trainer<'_>, progress: &ProgressBar, output: &Output) {
    let Some(point) = trainer.curve().points.last().filter(|point| point.step == trainer.steps_done()) else {
        return;
    };
    let Some(accuracy) = point.accuracy else { return };
    let bits = point.rate.map(|rate| format!(", {:.3} bits a weight", rate.bits_per_weight()));
    let line = format!(
        "epoch {:.2}: loss {:.4}, held out {accuracy:.2} % (original {:.2} %){}",
        point.epoch,
        point.loss,
        trainer.original_accuracy(),
        bits.unwrap_or_default(),
    );
    progress.suspend(|| output.note(line));
}

fn print(report: &Report<'_>, output: &Output) -> Result<()> {
    if !report.layers.is_empty() {
        let left = |name| (name, Align::Left);
        let right = |name| (name, Align::Right);
        let headings = [left("layer"), right("step"), right("bits/weight"), right("zeros"), right("values")];
        let mut rows = table(&headings);
        for layer in report.layers {
            rows.add_row([
                layer.name.clone(),
                format!("{:.5}", layer.step),
                format!("{:.3}", layer.bits),
                format!("{:.1} %", 100.0 * layer.zeros),
                layer.bins.to_string(),
            ]);
        }
        output.print(rows)?;
        output.print("")?;
    }
    let Report { accuracy_percent, original_percent, test_images, .. } = report;
    output.print(format!(
        "{accuracy_percent:.2} % of {test_images} test images right ({:+.2} points from {original_percent:.2} %)",
        accuracy_percent - original_percent,
    ))?;
    if let (Some(bits), Some(entropy)) = (report.bits_per_weight, report.entropy_per_weight) {
        output.print(format!("{bits:.3} bits a weight, {entropy:.3} of them the weights' entropy"))?;
    }
    output.print(format!("{} in {:.0} s", report.checkpoint.display(), report.seconds))
}

/// The trainer refused: what it said is the cause, unreworded.
pub fn failure(sentence: &str, error: &Error) -> Failure {
    if let Error::Model(error) = error {
        return Failure::weights(sentence, error);
    }
    let code = match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Code::NoInput,
        Error::Io { .. } => Code::Io,
        Error::InvalidSetting { .. } => Code::Usage,
        _ => Code::Data,
    };
    let failure = Failure::new(code, sentence).because(error);
    match error {
        Error::Checkpoint { .. } => failure.hint("train without --resume to start anew"),
        Error::Diverged { .. } => failure.hint("more bits, or a lower --price, may help"),
        _ => failure,
    }
}
