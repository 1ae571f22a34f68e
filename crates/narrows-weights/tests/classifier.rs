//! The demo network from packed weights: what it computes, and what calibration makes of it.

use std::path::{Path, PathBuf};

use narrows_weights::net::{Classifier, Images, Model, calibrated, dense};
use narrows_weights::{
    Checkpoint, Counted, Error, Mode, PackOptions, PackedFile, Settings, pack_checkpoint, pack_network,
};
use narrows_weights::{Plain, Tensor};

mod common;
use common::Random;

fn model() -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fashion-resnet/model.onnx")).unwrap()
}

/// Images that are smooth, as images are.
fn images(count: usize, seed: u64) -> Images {
    let mut random = Random(seed);
    let mut values = Vec::new();
    for _ in 0..count {
        let [a, b, c, d] = [(); 4].map(|()| random.unit() as f32);
        values.extend((0..784).map(|at| {
            let (y, x) = ((at / 28) as f32 / 28.0 - 0.5, (at % 28) as f32 / 28.0 - 0.5);
            let wave = (12.0 * (a * x + b * y) + 6.0 * c).sin() * (9.0 * d * (x * x + y * y)).cos();
            (0.5 + 0.5 * wave).clamp(0.0, 1.0)
        }));
    }
    Images::new(values, [1, 28, 28]).unwrap()
}

fn file(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

fn packed(bits: f64) -> PackedFile {
    let tensor = |shape: &[usize], values: &[f32]| Plain {
        dtype: safetensors::Dtype::F32,
        shape: shape.to_vec(),
        data: values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
    };
    let tensors = model()
        .layers()
        .flat_map(|(layer, stored)| {
            let biases = tensor(&[stored.biases.len()], &stored.biases);
            [(layer.name.clone(), tensor(&layer.shape, &stored.weights)), (layer.bias.clone(), biases)]
        })
        .collect();
    let (_folder, path) = file("packed.safetensors");
    let settings = Settings { bits, least_weights: 0, ..Settings::default() };
    let mode = Mode::Quantize(settings, None);
    pack_checkpoint(&Checkpoint::from_tensors(tensors), &path, &mode, &PackOptions::default(), |_| {})
        .unwrap();
    PackedFile::read(std::fs::read(path).unwrap()).unwrap()
}

fn greatest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

#[test]
fn every_path_gives_the_bits_of_the_reference() {
    let (model, file) = (model(), packed(3.0));
    let run =
        |path| Classifier::of(model.network(), &file).unwrap().with_path(path).run(images(3, 5)).unwrap();
    let reference = run(narrows::Path::Reference);
    for path in narrows::Path::ALL.into_iter().filter(|path| path.is_available()) {
        let bits = |logits: &[f32]| -> Vec<u32> { logits.iter().map(|x| x.to_bits()).collect() };
        assert_eq!(bits(&run(path)), bits(&reference), "{path:?}");
    }
}

#[test]
fn packed_weights_compute_what_the_same_weights_do_unpacked() {
    let (model, file) = (model(), packed(3.0));
    let layers: Vec<_> = model
        .layers()
        .map(|(l, _)| (dense(&file, &l.name).unwrap().0, dense(&file, &l.bias).unwrap().0))
        .collect();
    let unpacked = Model::from_bytes(model.with_weights(&layers)).unwrap();
    let [packed, dense] =
        [Classifier::of(model.network(), &file).unwrap(), Classifier::dense(&unpacked).unwrap()]
            .map(|network| network.run(images(8, 9)).unwrap());
    assert_eq!(packed.len(), 80);
    for (a, b) in packed.iter().zip(&dense) {
        assert!((a - b).abs() <= 1e-3 * (1.0 + b.abs()), "{a} {b}");
    }
}

#[test]
fn calibration_keeps_more_answers_at_as_many_bits() {
    let (model, test) = (model(), images(200, 77));
    let settings = Settings { bits: 1.5, lambda: 0.1, ..Settings::default() };
    let mut told = Vec::new();
    let options = PackOptions::default();
    let layers = calibrated(&model, &images(96, 1), &settings, &options, |done| told.push(done)).unwrap();
    assert!(told.is_sorted() && told.last() == Some(&1.0));
    let (_folder, path) = file("calibrated.safetensors");
    let tensors = pack_network(&model, &layers, &path, &options).unwrap().tensors;
    assert_eq!((tensors.len(), tensors.iter().filter(|tensor| tensor.kind == "packed").count()), (20, 10));
    let file = PackedFile::open(&path).unwrap();
    let bits: f64 = layers.iter().map(|l| l.quantized.entropy() * l.quantized.values.len() as f64).sum();
    assert!((bits / 306_720.0 - 1.5).abs() < 0.03, "{} bits a weight", bits / 306_720.0);
    for (layer, found) in model.network().layers().iter().zip(&layers) {
        let Tensor::Packed(matrix) = file.tensor(&layer.name).unwrap() else {
            panic!("{} is not packed", layer.name)
        };
        assert_eq!(matrix.quantized().unwrap(), found.quantized);
        assert_eq!(dense(&file, &layer.bias).unwrap().0, found.biases);
    }
    let answers = |network: Classifier| -> Vec<usize> {
        network.run(test.clone()).unwrap().chunks_exact(10).map(greatest).collect()
    };
    let float = answers(Classifier::dense(&model).unwrap());
    let kept = |file: &PackedFile| {
        let own = answers(Classifier::of(model.network(), file).unwrap());
        own.iter().zip(&float).filter(|(a, b)| a == b).count()
    };
    let (with, without) = (kept(&file), kept(&packed(1.5)));
    assert!(with >= 170 && with > without, "{with} of 200 answers kept, {without} without calibration");
}

#[test]
fn what_does_not_fit_is_refused() {
    let (model, file) = (model(), packed(3.0));
    let network = Classifier::of(model.network(), &file).unwrap();
    let wrong = Images::new(vec![0.0; 14 * 14 * 2], [2, 14, 14]).unwrap();
    assert!(network.run(wrong.clone()).is_err());
    assert!(Images::new(vec![0.0; 100], [1, 28, 28]).is_err());
    assert!(Images::new(Vec::new(), [0, 28, 28]).is_err());
    let refused = |images: &Images, settings: &Settings| {
        calibrated(&model, images, settings, &PackOptions::default(), |_| {}).unwrap_err()
    };
    refused(&wrong, &Settings::default());
    refused(&Images::new(Vec::new(), [1, 28, 28]).unwrap(), &Settings::default());
    refused(&images(2, 1), &Settings { bits: f64::NAN, ..Settings::default() });
    let too_few = Settings { bits: 0.05, counted: Counted::File, ..Settings::default() };
    assert!(matches!(refused(&images(2, 1), &too_few), Error::TooFewBits { least, .. } if least > 0.05));
}
