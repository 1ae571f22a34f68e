//! Whole tensors to frames and back: range, quantisation, planning, coding, checksum.

use half::{bf16, f16};
use narrows::{
    Calibration, Decoder, Element, EncodeOptions, Encoder, LayoutChoice, Path, Profile, Profiles, Target,
    Tensor, TensorView,
};
use std::sync::Arc;

use crate::data::{Random, Real};
use crate::measure::{Budget, Work};
use crate::results::Row;
use crate::symbols::fill;

/// The rows' coder.
pub const CODER: &str = "narrows frame";
/// The tensor of the reference work.
const DIMS: [usize; 3] = [128, 28, 28];
/// A small one.
const SMALL_DIMS: [usize; 3] = [32, 8, 8];
/// Levels of all quantisers: 4 bits.
const LEVELS: u16 = 16;
/// Samples to calibrate a profile on.
const SAMPLES: usize = 64;

struct Frame<T> {
    elements: Vec<T>,
    dims: [usize; 3],
    encoder: Encoder,
    decoder: Decoder,
    frame: Vec<u8>,
    tensor: Tensor,
}

impl<T: Element> Work for Frame<T> {
    fn encode(&mut self) {
        let view = TensorView::new(&self.elements, &self.dims).expect("dims that fit");
        self.encoder.encode_into(&view, &mut self.frame).expect("finite values");
    }

    fn decode(&mut self) {
        self.decoder.decode_into(&self.frame, &mut self.tensor).expect("a frame");
    }
}

/// Works and their rows, side by side.
#[derive(Default)]
struct Works {
    works: Vec<Box<dyn Work>>,
    rows: Vec<Row>,
}

impl Works {
    /// Verified by frame and tensor being the same as the reference path's.
    fn add<T: Element>(
        &mut self,
        name: &str,
        elements: &[T],
        dims: [usize; 3],
        options: &EncodeOptions,
        path: Path,
    ) {
        let work = |path| {
            let mut profiles = Profiles::default();
            options.profile.iter().for_each(|profile| _ = profiles.insert(Arc::clone(profile)));
            let mut work = Frame {
                elements: elements.to_vec(),
                dims,
                encoder: Encoder::new(options.clone()).expect("options").with_path(path),
                decoder: Decoder::new().with_profiles(profiles).with_path(path),
                frame: Vec::new(),
                tensor: Tensor::default(),
            };
            work.encode();
            work.decode();
            work
        };
        let (reference, work) = (work(Path::Reference), work(path));
        assert!(work.frame == reference.frame, "{name}: {path:?} encodes to another frame");
        assert!(work.tensor == reference.tensor, "{name}: {path:?} decodes to another tensor");
        let data = format!("{} {} {name}", T::DTYPE, dims.map(|length| length.to_string()).join("x"));
        let names = [CODER.into(), path.name().into()];
        self.rows.push(Row::untimed(&data, work.decoder.symbols(), LEVELS, names, work.frame.len()));
        self.works.push(Box::new(work));
    }
}

/// Measure whole tensors on every path.
pub fn rows(real: &Real, budget: Budget) -> Vec<Row> {
    let mut works = Works::default();
    let tensor = tensor(real);
    let halves: Vec<f16> = tensor.iter().map(|&x| f16::from_f32(x)).collect();
    let brains: Vec<bf16> = tensor.iter().map(|&x| bf16::from_f32(x)).collect();
    let (small, profile) = small(real);
    let order_0 = EncodeOptions { layout: LayoutChoice::Natural, ..EncodeOptions::bits(4) };
    let contexts = EncodeOptions { layout: LayoutChoice::Planes, ..EncodeOptions::bits(4) };
    for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
        for (name, options) in [("Q4 order-0", &order_0), ("Q4 contexts", &contexts)] {
            works.add(name, &tensor, DIMS, options, path);
            for (target, named) in [(Target::Latency, "latency"), (Target::Speed, "speed")] {
                let options = EncodeOptions { target, ..options.clone() };
                works.add(&format!("{name} {named}"), &tensor, DIMS, &options, path);
            }
            works.add(name, &halves, DIMS, options, path);
            works.add(name, &brains, DIMS, options, path);
        }
        works.add("profile", &small, SMALL_DIMS, &profile.options(), path);
        let speed = EncodeOptions { target: Target::Speed, ..profile.options() };
        works.add("profile speed", &small, SMALL_DIMS, &speed, path);
    }
    fill(&mut works.rows, &mut works.works, budget);
    works.rows
}

/// Real features, four images side by side, or what looks like them.
fn tensor(real: &Real) -> Vec<f32> {
    let wanted = DIMS.iter().product();
    let layer = real.features.iter().find(|features| features.dims[1..] == [DIMS[0] / 4, DIMS[1], DIMS[2]]);
    layer
        .filter(|layer| layer.values.len() >= wanted)
        .map_or_else(|| smooth(wanted, DIMS[2], 1), |layer| layer.values[..wanted].to_vec())
}

/// A small tensor, and a profile from others of its kind.
fn small(real: &Real) -> (Vec<f32>, Arc<Profile>) {
    let [channels, height, width] = SMALL_DIMS;
    let of_layer = real.features.iter().find(|features| features.dims[1] == channels);
    let crop = |sample: usize| {
        let Some(layer) = of_layer.filter(|layer| layer.dims[0] > SAMPLES) else {
            return smooth(SMALL_DIMS.iter().product(), width, sample as u64);
        };
        let at =
            |c: usize, y: usize, x: usize| ((sample * channels + c) * layer.dims[2] + y) * layer.dims[3] + x;
        // From the middle of the picture, where there is something.
        let (top, left) = ((layer.dims[2] - height) / 2, (layer.dims[3] - width) / 2);
        let lines = (0..channels * height).map(|line| at(line / height, top + line % height, left));
        lines.flat_map(|start| layer.values[start..start + width].iter().copied()).collect()
    };
    let samples: Vec<Vec<f32>> = (1..=SAMPLES).map(crop).collect();
    let views: Vec<_> =
        samples.iter().map(|sample| TensorView::new(sample, &SMALL_DIMS).expect("dims")).collect();
    let profile = Profile::calibrate(&views, &Calibration { levels: LEVELS, ..Calibration::default() })
        .expect("samples with a range");
    (crop(0), Arc::new(profile))
}

/// What a ReLU leaves: smooth along lines, half of it zero.
fn smooth(length: usize, width: usize, seed: u64) -> Vec<f32> {
    let (mut random, mut level) = (Random(seed), 0.0);
    let next = |i| {
        let fresh = random.unit() as f32;
        level = if i % width == 0 { fresh - 0.6 } else { 0.8 * level + 0.5 * (fresh - 0.5) };
        f32::max(level, 0.0)
    };
    (0..length).map(next).collect()
}
