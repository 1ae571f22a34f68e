//! Weights for tests.
#![allow(dead_code, reason = "not every test needs all of it")]

use narrows_weights::{Grid, Quantized};

/// A small generator (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        ((self.bits() >> 32) as usize * bound) >> 32
    }

    /// Between 0 and 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Two-sided exponential of this scale.
    pub fn laplace(&mut self, scale: f64) -> f64 {
        let u = self.unit() - 0.5;
        -scale * u.signum() * (1.0 - 2.0 * u.abs()).max(1e-300).ln()
    }
}

/// Bins of two-sided exponential weights, `scale` steps wide.
pub fn laplace(rows: usize, columns: usize, bins: u16, scale: f64, seed: u64) -> Quantized {
    let (mut random, half) = (Random(seed), f64::from(bins / 2));
    let values =
        (0..rows * columns).map(|_| random.laplace(scale).round().clamp(-half, half) as i8).collect();
    let steps = (0..if seed.is_multiple_of(2) { rows } else { 1 }).map(|row| 0.01 + row as f32 * 0.003);
    Quantized { values, grid: Grid::new(steps.collect(), bins).unwrap(), rows, columns }
}

/// The same with more than half of all runs of nine columns zero, as convolutions have them.
pub fn patches(rows: usize, columns: usize, bins: u16, scale: f64, seed: u64) -> Quantized {
    let mut quantized = laplace(rows, columns, bins, scale, seed);
    let mut random = Random(seed + 1);
    for row in quantized.values.chunks_exact_mut(columns) {
        row.chunks_mut(9).filter(|_| random.below(5) < 3).for_each(|run| run.fill(0));
    }
    quantized
}
