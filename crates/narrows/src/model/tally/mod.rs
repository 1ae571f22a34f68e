//! Counting symbols of one byte, block by block.
//!
//! Few kinds are counted by comparing, with AVX-512 up to 64 kinds as bits (`avx512`): no symbol is looked at one
//! by one. Otherwise in four tables in turns, so that equal neighbours do not wait for each other's count.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::Path;
use crate::simd::for_paths;

/// Tables that take turns.
const TABLES: usize = 4;

/// The largest alphabet that is counted by comparing.
const COMPARED: usize = 16;
/// Symbols compared with at a time.
const AT_ONCE: usize = 4;
/// Symbols of an inner loop of fixed length.
const LANES: usize = 64;
/// Steps of a sample that are counted together.
const STEPS_AT_ONCE: usize = 16;

/// Counts of symbols, taken in block by block.
#[derive(Clone)]
pub(crate) struct Tally {
    alphabet: usize,
    tables: [[u32; 256]; TABLES],
    #[cfg(target_arch = "x86_64")]
    bits: avx512::Bits,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            alphabet: 0,
            tables: [[0; 256]; TABLES],
            #[cfg(target_arch = "x86_64")]
            bits: avx512::Bits::default(),
        }
    }
}

impl Tally {
    /// Start from zero, for symbols of an alphabet of up to 256.
    pub(crate) fn start(&mut self, alphabet: usize) {
        self.alphabet = alphabet;
        self.tables.iter_mut().for_each(|table| table[..alphabet.next_multiple_of(AT_ONCE)].fill(0));
        #[cfg(target_arch = "x86_64")]
        self.bits.start(alphabet);
    }

    /// Count `symbols`, of an alphabet of up to 256, into `counts`, one for each symbol of the alphabet.
    pub(crate) fn count(&mut self, path: Path, symbols: &[u8], alphabet: usize, counts: &mut Vec<u32>) {
        self.start(alphabet);
        self.add(path, symbols);
        self.finish(path, counts);
    }

    /// About what [`Tally::count`] counts, from one step of [`LANES`] symbols in `every`; no symbol lies outside
    /// `ends`, and each between counts at least once.
    pub(crate) fn sample(
        &mut self,
        path: Path,
        symbols: &[u8],
        alphabet: usize,
        (every, ends): (usize, [u8; 2]),
        counts: &mut Vec<u32>,
    ) {
        self.start(alphabet);
        // Steps side by side, as many as are counted at once.
        let (mut steps, mut filled) = ([0; STEPS_AT_ONCE * LANES], 0);
        for start in (0..symbols.len()).step_by(LANES * every) {
            let step = &symbols[start..symbols.len().min(start + LANES)];
            steps[filled..filled + step.len()].copy_from_slice(step);
            filled += step.len();
            if filled == steps.len() {
                self.add(path, &steps);
                filled = 0;
            }
        }
        self.add(path, &steps[..filled]);
        self.finish(path, counts);
        let between = usize::from(ends[0])..=usize::from(ends[1]);
        counts[between].iter_mut().for_each(|n| *n = (*n * every as u32).max(1));
    }

    /// Count these too.
    pub(crate) fn add(&mut self, path: Path, symbols: &[u8]) {
        match path {
            Path::Reference => Self::add_in_turns(self, symbols),
            _ => add(path, self, symbols),
        }
    }

    /// Small alphabets by comparing all symbols with each of theirs, larger ones in turns.
    #[inline(always)]
    fn add_plain(&mut self, symbols: &[u8]) {
        if self.alphabet > COMPARED {
            return self.add_in_turns(symbols);
        }
        // Counters of one byte each count at most 255 blocks.
        for part in symbols.chunks(255 * LANES) {
            let (blocks, rest) = part.as_chunks::<LANES>();
            for first in (0..self.alphabet).step_by(AT_ONCE) {
                let mut counts = [[0_u8; LANES]; AT_ONCE];
                for block in blocks {
                    for (k, counts) in counts.iter_mut().enumerate() {
                        let symbol = (first + k) as u8;
                        for lane in 0..LANES {
                            counts[lane] += u8::from(block[lane] == symbol);
                        }
                    }
                }
                for (count, lanes) in self.tables[0][first..].iter_mut().zip(counts) {
                    *count += lanes.iter().map(|&n| u32::from(n)).sum::<u32>();
                }
            }
            self.add_in_turns(rest);
        }
    }

    #[inline(always)]
    fn add_in_turns(&mut self, symbols: &[u8]) {
        let [a, b, c, d] = &mut self.tables;
        let (fours, rest) = symbols.as_chunks::<TABLES>();
        for four in fours {
            a[four[0] as usize] += 1;
            b[four[1] as usize] += 1;
            c[four[2] as usize] += 1;
            d[four[3] as usize] += 1;
        }
        rest.iter().for_each(|&symbol| a[symbol as usize] += 1);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    fn add_bits(&mut self, symbols: &[u8]) {
        if self.alphabet <= avx512::MAX_ALPHABET {
            self.bits.add(symbols, &mut self.tables[0]);
        } else {
            self.add_in_turns(symbols);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    fn finish_bits(&mut self) {
        self.bits.finish(&mut self.tables[0]);
    }

    /// Write what was counted over `counts`, a count for each symbol of the alphabet.
    pub(crate) fn finish(&mut self, path: Path, counts: &mut Vec<u32>) {
        finish(path, self);
        let [a, b, c, d] = &self.tables;
        counts.clear();
        counts.extend((0..self.alphabet).map(|s| a[s] + b[s] + c[s] + d[s]));
    }
}

for_paths! {
    fn add(tally: &mut Tally, symbols: &[u8]) = Tally::add_plain, avx512 Tally::add_bits
}
/// Tables that take turns hold all counts at any time.
#[inline(always)]
fn nothing_left(_: &mut Tally) {}

for_paths! {
    fn finish(tally: &mut Tally) = nothing_left, avx512 Tally::finish_bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_counts_alike() {
        let mut state = 1_u64;
        let symbols: Vec<u8> = (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        let (mut tally, mut counts) = (Tally::default(), Vec::new());
        for alphabet in [2_usize, 3, 8, 9, 16, 17, 31, 63, 64, 65, 255, 256] {
            let symbols: Vec<u8> = symbols.iter().map(|&s| (usize::from(s) % alphabet) as u8).collect();
            for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                for length in (0..200).chain([1023, 1024, 1025, 5000, 299_999, 300_000]) {
                    let mut expected = vec![0; alphabet];
                    symbols[..length].iter().for_each(|&s| expected[s as usize] += 1);
                    tally.start(alphabet);
                    let (first, second) = symbols[..length].split_at(length / 3);
                    tally.add(path, first);
                    tally.add(path, second);
                    tally.finish(path, &mut counts);
                    assert_eq!(counts, expected, "{path:?}, {length} symbols of {alphabet}");
                }
            }
        }
    }
}
