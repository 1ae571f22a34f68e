//! The trainer on the demo network and a few of its test images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use half::f16;
use narrows_train::{
    Device, Error, Examples, Goal, Model, Precision, STEPS_KEY, Settings, Steps, Trained, Trainer, allocate,
    fisher_information,
};
use npyz::npz::NpzArchive;
use safetensors::{Dtype, SafeTensors};

fn demo(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet")).join(name)
}

fn model() -> Model {
    Model::open(demo("model.onnx")).unwrap()
}

/// Test images `from..to`.
fn images(from: usize, to: usize) -> Examples {
    let mut archive = NpzArchive::new(File::open(demo("test-1000.npz")).unwrap()).unwrap();
    let mut array = |name| archive.by_name(name).unwrap().unwrap().into_vec::<u8>().unwrap();
    let (pixels, labels) = (array("images"), array("labels"));
    Examples::new([1, 28, 28], pixels[784 * from..784 * to].to_vec(), labels[from..to].to_vec()).unwrap()
}

/// A few steps.
fn short(precision: Precision) -> Settings {
    Settings { precision, epochs: 2, batch: 16, held_out: 16, ..Settings::default() }
}

const HALF_A_BIT: Precision = Precision::Learned { bins: 31, goal: Goal::BitsPerWeight(0.5) };

fn trained(settings: Settings) -> Trained {
    let model = model();
    let mut trainer = Trainer::new(&model, images(0, 80), settings, &Device::flex()).unwrap();
    while !trainer.is_done() {
        trainer.step().unwrap();
    }
    trainer.finish()
}

fn steps(checkpoint: &[u8]) -> BTreeMap<String, Steps> {
    let (_, header) = SafeTensors::read_metadata(checkpoint).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()[STEPS_KEY]).unwrap()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = tensors.tensor(name).unwrap();
    if tensor.dtype() == Dtype::F16 {
        let halves = tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()));
        return halves.map(f16::to_f32).collect();
    }
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn the_network_that_was_read_is_as_accurate_as_the_one_that_was_exported() {
    let model = model();
    assert_eq!((model.network().weights(), model.network().classes()), (306_720, 10));
    let accuracy = Trained::untrained(&model).accuracy(&images(0, 1000), &Device::flex()).unwrap();
    assert!(accuracy > 92.0, "{accuracy} %");
}

#[test]
fn a_short_training_gets_near_its_bits() {
    // 60 steps at the usual learning rate of steps are a third of an octave: 3.3 bits a weight became 3.
    let settings = Settings { epochs: 15, ..short(HALF_A_BIT) };
    let bits = trained(settings).rate().bits_per_weight();
    assert!(bits < 1.5, "{bits} bits a weight");
}

#[test]
fn trained_weights_lie_on_the_grid_that_the_checkpoint_names() {
    for bins in [2, 3, 31] {
        let trained = trained(short(Precision::Learned { bins, goal: Goal::Price(0.1) }));
        let checkpoint = trained.checkpoint();
        let (steps, tensors) = (steps(&checkpoint), SafeTensors::deserialize(&checkpoint).unwrap());
        assert_eq!((steps.len(), tensors.len()), (10, 20));
        for (name, Steps { step, bins }) in steps {
            let weights = floats(&tensors, &name);
            assert!(bins % 2 == 1, "{name}: {bins} bins");
            for (row, step) in weights.chunks_exact(weights.len() / step.len()).zip(step) {
                for weight in row {
                    let bin = (weight / step).round();
                    assert_eq!(bin * step, *weight, "{name}");
                    assert!(bin.abs() <= (bins / 2) as f32, "{name}: bin {bin} of {bins}");
                }
            }
        }
    }
}

#[test]
fn the_model_that_comes_out_holds_the_weights_of_the_checkpoint() {
    let trained = trained(short(HALF_A_BIT));
    let checkpoint = trained.checkpoint();
    let tensors = SafeTensors::deserialize(&checkpoint).unwrap();
    let written = Model::from_bytes(trained.onnx(&model())).unwrap();
    for (layer, stored) in written.layers() {
        assert_eq!(stored.weights, floats(&tensors, &layer.name));
        assert_eq!(stored.biases, floats(&tensors, &layer.bias));
    }
    let (test, device) = (images(0, 200), Device::flex());
    let accuracies =
        [trained, Trained::untrained(&written)].map(|network| network.accuracy(&test, &device).unwrap());
    assert_eq!(accuracies[0], accuracies[1]);
}

#[test]
fn a_run_that_was_stopped_and_gone_on_with_ends_as_one_that_was_not() {
    let folder = std::env::temp_dir().join(format!("narrows-train-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (file, model, device, settings) =
        (folder.join("run.resume"), model(), Device::flex(), short(HALF_A_BIT));
    let mut trainer = Trainer::new(&model, images(0, 80), settings.clone(), &device).unwrap();
    for _ in 0..3 {
        trainer.step().unwrap();
    }
    trainer.save(&file).unwrap();
    let mut trainer = Trainer::resume(&model, images(0, 80), settings.clone(), &device, &file).unwrap();
    assert_eq!(trainer.steps_done(), 3);
    while !trainer.is_done() {
        trainer.step().unwrap();
    }
    let (resumed, whole) = (trainer.finish(), trained(settings.clone()));
    assert!(resumed.checkpoint() == whole.checkpoint(), "the checkpoints differ");
    assert!(resumed.curve() == whole.curve(), "the curves differ");

    let other = Settings { seed: 2, ..settings };
    let refused = Trainer::resume(&model, images(0, 80), other, &device, &file).err().unwrap();
    assert!(matches!(refused, Error::Checkpoint { .. }), "{refused}");
    let bytes = fs::read(&file).unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        let refused =
            Trainer::resume(&model, images(0, 80), short(HALF_A_BIT), &device, &file).err().unwrap();
        assert!(matches!(refused, Error::Checkpoint { .. }), "{length} bytes: {refused}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_price_lowers_the_rate_and_none_leaves_the_steps_to_accuracy() {
    let rate = |price| {
        let precision = Precision::Learned { bins: 31, goal: Goal::Price(price) };
        let settings = Settings { epochs: 4, step_rate: 0.05, ..short(precision) };
        trained(settings).rate().entropy_per_weight()
    };
    let (free, dear) = (rate(0.0), rate(1.0));
    assert!(dear < 0.9 * free, "{dear} bits a weight with a price, {free} without");
}

#[test]
fn float_training_learns() {
    let settings = Settings { distillation: 0.0, weight_rate: 0.01, epochs: 6, ..short(Precision::Float) };
    let trained = trained(settings);
    assert!(trained.layers().is_empty());
    let accuracy = trained.accuracy(&images(0, 64), &Device::flex()).unwrap();
    assert!(accuracy >= 95.0, "{accuracy} % of the images that were learned");
}

#[test]
fn fisher_steps_reach_the_rate_and_keep_the_network_working() {
    let (model, device) = (model(), Device::flex());
    let information = fisher_information(&model, &images(0, 500), 24, 1, &device).unwrap();
    assert!(information.iter().all(|&f| f > 0.0), "{information:?}");
    let trained = allocate(&model, &images(0, 500), &information, 2.0, &device).unwrap();
    let bits = trained.rate().bits_per_weight();
    assert!((1.98..=2.0).contains(&bits), "{bits} bits a weight");
    let accuracy = trained.accuracy(&images(500, 1000), &device).unwrap();
    assert!(accuracy > 88.0, "{accuracy} %");
    let refused = allocate(&model, &images(0, 500), &information, 0.01, &device).unwrap_err();
    assert!(matches!(refused, Error::InvalidSetting { name: "bits per weight", .. }), "{refused}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let (model, device) = (model(), Device::flex());
    let refused = |examples: Examples, settings: Settings| {
        Trainer::new(&model, examples, settings, &device).err().unwrap()
    };
    let small = Examples::new([1, 14, 14], vec![0; 196 * 40], vec![0; 40]).unwrap();
    assert!(matches!(refused(small, short(HALF_A_BIT)), Error::Shape { what: "images", .. }));
    let eleventh = Examples::new([1, 28, 28], vec![0; 784 * 40], vec![10; 40]).unwrap();
    assert!(matches!(refused(eleventh, short(HALF_A_BIT)), Error::Shape { what: "labels", .. }));
    assert!(Examples::new([1, 28, 28], vec![0; 783], vec![0]).is_err());
    for settings in [
        Settings { batch: 1, ..short(HALF_A_BIT) },
        Settings { batch: 100, ..short(HALF_A_BIT) },
        Settings { held_out: 80, ..short(HALF_A_BIT) },
        Settings { epochs: 0, ..short(HALF_A_BIT) },
        Settings { weight_rate: f64::NAN, ..short(HALF_A_BIT) },
        Settings { distillation: 1.5, ..short(HALF_A_BIT) },
        short(Precision::Learned { bins: 1, goal: Goal::Price(0.0) }),
        short(Precision::Learned { bins: 31, goal: Goal::BitsPerWeight(-1.0) }),
        short(Precision::Learned { bins: 31, goal: Goal::Price(f64::INFINITY) }),
    ] {
        let error = refused(images(0, 80), settings.clone());
        assert!(matches!(error, Error::InvalidSetting { .. }), "{settings:?}: {error}");
    }
}
