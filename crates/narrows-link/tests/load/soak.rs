//! Many requests over many connections: every one ends exactly once, right or with the failure that
//! its route asks for.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use narrows_link::{Call, Client, Code, Error, Failure, Options, Request, Tail, Work};

/// Answers with the payload's bytes turned round, or fails as the route says.
pub struct Reverse;

impl Tail for Reverse {
    fn routes(&self) -> Vec<String> {
        ["reverse", "refuse", "panic"].map(String::from).to_vec()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
        match request.route {
            "refuse" => Err(Failure::new(Code::BadPayload, "as asked")),
            "panic" => panic!("as asked"),
            _ => {
                reply.extend(request.payload.iter().rev());
                Ok(Work::default())
            }
        }
    }

    fn max_batch(&self) -> usize {
        8
    }
}

/// What is to be done.
#[derive(Clone, Copy)]
pub struct Soak {
    pub requests: u64,
    pub connections: usize,
    /// Open at a time on one connection.
    pub in_flight: usize,
    /// Longest payload in bytes; most are much shorter.
    pub longest: u64,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Outcome {
    pub right: AtomicU64,
    pub refused: AtomicU64,
    pub wrong: AtomicU64,
    pub seconds: f64,
}

/// Sends all requests and counts their ends; `watch` sees how many have ended, now and then.
pub fn soak(server: SocketAddr, soak: Soak, mut watch: impl FnMut(u64)) -> Outcome {
    let mut outcome = Outcome::default();
    let start = Instant::now();
    thread::scope(|scope| {
        let outcome = &outcome;
        let threads: Vec<_> = (0..soak.connections as u64)
            .map(|number| {
                let share = soak.requests / soak.connections as u64
                    + u64::from(number < soak.requests % soak.connections as u64);
                scope.spawn(move || one_connection(server, soak, number, share, outcome))
            })
            .collect();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(200));
            watch(outcome.ended());
        }
    });
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome
}

impl Outcome {
    pub fn ended(&self) -> u64 {
        [&self.right, &self.refused, &self.wrong].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// A payload of its own for each request.
fn payload(connection: u64, nth: u64, longest: u64) -> Vec<u8> {
    let seed = (connection << 32 | nth).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Mostly small, sometimes as long as may be.
    let length = if nth % 50 == 7 { longest } else { seed >> 52 };
    (0..length).map(|i| (seed >> (i % 8 * 8)) as u8 ^ i as u8).collect()
}

fn route(nth: u64) -> &'static str {
    match nth % 100 {
        13 => "refuse",
        77 if nth % 1000 == 77 => "panic",
        99 => "nowhere",
        _ => "reverse",
    }
}

fn one_connection(server: SocketAddr, soak: Soak, number: u64, share: u64, outcome: &Outcome) {
    let options = Options { connect_timeout: Duration::from_secs(30), ..Options::default() };
    let mut client = Client::connect(server, options).expect("a session");
    let mut nth = 0;
    while nth < share {
        let batch: Vec<_> = (nth..share.min(nth + soak.in_flight as u64))
            .map(|nth| (nth, payload(number, nth, soak.longest)))
            .collect();
        nth += batch.len() as u64;
        let mut pipeline = client.pipeline();
        let mut open: HashMap<u64, (u64, &[u8])> = HashMap::new();
        for (nth, payload) in &batch {
            open.insert(pipeline.submit(Call::new(route(*nth), payload)), (*nth, payload));
        }
        while let Some((id, ended)) = pipeline.next() {
            // A second end of the same request has nobody here.
            let Some((nth, payload)) = open.remove(&id) else {
                outcome.wrong.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let count = match (route(nth), ended) {
                ("reverse", Ok(answer)) if answer.payload.iter().rev().eq(payload) => &outcome.right,
                ("refuse", Err(Error::Refused(failure))) if failure.code() == Code::BadPayload => {
                    &outcome.refused
                }
                ("panic", Err(Error::Refused(failure))) if failure.code() == Code::Internal => {
                    &outcome.refused
                }
                ("nowhere", Err(Error::Refused(failure))) if failure.code() == Code::UnknownRoute => {
                    &outcome.refused
                }
                (route, ended) => {
                    eprintln!("connection {number}, request {nth} to {route}: {ended:?}");
                    &outcome.wrong
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        if !open.is_empty() {
            outcome.wrong.fetch_add(open.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Resident memory of a process, in bytes, where the system tells.
pub fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}
