//! The live page with something to look at: a server under a varying load. Prints where the page is.
//!
//! ```text
//! cargo run --release -p narrows-link --example live -- [SECONDS] [HTTP ADDRESS]
//! ```

use std::{
    thread,
    time::{Duration, Instant},
};

use narrows_link::{
    Client, Code, Failure, Options, Request, Server, ServerOptions, Tail, Work,
    emulator::{Proxy, ProxyOptions, Trace},
};

/// Pretends to be the tail of a network behind frames of four bits.
struct Pretence;

impl Tail for Pretence {
    fn routes(&self) -> Vec<String> {
        vec!["layer2".into()]
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
        if request.payload.first() == Some(&0) {
            return Err(Failure::new(Code::BadPayload, "as asked"));
        }
        let start = Instant::now();
        thread::sleep(Duration::from_micros(900));
        reply.extend_from_slice(&[1; 400]);
        let (decode, tail) = (Duration::from_micros(120), start.elapsed());
        let bits = Some(if request.payload.len() > 40_000 { 4 } else { 2 });
        Ok(Work { decode, tail, tensor_bytes: 401_408, bits })
    }
}

fn main() -> Result<(), narrows_link::Error> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(60, |text| text.parse().expect("seconds"));
    let http = arguments.next().map_or(([127, 0, 0, 1], 0).into(), |text| text.parse().expect("an address"));
    let options = ServerOptions { http: Some(http), ..ServerOptions::default() };
    let server = Server::bind("127.0.0.1:0", options)?.spawn(Pretence)?;
    println!("http://{}/", server.http_addr().expect("HTTP was asked for"));
    let trace = Trace::drift(4e6, 60e6, Duration::from_secs(20), Duration::from_millis(2))?;
    let options = ProxyOptions { trace: Some(trace), ..ProxyOptions::default() };
    let proxy = Proxy::with(server.local_addr(), options)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|scope| {
        for number in 0..4usize {
            let address = proxy.local_addr();
            scope.spawn(move || {
                let mut client = Client::offline(address, Options::default()).expect("an address");
                for nth in 0.. {
                    let mut frame = vec![7; if nth % 200 < 100 { 56_000 } else { 30_000 }];
                    frame[0] = u8::from((nth + number) % 40 != 0);
                    let _ = client.request("layer2", &frame);
                    if Instant::now() > end {
                        break;
                    }
                }
            });
        }
    });
    server.stop()
}
