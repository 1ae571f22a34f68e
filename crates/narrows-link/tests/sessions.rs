//! Clients and servers over real sockets on the loopback interface: the conversation itself.

mod common;

use std::{
    io::{Read, Write as _},
    net::SocketAddr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::*;
use narrows_link::{
    Client, Code, Error, Failure, Limits, Options, Request, Server, Tail, Work,
    message::{HEADER_BYTES, Message, VERSION, Welcome, Writer},
};

#[test]
fn an_echo_comes_back_whole_at_every_size() {
    let server = echo_server(limits());
    let mut client = client_of(&server);
    assert_eq!(client.routes(), ROUTES);
    assert!(client.server_software().starts_with("narrows-link "));
    for length in [0, 1, 7, 1460, 16_383, 16_384, 56_000, 401_408, 3] {
        let payload: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
        let answer = client.request("echo", &payload).expect("an echo");
        assert!(answer.payload == payload, "{length} bytes");
        assert_eq!((answer.timings.decode_ns, answer.timings.tail_ns), (19_000, 1_000_000));
        assert!(answer.link_time() <= answer.round_trip);
    }
    client.ping().expect("a pong");
}

#[test]
fn a_session_survives_the_failures_of_its_requests() {
    let server = echo_server(limits());
    let mut client = client_of(&server);
    match client.request("fail", b"x") {
        Err(Error::Refused(failure)) => {
            assert_eq!(failure, Failure::new(Code::BadPayload, "checksum does not match"));
        }
        other => panic!("not a refusal: {other:?}"),
    }
    assert_eq!(code_of(client.request("panic", b"x")), Code::Internal);
    assert_eq!(code_of(client.request("huge", b"x")), Code::ReplyTooLarge);
    assert_eq!(code_of(client.request("elsewhere", b"x")), Code::UnknownRoute);
    let too_long = vec![0; 1 << 19];
    assert!(matches!(client.request("echo", &too_long), Err(Error::LimitExceeded { .. })));
    assert!(client.is_connected());
    assert_eq!(client.request("echo", b"still here").expect("an echo").payload, b"still here");
}

#[test]
fn a_panicking_tail_leaves_other_sessions_alone() {
    let server = echo_server(limits());
    let (mut one, mut other) = (client_of(&server), client_of(&server));
    assert_eq!(code_of(one.request("panic", b"x")), Code::Internal);
    assert_eq!(other.request("echo", b"y").expect("an echo").payload, b"y");
    assert_eq!(client_of(&server).request("echo", b"z").expect("an echo").payload, b"z");
}

#[test]
fn concurrent_clients_get_their_own_answers() {
    let server = echo_server(limits());
    thread::scope(|scope| {
        for number in 0..8u8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = client_of(server);
                for round in 0..50 {
                    let payload = vec![number ^ round; 100 + 1000 * usize::from(number)];
                    assert!(client.request("echo", &payload).expect("an echo").payload == payload);
                }
            });
        }
    });
}

#[test]
fn a_request_above_the_limit_is_refused_and_the_connection_closed() {
    let server = echo_server(limits());
    let mut peer = Peer::welcomed(&server);
    // The header alone is enough.
    peer.say_bytes(&header(3, 0x7f00_0000, b""));
    assert_eq!(peer.hear_refusal(), Code::MessageTooLarge);
    peer.assert_closed();
    assert_eq!(client_of(&server).request("echo", b"z").expect("an echo").payload, b"z");
}

#[test]
fn a_whole_request_above_the_limit_still_hears_the_refusal() {
    let server = echo_server(Limits { max_message_bytes: 1000, ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(1, "echo", &vec![0; 100_000]));
    assert_eq!(peer.hear_refusal(), Code::MessageTooLarge);
    peer.assert_closed();
}

#[test]
fn broken_protocol_is_refused_and_the_connection_closed() {
    let server = echo_server(limits());
    let hello = |version: u16, magic: &[u8]| {
        let mut body = magic.to_vec();
        body.extend_from_slice(&version.to_le_bytes());
        body.extend_from_slice(&[0; 16]);
        framed(1, &body)
    };
    let mut damaged = hello(1, b"NRWL");
    damaged[HEADER_BYTES + 7] ^= 1;
    let attacks = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Code::Malformed),
        (hello(1, b"NOPE"), Code::Malformed),
        (hello(0, b"NRWL"), Code::UnsupportedVersion),
        (damaged, Code::Malformed),
        (framed(8, b""), Code::Malformed),
        (header(3, 0x1_0000, b""), Code::MessageTooLarge),
        (header(1, 5000, b""), Code::MessageTooLarge),
        (vec![1, 1, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Code::Malformed),
    ];
    for (bytes, code) in attacks {
        let mut peer = Peer::connect(&server);
        peer.say_bytes(&bytes);
        assert_eq!(peer.hear_refusal(), code, "{bytes:?}");
        peer.assert_closed();
    }
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(0, "echo", b""));
    assert_eq!(peer.hear_refusal(), Code::Malformed);
    peer.assert_closed();
}

#[test]
fn requests_sent_ahead_are_all_answered_before_the_goodbye() {
    let server = echo_server(limits());
    let mut peer = Peer::welcomed(&server);
    for id in 1..=5 {
        peer.say(&request(id, "echo", &vec![id as u8; 3000]));
    }
    peer.say(&Message::Goodbye);
    let mut seen = Vec::new();
    for _ in 1..=5 {
        match peer.hear() {
            Ok(Message::Response(response)) => {
                assert!(response.payload == vec![response.id as u8; 3000]);
                seen.push(response.id);
            }
            other => panic!("not a response: {other:?}"),
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    assert!(matches!(peer.hear(), Ok(Message::Goodbye)));
    peer.assert_closed();
}

#[test]
fn a_ping_overtakes_a_request_in_work() {
    let server = echo_server(limits());
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(1, "slow", b"x"));
    peer.say(&Message::Ping(99));
    assert!(matches!(peer.hear(), Ok(Message::Pong(99))));
    assert!(matches!(peer.hear(), Ok(Message::Response(response)) if response.id == 1));
}

#[test]
fn a_connection_too_many_is_told_that_the_server_is_busy() {
    let server = echo_server(Limits { max_connections: 1, ..limits() });
    let mut first = client_of(&server);
    for _ in 0..3 {
        assert_eq!(code_of(Client::connect(server.local_addr(), options())), Code::Busy);
    }
    assert_eq!(first.request("echo", b"mine").expect("an echo").payload, b"mine");
    drop(first);
    // The place is free once the server has seen the goodbye.
    eventually("a free place", || Client::connect(server.local_addr(), options()).is_ok());
}

#[test]
fn silence_ends_a_connection_that_is_owed_nothing() {
    let server = echo_server(Limits { idle_timeout: millis(50), ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(1, "slow", b"x"));
    assert!(matches!(peer.hear(), Ok(Message::Response(_))), "300 ms of silence while it computes");
    assert_eq!(peer.hear_refusal(), Code::TimedOut);
    peer.assert_closed();
}

#[test]
fn a_message_that_never_ends_ends_the_connection() {
    let server = echo_server(Limits { message_timeout: millis(100), ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.say_bytes(&[3, 0, 0]);
    assert_eq!(peer.hear_refusal(), Code::TimedOut);
    peer.assert_closed();
}

#[test]
fn nothing_follows_half_an_answer() {
    let server = echo_server(Limits { message_timeout: millis(200), ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(1, "flood", b""));
    // The answer has begun; the server's end waits until it has given up on a peer that does not read.
    peer.stream.peek(&mut [0]).expect("the answer's first byte");
    server.stop().expect("a server without errors");
    let mut bytes = Vec::new();
    // The end may be a reset, after which what came before is there or not.
    let _ = peer.stream.read_to_end(&mut bytes);
    assert!(bytes.len() < FLOOD_BYTES, "{} bytes", bytes.len());
    assert!(bytes.iter().skip(HEADER_BYTES + 32).all(|&byte| byte == 7));
}

/// Tells when it has begun, and answers after a while.
struct Slow(mpsc::Sender<()>);

impl Tail for Slow {
    fn routes(&self) -> Vec<String> {
        vec!["slow".into()]
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
        self.0.send(()).expect("a test that listens");
        Echo.answer(request, reply)
    }
}

#[test]
fn shutdown_answers_the_request_in_work_and_ends_the_idle() {
    let server = Server::bind("127.0.0.1:0", limits()).expect("a loopback server");
    let (address, handle) = (server.local_addr(), server.handle());
    let (begun, begins) = mpsc::channel();
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(Slow(begun)));
        let mut idle = Client::connect(address, options()).expect("a session");
        let mut busy = Client::connect(address, options()).expect("a session");
        let working = scope.spawn(move || busy.request("slow", b"last").map(|answer| answer.payload));
        begins.recv().expect("a request that arrives");
        handle.shutdown();
        handle.shutdown();
        serving.join().expect("no panic").expect("a server without errors");
        assert_eq!(working.join().expect("no panic").expect("an answer"), b"last");
        assert!(idle.request("slow", b"x").is_err());
        assert!(!idle.is_connected());
    });
    assert!(Client::connect(address, options()).is_err());
}

#[test]
fn shutdown_does_not_wait_for_a_tail_that_never_answers() {
    struct Never(mpsc::Sender<()>);
    impl Tail for Never {
        fn routes(&self) -> Vec<String> {
            vec!["never".into()]
        }
        fn answer(&self, _: &Request<'_>, _: &mut Vec<u8>) -> Result<Work, Failure> {
            self.0.send(()).expect("a test that listens");
            loop {
                thread::park();
            }
        }
    }
    let (begun, begins) = mpsc::channel();
    let server = serve(Limits { drain_timeout: millis(100), ..limits() }, Never(begun));
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(1, "never", b""));
    begins.recv().expect("a request that arrives");
    let start = Instant::now();
    server.stop().expect("a server without errors");
    assert!((millis(100)..Duration::from_secs(10)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn shutdown_before_serving_ends_it_at_once() {
    let server = Server::bind("127.0.0.1:0", limits()).expect("a loopback server");
    server.handle().shutdown();
    server.serve(Echo).expect("nothing to serve");
}

#[test]
fn a_client_that_vanishes_mid_message_harms_nobody() {
    let server = echo_server(limits());
    let whole = framed(3, &[1; 100]);
    for length in 0..24 {
        let mut peer = Peer::welcomed(&server);
        peer.say_bytes(&whole[..length]);
    }
    assert_eq!(client_of(&server).request("echo", b"z").expect("an echo").payload, b"z");
}

#[test]
fn limits_of_zero_are_refused() {
    let bad = [
        Limits { max_message_bytes: 0, ..limits() },
        Limits { max_connections: 0, ..limits() },
        Limits { max_in_flight: 0, ..limits() },
        Limits { max_in_flight_per_connection: 0, ..limits() },
        Limits { max_memory_bytes: 0, ..limits() },
        Limits { idle_timeout: Duration::ZERO, ..limits() },
        Limits { message_timeout: Duration::ZERO, ..limits() },
    ];
    for limits in bad {
        assert!(matches!(Server::bind("127.0.0.1:0", limits), Err(Error::InvalidSetting { .. })));
    }
}

#[test]
fn endless_timeouts_are_no_trouble() {
    let forever = Duration::MAX;
    let server = echo_server(Limits {
        idle_timeout: forever,
        message_timeout: forever,
        patience: forever,
        drain_timeout: forever,
        max_in_flight: usize::MAX,
        max_in_flight_per_connection: usize::MAX,
        ..limits()
    });
    let options = Options { request_timeout: forever, ..options() };
    let mut client = Client::connect(server.local_addr(), options).expect("a session");
    assert_eq!(client.request("echo", b"x").expect("an echo").payload, b"x");
}

/// Plays a server with a fixed script: sends the given messages and listens to nothing.
fn scripted(messages: Vec<Message<'static>>) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        for message in &messages {
            Writer::new().write(&mut stream, message, u32::MAX).expect("a client that listens");
        }
        stream.flush().expect("a client that listens");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    (address, thread)
}

fn welcome() -> Message<'static> {
    Message::Welcome(Welcome {
        version: VERSION,
        capabilities: 0,
        max_message_bytes: 1 << 16,
        idle_timeout_ms: 1000,
        max_in_flight: 1,
        software: "scripted",
        routes: vec!["echo"],
    })
}

#[test]
fn an_answer_to_another_request_ends_the_session() {
    let strange = Message::Failure { id: 77, failure: Failure::new(Code::Busy, "") };
    let (address, thread) = scripted(vec![welcome(), Message::Ping(5), strange]);
    let mut client = Client::connect(address, options()).expect("a session");
    assert!(matches!(client.request("echo", b""), Err(Error::WrongId { received: 77 })));
    assert!(!client.is_connected());
    drop(client);
    thread.join().expect("no panic");
}

#[test]
fn a_server_that_is_something_else_is_noticed() {
    let (address, thread) = scripted(vec![Message::Pong(1)]);
    assert!(matches!(Client::connect(address, options()), Err(Error::Unexpected { found: "pong", .. })));
    thread.join().expect("no panic");
}

#[test]
fn a_silent_server_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let connect_timeout = millis(50);
    let start = Instant::now();
    let address = listener.local_addr().expect("an address");
    let connected = Client::connect(address, Options { connect_timeout, ..options() });
    assert!(matches!(connected, Err(Error::Deadline { .. })));
    assert!(start.elapsed() >= connect_timeout);
}
