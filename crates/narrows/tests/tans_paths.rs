//! tANS on every path: the frames of the reference, and the same verdict on any bytes.
//!
//! Lane counts and chunks follow from the size of a payload, so these tests reach them by sizes; the unit tests in
//! `src/tans` set them directly.

mod common;

use common::{Random, with_checksum};
use narrows::{
    Affine, Coder, CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, Limits, Path, Quantizer,
    Target, TensorView, inspect,
};

fn paths() -> impl Iterator<Item = Path> {
    Path::ALL.into_iter().filter(|&path| path != Path::Reference && path.is_available())
}

fn options(alphabet: usize, state_bits: u32, target: Target) -> EncodeOptions {
    EncodeOptions {
        // Values are symbols.
        quantizer: Quantizer::Fixed(Affine::new(1.0, 0, alphabet as u16).unwrap()),
        layout: LayoutChoice::Natural,
        coder: CoderChoice::Tans { state_bits },
        target,
        ..EncodeOptions::default()
    }
}

fn encoded(path: Path, values: &[f32], options: &EncodeOptions) -> Vec<u8> {
    let view = TensorView::new(values, &[values.len()]).unwrap();
    Encoder::new(options.clone()).unwrap().with_path(path).encode(&view).unwrap()
}

/// The reference's frame, which every path must write, and read back.
fn checked(values: &[f32], options: &EncodeOptions) -> Vec<u8> {
    let frame = encoded(Path::Reference, values, options);
    for path in paths() {
        let name = || format!("{path:?}, {} values, {:?}", values.len(), options.coder);
        assert!(encoded(path, values, options) == frame, "{}", name());
        let tensor = Decoder::new().with_path(path).decode(&frame).unwrap();
        assert!(tensor.as_f32().unwrap() == values, "{}", name());
    }
    frame
}

fn drawn(count: usize, frequencies: &[f64], random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| random.symbol(frequencies) as f32).collect()
}

/// Frequencies of `alphabet` symbols that fall off by `decay` from each to the next.
fn falling(alphabet: usize, decay: f64) -> Vec<f64> {
    (0..alphabet).map(|s| (-decay * s as f64).exp()).collect()
}

/// Lanes and chunks of the stream of `frame`.
fn arrangement(frame: &[u8]) -> (usize, usize) {
    let inspection = inspect(frame, Decoder::new().profiles_mut(), &Limits::default()).unwrap();
    let stream = &inspection.streams[0];
    assert!(matches!(stream.coder, Coder::Tans { .. }), "{:?}", stream.coder);
    (stream.lanes, stream.chunks)
}

#[test]
fn every_alphabet_and_number_of_states_gives_the_frame_of_the_reference() {
    let mut random = Random::new(1);
    for alphabet in (2..=16).chain([31, 63, 64, 65, 100, 255, 256]) {
        for state_bits in 6..=12 {
            for decay in [0.0, 0.3, 2.0] {
                let count = 500 + random.bits() as usize % 3_000;
                let values = drawn(count, &falling(alphabet, decay), &mut random);
                checked(&values, &options(alphabet, state_bits, Target::Latency));
            }
        }
    }
}

#[test]
fn every_lane_count_with_any_tail_gives_the_frame_of_the_reference() {
    let mut random = Random::new(2);
    let mut seen = [false; 7];
    for target in [Target::Size, Target::Latency] {
        for count in [60, 300, 1_500, 6_000, 12_000, 30_000, 60_000, 120_000] {
            for _ in 0..4 {
                let count = count + random.bits() as usize % 130;
                let values = drawn(count, &falling(5, 1.0), &mut random);
                let state_bits = 6 + random.bits() as u32 % 4;
                let frame = checked(&values, &options(5, state_bits, target));
                seen[arrangement(&frame).0.ilog2() as usize] = true;
            }
        }
    }
    assert_eq!(seen, [true; 7]);
}

#[test]
fn chunks_give_the_frame_of_the_reference() {
    let mut random = Random::new(3);
    let mut most = 0;
    for (count, alphabet, state_bits) in
        [(150_000, 16, 6), (230_001, 16, 7), (310_077, 16, 8), (400_063, 256, 10), (1_000_000, 4, 6)]
    {
        let values = drawn(count, &falling(alphabet, 0.01), &mut random);
        let frame = checked(&values, &options(alphabet, state_bits, Target::Latency));
        most = most.max(arrangement(&frame).1);
    }
    assert!(most > 8, "{most} chunks");
}

#[test]
fn one_odd_symbol_among_equal_ones_gives_the_frame_of_the_reference() {
    for count in [2, 63, 64, 65, 5_000, 100_000] {
        for state_bits in 6..=12 {
            for place in [0, count / 2, count - 1] {
                let mut values = vec![2.0; count];
                values[place] = 0.0;
                checked(&values, &options(3, state_bits, Target::Latency));
            }
        }
    }
}

#[test]
fn a_rare_symbol_that_takes_every_bit_gives_the_frame_of_the_reference() {
    // Long runs of symbols that a state spends all its bits on: rows of up to 64 bits and more a stream.
    let mut random = Random::new(4);
    for state_bits in 6..=12 {
        let mut values = drawn(80_000, &[0.95, 0.05], &mut random);
        for _ in 0..20 {
            let at = random.bits() as usize % (values.len() - 40);
            values[at..at + 40].fill(2.0);
        }
        checked(&values, &options(3, state_bits, Target::Latency));
    }
}

#[test]
fn changed_frames_get_the_verdict_of_the_reference() {
    let mut random = Random::new(5);
    for (count, alphabet, decay) in [(700, 3, 1.0), (9_000, 5, 2.0), (40_000, 15, 0.5), (90_000, 7, 1.5)] {
        for state_bits in [6, 7, 8, 10] {
            let values = drawn(count, &falling(alphabet, decay), &mut random);
            let frame = checked(&values, &options(alphabet, state_bits, Target::Latency));
            for _ in 0..60 {
                let mut changed = frame.clone();
                let at = 12 + random.bits() as usize % (frame.len() - 16);
                match random.bits() % 3 {
                    0 => changed[at] ^= 1 << (random.bits() % 8),
                    1 => changed[at..].iter_mut().take(16).for_each(|byte| *byte = random.bits() as u8),
                    _ => changed[at] = 0xff,
                }
                let changed = with_checksum(changed);
                let verdict = |path| {
                    let mut decoder =
                        Decoder::new().with_path(path).with_limits(Limits { max_elements: 200_000 });
                    decoder.decode(&changed)
                };
                let expected = verdict(Path::Reference);
                for path in paths() {
                    assert!(verdict(path) == expected, "{path:?} {count} {alphabet} {state_bits}");
                }
            }
        }
    }
}
