//! Tensors for tests, the same on every machine.
#![allow(dead_code)]

/// A small deterministic generator (xorshift64*), so that golden files never depend on a crate's version.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in 0..1, a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// A symbol with these relative frequencies.
    pub fn symbol(&mut self, frequencies: &[f64]) -> usize {
        let total: f64 = frequencies.iter().sum();
        let mut place = self.bits() as f64 / u64::MAX as f64 * total;
        for (symbol, f) in frequencies.iter().enumerate() {
            place -= f;
            if place < 0.0 {
                return symbol;
            }
        }
        frequencies.len() - 1
    }
}

/// Features such as a ReLU leaves: smooth along lines, half of them zero.
pub fn features(dims: &[usize], seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let width = dims[dims.len() - 1].max(1);
    let mut level = 0.0_f32;
    (0..dims.iter().product())
        .map(|i| {
            let fresh = random.unit();
            level = if i % width == 0 { fresh - 0.6 } else { 0.8 * level + 0.5 * (fresh - 0.5) };
            level.max(0.0)
        })
        .collect()
}

/// Shannon's entropy of what the counts count, in bits.
pub fn entropy_bits(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let bits = |&n: &u64| n as f64 * (total as f64 / n as f64).log2();
    counts.iter().filter(|&&n| n > 0).map(bits).sum()
}

/// Counts of symbols.
pub fn count(symbols: impl IntoIterator<Item = usize>, alphabet: usize) -> Vec<u64> {
    let mut counts = vec![0; alphabet];
    symbols.into_iter().for_each(|symbol| counts[symbol] += 1);
    counts
}
