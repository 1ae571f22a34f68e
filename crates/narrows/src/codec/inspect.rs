//! Where the bytes of a frame go.

use super::decoder::{Symbols, resolve};
use super::lossless::Format;
use super::stream::StreamReader;
use crate::error::Result;
use crate::frame::header::{self, Content, Header, Limits};
use crate::frame::stream::{Coder, Expected, Order, Parts, StreamHeader};
use crate::frame::{self, Cursor};
use crate::layout::{Layout, Planes};
use crate::model::{Context, Model};
use crate::profile::{Profile, Profiles};

/// One stream of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamInspection {
    /// `symbols`, `exponents` or `mantissas`.
    pub holds: &'static str,
    /// Number of symbols.
    pub symbols: usize,
    /// Kinds of symbols.
    pub alphabet: usize,
    /// What turned symbols into bytes.
    pub coder: Coder,
    /// Lanes of a chunk.
    pub lanes: usize,
    /// Chunks.
    pub chunks: usize,
    /// What chooses a symbol's table: `none`, `neighbours` or `segments`.
    pub context: &'static str,
    /// Frequency tables; 0 if the coder needs none.
    pub tables: usize,
    /// Bytes of each part.
    pub bytes: Parts,
}

/// What a frame says of itself, and where its bytes go.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// The header.
    pub header: Header,
    /// Bytes of the whole frame.
    pub bytes: usize,
    /// Bytes of the elements uncompressed.
    pub raw_bytes: usize,
    /// The streams; none in RAW and CONST frames.
    pub streams: Vec<StreamInspection>,
    /// Bytes of the checksum.
    pub checksum_bytes: usize,
}

impl Inspection {
    /// Bits of the frame for each element, headers and all.
    pub fn bits_per_element(&self) -> f64 {
        8.0 * self.bytes as f64 / self.header.shape.elements().max(1) as f64
    }
}

/// Look into a frame without decoding its symbols.
///
/// # Errors
/// As [`Decoder::decode_into`](crate::Decoder::decode_into), but for what only decoding shows.
pub fn inspect(frame: &[u8], profiles: &Profiles, limits: &Limits) -> Result<Inspection> {
    let (header, cursor) = header::read_checked(frame, limits, &mut Vec::new())?;
    let mut inspector = Inspector { reader: StreamReader::default(), cursor, streams: Vec::new() };
    match &header.content {
        Content::Raw | Content::Constant => {}
        Content::Quantized { dequantizer, axis, layout, nonzeros } => {
            let profile = match header.profile {
                Some(id) => Some(profiles.find(id)?.as_ref()),
                None => None,
            };
            let map = resolve(dequantizer.as_ref(), profile)?;
            let map = dequantizer.as_ref().unwrap_or(&map);
            let symbols = Symbols::new(&header, map, *axis, *layout, *nonzeros)?;
            inspector.stream("symbols", &symbols.expected, profile.map(Profile::model))?;
        }
        Content::Lossless { zeros_left_out, axis, exponents } => {
            inspector.lossless(&header, *zeros_left_out, *axis, *exponents)?;
        }
    }
    Ok(Inspection {
        bytes: frame.len(),
        raw_bytes: header.shape.elements() * header.dtype.size(),
        checksum_bytes: frame::CHECKSUM_BYTES,
        streams: inspector.streams,
        header,
    })
}

struct Inspector<'a> {
    reader: StreamReader,
    cursor: Cursor<'a>,
    streams: Vec<StreamInspection>,
}

impl Inspector<'_> {
    fn stream(&mut self, holds: &'static str, expected: &Expected, profile: Option<&Model>) -> Result<()> {
        let (header, model) = self.reader.survey(&mut self.cursor, expected, profile)?;
        self.streams.push(describe(holds, expected, &header, model));
        Ok(())
    }

    fn lossless(
        &mut self,
        header: &Header,
        zeros_left_out: bool,
        axis: usize,
        exponents: Layout,
    ) -> Result<()> {
        let format = Format::of(header.dtype);
        let planes = Planes::new(&header.shape, axis)?;
        let count = header.shape.elements();
        let in_planes = exponents == Layout::Planes;
        let order = if in_planes { Order::Planes(planes) } else { Order::Natural(count) };
        let mut decoded: Vec<u8> = Vec::new();
        let mut kept = count;
        let expected = Expected { alphabet: format.exponents(), order };
        if zeros_left_out {
            // How many mantissas there are is known from the exponents only.
            self.reader.read(&mut self.cursor.clone(), &expected, None, &mut decoded)?;
            kept = decoded.iter().filter(|&&exponent| exponent != 0).count();
        }
        self.stream("exponents", &expected, None)?;
        for bits in format.mantissa_planes() {
            let expected = Expected { alphabet: 1 << bits, order: Order::Natural(kept) };
            self.stream("mantissas", &expected, None)?;
        }
        Ok(())
    }
}

fn describe(
    holds: &'static str,
    expected: &Expected,
    header: &StreamHeader,
    model: &Model,
) -> StreamInspection {
    let coded = matches!(header.coder, Coder::Rans | Coder::Tans { .. });
    let context = match model.context {
        Context::Neighbours(_) if coded => "neighbours",
        Context::Segments { .. } if coded => "segments",
        _ => "none",
    };
    StreamInspection {
        holds,
        symbols: expected.order.symbols(),
        alphabet: expected.alphabet,
        coder: header.coder,
        lanes: header.rows.lanes(),
        chunks: header.rows.count().div_ceil(header.chunk_rows),
        context,
        tables: if coded { model.tables().len() } else { 0 },
        bytes: header.bytes,
    }
}
