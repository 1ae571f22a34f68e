//! How fine each tensor's grid is: steps for a target of bits a weight, shared out by how much each tensor matters.
//!
//! Rounding to a step adds an error of about `step^2 / 12` to each weight, and a loss of its curvature times that. For a
//! given sum of losses bits are fewest where all tensors lose the same per weight: steps proportional to
//! `1 / sqrt(importance)`, the importance being the mean Fisher information (or the mean second moment of what the
//! weights are multiplied with). Without calibration a tensor's importance is `1 / mean(w^2)`: the same relative error for all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use crate::checkpoint::{Checkpoint, OneOrMany};
use crate::error::{Error, Result};
use crate::file::Plain;
use crate::grid::{Grid, MAX_HALF, Quantized, counts, entropy};
use crate::net::compensate::Moments;

/// Weights of a tensor that are looked at to find the step: its entropy is known to a percent from so many.
const SAMPLED: usize = 1 << 18;
/// Halvings of the interval in which the common factor of all steps is searched.
const HALVINGS: u32 = 18;
/// What is added to the diagonal of second moments, relative to its mean: sentences are few. On `MiniLM` and a hundred of
/// them 0.5 is as good, 0.1 and less are worse.
const DAMPING: f64 = 1.0;
/// As many bins as a grid can have.
const MOST_BINS: u16 = 2 * MAX_HALF as u16 + 1;
/// The share of as many bits as its bins could hold that a tensor can be asked to have.
const MOST_OF_BINS: f64 = 0.9;
/// The suffix of calibration statistics that belong to columns.
const INPUTS_SUFFIX: &str = ".inputs";

/// How weights become bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Bits a weight.
    pub bits: f64,
    /// What these are bits of.
    pub counted: Counted,
    /// The most bins; odd.
    pub bins: u16,
    /// One step for a tensor, or one for each row.
    pub scope: Scope,
    /// What a bit costs in squared steps when weights are rounded; 0 rounds to the nearest bin.
    pub lambda: f32,
    /// Tensors of fewer weights, or of one axis, are kept as they are.
    pub least_weights: usize,
    /// Names of tensors to keep as they are, or parts of names.
    pub keep: Vec<String>,
}

/// What a target of bits a weight counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// The entropy of the bins, over the weights that are quantised.
    #[default]
    Entropy,
    /// Every byte of the file, over all elements in it: headers, tables, steps, and tensors that are kept because they are small.
    /// Left out are tensors that [`Settings::keep`] names.
    File,
}

/// What has a step of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// A tensor.
    #[default]
    Tensor,
    /// A row: an output channel.
    Row,
}

impl Default for Settings {
    fn default() -> Self {
        let (bits, bins, scope) = (4.0, 255, Scope::Tensor);
        let counted = Counted::Entropy;
        Self { bits, counted, bins, scope, lambda: 0.0, least_weights: 1024, keep: Vec::new() }
    }
}

impl Settings {
    /// # Errors
    /// [`Error::InvalidOption`] for bits or bins out of range, or more bits than the bins can hold.
    pub(crate) fn check(&self) -> Result<()> {
        let value = self.bits;
        if !(value > 0.0 && value <= 8.0) {
            return Err(Error::InvalidOption {
                what: "bits a weight",
                value,
                allowed: "above 0 and at most 8",
            });
        }
        Grid::new(vec![1.0], self.bins)?;
        // Beyond, steps only get so fine that most weights are cut off.
        if self.bins < MOST_BINS && value > MOST_OF_BINS * f64::from(self.bins).log2() {
            let allowed = "at most nine tenths of log2 of the number of bins";
            return Err(Error::InvalidOption { what: "bits a weight", value, allowed });
        }
        Ok(())
    }

    /// Whether a tensor is kept because of its name.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.keep.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Statistics of a calibration run, as a safetensors file has them. For the weight `NAME`: a tensor `NAME` of its mean Fisher
/// information, one value, one for each row or one for each weight; or a tensor `NAME.inputs` of the second
/// moment of what each column is multiplied with.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    importance: HashMap<String, Vec<f32>>,
    /// Second moments of what matrices are multiplied with.
    moments: HashMap<String, Arc<Moments>>,
}

impl Calibration {
    /// The float tensors of a checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let read = |(name, tensor): (&String, &Plain)| {
            let mut values = Vec::new();
            tensor.read_f32(0..tensor.elements(), &mut values);
            (name.clone(), values)
        };
        Self { importance: checkpoint.tensors().iter().map(read).collect(), moments: HashMap::new() }
    }

    /// Statistics by their names.
    pub(crate) fn from_values(importance: HashMap<String, Vec<f32>>) -> Self {
        Self { importance, moments: HashMap::new() }
    }

    /// The same with the second moments of what matrices are multiplied with.
    pub(crate) fn with_moments(mut self, moments: HashMap<String, Moments>) -> Self {
        self.moments = moments.into_iter().map(|(name, moments)| (name, Arc::new(moments))).collect();
        self
    }

    /// Importance of each column, if that is what is known of a tensor.
    pub fn of_columns(&self, name: &str, columns: usize) -> Option<&[f32]> {
        let values = self.importance.get(&format!("{name}{INPUTS_SUFFIX}"))?;
        (values.len() == columns).then_some(values)
    }

    /// Importance of a tensor's rows: one for all, or one for each.
    fn of_rows(&self, name: &str, rows: usize, columns: usize) -> Option<Vec<f64>> {
        let mean = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
        if let Some(values) = self.of_columns(name, columns) {
            return Some(vec![mean(values)]);
        }
        let values = self.importance.get(name)?;
        match values.len() {
            1 => Some(vec![f64::from(values[0])]),
            length if length == rows => Some(values.iter().map(|&x| f64::from(x)).collect()),
            length if length == rows * columns => Some(values.chunks_exact(columns).map(mean).collect()),
            _ => None,
        }
    }
}

/// A tensor to quantise, and what is known of it.
struct Subject<'a> {
    name: &'a str,
    rows: usize,
    columns: usize,
    /// The step of each row (or of all) for a common factor of 1.
    relative: Vec<f64>,
    /// The largest weight of each row.
    largest: Vec<f32>,
    /// Rows that are looked at.
    sample: Vec<(usize, Vec<f32>)>,
}

/// The grid of every tensor that is to be quantised.
///
/// Those that a trainer has put on a grid keep it, whatever the settings say.
///
/// # Errors
/// [`Error::InTensor`] with [`Error::NonFinite`] for NaN or infinity; [`Error::Container`] for a trainer's steps that do not
/// fit; [`Error::InvalidOption`] for bits or bins out of range.
pub fn grids(
    checkpoint: &Checkpoint,
    settings: &Settings,
    calibration: Option<&Calibration>,
) -> Result<BTreeMap<String, Grid>> {
    settings.check()?;
    let mut grids = trained(checkpoint)?;
    let wanted = checkpoint.tensors().iter().filter(|(name, tensor)| {
        !grids.contains_key(*name)
            && !settings.keeps(name)
            && is_matrix(tensor)
            && tensor.elements() >= settings.least_weights
    });
    let subjects: Vec<(&String, &Plain)> = wanted.collect();
    let subjects: Vec<Subject<'_>> = subjects
        .into_par_iter()
        .map(|(name, tensor)| {
            subject(name, tensor, settings, calibration).map_err(|error| error.in_tensor(name))
        })
        .collect::<Result<_>>()?;
    if subjects.is_empty() {
        return Ok(grids);
    }
    let factor = factor(&subjects, settings, calibration);
    for subject in &subjects {
        grids.insert(subject.name.to_owned(), subject.grid(factor, settings));
    }
    Ok(grids)
}

/// Whether a tensor can be packed: floats, of two axes at least.
pub(crate) fn is_matrix(tensor: &Plain) -> bool {
    let axes = (2..=narrows::MAX_RANK).contains(&tensor.shape.len());
    axes && tensor.float().is_some() && tensor.elements() > 0
}

/// The grids that a trainer left.
fn trained(checkpoint: &Checkpoint) -> Result<BTreeMap<String, Grid>> {
    let mut grids = BTreeMap::new();
    for (name, steps) in checkpoint.steps()? {
        let Some(tensor) = checkpoint.tensors().get(&name) else {
            return Err(Error::container(format!("steps are given for {name}, which is not there")));
        };
        if !is_matrix(tensor) {
            return Err(
                Error::container("steps are given for it, but it is no matrix of floats").in_tensor(&name)
            );
        }
        let (rows, count) = (tensor.shape[0], u16::try_from(steps.bins).unwrap_or(0));
        let steps = match steps.step {
            OneOrMany::One(step) => vec![step],
            OneOrMany::Many(steps) => steps,
        };
        if steps.len() != 1 && steps.len() != rows {
            let error = Error::Shape { what: "number of steps", value: steps.len(), bound: rows };
            return Err(error.in_tensor(&name));
        }
        grids.insert(name.clone(), Grid::new(steps, count).map_err(|error| error.in_tensor(&name))?);
    }
    Ok(grids)
}

fn subject<'a>(
    name: &'a str,
    tensor: &Plain,
    settings: &Settings,
    calibration: Option<&Calibration>,
) -> Result<Subject<'a>> {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1..].iter().product());
    let (mut squares, mut largest, mut values) =
        (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::new());
    for row in 0..rows {
        tensor.read_f32(row * columns..(row + 1) * columns, &mut values);
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(Error::NonFinite { index: row * columns + index, value });
        }
        largest.push(values.iter().fold(0.0_f32, |most, w| most.max(w.abs())));
        squares.push(values.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / columns as f64);
    }
    let mean = squares.iter().sum::<f64>() / rows as f64;
    let known = calibration.and_then(|calibration| calibration.of_rows(name, rows, columns));
    let per_row = settings.scope == Scope::Row;
    let relative = match known {
        Some(importance) => {
            // What never mattered in the calibration run is not free: it counts a thousandth of the mean.
            let mean = importance.iter().sum::<f64>() / importance.len() as f64;
            let step = |importance: f64| 1.0 / importance.max(mean / 1000.0).max(1e-30).sqrt();
            if per_row && importance.len() == rows {
                importance.into_iter().map(step).collect()
            } else {
                vec![step(mean)]
            }
        }
        None if per_row => squares.iter().map(|&square| square.max(mean / 1e4).sqrt()).collect(),
        None => vec![mean.sqrt()],
    };
    let every = (rows * columns).div_ceil(SAMPLED).max(1);
    let sample = (0..rows).step_by(every).map(|row| {
        let mut values = Vec::new();
        tensor.read_f32(row * columns..(row + 1) * columns, &mut values);
        (row, values)
    });
    Ok(Subject { name, rows, columns, relative, largest, sample: sample.collect() })
}

/// A step in 16 bits: what a packed tensor stores of it.
fn stored_step(step: f64) -> f32 {
    let step = step.clamp(1e-30, 1e30) as f32;
    f32::from_bits((step.to_bits().saturating_add(0x8000)) & 0xffff_0000)
}

impl Subject<'_> {
    /// The grid for a common factor of all steps.
    ///
    /// Where as many bins are allowed as a grid can have, none of its weights is cut off: a row with a weight beyond them
    /// has a step that is as coarse as it takes.
    fn grid(&self, factor: f64, settings: &Settings) -> Grid {
        let most = f32::from(MAX_HALF) + 0.49;
        let steps: Vec<f32> = self.relative.iter().map(|&relative| stored_step(relative * factor)).collect();
        let step = |row: usize| steps[if steps.len() == 1 { 0 } else { row }];
        let all_fit = self.largest.iter().enumerate().all(|(row, &largest)| largest <= most * step(row));
        let steps = if all_fit || settings.bins < MOST_BINS {
            steps
        } else {
            let wide = |(row, &largest): (usize, &f32)| stored_step(step(row).max(largest / most).into());
            self.largest.iter().enumerate().map(wide).collect()
        };
        let bins_of = |(row, &largest): (usize, &f32)| (largest / steps[row % steps.len()]).round();
        let half = self.largest.iter().enumerate().map(bins_of).fold(1.0_f32, f32::max);
        let bins = 2 * half.min(f32::from(MAX_HALF)) as u16 + 1;
        Grid::new(steps, bins.min(settings.bins)).expect("positive steps and odd bins")
    }

    /// Bits of all its weights, judged by the sample.
    fn bits(&self, factor: f64, settings: &Settings, calibration: Option<&Calibration>) -> f64 {
        let grid = self.grid(factor, settings);
        let importance = importance(calibration, self.name, self.columns);
        let mut values = vec![0; self.sample.len() * self.columns];
        let rows = || self.sample.iter().map(|(row, weights)| (*row, weights.as_slice()));
        round(&grid, rows, &importance, settings.lambda, &mut values);
        entropy(&counts(&values, grid.half())) * (self.rows * self.columns) as f64
    }
}

/// The importance of columns relative to their mean, if it is known and not the same for all.
fn importance(calibration: Option<&Calibration>, name: &str, columns: usize) -> Vec<f32> {
    let Some(values) = calibration.and_then(|calibration| calibration.of_columns(name, columns)) else {
        return Vec::new();
    };
    let mean = values.iter().sum::<f32>() / columns as f32;
    if mean > 0.0 { values.iter().map(|value| value / mean).collect() } else { Vec::new() }
}

/// The factor of all steps that meets the target of bits a weight.
fn factor(subjects: &[Subject<'_>], settings: &Settings, calibration: Option<&Calibration>) -> f64 {
    let weights: f64 = subjects.iter().map(|subject| (subject.rows * subject.columns) as f64).sum();
    let bits = |log2: f64| {
        let each = subjects.par_iter().map(|subject| subject.bits(log2.exp2(), settings, calibration));
        each.sum::<f64>() / weights
    };
    // Steps from 2^-12 of the least to twice the largest weight's; relative steps have any unit.
    let ratio = |subject: &Subject<'_>| {
        let largest =
            subject.sample.iter().flat_map(|(_, values)| values).fold(0.0_f32, |most, w| most.max(w.abs()));
        let (least, most) =
            subject.relative.iter().fold((f64::MAX, 0.0_f64), |(a, b), &x| (a.min(x), b.max(x)));
        (f64::from(largest) / most.max(1e-300), f64::from(largest) / least.max(1e-300))
    };
    let (mut fine, mut coarse) =
        subjects.iter().map(ratio).fold((f64::MAX, 1e-30_f64), |(a, b), (c, d)| (a.min(c), b.max(d)));
    fine = fine.max(1e-30).log2() - 12.0;
    coarse = coarse.log2() + 2.0;
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(fine, coarse);
        *(if bits(middle) > settings.bits { &mut fine } else { &mut coarse }) = middle;
    }
    coarse.exp2()
}

/// Rounds a row: its index, its weights, and where their bins go.
type Rounding<'a> = dyn Fn(usize, &[f32], &mut [i8]) + 'a;

/// Round rows to their bins, over `values`; with `lambda`, by the code lengths that rounding to the nearest leads to, twice.
fn round<'a, R: Iterator<Item = (usize, &'a [f32])>>(
    grid: &Grid,
    rows: impl Fn() -> R,
    importance: &[f32],
    lambda: f32,
    values: &mut [i8],
) {
    let each = |values: &mut [i8], round: &Rounding<'_>| {
        let mut rest = values;
        for (row, weights) in rows() {
            let (own, others) = rest.split_at_mut(weights.len());
            round(row, weights, own);
            rest = others;
        }
    };
    each(values, &|row, weights, values| grid.quantize_row(row, weights, values));
    let rounds = if lambda > 0.0 { 2 } else { 0 };
    for _ in 0..rounds {
        let counts = counts(values, grid.half());
        let total = counts.iter().sum::<u64>() as f32;
        // What does not occur would cost as much as what occurs half a time.
        let bits: Vec<f32> = counts.iter().map(|&n| (total / (n as f32).max(0.5)).log2()).collect();
        each(values, &|row, weights, values| grid.round_row(row, weights, importance, &bits, lambda, values));
    }
}

/// The bins of a whole tensor on its grid.
///
/// # Errors
/// [`Error::NonFinite`] for NaN or infinity.
pub fn quantize(
    name: &str,
    tensor: &Plain,
    grid: &Grid,
    lambda: f32,
    calibration: Option<&Calibration>,
) -> Result<Quantized> {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1..].iter().product::<usize>());
    let mut weights = Vec::new();
    tensor.read_f32(0..rows * columns, &mut weights);
    if let Some((index, &value)) = weights.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(Error::NonFinite { index, value });
    }
    let moments = calibration.and_then(|calibration| calibration.moments.get(name));
    if let Some(moments) = moments.filter(|moments| moments.columns() == columns) {
        return Ok(moments.factor(DAMPING).round(grid, &weights, lambda));
    }
    let mut values = vec![0; weights.len()];
    let importance = importance(calibration, name, columns);
    round(grid, || weights.chunks_exact(columns).enumerate(), &importance, lambda, &mut values);
    Ok(Quantized { values, grid: grid.clone(), rows, columns })
}
