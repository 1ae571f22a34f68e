//! The CUDA kernels, compiled as C++ through `kernels/cpu_shim.h`, against the CPU codec.

mod common;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::{assert_same, assert_same_frame, cases, first_corrupt, frames, hostile, profiles, random_cases};
use narrows::stream::Surveyor;
use narrows::{Dtype, EncodeOptions, Limits, Profiles, Quantizer, Tensor, TensorView};
use narrows_gpu::launch::{DecodeBatch, EncodeBatch, Fault, Half, Kernel, Launch, Outcome, Scratch};
use narrows_gpu::reference;

/// Where device memory begins (`kernels/on_cpu.cpp`).
const DEVICE: u64 = 0x2000_0000_0000;
/// What lies between pieces of device memory, and must still be there afterwards.
const FENCE: [u8; 64] = [0xa5; 64];

/// The kernels as a program, compiled once for all tests and set of macros; none, with the reason printed, where there is no
/// compiler.
fn program(macros: &[String]) -> Option<PathBuf> {
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
    let options =
        ["-O2", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-U_FORTIFY_SOURCE"];
    let mut hasher = DefaultHasher::new();
    (options, macros).hash(&mut hasher);
    let mut sources: Vec<_> = kernels.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.sort();
    sources.iter().for_each(|source| std::fs::read(source).unwrap().hash(&mut hasher));
    // Tests run in processes of their own: the first one compiles, the others find it by its sources.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join(format!("on_cpu-{:016x}", hasher.finish()));
    if !program.exists() {
        let own = folder.join(format!("on_cpu-{}-{:x}", std::process::id(), hasher.finish()));
        let mut command = Command::new(&compiler);
        let built = command.args(options).args(macros).arg("-o").arg(&own).arg(kernels.join("on_cpu.cpp"));
        let built = built.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::rename(&own, &program).unwrap();
    }
    Some(program)
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
        Self::with_constants(&[])
    }

    /// With kernels made for one kind of job, as [`narrows_gpu::cuda`] has NVRTC make them.
    fn with_constants(constants: &[(Half, &str)]) -> Option<Self> {
        let define = |(half, constants): &(Half, &str)| format!("-D{}={constants}", half.macros().0);
        let macros: Vec<String> = constants.iter().map(define).collect();
        let mut child =
            Command::new(program(&macros)?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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
fn launches_replayed_over_other_elements_need_nothing_from_the_host() {
    let Some(mut device) = Device::new() else { return };
    let dims = [24, 9, 9];
    let data = |seed| common::features(&dims, seed);
    let mut bad = data(1);
    bad[99] = f32::INFINITY;
    let tensors = [data(1), vec![0.25; 24 * 81], bad, data(2).iter().map(|x| x * -3.0).collect(), data(1)];
    let tensors = tensors.map(|data| Tensor::new(data, &dims).unwrap());
    let natural = EncodeOptions { layout: narrows::LayoutChoice::Natural, ..EncodeOptions::bits(3) };
    for options in [EncodeOptions::bits(4), natural, common::profile(16).options()] {
        for at_once in [false, true] {
            device.clear();
            let mut batch = EncodeBatch::new(&options, Dtype::F32, tensors[0].shape(), None).unwrap();
            let (elements, frame) = (device.take(24 * 81 * 4), device.take(batch.frame_bound()));
            batch.push(Scratch { elements, frame });
            let (scratch, base) = (device.take(batch.scratch_bytes()), device.take(batch.staged_bytes()));
            let (bytes, jobs, results) = batch.stage(base, scratch);
            device.write(base, &bytes);
            let launches =
                if at_once { vec![batch.launch_at_once(jobs, 3)] } else { batch.launches(jobs, 3) };
            for (tensor, replay) in tensors.iter().zip(0..) {
                // What a layer of the network would do on the device.
                device.write(elements, &tensor.to_le_bytes());
                device.launch(&launches);
                let words = device.read(base + results.start as u64, Outcome::BYTES).chunks_exact(4);
                let words: Vec<u32> =
                    words.map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
                let name = format!("replay {replay} of {options:?}");
                match (
                    Outcome::of_words([words[0], words[1], words[2]]),
                    reference::encode(&options, &tensor.view()),
                ) {
                    (Outcome::Frame(bytes), Ok(expected)) => {
                        assert_same_frame(&name, device.read(frame, bytes), &expected);
                    }
                    (Outcome::NotFinite(99), Err(_)) => {}
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_decoding_launch_replayed_writes_the_same_values_again() {
    let Some(mut device) = Device::new() else { return };
    let kind = "[40, 20, 20] 4 bits Planes Size";
    let (name, frame, expected) = frames().into_iter().find(|(name, _, _)| name == kind).unwrap();
    let (profiles, mut surveyor, mut batch) = (profiles(), Surveyor::default(), DecodeBatch::default());
    let (header, survey) = surveyor.survey(&frame, &Limits::default(), &profiles).unwrap();
    let bytes = header.shape.elements() * header.dtype.size();
    let elements = device.take(bytes as u64);
    batch.push(&survey.unwrap(), header.dtype, elements);
    let (scratch, base) = (device.take(batch.scratch_bytes()), device.take(batch.staged_bytes()));
    let staged = batch.stage(base, scratch, 64);
    device.write(base, batch.bytes());
    for _ in 0..3 {
        device.write(elements, &vec![0xcd; bytes]);
        device.launch(&staged.launches);
        assert_same(
            &name,
            &tensor(device.read(elements, bytes), header.dtype, header.shape.dims()),
            &expected,
        );
    }
}

#[test]
fn kernels_made_for_one_kind_of_job_code_the_same_bits() {
    let profiles = profiles();
    let constants_of = |frame: &[u8]| {
        let (mut surveyor, mut batch) = (Surveyor::default(), DecodeBatch::default());
        let (header, survey) = surveyor.survey(frame, &Limits::default(), &profiles).unwrap();
        survey.filter(|survey| survey.geometry.symbols() < 20_000).and_then(|survey| {
            batch.push(&survey, header.dtype, 0);
            batch.constants().map(str::to_owned)
        })
    };
    let (frames, cases): (_, Vec<_>) = (frames(), random_cases(300));
    for (kind, layout) in
        [("[70, 33] 4 bits Natural Size", "Natural"), ("[40, 20, 20] 5 bits Planes Size", "Planes")]
    {
        let model =
            frames.iter().find(|(name, _, _)| name == kind).unwrap_or_else(|| panic!("no frame {kind}"));
        let decoding = constants_of(&model.1).unwrap();
        let encoding_of = |case: &common::Case| {
            let (dtype, shape) = (case.tensor.dtype(), case.tensor.shape());
            EncodeBatch::new(&case.options, dtype, shape, None).unwrap().constants()
        };
        let is_model = |case: &&common::Case| {
            case.tensor.dtype() == Dtype::F32
                && case.tensor.shape().elements() > 2000
                && format!("{:?}", case.options.layout) == layout
        };
        let encoding = encoding_of(cases.iter().find(is_model).unwrap());
        let constants = [(Half::Decode, decoding.as_str()), (Half::Encode, encoding.as_str())];
        let Some(mut device) = Device::with_constants(&constants) else { return };
        let alike = frames.iter().filter(|(_, frame, _)| constants_of(frame).as_ref() == Some(&decoding));
        for (name, frame, expected) in alike {
            let tensor = decode(&mut device, &[frame], &profiles).remove(0).unwrap();
            assert_same(name, &tensor.unwrap_or_else(|fault| panic!("{name}: {fault:?}")), expected);
        }
        for case in cases.iter().filter(|case| encoding_of(case) == encoding) {
            let expected = reference::encode(&case.options, &case.tensor.view()).unwrap();
            for at_once in [None, Some(2)] {
                let frame = encode(&mut device, &case.options, &[&case.tensor], at_once, 2).remove(0);
                assert_same_frame(&case.name, &frame.unwrap(), &expected);
            }
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
