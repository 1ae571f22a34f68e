//! The reshape dimension of the reference method: `N` rows of `K = T / N` columns that make
//! `T_tot(N) = |D| * H(p(N))` least (paper A, Algorithm 1), and the same for every divisor of `T`.
//!
//! Only three histograms depend on `N`, and little of each: that of the values `v` never changes;
//! the columns' for `K` is that for any multiple of `K` folded onto itself; the counts per row for
//! `K` are sums of neighbouring counts for any divisor of `K`. So all divisors together cost a few
//! passes over the data instead of one each.

use super::csr::MAX_COLUMNS;

/// Histograms up to this length are kept to derive others from.
const KEPT_LENGTH: usize = 1 << 16;
/// `n * log2(n)` is looked up below this.
const LOOKUP: usize = 4096;

/// The cost of one reshape dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visit {
    /// `N`.
    pub rows: usize,
    /// `K = T / N`.
    pub columns: usize,
    /// `|D| = 2 * nnz + N`.
    pub symbols: usize,
    /// `H(p(N))` of the joint table, bits per symbol of `D`.
    pub entropy: f64,
    /// `T_tot(N) = |D| * H(p(N))`, bits.
    pub total_bits: f64,
}

/// Searches the reshape dimension of one tensor's symbols.
#[derive(Debug)]
pub struct ReshapeSearch {
    length: usize,
    levels: usize,
    nonzero_at: Vec<u32>,
    values: Vec<u32>,
    columns: Vec<Vec<u32>>,
    counts: Vec<Vec<u32>>,
    joint: Vec<u32>,
    n_log_n: Vec<f64>,
}

impl ReshapeSearch {
    /// A search over `symbols`, each below `levels` = 2^Q.
    pub fn new(symbols: &[u8], levels: usize) -> Self {
        let mut values = vec![0; levels];
        let mut nonzero_at = Vec::new();
        for (offset, &symbol) in symbols.iter().enumerate().filter(|(_, symbol)| **symbol != 0) {
            values[symbol as usize] += 1;
            nonzero_at.push(offset as u32);
        }
        let n_log_n = (0..LOOKUP).map(|n| if n == 0 { 0.0 } else { n as f64 * (n as f64).log2() }).collect();
        let (columns, counts, joint) = (Vec::new(), Vec::new(), Vec::new());
        Self { length: symbols.len(), levels, nonzero_at, values, columns, counts, joint, n_log_n }
    }

    /// Non-zero symbols.
    pub fn nonzeros(&self) -> usize {
        self.nonzero_at.len()
    }

    /// Algorithm 1 as written: over the divisors `N` of `T` in descending order, with `N > sqrt(T)` and
    /// `T / N <= 2^Q`, evaluate `T_tot(N)` and stop when it rises. Every `N` evaluated is returned, in
    /// order; [`best`] picks the result. Empty only for an empty tensor.
    pub fn algorithm_1(&mut self) -> Vec<Visit> {
        let (length, levels) = (self.length, self.levels);
        let mut visits: Vec<Visit> = Vec::new();
        for rows in divisors(length).into_iter().rev() {
            let allowed =
                (rows as u128 * rows as u128 > length as u128 || length == 1) && length / rows <= levels;
            if !allowed {
                break;
            }
            let visit = self.evaluate(rows);
            let rises = visits.last().is_some_and(|last| visit.total_bits > last.total_bits);
            visits.push(visit);
            if rises {
                break;
            }
        }
        visits
    }

    /// `T_tot(N)` for every divisor `N` of `T`, in descending order.
    pub fn every_divisor(&mut self) -> Vec<Visit> {
        divisors(self.length).into_iter().rev().map(|rows| self.evaluate(rows)).collect()
    }

    fn evaluate(&mut self, rows: usize) -> Visit {
        let columns = self.length / rows;
        let mut joint = std::mem::take(&mut self.joint);
        joint.clear();
        joint.resize(self.levels.max(columns + 1), 0);
        joint[..self.levels].copy_from_slice(&self.values);
        self.add_columns(columns, &mut joint);
        self.add_counts(rows, &mut joint);
        let symbols = 2 * self.nonzeros() + rows;
        let scattered: f64 = joint.iter().map(|&n| self.n_log_n(n)).sum();
        self.joint = joint;
        let total_bits = (self.n_log_n(symbols as u32) - scattered).max(0.0);
        Visit { rows, columns, symbols, entropy: total_bits / symbols as f64, total_bits }
    }

    fn n_log_n(&self, n: u32) -> f64 {
        match self.n_log_n.get(n as usize) {
            Some(&value) => value,
            None => f64::from(n) * f64::from(n).log2(),
        }
    }

    /// Add the histogram of column indices for rows of `columns`.
    fn add_columns(&mut self, columns: usize, joint: &mut [u32]) {
        let finer = self.columns.iter().filter(|known| known.len().is_multiple_of(columns));
        let mut folded = vec![0; columns];
        if let Some(known) = finer.min_by_key(|known| known.len()) {
            for part in known.chunks_exact(columns) {
                folded.iter_mut().zip(part).for_each(|(sum, &n)| *sum += n);
            }
        } else {
            self.nonzero_at.iter().for_each(|&offset| folded[offset as usize % columns] += 1);
        }
        joint.iter_mut().zip(&folded).for_each(|(sum, &n)| *sum += n);
        keep(&mut self.columns, folded);
    }

    /// Add the histogram of non-zeros per row for `rows` rows.
    fn add_counts(&mut self, rows: usize, joint: &mut [u32]) {
        let finer = self.counts.iter().filter(|known| known.len().is_multiple_of(rows));
        let counts = if let Some(known) = finer.min_by_key(|known| known.len()) {
            known.chunks_exact(known.len() / rows).map(|part| part.iter().sum()).collect()
        } else {
            let columns = self.length / rows;
            let mut counts = vec![0; rows];
            self.nonzero_at.iter().for_each(|&offset| counts[offset as usize / columns] += 1);
            counts
        };
        counts.iter().for_each(|&count: &u32| joint[count as usize] += 1);
        keep(&mut self.counts, counts);
    }
}

fn keep(known: &mut Vec<Vec<u32>>, histogram: Vec<u32>) {
    if histogram.len() <= KEPT_LENGTH && known.iter().all(|other| other.len() != histogram.len()) {
        known.push(histogram);
    }
}

impl Visit {
    /// Whether a frame can hold this layout: its columns and counts are symbols of at most 4,096 kinds.
    pub const fn fits_a_frame(&self) -> bool {
        self.columns <= MAX_COLUMNS
    }
}

/// The visit of least `T_tot` among those a frame can hold; the first of equals.
pub fn best(visits: &[Visit]) -> Option<Visit> {
    let fitting = visits.iter().filter(|visit| visit.fits_a_frame());
    fitting.copied().min_by(|a, b| a.total_bits.total_cmp(&b.total_bits))
}

/// The divisors of `n`, ascending; none of zero.
fn divisors(n: usize) -> Vec<usize> {
    let mut small = Vec::new();
    let mut large = Vec::new();
    let mut candidate = 1;
    while candidate * candidate <= n {
        if n.is_multiple_of(candidate) {
            small.push(candidate);
            if candidate * candidate != n {
                large.push(n / candidate);
            }
        }
        candidate += 1;
    }
    small.extend(large.into_iter().rev());
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The total straight from the definition: build v, c and r, pad, add, take the entropy.
    fn by_definition(symbols: &[u8], levels: usize, rows: usize) -> (usize, f64) {
        let columns = symbols.len() / rows;
        let mut d: Vec<usize> = symbols.iter().filter(|&&q| q != 0).map(|&q| q as usize).collect();
        d.extend((0..symbols.len()).filter(|&i| symbols[i] != 0).map(|i| i % columns));
        d.extend(symbols.chunks(columns).map(|row| row.iter().filter(|&&q| q != 0).count()));
        let mut histogram = vec![0.0; levels.max(columns + 1)];
        d.iter().for_each(|&symbol| histogram[symbol] += 1.0);
        let n = d.len() as f64;
        let entropy: f64 = histogram.iter().filter(|&&f| f > 0.0).map(|f| -f / n * (f / n).log2()).sum();
        (d.len(), n * entropy)
    }

    fn sparse(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        (0..length).map(|i| if next() % 10 < 6 + i % 3 { 0 } else { (1 + next() % 7) as u8 }).collect()
    }

    #[test]
    fn every_divisor_costs_what_the_definition_says() {
        for length in [1, 2, 12, 97, 360, 6272] {
            let symbols = sparse(length, length as u64);
            let visits = ReshapeSearch::new(&symbols, 8).every_divisor();
            assert_eq!(visits.len(), divisors(length).len());
            for visit in visits {
                let (count, bits) = by_definition(&symbols, 8, visit.rows);
                assert_eq!((visit.rows * visit.columns, visit.symbols), (length, count));
                assert!((visit.total_bits - bits).abs() < 1e-6 * bits.max(1.0), "{visit:?} against {bits}");
            }
        }
    }

    #[test]
    fn algorithm_1_keeps_to_its_bounds_and_stops_at_the_first_rise() {
        let symbols = sparse(6272, 5);
        let visits = ReshapeSearch::new(&symbols, 16).algorithm_1();
        assert!(visits.iter().all(|v| v.rows * v.rows > 6272 && v.columns <= 16));
        assert!(visits.windows(2).all(|pair| pair[0].rows > pair[1].rows));
        let rises: Vec<bool> =
            visits.windows(2).map(|pair| pair[1].total_bits > pair[0].total_bits).collect();
        assert!(rises.iter().rev().skip(1).all(|rise| !rise), "it went on after a rise: {visits:?}");
    }

    #[test]
    fn the_example_by_hand_has_the_entropy_by_hand() {
        // 2 x 4: [0 3 0 0 / 1 0 0 3]: v = 3 1 3, c = 1 0 3, r = 1 2.
        // D = 3 1 3 1 0 3 1 2: counts 0:1 1:3 2:1 3:3 of 8.
        let visit = ReshapeSearch::new(&[0, 3, 0, 0, 1, 0, 0, 3], 4).evaluate(2);
        let by_hand = 2.0 * (1.0 / 8.0) * 3.0 + 2.0 * (3.0 / 8.0) * (8.0_f64 / 3.0).log2();
        assert_eq!(visit.symbols, 8);
        assert!((visit.entropy - by_hand).abs() < 1e-12);
    }
}
