//! A part of a tensor is what the whole has there.

mod common;

use narrows::{
    Clip, CoderChoice, Decoder, EncodeOptions, Encoder, Error, LayoutChoice, Quantizer, Reshape, Target,
    Tensor, TensorView,
};
use proptest::prelude::*;

fn options() -> impl Strategy<Value = EncodeOptions> {
    let layouts = vec![
        LayoutChoice::Auto,
        LayoutChoice::Natural,
        LayoutChoice::Planes,
        LayoutChoice::CsrJoint(Reshape::Algorithm1),
    ];
    let quantizers = vec![
        Quantizer::aiq(2),
        Quantizer::aiq(7),
        Quantizer::PerChannel { bits: 4, clip: Clip::Full },
        Quantizer::Lossless,
    ];
    let coders = vec![CoderChoice::Auto, CoderChoice::Packed, CoderChoice::Tans { state_bits: 8 }];
    let targets = vec![Target::Size, Target::Latency];
    (
        prop::sample::select(layouts),
        prop::sample::select(quantizers),
        prop::sample::select(coders),
        prop::sample::select(targets),
    )
        .prop_map(|(layout, quantizer, coder, target)| {
            // tANS and packing are for natural order.
            let layout = if coder == CoderChoice::Auto { layout } else { LayoutChoice::Natural };
            EncodeOptions { layout, quantizer, coder, target, ..EncodeOptions::default() }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn any_range_of_any_frame_is_what_the_whole_has_there(
        options in options(),
        dims in prop::sample::select(vec![vec![70, 30, 31], vec![400, 90], vec![3, 40, 20, 21], vec![30_000], vec![5, 3, 1]]),
        axis_last in any::<bool>(),
        (from, length) in (0.0..=1.0, 0.0..0.3),
        seed in any::<u32>(),
    ) {
        let count: usize = dims.iter().product();
        let mut state = seed;
        let mut value = 0.0;
        let elements: Vec<f32> = (0..count).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            value = 0.8_f32 * value + (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            value.max(0.0)
        }).collect();
        let axis = if axis_last { Some(dims.len() - 1) } else { None };
        let view = TensorView::new(&elements, &dims).unwrap();
        let frame = Encoder::new(EncodeOptions { axis, ..options }).unwrap().encode(&view).unwrap();
        let whole = Decoder::new().decode(&frame).unwrap();
        let start = (count as f64 * from) as usize;
        let end = count.min(start + (count as f64 * length) as usize);
        let mut part = Tensor::default();
        let (decoded, of) = Decoder::new().decode_range_into(&frame, start..end, &mut part).unwrap();
        prop_assert!(decoded <= of);
        prop_assert_eq!(part.shape().dims(), [end - start]);
        prop_assert_eq!(part.as_f32().unwrap(), &whole.as_f32().unwrap()[start..end]);
    }
}

#[test]
fn a_short_range_takes_one_chunk_of_many() {
    let elements: Vec<f32> =
        (0..400_000_u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 16) as f32).powi(4)).collect();
    let view = TensorView::new(&elements, &[64, 6250]).unwrap();
    for layout in [LayoutChoice::Natural, LayoutChoice::Planes] {
        let frame =
            Encoder::new(EncodeOptions { layout, ..EncodeOptions::bits(6) }).unwrap().encode(&view).unwrap();
        let mut part = Tensor::default();
        let (decoded, of) = Decoder::new().decode_range_into(&frame, 77_777..77_780, &mut part).unwrap();
        assert!(decoded <= 2 && of >= 8, "{decoded} of {of} in {layout:?}");
    }
}

/// A range that starts and ends in the same channel, channels last, holds elements of all channels.
#[test]
fn a_range_from_one_channel_to_the_same_later_holds_the_others_too() {
    let elements: Vec<f32> = (0..65_100_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as f32).collect();
    let view = TensorView::new(&elements, &[70, 30, 31]).unwrap();
    let options = EncodeOptions {
        layout: LayoutChoice::Planes,
        axis: Some(2),
        target: Target::Latency,
        ..EncodeOptions::bits(8)
    };
    let frame = Encoder::new(options).unwrap().encode(&view).unwrap();
    let whole = Decoder::new().decode(&frame).unwrap();
    for channel in 0..31 {
        let (start, end) = (channel, 31 * 523 + channel + 1);
        let mut part = Tensor::default();
        Decoder::new().decode_range_into(&frame, start..end, &mut part).unwrap();
        assert_eq!(part.as_f32().unwrap(), &whole.as_f32().unwrap()[start..end], "channel {channel}");
    }
}

#[test]
fn a_range_beyond_the_tensor_and_a_damaged_frame_are_errors() {
    let view = TensorView::new(&[1.0_f32, 2.0, 3.0], &[3]).unwrap();
    let mut frame = Encoder::new(EncodeOptions::default()).unwrap().encode(&view).unwrap();
    let mut part = Tensor::default();
    #[allow(clippy::reversed_empty_ranges, reason = "what a caller may get wrong")]
    for range in [0..4, 2..1, usize::MAX..usize::MAX] {
        let error = Decoder::new().decode_range_into(&frame, range, &mut part).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    *frame.last_mut().unwrap() ^= 1;
    let error = Decoder::new().decode_range_into(&frame, 0..1, &mut part).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
}
