//! Tensors to launches.

use narrows::stream::{self, bins};
use narrows::{Dtype, EncodeOptions, Layout, Shape};

use super::job::{EncodeJob, dtype};
use super::{Kernel, Launch, Pieces, Rooms};
use crate::error::Result;
use crate::plan::{Map, Plan};

const ENCODE_THREADS: u32 = 256;
const ENCODE_WARPS: u32 = ENCODE_THREADS / 32;
/// Shared memory of every encoding kernel: what tables and their bits need (`MODEL_SHARED` in `kernels/model.cuh`), which is
/// more than the others do.
const SHARED: u32 = (2048 + 3200 + 64) * 4 + 2048 * 2;
/// Words of a tensor's control memory (`CONTROL_WORDS` in `kernels/job.cuh`), and as they are before a frame.
const CONTROL: [u32; 16] = [0, 0, 0, 0, 0, u32::MAX, 0, u32::MAX, 0, 0, 0, 0, 0, 0, 0, 0];
/// Bytes of a model, at most: as many as the kernels have room for.
const MODEL_BYTES: u64 = 3200 * 4;
/// Bytes of a quantised frame beside head, model, directory and payload: levels, step, zero point, form, checksum.
const PARAMETER_BYTES: u64 = 1 + 4 + 5 + 1 + 4;
/// Elements that a thread goes through in one kernel, about; more than one, so that counting a block's share pays.
const ELEMENTS_EACH: u32 = 8;

/// The bit of a stream's form that says its chunks are more than one (`kernels/compact.cuh`).
const FORM_CHUNKED: u32 = 32;

/// What became of a tensor, as the device says it in three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A frame of so many bytes.
    Frame(usize),
    /// An element that is not finite: the first, by its index.
    NotFinite(usize),
}

impl Outcome {
    /// Bytes of the words it is read from.
    pub const BYTES: usize = 12;

    /// Read from the device's words.
    pub fn of_words(words: [u32; 3]) -> Self {
        match words {
            [2, _, index] => Self::NotFinite(index as usize),
            [_, bytes, _] => Self::Frame(bytes as usize),
        }
    }
}

/// Where a tensor is read from and its frame written to, on the device.
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// The elements, row-major; a multiple of 4.
    pub elements: u64,
    /// The frame; a multiple of 4, with [`EncodeBatch::frame_bound`] bytes.
    pub frame: u64,
}

/// Tensors of one shape on their way to frames: job and header of each, and the room they need.
#[derive(Debug)]
pub struct EncodeBatch {
    plan: Plan,
    dtype: Dtype,
    tensors: Vec<Scratch>,
}

impl EncodeBatch {
    /// A batch of tensors of this type and shape; `reshape` is the rows of a modified CSR.
    ///
    /// # Errors
    /// As [`narrows::Encoder::encode_into`], and [`Error::NotOffered`](crate::Error::NotOffered).
    pub fn new(options: &EncodeOptions, dtype: Dtype, shape: &Shape, reshape: Option<usize>) -> Result<Self> {
        Ok(Self { plan: Plan::new(options, shape, reshape)?, dtype, tensors: Vec::new() })
    }

    /// Add a tensor.
    pub fn push(&mut self, tensor: Scratch) {
        self.tensors.push(tensor);
    }

    /// Tensors in it.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    fn cells(&self) -> u64 {
        (self.plan.table_count() * self.plan.alphabet()) as u64
    }

    /// Bytes that a frame can have at most.
    pub fn frame_bound(&self) -> u64 {
        let geometry = &self.plan.geometry;
        let (chunks, symbols) = (geometry.chunks() as u64, geometry.symbols() as u64);
        let head = self.head().0.len() as u64 + PARAMETER_BYTES;
        // A word to a symbol at most; a varint of 5 bytes and 32 states to a chunk.
        (head + MODEL_BYTES + 9 + chunks * (5 + 128) + symbols * 2 + 4).next_multiple_of(4)
    }

    /// Headers of a quantised and of a constant frame, one after the other; and the first one's length.
    fn head(&self) -> (Vec<u8>, usize) {
        let (plan, of) = (&self.plan, self.dtype);
        let mut head = match &plan.profile {
            Some(profile) => stream::profile_head(of, &plan.shape, profile),
            None => stream::quantized_head(of, &plan.shape, plan.planes.axis(), plan.layout),
        };
        let length = head.len();
        head.extend(stream::constant_head(of, &plan.shape));
        (head, length)
    }

    /// Bytes of memory that the kernels need for themselves, all tensors together.
    pub fn scratch_bytes(&self) -> u64 {
        let mut rooms = Rooms::default();
        self.tensors.iter().for_each(|_| {
            self.job_in(&mut rooms);
        });
        rooms.0
    }

    /// A job with its scratch memory as offsets.
    fn job_in(&self, rooms: &mut Rooms) -> EncodeJob {
        let geometry = &self.plan.geometry;
        let (chunks, symbols) = (geometry.chunks() as u64, geometry.symbols() as u64);
        EncodeJob {
            coded: rooms.take(self.plan.shape.elements() as u64),
            sequence: rooms.take(if self.plan.csr().is_some() { symbols * 2 } else { 0 }),
            row_starts: rooms.take(self.plan.csr().map_or(0, |(rows, _)| rows as u64 * 4 + 4)),
            words: rooms.take(symbols * 2),
            states: rooms.take(chunks * 128),
            lengths: rooms.take(chunks * 4),
            starts: rooms.take(chunks * 4 + 4),
            model: rooms.take(MODEL_BYTES),
            geometry: geometry.into(),
            ..EncodeJob::default()
        }
    }

    /// The job with everything but addresses.
    fn describe(&self, rooms: &mut Rooms) -> EncodeJob {
        let plan = &self.plan;
        let (form, chunk_rows) = stream::form(&plan.geometry, plan.profile.is_some());
        let (_, head_bytes) = self.head();
        let alphabet = plan.alphabet();
        let bytes_of = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let starts: Vec<u8> = plan.starts().iter().map(|&start| start as u8).collect();
        let (step, zero) = match plan.map {
            Map::Range(_) => (0.0, 0),
            Map::Fixed(map) => (map.step(), map.zero()),
        };
        EncodeJob {
            head_bytes: head_bytes as u32,
            constant_head_bytes: (self.head().0.len() - head_bytes) as u32,
            alphabet: alphabet as u32,
            probability_bits: stream::probability_bits(alphabet),
            tables: plan.table_count() as u32,
            neighbours: u32::from(plan.layout == Layout::Planes),
            sum_shift: bins(alphabet).1,
            bin_width: bins(alphabet).0.next_power_of_two().ilog2(),
            dtype: dtype(self.dtype),
            levels: u32::from(plan.map.levels()),
            csr_rows: plan.csr().map_or(0, |(rows, _)| rows as u32),
            csr_columns: plan.csr().map_or(0, |(_, columns)| columns as u32),
            own_range: u32::from(matches!(plan.map, Map::Range(_))),
            has_profile: u32::from(plan.profile.is_some()),
            step,
            zero,
            // On the device it is known whether a CSR's sequence has more than one chunk.
            form: if plan.csr().is_some() { u32::from(form) & !FORM_CHUNKED } else { u32::from(form) },
            chunk_rows_bytes: chunk_rows.len() as u32,
            class_starts: bytes_of(&starts),
            chunk_rows_varint: bytes_of(&chunk_rows),
            ..self.job_in(rooms)
        }
    }

    /// Jobs and all that they start from, given where on the device it will lie (a multiple of 16) and where the scratch
    /// memory is (of 256). What is copied there serves any number of launches.
    pub fn stage(&self, base: u64, scratch: u64) -> (Vec<u8>, u64, std::ops::Range<usize>) {
        let mut pieces = Pieces::default();
        let tables = self.plan.profile.as_ref().map(|profile| stream::profile_model(profile).1);
        let cumulative: Vec<u16> = match tables {
            Some(tables) => tables.iter().flat_map(stream::Table::cumulative).copied().collect(),
            None => vec![0; self.plan.table_count() * (self.plan.alphabet() + 1)],
        };
        let classes = self.plan.classes().map_or([0; 64], |(of_bin, _)| of_bin);
        let (classes, head) = (pieces.push(&classes), pieces.push(&self.head().0));
        let results = pieces.push(&vec![[0_u32; 3]; self.tensors.len()]);
        let (mut rooms, mut jobs) = (Rooms::default(), Vec::new());
        for (tensor, index) in self.tensors.iter().zip(0..) {
            let mut job = self.describe(&mut rooms);
            for at in [
                &mut job.coded,
                &mut job.sequence,
                &mut job.row_starts,
                &mut job.words,
                &mut job.states,
                &mut job.lengths,
                &mut job.starts,
                &mut job.model,
            ] {
                *at += scratch;
            }
            job.elements = tensor.elements;
            job.frame = tensor.frame;
            job.result = base + results + index * Outcome::BYTES as u64;
            job.control = base + pieces.push(&CONTROL);
            job.counts = base + pieces.push(&vec![0_u32; self.cells() as usize]);
            job.cumulative = base + pieces.push(&cumulative);
            job.classes = base + classes;
            job.head = base + head;
            jobs.push(job);
        }
        let at = pieces.push(&jobs);
        let results = results as usize..results as usize + Outcome::BYTES * jobs.len();
        (pieces.0, base + at, results)
    }

    /// Bytes of what [`EncodeBatch::stage`] makes, at most.
    pub fn staged_bytes(&self) -> u64 {
        let tables = (self.plan.table_count() * (self.plan.alphabet() + 1)) as u64 * 2;
        let each =
            size_of::<EncodeJob>() as u64 + Outcome::BYTES as u64 + 64 + self.cells() * 4 + tables + 80;
        self.tensors.len() as u64 * each + self.head().0.len() as u64 + 64 + 80
    }

    /// One launch after the other, each of at most `blocks` blocks for a tensor.
    pub fn launches(&self, jobs: u64, blocks: u32) -> Vec<Launch> {
        let launch = |kernel, x: u32| Launch {
            kernel,
            grid: (x.clamp(1, blocks), self.tensors.len() as u32),
            threads: ENCODE_THREADS,
            shared: SHARED,
            jobs,
        };
        let stepping = self.stepping_blocks();
        let mut launches = Vec::new();
        if matches!(self.plan.map, Map::Range(_)) {
            launches.push(launch(Kernel::EncodeRange, stepping));
        }
        launches.push(launch(Kernel::EncodeCount, stepping));
        if let Some((rows, _)) = self.plan.csr() {
            let blocks = (rows as u32).div_ceil(ENCODE_THREADS);
            launches.push(launch(Kernel::CsrRows, blocks));
            launches.push(launch(Kernel::CsrGather, blocks));
        }
        launches.push(launch(Kernel::EncodeSymbols, self.chunk_blocks()));
        // A thread copies and sums 64 bytes; half a byte an element is an estimate only.
        let segments = self.plan.geometry.symbols() as u32 / 2 / 64;
        launches.push(launch(Kernel::EncodeCompact, segments.div_ceil(ENCODE_THREADS)));
        launches
    }

    /// What kernels made for these tensors have for constants.
    pub fn constants(&self) -> String {
        self.describe(&mut Rooms::default()).constants()
    }

    /// Whether one cooperative launch can do it.
    pub fn runs_at_once(&self) -> bool {
        self.plan.csr().is_none()
    }

    /// All in one cooperative launch of `blocks` blocks for each tensor: all blocks have to be on the device at once.
    pub fn launch_at_once(&self, jobs: u64, blocks: u32) -> Launch {
        let x = self.stepping_blocks().max(self.chunk_blocks()).clamp(1, blocks.max(1));
        let grid = (x, self.tensors.len() as u32);
        Launch { kernel: Kernel::EncodeAtOnce, grid, threads: ENCODE_THREADS, shared: SHARED, jobs }
    }

    fn stepping_blocks(&self) -> u32 {
        (self.plan.geometry.symbols() as u32).div_ceil(ENCODE_THREADS * ELEMENTS_EACH)
    }

    fn chunk_blocks(&self) -> u32 {
        (self.plan.geometry.chunks() as u32).div_ceil(ENCODE_WARPS)
    }
}
