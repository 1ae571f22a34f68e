//! Requests over a link that changes, sent as a policy decides.
//!
//! An input comes every period. The device runs head and encoder, the frame waits until the link has
//! taken those before it, crosses, and the answer comes back after the server's time and the way home. A
//! frame whose deadline passes while it waits is dropped; one that has begun is sent to its end, as a
//! socket does. Answers are small, and the way home takes its delay only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use narrows_link::adapt::{Controller, Decision, OperatingPoint};
use narrows_link::emulator::Link;

use super::trace::Trace;

/// Bytes of a ping with its header, and how often an idle link is pinged.
const PING_BYTES: f64 = 24.0;
const PING_EVERY: f64 = 1.0;

/// What is asked of the link.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// From one input to the next.
    pub period: Duration,
    pub deadline: Duration,
    /// Delay and jitter of a direction; its rate is the trace's.
    pub link: Link,
    pub seconds: f64,
}

/// Sizes and answers at each operating point, input by input; inputs begin again where they end.
pub struct Workload {
    pub points: Vec<OperatingPoint>,
    /// Of each point, for each input.
    pub bytes: Vec<Vec<u32>>,
    /// Of each point, for each input: 1 if the answer is right, 0 if not, or the probability.
    pub right: Vec<Vec<f64>>,
}

/// Who decides.
pub enum Policy {
    /// Always this point.
    Fixed(usize),
    Adaptive(Box<Controller>),
    /// The most accurate point that will be in time: nobody can know that.
    Foresight,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Seconds.
    pub at: f64,
    /// None if nothing was sent.
    pub point: Option<usize>,
    /// Whether the answer came before the deadline.
    pub in_time: bool,
    /// The rate that the controller believed in, in bit/s.
    pub believed: Option<f64>,
}

/// How a policy did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub requests: usize,
    pub in_time: usize,
    /// Right answers in time.
    pub right: f64,
    pub bytes: u64,
    pub records: Vec<Record>,
}

impl Outcome {
    /// Percentage of requests without an answer in time.
    pub fn misses(&self) -> f64 {
        100.0 * (self.requests - self.in_time) as f64 / self.requests.max(1) as f64
    }

    /// Percentage of the answers in time that are right.
    pub fn accuracy(&self) -> f64 {
        100.0 * self.right / self.in_time.max(1) as f64
    }

    /// Percentage of requests with a right answer in time.
    pub fn useful(&self) -> f64 {
        100.0 * self.right / self.requests.max(1) as f64
    }

    /// The same over more requests.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.in_time += other.in_time;
        self.right += other.right;
        self.bytes += other.bytes;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Sent { id: u64, bytes: u64 },
    Answered { id: u64, server: Duration },
    Lost { id: u64 },
    Pinged { round_trip: Duration },
}

/// The device's side of the link while requests pass.
struct Sender<'a> {
    trace: &'a Trace,
    scenario: &'a Scenario,
    /// Seconds from which the device and the link are free.
    device_free: f64,
    link_free: f64,
    transfers: u64,
    pinged_at: f64,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
}

/// When a frame crosses.
struct Crossing {
    ready: f64,
    begins: f64,
    ends: f64,
}

/// Send inputs over `trace` as `policy` decides.
pub fn simulate(trace: &Trace, scenario: &Scenario, workload: &Workload, mut policy: Policy) -> Outcome {
    let mut sender = Sender {
        trace,
        scenario,
        device_free: 0.0,
        link_free: 0.0,
        transfers: 0,
        pinged_at: f64::NEG_INFINITY,
        events: BinaryHeap::new(),
    };
    let period = scenario.period.as_secs_f64();
    let requests = (scenario.seconds / period) as usize;
    let mut outcome = Outcome { requests, ..Outcome::default() };
    for id in 0..requests {
        let at = id as f64 * period;
        let input = |of: &[Vec<u32>], point: usize| f64::from(of[point][id % of[point].len()]);
        if let Policy::Adaptive(controller) = &mut policy {
            sender.tell(controller, at);
            sender.ping(at);
        }
        let size = |point: usize| input(&workload.bytes, point);
        let decision = match &mut policy {
            Policy::Fixed(point) => Decision::Send(*point),
            Policy::Adaptive(controller) => controller.decide(Duration::from_secs_f64(at)),
            Policy::Foresight => sender.foresee(at, workload, size),
        };
        let believed = match &policy {
            Policy::Adaptive(controller) => controller.rate(Duration::from_secs_f64(at)),
            _ => None,
        };
        let mut record = Record { at, point: None, in_time: false, believed };
        if let Decision::Send(point) = decision {
            let answered = sender.send(id as u64, at, &workload.points[point], size(point));
            record.point = Some(point);
            if answered <= at + scenario.deadline.as_secs_f64() {
                record.in_time = true;
                outcome.in_time += 1;
                outcome.right += workload.right[point][id % workload.right[point].len()];
            }
            outcome.bytes += size(point) as u64;
        }
        outcome.records.push(record);
    }
    outcome
}

impl Sender<'_> {
    fn crossing(&self, at: f64, point: &OperatingPoint, bytes: f64) -> Crossing {
        let ready = at.max(self.device_free) + point.device.as_secs_f64();
        let begins = ready.max(self.link_free);
        Crossing { ready, begins, ends: self.trace.serialised_at(begins, bytes * 8.0) }
    }

    /// Way there, server and way back, for transfer number `nth`.
    fn way(&self, server: Duration, nth: u64) -> f64 {
        let link = &self.scenario.link;
        (2 * link.delay() + link.jitter_of(2 * nth) + link.jitter_of(2 * nth + 1) + server).as_secs_f64()
    }

    /// Send a frame; when its answer is there, or infinity if it is dropped.
    fn send(&mut self, id: u64, at: f64, point: &OperatingPoint, bytes: f64) -> f64 {
        let Crossing { ready, begins, ends } = self.crossing(at, point, bytes);
        self.device_free = ready;
        self.push(ready, Event::Sent { id, bytes: bytes as u64 });
        if begins > at + self.scenario.deadline.as_secs_f64() {
            self.push(begins, Event::Lost { id });
            return f64::INFINITY;
        }
        let answered = ends + self.way(point.server, self.transfers);
        self.transfers += 1;
        self.link_free = ends;
        self.push(answered, Event::Answered { id, server: point.server });
        answered
    }

    fn foresee(&self, at: f64, workload: &Workload, size: impl Fn(usize) -> f64) -> Decision {
        let in_time = |&point: &usize| {
            let how = &workload.points[point];
            let answered = self.crossing(at, how, size(point)).ends + self.way(how.server, self.transfers);
            answered <= at + self.scenario.deadline.as_secs_f64()
        };
        let accuracy = |point: usize| workload.points[point].accuracy;
        let fitting = (0..workload.points.len()).filter(in_time);
        fitting.max_by(|&a, &b| accuracy(a).total_cmp(&accuracy(b))).map_or(Decision::Hold, Decision::Send)
    }

    /// Ping a link that is idle, if the last time is long enough ago.
    fn ping(&mut self, at: f64) {
        if self.link_free > at || at - self.pinged_at < PING_EVERY {
            return;
        }
        let ends = self.trace.serialised_at(at, PING_BYTES * 8.0);
        let back = ends + self.way(Duration::ZERO, self.transfers);
        self.transfers += 1;
        (self.link_free, self.pinged_at) = (ends, at);
        if back.is_finite() {
            self.push(back, Event::Pinged { round_trip: Duration::from_secs_f64(back - at) });
        }
    }

    fn push(&mut self, at: f64, event: Event) {
        if at.is_finite() {
            self.events.push(Reverse((Duration::from_secs_f64(at), event)));
        }
    }

    /// Tell a controller what happened up to now.
    fn tell(&mut self, controller: &mut Controller, now: f64) {
        let now = Duration::from_secs_f64(now);
        while let Some(Reverse((at, event))) =
            self.events.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.events.pop();
            match event {
                Event::Sent { id, bytes } => controller.sent(at, id, bytes),
                Event::Answered { id, server } => controller.answered(at, id, server),
                Event::Lost { id } => controller.lost(at, id),
                Event::Pinged { round_trip } => controller.round_trip(at, round_trip),
            }
        }
    }
}
