//! Telling a request that is late from a machine that did not run it.
//!
//! A thread that waits past its deadline sleeps; a thread that is starved could run and is not let. Linux counts the
//! latter for each thread (`schedstat`: nanoseconds spent runnable and not running). What stops the whole machine, such as
//! a hypervisor that takes its processors away, shows in nobody's count: a metronome feels it, a thread that sleeps five
//! milliseconds at a time and notes whenever they became many more. A client that overslept by itself delays
//! neither, so nothing of its making is forgiven.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The metronome's beat, and the delay from which on it is noted.
const BEAT: Duration = Duration::from_millis(5);
const NOTED: Duration = Duration::from_millis(20);

/// How long this thread has been runnable and not running; zero where nobody counts.
fn kept_waiting() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// Notes when nothing ran, until it is dropped.
pub struct Metronome {
    stalls: Arc<Mutex<Vec<(Instant, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Metronome {
    pub fn start() -> Metronome {
        let (stalls, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (Arc::clone(&stalls), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let due = Instant::now() + BEAT;
                thread::sleep(BEAT);
                let now = Instant::now();
                if now > due + NOTED {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push((due, now));
                }
            }
        });
        Metronome { stalls, stop, thread: Some(thread) }
    }

    /// How long between two moments nothing ran.
    fn stalled(&self, from: Instant, to: Instant) -> Duration {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let within = stalls.iter().rev().take_while(|stall| stall.1 > from);
        within.map(|stall| stall.1.min(to).saturating_duration_since(stall.0.max(from))).sum()
    }
}

impl Drop for Metronome {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A stretch of this thread's time.
pub struct Stretch {
    start: Instant,
    kept_waiting: Duration,
}

impl Stretch {
    pub fn begin() -> Stretch {
        Stretch { start: Instant::now(), kept_waiting: kept_waiting() }
    }

    /// How long it was by the clock, and how long without the time in which the thread was not let run.
    pub fn end(&self, metronome: &Metronome) -> (Duration, Duration) {
        let end = Instant::now();
        let starved = kept_waiting().saturating_sub(self.kept_waiting);
        let took = end - self.start;
        (took, took.saturating_sub(starved.max(metronome.stalled(self.start, end))))
    }
}
