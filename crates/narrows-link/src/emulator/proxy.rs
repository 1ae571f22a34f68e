//! A TCP proxy that shapes what passes through it.
//!
//! A direction of the proxy is one link, shared by all its connections. Bytes pass in segments:
//! a segment waits until the link has sent the ones before it, takes its serialisation time, and
//! then travels for delay, jitter and stall while the next one is being sent. Segments never
//! overtake. The connection's own handshake is not shaped, only its bytes.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Fault, Faults, Link, Trace,
    faults::Planned,
    registry::{Admission, Registry, Ticket},
};
use crate::{Error, socket::after};

/// Bytes of a segment: what the link sends in a millisecond, within these bounds (one Ethernet
/// segment, one read of a socket).
const SEGMENT_BYTES: (f64, f64) = (1460.0, 65536.0);
const SEGMENTS_PER_SECOND: f64 = 1000.0;
/// Bytes on their way in one direction of one connection; above, the sender has to wait.
const IN_FLIGHT_BYTES: usize = 16 << 20;
/// How far ahead of the clock a segment may be given its time on the link: more than a thread
/// oversleeps, so that the link does not idle meanwhile.
const AHEAD: Duration = Duration::from_millis(5);
/// Most sockets, two for each connection.
const MAX_SOCKETS: usize = 2 * 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After `accept` failed: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What a proxy does to what passes.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Shapes what clients send.
    pub up: Link,
    /// Shapes what they get.
    pub down: Link,
    /// Gives both directions their rate and delay, instead of their own, from the start on.
    pub trace: Option<Trace>,
    /// What breaks.
    pub faults: Option<Faults>,
}

impl Default for ProxyOptions {
    fn default() -> ProxyOptions {
        ProxyOptions {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            up: Link::ideal(),
            down: Link::ideal(),
            trace: None,
            faults: None,
        }
    }
}

/// What has passed a proxy so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections.
    pub connections: u64,
    /// Bytes from clients.
    pub bytes_up: u64,
    /// Bytes to clients.
    pub bytes_down: u64,
    /// Faults that happened, in the order of [`Fault::ALL`].
    pub faults: [u64; 5],
}

/// A running proxy; stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy on the loopback interface for the server at `upstream`: clients connect to
    /// [`local_addr`](Proxy::local_addr) instead. `up` shapes what they send, `down` what they get.
    ///
    /// # Errors
    /// The operating system's refusal of a port or a thread.
    pub fn start(upstream: SocketAddr, up: Link, down: Link) -> Result<Proxy, Error> {
        Proxy::with(upstream, ProxyOptions { up, down, ..ProxyOptions::default() })
    }

    /// Starts a proxy for the server at `upstream`.
    ///
    /// # Errors
    /// The operating system's refusal of a port or a thread.
    pub fn with(upstream: SocketAddr, options: ProxyOptions) -> Result<Proxy, Error> {
        let listener = TcpListener::bind(options.listen).map_err(Error::io("binding the proxy"))?;
        let address = listener.local_addr().map_err(Error::io("binding the proxy"))?;
        let trace = options.trace.map(Arc::new);
        let shared = Arc::new(Shared {
            upstream,
            registry: Registry::new(address),
            up: Direction::new(options.up, trace.clone()),
            down: Direction::new(options.down, trace),
            faults: options.faults,
            connections: AtomicU64::new(0),
            struck: Default::default(),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        });
        let thread = thread::Builder::new()
            .name("narrows-link proxy".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.accept(&listener)
            })
            .map_err(Error::io("starting the proxy thread"))?;
        Ok(Proxy { address, shared, thread: Some(thread) })
    }

    /// What has passed so far.
    pub fn traffic(&self) -> Traffic {
        let Shared { up, down, connections, struck, .. } = &*self.shared;
        Traffic {
            connections: connections.load(Ordering::Relaxed),
            bytes_up: up.bytes.load(Ordering::Relaxed),
            bytes_down: down.bytes.load(Ordering::Relaxed),
            faults: struck.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections and waits until the proxy's threads have ended.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        self.shared.registry.close(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One direction of the link, whoever uses it.
#[derive(Debug)]
struct Direction {
    link: Link,
    trace: Option<Arc<Trace>>,
    began: Instant,
    /// When the link has sent everything given to it so far.
    free_at: Mutex<Instant>,
    /// Segments so far: the number that chooses jitter and losses.
    segments: AtomicU64,
    bytes: AtomicU64,
}

impl Direction {
    fn new(link: Link, trace: Option<Arc<Trace>>) -> Direction {
        let began = Instant::now();
        let (segments, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Direction { link, trace, began, free_at: Mutex::new(began), segments, bytes }
    }

    /// Bytes of the next segment.
    fn segment_bytes(&self) -> usize {
        let (least, most) = SEGMENT_BYTES;
        let rate = match &self.trace {
            Some(trace) => Some(trace.at(self.began.elapsed()).rate_bit_s),
            None => self.link.rate(),
        };
        rate.map_or(most, |rate| (rate / 8.0 / SEGMENTS_PER_SECOND).clamp(least, most)) as usize
    }

    /// Gives `bytes` that are here now their time on the link: when they are sent, when they arrive.
    fn schedule(&self, bytes: usize) -> (Instant, Instant) {
        let sent = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*free_at).max(Instant::now());
            *free_at = match &self.trace {
                None => after(start, self.link.serialisation_time(bytes as u64)),
                Some(trace) => {
                    let sent = trace.sent_by(start - self.began, bytes as u64);
                    after(self.began, sent.unwrap_or(Duration::MAX))
                }
            };
            *free_at
        };
        let delay = match &self.trace {
            None => self.link.delay(),
            Some(trace) => Duration::from_secs_f64(trace.at(sent - self.began).delay_ms / 1e3),
        };
        let nth = self.segments.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let late = self.link.jitter_of(nth).saturating_add(self.link.stall_of(nth));
        (sent, after(sent, delay.saturating_add(late)))
    }
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    registry: Arc<Registry>,
    up: Direction,
    down: Direction,
    faults: Option<Faults>,
    connections: AtomicU64,
    /// Faults that happened, by kind.
    struck: [AtomicU64; 5],
    stopped: Mutex<bool>,
    wake: Condvar,
}

/// A segment on its way, and when it arrives.
type Segment = (Instant, Vec<u8>);

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            while !self.registry.is_closing() {
                match listener.accept() {
                    Ok((client, _)) => {
                        let thread = thread::Builder::new().name("narrows-link proxy".into());
                        let _ = thread.spawn_scoped(scope, move || self.carry(&client));
                    }
                    Err(_) => thread::sleep(ACCEPT_PAUSE),
                }
            }
        });
    }

    /// Carries one connection until both sides have ended it.
    fn carry(&self, client: &TcpStream) {
        let Some(_client_ticket) = self.admit(client) else { return };
        let Ok(server) = TcpStream::connect_timeout(&self.upstream, CONNECT_TIMEOUT) else { return };
        let Some(_server_ticket) = self.admit(&server) else { return };
        let nth = self.connections.fetch_add(1, Ordering::Relaxed);
        let [fault_up, fault_down] = self.faults.as_ref().map_or([None, None], |faults| faults.of(nth));
        let wire = Wire { client, server: &server, is_reset: AtomicBool::new(false) };
        let wire = &wire;
        thread::scope(|scope| {
            let ways = [(client, &server, &self.up, fault_up), (&server, client, &self.down, fault_down)];
            for (from, to, direction, fault) in ways {
                let (enter, leave) = sync_channel(IN_FLIGHT_BYTES / direction.segment_bytes());
                scope.spawn(move || self.send(wire, from, direction, fault, &enter));
                scope.spawn(move || self.deliver(wire, to, &leave));
            }
        });
    }

    fn admit(&self, stream: &TcpStream) -> Option<Ticket> {
        stream.set_nodelay(true).ok()?;
        match self.registry.admit(stream, MAX_SOCKETS) {
            Ok(Admission::Admitted(ticket)) => Some(ticket),
            Ok(Admission::Full | Admission::Closing) | Err(_) => None,
        }
    }

    /// The entrance of the link: takes bytes in no faster than the link sends them.
    fn send(
        &self,
        wire: &Wire<'_>,
        mut from: &TcpStream,
        direction: &Direction,
        fault: Option<Planned>,
        enter: &SyncSender<Segment>,
    ) {
        let mut buffer = vec![0; SEGMENT_BYTES.1 as usize];
        let mut passed = 0;
        while let Ok(count @ 1..) = from.read(&mut buffer[..direction.segment_bytes()]) {
            let mut bytes = buffer[..count].to_vec();
            let struck = fault.filter(|fault| fault.strike(passed, &mut bytes)).map(|fault| fault.fault);
            passed += count as u64;
            let (sent, arrives) = direction.schedule(count);
            if enter.send((arrives, bytes)).is_err() {
                break;
            }
            if let Some(fault) = struck {
                self.struck[fault as usize].fetch_add(1, Ordering::Relaxed);
                match fault {
                    Fault::Drop | Fault::Flip => {}
                    Fault::Stall => {
                        while let Ok(1..) = from.read(&mut buffer) {}
                        break;
                    }
                    Fault::Truncate => break,
                    Fault::Reset => return wire.reset(),
                }
            }
            if sent.checked_sub(AHEAD).is_some_and(|soon| !self.sleep_until(soon)) {
                break;
            }
        }
        // Whoever still writes here writes to nobody.
        let _ = from.shutdown(Shutdown::Read);
    }

    /// The exit of the link: hands bytes out when they arrive, in order.
    fn deliver(&self, wire: &Wire<'_>, mut to: &TcpStream, leave: &Receiver<Segment>) {
        for (arrives, bytes) in leave {
            if !self.sleep_until(arrives) || to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The end of a stream before its reset would be a truncation.
        if !wire.is_reset.load(Ordering::Relaxed) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Sleeps; `false` if the proxy was stopped meanwhile.
    fn sleep_until(&self, moment: Instant) -> bool {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            stopped = self.wake.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

/// The two sockets of a carried connection.
struct Wire<'c> {
    client: &'c TcpStream,
    server: &'c TcpStream,
    is_reset: AtomicBool,
}

impl Wire<'_> {
    /// Has both connections reset when they are closed, which is soon: both stop being read.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::Relaxed);
        for stream in [self.client, self.server] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}
