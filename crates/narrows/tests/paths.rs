//! Every path that the processor has writes the same bytes and reads the same values.
//!
//! What no encoder chooses by itself (chunks cut anywhere, every number of lanes, any frequencies) is tested where the
//! coder is, in `src/rans/differential.rs`.

mod common;

use std::path::PathBuf;

use common::{Random, features, frames, with_checksum};
use half::{bf16, f16};
use narrows::{
    Clip, CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, Path, Planes, Profile, Quantizer,
    Shape, SymbolDecoder, SymbolEncoder, SymbolLayout, Target, TensorView,
};

fn paths() -> impl Iterator<Item = Path> + Clone {
    Path::ALL.into_iter().filter(|path| path.is_available())
}

/// Symbols all alike but for some, as often as not.
fn symbols(random: &mut Random, count: usize, alphabet: usize) -> Vec<u8> {
    let often = [1, 2, 8, 4096][random.bits() as usize % 4];
    let usual = random.bits() as usize % alphabet;
    let symbol = |random: &mut Random| {
        if (random.bits() >> 20).is_multiple_of(often) { random.bits() as usize % alphabet } else { usual }
    };
    (0..count).map(|_| symbol(random) as u8).collect()
}

/// Both ways on every path, and across.
fn check_symbols(symbols: &[u8], layout: &SymbolLayout, target: Target) -> Vec<u8> {
    let mut expected = Vec::new();
    let mut reference = SymbolEncoder::new(target).with_path(Path::Reference);
    reference.encode_into(symbols, layout, &mut expected).unwrap();
    for path in paths() {
        let (mut stream, mut decoded) = (Vec::new(), Vec::new());
        let mut encoder = SymbolEncoder::new(target).with_path(path);
        encoder.encode_into(symbols, layout, &mut stream).unwrap();
        assert!(stream == expected, "{path:?} encodes otherwise: {layout:?}");
        SymbolDecoder::default().with_path(path).decode_into(&expected, layout, &mut decoded).unwrap();
        assert!(decoded == symbols, "{path:?} decodes otherwise: {layout:?}");
    }
    expected
}

const TARGETS: [Target; 3] = [Target::Size, Target::Latency, Target::Speed];

#[test]
fn natural_order_of_any_length_and_alphabet() {
    let mut random = Random::new(1);
    for alphabet in (2..20).chain([31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256]) {
        for base in [0, 100, 1_000, 12_000, 60_000] {
            let count = base + random.bits() as usize % 70;
            let layout = SymbolLayout::natural(count, alphabet as u16).unwrap();
            let target = TARGETS[random.bits() as usize % TARGETS.len()];
            check_symbols(&symbols(&mut random, count, alphabet), &layout, target);
        }
    }
}

#[test]
fn planes_of_any_shape_and_alphabet() {
    let mut random = Random::new(2);
    for alphabet in [2, 3, 5, 8, 9, 16, 17, 32, 33, 64, 100, 256] {
        for dims in [[1, 1, 1], [3, 4, 5], [32, 9, 9], [33, 7, 3], [70, 20, 20], [128, 28, 28], [40, 50, 1]] {
            let planes = Planes::new(&Shape::new(&dims).unwrap(), 0).unwrap();
            let layout = SymbolLayout::planes(planes, alphabet as u16).unwrap();
            let count = dims.iter().product();
            let target = TARGETS[random.bits() as usize % TARGETS.len()];
            check_symbols(&symbols(&mut random, count, alphabet), &layout, target);
        }
    }
}

#[test]
fn speed_takes_tans_only_where_that_costs_little() {
    let mut random = Random::new(4);
    // The lowest bits of the form tell the coder.
    let is_tans = |stream: &[u8]| stream[0] & 3 == 3;
    let mut taken = [0; 2];
    for even in [true, false] {
        for alphabet in [3, 5, 7, 9] {
            let count = 200_000;
            let of = |random: &mut Random| {
                let symbol = random.bits() as usize % alphabet;
                // One symbol in 300 is another than 0: no machine of 64 states has that probability.
                if even || random.bits().is_multiple_of(300) { symbol as u8 } else { 0 }
            };
            let symbols: Vec<u8> = (0..count).map(|_| of(&mut random)).collect();
            let layout = SymbolLayout::natural(count, alphabet as u16).unwrap();
            let fast = check_symbols(&symbols, &layout, Target::Speed);
            let mut rans = Vec::new();
            let encoder = SymbolEncoder::new(Target::Speed).with_coder(CoderChoice::Rans).unwrap();
            { encoder }.encode_into(&symbols, &layout, &mut rans).unwrap();
            // Plans are estimates, to within a percent of so few bytes.
            assert!(fast.len() as f64 <= 1.13 * rans.len() as f64, "{} for {}", fast.len(), rans.len());
            taken[usize::from(even)] += usize::from(is_tans(&fast));
            assert!(!is_tans(&check_symbols(&symbols, &layout, Target::Size)));
        }
    }
    assert_eq!(taken, [0, 4]);
}

#[test]
fn a_sample_that_misleads_costs_time_and_no_bytes() {
    let mut random = Random::new(5);
    let dims = [128, 32, 32];
    let count: usize = dims.iter().product();
    let planes = Planes::new(&Shape::new(&dims).unwrap(), 0).unwrap();
    let natural = |alphabet| SymbolLayout::natural(count, alphabet).unwrap();
    let planes = |alphabet| SymbolLayout::planes(planes, alphabet).unwrap();
    // One step of 64 symbols in 8 is looked at; in planes, the first of which is taken apart, the seventh of each 8.
    for (layout, alphabet, step) in [(natural(256), 256, 0), (planes(16), 16, 6), (planes(200), 200, 6)] {
        let of = |k: usize, random: &mut Random| {
            let symbol = random.bits() as usize % alphabet;
            if k / 64 % 8 == step { symbol % 2 } else { symbol / 2 + alphabet / 4 }
        };
        let symbols: Vec<u8> = (0..count).map(|k| of(k, &mut random) as u8).collect();
        let [small, fast] =
            [Target::Size, Target::Speed].map(|target| check_symbols(&symbols, &layout, target).len());
        assert!(fast as f64 <= 1.02 * small as f64 + 400.0, "{fast} bytes for {small}: {layout:?}");
    }
}

#[test]
fn what_a_sample_does_not_see_is_not_lost() {
    // Of 64 symbols in 6 one step is looked at: all of these are alike, and stand for as many as there are.
    let mut elements = vec![0.0_f32; 6 * 64 * 256];
    for (k, x) in elements[64..128].iter_mut().enumerate() {
        *x = k as f32 / 63.0;
    }
    for bits in [2, 4, 8] {
        for layout in [LayoutChoice::Auto, LayoutChoice::Natural, LayoutChoice::Planes] {
            for quantizer in [Quantizer::aiq(bits), Quantizer::PerChannel { bits, clip: Clip::Full }] {
                let options =
                    EncodeOptions { quantizer, layout, target: Target::Speed, ..EncodeOptions::bits(bits) };
                let view = TensorView::new(&elements, &[6, 128, 128]).unwrap();
                let frame = Encoder::new(options).unwrap().encode(&view).unwrap();
                let decoded = Decoder::new().decode(&frame).unwrap();
                let half_step = 0.5 / f32::from((1_u16 << bits) - 1) + 1e-6;
                for (x, y) in elements.iter().zip(decoded.as_f32().unwrap()) {
                    assert!((x - y).abs() <= half_step, "{x} became {y}: {bits} bits, {layout:?}");
                }
            }
        }
    }
}

#[test]
fn a_sample_takes_few_bytes_more() {
    let mut random = Random::new(6);
    let frequencies = |alphabet: usize| -> Vec<f64> {
        (0..alphabet).map(|s| (-(s as f64) * 12.0 / alphabet as f64).exp()).collect()
    };
    for alphabet in [16, 40, 100, 256] {
        let frequencies = frequencies(alphabet);
        let symbols: Vec<u8> = (0..150_000).map(|_| random.symbol(&frequencies) as u8).collect();
        let planes = Planes::new(&Shape::new(&[150, 40, 25]).unwrap(), 0).unwrap();
        // Where 64 states have room for all symbols, tANS may take 12 % more.
        let of_one_table = if alphabet < 64 { 1.12 } else { 1.025 };
        for (layout, most) in [
            (SymbolLayout::natural(symbols.len(), alphabet as u16).unwrap(), of_one_table),
            (SymbolLayout::planes(planes, alphabet as u16).unwrap(), 1.025),
        ] {
            let [small, fast] =
                [Target::Size, Target::Speed].map(|target| check_symbols(&symbols, &layout, target).len());
            assert!(fast as f64 <= most * small as f64 + 400.0, "{fast} bytes for {small}: {layout:?}");
            let mut rans = Vec::new();
            let encoder = SymbolEncoder::new(Target::Speed).with_coder(CoderChoice::Rans).unwrap();
            { encoder }.encode_into(&symbols, &layout, &mut rans).unwrap();
            let rans = rans.len();
            assert!(
                rans as f64 <= 1.025 * small as f64 + 400.0,
                "rANS, {rans} bytes for {small}: {layout:?}"
            );
        }
    }
}

#[test]
fn damaged_streams_are_told_alike() {
    let mut random = Random::new(3);
    let arrays = [(4, 300), (16, 3_000), (16, 30_000), (60, 20_000), (256, 40_000)];
    for ((alphabet, count), target) in
        arrays.into_iter().flat_map(|array| [(array, Target::Latency), (array, Target::Speed)])
    {
        let layout = SymbolLayout::natural(count, alphabet as u16).unwrap();
        let symbols = symbols(&mut random, count, alphabet);
        let stream = check_symbols(&symbols, &layout, target);
        let mut decoders: Vec<_> = paths().map(|path| SymbolDecoder::default().with_path(path)).collect();
        for _ in 0..60 {
            let mut damaged = stream.clone();
            for _ in 0..=random.bits() % 3 {
                let place = random.bits() as usize % damaged.len();
                damaged[place] = random.bits() as u8;
            }
            damaged.truncate(damaged.len() - (random.bits() % 2) as usize);
            let results: Vec<_> = decoders
                .iter_mut()
                .map(|decoder| {
                    let mut decoded = Vec::new();
                    decoder.decode_into(&damaged, &layout, &mut decoded).map(|()| decoded)
                })
                .collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "alphabet {alphabet}");
        }
    }
}

/// Frames on every path, decoded on every path.
fn check_frames(view: &TensorView<'_>, options: &EncodeOptions) {
    let expected = Encoder::new(options.clone()).unwrap().with_path(Path::Reference).encode(view).unwrap();
    let tensor = Decoder::new().with_path(Path::Reference).decode(&expected).unwrap();
    for path in paths() {
        let frame = Encoder::new(options.clone()).unwrap().with_path(path).encode(view).unwrap();
        assert!(frame == expected, "{path:?} encodes otherwise: {options:?}");
        let decoded = Decoder::new().with_path(path).decode(&expected).unwrap();
        assert_eq!(decoded, tensor, "{path:?} decodes otherwise: {options:?}");
    }
}

#[test]
fn tensors_of_any_shape_and_type() {
    let layouts = [LayoutChoice::Auto, LayoutChoice::Natural, LayoutChoice::Planes];
    for (seed, dims) in [[1, 1, 9], [5, 7, 6], [33, 14, 14], [100, 7, 7], [64, 28, 28]].iter().enumerate() {
        let data = features(dims, seed as u64);
        let halves: Vec<f16> = data.iter().map(|&x| f16::from_f32(x)).collect();
        let brains: Vec<bf16> = data.iter().map(|&x| bf16::from_f32(x)).collect();
        for bits in [1, 2, 3, 4, 5, 6, 8] {
            for layout in layouts {
                let coder = if bits == 3 { CoderChoice::Rans } else { CoderChoice::Auto };
                let options = EncodeOptions { layout, coder, ..EncodeOptions::bits(bits) };
                check_frames(&TensorView::new(&data, dims).unwrap(), &options);
            }
        }
        for options in [EncodeOptions::bits(4), EncodeOptions::lossless()] {
            check_frames(&TensorView::new(&halves, dims).unwrap(), &options);
            check_frames(&TensorView::new(&brains, dims).unwrap(), &options);
        }
    }
}

#[test]
fn frames_of_every_kind_with_and_without_damage() {
    let mut random = Random::new(4);
    for (name, frame, tensor) in frames() {
        let mut decoders: Vec<_> = paths().map(|path| Decoder::new().with_path(path)).collect();
        for decoder in &mut decoders {
            assert_eq!(decoder.decode(&frame).unwrap(), tensor, "{name}");
        }
        for _ in 0..100 {
            let mut damaged = frame.clone();
            let place = 6 + random.bits() as usize % (frame.len() - 10);
            damaged[place] ^= 1 << (random.bits() % 8);
            let damaged = with_checksum(damaged);
            let decode = |decoder: &mut Decoder| {
                // Bytes, since not every number equals itself.
                decoder.decode(&damaged).map(|tensor| (*tensor.shape(), tensor.to_le_bytes()))
            };
            let results: Vec<_> = decoders.iter_mut().map(decode).collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{name}");
        }
    }
}

#[test]
fn golden_frames() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let profile = Profile::from_bytes(&std::fs::read(folder.join("calibrated.nrp")).unwrap()).unwrap();
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    for file in entries.filter(|file| file.extension().is_some_and(|extension| extension == "nrw")) {
        let frame = std::fs::read(&file).unwrap();
        let tensor = std::fs::read(file.with_extension("tensor")).unwrap();
        for path in paths() {
            let mut decoder = Decoder::new().with_path(path);
            decoder.profiles_mut().insert(profile.clone());
            let decoded = decoder.decode(&frame).unwrap();
            assert!(decoded.to_le_bytes() == tensor, "{path:?}: {}", file.display());
        }
    }
}
