//! Load: a million requests over 256 connections, by default. Every request must end exactly once,
//! right or with the failure that it asks for, and the server's memory must stay flat.
//!
//! ```text
//! cargo run --release -p narrows-link --example soak -- [REQUESTS] [CONNECTIONS]
//! ```

#[path = "../tests/load/soak.rs"]
#[allow(dead_code)]
mod soak;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, ExitCode, Stdio},
    sync::atomic::Ordering,
};

use narrows_link::{Limits, Server};
use soak::{Reverse, Soak, resident_bytes};

/// Memory may rise by so much from a tenth of the way to the end.
const FLAT: f64 = 1.25;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--server") {
        serve();
        return ExitCode::SUCCESS;
    }
    let number = |index: usize, default: u64| -> u64 {
        arguments.get(index).map_or(default, |text| text.parse().expect("a number"))
    };
    let soak = Soak {
        requests: number(0, 1_000_000),
        connections: number(1, 256) as usize,
        in_flight: 8,
        longest: 56_000,
    };
    // The server has a process of its own, so that its memory is its own.
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .arg("--server")
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("an address");
    let server: SocketAddr = line.trim().parse().expect("an address");

    let mut memory: Vec<(u64, u64)> = Vec::new();
    let outcome = soak::soak(server, soak, |ended| {
        if let Some(bytes) = resident_bytes(child.id()) {
            let step = soak.requests / 20;
            if memory.last().is_none_or(|(last, _)| ended >= last + step) {
                println!(
                    "{ended:>9} requests ended, the server holds {:>6.1} MiB",
                    bytes as f64 / 1_048_576.0
                );
                memory.push((ended, bytes));
            }
        }
    });
    child.kill().expect("a running server");
    child.wait().expect("a server that ended");

    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let (right, refused, wrong) = (count(&outcome.right), count(&outcome.refused), count(&outcome.wrong));
    println!(
        "{} requests over {} connections in {:.1} s ({:.0}/s): {right} right, {refused} refused as asked, {wrong} wrong",
        outcome.ended(),
        soak.connections,
        outcome.seconds,
        outcome.ended() as f64 / outcome.seconds,
    );
    let early = memory.iter().find(|(ended, _)| *ended >= soak.requests / 10).map(|(_, bytes)| *bytes);
    let late = memory.last().map(|(_, bytes)| *bytes);
    let is_flat = early.zip(late).is_none_or(|(early, late)| (late as f64) < early as f64 * FLAT);
    println!("memory is {}", if is_flat { "flat" } else { "NOT FLAT" });
    let passed = wrong == 0 && outcome.ended() == soak.requests && is_flat;
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve() {
    // Panics are part of the load; a million lines about them are not.
    std::panic::set_hook(Box::new(|_| {}));
    let server = Server::bind("127.0.0.1:0", Limits::default()).expect("a port");
    println!("{}", server.local_addr());
    server.serve(Reverse).expect("a server");
}
