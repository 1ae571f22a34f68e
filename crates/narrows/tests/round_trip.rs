//! Every layout, coder, quantiser and type comes back as the quantiser says it must.

mod common;

use common::features;
use half::{bf16, f16};
use narrows::{
    Clip, CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, Quantizer, Reshape, Target, Tensor,
    TensorView,
};
use proptest::prelude::*;

fn layouts() -> impl Strategy<Value = LayoutChoice> {
    prop::sample::select(vec![
        LayoutChoice::Auto,
        LayoutChoice::Natural,
        LayoutChoice::Planes,
        LayoutChoice::CsrJoint(Reshape::Algorithm1),
        LayoutChoice::CsrJoint(Reshape::EveryDivisor),
        LayoutChoice::CsrSeparate(Reshape::Algorithm1),
    ])
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1_usize..9, 1..5),
        prop::collection::vec(1_usize..40, 2..4),
        Just(vec![1]),
        Just(vec![5000]),
        Just(vec![3, 50, 50]),
        Just(vec![70, 7, 9]),
        Just(vec![33, 41]),
        Just(vec![1, 2, 3, 4, 1, 2, 3, 2]),
    ]
}

/// Encode with `options`, decode, and hand back the tensor.
fn round_trip(view: &TensorView<'_>, options: &EncodeOptions) -> Tensor {
    let frame = Encoder::new(options.clone()).unwrap().encode(view).unwrap();
    let header_and_checksum = 6 + 10 * view.shape().rank() + 4;
    assert!(frame.len() <= view.bytes() + header_and_checksum, "{} for {} raw", frame.len(), view.bytes());
    let tensor = Decoder::new().decode(&frame).unwrap();
    assert_eq!((tensor.shape(), tensor.dtype()), (view.shape(), view.dtype()));
    tensor
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_layout_decodes_to_the_same_values(
        dims in shapes(), seed in any::<u64>(), bits in 1_u8..=8, layout in layouts(),
        latency in any::<bool>(),
    ) {
        let data = features(&dims, seed);
        let view = TensorView::new(&data, &dims).unwrap();
        let target = if latency { Target::Latency } else { Target::Size };
        let quantizer = Quantizer::aiq(bits);
        let packed = EncodeOptions { coder: CoderChoice::Packed, layout: LayoutChoice::Natural, quantizer, ..Default::default() };
        let options = EncodeOptions { layout, target, coder: CoderChoice::Rans, ..packed.clone() };
        let (expected, decoded) = (round_trip(&view, &packed), round_trip(&view, &options));
        // RAW is exact; where one of the two took it, the other is within half a step.
        let (min, max) = data.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        let half_step = (max - min) / f32::from((1_u16 << bits) - 1) * 0.5001 + 1e-6;
        for ((&x, &a), &b) in data.iter().zip(expected.as_f32().unwrap()).zip(decoded.as_f32().unwrap()) {
            prop_assert!((x - b).abs() <= half_step + half_step * f32::from(bits == 1), "{x} came back as {b}, step {half_step}");
            prop_assert!(a.to_bits() == b.to_bits() || a == x || b == x);
        }
    }

    #[test]
    fn tans_decodes_to_the_same_values_as_packing(
        dims in shapes(), seed in any::<u64>(), bits in 1_u8..=5, state_bits in 6_u32..=12,
    ) {
        let data = features(&dims, seed);
        let view = TensorView::new(&data, &dims).unwrap();
        let packed = EncodeOptions { coder: CoderChoice::Packed, ..EncodeOptions::bits(bits) };
        let tans = EncodeOptions { coder: CoderChoice::Tans { state_bits }, ..EncodeOptions::bits(bits) };
        let (expected, decoded) = (round_trip(&view, &packed), round_trip(&view, &tans));
        for ((&x, &a), &b) in data.iter().zip(expected.as_f32().unwrap()).zip(decoded.as_f32().unwrap()) {
            prop_assert!(a.to_bits() == b.to_bits() || a == x || b == x);
        }
    }

    #[test]
    fn lossless_keeps_every_bit_of_any_f32(bits in prop::collection::vec(any::<u32>(), 1..300)) {
        let data: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let view = TensorView::new(&data, &[data.len()]).unwrap();
        let decoded = round_trip(&view, &EncodeOptions::lossless());
        let back: Vec<u32> = decoded.as_f32().unwrap().iter().map(|x| x.to_bits()).collect();
        prop_assert_eq!(back, bits);
    }

    #[test]
    fn lossless_keeps_every_bit_of_features(dims in shapes(), seed in any::<u64>()) {
        let data = features(&dims, seed);
        let decoded = round_trip(&TensorView::new(&data, &dims).unwrap(), &EncodeOptions::lossless());
        prop_assert_eq!(decoded.as_f32().unwrap(), &data[..]);
        let halves: Vec<f16> = data.iter().map(|&x| f16::from_f32(x)).collect();
        let decoded = round_trip(&TensorView::new(&halves, &dims).unwrap(), &EncodeOptions::lossless());
        prop_assert_eq!(decoded, Tensor::new(halves, &dims).unwrap());
        let brains: Vec<bf16> = data.iter().map(|&x| bf16::from_f32(x)).collect();
        let decoded = round_trip(&TensorView::new(&brains, &dims).unwrap(), &EncodeOptions::lossless());
        prop_assert_eq!(decoded, Tensor::new(brains, &dims).unwrap());
    }

    #[test]
    fn any_finite_values_come_back_finite_and_near(
        bits in prop::collection::vec(any::<u32>(), 2..200), q in 1_u8..=8, per_channel in any::<bool>(),
    ) {
        let data: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).filter(|x| x.is_finite()).collect();
        prop_assume!(!data.is_empty());
        let view = TensorView::new(&data, &[1, data.len()]).unwrap();
        let clip = Clip::Full;
        let quantizer = if per_channel { Quantizer::PerChannel { bits: q, clip } } else { Quantizer::aiq(q) };
        let decoded = round_trip(&view, &EncodeOptions { quantizer, ..Default::default() });
        let (min, max) = data.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x.into()), b.max(x.into())));
        let step = (max - min) / f64::from((1_u16 << q) - 1);
        for (&x, &y) in data.iter().zip(decoded.as_f32().unwrap()) {
            prop_assert!(y.is_finite());
            // One level may fall off the end when the zero point is rounded; a bf16 step is 2^-7 coarser
            // per level; values far from zero keep their own 2^-22.
            let bound = 1.5 * step + f64::from(per_channel) * f64::from(x).abs().max(max.abs()).max(min.abs()) / 64.0
                + f64::from(x).abs() * 1e-6 + 1e-37;
            prop_assert!((f64::from(x) - f64::from(y)).abs() <= bound, "{x} came back as {y}, step {step}");
        }
    }

    #[test]
    fn strided_views_encode_as_their_copies(rows in 1_usize..20, columns in 1_usize..20, seed in any::<u64>()) {
        let data = features(&[rows, columns], seed);
        let transposed = TensorView::with_strides(&data, &[columns, rows], &[1, columns]).unwrap();
        let copy = transposed.to_tensor();
        let mut encoder = Encoder::new(EncodeOptions::default()).unwrap();
        prop_assert_eq!(encoder.encode(&transposed).unwrap(), encoder.encode(&copy.view()).unwrap());
    }
}

#[test]
fn a_used_encoder_writes_what_a_new_one_writes() {
    // What an encoder remembers of the last tensor, such as its order of rows, must not show in the next.
    let noise = |dims: &[usize]| -> Vec<f32> {
        let mut random = common::Random::new(3);
        (0..dims.iter().product()).map(|_| random.unit()).collect()
    };
    let shapes = [
        vec![64, 14, 14],
        vec![3, 5],
        vec![128, 7, 7],
        vec![14, 64, 14],
        vec![200, 64],
        vec![1],
        vec![64, 28, 28],
    ];
    for (layout, target) in [
        (LayoutChoice::Auto, Target::Size),
        (LayoutChoice::Auto, Target::Speed),
        (LayoutChoice::Planes, Target::Size),
        (LayoutChoice::Planes, Target::Latency),
        (LayoutChoice::Planes, Target::Speed),
    ] {
        for bits in [2, 4, 8] {
            let options = EncodeOptions { layout, target, ..EncodeOptions::bits(bits) };
            let mut used = Encoder::new(options.clone()).unwrap();
            let (mut decoder, mut tensor) = (Decoder::new(), Tensor::default());
            for dims in shapes.iter().chain(shapes.iter().rev()) {
                let plain = features(dims, 9);
                let constant = vec![0.5; plain.len()];
                let mut broken = plain.clone();
                broken[0] = f32::NAN;
                for data in [plain.clone(), noise(dims), constant, plain, broken] {
                    let view = TensorView::new(&data, dims).unwrap();
                    let frame = used.encode(&view);
                    let expected = Encoder::new(options.clone()).unwrap().encode(&view);
                    assert_eq!(frame.is_ok(), expected.is_ok(), "{dims:?} {options:?}");
                    let (Ok(frame), Ok(expected)) = (frame, expected) else { continue };
                    assert!(frame == expected, "{dims:?} {options:?}");
                    decoder.decode_into(&frame, &mut tensor).unwrap();
                    assert_eq!(tensor, narrows::decode(&frame).unwrap());
                }
            }
        }
    }
}

#[test]
fn estimates_are_within_one_percent_of_the_frames() {
    for dims in [vec![64, 28, 28], vec![128, 14, 14], vec![256, 384]] {
        for bits in [2, 3, 4, 6, 8] {
            for layout in
                [LayoutChoice::Auto, LayoutChoice::Natural, LayoutChoice::CsrJoint(Reshape::Algorithm1)]
            {
                let data = features(&dims, u64::from(bits) * 77);
                let view = TensorView::new(&data, &dims).unwrap();
                let options = EncodeOptions { layout, coder: CoderChoice::Rans, ..EncodeOptions::bits(bits) };
                let mut encoder = Encoder::new(options).unwrap();
                let estimate = encoder.estimate(&view).unwrap().bytes;
                let real = encoder.encode(&view).unwrap().len() as f64;
                let off = (estimate / real - 1.0).abs();
                assert!(off <= 0.01, "{dims:?} at {bits} bits, {layout:?}: {estimate} against {real}");
            }
        }
    }
}

#[test]
fn nan_and_infinity_are_refused_with_their_place_and_kept_by_lossless() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let data = [1.0, 2.0, bad, 4.0];
        let view = TensorView::new(&data, &[4]).unwrap();
        match narrows::encode(&view, 4) {
            Err(narrows::Error::NonFinite { index: 2, .. }) => {}
            other => panic!("{other:?}"),
        }
        let frame = Encoder::new(EncodeOptions::lossless()).unwrap().encode(&view).unwrap();
        assert_eq!(narrows::decode(&frame).unwrap().as_f32().unwrap()[2].to_bits(), bad.to_bits());
    }
}

#[test]
fn empty_tensors_come_back_empty() {
    for dims in [vec![0], vec![3, 0, 5]] {
        let view = TensorView::new::<f32>(&[], &dims).unwrap();
        let tensor = narrows::decode(&narrows::encode(&view, 4).unwrap()).unwrap();
        assert_eq!(tensor.shape().dims(), dims);
    }
}
