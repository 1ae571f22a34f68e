//! A link that breaks and a server that dies, again and again: each request ends within its
//! deadline, and none with a wrong answer.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::starvation::{Metronome, Stretch};
use narrows_link::{
    Backoff, Call, Client, Options,
    emulator::{Fault, Faults, Proxy, ProxyOptions},
};

/// What is to be done.
#[derive(Clone, Copy)]
pub struct Chaos {
    /// How often the server is killed.
    pub kills: u64,
    /// How often the link is broken, at least.
    pub faults: u64,
    pub clients: usize,
    pub deadline: Duration,
    /// How long after its deadline a request may end, the time not counted in which the machine did not let its thread run.
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
    /// Late by the clock: a machine that does not run a thread cannot end its request.
    pub late_by_clock: AtomicU64,
    pub attempts: AtomicU64,
    /// The slowest by the clock, and without the time in which its thread was not let run.
    pub slowest: Mutex<(Duration, Duration)>,
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
    let (done, metronome) = (AtomicBool::new(false), Metronome::start());
    let mut kills = 0;
    thread::scope(|scope| {
        for number in 0..chaos.clients as u64 {
            let (outcome, done, proxy, metronome) = (&outcome, &done, proxy.local_addr(), &metronome);
            scope.spawn(move || one_client(proxy, chaos, number, outcome, done, metronome));
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

fn one_client(
    proxy: SocketAddr,
    chaos: Chaos,
    number: u64,
    outcome: &Outcome,
    done: &AtomicBool,
    metronome: &Metronome,
) {
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
        let stretch = Stretch::begin();
        let ended = client.call(Call::new("reverse", &payload));
        let (took, own) = stretch.end(metronome);
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
        for (time, late) in [(took, &outcome.late_by_clock), (own, &outcome.late)] {
            late.fetch_add(u64::from(time > chaos.deadline + chaos.grace), Ordering::Relaxed);
        }
        let mut slowest = outcome.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = (took.max(slowest.0), own.max(slowest.1));
    }
}
