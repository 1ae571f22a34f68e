//! What a fixed model's symbols cost, without counting them.
//!
//! Lengths are whole numbers of 1/4096 bit, so that every path arrives at the same sum.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::Path;
use crate::simd::for_paths;

use super::neighbours::{Neighbours, Run};
use super::{Classes, Context, Model};

/// Parts of a bit.
const BIT: f64 = 4096.0;

/// The length of each symbol after each sum of neighbours.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lengths {
    alphabet: usize,
    classes: Classes,
    /// `class * alphabet + symbol`.
    lengths: Vec<u16>,
}

impl Lengths {
    /// The lengths of a model with neighbour contexts whose tables are full.
    pub(crate) fn of(model: &Model) -> Self {
        let Context::Neighbours(classes) = &model.context else { return Self::default() };
        let length = |bits: u32, f: u16| ((f64::from(bits) - f64::from(f).log2()) * BIT).round() as u16;
        let tables = model.tables().iter();
        let lengths =
            tables.flat_map(|table| table.frequencies().iter().map(|&f| length(table.bits(), f))).collect();
        let alphabet = model.tables()[0].frequencies().len();
        Self { alphabet, classes: classes.clone(), lengths }
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
    let Lengths { alphabet, classes, lengths } = lengths;
    let mut total = 0;
    run.sums(|_, sum, symbol| {
        let class = classes.of_sum(sum.into()) as usize;
        total += u64::from(lengths[class * alphabet + symbol as usize]);
    });
    total
}
