//! rANS alone, symbols in memory to a stream in memory and back, by every path the processor has:
//! `cargo bench -p narrows --features stages --bench coder`. Tables are made anew for each call.
//!
//! Paths take turns, so that what else the machine does slows all alike. Arguments pick lines that contain all of them.

use std::time::Instant;

#[path = "../tests/common/mod.rs"]
mod common;

use common::Random;
use narrows::stages::Coding;
use narrows::{Path, Planes, Shape};

/// Turns of each path.
const TURNS: usize = 15;
/// How long one turn takes at least, seconds.
const TURN: f64 = 0.002;

/// Symbols that follow their left neighbours, few of them high: Laplacian steps, clamped.
fn symbols(count: usize, line: usize, alphabet: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let spread = (alphabet as f32 / 16.0).max(0.4);
    let mut level = 0.0_f32;
    let symbol = |i: usize| {
        let step = -spread * (1.0 - random.unit()).ln() * if random.bits() & 1 == 0 { 1.0 } else { -1.0 };
        level = (if i.is_multiple_of(line) { 0.0 } else { 0.8 * level }) + step;
        level.max(0.0).round().min(alphabet as f32 - 1.0) as u8
    };
    (0..count).map(symbol).collect()
}

/// Nanoseconds of one call.
fn turn(mut call: impl FnMut()) -> f64 {
    let (start, mut calls) = (Instant::now(), 0);
    loop {
        call();
        calls += 1;
        let seconds = start.elapsed().as_secs_f64();
        if seconds >= TURN {
            return seconds * 1e9 / f64::from(calls);
        }
    }
}

/// The least and the median.
fn least_and_median(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!("Gsymbols/s, best (median)                                     encode            decode");
    for (dims, label) in
        [([2, 32, 32], "2k"), ([128, 28, 28], "100k"), ([128, 90, 90], "1M"), ([128, 362, 362], "16M")]
    {
        for alphabet in [4, 16, 64, 256] {
            for contexts in [false, true] {
                let named = if contexts { "contexts" } else { "order-0" };
                let label = format!("{label:>5} {alphabet:>4} {named:<9}");
                measure(&dims, alphabet, contexts, &label, &wanted);
            }
        }
    }
}

fn measure(dims: &[usize], alphabet: usize, contexts: bool, label: &str, wanted: &[String]) {
    let label_of = |path: Path| format!("{label}{:<10}", path.name());
    let is_wanted =
        |path: &Path| path.is_available() && wanted.iter().all(|part| label_of(*path).contains(part));
    let paths: Vec<Path> = Path::ALL.into_iter().filter(is_wanted).collect();
    if paths.is_empty() {
        return;
    }
    let planes = Planes::new(&Shape::new(dims).unwrap(), 0).unwrap();
    let count: usize = dims.iter().product();
    let symbols = symbols(count, dims[2], alphabet, 7);
    let new = |&path: &Path| Coding::new(&symbols, &planes, alphabet, contexts, path);
    let mut coders: Vec<Coding> = paths.iter().map(new).collect();
    let mut times = vec![(Vec::new(), Vec::new()); paths.len()];
    let mut bytes = 0;
    for _ in 0..TURNS {
        for (coder, (encode, decode)) in coders.iter_mut().zip(&mut times) {
            encode.push(turn(|| {
                coder.forget();
                bytes = coder.encode();
            }));
            decode.push(turn(|| {
                coder.forget();
                coder.decode();
            }));
            assert!(coder.is_right());
        }
    }
    let (chunks, lanes) = coders[0].arrangement();
    for (path, (encode, decode)) in paths.into_iter().zip(times) {
        let rate = |(best, median): (f64, f64)| {
            format!("{:6.3} ({:6.3})", count as f64 / best, count as f64 / median)
        };
        let rates = (rate(least_and_median(encode)), rate(least_and_median(decode)));
        let rate_bits = bytes as f64 * 8.0 / count as f64;
        println!("{} {rate_bits:5.2} bit {chunks:>4}x{lanes:<2}  {}  {}", label_of(path), rates.0, rates.1);
    }
}
