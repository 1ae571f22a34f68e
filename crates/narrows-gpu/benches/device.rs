//! Coding on an NVIDIA GPU, timed with its own events over replayed graphs; prints an object of JSON to a line, as soon as it is
//! known. What fails is a line of its own, with the reason, and leaves the others.
//!
//! `device [--quick]`: with `--quick` small tensors and few replays. Checks every result against the CPU codec before it times
//! it. What each figure is, and its floor, is in `docs/gpu.md`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use narrows::{
    CoderChoice, Dtype, EncodeOptions, LayoutChoice, Limits, Profiles, Quantizer, Shape, Target, Tensor,
    TensorView,
};
use narrows_gpu::cuda::cudarc::driver::CudaStream;
use narrows_gpu::cuda::cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use narrows_gpu::cuda::{Decoder, DeviceMemory, Encoder, Gpu};
use narrows_gpu::reference;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One way of coding.
struct Way {
    name: &'static str,
    options: EncodeOptions,
}

fn ways(target: Target) -> Vec<Way> {
    let of = |layout, quantizer| EncodeOptions { layout, quantizer, target, ..EncodeOptions::default() };
    let fixed = Quantizer::Fixed(narrows::Affine::from_range(0.0, 1.5, 16));
    let profile = EncodeOptions { target, ..common::profile(16).options() };
    vec![
        Way { name: "order 0", options: of(LayoutChoice::Natural, Quantizer::aiq(4)) },
        Way { name: "order 0, fixed map", options: of(LayoutChoice::Natural, fixed.clone()) },
        Way { name: "contexts", options: of(LayoutChoice::Planes, Quantizer::aiq(4)) },
        Way { name: "contexts, fixed map", options: of(LayoutChoice::Planes, fixed) },
        Way { name: "profile", options: profile },
    ]
}

/// Microseconds of one replay: each by itself (median, least), and one after the other.
fn time_graph(stream: &Arc<CudaStream>, replays: usize, launch: impl Fn() -> Result<()>) -> Result<Value> {
    stream.synchronize()?;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let launched = launch();
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.ok_or("nothing was captured")?;
    launched?;
    for _ in 0..10 {
        graph.launch()?;
    }
    stream.synchronize()?;
    let event = || stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    let (start, end) = (event()?, event()?);
    let mut each = Vec::with_capacity(replays);
    for _ in 0..replays {
        start.record(stream)?;
        graph.launch()?;
        end.record(stream)?;
        end.synchronize()?;
        each.push(f64::from(start.elapsed_ms(&end)?) * 1000.0);
    }
    each.sort_by(f64::total_cmp);
    start.record(stream)?;
    for _ in 0..replays {
        graph.launch()?;
    }
    end.record(stream)?;
    end.synchronize()?;
    let in_a_row = f64::from(start.elapsed_ms(&end)?) * 1000.0 / replays as f64;
    Ok(json!({ "median_us": each[replays / 2], "least_us": each[0], "in_a_row_us": in_a_row }))
}

/// Median microseconds of something that waits for the device itself.
fn time_host(times: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let mut each = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        run()?;
        each.push(start.elapsed().as_secs_f64() * 1e6);
    }
    each.sort_by(f64::total_cmp);
    Ok(each[times / 2])
}

/// Device memory, given back when it is dropped.
struct Buffer(narrows_gpu::cuda::cudarc::driver::CudaSlice<u8>, DeviceMemory);

impl Buffer {
    fn new(stream: &Arc<CudaStream>, bytes: u64) -> Result<Self> {
        use narrows_gpu::cuda::cudarc::driver::DevicePtr;
        let slice = stream.alloc_zeros::<u8>(bytes as usize)?;
        stream.synchronize()?;
        let address = slice.device_ptr(stream).0;
        Ok(Self(slice, DeviceMemory { address, bytes }))
    }
}

/// Whose kernels code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernels {
    /// Those that every device gets.
    Embedded,
    /// Those that NVRTC makes for this device and tensor.
    Special,
}

fn measure(gpu: &Gpu, way: &Way, kernels: Kernels, tensor: &Tensor, replays: usize) -> Result<Value> {
    let (stream, shape): (_, &Shape) = (gpu.context().new_stream()?, tensor.shape());
    let view = tensor.view();
    let expected = reference::encode(&way.options, &view)?;
    let values = narrows::Decoder::new().with_profiles(common::profiles()).decode(&expected)?;
    let mut encoder = Encoder::new(gpu, way.options.clone())?;
    let mut decoder = Decoder::new(gpu)?.with_profiles(common::profiles());
    let mut compiled_in_s = 0.0;
    if kernels == Kernels::Special {
        let start = Instant::now();
        if !(encoder.specialize(Dtype::F32, shape)? && decoder.specialize(&expected)?) {
            return Err("NVRTC is not installed, or does not know this device".into());
        }
        compiled_in_s = start.elapsed().as_secs_f64();
    }
    let bytes = (shape.elements() * 4) as u64;
    let mut elements = Buffer::new(&stream, bytes)?;
    let frame = Buffer::new(&stream, encoder.frame_bound(Dtype::F32, shape)?)?;
    let back = Buffer::new(&stream, bytes)?;
    stream.memcpy_htod(&tensor.to_le_bytes(), &mut elements.0)?;
    stream.synchronize()?;

    let tensors = [(elements.1, frame.1)];
    // SAFETY: the buffers live until the end of this function, which waits for the device.
    #[allow(unsafe_code)]
    let (encode, decode, over_pcie) = unsafe {
        let length = encoder.encode_from(Dtype::F32, shape, &tensors, &stream)?[0];
        let mut written = vec![0; length];
        stream.memcpy_dtoh(&frame.0.slice(..length), &mut written)?;
        stream.synchronize()?;
        if written != expected {
            return Err(format!("{}: the frame is not the reference's", way.name).into());
        }
        if decoder.decode(&expected)? != values {
            return Err(format!("{}: the tensor is not the CPU's", way.name).into());
        }
        let encode = time_graph(&stream, replays, || Ok(encoder.launch(&stream)?))?;
        let frames = [(&expected[..], back.1)];
        decoder.stage(&frames, &stream)?;
        let decode = time_graph(&stream, replays, || Ok(decoder.launch(&stream)?))?;
        decoder.check(&stream)?.into_iter().collect::<narrows::Result<()>>()?;
        let times = replays.min(100);
        let decode_us = time_host(times, || Ok(decoder.decode_to(&frames, &stream).map(drop)?))?;
        let encode_us = time_host(times, || {
            encoder.launch(&stream)?;
            let length = encoder.check(&stream)?[0];
            stream.memcpy_dtoh(&frame.0.slice(..length), &mut written)?;
            Ok(stream.synchronize()?)
        })?;
        (encode, decode, json!({ "encode_us": encode_us, "decode_us": decode_us }))
    };
    let chunks = narrows::inspect(&expected, &common::profiles(), &Limits::default())?.streams[0].chunks;
    let symbols = shape.elements() as f64;
    let rate = |time: &Value| symbols / time["in_a_row_us"].as_f64().unwrap_or(f64::NAN) / 1000.0;
    Ok(json!({
        "frame_bytes": expected.len(), "chunks": chunks, "compiled_in_s": compiled_in_s,
        "encode": encode, "decode": decode, "over_pcie": over_pcie,
        "encode_gsymbols_per_s": rate(&encode), "decode_gsymbols_per_s": rate(&decode),
    }))
}

/// The CPU path of the same machine, one core.
fn measure_cpu(tensor: &Tensor, layout: LayoutChoice, times: usize) -> Result<Value> {
    let options = EncodeOptions { layout, coder: CoderChoice::Rans, ..EncodeOptions::bits(4) };
    let mut encoder = narrows::Encoder::new(options)?;
    let (mut decoder, mut frame, mut back) = (narrows::Decoder::new(), Vec::new(), Tensor::default());
    let encode = time_host(times, || Ok(encoder.encode_into(&tensor.view(), &mut frame)?))?;
    let decode = time_host(times, || Ok(decoder.decode_into(&frame, &mut back)?))?;
    Ok(json!({ "frame_bytes": frame.len(), "encode_us": encode, "decode_us": decode }))
}

/// The reference work's layout, with the rows that Algorithm 1 finds for this tensor.
fn measure_reference(gpu: &Gpu, tensor: &Tensor, replays: usize) -> Result<Value> {
    let options = EncodeOptions::reference(4);
    let found = narrows::peek(&narrows::Encoder::new(options.clone())?.encode(&tensor.view())?)?.content;
    let narrows::Content::Quantized { layout: narrows::Layout::CsrJoint { rows }, .. } = found else {
        return Err("modified CSR: the CPU chose another layout".into());
    };
    let frame = reference::encode_reshaped(&options, &tensor.view(), Some(rows))?;
    let stream = gpu.context().new_stream()?;
    let mut decoder = Decoder::new(gpu)?;
    if decoder.decode(&frame)? != narrows::decode(&frame)? {
        return Err("modified CSR: the tensor is not the CPU's".into());
    }
    let mut encoder = Encoder::new(gpu, options)?.with_reshape(rows);
    if encoder.encode(&tensor.view())? != frame {
        return Err("modified CSR: the frame is not the reference's".into());
    }
    let bytes = (tensor.shape().elements() * 4) as u64;
    let (mut elements, back) = (Buffer::new(&stream, bytes)?, Buffer::new(&stream, bytes)?);
    let written = Buffer::new(&stream, encoder.frame_bound(Dtype::F32, tensor.shape())?)?;
    stream.memcpy_htod(&tensor.to_le_bytes(), &mut elements.0)?;
    // SAFETY: the buffers live until the end of this function, which waits for the device.
    #[allow(unsafe_code)]
    let (encode, decode) = unsafe {
        encoder.stage(Dtype::F32, tensor.shape(), &[(elements.1, written.1)], &stream)?;
        let encode = time_graph(&stream, replays, || Ok(encoder.launch(&stream)?))?;
        decoder.stage(&[(&frame[..], back.1)], &stream)?;
        (encode, time_graph(&stream, replays, || Ok(decoder.launch(&stream)?))?)
    };
    decoder.check(&stream)?.into_iter().collect::<narrows::Result<()>>()?;
    let chunks = narrows::inspect(&frame, &Profiles::default(), &Limits::default())?.streams[0].chunks;
    Ok(json!({ "frame_bytes": frame.len(), "chunks": chunks, "encode": encode, "decode": decode }))
}

/// Print what was found, or why nothing was, beside what it is of.
fn report(mut what: Value, found: Result<Value>) {
    let found = found.unwrap_or_else(|error| json!({ "failed": error.to_string() }));
    if let (Value::Object(what), Value::Object(found)) = (&mut what, found) {
        what.extend(found);
    }
    println!("{what}");
}

fn run(quick: bool) -> Result<()> {
    let gpu = Gpu::new(0)?;
    println!("{}", json!({ "device": gpu.name(), "narrows": env!("CARGO_PKG_VERSION") }));
    let small: &[usize] = &[128, 28, 28];
    let large: &[&[usize]] = if quick { &[] } else { &[&[256, 256, 256], &[1024, 256, 256]] };
    let replays = if quick { 20 } else { 500 };
    for (dims, target) in
        [(small, Target::Latency)].into_iter().chain(large.iter().map(|dims| (*dims, Target::Size)))
    {
        eprintln!("{dims:?}");
        let data = common::features(dims, 1);
        let tensor = TensorView::new(&data, dims)?.to_tensor();
        let elements = data.len();
        let is_large = elements > 1 << 20;
        let replays = if is_large { replays.min(30) } else { replays };
        for (kernels, suffix) in [(Kernels::Embedded, ""), (Kernels::Special, ", compiled here")] {
            for way in ways(target) {
                let name = format!("{}{suffix}", way.name);
                let what = json!({ "way": name, "dims": dims, "elements": elements, "target": format!("{target:?}") });
                report(what, measure(&gpu, &way, kernels, &tensor, replays));
            }
        }
        if !is_large {
            let what = json!({ "way": "modified CSR, joint table", "dims": dims, "elements": elements });
            report(what, measure_reference(&gpu, &tensor, replays));
        }
        for layout in [LayoutChoice::Natural, LayoutChoice::Planes] {
            let what =
                json!({ "cpu": format!("{layout:?}"), "dims": dims, "elements": elements, "cores": 1 });
            report(what, measure_cpu(&tensor, layout, if is_large { 3 } else { 100 }));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    match run(quick) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("device: {error}");
            ExitCode::FAILURE
        }
    }
}
