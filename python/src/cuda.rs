//! Arrays on NVIDIA GPUs, coded where they lie by `narrows-gpu`.
//!
//! Coders have streams of their own, and nobody else's work is on them. By DLPack the exporter of an array makes our stream
//! wait for its own; that its stream need not wait for ours follows from calls that come back when the device is done.

#![allow(unsafe_code, reason = "memory of a GPU is an address")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use narrows::{Dtype, EncodeOptions, Limits, Profiles, Shape, TensorView};
use narrows_gpu::cuda::cudarc::driver::result::ctx;
use narrows_gpu::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, sys};
use narrows_gpu::cuda::{Decoder, DeviceMemory, Encoder, Gpu};
use narrows_gpu::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::array::{self, DeviceArray, OnDevice};
use crate::codec::same;
use crate::failure;

/// Coders that are kept for the next call, each kind.
const KEPT: usize = 4;

/// The devices that were used, their kernels loaded.
static GPUS: Mutex<BTreeMap<usize, Gpu>> = Mutex::new(BTreeMap::new());
/// Coders that nobody uses at the moment. They outlive the driver when the process ends, so nothing of them is freed then.
static ENCODERS: Mutex<Vec<DeviceEncoder>> = Mutex::new(Vec::new());
static DECODERS: Mutex<Vec<DeviceDecoder>> = Mutex::new(Vec::new());

struct DeviceEncoder {
    device: usize,
    options: EncodeOptions,
    encoder: Encoder,
    stream: Arc<CudaStream>,
    frame: Option<CudaSlice<u8>>,
}

struct DeviceDecoder {
    device: usize,
    decoder: Decoder,
    stream: Arc<CudaStream>,
}

/// Do something with the driver, and leave the thread's current context as it was: PyTorch's current device is in it.
fn with_driver<R>(work: impl FnOnce() -> R) -> R {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: only looks whether the library can be loaded; its initialisers are the driver's own.
    let present = *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() });
    let before = if present { ctx::get_current().ok().flatten() } else { None };
    let result = work();
    if present {
        // SAFETY: it was this thread's context when we came, or none. A driver that has not been initialised refuses,
        // and has none either.
        let _ = unsafe { ctx::set_current(before.unwrap_or(std::ptr::null_mut())) };
    }
    result
}

fn gpu(device: usize) -> Result<Gpu> {
    let mut gpus = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = gpus.get(&device) {
        return Ok(gpu.clone());
    }
    let gpu = Gpu::new(device)?;
    gpus.insert(device, gpu.clone());
    Ok(gpu)
}

fn stream(gpu: &Gpu) -> Result<Arc<CudaStream>> {
    gpu.context().new_stream().map_err(|error| failed("opening a stream", &error))
}

fn failed(what: &'static str, cause: &impl ToString) -> Error {
    Error::Device { what, cause: cause.to_string() }
}

/// One that is kept and will do.
fn take<T>(kept: &Mutex<Vec<T>>, will_do: impl FnMut(&T) -> bool) -> Option<T> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.iter().position(will_do).map(|at| kept.swap_remove(at))
}

fn keep<T>(kept: &Mutex<Vec<T>>, coder: T) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let oldest = (kept.len() >= KEPT).then(|| kept.remove(0));
    kept.push(coder);
    drop(kept);
    // Frees memory of the device, for which it waits.
    with_driver(|| drop(oldest));
}

/// As DLPack names streams: by their address.
fn name(stream: &CudaStream) -> usize {
    stream.cu_stream().addr()
}

impl DeviceEncoder {
    fn new(device: usize, options: &EncodeOptions) -> Result<Self> {
        if let Some(kept) = take(&ENCODERS, |kept| kept.device == device && same(&kept.options, options)) {
            return Ok(kept);
        }
        let gpu = gpu(device)?;
        let encoder = Encoder::new(&gpu, options.clone())?;
        Ok(Self { device, options: options.clone(), encoder, stream: stream(&gpu)?, frame: None })
    }

    fn encode(&mut self, array: &DeviceArray) -> Result<Vec<u8>> {
        let (dtype, shape) = (array.dtype, &array.shape);
        let room = self.encoder.frame_bound(dtype, shape)?;
        if self.frame.as_ref().is_none_or(|frame| (frame.len() as u64) < room) {
            self.frame = None;
            // SAFETY: what is read of it was written before: the frame.
            let taken = unsafe { self.stream.alloc::<u8>(room as usize) };
            self.frame = Some(taken.map_err(|error| failed("taking memory for a frame", &error))?);
        }
        let Some(frame) = &self.frame else { return Ok(Vec::new()) };
        let (address, guard) = frame.device_ptr(&self.stream);
        let from = DeviceMemory { address: array.address, bytes: (shape.elements() * dtype.size()) as u64 };
        let to = DeviceMemory { address, bytes: frame.len() as u64 };
        // SAFETY: the exporter of the array vouches for its memory, which is held on to, and has made this stream wait
        // for what it did there; the frame's memory is ours; the call comes back when the device is done with both.
        // Others that write to the array meanwhile change values, which kernels take as they come.
        let lengths = unsafe { self.encoder.encode_from(dtype, shape, &[(from, to)], &self.stream) }?;
        drop(guard);
        let mut bytes = vec![0; lengths.first().copied().unwrap_or(0)];
        let written = frame.slice(..bytes.len());
        let copied = self.stream.memcpy_dtoh(&written, &mut bytes).and_then(|()| self.stream.synchronize());
        copied.map_err(|error| failed("copying a frame from the device", &error))?;
        Ok(bytes)
    }
}

impl DeviceDecoder {
    fn new(device: usize, profiles: Profiles, limits: Limits) -> Result<Self> {
        let kept = if let Some(kept) = take(&DECODERS, |kept| kept.device == device) {
            kept
        } else {
            let gpu = gpu(device)?;
            Self { device, decoder: Decoder::new(&gpu)?, stream: stream(&gpu)? }
        };
        let Self { decoder, stream, .. } = kept;
        Ok(Self { device, decoder: decoder.with_profiles(profiles).with_limits(limits), stream })
    }

    fn decode(&mut self, frame: &[u8], out: &DeviceArray) -> Result<()> {
        let bytes = (out.shape.elements() * out.dtype.size()) as u64;
        let memory = DeviceMemory { address: out.address, bytes };
        // SAFETY: as in `DeviceEncoder::encode`; the decoder writes no more than `bytes`.
        unsafe { self.decoder.decode_to(&[(frame, memory)], &self.stream) }.map(drop)
    }
}

/// Encode an array on a GPU there, and bring the frame to the host.
///
/// # Errors
/// `DeviceError` if the device cannot be used, or does not offer the options; else as on the CPU.
pub(crate) fn encode<'py>(
    py: Python<'py>,
    array: &OnDevice<'py>,
    options: &EncodeOptions,
) -> PyResult<Bound<'py, PyBytes>> {
    let device = array.index();
    let raise = |error: Error| failure::gpu(py, &error);
    let mut coder = py.detach(|| with_driver(|| DeviceEncoder::new(device, options))).map_err(raise)?;
    let frame = array.open(name(&coder.stream)).and_then(|array| {
        if array.shape.elements() == 0 {
            return empty(options, array.dtype, &array.shape).map_err(|error| failure::codec(py, &error));
        }
        py.detach(|| with_driver(|| coder.encode(&array))).map_err(raise)
    });
    py.detach(|| keep(&ENCODERS, coder));
    Ok(PyBytes::new(py, &frame?))
}

/// There is nothing on the device to be encoded.
fn empty(options: &EncodeOptions, dtype: Dtype, shape: &Shape) -> narrows::Result<Vec<u8>> {
    let mut encoder = narrows::Encoder::new(options.clone())?;
    match dtype {
        Dtype::F32 => encoder.encode(&TensorView::new::<f32>(&[], shape.dims())?),
        Dtype::F16 => encoder.encode(&TensorView::new::<half::f16>(&[], shape.dims())?),
        Dtype::Bf16 => encoder.encode(&TensorView::new::<half::bf16>(&[], shape.dims())?),
    }
}

/// Decode a frame into an array on a GPU, of its type and shape. What the array holds after an error is not specified.
///
/// # Errors
/// `ArrayError` or `ShapeError` if it does not fit, `DeviceError` if the device cannot be used; else as on the CPU.
pub(crate) fn decode_into(
    py: Python<'_>,
    frame: &[u8],
    out: &OnDevice<'_>,
    profiles: Profiles,
    limits: Limits,
) -> PyResult<()> {
    let device = out.index();
    let raise = |error: Error| failure::gpu(py, &error);
    let header = narrows::peek(frame).map_err(|error| failure::codec(py, &error))?;
    if header.shape.elements() == 0 {
        let mut decoder = narrows::Decoder::new().with_profiles(profiles.clone()).with_limits(limits);
        decoder.decode(frame).map_err(|error| failure::codec(py, &error))?;
    }
    let coder = py.detach(|| with_driver(|| DeviceDecoder::new(device, profiles, limits)));
    let mut coder = coder.map_err(raise)?;
    let decoded = out.open(name(&coder.stream)).and_then(|out| {
        array::expect_same(py, (out.dtype, &out.shape), (header.dtype, &header.shape))?;
        if header.shape.elements() == 0 {
            return Ok(());
        }
        py.detach(|| with_driver(|| coder.decode(frame, &out))).map_err(raise)
    });
    py.detach(|| keep(&DECODERS, coder));
    decoded
}
