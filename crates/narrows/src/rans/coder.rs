//! All chunks of a stream, by the path asked for: as many side by side as the backend likes.

use std::ops::Range;

use super::reference::{self, Slots};
#[cfg(target_arch = "x86_64")]
use super::simd::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::simd::avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use super::simd::neon::Neon;
use super::simd::portable::Portable;
use super::simd::{Simd, Step};
use super::tables::{self, DecodeTables, EncodeTables, Kernel, LookUps};
use super::walk::{self, Walk};
use super::{MAX_LANES, Symbol, decoding, encoding, few};
use crate::cpu::Path;
use crate::layout::Rows;
use crate::model::{Model, chunks};

/// Call `$call::<LEVELS, CLASS_BITS>(...)` with the bits of a kernel; `$of_slots` and `$of_coarse` are the levels of
/// [`Kernel::OfSlots`] and [`Kernel::OfCoarseSlots`].
macro_rules! with_bits {
    ($kernel:expr, [$of_slots:literal, $of_coarse:literal], $coder:ident . $call:ident :: <_, _> ( $($argument:expr),* )) => {
        match $kernel {
            Kernel::Of8 => $coder.$call::<3, 0>($($argument),*),
            Kernel::Of16 => $coder.$call::<4, 0>($($argument),*),
            Kernel::Of32 => $coder.$call::<5, 0>($($argument),*),
            Kernel::Of64 => $coder.$call::<6, 0>($($argument),*),
            Kernel::Of256 => $coder.$call::<8, 0>($($argument),*),
            // Encoders know the symbol.
            Kernel::OfSlots => $coder.$call::<$of_slots, 0>($($argument),*),
            Kernel::OfCoarseSlots => $coder.$call::<$of_coarse, 0>($($argument),*),
            Kernel::Of8In8 => $coder.$call::<3, 3>($($argument),*),
            Kernel::Of16In4 => $coder.$call::<4, 2>($($argument),*),
            Kernel::Of16In8 => $coder.$call::<4, 3>($($argument),*),
            Kernel::Of32In8 => $coder.$call::<5, 3>($($argument),*),
            Kernel::Of256In8 => $coder.$call::<8, 3>($($argument),*),
        }
    };
}

/// Call `$call(backend, ...)` with the backend of a path that the processor has; `None` for the reference.
macro_rules! with_backend {
    ($path:expr, $call:ident ( $($argument:expr),* )) => {
        match $path {
            Path::Reference => None,
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => match Avx2::new() {
                Some(backend) => Some($call(backend, $($argument),*)),
                None => Some($call(Portable, $($argument),*)),
            },
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => match Avx512::new() {
                Some(backend) => Some($call(backend, $($argument),*)),
                None => Some($call(Portable, $($argument),*)),
            },
            #[cfg(target_arch = "aarch64")]
            Path::Neon => match Neon::new() {
                Some(backend) => Some($call(backend, $($argument),*)),
                None => Some($call(Portable, $($argument),*)),
            },
            _ => Some($call(Portable, $($argument),*)),
        }
    };
}

/// Chunks of a stream that follow one another.
#[derive(Clone)]
pub(crate) struct Run<'a> {
    rows: &'a Rows,
    chunk_rows: usize,
    chunks: Range<usize>,
}

impl<'a> Run<'a> {
    /// The chunks `chunks` of a stream whose chunks have `chunk_rows` rows.
    pub(crate) fn new(rows: &'a Rows, chunk_rows: usize, chunks: Range<usize>) -> Self {
        Self { rows, chunk_rows, chunks }
    }

    /// All chunks.
    pub(crate) fn all(rows: &'a Rows, chunk_rows: usize) -> Self {
        Self::new(rows, chunk_rows, 0..rows.count().div_ceil(chunk_rows.max(1)))
    }

    /// Number of chunks.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The rows of each chunk.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        chunks(self.rows, self.chunk_rows).skip(self.chunks.start).take(self.len())
    }

    /// Where their symbols lie in the coded order.
    pub(crate) fn symbols(&self) -> Range<usize> {
        let row = |chunk: usize| self.rows.count().min(chunk * self.chunk_rows);
        self.rows.range(&(row(self.chunks.start)..row(self.chunks.end)))
    }

    /// Bytes of their payload, with these numbers of words.
    pub(crate) fn payload(&self, lengths: &[u32]) -> usize {
        let bytes =
            |(range, &words): (Range<usize>, &u32)| 4 * self.rows.width(range.start) + 2 * words as usize;
        self.ranges().zip(lengths).map(bytes).sum()
    }
}

/// Encodes the chunks of streams; keeps tables and buffers.
#[derive(Default)]
pub(crate) struct ChunkEncoder {
    tables: EncodeTables,
    /// Words of each chunk in lock-step, from the last on.
    words: Vec<u16>,
}

/// What an encoder appends to.
pub(crate) struct Output<'a> {
    /// First states and words.
    pub(crate) payload: &'a mut Vec<u8>,
    /// Words of each chunk.
    pub(crate) lengths: &'a mut Vec<u32>,
}

impl ChunkEncoder {
    /// Forget the tables made of the last model.
    #[cfg(feature = "stages")]
    pub(crate) fn forget(&mut self) {
        self.tables.basis.forget();
    }

    /// Append these chunks, whose symbols are `coded`.
    pub(crate) fn encode<S: Symbol>(
        &mut self,
        path: Path,
        coded: &[S],
        run: &Run<'_>,
        model: &Model,
        mut output: Output<'_>,
    ) {
        if run.len() == 0 {
            return;
        }
        if let Some(coded) = S::as_bytes(coded)
            && path != Path::Reference
            && tables::covers(model)
        {
            let (tables, words) = (&mut self.tables, &mut self.words);
            let stream = EncodeStream { coded, run, words };
            if with_backend!(path, encode_with(stream, tables, model, &mut output)).is_some() {
                return;
            }
        }
        let (rows, mut coded) = (run.rows, coded);
        for chunk in run.ranges() {
            self.words.clear();
            let symbols;
            (symbols, coded) = coded.split_at(rows.range(&chunk).len());
            let states = reference::encode_chunk(symbols, rows, &chunk, model, &mut self.words);
            let states = states[..rows.width(chunk.start)].iter().copied();
            let places = output.append(states, self.words.len()).as_chunks_mut().0;
            places.iter_mut().zip(&self.words).for_each(|(place, word)| *place = word.to_le_bytes());
        }
    }
}

impl Output<'_> {
    /// Append a chunk's first states; gives the room for its words.
    fn append(&mut self, states: impl Iterator<Item = u32>, words: usize) -> &mut [u8] {
        self.lengths.push(words as u32);
        states.for_each(|state| self.payload.extend_from_slice(&state.to_le_bytes()));
        let start = self.payload.len();
        self.payload.resize(start + 2 * words, 0);
        &mut self.payload[start..]
    }
}

struct EncodeStream<'a> {
    /// Symbols of the chunks that are left.
    coded: &'a [u8],
    run: &'a Run<'a>,
    words: &'a mut Vec<u16>,
}

fn encode_with<S: Simd>(
    simd: S,
    mut stream: EncodeStream<'_>,
    tables: &mut EncodeTables,
    model: &Model,
    output: &mut Output<'_>,
) {
    tables.set(model, look_ups::<S>(stream.run.rows));
    with_bits!(tables.basis.kernel, [8, 8], stream.encode::<_, _>(simd, tables, output));
}

impl EncodeStream<'_> {
    fn encode<const LEVELS: u32, const CLASS_BITS: u32>(
        &mut self,
        simd: impl Simd,
        tables: &EncodeTables,
        output: &mut Output<'_>,
    ) {
        let (mut ranges, mut left) = (self.run.ranges(), self.run.len());
        while left > 0 {
            let stream = &mut *self;
            let step = EncodeStep::<_, LEVELS, CLASS_BITS> { stream, tables, ranges: &mut ranges, output };
            left -= simd.step(step, left);
        }
    }
}

/// The next chunks to encode.
struct EncodeStep<'a, 'b, 'c, R, const LEVELS: u32, const CLASS_BITS: u32> {
    stream: &'a mut EncodeStream<'b>,
    tables: &'a EncodeTables,
    ranges: &'a mut R,
    output: &'a mut Output<'c>,
}

impl<R: Iterator<Item = Range<usize>>, const LEVELS: u32, const CLASS_BITS: u32> Step
    for EncodeStep<'_, '_, '_, R, LEVELS, CLASS_BITS>
{
    /// Chunks encoded.
    type Output = usize;

    fn take<S: Simd, const CHUNKS: usize>(self, simd: S) -> usize {
        let Self { stream: EncodeStream { coded: all, run, words }, tables, ranges, output } = self;
        let rows = run.rows;
        let ranges: [_; CHUNKS] = std::array::from_fn(|_| ranges.next().expect("chunks are left"));
        let room = rows.range(&ranges[0]).len() + MAX_LANES;
        if words.len() < CHUNKS * room {
            words.resize(CHUNKS * room, 0);
        }
        let mut words = words.chunks_exact_mut(room);
        let mut parts: [_; CHUNKS] = std::array::from_fn(|k| {
            let range = &ranges[k];
            let words = words.next().expect("room for each chunk");
            let walk = Walk::at(rows, range.start, range.end - 1);
            let coded;
            (coded, *all) = all.split_at(rows.range(range).len());
            encoding::Chunk::new(coded, words, walk)
        });
        // Where chunks differ in length or end in narrower rows, these come first, one by one.
        let common = shared_rows(rows, &ranges);
        for (part, range) in parts.iter_mut().zip(&ranges) {
            let rest = range.start + common..range.end;
            for run in walk::runs(rows, range).iter().rev() {
                let run = run.start.max(rest.start)..run.end;
                if !run.is_empty() {
                    part.walk = Walk::at(rows, range.start, run.end - 1);
                    if rows.lanes() <= S::FEW_LANES && few::covers(part.walk.width) {
                        few::encode_rows(tables, part, run.len());
                        continue;
                    }
                    let part = std::array::from_mut(part);
                    encoding::encode_rows::<_, LEVELS, CLASS_BITS, 1>(simd, tables, part, run.len());
                }
            }
            if common > 0 {
                part.walk = Walk::at(rows, range.start, range.start + common - 1);
            }
        }
        encoding::encode_rows::<_, LEVELS, CLASS_BITS, CHUNKS>(simd, tables, &mut parts, common);
        for (part, range) in parts.iter().zip(&ranges) {
            let words = part.words();
            let room = output.append(part.states(rows.width(range.start)), words.len());
            simd.vectorize(encoding::Reversed { words, room });
        }
        CHUNKS
    }
}

/// Decodes the chunks of streams; keeps tables.
#[derive(Default)]
pub(crate) struct ChunkDecoder {
    tables: DecodeTables,
    slots: Slots,
}

/// What a decoder reads: the payload of some chunks, and how many words each has.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// First states and words.
    pub(crate) payload: &'a [u8],
    /// Words of each chunk.
    pub(crate) lengths: &'a [u32],
}

impl ChunkDecoder {
    /// Forget the tables made of the last model.
    #[cfg(feature = "stages")]
    pub(crate) fn forget(&mut self) {
        self.tables.basis.forget();
    }

    /// Decode these chunks over `coded`, which is as long as their symbols. Safe on any input; an error is a
    /// chunk and what does not hold in it, the same on every path.
    pub(crate) fn decode<S: Symbol>(
        &mut self,
        path: Path,
        input: Input<'_>,
        run: &Run<'_>,
        model: &Model,
        coded: &mut [S],
    ) -> Result<(), (usize, &'static str)> {
        if run.len() == 0 {
            return Ok(());
        }
        let mut refused = false;
        if let Some(coded) = S::as_bytes_mut(coded)
            && path != Path::Reference
            && tables::covers(model)
        {
            let (tables, stream) = (&mut self.tables, DecodeStream { coded, run, input });
            if with_backend!(path, decode_with(stream, tables, model)) == Some(true) {
                return Ok(());
            }
            // The reference says what does not hold, and where.
            refused = true;
        }
        self.slots.set(model);
        let (rows, mut payload, mut left) = (run.rows, input.payload, &mut *coded);
        for ((index, chunk), &words) in run.chunks.clone().zip(run.ranges()).zip(input.lengths) {
            let lanes = rows.width(chunk.start);
            let (states, words) = take_chunk(&mut payload, lanes, words).split_at(4 * lanes);
            let mut first = [0; MAX_LANES];
            for (state, bytes) in first.iter_mut().zip(states.as_chunks().0) {
                *state = u32::from_le_bytes(*bytes);
            }
            let symbols;
            (symbols, left) = left.split_at_mut(rows.range(&chunk).len());
            reference::decode_chunk(symbols, rows, &chunk, model, &self.slots, first, words)
                .map_err(|what| (index, what))?;
        }
        assert!(!(refused && cfg!(test)), "a path refuses what the reference takes");
        Ok(())
    }
}

/// The next chunk's part of the payload.
fn take_chunk<'a>(payload: &mut &'a [u8], lanes: usize, words: u32) -> &'a [u8] {
    let (chunk, rest) = payload.split_at(4 * lanes + 2 * words as usize);
    *payload = rest;
    chunk
}

struct DecodeStream<'a> {
    /// Symbols of the chunks that are left.
    coded: &'a mut [u8],
    run: &'a Run<'a>,
    input: Input<'a>,
}

/// Decode all chunks; false if something does not hold.
fn decode_with<S: Simd>(
    simd: S,
    mut stream: DecodeStream<'_>,
    tables: &mut DecodeTables,
    model: &Model,
) -> bool {
    tables.set(model, look_ups::<S>(stream.run.rows));
    with_bits!(tables.basis.kernel, [14, 12], stream.decode::<_, _>(simd, tables))
}

impl DecodeStream<'_> {
    fn decode<const LEVELS: u32, const CLASS_BITS: u32>(
        &mut self,
        simd: impl Simd,
        tables: &DecodeTables,
    ) -> bool {
        let (mut ranges, mut left) = (self.run.ranges(), self.run.len());
        while left > 0 {
            let stream = &mut *self;
            let step = DecodeStep::<_, LEVELS, CLASS_BITS> { stream, tables, ranges: &mut ranges };
            match simd.step(step, left) {
                Some(taken) => left -= taken,
                None => return false,
            }
        }
        true
    }
}

/// The next chunks to decode.
struct DecodeStep<'a, 'b, R, const LEVELS: u32, const CLASS_BITS: u32> {
    stream: &'a mut DecodeStream<'b>,
    tables: &'a DecodeTables,
    ranges: &'a mut R,
}

impl<R: Iterator<Item = Range<usize>>, const LEVELS: u32, const CLASS_BITS: u32> Step
    for DecodeStep<'_, '_, R, LEVELS, CLASS_BITS>
{
    /// Chunks decoded; none if something does not hold.
    type Output = Option<usize>;

    fn take<S: Simd, const CHUNKS: usize>(self, simd: S) -> Option<usize> {
        let Self { stream: DecodeStream { coded: all, run, input }, tables, ranges } = self;
        let rows = run.rows;
        let ranges: [_; CHUNKS] = std::array::from_fn(|_| ranges.next().expect("chunks are left"));
        let mut parts: [_; CHUNKS] = std::array::from_fn(|k| {
            let range = &ranges[k];
            let (&words, rest) = input.lengths.split_first().expect("a length for each chunk");
            input.lengths = rest;
            let lanes = rows.width(range.start);
            let payload = take_chunk(&mut input.payload, lanes, words);
            let (coded, rest) = std::mem::take(all).split_at_mut(rows.range(range).len());
            *all = rest;
            decoding::Chunk::new(coded, payload, Walk::at(rows, range.start, range.start))
        });
        let all_start_well = |parts: &[decoding::Chunk<'_>]| {
            parts.iter().zip(&ranges).all(|(part, range)| part.starts_well(rows.width(range.start)))
        };
        let common = shared_rows(rows, &ranges);
        if !all_start_well(&parts)
            || !decoding::decode_rows::<_, LEVELS, CLASS_BITS, CHUNKS>(simd, tables, &mut parts, common)
        {
            return None;
        }
        let well = parts.iter_mut().zip(&ranges).all(|(part, range)| {
            let rest = range.start + common..range.end;
            walk::runs(rows, range).into_iter().all(|run| {
                let run = run.start.max(rest.start)..run.end;
                if run.is_empty() {
                    return true;
                }
                part.walk = Walk::at(rows, range.start, run.start);
                if rows.lanes() <= S::FEW_LANES && few::covers(part.walk.width) {
                    return few::decode_rows(tables, part, run.len());
                }
                let part = std::array::from_mut(&mut *part);
                decoding::decode_rows::<_, LEVELS, CLASS_BITS, 1>(simd, tables, part, run.len())
            }) && part.ends_well(rows.width(range.start))
        });
        well.then_some(CHUNKS)
    }
}

/// What rows are coded with: no vectors where lanes are few.
fn look_ups<S: Simd>(rows: &Rows) -> LookUps {
    if rows.lanes() > S::FEW_LANES { LookUps::of::<S>(rows.symbols()) } else { LookUps::PLAIN }
}

/// Rows from the first on that are full in all chunks.
fn shared_rows(rows: &Rows, ranges: &[Range<usize>]) -> usize {
    let full = |range: &Range<usize>| {
        if rows.width(range.start) == MAX_LANES { walk::runs(rows, range)[0].len() } else { 0 }
    };
    if ranges.len() == 1 { 0 } else { ranges.iter().map(full).min().unwrap_or(0) }
}
