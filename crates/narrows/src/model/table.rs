//! Frequency tables: probabilities as integers that add up to a power of two.

use super::log2::Log2;

/// The largest alphabet a table may have.
pub const MAX_ALPHABET: usize = 4096;

/// Probability bits for an alphabet: 12 up to 16 symbols, 13 up to 32, 14 above.
pub const fn probability_bits(alphabet: usize) -> u32 {
    match alphabet {
        0..=16 => 12,
        17..=32 => 13,
        _ => 14,
    }
}

/// Normalised frequencies `f[s]` of an alphabet, and their running sums `c[s]`.
///
/// Invariant: the frequencies add up to `2^bits`, and each is at most `2^bits - 1`, so at least two
/// symbols have one (a state's renormalisation bound would overflow at `2^bits`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    bits: u32,
    frequencies: Vec<u16>,
    cumulative: Vec<u16>,
}

impl Table {
    /// The table nearest to `weights` (at least two of them, one of them positive).
    ///
    /// This is part of the format: a frame carries weights, and both ends make the same table of them.
    /// With `W` the sum of the weights and `M = 2^bits`: `f = clamp(floor((w * M + W / 2) / W), 1, M - 1)`
    /// where `w > 0`, else 0. A lone positive weight gives `M - 1`, and 1 to symbol 0 (to symbol 1 if it
    /// is symbol 0 itself). Otherwise what lacks is added to the largest frequency (the first of
    /// equals); what exceeds is taken from the largest, again and again, at most half of it (rounded
    /// up) at a time.
    ///
    /// # Errors
    /// No weight, or more of them than `2^bits`.
    pub fn normalize(&mut self, weights: &[u32], bits: u32) -> Result<(), &'static str> {
        debug_assert!(weights.len() >= 2 && weights.len() <= MAX_ALPHABET && bits <= 14);
        let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        if total == 0 {
            return Err("no symbol has a weight");
        }
        let full = 1_u64 << bits;
        if weights.iter().filter(|&&w| w > 0).count() as u64 > full {
            return Err("more symbols than the table has room for");
        }
        self.bits = bits;
        self.frequencies.clear();
        self.frequencies.extend(weights.iter().map(|&w| match w {
            0 => 0,
            w => ((u64::from(w) * full + total / 2) / total).clamp(1, full - 1) as u16,
        }));
        let sum: i64 = self.frequencies.iter().map(|&f| i64::from(f)).sum();
        self.settle(sum - full as i64);
        self.accumulate();
        Ok(())
    }

    /// Bring the sum down by `excess` (up, if negative).
    fn settle(&mut self, mut excess: i64) {
        let lone = self.frequencies.iter().filter(|&&f| f > 0).count() == 1;
        if lone {
            let other = usize::from(self.frequencies[0] > 0);
            self.frequencies[other] = 1;
            return;
        }
        while excess != 0 {
            let f = self.largest();
            let change = if excess < 0 { excess } else { excess.min(i64::from(f.div_ceil(2))) };
            *f = (i64::from(*f) - change) as u16;
            excess -= change;
        }
    }

    fn largest(&mut self) -> &mut u16 {
        let mut at = 0;
        for s in 1..self.frequencies.len() {
            if self.frequencies[s] > self.frequencies[at] {
                at = s;
            }
        }
        &mut self.frequencies[at]
    }

    fn accumulate(&mut self) {
        self.cumulative.clear();
        let mut sum = 0;
        for &f in &self.frequencies {
            self.cumulative.push(sum);
            sum += f;
        }
        self.cumulative.push(sum);
        debug_assert_eq!(u32::from(sum), 1 << self.bits);
    }

    /// Probability bits `b`.
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// `f`, one for each symbol.
    pub fn frequencies(&self) -> &[u16] {
        &self.frequencies
    }

    /// `c`, one for each symbol, then `2^bits`.
    pub fn cumulative(&self) -> &[u16] {
        &self.cumulative
    }

    /// Whether every symbol has a frequency.
    pub fn is_full(&self) -> bool {
        self.frequencies.iter().all(|&f| f > 0)
    }

    /// Bits this table spends on symbols counted so: `sum(n * (b - log2 f))`; infinite if one has no frequency.
    pub fn cost_bits(&self, counts: &[u32]) -> f64 {
        let log2 = Log2::table();
        let length = |f: u16| if f > 0 { f64::from(self.bits) - log2.of(f.into()) } else { f64::INFINITY };
        let cost = |(&n, &f): (&u32, &u16)| f64::from(n) * length(f);
        counts.iter().zip(&self.frequencies).filter(|(n, _)| **n > 0).map(cost).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_add_up_whatever_the_weights() {
        let mut table = Table::default();
        for bits in [12, 13, 14] {
            let tricky: [&[u32]; 7] = [
                &[1, 0],
                &[0, 7, 0],
                &[1, 1_000_000_000],
                &[u32::MAX, u32::MAX, 1],
                &[3; 4096],
                &[1, 1, 1, 4_000_000_000],
                &[5, 0, 0, 5, 90_000, 3],
            ];
            for weights in tricky {
                table.normalize(weights, bits).unwrap();
                let sum: u32 = table.frequencies().iter().map(|&f| u32::from(f)).sum();
                assert_eq!(sum, 1 << bits);
                assert!(table.frequencies().iter().all(|&f| u32::from(f) < 1 << bits));
                let kept = weights.iter().zip(table.frequencies()).all(|(&w, &f)| w == 0 || f > 0);
                assert!(kept, "a symbol with weight lost its frequency");
            }
            let mut many_rare = vec![1_u32; 4095];
            many_rare.push(1 << 30);
            table.normalize(&many_rare, bits).unwrap();
        }
        assert!(table.normalize(&[0, 0], 12).is_err());
    }

    #[test]
    fn weights_that_already_add_up_are_kept() {
        let mut table = Table::default();
        table.normalize(&[4000, 90, 5, 1], 12).unwrap();
        assert_eq!(table.frequencies(), [4000, 90, 5, 1]);
        assert_eq!(table.cumulative(), [0, 4000, 4090, 4095, 4096]);
    }
}
