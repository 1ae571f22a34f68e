//! Labelled images to train on.

use burn_tensor::{Device, Tensor, TensorData};
use narrows_weights::net::Network;

use crate::random::Random;
use crate::{Error, Result};

/// Images of one shape and the number of each one's class.
#[derive(Clone, Debug)]
pub struct Examples {
    image: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// How images are changed before the network sees them, each time anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Augmentation {
    /// Whether half of the images are mirrored left to right.
    pub mirror: bool,
    /// The most pixels by which images are shifted in each direction, zeros behind them.
    pub shift: usize,
}

impl Augmentation {
    /// Images as they are.
    pub const NONE: Self = Self { mirror: false, shift: 0 };
}

/// Some images and their labels.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Batch x channels x height x width, from 0 to 1.
    pub(crate) images: Tensor<4>,
    /// A row for each image: 1 in the column of its class, 0 elsewhere.
    pub(crate) classes: Tensor<2>,
    pub(crate) labels: Vec<u8>,
}

impl Examples {
    /// Images (channels x height x width) one after the other, and their labels.
    ///
    /// # Errors
    /// [`Error::Shape`] if the pixels do not make as many images as there are labels, or if there are none.
    pub fn new(image: [usize; 3], pixels: Vec<u8>, labels: Vec<u8>) -> Result<Self> {
        let wanted = image.iter().try_fold(labels.len(), |product, &n| product.checked_mul(n));
        if labels.is_empty() || wanted != Some(pixels.len()) {
            return Err(Error::Shape {
                what: "images",
                found: format!("{} pixels and {} labels", pixels.len(), labels.len()),
                expected: format!("{image:?} pixels for each label"),
            });
        }
        Ok(Self { image, pixels, labels })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: there is at least one image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Cut the last `count` images off: examples of the same kind to look at while training.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] if nothing would be left.
    pub fn split_off(&mut self, count: usize) -> Result<Self> {
        if count == 0 || count >= self.len() {
            return Err(Error::setting(
                "number of images held out",
                &count,
                "at least 1 and fewer than there are",
            ));
        }
        let from = self.len() - count;
        let pixels = self.pixels.split_off(from * self.pixels_per_image());
        Ok(Self { image: self.image, pixels, labels: self.labels.split_off(from) })
    }

    /// Keep the first `count` images, if there are more.
    pub fn truncate(&mut self, count: usize) {
        self.labels.truncate(count.max(1));
        self.pixels.truncate(self.labels.len() * self.pixels_per_image());
    }

    /// Whether a network can be trained on them.
    pub(crate) fn check(&self, network: &Network) -> Result<()> {
        if self.image != network.image() {
            let [found, expected] = [self.image, network.image()].map(|shape| format!("{shape:?}"));
            return Err(Error::Shape { what: "images", found, expected });
        }
        match self.labels.iter().max() {
            Some(&label) if usize::from(label) >= network.classes() => Err(Error::Shape {
                what: "labels",
                found: format!("class {label}"),
                expected: format!("classes below {}", network.classes()),
            }),
            _ => Ok(()),
        }
    }

    fn pixels_per_image(&self) -> usize {
        self.image.iter().product()
    }

    /// The images of these numbers, changed by `augmentation`, as a batch.
    pub(crate) fn batch(
        &self,
        numbers: &[u32],
        classes: usize,
        augmentation: Augmentation,
        random: &mut Random,
        device: &Device,
    ) -> Batch {
        let [channels, height, width] = self.image;
        let size = self.pixels_per_image();
        let mut values = vec![0.0_f32; numbers.len() * size];
        let mut one_hot = vec![0.0_f32; numbers.len() * classes];
        for (at, &number) in numbers.iter().enumerate() {
            let from = number as usize * size;
            let source = &self.pixels[from..from + size];
            let change = Change::draw(augmentation, random);
            for plane in 0..channels {
                let offset = plane * height * width;
                let target = &mut values[at * size + offset..][..height * width];
                change.apply(&source[offset..offset + height * width], target, width);
            }
            one_hot[at * classes + usize::from(self.labels[number as usize])] = 1.0;
        }
        let batch = numbers.len();
        Batch {
            images: Tensor::from_data(TensorData::new(values, [batch, channels, height, width]), device),
            classes: Tensor::from_data(TensorData::new(one_hot, [batch, classes]), device),
            labels: numbers.iter().map(|&number| self.labels[number as usize]).collect(),
        }
    }
}

/// One image's change.
struct Change {
    mirrored: bool,
    down: isize,
    right: isize,
}

impl Change {
    fn draw(augmentation: Augmentation, random: &mut Random) -> Self {
        let mirrored = augmentation.mirror && random.below(2) == 1;
        let mut shift = || random.below(2 * augmentation.shift + 1) as isize - augmentation.shift as isize;
        Self { mirrored, down: shift(), right: shift() }
    }

    fn apply(&self, source: &[u8], target: &mut [f32], width: usize) {
        let height = source.len() / width;
        for (y, row) in target.chunks_exact_mut(width).enumerate() {
            let Some(from) = y.checked_add_signed(-self.down).filter(|&from| from < height) else { continue };
            let source = &source[from * width..][..width];
            for (x, value) in row.iter_mut().enumerate() {
                if let Some(from) = x.checked_add_signed(-self.right).filter(|&from| from < width) {
                    let pixel = source[if self.mirrored { width - 1 - from } else { from }];
                    *value = f32::from(pixel) / 255.0;
                }
            }
        }
    }
}
