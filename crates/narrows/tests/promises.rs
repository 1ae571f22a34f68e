//! How close frames come to entropy, in bytes.

mod common;

use std::sync::Arc;

use common::{Random, count, entropy_bits, features};
use narrows::{
    Calibration, Clip, CoderChoice, EncodeOptions, Encoder, LayoutChoice, Limits, Profile, Profiles,
    Quantizer, TensorView, inspect,
};

/// Independent symbols as values: symbol `s` is the value `s`, and both ends of the alphabet occur.
fn independent(frequencies: &[f64], length: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut data: Vec<f32> = (0..length).map(|_| random.symbol(frequencies) as f32).collect();
    data[0] = 0.0;
    data[1] = (frequencies.len() - 1) as f32;
    data
}

fn entropy_of(data: &[f32]) -> f64 {
    entropy_bits(&count(data.iter().map(|&x| x as usize), 256))
}

/// Frequencies of a two-sided geometric distribution over an alphabet.
fn geometric(alphabet: usize, decay: f64) -> Vec<f64> {
    (0..alphabet).map(|s| decay.powi(s as i32)).collect()
}

/// The decay whose geometric distribution over `alphabet` symbols has an entropy of `bits`.
fn decay_for(alphabet: usize, bits: f64) -> f64 {
    let (mut low, mut high) = (1e-6, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        let f = geometric(alphabet, middle);
        let total: f64 = f.iter().sum();
        let entropy: f64 = f.iter().filter(|&&p| p > 0.0).map(|p| p / total * (total / p).log2()).sum();
        if entropy < bits { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[test]
fn the_rans_payload_is_within_half_a_percent_of_the_entropy_at_100_000_symbols() {
    for bits in [2_u8, 3, 4, 6, 8] {
        let alphabet = 1_usize << bits;
        for share in [0.25, 0.5, 0.8] {
            let frequencies = geometric(alphabet, decay_for(alphabet, share * f64::from(bits)));
            let data = independent(&frequencies, 100_000, u64::from(bits));
            let view = TensorView::new(&data, &[100_000]).unwrap();
            let options = EncodeOptions { coder: CoderChoice::Rans, ..EncodeOptions::bits(bits) };
            let frame = Encoder::new(options).unwrap().encode(&view).unwrap();
            let inspection = inspect(&frame, &Profiles::default(), &Limits::default()).unwrap();
            let parts = inspection.streams[0].bytes;
            let entropy_bytes = entropy_of(&data) / 8.0;
            // Of a lane's first state 2 bytes are overhead by construction; lanes are a choice of
            // speed, counted in the whole frame below.
            let lanes = inspection.streams[0].lanes * inspection.streams[0].chunks;
            let payload = (parts.states + parts.symbols - 3 * lanes) as f64;
            assert!(
                payload <= entropy_bytes * 1.005,
                "{bits} bits: payload {payload} against entropy {entropy_bytes}"
            );
            let whole = frame.len() as f64 / entropy_bytes;
            assert!(whole <= 1.015, "{bits} bits at {share}: the whole frame is {whole} of the entropy");
        }
    }
}

#[test]
fn a_frame_of_2_000_elements_at_1_bit_costs_80_bytes_above_entropy_and_40_with_a_profile() {
    for bits in [2_u8, 3, 4] {
        let alphabet = 1_usize << bits;
        let frequencies = geometric(alphabet, decay_for(alphabet, 1.0));
        let sample = |seed| independent(&frequencies, 2_000, seed);
        let samples: Vec<Vec<f32>> = (100..200).map(sample).collect();
        for dims in [vec![2000], vec![20, 100], vec![8, 10, 25]] {
            let views: Vec<_> = samples.iter().map(|data| TensorView::new(data, &dims).unwrap()).collect();
            let levels = alphabet as u16;
            let calibration = Calibration { levels, clip: Clip::Full, axis: None };
            let profile = Arc::new(Profile::calibrate(&views, &calibration).unwrap());
            let mut inline = Encoder::new(EncodeOptions::bits(bits)).unwrap();
            let mut with_profile = Encoder::new(profile.options()).unwrap();
            for seed in 0..20 {
                let data = sample(seed);
                let view = TensorView::new(&data, &dims).unwrap();
                let entropy = entropy_of(&data) / 8.0;
                let above = inline.encode(&view).unwrap().len() as f64 - entropy;
                assert!(above <= 80.0, "{dims:?} at {bits} bits: {above:.1} bytes above entropy");
                let above = with_profile.encode(&view).unwrap().len() as f64 - entropy;
                assert!(
                    above <= 40.0,
                    "{dims:?} at {bits} bits: {above:.1} bytes above entropy with a profile"
                );
            }
        }
    }
}

#[test]
fn the_automatic_layout_is_never_larger_than_order_0() {
    for (seed, dims) in
        [vec![32, 28, 28], vec![128, 7, 7], vec![200, 64], vec![16, 3, 3], vec![5, 2, 2]].iter().enumerate()
    {
        for bits in 1..=8 {
            let data = features(dims, seed as u64);
            let view = TensorView::new(&data, dims).unwrap();
            let size = |layout, coder| {
                let options = EncodeOptions { layout, coder, ..EncodeOptions::bits(bits) };
                Encoder::new(options).unwrap().encode(&view).unwrap().len() as f64
            };
            let auto = size(LayoutChoice::Auto, CoderChoice::Auto);
            let order_0 = size(LayoutChoice::Natural, CoderChoice::Rans);
            // Lanes end where they end: a byte or two either way.
            assert!(auto <= order_0 * 1.005 + 2.0, "{dims:?} at {bits} bits: {auto} against {order_0}");
        }
    }
}

#[test]
fn incompressible_data_grows_by_the_header_alone() {
    let mut random = Random::new(3);
    let data: Vec<f32> =
        (0..4096).map(|_| f32::from_bits((random.bits() >> 32) as u32 & 0x7f7f_ffff)).collect();
    let view = TensorView::new(&data, &[4096]).unwrap();
    let frame = Encoder::new(EncodeOptions::lossless()).unwrap().encode(&view).unwrap();
    assert!(frame.len() <= view.bytes() + 12, "{} bytes", frame.len());
    let uniform: Vec<f32> = (0..4096).map(|_| (random.bits() % 256) as f32).collect();
    let view = TensorView::new(&uniform, &[4096]).unwrap();
    let frame = Encoder::new(EncodeOptions::bits(8)).unwrap().encode(&view).unwrap();
    assert!(frame.len() <= 4096 + 20, "{} bytes for 4,096 uniform bytes", frame.len());
}

#[test]
fn lossless_frames_of_features_are_smaller_than_raw() {
    let data = features(&[64, 14, 14], 8);
    let view = TensorView::new(&data, &[64, 14, 14]).unwrap();
    let options = EncodeOptions { quantizer: Quantizer::Lossless, ..EncodeOptions::default() };
    let frame = Encoder::new(options).unwrap().encode(&view).unwrap();
    assert!(frame.len() * 10 < view.bytes() * 7, "{} of {}", frame.len(), view.bytes());
}
