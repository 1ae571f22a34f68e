//! A link that breaks and a server that dies, again and again: each request ends within its
//! deadline, and none with a wrong answer.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use narrows_link::{
    Backoff, Call, Client, Options,
    emulator::{Fault, Faults, Proxy, ProxyOptions},
};

/// An address where nobody listens, nor will: its port is below those that systems give out, so that
/// a server which leaves it can come back.
pub fn quiet_address() -> SocketAddr {
    let first = 10_000 + (std::process::id() % 1000) as u16 * 20;
    (first..first + 20)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|&address| std::net::TcpListener::bind(address).is_ok())
        .expect("one of twenty ports is free")
}

/// What is to be done.
#[derive(Clone, Copy)]
pub struct Chaos {
    /// How often the server is killed.
    pub kills: u64,
    /// How often the link is broken, at least.
    pub faults: u64,
    pub clients: usize,
    pub deadline: Duration,
    /// How long after its deadline a request may end: what a busy machine takes.
    pub grace: Duration,
    pub seed: u64,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Outcome {
    pub right: AtomicU64,
    /// Ended with a typed error.
    pub failed: AtomicU64,
    pub wrong: AtomicU64,
    pub late: AtomicU64,
    pub attempts: AtomicU64,
    pub slowest: Mutex<Duration>,
    pub kills: u64,
    /// In the order of [`Fault::ALL`].
    pub faults: [u64; 5],
}

/// Runs clients through a breaking link. `start` starts a server at an address and gives something
/// that kills it when dropped.
pub fn chaos<S>(
    server: SocketAddr,
    chaos: Chaos,
    start: impl Fn(SocketAddr) -> S,
    mut watch: impl FnMut(u64, u64),
) -> Outcome {
    let mut outcome = Outcome::default();
    let faults = Faults::new(&Fault::ALL, 0.5, 100_000, chaos.seed).expect("faults");
    let options = ProxyOptions { faults: Some(faults), ..ProxyOptions::default() };
    let proxy = Proxy::with(server, options).expect("a proxy");
    let done = AtomicBool::new(false);
    let mut kills = 0;
    thread::scope(|scope| {
        for number in 0..chaos.clients as u64 {
            let (outcome, done, proxy) = (&outcome, &done, &proxy);
            scope.spawn(move || one_client(proxy.local_addr(), chaos, number, outcome, done));
        }
        let mut victim = start(server);
        let mut pause = Duration::from_millis(30);
        loop {
            thread::sleep(pause);
            let struck: u64 = proxy.traffic().faults.iter().sum();
            watch(kills, struck);
            if kills < chaos.kills {
                drop(victim);
                kills += 1;
                // Dead for a moment, alive for another.
                thread::sleep(Duration::from_millis(kills * 7 % 20));
                victim = start(server);
                pause = Duration::from_millis(30 + kills * 13 % 50);
            } else if struck >= chaos.faults {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        drop(victim);
    });
    outcome.kills = kills;
    outcome.faults = proxy.traffic().faults;
    outcome
}

fn one_client(proxy: SocketAddr, chaos: Chaos, number: u64, outcome: &Outcome, done: &AtomicBool) {
    let options = Options {
        connect_timeout: Duration::from_millis(300),
        request_timeout: chaos.deadline,
        backoff: Backoff { base: Duration::from_millis(5), most: Duration::from_millis(50) },
        ..Options::default()
    };
    let mut client = Client::offline(proxy, options.clone()).expect("an address");
    let mut nth = 0u64;
    while !done.load(Ordering::Relaxed) {
        // A connection without a fault would last, and nothing would break any more.
        if nth % 50 == 49 {
            client = Client::offline(proxy, options.clone()).expect("an address");
        }
        let payload: Vec<u8> =
            (0..(nth % 7) * 6000 + 10).map(|i| (i.wrapping_mul(31) ^ nth ^ number << 4) as u8).collect();
        let start = Instant::now();
        let ended = client.call(Call::new("reverse", &payload));
        let took = start.elapsed();
        nth += 1;
        let count = match ended {
            Ok(answer) if answer.payload.iter().rev().eq(&payload) => {
                outcome.attempts.fetch_add(u64::from(answer.record.attempts), Ordering::Relaxed);
                &outcome.right
            }
            Ok(_) => &outcome.wrong,
            Err(_) => &outcome.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if took > chaos.deadline + chaos.grace {
            outcome.late.fetch_add(1, Ordering::Relaxed);
        }
        let mut slowest = outcome.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = took.max(*slowest);
    }
}
