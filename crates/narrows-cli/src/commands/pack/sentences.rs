//! Sentence encoders that are calibrated: run on sentences, before they are packed.

use std::path::Path;

use narrows_weights::{Calibration, Checkpoint};

use crate::commands::embed::read_tokens;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// What is found by running the checkpoint's sentence encoder on the sentences of a file of token numbers.
pub fn calibrated(
    (path, checkpoint): (&Path, &Checkpoint),
    tokens: &Path,
    heads: Option<usize>,
    output: &Output,
) -> Result<Calibration> {
    let number = |token: i64| {
        u32::try_from(token).map_err(|error| {
            let sentence = format!("{} holds something other than token numbers", tokens.display());
            Failure::data(sentence).because(format!("{token}: {error}"))
        })
    };
    let sentence = |words: Vec<i64>| words.into_iter().map(number).collect::<Result<Vec<u32>>>();
    let sentences = read_tokens(tokens)?.into_iter().map(sentence).collect::<Result<Vec<_>>>()?;
    let heads = heads.map_or_else(|| configured_heads(path), Ok)?;
    let progress = output.progress(0, "runs");
    let found = Calibration::of_sentences(checkpoint, &sentences, heads, |done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
    });
    progress.finish_and_clear();
    found.map_err(|error| {
        Failure::weights(format!("cannot run the sentence encoder of {}", path.display()), &error)
    })
}

/// The number of attention heads that a model's configuration gives.
fn configured_heads(checkpoint: &Path) -> Result<usize> {
    let path = checkpoint.with_file_name("config.json");
    let unknown = |cause: String| {
        let failure = Failure::usage("it is not known how many attention heads the sentence encoder has");
        failure.because(cause).hint("give their number: --heads 12")
    };
    let text =
        std::fs::read(&path).map_err(|error| unknown(format!("cannot read {}: {error}", path.display())))?;
    let config: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| unknown(format!("{}: {error}", path.display())))?;
    let heads = config["num_attention_heads"].as_u64().and_then(|heads| usize::try_from(heads).ok());
    heads.ok_or_else(|| unknown(format!("{} has no number `num_attention_heads`", path.display())))
}
