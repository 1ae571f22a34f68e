//! A training on disk, to go on with later.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use burn_tensor::Device;
use narrows_weights::net::Model;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::examples::Examples;
use crate::settings::Settings;
use crate::trained::Stored;
use crate::trainer::{Progress, Trainer};
use crate::{Error, Result};

/// Key of the metadata that holds everything but the numbers of the layers.
const KEY: &str = "narrows.training";

#[derive(Serialize)]
struct Saved<'a> {
    settings: &'a Settings,
    progress: &'a Progress,
}

#[derive(Deserialize)]
struct Loaded {
    settings: Settings,
    progress: Progress,
}

impl Trainer<'_> {
    /// Write everything that is needed to go on later. The file is the old one or the whole new one, whatever happens.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.bytes())
    }

    fn bytes(&self) -> Vec<u8> {
        let saved = Saved { settings: &self.settings, progress: &self.progress };
        let json = serde_json::to_string(&saved).expect("settings and progress are plain data");
        let names: Vec<_> = self.names().collect();
        let values = self.vectors().map(|values| Stored::floats(vec![values.len()], values));
        let tensors = names.iter().zip(values).filter(|(_, stored)| !stored.is_empty());
        safetensors::serialize(tensors, Some(HashMap::from([(KEY.to_owned(), json)])))
            .expect("lengths and shapes agree")
    }

    /// Go on where a file of [`Trainer::save`] stopped. Settings, images and model must be the same.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Checkpoint`] if it is of another training or damaged;
    /// otherwise as [`Trainer::new`].
    pub fn resume<'a>(
        model: &'a Model,
        examples: Examples,
        settings: Settings,
        device: &Device,
        path: &Path,
    ) -> Result<Trainer<'a>> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let mut trainer = Trainer::new(model, examples, settings, device)?;
        trainer.load(&bytes).map_err(|cause| Error::Checkpoint { path: path.to_owned(), cause })?;
        Ok(trainer)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| text(&error))?;
        let json = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let json = json.ok_or_else(|| format!("its metadata have no `{KEY}`"))?;
        let Loaded { settings, progress } = serde_json::from_str(json).map_err(|error| text(&error))?;
        if settings != self.settings {
            return Err("it was made with other settings".into());
        }
        let layers = self.progress.log_steps.len();
        let fits = progress.steps <= self.steps()
            && progress.log_steps.len() == layers
            && progress.adam.len() == layers;
        if !fits || progress.log_steps.iter().any(|log| !log.is_finite() || log.abs() > 120.0) {
            return Err("its progress does not fit the model".into());
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| text(&error))?;
        let names: Vec<_> = self.names().collect();
        for (name, values) in names.iter().zip(self.vectors_mut()).filter(|(_, values)| !values.is_empty()) {
            let tensor = tensors.tensor(name).map_err(|error| text(&error))?;
            let numbers = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            if tensor.dtype() != safetensors::Dtype::F32 || numbers.len() != values.len() {
                return Err(format!("`{name}` is {:?} of {:?}", tensor.shape(), tensor.dtype()));
            }
            values.iter_mut().zip(numbers).for_each(|(value, number)| *value = number);
            if values.iter().any(|value| !value.is_finite()) {
                return Err(format!("`{name}` holds numbers that are not finite"));
            }
        }
        self.progress = progress;
        Ok(())
    }

    /// Names of [`Self::vectors`].
    fn names(&self) -> impl Iterator<Item = String> + use<> {
        const VECTORS: [&str; 9] = [
            "weights",
            "gains",
            "biases",
            "means",
            "variances",
            "weights.velocity",
            "gains.velocity",
            "biases.velocity",
            "bins",
        ];
        (0..self.state.layers.len()).flat_map(|layer| VECTORS.map(|vector| format!("{layer}.{vector}")))
    }

    fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        let layers = self.state.layers.iter().zip(&self.velocities).enumerate();
        layers.flat_map(|(number, (layer, [weights, gains, biases]))| {
            let bins = self.running.get(number).map_or(&[][..], |running| &running.probabilities);
            let own = [&layer.weights, &layer.gains, &layer.biases, &layer.means, &layer.variances];
            own.into_iter().chain([weights, gains, biases]).map(Vec::as_slice).chain([bins])
        })
    }

    fn vectors_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let mut running = self.running.iter_mut();
        let layers = self.state.layers.iter_mut().zip(&mut self.velocities);
        layers.flat_map(move |(layer, [weights, gains, biases])| {
            let bins = running.next().map_or(&mut [][..], |running| &mut running.probabilities);
            let own = [
                &mut layer.weights,
                &mut layer.gains,
                &mut layer.biases,
                &mut layer.means,
                &mut layer.variances,
            ];
            own.into_iter().chain([weights, gains, biases]).map(Vec::as_mut_slice).chain([bins])
        })
    }
}

/// Write a file so that nobody ever sees a part of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(Error::io(path))
}
