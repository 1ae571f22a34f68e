//! How features can be sent: by which head, and coded how.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use narrows::{EncodeOptions, Encoder, Profile, Quantizer};
use narrows_link::adapt::OperatingPoint;
use narrows_link::{Request, SplitId, Step, Tail as _};
use narrows_split::Runtime;

use crate::evaluate::{Coding as PointCoding, End, Half, RangeOf, Row, Samples, Table, read_half, timed};
use crate::failure::{Failure, Result};
use crate::options::{self, LayoutName, Quantization};
use crate::tails::{Tails, split_id};

/// The table's file in the folder of `narrows calibrate --labels`.
const TABLE: &str = "operating-points.json";
/// A first run is slower than the others, so the median of some is taken.
const RUNS: usize = 3;

/// How features become frames.
#[derive(clap::Args)]
pub struct Coding {
    #[command(flatten)]
    quantization: Quantization,
    /// The order of the symbols
    #[arg(long, value_enum, default_value_t = LayoutName::Auto)]
    layout: LayoutName,
    /// Keep every bit of the features
    #[arg(long, conflicts_with_all = ["bits", "clip", "per_channel", "layout", "profile"])]
    lossless: bool,
    /// Code with this profile; the server gets it if it lacks it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bits", "clip", "per_channel", "layout", "axis"])]
    profile: Option<PathBuf>,
}

/// A head, ready to run.
pub struct Head {
    pub half: Half,
    pub split: SplitId,
}

impl Head {
    /// The head in a folder that `narrows split` made, or in an ONNX file.
    pub fn read(path: &Path, runtime: Runtime) -> Result<Self> {
        let model = read_half(path, End::Head)?;
        let half = Half::head_on(&model, &path.display().to_string(), runtime)?;
        Ok(Self { half, split: split_id(&model) })
    }
}

/// A way to send features.
pub struct Way {
    /// The tail to ask.
    pub route: String,
    /// Its place among the heads.
    pub head: usize,
    pub encoder: Encoder,
    pub profile: Option<Arc<Profile>>,
    /// For people, if there are several.
    pub name: Option<String>,
    /// What it takes and brings, if it was measured.
    pub point: Option<OperatingPoint>,
}

fn encoder(options: EncodeOptions) -> Result<Encoder> {
    Encoder::new(options).map_err(|error| Failure::codec("cannot set up the encoder", &error))
}

impl Coding {
    /// The one way that the command line asks for.
    pub fn way(&self, route: String) -> Result<Way> {
        let Quantization { axis, .. } = self.quantization;
        let profile = self.profile.as_deref().map(options::profile).transpose()?;
        let options = match &profile {
            Some(profile) => profile.options(),
            None if self.lossless => EncodeOptions { axis, ..EncodeOptions::lossless() },
            None => EncodeOptions {
                quantizer: self.quantization.quantizer(),
                layout: self.layout.into(),
                axis,
                ..EncodeOptions::default()
            },
        };
        Ok(Way { route, head: 0, encoder: encoder(options)?, profile, name: None, point: None })
    }
}

/// The ways of some tables of operating points, each with the head of its cut, and with the times that heads and encoders
/// take here.
pub fn of_tables(paths: &[PathBuf], heads: &[Head], input: &[f32]) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    for path in paths {
        let file = if path.is_dir() { path.join(TABLE) } else { path.clone() };
        let table = Table::read(&file)?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let head = heads.iter().position(|head| head.half.cut == table.cut).ok_or_else(|| {
            let cuts: Vec<_> = heads.iter().map(|head| head.half.cut.as_str()).collect();
            Failure::usage(format!("{} is for a head cut at `{}`", file.display(), table.cut))
                .because(format!("the heads given are cut at {}", cuts.join(", ")))
        })?;
        let half = &heads[head].half;
        let (features, head_time) = repeated(|| half.run(input));
        let features = features.map_err(|error| Failure::model("the head failed", &error))?;
        let tail = Duration::from_secs_f64(table.tail_us / 1e6);
        for index in table.choosable() {
            let row = &table.points[index];
            let Some((options, profile)) = coding_of(&table, row, folder)? else { continue };
            let mut encoder = encoder(options)?;
            let (frame, encode) = repeated(|| encoder.encode(&features.view()));
            frame.map_err(|error| Failure::codec("cannot encode the features", &error))?;
            let point =
                OperatingPoint { device: head_time + encode, ..row.operating_point(head_time, tail, 1.0) };
            let (route, name) = (table.cut.clone(), Some(row.name()));
            ways.push(Way { route, head, encoder, profile, name, point: Some(point) });
        }
    }
    if ways.is_empty() {
        return Err(Failure::data("the tables hold no operating point that can be sent"));
    }
    Ok(ways)
}

/// How a row's features are coded; nothing if its fixed steps are in no file.
fn coding_of(
    table: &Table,
    row: &Row,
    folder: &Path,
) -> Result<Option<(EncodeOptions, Option<Arc<Profile>>)>> {
    let read = |id: &str| options::profile(&folder.join(format!("{id}.nrp")));
    if let Some(id) = &row.profile {
        let profile = read(id)?;
        return Ok(Some((profile.options(), Some(profile))));
    }
    let quantizer = match row.range {
        RangeOf::Tensor => Quantizer::aiq((row.levels.max(2) - 1).ilog2() as u8 + 1),
        // The steps are those of the profile that was fitted to the same samples.
        RangeOf::Samples => {
            let twin = table.pareto().map(|(_, other)| other).find(|other| {
                (other.levels, &other.clip, other.range) == (row.levels, &row.clip, row.range)
                    && other.profile.is_some()
            });
            match twin.and_then(|twin| twin.profile.as_deref()) {
                Some(id) => Quantizer::Fixed(*read(id)?.affine()),
                None => return Ok(None),
            }
        }
    };
    Ok(Some((PointCoding::options(row.coding, quantizer, None, None), None)))
}

/// The result of the last of some runs, and their median time.
fn repeated<T>(mut run: impl FnMut() -> T) -> (T, Duration) {
    let mut times = Samples::default();
    let mut timed_run = || {
        let (result, time) = timed(&mut run);
        times.record(time);
        result
    };
    let mut last = timed_run();
    for _ in 1..RUNS {
        last = timed_run();
    }
    (last, Duration::from_secs_f64(times.median_us() / 1e6))
}

/// Time to leave for the tails here: twice what the slowest takes.
pub fn slowest_tail(tails: &Tails, heads: &[Head], ways: &mut [Way], input: &[f32]) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for way in ways {
        let head = &heads[way.head];
        let features = head.half.run(input).map_err(|error| Failure::model("the head failed", &error))?;
        let frame = way.encoder.encode(&features.view());
        let frame = frame.map_err(|error| Failure::codec("cannot encode the features", &error))?;
        let payload = Step::new(head.split, &frame).to_bytes();
        let payload = payload.map_err(|error| Failure::link("the features cannot be sent", &error))?;
        let request = Request { id: 1, deadline_ms: 0, route: &way.route, payload: &payload };
        let (answered, time) = repeated(|| tails.answer(&request, &mut Vec::new()));
        answered.map_err(|failure| {
            Failure::link("the tail here does not go with the head", &narrows_link::Error::Refused(failure))
        })?;
        slowest = slowest.max(time);
    }
    Ok(slowest * 2)
}
