//! A whole checkpoint to a packed file, and back.

use std::collections::HashMap;
use std::path::Path;

use narrows::Shape;
use safetensors::tensor::Dtype as Stored;
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::data::Data;
use crate::encode::{PackOptions, pack};
use crate::error::Result;
use crate::file::{PackedFile, Plain, Tensor, Writer};
use crate::grid::Quantized;
use crate::lossless::{self, LosslessEncoder};
use crate::matrix::Matrix;
use crate::net::{Calibrated, Model};
use crate::steps::{Calibration, Settings, grids, quantize};

/// How a checkpoint is packed.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Quantised, as the settings say; a trainer's grids are kept.
    Quantize(Settings, Option<Calibration>),
    /// Every bit is kept.
    Lossless,
}

/// What became of a tensor.
#[derive(Clone, Debug, Serialize)]
pub struct Packed {
    /// Its name.
    pub name: String,
    /// `"packed"`, `"lossless"` or `"plain"`.
    pub kind: &'static str,
    /// Its axes.
    pub shape: Vec<usize>,
    /// Number of elements.
    pub elements: usize,
    /// Bytes before.
    pub bytes_before: usize,
    /// Bytes now.
    pub bytes: usize,
    /// Order-0 entropy of its bins, bits a weight.
    pub entropy: Option<f64>,
    /// The share of its weights that are zero.
    pub zeros: Option<f64>,
    /// Mean squared error relative to the mean square of its weights.
    pub relative_error: Option<f64>,
}

/// Pack a checkpoint into the file `path`; `each` hears of every tensor once it is done.
///
/// Memory holds one tensor at a time. The file appears whole or not at all.
///
/// # Errors
/// As [`grids`] and [`Writer::finish`].
pub fn pack_checkpoint(
    checkpoint: &Checkpoint,
    path: &Path,
    mode: &Mode,
    options: &PackOptions,
    mut each: impl FnMut(&Packed),
) -> Result<u64> {
    let grids = match mode {
        Mode::Quantize(settings, calibration) => grids(checkpoint, settings, calibration.as_ref())?,
        Mode::Lossless => std::collections::BTreeMap::new(),
    };
    let trained = checkpoint.steps()?;
    let mut writer = Writer::new(path);
    let mut encoder = LosslessEncoder::new()?;
    for (name, tensor) in checkpoint.tensors() {
        let packed = match (mode, grids.get(name)) {
            (Mode::Quantize(settings, calibration), Some(grid)) => {
                // Weights that are on their grid are rounded to the nearest bin, which is where they are.
                let lambda = if trained.contains_key(name) { 0.0 } else { settings.lambda };
                let quantized = quantize(name, tensor, grid, lambda, calibration.as_ref());
                quantized.and_then(|quantized| write_packed(&mut writer, (name, tensor), &quantized, options))
            }
            (Mode::Lossless, _) => write_lossless(&mut writer, (name, tensor), &mut encoder),
            _ => write_plain(&mut writer, (name, tensor)),
        };
        each(&packed.map_err(|error| error.in_tensor(name))?);
    }
    let mut texts = checkpoint.texts().clone();
    // The steps are in the packed tensors now.
    texts.retain(|key, _| !key.starts_with("narrows"));
    writer.finish(&texts)
}

fn write_packed(
    writer: &mut Writer,
    (name, tensor): (&str, &Plain),
    quantized: &Quantized,
    options: &PackOptions,
) -> Result<Packed> {
    let Some(dtype) = tensor.float() else { return write_plain(writer, (name, tensor)) };
    let bytes = pack(quantized, dtype, &Shape::new(&tensor.shape)?, options)?;
    writer.packed(name, &bytes)?;
    let counts = quantized.counts();
    Ok(Packed {
        entropy: Some(quantized.entropy()),
        zeros: Some(counts[counts.len() / 2] as f64 / quantized.values.len() as f64),
        relative_error: Some(relative_error(tensor, quantized)),
        ..report(name, "packed", tensor, bytes.len())
    })
}

/// Pack a network on the grids that [`calibrated`](crate::net::calibrated) found, with its biases, into the file `path`; `each`
/// hears of every tensor once it is done.
///
/// # Errors
/// As [`pack`] and [`Writer::finish`].
pub fn pack_network(
    model: &Model,
    layers: &[Calibrated],
    path: &Path,
    options: &PackOptions,
    mut each: impl FnMut(&Packed),
) -> Result<u64> {
    let mut writer = Writer::new(path);
    for ((layer, stored), Calibrated { quantized, biases }) in model.layers().zip(layers) {
        let weights = floats(&layer.shape, &stored.weights);
        let packed = write_packed(&mut writer, (&layer.name, &weights), quantized, options);
        each(&packed.map_err(|error| error.in_tensor(&layer.name))?);
        let halves: Vec<u8> = biases.iter().flat_map(|&b| half::f16::from_f32(b).to_le_bytes()).collect();
        writer.plain(&layer.bias, Stored::F16, &[biases.len()], &halves)?;
        let before = floats(&[biases.len()], &stored.biases);
        each(&report(&layer.bias, "plain", &before, halves.len()));
    }
    writer.finish(&HashMap::new())
}

/// Floats in memory as a tensor of a checkpoint.
pub(crate) fn floats(shape: &[usize], values: &[f32]) -> Plain {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Plain { dtype: Stored::F32, shape: shape.to_vec(), data: Data::from(bytes) }
}

/// Tensors that the codec does not take are written as they are.
fn write_lossless(
    writer: &mut Writer,
    (name, tensor): (&str, &Plain),
    encoder: &mut LosslessEncoder,
) -> Result<Packed> {
    let Some(bytes) = encoder.encode(tensor)? else { return write_plain(writer, (name, tensor)) };
    writer.lossless(name, &bytes)?;
    Ok(report(name, "lossless", tensor, bytes.len()))
}

fn write_plain(writer: &mut Writer, (name, tensor): (&str, &Plain)) -> Result<Packed> {
    writer.plain(name, tensor.dtype, &tensor.shape, &tensor.data)?;
    Ok(report(name, "plain", tensor, tensor.data.len()))
}

fn report(name: &str, kind: &'static str, tensor: &Plain, bytes: usize) -> Packed {
    Packed {
        name: name.to_owned(),
        kind,
        shape: tensor.shape.clone(),
        elements: tensor.elements(),
        bytes_before: tensor.data.len(),
        bytes,
        entropy: None,
        zeros: None,
        relative_error: None,
    }
}

fn relative_error(tensor: &Plain, quantized: &Quantized) -> f64 {
    let columns = quantized.columns;
    let (mut weights, mut back) = (Vec::new(), vec![0.0; columns]);
    let (mut error, mut all) = (0.0, 0.0);
    for (row, values) in quantized.values.chunks_exact(columns).enumerate() {
        tensor.read_f32(row * columns..(row + 1) * columns, &mut weights);
        quantized.grid.dequantize_row(row, values, &mut back);
        for (&weight, &back) in weights.iter().zip(&back) {
            error += f64::from(weight - back).powi(2);
            all += f64::from(weight).powi(2);
        }
    }
    if all > 0.0 { error / all } else { 0.0 }
}

impl Tensor {
    /// Its element type, as a safetensors file names it, and its axes, once unpacked.
    ///
    /// # Errors
    /// As [`narrows::peek`].
    pub fn unpacked(&self) -> Result<(Stored, Vec<usize>)> {
        let of = |dtype: narrows::Dtype, dims: &[usize]| {
            let dtype = match dtype {
                narrows::Dtype::F32 => Stored::F32,
                narrows::Dtype::F16 => Stored::F16,
                narrows::Dtype::Bf16 => Stored::BF16,
            };
            (dtype, dims.to_vec())
        };
        Ok(match self {
            Self::Packed(matrix) => of(matrix.dtype(), matrix.shape().dims()),
            Self::Lossless(bytes) => {
                let (dtype, dims) = lossless::described(bytes)?;
                of(dtype, &dims)
            }
            Self::Plain(plain) => (plain.dtype, plain.shape.clone()),
        })
    }

    /// Hand its elements over, little-endian, a part at a time.
    ///
    /// # Errors
    /// Any of [`Error`](crate::Error)'s for bytes that no encoder wrote, and what `write` returns.
    pub fn unpack(&self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self {
            Self::Packed(matrix) => unpack_rows(matrix, write),
            Self::Lossless(bytes) => lossless::decode(bytes, |part| write(&part.to_le_bytes())),
            Self::Plain(plain) => write(&plain.data),
        }
    }
}

/// Decode some rows at a time.
fn unpack_rows(matrix: &Matrix, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    const WEIGHTS: usize = 1 << 22;
    let chunk_rows = matrix.layout().chunk_rows;
    let some = (WEIGHTS / matrix.columns()).max(1).next_multiple_of(chunk_rows.max(1));
    let mut bytes = Vec::new();
    for start in (0..matrix.rows()).step_by(some) {
        let weights = matrix.weights(start..(start + some).min(matrix.rows()))?;
        bytes.clear();
        match matrix.dtype() {
            narrows::Dtype::F32 => weights.iter().for_each(|w| bytes.extend(w.to_le_bytes())),
            narrows::Dtype::F16 => {
                weights.iter().for_each(|&w| bytes.extend(half::f16::from_f32(w).to_le_bytes()));
            }
            narrows::Dtype::Bf16 => {
                weights.iter().for_each(|&w| bytes.extend(half::bf16::from_f32(w).to_le_bytes()));
            }
        }
        write(&bytes)?;
    }
    Ok(())
}

/// Write all tensors of a packed file as a plain safetensors file; `each` hears the name of every tensor once it is done.
///
/// # Errors
/// Any of [`Error`](crate::Error)'s.
pub fn unpack_file(packed: &PackedFile, path: &Path, mut each: impl FnMut(&str)) -> Result<u64> {
    let mut writer = Writer::dense(path);
    for name in packed.names() {
        let tensor = packed.tensor(&name)?;
        let (dtype, shape) = tensor.unpacked().map_err(|error| error.in_tensor(&name))?;
        let mut stream = writer.stream(&name, dtype, &shape)?;
        tensor.unpack(|bytes| stream.write(bytes)).map_err(|error| error.in_tensor(&name))?;
        stream.end()?;
        each(&name);
    }
    writer.finish(&packed.texts())
}
