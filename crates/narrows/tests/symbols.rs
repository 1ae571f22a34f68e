//! Symbols without a frame.

mod common;

use common::{Random, count, entropy_bits};
use narrows::{CoderChoice, Error, Path, Planes, Shape, SymbolDecoder, SymbolEncoder, SymbolLayout};

fn laplacian(symbols: usize, alphabet: usize, seed: u64) -> Vec<u8> {
    let frequencies: Vec<f64> =
        (0..alphabet).map(|s| (-(s as f64) / (alphabet as f64 / 8.0)).exp()).collect();
    let mut random = Random::new(seed);
    (0..symbols).map(|_| random.symbol(&frequencies) as u8).collect()
}

fn planes() -> Planes {
    Planes::new(&Shape::new(&[64, 14, 14]).unwrap(), 0).unwrap()
}

#[test]
fn every_alphabet_and_length_comes_back() {
    let (mut encoder, mut decoder) = (SymbolEncoder::default(), SymbolDecoder::default());
    let (mut stream, mut back) = (Vec::new(), Vec::new());
    for alphabet in [2, 3, 16, 17, 64, 255, 256] {
        for length in [0, 1, 2, 31, 32, 33, 1000, 12_544] {
            let symbols = laplacian(length, alphabet, 1);
            let mut layouts = vec![SymbolLayout::natural(length, alphabet as u16).unwrap()];
            if length == 12_544 {
                layouts.push(SymbolLayout::planes(planes(), alphabet as u16).unwrap());
            }
            for layout in layouts {
                encoder.encode_into(&symbols, &layout, &mut stream).unwrap();
                decoder.decode_into(&stream, &layout, &mut back).unwrap();
                assert_eq!(back, symbols, "{layout:?}");
            }
        }
    }
}

#[test]
fn constant_symbols_and_noise_are_no_larger_than_packed() {
    let (mut encoder, mut stream) = (SymbolEncoder::default(), Vec::new());
    for layout in [SymbolLayout::natural(12_544, 256).unwrap(), SymbolLayout::planes(planes(), 256).unwrap()]
    {
        encoder.encode_into(&[7; 12_544], &layout, &mut stream).unwrap();
        assert_eq!(stream.len(), 2);
        let mut random = Random::new(3);
        let noise: Vec<u8> = (0..12_544).map(|_| random.bits() as u8).collect();
        encoder.encode_into(&noise, &layout, &mut stream).unwrap();
        assert!(stream.len() <= 1 + noise.len());
        let mut back = Vec::new();
        SymbolDecoder::default().decode_into(&stream, &layout, &mut back).unwrap();
        assert_eq!(back, noise);
    }
}

#[test]
fn every_coder_and_path_gives_the_symbols_back() {
    let (mut stream, mut other, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let coders = [CoderChoice::Packed, CoderChoice::Rans]
        .into_iter()
        .chain([6, 8, 12].map(|state_bits| CoderChoice::Tans { state_bits }));
    for coder in coders {
        for (alphabet, length) in [(3, 0), (3, 1), (3, 12_544), (16, 65), (16, 100_000), (256, 2_000)] {
            let symbols = laplacian(length, alphabet, 6);
            let layout = SymbolLayout::natural(length, alphabet as u16).unwrap();
            let encoder = |path| SymbolEncoder::default().with_path(path).with_coder(coder).unwrap();
            encoder(Path::Reference).encode_into(&symbols, &layout, &mut stream).unwrap();
            for path in Path::ALL {
                encoder(path).encode_into(&symbols, &layout, &mut other).unwrap();
                assert_eq!(other, stream, "{coder:?}, {layout:?}, {path:?}");
                let mut decoder = SymbolDecoder::default().with_path(path);
                decoder.decode_into(&stream, &layout, &mut back).unwrap();
                assert_eq!(back, symbols, "{coder:?}, {layout:?}, {path:?}");
            }
        }
    }
}

#[test]
fn tans_is_for_natural_order_and_64_to_4096_states() {
    let with = |state_bits| SymbolEncoder::default().with_coder(CoderChoice::Tans { state_bits });
    assert!(matches!(with(5), Err(Error::InvalidOption { .. })));
    assert!(matches!(with(13), Err(Error::InvalidOption { .. })));
    let layout = SymbolLayout::planes(planes(), 3).unwrap();
    let error = with(6).unwrap().encode_into(&laplacian(12_544, 3, 7), &layout, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { .. }));
}

#[test]
fn a_stream_is_within_two_percent_of_the_entropy() {
    let symbols = laplacian(100_000, 16, 2);
    let layout = SymbolLayout::natural(symbols.len(), 16).unwrap();
    let mut stream = Vec::new();
    SymbolEncoder::default().encode_into(&symbols, &layout, &mut stream).unwrap();
    let entropy = entropy_bits(&count(symbols.iter().map(|&s| usize::from(s)), 16)) / 8.0;
    assert!((stream.len() as f64) < 1.02 * entropy, "{} bytes, entropy {entropy:.0}", stream.len());
}

#[test]
fn what_the_layout_does_not_allow_is_an_error() {
    assert!(matches!(SymbolLayout::natural(4, 1), Err(Error::InvalidOption { .. })));
    assert!(matches!(SymbolLayout::natural(4, 257), Err(Error::InvalidOption { .. })));
    let layout = SymbolLayout::natural(4, 3).unwrap();
    let encode =
        |symbols: &[u8]| SymbolEncoder::default().encode_into(symbols, &layout, &mut Vec::new()).unwrap_err();
    assert_eq!(encode(&[0; 5]), Error::Shape { what: "number of symbols", value: 5, bound: 4 });
    assert_eq!(encode(&[0, 1, 2, 3]), Error::Shape { what: "largest symbol", value: 3, bound: 2 });
}

#[test]
fn any_bytes_give_an_error_or_symbols_of_the_layout() {
    let symbols = laplacian(2_000, 16, 4);
    let layout = SymbolLayout::natural(symbols.len(), 16).unwrap();
    let (mut stream, mut back) = (Vec::new(), Vec::new());
    SymbolEncoder::default().encode_into(&symbols, &layout, &mut stream).unwrap();
    let mut decoder = SymbolDecoder::default();
    for length in 0..stream.len() {
        assert!(decoder.decode_into(&stream[..length], &layout, &mut back).is_err());
    }
    let mut random = Random::new(5);
    for _ in 0..2_000 {
        let mut changed = stream.clone();
        let place = random.bits() as usize % changed.len();
        changed[place] ^= 1 << (random.bits() % 8);
        if decoder.decode_into(&changed, &layout, &mut back).is_ok() {
            assert!(back.len() == symbols.len() && back.iter().all(|&symbol| symbol < 16));
        }
    }
}
