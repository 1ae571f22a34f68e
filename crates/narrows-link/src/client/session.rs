//! One connection to a server: greeting, messages, and nothing after the first error.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{Options, transport::Transport};
use crate::{
    Error, Failure,
    message::{Hello, Message, PROFILES, ProfileName, Reader, Timings, VERSION, Writer},
    socket::Deadline,
};

/// When sending broke off: how long to look for the server's reason.
const REASON_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a goodbye may take to leave; nobody waits for its arrival.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);

/// What the server said about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Greeting {
    pub(super) routes: Vec<String>,
    pub(super) software: String,
    /// The longest request that the server takes, header included.
    pub(super) request_limit: u32,
    pub(super) max_in_flight: usize,
    pub(super) takes_profiles: bool,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Session {
    transport: Transport,
    reader: Reader,
    writer: Writer,
    pub(super) greeting: Greeting,
    reply_limit: u32,
    /// When the last message came.
    pub(super) heard_at: Instant,
    /// Nothing more can be said here.
    is_broken: bool,
}

/// What the server said to something that was asked.
#[derive(Debug)]
pub(super) enum Reply {
    /// Bytes of the whole message, and its contents.
    Response(u64, Timings, Vec<u8>),
    Refusal(Failure),
    Profiles(Vec<ProfileName>),
    Pong,
}

impl Session {
    /// Connects to the first of `addresses` that answers, and shakes hands, before `deadline`.
    pub(super) fn open(
        addresses: &[SocketAddr],
        options: &Options,
        deadline: Deadline,
    ) -> Result<Session, Error> {
        let stream = connect(addresses, deadline)?;
        let mut session = Session {
            transport: options.transport(stream)?,
            reader: Reader::new(),
            writer: Writer::new(),
            greeting: Greeting::default(),
            reply_limit: options.max_message_bytes,
            heard_at: Instant::now(),
            is_broken: true,
        };
        session.greeting = session.shake_hands(options, deadline)?;
        session.is_broken = false;
        Ok(session)
    }

    fn shake_hands(&mut self, options: &Options, deadline: Deadline) -> Result<Greeting, Error> {
        let hello = Message::Hello(Hello {
            version: VERSION,
            capabilities: PROFILES,
            max_message_bytes: options.max_message_bytes,
            software: &options.software,
            token: options.token.as_ref().map_or("", |token| token.secret()),
        });
        self.send(&hello, deadline)?;
        match self.reader.read(&mut self.transport.until("the handshake", deadline), 0)? {
            Message::Welcome(welcome) => Ok(Greeting {
                routes: welcome.routes.iter().map(ToString::to_string).collect(),
                software: welcome.software.into(),
                request_limit: welcome.max_message_bytes,
                max_in_flight: welcome.max_in_flight.max(1) as usize,
                takes_profiles: welcome.capabilities & PROFILES != 0,
            }),
            Message::Failure { failure, .. } => Err(Error::Refused(failure)),
            Message::Goodbye => Err(Error::Closed),
            other => Err(Error::Unexpected { found: other.kind().name(), expected: "a welcome" }),
        }
    }

    /// Sends one message; gives its length in bytes. [`Error::LimitExceeded`] leaves the session as
    /// it was, any other error ends it.
    pub(super) fn send(&mut self, message: &Message<'_>, deadline: Deadline) -> Result<u64, Error> {
        let payload = self.writer.stage(message, self.greeting.request_limit)?;
        let sent = self.writer.send(&mut self.transport.until("sending", deadline), payload);
        if let Err(error) = sent {
            self.is_broken = true;
            return Err(self.reason(error, deadline));
        }
        Ok((self.writer.staged_bytes() + payload.len()) as u64)
    }

    /// A server that refuses early stops listening, so a broken connection may have its reason
    /// waiting on the way back.
    fn reason(&mut self, error: Error, deadline: Deadline) -> Error {
        if let Error::Io { .. } = error {
            let deadline = Deadline::after(Instant::now(), REASON_TIMEOUT).min(deadline);
            let mut stream = self.transport.until("the reason", deadline);
            if let Ok(Message::Failure { id: 0, failure }) = self.reader.read(&mut stream, 0) {
                return Error::Refused(failure);
            }
        }
        error
    }

    /// The next reply to anything, with the id of what it answers. After [`Error::Deadline`] the
    /// session can go on, if it is still believed in; any other error ends it.
    pub(super) fn receive(&mut self, deadline: Deadline) -> Result<(u64, Reply), Error> {
        let received = self.receive_any(deadline);
        match &received {
            Ok(_) => self.heard_at = Instant::now(),
            Err(Error::Deadline { .. }) => {}
            Err(_) => self.is_broken = true,
        }
        received
    }

    fn receive_any(&mut self, deadline: Deadline) -> Result<(u64, Reply), Error> {
        loop {
            let mut stream = self.transport.until("the answer", deadline);
            let nonce = match self.reader.read(&mut stream, self.reply_limit)? {
                Message::Response(response) => {
                    let reply =
                        Reply::Response(response.message_bytes(), response.timings, response.payload.into());
                    return Ok((response.id, reply));
                }
                Message::Failure { id: 0, failure } => return Err(Error::Refused(failure)),
                Message::Failure { id, failure } => return Ok((id, Reply::Refusal(failure))),
                Message::ProfileList { id, names } => return Ok((id, Reply::Profiles(names))),
                Message::Pong(nonce) => return Ok((nonce, Reply::Pong)),
                Message::Ping(nonce) => nonce,
                Message::Goodbye => return Err(Error::Closed),
                other => {
                    return Err(Error::Unexpected { found: other.kind().name(), expected: "a response" });
                }
            };
            self.writer.write(&mut stream, &Message::Pong(nonce), 0)?;
        }
    }

    /// Gives the connection up without a goodbye: the peer may not be there.
    pub(super) fn abandon(mut self) {
        self.is_broken = true;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_broken {
            let deadline = Deadline::after(Instant::now(), GOODBYE_TIMEOUT);
            let mut stream = self.transport.until("the goodbye", deadline);
            let _ = self.writer.write(&mut stream, &Message::Goodbye, 0);
        }
    }
}

fn connect(addresses: &[SocketAddr], deadline: Deadline) -> Result<TcpStream, Error> {
    let mut refusal = io::Error::new(io::ErrorKind::InvalidInput, "the address names no host");
    for address in addresses {
        let left = deadline.left();
        if left.is_zero() {
            return Err(deadline.error("connecting"));
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => refusal = error,
        }
    }
    if refusal.kind() == io::ErrorKind::TimedOut {
        return Err(deadline.error("connecting"));
    }
    Err(Error::io("connecting")(refusal))
}
