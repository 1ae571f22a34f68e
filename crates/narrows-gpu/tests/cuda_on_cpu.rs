//! The CUDA kernels, compiled as C++ through `kernels/cpu_shim.h`, against the CPU codec.

mod common;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use common::{assert_same, assert_same_frame, cases, first_corrupt, frames, hostile, profiles, random_cases};
use narrows::stream::Surveyor;
use narrows::{Dtype, EncodeOptions, Limits, Profiles, Quantizer, Tensor, TensorView};
use narrows_gpu::launch::{DecodeBatch, EncodeBatch, Fault, Kernel, Launch, Outcome, Scratch};
use narrows_gpu::reference;

/// Where device memory begins (`kernels/on_cpu.cpp`).
const DEVICE: u64 = 0x2000_0000_0000;
/// What lies between pieces of device memory, and must still be there afterwards.
const FENCE: [u8; 64] = [0xa5; 64];

/// The kernels as a program, compiled once for all tests; none, with the reason printed, where there is no compiler.
fn program() -> Option<&'static PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            if !cfg!(target_os = "linux") {
                eprintln!("skipped: the shim's device memory is Linux's (mmap at a fixed address)");
                return None;
            }
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
            if Command::new(&compiler).arg("--version").output().is_err() {
                eprintln!("skipped: there is no C++ compiler ({compiler}; CXX names another)");
                return None;
            }
            let kernels = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels");
            let options = [
                "-O2",
                "-std=c++17",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-ffp-contract=off",
                "-U_FORTIFY_SOURCE",
            ];
            let mut hasher = DefaultHasher::new();
            options.hash(&mut hasher);
            let mut sources: Vec<_> =
                kernels.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            sources.sort();
            sources.iter().for_each(|source| std::fs::read(source).unwrap().hash(&mut hasher));
            // Tests run in processes of their own: the first one compiles, the others find it by its sources.
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
            let program = folder.join(format!("on_cpu-{:016x}", hasher.finish()));
            if !program.exists() {
                let own = folder.join(format!("on_cpu-{}", std::process::id()));
                let source = kernels.join("on_cpu.cpp");
                let built =
                    Command::new(&compiler).args(options).arg("-o").arg(&own).arg(source).output().unwrap();
                assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
                std::fs::rename(&own, &program).unwrap();
            }
            Some(program)
        })
        .as_ref()
}

/// A device whose memory is a vector.
struct Device {
    child: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
    memory: Vec<u8>,
    fences: Vec<usize>,
}

impl Device {
    fn new() -> Option<Self> {
        let mut child =
            Command::new(program()?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = BufWriter::new(child.stdin.take().unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, input, output, memory: Vec::new(), fences: Vec::new() })
    }

    fn clear(&mut self) {
        self.memory.clear();
        self.fences.clear();
    }

    /// Take memory, with a fence behind it.
    fn take(&mut self, bytes: u64) -> u64 {
        let at = self.memory.len().next_multiple_of(256);
        self.memory.resize(at, 0xcd);
        self.memory.resize(at + bytes as usize, 0xcd);
        self.fences.push(self.memory.len());
        self.memory.extend(FENCE);
        DEVICE + at as u64
    }

    fn copy_in(&mut self, bytes: &[u8]) -> u64 {
        let at = self.take(bytes.len() as u64);
        self.write(at, bytes);
        at
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - DEVICE) as usize;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self, address: u64, bytes: usize) -> &[u8] {
        &self.memory[(address - DEVICE) as usize..][..bytes]
    }

    fn launch(&mut self, launches: &[Launch]) {
        let head = [self.memory.len() as u64, launches.len() as u64];
        head.iter().for_each(|word| self.input.write_all(&word.to_le_bytes()).unwrap());
        for launch in launches {
            let kernel = Kernel::ALL.iter().position(|&kernel| kernel == launch.kernel).unwrap() as u32;
            let at_once = u32::from(launch.kernel == Kernel::EncodeAtOnce);
            let jobs = (launch.jobs - DEVICE) as u32;
            for word in
                [kernel, launch.grid.0, launch.grid.1, launch.threads, launch.shared, at_once, jobs, 0]
            {
                self.input.write_all(&word.to_le_bytes()).unwrap();
            }
        }
        let sent = self.input.write_all(&self.memory).and_then(|()| self.input.flush());
        let received = sent.and_then(|()| self.output.read_exact(&mut self.memory));
        if let Err(error) = received {
            panic!("the kernels ended early: {error}, {}", self.child.wait().unwrap());
        }
        for &fence in &self.fences {
            assert_eq!(self.memory[fence..][..64], FENCE, "a kernel wrote beyond the memory it was given");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tensor(bytes: &[u8], dtype: Dtype, dims: &[usize]) -> Tensor {
    match dtype {
        Dtype::F32 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, f32>(bytes), dims),
        Dtype::F16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes), dims),
        Dtype::Bf16 => Tensor::new(bytemuck::pod_collect_to_vec::<u8, half::bf16>(bytes), dims),
    }
    .unwrap()
}

/// Decode frames in one batch; frames that are the CPU's business are left out.
fn decode(device: &mut Device, frames: &[&[u8]], profiles: &Profiles) -> Vec<Option<Result<Tensor, Fault>>> {
    device.clear();
    let (mut batch, mut places) = (DecodeBatch::default(), Vec::new());
    for frame in frames {
        let mut surveyor = Surveyor::default();
        let (header, survey) = surveyor.survey(frame, &Limits::default(), profiles).unwrap();
        places.push(survey.map(|survey| {
            let bytes = header.shape.elements() * header.dtype.size();
            let address = device.take(bytes as u64);
            batch.push(&survey, header.dtype, address);
            (address, bytes, header.dtype, header.shape)
        }));
    }
    if batch.frames() == 0 {
        return places.iter().map(|_| None).collect();
    }
    let scratch = device.take(batch.scratch_bytes());
    let room = batch.staged_bytes();
    let base = device.take(room);
    let staged = batch.stage(base, scratch, 64);
    assert!(batch.bytes().len() as u64 <= room);
    device.write(base, batch.bytes());
    device.launch(&staged.launches);
    let statuses: Vec<u32> =
        bytemuck::pod_collect_to_vec(&device.read(base, batch.bytes().len())[staged.statuses]);
    let mut statuses = statuses.into_iter();
    let result = |place: Option<(u64, usize, Dtype, narrows::Shape)>| {
        let (address, bytes, dtype, shape) = place?;
        let fault = Fault::of_status(statuses.next().unwrap());
        Some(fault.map_or_else(|| Ok(tensor(device.read(address, bytes), dtype, shape.dims())), Err))
    };
    places.into_iter().map(result).collect()
}

/// Encode tensors of one shape in one batch, `times` times over the same memory.
fn encode(
    device: &mut Device,
    options: &EncodeOptions,
    tensors: &[&Tensor],
    at_once: Option<u32>,
    times: usize,
) -> Vec<Result<Vec<u8>, usize>> {
    encode_reshaped(device, (options, None), tensors, at_once, times)
}

/// The same for a modified CSR of so many rows.
fn encode_reshaped(
    device: &mut Device,
    (options, reshape): (&EncodeOptions, Option<usize>),
    tensors: &[&Tensor],
    at_once: Option<u32>,
    times: usize,
) -> Vec<Result<Vec<u8>, usize>> {
    device.clear();
    let (dtype, shape) = (tensors[0].dtype(), tensors[0].shape());
    let mut batch = EncodeBatch::new(options, dtype, shape, reshape).unwrap();
    let mut frames = Vec::new();
    for tensor in tensors {
        let elements = device.copy_in(&tensor.to_le_bytes());
        let frame = device.take(batch.frame_bound());
        batch.push(Scratch { elements, frame });
        frames.push(frame);
    }
    let scratch = device.take(batch.scratch_bytes());
    let room = batch.staged_bytes();
    let base = device.take(room);
    let (bytes, jobs, results) = batch.stage(base, scratch);
    assert!(bytes.len() as u64 <= room);
    device.write(base, &bytes);
    let launches = match at_once {
        Some(blocks) => vec![batch.launch_at_once(jobs, blocks)],
        None => batch.launches(jobs, 8),
    };
    device.launch(&launches.repeat(times));
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&device.read(base, bytes.len())[results]);
    let outcome = |(&frame, words): (&u64, &[u32])| match Outcome::of_words([words[0], words[1], words[2]]) {
        Outcome::Frame(bytes) => Ok(device.read(frame, bytes).to_vec()),
        Outcome::NotFinite(index) => Err(index),
    };
    frames.iter().zip(words.chunks_exact(3)).map(outcome).collect()
}

#[test]
fn every_frame_decodes_to_the_cpus_values() {
    let Some(mut device) = Device::new() else { return };
    let (profiles, mut offered) = (profiles(), 0);
    for (name, frame, expected) in frames() {
        if let Some(result) = decode(&mut device, &[&frame], &profiles).remove(0) {
            assert_same(&name, &result.unwrap_or_else(|fault| panic!("{name}: {fault:?}")), &expected);
            offered += 1;
        }
    }
    assert!(offered > 100, "only {offered} frames were decoded by the kernels");
}

#[test]
fn a_batch_of_unlike_frames_decodes_in_one_go() {
    let Some(mut device) = Device::new() else { return };
    let frames: Vec<_> = frames().into_iter().filter(|(_, frame, _)| frame.len() < 9000).collect();
    let all: Vec<&[u8]> = frames.iter().map(|(_, frame, _)| &frame[..]).collect();
    for (result, (name, _, expected)) in decode(&mut device, &all, &profiles()).into_iter().zip(&frames) {
        if let Some(result) = result {
            assert_same(name, &result.unwrap(), expected);
        }
    }
}

#[test]
fn changed_bits_under_a_matching_checksum_give_the_cpus_answer() {
    let Some(mut device) = Device::new() else { return };
    let profiles = profiles();
    for (name, frame, expected) in hostile(&frames(), 3) {
        let Ok((_, Some(_))) = Surveyor::default().survey(&frame, &Limits::default(), &profiles) else {
            // Refused before anything is launched, or the CPU's business.
            continue;
        };
        match (decode(&mut device, &[&frame], &profiles).remove(0), expected) {
            (Some(Ok(tensor)), Ok(expected)) => assert_same(&name, &tensor, &expected),
            (Some(Err(_)), Err(_)) => {}
            (found, expected) => panic!("{name}: {found:?}, the CPU says {expected:?}"),
        }
    }
}

#[test]
fn a_bad_frame_does_not_touch_the_others_of_its_batch() {
    let Some(mut device) = Device::new() else { return };
    let all = frames();
    let bad = first_corrupt(&all);
    let results = decode(&mut device, &[&all[0].1, &bad, &all[1].1], &profiles());
    assert!(matches!(results[1], Some(Err(_))));
    for (result, (name, _, expected)) in [(&results[0], &all[0]), (&results[2], &all[1])] {
        assert_same(name, result.as_ref().unwrap().as_ref().unwrap(), expected);
    }
}

#[test]
fn every_tensor_encodes_to_the_reference_frame() {
    let Some(mut device) = Device::new() else { return };
    for case in cases() {
        let expected = reference::encode(&case.options, &case.tensor.view()).unwrap();
        let frames = encode(&mut device, &case.options, &[&case.tensor], None, 1);
        assert_same_frame(&case.name, frames[0].as_ref().unwrap(), &expected);
    }
}

#[test]
fn tensors_of_any_shape_make_the_round_trip_bit_for_bit() {
    let Some(mut device) = Device::new() else { return };
    let profiles = Profiles::default();
    for case in random_cases(150) {
        let expected = reference::encode(&case.options, &case.tensor.view()).unwrap();
        let at_once = (case.tensor.shape().rank() % 2 == 0).then_some(2);
        let frame = encode(&mut device, &case.options, &[&case.tensor], at_once, 1).remove(0).unwrap();
        assert_same_frame(&case.name, &frame, &expected);
        if let Some(result) = decode(&mut device, &[&frame], &profiles).remove(0) {
            assert_same(&case.name, &result.unwrap(), &narrows::decode(&frame).unwrap());
        }
    }
}

#[test]
fn the_reference_layout_encodes_to_the_reference_frame() {
    let Some(mut device) = Device::new() else { return };
    let options = EncodeOptions::reference;
    for (dims, rows) in [(vec![128, 28, 28], 12_544), (vec![16, 9, 9], 162), (vec![7], 7), (vec![30, 70], 30)]
    {
        for bits in [2, 4, 8] {
            let data = common::features(&dims, u64::from(bits));
            let bad: Vec<f32> = data.iter().map(|x| if *x == data[5] { f32::NAN } else { *x }).collect();
            let (tensor, bad) = (Tensor::new(data, &dims).unwrap(), Tensor::new(bad, &dims).unwrap());
            let flat = Tensor::new(vec![0.5_f32; tensor.shape().elements()], &dims).unwrap();
            let name = format!("{dims:?} in {rows} rows at {bits} bits");
            let tensors = [&tensor, &bad, &flat];
            let frames = encode_reshaped(&mut device, (&options(bits), Some(rows)), &tensors, None, 2);
            let expected = |tensor: &Tensor| {
                reference::encode_reshaped(&options(bits), &tensor.view(), Some(rows)).unwrap()
            };
            assert_same_frame(&name, frames[0].as_ref().unwrap(), &expected(&tensor));
            assert!(frames[1].is_err(), "{name}: NaN became a frame");
            assert_same_frame(&name, frames[2].as_ref().unwrap(), &expected(&flat));
            narrows::decode(frames[0].as_ref().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_cooperative_launch_writes_the_same_frame() {
    let Some(mut device) = Device::new() else { return };
    for case in cases().into_iter().filter(|case| case.tensor.shape().elements() < 20_000) {
        let expected = reference::encode(&case.options, &case.tensor.view()).unwrap();
        let frames = encode(&mut device, &case.options, &[&case.tensor], Some(3), 2);
        assert_same_frame(&case.name, frames[0].as_ref().unwrap(), &expected);
    }
}

#[test]
fn launches_over_the_same_memory_write_the_same_frames_again() {
    let Some(mut device) = Device::new() else { return };
    let dims = [40, 9, 9];
    let tensors: Vec<_> =
        (0..3).map(|seed| Tensor::new(common::features(&dims, seed), &dims).unwrap()).collect();
    let tensors: Vec<_> = tensors.iter().collect();
    for options in [EncodeOptions::bits(4), common::profile(16).options()] {
        for (frame, tensor) in encode(&mut device, &options, &tensors, None, 3).into_iter().zip(&tensors) {
            let expected = reference::encode(&options, &tensor.view()).unwrap();
            assert_same_frame("a batch of three, three times", &frame.unwrap(), &expected);
        }
    }
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_place() {
    let Some(mut device) = Device::new() else { return };
    let mut data = common::features(&[8, 10, 10], 1);
    let good = Tensor::new(data.clone(), &[8, 10, 10]).unwrap();
    data[437] = f32::NAN;
    data[600] = f32::INFINITY;
    let bad = Tensor::new(data, &[8, 10, 10]).unwrap();
    let map = narrows::Affine::new(0.1, 0, 16).unwrap();
    let fixed = EncodeOptions { quantizer: Quantizer::Fixed(map), ..EncodeOptions::default() };
    for options in [EncodeOptions::bits(4), fixed] {
        let frames = encode(&mut device, &options, &[&bad, &good], None, 2);
        assert_eq!(frames[0], Err(437));
        assert_eq!(frames[1], Ok(reference::encode(&options, &good.view()).unwrap()));
    }
}

#[test]
fn frames_for_a_gpu_cost_what_their_chunks_do() {
    let dims = [128, 28, 28];
    let data = common::features(&dims, 5);
    let view = TensorView::new(&data, &dims).unwrap();
    let cpu = narrows::encode(&view, 4).unwrap();
    let gpu = reference::encode(&EncodeOptions::bits(4), &view).unwrap();
    let inspection = narrows::inspect(&gpu, &Profiles::default(), &Limits::default()).unwrap();
    let chunks = inspection.streams[0].chunks;
    assert!(chunks > 1);
    let share = gpu.len() as f64 / cpu.len() as f64;
    assert!((1.0..1.12).contains(&share), "{} bytes against {} with {chunks} chunks", gpu.len(), cpu.len());
}
