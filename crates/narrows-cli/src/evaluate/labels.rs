//! The classes that inputs belong to.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use npyz::npz::NpzArchive;
use npyz::{DType, NpyFile, TypeChar};

use crate::failure::{Failure, Result};

/// The labels in a `.npy` file, or in the array `labels` of a `.npz` file: integers from 0 up, one axis.
pub fn read_labels(path: &Path) -> Result<Vec<u32>> {
    find_labels(path)?.ok_or_else(|| {
        Failure::data(format!("{} has no array `labels`", path.display()))
            .hint("save it with numpy.savez(..., labels=y)")
    })
}

/// The same, or none if a `.npz` file has no such array.
pub fn find_labels(path: &Path) -> Result<Option<Vec<u32>>> {
    let file = BufReader::new(File::open(path).map_err(|error| Failure::io("read", path, &error))?);
    let invalid = |error: std::io::Error| {
        Failure::data(format!("cannot read labels from {}", path.display()))
            .because(error)
            .hint("give a .npy or .npz file")
    };
    if path.extension().is_some_and(|extension| extension == "npz") {
        let mut archive = NpzArchive::new(file).map_err(invalid)?;
        let array = archive.by_name("labels").map_err(invalid)?;
        return array.map(|array| integers(array, path)).transpose();
    }
    integers(NpyFile::new(file).map_err(invalid)?, path).map(Some)
}

fn integers<R: Read>(array: NpyFile<R>, path: &Path) -> Result<Vec<u32>> {
    let unsuitable = |cause: String| {
        Failure::data(format!("{} holds no labels", path.display()))
            .because(cause)
            .hint("labels are integers from 0 up, one for each sample")
    };
    let shape = array.shape().to_vec();
    if shape.iter().filter(|&&length| length != 1).count() > 1 {
        return Err(unsuitable(format!("its shape is {shape:?}")));
    }
    let DType::Plain(kind) = array.dtype() else {
        return Err(unsuitable("its elements are records".into()));
    };
    let invalid = |error: std::io::Error| unsuitable(error.to_string());
    let values: Vec<i64> = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Uint, 1) => widened(array.into_vec::<u8>().map_err(invalid)?),
        (TypeChar::Int, 1) => widened(array.into_vec::<i8>().map_err(invalid)?),
        (TypeChar::Uint, 2) => widened(array.into_vec::<u16>().map_err(invalid)?),
        (TypeChar::Int, 2) => widened(array.into_vec::<i16>().map_err(invalid)?),
        (TypeChar::Uint, 4) => widened(array.into_vec::<u32>().map_err(invalid)?),
        (TypeChar::Int, 4) => widened(array.into_vec::<i32>().map_err(invalid)?),
        (TypeChar::Int, 8) => array.into_vec().map_err(invalid)?,
        _ => return Err(unsuitable(format!("its elements are {kind}"))),
    };
    let label = |(index, value): (usize, i64)| {
        u32::try_from(value).map_err(|_| unsuitable(format!("label {index} is {value}")))
    };
    values.into_iter().enumerate().map(label).collect()
}

fn widened<T: Into<i64>>(values: Vec<T>) -> Vec<i64> {
    values.into_iter().map(Into::into).collect()
}
