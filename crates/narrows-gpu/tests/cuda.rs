//! The CUDA host side: with a driver against the CPU codec, without one that it says so.
#![cfg(feature = "cuda")]

mod common;

use common::{assert_same, assert_same_frame, cases, first_corrupt, frames, hostile, profiles, random_cases};
use narrows::{Dtype, EncodeOptions, Tensor};
use narrows_gpu::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use narrows_gpu::cuda::cudarc::driver::{CudaSlice, DevicePtr};
use narrows_gpu::cuda::{Decoder, DeviceMemory, Encoder, Gpu};
use narrows_gpu::{Error, reference};

/// The first device; none, with the reason printed, where there is none.
fn gpu() -> Option<Gpu> {
    match Gpu::new(0) {
        Ok(gpu) => {
            eprintln!("{}", gpu.name());
            Some(gpu)
        }
        Err(error @ Error::NoDevice { .. }) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_machine_without_a_driver_is_told_so_in_words() {
    match Gpu::new(usize::from(u16::MAX)) {
        Err(error @ Error::NoDevice { .. }) => assert!(error.to_string().starts_with("no CUDA device: ")),
        other => panic!("device 65535: {:?}", other.map(|gpu| gpu.name().to_owned())),
    }
}

#[test]
fn every_frame_decodes_to_the_cpus_values() {
    let Some(gpu) = gpu() else { return };
    let mut decoder = Decoder::new(&gpu).unwrap().with_profiles(profiles());
    for (name, frame, expected) in frames() {
        assert_same(
            &name,
            &decoder.decode(&frame).unwrap_or_else(|error| panic!("{name}: {error}")),
            &expected,
        );
    }
}

#[test]
fn every_tensor_encodes_to_the_reference_frame() {
    let Some(gpu) = gpu() else { return };
    for case in cases().into_iter().chain(random_cases(300)) {
        let expected = reference::encode(&case.options, &case.tensor.view()).unwrap();
        let frame = Encoder::new(&gpu, case.options).unwrap().encode(&case.tensor.view());
        assert_same_frame(&case.name, &frame.unwrap(), &expected);
    }
}

/// For tools that take a hundred times as long.
#[test]
fn a_little_of_everything_makes_the_round_trip() {
    let Some(gpu) = gpu() else { return };
    let mut decoder = Decoder::new(&gpu).unwrap().with_profiles(profiles());
    let cases = cases();
    let small = cases.iter().filter(|case| case.tensor.shape().elements() < 10_000).step_by(4);
    for case in small.take(20) {
        let expected = reference::encode(&case.options, &case.tensor.view()).unwrap();
        let frame = Encoder::new(&gpu, case.options.clone()).unwrap().encode(&case.tensor.view()).unwrap();
        assert_same_frame(&case.name, &frame, &expected);
        let cpu = narrows::Decoder::new().with_profiles(profiles()).decode(&frame).unwrap();
        assert_same(&case.name, &decoder.decode(&frame).unwrap(), &cpu);
    }
    for (name, frame, expected) in frames().iter().filter(|(_, frame, _)| frame.len() < 9000).step_by(7) {
        assert_same(name, &decoder.decode(frame).unwrap(), expected);
    }
}

#[test]
fn kernels_made_for_one_kind_of_job_code_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let (mut made, mut decoder) = (0, Decoder::new(&gpu).unwrap().with_profiles(profiles()));
    for case in cases().into_iter().step_by(5) {
        let view = case.tensor.view();
        let expected = reference::encode(&case.options, &view).unwrap();
        let mut encoder = Encoder::new(&gpu, case.options).unwrap();
        made += u32::from(encoder.specialize(view.dtype(), view.shape()).unwrap());
        assert_same_frame(&case.name, &encoder.encode(&view).unwrap(), &expected);
        let cpu = narrows::Decoder::new().with_profiles(profiles()).decode(&expected).unwrap();
        made += u32::from(decoder.specialize(&expected).unwrap());
        assert_same(&case.name, &decoder.decode(&expected).unwrap(), &cpu);
    }
    eprintln!("{made} kinds of kernels were made here");
}

#[test]
fn a_graph_replayed_over_other_elements_needs_nothing_from_the_host() {
    let Some(gpu) = gpu() else { return };
    // The caller's own stream: a graph takes only what was put on it.
    let stream = gpu.context().new_stream().unwrap();
    let dims = [40, 20, 20];
    let tensors: Vec<_> =
        (0..4).map(|seed| Tensor::new(common::features(&dims, seed), &dims).unwrap()).collect();
    for options in [EncodeOptions::bits(4), common::profile(16).options()] {
        let mut encoder = Encoder::new(&gpu, options.clone()).unwrap();
        let shape = tensors[0].shape();
        let mut elements = stream.alloc_zeros::<u8>(shape.elements() * 4).unwrap();
        let bound = encoder.frame_bound(Dtype::F32, shape).unwrap();
        let frame = stream.alloc_zeros::<u8>(bound as usize).unwrap();
        let place =
            |memory: &CudaSlice<u8>, bytes| DeviceMemory { address: memory.device_ptr(&stream).0, bytes };
        let pair = (place(&elements, shape.elements() as u64 * 4), place(&frame, bound));
        // SAFETY: the memory lives until the end of the test, which waits for the stream.
        #[allow(unsafe_code)]
        let graph = unsafe {
            encoder.stage(Dtype::F32, shape, &[pair], &stream).unwrap();
            stream.synchronize().unwrap();
            stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
            encoder.launch(&stream).unwrap();
            let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
            stream.end_capture(flags).unwrap().expect("the launches were captured")
        };
        for tensor in &tensors {
            stream.memcpy_htod(&tensor.to_le_bytes(), &mut elements).unwrap();
            graph.launch().unwrap();
            let length = encoder.check(&stream).unwrap()[0];
            let mut written = vec![0; length];
            stream.memcpy_dtoh(&frame.slice(..length), &mut written).unwrap();
            stream.synchronize().unwrap();
            assert_same_frame("a replay", &written, &reference::encode(&options, &tensor.view()).unwrap());
        }
    }
}

#[test]
fn changed_bits_under_a_matching_checksum_give_the_cpus_answer() {
    let Some(gpu) = gpu() else { return };
    let mut decoder = Decoder::new(&gpu).unwrap().with_profiles(profiles());
    for (name, frame, expected) in hostile(&frames(), 20) {
        match (decoder.decode(&frame), expected) {
            (Ok(tensor), Ok(expected)) => assert_same(&name, &tensor, &expected),
            (Err(_), Err(_)) => {}
            (found, expected) => panic!("{name}: {found:?}, the CPU says {expected:?}"),
        }
    }
}

#[test]
fn the_reference_layout_encodes_to_the_reference_frame() {
    let Some(gpu) = gpu() else { return };
    let dims = [128, 28, 28];
    let tensor = Tensor::new(common::features(&dims, 2), &dims).unwrap();
    for (bits, rows) in [(2, 25_088), (4, 12_544), (8, 784)] {
        let options = EncodeOptions::reference(bits);
        let expected = reference::encode_reshaped(&options, &tensor.view(), Some(rows)).unwrap();
        let mut encoder = Encoder::new(&gpu, options).unwrap().with_reshape(rows);
        assert_same_frame("modified CSR", &encoder.encode(&tensor.view()).unwrap(), &expected);
    }
}

#[test]
fn a_bad_frame_does_not_touch_the_others_of_its_batch() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.context().new_stream().unwrap();
    let mut decoder = Decoder::new(&gpu).unwrap().with_profiles(profiles());
    let all = frames();
    let bad = first_corrupt(&all);
    let batch: Vec<&[u8]> = vec![&all[0].1, &bad, &all[1].1];
    let room = 1 << 22;
    let memory: Vec<_> = batch.iter().map(|_| stream.alloc_zeros::<u8>(room).unwrap()).collect();
    stream.synchronize().unwrap();
    let place = |(frame, memory): (_, &CudaSlice<u8>)| {
        (frame, DeviceMemory { address: memory.device_ptr(&stream).0, bytes: room as u64 })
    };
    let staged: Vec<_> = batch.iter().copied().zip(&memory).map(place).collect();
    // SAFETY: the memory lives until the end of the test, and `check` waits.
    #[allow(unsafe_code)]
    unsafe {
        decoder.stage(&staged, &stream).unwrap();
        decoder.launch(&stream).unwrap();
    }
    let outcomes = decoder.check(&stream).unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok(), "{outcomes:?}");
}
