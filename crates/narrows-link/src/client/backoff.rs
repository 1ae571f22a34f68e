//! How long to wait before trying again.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// Exponential backoff with full jitter: each failure doubles the bound, and the wait is uniform
/// below it, so that clients that lost their server together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub base: Duration,
    /// Bound of any wait.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { base: Duration::from_millis(50), most: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The bound after `failures` in a row, at least 1.
    fn bound(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.most)
    }

    /// A wait after `failures` in a row.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        // A fresh RandomState differs from every other; its hash is as good a die as is needed here.
        let die = RandomState::new().hash_one(failures) >> 11;
        self.bound(failures).mul_f64(die as f64 / (1u64 << 53) as f64)
    }
}

/// Failures in a row, and when the next try is due.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    due: Option<Instant>,
}

impl Retry {
    pub(super) fn failed(&mut self, backoff: &Backoff) {
        self.failures = self.failures.saturating_add(1);
        self.due = Instant::now().checked_add(backoff.wait(self.failures));
    }

    pub(super) fn succeeded(&mut self) {
        *self = Retry::default();
    }

    /// How long until the next try is due.
    pub(super) fn wait(&self) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_below_a_bound_that_doubles_up_to_the_most() {
        let backoff = Backoff { base: Duration::from_millis(10), most: Duration::from_millis(100) };
        for (failures, bound) in [(1, 10), (2, 20), (3, 40), (4, 80), (5, 100), (40, 100), (u32::MAX, 100)] {
            assert_eq!(backoff.bound(failures), Duration::from_millis(bound));
            let waits: Vec<_> = (0..100).map(|_| backoff.wait(failures)).collect();
            assert!(waits.iter().all(|&wait| wait < Duration::from_millis(bound)));
            assert!(waits.iter().any(|&wait| wait != waits[0]), "no jitter");
        }
    }
}
