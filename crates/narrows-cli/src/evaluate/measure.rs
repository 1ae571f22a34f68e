//! What it takes to send features, and what it does to the answers.

use std::borrow::Cow;
use std::rc::Rc;

use indicatif::ProgressBar;
use narrows::Tensor;

use super::accuracy::top_1;
use super::codec::Codec;
use super::network::Half;
use super::timing::{Samples, timed};
use crate::failure::{Failure, Result};

/// Features of many inputs.
pub trait Features {
    /// How many inputs.
    fn count(&self) -> usize;
    /// The features of one.
    fn at(&self, index: usize) -> Result<Cow<'_, Tensor>>;
}

impl Features for [Tensor] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Result<Cow<'_, Tensor>> {
        Ok(Cow::Borrowed(&self[index]))
    }
}

/// One codec over all inputs.
pub struct Measured {
    /// Of each frame.
    pub bytes: Vec<u32>,
    pub encode: Samples,
    pub decode: Samples,
    /// The tail's top-1 for each input.
    pub answers: Rc<[usize]>,
    pub tail: Rc<Samples>,
}

/// The mean of some sizes; 0 of none.
pub fn mean(bytes: &[u32]) -> f64 {
    bytes.iter().map(|&bytes| f64::from(bytes)).sum::<f64>() / bytes.len().max(1) as f64
}

/// The least size that `percent` of some sizes don't exceed; 0 of none.
pub fn percentile(bytes: &[u32], percent: f64) -> u32 {
    let mut sorted = bytes.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
}

/// Percentage of `answers` that are as expected.
pub fn percent_equal(answers: &[usize], expected: &[usize]) -> f64 {
    let equal = answers.iter().zip(expected).filter(|(answer, expected)| answer == expected).count();
    100.0 * equal as f64 / answers.len().max(1) as f64
}

/// What the tail says without compression.
pub fn answers(features: &(impl Features + ?Sized), tail: &Half) -> Result<Vec<usize>> {
    (0..features.count()).map(|index| answer(tail, features.at(index)?.as_ref())).collect()
}

fn answer(tail: &Half, features: &Tensor) -> Result<usize> {
    let logits = tail.run(&features.to_f32());
    Ok(top_1(&logits.map_err(|error| Failure::model("cannot run the tail", &error))?.to_f32()))
}

/// Send all features through each of `codecs`. They carry the same symbols, so they must decode to the same
/// tensors, and the tail runs once for all.
pub fn measure_alike(
    codecs: &mut [Box<dyn Codec>],
    features: &(impl Features + ?Sized),
    tail: &Half,
    progress: &ProgressBar,
) -> Result<Vec<Measured>> {
    let count = features.count();
    let blank = || (Vec::with_capacity(count), Samples::default(), Samples::default());
    let mut measured: Vec<_> = codecs.iter().map(|_| blank()).collect();
    let (mut answers, mut tail_times) = (Vec::with_capacity(count), Samples::default());
    let (mut frame, mut first, mut other) = (Vec::new(), Tensor::default(), Tensor::default());
    for index in 0..count {
        let tensor = features.at(index)?;
        for (nth, (codec, (bytes, encode, decode))) in codecs.iter_mut().zip(&mut measured).enumerate() {
            let decoded = if nth == 0 { &mut first } else { &mut other };
            let (result, time) = timed(|| codec.encode(&tensor, &mut frame));
            result?;
            encode.record(time);
            let (result, time) = timed(|| codec.decode(&frame, decoded));
            result?;
            decode.record(time);
            bytes.push(frame.len() as u32);
            if nth > 0 && other.to_le_bytes() != first.to_le_bytes() {
                return Err(Failure::data("two ways to send the same symbols gave different tensors")
                    .because(format!("input {index}, way {nth}"))
                    .hint("this is a fault in narrows: please report it"));
            }
        }
        let (result, time) = timed(|| answer(tail, &first));
        answers.push(result?);
        tail_times.record(time);
        progress.inc(1);
    }
    let (answers, tail): (Rc<[usize]>, _) = (answers.into(), Rc::new(tail_times));
    let whole = |(bytes, encode, decode)| {
        let (answers, tail) = (Rc::clone(&answers), Rc::clone(&tail));
        Measured { bytes, encode, decode, answers, tail }
    };
    Ok(measured.into_iter().map(whole).collect())
}
