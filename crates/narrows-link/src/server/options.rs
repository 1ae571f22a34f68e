//! What a server puts up with, and how it works.

use std::{net::SocketAddr, thread::available_parallelism, time::Duration};

use crate::{DEFAULT_MAX_MESSAGE_BYTES, Error, Token, tls::ServerTls};

/// What a server puts up with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest request, header included.
    pub max_message_bytes: u32,
    /// Connections at a time; more are refused with [`Code::Busy`](crate::Code::Busy).
    pub max_connections: usize,
    /// Open requests of one connection; above, the server stops reading it.
    pub max_in_flight_per_connection: usize,
    /// Open requests of all connections; above, a request waits for `patience` and is then refused
    /// with [`Code::Busy`](crate::Code::Busy).
    pub max_in_flight: usize,
    /// Bytes of requests that are here or arriving, and of answers not yet sent; above, as above.
    pub max_memory_bytes: u64,
    /// How long a request waits for room.
    pub patience: Duration,
    /// Silence after which a connection without open requests is ended.
    pub idle_timeout: Duration,
    /// Time for a message to arrive once it has begun, and for an answer to leave. A slow link
    /// needs it: 401 KB take 22 s at the reference's 143.6 kbit/s.
    pub message_timeout: Duration,
    /// Time for open requests to be answered once the server has been told to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            max_connections: 1024,
            max_in_flight_per_connection: 32,
            max_in_flight: 1024,
            max_memory_bytes: 1 << 30,
            patience: Duration::from_millis(500),
            idle_timeout: Duration::from_mins(5),
            message_timeout: Duration::from_mins(2),
            drain_timeout: Duration::from_secs(30),
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
        positive("max_in_flight_per_connection", self.max_in_flight_per_connection as f64)?;
        positive("max_in_flight", self.max_in_flight as f64)?;
        positive("max_memory_bytes", self.max_memory_bytes as f64)?;
        positive("idle_timeout", self.idle_timeout.as_secs_f64())?;
        positive("message_timeout", self.message_timeout.as_secs_f64())
    }
}

/// How requests of different clients are answered together, by a tail that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Most requests at a time; the tail's own bound holds too.
    pub max_requests: usize,
    /// How long the first request of a batch waits for others; zero takes those that are there.
    pub budget: Duration,
}

impl Default for Batching {
    fn default() -> Batching {
        Batching { max_requests: 32, budget: Duration::ZERO }
    }
}

/// How a server works.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// What it puts up with.
    pub limits: Limits,
    /// How many requests, or batches, are computed at the same time; `None` is one for each core.
    pub workers: Option<usize>,
    /// Requests answered together.
    pub batching: Batching,
    /// Whoever shows one of these is served; with none, everybody is.
    pub tokens: Vec<Token>,
    /// TLS, instead of bare TCP; holds for HTTP as well.
    pub tls: Option<ServerTls>,
    /// Where to serve HTTP, if at all.
    #[cfg(feature = "http")]
    pub http: Option<SocketAddr>,
}

impl ServerOptions {
    pub(super) fn check(&self) -> Result<(), Error> {
        self.limits.check()?;
        for (what, value) in
            [("workers", self.workers.unwrap_or(1)), ("batching.max_requests", self.batching.max_requests)]
        {
            if value == 0 {
                return Err(Error::InvalidSetting { what, value: 0.0, expected: "above zero" });
            }
        }
        Ok(())
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| available_parallelism().map_or(1, Into::into))
    }

    /// Where to serve HTTP, if this build can.
    pub(super) fn http(&self) -> Option<SocketAddr> {
        #[cfg(feature = "http")]
        return self.http;
        #[cfg(not(feature = "http"))]
        None
    }
}

impl From<Limits> for ServerOptions {
    fn from(limits: Limits) -> ServerOptions {
        ServerOptions { limits, ..ServerOptions::default() }
    }
}
