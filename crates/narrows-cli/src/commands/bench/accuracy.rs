//! Bytes needed to keep the accuracy: the reference method at its best bit width, and calibrated profiles
//! at their best number of levels.

use std::path::PathBuf;
use std::sync::Arc;

use narrows::{Calibration, Decoder, EncodeOptions, Encoder, Profile, Tensor};
use serde::Serialize;

use super::sizes::features;
use crate::evaluate::{Accuracy, DEMO_CUTS, Dataset, Half, demo_model};
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
    /// How many training images to calibrate profiles on
    #[arg(long, value_name = "N", default_value_t = 200)]
    calibration: usize,
    /// The most that top-1 may drop, in percentage points
    #[arg(long, value_name = "POINTS", default_value_t = 0.2)]
    drop: f64,
}

/// Bit widths of the reference method.
const BITS: [u8; 5] = [2, 3, 4, 6, 8];
/// Levels of the profiles: as many operating points for both.
const LEVELS: [u16; 5] = [3, 4, 5, 6, 8];

#[derive(Serialize)]
struct Row {
    cut: String,
    method: String,
    bytes_per_image: f64,
    bits_per_element: f64,
    top1: f64,
    drop: f64,
}

/// The smallest operating point of each method within the drop allowed, at one cut.
#[derive(Serialize)]
struct AtCut {
    cut: String,
    reference: Option<String>,
    profile: Option<String>,
    /// Bytes of the profile's to those of the reference method's.
    ratio: Option<f64>,
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
    let points = args.cuts.len() * (BITS.len() + LEVELS.len());
    let progress = output.progress(points as u64, "measuring");
    for cut in &args.cuts {
        let split = narrows_split::split(&model, cut)
            .map_err(|error| Failure::model("cannot split the demo network", &error))?;
        let (head, tail) = (Half::head(&split.head, cut)?, Half::tail(&split.tail, cut)?);
        let samples = features(&head, &training)?;
        let session = Session::new(cut, tail, features(&head, &test)?, &test)?;
        let mut reference = Vec::new();
        for q in BITS {
            let options = EncodeOptions::reference(q);
            reference.push(session.row(format!("reference Q={q}"), options, &mut Decoder::new())?);
            progress.inc(1);
        }
        let mut profiles = Vec::new();
        for levels in LEVELS {
            profiles.push(session.profile_row(levels, &samples)?);
            progress.inc(1);
        }
        let best_reference = smallest_within(args.drop, &reference);
        let best_profile = smallest_within(args.drop, &profiles);
        let ratio = best_reference.zip(best_profile).map(|(r, p)| p.bytes_per_image / r.bytes_per_image);
        let method = |row: Option<&Row>| row.map(|row| row.method.clone());
        let (best_reference, best_profile) = (method(best_reference), method(best_profile));
        summary.push(AtCut { cut: cut.clone(), reference: best_reference, profile: best_profile, ratio });
        rows.extend(reference);
        rows.extend(profiles);
    }
    progress.finish_and_clear();
    if output.is_json() {
        let (model, images) = (crate::evaluate::DEMO_MODEL, test.len());
        let report = serde_json::json!({ "model": model, "images": images, "rows": rows, "cuts": summary });
        return output.print_json(&report);
    }
    print(&rows, &summary, output)
}

/// The row of fewest bytes that loses no more than `drop`.
fn smallest_within(drop: f64, rows: &[Row]) -> Option<&Row> {
    // A drop is a difference of percentages: leave room for their last bits.
    let within = rows.iter().filter(|row| row.drop <= drop + 1e-9);
    within.min_by(|a, b| a.bytes_per_image.total_cmp(&b.bytes_per_image))
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

    /// A profile of `levels` levels with the default clip, fitted to `samples`.
    fn profile_row(&self, levels: u16, samples: &[Tensor]) -> Result<Row> {
        let codec = |error: narrows::Error| Failure::codec("cannot calibrate a profile", &error);
        let views: Vec<_> = samples.iter().map(Tensor::view).collect();
        let calibration = Calibration { levels, ..Calibration::default() };
        let profile = Arc::new(Profile::calibrate(&views, &calibration).map_err(codec)?);
        let mut decoder = Decoder::new();
        decoder.profiles_mut().insert(Arc::clone(&profile));
        self.row(format!("profile, {levels} levels"), profile.options(), &mut decoder)
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
        output.print(match (&at.reference, &at.profile, at.ratio) {
            (Some(reference), Some(profile), Some(ratio)) => {
                format!("{}: {profile} needs {ratio:.3} of the bytes of {reference}", at.cut)
            }
            _ => format!("{}: one of the methods never keeps the accuracy", at.cut),
        })?;
    }
    Ok(())
}
