//! The client side: asks a server's tail, one request at a time.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use crate::{
    DEFAULT_MAX_MESSAGE_BYTES, Error, Failure, SOFTWARE,
    message::{Hello, Message, Reader, Request, Timings, VERSION, Writer},
    socket::{Socket, after},
};

/// When sending broke off: how long to look for the server's reason.
const REASON_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a goodbye may take to leave; nobody waits for its arrival.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);

/// How a client connects and waits.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time for the connection, and again for the handshake.
    pub connect_timeout: Duration,
    /// Time for a request, from its first byte sent to its answer's last byte received.
    pub request_timeout: Duration,
    /// The longest response, header included.
    pub max_message_bytes: u32,
    /// Name and version told to the server, at most 255 bytes.
    pub software: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_mins(1),
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            software: SOFTWARE.into(),
        }
    }
}

/// A tail's answer; the payload is lent until the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The tail's result.
    pub payload: &'a [u8],
    /// What the server spent.
    pub timings: Timings,
    /// From before the request was sent until the answer was complete.
    pub round_trip: Duration,
}

impl Answer<'_> {
    /// The part of the round trip that the server's timings do not explain: the way there and back.
    pub fn link_time(&self) -> Duration {
        let Timings { decode_ns, tail_ns } = self.timings;
        self.round_trip.saturating_sub(Duration::from_nanos(decode_ns.saturating_add(tail_ns)))
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    reader: Reader,
    writer: Writer,
    options: Options,
    routes: Vec<String>,
    server_software: String,
    /// The longest request that the server takes.
    request_limit: u32,
    /// Of the latest request or ping.
    id: u64,
    /// The error after which nothing more can be asked here.
    cause: Option<String>,
}

/// What the server said to a request.
enum Verdict {
    /// The payload is the last bytes of the reader's last message: this many.
    Answered(Timings, usize),
    Refused(Failure),
}

impl Client {
    /// Connects to the first of `address`'s addresses that answers, and shakes hands.
    ///
    /// # Errors
    /// Nobody answers in time, or the server refuses ([`Error::Refused`]) or speaks otherwise.
    pub fn connect(address: impl ToSocketAddrs, options: Options) -> Result<Client, Error> {
        let addresses = address.to_socket_addrs().map_err(Error::io("resolving the address"))?;
        let stream = open(addresses, options.connect_timeout)?;
        let mut client = Client {
            socket: Socket::new(stream).map_err(Error::io("connecting"))?,
            reader: Reader::new(),
            writer: Writer::new(),
            options,
            routes: Vec::new(),
            server_software: String::new(),
            request_limit: 0,
            id: 0,
            cause: None,
        };
        match client.shake_hands() {
            Ok(()) => Ok(client),
            Err(error) => {
                // Even a goodbye would mean nothing to this peer.
                client.cause = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn shake_hands(&mut self) -> Result<(), Error> {
        let limit = self.options.connect_timeout;
        let end = after(Instant::now(), limit);
        let hello = Message::Hello(Hello {
            version: VERSION,
            capabilities: 0,
            max_message_bytes: self.options.max_message_bytes,
            software: &self.options.software,
        });
        self.writer.stage(&hello, 0)?;
        self.send(&[], end, limit)?;
        match self.reader.read(&mut self.socket.until("the handshake", end, limit), 0)? {
            Message::Welcome(welcome) => {
                self.routes = welcome.routes.iter().map(ToString::to_string).collect();
                self.server_software = welcome.software.into();
                self.request_limit = welcome.max_message_bytes;
                Ok(())
            }
            Message::Failure { failure, .. } => Err(Error::Refused(failure)),
            Message::Goodbye => Err(Error::Closed),
            other => Err(Error::Unexpected { found: other.kind().name(), expected: "a welcome" }),
        }
    }

    /// The models and cuts that the server named.
    pub fn routes(&self) -> &[String] {
        &self.routes
    }

    /// The server's name for itself.
    pub fn server_software(&self) -> &str {
        &self.server_software
    }

    /// Whether an error has ended this connection; every further call would say so.
    pub fn is_poisoned(&self) -> bool {
        self.cause.is_some()
    }

    /// Sends `payload` to `route` and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's failure, and [`Error::LimitExceeded`] for a request
    /// above the server's limit: the connection lives on. After anything else, or a refusal that
    /// ends the connection, it is [poisoned](Client::is_poisoned).
    pub fn request(&mut self, route: &str, payload: &[u8]) -> Result<Answer<'_>, Error> {
        self.check_alive()?;
        self.id += 1;
        let request = Message::Request(Request { id: self.id, route, payload });
        let payload = self.writer.stage(&request, self.request_limit)?;
        let start = Instant::now();
        match self.exchange(payload, start).map_err(|error| self.poison(error))? {
            Verdict::Answered(timings, payload_bytes) => {
                let payload = self.reader.ending(payload_bytes);
                Ok(Answer { payload, timings, round_trip: start.elapsed() })
            }
            Verdict::Refused(failure) => Err(Error::Refused(failure)),
        }
    }

    /// Sends the staged request and reads until its answer is there.
    fn exchange(&mut self, payload: &[u8], start: Instant) -> Result<Verdict, Error> {
        let limit = self.options.request_timeout;
        let end = after(start, limit);
        self.send(payload, end, limit)?;
        loop {
            let mut stream = self.socket.until("the answer", end, limit);
            match self.reader.read(&mut stream, self.options.max_message_bytes)? {
                Message::Response(response) if response.id == self.id => {
                    return Ok(Verdict::Answered(response.timings, response.payload.len()));
                }
                Message::Failure { id, failure } if id == self.id => return Ok(Verdict::Refused(failure)),
                Message::Failure { id: 0, failure } => return Err(Error::Refused(failure)),
                Message::Response(crate::message::Response { id, .. }) | Message::Failure { id, .. } => {
                    return Err(Error::WrongId { sent: self.id, received: id });
                }
                Message::Ping(nonce) => self.writer.write(&mut stream, &Message::Pong(nonce), 0)?,
                Message::Goodbye => return Err(Error::Closed),
                other => {
                    return Err(Error::Unexpected { found: other.kind().name(), expected: "a response" });
                }
            }
        }
    }

    /// The time of a ping there and its pong back: the link without payload or tail. Also keeps an
    /// idle connection open.
    ///
    /// # Errors
    /// The connection is poisoned, and now in any case.
    pub fn ping(&mut self) -> Result<Duration, Error> {
        self.check_alive()?;
        let start = Instant::now();
        self.ping_since(start).map_err(|error| self.poison(error))?;
        Ok(start.elapsed())
    }

    fn ping_since(&mut self, start: Instant) -> Result<(), Error> {
        self.id += 1;
        let limit = self.options.request_timeout;
        self.writer.stage(&Message::Ping(self.id), 0)?;
        let end = after(start, limit);
        self.send(&[], end, limit)?;
        loop {
            let mut stream = self.socket.until("the pong", end, limit);
            match self.reader.read(&mut stream, 0)? {
                Message::Pong(nonce) if nonce == self.id => return Ok(()),
                Message::Pong(nonce) => return Err(Error::WrongId { sent: self.id, received: nonce }),
                Message::Ping(nonce) => self.writer.write(&mut stream, &Message::Pong(nonce), 0)?,
                Message::Failure { failure, .. } => return Err(Error::Refused(failure)),
                Message::Goodbye => return Err(Error::Closed),
                other => return Err(Error::Unexpected { found: other.kind().name(), expected: "a pong" }),
            }
        }
    }

    /// Sends what is staged. A server that refuses early stops listening, so a broken connection
    /// may have its reason waiting on the way back.
    fn send(&mut self, payload: &[u8], end: Instant, limit: Duration) -> Result<(), Error> {
        let sent = self.writer.send(&mut self.socket.until("sending", end, limit), payload);
        if let Err(Error::Io { .. }) = sent {
            let mut stream = self.socket.within("the reason", REASON_TIMEOUT);
            if let Ok(Message::Failure { id: 0, failure }) = self.reader.read(&mut stream, 0) {
                return Err(Error::Refused(failure));
            }
        }
        sent
    }

    fn check_alive(&self) -> Result<(), Error> {
        self.cause.clone().map_or(Ok(()), |cause| Err(Error::Poisoned { cause }))
    }

    fn poison(&mut self, error: Error) -> Error {
        self.cause = Some(error.to_string());
        error
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.cause.is_none() {
            let mut stream = self.socket.within("the goodbye", GOODBYE_TIMEOUT);
            let _ = self.writer.write(&mut stream, &Message::Goodbye, 0);
        }
    }
}

fn open(addresses: impl Iterator<Item = SocketAddr>, timeout: Duration) -> Result<TcpStream, Error> {
    let mut refusal = io::Error::new(io::ErrorKind::InvalidInput, "the address names no host");
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => refusal = error,
        }
    }
    Err(Error::io("connecting")(refusal))
}
