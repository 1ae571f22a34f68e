//! `narrows bench precision`: accuracy against bits a weight, for fixed, allocated and learned precision.

mod coders;
mod page;
mod runs;

use std::path::PathBuf;
use std::time::Instant;

use narrows_train::{Device, Examples, Model, Trained, Trainer, allocate, fisher_information};

use crate::commands::train::{examples, failure};
use crate::destination::{Destination, Existing};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, table};
use runs::{Family, Result as Row, Run, planned};

const EXAMPLES: &str = "\
Examples:
  narrows bench precision models/fashion-resnet/model.onnx --dataset bench/out/fashion-mnist
                                                   the whole tables: about a day on two cores
  narrows bench precision MODEL --dataset DIR --images 6000 --epochs 2 --seeds 1
                                                   the same tables in small
  narrows bench precision MODEL --dataset DIR --checkpoint trained.safetensors
                                                   and what coders make of the weights that were trained
Every run that is done is kept in the JSON file beside the page: a second call with the same arguments goes on.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The network, an ONNX file with batch normalisation folded in
    model: PathBuf,
    /// Folder of gzipped IDX files (MNIST's format), named as in Debian's dataset-fashion-mnist
    #[arg(long, value_name = "DIR")]
    dataset: PathBuf,
    /// Page to write
    #[arg(long, short, value_name = "FILE", default_value = "precision.html")]
    output: PathBuf,
    /// Runs of each kind
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Passes over the training images
    #[arg(long, value_name = "N", default_value_t = 4)]
    epochs: usize,
    /// Use only the first training and test images
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// A checkpoint of `narrows train` whose weights coders and models are compared on
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Bytes that DeepCABAC makes of the same weights (`bench/deepcabac`)
    #[arg(long, value_name = "BYTES", requires = "checkpoint")]
    deepcabac: Option<usize>,
}

/// Images that the Fisher information is estimated on.
const FISHER_IMAGES: usize = 512;

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let page = Destination::from(args.output.as_path());
    page.check(Existing::Replace)?;
    let kept = args.output.with_extension("json");
    let mut results = runs::kept(&kept, args.epochs, args.images)?;
    let coders = args.checkpoint.as_deref().map(|file| coders::measure(file, args.deepcabac)).transpose()?;
    let model =
        Model::open(&args.model).map_err(|error| Failure::weights("cannot read the network", &error))?;
    let (mut training, mut test) = examples::read(&args.dataset, &model)?;
    if let Some(images) = args.images {
        training.truncate(images);
        test.truncate(images);
    }
    let bench = Bench { model: &model, training, test, epochs: args.epochs, device: Device::default() };
    let runs = planned(args.seeds);
    let progress = output.progress(runs.len() as u64, "training");
    for run in &runs {
        if !results.rows.iter().any(|row| row.run == *run) {
            let row = bench.row(run).map_err(|error| failure("cannot train the network", &error))?;
            progress.suspend(|| output.note(row.in_words()));
            results.rows.push(row);
            runs::keep(&kept, &results)?;
            page.write(page::render(&results, coders.as_ref())?.as_bytes())?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    page.write(page::render(&results, coders.as_ref())?.as_bytes())?;
    if output.is_json() {
        return output.print_json(&results);
    }
    print(&results.rows, output)?;
    output.print(format!("{} has the tables", args.output.display()))
}

struct Bench<'a> {
    model: &'a Model,
    training: Examples,
    test: Examples,
    epochs: usize,
    device: Device,
}

impl Bench<'_> {
    fn row(&self, run: &Run) -> narrows_train::Result<Row> {
        let started = Instant::now();
        let trained = match run.family {
            Family::Fisher => self.allocated(run)?,
            Family::Float | Family::Fixed | Family::Priced | Family::Entropy => self.trained(run)?,
        };
        let quantised = !trained.layers().is_empty();
        Ok(Row {
            run: run.clone(),
            accuracy_percent: trained.accuracy(&self.test, &self.device)?,
            bits_per_weight: quantised.then(|| trained.rate().bits_per_weight()),
            entropy_per_weight: quantised.then(|| trained.rate().entropy_per_weight()),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn allocated(&self, run: &Run) -> narrows_train::Result<Trained> {
        let (model, device) = (self.model, &self.device);
        let information = fisher_information(model, &self.training, FISHER_IMAGES, run.seed, device)?;
        allocate(model, &self.training, &information, run.value, device)
    }

    fn trained(&self, run: &Run) -> narrows_train::Result<Trained> {
        let settings = run.settings(self.epochs, self.training.len());
        let mut trainer = Trainer::new(self.model, self.training.clone(), settings, &self.device)?;
        while !trainer.is_done() {
            trainer.step()?;
        }
        Ok(trainer.finish())
    }
}

fn print(rows: &[Row], output: &Output) -> Result<()> {
    let left = |name| (name, Align::Left);
    let right = |name| (name, Align::Right);
    let headings = [left("precision"), right("seed"), right("bits/weight"), right("entropy"), right("top-1")];
    let mut lines = table(&headings);
    let bits = |bits: Option<f64>| bits.map_or("32".to_owned(), |bits| format!("{bits:.3}"));
    for row in rows {
        lines.add_row([
            row.run.title(),
            row.run.seed.to_string(),
            bits(row.bits_per_weight),
            bits(row.entropy_per_weight),
            format!("{:.2} %", row.accuracy_percent),
        ]);
    }
    output.print(lines)
}

/// A file of this command cannot be used.
fn unusable(file: &std::path::Path, cause: impl std::fmt::Display) -> Failure {
    Failure::data(format!("{} cannot be used", file.display())).because(cause)
}
