//! Symbols to a stream and back, by the coder the plan or the stream's header names.

use std::ops::Range;

use super::plan::Plan;
#[cfg(feature = "rayon")]
use super::threads::{DecodeWorkers, EncodeWorkers};
use crate::bits::{BitReader, BitWriter, width_of};
use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::frame::Cursor;
use crate::frame::stream::{self, Coder, Expected, StreamHeader};
use crate::model::Model;
use crate::rans::{self, Run, Symbol};
use crate::tans;
use crate::tans::spec::Machine;

/// Buffers for writing streams.
#[derive(Default)]
pub(crate) struct StreamWriter {
    pub(crate) path: Path,
    /// Threads to share chunks out among; 0 and 1 are none but the caller's.
    #[cfg(feature = "rayon")]
    pub(crate) threads: usize,
    #[cfg(feature = "rayon")]
    workers: EncodeWorkers,
    rans: rans::ChunkEncoder,
    payload: Vec<u8>,
    lengths: Vec<u32>,
    machine: Machine,
    tans: tans::Scratch,
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

    /// Bytes of the payload written last.
    pub(crate) fn payload(&self) -> usize {
        self.payload.len()
    }

    fn write_rans<S: Symbol>(&mut self, coded: &[S], plan: &Plan, model: &Model) {
        let output = rans::Output { payload: &mut self.payload, lengths: &mut self.lengths };
        #[cfg(feature = "rayon")]
        if self.threads > 1 {
            let how = (self.path, self.threads);
            return self.workers.encode(how, coded, (&plan.rows, plan.chunk_rows), model, output);
        }
        self.rans.encode(self.path, coded, &Run::all(&plan.rows, plan.chunk_rows), model, output);
    }

    /// Forget the tables made of the last model.
    #[cfg(feature = "stages")]
    pub(crate) fn forget(&mut self) {
        self.rans.forget();
    }

    fn write_tans<S: Symbol>(&mut self, coded: &[S], plan: &Plan, model: &Model) {
        let coded = S::as_bytes(coded).expect("tANS is planned for byte symbols only");
        let table = &model.tables()[0];
        let Self { path, machine, tans, payload, lengths, .. } = self;
        machine.set(table);
        let order = (&plan.rows, plan.chunk_rows);
        tans::encode(*path, coded, order, (table, machine), tans, payload, lengths);
    }
}

/// Buffers for reading streams.
#[derive(Default)]
pub(crate) struct StreamReader {
    pub(crate) path: Path,
    /// Threads to share chunks out among; 0 and 1 are none but the caller's.
    #[cfg(feature = "rayon")]
    pub(crate) threads: usize,
    #[cfg(feature = "rayon")]
    workers: DecodeWorkers,
    model: Model,
    weights: Vec<u32>,
    lengths: Vec<u32>,
    rans: rans::ChunkDecoder,
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

    /// Forget the tables made of the last model.
    #[cfg(feature = "stages")]
    pub(crate) fn forget(&mut self) {
        self.rans.forget();
    }

    /// Decode the chunks that `choose` picks by the stream's header into `coded`; gives them too. Streams that are
    /// not rANS-coded are decoded whole.
    pub(crate) fn read_chunks(
        &mut self,
        cursor: &mut Cursor<'_>,
        expected: &Expected,
        profile: Option<&Model>,
        choose: impl FnOnce(&StreamHeader) -> Range<usize>,
        coded: &mut Vec<u8>,
    ) -> Result<(StreamHeader, Range<usize>)> {
        let start = cursor.clone();
        let header = self.read_header(cursor, expected, profile)?;
        if header.coder != Coder::Rans {
            *cursor = start;
            let header = self.read(cursor, expected, profile, coded)?;
            let chunks = header.rows.count().div_ceil(header.chunk_rows.max(1));
            return Ok((header, 0..chunks));
        }
        let payload = cursor.take("payload", header.bytes.payload())?;
        let chosen = choose(&header);
        let before = Run::new(&header.rows, header.chunk_rows, 0..chosen.start);
        let run = Run::new(&header.rows, header.chunk_rows, chosen.clone());
        let payload = &payload[before.payload(&self.lengths)..];
        coded.resize(run.symbols().len(), 0);
        let model = profile.filter(|_| header.model_from_profile).unwrap_or(&self.model);
        let lengths = &self.lengths[chosen.clone()];
        self.rans
            .decode(self.path, rans::Input { payload, lengths }, &run, model, coded)
            .map_err(|(chunk, what)| corrupt(chunk)(what))?;
        Ok((header, chosen))
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
        // What was there before is written over.
        coded.resize(expected.order.symbols(), S::default());
        let model = profile.filter(|_| header.model_from_profile).unwrap_or(&self.model);
        match header.coder {
            Coder::Constant => coded.fill(S::from_index(header.symbol)),
            Coder::Packed => read_packed(payload, expected.alphabet, coded)?,
            Coder::Rans => {
                let input = rans::Input { payload, lengths: &self.lengths };
                let run = Run::all(&header.rows, header.chunk_rows);
                #[cfg(feature = "rayon")]
                let result = if self.threads > 1 {
                    let how = (self.path, self.threads);
                    self.workers.decode(how, input, (&header.rows, header.chunk_rows), model, coded)
                } else {
                    self.rans.decode(self.path, input, &run, model, coded)
                };
                #[cfg(not(feature = "rayon"))]
                let result = self.rans.decode(self.path, input, &run, model, coded);
                result.map_err(|(chunk, what)| corrupt(chunk)(what))?;
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
                let order = (&header.rows, header.chunk_rows);
                tans::decode(self.path, coded, order, &self.machine, payload, &self.lengths)
                    .map_err(|(chunk, what)| corrupt(chunk)(what))?;
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
