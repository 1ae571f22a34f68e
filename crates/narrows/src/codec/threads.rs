//! The chunks of a large stream shared out among threads: each takes a run of them, with tables and buffers of its
//! own. The bytes and the symbols do not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::cpu::Path;
use crate::layout::Rows;
use crate::model::Model;
use crate::rans::{ChunkDecoder, ChunkEncoder, Input, Output, Run, Symbol};

/// Symbols that are worth a thread: about 50 us of coding.
const LEAST_SYMBOLS: usize = 1 << 17;
/// A path codes up to this many chunks side by side.
const SIDE_BY_SIDE: usize = 4;

/// The runs of chunks that up to `threads` threads take; one if the stream is small.
fn shares(rows: &Rows, chunk_rows: usize, threads: usize) -> impl Iterator<Item = Run<'_>> {
    let chunks = Run::all(rows, chunk_rows).len();
    let threads = threads.min(rows.symbols() / LEAST_SYMBOLS).min(chunks / SIDE_BY_SIDE).max(1);
    let share = chunks.div_ceil(threads).next_multiple_of(SIDE_BY_SIDE);
    (0..chunks).step_by(share).map(move |first| Run::new(rows, chunk_rows, first..chunks.min(first + share)))
}

/// An encoder for each thread, and what it wrote.
#[derive(Default)]
struct EncodeWorker {
    encoder: ChunkEncoder,
    payload: Vec<u8>,
    lengths: Vec<u32>,
}

/// Encoders, kept between calls.
#[derive(Default)]
pub(super) struct EncodeWorkers(Vec<EncodeWorker>);

impl EncodeWorkers {
    /// As [`ChunkEncoder::encode`] of all chunks, on up to `threads` threads of the current pool.
    pub(super) fn encode<S: Symbol>(
        &mut self,
        (path, threads): (Path, usize),
        coded: &[S],
        (rows, chunk_rows): (&Rows, usize),
        model: &Model,
        Output { payload: out, lengths: out_lengths }: Output<'_>,
    ) {
        let shares: Vec<Run<'_>> = shares(rows, chunk_rows, threads).collect();
        self.0.resize_with(self.0.len().max(shares.len()), EncodeWorker::default);
        let workers = &mut self.0[..shares.len()];
        workers.par_iter_mut().zip(&shares).for_each(|(worker, share)| {
            let EncodeWorker { encoder, payload, lengths } = worker;
            payload.clear();
            lengths.clear();
            encoder.encode(path, &coded[share.symbols()], share, model, Output { payload, lengths });
        });
        for worker in &self.0[..shares.len()] {
            out.extend_from_slice(&worker.payload);
            out_lengths.extend_from_slice(&worker.lengths);
        }
    }
}

/// Decoders, kept between calls.
#[derive(Default)]
pub(super) struct DecodeWorkers(Vec<ChunkDecoder>);

impl DecodeWorkers {
    /// As [`ChunkDecoder::decode`] of all chunks, on up to `threads` threads of the current pool.
    pub(super) fn decode<S: Symbol>(
        &mut self,
        (path, threads): (Path, usize),
        input: Input<'_>,
        (rows, chunk_rows): (&Rows, usize),
        model: &Model,
        coded: &mut [S],
    ) -> Result<(), (usize, &'static str)> {
        let (mut input, mut coded) = (input, coded);
        let parts: Vec<(Run<'_>, Input<'_>, &mut [S])> = shares(rows, chunk_rows, threads)
            .map(|share| {
                let Range { start, end } = share.symbols();
                let symbols;
                (symbols, coded) = std::mem::take(&mut coded).split_at_mut(end - start);
                let (lengths, rest) = input.lengths.split_at(share.len());
                let (payload, payload_rest) = input.payload.split_at(share.payload(lengths));
                input = Input { payload: payload_rest, lengths: rest };
                (share, Input { payload, lengths }, symbols)
            })
            .collect();
        self.0.resize_with(self.0.len().max(parts.len()), ChunkDecoder::default);
        let decode =
            |(decoder, (share, input, symbols)): (&mut ChunkDecoder, (Run<'_>, Input<'_>, &mut [S]))| {
                decoder.decode(path, input, &share, model, symbols)
            };
        let results: Vec<_> = self.0.par_iter_mut().zip(parts).map(decode).collect();
        // The error of the first chunk that has one, whichever thread was first.
        results.into_iter().collect()
    }
}
