//! Frame to tensor.

use std::sync::Arc;

use cudarc::driver::CudaStream;
use narrows::stream::Surveyor;
use narrows::{Dtype, Header, Limits, Profiles, Tensor};

use super::device::{
    DeviceMemory, Gpu, Memory, Pinned, Special, check_batch, check_room, copy_in, copy_out, failed,
};
use crate::error::Result;
use crate::launch::{DecodeBatch, Fault, Half, Launch};

/// Turns frames into tensors on a GPU; keeps its memory.
///
/// The GPU decodes rANS frames in every layout. Whatever else a frame may hold is decoded on the CPU and copied, so
/// that every frame decodes.
pub struct Decoder {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    limits: Limits,
    profiles: Profiles,
    cpu: narrows::Decoder,
    decoded: Tensor,
    surveyor: Surveyor,
    batch: DecodeBatch,
    pinned: Pinned,
    staged: Memory,
    scratch: Memory,
    elements: Memory,
    launches: Vec<Launch>,
    statuses: std::ops::Range<usize>,
    /// Of each staged frame, whether the kernels decode it.
    by_kernels: Vec<bool>,
    special: Option<Special>,
    /// Whether all staged frames are of the kind that the special kernels are for.
    is_special: bool,
}

impl Decoder {
    /// A decoder on this device, with the default limits and no profiles.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device gives it no stream.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self {
            gpu: gpu.clone(),
            stream: gpu.context().new_stream().map_err(failed("opening a stream"))?,
            limits: Limits::default(),
            profiles: Profiles::default(),
            cpu: narrows::Decoder::new(),
            decoded: Tensor::default(),
            surveyor: Surveyor::default(),
            batch: DecodeBatch::default(),
            pinned: Pinned::new(gpu),
            staged: Memory::new(gpu),
            scratch: Memory::new(gpu),
            elements: Memory::new(gpu),
            launches: Vec::new(),
            statuses: 0..0,
            by_kernels: Vec::new(),
            special: None,
            is_special: false,
        })
    }

    /// The same decoder with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.cpu = self.cpu.with_limits(limits);
        self
    }

    /// The same decoder with these profiles.
    #[must_use]
    pub fn with_profiles(mut self, profiles: Profiles) -> Self {
        self.profiles = profiles.clone();
        self.cpu = self.cpu.with_profiles(profiles);
        self
    }

    /// Compile the kernel for frames such as this one: for this very device, with table sizes, lanes and element type as
    /// constants. Frames of this kind staged from now on, without others in their batch, are decoded by it. Takes a second or
    /// two; graphs captured before are void. False, and nothing changes, where NVRTC (`libnvrtc`, of the CUDA toolkit) is not installed or does not know the
    /// device, and for frames that the device does not decode.
    ///
    /// # Errors
    /// As [`narrows::Decoder::decode_into`], but for what only decoding shows; [`Error::Device`](crate::Error::Device) if the
    /// compiler refuses the kernel.
    pub fn specialize(&mut self, frame: &[u8]) -> Result<bool> {
        let (header, survey) = self.surveyor.survey(frame, &self.limits, &self.profiles)?;
        let Some(survey) = survey else { return Ok(false) };
        let mut batch = DecodeBatch::default();
        batch.push(&survey, header.dtype, 0);
        let Some(constants) = batch.constants() else { return Ok(false) };
        let special = self.gpu.specialize(Half::Decode, constants.to_owned())?;
        let made = special.is_some();
        if made {
            (self.special, self.is_special) = (special, false);
        }
        Ok(made)
    }

    /// Decode into a new tensor in host memory.
    ///
    /// # Errors
    /// As [`narrows::Decoder::decode_into`]; [`Error::Room`](crate::Error::Room) if the device has no memory for it.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Tensor> {
        let header = narrows::peek(frame)?;
        if header.shape.elements() as u64 > self.limits.max_elements {
            // With the codec's own words for it.
            return Ok(self.cpu.decode(frame)?);
        }
        let bytes = header.shape.elements() * header.dtype.size();
        let address = self.elements.of("elements", bytes as u64)?;
        let memory = DeviceMemory { address, bytes: bytes as u64 };
        let stream = Arc::clone(&self.stream);
        // SAFETY: the memory is this decoder's, and it waits for the device.
        let header = unsafe { self.decode_to(&[(frame, memory)], &stream) }?[0].clone();
        let mut host = vec![0; bytes];
        if bytes > 0 {
            // SAFETY: so many bytes were taken.
            unsafe { copy_out(address, &mut host, &stream) }?;
        }
        let dims = header.shape.dims();
        Ok(match header.dtype {
            Dtype::F32 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, f32>(&host), dims),
            Dtype::F16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::f16>(&host), dims),
            Dtype::Bf16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::bf16>(&host), dims),
        }?)
    }

    /// Decode frames, each to device memory of the caller's, row-major; one copy and one launch for all of them. Comes back
    /// when the device is done; on an error the contents of that memory are unspecified.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and [`Error::Room`](crate::Error::Room) if memory of the caller's is too small.
    ///
    /// # Safety
    /// The memory is valid, and nobody else uses it meanwhile; the stream is of this device's context.
    pub unsafe fn decode_to(
        &mut self,
        frames: &[(&[u8], DeviceMemory)],
        stream: &Arc<CudaStream>,
    ) -> Result<Vec<Header>> {
        // SAFETY: the caller's promise.
        let headers = unsafe { self.stage(frames, stream) }?;
        // SAFETY: the same, and `check` waits.
        unsafe { self.launch(stream) }?;
        self.check(stream)?.into_iter().collect::<narrows::Result<()>>()?;
        Ok(headers)
    }

    /// Check frames and copy what the kernels need of them to the device, on this stream. Waits for the copy of a batch staged
    /// before.
    ///
    /// # Errors
    /// As [`Decoder::decode_to`], but for what only decoding shows.
    ///
    /// # Safety
    /// As [`Decoder::decode_to`]; launches of a batch staged before are done.
    pub unsafe fn stage(
        &mut self,
        frames: &[(&[u8], DeviceMemory)],
        stream: &Arc<CudaStream>,
    ) -> Result<Vec<Header>> {
        self.batch.clear();
        self.launches.clear();
        self.statuses = 0..0;
        self.by_kernels.clear();
        check_batch(frames.len())?;
        let mut headers = Vec::with_capacity(frames.len());
        for (frame, memory) in frames {
            let (header, survey) = self.surveyor.survey(frame, &self.limits, &self.profiles)?;
            let bytes = (header.shape.elements() * header.dtype.size()) as u64;
            check_room("the memory for the elements", bytes, memory)?;
            // Rows and symbols are counted in 32 bits.
            let fits = survey.filter(|survey| survey.geometry.symbols() < 1 << 31);
            self.by_kernels.push(fits.is_some());
            if let Some(survey) = fits {
                self.batch.push(&survey, header.dtype, memory.address);
            } else {
                self.cpu.decode_into(frame, &mut self.decoded)?;
                let elements = self.decoded.to_le_bytes();
                if !elements.is_empty() {
                    // SAFETY: the caller's memory has room for them, and they live until the copy is done.
                    unsafe { copy_in(&elements, memory.address, stream) }?;
                    stream.synchronize().map_err(failed("copying to the device"))?;
                }
            }
            headers.push(header);
        }
        if self.batch.frames() > 0 {
            let scratch = self.scratch.of("scratch memory for decoding", self.batch.scratch_bytes())?;
            let base = self.staged.of("frames", self.batch.staged_bytes())?;
            let staged = self.batch.stage(base, scratch, self.gpu.most_blocks());
            stream.synchronize().map_err(failed("copying to the device"))?;
            let pinned = self.pinned.of(self.batch.bytes().len())?;
            pinned.copy_from_slice(self.batch.bytes());
            // SAFETY: the staged memory is as long as was asked for; pinned memory changes only here, after waiting.
            unsafe { copy_in(pinned, base, stream) }?;
            let serves = |constants| self.special.as_ref().is_some_and(|special| special.serves(constants));
            self.is_special = self.batch.constants().is_some_and(serves);
            self.launches = staged.launches;
            self.statuses = staged.statuses;
        }
        Ok(headers)
    }

    /// Put the kernels for the staged frames on a stream, and nothing else: a graph may capture this, and replay it for as long
    /// as nothing else is staged.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the driver refuses.
    ///
    /// # Safety
    /// As [`Decoder::decode_to`], until the stream is done; the stream comes after the one that was staged on.
    pub unsafe fn launch(&self, stream: &Arc<CudaStream>) -> Result<()> {
        let special = self.special.as_ref().filter(|_| self.is_special);
        // SAFETY: jobs lie in staged memory, and name that, scratch memory and the caller's.
        self.launches.iter().try_for_each(|launch| unsafe { self.gpu.launch(launch, special, stream) })
    }

    /// Wait for the stream, and say of each staged frame whether it was an encoder's:
    /// [`narrows::Error::CorruptPayload`] if it was not, which does not touch the others.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if a kernel failed.
    pub fn check(&mut self, stream: &Arc<CudaStream>) -> Result<Vec<narrows::Result<()>>> {
        let mut words = vec![0; self.statuses.len()];
        if words.is_empty() {
            stream.synchronize().map_err(failed("running the kernels"))?;
        } else {
            // SAFETY: the statuses are part of what was staged.
            unsafe { copy_out(self.staged.address() + self.statuses.start as u64, &mut words, stream) }?;
        }
        let mut statuses = bytemuck::pod_collect_to_vec::<u8, u32>(&words).into_iter();
        let result = |&by_kernels: &bool| {
            let status = if by_kernels { statuses.next() } else { None };
            let fault = status.and_then(Fault::of_status);
            fault.map_or(Ok(()), |Fault { chunk, what }| Err(narrows::Error::CorruptPayload { chunk, what }))
        };
        Ok(self.by_kernels.iter().map(result).collect())
    }
}
