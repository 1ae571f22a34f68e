//! A trained network, as it is kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use burn_tensor::Device;
use half::{bf16, f16};
use narrows_weights::net::{Model, Network};
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::curve::{Curve, LayerPoint};
use crate::examples::Examples;
use crate::quantise::{Grid, Rate};
use crate::trainer::accuracy;
use crate::weights::State;

/// Key of the metadata of a checkpoint that holds the steps, as JSON: tensor name to [`Steps`].
pub const STEPS_KEY: &str = "narrows.steps";

/// The grid of one tensor in a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Distance between two bins, for each output channel.
    pub step: Vec<f32>,
    /// Odd number of bins, the middle one at zero.
    pub bins: u32,
}

/// A trained network: weights on their grid, batch normalisation folded in.
#[derive(Clone, Debug)]
pub struct Trained {
    network: Network,
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    steps: Vec<Steps>,
    rate: Rate,
    points: Vec<LayerPoint>,
    curve: Curve,
}

impl Trained {
    pub(crate) fn new(
        network: Network,
        state: &State,
        grids: &[Grid],
        histograms: &[Vec<u64>],
        curve: Curve,
    ) -> Self {
        let folded = state.layers.iter().enumerate().map(|(number, layer)| {
            let scales = layer.scales();
            let row = layer.weights.len() / scales.len();
            let Some(grid) = grids.get(number) else {
                let rows = layer.weights.chunks_exact(row).zip(&scales);
                let weights = rows.flat_map(|(row, scale)| row.iter().map(move |w| w * scale)).collect();
                return ((weights, layer.folded_biases()), None);
            };
            // Without a bin at zero the weights are odd multiples of half a step.
            let (unit, factor) = if grid.bins % 2 == 1 { (grid.step, 1) } else { (grid.step / 2.0, 2) };
            let bins: Vec<i32> =
                grid.quantise(&layer.weights).iter().map(|bin| factor * bin + (factor - 1)).collect();
            let steps: Vec<f32> = scales.iter().map(|scale| stored_step(unit * scale)).collect();
            let rows = bins.chunks_exact(row).zip(&steps);
            let weights =
                rows.flat_map(|(row, step)| row.iter().map(move |&bin| bin as f32 * step)).collect();
            let widest = bins.iter().map(|bin| bin.unsigned_abs()).max().unwrap_or(0);
            let step = steps.iter().map(|step| step.abs()).collect();
            let biases = layer.folded_biases().iter().map(|bias| stored_bias(*bias)).collect();
            ((weights, biases), Some(Steps { step, bins: 2 * widest.max(1) + 1 }))
        });
        let (layers, steps): (Vec<_>, Vec<_>) = folded.unzip();
        let kept = network.layers().iter().zip(grids).zip(histograms);
        Self {
            points: kept.map(|((layer, grid), counts)| LayerPoint::new(layer, *grid, counts)).collect(),
            rate: Rate::of(&network, histograms),
            steps: steps.into_iter().flatten().collect(),
            network,
            layers,
            curve,
        }
    }

    /// A model as it is.
    pub fn untrained(model: &Model) -> Self {
        let stored = model.layers().map(|(_, stored)| (&stored.weights, &stored.biases));
        let state = State::folded_from(model.network(), stored);
        Self::new(model.network().clone(), &state, &[], &[], Curve::default())
    }

    /// What it takes to store; for float32 only the part that is not weights.
    pub const fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Its layers' steps and rates; none for float32.
    pub fn layers(&self) -> &[LayerPoint] {
        &self.points
    }

    /// How it came about.
    pub const fn curve(&self) -> &Curve {
        &self.curve
    }

    /// Top-1 accuracy of what is stored, in percent.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the images do not fit the network.
    pub fn accuracy(&self, examples: &Examples, device: &Device) -> Result<f64> {
        examples.check(&self.network)?;
        let state =
            State::folded_from(&self.network, self.layers.iter().map(|(weights, biases)| (weights, biases)));
        Ok(accuracy(&state, &self.network, examples, device))
    }

    /// The network as a checkpoint: tensors named and shaped as in the model, in the safetensors format, with
    /// [`STEPS_KEY`] in its metadata. Weights are float32, their steps bfloat16 numbers; biases are float16 beside
    /// quantised weights.
    pub fn checkpoint(&self) -> Vec<u8> {
        let mut tensors = BTreeMap::new();
        let mut steps = BTreeMap::new();
        for (number, (layer, (weights, biases))) in self.network.layers().iter().zip(&self.layers).enumerate()
        {
            let halves = !self.steps.is_empty();
            tensors.insert(layer.name.as_str(), Stored::floats(layer.shape.clone(), weights));
            let biases =
                if halves { Stored::halves(biases) } else { Stored::floats(vec![biases.len()], biases) };
            tensors.insert(layer.bias.as_str(), biases);
            if let Some(found) = self.steps.get(number) {
                steps.insert(layer.name.as_str(), found);
            }
        }
        written(tensors, &steps)
    }

    /// The model's file with the trained weights in place of its own.
    pub fn onnx(&self, model: &Model) -> Vec<u8> {
        model.with_weights(&self.layers)
    }
}

fn written(tensors: BTreeMap<&str, Stored<'_>>, steps: &BTreeMap<&str, &Steps>) -> Vec<u8> {
    let json = || serde_json::to_string(steps).expect("steps are plain data");
    let metadata = (!steps.is_empty()).then(|| HashMap::from([(STEPS_KEY.to_owned(), json())]));
    safetensors::serialize(tensors, metadata).expect("lengths and shapes are those of the layers")
}

/// A step as it is stored, to eight significant bits: that changes a channel by a fifth of a percent, and nothing when
/// it was learned. Its sign is that of a channel whose weights are mirrored.
fn stored_step(step: f32) -> f32 {
    let step = bf16::from_f32(step);
    if step.is_normal() { step.to_f32() } else { bf16::MIN_POSITIVE.to_f32() }
}

/// A bias as it is stored.
fn stored_bias(bias: f32) -> f32 {
    f16::from_f32(bias.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_f32()
}

/// A tensor to be written.
pub(crate) struct Stored<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Stored<'a> {
    pub(crate) fn floats(shape: Vec<usize>, values: &'a [f32]) -> Self {
        Self { dtype: Dtype::F32, shape, bytes: bytemuck::cast_slice(values).into() }
    }

    fn halves(values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        Self { dtype: Dtype::F16, shape: vec![values.len()], bytes: bytes.into() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
