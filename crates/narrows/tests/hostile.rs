//! Any bytes given to a decoder: a typed error or the right tensor, never a panic, never much memory.

mod common;

use common::{Random, frames, with_checksum};
use narrows::{Decoder, Error, Limits, inspect, peek};
use proptest::prelude::*;

#[test]
fn every_truncation_is_a_typed_error() {
    for (name, frame, _) in frames() {
        for length in 0..frame.len() {
            let result = narrows::decode(&frame[..length]);
            assert!(result.is_err(), "{name}: {length} of {} bytes were enough", frame.len());
        }
    }
}

#[test]
fn every_bit_flip_is_a_typed_error() {
    for (name, frame, _) in frames() {
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(narrows::decode(&changed).is_err(), "{name}: bit {bit} did not matter");
        }
    }
}

#[test]
fn a_flipped_bit_under_a_matching_checksum_never_panics_and_keeps_to_the_limits() {
    let limits = Limits { max_elements: 100_000 };
    for (name, frame, _) in frames() {
        let mut decoder = Decoder::new().with_limits(limits);
        for bit in 0..(frame.len() - 4) * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = with_checksum(changed);
            if let Ok(tensor) = decoder.decode(&changed) {
                assert!(tensor.shape().elements() <= 100_000, "{name}");
            }
            let _ = peek(&changed);
            let _ = inspect(&changed, decoder.profiles_mut(), &limits);
        }
    }
}

#[test]
fn a_decoder_that_met_an_error_still_decodes_the_next_frame() {
    let mut decoder = Decoder::new();
    let mut random = Random::new(1);
    for (name, frame, tensor) in frames() {
        for _ in 0..50 {
            let mut changed = frame.clone();
            let at = random.bits() as usize % (frame.len() - 4);
            changed[at] = random.bits() as u8;
            let _ = decoder.decode(&with_checksum(changed));
        }
        assert_eq!(decoder.decode(&frame).unwrap(), tensor, "{name}");
    }
}

#[test]
fn a_huge_shape_is_refused_before_memory_is_taken() {
    // Kind constant, f32, rank 2: 2^40 x 2^20 elements in a frame of 20 bytes.
    let mut frame = b"NRW\x01\x00".to_vec();
    frame.push(1 << 2 | 1 << 4);
    frame.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0x80, 0x80, 0x40]);
    frame.extend(1.0_f32.to_le_bytes());
    frame.extend([0; 4]);
    let result = narrows::decode(&with_checksum(frame));
    assert_eq!(
        result,
        Err(Error::LimitExceeded { what: "number of elements", value: 1 << 60, limit: 1 << 28 })
    );
}

#[test]
fn bytes_that_are_no_frame_are_told_so() {
    assert!(matches!(narrows::decode(b"\x93NUMPY\x01\x00v\x00"), Err(Error::BadMagic { what: "frame", .. })));
    assert!(matches!(
        narrows::decode(b"NRW\x02rest"),
        Err(Error::UnsupportedVersion { found: 2, supported: 1 })
    ));
    assert!(matches!(narrows::decode(b"NRW\x01\x40rest"), Err(Error::UnsupportedFeature { unknown: 0x40 })));
    assert!(matches!(narrows::decode(b""), Err(Error::Truncated { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_after_a_valid_start_give_an_error_or_a_tensor(
        kind in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut frame = b"NRW\x01\x00".to_vec();
        frame.push(kind & 0x7f);
        frame.extend(rest);
        frame.extend([0; 4]);
        let mut decoder = Decoder::new().with_limits(Limits { max_elements: 1 << 16 });
        let _ = decoder.decode(&with_checksum(frame));
    }

    #[test]
    fn frames_with_several_changed_bytes_give_an_error_or_a_tensor(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let all = frames();
        let (_, frame, _) = which.get(&all);
        let mut frame = frame.clone();
        let end = frame.len() - 4;
        for (at, byte) in changes {
            frame[at.index(end)] = byte;
        }
        let mut decoder = Decoder::new().with_limits(Limits { max_elements: 1 << 16 });
        let _ = decoder.decode(&with_checksum(frame));
    }
}
