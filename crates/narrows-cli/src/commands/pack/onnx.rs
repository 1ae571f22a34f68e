//! The weights of ONNX models, and networks of images that are calibrated.

use std::path::Path;

use narrows_split::Model;
use narrows_weights::net::{self, Images};
use narrows_weights::{Checkpoint, Data, Outcome, PackOptions, Plain, Settings, pack_network};
use safetensors::Dtype;

use super::{PERMILLE, Unpacked};
use crate::evaluate::Dataset;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// A model's float initialisers as a checkpoint.
pub fn checkpoint(path: &Path) -> Result<Checkpoint> {
    let model = Model::read(path)
        .map_err(|error| Failure::model(format!("cannot read {}", path.display()), &error))?;
    let tensors = model.weights().into_iter().map(|weight| {
        let dtype = if weight.element_bytes == 4 { Dtype::F32 } else { Dtype::F16 };
        (weight.name, Plain { dtype, shape: weight.shape, data: Data::from(weight.bytes) })
    });
    Ok(Checkpoint::from_tensors(tensors.collect()))
}

/// Pack a network on grids that training images led to.
pub(super) fn calibrated(
    (path, is_onnx): (&Path, bool),
    (folder, images): (&Path, usize),
    settings: &Settings,
    options: &PackOptions,
    to: &Path,
    output: &Output,
) -> Result<Outcome, Unpacked> {
    if !is_onnx {
        let failure = Failure::usage(format!("{} is no .onnx model", path.display()));
        let hint = "--dataset runs the network, of which a checkpoint has the weights alone";
        return Err(Unpacked::Other(failure.hint(hint)));
    }
    let failed = |what: &str| {
        let sentence = format!("cannot {what} {}", path.display());
        move |error: narrows_weights::Error| Unpacked::of(sentence, &error)
    };
    let model = net::Model::open(path).map_err(failed("read"))?;
    let mut training = Dataset::training(folder).map_err(Unpacked::Other)?;
    training.truncate(images);
    let images = Images::new(training.iter().flat_map(|(image, _)| image).collect(), model.network().image())
        .map_err(failed("calibrate"))?;
    let progress = output.progress(PERMILLE as u64, "calibrating");
    let tell = |done: f64| progress.set_position((PERMILLE * done) as u64);
    let layers = net::calibrated(&model, &images, settings, options, tell);
    progress.finish_and_clear();
    pack_network(&model, &layers.map_err(failed("calibrate"))?, to, options).map_err(failed("pack"))
}
