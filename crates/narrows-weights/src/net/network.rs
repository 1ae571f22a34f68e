//! What a network computes: a list of operations on images, without weights.

/// A layer with weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Name of its weights in the model.
    pub name: String,
    /// Name of its biases.
    pub bias: String,
    /// Shape of its weights: output channels, input channels, and for convolutions kernel height and width.
    pub shape: Vec<usize>,
    /// What it does with them.
    pub kind: Kind,
}

/// The two kinds of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Slides its weights over an image.
    Convolution(Convolution),
    /// Multiplies its weights with a vector.
    Linear,
}

/// How a window slides over an image; height first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Distance between two windows.
    pub stride: [usize; 2],
    /// Zeros on each side of the image.
    pub padding: [usize; 2],
}

impl Convolution {
    /// How many windows there are in an image of this height and width; none if not even one fits.
    pub fn positions(&self, image: [usize; 2]) -> Option<[usize; 2]> {
        let along = |axis: usize| {
            let room = (image[axis] + 2 * self.padding[axis]).checked_sub(self.kernel[axis])?;
            Some(room / self.stride[axis] + 1)
        };
        Some([along(0)?, along(1)?])
    }
}

impl Layer {
    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of output channels.
    pub fn outputs(&self) -> usize {
        self.shape[0]
    }

    /// Whether it is followed by batch normalisation while it is trained: convolutions are.
    pub const fn is_normalised(&self) -> bool {
        matches!(self.kind, Kind::Convolution(_))
    }
}

/// One operation on images; a vector is an image of one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The layer of this number.
    Layer(usize),
    /// `max(x, 0)`.
    Relu,
    /// The sum of two values.
    Add,
    /// `x + c`.
    Shift(f32),
    /// `c x`.
    Scale(f32),
    /// The mean over all positions.
    MeanPool,
    /// The greatest in each window; padding does not count.
    MaxPool(Convolution),
    /// All elements of an image as one vector.
    Flatten,
}

/// An operation and the values it reads: 0 is the network's input, `n` what step `n - 1` computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// What it reads: one value, two for [`Op::Add`].
    pub inputs: Vec<usize>,
}

/// A network that tells images apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    image: [usize; 3],
    classes: usize,
    layers: Vec<Layer>,
    steps: Vec<Step>,
    output: usize,
}

impl Network {
    pub(crate) const fn new(image: [usize; 3]) -> Self {
        Self { image, classes: 0, layers: Vec::new(), steps: Vec::new(), output: 0 }
    }

    pub(crate) fn push_layer(&mut self, layer: Layer) -> usize {
        self.layers.push(layer);
        self.layers.len() - 1
    }

    /// Add an operation; the value that it computes.
    pub(crate) fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len()
    }

    pub(crate) const fn finish(&mut self, output: usize, classes: usize) {
        (self.output, self.classes) = (output, classes);
    }

    /// Channels, height and width of its input.
    pub const fn image(&self) -> [usize; 3] {
        self.image
    }

    /// How many classes it tells apart.
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// Its layers, in the order in which they are computed.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Weights of all layers, biases not counted.
    pub fn weights(&self) -> usize {
        self.layers.iter().map(Layer::weights).sum()
    }

    /// Its operations, in the order in which they are computed.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The value that is its output.
    pub const fn output(&self) -> usize {
        self.output
    }

    /// Whether `value` must be kept when the step `at` has read it once.
    pub fn is_read_again(&self, value: usize, at: usize) -> bool {
        let later = self.steps.iter().skip(at + 1).any(|step| step.inputs.contains(&value));
        let twice = self.steps.get(at).is_some_and(|step| step.inputs == [value, value]);
        later || twice || (value == self.output && at < self.steps.len())
    }
}
