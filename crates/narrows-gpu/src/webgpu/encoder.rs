//! Tensor to frame.

use ::wgpu;
use narrows::stream::{self, Assembly};
use narrows::{Affine, Dtype, EncodeOptions, Tensor, TensorView};

use super::device::{Batch, Gpu, Room};
use super::job::{Shape, list_model};
use crate::error::{Error, Result};
use crate::plan::{Map, Plan};

/// Turns tensors into frames on a GPU; keeps its buffers.
///
/// The device finds the range, quantises, counts and codes; tables, header and checksum are made on the CPU, where the
/// frame ends up. With a profile nothing of that has to be waited for before the end.
///
/// Options are the CPU's. Offered are ranges without clipping, fixed maps and profiles, rANS, natural and plane order; with
/// [`LayoutChoice::Auto`](narrows::LayoutChoice::Auto) planes of more than one position are coded in plane order.
pub struct Encoder {
    gpu: Gpu,
    options: EncodeOptions,
    cpu: narrows::Encoder,
    assembly: Assembly,
    lists: Vec<u32>,
    rooms: Rooms,
}

struct Rooms {
    shape: Room,
    lists: Room,
    elements: Room,
    found: Room,
    coded: Room,
    counts: Room,
    words: Room,
    states: Room,
    lengths: Room,
    starts: Room,
    payload: Room,
    staging: Room,
}

/// Steps whose reciprocal, and whose quotients, keep clear of subnormal numbers, which WGSL may take for zero.
const STEPS: std::ops::RangeInclusive<f32> = 7.5e-37..=1.3e36;

impl Encoder {
    /// An encoder with these options.
    ///
    /// # Errors
    /// [`narrows::Error::InvalidOption`] if one is outside its range; [`Error::NotOffered`] for those of the CPU alone.
    pub fn new(gpu: &Gpu, options: EncodeOptions) -> Result<Self> {
        let cpu = narrows::Encoder::new(options.clone())?;
        // What the options offer does not depend on the shape.
        Plan::new(&options, &narrows::Shape::new(&[1, 1, 1, 1, 1, 1, 1, 1])?, None)?;
        let rooms = Rooms {
            shape: Room::uniform("shape"),
            lists: Room::storage("lists"),
            elements: Room::storage("elements"),
            found: Room::storage("found"),
            coded: Room::storage("coded"),
            counts: Room::storage("counts"),
            words: Room::storage("words"),
            states: Room::storage("states"),
            lengths: Room::storage("lengths"),
            starts: Room::storage("starts"),
            payload: Room::storage("payload"),
            staging: Room::staging("read-back"),
        };
        let (gpu, assembly) = (gpu.clone(), Assembly::default());
        Ok(Self { gpu, options, cpu, assembly, lists: Vec::new(), rooms })
    }

    /// Encode a tensor in host memory.
    ///
    /// # Errors
    /// As [`narrows::Encoder::encode_into`]; [`Error::Room`] if the device has no buffers of this size.
    pub fn encode(&mut self, tensor: &TensorView<'_>) -> Result<Vec<u8>> {
        if tensor.shape().elements() == 0 {
            return Ok(self.cpu.encode(tensor)?);
        }
        let bytes = tensor.to_tensor().to_le_bytes();
        let elements = self.gpu.write(&mut self.rooms.elements, &bytes)?;
        self.encode_from(&elements, tensor.dtype(), tensor.shape())
    }

    /// Encode the caller's buffer: elements row-major from its first byte on; it needs the usages `STORAGE` and `COPY_SRC`.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; [`Error::Room`] if the buffer is smaller than the shape says.
    pub fn encode_from(
        &mut self,
        elements: &wgpu::Buffer,
        dtype: Dtype,
        shape: &narrows::Shape,
    ) -> Result<Vec<u8>> {
        let bytes = (shape.elements() * dtype.size()) as u64;
        let (needed, available) = (bytes.next_multiple_of(4), elements.size());
        if needed > available {
            return Err(Error::Room { what: "the buffer of elements", needed, available });
        }
        if shape.elements() == 0 {
            let nothing = Tensor::new::<f32>(Vec::new(), shape.dims())?;
            return Ok(self.cpu.encode(&nothing.view())?);
        }
        if shape.elements() >= 1 << 31 {
            return Err(Error::Room {
                what: "a tensor",
                needed: bytes,
                available: (1 << 31) * dtype.size() as u64,
            });
        }
        let plan = Plan::new(&self.options, shape, None)?;
        if !self.gpu.runs_rows(plan.geometry.chunk_rows, 0) {
            return Err(Error::NotOffered { what: "a chunk of so many rows on a software device" });
        }
        let map = match plan.map {
            Map::Fixed(map) => map,
            Map::Range(levels) => match self.range(&plan, dtype, elements)? {
                (min, max) if min < max => Affine::from_range(min, max, levels),
                _ => return self.constant(dtype, shape, elements),
            },
        };
        if !STEPS.contains(&map.step()) {
            return Err(Error::NotOffered { what: "a step so near to the ends of f32" });
        }
        self.code(&plan, dtype, &map, elements)
    }

    fn batch(&mut self, shape: &Shape) -> Result<Batch<'_>> {
        Batch::new(&self.gpu, (&mut self.rooms.shape, &mut self.rooms.lists), shape, &self.lists)
    }

    /// The smallest and the largest element.
    fn range(&mut self, plan: &Plan, dtype: Dtype, elements: &wgpu::Buffer) -> Result<(f32, f32)> {
        let shape = Shape::of_plan(plan, dtype);
        self.lists.clear();
        let Self { gpu, rooms, .. } = self;
        let found = gpu.write(&mut rooms.found, bytemuck::cast_slice(&[u32::MAX, u32::MAX, 0]))?;
        let coded = rooms.coded.of(gpu, 4)?.clone();
        let counts = rooms.counts.of(gpu, 4)?.clone();
        let gpu = gpu.clone();
        let mut batch = self.batch(&shape)?;
        let groups = Gpu::stepping_groups(shape.elements);
        batch.run(&gpu.kernels().range, &[elements, &found, &coded, &counts], groups);
        batch.submit();
        let found = gpu.read(&mut self.rooms.staging, &found, 12)?;
        let found: Vec<u32> = bytemuck::pod_collect_to_vec(&found);
        self.check_finite(found[0], dtype, elements)?;
        // Undoes the order-keeping keys of `shaders/quantize.wgsl`.
        let value = |key: u32| f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key });
        Ok((value(found[1]), value(found[2])))
    }

    fn check_finite(&mut self, index: u32, dtype: Dtype, elements: &wgpu::Buffer) -> Result<()> {
        if index == u32::MAX {
            return Ok(());
        }
        let value = self.element(index as usize, dtype, elements)?;
        Err(narrows::Error::NonFinite { index: index as usize, value: value.to_f32()[0] }.into())
    }

    /// One element, brought back from the device.
    fn element(&mut self, index: usize, dtype: Dtype, elements: &wgpu::Buffer) -> Result<Tensor> {
        let end = (index + 1) * dtype.size();
        let bytes = self.gpu.read(&mut self.rooms.staging, elements, end as u64)?;
        let bytes = &bytes[index * dtype.size()..end];
        Ok(match dtype {
            Dtype::F32 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, f32>(bytes), &[1]),
            Dtype::F16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes), &[1]),
            Dtype::Bf16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::bf16>(bytes), &[1]),
        }?)
    }

    fn constant(&mut self, dtype: Dtype, shape: &narrows::Shape, elements: &wgpu::Buffer) -> Result<Vec<u8>> {
        let mut frame = stream::constant_head(dtype, shape);
        frame.extend(self.element(0, dtype, elements)?.to_le_bytes());
        stream::write_checksum(&mut frame);
        Ok(frame)
    }

    fn code(&mut self, plan: &Plan, dtype: Dtype, map: &Affine, elements: &wgpu::Buffer) -> Result<Vec<u8>> {
        let shape = Shape::of_plan(plan, dtype).with_map(map);
        let symbols = u64::from(shape.elements);
        let cells = plan.table_count() * plan.alphabet();
        let classes = plan.classes().map(|(of_bin, _)| of_bin);
        list_model(classes, &[], &mut self.lists);
        let gpu = self.gpu.clone();
        let rooms = &mut self.rooms;
        let found = gpu.write(&mut rooms.found, &u32::MAX.to_le_bytes())?;
        let coded = rooms.coded.of(&gpu, symbols)?.clone();
        let counts = rooms.counts.of(&gpu, cells as u64 * 4)?.clone();
        let mut batch = self.batch(&shape)?;
        batch.clear(&counts, cells as u64 * 4);
        let groups = Gpu::stepping_groups(shape.elements.div_ceil(4));
        batch.run(&gpu.kernels().count, &[elements, &found, &coded, &counts], groups);
        batch.submit();
        let counted = if plan.profile.is_none() {
            let counted = gpu.read(&mut self.rooms.staging, &counts, cells as u64 * 4)?;
            bytemuck::pod_collect_to_vec(&counted)
        } else {
            Vec::new()
        };
        let (geometry, rooms) = (&plan.geometry, &mut self.rooms);
        let tensor = (dtype, &plan.shape, &plan.planes);
        self.assembly.start(tensor, map, plan.tables(), (geometry.lanes, geometry.chunk_rows), &counted);
        list_model(classes, self.assembly.tables(), &mut self.lists);
        let chunks = u64::from(shape.chunks);
        let words = rooms.words.of(&gpu, symbols * 4)?.clone();
        let states = rooms.states.of(&gpu, chunks * 128)?.clone();
        let lengths = rooms.lengths.of(&gpu, chunks * 4)?.clone();
        let starts = rooms.starts.of(&gpu, chunks * 4 + 4)?.clone();
        let most = symbols * 2 + chunks * 128;
        let payload = rooms.payload.of(&gpu, most)?.clone();
        let mut batch = self.batch(&shape)?;
        let groups = gpu.chunk_groups(shape.chunks);
        batch.run(&gpu.kernels().encode, &[&coded, &words, &states, &lengths], groups);
        let buffers = [&words, &states, &lengths, &starts, &payload];
        batch.run(&gpu.kernels().scan, &buffers, (1, 1));
        batch.run(&gpu.kernels().compact, &buffers, Gpu::stepping_groups((most / 4) as u32));
        batch.submit();
        let staging = &mut self.rooms.staging;
        let found = gpu.read(staging, &found, 4)?;
        let found = u32::from_le_bytes([found[0], found[1], found[2], found[3]]);
        let lengths: Vec<u32> = bytemuck::pod_collect_to_vec(&gpu.read(staging, &lengths, chunks * 4)?);
        let states: usize = (0..geometry.chunks()).map(|chunk| 4 * geometry.width(chunk)).sum();
        let bytes = states as u64 + lengths.iter().map(|&words| 2 * u64::from(words)).sum::<u64>();
        let payload = gpu.read(staging, &payload, bytes)?;
        self.check_finite(found, dtype, elements)?;
        let mut frame = Vec::new();
        self.assembly.finish(&lengths, &payload, &mut frame);
        Ok(frame)
    }
}
