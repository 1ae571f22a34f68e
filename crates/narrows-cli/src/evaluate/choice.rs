//! The smallest profile that leaves a network's answers alone.

use std::sync::Arc;

use indicatif::ProgressBar;
use narrows::{Calibration, Clip, Decoder, Encoder, Profile, Tensor, TensorView};

use super::accuracy::top_1;
use super::network::Half;
use crate::failure::{Failure, Result};

/// Numbers of levels that are tried.
const LEVELS: [u16; 9] = [2, 3, 4, 5, 6, 8, 12, 16, 32];
/// Ranges that are tried, in percent of the values.
const PERCENTILES: [f32; 3] = [99.9, 99.5, 99.0];
/// Profiles are fitted to this many samples; all samples decide whether answers agree.
const FITTED: usize = 200;

/// A profile and how it did on the samples.
pub struct Choice {
    /// The profile.
    pub profile: Arc<Profile>,
    /// Mean bytes of a frame.
    pub bytes: f64,
    /// Percentage of samples for which the tail gives the same top-1 as without compression.
    pub agreement: f64,
}

/// The first of all combinations of levels and range, from small frames to large ones, with which
/// `tail` gives the same top-1 as without for at least `wanted` percent of `features`.
///
/// Needs no labels: what counts is that compression does not change the answer.
pub fn smallest_agreeing(
    tail: &Half,
    features: &[Tensor],
    axis: Option<usize>,
    wanted: f64,
    progress: &ProgressBar,
) -> Result<Choice> {
    let codec = |error: narrows::Error| Failure::codec("cannot calibrate on these samples", &error);
    let failed = |error: narrows_split::Error| Failure::model("cannot run the tail", &error);
    let samples: Vec<TensorView<'_>> = features.iter().take(FITTED).map(Tensor::view).collect();
    let mut candidates = Vec::new();
    for levels in LEVELS {
        for percentile in PERCENTILES {
            let clip = Clip::Percentile(percentile);
            let profile =
                Arc::new(Profile::calibrate(&samples, &Calibration { levels, clip, axis }).map_err(codec)?);
            let mut encoder = Encoder::new(profile.options()).map_err(codec)?;
            let mut bytes = 0;
            for sample in &samples {
                bytes += encoder.encode(sample).map_err(codec)?.len();
            }
            let bytes = bytes as f64 / samples.len() as f64;
            candidates.push(Choice { profile, bytes, agreement: 0.0 });
        }
    }
    candidates.sort_by(|a, b| a.bytes.total_cmp(&b.bytes));
    let mut answers = Vec::with_capacity(features.len());
    for tensor in features {
        answers.push(top_1(&tail.run(&tensor.to_f32()).map_err(failed)?.to_f32()));
    }
    progress.set_length(candidates.len() as u64);
    let mut best = 0.0_f64;
    for mut candidate in candidates {
        let mut encoder = Encoder::new(candidate.profile.options()).map_err(codec)?;
        let mut decoder = Decoder::new();
        decoder.profiles_mut().insert(Arc::clone(&candidate.profile));
        let mut agreeing = 0;
        for (tensor, &answer) in features.iter().zip(&answers) {
            let frame = encoder.encode(&tensor.view()).map_err(codec)?;
            let decoded = decoder.decode(&frame).map_err(codec)?;
            let logits = tail.run(&decoded.to_f32()).map_err(failed)?;
            agreeing += usize::from(top_1(&logits.to_f32()) == answer);
        }
        progress.inc(1);
        candidate.agreement =
            100.0 * f64::from(u32::try_from(agreeing).unwrap_or(u32::MAX)) / features.len() as f64;
        if candidate.agreement >= wanted {
            return Ok(candidate);
        }
        best = best.max(candidate.agreement);
    }
    Err(Failure::data(format!("no profile keeps {wanted} % of the answers"))
        .because(format!("the best of {} keeps {best:.2} %", LEVELS.len() * PERCENTILES.len()))
        .hint("ask for less, or give more samples"))
}
