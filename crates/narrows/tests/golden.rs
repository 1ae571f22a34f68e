//! Frames written once decode forever after.
//!
//! `golden/NAME.nrw` is a frame, `golden/NAME.tensor` the bytes of the tensor it must decode to (elements in
//! row-major order, little-endian). To add one, name it below and run the test with
//! `NARROWS_WRITE_GOLDEN=1`; existing files are never rewritten.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{Random, features};
use half::{bf16, f16};
use narrows::{
    Calibration, Clip, CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, Profile, Quantizer,
    Reshape, Target, TensorView,
};

struct Golden {
    name: &'static str,
    dims: Vec<usize>,
    options: EncodeOptions,
}

fn golden(name: &'static str, dims: &[usize], options: EncodeOptions) -> Golden {
    Golden { name, dims: dims.to_vec(), options }
}

fn all() -> Vec<Golden> {
    let layout =
        |layout, bits| EncodeOptions { layout, coder: CoderChoice::Rans, ..EncodeOptions::bits(bits) };
    let coder = |coder, bits| EncodeOptions { coder, ..EncodeOptions::bits(bits) };
    let quantizer = |quantizer| EncodeOptions { quantizer, ..EncodeOptions::default() };
    vec![
        golden("planes-2-bits", &[24, 7, 7], layout(LayoutChoice::Planes, 2)),
        golden("planes-4-bits-partial-group", &[37, 6, 5], layout(LayoutChoice::Planes, 4)),
        golden(
            "planes-8-bits-chunked",
            &[40, 20, 20],
            EncodeOptions { target: Target::Latency, ..layout(LayoutChoice::Planes, 8) },
        ),
        golden("tokens-by-features", &[31, 48], layout(LayoutChoice::Planes, 3)),
        golden("natural-3-bits", &[700], layout(LayoutChoice::Natural, 3)),
        golden("natural-6-bits", &[3, 11, 13], layout(LayoutChoice::Natural, 6)),
        golden("packed-5-bits", &[9, 9], coder(CoderChoice::Packed, 5)),
        golden("tans-64-states", &[300], coder(CoderChoice::Tans { state_bits: 6 }, 2)),
        golden("tans-4096-states", &[13, 40], coder(CoderChoice::Tans { state_bits: 12 }, 4)),
        golden("csr-joint", &[16, 7, 7], layout(LayoutChoice::CsrJoint(Reshape::Algorithm1), 4)),
        golden(
            "csr-joint-every-divisor",
            &[16, 7, 7],
            layout(LayoutChoice::CsrJoint(Reshape::EveryDivisor), 3),
        ),
        golden("csr-separate", &[16, 7, 7], layout(LayoutChoice::CsrSeparate(Reshape::Algorithm1), 3)),
        golden("per-channel", &[6, 8, 8], quantizer(Quantizer::PerChannel { bits: 3, clip: Clip::Full })),
        golden("clipped", &[6, 8, 8], quantizer(Quantizer::Aiq { bits: 3, clip: Clip::Percentile(98.0) })),
        golden("least-error", &[6, 8, 8], quantizer(Quantizer::Aiq { bits: 3, clip: Clip::MseOptimal })),
        golden("lossless", &[8, 9, 10], EncodeOptions::lossless()),
        golden("profile", &[12, 8, 8], profile().options()),
    ]
}

fn profile() -> Arc<Profile> {
    Arc::new(
        Profile::from_bytes(&file("calibrated.nrp", || {
            let dims = [12, 8, 8];
            let samples: Vec<Vec<f32>> = (50..60).map(|seed| features(&dims, seed)).collect();
            let views: Vec<_> = samples.iter().map(|data| TensorView::new(data, &dims).unwrap()).collect();
            let calibration = Calibration { levels: 6, clip: Clip::Percentile(99.5), axis: None };
            Profile::calibrate(&views, &calibration).unwrap().to_bytes()
        }))
        .unwrap(),
    )
}

/// The file's contents; written first, if asked for and not there.
fn file(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("NARROWS_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The elements a golden frame was made from.
fn elements(dims: &[usize]) -> Vec<f32> {
    features(dims, dims.iter().sum::<usize>() as u64)
}

fn check(name: &str, view: &TensorView<'_>, options: &EncodeOptions) {
    let frame = file(&format!("{name}.nrw"), || Encoder::new(options.clone()).unwrap().encode(view).unwrap());
    let mut decoder = Decoder::new();
    decoder.profiles_mut().insert(profile());
    let tensor = decoder.decode(&frame).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!((tensor.shape(), tensor.dtype()), (view.shape(), view.dtype()), "{name}");
    let expected = file(&format!("{name}.tensor"), || tensor.to_le_bytes());
    assert_eq!(tensor.to_le_bytes(), expected, "{name} decodes to other values");
    // Encoders may change what they choose between versions, but not by accident. Planning takes
    // logarithms, whose last bits are the platform's.
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        let today = Encoder::new(options.clone()).unwrap().encode(view).unwrap();
        assert_eq!(today, frame, "{name} is encoded differently now");
    }
}

#[test]
fn golden_frames_of_f32_decode_to_the_same_bits() {
    for Golden { name, dims, options } in all() {
        let data = elements(&dims);
        check(name, &TensorView::new(&data, &dims).unwrap(), &options);
    }
}

#[test]
fn golden_frames_of_half_types_decode_to_the_same_bits() {
    let dims = [10, 6, 6];
    let halves: Vec<f16> = elements(&dims).into_iter().map(f16::from_f32).collect();
    let brains: Vec<bf16> = elements(&dims).into_iter().map(bf16::from_f32).collect();
    let halves = TensorView::new(&halves, &dims).unwrap();
    let brains = TensorView::new(&brains, &dims).unwrap();
    check("f16", &halves, &EncodeOptions::bits(4));
    check("f16-lossless", &halves, &EncodeOptions::lossless());
    check("bf16", &brains, &EncodeOptions::bits(3));
    check("bf16-lossless", &brains, &EncodeOptions::lossless());
}

#[test]
fn golden_frames_of_degenerate_tensors_decode_to_the_same_bits() {
    check("constant", &TensorView::new(&[-1.5_f32; 60], &[3, 4, 5]).unwrap(), &EncodeOptions::default());
    check("empty", &TensorView::new::<f32>(&[], &[4, 0]).unwrap(), &EncodeOptions::default());
    let mut random = Random::new(17);
    let anything: Vec<f32> = (0..50).map(|_| f32::from_bits((random.bits() >> 32) as u32)).collect();
    check("raw", &TensorView::new(&anything, &[50]).unwrap(), &EncodeOptions::lossless());
    let mut negative = elements(&[5, 5, 5]);
    negative.iter_mut().for_each(|x| *x -= 7.0);
    check("all-negative", &TensorView::new(&negative, &[5, 5, 5]).unwrap(), &EncodeOptions::bits(4));
}

/// Every golden frame, with the file it is in.
fn files() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let frames = paths.filter(|path| path.extension().is_some_and(|extension| extension == "nrw"));
    frames.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

fn decoder() -> Decoder {
    let mut decoder = Decoder::new();
    decoder.profiles_mut().insert(profile());
    decoder
}

#[test]
fn every_truncation_of_a_golden_frame_is_a_typed_error() {
    let mut decoder = decoder();
    for (name, frame) in files() {
        for length in 0..frame.len() {
            assert!(decoder.decode(&frame[..length]).is_err(), "{name}: {length} bytes were enough");
        }
    }
}

#[test]
fn every_bit_flip_of_a_golden_frame_is_a_typed_error() {
    let mut decoder = decoder();
    for (name, mut frame) in files() {
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(decoder.decode(&frame).is_err(), "{name}: bit {bit} did not matter");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
