//! Everything around the entropy coder gives the same bytes and the same values on every path.

mod common;

use std::sync::Arc;

use common::{Random, features};
use half::{bf16, f16};
use narrows::{
    Affine, Calibration, Clip, CoderChoice, Decoder, Element, EncodeOptions, Encoder, Error, LayoutChoice,
    Path, Profile, Profiles, Quantizer, Tensor, TensorView,
};

/// The paths to be compared with the reference.
fn paths() -> impl Iterator<Item = Path> {
    Path::ALL.into_iter().filter(|path| path.is_available() && *path != Path::Reference)
}

fn encoder(options: &EncodeOptions, path: Path) -> Encoder {
    Encoder::new(options.clone()).unwrap().with_path(path)
}

/// Encoders and decoders of all paths, used again and again.
struct Paths {
    all: Vec<(Path, Encoder, Decoder)>,
    reference: (Encoder, Decoder),
    what: String,
}

impl Paths {
    fn new(options: &EncodeOptions) -> Self {
        let mut profiles = Profiles::default();
        options.profile.iter().for_each(|profile| _ = profiles.insert(Arc::clone(profile)));
        let decoder = |path| Decoder::new().with_profiles(profiles.clone()).with_path(path);
        Self {
            all: paths().map(|path| (path, encoder(options, path), decoder(path))).collect(),
            reference: (encoder(options, Path::Reference), decoder(Path::Reference)),
            what: format!("{:?} {:?} {:?}", options.quantizer, options.layout, options.coder),
        }
    }

    fn agree<T: Element>(&mut self, elements: &[T], dims: &[usize]) {
        let view = TensorView::new(elements, dims).unwrap();
        let expected = self.reference.0.encode(&view);
        let tensor = expected.as_ref().ok().map(|frame| self.reference.1.decode(frame).unwrap());
        for (path, encoder, decoder) in &mut self.all {
            let what = || format!("{path:?}: {} of {} {dims:?}", self.what, T::DTYPE);
            let frame = encoder.encode(&view);
            assert_eq!(said(&frame), said(&expected), "{}", what());
            let (Ok(frame), Some(tensor)) = (frame, &tensor) else { continue };
            let decoded = decoder.decode(&frame).unwrap();
            assert!(bits(&decoded) == bits(tensor), "other values on {}", what());
            assert_eq!(decoder.symbols(), self.reference.1.symbols(), "{}", what());
        }
    }

    /// The same of every element type.
    fn agree_in_all_types(&mut self, elements: &[f32], dims: &[usize]) {
        self.agree(elements, dims);
        self.agree(&elements.iter().map(|&x| f16::from_f32(x.clamp(-6e4, 6e4))).collect::<Vec<_>>(), dims);
        self.agree(&elements.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>(), dims);
    }
}

/// A frame or an error, to be compared; NaN equals itself.
fn said(frame: &Result<Vec<u8>, Error>) -> Result<&[u8], String> {
    frame.as_deref().map_err(|error| format!("{error:?}"))
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    use narrows::Elements::{Bf16, F16, F32};
    match tensor.elements() {
        F32(elements) => elements.iter().map(|x| x.to_bits()).collect(),
        F16(elements) => elements.iter().map(|x| u32::from(x.to_bits())).collect(),
        Bf16(elements) => elements.iter().map(|x| u32::from(x.to_bits())).collect(),
    }
}

/// Numbers around zero, of all magnitudes between them.
fn wild(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| match random.bits() % 8 {
            0 => -0.0,
            1 => 0.0,
            2 => f32::from_bits(random.bits() as u32 & 0x807f_ffff),
            3 => (random.unit() - 0.5) * 6e4,
            _ => random.unit() * 4.0 - 1.0,
        })
        .collect()
}

fn quantizers() -> Vec<Quantizer> {
    let mut all: Vec<_> = [1, 2, 4, 5, 6, 7, 8].map(Quantizer::aiq).into();
    all.push(Quantizer::Aiq { bits: 4, clip: Clip::Percentile(95.0) });
    all.push(Quantizer::Aiq { bits: 3, clip: Clip::MseOptimal });
    all.push(Quantizer::PerChannel { bits: 4, clip: Clip::Full });
    // Steps and zero points that a range would not give: far away, tiny, huge, an odd number of levels.
    for (step, zero, levels) in [
        (0.1, 3, 5),
        (0.25, -1, 16),
        (1e-3, 16_384, 256),
        (1e-3, 16_385, 256),
        (1e-3, -1_000_000, 7),
        (1e-30, 1 << 30, 256),
        (1e30, 0, 2),
        (f32::MIN_POSITIVE, 0, 33),
        (3e38, -2, 200),
    ] {
        all.push(Quantizer::Fixed(Affine::new(step, zero, levels).unwrap()));
    }
    all
}

#[test]
fn every_length_and_quantizer_gives_the_same_frame_on_every_path() {
    let mut random = Random::new(1);
    for quantizer in quantizers() {
        for layout in [LayoutChoice::Natural, LayoutChoice::Auto] {
            let options = EncodeOptions { quantizer: quantizer.clone(), layout, ..EncodeOptions::default() };
            let mut paths = Paths::new(&options);
            for length in (0..131).chain([1000, 4095, 4096, 4161, 9000]) {
                paths.agree_in_all_types(&wild(&mut random, length), &[length]);
            }
        }
    }
}

#[test]
fn slices_may_start_anywhere() {
    let elements = wild(&mut Random::new(2), 5000);
    let mut paths = Paths::new(&EncodeOptions::bits(4));
    for start in 0..33 {
        for length in [1, 63, 64, 65, 127, 200, 4100] {
            paths.agree_in_all_types(&elements[start..start + length], &[length]);
            let short: Vec<_> = elements.iter().map(|&x| bf16::from_f32(x)).collect();
            paths.agree(&short[start..start + length], &[length]);
        }
    }
}

#[test]
fn the_first_nan_or_infinity_is_named_wherever_it_is() {
    let mut paths = Paths::new(&EncodeOptions::bits(3));
    for length in [1, 2, 31, 64, 129, 200] {
        let good: Vec<f32> = wild(&mut Random::new(3), length);
        for at in 0..length {
            for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
                let mut elements = good.clone();
                elements[at] = bad;
                elements[(at + 40).min(length - 1)] = bad;
                paths.agree(&elements, &[length]);
                paths.agree(&elements.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>(), &[length]);
                paths.agree(&elements.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>(), &[length]);
            }
        }
    }
}

#[test]
fn the_largest_and_smallest_numbers_quantise_alike() {
    let mut paths: Vec<_> = [1, 4, 8].map(|bits| Paths::new(&EncodeOptions::bits(bits))).into();
    let extremes = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -1e-45, 1e-45, 0.0, -0.0, 65504.0, 1.0, -3e38];
    for paths in &mut paths {
        for first in extremes {
            for second in extremes {
                let elements: Vec<f32> = (0..150).map(|k| if k % 7 == 3 { second } else { first }).collect();
                paths.agree_in_all_types(&elements, &[150]);
            }
        }
        // Far from zero: the zero point is beyond what 16 bits hold, then beyond what is exact.
        for origin in [100.0, 1e4, 1e6, -1e7] {
            let elements: Vec<f32> = (0..300).map(|k| origin + (k % 17) as f32 * 0.37).collect();
            paths.agree_in_all_types(&elements, &[3, 100]);
        }
    }
}

#[test]
fn ties_go_to_even_on_every_path() {
    for (step, zero) in [(1.0, 0), (1.0, 7), (0.5, 8), (2.0, -3)] {
        let quantizer = Quantizer::Fixed(Affine::new(step, zero, 256).unwrap());
        let mut paths = Paths::new(&EncodeOptions { quantizer, ..EncodeOptions::default() });
        let elements: Vec<f32> = (-300..600).map(|k| k as f32 * step * 0.5).collect();
        paths.agree_in_all_types(&elements, &[900]);
    }
}

#[test]
fn planes_of_every_geometry_agree() {
    let mut geometries: Vec<(Vec<usize>, usize)> = Vec::new();
    for width in 1..=40 {
        geometries.push((vec![3, 4, width], 0));
        geometries.push((vec![width, 9, 8], 0));
        geometries.push((vec![5, 6, width], 2));
    }
    for (dims, axis) in [
        (&[2, 33, 5, 7][..], 1),
        (&[70, 7, 7], 0),
        (&[64, 14, 14], 0),
        (&[35, 20, 21], 0),
        (&[31, 48], 1),
        (&[48, 31], 0),
        (&[1, 100, 1], 0),
        (&[6, 64, 1, 1], 1),
        (&[500], 0),
        (&[3, 80, 80], 0),
    ] {
        geometries.push((dims.to_vec(), axis));
    }
    let choices = [
        (2, LayoutChoice::Planes),
        (4, LayoutChoice::Planes),
        (4, LayoutChoice::Auto),
        (8, LayoutChoice::Planes),
    ];
    for (bits, layout) in choices {
        let quantizers = [Quantizer::aiq(bits), Quantizer::PerChannel { bits, clip: Clip::Percentile(99.0) }];
        for quantizer in quantizers {
            for (dims, axis) in &geometries {
                let options = EncodeOptions {
                    quantizer: quantizer.clone(),
                    layout,
                    axis: Some(*axis),
                    coder: CoderChoice::Rans,
                    target: narrows::Target::Latency,
                    ..EncodeOptions::default()
                };
                let seed = dims.iter().sum::<usize>() as u64;
                Paths::new(&options).agree_in_all_types(&features(dims, seed), dims);
            }
        }
    }
}

#[test]
fn profiles_and_lossless_frames_agree() {
    for dims in [&[12, 8, 8][..], &[40, 14, 14], &[31, 48], &[3, 5, 7]] {
        let samples: Vec<Vec<f32>> = (50..54).map(|seed| features(dims, seed)).collect();
        let views: Vec<_> = samples.iter().map(|data| TensorView::new(data, dims).unwrap()).collect();
        for levels in [3, 16, 100] {
            let calibration = Calibration { levels, clip: Clip::Percentile(99.5), axis: None };
            let profile = Arc::new(Profile::calibrate(&views, &calibration).unwrap());
            Paths::new(&profile.options()).agree_in_all_types(&features(dims, 7), dims);
        }
        Paths::new(&EncodeOptions::lossless()).agree_in_all_types(&features(dims, 8), dims);
    }
}
