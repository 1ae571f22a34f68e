//! The header of a frame: what it holds and how to undo it. A header that was read is valid.

use super::{Cursor, MAGIC, VERSION, put_varint, quantizer};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::profile::ProfileId;
use crate::quantize::{Affine, Dequantizer};
use crate::tensor::{Dtype, MAX_RANK, Shape};

/// What a decoder is willing to take memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most elements of a tensor. A decoder takes about 6 bytes for each (4 for the value, 2 for
    /// symbols on the way; three times as many symbols for the modified CSR).
    pub max_elements: u64,
}

impl Default for Limits {
    /// 2^28 elements: 1 GiB of f32.
    fn default() -> Self {
        Self { max_elements: 1 << 28 }
    }
}

/// Features a frame can need; a reader refuses a bit it does not know.
pub(crate) mod feature {
    /// The profile's name follows the shape.
    pub(crate) const PROFILE: u32 = 1 << 0;
    /// All bits known to this version.
    pub(crate) const KNOWN: u32 = PROFILE;
}

/// How a frame holds its tensor.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// The elements as they are.
    Raw,
    /// One element, which all the others equal.
    Constant,
    /// Quantised symbols.
    Quantized {
        /// How to turn symbols into values; `None` if the profile says it.
        dequantizer: Option<Dequantizer>,
        /// The axis that holds the channels.
        axis: usize,
        /// The order of the symbols.
        layout: Layout,
        /// Symbols different from zero; only the modified CSR layouts say.
        nonzeros: usize,
    },
    /// Every bit of every element, in exponent and mantissa planes.
    Lossless {
        /// Whether the mantissa planes leave out the elements that are +0.
        zeros_left_out: bool,
        /// The axis that holds the channels.
        axis: usize,
        /// The order of the exponents, natural or planes; mantissas are in natural order.
        exponents: Layout,
    },
}

/// The header of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Format version.
    pub version: u8,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Shape of the tensor.
    pub shape: Shape,
    /// The profile the frame was coded with.
    pub profile: Option<ProfileId>,
    /// How the elements are held.
    pub content: Content,
    /// Bytes of the header, up to the first stream.
    pub bytes: usize,
}

const KIND_RAW: u8 = 0;
const KIND_CONSTANT: u8 = 1;
const KIND_QUANTIZED: u8 = 2;
const KIND_LOSSLESS: u8 = 3;

const QUANTIZER_TENSOR: u8 = 0;
const QUANTIZER_CHANNELS: u8 = 1;
const QUANTIZER_PROFILE: u8 = 2;

const LAYOUT_NATURAL: u8 = 0;
const LAYOUT_PLANES: u8 = 1;
const LAYOUT_CSR_JOINT: u8 = 2;
const LAYOUT_CSR_SEPARATE: u8 = 3;

/// Append the header of a frame.
pub(crate) fn write(
    dtype: Dtype,
    shape: &Shape,
    profile: Option<ProfileId>,
    content: &Content,
    out: &mut Vec<u8>,
) {
    out.extend(MAGIC);
    out.push(VERSION);
    put_varint(out, u64::from(if profile.is_some() { feature::PROFILE } else { 0 }));
    let dtype = match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 2,
    };
    let kind = match content {
        Content::Raw => KIND_RAW,
        Content::Constant => KIND_CONSTANT,
        Content::Quantized { .. } => KIND_QUANTIZED,
        Content::Lossless { .. } => KIND_LOSSLESS,
    };
    out.push(dtype | kind << 2 | (shape.rank() as u8 - 1) << 4);
    shape.dims().iter().for_each(|&length| put_varint(out, length as u64));
    if let Some(id) = profile {
        out.extend(id.0);
    }
    match content {
        Content::Raw | Content::Constant => {}
        Content::Quantized { dequantizer, axis, layout, nonzeros } => {
            write_quantized(dequantizer.as_ref(), *axis, *layout, *nonzeros, out);
        }
        Content::Lossless { zeros_left_out, axis, exponents } => {
            let in_planes = u8::from(*exponents == Layout::Planes);
            out.push(u8::from(*zeros_left_out) | in_planes << 1 | (*axis as u8) << 2);
        }
    }
}

fn write_quantized(
    dequantizer: Option<&Dequantizer>,
    axis: usize,
    layout: Layout,
    nonzeros: usize,
    out: &mut Vec<u8>,
) {
    let quantizer = match dequantizer {
        Some(Dequantizer::Tensor(_)) => QUANTIZER_TENSOR,
        Some(Dequantizer::PerChannel(_)) => QUANTIZER_CHANNELS,
        None => QUANTIZER_PROFILE,
    };
    let order = match layout {
        Layout::Natural => LAYOUT_NATURAL,
        Layout::Planes => LAYOUT_PLANES,
        Layout::CsrJoint { .. } => LAYOUT_CSR_JOINT,
        Layout::CsrSeparate { .. } => LAYOUT_CSR_SEPARATE,
    };
    out.push(quantizer | order << 2 | (axis as u8) << 4);
    if let Layout::CsrJoint { rows } | Layout::CsrSeparate { rows } = layout {
        put_varint(out, rows as u64);
        put_varint(out, nonzeros as u64);
    }
    if let Some(dequantizer) = dequantizer {
        quantizer::write(dequantizer, out);
    }
}

/// Read and check a frame's header; everything after it is left in the cursor. Maps per channel are read
/// into the memory of `spare`, which is taken.
pub(crate) fn read(cursor: &mut Cursor<'_>, limits: &Limits, spare: &mut Vec<Affine>) -> Result<Header> {
    let found = cursor.array("magic")?;
    if found != MAGIC {
        return Err(Error::BadMagic { what: "frame", found, expected: MAGIC });
    }
    let version = cursor.byte("version")?;
    if version > VERSION {
        return Err(Error::UnsupportedVersion { found: version, supported: VERSION });
    }
    if version == 0 {
        return Err(invalid("version", 0, VERSION.into()));
    }
    let features = cursor.varint("features", u64::from(u32::MAX))? as u32;
    if features & !feature::KNOWN != 0 {
        return Err(Error::UnsupportedFeature { unknown: features & !feature::KNOWN });
    }
    let kinds = cursor.byte("element type, kind and rank")?;
    let dtype = match kinds & 3 {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::Bf16,
        other => return Err(invalid("element type", other.into(), 2)),
    };
    if kinds & 0x80 != 0 {
        return Err(invalid("reserved bit beside the rank", 1, 0));
    }
    let shape = read_shape(cursor, usize::from(kinds >> 4) + 1, limits)?;
    let profile =
        if features & feature::PROFILE == 0 { None } else { Some(ProfileId(cursor.array("profile")?)) };
    let content = match kinds >> 2 & 3 {
        KIND_RAW => Content::Raw,
        KIND_CONSTANT => Content::Constant,
        KIND_QUANTIZED => read_quantized(cursor, &shape, profile, spare)?,
        _ => {
            let byte = cursor.byte("lossless planes")?;
            let axis = usize::from(byte >> 2);
            check_axis(axis, &shape)?;
            let exponents = if byte & 2 == 0 { Layout::Natural } else { Layout::Planes };
            Content::Lossless { zeros_left_out: byte & 1 == 1, axis, exponents }
        }
    };
    if shape.elements() == 0 && content != Content::Raw {
        return Err(invalid("kind of a frame without elements", u64::from(kinds >> 2 & 3), KIND_RAW.into()));
    }
    Ok(Header { version, dtype, shape, profile, content, bytes: cursor.offset() })
}

fn invalid(what: &'static str, value: u64, bound: u64) -> Error {
    Error::InvalidHeader { what, value, bound }
}

fn read_shape(cursor: &mut Cursor<'_>, rank: usize, limits: &Limits) -> Result<Shape> {
    let mut dims = [0; MAX_RANK];
    let mut elements = 1_u64;
    let mut empty = false;
    for length in &mut dims[..rank] {
        let value = cursor.varint("axis length", u64::MAX >> 1)?;
        *length = value as usize;
        empty |= value == 0;
        elements = elements.saturating_mul(value.max(1));
    }
    if !empty && elements > limits.max_elements {
        let (value, limit) = (elements, limits.max_elements);
        return Err(Error::LimitExceeded { what: "number of elements", value, limit });
    }
    Shape::new(&dims[..rank])
}

fn check_axis(axis: usize, shape: &Shape) -> Result<()> {
    if axis < shape.rank() {
        Ok(())
    } else {
        Err(invalid("channel axis", axis as u64, shape.rank() as u64 - 1))
    }
}

fn read_quantized(
    cursor: &mut Cursor<'_>,
    shape: &Shape,
    profile: Option<ProfileId>,
    spare: &mut Vec<Affine>,
) -> Result<Content> {
    let byte = cursor.byte("quantiser and layout")?;
    let axis = usize::from(byte >> 4);
    check_axis(axis, shape)?;
    let elements = shape.elements();
    let (layout, nonzeros) = match byte >> 2 & 3 {
        LAYOUT_NATURAL => (Layout::Natural, 0),
        LAYOUT_PLANES => (Layout::Planes, 0),
        csr => {
            let rows = cursor.varint("CSR rows", elements as u64)? as usize;
            if rows == 0 || !elements.is_multiple_of(rows) || elements / rows > crate::layout::MAX_COLUMNS {
                return Err(invalid("CSR rows", rows as u64, elements as u64));
            }
            let nonzeros = cursor.varint("non-zero symbols", elements as u64)? as usize;
            let joint = csr == LAYOUT_CSR_JOINT;
            (if joint { Layout::CsrJoint { rows } } else { Layout::CsrSeparate { rows } }, nonzeros)
        }
    };
    let dequantizer = match byte & 3 {
        QUANTIZER_TENSOR => Some(quantizer::read(cursor)?),
        QUANTIZER_CHANNELS => Some(quantizer::read_per_channel(cursor, shape.dims()[axis], spare)?),
        QUANTIZER_PROFILE if profile.is_some() => None,
        other => return Err(invalid("quantiser", other.into(), QUANTIZER_CHANNELS.into())),
    };
    Ok(Content::Quantized { dequantizer, axis, layout, nonzeros })
}

/// The header of a whole frame whose checksum holds, and the cursor behind it.
///
/// The header is looked at first: what is not a frame at all should be told so, rather than that its
/// checksum is off.
pub(crate) fn read_checked<'a>(
    frame: &'a [u8],
    limits: &Limits,
    spare: &mut Vec<Affine>,
) -> Result<(Header, Cursor<'a>)> {
    let mut cursor = Cursor::new(&frame[..frame.len().saturating_sub(super::CHECKSUM_BYTES)]);
    let header = read(&mut cursor, limits, spare)?;
    super::read_checksum(frame)?;
    Ok((header, cursor))
}

impl Header {
    /// Size of the symbols' alphabet, if the header says it.
    pub fn levels(&self) -> Option<u16> {
        match &self.content {
            Content::Quantized { dequantizer: Some(dequantizer), .. } => Some(dequantizer.levels()),
            _ => None,
        }
    }
}

/// Read a frame's header without decoding it, or even having all of it.
///
/// ```
/// let features = vec![0.5_f32; 96];
/// let frame = narrows::encode(&narrows::TensorView::new(&features, &[4, 4, 6])?, 4)?;
/// let header = narrows::peek(&frame[..12])?;
/// assert_eq!(header.shape.dims(), [4, 4, 6]);
/// # Ok::<(), narrows::Error>(())
/// ```
///
/// # Errors
/// Any header error of [`Error`]. The checksum is not looked at.
pub fn peek(bytes: &[u8]) -> Result<Header> {
    read(&mut Cursor::new(bytes), &Limits { max_elements: u64::MAX >> 8 }, &mut Vec::new())
}
