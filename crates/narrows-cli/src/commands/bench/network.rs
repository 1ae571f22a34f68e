//! `narrows bench network`: a network that runs from packed weights, beside the same network from its float32 model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use narrows_weights::PackedFile;
use narrows_weights::net::{Classifier, Images, Model};
use serde::Serialize;

use crate::evaluate::Dataset;
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows pack models/fashion-resnet/model.onnx -o packed.safetensors
  narrows bench network packed.safetensors --model models/fashion-resnet/model.onnx
                                                   on the 1,000 test images that the program carries
  narrows bench network trained.packed.safetensors --model model.onnx --dataset bench/out/fashion-mnist
                                                   on all test images of a folder";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The packed weights
    packed: PathBuf,
    /// The ONNX model that they belong to: what is computed, and the weights to compare with
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Folder of gzipped IDX files [default: 1,000 images that the program carries]
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Use only the first images
    #[arg(long, value_name = "N")]
    images: Option<usize>,
}

/// Images that are computed together.
const BATCH: usize = 32;

#[derive(Serialize)]
struct Row {
    weights: &'static str,
    accuracy_percent: f64,
    /// Images whose answer is the float32 network's.
    agreement_percent: f64,
    /// What the weights take as a file.
    bytes: u64,
    bits_per_weight: f64,
    /// Memory that a copy of the network takes once it has computed an image, its file included; none where the system does not
    /// tell.
    resident_bytes: Option<u64>,
    milliseconds_per_image: f64,
}

#[derive(Serialize)]
struct Report {
    images: usize,
    weights: usize,
    rows: Vec<Row>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let failed = |path: &Path| {
        let sentence = format!("cannot run {}", path.display());
        move |error: narrows_weights::Error| Failure::weights(sentence, &error)
    };
    let mut dataset = match &args.dataset {
        Some(folder) => Dataset::from_folder(folder)?,
        None => Dataset::embedded()?,
    };
    dataset.truncate(args.images.unwrap_or(usize::MAX));
    let model = Model::open(&args.model).map_err(failed(&args.model))?;
    let network = model.network().clone();
    let first = Images::new(dataset.iter().take(1).flat_map(|(image, _)| image).collect(), network.image())
        .map_err(failed(&args.model))?;
    let used = |network: Classifier| network.run(first.clone()).map(|_| network);
    let (packed, packed_resident) = resident(|| {
        let file = PackedFile::open(&args.packed)?;
        Classifier::of(&network, &file).and_then(used)
    })
    .map_err(failed(&args.packed))?;
    let (dense, dense_resident) =
        resident(|| Classifier::dense(&model).and_then(used)).map_err(failed(&args.model))?;
    let file_bytes = PackedFile::open(&args.packed).map_err(failed(&args.packed))?.bytes().0;

    let progress = output.progress(2 * dataset.len() as u64, "images");
    let answers = |network: &Classifier| {
        answers(network, &dataset, |images| progress.inc(images)).map_err(failed(&args.packed))
    };
    let (float, float_time) = answers(&dense)?;
    let (own, own_time) = answers(&packed)?;
    progress.finish_and_clear();
    let weights = network.weights();
    let row = |name, answers: &[usize], seconds: f64, bytes: u64, resident_bytes| Row {
        weights: name,
        accuracy_percent: share(
            answers.iter().zip(dataset.iter()).filter(|(a, (_, label))| **a == usize::from(*label)).count(),
            &dataset,
        ),
        agreement_percent: share(answers.iter().zip(&float).filter(|(a, b)| a == b).count(), &dataset),
        bytes,
        bits_per_weight: 8.0 * bytes as f64 / weights as f64,
        resident_bytes,
        milliseconds_per_image: 1e3 * seconds / dataset.len() as f64,
    };
    let dense_bytes: usize =
        network.layers().iter().map(|layer| 4 * (layer.weights() + layer.outputs())).sum();
    let rows = vec![
        row("packed", &own, own_time, file_bytes as u64, packed_resident),
        row("float32", &float, float_time, dense_bytes as u64, dense_resident),
    ];
    print(&Report { images: dataset.len(), weights, rows }, output)
}

fn share(count: usize, dataset: &Dataset) -> f64 {
    100.0 * count as f64 / dataset.len() as f64
}

/// The class of each image, and the seconds that took.
fn answers(
    network: &Classifier,
    dataset: &Dataset,
    mut done: impl FnMut(u64),
) -> narrows_weights::Result<(Vec<usize>, f64)> {
    let (mut classes, started) = (Vec::new(), Instant::now());
    let mut pixels = Vec::new();
    let mut images = dataset.iter().peekable();
    while let Some((image, _)) = images.next() {
        pixels.extend(image);
        let count = pixels.len() / network.network().image().iter().product::<usize>().max(1);
        if count >= BATCH || images.peek().is_none() {
            let batch = Images::new(std::mem::take(&mut pixels), network.network().image())?;
            let logits = network.run(batch)?;
            classes.extend(logits.chunks_exact(network.network().classes()).map(greatest));
            done(count as u64);
        }
    }
    Ok((classes, started.elapsed().as_secs_f64()))
}

fn greatest(logits: &[f32]) -> usize {
    let most = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    most.map_or(0, |(class, _)| class)
}

/// How many copies of a network are held at once to see what one takes.
const COPIES: usize = 4;

/// A network, and the bytes of memory that one more copy of it takes, its mapped file included.
///
/// The first copy is not counted: with it come the program's own pages that it runs on, and memory that inputs and outputs of
/// layers take and give back, which is more than a small network.
fn resident<T, E>(make: impl Fn() -> Result<T, E>) -> Result<(T, Option<u64>), E> {
    let first = make()?;
    let before = resident_bytes();
    let copies = (0..COPIES).map(|_| make()).collect::<Result<Vec<_>, E>>()?;
    let grown = before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before));
    Ok((first, grown.map(|bytes| bytes / copies.len() as u64)))
}

/// Bytes of memory that the process holds, mapped files that were read included.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

fn print(report: &Report, output: &Output) -> Result<()> {
    if output.is_json() {
        return output.print_json(report);
    }
    let right = |name| (name, Align::Right);
    let headings = [
        ("weights", Align::Left),
        right("top-1"),
        right("as float32"),
        right("bytes"),
        right("bits/weight"),
        right("resident"),
        right("ms/image"),
    ];
    let mut drawn = table(&headings);
    for row in &report.rows {
        drawn.add_row([
            row.weights.to_owned(),
            format!("{:.2} %", row.accuracy_percent),
            format!("{:.2} %", row.agreement_percent),
            grouped(row.bytes),
            format!("{:.3}", row.bits_per_weight),
            row.resident_bytes.map_or_else(String::new, |bytes| format!("{} KiB", grouped(bytes / 1024))),
            format!("{:.2}", row.milliseconds_per_image),
        ]);
    }
    output.print(drawn)?;
    let (images, weights) = (grouped(report.images as u64), grouped(report.weights as u64));
    output.print(format!(
        "\n{images} images, {weights} weights; resident: memory that a copy of the network takes, its file included"
    ))
}
