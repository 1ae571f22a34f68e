//! Clients and servers over real sockets on the loopback interface.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use narrows_link::{
    Client, Code, Error, Failure, Limits, Options, Request, Running, Server, Tail, Timings,
    message::{Hello, Message, Reader, VERSION, Writer},
};

/// Answers by route: the payload, a failure, a panic, something huge, or after a while.
struct Echo;

const ROUTES: [&str; 6] = ["echo", "fail", "panic", "huge", "flood", "slow"];
/// More than the sockets of both sides hold.
const FLOOD_BYTES: usize = 1 << 25;
const SLOW: Duration = Duration::from_millis(300);
const TIMINGS: Timings = Timings { decode_ns: 19_000, tail_ns: 1_000_000 };

impl Tail for Echo {
    fn routes(&self) -> Vec<String> {
        ROUTES.map(String::from).to_vec()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure> {
        reply.extend_from_slice(request.payload);
        match request.route {
            "fail" => return Err(Failure::new(Code::BadPayload, "checksum does not match")),
            "panic" => panic!("a tail that breaks down"),
            "huge" => reply.resize(1 << 20, 0),
            "flood" => reply.resize(FLOOD_BYTES, 7),
            "slow" => thread::sleep(SLOW),
            _ => {}
        }
        Ok(TIMINGS)
    }
}

fn limits() -> Limits {
    Limits { max_message_bytes: 1 << 19, ..Limits::default() }
}

fn options() -> Options {
    Options { request_timeout: Duration::from_secs(20), max_message_bytes: 1 << 19, ..Options::default() }
}

fn echo_server(limits: Limits) -> Running {
    Server::bind("127.0.0.1:0", limits).and_then(|server| server.spawn(Echo)).expect("a loopback server")
}

fn client_of(server: &Running) -> Client {
    Client::connect(server.local_addr(), options()).expect("a session")
}

fn code_of<T: std::fmt::Debug>(answer: Result<T, Error>) -> Code {
    match answer {
        Err(Error::Refused(failure)) => failure.code(),
        other => panic!("not a refusal: {other:?}"),
    }
}

/// A peer that speaks in single messages.
struct Peer {
    stream: TcpStream,
    reader: Reader,
}

impl Peer {
    fn connect(server: &Running) -> Peer {
        let stream = TcpStream::connect(server.local_addr()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
        Peer { stream, reader: Reader::new() }
    }

    fn welcomed(server: &Running) -> Peer {
        let mut peer = Peer::connect(server);
        peer.say(&Message::Hello(Hello {
            version: VERSION,
            capabilities: 0,
            max_message_bytes: 1 << 26,
            software: "peer",
        }));
        assert!(matches!(peer.hear(), Ok(Message::Welcome(_))));
        peer
    }

    fn say(&mut self, message: &Message<'_>) {
        Writer::new().write(&mut self.stream, message, u32::MAX).expect("a server that listens");
    }

    fn hear(&mut self) -> Result<Message<'_>, Error> {
        self.reader.read(&mut self.stream, 1 << 20)
    }

    fn hear_refusal(&mut self) -> Code {
        match self.hear() {
            Ok(Message::Failure { id: 0, failure }) => failure.code(),
            other => panic!("not a refusal: {other:?}"),
        }
    }

    fn assert_closed(&mut self) {
        assert!(matches!(self.hear(), Err(Error::Closed)));
    }
}

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
        assert_eq!(answer.timings, TIMINGS);
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
    assert!(!client.is_poisoned());
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
    peer.stream.write_all(&[3, 0, 0, 0, 0, 0, 0, 0x7f]).expect("a server that listens");
    assert_eq!(peer.hear_refusal(), Code::MessageTooLarge);
    peer.assert_closed();
    assert_eq!(client_of(&server).request("echo", b"z").expect("an echo").payload, b"z");
}

#[test]
fn a_whole_request_above_the_limit_still_hears_the_refusal() {
    let server = echo_server(Limits { max_message_bytes: 1000, ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.say(&Message::Request(Request { id: 1, route: "echo", payload: &vec![0; 100_000] }));
    assert_eq!(peer.hear_refusal(), Code::MessageTooLarge);
    peer.assert_closed();
}

#[test]
fn broken_protocol_is_refused_and_the_connection_closed() {
    let server = echo_server(limits());
    let hello = |version: u16, magic: &[u8]| {
        let mut bytes = vec![1, 0, 0, 0, 20, 0, 0, 0];
        bytes.extend_from_slice(magic);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&[0; 14]);
        bytes
    };
    let attacks = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Code::Malformed),
        (hello(1, b"NOPE"), Code::Malformed),
        (hello(0, b"NRWL"), Code::UnsupportedVersion),
        (vec![8, 0, 0, 0, 0, 0, 0, 0], Code::Malformed),
        (vec![3, 0, 0, 0, 0, 0, 1, 0], Code::MessageTooLarge),
        (vec![1, 1, 0, 0, 20, 0, 0, 0], Code::Malformed),
    ];
    for (bytes, code) in attacks {
        let mut peer = Peer::connect(&server);
        peer.stream.write_all(&bytes).expect("a server that listens");
        assert_eq!(peer.hear_refusal(), code, "{bytes:?}");
        peer.assert_closed();
    }
    let mut peer = Peer::welcomed(&server);
    peer.say(&Message::Request(Request { id: 0, route: "echo", payload: b"" }));
    assert_eq!(peer.hear_refusal(), Code::Malformed);
    peer.assert_closed();
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let server = echo_server(limits());
    let mut peer = Peer::welcomed(&server);
    for id in 1..=5 {
        let payload = vec![id as u8; 3000];
        peer.say(&Message::Request(Request { id, route: "echo", payload: &payload }));
    }
    peer.say(&Message::Ping(99));
    for id in 1..=5 {
        match peer.hear() {
            Ok(Message::Response(response)) => {
                assert_eq!(response.id, id);
                assert!(response.payload == vec![id as u8; 3000]);
            }
            other => panic!("not a response: {other:?}"),
        }
    }
    assert!(matches!(peer.hear(), Ok(Message::Pong(99))));
    peer.say(&Message::Goodbye);
    assert!(matches!(peer.hear(), Ok(Message::Goodbye)));
    peer.assert_closed();
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
    let free = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        Client::connect(server.local_addr(), options()).is_ok()
    });
    assert!(free);
}

#[test]
fn silence_ends_a_connection() {
    let server = echo_server(Limits { idle_timeout: Duration::from_millis(50), ..limits() });
    let mut peer = Peer::welcomed(&server);
    assert_eq!(peer.hear_refusal(), Code::TimedOut);
    peer.assert_closed();
}

#[test]
fn a_message_that_never_ends_ends_the_connection() {
    let server = echo_server(Limits { message_timeout: Duration::from_millis(100), ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.stream.write_all(&[3, 0, 0]).expect("a server that listens");
    assert_eq!(peer.hear_refusal(), Code::TimedOut);
    peer.assert_closed();
}

#[test]
fn nothing_follows_half_an_answer() {
    let server = echo_server(Limits { message_timeout: Duration::from_millis(200), ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.say(&Message::Request(Request { id: 1, route: "flood", payload: b"" }));
    // The answer has begun; the server's end waits until it has given up on a peer that does not read.
    peer.stream.peek(&mut [0]).expect("the answer's first byte");
    server.stop().expect("a server without errors");
    let mut bytes = Vec::new();
    peer.stream.read_to_end(&mut bytes).expect("what was sent");
    assert!((32..FLOOD_BYTES).contains(&bytes.len()), "{} bytes", bytes.len());
    assert!(bytes[32..].iter().all(|&byte| byte == 7));
}

#[test]
fn a_late_answer_poisons_the_client() {
    let server = echo_server(limits());
    let request_timeout = Duration::from_millis(50);
    let mut client =
        Client::connect(server.local_addr(), Options { request_timeout, ..options() }).expect("a session");
    assert!(matches!(client.request("slow", b"x"), Err(Error::Deadline { .. })));
    assert!(client.is_poisoned());
    match client.request("echo", b"x") {
        Err(Error::Poisoned { cause }) => assert!(cause.contains("50ms"), "{cause}"),
        other => panic!("not poisoned: {other:?}"),
    }
    assert!(matches!(client.ping(), Err(Error::Poisoned { .. })));
}

/// Tells when it has begun, and answers after a while.
struct Slow(mpsc::Sender<()>);

impl Tail for Slow {
    fn routes(&self) -> Vec<String> {
        vec!["slow".into()]
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure> {
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
        let working =
            scope.spawn(move || busy.request("slow", b"last").map(|answer| answer.payload.to_vec()));
        begins.recv().expect("a request that arrives");
        handle.shutdown();
        handle.shutdown();
        serving.join().expect("no panic").expect("a server without errors");
        assert_eq!(working.join().expect("no panic").expect("an answer"), b"last");
        assert!(idle.request("slow", b"x").is_err());
        assert!(idle.is_poisoned());
    });
    assert!(Client::connect(address, options()).is_err());
}

#[test]
fn shutdown_before_serving_ends_it_at_once() {
    let server = Server::bind("127.0.0.1:0", limits()).expect("a loopback server");
    server.handle().shutdown();
    server.serve(&Echo).expect("nothing to serve");
}

#[test]
fn a_client_that_vanishes_mid_message_harms_nobody() {
    let server = echo_server(limits());
    for length in 0..12 {
        let mut peer = Peer::welcomed(&server);
        peer.stream
            .write_all(&[3, 0, 0, 0, 100, 0, 0, 0, 1, 0, 0, 0][..length])
            .expect("a server that listens");
    }
    assert_eq!(client_of(&server).request("echo", b"z").expect("an echo").payload, b"z");
}

#[test]
fn limits_of_zero_are_refused() {
    let bad = [
        Limits { max_message_bytes: 0, ..limits() },
        Limits { max_connections: 0, ..limits() },
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
    let server = echo_server(Limits { idle_timeout: forever, message_timeout: forever, ..limits() });
    let options = Options { request_timeout: forever, ..options() };
    let mut client = Client::connect(server.local_addr(), options).expect("a session");
    assert_eq!(client.request("echo", b"x").expect("an echo").payload, b"x");
}

/// Plays a server with a fixed script: reads the hello, then sends the given messages.
fn scripted(messages: Vec<Message<'static>>) -> (std::net::SocketAddr, thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        for message in &messages {
            Writer::new().write(&mut stream, message, u32::MAX).expect("a client that listens");
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    (address, thread)
}

fn welcome() -> Message<'static> {
    Message::Welcome(narrows_link::message::Welcome {
        version: VERSION,
        capabilities: 0,
        max_message_bytes: 1 << 16,
        idle_timeout_ms: 1000,
        software: "scripted",
        routes: vec!["echo"],
    })
}

#[test]
fn an_answer_to_another_request_poisons_the_client() {
    let strange = Message::Failure { id: 77, failure: Failure::new(Code::Busy, "") };
    let (address, thread) = scripted(vec![welcome(), Message::Ping(5), strange]);
    let mut client = Client::connect(address, options()).expect("a session");
    assert!(matches!(client.request("echo", b""), Err(Error::WrongId { sent: 1, received: 77 })));
    assert!(client.is_poisoned());
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
    let connect_timeout = Duration::from_millis(50);
    let start = Instant::now();
    let address = listener.local_addr().expect("an address");
    let connected = Client::connect(address, Options { connect_timeout, ..options() });
    assert!(matches!(connected, Err(Error::Deadline { .. })));
    assert!(start.elapsed() >= connect_timeout);
}
