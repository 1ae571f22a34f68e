//! The reference method against a direct, independent evaluation of its formulas.

mod common;

use common::{count, entropy_bits, features};
use narrows::{
    Affine, Content, EncodeOptions, Encoder, Layout, Limits, Profiles, ReshapeSearch, TensorView,
    best_reshape, inspect, peek,
};

/// AIQ straight from the paper, in f64.
fn aiq(data: &[f32], bits: u8) -> Vec<u8> {
    let (min, max) = data.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x.into()), b.max(x.into())));
    let s = (max - min) / f64::from((1_u16 << bits) - 1);
    let z = (-min / s).round();
    data.iter()
        .map(|&x| (f64::from(x) / s + z).round().clamp(0.0, f64::from((1_u16 << bits) - 1)) as u8)
        .collect()
}

/// D = v + c + r for N rows, by definition.
fn joint_sequence(symbols: &[u8], rows: usize) -> Vec<usize> {
    let columns = symbols.len() / rows;
    let nonzero = || (0..symbols.len()).filter(|&i| symbols[i] != 0);
    let mut d: Vec<usize> = nonzero().map(|i| symbols[i] as usize).collect();
    d.extend(nonzero().map(|i| i % columns));
    d.extend(
        (0..rows).map(|row| symbols[row * columns..(row + 1) * columns].iter().filter(|&&q| q != 0).count()),
    );
    d
}

/// `T_tot(N) = |D| * H`, by definition.
fn total_bits(symbols: &[u8], rows: usize) -> f64 {
    let d = joint_sequence(symbols, rows);
    entropy_bits(&count(d.iter().copied(), 256.max(symbols.len() + 1)))
}

/// Algorithm 1 as the paper writes it.
fn algorithm_1(symbols: &[u8], bits: u8) -> usize {
    let t = symbols.len();
    let (mut best, mut least) = (t, f64::INFINITY);
    for n in (1..=t).rev().filter(|n| t.is_multiple_of(*n)) {
        if (n as f64) <= (t as f64).sqrt() || t / n > 1 << bits {
            break;
        }
        let cost = total_bits(symbols, n);
        if cost > least {
            break;
        }
        if cost < least {
            (best, least) = (n, cost);
        }
    }
    best
}

#[test]
fn symbols_are_those_of_the_papers_formula_but_for_exact_ties() {
    let mut differing = 0;
    let mut all = 0;
    for seed in 0..20 {
        let data = features(&[16, 14, 14], seed);
        for bits in [2, 3, 4, 6, 8] {
            let (min, max) = data.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
            let affine = Affine::from_range(min, max, 1 << bits);
            let ours = data.iter().map(|&x| affine.quantize(x));
            for (ours, papers) in ours.zip(aiq(&data, bits)) {
                assert!(ours.abs_diff(papers) <= 1);
                differing += usize::from(ours != papers);
                all += 1;
            }
        }
    }
    // A value within an f32's last bit of the middle between two levels can go either way.
    assert!(differing * 10_000 <= all, "{differing} of {all} symbols differ");
}

#[test]
fn the_search_finds_what_the_papers_algorithm_finds() {
    for seed in 0..12 {
        for dims in [[8, 7, 7], [16, 8, 8], [5, 9, 4]] {
            let data = features(&dims, seed);
            for bits in [2, 3, 4, 6] {
                let symbols = aiq(&data, bits);
                let visits = ReshapeSearch::new(&symbols, 1 << bits).algorithm_1();
                let found = best_reshape(&visits).unwrap();
                assert_eq!(found.rows, algorithm_1(&symbols, bits), "{dims:?} at {bits} bits");
                assert!(
                    (found.total_bits - total_bits(&symbols, found.rows)).abs()
                        < 1e-6 * found.total_bits.max(1.0)
                );
                for visit in ReshapeSearch::new(&symbols, 1 << bits).every_divisor() {
                    let direct = total_bits(&symbols, visit.rows);
                    assert!(
                        (visit.total_bits - direct).abs() < 1e-6 * direct.max(1.0),
                        "{visit:?} against {direct}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_reference_frame_takes_the_bits_its_formula_says_and_its_table() {
    for bits in [2, 3, 4] {
        let dims = [64, 28, 28];
        let data = features(&dims, 3);
        let view = TensorView::new(&data, &dims).unwrap();
        let frame = Encoder::new(EncodeOptions::reference(bits)).unwrap().encode(&view).unwrap();
        let Content::Quantized { layout: Layout::CsrJoint { rows }, nonzeros, .. } =
            peek(&frame).unwrap().content
        else {
            panic!("not a reference frame")
        };
        let symbols = aiq(&data, bits);
        assert_eq!(rows, algorithm_1(&symbols, bits));
        assert!(symbols.iter().filter(|&&q| q != 0).count().abs_diff(nonzeros) <= 2);
        let parts = inspect(&frame, &Profiles::default(), &Limits::default()).unwrap().streams[0].bytes;
        let payload = (parts.states + parts.symbols) as f64;
        let formula = total_bits(&symbols, rows) / 8.0;
        assert!((payload / formula - 1.0).abs() < 0.012, "{bits} bits: {payload} against {formula}");
        assert!(frame.len() as f64 - payload < 64.0, "more than 64 bytes beside the payload");
    }
}
