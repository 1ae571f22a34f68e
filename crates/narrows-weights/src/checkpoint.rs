//! Checkpoints to pack: a safetensors file, or several that an index lists.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use narrows::Element;
use safetensors::tensor::Dtype as Stored;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::file::{Plain, map, read_metadata};

/// Metadata key of steps that a trainer left.
pub const STEPS_KEY: &str = "narrows.steps";

/// A checkpoint, mapped into memory: nothing is read before it is asked for.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: BTreeMap<String, Plain>,
    texts: HashMap<String, String>,
}

/// `model.safetensors.index.json`: which file each tensor is in.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The grid that a trainer has put a tensor's weights on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Steps {
    /// One step, or one for each output channel.
    pub step: OneOrMany,
    /// Number of bins, odd.
    pub bins: u32,
}

/// A number, or a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One for all.
    One(f32),
    /// One for each.
    Many(Vec<f32>),
}

impl Checkpoint {
    /// Open a `.safetensors` file, or the `.index.json` of a checkpoint in several.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Container`] if a file is not a safetensors file, or a tensor is not where the index says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.extension().is_some_and(|extension| extension == "json") {
            return Self::open_index(path);
        }
        let mut checkpoint = Self { tensors: BTreeMap::new(), texts: HashMap::new() };
        checkpoint.add(path, None)?;
        Ok(checkpoint)
    }

    /// Tensors that are in memory, or come from another kind of file.
    pub fn from_tensors(tensors: BTreeMap<String, Plain>) -> Self {
        Self { tensors, texts: HashMap::new() }
    }

    fn open_index(path: &Path) -> Result<Self> {
        let failed = |source| Error::Io { what: "read", path: path.to_owned(), source };
        let text = std::fs::read(path).map_err(failed)?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|error| Error::container(format!("not an index of safetensors files: {error}")))?;
        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            // An index names its neighbours and nothing else.
            if Path::new(file).components().count() != 1 || file == ".." {
                return Err(Error::container(format!(
                    "the index names the file `{file}`, which is not beside it"
                )));
            }
            files.entry(file).or_default().push(tensor);
        }
        let mut checkpoint = Self { tensors: BTreeMap::new(), texts: HashMap::new() };
        for (file, tensors) in files {
            checkpoint.add(&path.with_file_name(file), Some(&tensors))?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path, wanted: Option<&[&str]>) -> Result<()> {
        let data = map(path)?;
        let named = |error: Error| match error {
            Error::Container { what } => Error::container(format!("{}: {what}", path.display())),
            error => error,
        };
        let (start, metadata) = read_metadata(&data).map_err(named)?;
        if let Some(missing) =
            wanted.iter().flat_map(|wanted| wanted.iter()).find(|name| metadata.info(name).is_none())
        {
            return Err(Error::container(format!(
                "{} has no tensor {missing}, which the index puts there",
                path.display()
            )));
        }
        for (name, info) in metadata.tensors() {
            if wanted.is_none_or(|wanted| wanted.contains(&name.as_str())) {
                let data = data.part(start + info.data_offsets.0..start + info.data_offsets.1);
                self.tensors.insert(name, Plain { dtype: info.dtype, shape: info.shape.clone(), data });
            }
        }
        self.texts.extend(metadata.metadata().clone().unwrap_or_default());
        Ok(())
    }

    /// All tensors by name.
    pub const fn tensors(&self) -> &BTreeMap<String, Plain> {
        &self.tensors
    }

    /// The metadata of all files.
    pub const fn texts(&self) -> &HashMap<String, String> {
        &self.texts
    }

    /// The steps that a trainer left: the grid each tensor's weights lie on.
    ///
    /// # Errors
    /// [`Error::Container`] if they are there and cannot be read.
    pub fn steps(&self) -> Result<HashMap<String, Steps>> {
        let Some(text) = self.texts.get(STEPS_KEY) else { return Ok(HashMap::new()) };
        serde_json::from_str(text)
            .map_err(|error| Error::container(format!("metadata `{STEPS_KEY}`: {error}")))
    }
}

impl Plain {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The codec's name for its element type, if it has one.
    pub const fn float(&self) -> Option<narrows::Dtype> {
        match self.dtype {
            Stored::F32 => Some(narrows::Dtype::F32),
            Stored::F16 => Some(narrows::Dtype::F16),
            Stored::BF16 => Some(narrows::Dtype::Bf16),
            _ => None,
        }
    }

    /// Elements `range` as f32, over `values`; nothing for types that are not floats.
    pub fn read_f32(&self, range: std::ops::Range<usize>, values: &mut Vec<f32>) {
        values.clear();
        match self.float() {
            Some(narrows::Dtype::F32) => values.extend(elements::<f32>(&self.data, range)),
            Some(narrows::Dtype::F16) => values.extend(elements::<f16>(&self.data, range).map(f16::to_f32)),
            Some(narrows::Dtype::Bf16) => {
                values.extend(elements::<bf16>(&self.data, range).map(bf16::to_f32));
            }
            None => {}
        }
    }

    /// The tensor for the codec, if it has such elements and axes.
    ///
    /// # Errors
    /// [`Error::Codec`] for shapes that the codec does not take.
    pub fn tensor(&self) -> Result<Option<narrows::Tensor>> {
        let all = 0..self.elements();
        let tensor = match self.float() {
            Some(narrows::Dtype::F32) => {
                narrows::Tensor::new(elements::<f32>(&self.data, all).collect(), &self.shape)
            }
            Some(narrows::Dtype::F16) => {
                narrows::Tensor::new(elements::<f16>(&self.data, all).collect(), &self.shape)
            }
            Some(narrows::Dtype::Bf16) => {
                narrows::Tensor::new(elements::<bf16>(&self.data, all).collect(), &self.shape)
            }
            None => return Ok(None),
        };
        Ok(Some(tensor?))
    }
}

/// Elements `range` of little-endian bytes.
fn elements<T: Element>(bytes: &[u8], range: std::ops::Range<usize>) -> impl Iterator<Item = T> + '_ {
    let size = T::DTYPE.size();
    bytes[range.start * size..range.end * size].chunks_exact(size).map(move |chunk| {
        let mut bits = [0; 4];
        bits[..size].copy_from_slice(chunk);
        T::from_bits(u32::from_le_bytes(bits))
    })
}
