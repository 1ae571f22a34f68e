//! Round trip of one frame over loopback: this crate's session against a bare TCP echo of as many
//! bytes, taking turns in one run; and requests per second of several clients. Prints tables.
//!
//! Pin the process to one core (`taskset -c 0`) to compare. Left free, each of the two echoes is
//! either on one core or on two for a whole run, as the scheduler pleases, and waking an idle core
//! of a virtual machine takes some 80 us: more than all the rest, on either side of the ratio.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use narrows_link::{Call, Client, Failure, Limits, Options, Request, Server, Tail, Work};

/// A small message, the reference's 56 KB at Q = 3, and its uncompressed 401 KB.
const PAYLOAD_BYTES: [usize; 3] = [64, 56_000, 401_408];

struct Echo;

impl Tail for Echo {
    fn routes(&self) -> Vec<String> {
        vec!["echo".into()]
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
        reply.extend_from_slice(request.payload);
        Ok(Work::default())
    }
}

/// An echo without messages: both sides know the length.
fn bare_echo(payload_bytes: usize) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client");
        stream.set_nodelay(true).expect("a socket option");
        let mut buffer = vec![0; payload_bytes];
        while stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer)).is_ok() {}
    });
    let stream = TcpStream::connect(address).expect("the bare server");
    stream.set_nodelay(true).expect("a socket option");
    stream
}

fn quantile(times: &mut [Duration], fraction: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * fraction) as usize].as_secs_f64() * 1e6
}

fn measure(rounds: usize, payload_bytes: usize) {
    let payload: Vec<u8> = (0..payload_bytes).map(|i| (i * 31) as u8).collect();
    let server = Server::bind("127.0.0.1:0", Limits::default()).and_then(|server| server.spawn(Echo));
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr(), Options::default()).expect("a session");
    let mut bare = bare_echo(payload_bytes);
    let mut buffer = vec![0; payload_bytes];
    let (mut session_times, mut bare_times) = (Vec::new(), Vec::new());
    for round in 0..rounds + rounds / 10 {
        let start = Instant::now();
        bare.write_all(&payload).and_then(|()| bare.read_exact(&mut buffer)).expect("the bare echo");
        let bare_time = start.elapsed();
        let start = Instant::now();
        let answer = client.request("echo", &payload).expect("the session's echo");
        let session_time = start.elapsed();
        assert!(answer.payload == payload && buffer == payload);
        // The first rounds warm up buffers and congestion windows.
        if round >= rounds / 10 {
            bare_times.push(bare_time);
            session_times.push(session_time);
        }
    }
    let (bare, session) = (quantile(&mut bare_times, 0.5), quantile(&mut session_times, 0.5));
    println!(
        "{payload_bytes:>9}  {bare:>9.1} {:>9.1}  {session:>9.1} {:>9.1}  {:>9.1}",
        quantile(&mut bare_times, 0.9),
        quantile(&mut session_times, 0.9),
        session - bare
    );
}

/// Requests per second of 56 KB with one short answer each, by clients that keep some open.
fn throughput(rounds: usize, clients: usize) {
    const IN_FLIGHT: usize = 4;
    struct Short;
    impl Tail for Short {
        fn routes(&self) -> Vec<String> {
            vec!["short".into()]
        }

        fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
            reply.extend_from_slice(&(request.payload.len() as u64).to_le_bytes());
            Ok(Work::default())
        }
    }
    let server = Server::bind("127.0.0.1:0", Limits::default()).and_then(|server| server.spawn(Short));
    let server = server.expect("a server");
    let payload = vec![5; 56_000];
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = Client::connect(server.local_addr(), Options::default()).expect("a session");
                let mut pipeline = client.pipeline();
                for _ in 0..IN_FLIGHT {
                    pipeline.submit(Call::new("short", &payload));
                }
                for round in IN_FLIGHT..rounds + IN_FLIGHT {
                    let (_, answer) = pipeline.next().expect("requests are open");
                    assert_eq!(answer.expect("an answer").payload, 56_000u64.to_le_bytes());
                    if round < rounds {
                        pipeline.submit(Call::new("short", &payload));
                    }
                }
            });
        }
    });
    let per_second = (rounds * clients) as f64 / start.elapsed().as_secs_f64();
    println!("{clients:>9}  {per_second:>12.0}");
}

fn main() {
    // Under `cargo test` this only has to run.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 3000 } else { 10 };
    println!("round trip in us   bare TCP            narrows-link         overhead");
    println!("    bytes     median       p90     median       p90     median");
    for payload_bytes in PAYLOAD_BYTES {
        measure(rounds, payload_bytes);
    }
    println!("\n  clients  requests/s of 56 KB, client and server on this machine");
    for clients in [1, 8, 64] {
        throughput(rounds, clients);
    }
}
