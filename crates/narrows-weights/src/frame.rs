//! A packed tensor as bytes: header, directory, chunks, checksum (`docs/format.md`, section 13). All validation is here,
//! before anything is decoded.

use std::ops::Range;

use narrows::machine::{BitReader, BitWriter, MAX_STREAMS, Scale, checksum, read_weights, write_weights};
use narrows::{Dtype, Shape};

use crate::choice::WEIGHT_BITS;
use crate::contexts;
use crate::error::{Error, Result};
use crate::grid::{Grid, MAX_HALF};
use crate::outliers::ListCode;

/// What packed tensors begin with.
pub(crate) const MAGIC: [u8; 3] = *b"NRM";
/// The version written.
pub(crate) const VERSION: u8 = 2;
const CHECKSUM_BYTES: usize = 4;
/// Lanes that share a bit stream.
pub(crate) const GROUP: usize = 8;
const LEAST_LANES_BITS: u32 = 4;
/// Columns of a matrix at most, 1 GiB of f32 a row: readers decode a row at a time at least, and a few bytes can be any number
/// of weights.
pub(crate) const MAX_COLUMNS: usize = 1 << 28;

/// How the bins of a tensor are stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// Every weight is in this bin.
    Constant(i8),
    /// Chunks of bit streams of a tANS machine.
    Tans(Tans),
    /// Chunks that are bare streams of symbols, each with its own table.
    Streams,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tans {
    pub(crate) state_bits: u32,
    /// Lanes of a row, 16, 32 or 64.
    pub(crate) lanes: usize,
    /// A weight for each bin, context by context: one, or two ([`crate::contexts`]).
    pub(crate) weights: Vec<u32>,
    pub(crate) contexts: usize,
    /// Mantissa bits of the weights.
    pub(crate) mantissa: u32,
    /// How outliers are listed, if there may be any.
    pub(crate) outliers: Option<ListCode>,
}

/// Everything about a packed tensor but its chunks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    /// The type of the weights before they were quantised.
    pub(crate) dtype: Dtype,
    pub(crate) shape: Shape,
    pub(crate) grid: Grid,
    pub(crate) content: Content,
    /// Matrix rows of a chunk; the last may have fewer.
    pub(crate) chunk_rows: usize,
}

/// Where a chunk lies, in bytes of its packed tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: usize,
    /// Where each bit stream begins, after the lanes' first states; streams follow each other.
    pub(crate) streams: [u32; MAX_STREAMS],
    /// Where the last bit stream ends and the outliers begin.
    pub(crate) streams_end: usize,
    pub(crate) end: usize,
}

/// Matrix rows and columns of a shape: the first axis and all others.
pub fn matrix_of(shape: &Shape) -> (usize, usize) {
    let rows = shape.dims()[0];
    (rows, shape.dims()[1..].iter().product())
}

impl Header {
    pub(crate) fn rows(&self) -> usize {
        matrix_of(&self.shape).0
    }

    pub(crate) fn columns(&self) -> usize {
        matrix_of(&self.shape).1
    }

    pub(crate) fn chunks(&self) -> usize {
        if matches!(self.content, Content::Constant(_)) { 0 } else { self.rows().div_ceil(self.chunk_rows) }
    }

    /// Matrix rows of a chunk.
    pub(crate) fn rows_of(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk_rows..((chunk + 1) * self.chunk_rows).min(self.rows())
    }

    /// Append the header, directory not included.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(MAGIC);
        out.push(VERSION);
        let dtype = match self.dtype {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::Bf16 => 2,
        };
        let content = match &self.content {
            Content::Tans(tans) if tans.contexts == 1 => 0,
            Content::Constant(_) => 1,
            Content::Streams => 2,
            Content::Tans(_) => 3,
        };
        let dims = self.shape.dims();
        let steps = self.grid.steps();
        let whole = steps.iter().any(|step| step.to_bits() & 0xffff != 0);
        let close = if whole { None } else { CloseSteps::of(steps) };
        out.push(dtype | content << 2 | (dims.len() as u8 - 1) << 4 | u8::from(close.is_some()) << 7);
        dims.iter().for_each(|&length| put_varint(out, length as u64));
        let mut form = u8::from(steps.len() > 1) | u8::from(whole) << 1;
        if let Content::Tans(tans) = &self.content {
            form |= u8::from(tans.outliers.is_some()) << 2;
            form |= ((tans.lanes.ilog2() - LEAST_LANES_BITS) as u8) << 3;
            form |= ((tans.state_bits - 6) as u8) << 5;
        }
        out.push(form);
        out.push(self.grid.half());
        if let Some(close) = close {
            close.write(steps, out);
        } else {
            let bytes = |step: &f32| step.to_bits().to_le_bytes();
            steps.iter().for_each(|step| out.extend(&bytes(step)[if whole { 0 } else { 2 }..]));
        }
        match &self.content {
            Content::Constant(value) => return out.push(*value as u8),
            Content::Streams => {}
            Content::Tans(tans) => {
                let mut bits = BitWriter::new(out);
                write_weights(
                    &tans.weights,
                    tans.contexts,
                    Scale { bits: WEIGHT_BITS, mantissa: tans.mantissa },
                    &mut bits,
                );
                bits.finish();
                out.extend(tans.outliers.iter().flat_map(|code| code.to_bytes()));
            }
        }
        put_varint(out, self.chunk_rows as u64);
    }

    /// Read a header, the directory and the checksum of a packed tensor.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, Vec<Place>)> {
        let Some((contents, stored)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(Error::Truncated {
                what: "checksum",
                offset: 0,
                needed: CHECKSUM_BYTES,
                available: bytes.len(),
            });
        };
        let mut fields = Fields { bytes: contents, offset: 0 };
        let found: [u8; 3] = fields.array("magic")?;
        if found != MAGIC {
            return Err(Error::BadMagic { found });
        }
        let version = fields.byte("version")?;
        if version != VERSION {
            return Err(Error::UnsupportedVersion { found: version.into(), supported: VERSION.into() });
        }
        let (stored, computed) = (u32::from_le_bytes(*stored), checksum(contents));
        if stored != computed {
            return Err(Error::Checksum { what: "packed tensor", stored, computed });
        }
        let header = Self::read_fields(&mut fields)?;
        let places = header.read_directory(&mut fields)?;
        Ok((header, places))
    }

    fn read_fields(fields: &mut Fields<'_>) -> Result<Self> {
        let kinds = fields.byte("kinds")?;
        let dtype = match kinds & 3 {
            0 => Dtype::F32,
            1 => Dtype::F16,
            2 => Dtype::Bf16,
            value => return Err(invalid("element type", value, 2)),
        };
        let rank = usize::from(kinds >> 4 & 7) + 1;
        let mut dims = [0; 8];
        for length in &mut dims[..rank] {
            *length = fields.varint("axis length", u32::MAX.into())? as usize;
        }
        let shape = Shape::new(&dims[..rank])?;
        let (rows, columns) = matrix_of(&shape);
        if rows == 0 || columns == 0 {
            return Err(invalid("number of elements", 0, 1));
        }
        if columns > MAX_COLUMNS {
            let (what, value, bound) = ("columns", columns as u64, MAX_COLUMNS as u64);
            return Err(Error::InvalidHeader { what, value, bound });
        }
        let form = fields.byte("form")?;
        let half = fields.byte("bins on one side of zero")?;
        if half == 0 || half > MAX_HALF {
            return Err(invalid("bins on one side of zero", half, MAX_HALF));
        }
        let steps = if kinds >> 7 == 1 {
            if form & 3 != 1 {
                return Err(invalid("form of steps that are close", form & 3, 1));
            }
            CloseSteps::read(rows, fields)?
        } else {
            let (count, size) = (if form & 1 == 1 { rows } else { 1 }, if form & 2 == 2 { 4 } else { 2 });
            let steps = fields.take("steps", count.saturating_mul(size))?;
            let step = |step: &[u8]| {
                let mut bits = [0; 4];
                bits[4 - size..].copy_from_slice(step);
                f32::from_le_bytes(bits)
            };
            steps.chunks_exact(size).map(step).collect()
        };
        let grid = Grid::new(steps, 2 * u16::from(half) + 1)?;
        let content = match kinds >> 2 & 3 {
            0 => Content::Tans(Tans::read(fields, form, &grid, 1)?),
            1 => {
                let value = fields.byte("constant bin")? as i8;
                if value.unsigned_abs() > half {
                    return Err(invalid("constant bin", value.unsigned_abs(), half));
                }
                Content::Constant(value)
            }
            2 => Content::Streams,
            _ => Content::Tans(Tans::read(fields, form, &grid, 2)?),
        };
        if !matches!(content, Content::Tans(_)) && form >> 2 != 0 {
            return Err(invalid("form", form, 3));
        }
        let chunk_rows = match content {
            Content::Constant(_) => rows,
            _ => fields.varint("rows of a chunk", rows as u64)? as usize,
        };
        if chunk_rows == 0 {
            return Err(invalid("rows of a chunk", 0, 1));
        }
        Ok(Self { dtype, shape, grid, content, chunk_rows })
    }

    /// Lengths of all chunks; they fill the rest of the bytes.
    fn read_directory(&self, fields: &mut Fields<'_>) -> Result<Vec<Place>> {
        let chunks = self.chunks();
        let room = fields.bytes.len() - fields.offset;
        if chunks > room {
            return Err(Error::Truncated {
                what: "directory",
                offset: fields.offset,
                needed: chunks,
                available: room,
            });
        }
        let most = fields.bytes.len() as u64;
        let mut places = vec![Place::default(); chunks];
        for place in &mut places {
            // Lengths for now.
            if let Content::Tans(tans) = &self.content {
                for stream in &mut place.streams[..tans.streams(self.columns())] {
                    *stream = fields.varint("length of a bit stream", most)? as u32;
                }
                if tans.outliers.is_some() {
                    place.end = fields.varint("length of the outliers", most)? as usize;
                }
            } else {
                place.end = fields.varint("length of a chunk", most)? as usize;
            }
        }
        let mut at = fields.offset;
        for place in &mut places {
            place.start = at;
            if let Content::Tans(tans) = &self.content {
                at += tans.states_bytes(self.columns());
                for stream in &mut place.streams {
                    at += std::mem::replace(stream, at as u32) as usize;
                }
            }
            place.streams_end = at;
            at += std::mem::replace(&mut place.end, 0);
            place.end = at;
            if at > fields.bytes.len() {
                return Err(Error::Truncated {
                    what: "chunk",
                    offset: place.start,
                    needed: at - place.start,
                    available: fields.bytes.len().saturating_sub(place.start),
                });
            }
        }
        match fields.bytes.len() - at {
            0 => Ok(places),
            value => Err(Error::InvalidHeader {
                what: "bytes after the last chunk",
                value: value as u64,
                bound: 0,
            }),
        }
    }
}

impl Tans {
    fn read(fields: &mut Fields<'_>, form: u8, grid: &Grid, contexts: usize) -> Result<Self> {
        let (lanes_bits, states) = (u32::from(form >> 3 & 3), u32::from(form >> 5));
        if lanes_bits > 2 {
            return Err(invalid("lanes", form >> 3 & 3, 2));
        }
        let most = if contexts > 1 { contexts::MOST_STATE_BITS - 6 } else { 6 };
        if states > most {
            return Err(invalid("log2 of the states, less 6", form >> 5, most as u8));
        }
        let rest = &fields.bytes[fields.offset..];
        let mut bits = BitReader::new(rest);
        let mut weights = Vec::new();
        let mantissa = rest.first().map_or(0, |byte| u32::from(byte & 15));
        read_weights(&mut bits, contexts, usize::from(grid.bins()), WEIGHT_BITS, &mut weights)
            .map_err(|(_, what)| Error::InvalidTable { what })?;
        if !bits.padding_is_zero() {
            return Err(Error::InvalidTable { what: "bits are set after it" });
        }
        fields.take("table", bits.bytes_taken())?;
        let outliers = match form & 4 {
            0 => None,
            _ => Some(ListCode::from_bytes(fields.array("code of the outliers")?, grid.half())?),
        };
        Ok(Self {
            state_bits: states + 6,
            lanes: 1 << (lanes_bits + LEAST_LANES_BITS),
            weights,
            contexts,
            mantissa,
            outliers,
        })
    }

    /// log2 of the states of all contexts together.
    pub(crate) const fn table_bits(&self) -> u32 {
        self.state_bits + self.contexts.ilog2()
    }

    /// Lanes in use for matrices of so many columns.
    pub(crate) fn lanes_used(&self, columns: usize) -> usize {
        self.lanes.min(columns)
    }

    /// Bit streams of a chunk.
    pub(crate) fn streams(&self, columns: usize) -> usize {
        self.lanes_used(columns).div_ceil(GROUP)
    }

    /// Bytes of a chunk's first states.
    pub(crate) fn states_bytes(&self, columns: usize) -> usize {
        (self.lanes_used(columns) * self.state_bits as usize).div_ceil(8)
    }
}

/// Steps of 16 bits that lie close to each other: the least, and how far above it each is, in as many bits as the largest
/// distance takes.
struct CloseSteps {
    least: u16,
    width: u32,
}

impl CloseSteps {
    const BYTES: usize = 3;

    /// Bytes that so many steps take.
    const fn bytes(count: usize, width: u32) -> usize {
        (count.saturating_mul(width as usize)).div_ceil(8)
    }

    /// How steps whose lower halves are zero are written, if that takes fewer bytes than they have.
    fn of(steps: &[f32]) -> Option<Self> {
        let upper = || steps.iter().map(|step| (step.to_bits() >> 16) as u16);
        let (least, most) = (upper().min()?, upper().max()?);
        // One bit at least, so that their number is bounded by the bytes.
        let width = (u16::BITS - (most - least).leading_zeros()).max(1);
        let fewer = steps.len() > 1 && Self::BYTES + Self::bytes(steps.len(), width) < 2 * steps.len();
        fewer.then_some(Self { least, width })
    }

    fn write(&self, steps: &[f32], out: &mut Vec<u8>) {
        out.extend(self.least.to_le_bytes());
        out.push(self.width as u8);
        let mut bits = BitWriter::new(out);
        steps.iter().for_each(|step| bits.put((step.to_bits() >> 16) - u32::from(self.least), self.width));
        bits.finish();
    }

    fn read(count: usize, fields: &mut Fields<'_>) -> Result<Vec<f32>> {
        let least = u32::from(u16::from_le_bytes(fields.array("least step")?));
        let width = fields.byte("bits of a step")?;
        if !(1..=15).contains(&width) {
            return Err(invalid("bits of a step", width, 15));
        }
        let packed = fields.take("steps", Self::bytes(count, width.into()))?;
        let mut bits = BitReader::new(packed);
        let mut steps = Vec::with_capacity(count);
        for _ in 0..count {
            let above = bits.take(width.into()).expect("as many bytes were taken");
            let step = u16::try_from(least + above).map_err(|_| Error::InvalidHeader {
                what: "upper half of a step",
                value: (least + above).into(),
                bound: u16::MAX.into(),
            })?;
            steps.push(f32::from_bits(u32::from(step) << 16));
        }
        if !bits.padding_is_zero() {
            return Err(invalid("bits after the steps", 1, 0));
        }
        Ok(steps)
    }
}

fn invalid(what: &'static str, value: u8, bound: u8) -> Error {
    Error::InvalidHeader { what, value: value.into(), bound: bound.into() }
}

/// Append the checksum of all of `out` from `start` on.
pub(crate) fn seal(out: &mut Vec<u8>) {
    let checksum = checksum(out);
    out.extend(checksum.to_le_bytes());
}

/// Append an unsigned integer, seven bits a byte, the lowest first (LEB128).
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads fields from bytes, remembering where it is.
pub(crate) struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) offset: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, what: &'static str, needed: usize) -> Result<&'a [u8]> {
        let available = self.bytes.len() - self.offset;
        if needed > available {
            return Err(Error::Truncated { what, offset: self.offset, needed, available });
        }
        let taken = &self.bytes[self.offset..self.offset + needed];
        self.offset += needed;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        Ok(self.take(what, N)?.try_into().expect("as many"))
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    /// An unsigned integer of at most `bound`, in its shortest spelling.
    pub(crate) fn varint(&mut self, what: &'static str, bound: u64) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if value > bound || (byte == 0 && shift > 0) {
                    break;
                }
                return Ok(value);
            }
        }
        Err(Error::InvalidHeader { what, value, bound })
    }
}
