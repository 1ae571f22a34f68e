//! tANS alone, every path, interleaved: `cargo bench -p narrows --features stages --bench tans -- [symbols ...]`.
//!
//! Gsymbols/s, best and median of the repeats, for weights of few bins. Up to 10,000 symbols the machine is
//! built each time (`+machine`), beyond it costs nothing.

use std::hint::black_box;
use std::time::Instant;

#[path = "../tests/common/mod.rs"]
mod common;

use common::Random;
use narrows::tans_stages::Tans;
use narrows::{Path, Target};

/// Probabilities of `alphabet` bins around a middle one: at so many bits a symbol, or all alike.
fn bins(alphabet: usize, bits: Option<f64>) -> Vec<f64> {
    let Some(bits) = bits else { return vec![1.0; alphabet] };
    let middle = (alphabet / 2) as f64;
    let of_decay = |decay: f64| -> Vec<f64> {
        (0..alphabet).map(|s| (-decay * (s as f64 - middle).abs()).exp()).collect()
    };
    let entropy = |bins: &[f64]| {
        let total: f64 = bins.iter().sum();
        bins.iter().map(|p| -p / total * (p / total).log2()).sum::<f64>()
    };
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let decay = f64::midpoint(low, high);
        if entropy(&of_decay(decay)) > bits { low = decay } else { high = decay }
    }
    of_decay(low)
}

fn drawn(count: usize, bins: &[f64]) -> Vec<u8> {
    let mut random = Random::new(count as u64 + bins.len() as u64);
    // Drawing from a list of 4,096 is much faster than from the probabilities.
    let list: Vec<u8> = (0..4096).map(|_| random.symbol(bins) as u8).collect();
    (0..count).map(|_| list[random.bits() as usize >> 13 & 4095]).collect()
}

/// How long one measurement lasts at least, seconds. Processors wake their wide registers up over tens of
/// microseconds: the first calls after other code are not what is asked for.
const MEASUREMENT: f64 = 0.000_5;

/// Seconds of one call, of as many as make a measurement, after as many that do not count.
fn seconds(mut call: impl FnMut()) -> f64 {
    let mut timed = |least: f64| {
        let (start, mut calls) = (Instant::now(), 0);
        loop {
            call();
            calls += 1;
            let time = start.elapsed().as_secs_f64();
            if time >= least {
                return time / f64::from(calls);
            }
        }
    };
    timed(MEASUREMENT / 4.0);
    timed(MEASUREMENT)
}

fn report(tans: &mut Tans, count: usize, name: &str) {
    let repeats = if count > 1_000_000 { 9 } else { 25 };
    let with_machine = count <= 10_000;
    let paths: Vec<Path> = Path::ALL.into_iter().filter(|path| path.is_available()).collect();
    let mut times = vec![(Vec::new(), Vec::new()); paths.len()];
    tans.build();
    let mut bytes = 0;
    for repeat in 0..=repeats {
        for (&path, times) in paths.iter().zip(&mut times) {
            if path == Path::Reference && count > 1_000_000 && repeat > 2 {
                continue;
            }
            let encode = seconds(|| {
                if with_machine {
                    tans.build();
                }
                bytes = black_box(tans.encode(path));
            });
            let decode = seconds(|| {
                if with_machine {
                    tans.build();
                }
                tans.decode(path);
            });
            assert!(tans.is_decoded());
            // The first repeat warms up.
            if repeat > 0 {
                times.0.push(encode);
                times.1.push(decode);
            }
        }
    }
    let (lanes, chunks) = tans.arrangement();
    let machine = if with_machine { " +machine" } else { "" };
    let rate = 8.0 * bytes as f64 / count as f64;
    println!("{name} n={count}{machine} {rate:.3} bits/symbol, {lanes} lanes x {chunks} chunks");
    for (path, (encode, decode)) in paths.iter().zip(&mut times) {
        let figure = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            let (best, median) = (times[0], times[times.len() / 2]);
            let giga = |seconds: f64| count as f64 / seconds / 1e9;
            format!("{:7.2} {:7.2}  ({:9.2} us)", giga(best), giga(median), median * 1e6)
        };
        println!("    {:<10} encode {}   decode {}", path.name(), figure(encode), figure(decode));
    }
}

fn main() {
    let asked: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let counts = if asked.is_empty() { vec![2_048, 100_000, 16_000_000] } else { asked };
    println!("Gsymbols/s: best, median (microseconds of the median)");
    for count in counts {
        for (alphabet, bits) in
            [3, 5, 7, 15].into_iter().flat_map(|alphabet| [(alphabet, Some(0.85)), (alphabet, None)])
        {
            let symbols = drawn(count, &bins(alphabet, bits));
            for state_bits in [6, 7, 8] {
                let kind = if bits.is_some() { "skewed" } else { "uniform" };
                let name = format!("A={alphabet} {kind} S={}", 1 << state_bits);
                let new = |target| Tans::new(symbols.clone(), alphabet, state_bits, target);
                report(&mut new(Target::Size), count, &name);
                if count == 100_000 {
                    report(
                        &mut new(Target::Latency).arranged(64, count / 256 + 1),
                        count,
                        &format!("{name} 4x64"),
                    );
                }
            }
        }
    }
    // Machines whose states do not fit into registers.
    for state_bits in [9, 12] {
        let symbols = drawn(100_000, &bins(15, Some(0.85)));
        let mut tans = Tans::new(symbols, 15, state_bits, Target::Latency).arranged(64, 1 << 20);
        report(&mut tans, 100_000, &format!("A=15 skewed S={}", 1 << state_bits));
    }
}
