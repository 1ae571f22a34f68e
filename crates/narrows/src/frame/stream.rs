//! A stream: one sequence of coded symbols within a frame, with all that is needed to decode it.
//!
//! Header, model, directory of chunks, payload. A quantised frame has one stream; a lossless one has one
//! for each plane of exponent or mantissa bits.

use super::{Cursor, put_varint};
use crate::bits::{BitReader, BitWriter, width_of};
use crate::error::{Error, Result};
use crate::layout::{Planes, Rows};
use crate::model::{Classes, Context, Model, chunks, coding, probability_bits};
use crate::{rans, tans};

/// What turns symbols into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coder {
    /// One symbol, which all the others equal.
    Constant,
    /// A fixed number of bits for each symbol.
    Packed,
    /// Range asymmetric numeral systems.
    Rans,
    /// Tabled asymmetric numeral systems with `2^state_bits` states, 6 to 12.
    Tans {
        /// log2 of the number of states.
        state_bits: u32,
    },
}

impl Coder {
    /// Probability bits of this coder's tables.
    pub(crate) const fn probability_bits(self, alphabet: usize) -> u32 {
        match self {
            Self::Tans { state_bits } => state_bits,
            _ => probability_bits(alphabet),
        }
    }
}

/// The symbols a stream must hold: how many, of how many kinds, and how they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) alphabet: usize,
    pub(crate) order: Order,
}

/// The order of a stream's symbols.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// One after the other, this many.
    Natural(usize),
    /// One after the other, in three segments of which the first two end here.
    Segments(usize, [usize; 2]),
    /// In plane order.
    Planes(Planes),
}

impl Order {
    pub(crate) const fn rows(&self, lanes: usize) -> Rows {
        match self {
            Self::Natural(symbols) | Self::Segments(symbols, _) => Rows::natural(*symbols, lanes),
            Self::Planes(planes) => Rows::of_planes(planes, lanes),
        }
    }

    pub(crate) const fn symbols(&self) -> usize {
        self.rows(1).symbols()
    }
}

/// The header of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamHeader {
    pub(crate) coder: Coder,
    pub(crate) rows: Rows,
    pub(crate) chunk_rows: usize,
    pub(crate) model_from_profile: bool,
    /// The symbol of [`Coder::Constant`].
    pub(crate) symbol: usize,
    /// Bytes of the stream's parts.
    pub(crate) bytes: Parts,
}

/// Bytes of a stream's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Coder, lanes, flags.
    pub header: usize,
    /// Context classes and frequency tables.
    pub model: usize,
    /// Chunk directory.
    pub directory: usize,
    /// The lanes' first states.
    pub states: usize,
    /// Coded symbols.
    pub symbols: usize,
}

impl Parts {
    pub(crate) const fn payload(&self) -> usize {
        self.states + self.symbols
    }
}

const CODER_CONSTANT: u8 = 0;
const CODER_PACKED: u8 = 1;
const CODER_RANS: u8 = 2;
const CODER_TANS: u8 = 3;
const FLAG_CHUNKED: u8 = 1 << 5;
const FLAG_PROFILE: u8 = 1 << 6;

const CONTEXT_NONE: u32 = 0;
const CONTEXT_NEIGHBOURS: u32 = 1;
const CONTEXT_SEGMENTS: u32 = 2;
const CONTEXT_WIDTH: u32 = 2;

/// Append a stream's header up to its model.
pub(crate) fn write_form(
    coder: Coder,
    rows: &Rows,
    chunk_rows: usize,
    model_from_profile: bool,
    out: &mut Vec<u8>,
) {
    let (code, lanes) = match coder {
        Coder::Constant => (CODER_CONSTANT, 1),
        Coder::Packed => (CODER_PACKED, 1),
        Coder::Rans => (CODER_RANS, rows.lanes()),
        Coder::Tans { .. } => (CODER_TANS, rows.lanes()),
    };
    let coded = matches!(coder, Coder::Rans | Coder::Tans { .. });
    let chunked = if coded && chunk_rows < rows.count() { FLAG_CHUNKED } else { 0 };
    let profile = if model_from_profile { FLAG_PROFILE } else { 0 };
    out.push(code | (lanes.ilog2() as u8) << 2 | chunked | profile);
    if let Coder::Tans { state_bits } = coder {
        out.push((state_bits - tans::STATE_BITS.start()) as u8);
    }
}

/// Append a model: its context and its tables' weights.
pub(crate) fn write_model(context: &Context, weights: &[u32], scale: coding::Scale, out: &mut Vec<u8>) {
    let mut bits = BitWriter::new(out);
    match context {
        Context::None => bits.put(CONTEXT_NONE, CONTEXT_WIDTH),
        Context::Neighbours(classes) => {
            bits.put(CONTEXT_NEIGHBOURS, CONTEXT_WIDTH);
            classes.write(&mut bits);
        }
        Context::Segments { .. } => bits.put(CONTEXT_SEGMENTS, CONTEXT_WIDTH),
    }
    coding::write(weights, context.tables(), scale, &mut bits);
    bits.finish();
}

/// Append the chunk directory: rows of a chunk if there is more than one, then the length of each (words
/// for rANS, bytes of each bit stream for tANS).
pub(crate) fn write_directory(rows: &Rows, chunk_rows: usize, lengths: &[u32], out: &mut Vec<u8>) {
    if chunk_rows < rows.count() {
        put_varint(out, chunk_rows as u64);
    }
    lengths.iter().for_each(|&length| put_varint(out, u64::from(length)));
}

fn invalid(what: &'static str, value: u64, bound: u64) -> Error {
    Error::InvalidHeader { what, value, bound }
}

/// Whether the stream that these bytes begin with says that it is packed.
pub(crate) fn is_packed(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|form| form & 3 == CODER_PACKED)
}

/// Read a stream's header, its model (unless that is the profile's) and its directory; checks that the
/// payload is there.
pub(crate) fn read(
    cursor: &mut Cursor<'_>,
    expected: &Expected,
    profile: Option<&Model>,
    model: &mut Model,
    weights: &mut Vec<u32>,
    lengths: &mut Vec<u32>,
) -> Result<StreamHeader> {
    let before = cursor.offset();
    let form = cursor.byte("coder and lanes")?;
    let lanes = 1_usize << (form >> 2 & 7);
    let rows = expected.order.rows(lanes);
    let mut header = StreamHeader {
        coder: Coder::Constant,
        rows,
        chunk_rows: rows.count().max(1),
        model_from_profile: form & FLAG_PROFILE != 0,
        symbol: 0,
        bytes: Parts::default(),
    };
    let most_lanes = match form & 3 {
        CODER_CONSTANT => {
            header.symbol = cursor.varint("constant symbol", expected.alphabet as u64 - 1)? as usize;
            1
        }
        CODER_PACKED => {
            header.coder = Coder::Packed;
            1
        }
        CODER_RANS => {
            header.coder = Coder::Rans;
            rans::MAX_LANES
        }
        _ => {
            let least = *tans::STATE_BITS.start();
            let more = u32::from(cursor.byte("states")?);
            if more > tans::STATE_BITS.end() - least {
                return Err(invalid(
                    "log2 of the states",
                    u64::from(more + least),
                    u64::from(*tans::STATE_BITS.end()),
                ));
            }
            header.coder = Coder::Tans { state_bits: least + more };
            tans::MAX_LANES
        }
    };
    if lanes > most_lanes {
        return Err(invalid("lanes", lanes as u64, most_lanes as u64));
    }
    let plain = matches!(header.coder, Coder::Constant | Coder::Packed);
    if form & 0x80 != 0 || (plain && form & (FLAG_CHUNKED | FLAG_PROFILE) != 0) {
        return Err(invalid("reserved bits of the coder", u64::from(form >> 5), 0));
    }
    header.bytes.header = cursor.offset() - before;
    if plain {
        if header.coder == Coder::Packed {
            let bits = expected.order.symbols() as u64 * u64::from(width_of(expected.alphabet));
            header.bytes.symbols = bits.div_ceil(8) as usize;
        }
    } else {
        if header.model_from_profile {
            check_profile(header.coder, expected, profile)?;
        } else {
            header.bytes.model = read_model(cursor, expected, header.coder, model, weights)?;
        }
        read_directory(cursor, form & FLAG_CHUNKED != 0, &mut header, lengths)?;
    }
    let (needed, available) = (header.bytes.payload(), cursor.rest().len());
    if needed > available {
        return Err(Error::Truncated { what: "payload", offset: cursor.offset(), needed, available });
    }
    Ok(header)
}

/// A profile's model serves rANS over the alphabet it was made for.
fn check_profile(coder: Coder, expected: &Expected, profile: Option<&Model>) -> Result<()> {
    let Some(profile) = profile.filter(|_| coder == Coder::Rans) else {
        return Err(invalid("model from a profile, where there is none to use", 1, 0));
    };
    let alphabet = profile.tables()[0].frequencies().len();
    if alphabet == expected.alphabet {
        Ok(())
    } else {
        Err(invalid("alphabet of the profile's tables", alphabet as u64, expected.alphabet as u64))
    }
}

fn read_model(
    cursor: &mut Cursor<'_>,
    expected: &Expected,
    coder: Coder,
    model: &mut Model,
    weights: &mut Vec<u32>,
) -> Result<usize> {
    let mut bits = BitReader::new(cursor.rest());
    let in_first = |what| Error::InvalidTable { table: 0, what };
    let kind = bits.take(CONTEXT_WIDTH).ok_or(in_first("the model ends early"))?;
    let tans = matches!(coder, Coder::Tans { .. });
    model.context = match (kind, expected.order) {
        (CONTEXT_NONE, _) => Context::None,
        (CONTEXT_NEIGHBOURS, Order::Planes(_)) if !tans => {
            Context::Neighbours(Classes::read(&mut bits, expected.alphabet).map_err(in_first)?)
        }
        (CONTEXT_SEGMENTS, Order::Segments(_, ends)) if !tans => Context::Segments { ends },
        _ => return Err(invalid("context", u64::from(kind), u64::from(CONTEXT_NONE))),
    };
    let probability_bits = coder.probability_bits(expected.alphabet);
    coding::read(&mut bits, model.tables_mut(), expected.alphabet, probability_bits, weights)
        .map_err(|(table, what)| Error::InvalidTable { table, what })?;
    if !bits.padding_is_zero() {
        return Err(in_first("bits are set after the last table"));
    }
    let length = bits.bytes_taken();
    cursor.take("model", length)?;
    Ok(length)
}

fn read_directory(
    cursor: &mut Cursor<'_>,
    chunked: bool,
    header: &mut StreamHeader,
    lengths: &mut Vec<u32>,
) -> Result<()> {
    let before = cursor.offset();
    let rows = header.rows;
    if chunked {
        let most = rows.count() as u64 - 1;
        header.chunk_rows = cursor.varint("rows of a chunk", most)? as usize;
        if header.chunk_rows == 0 {
            return Err(invalid("rows of a chunk", 0, most));
        }
    }
    let count = rows.count().div_ceil(header.chunk_rows);
    // A byte each at least: the directory is no longer than what is left.
    if count > cursor.rest().len() {
        let (offset, available) = (cursor.offset(), cursor.rest().len());
        return Err(Error::Truncated { what: "chunk directory", offset, needed: count, available });
    }
    lengths.clear();
    for chunk in chunks(&rows, header.chunk_rows) {
        let lanes = rows.width(chunk.start);
        let symbols = rows.range(&chunk).len() as u64;
        if let Coder::Tans { state_bits } = header.coder {
            header.bytes.states += (lanes * state_bits as usize).div_ceil(8);
            for _ in 0..lanes.div_ceil(tans::LANES_PER_STREAM) {
                let most = (symbols * u64::from(state_bits)).div_ceil(8);
                let length = cursor.varint("bytes of a bit stream", most)?;
                header.bytes.symbols += length as usize;
                lengths.push(length as u32);
            }
        } else {
            let words = cursor.varint("words of a chunk", symbols)?;
            header.bytes.states += 4 * lanes;
            header.bytes.symbols += 2 * words as usize;
            lengths.push(words as u32);
        }
    }
    header.bytes.directory = cursor.offset() - before;
    Ok(())
}
