//! Interleaved measurements: every work once in each round, so that what else the machine does hits all alike.

use std::time::Duration;

use crate::results::rounded;

/// Something to encode and to decode, with everything it needs.
pub trait Work {
    /// Get ready for a run of calls, outside of any time that is taken.
    fn prepare(&mut self) {}
    /// Encode once.
    fn encode(&mut self);
    /// Decode once what was encoded.
    fn decode(&mut self);
}

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Budget {
    /// After this much time a work sits out the remaining rounds.
    pub each: Duration,
    /// Rounds at least.
    pub least: usize,
    /// Rounds at most.
    pub most: usize,
}

/// Nanoseconds of each repeat.
#[derive(Clone, Default)]
pub struct Times {
    pub encode: Vec<f64>,
    pub decode: Vec<f64>,
}

/// A repeat lasts at least this long: short calls are timed several at a time.
const REPEAT: Duration = Duration::from_micros(100);
/// What takes longer than this leaves nothing in the caches that a call before it could warm.
const COLD: Duration = Duration::from_millis(4);

/// How long this thread has had a processor. Not the time of day: on a shared machine that would also hold the
/// turns of others.
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "there is a clock for threads");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds of one call, after one that is not timed.
fn time(mut call: impl FnMut()) -> f64 {
    let start = now();
    call();
    let first = now() - start;
    if first > COLD {
        return first.as_nanos() as f64;
    }
    let count = REPEAT.as_nanos().div_ceil(first.as_nanos().max(1)).min(100) as u32;
    let start = now();
    (0..count).for_each(|_| call());
    (now() - start).as_nanos() as f64 / f64::from(count)
}

/// The times of all works, in rounds.
pub fn measure(works: &mut [Box<dyn Work>], budget: Budget) -> Vec<Times> {
    let mut times = vec![Times::default(); works.len()];
    let mut spent = vec![Duration::ZERO; works.len()];
    for round in 0..budget.most {
        let mut idle = true;
        for step in 0..works.len() {
            // Another first one every round, and every second round backwards, so that nobody always runs after
            // the same neighbour.
            let place = (step + round) % works.len();
            let index = if round % 2 == 0 { place } else { works.len() - 1 - place };
            if round >= budget.least && spent[index] > budget.each {
                continue;
            }
            idle = false;
            let start = now();
            let work = &mut works[index];
            work.prepare();
            times[index].encode.push(time(|| work.encode()));
            times[index].decode.push(time(|| work.decode()));
            spent[index] += now() - start;
        }
        if idle {
            break;
        }
    }
    times
}

/// The median and the least.
pub fn median_and_best(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    (rounded(median), rounded(sorted[0]))
}
