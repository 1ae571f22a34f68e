//! A Vulkan or Metal device with its kernels compiled.

use std::sync::Arc;

use ::wgpu;

use super::job::Shape;
use crate::error::{Error, Result};

/// How lanes of a chunk learn of each other's votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// By ballots of subgroups, all of this size: a power of two from 4 to 128.
    Subgroup(u32),
    /// Through workgroup memory: any device.
    Barrier,
}

/// A Vulkan or Metal device, ready to code. Cheap to clone.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    vote: Vote,
    kernels: Kernels,
}

/// The kernels, each a pipeline.
pub(super) struct Kernels {
    pub(super) decode: wgpu::ComputePipeline,
    pub(super) range: wgpu::ComputePipeline,
    pub(super) count: wgpu::ComputePipeline,
    pub(super) encode: wgpu::ComputePipeline,
    pub(super) scan: wgpu::ComputePipeline,
    pub(super) compact: wgpu::ComputePipeline,
}

/// Threads of a workgroup where it is not bound to one chunk.
const WORKGROUP: u32 = 128;
/// Workgroups of a kernel that steps through its elements.
const STEPPING_WORKGROUPS: u32 = 512;
const JOB: &str = include_str!("../../shaders/job.wgsl");
const TABLES: &str = include_str!("../../shaders/tables.wgsl");
const DECODE: &str = include_str!("../../shaders/decode.wgsl");
const QUANTIZE: &str = include_str!("../../shaders/quantize.wgsl");
const ENCODE: &str = include_str!("../../shaders/encode.wgsl");
const COMPACT: &str = include_str!("../../shaders/compact.wgsl");
const VOTE_SUBGROUP: &str = include_str!("../../shaders/vote_subgroup.wgsl");
const VOTE_BARRIER: &str = include_str!("../../shaders/vote_barrier.wgsl");

impl Vote {
    /// Threads of a workgroup, and chunks that it codes.
    const fn workgroup(self) -> (u32, u32) {
        match self {
            Self::Subgroup(size) => (WORKGROUP, WORKGROUP / 32 * Self::lanes_each(size)),
            Self::Barrier => (32, 1),
        }
    }

    /// Lanes of a chunk that one thread runs.
    const fn lanes_each(size: u32) -> u32 {
        if size < 32 { 32 / size } else { 1 }
    }

    /// Turns that a thread's loops take for one row of a chunk, with at most `walk` turns to find a symbol: the row, its lanes,
    /// the search, and one more for every loop that ends.
    const fn turns_of_row(self, walk: usize) -> usize {
        let lanes = match self {
            Self::Subgroup(size) => Self::lanes_each(size) as usize,
            Self::Barrier => 1,
        };
        2 + lanes * (2 + walk)
    }

    /// The source of a kernel that votes.
    fn source(self, kernel: &str) -> String {
        let (threads, chunks) = self.workgroup();
        let (head, votes, subgroup) = match self {
            Self::Subgroup(size) => (
                format!(
                    "const SUBGROUP: u32 = {size}u;\nconst LANES_EACH: u32 = {}u;\n",
                    Self::lanes_each(size)
                ),
                VOTE_SUBGROUP,
                "@builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) invocation: u32,",
            ),
            Self::Barrier => ("const LANES_EACH: u32 = 1u;\n".to_owned(), VOTE_BARRIER, ""),
        };
        let mut kernel = kernel.replace("SUBGROUP_BUILTINS", subgroup);
        if self == Self::Barrier {
            kernel = kernel.replace("place(thread, subgroup, invocation)", "place(thread, 0u, 0u)");
        }
        let sizes = format!("const WORKGROUP: u32 = {threads}u;\nconst CHUNKS_EACH: u32 = {chunks}u;\n");
        [&head, &sizes, JOB, TABLES, votes, &kernel].concat()
    }
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Error {
    move |cause| Error::Device { what, cause: cause.to_string() }
}

impl Gpu {
    /// The best device that there is.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if there is none; [`Error::Device`] if it cannot be opened.
    pub fn new() -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let wanted = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        };
        let adapter = pollster::block_on(instance.request_adapter(&wanted))
            .map_err(|error| Error::NoDevice { kind: "Vulkan or Metal", cause: error.to_string() })?;
        let features = adapter.features() & wgpu::Features::SUBGROUP;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("narrows"),
            required_features: features,
            required_limits: adapter.limits(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(failed("opening the device"))?;
        let vote = Self::best_vote(&device);
        Self::of_device(device, queue, vote)
    }

    /// What a device votes by: subgroups, if it has them and all are of one size.
    pub fn best_vote(device: &wgpu::Device) -> Vote {
        let info = device.adapter_info();
        let size = info.subgroup_max_size;
        let fixed = info.subgroup_min_size == size && (4..=128).contains(&size) && size.is_power_of_two();
        if fixed && device.features().contains(wgpu::Features::SUBGROUP) {
            Vote::Subgroup(size)
        } else {
            Vote::Barrier
        }
    }

    /// A device that the caller has opened: its buffers can be coded from and to.
    ///
    /// # Errors
    /// [`Error::Device`] if the kernels do not compile on it.
    pub fn of_device(device: wgpu::Device, queue: wgpu::Queue, vote: Vote) -> Result<Self> {
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let plain = |kernel: &str| [&format!("const WORKGROUP: u32 = {WORKGROUP}u;\n"), JOB, kernel].concat();
        let (quantize, compact) = (plain(QUANTIZE), plain(COMPACT));
        let kernels = Kernels {
            decode: pipeline(&device, &vote.source(DECODE), "decode", &[false, false, true, true, true]),
            range: pipeline(&device, &quantize, "range", &[false, true, true, true]),
            count: pipeline(&device, &quantize, "count", &[false, true, true, true]),
            encode: pipeline(&device, &vote.source(ENCODE), "encode", &[false, true, true, true]),
            scan: pipeline(&device, &compact, "scan", &[false, false, false, true, true]),
            compact: pipeline(&device, &compact, "compact", &[false, false, false, true, true]),
        };
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Device { what: "compiling the kernels", cause: error.to_string() });
        }
        let name = device.adapter_info().name;
        Ok(Self(Arc::new(Inner { device, queue, name, vote, kernels })))
    }

    /// The same device with lanes voting another way, for tests and measurements.
    ///
    /// # Errors
    /// As [`Gpu::of_device`].
    pub fn with_vote(&self, vote: Vote) -> Result<Self> {
        Self::of_device(self.0.device.clone(), self.0.queue.clone(), vote)
    }

    /// The device's name, as its driver gives it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How lanes vote.
    pub fn vote(&self) -> Vote {
        self.0.vote
    }

    /// The device itself.
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.0.kernels
    }

    /// Whether the device goes through chunks of so many rows, each with at most `walk` turns to find a symbol. llvmpipe,
    /// Mesa's device on a CPU, ends all loops of a thread after 65,535 turns together.
    pub(super) fn runs_rows(&self, rows: usize, walk: usize) -> bool {
        let is_software = self.device().adapter_info().device_type == wgpu::DeviceType::Cpu;
        !is_software || rows.saturating_mul(self.0.vote.turns_of_row(walk)) < 60_000
    }

    /// Workgroups of a kernel with 32 lanes to a chunk, as many in x as a device allows.
    pub(super) fn chunk_groups(&self, chunks: u32) -> (u32, u32) {
        let groups = chunks.div_ceil(self.0.vote.workgroup().1);
        let most = self.0.device.limits().max_compute_workgroups_per_dimension;
        (groups.min(most), groups.div_ceil(most))
    }

    /// Workgroups of a kernel that steps through `items`.
    pub(super) fn stepping_groups(items: u32) -> (u32, u32) {
        (items.div_ceil(WORKGROUP).clamp(1, STEPPING_WORKGROUPS), 1)
    }

    /// The first `bytes` of a buffer with `COPY_SRC`.
    pub(super) fn read(&self, staging: &mut Room, source: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
        let length = bytes.next_multiple_of(4);
        let staged = staging.of(self, length)?.clone();
        let mut commands = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        commands.copy_buffer_to_buffer(source, 0, &staged, 0, length);
        self.queue().submit([commands.finish()]);
        let (done, mapped) = std::sync::mpsc::channel();
        let callback = move |result| done.send(result).unwrap_or(());
        staged.map_async(wgpu::MapMode::Read, ..length, callback);
        self.device().poll(wgpu::PollType::wait_indefinitely()).map_err(failed("waiting for the device"))?;
        let mapped = mapped.recv().map_err(failed("mapping a buffer"))?;
        mapped.map_err(failed("mapping a buffer"))?;
        let taken = {
            let view = staged.get_mapped_range(..length).map_err(failed("mapping a buffer"))?;
            view[..bytes as usize].to_vec()
        };
        staged.unmap();
        Ok(taken)
    }

    pub(super) fn write(&self, room: &mut Room, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let buffer = room.of(self, bytes.len() as u64)?.clone();
        let whole = bytes.len() / 4 * 4;
        self.queue().write_buffer(&buffer, 0, &bytes[..whole]);
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue().write_buffer(&buffer, whole as u64, &last);
        }
        Ok(buffer)
    }
}

/// A buffer that grows.
pub(super) struct Room {
    what: &'static str,
    usage: wgpu::BufferUsages,
    buffer: Option<wgpu::Buffer>,
}

impl Room {
    /// A buffer that kernels read and write.
    pub(super) const fn storage(what: &'static str) -> Self {
        let usage = wgpu::BufferUsages::STORAGE
            .union(wgpu::BufferUsages::COPY_DST)
            .union(wgpu::BufferUsages::COPY_SRC);
        Self { what, usage, buffer: None }
    }

    pub(super) const fn uniform(what: &'static str) -> Self {
        let usage = wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
        Self { what, usage, buffer: None }
    }

    pub(super) const fn staging(what: &'static str) -> Self {
        let usage = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);
        Self { what, usage, buffer: None }
    }

    /// The buffer, at least `bytes` long; what it held is lost when it grows.
    pub(super) fn of(&mut self, gpu: &Gpu, bytes: u64) -> Result<&wgpu::Buffer> {
        let size = bytes.next_multiple_of(4).max(16);
        if self.buffer.as_ref().is_none_or(|buffer| buffer.size() < size) {
            let limits = gpu.device().limits();
            let available = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
            if size > available {
                return Err(Error::Room { what: self.what, needed: size, available });
            }
            let size = size.next_power_of_two().min(available / 4 * 4);
            let descriptor = wgpu::BufferDescriptor {
                label: Some(self.what),
                size,
                usage: self.usage,
                mapped_at_creation: false,
            };
            self.buffer = Some(gpu.device().create_buffer(&descriptor));
        }
        Ok(self.buffer.as_ref().expect("it was just made"))
    }
}

/// Commands on their way to the device: kernels over one tensor.
pub(super) struct Batch<'a> {
    gpu: &'a Gpu,
    commands: wgpu::CommandEncoder,
    shape: wgpu::Buffer,
    lists: wgpu::Buffer,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        gpu: &'a Gpu,
        (of_shape, of_lists): (&mut Room, &mut Room),
        shape: &Shape,
        lists: &[u32],
    ) -> Result<Self> {
        let shape = gpu.write(of_shape, bytemuck::bytes_of(shape))?;
        let lists = gpu.write(of_lists, bytemuck::cast_slice(lists))?;
        let commands = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Ok(Self { gpu, commands, shape, lists })
    }

    /// Set a buffer to zeros.
    pub(super) fn clear(&mut self, buffer: &wgpu::Buffer, bytes: u64) {
        self.commands.clear_buffer(buffer, 0, Some(bytes.next_multiple_of(4)));
    }

    /// Run a kernel over `buffers`, its bindings from 2 on.
    pub(super) fn run(
        &mut self,
        kernel: &wgpu::ComputePipeline,
        buffers: &[&wgpu::Buffer],
        groups: (u32, u32),
    ) {
        let entries: Vec<_> = [&self.shape, &self.lists]
            .iter()
            .chain(buffers)
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let layout = kernel.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
        let bindings = self.gpu.device().create_bind_group(&descriptor);
        let mut pass = self.commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(kernel);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(groups.0, groups.1, 1);
    }

    pub(super) fn submit(self) {
        self.gpu.queue().submit([self.commands.finish()]);
    }
}

/// Compile a kernel whose bindings from 2 on are storage, written to where `written` says so.
fn pipeline(device: &wgpu::Device, source: &str, entry: &str, written: &[bool]) -> wgpu::ComputePipeline {
    let binding = |binding, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage = |written: bool| wgpu::BufferBindingType::Storage { read_only: !written };
    let mut entries = vec![binding(0, wgpu::BufferBindingType::Uniform), binding(1, storage(false))];
    entries.extend(written.iter().zip(2..).map(|(&written, index)| binding(index, storage(written))));
    let bindings = device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(entry), entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(entry),
        bind_group_layouts: &[Some(&bindings)],
        immediate_size: 0,
    });
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(entry), source });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: Some(&layout),
        module: &module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: entry == "decode" || entry == "encode",
            ..wgpu::PipelineCompilationOptions::default()
        },
        cache: None,
    })
}
