//! Frames to launches.

use narrows::stream::{Chooser, Survey, Table};
use narrows::{Dequantizer, Dtype, Layout};

use super::job::{CsrJob, DIRECT, DecodeJob, SYMBOLS, dtype, maps};
use super::{Kernel, Launch, Pieces, Rooms, SHARED_BYTES};

const DECODE_THREADS: u32 = 128;
const DECODE_WARPS: usize = DECODE_THREADS as usize / 32;
/// Bytes of a warp's window of words and of its tile of symbols (`kernels/decode.cuh`).
const WARP_BYTES: usize = 256 + 32 * 33;
const CSR_THREADS: u32 = 256;
/// Bits of the probabilities with which one table has an entry for every slot; alphabets have at most 16 symbols then.
const SLOT_BITS: u32 = 12;
/// Shared memory that is left to tables where they have to be searched.
const SEARCHED_BYTES: usize = 35 << 10;

/// What the kernels say of a stream that no encoder wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The chunk.
    pub chunk: usize,
    /// What does not hold.
    pub what: &'static str,
}

const WHAT: [&str; 7] = [
    "the words end before the symbols do",
    "words are left over",
    "a lane's first state is below 2^16",
    "a lane does not end at state 2^16",
    "the rows' counts do not add up to the non-zeros",
    "a column is outside its row or out of order",
    "a value is not a symbol",
];

impl Fault {
    /// What a status word says.
    pub fn of_status(status: u32) -> Option<Self> {
        let what = *WHAT.get(status as usize % 8).unwrap_or(&"an unknown fault");
        (status != u32::MAX).then_some(Self { chunk: status as usize / 8, what })
    }
}

/// Frames on their way to the device: jobs, tables and payloads in one piece of memory.
#[derive(Debug, Default)]
pub struct DecodeBatch {
    pieces: Pieces,
    scratch: Rooms,
    jobs: Vec<DecodeJob>,
    csr: Vec<CsrJob>,
    shared: usize,
    constants: Option<String>,
}

/// A batch with its addresses filled in.
#[derive(Debug)]
pub struct Staged {
    /// Where in the batch's bytes the status words are, one for each frame.
    pub statuses: std::ops::Range<usize>,
    /// What to launch, in order.
    pub launches: Vec<Launch>,
}

/// Bytes of the tables in shared memory (`build_decode_tables` in `kernels/decode_tables.cuh`), and the buckets' shift.
fn shared_tables(survey: &Survey<'_>, channels: usize, is_values: bool) -> (usize, u32) {
    let (tables, bits) = (survey.tables.len(), survey.tables[0].bits());
    let values = if channels == 1 && is_values { survey.alphabet * 4 } else { 0 };
    if tables == 1 && bits == SLOT_BITS {
        return (values + (4 << SLOT_BITS), DIRECT);
    }
    let fixed = match survey.chooser {
        Chooser::Neighbours { .. } => values + 64 * 4 + tables * survey.alphabet * 4,
        Chooser::None => values + tables * survey.alphabet * 4,
        Chooser::Segments(_) => values + (tables * (survey.alphabet + 1) * 2).next_multiple_of(4),
    };
    let (slots, bucket) = (tables << bits, if survey.alphabet > 256 { 2 } else { 1 });
    // As fine as there is room for.
    let fits = |&shift: &u32| fixed + (slots >> shift) * bucket <= SEARCHED_BYTES;
    let shift = (0..bits).find(fits).unwrap_or(bits);
    (fixed + ((slots >> shift) * bucket).next_multiple_of(4), shift)
}

impl DecodeBatch {
    /// Forget the frames, keep the memory.
    pub fn clear(&mut self) {
        self.pieces.0.clear();
        self.scratch = Rooms::default();
        self.jobs.clear();
        self.csr.clear();
        self.shared = 0;
        self.constants = None;
    }

    /// What a kernel made for these frames has for constants; none if they are of several kinds.
    pub fn constants(&self) -> Option<&str> {
        self.constants.as_deref()
    }

    /// Frames in it.
    pub fn frames(&self) -> usize {
        self.jobs.len()
    }

    /// Add a frame, whose elements go to an address on the device.
    pub fn push(&mut self, survey: &Survey<'_>, of: Dtype, elements: u64) {
        let is_csr = matches!(survey.layout, Layout::CsrJoint { .. } | Layout::CsrSeparate { .. });
        let channels = match survey.dequantizer {
            Dequantizer::Tensor(_) => 1,
            Dequantizer::PerChannel(maps) => maps.len(),
        };
        let (tables, bucket_shift) = shared_tables(survey, channels, !is_csr);
        let geometry = &survey.geometry;
        let mut job = DecodeJob {
            payload: self.pieces.push(survey.payload),
            cumulative: self.push_tables(survey),
            chunks: self.push_chunks(survey),
            maps: self.pieces.push(&maps(survey.dequantizer)),
            elements,
            geometry: geometry.into(),
            alphabet: survey.alphabet as u32,
            probability_bits: survey.tables[0].bits(),
            tables: survey.tables.len() as u32,
            bucket_shift,
            dtype: if is_csr { SYMBOLS } else { dtype(of) },
            channels: channels as u32,
            inner: survey.planes.inner() as u32,
            ..DecodeJob::default()
        };
        let mut shared = tables + DECODE_WARPS * WARP_BYTES;
        match survey.chooser {
            Chooser::None => {}
            Chooser::Segments(ends) => {
                job.chooser = 2;
                job.segment_ends = ends.map(|end| end as u32);
            }
            // With one table there is nothing to choose.
            Chooser::Neighbours { .. } if survey.tables.len() == 1 => {}
            Chooser::Neighbours { of_bin, shift } => {
                job.chooser = 1;
                job.sum_shift = shift;
                job.classes = self.pieces.push(of_bin);
                if geometry.line <= geometry.chunk_rows {
                    job.history_rows = geometry.line as u32;
                    let line = geometry.line * 32;
                    if shared + DECODE_WARPS * line <= SHARED_BYTES {
                        shared += DECODE_WARPS * line;
                    } else {
                        // One more than its place, so that zero goes on to say "in shared memory".
                        job.history = self.scratch.take((geometry.chunks() * line) as u64) + 1;
                    }
                }
            }
        }
        if is_csr {
            let count = survey.planes.count() * survey.planes.positions();
            let rows = geometry.symbols() - 2 * survey.nonzeros;
            job.elements = self.scratch.take(geometry.symbols() as u64 * 2);
            self.csr.push(CsrJob {
                symbols: job.elements,
                starts: self.scratch.take(rows as u64 * 4),
                maps: job.maps,
                elements,
                // Until the batch is staged: which frame it is.
                status: self.jobs.len() as u64,
                rows: rows as u32,
                columns: (count / rows) as u32,
                nonzeros: survey.nonzeros as u32,
                levels: u32::from(survey.dequantizer.levels()),
                dtype: dtype(of),
                channels: channels as u32,
                inner: job.inner,
                padding: 0,
            });
        }
        self.shared = self.shared.max(shared);
        let constants = job.constants();
        self.constants = match self.constants.take() {
            None if self.jobs.is_empty() => Some(constants),
            before => before.filter(|before| *before == constants),
        };
        self.jobs.push(job);
    }

    /// Bytes of memory that the kernels need for themselves.
    pub const fn scratch_bytes(&self) -> u64 {
        self.scratch.0
    }

    /// An upper bound for the bytes to copy to the device.
    pub fn staged_bytes(&self) -> u64 {
        let each = (size_of::<DecodeJob>() + size_of::<CsrJob>() + 4) * self.jobs.len();
        self.pieces.0.len() as u64 + each as u64 + 64
    }

    /// What to copy to the device, once it is staged.
    pub fn bytes(&self) -> &[u8] {
        &self.pieces.0
    }

    /// Fill in addresses: of the bytes' place on the device (a multiple of 16), and of the scratch memory (of 256).
    /// Launches have at most `blocks` blocks for a frame.
    pub fn stage(&mut self, base: u64, scratch: u64, blocks: u32) -> Staged {
        let status = self.pieces.push(&vec![u32::MAX; self.jobs.len()]);
        for (job, index) in self.jobs.iter_mut().zip(0..) {
            for at in
                [&mut job.payload, &mut job.chunks, &mut job.cumulative, &mut job.classes, &mut job.maps]
            {
                *at += base;
            }
            job.status = base + status + index * 4;
            if job.history > 0 {
                job.history += scratch - 1;
            }
            if job.dtype == SYMBOLS {
                job.elements += scratch;
            }
        }
        for job in &mut self.csr {
            job.symbols += scratch;
            job.starts += scratch;
            job.maps += base;
            job.status = base + status + job.status * 4;
        }
        let (most_chunks, frames) =
            (self.jobs.iter().map(|job| job.geometry.chunks).max(), self.jobs.len() as u32);
        let grid = most_chunks.unwrap_or(1).div_ceil(DECODE_WARPS as u32).clamp(1, blocks);
        let jobs = base + self.pieces.push(&self.jobs);
        let shared = self.shared as u32;
        let kernel = Kernel::Decode;
        let mut launches =
            vec![Launch { kernel, grid: (grid, frames), threads: DECODE_THREADS, shared, jobs }];
        if !self.csr.is_empty() {
            let (jobs, frames) = (base + self.pieces.push(&self.csr), self.csr.len() as u32);
            let rows = self.csr.iter().map(|job| job.rows).max().unwrap_or(1);
            let levels = self.csr.iter().map(|job| job.levels).max().unwrap_or(1);
            let grid = rows.div_ceil(CSR_THREADS).clamp(1, blocks);
            let threads = CSR_THREADS;
            launches.push(Launch {
                kernel: Kernel::CsrStarts,
                grid: (1, frames),
                threads,
                shared: 33 * 4,
                jobs,
            });
            launches.push(Launch {
                kernel: Kernel::CsrSpread,
                grid: (grid, frames),
                threads,
                shared: levels * 4,
                jobs,
            });
        }
        let statuses = status as usize..status as usize + 4 * self.jobs.len();
        Staged { statuses, launches }
    }

    fn push_tables(&mut self, survey: &Survey<'_>) -> u64 {
        let cumulative: Vec<u16> = survey.tables.iter().flat_map(Table::cumulative).copied().collect();
        self.pieces.push(&cumulative)
    }

    fn push_chunks(&mut self, survey: &Survey<'_>) -> u64 {
        let mut start = 0;
        let mut chunks = Vec::with_capacity(2 * survey.words.len());
        for (chunk, &words) in survey.words.iter().enumerate() {
            chunks.extend([start, words]);
            start += 2 * survey.geometry.width(chunk) as u32 + words;
        }
        self.pieces.push(&chunks)
    }
}
