//! What has been measured so far: a file for each operating point, so that a run that was stopped goes on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::method::Method;
use crate::destination::Destination;
use crate::evaluate::{Measured, mean, percent_equal, percentile};
use crate::failure::{Failure, Result};

/// The folder of the points, and the file that says what they are points of.
const POINTS: &str = "points";
const SUBJECT: &str = "evaluation.json";

/// One method at one bit width at one cut, over all inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub cut: String,
    pub method: Method,
    /// Bits of a symbol, or of an element where there are no symbols.
    pub bits: u8,
    pub bytes_mean: f64,
    /// The size that 95 % of the frames don't exceed.
    pub bytes_high: u32,
    pub bits_per_element: f64,
    pub top1_percent: f64,
    /// How often the answer is the one without compression.
    pub agreement_percent: f64,
    /// Medians on this machine.
    pub encode_us: f64,
    pub decode_us: f64,
    pub tail_us: f64,
}

impl Point {
    pub fn new(
        (cut, method, bits): (&str, Method, u8),
        measured: &Measured,
        elements: usize,
        expected: &[usize],
        unsplit: &[usize],
    ) -> Self {
        let bytes_mean = mean(&measured.bytes);
        Self {
            cut: cut.to_owned(),
            method,
            bits,
            bytes_mean,
            bytes_high: percentile(&measured.bytes, 95.0),
            bits_per_element: 8.0 * bytes_mean / elements.max(1) as f64,
            top1_percent: percent_equal(&measured.answers, expected),
            agreement_percent: percent_equal(&measured.answers, unsplit),
            encode_us: measured.encode.median_us(),
            decode_us: measured.decode.median_us(),
            tail_us: measured.tail.median_us(),
        }
    }
}

/// The folder of an evaluation.
pub struct State {
    folder: PathBuf,
    points: Vec<Point>,
}

impl State {
    /// Go on with the evaluation in `folder` if it is of the same `subject`, or begin one. With `force`, what is
    /// there is forgotten.
    pub fn open(folder: &Path, subject: &Value, force: bool) -> Result<Self> {
        let points = folder.join(POINTS);
        let file = folder.join(SUBJECT);
        if force && file.is_file() && points.is_dir() {
            fs::remove_dir_all(&points).map_err(|error| Failure::output("empty", &points, &error))?;
        } else if let Ok(bytes) = fs::read(&file) {
            let before: Option<Value> = serde_json::from_slice(&bytes).ok();
            if before.as_ref() != Some(subject) {
                let failure = Failure::usage(format!("{} holds another evaluation", folder.display()));
                return Err(failure
                    .because(format!("{SUBJECT} names another model, other inputs or labels"))
                    .hint("name another folder with -o, or start over with --force"));
            }
        }
        fs::create_dir_all(&points).map_err(|error| Failure::output("make the folder", &points, &error))?;
        let json = serde_json::to_vec_pretty(subject).expect("a subject is plain data");
        Destination::File(file).write(&json)?;
        let mut state = Self { folder: folder.to_owned(), points: Vec::new() };
        let entries = fs::read_dir(&points).map_err(|error| Failure::io("read", &points, &error))?;
        for entry in
            entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
        {
            // One that cannot be read is measured again.
            let point = fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            state.points.extend(point);
        }
        Ok(state)
    }

    /// The point, if it has been measured.
    pub fn find(&self, cut: &str, method: Method, bits: u8) -> Option<&Point> {
        let same = |point: &&Point| (point.cut.as_str(), point.method, point.bits) == (cut, method, bits);
        self.points.iter().find(same)
    }

    /// Keep a point, in its file.
    pub fn keep(&mut self, point: Point) -> Result<()> {
        // Tensors may be called anything; what a file may be called is less.
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        let name: String = point.cut.chars().map(plain).take(60).collect();
        let hash = fnv(point.cut.as_bytes());
        let file = format!("{name}-{hash:08x}.{}.q{}.json", point.method.name(), point.bits);
        let json = serde_json::to_vec_pretty(&point).expect("a point is plain data");
        Destination::File(self.folder.join(POINTS).join(file)).write(&json)?;
        self.points.push(point);
        Ok(())
    }
}

/// Tells names apart that become the same file name (Fowler, Noll and Vo's hash).
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
