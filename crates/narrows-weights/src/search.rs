//! The search for the steps with which a file has the bits that are asked for.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// How much less than asked for a file may take, relative, and how much less is aimed at.
const NEAR: f64 = 0.004;
const AIM: f64 = 0.001;
/// The least entropy of weights that is tried.
const LEAST_ENTROPY: f64 = 0.02;
/// Bits of a file for each bit of entropy, between which two files are believed.
const SLOPES: RangeInclusive<f64> = 0.4..=4.0;

/// The search for the entropy of weights that makes a file of so many bits a weight.
pub(crate) struct Search {
    /// Bits a weight that the file may have.
    bits: f64,
    /// The entropy to try next, bits a quantised weight.
    pub(crate) asked: f64,
    /// All elements but of tensors that are kept by name; those that are quantised; and bytes of those by name.
    elements: f64,
    weights: f64,
    kept_bytes: f64,
    /// What everything but the weights took in the last file, bits a weight.
    overhead: f64,
    /// How much more than asked for is as good, relative.
    over: f64,
    /// The entropy tried last, and bits of the file it made.
    last: Option<(f64, f64)>,
    /// The largest entropy whose file had room left, and the least whose file was too large.
    between: [f64; 2],
}

/// What a file's bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It has the bits that were asked for.
    Done,
    /// There is room for finer steps.
    Few,
    /// Steps must be coarser.
    TooMany,
}

impl Search {
    /// A search that starts from a guess at what everything but weights takes.
    pub(crate) fn about(bits: f64, (elements, weights, kept_bytes): (f64, f64, f64), bytes: f64) -> Self {
        let asked = ((bits * elements - 8.0 * bytes) / weights / (1.0 + NEAR)).clamp(bits / 4.0, 8.0);
        let between = [f64::NEG_INFINITY, f64::INFINITY];
        Self { bits, asked, elements, weights, kept_bytes, overhead: 0.0, over: 0.0, last: None, between }
    }

    /// A search for an entropy of so many bits a weight, for which a little more is as good as a little less.
    pub(crate) fn of_entropy(bits: f64, weights: f64) -> Self {
        Self { over: NEAR, ..Self::about(bits, (weights, weights, 0.0), 0.0) }
    }

    /// Take up what a file of the entropy `asked` for took, and ask for another: where a line through the last two files
    /// has the bits that are aimed at.
    pub(crate) fn found(&mut self, bytes: u64) -> Result<Next> {
        let asked = self.asked;
        let taken = 8.0 * (bytes as f64 - self.kept_bytes) / self.elements;
        self.overhead = (taken - asked * self.weights / self.elements).max(0.0);
        let missed = taken / self.bits - 1.0;
        let per_element = self.weights / self.elements;
        let slope = match self.last.replace((asked, taken)) {
            Some((before, took)) if asked != before => {
                ((taken - took) / (asked - before) / per_element).clamp(*SLOPES.start(), *SLOPES.end())
            }
            _ => 1.0,
        };
        let wanted = asked + (self.bits * (1.0 - AIM) - taken) / (slope * per_element);
        let capped = wanted.min(8.0);
        // At as many bits as there are, less than was asked for is all that can be had.
        if (-NEAR..=self.over).contains(&missed) || (missed < 0.0 && capped <= asked) {
            return Ok(Next::Done);
        }
        if missed > 0.0 && asked <= LEAST_ENTROPY {
            return Err(self.too_few());
        }
        let next = if missed > 0.0 { Next::TooMany } else { Next::Few };
        let [below, above] = &mut self.between;
        match next {
            Next::TooMany => *above = above.min(asked),
            _ => *below = below.max(asked),
        }
        let inside = *below < capped && capped < *above;
        let middle = f64::midpoint(*below, *above);
        self.asked = if inside || !middle.is_finite() { capped } else { middle }.max(LEAST_ENTROPY);
        Ok(next)
    }

    /// The error of a file that cannot be.
    pub(crate) const fn too_few(&self) -> Error {
        Error::TooFewBits { bits: self.bits, least: self.overhead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entropies asked for until the file that takes `bits_of` of each is done, and what the search says of the last.
    fn searched(bits: f64, attempts: usize, bits_of: impl Fn(f64) -> f64) -> (Vec<f64>, Result<Next>) {
        let (elements, weights) = (310_000.0, 306_720.0);
        let mut search = Search::about(bits, (elements, weights, 0.0), 4000.0);
        let mut asked = Vec::new();
        for _ in 0..attempts {
            asked.push(search.asked);
            let next = search.found((bits_of(search.asked) * weights / 8.0) as u64);
            if !matches!(next, Ok(Next::Few | Next::TooMany)) {
                return (asked, next);
            }
        }
        (asked, Ok(Next::Few))
    }

    #[test]
    fn whatever_rounding_makes_of_an_entropy_is_found() {
        for bits in [0.5, 0.8, 1.0, 1.6, 2.5, 4.0, 6.0] {
            for slope in [0.5, 0.8, 1.0, 1.3, 2.2, 3.5] {
                for overhead in [0.02, 0.13, 0.3] {
                    let (asked, last) = searched(bits, 6, |asked| overhead + slope * asked);
                    assert_eq!(last.ok(), Some(Next::Done), "{bits} bits, slope {slope}: {asked:?}");
                }
                // Bent, and with a jump where another coder is taken.
                let bent = |asked: f64| 0.1 + slope * asked.powf(1.2) + if asked > 0.7 { 0.01 } else { 0.0 };
                let (asked, last) = searched(bits, 8, bent);
                assert_eq!(last.ok(), Some(Next::Done), "{bits} bits, bent, slope {slope}: {asked:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_an_error_and_what_is_small_enough_already_is_taken() {
        let (asked, last) = searched(0.5, 12, |asked| 0.55 + asked);
        assert!(matches!(last, Err(Error::TooFewBits { .. })), "{asked:?}");
        let (asked, last) = searched(6.0, 12, |asked| asked.min(3.0));
        assert_eq!(last.ok(), Some(Next::Done), "{asked:?}");
    }
}
