//! Where bytes go: a file that appears whole or not at all, or standard output.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use narrows::{Dtype, Tensor};
use safetensors::tensor::TensorView;

use crate::failure::{Failure, Result};

/// What to do with a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Keep,
    Replace,
}

impl Existing {
    pub const fn replace_if(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }
}

/// A file, or standard output for `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    File(PathBuf),
}

impl From<&Path> for Destination {
    fn from(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdout } else { Self::File(path.to_owned()) }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Destination {
    /// Refuse a file that is there and shall stay; asked before work is done.
    pub fn check(&self, existing: Existing) -> Result<()> {
        match self {
            // Devices and named pipes are there to be written to.
            Self::File(path) if existing == Existing::Keep && path.is_file() => {
                let failure = Failure::usage(format!("{} is there already", path.display()));
                Err(failure.hint("replace it with --force, or name another file with -o"))
            }
            Self::File(path) if path.is_dir() => {
                Err(Failure::usage(format!("{} is a folder", path.display())).hint("name a file with -o"))
            }
            _ => Ok(()),
        }
    }

    /// Write everything; a regular file is written beside its place and moved there when it is whole.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
                written.map_err(|error| Failure::stdout(&error))
            }
            Self::File(path) => {
                let written = if path.exists() && !path.is_file() {
                    fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes))
                } else {
                    write_beside(path, bytes)
                };
                written.map_err(|error| {
                    let failure = Failure::output("write", path, &error);
                    let missing = error.kind() == io::ErrorKind::NotFound;
                    if missing { failure.hint("make its folder first") } else { failure }
                })
            }
        }
    }
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays one; what it points to is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let moved = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        // What went wrong is told already; that the rest could not be removed would not help.
        let _ = fs::remove_file(&beside);
    }
    moved
}

/// The formats that tensors are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Npy,
    Safetensors,
}

impl Format {
    /// The format that a file's name asks for; `.npy` on standard output.
    pub fn of(destination: &Destination) -> Result<Self> {
        let Destination::File(path) = destination else { return Ok(Self::Npy) };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            // A device or a pipe says nothing by its name.
            _ if path.exists() && !path.is_file() => Ok(Self::Npy),
            _ => {
                let failure = Failure::usage(format!("{} does not name a format", path.display()));
                Err(failure.hint("end it in .npy or .safetensors, or say --format"))
            }
        }
    }

    /// The file that holds `tensor`.
    pub fn write(self, tensor: &Tensor) -> Result<Vec<u8>> {
        match self {
            Self::Npy => npy(tensor),
            Self::Safetensors => {
                let dtype = match tensor.dtype() {
                    Dtype::F32 => safetensors::Dtype::F32,
                    Dtype::F16 => safetensors::Dtype::F16,
                    Dtype::Bf16 => safetensors::Dtype::BF16,
                };
                let bytes = tensor.to_le_bytes();
                let failed = |error| Failure::data("cannot write .safetensors").because(error);
                let view = TensorView::new(dtype, tensor.shape().dims().to_vec(), &bytes).map_err(failed)?;
                safetensors::serialize([("tensor", view)], None).map_err(failed)
            }
        }
    }
}

/// Version 1.0 of the format: magic, length and text of the header, padded to 64 bytes.
fn npy(tensor: &Tensor) -> Result<Vec<u8>> {
    const ALIGNMENT: usize = 64;
    let kind = match tensor.dtype() {
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
        Dtype::Bf16 => {
            let failure = Failure::usage("the tensor is bf16, which .npy cannot hold");
            return Err(
                failure.hint("write it as .safetensors: -o NAME.safetensors, or --format safetensors")
            );
        }
    };
    let dims: Vec<String> = tensor.shape().dims().iter().map(usize::to_string).collect();
    // Python's tuple of one has a comma.
    let dims = if let [only] = dims.as_slice() { format!("{only},") } else { dims.join(", ") };
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    let before = 6 + 2 + 2;
    let length = (before + text.len() + 1).next_multiple_of(ALIGNMENT);
    text.extend(std::iter::repeat_n(' ', length - before - text.len() - 1));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(tensor.to_le_bytes());
    Ok(bytes)
}
