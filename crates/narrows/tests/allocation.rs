//! Encoders and decoders keep their buffers: after the first tensor of a size they allocate nothing.

mod common;

use std::alloc::System;

use common::features;
use narrows::{CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, Quantizer, Tensor, TensorView};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test in this file: another thread's allocations would be counted too.
#[test]
fn nothing_is_allocated_after_the_first_tensor_of_a_size() {
    let dims = [64, 14, 14];
    // The most demanding tensor first: frames of the others fit in its buffers.
    let tensors: Vec<Vec<f32>> = (0..5).map(|seed| features(&dims, seed)).collect();
    let per_channel = Quantizer::PerChannel { bits: 4, clip: narrows::Clip::Full };
    let all = [
        EncodeOptions::bits(4),
        EncodeOptions { layout: LayoutChoice::Natural, ..EncodeOptions::bits(3) },
        EncodeOptions { coder: CoderChoice::Packed, ..EncodeOptions::bits(8) },
        EncodeOptions { coder: CoderChoice::Tans { state_bits: 8 }, ..EncodeOptions::bits(3) },
        EncodeOptions::lossless(),
        EncodeOptions { quantizer: per_channel, ..EncodeOptions::default() },
        EncodeOptions {
            quantizer: Quantizer::Aiq { bits: 4, clip: narrows::Clip::Percentile(99.0) },
            ..EncodeOptions::default()
        },
    ];
    for options in all {
        let mut encoder = Encoder::new(options.clone()).unwrap();
        let mut decoder = Decoder::new();
        let (mut frame, mut tensor) = (Vec::with_capacity(64 * 14 * 14 * 4 + 64), Tensor::default());
        let mut encode_all = |encoder: &mut Encoder, decoder: &mut Decoder| {
            for data in &tensors {
                let view = TensorView::new(data, &dims).unwrap();
                encoder.encode_into(&view, &mut frame).unwrap();
                decoder.decode_into(&frame, &mut tensor).unwrap();
            }
        };
        encode_all(&mut encoder, &mut decoder);
        let region = Region::new(ALLOCATOR);
        encode_all(&mut encoder, &mut decoder);
        let change = region.change();
        assert!(
            change.allocations + change.reallocations == 0,
            "{options:?}: {} allocations, {} reallocations",
            change.allocations,
            change.reallocations
        );
    }
}
