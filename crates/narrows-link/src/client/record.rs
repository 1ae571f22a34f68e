//! What became of a request, and where its time went.

use std::time::Duration;

use crate::message::Timings;

/// Who computed an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The server.
    Server,
    /// The client's own tail, since the server could not be asked in time.
    Local,
}

/// One request's way, from the frame to the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Bytes sent for the answered attempt, all of the message.
    pub bytes_sent: u64,
    /// Bytes of the answering message.
    pub bytes_received: u64,
    /// Encoding the frame: what the caller said.
    pub encode: Duration,
    /// Handing the request to the operating system. On a slow link most of it may still be on its
    /// way then, and the rest of its time is in `wait`.
    pub send: Duration,
    /// From then until the answer was complete, without the server's own times.
    pub wait: Duration,
    /// Waiting for the tail, on the server.
    pub queue: Duration,
    /// Decoding the frame, on the server.
    pub decode: Duration,
    /// Running the tail.
    pub tail: Duration,
    /// From the call until the answer was complete, lost attempts included, and encoding.
    pub total: Duration,
    /// How often the request was sent; 0 if it was answered without.
    pub attempts: u32,
    /// Who answered.
    pub origin: Origin,
}

/// A tail's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The tail's result.
    pub payload: Vec<u8>,
    /// What the server spent.
    pub timings: Timings,
    /// From the call until the answer was complete.
    pub round_trip: Duration,
    /// The request's way in figures.
    pub record: Record,
}

impl Answer {
    /// The part of the round trip that the tail's own times do not explain: the way there and back,
    /// and waiting for the tail.
    pub fn link_time(&self) -> Duration {
        let Timings { decode_ns, tail_ns, .. } = self.timings;
        self.round_trip.saturating_sub(Duration::from_nanos(decode_ns.saturating_add(tail_ns)))
    }
}
