//! A whole checkpoint to a packed file, and back.

use std::collections::HashMap;
use std::path::Path;

use narrows::Shape;
use safetensors::tensor::Dtype as Stored;
use serde::Serialize;

use crate::checkpoint::{Checkpoint, Steps};
use crate::data::Data;
use crate::encode::{PackOptions, pack};
use crate::error::Result;
use crate::file::{PackedFile, Plain, Tensor, Writer};
use crate::grid::Quantized;
use crate::lossless::{self, LosslessDecoder, LosslessEncoder};
use crate::matrix::Matrix;
use crate::net::{Calibrated, Model};
use crate::search::{Next, Search};
use crate::steps::{Calibration, Counted, Settings, grids, is_matrix, quantize};

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

/// What came of packing.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Bytes of the file.
    pub bytes: u64,
    /// What became of each tensor.
    pub tensors: Vec<Packed>,
}

/// Pack a checkpoint into the file `path`; `each` hears how far it is, from 0 to 1.
///
/// With [`Counted::File`] weights are quantised and coded until the file has the bits that are asked for, or up to 0.4 % less.
///
/// Memory holds one tensor at a time. The file appears whole or not at all.
///
/// # Errors
/// As [`grids`] and [`Writer::finish`]; [`TooFewBits`](crate::Error::TooFewBits) for a file that cannot be.
pub fn pack_checkpoint(
    checkpoint: &Checkpoint,
    path: &Path,
    mode: &Mode,
    options: &PackOptions,
    mut each: impl FnMut(f64),
) -> Result<Outcome> {
    let mut texts = checkpoint.texts().clone();
    // The steps are in the packed tensors now.
    texts.retain(|key, _| !key.starts_with("narrows"));
    let trained = checkpoint.steps()?;
    let count = checkpoint.tensors().len().max(1) as f64;
    let mut source = Source { checkpoint, trained, options, encoder: LosslessEncoder::new()? };
    let search = match mode {
        Mode::Quantize(settings, _) if settings.counted == Counted::File => {
            settings.check()?;
            search(checkpoint, settings)
        }
        _ => None,
    };
    let Some(mut search) = search else {
        let (writer, tensors) = source.write(path, mode, |done| each(done as f64 / count))?;
        return Ok(Outcome { bytes: writer.finish(&texts)?, tensors });
    };
    let Mode::Quantize(settings, calibration) = mode else { unreachable!("it has settings") };
    let mut best: Option<(Writer, Vec<Packed>)> = None;
    for attempt in 0..ATTEMPTS {
        let settings = Settings { bits: search.asked, ..settings.clone() };
        let mode = Mode::Quantize(settings, calibration.clone());
        let from = 1.0 - 0.5_f64.powi(attempt);
        let share = 0.5_f64.powi(attempt + 1);
        let (writer, tensors) = source.write(path, &mode, |done| each(from + share * done as f64 / count))?;
        let next = search.found(writer.bytes(&texts)?)?;
        if next != Next::TooMany {
            best = Some((writer, tensors));
        }
        if next == Next::Done {
            break;
        }
    }
    each(1.0);
    let Some((writer, tensors)) = best else {
        return Err(search.too_few());
    };
    Ok(Outcome { bytes: writer.finish(&texts)?, tensors })
}

/// How often the bits of weights are corrected by what the file took.
const ATTEMPTS: i32 = 6;
/// A search, if there is anything whose steps are to be chosen.
fn search(checkpoint: &Checkpoint, settings: &Settings) -> Option<Search> {
    let trained = checkpoint.steps().ok()?;
    let (mut elements, mut weights, mut kept_bytes, mut plain_bytes) = (0, 0, 0, 0);
    for (name, tensor) in checkpoint.tensors() {
        if trained.contains_key(name) {
            elements += tensor.elements();
        } else if settings.keeps(name) {
            kept_bytes += tensor.data.len();
        } else if is_matrix(tensor) && tensor.elements() >= settings.least_weights {
            (elements, weights) = (elements + tensor.elements(), weights + tensor.elements());
        } else {
            (elements, plain_bytes) = (elements + tensor.elements(), plain_bytes + tensor.data.len());
        }
    }
    let bytes = plain_bytes + checkpoint.tensors().len() * TENSOR_BYTES;
    let counts = (elements as f64, weights as f64, kept_bytes as f64);
    (weights > 0).then(|| Search::about(settings.bits, counts, bytes as f64))
}

/// Bytes of a tensor's entry in the header, and of a packed tensor's own header, about.
const TENSOR_BYTES: usize = 160;

/// A checkpoint on its way to a file.
struct Source<'a> {
    checkpoint: &'a Checkpoint,
    trained: HashMap<String, Steps>,
    options: &'a PackOptions,
    encoder: LosslessEncoder,
}

impl Source<'_> {
    /// Everything but the header; `each` hears how many tensors are done.
    fn write(
        &mut self,
        path: &Path,
        mode: &Mode,
        mut each: impl FnMut(usize),
    ) -> Result<(Writer, Vec<Packed>)> {
        let grids = match mode {
            Mode::Quantize(settings, calibration) => grids(self.checkpoint, settings, calibration.as_ref())?,
            Mode::Lossless => std::collections::BTreeMap::new(),
        };
        let (mut writer, mut tensors) = (Writer::new(path), Vec::new());
        for (name, tensor) in self.checkpoint.tensors() {
            let packed = match (mode, grids.get(name)) {
                (Mode::Quantize(settings, calibration), Some(grid)) => {
                    // Weights that are on their grid are rounded to the nearest bin, which is where they are.
                    let lambda = if self.trained.contains_key(name) { 0.0 } else { settings.lambda };
                    let quantized = quantize(name, tensor, grid, lambda, calibration.as_ref());
                    quantized.and_then(|quantized| {
                        write_packed(&mut writer, (name, tensor), &quantized, self.options)
                    })
                }
                (Mode::Lossless, _) => write_lossless(&mut writer, (name, tensor), &mut self.encoder),
                _ => write_plain(&mut writer, (name, tensor)),
            };
            tensors.push(packed.map_err(|error| error.in_tensor(name))?);
            each(tensors.len());
        }
        Ok((writer, tensors))
    }
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

/// Pack a network on the grids that [`calibrated`](crate::net::calibrated) found, with its biases, into the file `path`.
///
/// # Errors
/// As [`pack`] and [`Writer::finish`].
pub fn pack_network(
    model: &Model,
    layers: &[Calibrated],
    path: &Path,
    options: &PackOptions,
) -> Result<Outcome> {
    let (writer, tensors) = write_network(Writer::new(path), model, layers, options)?;
    Ok(Outcome { bytes: writer.finish(&HashMap::new())?, tensors })
}

/// Bytes of the file that [`pack_network`] would write.
pub(crate) fn network_bytes(model: &Model, layers: &[Calibrated], options: &PackOptions) -> Result<u64> {
    write_network(Writer::counting(), model, layers, options)?.0.bytes(&HashMap::new())
}

fn write_network(
    mut writer: Writer,
    model: &Model,
    layers: &[Calibrated],
    options: &PackOptions,
) -> Result<(Writer, Vec<Packed>)> {
    let mut tensors = Vec::new();
    for ((layer, stored), Calibrated { quantized, biases }) in model.layers().zip(layers) {
        let weights = floats(&layer.shape, &stored.weights);
        let packed = write_packed(&mut writer, (&layer.name, &weights), quantized, options);
        tensors.push(packed.map_err(|error| error.in_tensor(&layer.name))?);
        let halves: Vec<u8> = biases.iter().flat_map(|&b| half::f16::from_f32(b).to_le_bytes()).collect();
        writer.plain(&layer.bias, Stored::F16, &[biases.len()], &halves)?;
        let before = floats(&[biases.len()], &stored.biases);
        tensors.push(report(&layer.bias, "plain", &before, halves.len()));
    }
    Ok((writer, tensors))
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
    pub fn unpack(&self, write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        Unpacker::default().unpack(self, write)
    }
}

/// Unpacks tensor after tensor; keeps its buffers.
#[derive(Default)]
pub struct Unpacker {
    lossless: LosslessDecoder,
}

impl Unpacker {
    /// Hand a tensor's elements over, little-endian, a part at a time.
    ///
    /// # Errors
    /// As [`Tensor::unpack`].
    pub fn unpack(&mut self, tensor: &Tensor, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match tensor {
            Tensor::Packed(matrix) => unpack_rows(matrix, write),
            Tensor::Lossless(bytes) => self.lossless.decode(bytes, |part| write(&part.le_bytes())),
            Tensor::Plain(plain) => write(&plain.data),
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
    let (mut writer, mut unpacker) = (Writer::dense(path), Unpacker::default());
    for name in packed.names() {
        let tensor = packed.tensor(&name)?;
        let (dtype, shape) = tensor.unpacked().map_err(|error| error.in_tensor(&name))?;
        let mut stream = writer.stream(&name, dtype, &shape)?;
        unpacker.unpack(&tensor, |bytes| stream.write(bytes)).map_err(|error| error.in_tensor(&name))?;
        stream.end()?;
        each(&name);
    }
    writer.finish(&packed.texts())
}
