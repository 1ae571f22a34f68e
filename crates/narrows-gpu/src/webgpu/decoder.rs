//! Frame to tensor.

use ::wgpu;
use narrows::stream::{Survey, Surveyor};
use narrows::{Dequantizer, Dtype, Header, Layout, Limits, Profiles, Tensor};

use super::device::{Batch, Gpu, Room};
use super::job::{MOST_SYMBOLS, MOST_TABLES, Shape, list_chunks, list_model, list_values, longest_walk};
use crate::error::{Error, Result};

/// Turns frames into tensors on a GPU; keeps its buffers.
///
/// The GPU decodes rANS frames in natural and plane order. Whatever else a frame may hold is decoded on the CPU and
/// handed to the device, so that every frame decodes.
pub struct Decoder {
    gpu: Gpu,
    limits: Limits,
    profiles: Profiles,
    cpu: narrows::Decoder,
    decoded: Tensor,
    surveyor: Surveyor,
    lists: Vec<u32>,
    values: Vec<u32>,
    rooms: Rooms,
}

struct Rooms {
    shape: Room,
    lists: Room,
    payload: Room,
    values: Room,
    elements: Room,
    status: Room,
    history: Room,
    staging: Room,
}

/// Values of all channels together that the device is given, at most.
const MOST_VALUES: usize = 1 << 18;

const WHAT: [&str; 4] = [
    "the words end before the symbols do",
    "words are left over",
    "a lane's first state is below 2^16",
    "a lane does not end at state 2^16",
];

/// Whether the kernels decode this.
fn is_offered(gpu: &Gpu, survey: &Survey<'_>) -> bool {
    let channels = match survey.dequantizer {
        Dequantizer::Tensor(_) => 1,
        Dequantizer::PerChannel(maps) => maps.len(),
    };
    matches!(survey.layout, Layout::Natural | Layout::Planes)
        && survey.tables.len() <= MOST_TABLES
        && survey.alphabet <= MOST_SYMBOLS
        && survey.alphabet * channels <= MOST_VALUES
        && survey.geometry.symbols() < 1 << 31
        && gpu.runs_rows(survey.geometry.chunk_rows, longest_walk(survey.tables))
}

impl Decoder {
    /// A decoder on this device, with the default limits and no profiles.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            limits: Limits::default(),
            profiles: Profiles::default(),
            cpu: narrows::Decoder::new(),
            decoded: Tensor::default(),
            surveyor: Surveyor::default(),
            lists: Vec::new(),
            values: Vec::new(),
            rooms: Rooms {
                shape: Room::uniform("shape"),
                lists: Room::storage("lists"),
                payload: Room::storage("payload"),
                values: Room::storage("values"),
                elements: Room::storage("elements"),
                status: Room::storage("status"),
                history: Room::storage("history"),
                staging: Room::staging("read-back"),
            },
        }
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

    /// Whether the device decodes this frame itself.
    ///
    /// # Errors
    /// As [`Decoder::decode_to`], but for what only decoding shows.
    pub fn is_offered(&mut self, frame: &[u8]) -> Result<bool> {
        let (_, survey) = self.surveyor.survey(frame, &self.limits, &self.profiles)?;
        Ok(survey.is_some_and(|survey| is_offered(&self.gpu, &survey)))
    }

    /// Decode into a new tensor in host memory.
    ///
    /// # Errors
    /// As [`narrows::Decoder::decode_into`]; [`Error::Room`] if the device has no buffers of this size.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Tensor> {
        let header = narrows::peek(frame)?;
        let bytes = (header.shape.elements() * header.dtype.size()) as u64;
        if header.shape.elements() as u64 > self.limits.max_elements {
            // With the codec's own words for it.
            return Ok(self.cpu.decode(frame)?);
        }
        let elements = self.rooms.elements.of(&self.gpu, bytes)?.clone();
        let header = self.decode_to(frame, &elements)?;
        let bytes = self.gpu.read(&mut self.rooms.staging, &elements, bytes)?;
        Ok(tensor(&header, &bytes)?)
    }

    /// Decode into the caller's buffer, row-major from its first byte on; it needs the usages `STORAGE` and `COPY_DST`, and
    /// the elements' bytes rounded up to 4. Comes back when the device is done, since only then is it known whether the
    /// frame was an encoder's; on an error the buffer's contents are unspecified.
    ///
    /// # Errors
    /// As [`narrows::Decoder::decode_into`]; [`Error::Room`] if the buffer is too small.
    pub fn decode_to(&mut self, frame: &[u8], elements: &wgpu::Buffer) -> Result<Header> {
        let (header, survey) = self.surveyor.survey(frame, &self.limits, &self.profiles)?;
        let bytes = (header.shape.elements() * header.dtype.size()) as u64;
        let (needed, available) = (bytes.next_multiple_of(4), elements.size());
        if needed > available {
            return Err(Error::Room { what: "the buffer for the elements", needed, available });
        }
        let Some(survey) = survey.filter(|survey| is_offered(&self.gpu, survey)) else {
            self.cpu.decode_into(frame, &mut self.decoded)?;
            self.upload(elements);
            return Ok(header);
        };
        let Self { gpu, lists, values, rooms, .. } = self;
        let classes = match survey.chooser {
            narrows::stream::Chooser::Neighbours { of_bin, .. } => Some(*of_bin),
            _ => None,
        };
        list_model(classes, survey.tables, lists);
        list_chunks(&survey, lists);
        list_values(survey.dequantizer, header.dtype, values);
        let shape = Shape::of_survey(&survey, header.dtype);
        let payload = gpu.write(&mut rooms.payload, survey.payload)?;
        let values = gpu.write(&mut rooms.values, bytemuck::cast_slice(values))?;
        let status = gpu.write(&mut rooms.status, &u32::MAX.to_le_bytes())?;
        let of_history =
            if classes.is_some() { u64::from(shape.chunks) * u64::from(shape.history_rows) } else { 0 };
        let history = rooms.history.of(gpu, of_history * 128)?.clone();
        let mut batch = Batch::new(gpu, (&mut rooms.shape, &mut rooms.lists), &shape, lists)?;
        if header.dtype != Dtype::F32 {
            batch.clear(elements, bytes);
        }
        let buffers = [&payload, &values, elements, &status, &history];
        batch.run(&gpu.kernels().decode, &buffers, gpu.chunk_groups(shape.chunks));
        batch.submit();
        let status = gpu.read(&mut rooms.staging, &status, 4)?;
        match u32::from_le_bytes([status[0], status[1], status[2], status[3]]) {
            u32::MAX => Ok(header),
            code => {
                let (chunk, what) = ((code / 4) as usize, WHAT[(code % 4) as usize]);
                Err(narrows::Error::CorruptPayload { chunk, what }.into())
            }
        }
    }

    /// Hand what the CPU has decoded to the device.
    fn upload(&self, elements: &wgpu::Buffer) {
        let mut bytes = self.decoded.to_le_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if !bytes.is_empty() {
            self.gpu.queue().write_buffer(elements, 0, &bytes);
        }
    }
}

fn tensor(header: &Header, bytes: &[u8]) -> narrows::Result<Tensor> {
    let dims = header.shape.dims();
    match header.dtype {
        Dtype::F32 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, f32>(bytes), dims),
        Dtype::F16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes), dims),
        Dtype::Bf16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::bf16>(bytes), dims),
    }
}
