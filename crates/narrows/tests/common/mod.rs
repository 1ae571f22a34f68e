//! Tensors for tests, the same on every machine.
#![allow(dead_code)]

use half::f16;
use narrows::{
    Clip, CoderChoice, EncodeOptions, Encoder, LayoutChoice, Quantizer, Reshape, Tensor, TensorView,
};

/// A small deterministic generator (xorshift64*), so that golden files never depend on a crate's version.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in 0..1, a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// A symbol with these relative frequencies.
    pub fn symbol(&mut self, frequencies: &[f64]) -> usize {
        let total: f64 = frequencies.iter().sum();
        let mut place = self.bits() as f64 / u64::MAX as f64 * total;
        for (symbol, f) in frequencies.iter().enumerate() {
            place -= f;
            if place < 0.0 {
                return symbol;
            }
        }
        frequencies.len() - 1
    }
}

/// Features such as a ReLU leaves: smooth along lines, half of them zero.
pub fn features(dims: &[usize], seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let width = dims[dims.len() - 1].max(1);
    let mut level = 0.0_f32;
    (0..dims.iter().product())
        .map(|i| {
            let fresh = random.unit();
            level = if i % width == 0 { fresh - 0.6 } else { 0.8 * level + 0.5 * (fresh - 0.5) };
            level.max(0.0)
        })
        .collect()
}

/// Shannon's entropy of what the counts count, in bits.
pub fn entropy_bits(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let bits = |&n: &u64| n as f64 * (total as f64 / n as f64).log2();
    counts.iter().filter(|&&n| n > 0).map(bits).sum()
}

/// Counts of symbols.
pub fn count(symbols: impl IntoIterator<Item = usize>, alphabet: usize) -> Vec<u64> {
    let mut counts = vec![0; alphabet];
    symbols.into_iter().for_each(|symbol| counts[symbol] += 1);
    counts
}

/// A small frame of every kind.
pub fn frames() -> Vec<(String, Vec<u8>, Tensor)> {
    let dims = [6, 5, 7];
    let data = features(&dims, 4);
    let view = TensorView::new(&data, &dims).unwrap();
    let halves: Vec<f16> = data.iter().map(|&x| f16::from_f32(x)).collect();
    let halves = TensorView::new(&halves, &dims).unwrap();
    let per_channel = Quantizer::PerChannel { bits: 3, clip: Clip::Full };
    let all = [
        ("planes", EncodeOptions { layout: LayoutChoice::Planes, ..EncodeOptions::bits(3) }),
        (
            "natural",
            EncodeOptions {
                layout: LayoutChoice::Natural,
                coder: CoderChoice::Rans,
                ..EncodeOptions::bits(4)
            },
        ),
        ("packed", EncodeOptions { coder: CoderChoice::Packed, ..EncodeOptions::bits(5) }),
        ("tans", EncodeOptions { coder: CoderChoice::Tans { state_bits: 7 }, ..EncodeOptions::bits(2) }),
        ("csr", EncodeOptions::reference(3)),
        (
            "csr-separate",
            EncodeOptions {
                layout: LayoutChoice::CsrSeparate(Reshape::EveryDivisor),
                ..EncodeOptions::bits(3)
            },
        ),
        ("per-channel", EncodeOptions { quantizer: per_channel, ..EncodeOptions::default() }),
        ("lossless", EncodeOptions::lossless()),
    ];
    let mut frames = Vec::new();
    for (name, options) in all {
        for (dtype, view) in [("f32", view), ("f16", halves)] {
            let frame = Encoder::new(options.clone()).unwrap().encode(&view).unwrap();
            let tensor = narrows::decode(&frame).unwrap();
            frames.push((format!("{name} {dtype}"), frame, tensor));
        }
    }
    let constant = [0.5_f32; 40];
    let frame = narrows::encode(&TensorView::new(&constant, &[8, 5]).unwrap(), 4).unwrap();
    frames.push(("constant".into(), frame.clone(), narrows::decode(&frame).unwrap()));
    frames
}

/// The frame with its checksum made to match again, as a malicious writer would.
pub fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let end = frame.len() - 4;
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &frame[..end]) as u32;
    frame[end..].copy_from_slice(&checksum.to_le_bytes());
    frame
}
