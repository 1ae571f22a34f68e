//! What several tests need: a tail that does as the route says, servers, clients, and a bare peer.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    io::Write as _,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use narrows_link::{
    Client, Code, Error, Failure, Limits, Options, ProfileName, Request, Running, Server, ServerOptions,
    Tail, Work,
    message::{Hello, Message, PROFILES, Reader, VERSION, Writer},
};

/// Answers by route: the payload, a failure, a panic, something huge, or after a while.
pub struct Echo;

pub const ROUTES: [&str; 6] = ["echo", "fail", "panic", "huge", "flood", "slow"];
/// More than the sockets of both sides hold.
pub const FLOOD_BYTES: usize = 1 << 25;
pub const SLOW: Duration = Duration::from_millis(300);
pub const WORK: Work = Work {
    decode: Duration::from_micros(19),
    tail: Duration::from_millis(1),
    tensor_bytes: 1000,
    bits: Some(4),
};

impl Tail for Echo {
    fn routes(&self) -> Vec<String> {
        ROUTES.map(String::from).to_vec()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
        reply.extend_from_slice(request.payload);
        match request.route {
            "fail" => return Err(Failure::new(Code::BadPayload, "checksum does not match")),
            "panic" => panic!("a tail that breaks down"),
            "huge" => reply.resize(1 << 20, 0),
            "flood" => reply.resize(FLOOD_BYTES, 7),
            "slow" => thread::sleep(SLOW),
            _ => {}
        }
        Ok(WORK)
    }
}

pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn limits() -> Limits {
    Limits { max_message_bytes: 1 << 19, ..Limits::default() }
}

/// One attempt, so that a test sees the first error.
pub fn options() -> Options {
    Options {
        request_timeout: Duration::from_secs(20),
        max_message_bytes: 1 << 19,
        attempts: 1,
        ..Options::default()
    }
}

pub fn serve(options: impl Into<ServerOptions>, tail: impl Tail + 'static) -> Running {
    Server::bind("127.0.0.1:0", options).and_then(|server| server.spawn(tail)).expect("a loopback server")
}

pub fn echo_server(options: impl Into<ServerOptions>) -> Running {
    serve(options, Echo)
}

pub fn client_of(server: &Running) -> Client {
    Client::connect(server.local_addr(), options()).expect("a session")
}

pub fn code_of<T: std::fmt::Debug>(answer: Result<T, Error>) -> Code {
    match answer {
        Err(Error::Refused(failure)) => failure.code(),
        other => panic!("not a refusal: {other:?}"),
    }
}

/// Waits until something holds; a busy machine may take any time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(millis(5));
    }
}

pub fn request<'a>(id: u64, route: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message::Request(Request { id, deadline_ms: 0, route, payload })
}

/// A peer that speaks in single messages.
pub struct Peer {
    pub stream: TcpStream,
    reader: Reader,
}

impl Peer {
    pub fn connect(server: &Running) -> Peer {
        let stream = TcpStream::connect(server.local_addr()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
        Peer { stream, reader: Reader::new() }
    }

    pub fn welcomed(server: &Running) -> Peer {
        let mut peer = Peer::connect(server);
        peer.say(&Message::Hello(Hello {
            version: VERSION,
            capabilities: PROFILES,
            max_message_bytes: 1 << 26,
            software: "peer",
            token: "",
        }));
        assert!(matches!(peer.hear(), Ok(Message::Welcome(_))));
        peer
    }

    pub fn say(&mut self, message: &Message<'_>) {
        Writer::new().write(&mut self.stream, message, u32::MAX).expect("a server that listens");
    }

    pub fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a server that listens");
    }

    pub fn hear(&mut self) -> Result<Message<'_>, Error> {
        self.reader.read(&mut self.stream, 1 << 26)
    }

    pub fn hear_refusal(&mut self) -> Code {
        match self.hear() {
            Ok(Message::Failure { id: 0, failure }) => failure.code(),
            other => panic!("not a refusal: {other:?}"),
        }
    }

    pub fn assert_closed(&mut self) {
        assert!(matches!(self.hear(), Err(Error::Closed)));
    }
}

/// The bytes of a header with right checksums, for a body with the given one.
pub fn header(kind: u8, announced: u32, body: &[u8]) -> Vec<u8> {
    let crc = |bytes: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    let mut header = vec![kind, 0, 0, 0];
    header.extend_from_slice(&announced.to_le_bytes());
    header.extend_from_slice(&crc(body).to_le_bytes());
    header.extend_from_slice(&crc(&header).to_le_bytes());
    header
}

/// A body behind a header with right checksums.
pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, body.len() as u32, body);
    bytes.extend_from_slice(body);
    bytes
}

/// A profile name that nothing hashes to here.
pub fn no_profile() -> ProfileName {
    ProfileName([7; 32])
}
