//! The ways to send features that are compared.

use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use half::f16;
use narrows::{Affine, CoderChoice, Decoder, EncodeOptions, LayoutChoice, Profile, Tensor, encode_raw};
use serde::{Deserialize, Serialize};

use crate::evaluate::{Codec, Frames};
use crate::failure::{Failure, Result};
use crate::plot::{BLUE, GREEN, GREY, INK, ORANGE, PURPLE, Paint, SKY, VERMILION};

/// A way to send features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Calibrated step and tables, known at both ends
    Profile,
    /// What narrows does by itself: neighbour contexts, tables in the frame
    Contexts,
    /// rANS with one table
    #[serde(rename = "order-0")]
    #[value(name = "order-0")]
    Order0,
    /// tANS with one table
    Tans,
    /// Modified CSR with a joint table, shaped by Algorithm 1: the reference method
    Reference,
    /// A fixed number of bits for each symbol
    Packed,
    /// The symbols as bytes, through zlib
    Zlib,
    /// The symbols as bytes, through Zstandard
    #[cfg(feature = "zstd")]
    Zstd,
    /// The elements as float16
    F16,
    /// The elements as they are
    F32,
}

impl Method {
    pub const ALL: &[Self] = &[
        Self::Profile,
        Self::Contexts,
        Self::Order0,
        Self::Tans,
        Self::Reference,
        Self::Packed,
        Self::Zlib,
        #[cfg(feature = "zstd")]
        Self::Zstd,
        Self::F16,
        Self::F32,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Contexts => "contexts",
            Self::Order0 => "order-0",
            Self::Tans => "tans",
            Self::Reference => "reference",
            Self::Packed => "packed",
            Self::Zlib => "zlib",
            #[cfg(feature = "zstd")]
            Self::Zstd => "zstd",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// For people who have not read the manual.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Profile => "narrows, profile",
            Self::Contexts => "narrows",
            Self::Order0 => "order-0 rANS",
            Self::Tans => "tANS",
            Self::Reference => "reference method",
            Self::Packed => "bit packing",
            Self::Zlib => "zlib",
            #[cfg(feature = "zstd")]
            Self::Zstd => "Zstandard",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    pub const fn color(self) -> Paint {
        match self {
            Self::Profile => GREEN,
            Self::Contexts => BLUE,
            Self::Order0 => SKY,
            Self::Tans => PURPLE,
            Self::Reference => VERMILION,
            Self::Packed | Self::F16 => GREY,
            Self::Zlib => ORANGE,
            #[cfg(feature = "zstd")]
            Self::Zstd => ORANGE,
            Self::F32 => INK,
        }
    }

    /// What else carries the same tensors: those are measured together, and the tail runs once for all.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Profile => Kind::Calibrated,
            Self::F16 => Kind::Half,
            Self::F32 => Kind::Exact,
            _ => Kind::Quantized,
        }
    }

    pub fn codec(self, bits: u8, profile: Option<&Arc<Profile>>) -> Result<Box<dyn Codec>> {
        let natural =
            |coder| EncodeOptions { layout: LayoutChoice::Natural, coder, ..EncodeOptions::bits(bits) };
        let options = match self {
            Self::Profile => profile.map_or_else(EncodeOptions::default, Profile::options),
            Self::Contexts => EncodeOptions::bits(bits),
            Self::Order0 => natural(CoderChoice::Rans),
            Self::Tans => natural(CoderChoice::Tans { state_bits: 12 }),
            Self::Reference => EncodeOptions::reference(bits),
            Self::Packed => natural(CoderChoice::Packed),
            Self::Zlib => return Ok(Box::new(Bytes { bits, compress: zlib, expand: unzlib })),
            #[cfg(feature = "zstd")]
            Self::Zstd => return Ok(Box::new(Bytes { bits, compress: zstd, expand: unzstd })),
            Self::F16 => return Ok(Box::new(Raw { half: true, decoder: Decoder::new() })),
            Self::F32 => return Ok(Box::new(Raw { half: false, decoder: Decoder::new() })),
        };
        Ok(Box::new(Frames::new(options)?))
    }
}

/// What a method does to the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step from calibration samples.
    Calibrated,
    /// AIQ over each tensor's range.
    Quantized,
    /// Rounds to float16.
    Half,
    /// Nothing.
    Exact,
}

impl Kind {
    /// The bit width that stands for methods that have none.
    pub const fn only_bits(self) -> Option<u8> {
        match self {
            Self::Half => Some(16),
            Self::Exact => Some(32),
            Self::Calibrated | Self::Quantized => None,
        }
    }
}

/// RAW frames.
struct Raw {
    half: bool,
    decoder: Decoder,
}

impl Codec for Raw {
    fn encode(&mut self, features: &Tensor, bytes: &mut Vec<u8>) -> Result<()> {
        *bytes = if self.half {
            let halves: Vec<f16> = features.to_f32().into_iter().map(f16::from_f32).collect();
            let tensor = Tensor::new(halves, features.shape().dims());
            encode_raw(&tensor.map_err(|error| Failure::codec("cannot encode the features", &error))?.view())
        } else {
            encode_raw(&features.view())
        };
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], features: &mut Tensor) -> Result<()> {
        let decoded = self.decoder.decode_into(bytes, features);
        decoded.map_err(|error| Failure::codec("cannot decode the features", &error))
    }
}

type Transform = fn(&[u8]) -> std::io::Result<Vec<u8>>;

/// The symbols of AIQ through a general compressor, after 9 bytes: step, zero point and rank, and the shape.
struct Bytes {
    bits: u8,
    compress: Transform,
    expand: Transform,
}

impl Codec for Bytes {
    fn encode(&mut self, features: &Tensor, bytes: &mut Vec<u8>) -> Result<()> {
        let values = features.to_f32();
        let (min, max) =
            values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
        let levels = 1_u16 << self.bits;
        // A constant has no range, as in a frame; any other one will do.
        let affine = Affine::from_range(min, if min < max { max } else { min + 1.0 }, levels);
        let symbols: Vec<u8> = values.iter().map(|&x| affine.quantize(x)).collect();
        bytes.clear();
        bytes.extend(affine.step().to_le_bytes());
        bytes.extend(affine.zero().to_le_bytes());
        bytes.push(features.shape().dims().len() as u8);
        features.shape().dims().iter().for_each(|&length| bytes.extend((length as u32).to_le_bytes()));
        bytes.extend(
            (self.compress)(&symbols).map_err(|error| Failure::data("cannot compress").because(error))?,
        );
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], features: &mut Tensor) -> Result<()> {
        let wrong = || Failure::data("not the symbols of a tensor");
        let (head, rest) = bytes.split_first_chunk::<9>().ok_or_else(wrong)?;
        let step = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let zero = i32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let affine = Affine::new(step, zero, 1 << self.bits).ok_or_else(wrong)?;
        let (dims, rest) = rest.split_at_checked(4 * usize::from(head[8])).ok_or_else(wrong)?;
        let length = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize;
        let dims: Vec<usize> = dims.chunks_exact(4).map(length).collect();
        let symbols = (self.expand)(rest).map_err(|error| wrong().because(error))?;
        let values: Vec<f32> = symbols.iter().map(|&symbol| affine.dequantize(symbol)).collect();
        *features = Tensor::new(values, &dims).map_err(|error| Failure::codec("cannot decode", &error))?;
        Ok(())
    }
}

fn zlib(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn unzlib(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut expanded = Vec::new();
    ZlibDecoder::new(bytes).read_to_end(&mut expanded)?;
    Ok(expanded)
}

#[cfg(feature = "zstd")]
fn zstd(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, 3)
}

#[cfg(feature = "zstd")]
fn unzstd(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::stream::decode_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantising_method_carries_the_same_tensor() {
        let values: Vec<f32> = (0..4 * 8 * 8).map(|i| ((i as f32 * 0.37).sin() * 2.0).max(0.0)).collect();
        let tensor = Tensor::new(values, &[4, 8, 8]).unwrap();
        for bits in [2, 4, 8] {
            let mut first: Option<Vec<u8>> = None;
            for method in Method::ALL.iter().filter(|method| method.kind() == Kind::Quantized) {
                let mut codec = method.codec(bits, None).unwrap();
                let (mut bytes, mut decoded) = (Vec::new(), Tensor::default());
                codec.encode(&tensor, &mut bytes).unwrap();
                codec.decode(&bytes, &mut decoded).unwrap();
                let decoded = decoded.to_le_bytes();
                assert_eq!(first.get_or_insert_with(|| decoded.clone()), &decoded, "{}", method.name());
            }
        }
    }
}
