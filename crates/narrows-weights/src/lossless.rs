//! Every bit of a float tensor: a frame of the codec, or several frames of parts of it (`docs/format.md`, section 14).
//!
//! A large tensor is split into parts of whole rows, each with tables of its own: rows differ (embeddings of rare
//! words have fewer bits than others), and memory holds one part at a time.

use narrows::machine::checksum;
use narrows::{Decoder, Dtype, EncodeOptions, Encoder, LayoutChoice, Target, Tensor};

use crate::error::{Error, Result};
use crate::file::Plain;
use crate::frame::{Fields, put_varint, seal};

/// What tensors in parts begin with.
const MAGIC: [u8; 3] = *b"NRP";
const VERSION: u8 = 1;
/// Elements of a part, about: its tables cost 0.1 %, and its exponents are of a size for which the codec makes four chunks, as
/// many as a core decodes at once (of 2^18 it makes eight).
const PART: usize = 3 << 16;

/// Elements up to which a tensor's exponents get more lanes: one in a hundred of their bytes pays for too few to keep a core busy.
/// It costs 0.05 % of a small network in float32.
const SMALL: usize = 1 << 17;

/// Elements from which on a table of exponents is worth its bytes and the time it takes.
const LEAST: usize = 256;

/// Encodes tensors.
pub(crate) struct LosslessEncoder {
    encoder: Encoder,
    encoder_of_small: Encoder,
    frame: Vec<u8>,
}

impl LosslessEncoder {
    pub(crate) fn new() -> Result<Self> {
        // What is left of and above a weight tells nothing of its exponent: contexts would save no byte, and take
        // three times as long to decode.
        let options =
            |target| EncodeOptions { layout: LayoutChoice::Natural, target, ..EncodeOptions::lossless() };
        let encoder = Encoder::new(options(Target::Size))?;
        Ok(Self { encoder, encoder_of_small: Encoder::new(options(Target::Latency))?, frame: Vec::new() })
    }

    /// A tensor as bytes, or `None` for one that the codec does not take or that is too small.
    pub(crate) fn encode(&mut self, tensor: &Plain) -> Result<Option<Vec<u8>>> {
        let rank = 1..=narrows::MAX_RANK;
        if tensor.elements() < LEAST || !rank.contains(&tensor.shape.len()) || tensor.float().is_none() {
            return Ok(None);
        }
        let (rows, width) = (tensor.shape[0], tensor.elements() / tensor.shape[0]);
        let part_rows = (PART / width).max(1);
        if rows < 2 * part_rows {
            return Ok(self.frame_of(tensor)?.map(<[u8]>::to_vec));
        }
        let row_bytes = tensor.data.len() / rows;
        let (mut out, mut frames) = (Vec::new(), Vec::new());
        out.extend(MAGIC);
        out.push(VERSION);
        put_varint(&mut out, rows.div_ceil(part_rows) as u64);
        for start in (0..rows).step_by(part_rows) {
            let end = (start + part_rows).min(rows);
            let mut shape = tensor.shape.clone();
            shape[0] = end - start;
            let data = tensor.data.part(start * row_bytes..end * row_bytes);
            let Some(frame) = self.frame_of(&Plain { dtype: tensor.dtype, shape, data })? else {
                return Ok(None);
            };
            put_varint(&mut out, frame.len() as u64);
            frames.extend_from_slice(frame);
        }
        seal(&mut out);
        out.append(&mut frames);
        Ok(Some(out))
    }

    fn frame_of(&mut self, tensor: &Plain) -> Result<Option<&[u8]>> {
        let Some(floats) = tensor.tensor()? else { return Ok(None) };
        let encoder = if tensor.elements() <= SMALL { &mut self.encoder_of_small } else { &mut self.encoder };
        self.frame = encoder.encode(&floats.view())?;
        Ok(Some(&self.frame))
    }
}

/// Whether these are the bytes of a tensor without loss.
pub(crate) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(&narrows::MAGIC) || bytes.starts_with(&MAGIC)
}

/// Its element type and axes.
pub(crate) fn described(bytes: &[u8]) -> Result<(Dtype, Vec<usize>)> {
    let mut found: Option<(Dtype, Vec<usize>)> = None;
    for frame in frames(bytes)? {
        let header = narrows::peek(frame)?;
        let own = (header.dtype, header.shape.dims().to_vec());
        match &mut found {
            None => found = Some(own),
            Some((dtype, dims)) if *dtype == own.0 && dims[1..] == own.1[1..] => {
                dims[0] = dims[0].saturating_add(own.1[0]);
            }
            Some(_) => return Err(Error::container("its parts are of different shapes")),
        }
    }
    found.ok_or_else(|| Error::container("it has no parts"))
}

/// Decodes tensors; keeps its buffers.
#[derive(Default)]
pub(crate) struct LosslessDecoder {
    decoder: Decoder,
    part: Tensor,
}

impl LosslessDecoder {
    /// Decode a tensor part by part.
    pub(crate) fn decode(&mut self, bytes: &[u8], mut each: impl FnMut(&Tensor) -> Result<()>) -> Result<()> {
        described(bytes)?;
        for frame in frames(bytes)? {
            self.decoder.decode_into(frame, &mut self.part)?;
            each(&self.part)?;
        }
        Ok(())
    }
}

/// The frames of a tensor: one, or its parts.
fn frames(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    if bytes.starts_with(&narrows::MAGIC) {
        return Ok(vec![bytes]);
    }
    let mut fields = Fields { bytes, offset: 0 };
    let found = fields.array("magic")?;
    if found != MAGIC {
        return Err(Error::BadMagic { found });
    }
    let version = fields.byte("version")?;
    if version != VERSION {
        return Err(Error::UnsupportedVersion { found: version.into(), supported: VERSION.into() });
    }
    // A part takes a byte at least.
    let count = fields.varint("number of parts", bytes.len() as u64)?;
    let lengths: Vec<usize> = (0..count)
        .map(|_| Ok(fields.varint("length of a part", bytes.len() as u64)? as usize))
        .collect::<Result<_>>()?;
    let computed = checksum(&bytes[..fields.offset]);
    let stored = u32::from_le_bytes(fields.array("checksum")?);
    if stored != computed {
        return Err(Error::Checksum { what: "list of parts", stored, computed });
    }
    let frames = lengths.into_iter().map(|length| fields.take("part", length)).collect::<Result<_>>()?;
    match fields.bytes.len() - fields.offset {
        0 => Ok(frames),
        value => {
            let (what, value) = ("bytes after the last part", value as u64);
            Err(Error::InvalidHeader { what, value, bound: 0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::Dtype as Stored;

    fn tensor(rows: usize, columns: usize) -> Plain {
        let value = |i: usize| ((i as f32 * 0.37).sin() * 0.02).to_le_bytes();
        let data: Vec<u8> = (0..rows * columns).flat_map(value).collect();
        Plain { dtype: Stored::F32, shape: vec![rows, columns], data: data.into() }
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        LosslessDecoder::default().decode(bytes, |part| {
            all.extend_from_slice(&part.le_bytes());
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn large_tensors_come_back_from_parts() {
        for (rows, columns, in_parts) in [(3, 100, false), (2000, 300, true), (3, 1 << 18, true)] {
            let tensor = tensor(rows, columns);
            let bytes = LosslessEncoder::new().unwrap().encode(&tensor).unwrap().unwrap();
            assert_eq!(bytes.starts_with(&MAGIC), in_parts);
            assert_eq!(described(&bytes).unwrap(), (Dtype::F32, vec![rows, columns]));
            assert_eq!(decoded(&bytes).unwrap(), &*tensor.data);
        }
    }

    #[test]
    fn changed_parts_are_noticed() {
        let bytes = LosslessEncoder::new().unwrap().encode(&tensor(2000, 300)).unwrap().unwrap();
        for at in (0..40).chain((40..bytes.len()).step_by(997)) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x11;
            assert!(decoded(&changed).is_err(), "byte {at}");
        }
        for length in [0, 3, 5, 12, 100, bytes.len() - 1] {
            assert!(decoded(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
