//! The messages of the protocol; `docs/protocol.md` is the normative text.
//!
//! Every message is a header of [`HEADER_BYTES`] (kind, three zero bytes, body length, CRC-32C of the
//! body, CRC-32C of the header) and a body. A [`Message`] borrows its texts and its payload from the
//! buffer it was read from.

mod stream;
mod wire;

pub use stream::{Reader, Writer};
pub(crate) use wire::Fields;
#[cfg(feature = "server")]
pub(crate) use wire::Header;

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{Error, Failure};

/// First four bytes of the body of a hello and of a welcome.
pub const MAGIC: [u8; 4] = *b"NRWL";
/// The highest protocol version spoken here.
pub const VERSION: u16 = 1;
/// Bytes before the body of every message: kind u8, zero `[u8; 3]`, body length u32, checksum of the
/// body u32, checksum of the 12 bytes before it u32.
pub const HEADER_BYTES: usize = 16;
/// Bytes that the header's own checksum covers.
const CHECKED_HEADER_BYTES: usize = 12;
/// Longest software name, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 255;
/// Longest route, in bytes.
pub const MAX_ROUTE_BYTES: usize = 255;
/// Most routes in a welcome.
pub const MAX_ROUTES: usize = 1024;

/// Longest bearer token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 1024;
/// Most profiles named in a query or a list.
pub const MAX_PROFILE_NAMES: usize = 1024;
/// Longest profile in an offer, in bytes.
pub const MAX_PROFILE_BYTES: usize = 1 << 20;

/// Capability bit: profiles can be asked for and offered.
pub const PROFILES: u64 = 1;

/// Room for the fields that later versions append to the hello.
const MAX_HELLO_BODY_BYTES: u64 = 4096;
const MAX_WELCOME_BODY_BYTES: u64 = 1 << 16;
/// id u64, code u16, text length u16, text.
const MAX_FAILURE_BODY_BYTES: u64 = 8 + 2 + 2 + crate::failure::MAX_FAILURE_TEXT_BYTES as u64;
/// id u64, count u16, names.
const MAX_PROFILE_LIST_BODY_BYTES: u64 = 8 + 2 + (MAX_PROFILE_NAMES * size_of::<ProfileName>()) as u64;
/// id u64, name, contents.
const MAX_PROFILE_OFFER_BODY_BYTES: u64 = 8 + (size_of::<ProfileName>() + MAX_PROFILE_BYTES) as u64;
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
    /// Client to server: which of these profiles are there?
    ProfileQuery = 9,
    /// Server to client: these are there.
    ProfileList = 10,
    /// Client to server: a profile.
    ProfileOffer = 11,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Request,
        Kind::Response,
        Kind::Failure,
        Kind::Ping,
        Kind::Pong,
        Kind::Goodbye,
        Kind::ProfileQuery,
        Kind::ProfileList,
        Kind::ProfileOffer,
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
            Kind::ProfileQuery => "profile query",
            Kind::ProfileList => "profile list",
            Kind::ProfileOffer => "profile offer",
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
            Kind::ProfileQuery | Kind::ProfileList => MAX_PROFILE_LIST_BODY_BYTES,
            Kind::ProfileOffer => MAX_PROFILE_OFFER_BODY_BYTES,
        }
    }
}

/// A profile's name: the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName(pub [u8; 32]);

impl ProfileName {
    /// The name of a profile of these bytes.
    pub fn of(contents: &[u8]) -> ProfileName {
        ProfileName(Sha256::digest(contents).into())
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProfileName({self})")
    }
}

/// What a client says first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The highest protocol version the client speaks.
    pub version: u16,
    /// Optional abilities, one bit each, such as [`PROFILES`]; unknown bits are ignored.
    pub capabilities: u64,
    /// The longest response the client takes, header included.
    pub max_message_bytes: u32,
    /// Name and version of the client's software, for people.
    pub software: &'a str,
    /// The bearer token; empty is none.
    pub token: &'a str,
}

/// Says whether there is a token, not which.
impl fmt::Debug for Hello<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("capabilities", &self.capabilities)
            .field("max_message_bytes", &self.max_message_bytes)
            .field("software", &self.software)
            .field("has_token", &!self.token.is_empty())
            .finish()
    }
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
    /// Most requests of this session that may be open at a time, at least 1.
    pub max_in_flight: u32,
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
    /// How long the client waits for the answer, counted from the request's arrival; 0 is forever.
    pub deadline_ms: u32,
    /// One of the welcome's routes.
    pub route: &'a str,
    /// An opaque frame.
    pub payload: &'a [u8],
}

/// What the server spent on a request, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Waiting for the tail.
    pub queue_ns: u64,
    /// Decoding the frame.
    pub decode_ns: u64,
    /// Running the tail.
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

impl Response<'_> {
    /// Bytes of the whole message.
    pub(crate) fn message_bytes(&self) -> u64 {
        (HEADER_BYTES + 4 * size_of::<u64>() + self.payload.len()) as u64
    }
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
    /// Asks which of some profiles the server has.
    ProfileQuery {
        /// The client's number for it, as of a request.
        id: u64,
        /// The profiles asked for.
        names: Vec<ProfileName>,
    },
    /// Answers a query, or an offer that was taken: the named profiles that the server has.
    ProfileList {
        /// The query's or offer's id.
        id: u64,
        /// Those that are there.
        names: Vec<ProfileName>,
    },
    /// Offers a profile.
    ProfileOffer {
        /// The client's number for it, as of a request.
        id: u64,
        /// What the contents hash to.
        name: ProfileName,
        /// The profile.
        contents: &'a [u8],
    },
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
            Message::ProfileQuery { .. } => Kind::ProfileQuery,
            Message::ProfileList { .. } => Kind::ProfileList,
            Message::ProfileOffer { .. } => Kind::ProfileOffer,
        }
    }

    /// The opaque bytes that end the message; empty for control messages.
    fn payload(&self) -> &'a [u8] {
        match self {
            Message::Request(request) => request.payload,
            Message::Response(response) => response.payload,
            Message::ProfileOffer { contents, .. } => contents,
            _ => &[],
        }
    }
}
