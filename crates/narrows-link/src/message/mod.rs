//! The messages of the protocol; `docs/protocol.md` is the normative text.
//!
//! Every message is a header of [`HEADER_BYTES`] (kind, three zero bytes, body length) and a body.
//! A [`Message`] borrows its texts and its payload from the buffer it was read from.

mod stream;
mod wire;

pub use stream::{Reader, Writer};

use crate::{Error, Failure};

/// First four bytes of the body of a hello and of a welcome.
pub const MAGIC: [u8; 4] = *b"NRWL";
/// The highest protocol version spoken here.
pub const VERSION: u16 = 1;
/// Bytes before the body of every message: kind u8, zero `[u8; 3]`, body length u32.
pub const HEADER_BYTES: usize = 8;
/// Longest software name, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 255;
/// Longest route, in bytes.
pub const MAX_ROUTE_BYTES: usize = 255;
/// Most routes in a welcome.
pub const MAX_ROUTES: usize = 1024;

/// Room for the fields that later versions append to the hello.
const MAX_HELLO_BODY_BYTES: u64 = 4096;
const MAX_WELCOME_BODY_BYTES: u64 = 1 << 16;
/// id u64, code u16, text length u16, text.
const MAX_FAILURE_BODY_BYTES: u64 = 8 + 2 + 2 + crate::failure::MAX_FAILURE_TEXT_BYTES as u64;
/// A nonce u64.
const PING_BODY_BYTES: u64 = 8;

/// The kind of a message: the first byte of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client to server, first.
    Hello = 1,
    /// Server to client, the answer to a hello.
    Welcome = 2,
    /// Client to server.
    Request = 3,
    /// Server to client.
    Response = 4,
    /// Server to client, instead of a welcome or a response, or before the end.
    Failure = 5,
    /// Either way.
    Ping = 6,
    /// Either way, the answer to a ping.
    Pong = 7,
    /// Either way, last.
    Goodbye = 8,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Request,
        Kind::Response,
        Kind::Failure,
        Kind::Ping,
        Kind::Pong,
        Kind::Goodbye,
    ];

    fn from_byte(byte: u8) -> Result<Kind, Error> {
        Kind::ALL.into_iter().find(|&kind| kind as u8 == byte).ok_or(Error::UnknownKind { kind: byte })
    }

    /// The name, for messages to people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hello => "hello",
            Kind::Welcome => "welcome",
            Kind::Request => "request",
            Kind::Response => "response",
            Kind::Failure => "failure",
            Kind::Ping => "ping",
            Kind::Pong => "pong",
            Kind::Goodbye => "goodbye",
        }
    }

    /// Longest body: fixed for control messages, the session's `limit` (header included) for the
    /// two kinds with a payload.
    fn max_body_bytes(self, limit: u32) -> u64 {
        match self {
            Kind::Hello => MAX_HELLO_BODY_BYTES,
            Kind::Welcome => MAX_WELCOME_BODY_BYTES,
            Kind::Request | Kind::Response => u64::from(limit).saturating_sub(HEADER_BYTES as u64),
            Kind::Failure => MAX_FAILURE_BODY_BYTES,
            Kind::Ping | Kind::Pong => PING_BODY_BYTES,
            Kind::Goodbye => 0,
        }
    }
}

/// What a client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The highest protocol version the client speaks.
    pub version: u16,
    /// Optional abilities, one bit each; version 1 defines none, unknown bits are ignored.
    pub capabilities: u64,
    /// The longest response the client takes, header included.
    pub max_message_bytes: u32,
    /// Name and version of the client's software, for people.
    pub software: &'a str,
}

/// What a server answers to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The protocol version of this session, at most the hello's.
    pub version: u16,
    /// The hello's capabilities that hold for this session.
    pub capabilities: u64,
    /// The longest request the server takes, header included.
    pub max_message_bytes: u32,
    /// The silence after which the server ends the connection.
    pub idle_timeout_ms: u32,
    /// Name and version of the server's software, for people.
    pub software: &'a str,
    /// The models and cuts served.
    pub routes: Vec<&'a str>,
}

/// One frame for the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The client's number for this request, not 0, not in use by another open request.
    pub id: u64,
    /// One of the welcome's routes.
    pub route: &'a str,
    /// An opaque frame.
    pub payload: &'a [u8],
}

/// What the server spent on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Nanoseconds to decode the payload.
    pub decode_ns: u64,
    /// Nanoseconds to run the tail.
    pub tail_ns: u64,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The request's id.
    pub id: u64,
    /// What the server spent.
    pub timings: Timings,
    /// The tail's result, opaque.
    pub payload: &'a [u8],
}

/// A message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Opens a connection.
    Hello(Hello<'a>),
    /// Accepts it.
    Welcome(Welcome<'a>),
    /// Asks.
    Request(Request<'a>),
    /// Answers.
    Response(Response<'a>),
    /// Refuses a request, or the connection when `id` is 0.
    Failure {
        /// The request's id, or 0.
        id: u64,
        /// Why.
        failure: Failure,
    },
    /// Asks for the pong with the same nonce.
    Ping(u64),
    /// Answers a ping.
    Pong(u64),
    /// Announces the end of the connection.
    Goodbye,
}

impl<'a> Message<'a> {
    /// The message's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Message::Hello(_) => Kind::Hello,
            Message::Welcome(_) => Kind::Welcome,
            Message::Request(_) => Kind::Request,
            Message::Response(_) => Kind::Response,
            Message::Failure { .. } => Kind::Failure,
            Message::Ping(_) => Kind::Ping,
            Message::Pong(_) => Kind::Pong,
            Message::Goodbye => Kind::Goodbye,
        }
    }

    /// The opaque bytes that end the message; empty for control messages.
    fn payload(&self) -> &'a [u8] {
        match self {
            Message::Request(request) => request.payload,
            Message::Response(response) => response.payload,
            _ => &[],
        }
    }
}
