//! Computing a network on images in memory.

use super::network::{Convolution, Network, Op};
use crate::error::{Error, Result};

/// Images one after the other, each channels x height x width; a vector is an image of one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// All elements.
    pub values: Vec<f32>,
    /// Channels, height and width of each.
    pub shape: [usize; 3],
}

impl Images {
    /// Images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the elements are not those of whole images.
    pub fn new(values: Vec<f32>, shape: [usize; 3]) -> Result<Self> {
        let size = shape.iter().product();
        if size == 0 || !values.len().is_multiple_of(size) {
            return Err(Error::Shape { what: "elements of images", value: values.len(), bound: size });
        }
        Ok(Self { values, shape })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.shape.iter().product::<usize>()
    }

    /// Each image.
    pub fn each(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.shape.iter().product())
    }

    fn map(mut self, of: impl Fn(f32) -> f32) -> Self {
        self.values.iter_mut().for_each(|value| *value = of(*value));
        self
    }

    fn mean_pool(&self) -> Self {
        let [channels, height, width] = self.shape;
        let positions = height * width;
        let mean = |channel: &[f32]| channel.iter().sum::<f32>() / positions as f32;
        let values = self.values.chunks_exact(positions).map(mean).collect();
        Self { values, shape: [channels, 1, 1] }
    }

    fn max_pool(&self, window: Convolution) -> Option<Self> {
        let [channels, height, width] = self.shape;
        let out = window.positions([height, width])?;
        let mut values = Vec::with_capacity(self.values.len() / (height * width) * out[0] * out[1]);
        let inside = |place: usize, axis: usize, length: usize| {
            let start = place * window.stride[axis];
            let end = (start + window.kernel[axis]).saturating_sub(window.padding[axis]).min(length);
            start.saturating_sub(window.padding[axis])..end
        };
        for channel in self.values.chunks_exact(height * width) {
            for position in 0..out[0] * out[1] {
                let columns = inside(position % out[1], 1, width);
                let rows = inside(position / out[1], 0, height);
                let rows = rows.map(|row| &channel[row * width..][columns.clone()]);
                values.push(rows.flatten().copied().fold(f32::NEG_INFINITY, f32::max));
            }
        }
        Some(Self { values, shape: [channels, out[0], out[1]] })
    }
}

impl Network {
    /// The logits of images, one after the other; `layer` computes a layer, given its number and its input.
    ///
    /// # Errors
    /// [`Error::Shape`] if the images do not fit the network, or what layers return does not; and what `layer` returns.
    pub fn compute(
        &self,
        images: Images,
        mut layer: impl FnMut(usize, Images) -> Result<Images>,
    ) -> Result<Vec<f32>> {
        if images.shape != self.image() {
            let (value, bound) = (images.shape.iter().product(), self.image().iter().product());
            return Err(Error::Shape { what: "elements of an image", value, bound });
        }
        let count = images.count();
        let mut values = vec![Some(images)];
        for (index, step) in self.steps().iter().enumerate() {
            let mut read = |input: usize| {
                let value = step.inputs[input];
                let again = self.is_read_again(value, index);
                let found = if again { values[value].clone() } else { values[value].take() };
                found.ok_or_else(|| Error::container("a step reads what nothing before it computes"))
            };
            let first = read(0)?;
            let computed = match step.op {
                Op::Layer(number) => layer(number, first)?,
                Op::Relu => first.map(|x| x.max(0.0)),
                Op::Shift(by) => first.map(|x| x + by),
                Op::Scale(by) => first.map(|x| x * by),
                Op::Add => sum(first, &read(1)?)?,
                Op::MeanPool => first.mean_pool(),
                Op::MaxPool(window) => {
                    let no = Error::Shape { what: "side of an image to pool", value: 0, bound: 1 };
                    first.max_pool(window).ok_or(no)?
                }
                Op::Flatten => Images { shape: [first.shape.iter().product(), 1, 1], ..first },
            };
            values.push(Some(computed));
        }
        let logits = values[self.output()].take().map_or_else(Vec::new, |output| output.values);
        let bound = count * self.classes();
        let wrong = Error::Shape { what: "number of outputs", value: logits.len(), bound };
        if logits.len() == bound { Ok(logits) } else { Err(wrong) }
    }
}

fn sum(mut first: Images, second: &Images) -> Result<Images> {
    if (first.shape, first.values.len()) != (second.shape, second.values.len()) {
        let (value, bound) = (second.values.len(), first.values.len());
        return Err(Error::Shape { what: "elements of the second of a sum", value, bound });
    }
    first.values.iter_mut().zip(&second.values).for_each(|(first, second)| *first += second);
    Ok(first)
}
