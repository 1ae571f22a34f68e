//! Profiles: made from samples, named by their contents, needed at both ends.

mod common;

use std::sync::Arc;

use common::features;
use narrows::{Calibration, Clip, Decoder, Encoder, Error, Profile, Profiles, TensorView, inspect, peek};

const DIMS: [usize; 3] = [32, 14, 14];

fn profile(levels: u16) -> Arc<Profile> {
    let samples: Vec<Vec<f32>> = (0..20).map(|seed| features(&DIMS, seed)).collect();
    let views: Vec<_> = samples.iter().map(|data| TensorView::new(data, &DIMS).unwrap()).collect();
    let calibration = Calibration { levels, clip: Clip::Percentile(99.9), axis: None };
    Arc::new(Profile::calibrate(&views, &calibration).unwrap())
}

#[test]
fn a_frame_coded_with_a_profile_decodes_with_it_and_is_smaller_than_without() {
    let profile = profile(8);
    let data = features(&DIMS, 99);
    let view = TensorView::new(&data, &DIMS).unwrap();
    let frame = Encoder::new(profile.options()).unwrap().encode(&view).unwrap();
    assert_eq!(peek(&frame).unwrap().profile, Some(profile.id()));
    let mut decoder = Decoder::new();
    decoder.profiles_mut().insert(Arc::clone(&profile));
    let tensor = decoder.decode(&frame).unwrap();
    for (&x, &y) in data.iter().zip(tensor.as_f32().unwrap()) {
        let clipped = x.min(profile.affine().dequantize(7));
        assert!((clipped - y).abs() <= profile.affine().step() * 0.5001, "{x} came back as {y}");
    }
    let mut profiles = Profiles::default();
    profiles.insert(profile);
    let model = inspect(&frame, &profiles, &narrows::Limits::default()).unwrap().streams[0].bytes.model;
    assert_eq!(model, 0, "the tables are in the profile");
}

#[test]
fn a_frame_that_names_an_unknown_profile_is_a_typed_error() {
    let (used, other) = (profile(8), profile(4));
    assert_ne!(used.id(), other.id());
    let data = features(&DIMS, 99);
    let view = TensorView::new(&data, &DIMS).unwrap();
    let frame = Encoder::new(used.options()).unwrap().encode(&view).unwrap();
    let mut decoder = Decoder::new();
    decoder.profiles_mut().insert(other);
    assert_eq!(decoder.decode(&frame), Err(Error::UnknownProfile { id: used.id() }));
}

#[test]
fn a_profile_comes_back_from_its_file_with_the_same_name() {
    for levels in [2, 3, 5, 16, 17, 100, 256] {
        let profile = profile(levels);
        let bytes = profile.to_bytes();
        assert_eq!(Profile::from_bytes(&bytes).unwrap(), *profile);
    }
}

#[test]
fn a_changed_or_cut_profile_file_is_a_typed_error() {
    let bytes = profile(8).to_bytes();
    for length in 0..bytes.len() {
        assert!(Profile::from_bytes(&bytes[..length]).is_err(), "{length} bytes were enough");
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Profile::from_bytes(&changed).is_err(), "bit {bit} did not matter");
    }
}

#[test]
fn values_the_samples_never_had_can_still_be_coded() {
    let profile = profile(8);
    let mut decoder = Decoder::new();
    decoder.profiles_mut().insert(Arc::clone(&profile));
    for value in [-1e9_f32, 1e9] {
        let mut data = features(&DIMS, 5);
        data[1000..1100].fill(value);
        let view = TensorView::new(&data, &DIMS).unwrap();
        let frame = Encoder::new(profile.options()).unwrap().encode(&view).unwrap();
        let tensor = decoder.decode(&frame).unwrap();
        let end = profile.affine().dequantize(if value > 0.0 { 7 } else { 0 });
        assert!(tensor.as_f32().unwrap()[1000..1100].iter().all(|&y| y == end));
    }
}

#[test]
fn calibration_without_anything_to_learn_from_is_a_typed_error() {
    let calibration = Calibration::default();
    assert!(matches!(Profile::calibrate(&[], &calibration), Err(Error::Shape { .. })));
    let same = [2.5_f32; 12];
    let view = TensorView::new(&same, &[3, 4]).unwrap();
    assert!(matches!(Profile::calibrate(&[view], &calibration), Err(Error::InvalidOption { .. })));
    let nan = [f32::NAN, 1.0];
    let view = TensorView::new(&nan, &[2]).unwrap();
    assert!(matches!(Profile::calibrate(&[view], &calibration), Err(Error::NonFinite { index: 0, .. })));
}
