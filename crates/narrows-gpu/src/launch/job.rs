//! The structures of `kernels/job.cuh`.

use bytemuck::{Pod, Zeroable};
use narrows::{Affine, Dequantizer, Dtype, stream};

/// `Geometry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct Geometry {
    planes: u32,
    positions: u32,
    line: u32,
    lanes: u32,
    chunk_rows: u32,
    rows: u32,
    pub(super) chunks: u32,
    position_stride: u32,
    plane_stride: u32,
    pub(super) elements: u32,
}

impl From<&stream::Geometry> for Geometry {
    fn from(geometry: &stream::Geometry) -> Self {
        Self {
            planes: geometry.planes as u32,
            positions: geometry.positions as u32,
            line: geometry.line as u32,
            lanes: geometry.lanes as u32,
            chunk_rows: geometry.chunk_rows as u32,
            rows: geometry.rows() as u32,
            chunks: geometry.chunks() as u32,
            position_stride: geometry.position_stride as u32,
            plane_stride: geometry.plane_stride as u32,
            elements: geometry.symbols() as u32,
        }
    }
}

/// `Map`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Map {
    step: f32,
    zero: i32,
}

impl From<&Affine> for Map {
    fn from(affine: &Affine) -> Self {
        Self { step: affine.step(), zero: affine.zero() }
    }
}

/// The maps of a dequantiser, one for each channel that has its own.
pub(super) fn maps(dequantizer: &Dequantizer) -> Vec<Map> {
    match dequantizer {
        Dequantizer::Tensor(affine) => vec![affine.into()],
        Dequantizer::PerChannel(maps) => maps.iter().map(Map::from).collect(),
    }
}

/// The number by which kernels know an element type.
pub(super) const fn dtype(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 2,
    }
}

impl Geometry {
    /// What is constant in kernels made for tensors of this kind.
    fn constants(&self) -> String {
        let lanes = format!("job.geometry.lanes={}u;", self.lanes);
        if self.positions == 1 && self.plane_stride == 1 {
            lanes + "job.geometry.positions=1u;job.geometry.plane_stride=1u;"
        } else {
            lanes
        }
    }
}

/// Instead of an element type: symbols of two bytes.
pub(super) const SYMBOLS: u32 = 3;
/// Instead of a bucket's shift: every slot has an entry.
pub(super) const DIRECT: u32 = u32::MAX;

/// `DecodeJob`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct DecodeJob {
    pub(super) payload: u64,
    pub(super) chunks: u64,
    pub(super) cumulative: u64,
    pub(super) classes: u64,
    pub(super) maps: u64,
    pub(super) elements: u64,
    pub(super) history: u64,
    pub(super) status: u64,
    pub(super) geometry: Geometry,
    pub(super) alphabet: u32,
    pub(super) probability_bits: u32,
    pub(super) tables: u32,
    pub(super) chooser: u32,
    pub(super) sum_shift: u32,
    pub(super) segment_ends: [u32; 2],
    pub(super) bucket_shift: u32,
    pub(super) dtype: u32,
    pub(super) channels: u32,
    pub(super) inner: u32,
    pub(super) history_rows: u32,
}

impl DecodeJob {
    /// What is constant in a kernel made for frames of this kind, as statements (`load_job` in `kernels/job.cuh`).
    pub(super) fn constants(&self) -> String {
        let Self { alphabet, probability_bits, tables, chooser, .. } = self;
        let Self { sum_shift, bucket_shift, dtype, channels, .. } = self;
        let one_channel = if *channels == 1 { "job.channels=1u;" } else { "" };
        let shared_history = if self.history == 0 { "job.history=0;" } else { "" };
        format!(
            "job.alphabet={alphabet}u;job.probability_bits={probability_bits}u;job.tables={tables}u;\
             job.chooser={chooser}u;job.sum_shift={sum_shift}u;job.bucket_shift={bucket_shift}u;\
             job.dtype={dtype}u;{one_channel}{shared_history}{}",
            self.geometry.constants()
        )
    }
}

/// `CsrJob`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct CsrJob {
    pub(super) symbols: u64,
    pub(super) starts: u64,
    pub(super) maps: u64,
    pub(super) elements: u64,
    pub(super) status: u64,
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) nonzeros: u32,
    pub(super) levels: u32,
    pub(super) dtype: u32,
    pub(super) channels: u32,
    pub(super) inner: u32,
    pub(super) padding: u32,
}

/// `EncodeJob`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct EncodeJob {
    pub(super) elements: u64,
    pub(super) frame: u64,
    pub(super) result: u64,
    pub(super) control: u64,
    pub(super) coded: u64,
    pub(super) counts: u64,
    pub(super) cumulative: u64,
    pub(super) classes: u64,
    pub(super) words: u64,
    pub(super) states: u64,
    pub(super) lengths: u64,
    pub(super) starts: u64,
    pub(super) model: u64,
    pub(super) head: u64,
    pub(super) sequence: u64,
    pub(super) row_starts: u64,
    pub(super) geometry: Geometry,
    pub(super) head_bytes: u32,
    pub(super) constant_head_bytes: u32,
    pub(super) alphabet: u32,
    pub(super) probability_bits: u32,
    pub(super) tables: u32,
    pub(super) neighbours: u32,
    pub(super) sum_shift: u32,
    pub(super) bin_width: u32,
    pub(super) dtype: u32,
    pub(super) own_range: u32,
    pub(super) has_profile: u32,
    pub(super) step: f32,
    pub(super) zero: i32,
    pub(super) form: u32,
    pub(super) chunk_rows_bytes: u32,
    pub(super) levels: u32,
    pub(super) csr_rows: u32,
    pub(super) csr_columns: u32,
    pub(super) class_starts: u64,
    pub(super) chunk_rows_varint: u64,
}

impl EncodeJob {
    /// What is constant in kernels made for tensors of this kind, as statements (`load_job` in `kernels/job.cuh`).
    pub(super) fn constants(&self) -> String {
        let Self { alphabet, probability_bits, tables, neighbours, sum_shift, bin_width, .. } = self;
        let Self { dtype, own_range, has_profile, levels, .. } = self;
        let dense = if self.csr_rows == 0 { "job.csr_rows=0u;" } else { "" };
        format!(
            "job.alphabet={alphabet}u;job.probability_bits={probability_bits}u;job.tables={tables}u;\
             job.neighbours={neighbours}u;job.sum_shift={sum_shift}u;job.bin_width={bin_width}u;\
             job.dtype={dtype}u;job.own_range={own_range}u;job.has_profile={has_profile}u;\
             job.levels={levels}u;{dense}{}",
            self.geometry.constants()
        )
    }
}

// `job.cuh` asserts the same.
const _: () = assert!(
    size_of::<DecodeJob>() == 152 && size_of::<CsrJob>() == 72 && size_of::<EncodeJob>() == 256,
    "as in kernels/job.cuh"
);
