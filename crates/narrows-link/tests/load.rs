//! Short versions of the load and failure runs; the long ones are the examples `soak` and `chaos`.

#[path = "load/address.rs"]
mod address;
#[path = "load/chaos.rs"]
mod chaos;
mod common;
#[path = "load/soak.rs"]
mod soak;
#[path = "load/starvation.rs"]
mod starvation;

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use narrows_link::{Limits, Running, Server};

use chaos::Chaos;
use soak::{Reverse, Soak, resident_bytes};

#[test]
fn ten_thousand_requests_over_256_connections_end_once_each_and_rightly() {
    let server = common::serve(Limits::default(), Reverse);
    let soak = Soak { requests: 10_000, connections: 256, in_flight: 4, longest: 60_000 };
    let before = resident_bytes(std::process::id());
    let outcome = soak::soak(server.local_addr(), soak, |_| {});
    let after = resident_bytes(std::process::id());
    assert_eq!(outcome.wrong.load(Ordering::Relaxed), 0, "{outcome:?}");
    assert_eq!(outcome.ended(), 10_000);
    assert!(outcome.refused.load(Ordering::Relaxed) > 100 && outcome.right.load(Ordering::Relaxed) > 9000);
    if let (Some(before), Some(after)) = (before, after) {
        // Clients and server in one process: 512 sockets with buffers of at most twice 60 kB.
        assert!(after < before + (200 << 20), "{before} bytes became {after}");
    }
}

/// Starts a server at an address that another one has just left.
fn start(address: SocketAddr) -> Running {
    let limits = Limits { drain_timeout: Duration::ZERO, ..Limits::default() };
    loop {
        match Server::bind(address, limits.clone()) {
            Ok(server) => return server.spawn(Reverse).expect("a thread"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[test]
fn requests_end_in_time_and_none_wrongly_while_link_and_server_break() {
    let address = address::quiet_address();
    let chaos = Chaos {
        kills: 20,
        faults: 60,
        clients: 4,
        deadline: Duration::from_millis(500),
        grace: Duration::from_millis(500),
        seed: 1,
    };
    let outcome = chaos::chaos(address, chaos, start, |_, _| {});
    assert_eq!(outcome.wrong.load(Ordering::Relaxed), 0, "{outcome:?}");
    assert_eq!(outcome.late.load(Ordering::Relaxed), 0, "{outcome:?}");
    assert!(outcome.right.load(Ordering::Relaxed) > 100, "{outcome:?}");
    assert!(outcome.faults.iter().all(|&count| count > 0), "{outcome:?}");
}

#[test]
fn a_thread_that_sleeps_is_not_taken_for_one_that_is_starved() {
    let metronome = starvation::Metronome::start();
    let late = (0..20).any(|_| {
        let stretch = starvation::Stretch::begin();
        std::thread::sleep(Duration::from_millis(100));
        stretch.end(&metronome).1 >= Duration::from_millis(90)
    });
    assert!(late, "twenty times in a row the machine stood still");
}
