//! Frames of the same symbols, side by side.

use narrows::{CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, Tensor};
use serde::Serialize;

use crate::evaluate::{DEMO_CUTS, Dataset, Half, Samples, demo_model, timed};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, table};

const EXAMPLES: &str = "\
Examples:
  narrows bench sizes
  narrows bench sizes --images 1000 --json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many of the program's own test images to use
    #[arg(long, value_name = "N", default_value_t = 200)]
    images: usize,
}

#[derive(Serialize)]
struct Row {
    cut: &'static str,
    q: u8,
    images: usize,
    reference_bytes: f64,
    order0_bytes: f64,
    default_bytes: f64,
    /// Of the images' ratios.
    median_to_reference: f64,
    largest_to_order0: f64,
    encode_us: f64,
    decode_us: f64,
}

/// The frames of one method for every tensor, and the times.
struct Measured {
    bytes: Vec<f64>,
    encode: Samples,
    decode: Samples,
}

impl Measured {
    fn mean(&self) -> f64 {
        self.bytes.iter().sum::<f64>() / self.bytes.len() as f64
    }

    fn ratios(&self, other: &Self) -> Vec<f64> {
        let mut ratios: Vec<f64> = self.bytes.iter().zip(&other.bytes).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let model = demo_model()?;
    let mut dataset = Dataset::embedded()?;
    dataset.truncate(args.images);
    let bits = [2, 3, 4, 6, 8];
    let progress = output.progress((DEMO_CUTS.len() * bits.len()) as u64, "frames");
    let mut rows = Vec::new();
    for cut in DEMO_CUTS {
        let split = narrows_split::split(&model, cut)
            .map_err(|error| Failure::model("cannot split the demo network", &error))?;
        let head = Half::head(&split.head, cut)?;
        let features = features(&head, &dataset)?;
        for q in bits {
            rows.push(row(cut, q, &features)?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    if output.is_json() {
        return output.print_json(&serde_json::json!({ "model": crate::evaluate::DEMO_MODEL, "rows": rows }));
    }
    let right = Align::Right;
    let mut drawn = table(&[
        ("cut", Align::Left),
        ("Q", right),
        ("reference B", right),
        ("order 0 B", right),
        ("default B", right),
        ("median to reference", right),
        ("largest to order 0", right),
        ("encode us", right),
        ("decode us", right),
    ]);
    for row in &rows {
        drawn.add_row([
            row.cut.to_owned(),
            row.q.to_string(),
            format!("{:.0}", row.reference_bytes),
            format!("{:.0}", row.order0_bytes),
            format!("{:.0}", row.default_bytes),
            format!("{:.3}", row.median_to_reference),
            format!("{:.4}", row.largest_to_order0),
            format!("{:.0}", row.encode_us),
            format!("{:.0}", row.decode_us),
        ]);
    }
    output.print(drawn)?;
    output.print(format!(
        "\nMean bytes of a whole frame, {} images each; times are medians of the default.",
        dataset.len()
    ))
}

/// What the head gives for each image.
pub(super) fn features(head: &Half, dataset: &Dataset) -> Result<Vec<Tensor>> {
    let run = |image: &[f32]| head.run(image).map_err(|error| Failure::model("cannot run the head", &error));
    dataset.iter().map(|(image, _)| run(&image)).collect()
}

fn row(cut: &'static str, q: u8, features: &[Tensor]) -> Result<Row> {
    let order0 =
        EncodeOptions { layout: LayoutChoice::Natural, coder: CoderChoice::Rans, ..EncodeOptions::bits(q) };
    let reference = measure(EncodeOptions::reference(q), features)?;
    let order0 = measure(order0, features)?;
    let default = measure(EncodeOptions::bits(q), features)?;
    let to_reference = default.ratios(&reference);
    Ok(Row {
        cut,
        q,
        images: features.len(),
        reference_bytes: reference.mean(),
        order0_bytes: order0.mean(),
        default_bytes: default.mean(),
        median_to_reference: to_reference[to_reference.len() / 2],
        largest_to_order0: default.ratios(&order0).last().copied().unwrap_or(0.0),
        encode_us: default.encode.median_us(),
        decode_us: default.decode.median_us(),
    })
}

fn measure(options: EncodeOptions, features: &[Tensor]) -> Result<Measured> {
    let codec = |error: narrows::Error| Failure::codec("cannot code the features", &error);
    let mut encoder = Encoder::new(options).map_err(codec)?;
    let mut decoder = Decoder::new();
    let (mut frame, mut decoded) = (Vec::new(), Tensor::default());
    let mut measured = Measured { bytes: Vec::new(), encode: Samples::default(), decode: Samples::default() };
    for tensor in features {
        let (result, duration) = timed(|| encoder.encode_into(&tensor.view(), &mut frame));
        result.map_err(codec)?;
        measured.encode.record(duration);
        let (result, duration) = timed(|| decoder.decode_into(&frame, &mut decoded));
        result.map_err(codec)?;
        measured.decode.record(duration);
        measured.bytes.push(frame.len() as f64);
    }
    Ok(measured)
}
