//! Messages from an asynchronous stream, taken in no faster than there is room for them.

use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

use super::ledger::Held;
use crate::{
    Error,
    message::{HEADER_BYTES, Header},
};

/// First size of a buffer. It then at most doubles whenever it is full, so that a peer gets no
/// memory for bytes that it only announces.
const FIRST_BUFFER_BYTES: usize = 16 << 10;
/// Fewer bytes than these, arriving after their header, say nothing about the link's rate.
const LEAST_MEASURED_BYTES: usize = 16 << 10;

/// The receiving end of a connection.
#[derive(Debug)]
pub(super) struct Intake<R> {
    stream: R,
    buffer: BytesMut,
    message_timeout: Duration,
    /// When the message that is coming in must be here.
    end: Instant,
}

/// A whole message, and how it came.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) bytes: Bytes,
    /// From the header to the last byte.
    pub(super) took: Duration,
    /// Bytes per second, if enough of them came after the header to tell.
    pub(super) rate: Option<f64>,
}

impl<R: AsyncRead + Unpin> Intake<R> {
    pub(super) fn new(stream: R, message_timeout: Duration) -> Intake<R> {
        Intake { stream, buffer: BytesMut::new(), message_timeout, end: Instant::now() }
    }

    /// Waits, without end, until some bytes of the next message are here. May be cancelled.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            self.buffer.reserve(FIRST_BUFFER_BYTES);
            if self.stream.read_buf(&mut self.buffer).await.map_err(Error::io("receiving"))? == 0 {
                return Err(Error::Closed);
            }
        }
        Ok(())
    }

    /// The header of the message that has begun. From here on it has `message_timeout` to arrive.
    pub(super) async fn header(&mut self, limit: u32) -> Result<Header, Error> {
        self.end = crate::socket::after(Instant::now(), self.message_timeout);
        while self.buffer.len() < HEADER_BYTES {
            self.receive(HEADER_BYTES).await?;
        }
        Header::read_from(&self.buffer, limit)
    }

    /// The rest of the message, whose bytes are held as they come; `None` if there is no room.
    pub(super) async fn message(
        &mut self,
        header: Header,
        held: &mut Held,
        patience: Duration,
    ) -> Result<Option<Arrival>, Error> {
        let (start, there) = (Instant::now(), self.buffer.len());
        let needed = header.message_bytes();
        loop {
            let next = needed.min((2 * self.buffer.len()).max(FIRST_BUFFER_BYTES));
            if !held.grow_to(next as u64, patience).await {
                return Ok(None);
            }
            while self.buffer.len() < next {
                self.receive(next).await?;
            }
            if next == needed {
                break;
            }
        }
        let took = start.elapsed();
        let came = needed.saturating_sub(there);
        let rate = (came >= LEAST_MEASURED_BYTES).then(|| came as f64 / took.as_secs_f64().max(1e-9));
        Ok(Some(Arrival { bytes: self.buffer.split_to(needed).freeze(), took, rate }))
    }

    /// Takes in the rest of the message and drops it, all but the first eight bytes of its body.
    pub(super) async fn discard(&mut self, header: Header) -> Result<[u8; 8], Error> {
        let mut left = header.message_bytes();
        let mut first = [0; 8];
        let kept = left.min(HEADER_BYTES + first.len());
        while self.buffer.len() < kept {
            self.receive(kept).await?;
        }
        first[..kept - HEADER_BYTES].copy_from_slice(&self.buffer[HEADER_BYTES..kept]);
        loop {
            let count = self.buffer.len().min(left);
            self.buffer.advance(count);
            left -= count;
            if left == 0 {
                return Ok(first);
            }
            self.receive(FIRST_BUFFER_BYTES).await?;
        }
    }

    /// Receives something more of a message of which `needed` bytes are wanted.
    async fn receive(&mut self, needed: usize) -> Result<(), Error> {
        let there = self.buffer.len();
        self.buffer.reserve(needed.saturating_sub(there).max(1));
        let left = self.end.saturating_duration_since(Instant::now());
        match timeout(left, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) if there == 0 => Err(Error::Closed),
            Ok(Ok(0)) => {
                Err(Error::Truncated { what: "message", needed: needed as u64, available: there as u64 })
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::io("receiving")(error)),
            Err(_) => Err(Error::Deadline { what: "the message", limit: self.message_timeout }),
        }
    }

    /// Takes in and drops what still comes, until the end of the stream.
    pub(super) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            self.buffer.reserve(FIRST_BUFFER_BYTES);
            if !self.stream.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0) {
                return;
            }
        }
    }
}
