//! Symbols to a stream and back, by the coder the plan or the stream's header names.

use super::plan::Plan;
use crate::bits::{BitReader, BitWriter, width_of};
use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::frame::Cursor;
use crate::frame::stream::{self, Coder, Expected, StreamHeader};
use crate::model::{Model, chunks};
use crate::rans::reference::{self, Slots};
use crate::rans::{MAX_LANES, Symbol};
use crate::tans;
use crate::tans::spec::Machine;

/// Buffers for writing streams.
#[derive(Default)]
pub(crate) struct StreamWriter {
    pub(crate) path: Path,
    words: Vec<u16>,
    payload: Vec<u8>,
    lengths: Vec<u32>,
    machine: Machine,
    taken: Vec<(u16, u8)>,
}

impl StreamWriter {
    /// Append the stream of `coded`, which lies in the order of `plan.rows`; `model` is the plan's own or
    /// the profile's.
    pub(crate) fn write<S: Symbol>(&mut self, coded: &[S], plan: &Plan, model: &Model, out: &mut Vec<u8>) {
        self.payload.clear();
        self.lengths.clear();
        match plan.coder {
            Coder::Constant => {}
            Coder::Packed => {
                let width = width_of(plan.alphabet);
                let mut bits = BitWriter::new(&mut self.payload);
                coded.iter().for_each(|symbol| bits.put(symbol.index() as u32, width));
                bits.finish();
            }
            Coder::Rans => self.write_rans(coded, plan, model),
            Coder::Tans { .. } => self.write_tans(coded, plan, model),
        }
        plan.write_header(&self.lengths, out);
        out.extend_from_slice(&self.payload);
    }

    fn write_rans<S: Symbol>(&mut self, coded: &[S], plan: &Plan, model: &Model) {
        for chunk in chunks(&plan.rows, plan.chunk_rows) {
            self.words.clear();
            let symbols = &coded[plan.rows.range(&chunk)];
            let states = reference::encode_chunk(symbols, &plan.rows, &chunk, model, &mut self.words);
            let lanes = plan.rows.width(chunk.start);
            self.payload.extend(states[..lanes].iter().flat_map(|state| state.to_le_bytes()));
            self.payload.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
            self.lengths.push(self.words.len() as u32);
        }
    }

    fn write_tans<S: Symbol>(&mut self, coded: &[S], plan: &Plan, model: &Model) {
        let coded = S::as_bytes(coded).expect("tANS is planned for byte symbols only");
        let table = &model.tables()[0];
        self.machine.set(table);
        for chunk in chunks(&plan.rows, plan.chunk_rows) {
            let symbols = &coded[plan.rows.range(&chunk)];
            let Self { machine, taken, payload, lengths, .. } = self;
            let output = tans::encoding::Output { taken, payload, lengths };
            tans::encoding::encode_chunk(symbols, &plan.rows, &chunk, (table, machine), output);
        }
    }
}

/// Buffers for reading streams.
#[derive(Default)]
pub(crate) struct StreamReader {
    pub(crate) path: Path,
    model: Model,
    weights: Vec<u32>,
    lengths: Vec<u32>,
    slots: Slots,
    machine: Machine,
}

impl StreamReader {
    /// Read a stream's header without decoding its symbols; the cursor ends behind its payload.
    pub(crate) fn survey<'a>(
        &'a mut self,
        cursor: &mut Cursor<'_>,
        expected: &Expected,
        profile: Option<&'a Model>,
    ) -> Result<(StreamHeader, &'a Model)> {
        let header = self.read_header(cursor, expected, profile)?;
        cursor.take("payload", header.bytes.payload())?;
        let own = &self.model;
        Ok((header.clone(), profile.filter(|_| header.model_from_profile).unwrap_or(own)))
    }

    /// The directory of the stream surveyed last: words of each chunk for rANS.
    pub(crate) fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// The model of the stream surveyed last, if that has one of its own.
    pub(crate) const fn model(&self) -> &Model {
        &self.model
    }

    fn read_header(
        &mut self,
        cursor: &mut Cursor<'_>,
        expected: &Expected,
        profile: Option<&Model>,
    ) -> Result<StreamHeader> {
        stream::read(cursor, expected, profile, &mut self.model, &mut self.weights, &mut self.lengths)
    }

    /// Decode a stream into `coded`, in the order of the returned header's rows.
    pub(crate) fn read<S: Symbol>(
        &mut self,
        cursor: &mut Cursor<'_>,
        expected: &Expected,
        profile: Option<&Model>,
        coded: &mut Vec<S>,
    ) -> Result<StreamHeader> {
        let header = self.read_header(cursor, expected, profile)?;
        let payload = cursor.take("payload", header.bytes.payload())?;
        coded.clear();
        coded.resize(expected.order.symbols(), S::from_index(header.symbol));
        let model = profile.filter(|_| header.model_from_profile).unwrap_or(&self.model);
        match header.coder {
            Coder::Constant => {}
            Coder::Packed => read_packed(payload, expected.alphabet, coded)?,
            Coder::Rans => {
                self.slots.set(model);
                read_rans(payload, &header, model, &self.slots, &self.lengths, coded)?;
            }
            Coder::Tans { .. } => {
                let Some(coded) = S::as_bytes_mut(coded) else {
                    return Err(Error::InvalidHeader {
                        what: "tANS for symbols of two bytes",
                        value: 3,
                        bound: 2,
                    });
                };
                self.machine.set(&model.tables()[0]);
                read_tans(payload, &header, &self.machine, &self.lengths, coded)?;
            }
        }
        Ok(header)
    }
}

fn corrupt(chunk: usize) -> impl Fn(&'static str) -> Error {
    move |what| Error::CorruptPayload { chunk, what }
}

fn read_packed<S: Symbol>(payload: &[u8], alphabet: usize, coded: &mut [S]) -> Result<()> {
    let width = width_of(alphabet);
    let mut bits = BitReader::new(payload);
    for symbol in coded {
        let index =
            bits.take(width).ok_or_else(|| corrupt(0)("the bits end before the symbols do"))? as usize;
        if index >= alphabet {
            return Err(corrupt(0)("a symbol is outside the alphabet"));
        }
        *symbol = S::from_index(index);
    }
    if bits.padding_is_zero() { Ok(()) } else { Err(corrupt(0)("bits are set after the last symbol")) }
}

fn read_rans<S: Symbol>(
    mut payload: &[u8],
    header: &StreamHeader,
    model: &Model,
    slots: &Slots,
    lengths: &[u32],
    coded: &mut [S],
) -> Result<()> {
    for ((index, chunk), &words) in chunks(&header.rows, header.chunk_rows).enumerate().zip(lengths) {
        let lanes = header.rows.width(chunk.start);
        let (first, rest) = payload.split_at(4 * lanes);
        let (words, rest) = rest.split_at(2 * words as usize);
        payload = rest;
        let mut states = [0; MAX_LANES];
        for (state, bytes) in states.iter_mut().zip(first.chunks_exact(4)) {
            *state = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let coded = &mut coded[header.rows.range(&chunk)];
        reference::decode_chunk(coded, &header.rows, &chunk, model, slots, states, words)
            .map_err(corrupt(index))?;
    }
    Ok(())
}

fn read_tans(
    mut payload: &[u8],
    header: &StreamHeader,
    machine: &Machine,
    mut lengths: &[u32],
    coded: &mut [u8],
) -> Result<()> {
    for (index, chunk) in chunks(&header.rows, header.chunk_rows).enumerate() {
        let lanes = header.rows.width(chunk.start);
        let (streams, rest) = lengths.split_at(lanes.div_ceil(tans::LANES_PER_STREAM));
        lengths = rest;
        let states = (lanes * machine.bits as usize).div_ceil(8);
        let bytes = states + streams.iter().map(|&length| length as usize).sum::<usize>();
        let (chunk_payload, rest) = payload.split_at(bytes);
        payload = rest;
        let coded = &mut coded[header.rows.range(&chunk)];
        tans::decoding::decode_chunk(coded, &header.rows, &chunk, machine, chunk_payload, streams)
            .map_err(corrupt(index))?;
    }
    Ok(())
}
