//! A TCP stream with deadlines, which the socket itself only has per system call.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::Error;

/// A socket timeout this much too long is left as it is: it saves a system call per message.
const SLACK: Duration = Duration::from_millis(10);

/// A connected TCP stream; remembers which timeouts are set on it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        Ok(Socket { stream, read_timeout: None, write_timeout: None })
    }

    /// The socket for a while; `what` is named when that is over.
    pub(crate) fn until(&mut self, what: &'static str, deadline: Deadline) -> Timed<'_> {
        Timed { socket: self, what, deadline }
    }
}

/// A moment, and how long before it somebody began to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) end: Instant,
    pub(crate) limit: Duration,
}

impl Deadline {
    /// `limit` after `start`.
    pub(crate) fn after(start: Instant, limit: Duration) -> Deadline {
        Deadline { end: after(start, limit), limit }
    }

    /// The earlier of the two.
    pub(crate) fn min(self, other: Deadline) -> Deadline {
        if other.end < self.end { other } else { self }
    }

    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The error that it has passed.
    pub(crate) fn error(&self, what: &'static str) -> Error {
        Error::Deadline { what, limit: self.limit }
    }
}

/// A socket for the time of one message.
pub(crate) struct Timed<'a> {
    socket: &'a mut Socket,
    what: &'static str,
    deadline: Deadline,
}

impl Timed<'_> {
    /// The time left, or the error that there is none.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.left();
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, self.deadline.error(self.what)));
        }
        Ok(left)
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            if must_set(self.socket.read_timeout, left) {
                self.socket.stream.set_read_timeout(Some(left))?;
                self.socket.read_timeout = Some(left);
            }
            match self.socket.stream.read(buffer) {
                Err(error) if is_timeout(&error) => {}
                read => return read,
            }
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            if must_set(self.socket.write_timeout, left) {
                self.socket.stream.set_write_timeout(Some(left))?;
                self.socket.write_timeout = Some(left);
            }
            match self.socket.stream.write_vectored(slices) {
                Err(error) if is_timeout(&error) => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The moment `limit` after `start`; a limit beyond the clock's range is as good as a year.
pub(crate) fn after(start: Instant, limit: Duration) -> Instant {
    start.checked_add(limit).unwrap_or_else(|| start + Duration::from_hours(365 * 24))
}

fn must_set(current: Option<Duration>, left: Duration) -> bool {
    current.is_none_or(|current| current < left || current > left + SLACK)
}

/// A socket timeout is one or the other, by platform.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
