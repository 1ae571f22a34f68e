//! The cases that every device is held to: frames to decode, tensors to encode.
#![allow(dead_code)]

#[path = "../../../narrows/tests/common/mod.rs"]
mod codec;

use std::sync::Arc;

pub use codec::{Random, features, with_checksum};
use half::{bf16, f16};
use narrows::stream::Surveyor;
use narrows::{
    Affine, Calibration, Clip, CoderChoice, EncodeOptions, Encoder, LayoutChoice, Limits, Profile, Profiles,
    Quantizer, Reshape, Target, Tensor, TensorView,
};

/// A tensor to encode, and how.
pub struct Case {
    pub name: String,
    pub tensor: Tensor,
    pub options: EncodeOptions,
}

/// A profile for features of three axes.
pub fn profile(levels: u16) -> Arc<Profile> {
    let dims = [12, 14, 14];
    let samples: Vec<Vec<f32>> = (50..56).map(|seed| features(&dims, seed)).collect();
    let views: Vec<_> = samples.iter().map(|data| TensorView::new(data, &dims).unwrap()).collect();
    let calibration = Calibration { levels, clip: Clip::Percentile(99.5), axis: None };
    Arc::new(Profile::calibrate(&views, &calibration).unwrap())
}

/// Every profile that a case or a frame names.
pub fn profiles() -> Profiles {
    let mut profiles = Profiles::default();
    for levels in [6, 16, 256] {
        profiles.insert(profile(levels));
    }
    profiles
}

/// Tensors and options such as an encoder on a GPU takes.
pub fn cases() -> Vec<Case> {
    let shapes: [&[usize]; 12] = [
        &[128, 28, 28],
        &[64, 14, 14],
        &[37, 6, 5],
        &[3, 50, 50],
        &[31, 48],
        &[200, 65],
        &[5000],
        &[1],
        &[2, 20, 9, 7],
        &[40, 1, 300],
        &[6, 6, 70],
        &[1, 4, 4, 4, 2, 2, 3, 2],
    ];
    let mut cases = Vec::new();
    let mut add =
        |name: String, tensor: Tensor, options: EncodeOptions| cases.push(Case { name, tensor, options });
    for (index, dims) in shapes.into_iter().enumerate() {
        let f32s = Tensor::new(features(dims, index as u64), dims).unwrap();
        for (bits, layout, target) in [
            (4, LayoutChoice::Natural, Target::Size),
            (4, LayoutChoice::Planes, Target::Latency),
            (2, LayoutChoice::Planes, Target::Size),
            (8, LayoutChoice::Natural, Target::Latency),
            (5, LayoutChoice::Auto, Target::Latency),
        ] {
            let options = EncodeOptions { layout, target, ..EncodeOptions::bits(bits) };
            add(format!("{dims:?} {bits} bits {layout:?} {target:?}"), f32s.clone(), options);
        }
        let f16s =
            Tensor::new(f32s.as_f32().unwrap().iter().map(|&x| f16::from_f32(x - 0.3)).collect(), dims);
        let bf16s = Tensor::new(f32s.as_f32().unwrap().iter().map(|&x| bf16::from_f32(-x)).collect(), dims);
        let latency = EncodeOptions { target: Target::Latency, ..EncodeOptions::bits(3) };
        add(format!("{dims:?} f16"), f16s.unwrap(), latency.clone());
        add(format!("{dims:?} bf16"), bf16s.unwrap(), latency);
        let map = Affine::new(0.07, 1, 11).unwrap();
        let fixed = EncodeOptions { quantizer: Quantizer::Fixed(map), ..EncodeOptions::default() };
        add(format!("{dims:?} fixed map"), f32s.clone(), fixed);
        let levels = [6, 16, 256][index % 3];
        add(format!("{dims:?} profile of {levels}"), f32s, profile(levels).options());
    }
    let dims = [16, 9, 9];
    let eight = EncodeOptions { layout: LayoutChoice::Planes, ..EncodeOptions::bits(8) };
    let mut random = Random::new(3);
    let noise: Vec<f32> = (0..1296).map(|_| random.unit() - 0.5).collect();
    add("noise".into(), Tensor::new(noise.clone(), &dims).unwrap(), eight.clone());
    let tiny: Vec<f16> = noise.iter().map(|&x| f16::from_f32(x * 1e-7)).collect();
    add("subnormal f16".into(), Tensor::new(tiny, &dims).unwrap(), EncodeOptions::bits(4));
    let mut rare = vec![0.0_f32; 1296];
    rare[700] = 1.0;
    add("one element apart".into(), Tensor::new(rare, &dims).unwrap(), eight);
    add("constant".into(), Tensor::new(vec![-1.5_f32; 1296], &dims).unwrap(), EncodeOptions::bits(4));
    let one_symbol = Affine::new(100.0, 3, 16).unwrap();
    let fixed = EncodeOptions { quantizer: Quantizer::Fixed(one_symbol), ..EncodeOptions::default() };
    add("one symbol".into(), Tensor::new(noise, &dims).unwrap(), fixed);
    cases
}

/// Tensors of any small shape, coded in any way.
pub fn random_cases(count: u64) -> Vec<Case> {
    let case = |seed| {
        let mut random = Random::new(seed + 1000);
        let mut below = |n: u64| (random.bits() >> 20) % n;
        let rank = 1 + below(4) as usize;
        let longest = [6, 40, 90][below(3) as usize];
        let mut dims: Vec<usize> = (0..rank).map(|_| 1 + below(longest) as usize).collect();
        while dims.iter().product::<usize>() > 20_000 {
            let longest = (0..rank).max_by_key(|&axis| dims[axis]).unwrap();
            dims[longest] = dims[longest].div_ceil(2);
        }
        let quantizer = if below(4) == 0 {
            let map =
                Affine::new(0.002 * (1 + below(100)) as f32, below(40) as i32 - 20, 2 + below(255) as u16);
            Quantizer::Fixed(map.unwrap())
        } else {
            Quantizer::aiq(1 + below(8) as u8)
        };
        let layout = [LayoutChoice::Natural, LayoutChoice::Planes][below(2) as usize];
        let target = [Target::Size, Target::Latency][below(2) as usize];
        let axis = Some(below(rank as u64) as usize);
        let options = EncodeOptions { quantizer, layout, target, axis, ..EncodeOptions::default() };
        let data = features(&dims, seed);
        let scaled = |x: &f32| (x - 0.2) * 10_f32.powi(seed as i32 % 7 - 3);
        let tensor = match seed % 3 {
            0 => Tensor::new(data.iter().map(scaled).collect::<Vec<f32>>(), &dims),
            1 => Tensor::new(data.iter().map(|x| f16::from_f32(scaled(x))).collect::<Vec<f16>>(), &dims),
            _ => Tensor::new(data.iter().map(|x| bf16::from_f32(scaled(x))).collect::<Vec<bf16>>(), &dims),
        };
        Case { name: format!("random case {seed}: {dims:?} {options:?}"), tensor: tensor.unwrap(), options }
    };
    (0..count).map(case).collect()
}

/// Frames of every kind that the CPU writes, with what they decode to.
pub fn frames() -> Vec<(String, Vec<u8>, Tensor)> {
    let mut frames = codec::frames();
    let mut decoder = narrows::Decoder::new().with_profiles(profiles());
    let mut add = |name: String, view: &TensorView<'_>, options: EncodeOptions| {
        let frame = Encoder::new(options).unwrap().encode(view).unwrap();
        let tensor = decoder.decode(&frame).unwrap();
        frames.push((name, frame, tensor));
    };
    for dims in [vec![40, 20, 20], vec![128, 28, 28], vec![70, 33], vec![2, 33, 8, 9], vec![9000]] {
        let data = features(&dims, 7);
        let view = TensorView::new(&data, &dims).unwrap();
        for bits in [1, 3, 4, 5, 8] {
            for layout in [LayoutChoice::Natural, LayoutChoice::Planes] {
                for target in [Target::Size, Target::Latency] {
                    let coder = CoderChoice::Rans;
                    let options = EncodeOptions { layout, target, coder, ..EncodeOptions::bits(bits) };
                    add(format!("{dims:?} {bits} bits {layout:?} {target:?}"), &view, options);
                }
            }
        }
        let quantizer = Quantizer::PerChannel { bits: 4, clip: Clip::Full };
        for layout in [LayoutChoice::Natural, LayoutChoice::Planes] {
            let options = EncodeOptions { quantizer: quantizer.clone(), layout, ..EncodeOptions::default() };
            add(format!("{dims:?} per channel {layout:?}"), &view, options);
        }
        for reshape in [Reshape::Algorithm1, Reshape::EveryDivisor] {
            let options =
                EncodeOptions { layout: LayoutChoice::CsrJoint(reshape), ..EncodeOptions::reference(4) };
            add(format!("{dims:?} CSR {reshape:?}"), &view, options);
            let options =
                EncodeOptions { layout: LayoutChoice::CsrSeparate(reshape), ..EncodeOptions::reference(4) };
            add(format!("{dims:?} CSR separate {reshape:?}"), &view, options);
        }
        add(format!("{dims:?} profile"), &view, profile(16).options());
    }
    frames
}

/// Frames under a matching checksum that no encoder wrote, with what the CPU makes of them.
pub fn hostile(
    frames: &[(String, Vec<u8>, Tensor)],
    changes: usize,
) -> Vec<(String, Vec<u8>, narrows::Result<Tensor>)> {
    let mut decoder = narrows::Decoder::new().with_profiles(profiles());
    let mut random = Random::new(11);
    let mut hostile = Vec::new();
    for (name, frame, _) in frames.iter().filter(|(_, frame, _)| frame.len() < 6000) {
        for _ in 0..changes {
            let mut changed = frame.clone();
            let bit = random.bits() as usize % ((frame.len() - 4) * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = with_checksum(changed);
            let result = decoder.decode(&changed);
            hostile.push((format!("{name}, bit {bit}"), changed, result));
        }
    }
    hostile
}

/// A frame whose checksum and header hold, which the kernels take and only decoding shows to be no encoder's.
pub fn first_corrupt(frames: &[(String, Vec<u8>, Tensor)]) -> Vec<u8> {
    let is_offered = |frame: &[u8]| {
        matches!(Surveyor::default().survey(frame, &Limits::default(), &profiles()), Ok((_, Some(_))))
    };
    let corrupt =
        |(_, frame, result): &(_, Vec<u8>, narrows::Result<Tensor>)| result.is_err() && is_offered(frame);
    hostile(frames, 20).into_iter().find(corrupt).expect("one of many changed bits shows").1
}

/// The bits of both are equal.
pub fn assert_same(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!((found.shape(), found.dtype()), (expected.shape(), expected.dtype()), "{name}");
    let (found, expected) = (found.to_le_bytes(), expected.to_le_bytes());
    if let Some(at) = found.iter().zip(&expected).position(|(a, b)| a != b) {
        panic!("{name}: byte {at} of {} is {:#x}, expected {:#x}", found.len(), found[at], expected[at]);
    }
}

/// The bytes of both frames are equal.
pub fn assert_same_frame(name: &str, found: &[u8], expected: &[u8]) {
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    assert!(
        found == expected,
        "{name}: frames of {} and {} bytes differ from byte {at:?} on",
        found.len(),
        expected.len()
    );
}
