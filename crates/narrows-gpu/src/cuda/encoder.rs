//! Tensor to frame.

use std::sync::Arc;

use cudarc::driver::CudaStream;
use narrows::{Dtype, EncodeOptions, Shape, Tensor, TensorView};

use super::device::{
    DeviceMemory, Gpu, Memory, Pinned, Special, check_batch, check_room, copy_in, copy_out, failed,
};
use crate::error::Result;
use crate::launch::{EncodeBatch, Half, Launch, Outcome, Scratch};

/// Up to so many elements launches are what encoding waits for, and one cooperative launch does it all.
const AT_ONCE_ELEMENTS: usize = 1 << 20;

/// Turns tensors into frames on a GPU, header and checksum included; keeps its memory.
///
/// Options are the CPU's. Offered are ranges without clipping, fixed maps and profiles, rANS, natural and plane order; with
/// [`LayoutChoice::Auto`](narrows::LayoutChoice::Auto) planes of more than one position are coded in plane order.
pub struct Encoder {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    options: EncodeOptions,
    reshape: Option<usize>,
    cpu: narrows::Encoder,
    pinned: Pinned,
    staged: Memory,
    scratch: Memory,
    elements: Memory,
    frame: Memory,
    current: Option<Current>,
    special: Option<Special>,
}

/// What was staged last.
struct Current {
    dtype: Dtype,
    tensors: Vec<(DeviceMemory, DeviceMemory)>,
    launches: Vec<Launch>,
    results: std::ops::Range<usize>,
    /// Whether they are of the kind that the special kernels are for.
    is_special: bool,
}

impl Encoder {
    /// An encoder with these options.
    ///
    /// # Errors
    /// [`narrows::Error::InvalidOption`] if one is outside its range; [`Error::NotOffered`](crate::Error::NotOffered) for those of the CPU alone.
    pub fn new(gpu: &Gpu, options: EncodeOptions) -> Result<Self> {
        let cpu = narrows::Encoder::new(options.clone())?;
        // What the options offer does not depend on the shape.
        EncodeBatch::new(&options, Dtype::F32, &Shape::new(&[1; narrows::MAX_RANK])?, Some(1))?;
        Ok(Self {
            gpu: gpu.clone(),
            stream: gpu.context().new_stream().map_err(failed("opening a stream"))?,
            options,
            reshape: None,
            cpu,
            pinned: Pinned::new(gpu),
            staged: Memory::new(gpu),
            scratch: Memory::new(gpu),
            elements: Memory::new(gpu),
            frame: Memory::new(gpu),
            current: None,
            special: None,
        })
    }

    /// The same encoder with the rows `N` of the modified CSR, for [`LayoutChoice::CsrJoint`](narrows::LayoutChoice::CsrJoint).
    /// Algorithm 1 looks at the tensor, which this encoder does not bring to the host; let [`narrows::ReshapeSearch`] find them on a
    /// sample.
    #[must_use]
    pub const fn with_reshape(mut self, rows: usize) -> Self {
        self.reshape = Some(rows);
        self
    }

    /// Compile the kernels for tensors of this type and shape: for this very device, with table sizes, lanes and element type
    /// as constants, which tensors of other sizes often share. Takes a second or two; what was staged is to be staged again,
    /// and graphs captured before are void. False, and nothing changes, where NVRTC
    /// (`libnvrtc`, of the CUDA toolkit) is not installed or does not know the device.
    ///
    /// # Errors
    /// As [`Encoder::frame_bound`]; [`Error::Device`](crate::Error::Device) if the compiler refuses the kernels.
    pub fn specialize(&mut self, dtype: Dtype, shape: &Shape) -> Result<bool> {
        let constants = EncodeBatch::new(&self.options, dtype, shape, self.reshape)?.constants();
        let special = self.gpu.specialize(Half::Encode, constants)?;
        let made = special.is_some();
        if made {
            // What is staged was planned for the kernels before.
            (self.special, self.current) = (special, None);
        }
        Ok(made)
    }

    /// Encode a tensor in host memory.
    ///
    /// # Errors
    /// As [`narrows::Encoder::encode_into`]; [`Error::Room`](crate::Error::Room) if the device has no memory for it.
    pub fn encode(&mut self, tensor: &TensorView<'_>) -> Result<Vec<u8>> {
        if tensor.shape().elements() == 0 {
            return Ok(self.cpu.encode(tensor)?);
        }
        let elements = tensor.to_tensor().to_le_bytes();
        let bytes = elements.len() as u64;
        let from = DeviceMemory { address: self.elements.of("elements", bytes)?, bytes };
        let bytes = self.frame_bound(tensor.dtype(), tensor.shape())?;
        let to = DeviceMemory { address: self.frame.of("a frame", bytes)?, bytes };
        let stream = Arc::clone(&self.stream);
        // SAFETY: the memory is this encoder's and as long as it says; `encode_from` waits for the device.
        let length = unsafe {
            copy_in(&elements, from.address, &stream)?;
            self.encode_from(tensor.dtype(), tensor.shape(), &[(from, to)], &stream)?[0]
        };
        let mut frame = vec![0; length];
        // SAFETY: the frame is so long.
        unsafe { copy_out(to.address, &mut frame, &stream) }?;
        Ok(frame)
    }

    /// Bytes that a frame of a tensor of this type and shape can have at most: what memory for one has to be.
    ///
    /// # Errors
    /// [`narrows::Error::Shape`] if the channel axis asked for does not exist.
    pub fn frame_bound(&self, dtype: Dtype, shape: &Shape) -> Result<u64> {
        Ok(EncodeBatch::new(&self.options, dtype, shape, self.reshape)?.frame_bound())
    }

    /// Encode tensors of one type and shape, each from device memory of the caller's (row-major) to device memory of the caller's;
    /// returns the bytes of each frame. Comes back when the device is done.
    ///
    /// # Errors
    /// As [`Encoder::encode`], and [`Error::Room`](crate::Error::Room) if memory of the caller's is too small.
    ///
    /// # Safety
    /// The memory is valid, and nobody else uses it meanwhile; the stream is of this device's context.
    pub unsafe fn encode_from(
        &mut self,
        dtype: Dtype,
        shape: &Shape,
        tensors: &[(DeviceMemory, DeviceMemory)],
        stream: &Arc<CudaStream>,
    ) -> Result<Vec<usize>> {
        // SAFETY: the caller's promise.
        unsafe { self.stage(dtype, shape, tensors, stream) }?;
        // SAFETY: the same, and `check` waits.
        unsafe { self.launch(stream) }?;
        self.check(stream)
    }

    /// Tell the device where tensors and frames are. Any number of launches may follow, over other elements in the same place.
    ///
    /// # Errors
    /// As [`Encoder::encode_from`], but for what the elements show.
    ///
    /// # Safety
    /// As [`Encoder::encode_from`]; launches of tensors staged before are done.
    pub unsafe fn stage(
        &mut self,
        dtype: Dtype,
        shape: &Shape,
        tensors: &[(DeviceMemory, DeviceMemory)],
        stream: &Arc<CudaStream>,
    ) -> Result<()> {
        self.current = None;
        check_batch(tensors.len())?;
        let needed = (shape.elements() * dtype.size()) as u64;
        if shape.elements() == 0 || shape.elements() >= 1 << 31 {
            let (what, value, bound) = ("number of elements on a GPU", shape.elements(), (1 << 31) - 1);
            return Err(narrows::Error::Shape { what, value, bound }.into());
        }
        let mut batch = EncodeBatch::new(&self.options, dtype, shape, self.reshape)?;
        for (from, to) in tensors {
            check_room("the memory of elements", needed, from)?;
            check_room("the memory for a frame", batch.frame_bound(), to)?;
            batch.push(Scratch { elements: from.address, frame: to.address });
        }
        let scratch = self.scratch.of("scratch memory for encoding", batch.scratch_bytes())?;
        let base = self.staged.of("jobs", batch.staged_bytes())?;
        let (bytes, jobs, results) = batch.stage(base, scratch);
        stream.synchronize().map_err(failed("copying to the device"))?;
        let pinned = self.pinned.of(bytes.len())?;
        pinned.copy_from_slice(&bytes);
        // SAFETY: the staged memory is as long as was asked for; pinned memory changes only here, after waiting.
        unsafe { copy_in(pinned, base, stream) }?;
        let constants = batch.constants();
        let special = self.special.as_ref().filter(|special| special.serves(&constants));
        let at_once = batch.launch_at_once(jobs, u32::MAX);
        let blocks = self.gpu.blocks_at_once(&at_once, special)? / tensors.len().max(1) as u32;
        let launches = if batch.runs_at_once() && shape.elements() <= AT_ONCE_ELEMENTS && blocks > 0 {
            vec![batch.launch_at_once(jobs, blocks)]
        } else {
            batch.launches(jobs, self.gpu.most_blocks())
        };
        let is_special = special.is_some();
        self.current = Some(Current { dtype, tensors: tensors.to_vec(), launches, results, is_special });
        Ok(())
    }

    /// Put the kernels for the staged tensors on a stream, and nothing else: a graph may capture this, and replay it for as long
    /// as nothing else is staged.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the driver refuses.
    ///
    /// # Safety
    /// As [`Encoder::encode_from`], until the stream is done; the stream comes after the one that was staged on.
    pub unsafe fn launch(&self, stream: &Arc<CudaStream>) -> Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        let special = self.special.as_ref().filter(|_| current.is_special);
        // SAFETY: jobs lie in staged memory, and name that, scratch memory and the caller's.
        current.launches.iter().try_for_each(|launch| unsafe { self.gpu.launch(launch, special, stream) })
    }

    /// Wait for the stream, and say how long the frames are.
    ///
    /// # Errors
    /// [`narrows::Error::NonFinite`] for the first tensor with a value that is not; [`Error::Device`](crate::Error::Device) if a kernel failed.
    pub fn check(&mut self, stream: &Arc<CudaStream>) -> Result<Vec<usize>> {
        let Some(current) = &self.current else { return Ok(Vec::new()) };
        let mut words = vec![0; current.results.len()];
        // SAFETY: the results are part of what was staged.
        unsafe { copy_out(self.staged.address() + current.results.start as u64, &mut words, stream) }?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&words);
        let outcomes = words.chunks_exact(3).map(|words| Outcome::of_words([words[0], words[1], words[2]]));
        let mut lengths = Vec::with_capacity(current.tensors.len());
        for (outcome, (from, _)) in outcomes.zip(&current.tensors) {
            match outcome {
                Outcome::Frame(length) => lengths.push(length),
                Outcome::NotFinite(index) => {
                    let value = element(current.dtype, from, index, stream)?;
                    return Err(narrows::Error::NonFinite { index, value }.into());
                }
            }
        }
        Ok(lengths)
    }
}

/// One element, brought back from the device.
fn element(dtype: Dtype, from: &DeviceMemory, index: usize, stream: &Arc<CudaStream>) -> Result<f32> {
    let mut bytes = vec![0; dtype.size()];
    let at = (index * dtype.size()) as u64;
    check_room("the memory of elements", at + bytes.len() as u64, from)?;
    // SAFETY: it lies within the caller's memory.
    unsafe { copy_out(from.address + at, &mut bytes, stream) }?;
    let tensor = match dtype {
        Dtype::F32 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes), &[1]),
        Dtype::F16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes), &[1]),
        Dtype::Bf16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::bf16>(&bytes), &[1]),
    }?;
    Ok(tensor.to_f32()[0])
}
