//! The server side: accepts connections and lets a [`Tail`] answer their requests.

use std::{
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Scope},
    time::Duration,
};

use crate::{
    Code, DEFAULT_MAX_MESSAGE_BYTES, Error, Failure, SOFTWARE,
    message::{Message, Reader, Request, Response, Timings, VERSION, Welcome, Writer},
    registry::{Admission, Registry},
    socket::Socket,
};

/// Bound on requests that come before the hello was welcomed; they are refused whatever their size.
const HANDSHAKE_LIMIT: u32 = 4096;
/// Most connections at a time that are being told that the server is busy; the rest is dropped.
const MAX_REFUSALS: usize = 16;
/// How long a refused peer may take to listen.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// After `accept` failed (out of descriptors, for one): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The half of the network that runs on the server.
pub trait Tail: Send + Sync {
    /// The models and cuts served; asked once, when serving begins.
    fn routes(&self) -> Vec<String>;

    /// Answers one request for one of the routes by appending to `reply`, which comes empty.
    ///
    /// Called from many threads at once. A panic becomes a failure with [`Code::Internal`].
    ///
    /// # Errors
    /// The failure to tell the client; the connection stays open.
    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure>;
}

impl<T: Tail + ?Sized> Tail for &T {
    fn routes(&self) -> Vec<String> {
        (**self).routes()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure> {
        (**self).answer(request, reply)
    }
}

impl<T: Tail + ?Sized> Tail for Arc<T> {
    fn routes(&self) -> Vec<String> {
        (**self).routes()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure> {
        (**self).answer(request, reply)
    }
}

/// What a server puts up with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest request, header included.
    pub max_message_bytes: u32,
    /// Connections at a time; more are refused with [`Code::Busy`].
    pub max_connections: usize,
    /// Silence after which a connection is ended.
    pub idle_timeout: Duration,
    /// Time for a message to arrive once it has begun, and for an answer to leave. A slow link
    /// needs it: 401 KB take 22 s at the reference's 143.6 kbit/s.
    pub message_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            max_connections: 64,
            idle_timeout: Duration::from_mins(5),
            message_timeout: Duration::from_mins(2),
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), Error> {
        let positive = |what, value: f64| {
            if value > 0.0 {
                Ok(())
            } else {
                Err(Error::InvalidSetting { what, value, expected: "above zero" })
            }
        };
        positive("max_message_bytes", f64::from(self.max_message_bytes))?;
        positive("max_connections", self.max_connections as f64)?;
        positive("idle_timeout", self.idle_timeout.as_secs_f64())?;
        positive("message_timeout", self.message_timeout.as_secs_f64())
    }
}

/// A server that has its address and does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    registry: Arc<Registry>,
}

impl Server {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// A limit that is zero, or the operating system's refusal.
    pub fn bind(address: impl ToSocketAddrs, limits: Limits) -> Result<Server, Error> {
        limits.check()?;
        let listener = TcpListener::bind(address).map_err(Error::io("binding the server"))?;
        let address = listener.local_addr().map_err(Error::io("binding the server"))?;
        Ok(Server { listener, address, limits, registry: Registry::new(address) })
    }

    /// The address it listens at, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to stop the server with, from any thread.
    pub fn handle(&self) -> Handle {
        Handle { registry: Arc::clone(&self.registry) }
    }

    /// Serves on this thread, and on one more for every connection, until the handle's
    /// [`shutdown`](Handle::shutdown); returns once all connections have ended.
    ///
    /// # Errors
    /// The tail's routes are above the protocol's limits. Troubles with one connection end only
    /// that connection.
    pub fn serve(self, tail: impl Tail) -> Result<(), Error> {
        let routes = tail.routes();
        let welcome = Message::Welcome(Welcome {
            version: VERSION,
            capabilities: 0,
            max_message_bytes: self.limits.max_message_bytes,
            idle_timeout_ms: u32::try_from(self.limits.idle_timeout.as_millis()).unwrap_or(u32::MAX),
            software: SOFTWARE,
            routes: routes.iter().map(String::as_str).collect(),
        });
        welcome.write_into(&mut Vec::new(), 0)?;
        let host = Host {
            tail: &tail,
            routes: &routes,
            welcome: &welcome,
            limits: &self.limits,
            registry: &self.registry,
            refusals: AtomicUsize::new(0),
        };
        thread::scope(|scope| {
            while !self.registry.is_closing() {
                match self.listener.accept() {
                    Ok((stream, _)) => host.receive(scope, stream),
                    Err(_) => thread::sleep(ACCEPT_PAUSE),
                }
            }
        });
        Ok(())
    }

    /// Serves on a thread of its own, until the returned value is stopped or dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(self, tail: impl Tail + 'static) -> Result<Running, Error> {
        let (address, handle) = (self.address, self.handle());
        let thread = thread::Builder::new()
            .name("narrows-link server".into())
            .spawn(move || self.serve(tail))
            .map_err(Error::io("starting the server thread"))?;
        Ok(Running { address, handle, thread: Some(thread) })
    }
}

/// Stops a server; the first call counts.
#[derive(Debug, Clone)]
pub struct Handle {
    registry: Arc<Registry>,
}

impl Handle {
    /// Accepts no more connections, lets requests in work be answered, says goodbye to the others.
    pub fn shutdown(&self) {
        // Only the reading halves: waiting threads wake up, working ones can still answer.
        self.registry.close(Shutdown::Read);
    }
}

/// A server on its own thread.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// The address it listens at.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Shuts down and waits until all connections have ended.
    ///
    /// # Errors
    /// What [`Server::serve`] returned.
    ///
    /// # Panics
    /// When the tail's `routes` panicked.
    pub fn stop(mut self) -> Result<(), Error> {
        self.handle.shutdown();
        let thread = self.thread.take().expect("the thread is taken here and in drop only");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            let _ = thread.join();
        }
    }
}

/// What all connections share.
struct Host<'s, T> {
    tail: &'s T,
    routes: &'s [String],
    welcome: &'s Message<'s>,
    limits: &'s Limits,
    registry: &'s Arc<Registry>,
    refusals: AtomicUsize,
}

impl<T: Tail> Host<'_, T> {
    fn receive<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, stream: TcpStream) {
        let thread = thread::Builder::new().name("narrows-link connection".into());
        // A thread that cannot be started drops its closure and so the connection.
        let _ = match self.registry.admit(&stream, self.limits.max_connections) {
            Ok(Admission::Admitted(ticket)) => thread.spawn_scoped(scope, move || {
                let _ticket = ticket;
                self.converse(stream);
            }),
            Ok(Admission::Full) => {
                let slot = RefusalSlot::take(&self.refusals);
                if slot.number >= MAX_REFUSALS {
                    return;
                }
                thread.spawn_scoped(scope, move || {
                    let _slot = slot;
                    refuse_busy(stream, self.limits.max_connections);
                })
            }
            Ok(Admission::Closing) | Err(_) => return,
        };
    }

    /// Holds one conversation to its end, whatever that is.
    fn converse(&self, stream: TcpStream) {
        let Ok(socket) = Socket::new(stream) else { return };
        let mut connection =
            Connection { host: self, socket, writer: Writer::new(), reply: Vec::new(), is_mute: false };
        let last = match connection.run() {
            // Whatever follows half a message would be read as its other half.
            _ if connection.is_mute => return,
            Ok(()) => Message::Goodbye,
            Err(_) if self.registry.is_closing() => Message::Goodbye,
            Err(Error::Closed | Error::Io { .. } | Error::Truncated { what: "message", .. }) => return,
            Err(error) => {
                Message::Failure { id: 0, failure: Failure::new(code_of(&error), error.to_string()) }
            }
        };
        say_last(&mut connection.socket, &last);
    }
}

/// One of the refusals going on; given back when dropped.
struct RefusalSlot<'s> {
    refusals: &'s AtomicUsize,
    /// How many there were before.
    number: usize,
}

impl RefusalSlot<'_> {
    fn take(refusals: &AtomicUsize) -> RefusalSlot<'_> {
        RefusalSlot { refusals, number: refusals.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for RefusalSlot<'_> {
    fn drop(&mut self) {
        self.refusals.fetch_sub(1, Ordering::Relaxed);
    }
}

fn refuse_busy(stream: TcpStream, most: usize) {
    let Ok(mut socket) = Socket::new(stream) else { return };
    let failure = Failure::new(Code::Busy, format!("all {most} connections are in use, try again later"));
    say_last(&mut socket, &Message::Failure { id: 0, failure });
}

/// Sends the message that ends a connection, and sees that it can be read.
fn say_last(socket: &mut Socket, message: &Message<'_>) {
    let mut stream = socket.within("the last message", REFUSAL_TIMEOUT);
    if Writer::new().write(&mut stream, message, 0).is_ok() {
        socket.finish();
    }
}

/// The code that tells a peer about an error of its making.
fn code_of(error: &Error) -> Code {
    match error {
        Error::UnsupportedVersion { .. } => Code::UnsupportedVersion,
        Error::LimitExceeded { .. } => Code::MessageTooLarge,
        Error::Deadline { .. } => Code::TimedOut,
        _ => Code::Malformed,
    }
}

/// One client.
struct Connection<'s, T> {
    host: &'s Host<'s, T>,
    socket: Socket,
    writer: Writer,
    reply: Vec<u8>,
    /// A message was sent in part: nothing more can be said.
    is_mute: bool,
}

impl<T: Tail> Connection<'_, T> {
    /// `Ok` is the end that the protocol foresees.
    fn run(&mut self) -> Result<(), Error> {
        let mut reader = Reader::new();
        let Limits { max_message_bytes, idle_timeout, message_timeout, .. } = *self.host.limits;
        let mut stream = self.socket.within("the hello", message_timeout);
        let reply_limit = match reader.read(&mut stream, HANDSHAKE_LIMIT)? {
            Message::Hello(hello) => hello.max_message_bytes,
            other => return Err(Error::Unexpected { found: other.kind().name(), expected: "a hello" }),
        };
        self.send(self.host.welcome, 0)?;
        while !self.host.registry.is_closing() {
            let begun = reader.has_begun();
            let stream =
                self.socket.within("the next message", if begun { message_timeout } else { idle_timeout });
            let mut stream = if begun { stream } else { stream.once_begun("the message", message_timeout) };
            match reader.read(&mut stream, max_message_bytes)? {
                Message::Request(request) => self.answer(&request, reply_limit)?,
                Message::Ping(nonce) => self.send(&Message::Pong(nonce), 0)?,
                // Nobody is pinged here, and a pong harms nobody.
                Message::Pong(_) => {}
                Message::Goodbye => return Ok(()),
                other => return Err(Error::Unexpected { found: other.kind().name(), expected: "a request" }),
            }
        }
        Ok(())
    }

    /// Answers a request with a response or a failure; an error is the connection's.
    fn answer(&mut self, request: &Request<'_>, reply_limit: u32) -> Result<(), Error> {
        let id = request.id;
        if id == 0 {
            return Err(Error::Reserved { what: "request id", value: 0 });
        }
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        let sent = match self.ask_tail(request, &mut reply) {
            Ok(timings) => {
                let response = Message::Response(Response { id, timings, payload: &reply });
                match self.writer.stage(&response, reply_limit) {
                    Ok(payload) => self.send_staged(payload),
                    Err(error) => self.fail(id, Failure::new(Code::ReplyTooLarge, error.to_string())),
                }
            }
            Err(failure) => self.fail(id, failure),
        };
        self.reply = reply;
        sent
    }

    fn ask_tail(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure> {
        if !self.host.routes.iter().any(|route| route == request.route) {
            let text = format!("no route named {:?} is served here", request.route);
            return Err(Failure::new(Code::UnknownRoute, text));
        }
        // What a panic may leave half done is the tail's own; the reply is cleared before reuse.
        catch_unwind(AssertUnwindSafe(|| self.host.tail.answer(request, reply)))
            .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the tail panicked on this request")))
    }

    fn fail(&mut self, id: u64, failure: Failure) -> Result<(), Error> {
        self.send(&Message::Failure { id, failure }, 0)
    }

    fn send(&mut self, message: &Message<'_>, limit: u32) -> Result<(), Error> {
        let payload = self.writer.stage(message, limit)?;
        self.send_staged(payload)
    }

    fn send_staged(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut stream = self.socket.within("sending", self.host.limits.message_timeout);
        let sent = self.writer.send(&mut stream, payload);
        self.is_mute = sent.is_err();
        sent
    }
}
