//! Bytes needed to keep the accuracy: the reference method at its best bit width, and a profile.

use std::path::PathBuf;
use std::sync::Arc;

use narrows::{Decoder, EncodeOptions, Encoder, Tensor};
use serde::Serialize;

use super::sizes::features;
use crate::evaluate::{Accuracy, DEMO_CUTS, Dataset, Half, demo_model, smallest_agreeing};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, table};

const EXAMPLES: &str = "\
Examples:
  narrows bench accuracy --dataset bench/out/fashion-mnist
  narrows bench accuracy --dataset /usr/share/datasets/fashion-mnist --cuts layer3 --json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of Debian's dataset-fashion-mnist (the script bench/fashion-mnist fetches it)
    #[arg(long, value_name = "DIR")]
    dataset: PathBuf,
    /// Where to cut the network
    #[arg(long, value_name = "TENSORS", value_delimiter = ',', default_values = DEMO_CUTS)]
    cuts: Vec<String>,
    /// How many test images to use
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    images: usize,
    /// How many training images to calibrate the profile on
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    calibration: usize,
    /// The profile must leave this percentage of the calibration images' answers as they are
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0)]
    agreement: f64,
    /// The most that top-1 may drop, in percentage points
    #[arg(long, value_name = "POINTS", default_value_t = 0.2)]
    drop: f64,
}

/// Bit widths of the reference method.
const BITS: [u8; 5] = [2, 3, 4, 6, 8];

#[derive(Serialize)]
struct Row {
    cut: String,
    method: String,
    bytes_per_image: f64,
    bits_per_element: f64,
    top1: f64,
    drop: f64,
}

/// What it takes at one cut.
#[derive(Serialize)]
struct AtCut {
    cut: String,
    /// The smallest of the reference method's rows within the drop.
    reference: Option<String>,
    /// Bytes of the profile to those of that row.
    ratio: Option<f64>,
    profile: ProfileRow,
}

#[derive(Serialize)]
struct ProfileRow {
    id: String,
    levels: u16,
    percentile: f32,
    agreement: f64,
    within_drop: bool,
}

/// A tail, the test features that go to it, and the answers without compression.
struct Session<'a> {
    cut: &'a str,
    tail: Half,
    features: Vec<Tensor>,
    labels: Vec<u8>,
    unsplit: Accuracy,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let model = demo_model()?;
    let mut test = Dataset::from_folder(&args.dataset)?;
    test.truncate(args.images);
    let mut training = Dataset::training(&args.dataset)?;
    training.truncate(args.calibration);
    let (mut rows, mut summary) = (Vec::new(), Vec::new());
    for cut in &args.cuts {
        let split = narrows_split::split(&model, cut)
            .map_err(|error| Failure::model("cannot split the demo network", &error))?;
        let (head, tail) = (Half::head(&split.head, cut)?, Half::tail(&split.tail, cut)?);
        let progress = output.progress(1, "calibrating");
        let choice = smallest_agreeing(&tail, &features(&head, &training)?, None, args.agreement, &progress)?;
        progress.finish_and_clear();
        let session = Session::new(cut, tail, features(&head, &test)?, &test)?;
        let progress = output.progress(BITS.len() as u64 + 1, "measuring");
        let first = rows.len();
        for q in BITS {
            rows.push(session.row(
                format!("reference Q={q}"),
                EncodeOptions::reference(q),
                &mut Decoder::new(),
            )?);
            progress.inc(1);
        }
        let within = |row: &&Row| row.drop <= args.drop;
        let smallest = |a: &&Row, b: &&Row| a.bytes_per_image.total_cmp(&b.bytes_per_image);
        let reference = rows[first..].iter().filter(within).min_by(smallest);
        let reference = reference.map(|row| (row.method.clone(), row.bytes_per_image));
        let mut decoder = Decoder::new();
        decoder.profiles_mut().insert(Arc::clone(&choice.profile));
        let name = format!("profile {} levels, {} %", choice.profile.affine().levels(), choice.percentile);
        let row = session.row(name, choice.profile.options(), &mut decoder)?;
        progress.finish_and_clear();
        summary.push(AtCut {
            cut: cut.clone(),
            ratio: reference.as_ref().map(|(_, bytes)| row.bytes_per_image / bytes),
            reference: reference.map(|(method, _)| method),
            profile: ProfileRow {
                id: choice.profile.id().to_string(),
                levels: choice.profile.affine().levels(),
                percentile: choice.percentile,
                agreement: choice.agreement,
                within_drop: row.drop <= args.drop,
            },
        });
        rows.push(row);
    }
    if output.is_json() {
        let (model, images) = (crate::evaluate::DEMO_MODEL, test.len());
        let report = serde_json::json!({ "model": model, "images": images, "rows": rows, "cuts": summary });
        return output.print_json(&report);
    }
    print(&rows, &summary, output)
}

impl<'a> Session<'a> {
    fn new(cut: &'a str, tail: Half, features: Vec<Tensor>, dataset: &Dataset) -> Result<Self> {
        let labels: Vec<u8> = dataset.iter().map(|(_, label)| label).collect();
        let mut session = Self { cut, tail, features, labels, unsplit: Accuracy::default() };
        let mut unsplit = Accuracy::default();
        for (tensor, &label) in session.features.iter().zip(&session.labels) {
            unsplit.record(&session.answer(tensor)?, label);
        }
        session.unsplit = unsplit;
        Ok(session)
    }

    fn answer(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let logits = self.tail.run(&tensor.to_f32());
        Ok(logits.map_err(|error| Failure::model("cannot run the tail", &error))?.to_f32())
    }

    fn row(&self, method: String, options: EncodeOptions, decoder: &mut Decoder) -> Result<Row> {
        let codec = |error: narrows::Error| Failure::codec("cannot code the features", &error);
        let mut encoder = Encoder::new(options).map_err(codec)?;
        let (mut accuracy, mut bytes) = (Accuracy::default(), 0);
        for (tensor, &label) in self.features.iter().zip(&self.labels) {
            let frame = encoder.encode(&tensor.view()).map_err(codec)?;
            bytes += frame.len();
            accuracy.record(&self.answer(&decoder.decode(&frame).map_err(codec)?)?, label);
        }
        let bytes_per_image = bytes as f64 / self.features.len() as f64;
        let elements = self.features.first().map_or(1, |tensor| tensor.shape().elements());
        Ok(Row {
            cut: self.cut.to_owned(),
            method,
            bytes_per_image,
            bits_per_element: 8.0 * bytes_per_image / elements as f64,
            top1: accuracy.percent(),
            drop: self.unsplit.points_above(accuracy),
        })
    }
}

fn print(rows: &[Row], summary: &[AtCut], output: &Output) -> Result<()> {
    let right = Align::Right;
    let mut drawn = table(&[
        ("cut", Align::Left),
        ("method", Align::Left),
        ("B/image", right),
        ("bits/element", right),
        ("top-1 %", right),
        ("drop", right),
    ]);
    for row in rows {
        drawn.add_row([
            row.cut.clone(),
            row.method.clone(),
            format!("{:.0}", row.bytes_per_image),
            format!("{:.3}", row.bits_per_element),
            format!("{:.2}", row.top1),
            format!("{:+.2}", row.drop),
        ]);
    }
    output.print(drawn)?;
    output.print("")?;
    for at in summary {
        let ProfileRow { levels, percentile, agreement, within_drop, .. } = &at.profile;
        let kept = if *within_drop { "within" } else { "beyond" };
        let against = match (&at.reference, at.ratio) {
            (Some(method), Some(ratio)) => format!("{ratio:.3} of the bytes of {method}"),
            _ => "no bit width of the reference method keeps the accuracy".to_owned(),
        };
        output.print(format!(
            "{}: profile of {levels} levels over {percentile} % ({agreement:.2} % of calibration answers kept), \
             {kept} the drop allowed: {against}",
            at.cut
        ))?;
    }
    Ok(())
}
