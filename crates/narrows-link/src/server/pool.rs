//! Threads that run the tail, so that nothing asynchronous ever waits for a computation.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::Batching;
use crate::{Code, Error, Failure, Tail, Work, message::Request};

/// Takes the end of a job.
pub(crate) type Respond = Box<dyn FnOnce(Duration, Result<(Work, Vec<u8>), Failure>) + Send>;

/// A request waiting for the tail.
pub(crate) struct Job {
    pub(crate) id: u64,
    /// Its place in the routes.
    pub(crate) route: usize,
    /// What holds the payload, and where it begins.
    pub(crate) bytes: Bytes,
    pub(crate) payload_at: usize,
    pub(crate) arrived: Instant,
    pub(crate) expires: Option<Instant>,
    /// Whoever asked has gone.
    pub(crate) gone: Arc<AtomicBool>,
    /// Takes the end of the job: how long it waited for the tail, and what came of it.
    pub(crate) respond: Respond,
}

impl Job {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The jobs, and the threads that do them.
pub(crate) struct Pool {
    tail: Arc<dyn Tail>,
    routes: Arc<[String]>,
    batching: Batching,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    is_closed: bool,
    /// Threads in the middle of a job.
    busy: usize,
}

impl Pool {
    pub(super) fn new(tail: Arc<dyn Tail>, routes: Arc<[String]>, batching: Batching) -> Arc<Pool> {
        let max_requests = batching.max_requests.min(tail.max_batch()).max(1);
        let batching = Batching { max_requests, ..batching };
        Arc::new(Pool { tail, routes, batching, state: Mutex::default(), changed: Condvar::new() })
    }

    pub(super) fn start(self: &Arc<Self>, workers: usize) -> Result<Vec<JoinHandle<()>>, Error> {
        let start = |number| {
            let pool = Arc::clone(self);
            let thread = thread::Builder::new().name(format!("narrows tail {number}"));
            thread.spawn(move || pool.work()).map_err(Error::io("starting a worker"))
        };
        (0..workers).map(start).collect::<Result<_, _>>().inspect_err(|_| self.close())
    }

    /// Queues a job. There are never more than the server's requests in flight.
    pub(crate) fn submit(&self, job: Job) {
        self.state().jobs.push_back(job);
        // A thread that waits for company may be the one woken, and the others asleep.
        if self.batching.max_requests > 1 { self.changed.notify_all() } else { self.changed.notify_one() }
    }

    /// Lets the threads end once nothing is queued.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Requests that wait for a thread.
    pub(crate) fn queued(&self) -> usize {
        self.state().jobs.len()
    }

    /// Threads that are at work.
    pub(crate) fn busy(&self) -> usize {
        self.state().busy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(batch) = self.next_batch() {
            self.answer(batch);
            self.state().busy -= 1;
        }
    }

    /// The next job and those that go with it; `None` when the pool is closed and empty.
    fn next_batch(&self) -> Option<Vec<Job>> {
        let mut state = self.state();
        let first = loop {
            if let Some(job) = state.jobs.pop_front() {
                break job;
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.busy += 1;
        let Batching { max_requests, budget } = self.batching;
        let until = crate::socket::after(first.arrived, budget);
        let mut batch = vec![first];
        loop {
            let mut index = 0;
            while batch.len() < max_requests && index < state.jobs.len() {
                if state.jobs[index].route == batch[0].route {
                    batch.extend(state.jobs.remove(index));
                } else {
                    index += 1;
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if batch.len() >= max_requests || left.is_zero() || state.is_closed {
                return Some(batch);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn answer(&self, mut batch: Vec<Job>) {
        let now = Instant::now();
        batch.retain(|job| !job.gone.load(Ordering::Relaxed));
        let (expired, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|job| job.is_expired(now));
        for job in expired {
            let waited = now - job.arrived;
            let text = format!("waited {waited:.1?} for the tail, longer than the request's deadline");
            (job.respond)(waited, Err(Failure::new(Code::Expired, text)));
        }
        if batch.is_empty() {
            return;
        }
        let mut replies = vec![Vec::new(); batch.len()];
        let results = {
            let requests: Vec<Request<'_>> = batch
                .iter()
                .map(|job| {
                    let left = job.expires.map_or(0, |expires| (expires - now).as_millis().max(1));
                    Request {
                        id: job.id,
                        deadline_ms: u32::try_from(left).unwrap_or(0),
                        route: &self.routes[job.route],
                        payload: &job.bytes[job.payload_at..],
                    }
                })
                .collect();
            self.ask_tail(&requests, &mut replies)
        };
        for ((job, result), reply) in batch.into_iter().zip(results).zip(replies) {
            (job.respond)(now - job.arrived, result.map(|work| (work, reply)));
        }
    }

    /// A result for each request, whatever the tail does.
    fn ask_tail(&self, requests: &[Request<'_>], replies: &mut [Vec<u8>]) -> Vec<Result<Work, Failure>> {
        let broken = |text: &str| vec![Err(Failure::new(Code::Internal, text)); requests.len()];
        // What a panic may leave half done is the tail's own; its replies are not sent.
        let results = catch_unwind(AssertUnwindSafe(|| match (requests, &mut *replies) {
            ([request], [reply]) => vec![self.tail.answer(request, reply)],
            (requests, replies) => self.tail.answer_batch(requests, replies),
        }));
        match results {
            Ok(results) if results.len() == requests.len() => results,
            Ok(_) => broken("the tail gave another number of answers than it was asked for"),
            Err(_) => broken("the tail panicked on this request"),
        }
    }
}
