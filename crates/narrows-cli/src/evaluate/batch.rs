//! Inputs of a network from array files.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use npyz::npz::NpzArchive;
use npyz::{DType, NpyFile, Order, TypeChar};

use crate::failure::{Failure, Result};

/// Inputs of one shape, one after the other.
pub struct Batch {
    values: Vec<f32>,
    elements: usize,
    /// Bytes of an element in the file.
    element_bytes: usize,
}

impl Batch {
    /// The inputs of shape `dims` in a `.npy` file, or in the array `images` of a `.npz` file: one, or
    /// several along a first axis. Values are multiplied by `scale`; by default bytes become 0 to 1
    /// and floats stay.
    pub fn read(path: &Path, dims: &[usize], scale: Option<f32>) -> Result<Self> {
        let file = BufReader::new(File::open(path).map_err(|error| Failure::io("read", path, &error))?);
        let invalid = |error| unreadable(path, &error);
        let (shape, values, element_bytes) = if path.extension().is_some_and(|extension| extension == "npz") {
            let mut archive = NpzArchive::new(file).map_err(invalid)?;
            let array = archive.by_name("images").map_err(invalid)?.ok_or_else(|| {
                Failure::data(format!("{} has no array `images`", path.display()))
                    .hint("save the inputs as a .npy file")
            })?;
            read(array, path, scale)?
        } else {
            read(NpyFile::new(file).map_err(invalid)?, path, scale)?
        };
        let elements: usize = dims.iter().product();
        if elements == 0 || values.is_empty() || !fits(&shape, dims) {
            return Err(Failure::data(format!("{} does not fit the head", path.display()))
                .because(format!("its shape is {shape:?}, the head takes {dims:?}, or a batch of them")));
        }
        Ok(Self { values, elements, element_bytes })
    }

    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.values.len() / self.elements
    }

    /// Keep the first `count` inputs, if there are more.
    pub fn truncate(&mut self, count: usize) {
        self.values.truncate(count * self.elements);
    }

    /// Bytes of an input as the file has it, uncompressed.
    pub const fn input_bytes(&self) -> usize {
        self.elements * self.element_bytes
    }

    /// The elements of an input as bytes like the file's.
    pub fn bytes_of(&self, input: &[f32]) -> Vec<u8> {
        if self.element_bytes == 1 {
            return input.iter().map(|value| (value * 255.0).round() as u8).collect();
        }
        input.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Each input.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.elements)
    }
}

/// The file is there and is not what it should be.
fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::data(format!("cannot read {}", path.display())).because(error).hint("give a .npy or .npz file")
}

/// Whether an array is one input or a batch of them; axes of length 1 may be left out.
fn fits(shape: &[u64], dims: &[usize]) -> bool {
    let long = |length: &u64| *length > 1;
    let found: Vec<u64> = shape.iter().copied().filter(long).collect();
    let one: Vec<u64> = dims.iter().map(|&length| length as u64).filter(long).collect();
    found == one || found.len() == one.len() + 1 && found[1..] == one
}

/// Shape and scaled values of an array of float32 or bytes, and which of the two by their size.
fn read<R: Read>(array: NpyFile<R>, path: &Path, scale: Option<f32>) -> Result<(Vec<u64>, Vec<f32>, usize)> {
    let unsuitable = |cause: String| Failure::data(format!("cannot use {}", path.display())).because(cause);
    if array.order() == Order::Fortran && array.shape().len() > 1 {
        return Err(
            unsuitable("its elements lie in Fortran order".into()).hint("save numpy.ascontiguousarray(...)")
        );
    }
    let shape = array.shape().to_vec();
    let DType::Plain(kind) = array.dtype() else {
        return Err(unsuitable("its elements are records".into()));
    };
    let invalid = |error| unreadable(path, &error);
    let element_bytes = kind.size_field() as usize;
    let values = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => {
            let values: Vec<f32> = array.into_vec().map_err(invalid)?;
            let scale = scale.unwrap_or(1.0);
            values.into_iter().map(|value| value * scale).collect()
        }
        (TypeChar::Uint, 1) => {
            let values: Vec<u8> = array.into_vec().map_err(invalid)?;
            // Divided, as in training: a product with 1 / 255 may differ in the last bit.
            let scaled = |value: u8| scale.map_or(f32::from(value) / 255.0, |scale| f32::from(value) * scale);
            values.into_iter().map(scaled).collect()
        }
        _ => return Err(unsuitable(format!("its elements are {kind}")).hint("save float32 or uint8")),
    };
    Ok((shape, values, element_bytes))
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn an_input_may_come_with_or_without_axes_of_one() {
        assert!(fits(&[28, 28], &[1, 28, 28]));
        assert!(fits(&[1, 1, 28, 28], &[1, 28, 28]));
        assert!(fits(&[5, 28, 28], &[1, 28, 28]));
        assert!(fits(&[5, 1, 28, 28], &[1, 28, 28]));
        assert!(!fits(&[2, 5, 28, 28], &[1, 28, 28]));
        assert!(!fits(&[28, 5], &[1, 28, 28]));
    }
}
