//! What kernels are told of a tensor: the fields of `shaders/job.wgsl`, and the lists beside them.

use narrows::stream::{Chooser, Geometry, Survey, Table};
use narrows::{Affine, Dequantizer, Dtype, Element};

use crate::plan::Plan;

/// Buckets that fit in workgroup memory, for all tables together.
const BUCKETS: usize = 4096;
/// Tables that fit there, and kinds of symbols.
pub(super) const MOST_TABLES: usize = 8;
pub(super) const MOST_SYMBOLS: usize = 256;

/// The fields of `Shape` in `shaders/job.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Shape {
    planes: u32,
    positions: u32,
    line: u32,
    lanes: u32,
    chunk_rows: u32,
    rows: u32,
    position_stride: u32,
    plane_stride: u32,
    pub(super) chunks: u32,
    pub(super) elements: u32,
    alphabet: u32,
    probability_bits: u32,
    tables: u32,
    neighbours: u32,
    sum_shift: u32,
    bucket_shift: u32,
    dtype: u32,
    channels: u32,
    inner: u32,
    pub(super) history_rows: u32,
    reciprocal: f32,
    zero: f32,
    top: f32,
    padding: u32,
}

impl Shape {
    fn new(geometry: &Geometry, dtype: Dtype, alphabet: usize, classes: Option<([u8; 64], u32)>) -> Self {
        Self {
            planes: geometry.planes as u32,
            positions: geometry.positions as u32,
            line: geometry.line as u32,
            lanes: geometry.lanes as u32,
            chunk_rows: geometry.chunk_rows as u32,
            rows: geometry.rows() as u32,
            position_stride: geometry.position_stride as u32,
            plane_stride: geometry.plane_stride as u32,
            chunks: geometry.chunks() as u32,
            elements: geometry.symbols() as u32,
            alphabet: alphabet as u32,
            neighbours: u32::from(classes.is_some()),
            sum_shift: classes.map_or(0, |(_, shift)| shift),
            dtype: match dtype {
                Dtype::F32 => 0,
                Dtype::F16 => 1,
                Dtype::Bf16 => 2,
            },
            channels: 1,
            inner: 1,
            history_rows: geometry.line.min(geometry.chunk_rows) as u32,
            ..Self::default()
        }
    }

    fn with_tables(self, tables: usize, bits: u32) -> Self {
        Self {
            tables: tables as u32,
            probability_bits: bits,
            bucket_shift: bucket_shift(tables, bits),
            ..self
        }
    }

    /// For encoding by this plan.
    pub(super) fn of_plan(plan: &Plan, dtype: Dtype) -> Self {
        let shape = Self::new(&plan.geometry, dtype, plan.alphabet(), plan.classes());
        shape.with_tables(plan.table_count(), probability_bits(plan.alphabet()))
    }

    /// The same with the quantiser's numbers.
    pub(super) fn with_map(self, map: &Affine) -> Self {
        let (reciprocal, zero, top) = (1.0 / map.step(), map.zero() as f32, f32::from(map.levels() - 1));
        Self { reciprocal, zero, top, ..self }
    }

    /// For decoding this stream.
    pub(super) fn of_survey(survey: &Survey<'_>, dtype: Dtype) -> Self {
        let classes = match survey.chooser {
            Chooser::Neighbours { of_bin, shift } => Some((*of_bin, shift)),
            _ => None,
        };
        let shape = Self::new(&survey.geometry, dtype, survey.alphabet, classes);
        let shape = shape.with_tables(survey.tables.len(), survey.tables[0].bits());
        match survey.dequantizer {
            Dequantizer::Tensor(_) => shape,
            Dequantizer::PerChannel(maps) => {
                Self { channels: maps.len() as u32, inner: survey.planes.inner() as u32, ..shape }
            }
        }
    }
}

pub(super) const fn probability_bits(alphabet: usize) -> u32 {
    narrows::stream::probability_bits(alphabet)
}

/// How far a slot is shifted down to its bucket.
fn bucket_shift(tables: usize, bits: u32) -> u32 {
    bits.saturating_sub((BUCKETS / tables.next_power_of_two()).ilog2())
}

/// The most symbols to pass on the way from a bucket's first symbol to a slot's.
pub(super) fn longest_walk(tables: &[Table]) -> usize {
    let shift = bucket_shift(tables.len(), tables[0].bits());
    let walk = |table: &Table| {
        let buckets = 0..1_usize << (table.bits() - shift);
        let symbol_of = |slot: usize| table.cumulative().partition_point(|&c| usize::from(c) <= slot);
        buckets.map(|bucket| symbol_of(((bucket + 1) << shift) - 1) - symbol_of(bucket << shift)).max()
    };
    tables.iter().filter_map(walk).max().unwrap_or(0)
}

/// Classes of bins and cumulative frequencies, written over `lists`.
pub(super) fn list_model(classes: Option<[u8; 64]>, tables: &[Table], lists: &mut Vec<u32>) {
    lists.clear();
    lists.extend(classes.unwrap_or([0; 64]).map(u32::from));
    for table in tables {
        lists.extend(table.cumulative().iter().map(|&c| u32::from(c)));
    }
}

/// Where each chunk begins in the payload, in units of two bytes, and its words.
pub(super) fn list_chunks(survey: &Survey<'_>, lists: &mut Vec<u32>) {
    let mut start = 0;
    for (chunk, &words) in survey.words.iter().enumerate() {
        lists.extend([start, words]);
        start += 2 * survey.geometry.width(chunk) as u32 + words;
    }
}

/// The bits of every symbol's value in every channel, written over `values`.
pub(super) fn list_values(dequantizer: &Dequantizer, dtype: Dtype, values: &mut Vec<u32>) {
    fn of_map<T: Element>(map: &Affine) -> impl Iterator<Item = u32> {
        let levels = usize::from(map.levels());
        map.values().into_iter().take(levels).map(|value| T::from_f32(value).to_bits())
    }
    let maps = match dequantizer {
        Dequantizer::Tensor(map) => std::slice::from_ref(map),
        Dequantizer::PerChannel(maps) => maps,
    };
    values.clear();
    for map in maps {
        match dtype {
            Dtype::F32 => values.extend(of_map::<f32>(map)),
            Dtype::F16 => values.extend(of_map::<half::f16>(map)),
            Dtype::Bf16 => values.extend(of_map::<half::bf16>(map)),
        }
    }
}
