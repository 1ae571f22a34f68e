//! Messages from and to a byte stream, through buffers that live as long as the connection.

use std::io::{ErrorKind, IoSlice, Read, Write};

use super::{HEADER_BYTES, Message, wire::Header};
use crate::Error;

/// First size of a read buffer. It then at most doubles whenever it is full, so that a peer gets
/// no memory for bytes that it only announces.
const FIRST_BUFFER_BYTES: usize = 16 << 10;

/// Reads messages, ahead where bytes are there already, and lends them from its buffer.
#[derive(Debug, Default)]
pub struct Reader {
    /// Its length is the high-water mark: what is there is not zeroed again.
    buffer: Vec<u8>,
    /// Received and not yet handed out is `start..end`.
    start: usize,
    end: usize,
}

impl Reader {
    /// A reader without memory yet.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Whether some bytes of the next message are here already.
    fn has_begun(&self) -> bool {
        self.start < self.end
    }

    /// Reads the next message. `limit` bounds a request or response, header included.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the stream between messages; otherwise whatever the bytes
    /// or the stream have wrong. After an error the position in the stream is unknown.
    pub fn read(&mut self, stream: &mut impl Read, limit: u32) -> Result<Message<'_>, Error> {
        self.fill(stream, HEADER_BYTES)?;
        let header = Header::read_from(&self.buffer[self.start..self.end], limit)?;
        let message_bytes = header.message_bytes();
        self.fill(stream, message_bytes)?;
        let begin = self.start;
        self.start += message_bytes;
        header.read_body(&self.buffer[begin..self.start])
    }

    /// Receives until `needed` bytes are there.
    fn fill(&mut self, stream: &mut impl Read, needed: usize) -> Result<(), Error> {
        while self.end - self.start < needed {
            self.make_room(needed);
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(0) if self.has_begun() => {
                    let available = (self.end - self.start) as u64;
                    return Err(Error::Truncated { what: "message", needed: needed as u64, available });
                }
                Ok(0) => return Err(Error::Closed),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("receiving")(error)),
            }
        }
        Ok(())
    }

    fn make_room(&mut self, needed: usize) {
        let there = self.end - self.start;
        if there == 0 || self.buffer.len() - self.start < needed {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, there);
        }
        if self.end == self.buffer.len() {
            let wanted = needed.max(FIRST_BUFFER_BYTES).min((2 * there).max(FIRST_BUFFER_BYTES));
            self.buffer.resize(wanted, 0);
        }
    }
}

/// Writes messages, each with one vectored system call where the stream takes it whole.
#[derive(Debug, Default)]
pub struct Writer {
    head: Vec<u8>,
}

impl Writer {
    /// A writer without memory yet.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Writes one message. `limit` bounds a request or response, header included.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] before anything is written, or the stream's error.
    pub fn write(&mut self, stream: &mut impl Write, message: &Message<'_>, limit: u32) -> Result<(), Error> {
        let payload = self.stage(message, limit)?;
        self.send(stream, payload)
    }

    /// The half of `write` that checks; gives the payload to send.
    pub(crate) fn stage<'a>(&mut self, message: &Message<'a>, limit: u32) -> Result<&'a [u8], Error> {
        self.head.clear();
        message.write_head_into(&mut self.head, limit)
    }

    /// The half of `write` that sends what was staged.
    pub(crate) fn send(&self, stream: &mut impl Write, payload: &[u8]) -> Result<(), Error> {
        let (mut head, mut payload) = (self.head.as_slice(), payload);
        while !(head.is_empty() && payload.is_empty()) {
            match stream.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)]) {
                Ok(0) => return Err(Error::Closed),
                Ok(count) => {
                    let of_head = count.min(head.len());
                    head = &head[of_head..];
                    payload = &payload[count - of_head..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("sending")(error)),
            }
        }
        stream.flush().map_err(Error::io("sending"))
    }

    /// Bytes of what was staged last, without its payload.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.head.len()
    }
}
