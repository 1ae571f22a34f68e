//! Images with labels.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use npyz::npz::NpzArchive;

use crate::failure::{Failure, Result};

/// The first 1,000 test images of Fashion-MNIST, as `images` and `labels`.
const EMBEDDED: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/test-1000.npz"));

/// IDX files (the format of MNIST) begin with two zeros, the element type and the rank.
const IDX_U8: [u8; 3] = [0, 0, 8];
/// More would be no data set of small images.
const MAX_ELEMENTS: u64 = 1 << 30;

/// Images of one shape, each with the number of its class.
pub struct Dataset {
    pixels: Vec<u8>,
    pixels_per_image: usize,
    labels: Vec<u8>,
}

impl Dataset {
    /// The 1,000 Fashion-MNIST test images that the program carries with it.
    pub fn embedded() -> Result<Self> {
        let read = |name: &str| -> std::io::Result<(Vec<u64>, Vec<u8>)> {
            let mut archive = NpzArchive::new(Cursor::new(EMBEDDED))?;
            let array = archive.by_name(name)?.ok_or(std::io::ErrorKind::NotFound)?;
            Ok((array.shape().to_vec(), array.into_vec()?))
        };
        let failure = |error| Failure::data("cannot read the images that the program carries").because(error);
        let (dims, pixels) = read("images").map_err(failure)?;
        let (_, labels) = read("labels").map_err(failure)?;
        Self::new(&dims, pixels, labels)
            .map_err(|cause| Failure::data("cannot read the images that the program carries").because(cause))
    }

    /// The test images in a folder of gzipped IDX files, as Debian's `dataset-fashion-mnist` installs it.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::from_files(folder, "t10k")
    }

    /// The training images in such a folder.
    pub fn training(folder: &Path) -> Result<Self> {
        Self::from_files(folder, "train")
    }

    fn from_files(folder: &Path, name: &str) -> Result<Self> {
        let (_, labels) = read_idx(&folder.join(format!("{name}-labels-idx1-ubyte.gz")))?;
        let (dims, pixels) = read_idx(&folder.join(format!("{name}-images-idx3-ubyte.gz")))?;
        Self::new(&dims, pixels, labels)
            .map_err(|cause| Failure::data(format!("{} holds no data set", folder.display())).because(cause))
    }

    fn new(dims: &[u64], pixels: Vec<u8>, labels: Vec<u8>) -> Result<Self, String> {
        if dims.first() != Some(&(labels.len() as u64)) || labels.is_empty() || pixels.len() < labels.len() {
            return Err(format!("images of shape {dims:?} do not go with {} labels", labels.len()));
        }
        let pixels_per_image = pixels.len() / labels.len();
        Ok(Self { pixels, pixels_per_image, labels })
    }

    /// Keep the first `count` images, if there are more.
    pub fn truncate(&mut self, count: usize) {
        self.labels.truncate(count);
        self.pixels.truncate(count * self.pixels_per_image);
    }

    /// Pixels of all images one after the other, and labels.
    #[cfg(feature = "train")]
    pub fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.pixels, self.labels)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Each image, with values from 0 to 1, and its label.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<f32>, u8)> + '_ {
        let images = self.pixels.chunks_exact(self.pixels_per_image);
        images.zip(&self.labels).map(|(image, &label)| (image.iter().copied().map(unit).collect(), label))
    }
}

/// A pixel as the network was trained on it.
fn unit(pixel: u8) -> f32 {
    f32::from(pixel) / 255.0
}

/// Shape and elements of a gzipped IDX file of bytes.
fn read_idx(path: &Path) -> Result<(Vec<u64>, Vec<u8>)> {
    let file = File::open(path).map_err(|error| {
        Failure::io("read", path, &error).hint("Debian's package dataset-fashion-mnist has the files")
    })?;
    let mut file = GzDecoder::new(file);
    let mut read =
        |bytes: &mut [u8]| file.read_exact(bytes).map_err(|error| Failure::io("read", path, &error));
    let mut magic = [0; 4];
    read(&mut magic)?;
    let not_idx =
        |cause: String| Failure::data(format!("{} is no IDX file of bytes", path.display())).because(cause);
    if magic[..3] != IDX_U8 {
        return Err(not_idx(format!("it begins with {magic:02x?}, not with {IDX_U8:02x?}")));
    }
    let mut dims = Vec::new();
    for _ in 0..magic[3] {
        let mut length = [0; 4];
        read(&mut length)?;
        dims.push(u64::from(u32::from_be_bytes(length)));
    }
    let elements = dims.iter().try_fold(1_u64, |product, &length| product.checked_mul(length));
    let elements = elements.filter(|&elements| elements <= MAX_ELEMENTS);
    let elements = elements.ok_or_else(|| not_idx(format!("its shape is {dims:?}")))?;
    let mut bytes = Vec::new();
    file.take(elements).read_to_end(&mut bytes).map_err(|error| Failure::io("read", path, &error))?;
    if bytes.len() as u64 == elements {
        Ok((dims, bytes))
    } else {
        Err(not_idx(format!("its shape {dims:?} asks for {elements} bytes, {} are there", bytes.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_images_are_a_thousand_of_ten_classes() {
        let dataset = Dataset::embedded().unwrap();
        assert_eq!(dataset.len(), 1000);
        let mut classes = [0; 10];
        for (image, label) in dataset.iter() {
            assert_eq!(image.len(), 28 * 28);
            assert!(image.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
            classes[usize::from(label)] += 1;
        }
        assert!(classes.iter().all(|&images| images > 50), "{classes:?}");
    }
}
