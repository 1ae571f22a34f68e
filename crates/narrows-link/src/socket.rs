//! A TCP stream with deadlines, which the socket itself only has per system call.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use crate::Error;

/// A socket timeout this much too long is left as it is: it saves a system call per message.
const SLACK: Duration = Duration::from_millis(10);
/// After the last message: how long to take in what the peer still sends. Closing with unread
/// bytes would reset the connection, and the peer might never read why.
const LINGER: Duration = Duration::from_secs(1);

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

    /// The socket until `limit` from now; `what` is named if that is not enough.
    pub(crate) fn within(&mut self, what: &'static str, limit: Duration) -> Timed<'_> {
        self.until(what, after(Instant::now(), limit), limit)
    }

    /// The same with the end already set, `limit` after the beginning.
    pub(crate) fn until(&mut self, what: &'static str, end: Instant, limit: Duration) -> Timed<'_> {
        Timed { socket: self, what, end, limit, once_begun: None }
    }

    /// Sends no more, and takes in what still comes, for a bounded time.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut sink = [0; 4096];
        let mut timed = self.within("the end of the connection", LINGER);
        while timed.read(&mut sink).is_ok_and(|count| count > 0) {}
    }
}

/// A socket for the time of one message.
pub(crate) struct Timed<'a> {
    socket: &'a mut Socket,
    what: &'static str,
    end: Instant,
    limit: Duration,
    once_begun: Option<(&'static str, Duration)>,
}

impl Timed<'_> {
    /// From the first byte received on, the deadline is `limit` and the name `what`.
    pub(crate) fn once_begun(self, what: &'static str, limit: Duration) -> Self {
        Timed { once_begun: Some((what, limit)), ..self }
    }

    /// The time left, or the error that there is none.
    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let error = Error::Deadline { what: self.what, limit: self.limit };
            return Err(io::Error::new(ErrorKind::TimedOut, error));
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
                Err(error) => return Err(error),
                Ok(count) => {
                    if let Some((what, limit)) = self.once_begun.take() {
                        (self.what, self.limit, self.end) = (what, limit, after(Instant::now(), limit));
                    }
                    return Ok(count);
                }
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
