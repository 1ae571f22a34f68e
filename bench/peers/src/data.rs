//! The arrays: real features, real weights, and Laplacian symbols.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use narrows::{
    CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, Planes, Shape, Tensor, TensorView,
};

/// Symbols of one array.
pub struct Data {
    /// What the rows call it.
    pub name: String,
    /// Kinds of symbols.
    pub alphabet: u16,
    /// The symbols.
    pub symbols: Rc<[u8]>,
    /// How they lie, if they are planes.
    pub planes: Option<Planes>,
}

/// The features of some images at one cut.
pub struct Features {
    /// The cut's name.
    pub cut: String,
    /// Images, channels, height, width.
    pub dims: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// What is read from `bench/out/features`, which the example `features` of narrows-split writes.
#[derive(Default)]
pub struct Real {
    /// Of the demo network.
    pub features: Vec<Features>,
    /// Its weights, tensor by tensor.
    pub weights: Vec<Vec<f32>>,
}

impl Real {
    /// Everything in `folder`; nothing, if it is not there.
    pub fn read(folder: &Path) -> Self {
        let mut real = Self::default();
        let Ok(files) = fs::read_dir(folder) else { return real };
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "f32")) {
            let bytes = fs::read(path).expect("a file just listed");
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let (what, dims) = name.rsplit_once('-').expect("name-dims.f32");
            if what.starts_with("weights") {
                real.weights.push(values);
            } else {
                let dims = dims.split('x').map(|length| length.parse().expect("a length")).collect();
                real.features.push(Features { cut: what.into(), dims, values });
            }
        }
        real
    }
}

/// Which arrays to make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A few small ones.
    Quick,
    /// All.
    Full,
}

const SMALL: usize = 2_048;
const MIDDLE: usize = 100_000;
/// The large arrays; only what promises are about is measured on these.
pub const LARGE: usize = 1 << 24;

/// The arrays of a run, small ones first.
pub fn all(real: &Real, scope: Scope) -> Vec<Data> {
    let full = scope == Scope::Full;
    let mut all = Vec::new();
    let lengths: &[usize] = if full { &[SMALL, MIDDLE, LARGE] } else { &[SMALL, MIDDLE] };
    for &length in lengths {
        let bits: &[u8] = match length {
            MIDDLE if full => &[2, 3, 4, 8],
            _ => &[4],
        };
        for features in &real.features {
            let all_cuts = full && length == MIDDLE;
            // The smallest tensors there are for the small array, the largest for the others.
            let cut = if length == SMALL { "layer3" } else { "layer1" };
            if !all_cuts && features.cut != cut {
                continue;
            }
            let bits = if features.cut == "layer2" { &[4] } else { bits };
            all.extend(bits.iter().filter_map(|&bits| features.symbols(bits, length)));
        }
        if length < LARGE {
            let bins: &[u16] = if full { &[3, 7, 15] } else { &[7] };
            all.extend(bins.iter().filter_map(|&bins| weights(&real.weights, bins, length)));
        }
        let alphabets: &[u16] = if full && length < LARGE { &[4, 16, 64, 256] } else { &[16, 256] };
        all.extend(alphabets.iter().map(|&alphabet| laplacian(alphabet, length)));
    }
    all
}

impl Features {
    /// About `length` symbols at `bits` bits: whole images, each quantised over its own range, or some planes of
    /// the first.
    fn symbols(&self, bits: u8, length: usize) -> Option<Data> {
        let &[images, channels, height, width] = self.dims.as_slice() else { return None };
        let plane = height * width;
        let [images, channels] = if length < channels * plane {
            [1, length.div_ceil(plane)]
        } else {
            let wanted = length.div_ceil(channels * plane);
            if wanted > images {
                return None;
            }
            [wanted, channels]
        };
        let each = self.values.chunks_exact(self.dims[1] * plane).take(images);
        let symbols: Rc<[u8]> = each
            .flat_map(|image| quantize(&image[..channels * plane], &[channels, height, width], bits))
            .collect();
        let shape = Shape::new(&[images, channels, height, width]).ok()?;
        Some(Data {
            name: format!("features {} Q{bits}", self.cut),
            alphabet: 1 << bits,
            symbols,
            planes: Planes::new(&shape, 1).ok(),
        })
    }
}

/// The symbols that narrows makes of a tensor.
fn quantize(values: &[f32], dims: &[usize], bits: u8) -> Vec<u8> {
    let options = EncodeOptions {
        layout: LayoutChoice::Natural,
        coder: CoderChoice::Packed,
        ..EncodeOptions::bits(bits)
    };
    let view = TensorView::new(values, dims).expect("dims that fit");
    let frame = Encoder::new(options).and_then(|mut encoder| encoder.encode(&view)).expect("finite values");
    let mut decoder = Decoder::new();
    decoder.decode_into(&frame, &mut Tensor::default()).expect("a frame");
    decoder.symbols().to_vec()
}

/// Weights at an odd number of bins, the middle one at zero, the outer ones 2.5 standard deviations of their
/// tensor away.
fn weights(tensors: &[Vec<f32>], bins: u16, length: usize) -> Option<Data> {
    let half = f32::from(bins / 2);
    let of_tensor = |tensor: &Vec<f32>| {
        let mean_square = tensor.iter().map(|w| w * w).sum::<f32>() / tensor.len() as f32;
        let step = 2.5 * mean_square.sqrt() / half;
        tensor.iter().map(|w| ((w / step).round().clamp(-half, half) + half) as u8).collect::<Vec<_>>()
    };
    // The last tensors are the large ones, and such are what one compresses.
    let symbols: Rc<[u8]> = tensors.iter().rev().flat_map(of_tensor).take(length).collect();
    let enough = symbols.len() == length;
    enough.then(|| Data { name: format!("weights {bins} bins"), alphabet: bins, symbols, planes: None })
}

/// Independent symbols, Laplacian around the middle of the alphabet.
fn laplacian(alphabet: u16, length: usize) -> Data {
    let mut random = Random(u64::from(alphabet));
    let (middle, scale) = (f64::from(alphabet) / 2.0, f64::from(alphabet) / 10.0);
    let symbols = (0..length).map(|_| {
        let uniform = random.unit() - 0.5;
        let value = middle - scale * uniform.signum() * (1.0 - 2.0 * uniform.abs()).ln();
        value.clamp(0.0, f64::from(alphabet - 1)) as u8
    });
    Data { name: format!("laplace {alphabet}"), alphabet, symbols: symbols.collect(), planes: None }
}

/// `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    /// A value in (0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON / 4.0
    }
}

/// Shannon's order-0 entropy of the symbols, in bytes.
pub fn entropy_bytes(symbols: &[u8]) -> f64 {
    let mut counts = [0_u64; 256];
    symbols.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
    let total = symbols.len() as f64;
    let bits = |n: u64| n as f64 * (total / n as f64).log2();
    counts.iter().filter(|&&n| n > 0).map(|&n| bits(n)).sum::<f64>() / 8.0
}
