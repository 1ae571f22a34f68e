//! Time, measured often and told as a median: a run that was interrupted does not count.

use std::time::{Duration, Instant};

/// The result of `work`, and how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Durations of the same work done many times.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Add one.
    pub fn record(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// The median in microseconds; 0 without samples.
    pub fn median_us(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => Duration::ZERO,
            even if even.is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2,
            _ => sorted[middle],
        };
        median.as_secs_f64() * 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_ignores_the_odd_one_out() {
        let mut samples = Samples::default();
        for microseconds in [3, 1, 900, 2, 4] {
            samples.record(Duration::from_micros(microseconds));
        }
        assert_eq!(samples.median_us(), 3.0);
    }
}
