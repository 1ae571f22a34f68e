//! The loop: batches in, gradients, a step of every optimiser, the curve.

use burn_tensor::activation::log_softmax;
use burn_tensor::{Device, Tensor};
use narrows_weights::net::{Model, Network};
use serde::{Deserialize, Serialize};

use crate::curve::{Curve, LayerPoint, Point};
use crate::examples::{Augmentation, Batch, Examples};
use crate::optimise::{Adam, cosine, descend};
use crate::price::Price;
use crate::quantise::{Grid, Rate, Running};
use crate::random::Random;
use crate::run::run;
use crate::settings::{Goal, Precision, Settings};
use crate::trained::Trained;
use crate::weights::{QUIET_BATCH, State, Statistics, Upstream, numbers_of};
use crate::{Error, Result};

/// Images from which batch normalisation is put in at the start and estimated at the end.
pub(crate) const NORMALISED_ON: usize = 4000;
/// Weight decay where no rate pulls at the weights.
const DECAY: f32 = 1e-4;
/// Answers of the original network are learned at this temperature (Hinton et al. 2015).
const TEMPERATURE: f32 = 2.0;
/// How far a `log2 step` can go in a training that has a rate to reach: from 15 bins of a layer to mostly zeros.
const TRAVEL: f64 = 6.0;
/// The highest learning rate that this leads to.
const FASTEST: f64 = 0.1;
/// Points of the curve in a pass over the images.
const POINTS_PER_EPOCH: usize = 20;
/// How often in a pass accuracy is measured where it decides about the price.
const MEASURED_PER_EPOCH: usize = 4;

/// A training under way.
///
/// ```no_run
/// use narrows_train::{Device, Examples, Model, Settings, Trainer};
///
/// # fn main() -> narrows_train::Result<()> {
/// # let (pixels, labels) = (vec![0; 784], vec![0]);
/// let model = Model::open("models/fashion-resnet/model.onnx")?;
/// let examples = Examples::new([1, 28, 28], pixels, labels)?;
/// let mut trainer = Trainer::new(&model, examples, Settings::default(), &Device::flex())?;
/// while !trainer.is_done() {
///     trainer.step()?;
/// }
/// let trained = trainer.finish();
/// println!("{:.3} bits a weight", trained.rate().bits_per_weight());
/// # Ok(())
/// # }
/// ```
pub struct Trainer<'a> {
    pub(crate) model: &'a Model,
    pub(crate) settings: Settings,
    pub(crate) state: State,
    pub(crate) velocities: Vec<[Vec<f32>; 3]>,
    pub(crate) progress: Progress,
    pub(crate) running: Vec<Running>,
    teacher: Option<State>,
    examples: Examples,
    held_out: Examples,
    device: Device,
    order: Vec<u32>,
}

/// Where a training is, besides its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps done.
    pub(crate) steps: usize,
    /// `log2 step` of each layer; none for float32.
    pub(crate) log_steps: Vec<f64>,
    pub(crate) adam: Vec<Adam>,
    pub(crate) price: Option<Price>,
    /// Accuracy of the original network on the images held out, in percent.
    pub(crate) original: f64,
    pub(crate) curve: Curve,
}

/// A network as it would be stored now.
struct Stored<'a> {
    rate: Rate,
    grids: &'a [Grid],
    histograms: &'a [Vec<u64>],
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Steps done.
    pub steps: usize,
    /// The batch's loss, rate not counted.
    pub loss: f32,
    /// Bits a weight of the whole network, tables, steps, biases and names counted; none for float32.
    pub bits_per_weight: Option<f64>,
}

impl<'a> Trainer<'a> {
    /// Start a training.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] and [`Error::Shape`] if settings, images and network do not fit.
    pub fn new(
        model: &'a Model,
        mut examples: Examples,
        settings: Settings,
        device: &Device,
    ) -> Result<Self> {
        settings.check()?;
        examples.check(model.network())?;
        let held_out = examples.split_off(settings.held_out)?;
        if examples.len() < settings.batch {
            return Err(Error::setting(
                "batch size",
                &settings.batch,
                "at most the number of images learned from",
            ));
        }
        let state = State::from_model(model, &examples, NORMALISED_ON, device);
        let original = accuracy(&state, model.network(), &held_out, device);
        let (mut log_steps, mut running, mut price) = (Vec::new(), Vec::new(), None);
        if let Precision::Learned { bins, goal } = settings.precision {
            for layer in &state.layers {
                let grid = Grid::start(&layer.weights, bins);
                running.push(Running::new(&grid.histogram(&layer.weights)));
                log_steps.push(f64::from(grid.step).log2());
            }
            price = Some(Price::new(goal));
        }
        let zeros = |values: &Vec<f32>| vec![0.0; values.len()];
        let velocities = state.layers.iter().map(|l| [zeros(&l.weights), zeros(&l.gains), zeros(&l.biases)]);
        Ok(Self {
            velocities: velocities.collect(),
            progress: Progress {
                steps: 0,
                adam: vec![Adam::default(); log_steps.len()],
                log_steps,
                price,
                original,
                curve: Curve::default(),
            },
            teacher: (settings.distillation > 0.0).then(|| state.clone()),
            order: Vec::new(),
            device: device.clone(),
            model,
            settings,
            state,
            running,
            examples,
            held_out,
        })
    }

    /// Steps of the whole training.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.steps_per_epoch()
    }

    /// Steps done.
    pub const fn steps_done(&self) -> usize {
        self.progress.steps
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.progress.steps >= self.steps()
    }

    /// What happened until now.
    pub const fn curve(&self) -> &Curve {
        &self.progress.curve
    }

    /// Accuracy of the original network on the images held out, in percent.
    pub const fn original_accuracy(&self) -> f64 {
        self.progress.original
    }

    fn steps_per_epoch(&self) -> usize {
        self.examples.len() / self.settings.batch
    }

    /// Learn from one batch.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss is no longer a number.
    pub fn step(&mut self) -> Result<StepReport> {
        let done = self.progress.steps as f64 / self.steps() as f64;
        let batch = self.next_batch();
        let grids = self.grids();
        let (quantised, histograms) = self.quantised(&grids);
        let rate = (!grids.is_empty()).then(|| Rate::of(self.network(), &histograms));
        let (loss, gradients) = self.gradients(&quantised, batch)?;
        let mut price = 0.0;
        if let (Some(rate), Some(controller)) = (rate, self.progress.price.as_mut()) {
            price = controller.next(done, rate.bits_per_weight(), rate.fixed_per_weight());
            self.running.iter_mut().zip(&histograms).for_each(|(running, counts)| running.update(counts));
        }
        self.descend(&grids, gradients, price, done);
        self.progress.steps += 1;
        self.record(loss, price, rate.map(|rate| Stored { rate, grids: &grids, histograms: &histograms }));
        let bits_per_weight = rate.map(|rate| rate.bits_per_weight());
        Ok(StepReport { steps: self.progress.steps, loss, bits_per_weight })
    }

    const fn network(&self) -> &'a Network {
        self.model.network()
    }

    fn next_batch(&mut self) -> Batch {
        let (epoch, at) =
            (self.progress.steps / self.steps_per_epoch(), self.progress.steps % self.steps_per_epoch());
        if at == 0 || self.order.is_empty() {
            self.order = Random::new(self.settings.seed, 2 * epoch as u64).permutation(self.examples.len());
        }
        let numbers = &self.order[at * self.settings.batch..][..self.settings.batch];
        let mut random = Random::new(self.settings.seed, 2 * self.progress.steps as u64 + 1);
        let augmentation = self.settings.augmentation;
        self.examples.batch(numbers, self.network().classes(), augmentation, &mut random, &self.device)
    }

    /// The quantiser of each layer; none for float32.
    pub(crate) fn grids(&self) -> Vec<Grid> {
        let Precision::Learned { bins, .. } = self.settings.precision else { return Vec::new() };
        self.progress.log_steps.iter().map(|log| Grid { step: log.exp2() as f32, bins }).collect()
    }

    /// The network with quantised weights, and how many weights are in each bin.
    fn quantised(&self, grids: &[Grid]) -> (State, Vec<Vec<u64>>) {
        let mut state = self.state.clone();
        let mut histograms = Vec::new();
        for (layer, grid) in state.layers.iter_mut().zip(grids) {
            let bins = grid.quantise(&layer.weights);
            histograms.push(grid.count(&bins));
            layer.weights = grid.dequantise(&bins);
        }
        (state, histograms)
    }

    /// The loss of a batch, and the gradients of weights, gains and biases of each layer.
    fn gradients(&mut self, state: &State, batch: Batch) -> Result<(f32, Vec<[Vec<f32>; 3]>)> {
        let network = self.network();
        let answers = self.teacher.as_ref().map(|teacher| {
            let tensors = teacher.tensors(network, &self.device);
            run(network, batch.images.clone(), |number, input| {
                tensors[number].forward(number, &network.layers()[number], input, &mut Statistics::Running)
            })
        });
        let layers = network.layers().iter();
        let tensors = state.tensors(network, &self.device).into_iter().zip(layers);
        let tensors: Vec<_> =
            tensors.map(|(tensors, layer)| tensors.tracked(layer.is_normalised())).collect();
        let mut seen = Vec::new();
        let logits = run(network, batch.images, |number, input| {
            let mut statistics = Statistics::Batch(&mut seen);
            tensors[number].forward(number, &network.layers()[number], input, &mut statistics)
        });
        let loss = loss(logits, batch.classes, answers, self.settings.distillation);
        let value = numbers_of(loss.clone())[0];
        if !value.is_finite() {
            return Err(Error::Diverged { step: self.progress.steps, loss: value });
        }
        let mut gradients = loss.backward();
        self.state.follow(seen);
        Ok((value, tensors.iter().map(|layer| layer.gradients(&mut gradients)).collect()))
    }

    fn descend(&mut self, grids: &[Grid], gradients: Vec<[Vec<f32>; 3]>, price: f64, done: f64) {
        let rate = cosine(self.settings.weight_rate, done);
        let per_weight = (price / self.network().weights() as f64) as f32;
        let decay = if self.prices_rate() { 0.0 } else { DECAY };
        let step_rate = cosine(self.step_rate(), done);
        for (number, mut gradient) in gradients.into_iter().enumerate() {
            let layer = &mut self.state.layers[number];
            if let Some(grid) = grids.get(number) {
                let lengths = self.running[number].lengths();
                let log_step = grid.backward(&layer.weights, &mut gradient[0], &lengths, per_weight);
                self.progress.log_steps[number] += self.progress.adam[number].step(log_step, step_rate);
            }
            let values = [&mut layer.weights, &mut layer.gains, &mut layer.biases];
            for ((values, velocity), gradient) in
                values.into_iter().zip(&mut self.velocities[number]).zip(&gradient)
            {
                descend(values, velocity, gradient, rate, decay);
            }
        }
    }

    /// The learning rate of `log2 step` at the start: with a rate to reach, steps must have time to get there.
    fn step_rate(&self) -> f64 {
        let rate = self.settings.step_rate;
        match self.settings.precision {
            Precision::Learned { goal: Goal::BitsPerWeight(_) | Goal::Drop(_), .. } => {
                // The mean of a cosine is half of where it starts.
                rate.max((2.0 * TRAVEL / self.steps() as f64).min(FASTEST))
            }
            Precision::Learned { goal: Goal::Price(_), .. } | Precision::Float => rate,
        }
    }

    const fn prices_rate(&self) -> bool {
        match self.settings.precision {
            Precision::Float => false,
            Precision::Learned { goal: Goal::Price(price), .. } => price > 0.0,
            Precision::Learned { .. } => true,
        }
    }

    /// Add to the curve when it is time, and measure accuracy when that is asked for.
    fn record(&mut self, loss: f32, price: f64, stored: Option<Stored<'_>>) {
        let (steps, per_epoch) = (self.progress.steps, self.steps_per_epoch());
        let last = self.is_done();
        let due = |times: usize| steps.is_multiple_of((per_epoch / times).max(1)) || last;
        let by_accuracy = matches!(self.settings.precision, Precision::Learned { goal: Goal::Drop(_), .. });
        let measured = if by_accuracy { due(MEASURED_PER_EPOCH) } else { steps.is_multiple_of(per_epoch) };
        let accuracy = measured.then(|| {
            let state = self.quantised(&self.grids()).0;
            accuracy(&state, self.network(), &self.held_out, &self.device)
        });
        if let (Some(accuracy), Some(price)) = (accuracy, self.progress.price.as_mut()) {
            let done = steps as f64 / (self.settings.epochs * per_epoch) as f64;
            price.measured(done, self.progress.original - accuracy);
        }
        self.progress.curve.smooth(loss);
        if !measured && !due(POINTS_PER_EPOCH) {
            return;
        }
        let layers = stored.as_ref().map(|stored| {
            let layers = self.network().layers().iter().zip(stored.grids).zip(stored.histograms);
            layers.map(|((layer, grid), counts)| LayerPoint::new(layer, *grid, counts)).collect()
        });
        self.progress.curve.push(Point {
            step: steps,
            epoch: steps as f64 / per_epoch as f64,
            loss: 0.0,
            accuracy,
            price,
            rate: stored.map(|stored| stored.rate),
            layers: layers.unwrap_or_default(),
        });
    }

    /// The network as it is to be kept: weights on their grid, statistics of batch normalisation estimated anew.
    pub fn finish(self) -> Trained {
        let grids = self.grids();
        let (mut state, histograms) = self.quantised(&grids);
        let network = self.network();
        state.estimate(network, &self.examples, NORMALISED_ON, &self.device, Upstream::Normalised);
        Trained::new(network.clone(), &state, &grids, &histograms, self.progress.curve)
    }
}

/// Cross entropy with the labels, and with the original network's softened answers.
fn loss(logits: Tensor<2>, classes: Tensor<2>, answers: Option<Tensor<2>>, share: f32) -> Tensor<1> {
    let batch = logits.dims()[0] as f32;
    let labels = -(log_softmax(logits.clone(), 1) * classes).sum() / batch;
    let Some(answers) = answers else { return labels };
    let softened = log_softmax(logits / TEMPERATURE, 1);
    let wanted = log_softmax(answers / TEMPERATURE, 1);
    let divergence = (wanted.clone().exp() * (wanted - softened)).sum() / batch;
    labels * (1.0 - share) + divergence * (share * TEMPERATURE * TEMPERATURE)
}

/// Top-1 accuracy in percent, statistics of batch normalisation from the past.
pub(crate) fn accuracy(state: &State, network: &Network, examples: &Examples, device: &Device) -> f64 {
    let tensors = state.tensors(network, device);
    let mut random = Random::new(0, 0);
    let mut right = 0;
    for start in (0..examples.len()).step_by(QUIET_BATCH) {
        let numbers: Vec<u32> = (start as u32..(start + QUIET_BATCH).min(examples.len()) as u32).collect();
        let batch = examples.batch(&numbers, network.classes(), Augmentation::NONE, &mut random, device);
        let logits = numbers_of(run(network, batch.images, |number, input| {
            tensors[number].forward(number, &network.layers()[number], input, &mut Statistics::Running)
        }));
        for (row, label) in logits.chunks_exact(network.classes()).zip(batch.labels) {
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            right += usize::from(best == Some(usize::from(label)));
        }
    }
    100.0 * right as f64 / examples.len() as f64
}
