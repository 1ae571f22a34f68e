//! Weights out of a model and back in, as they were and as integers with scales.

use std::collections::HashMap;

use narrows_split::{Engine, Error, Model, NewWeight, Weight};

fn model() -> Model {
    Model::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny-residual.onnx")).unwrap()
}

fn floats(weight: &Weight) -> Vec<f32> {
    assert_eq!(weight.element_bytes, 4);
    weight.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Small integers and scales near these weights, one for the whole or one for each first index.
fn quantised(weight: &Weight, whole: bool) -> (Vec<i8>, Vec<f32>) {
    let values = floats(weight);
    let row = if whole { values.len() } else { values.len() / weight.shape[0] };
    let scales: Vec<f32> = values
        .chunks(row)
        .map(|row| (row.iter().fold(0.0_f32, |most, w| most.max(w.abs())) / 100.0).max(1e-6))
        .collect();
    let bins = values
        .chunks(row)
        .zip(&scales)
        .flat_map(|(row, scale)| row.iter().map(move |w| (w / scale).round() as i8));
    (bins.collect(), scales)
}

fn run(model: &Model) -> Vec<f32> {
    let image: Vec<f32> = (0..3 * 16 * 16).map(|i| (i as f32 * 0.37).sin()).collect();
    Engine::load(model).unwrap().run(&image).unwrap()
}

#[test]
fn weights_are_read_and_put_back_unchanged() {
    let model = model();
    let weights = model.weights();
    assert_eq!(weights.len(), 14);
    assert_eq!((weights[0].name.as_str(), weights[0].shape.as_slice()), ("0.weight", &[8, 3, 3, 3][..]));
    let same: HashMap<_, _> =
        weights.iter().map(|w| (w.name.clone(), NewWeight::Float32(floats(w)))).collect();
    let back = model.with_weights(&same).unwrap();
    assert_eq!(back.weights(), weights);
    assert_eq!(run(&back), run(&model));
    // A constant whose floats are not raw bytes.
    let small = Model::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/residual.onnx")).unwrap();
    assert_eq!((small.weights()[0].shape.as_slice(), small.weights()[0].bytes.len()), (&[2, 2][..], 16));
}

#[test]
fn integers_with_scales_compute_what_their_floats_do() {
    let model = model();
    let matrices = || model.weights().into_iter().filter(|weight| weight.shape.len() > 1);
    for whole in [true, false] {
        let (mut integers, mut values) = (HashMap::new(), HashMap::new());
        for weight in matrices() {
            let (bins, scales) = quantised(&weight, whole);
            let row = bins.len() / scales.len();
            let each = bins.chunks(row).zip(&scales);
            let back = each.flat_map(|(row, scale)| row.iter().map(move |&bin| f32::from(bin) * scale));
            values.insert(weight.name.clone(), NewWeight::Float32(back.collect()));
            integers.insert(weight.name, NewWeight::Int8 { values: bins, scales });
        }
        let [integers, values] = [integers, values].map(|new| model.with_weights(&new).unwrap());
        assert!(integers.to_bytes().len() * 2 < values.to_bytes().len());
        // Read again as any reader would.
        let integers = Model::from_bytes(&integers.to_bytes()).unwrap();
        for (a, b) in run(&integers).iter().zip(run(&values)) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model();
    let refused = |name: &str, new: NewWeight| {
        model.with_weights(&HashMap::from([(name.to_owned(), new)])).unwrap_err()
    };
    let error = refused("none", NewWeight::Float32(vec![0.0]));
    assert!(matches!(error, Error::NoSuchWeight { .. }), "{error}");
    let error = refused("6.bias", NewWeight::Float32(vec![0.0; 4]));
    assert!(matches!(error, Error::ConstantSize { expected: 5, found: 4, .. }), "{error}");
    let int8 = |scales| NewWeight::Int8 { values: vec![1; 80], scales };
    for scales in [vec![], vec![1.0; 4]] {
        let error = refused("6.weight", int8(scales));
        assert!(matches!(error, Error::ConstantSize { expected: 5, .. }), "{error}");
    }
    // Version 17 of the operators, as the field says it: tag 2, a number.
    let mut old = model.to_bytes();
    let at = old.windows(2).rposition(|field| field == [0x10, 17]).unwrap();
    old[at + 1] = 12;
    let old = Model::from_bytes(&old).unwrap();
    let put = |scales| old.with_weights(&HashMap::from([("6.weight".to_owned(), int8(scales))]));
    let error = put((1..6).map(|x| x as f32).collect()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(put(vec![0.5]).is_ok());
}
