//! Several threads give the bytes and the values of one.
#![cfg(feature = "rayon")]

mod common;

use narrows::{
    CoderChoice, Decoder, EncodeOptions, Encoder, Error, LayoutChoice, SymbolDecoder, SymbolEncoder,
    SymbolLayout, TensorView,
};

/// Channels of smooth noise.
fn features(dims: [usize; 3]) -> Vec<f32> {
    let mut state = 7_u32;
    let count = dims.iter().product();
    let mut value = 0.0;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        value = 0.8_f32 * value + (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
        value.max(0.0)
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_frame_and_tensor() {
    let dims = [96, 100, 101];
    let elements = features(dims);
    let view = TensorView::new(&elements, &dims).unwrap();
    for layout in [LayoutChoice::Natural, LayoutChoice::Planes] {
        for coder in [CoderChoice::Rans, CoderChoice::Tans { state_bits: 8 }] {
            if layout == LayoutChoice::Planes && coder != CoderChoice::Rans {
                continue;
            }
            let options = EncodeOptions { layout, coder, ..EncodeOptions::bits(4) };
            let frame = Encoder::new(options.clone()).unwrap().encode(&view).unwrap();
            let tensor = Decoder::new().decode(&frame).unwrap();
            for threads in [0, 1, 2, 3, 16] {
                let mut encoder = Encoder::new(options.clone()).unwrap().with_threads(threads);
                assert!(encoder.encode(&view).unwrap() == frame, "{layout:?} {coder:?} on {threads} threads");
                let mut decoder = Decoder::new().with_threads(threads);
                assert!(
                    decoder.decode(&frame).unwrap() == tensor,
                    "{layout:?} {coder:?} on {threads} threads"
                );
            }
        }
    }
}

#[test]
fn a_damaged_stream_gives_the_same_error_on_any_number_of_threads() {
    let symbols: Vec<u8> = features([32, 128, 129]).iter().map(|x| (x * 12.0) as u8).collect();
    let layout = SymbolLayout::natural(symbols.len(), 32).unwrap();
    let (mut stream, mut decoded) = (Vec::new(), Vec::new());
    SymbolEncoder::default().encode_into(&symbols, &layout, &mut stream).unwrap();
    for at in (200..stream.len()).step_by(stream.len() / 23) {
        let mut damaged = stream.clone();
        damaged[at] ^= 0x10;
        let mut outcome = |threads| {
            let result =
                SymbolDecoder::default().with_threads(threads).decode_into(&damaged, &layout, &mut decoded);
            result.map(|()| decoded.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(outcome(1), outcome(4), "byte {at}");
    }
    stream.truncate(stream.len() - 2);
    let result = SymbolDecoder::default().with_threads(4).decode_into(&stream, &layout, &mut decoded);
    assert!(matches!(result, Err(Error::Truncated { .. })), "{result:?}");
}
