//! The ways to run a model on two machines, measured.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use indicatif::ProgressBar;
use narrows::{Calibration, Clip, Profile, Tensor, TensorView};
use narrows_split::Model;
use serde_json::{Value, json};

use crate::evaluate::{
    Batch, Frames, Half, Samples, answers, mean, measure_alike, percent_equal, rate_in_words, read_labels,
    timed,
};
use crate::failure::{Failure, Result};

/// Levels that are tried, from small frames to large ones, over this percentage of the values.
const LEVELS: [u16; 9] = [2, 3, 4, 5, 6, 8, 12, 16, 32];
const PERCENTILE: f32 = 99.5;

/// A way to run the model: where it is cut, and what is sent.
pub struct Way {
    /// The cut, or where the whole model runs.
    pub cut: String,
    pub sent: String,
    /// Mean, of what crosses the link; 0 if nothing does.
    pub bytes: f64,
    /// Seconds.
    pub device: f64,
    pub cloud: f64,
    /// Points of top-1 lost.
    pub drop: f64,
}

impl Way {
    /// Seconds on the link, there and back.
    pub fn link(&self, rate: f64, round_trip: f64) -> f64 {
        if self.bytes > 0.0 { round_trip + self.bytes * 8.0 / rate } else { 0.0 }
    }

    /// Seconds from the input to its answer.
    pub fn latency(&self, rate: f64, round_trip: f64) -> f64 {
        self.device + self.link(rate, round_trip) + self.cloud
    }

    pub fn in_words(&self) -> String {
        match self.cut.as_str() {
            ON_DEVICE => "don't split: run all on the device".to_owned(),
            IN_CLOUD => format!("don't split: send the input ({})", self.sent),
            cut if self.sent == RAW => format!("cut at {cut}, and don't compress"),
            cut => format!("cut at {cut}, {}", self.sent),
        }
    }

    pub fn json(&self, rate: f64, round_trip: f64) -> Value {
        json!({
            "cut": self.cut, "sent": self.sent, "bytes": self.bytes, "device_ms": self.device * 1e3,
            "link_ms": self.link(rate, round_trip) * 1e3, "cloud_ms": self.cloud * 1e3,
            "latency_ms": self.latency(rate, round_trip) * 1e3, "drop": self.drop,
        })
    }
}

const ON_DEVICE: &str = "(all on the device)";
const IN_CLOUD: &str = "(all in the cloud)";
const RAW: &str = "float32";

/// Rates at which one way is the fastest, in bit/s.
pub struct Segment {
    pub way: usize,
    pub from: f64,
    pub to: f64,
}

impl Segment {
    pub fn holds(&self, rate: f64) -> bool {
        (self.from..self.to).contains(&rate)
    }

    pub fn rates_in_words(&self) -> String {
        match (self.from, self.to) {
            (from, to) if from <= 0.0 && to.is_infinite() => "at every rate".to_owned(),
            (from, to) if from <= 0.0 => format!("below {}", rate_in_words(to)),
            (from, to) if to.is_infinite() => format!("from {}", rate_in_words(from)),
            (from, to) => format!("{} to {}", rate_in_words(from), rate_in_words(to)),
        }
    }

    pub fn json(&self, ways: &[Way]) -> Value {
        let to = self.to.is_finite().then_some(self.to);
        json!({ "from": self.from, "to": to, "cut": ways[self.way].cut, "sent": ways[self.way].sent })
    }
}

/// Which way is the fastest at each rate, from low rates to high ones.
///
/// A latency is a line over the time that a bit takes, `fixed + 8 bytes * time`, so the least of all is a polygon:
/// from one corner to the next a line of smaller slope takes over.
pub fn envelope(ways: &[Way], round_trip: f64) -> Vec<Segment> {
    let fixed = |way: &Way| way.latency(f64::INFINITY, round_trip);
    let order = |a: &usize, b: &usize| {
        let (a, b) = (&ways[*a], &ways[*b]);
        fixed(a).total_cmp(&fixed(b)).then(a.bytes.total_cmp(&b.bytes))
    };
    let Some(mut way) = (0..ways.len()).min_by(order) else { return Vec::new() };
    let (mut segments, mut to) = (Vec::new(), f64::INFINITY);
    loop {
        let corner = |other: usize| {
            let slopes = 8.0 * (ways[way].bytes - ways[other].bytes);
            (fixed(&ways[other]) - fixed(&ways[way])).max(0.0) / slopes
        };
        let flatter = (0..ways.len()).filter(|&other| ways[other].bytes < ways[way].bytes);
        let next = flatter
            .min_by(|&a, &b| corner(a).total_cmp(&corner(b)).then(ways[a].bytes.total_cmp(&ways[b].bytes)));
        let from = next.map_or(0.0, |next| 1.0 / corner(next).max(f64::MIN_POSITIVE));
        if from < to {
            segments.push(Segment { way, from, to });
            to = from;
        }
        let Some(next) = next else { break };
        way = next;
    }
    segments.reverse();
    segments
}

/// What the two machines take, from what this one takes.
#[derive(Clone, Copy)]
pub struct Machines {
    pub device_slowdown: f64,
    pub cloud_speedup: f64,
    pub device_time: Option<Duration>,
    pub cloud_time: Option<Duration>,
}

/// Inputs, and what the model says of them.
pub struct Measuring {
    inputs: Vec<Tensor>,
    /// Bytes of each input as it is, compressed without loss.
    input_bytes: Vec<u32>,
    /// The whole model, which takes the input.
    whole: Half,
    expected: Vec<usize>,
    unsplit: Vec<usize>,
    /// Inputs to calibrate on; the others are measured.
    fitted: usize,
    allowed_drop: f64,
    /// Seconds on this machine times this are seconds on the device or in the cloud.
    device_factor: f64,
    cloud_factor: f64,
    /// Seconds of the whole model on this machine.
    whole_time: f64,
}

impl Measuring {
    pub fn new(
        model: &Model,
        name: &str,
        (path, labels, samples): (&Path, Option<&Path>, usize),
        allowed_drop: f64,
        machines: Machines,
    ) -> Result<Self> {
        let whole = Half::tail(model, name)?;
        let mut batch = Batch::read(path, whole.input_dims(), None)?;
        let labels = labels.map(read_labels).transpose()?;
        if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != batch.len()) {
            let (labels, inputs) = (labels.len(), batch.len());
            return Err(Failure::data(format!("{labels} labels do not go with {inputs} inputs")));
        }
        batch.truncate(samples);
        if batch.len() < 8 {
            let failure = Failure::data(format!("{} inputs are too few to choose by", batch.len()));
            return Err(failure.hint("give 8 or more, better 200"));
        }
        let inputs: Vec<Tensor> =
            batch.iter().map(|input| tensor(input, whole.input_dims())).collect::<Result<_>>()?;
        let input_bytes =
            batch.iter().map(|input| deflated(&batch.bytes_of(input)).min(batch.input_bytes()) as u32);
        let input_bytes = input_bytes.collect();
        let mut times = Samples::default();
        let mut unsplit = Vec::new();
        for input in &inputs {
            let (answer, time) = timed(|| answers(std::slice::from_ref(input), &whole));
            unsplit.extend(answer?);
            times.record(time);
        }
        let whole_time = times.median_us() / 1e6;
        let expected = labels.map_or_else(
            || unsplit.clone(),
            |labels| labels.into_iter().take(inputs.len()).map(|label| label as usize).collect(),
        );
        let factor =
            |time: Option<Duration>, factor: f64| time.map_or(factor, |time| time.as_secs_f64() / whole_time);
        Ok(Self {
            fitted: inputs.len() / 4,
            inputs,
            input_bytes,
            whole,
            expected,
            unsplit,
            allowed_drop,
            device_factor: factor(machines.device_time, machines.device_slowdown),
            cloud_factor: factor(machines.cloud_time, 1.0 / machines.cloud_speedup),
            whole_time,
        })
    }

    /// How many inputs are measured.
    pub fn measured(&self) -> usize {
        self.inputs.len() - self.fitted
    }

    /// Top-1 of the model without compression, in percent.
    pub fn top1(&self) -> f64 {
        percent_equal(&self.unsplit[self.fitted..], &self.expected[self.fitted..])
    }

    /// The ways without a cut.
    pub fn unsplit(&self, progress: &ProgressBar) -> Result<Vec<Way>> {
        let way = |cut: &str, sent: &str, bytes, device, cloud| Way {
            cut: cut.to_owned(),
            sent: sent.to_owned(),
            bytes,
            device,
            cloud,
            drop: 0.0,
        };
        let (device, cloud) = (self.whole_time * self.device_factor, self.whole_time * self.cloud_factor);
        let mut ways = vec![
            way(ON_DEVICE, "nothing", 0.0, device, 0.0),
            way(IN_CLOUD, "as it is", mean(&self.input_bytes[self.fitted..]), 0.0, cloud),
        ];
        progress.inc(1);
        ways.extend(self.compressed(IN_CLOUD, &self.inputs, &self.whole, 0.0)?);
        progress.inc(1);
        Ok(ways)
    }

    /// The ways with a cut at this tensor.
    pub fn at(&self, model: &Model, cut: &str) -> Result<Vec<Way>> {
        let split = narrows_split::split(model, cut)
            .map_err(|error| Failure::model(format!("cannot split the model at `{cut}`"), &error))?;
        let (head, tail) = (Half::head(&split.head, cut)?, Half::tail(&split.tail, cut)?);
        let (mut features, mut times) = (Vec::new(), Samples::default());
        for input in &self.inputs {
            let values = input.to_f32();
            let (result, time) = timed(|| head.run(&values));
            features.push(result.map_err(|error| Failure::model("cannot run the head", &error))?);
            times.record(time);
        }
        let head_time = times.median_us() / 1e6;
        let mut ways: Vec<Way> = self.compressed(cut, &features, &tail, head_time)?.into_iter().collect();
        let raw = split.cut.bytes as f64;
        // Nothing was decoded, so the tail takes what the head leaves of the whole.
        let tail_time = (self.whole_time - head_time).max(0.0);
        ways.push(Way {
            cut: cut.to_owned(),
            sent: RAW.to_owned(),
            bytes: raw,
            device: head_time * self.device_factor,
            cloud: tail_time * self.cloud_factor,
            drop: 0.0,
        });
        Ok(ways)
    }

    /// The smallest frames of these features that lose no more than allowed; none if all do.
    fn compressed(&self, cut: &str, features: &[Tensor], tail: &Half, head_time: f64) -> Result<Option<Way>> {
        let (fitted, measured) = features.split_at(self.fitted);
        let samples: Vec<TensorView<'_>> = fitted.iter().map(Tensor::view).collect();
        for levels in LEVELS {
            let calibration = Calibration { levels, clip: Clip::Percentile(PERCENTILE), axis: None };
            let profile = Profile::calibrate(&samples, &calibration)
                .map_err(|error| Failure::codec(format!("cannot calibrate at `{cut}`"), &error))?;
            let frames = Frames::new(Arc::new(profile).options())?;
            let outcome = measure_alike(&mut [Box::new(frames)], measured, tail, &ProgressBar::hidden())?;
            let outcome = &outcome[0];
            let drop = self.top1() - percent_equal(&outcome.answers, &self.expected[self.fitted..]);
            if drop <= self.allowed_drop + 1e-9 {
                let [encode, decode, tail] = [&outcome.encode, &outcome.decode, outcome.tail.as_ref()]
                    .map(|times| times.median_us() / 1e6);
                return Ok(Some(Way {
                    cut: cut.to_owned(),
                    sent: format!("{levels} levels, profile"),
                    bytes: mean(&outcome.bytes),
                    device: (head_time + encode) * self.device_factor,
                    cloud: (decode + tail) * self.cloud_factor,
                    drop,
                }));
            }
        }
        Ok(None)
    }
}

fn tensor(input: &[f32], dims: &[usize]) -> Result<Tensor> {
    Tensor::new(input.to_vec(), dims).map_err(|error| Failure::codec("cannot use an input", &error))
}

/// Bytes after zlib.
fn deflated(bytes: &[u8]) -> usize {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_or(bytes.len(), |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(cut: &str, bytes: f64, device: f64, cloud: f64) -> Way {
        Way { cut: cut.to_owned(), sent: String::new(), bytes, device, cloud, drop: 0.0 }
    }

    #[test]
    fn the_envelope_is_the_fastest_way_at_every_rate() {
        let ways = [
            way("device", 0.0, 0.100, 0.0),
            way("cloud", 10_000.0, 0.0, 0.002),
            way("early", 2_000.0, 0.020, 0.002),
            way("late", 500.0, 0.060, 0.001),
            way("silly", 5_000.0, 0.090, 0.009),
        ];
        let segments = envelope(&ways, 0.01);
        let names: Vec<&str> = segments.iter().map(|segment| ways[segment.way].cut.as_str()).collect();
        assert_eq!(names, ["device", "late", "early", "cloud"]);
        assert_eq!((segments[0].from, segments[3].to), (0.0, f64::INFINITY));
        for exponent in 0..120 {
            let rate = 10_f64.powf(1.0 + f64::from(exponent) / 15.0);
            let holding: Vec<&Segment> = segments.iter().filter(|segment| segment.holds(rate)).collect();
            assert_eq!(holding.len(), 1, "{rate}");
            let least = ways.iter().map(|way| way.latency(rate, 0.01)).fold(f64::INFINITY, f64::min);
            assert!(ways[holding[0].way].latency(rate, 0.01) <= least * (1.0 + 1e-9), "{rate}");
        }
    }

    #[test]
    fn a_device_as_fast_as_the_cloud_is_never_left() {
        let ways = [way("device", 0.0, 0.010, 0.0), way("cloud", 100.0, 0.0, 0.010)];
        let segments = envelope(&ways, 0.01);
        assert_eq!((segments.len(), segments[0].way), (1, 0));
        assert_eq!(segments[0].rates_in_words(), "at every rate");
    }
}
