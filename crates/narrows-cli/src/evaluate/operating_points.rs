//! The rate-accuracy table of a cut: what each way to send its features takes, and how often the answer is right.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use narrows::{
    Calibration, Clip, CoderChoice, EncodeOptions, LayoutChoice, Profile, Quantizer, Tensor, TensorView,
};
use narrows_link::adapt::OperatingPoint;
use serde::{Deserialize, Serialize};

use super::codec::{Codec, Frames};
use super::measure::{Measured, answers, mean, measure_alike, percent_equal, percentile};
use super::network::Half;
use crate::failure::{Code, Failure, Result};

/// What the file says it is.
const FORMAT: &str = "narrows-operating-points";
const VERSION: u32 = 1;
/// Levels and ranges (percentiles) of the calibrated steps.
const LEVELS: [u16; 9] = [2, 3, 4, 5, 6, 8, 12, 16, 32];
const PERCENTILES: [f32; 3] = [99.9, 99.5, 99.0];
/// Bit widths of the ranges taken from each tensor.
const BITS: [u8; 5] = [2, 3, 4, 6, 8];
/// Steps and tables are fitted to this many samples, a fourth at most; the others are measured.
const FITTED: usize = 200;
/// Of the sizes that `bytes_high` tells.
const HIGH_PERCENTILE: f64 = 95.0;
/// A step that takes an hour is none.
const MAX_TIME_US: f64 = 3.6e9;
/// Fewer samples tell nothing of an accuracy.
const LEAST_SAMPLES: usize = 8;

/// Where the quantiser's range comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeOf {
    /// The calibration samples: fixed.
    Samples,
    /// Each tensor: sent with it.
    Tensor,
}

/// How symbols are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coding {
    /// Neighbour contexts, tables in a profile.
    Profile,
    /// Neighbour contexts, tables in the frame.
    Contexts,
    /// One table in the frame, in natural order: larger and faster.
    #[serde(rename = "order-0")]
    Order0,
}

impl Coding {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Contexts => "contexts",
            Self::Order0 => "order-0",
        }
    }

    /// Its options over a quantiser; those of `profile` if that is the coding.
    pub fn options(
        self,
        quantizer: Quantizer,
        axis: Option<usize>,
        profile: Option<&Arc<Profile>>,
    ) -> EncodeOptions {
        let (layout, coder) = match self {
            Self::Profile => match profile {
                Some(profile) => return profile.options(),
                None => (LayoutChoice::Auto, CoderChoice::Auto),
            },
            Self::Contexts => (LayoutChoice::Planes, CoderChoice::Auto),
            Self::Order0 => (LayoutChoice::Natural, CoderChoice::Rans),
        };
        EncodeOptions { quantizer, layout, coder, axis, ..EncodeOptions::default() }
    }
}

/// An operating point, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub coding: Coding,
    pub levels: u16,
    pub range: RangeOf,
    /// `full`, or a percentile.
    pub clip: String,
    /// The name of the profile, whose file is beside the table if the point is on the Pareto front.
    pub profile: Option<String>,
    pub bytes_mean: f64,
    /// The size that 95 % of the frames don't exceed.
    pub bytes_high: u32,
    pub top1_percent: f64,
    /// How often the answer is the one without compression.
    pub agreement_percent: f64,
    /// Medians on the machine that measured.
    pub encode_us: f64,
    pub decode_us: f64,
    /// No other point is as accurate with fewer bytes.
    pub pareto: bool,
}

impl Row {
    /// For people.
    pub fn name(&self) -> String {
        let range = match self.range {
            RangeOf::Samples => format!("{} %", self.clip),
            RangeOf::Tensor => "own range".to_owned(),
        };
        format!("{} levels, {range}, {}", self.levels, self.coding.name())
    }
}

/// All operating points of a cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    pub format: String,
    pub version: u32,
    /// The tensor that is sent.
    pub cut: String,
    pub shape: Vec<usize>,
    pub samples_fitted: usize,
    pub samples_measured: usize,
    /// Of the features as float32.
    pub raw_bytes: usize,
    /// Without compression.
    pub top1_percent: f64,
    /// Median on the machine that measured.
    pub tail_us: f64,
    /// By mean size, ascending.
    pub points: Vec<Row>,
}

/// A measured table, and what does not go into its file.
pub struct Outcome {
    pub table: Table,
    /// For each point: its profile, and its frames.
    pub details: Vec<Detail>,
}

/// Of one point.
pub struct Detail {
    pub profile: Option<Arc<Profile>>,
    /// Bytes of each measured frame.
    pub bytes: Vec<u32>,
    /// Whether the answer was right.
    pub right: Vec<bool>,
}

/// Points that carry the same symbols.
struct Group {
    levels: u16,
    range: RangeOf,
    clip: String,
    quantizer: Quantizer,
    profile: Option<Arc<Profile>>,
    codings: &'static [Coding],
}

/// Measure every operating point of a cut: fit to the first samples, and measure the others.
///
/// # Errors
/// Fewer than 8 samples, as many labels as samples, samples that cannot be calibrated on, a tail that does not
/// take them.
pub fn measure(
    tail: &Half,
    features: &[Tensor],
    labels: &[u32],
    axis: Option<usize>,
    progress: &ProgressBar,
) -> Result<Outcome> {
    if labels.len() != features.len() {
        let (labels, samples) = (labels.len(), features.len());
        return Err(Failure::data(format!("{labels} labels do not go with {samples} samples")));
    }
    if features.len() < LEAST_SAMPLES {
        let failure = Failure::data(format!("{} samples are too few to measure an accuracy", features.len()));
        return Err(failure.hint(format!("give {LEAST_SAMPLES} or more, better a thousand")));
    }
    let (fitted, measured) = features.split_at(FITTED.min(features.len() / 4));
    let labels: Vec<usize> = labels[fitted.len()..].iter().map(|&label| label as usize).collect();
    let groups = groups(fitted, axis)?;
    progress.set_length((groups.len() * measured.len()) as u64);
    progress.set_message("measuring");
    let unsplit = answers(measured, tail)?;
    let mut points = Vec::new();
    let mut tail_us = 0.0;
    for group in &groups {
        let profile = group.profile.as_ref();
        let codec = |coding: &Coding| -> Result<Box<dyn Codec>> {
            Ok(Box::new(Frames::new(coding.options(group.quantizer.clone(), axis, profile))?))
        };
        let mut codecs: Vec<_> = group.codings.iter().map(codec).collect::<Result<_>>()?;
        let outcome = measure_alike(&mut codecs, measured, tail, progress)?;
        for (&coding, measured) in group.codings.iter().zip(outcome) {
            tail_us = measured.tail.median_us();
            points.push(group.point(coding, measured, &labels, &unsplit));
        }
    }
    points.sort_by(|(a, _), (b, _)| a.bytes_mean.total_cmp(&b.bytes_mean));
    let (mut points, details): (Vec<Row>, Vec<Detail>) = points.into_iter().unzip();
    mark_pareto(&mut points);
    let shape = measured[0].shape();
    let table = Table {
        format: FORMAT.to_owned(),
        version: VERSION,
        cut: tail.cut.clone(),
        shape: shape.dims().to_vec(),
        samples_fitted: fitted.len(),
        samples_measured: measured.len(),
        raw_bytes: 4 * shape.elements(),
        top1_percent: percent_equal(&unsplit, &labels),
        tail_us,
        points,
    };
    Ok(Outcome { table, details })
}

fn groups(fitted: &[Tensor], axis: Option<usize>) -> Result<Vec<Group>> {
    let samples: Vec<TensorView<'_>> = fitted.iter().map(Tensor::view).collect();
    let mut groups = Vec::new();
    for levels in LEVELS {
        for percentile in PERCENTILES {
            let calibration = Calibration { levels, clip: Clip::Percentile(percentile), axis };
            let profile = Profile::calibrate(&samples, &calibration)
                .map_err(|error| Failure::codec("cannot calibrate on these samples", &error))?;
            groups.push(Group {
                levels,
                range: RangeOf::Samples,
                clip: percentile.to_string(),
                quantizer: Quantizer::Fixed(*profile.affine()),
                profile: Some(Arc::new(profile)),
                codings: &[Coding::Profile, Coding::Contexts, Coding::Order0],
            });
        }
    }
    groups.extend(BITS.map(|bits| Group {
        levels: 1 << bits,
        range: RangeOf::Tensor,
        clip: "full".to_owned(),
        quantizer: Quantizer::aiq(bits),
        profile: None,
        codings: &[Coding::Contexts, Coding::Order0],
    }));
    Ok(groups)
}

impl Group {
    fn point(
        &self,
        coding: Coding,
        measured: Measured,
        labels: &[usize],
        unsplit: &[usize],
    ) -> (Row, Detail) {
        let profile = self.profile.clone().filter(|_| coding == Coding::Profile);
        let row = Row {
            coding,
            levels: self.levels,
            range: self.range,
            clip: self.clip.clone(),
            profile: profile.as_ref().map(|profile| profile.id().to_string()),
            bytes_mean: mean(&measured.bytes),
            bytes_high: percentile(&measured.bytes, HIGH_PERCENTILE),
            top1_percent: percent_equal(&measured.answers, labels),
            agreement_percent: percent_equal(&measured.answers, unsplit),
            encode_us: measured.encode.median_us(),
            decode_us: measured.decode.median_us(),
            pareto: false,
        };
        let right = measured.answers.iter().zip(labels).map(|(answer, label)| answer == label).collect();
        (row, Detail { profile, bytes: measured.bytes, right })
    }
}

/// What is read first, so that a later version says so.
#[derive(Deserialize)]
struct Stamp {
    format: String,
    version: u32,
}

impl Table {
    /// A table from its file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Failure::io("read", path, &error))?;
        let wrong = |cause: String| {
            let failure = Failure::new(
                Code::Configuration,
                format!("{} is no table of operating points", path.display()),
            );
            failure.because(cause).hint("`narrows calibrate --labels` makes one")
        };
        let stamp: Stamp = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if stamp.format != FORMAT {
            return Err(wrong(format!("its format is `{}`, not `{FORMAT}`", stamp.format)));
        }
        if stamp.version != VERSION {
            return Err(wrong(format!("its version is {}, this program reads {VERSION}", stamp.version)));
        }
        let table: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        let times = table.points.iter().flat_map(|row| [row.encode_us, row.decode_us]).chain([table.tail_us]);
        if let Some(time) = { times }.find(|time| !(0.0..=MAX_TIME_US).contains(time)) {
            return Err(wrong(format!("a time is {time} µs, not 0 to {MAX_TIME_US}")));
        }
        if table.points.iter().any(|row| row.pareto) {
            Ok(table)
        } else {
            Err(wrong("it has no point on a Pareto front".to_owned()))
        }
    }

    /// The file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a table is plain data");
        json.push(b'\n');
        json
    }

    /// Places of the points on the Pareto front, and of their faster, larger twins: the same symbols at order 0.
    pub fn choosable(&self) -> Vec<usize> {
        let is_twin = |row: &Row| {
            let same =
                |other: &Row| (other.levels, other.range, &other.clip) == (row.levels, row.range, &row.clip);
            row.coding == Coding::Order0 && self.pareto().any(|(_, other)| same(other))
        };
        let wanted = |(_, row): &(usize, &Row)| row.pareto || is_twin(row);
        self.points.iter().enumerate().filter(wanted).map(|(index, _)| index).collect()
    }

    /// The points that are worth taking, with their places in `points`.
    pub fn pareto(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.points.iter().enumerate().filter(|(_, row)| row.pareto)
    }
}

impl Outcome {
    /// Keep what the first half of the measured samples says, and return the second half: of each point, frames
    /// and answers that the table knows nothing of.
    pub fn halve(&mut self) -> Vec<Detail> {
        let mut others = Vec::with_capacity(self.details.len());
        for (row, detail) in self.table.points.iter_mut().zip(&mut self.details) {
            let half = detail.bytes.len() / 2;
            let (bytes, right) = (detail.bytes.split_off(half), detail.right.split_off(half));
            others.push(Detail { profile: detail.profile.clone(), bytes, right });
            row.bytes_mean = mean(&detail.bytes);
            row.bytes_high = percentile(&detail.bytes, HIGH_PERCENTILE);
            let right = detail.right.iter().filter(|&&right| right).count();
            row.top1_percent = 100.0 * right as f64 / half.max(1) as f64;
        }
        self.table.samples_measured /= 2;
        mark_pareto(&mut self.table.points);
        others
    }
}

/// Mark the points that none smaller equals.
fn mark_pareto(points: &mut [Row]) {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[a].bytes_mean.total_cmp(&points[b].bytes_mean));
    let mut best = f64::NEG_INFINITY;
    for index in order {
        points[index].pareto = points[index].top1_percent > best;
        best = best.max(points[index].top1_percent);
    }
}

impl Row {
    /// The point as a controller takes it, with the times of a device that is `slowdown` times slower than the
    /// machine that measured, and heads and tails of these times.
    pub fn operating_point(&self, head: Duration, tail: Duration, slowdown: f64) -> OperatingPoint {
        let microseconds = |us: f64| Duration::from_secs_f64(us.max(0.0) / 1e6);
        OperatingPoint {
            bytes: self.bytes_mean,
            bytes_high: f64::from(self.bytes_high).max(self.bytes_mean),
            accuracy: self.top1_percent,
            device: (head + microseconds(self.encode_us)).mul_f64(slowdown),
            server: tail + microseconds(self.decode_us),
        }
    }
}
