//! `narrows choose`: where to cut a model, for a link and two machines.

mod chart;
mod ways;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use narrows_split::{Model, cuts, offered};

use crate::destination::{Destination, Existing};
use crate::evaluate::{parse_factor, parse_rate, parse_time, rate_in_words, reference_rate};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};
use ways::{Machines, Measuring, Segment, Way};

const EXAMPLES: &str = "\
Examples:
  narrows choose model.onnx --inputs images.npz --rate 1M --round-trip 30ms
  narrows choose model.onnx --inputs images.npz --labels images.npz --drop 0.2 --svg choice.svg
  narrows choose model.onnx --inputs images.npy --device-time 80ms --cloud-time 4ms --json

The latency of a way is device + round trip + bytes / rate + cloud. Without --labels, an answer counts as
right if it is the one that the model gives without compression.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The model, an ONNX file
    model: PathBuf,
    /// Inputs to measure with: .npy of float32 or uint8, or .npz with an array `images`
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// Their labels (.npy, or .npz with an array `labels`)
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// How many of the inputs to use: a fourth to calibrate on, the others to measure
    #[arg(long, value_name = "N", default_value = "200", value_parser = RangedU64ValueParser::<usize>::new().range(8..))]
    samples: usize,
    /// Rate of the link in bit/s, such as 143.6k or 10M [default: the reference work's 143.6k]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Round trip of the link for no bytes at all
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_time)]
    round_trip: Duration,
    /// How many times slower than this machine the device is
    #[arg(long, value_name = "FACTOR", default_value_t = 10.0, value_parser = parse_factor)]
    device_slowdown: f64,
    /// How many times faster than this machine the cloud is
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_factor)]
    cloud_speedup: f64,
    /// What the whole model takes on the device, instead of a factor
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "device_slowdown")]
    device_time: Option<Duration>,
    /// What the whole model takes in the cloud, instead of a factor
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "cloud_speedup")]
    cloud_time: Option<Duration>,
    /// The most that top-1 may drop, in percentage points
    #[arg(long, value_name = "POINTS", default_value_t = 1.0)]
    drop: f64,
    /// Consider only these cuts [default: all that `narrows cuts` lists]
    #[arg(long, value_name = "TENSORS", value_delimiter = ',')]
    cuts: Vec<String>,
    /// Draw latency against rate
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Replace the drawing if it is there already
    #[arg(long, short)]
    force: bool,
}

/// Rates that are drawn, in bit/s, unless the changes lie outside.
const DRAWN_RATES: (f64, f64) = (1e3, 1e9);

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let drawing = args.svg.as_deref().map(Destination::from);
    if let Some(drawing) = &drawing {
        drawing.check(Existing::replace_if(args.force))?;
    }
    let rate = args.rate.map_or_else(reference_rate, Ok)?;
    let name = args.model.display().to_string();
    let model = Model::read(&args.model)
        .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
    let names = args.cut_names(&model, &name)?;
    let progress = output.progress(names.len() as u64 + 2, "measuring");
    let machines = Machines {
        device_slowdown: args.device_slowdown,
        cloud_speedup: args.cloud_speedup,
        device_time: args.device_time,
        cloud_time: args.cloud_time,
    };
    let inputs = (args.inputs.as_path(), args.labels.as_deref(), args.samples);
    let measuring = Measuring::new(&model, &name, inputs, args.drop, machines)?;
    let mut all = measuring.unsplit(&progress)?;
    for cut in &names {
        all.extend(measuring.at(&model, cut)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let round_trip = args.round_trip.as_secs_f64();
    all.sort_by(|a, b| a.latency(rate, round_trip).total_cmp(&b.latency(rate, round_trip)));
    let segments = ways::envelope(&all, round_trip);
    if let Some(drawing) = &drawing {
        drawing.write(chart::draw(&file_name(&args.model), &all, &segments, round_trip, rate).as_bytes())?;
    }
    if output.is_json() {
        let ways: Vec<_> = all.iter().map(|way| way.json(rate, round_trip)).collect();
        let segments: Vec<_> = segments.iter().map(|segment| segment.json(&all)).collect();
        return output.print_json(&serde_json::json!({
            "model": name, "rate_bits_per_second": rate, "round_trip_ms": round_trip * 1e3,
            "samples_measured": measuring.measured(), "drop_allowed": args.drop, "top1_percent": measuring.top1(),
            "ways": ways, "best_by_rate": segments,
        }));
    }
    args.print(&all, &segments, &measuring, rate, output)?;
    if let Some(drawing) = drawing {
        output.note(format!("\n{drawing}: latency against rate, drawn"));
    }
    Ok(())
}

/// The last part of a path: what a drawing has room for.
fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

impl Args {
    fn cut_names(&self, model: &Model, name: &str) -> Result<Vec<String>> {
        if !self.cuts.is_empty() {
            return Ok(self.cuts.clone());
        }
        let all =
            cuts(model).map_err(|error| Failure::model(format!("cannot find the cuts of {name}"), &error))?;
        Ok(offered(&all).into_iter().map(|cut| cut.name.clone()).collect())
    }

    fn print(
        &self,
        ways: &[Way],
        segments: &[Segment],
        measuring: &Measuring,
        rate: f64,
        output: &Output,
    ) -> Result<()> {
        let round_trip = self.round_trip.as_secs_f64();
        let right = Align::Right;
        let mut drawn = table(&[
            ("", Align::Left),
            ("cut", Align::Left),
            ("sent", Align::Left),
            ("bytes", right),
            ("device ms", right),
            ("link ms", right),
            ("cloud ms", right),
            ("total ms", right),
            ("drop", right),
        ]);
        let milliseconds = |seconds: f64| format!("{:.1}", seconds * 1e3);
        for (index, way) in ways.iter().enumerate() {
            drawn.add_row([
                if index == 0 { ">" } else { "" }.to_owned(),
                way.cut.clone(),
                way.sent.clone(),
                grouped(way.bytes.round() as u64),
                milliseconds(way.device),
                milliseconds(way.link(rate, round_trip)),
                milliseconds(way.cloud),
                milliseconds(way.latency(rate, round_trip)),
                format!("{:+.2}", way.drop),
            ]);
        }
        output.print(drawn)?;
        output.print(format!(
            "\ntop-1 {:.2} % without compression, {} inputs; at most {} points may be lost\nbest by rate, round trip {:?}:",
            measuring.top1(),
            grouped(measuring.measured() as u64),
            self.drop,
            self.round_trip,
        ))?;
        for segment in segments {
            let here = if segment.holds(rate) { ">" } else { " " };
            output.print(format!(
                "{here} {:28} {}",
                segment.rates_in_words(),
                ways[segment.way].in_words()
            ))?;
        }
        output.print(format!("\nat {}: {}", rate_in_words(rate), ways[0].in_words()))
    }
}
