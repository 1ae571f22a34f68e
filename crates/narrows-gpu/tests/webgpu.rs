//! WGSL against the CPU codec, on whatever Vulkan or Metal device there is (lavapipe will do).
#![cfg(feature = "wgpu")]

mod common;

use common::{assert_same, assert_same_frame, cases, frames, hostile, profiles, random_cases};
use narrows::{EncodeOptions, Quantizer, TensorView};
use narrows_gpu::webgpu::{Decoder, Encoder, Gpu, Vote};
use narrows_gpu::{Error, reference};

/// The device, once with what it votes by best and once with barriers; none, with the reason printed, where there is no device.
fn gpus() -> Vec<Gpu> {
    match Gpu::new() {
        Ok(gpu) => {
            let barrier = gpu.with_vote(Vote::Barrier).unwrap();
            eprintln!("{}: {:?} and {:?}", gpu.name(), gpu.vote(), barrier.vote());
            vec![gpu, barrier]
        }
        Err(error @ Error::NoDevice { .. }) => {
            eprintln!("skipped: {error} (Debian: mesa-vulkan-drivers has a software device)");
            Vec::new()
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_frame_decodes_to_the_cpus_values() {
    for gpu in gpus() {
        let mut decoder = Decoder::new(&gpu).with_profiles(profiles());
        let mut offered = 0;
        for (name, frame, expected) in frames() {
            offered += u32::from(decoder.is_offered(&frame).unwrap());
            let tensor = decoder.decode(&frame).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_same(&format!("{name}, {:?}", gpu.vote()), &tensor, &expected);
        }
        assert!(offered > 90, "the device decoded only {offered} frames itself");
    }
}

#[test]
fn every_tensor_encodes_to_the_reference_frame() {
    for gpu in gpus() {
        for case in cases() {
            let view = case.tensor.view();
            let expected = reference::encode(&case.options, &view).unwrap();
            let mut encoder = Encoder::new(&gpu, case.options.clone()).unwrap();
            let frame = encoder.encode(&view).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert_same_frame(&format!("{}, {:?}", case.name, gpu.vote()), &frame, &expected);
            let mut decoder = Decoder::new(&gpu).with_profiles(profiles());
            let cpu = narrows::Decoder::new().with_profiles(profiles()).decode(&frame).unwrap();
            assert_same(&case.name, &decoder.decode(&frame).unwrap(), &cpu);
        }
    }
}

#[test]
fn tensors_of_any_shape_make_the_round_trip_bit_for_bit() {
    for gpu in gpus() {
        let mut decoder = Decoder::new(&gpu);
        for case in random_cases(60) {
            let expected = reference::encode(&case.options, &case.tensor.view()).unwrap();
            let frame = Encoder::new(&gpu, case.options).unwrap().encode(&case.tensor.view());
            let frame = frame.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert_same_frame(&case.name, &frame, &expected);
            assert_same(&case.name, &decoder.decode(&frame).unwrap(), &narrows::decode(&frame).unwrap());
        }
    }
}

#[test]
fn changed_bits_under_a_matching_checksum_give_the_cpus_answer() {
    let frames = frames();
    for gpu in gpus() {
        let mut decoder = Decoder::new(&gpu).with_profiles(profiles());
        for (name, frame, expected) in hostile(&frames, 3) {
            match (decoder.decode(&frame), expected) {
                (Ok(tensor), Ok(expected)) => assert_same(&name, &tensor, &expected),
                (Err(_), Err(_)) => {}
                (found, expected) => panic!("{name}: {found:?}, the CPU says {expected:?}"),
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_place() {
    for gpu in gpus() {
        let mut data = common::features(&[8, 10, 10], 1);
        data[437] = f32::NAN;
        data[600] = f32::INFINITY;
        let view = TensorView::new(&data, &[8, 10, 10]).unwrap();
        let map = narrows::Affine::new(0.1, 0, 16).unwrap();
        let fixed = EncodeOptions { quantizer: Quantizer::Fixed(map), ..EncodeOptions::default() };
        for options in [EncodeOptions::bits(4), fixed] {
            match Encoder::new(&gpu, options).unwrap().encode(&view) {
                Err(Error::Codec(narrows::Error::NonFinite { index: 437, .. })) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn what_only_the_cpu_does_is_said_before_work_begins() {
    for gpu in gpus() {
        for options in [EncodeOptions::lossless(), EncodeOptions::reference(4)] {
            assert!(matches!(Encoder::new(&gpu, options), Err(Error::NotOffered { .. })));
        }
        let zero = EncodeOptions::bits(0);
        assert!(matches!(Encoder::new(&gpu, zero), Err(Error::Codec(narrows::Error::InvalidOption { .. }))));
    }
}
