//! Failures: the server is killed and the link broken a thousand times, by default. Each request
//! must end within its deadline, and none with a wrong answer.
//!
//! ```text
//! cargo run --release -p narrows-link --example chaos -- [KILLS] [FAULTS]
//! ```

#[path = "../tests/load/address.rs"]
mod address;
#[path = "../tests/load/chaos.rs"]
mod chaos;
#[path = "../tests/load/soak.rs"]
#[allow(dead_code)]
mod soak;
#[path = "../tests/load/starvation.rs"]
mod starvation;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use chaos::Chaos;
use narrows_link::{Limits, Server, emulator::Fault};
use soak::Reverse;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, address] = arguments.as_slice()
        && first == "--server"
    {
        serve(address.parse().expect("an address"));
        return ExitCode::SUCCESS;
    }
    let number = |index: usize, default: u64| -> u64 {
        arguments.get(index).map_or(default, |text| text.parse().expect("a number"))
    };
    let chaos = Chaos {
        kills: number(0, 1000),
        faults: number(1, 1000),
        clients: 16,
        deadline: Duration::from_secs(1),
        grace: Duration::from_millis(500),
        seed: 7,
    };
    let address = address::quiet_address();
    let mut shown = Instant::now();
    let outcome = chaos::chaos(address, chaos, Killed::start, |kills, faults| {
        if shown.elapsed() > Duration::from_secs(5) {
            println!("server killed {kills} times, link broken {faults} times");
            shown = Instant::now();
        }
    });
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let (right, failed) = (count(&outcome.right), count(&outcome.failed));
    let (wrong, late) = (count(&outcome.wrong), count(&outcome.late));
    let faults: Vec<String> =
        Fault::ALL.iter().zip(outcome.faults).map(|(fault, count)| format!("{count} {fault}")).collect();
    println!("server killed {} times, link broken: {}", outcome.kills, faults.join(", "));
    println!(
        "{} requests: {right} right ({:.2} attempts each), {failed} failed, {wrong} wrong, {late} after their deadline",
        right + failed + wrong,
        count(&outcome.attempts) as f64 / right as f64,
    );
    let slowest = outcome.slowest.lock().expect("no panic");
    println!(
        "deadline {:?} and {:?} of grace; slowest request {:?} by the clock, {:?} without the time in which the machine \
         did not run it; {} late by the clock",
        chaos.deadline,
        chaos.grace,
        slowest.0,
        slowest.1,
        count(&outcome.late_by_clock),
    );
    if wrong + late == 0 && right > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A server in a process of its own, killed when dropped.
struct Killed(Child);

impl Killed {
    fn start(address: SocketAddr) -> Killed {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--server", &address.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        Killed(child)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(address: SocketAddr) {
    let server = loop {
        match Server::bind(address, Limits::default()) {
            Ok(server) => break server,
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    println!("{}", server.local_addr());
    server.serve(Reverse).expect("a server");
}
