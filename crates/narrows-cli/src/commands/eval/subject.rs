//! What is evaluated: a model, inputs, labels.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use narrows::Tensor;
use narrows_split::{Model, cuts, offered};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Args;
use crate::evaluate::{
    Batch, Features, Half, Samples, answers, find_labels, percent_equal, read_labels, timed,
};
use crate::failure::{Failure, Result};

/// Features are kept up to this many bytes a cut; the others are computed each time they are needed.
const KEPT_BYTES: usize = 1 << 30;
/// Inputs that the head is timed on and that drawings look at.
const DRAWN: usize = 32;

/// A model, inputs and labels.
pub struct Subject {
    /// The model's file name.
    pub name: String,
    pub cuts: Vec<String>,
    pub labelled: bool,
    /// The labels, or what the model says.
    pub expected: Vec<usize>,
    /// What the model says without compression.
    pub unsplit: Vec<usize>,
    model: Model,
    inputs: Vec<Tensor>,
    digest: String,
}

impl Subject {
    pub fn read(args: &Args) -> Result<Self> {
        let name = args.model.display().to_string();
        let model = Model::read(&args.model)
            .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
        let whole = Half::tail(&model, &name)?;
        let cuts = if args.cuts.is_empty() { worthwhile(&model, &name)? } else { args.cuts.clone() };
        let mut inputs = Vec::new();
        for file in files(&args.data)? {
            let batch = Batch::read(&file, whole.input_dims(), None)?;
            for input in batch.iter() {
                let tensor = Tensor::new(input.to_vec(), whole.input_dims());
                inputs.push(tensor.map_err(|error| Failure::codec("cannot use an input", &error))?);
            }
        }
        let labels = labels(args)?;
        if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != inputs.len()) {
            let (labels, inputs) = (labels.len(), inputs.len());
            return Err(Failure::data(format!("{labels} labels do not go with {inputs} inputs")));
        }
        inputs.truncate(args.limit.unwrap_or(usize::MAX));
        let unsplit = answers(inputs.as_slice(), &whole)?;
        let mut digest = Sha256::new();
        inputs.iter().for_each(|input| digest.update(input.to_le_bytes()));
        let labelled = labels.is_some();
        let expected = labels.map_or_else(
            || unsplit.clone(),
            |labels| labels.into_iter().take(inputs.len()).map(|label| label as usize).collect::<Vec<_>>(),
        );
        expected.iter().for_each(|&label| digest.update((label as u64).to_le_bytes()));
        let name = args.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digest = hex(&digest.finalize());
        Ok(Self { name, cuts, labelled, expected, unsplit, model, inputs, digest })
    }

    /// What points are points of: others must not be mixed with them.
    pub fn identity(&self, calibration: usize) -> Value {
        json!({
            "format": "narrows-evaluation-points", "version": 1, "program": env!("CARGO_PKG_VERSION"),
            "model_sha256": self.model.sha256(), "inputs_sha256": self.digest,
            "inputs": self.inputs.len(), "calibration": calibration,
        })
    }

    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Top-1 without compression, in percent.
    pub fn top1(&self) -> f64 {
        percent_equal(&self.unsplit, &self.expected)
    }

    /// The model cut at a tensor.
    pub fn at(&self, cut: &str) -> Result<AtCut> {
        let split = narrows_split::split(&self.model, cut)
            .map_err(|error| Failure::model(format!("cannot split {} at `{cut}`", self.name), &error))?;
        let (head, tail) = (Half::head(&split.head, cut)?, Half::tail(&split.tail, cut)?);
        let mut at =
            AtCut { name: cut.to_owned(), tail, drawn: Vec::new(), head_us: 0.0, head, kept: Vec::new() };
        let mut times = Samples::default();
        for input in self.inputs.iter().take(DRAWN) {
            let (features, time) = timed(|| at.run(input));
            at.drawn.push(features?);
            times.record(time);
        }
        at.head_us = times.median_us();
        Ok(at)
    }
}

/// A model cut at one tensor.
pub struct AtCut {
    pub name: String,
    pub tail: Half,
    /// The features of the first inputs.
    pub drawn: Vec<Tensor>,
    pub head_us: f64,
    head: Half,
    kept: Vec<Tensor>,
}

impl AtCut {
    fn run(&self, input: &Tensor) -> Result<Tensor> {
        self.head.run(&input.to_f32()).map_err(|error| Failure::model("cannot run the head", &error))
    }

    pub fn dims(&self) -> &[usize] {
        self.head.output_dims()
    }

    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The features of all inputs: those that are [kept](Self::first), and the others as they are asked for.
    pub fn features<'a>(&'a self, subject: &'a Subject) -> AllFeatures<'a> {
        AllFeatures { at: self, subject }
    }

    /// The features of the first inputs.
    pub fn first(&mut self, subject: &Subject, count: usize) -> Result<&[Tensor]> {
        self.keep(subject, count.min(subject.inputs.len()))?;
        Ok(&self.kept[..count.min(self.kept.len())])
    }

    fn keep(&mut self, subject: &Subject, count: usize) -> Result<()> {
        let most = (KEPT_BYTES / (4 * self.elements().max(1))).max(1);
        for index in self.kept.len()..count.min(most) {
            self.kept.push(self.run(&subject.inputs[index])?);
        }
        Ok(())
    }

    /// Forget the features.
    pub fn release(&mut self) {
        self.kept = Vec::new();
    }
}

/// Features, kept or computed.
pub struct AllFeatures<'a> {
    at: &'a AtCut,
    subject: &'a Subject,
}

impl Features for AllFeatures<'_> {
    fn count(&self) -> usize {
        self.subject.inputs.len()
    }

    fn at(&self, index: usize) -> Result<Cow<'_, Tensor>> {
        match self.at.kept.get(index) {
            Some(kept) => Ok(Cow::Borrowed(kept)),
            None => self.at.run(&self.subject.inputs[index]).map(Cow::Owned),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The cuts that somebody would choose.
fn worthwhile(model: &Model, name: &str) -> Result<Vec<String>> {
    let all =
        cuts(model).map_err(|error| Failure::model(format!("cannot find the cuts of {name}"), &error))?;
    Ok(offered(&all).into_iter().map(|cut| cut.name.clone()).collect())
}

const LABELS: &str = "labels.npy";

/// The files of inputs, in the order of their names.
fn files(data: &Path) -> Result<Vec<PathBuf>> {
    if !data.is_dir() {
        return Ok(vec![data.to_owned()]);
    }
    let entries = std::fs::read_dir(data).map_err(|error| Failure::io("read", data, &error))?;
    let is_input = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("npy" | "npz")) && path.file_name().is_some_and(|name| name != LABELS)
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_input).collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::data(format!("{} holds no .npy or .npz file", data.display())));
    }
    Ok(files)
}

/// The labels that were named, or that are with the inputs.
fn labels(args: &Args) -> Result<Option<Vec<u32>>> {
    if let Some(path) = &args.labels {
        return read_labels(path).map(Some);
    }
    let beside = args.data.join(LABELS);
    if beside.is_file() {
        return read_labels(&beside).map(Some);
    }
    let is_npz = args.data.extension().is_some_and(|ending| ending == "npz");
    if is_npz && args.data.is_file() { find_labels(&args.data) } else { Ok(None) }
}
