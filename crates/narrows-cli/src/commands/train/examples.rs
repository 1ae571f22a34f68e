//! A data set as the trainer takes it.

use std::path::Path;

use narrows_train::{Examples, Model};

use super::failure;
use crate::evaluate::Dataset;
use crate::failure::Result;

/// Training and test images of a folder, shaped as the model takes them.
pub fn read(folder: &Path, model: &Model) -> Result<(Examples, Examples)> {
    let examples = |dataset: Dataset| {
        let (pixels, labels) = dataset.into_parts();
        Examples::new(model.network().image(), pixels, labels)
            .map_err(|error| failure("the images do not fit the network", &error))
    };
    Ok((examples(Dataset::training(folder)?)?, examples(Dataset::from_folder(folder)?)?))
}
