//! The CUDA host side: with a driver against the CPU codec, without one that it says so.
#![cfg(feature = "cuda")]

mod common;

use common::{assert_same, assert_same_frame, cases, first_corrupt, frames, hostile, profiles, random_cases};
use narrows::{EncodeOptions, Tensor};
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
