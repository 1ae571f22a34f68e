//! What the server counts: for Prometheus, and for the live page.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{Failure, Work};

/// Seconds that the live page looks back.
const WINDOW: usize = 120;

/// Labels of the requests' counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    outcome: String,
}

/// Label of the connections' counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Label of the stages' histogram.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

/// The parts of a request's time on the server, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Receive,
    Queue,
    Decode,
    Tail,
    Send,
}

impl Stage {
    pub(crate) const ALL: [Stage; 5] =
        [Stage::Receive, Stage::Queue, Stage::Decode, Stage::Tail, Stage::Send];

    pub(crate) fn name(self) -> &'static str {
        ["receive", "queue", "decode", "tail", "send"][self as usize]
    }
}

/// A sum that grows, and how many values it is of.
#[derive(Debug, Default)]
struct Sum {
    total: AtomicU64,
    count: AtomicU64,
}

impl Sum {
    fn add(&self, value: u64) {
        self.total.fetch_add(value, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The mean of what was added since the last time, if anything was.
    fn take_mean(&self) -> Option<f64> {
        let (count, total) = (self.count.swap(0, Ordering::Relaxed), self.total.swap(0, Ordering::Relaxed));
        (count > 0).then(|| total as f64 / count as f64)
    }
}

/// One second of the live page.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Sample {
    /// Seconds since the server began.
    pub(crate) at: f64,
    /// Requests answered per second.
    pub(crate) requests: f64,
    /// Of them, with a failure.
    pub(crate) errors: f64,
    /// Bytes of requests per second.
    pub(crate) bytes_in: f64,
    /// Bytes of answers per second.
    pub(crate) bytes_out: f64,
    /// Bytes of the requests' tensors per second.
    pub(crate) tensor_bytes: f64,
    /// Bytes of the requests whose tensors' size is known, per second.
    pub(crate) frame_bytes: f64,
    /// Mean time in each stage, in microseconds, in the order of the stages.
    pub(crate) stages: [Option<f64>; 5],
    /// Mean rate at which long requests arrived, in bit/s.
    pub(crate) link: Option<f64>,
    /// Mean bits per symbol.
    pub(crate) bits: Option<f64>,
}

/// Counters since the server began.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) tensor_bytes: u64,
    pub(crate) frame_bytes: u64,
}

/// Everything counted.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) started: Instant,
    pub(crate) connections: Gauge,
    connections_total: Family<OutcomeLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    stage_seconds: Family<StageLabel, Histogram, fn() -> Histogram>,
    request_bytes: Counter,
    reply_bytes: Counter,
    tensor_bytes: Counter,
    in_flight: Gauge,
    queued: Gauge,
    memory: Gauge,
    answered: Counter,
    failed: Counter,
    frame_bytes: Counter,
    stages: [Sum; 5],
    link: Sum,
    bits: Sum,
    window: Mutex<Window>,
    registry: Registry,
}

#[derive(Debug, Default)]
struct Window {
    samples: VecDeque<Sample>,
    last: Totals,
    at: f64,
}

fn stage_histogram() -> Histogram {
    // 10 us to 10 s in steps of two.
    Histogram::new(exponential_buckets(1e-5, 2.0, 21))
}

impl Stats {
    pub(super) fn new() -> Stats {
        let mut stats = Stats {
            started: Instant::now(),
            connections: Gauge::default(),
            connections_total: Family::default(),
            requests: Family::default(),
            stage_seconds: Family::new_with_constructor(stage_histogram),
            request_bytes: Counter::default(),
            reply_bytes: Counter::default(),
            tensor_bytes: Counter::default(),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            memory: Gauge::default(),
            answered: Counter::default(),
            failed: Counter::default(),
            frame_bytes: Counter::default(),
            stages: Default::default(),
            link: Sum::default(),
            bits: Sum::default(),
            window: Mutex::default(),
            registry: Registry::with_prefix("narrows"),
        };
        stats.register();
        stats
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("open_connections", "Open connections", self.connections.clone());
        registry.register(
            "connections",
            "Connections by what became of them",
            self.connections_total.clone(),
        );
        registry.register("requests", "Requests answered, by route and outcome", self.requests.clone());
        registry.register("in_flight_requests", "Open requests", self.in_flight.clone());
        registry.register("queued_requests", "Requests that wait for the tail", self.queued.clone());
        registry.register_with_unit(
            "held",
            "Memory held by requests and answers",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register_with_unit("received", "Requests received", Unit::Bytes, self.request_bytes.clone());
        registry.register_with_unit("sent", "Answers sent", Unit::Bytes, self.reply_bytes.clone());
        registry.register_with_unit(
            "tensor",
            "Tensors that the requests' frames held",
            Unit::Bytes,
            self.tensor_bytes.clone(),
        );
        registry.register_with_unit(
            "stage",
            "Time that requests spent in each stage",
            Unit::Seconds,
            self.stage_seconds.clone(),
        );
    }

    pub(crate) fn connection(&self, outcome: &'static str) {
        self.connections_total.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].add(took.as_nanos() as u64);
        self.stage_seconds.get_or_create(&StageLabel { stage: stage.name() }).observe(took.as_secs_f64());
    }

    /// A request that arrived, of so many bytes, at this rate in byte/s if that could be told.
    pub(crate) fn arrived(&self, bytes: u64, rate: Option<f64>) {
        self.request_bytes.inc_by(bytes);
        if let Some(rate) = rate {
            self.link.add((rate * 8.0) as u64);
        }
    }

    /// A request that was answered, with so many bytes.
    pub(crate) fn answered(
        &self,
        route: &str,
        request_bytes: u64,
        reply_bytes: u64,
        result: Result<&Work, &Failure>,
    ) {
        let outcome = match result {
            Ok(_) => "ok".to_owned(),
            Err(failure) => failure.code().to_string(),
        };
        self.requests.get_or_create(&RequestLabels { route: route.into(), outcome }).inc();
        self.answered.inc();
        self.reply_bytes.inc_by(reply_bytes);
        match result {
            Ok(work) => {
                self.stage(Stage::Decode, work.decode);
                self.stage(Stage::Tail, work.tail);
                if work.tensor_bytes > 0 {
                    self.tensor_bytes.inc_by(work.tensor_bytes);
                    self.frame_bytes.inc_by(request_bytes);
                }
                if let Some(bits) = work.bits {
                    self.bits.add(u64::from(bits));
                }
            }
            Err(_) => {
                self.failed.inc();
            }
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            requests: self.answered.get(),
            errors: self.failed.get(),
            bytes_in: self.request_bytes.get(),
            bytes_out: self.reply_bytes.get(),
            tensor_bytes: self.tensor_bytes.get(),
            frame_bytes: self.frame_bytes.get(),
        }
    }

    /// Ends a second of the live page.
    pub(crate) fn sample(&self) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, totals, last) = (self.started.elapsed().as_secs_f64(), self.totals(), window.last);
        let seconds = (now - window.at).max(1e-3);
        let per_second = |now: u64, then: u64| (now - then) as f64 / seconds;
        let sample = Sample {
            at: now,
            requests: per_second(totals.requests, last.requests),
            errors: per_second(totals.errors, last.errors),
            bytes_in: per_second(totals.bytes_in, last.bytes_in),
            bytes_out: per_second(totals.bytes_out, last.bytes_out),
            tensor_bytes: per_second(totals.tensor_bytes, last.tensor_bytes),
            frame_bytes: per_second(totals.frame_bytes, last.frame_bytes),
            stages: Stage::ALL
                .map(|stage| self.stages[stage as usize].take_mean().map(|nanoseconds| nanoseconds / 1e3)),
            link: self.link.take_mean(),
            bits: self.bits.take_mean(),
        };
        (window.last, window.at) = (totals, now);
        if window.samples.len() == WINDOW {
            window.samples.pop_front();
        }
        window.samples.push_back(sample);
    }

    /// The last seconds of the live page.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).samples.iter().cloned().collect()
    }

    /// Everything in the text format of OpenMetrics. What is not counted as it happens is given.
    pub(crate) fn open_metrics(&self, in_flight: usize, queued: usize, memory: u64) -> String {
        self.in_flight.set(in_flight as i64);
        self.queued.set(queued as i64);
        self.memory.set(memory as i64);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a string takes everything");
        text
    }
}
