//! `narrows demo`: a trained network, split in two processes, classifies images over compressed features.

mod chart;
mod measure;
mod method;
mod table;
mod tail_server;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use narrows_link::emulator::Link;
use narrows_link::{Client, Options};
use serde::Serialize;

use crate::evaluate::{
    DEMO_CUTS, DEMO_MODEL, Dataset, Half, demo_model, engine, parse_rate, rate_in_words, reference_rate,
};
use crate::failure::{Failure, Result};
use crate::output::{Output, grouped};
use measure::{Row, Session};
use tail_server::TailServer;

const EXAMPLES: &str = "\
Examples:
  narrows demo
  narrows demo --images 100 --cuts layer2 --svg rate.svg
  narrows demo --json > demo.json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many images to send
    #[arg(long, value_name = "N", default_value = "1000", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    images: usize,
    /// Where to cut the network; several are separated by commas
    #[arg(long, value_name = "TENSORS", value_delimiter = ',', default_values = DEMO_CUTS)]
    cuts: Vec<String>,
    /// Rate of the emulated link in bit/s, such as 143.6k or 10M [default: the reference work's 143.6k]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    link_rate: Option<f64>,
    /// Take the test images from this folder (of Debian's dataset-fashion-mnist) instead of the program's own
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Where to draw rate against accuracy [default: narrows-demo.svg, and nowhere with --json]
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Where the drawing goes unless told otherwise.
const SVG: &str = "narrows-demo.svg";

/// What was measured, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    model: &'static str,
    images: usize,
    rows: Vec<Row>,
    /// Top-1 of the network in one piece, in percent.
    #[serde(skip)]
    unsplit_top1: f64,
    #[serde(skip)]
    cuts: Vec<CutSize>,
}

/// A cut and what crosses it.
struct CutSize {
    name: String,
    shape: String,
    elements: usize,
}

impl Report {
    /// The cuts and their rows.
    fn by_cut(&self) -> impl Iterator<Item = (&CutSize, &[Row])> {
        self.cuts.iter().zip(self.rows.chunk_by(|a, b| a.cut == b.cut))
    }
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let rate = args.link_rate.map_or_else(reference_rate, Ok)?;
    let link = Link::at_rate(rate).map_err(|error| Failure::link("cannot set up the link", &error))?;
    let mut dataset = args.dataset.as_deref().map_or_else(Dataset::embedded, Dataset::from_folder)?;
    dataset.truncate(args.images);
    let report = measure(args, &dataset, &link, output)?;

    let svg = args.svg.clone().or_else(|| (!output.is_json()).then(|| SVG.into()));
    if let Some(path) = &svg {
        let drawing = chart::draw(&report);
        std::fs::write(path, drawing).map_err(|error| Failure::io("write", path, &error))?;
    }
    if output.is_json() {
        return output.print_json(&report);
    }
    let (model, images) = (report.model, grouped(report.images as u64));
    let top1 = report.unsplit_top1;
    output.print(format!(
        "{model}, {images} images, unsplit top-1 {top1:.1} %, link {}\n",
        rate_in_words(rate)
    ))?;
    output.print(table::draw(&report))?;
    output.print(table::take_away(&report))?;
    if let Some(path) = &svg {
        output.note(format!("rate against accuracy is drawn in {}", path.display()));
    }
    Ok(())
}

/// Start the tail server, and send the features of every image to it, in every way.
fn measure(args: &Args, dataset: &Dataset, link: &Link, output: &Output) -> Result<Report> {
    let model = demo_model()?;
    let mut heads = Vec::new();
    for (index, cut) in args.cuts.iter().enumerate() {
        if args.cuts[..index].contains(cut) {
            return Err(Failure::usage(format!("the cut `{cut}` is named twice")));
        }
        let split = narrows_split::split(&model, cut)
            .map_err(|error| Failure::model(format!("cannot split the demo network at `{cut}`"), &error))?;
        heads.push(Half::head(&split.head, cut)?);
    }
    let server = TailServer::start(&args.cuts)?;
    let failed = |error| Failure::link("cannot reach the tail server", &error);
    let client = Client::connect(server.address(), Options::default()).map_err(failed)?;

    let whole = engine(&model, "the demo network")?;
    let progress = output.progress((dataset.len() * (1 + heads.len())) as u64, "unsplit");
    let mut session = Session::new(client, link, dataset, &whole, &progress)?;
    let mut rows = Vec::new();
    for head in &heads {
        progress.set_message(head.cut.clone());
        rows.extend(session.measure(head, dataset, &progress)?);
    }
    progress.finish_and_clear();
    let cuts = heads.iter().map(|head| {
        let dims = head.output_dims();
        let shape = dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        CutSize { name: head.cut.clone(), shape, elements: dims.iter().product() }
    });
    Ok(Report {
        model: DEMO_MODEL,
        images: dataset.len(),
        unsplit_top1: session.unsplit_top1(),
        cuts: cuts.collect(),
        rows,
    })
}
