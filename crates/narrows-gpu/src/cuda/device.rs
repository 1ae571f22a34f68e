//! A device with its kernels loaded, and memory on it.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream};
use cudarc::nvrtc::Ptx;

use super::special;
use crate::error::{Error, Result};
use crate::launch::{Half, Kernel, Launch};

/// Every kernel, for Volta and all that came after; `kernels/compile.py` makes it.
const PTX: &str = include_str!("../../kernels/narrows.ptx");

/// Memory on the device, of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Where it begins.
    pub address: u64,
    /// How long it is, bytes.
    pub bytes: u64,
}

/// An NVIDIA GPU, ready to code. Cheap to clone.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    context: Arc<CudaContext>,
    functions: Vec<CudaFunction>,
    name: String,
    multiprocessors: u32,
}

/// Kernels made for one kind of job; the constants say which.
pub(super) struct Special {
    constants: String,
    functions: Vec<(Kernel, CudaFunction)>,
}

impl Special {
    /// Whether they are for jobs with these constants.
    pub(super) fn serves(&self, constants: &str) -> bool {
        self.constants == constants
    }
}

pub(super) fn failed(what: &'static str) -> impl Fn(DriverError) -> Error {
    move |error| Error::Device { what, cause: error.to_string() }
}

fn no_device(cause: impl Into<String>) -> Error {
    Error::NoDevice { kind: "CUDA", cause: cause.into() }
}

impl Gpu {
    /// The device with this number, 0 for the first.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if there is no driver, or no such device; [`Error::Device`] if the driver refuses the
    /// kernels (it is older than CUDA 12.0).
    pub fn new(ordinal: usize) -> Result<Self> {
        // SAFETY: only looks whether the library can be loaded; its initialisers are the driver's own.
        if !unsafe { sys::is_culib_present() } {
            return Err(no_device("the NVIDIA driver (libcuda) is not installed"));
        }
        let context = CudaContext::new(ordinal).map_err(|error| no_device(error.to_string()))?;
        Self::of_context(context)
    }

    /// A device that the caller has opened.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver refuses the kernels.
    pub fn of_context(context: Arc<CudaContext>) -> Result<Self> {
        let module = context.load_module(Ptx::from_src(PTX)).map_err(failed("loading the kernels"))?;
        let load = |kernel: Kernel| module.load_function(kernel.name());
        let functions: Result<Vec<_>, _> = Kernel::ALL.into_iter().map(load).collect();
        let functions = functions.map_err(failed("finding a kernel"))?;
        let name = context.name().map_err(failed("asking for the device's name"))?;
        let multiprocessors = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(failed("counting multiprocessors"))?;
        Ok(Self(Arc::new(Inner { context, functions, name, multiprocessors: multiprocessors.max(1) as u32 })))
    }

    /// The device's name, as the driver gives it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The context that memory and streams have to belong to.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    /// A stream of the caller's, such as `PyTorch`'s current one.
    ///
    /// # Safety
    /// `stream` is null (the default stream) or a `CUstream` of this context, and stays one as long as what is returned is used.
    pub unsafe fn stream_of(&self, stream: *mut c_void) -> Arc<CudaStream> {
        // SAFETY: as above.
        unsafe { self.0.context.wrap_borrowed_stream(stream.cast()) }
    }

    /// Blocks for one tensor that are plenty: they step through what is left.
    pub(super) fn most_blocks(&self) -> u32 {
        self.0.multiprocessors * 16
    }

    /// Kernels of a half made for one kind of job; none where NVRTC is not installed, or does not know this device, or writes
    /// what the driver does not take.
    pub(super) fn specialize(&self, half: Half, constants: String) -> Result<Option<Special>> {
        let attribute =
            |which| self.0.context.attribute(which).map_err(failed("asking for the architecture"));
        let capability = (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let Some(code) = special::compile(capability, half, &constants)? else { return Ok(None) };
        let Ok(module) = self.0.context.load_module(Ptx::from_binary(code)) else { return Ok(None) };
        let load = |&kernel: &Kernel| module.load_function(kernel.name()).map(|function| (kernel, function));
        let functions: Result<Vec<_>, DriverError> = half.kernels().iter().map(load).collect();
        Ok(Some(Special { constants, functions: functions.map_err(failed("finding a kernel"))? }))
    }

    fn function<'a>(&'a self, kernel: Kernel, special: Option<&'a Special>) -> &'a CudaFunction {
        let made = special.and_then(|special| special.functions.iter().find(|(of, _)| *of == kernel));
        made.map_or(&self.0.functions[kernel as usize], |(_, function)| function)
    }

    /// Blocks of a kernel that can be on the device at once.
    pub(super) fn blocks_at_once(&self, launch: &Launch, special: Option<&Special>) -> Result<u32> {
        let function = self.function(launch.kernel, special);
        let each = function
            .occupancy_max_active_blocks_per_multiprocessor(launch.threads, launch.shared as usize, None)
            .map_err(failed("asking for a kernel's occupancy"))?;
        Ok(each * self.0.multiprocessors)
    }

    /// Put a launch on a stream, of kernels made for such jobs where there are some.
    ///
    /// # Safety
    /// The jobs at the launch's address, and all memory they name, are valid until the stream is done.
    pub(super) unsafe fn launch(
        &self,
        launch: &Launch,
        special: Option<&Special>,
        stream: &CudaStream,
    ) -> Result<()> {
        self.0.context.bind_to_thread().map_err(failed("selecting the device"))?;
        let function = self.function(launch.kernel, special).cu_function();
        let mut jobs = launch.jobs;
        let mut parameters = [(&raw mut jobs).cast::<c_void>()];
        let (grid, block) = ((launch.grid.0, launch.grid.1, 1), (launch.threads, 1, 1));
        let parameters = &mut parameters;
        // SAFETY: the function is of a module that lives as long as `self`; it takes one pointer, which is copied before the
        // call returns; what it points to is the caller's promise.
        let result = unsafe {
            if launch.kernel == Kernel::EncodeAtOnce {
                result::launch_cooperative_kernel(
                    function,
                    grid,
                    block,
                    launch.shared,
                    stream.cu_stream(),
                    parameters,
                )
            } else {
                result::launch_kernel(function, grid, block, launch.shared, stream.cu_stream(), parameters)
            }
        };
        result.map_err(failed("launching a kernel"))
    }
}

/// Device memory that grows.
pub(super) struct Memory {
    context: Arc<CudaContext>,
    address: u64,
    bytes: u64,
}

impl Memory {
    pub(super) fn new(gpu: &Gpu) -> Self {
        Self { context: Arc::clone(gpu.context()), address: 0, bytes: 0 }
    }

    /// At least so many bytes; what it held is lost when it grows. Waits for the device then, since kernels may still use the
    /// old memory.
    pub(super) fn of(&mut self, what: &'static str, bytes: u64) -> Result<u64> {
        if bytes > self.bytes || self.address == 0 {
            self.free();
            let wanted = bytes.next_power_of_two().max(4096);
            self.context.bind_to_thread().map_err(failed("selecting the device"))?;
            // SAFETY: the context is current; the memory is freed with `self`.
            let taken = unsafe { result::malloc_sync(wanted as usize) };
            self.address = taken.map_err(|_| {
                let available = self.context.mem_get_info().map_or(0, |(free, _)| free as u64);
                Error::Room { what, needed: wanted, available }
            })?;
            self.bytes = wanted;
        }
        Ok(self.address)
    }

    pub(super) const fn address(&self) -> u64 {
        self.address
    }

    fn free(&mut self) {
        if self.address != 0 {
            // An error here is one of an earlier launch, which whoever waits for that is told of.
            let _ = self.context.synchronize();
            // SAFETY: nothing on the device uses it any more, and the address is forgotten.
            let _ = unsafe { result::free_sync(self.address) };
            (self.address, self.bytes) = (0, 0);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.free();
    }
}

/// Host memory that the device copies from and to by itself.
pub(super) struct Pinned {
    context: Arc<CudaContext>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: it is plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(gpu: &Gpu) -> Self {
        Self { context: Arc::clone(gpu.context()), start: std::ptr::null_mut(), bytes: 0 }
    }

    /// At least so many bytes; what it held is lost when it grows.
    pub(super) fn of(&mut self, bytes: usize) -> Result<&mut [u8]> {
        if bytes > self.bytes || self.start.is_null() {
            self.free();
            let wanted = bytes.next_power_of_two().max(4096);
            self.context.bind_to_thread().map_err(failed("selecting the device"))?;
            // SAFETY: the context is current; freed with `self`.
            let start = unsafe { result::malloc_host(wanted, 0) }.map_err(failed("pinning host memory"))?;
            self.start = start.cast();
            // SAFETY: `wanted` bytes were just allocated there; from now on all are initialised.
            unsafe { self.start.write_bytes(0, wanted) };
            self.bytes = wanted;
        }
        // SAFETY: allocated and initialised above, and borrowed from `self`.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.start, bytes) })
    }

    fn free(&mut self) {
        if !self.start.is_null() {
            let _ = self.context.synchronize();
            // SAFETY: no copy is under way, and the address is forgotten.
            let _ = unsafe { result::free_host(self.start.cast()) };
            (self.start, self.bytes) = (std::ptr::null_mut(), 0);
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.free();
    }
}

/// Copy pinned bytes to the device; done when the stream has come there.
///
/// # Safety
/// `to` has room for them, and neither is touched until the stream is done.
pub(super) unsafe fn copy_in(from: &[u8], to: u64, stream: &CudaStream) -> Result<()> {
    stream.context().bind_to_thread().map_err(failed("selecting the device"))?;
    // SAFETY: as above.
    unsafe { result::memcpy_htod_async(to, from, stream.cu_stream()) }
        .map_err(failed("copying to the device"))
}

/// Copy from the device, and wait for it.
///
/// # Safety
/// There are as many bytes at `from`.
pub(super) unsafe fn copy_out(from: u64, to: &mut [u8], stream: &CudaStream) -> Result<()> {
    stream.context().bind_to_thread().map_err(failed("selecting the device"))?;
    // SAFETY: as above; `to` is borrowed until the stream is done.
    unsafe { result::memcpy_dtoh_async(to, from, stream.cu_stream()) }
        .map_err(failed("copying from the device"))?;
    stream.synchronize().map_err(failed("running the kernels"))
}

/// Tensors of one launch are the y of a grid, which has 16 bits.
pub(super) fn check_batch(tensors: usize) -> Result<()> {
    let bound = usize::from(u16::MAX);
    let what = "tensors of a batch";
    if tensors > bound { Err(narrows::Error::Shape { what, value: tensors, bound }.into()) } else { Ok(()) }
}

/// Whether the caller's memory is large enough.
pub(super) fn check_room(what: &'static str, needed: u64, memory: &DeviceMemory) -> Result<()> {
    let available = memory.bytes;
    if memory.address == 0 || !memory.address.is_multiple_of(4) {
        return Err(Error::Device {
            what: "using the caller's memory",
            cause: format!("{what} begins at {:#x}, not at a multiple of 4", memory.address),
        });
    }
    if needed > available { Err(Error::Room { what, needed, available }) } else { Ok(()) }
}
