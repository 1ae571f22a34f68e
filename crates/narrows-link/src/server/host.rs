//! What all connections of a server share.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, watch};

use super::{
    ServerOptions,
    ledger::{Held, Ledger},
    pool::Pool,
    stats::Stats,
};
use crate::{
    Code, Error, Failure, SOFTWARE, Tail,
    message::{Message, PROFILES, VERSION, Welcome},
};

/// A server's parts.
pub(crate) struct Host {
    pub(crate) tail: Arc<dyn Tail>,
    pub(crate) routes: Arc<[String]>,
    pub(crate) options: ServerOptions,
    pub(crate) pool: Arc<Pool>,
    pub(crate) memory: Arc<Ledger>,
    /// One permit for each request that may be open.
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) stats: Stats,
    /// Becomes true when the server has been told to stop.
    pub(crate) draining: watch::Receiver<bool>,
}

impl Host {
    pub(super) fn new(
        tail: Arc<dyn Tail>,
        options: ServerOptions,
        draining: watch::Receiver<bool>,
    ) -> Result<Arc<Host>, Error> {
        let routes: Arc<[String]> = tail.routes().into();
        let pool = Pool::new(Arc::clone(&tail), Arc::clone(&routes), options.batching);
        let memory = Ledger::new(options.limits.max_memory_bytes);
        let most = options.limits.max_in_flight.min(Semaphore::MAX_PERMITS);
        let in_flight = Arc::new(Semaphore::new(most));
        let host = Host { tail, routes, options, pool, memory, in_flight, stats: Stats::new(), draining };
        // Routes that no welcome can name are refused before anybody connects.
        host.welcome(u64::MAX).write_into(&mut Vec::new(), 0)?;
        Ok(Arc::new(host))
    }

    /// The welcome for a client of these capabilities.
    pub(super) fn welcome(&self, capabilities: u64) -> Message<'_> {
        let limits = &self.options.limits;
        Message::Welcome(Welcome {
            version: VERSION,
            capabilities: capabilities & if self.tail.takes_profiles() { PROFILES } else { 0 },
            max_message_bytes: limits.max_message_bytes,
            idle_timeout_ms: u32::try_from(limits.idle_timeout.as_millis()).unwrap_or(u32::MAX),
            max_in_flight: u32::try_from(limits.max_in_flight_per_connection).unwrap_or(u32::MAX),
            software: SOFTWARE,
            routes: self.routes.iter().map(String::as_str).collect(),
        })
    }

    /// Whether a peer that shows this token may be served.
    pub(crate) fn admits(&self, token: &str) -> bool {
        let tokens = &self.options.tokens;
        // All are compared, and each in a time that does not depend on where it differs.
        let matches = |known: &crate::Token| bool::from(known.secret().as_bytes().ct_eq(token.as_bytes()));
        tokens.is_empty() || tokens.iter().fold(false, |found, known| found | matches(known))
    }

    /// The place of a route, or the failure to tell.
    pub(crate) fn route(&self, name: &str) -> Result<usize, Failure> {
        self.routes.iter().position(|route| route == name).ok_or_else(|| {
            Failure::new(Code::UnknownRoute, format!("no route named {name:?} is served here"))
        })
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Returns when the server is told to stop.
    pub(crate) async fn drained(&self) {
        let mut draining = self.draining.clone();
        // A sender that is gone cannot tell any more; the server is going too.
        let _ = draining.wait_for(|&draining| draining).await;
    }

    pub(crate) fn hold_nothing(&self) -> Held {
        Held::nothing(&self.memory)
    }

    /// Requests that are open.
    pub(crate) fn open_requests(&self) -> usize {
        let most = self.options.limits.max_in_flight.min(Semaphore::MAX_PERMITS);
        most.saturating_sub(self.in_flight.available_permits())
    }

    /// The metrics' text.
    #[cfg(feature = "http")]
    pub(crate) fn open_metrics(&self) -> String {
        self.stats.open_metrics(self.open_requests(), self.pool.queued(), self.memory.held())
    }
}

/// The failure of a request for which there is no room.
pub(crate) fn no_room(what: &str) -> Failure {
    Failure::new(Code::Busy, format!("the server has no {what} to spare, try again later"))
}
