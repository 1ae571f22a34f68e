//! A text model to be split, or split already.

use std::path::{Path, PathBuf};

use narrows_split::{Class, Manifest, Model, Place, Sizes, Splitter, offered};

use crate::failure::{Failure, Result};

/// What a command was given: an ONNX file, or the folder of a split.
pub enum TextModel {
    Whole { name: String, model: Model },
    Split { name: String, folder: PathBuf, manifest: Box<Manifest>, head: Model },
}

/// The halves at one cut.
pub struct Halves {
    pub manifest: Manifest,
    pub head: Model,
    /// If it is wanted here.
    pub tail: Option<Model>,
}

impl TextModel {
    /// Read a model, or manifest and head of a split.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let unread = |error| Failure::model(format!("cannot read the model {name}"), &error);
        if !path.is_dir() {
            return Ok(Self::Whole { model: Model::read(path).map_err(unread)?, name });
        }
        let manifest = Manifest::read(path).map_err(unread)?;
        let head = manifest.read_head(path).map_err(unread)?;
        Ok(Self::Split { folder: path.into(), manifest: Box::new(manifest), head, name })
    }

    /// The unsplit model, if it is known.
    pub const fn whole(&self) -> Option<&Model> {
        match self {
            Self::Whole { model, .. } => Some(model),
            Self::Split { .. } => None,
        }
    }

    /// For people.
    pub fn name(&self) -> &str {
        match self {
            Self::Whole { name, .. } | Self::Split { name, .. } => name,
        }
    }

    /// SHA-256 of the unsplit model's file.
    pub fn sha256(&self) -> &str {
        match self {
            Self::Whole { model, .. } => model.sha256(),
            Self::Split { manifest, .. } => &manifest.model_sha256,
        }
    }

    /// Names of the inputs that whoever runs the model has to feed: no state, and nothing that the head makes.
    pub fn inputs(&self) -> Result<Vec<String>> {
        match self {
            Self::Whole { name, model } => {
                let failed = |error| Failure::model(format!("cannot run {name}"), &error);
                let ports = narrows_split::inputs(model).map_err(failed)?;
                let states = narrows_split::states(model).map_err(failed)?;
                let is_fed = |name: &String| states.iter().all(|state| state.input != *name);
                Ok(ports.into_iter().map(|port| port.name).filter(is_fed).collect())
            }
            Self::Split { manifest, .. } => {
                let Manifest { head, tail, .. } = manifest.as_ref();
                let mut names: Vec<String> = Vec::new();
                let fed = head.inputs.iter().filter(|tensor| tensor.class == Class::Input);
                let side = tail.inputs.iter().filter(|tensor| tensor.class == Class::Side);
                let side = side.filter(|side| head.outputs.iter().all(|output| output.name != side.name));
                for tensor in fed.chain(side) {
                    if !names.contains(&tensor.name) {
                        names.push(tensor.name.clone());
                    }
                }
                Ok(names)
            }
        }
    }

    /// Ready to be cut, with open dimensions of these sizes.
    pub fn cutter(&self, sizes: &Sizes) -> Result<Cutter<'_>> {
        let splitter = match self {
            Self::Whole { name, model } => Some(
                Splitter::new(model, sizes)
                    .map_err(|error| Failure::model(format!("cannot split {name}"), &error))?,
            ),
            Self::Split { .. } => None,
        };
        Ok(Cutter { model: self, splitter })
    }
}

/// Gives the halves of a text model.
pub struct Cutter<'m> {
    model: &'m TextModel,
    splitter: Option<Splitter<'m>>,
}

impl Cutter<'_> {
    /// The cuts that were asked for, or else all that `narrows cuts` lists.
    pub fn cuts(&self, wanted: &[String]) -> Result<Vec<String>> {
        let cuts = match (self.model, &self.splitter) {
            (TextModel::Split { manifest, name, .. }, _) => {
                if let Some(other) = wanted.iter().find(|cut| **cut != manifest.cut) {
                    let failure = Failure::usage(format!("{name} is not cut at {other}"));
                    return Err(failure.because(format!("its manifest says {}", manifest.cut)));
                }
                vec![manifest.cut.clone()]
            }
            (TextModel::Whole { .. }, Some(splitter)) if wanted.is_empty() => {
                let inner = offered(splitter.cuts()).into_iter().filter(|cut| cut.place == Place::Inner);
                inner.map(|cut| cut.name.clone()).collect()
            }
            _ => wanted.to_vec(),
        };
        if cuts.is_empty() {
            return Err(Failure::data(format!("{} has no cut", self.model.name())));
        }
        Ok(cuts)
    }

    /// The halves at a cut; the tail is read only if it is to run here.
    pub fn halves(&self, cut: &str, wants_tail: bool) -> Result<Halves> {
        let name = self.model.name();
        let failed = |error| Failure::model(format!("cannot split {name} at `{cut}`"), &error);
        match (self.model, &self.splitter) {
            (TextModel::Split { folder, manifest, head, .. }, _) => {
                let tail = wants_tail.then(|| manifest.read_tail(folder)).transpose();
                let tail = tail.map_err(|error| Failure::model(format!("cannot read {name}"), &error))?;
                Ok(Halves { manifest: (**manifest).clone(), head: head.clone(), tail })
            }
            (TextModel::Whole { .. }, splitter) => {
                let splitter = splitter.as_ref().ok_or_else(|| Failure::usage("nothing to split"))?;
                let split = splitter.split(cut).map_err(failed)?;
                let manifest = split.manifest().map_err(failed)?;
                Ok(Halves { manifest, head: split.head, tail: wants_tail.then_some(split.tail) })
            }
        }
    }
}
