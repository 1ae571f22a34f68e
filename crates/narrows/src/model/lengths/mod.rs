//! What a fixed model's symbols cost, without counting them.
//!
//! Lengths are whole numbers of 1/4096 bit, so that every path arrives at the same sum.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::Path;
use crate::simd::for_paths;

use super::bins::{Index, for_indices};
use super::neighbours::{Neighbours, Run};
use super::{Classes, Context, Model};

/// The parts of a bit that lengths are counted in.
const BIT: f64 = 4096.0;

/// The length of each symbol after each sum of neighbours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lengths {
    alphabet: usize,
    classes: Classes,
    /// `bin * alphabet + symbol`.
    all: Vec<u16>,
    /// The low bytes of the lengths of up to 16 symbols, and their high bytes, at `class * 16 + symbol`.
    bytes: [[[u8; 64]; 2]; 2],
}

/// The largest alphabet that [`Lengths::bytes`] has room for.
const ALPHABET: usize = 16;

impl Lengths {
    /// The lengths of a model with neighbour contexts whose tables are full.
    pub(crate) fn of(model: &Model) -> Self {
        let Context::Neighbours(classes) = &model.context else { unreachable!("profiles have classes") };
        let length = |bits: u32, f: u16| ((f64::from(bits) - f64::from(f).log2()) * BIT).round() as u16;
        let alphabet = model.tables()[0].frequencies().len();
        let mut all = Vec::new();
        let mut bytes = [[[0; 64]; 2]; 2];
        for &class in &classes.of_bins()[..Classes::bins(alphabet)] {
            let table = &model.tables()[class as usize];
            for (symbol, &f) in table.frequencies().iter().enumerate() {
                let length = length(table.bits(), f);
                all.push(length);
                if alphabet <= ALPHABET {
                    let at = class as usize * ALPHABET + symbol;
                    let [low, high] = length.to_le_bytes();
                    (bytes[0][at / 64][at % 64], bytes[1][at / 64][at % 64]) = (low, high);
                }
            }
        }
        Self { alphabet, classes: classes.clone(), all, bytes }
    }

    /// Bits that the symbols cost; `edges` is memory to be used again.
    pub(crate) fn bits(&self, path: Path, symbols: &Neighbours<'_>, edges: &mut Vec<u8>) -> f64 {
        let mut sum = 0;
        symbols.runs(edges, |run| sum += add_up(path, self, run));
        sum as f64 / BIT
    }
}

for_paths! {
    fn add_up(lengths: &Lengths, run: Run<'_>) -> u64 = plain, avx512 avx512::add_up
}

#[inline(always)]
fn plain(lengths: &Lengths, run: Run<'_>) -> u64 {
    let mut total = 0;
    for_indices(run, Index::new(lengths.alphabet), |indices| {
        total += indices.iter().map(|&k| u64::from(lengths.all[k as usize])).sum::<u64>();
    });
    total
}
