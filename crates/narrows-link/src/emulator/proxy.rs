//! A TCP proxy that shapes what passes through it.
//!
//! A direction of the proxy is one link, shared by all its connections. Bytes pass in segments:
//! a segment waits until the link has sent the ones before it, takes its serialisation time, and
//! then travels for delay and jitter while the next one is being sent. Segments never overtake.
//! The connection's own handshake is not shaped, only its bytes.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Link;
use crate::{
    Error,
    registry::{Admission, Registry, Ticket},
    socket::after,
};

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
const MAX_SOCKETS: usize = 2 * 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After `accept` failed: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A running proxy on the loopback interface; stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy for the server at `upstream`: clients connect to
    /// [`local_addr`](Proxy::local_addr) instead. `up` shapes what they send, `down` what they get.
    ///
    /// # Errors
    /// The operating system's refusal of a port or a thread.
    pub fn start(upstream: SocketAddr, up: Link, down: Link) -> Result<Proxy, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("binding the proxy"))?;
        let address = listener.local_addr().map_err(Error::io("binding the proxy"))?;
        let shared = Arc::new(Shared {
            upstream,
            registry: Registry::new(address),
            up: Direction::new(up),
            down: Direction::new(down),
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
    segment_bytes: usize,
    /// When the link has sent everything given to it so far.
    free_at: Mutex<Instant>,
    /// Segments so far: the number that chooses the jitter.
    segments: AtomicU64,
}

impl Direction {
    fn new(link: Link) -> Direction {
        let (least, most) = SEGMENT_BYTES;
        let segment_bytes =
            link.rate().map_or(most, |rate| (rate / 8.0 / SEGMENTS_PER_SECOND).clamp(least, most)) as usize;
        Direction { link, segment_bytes, free_at: Mutex::new(Instant::now()), segments: AtomicU64::new(0) }
    }

    /// Gives `bytes` that are here now their time on the link: when they are sent, when they arrive.
    fn schedule(&self, bytes: usize) -> (Instant, Instant) {
        let sent = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            *free_at = after((*free_at).max(Instant::now()), self.link.serialisation_time(bytes as u64));
            *free_at
        };
        let nth = self.segments.fetch_add(1, Ordering::Relaxed);
        (sent, after(sent, self.link.delay().saturating_add(self.link.jitter_of(nth))))
    }
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    registry: Arc<Registry>,
    up: Direction,
    down: Direction,
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
        thread::scope(|scope| {
            for (from, to, direction) in [(client, &server, &self.up), (&server, client, &self.down)] {
                let (enter, leave) = sync_channel(IN_FLIGHT_BYTES / direction.segment_bytes);
                scope.spawn(move || self.send(from, direction, &enter));
                scope.spawn(move || self.deliver(to, &leave));
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
    fn send(&self, mut from: &TcpStream, direction: &Direction, enter: &SyncSender<Segment>) {
        let mut buffer = vec![0; direction.segment_bytes];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let (sent, arrives) = direction.schedule(count);
            if enter.send((arrives, buffer[..count].to_vec())).is_err() {
                break;
            }
            if sent.checked_sub(AHEAD).is_some_and(|soon| !self.sleep_until(soon)) {
                break;
            }
        }
        // Whoever still writes here writes to nobody.
        let _ = from.shutdown(Shutdown::Read);
    }

    /// The exit of the link: hands bytes out when they arrive, in order.
    fn deliver(&self, mut to: &TcpStream, leave: &Receiver<Segment>) {
        for (arrives, bytes) in leave {
            if !self.sleep_until(arrives) || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
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
