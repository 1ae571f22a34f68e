//! How many bytes are held for requests and answers, against a bound.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// Bytes held, of bytes that may be.
#[derive(Debug)]
pub(crate) struct Ledger {
    limit: u64,
    held: AtomicU64,
    freed: Notify,
}

impl Ledger {
    pub(crate) fn new(limit: u64) -> Arc<Ledger> {
        Arc::new(Ledger { limit, held: AtomicU64::new(0), freed: Notify::new() })
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn try_take(&self, bytes: u64) -> bool {
        let take = |held: u64| held.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Bytes held for one request and its answer; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Held {
    pub(crate) fn nothing(ledger: &Arc<Ledger>) -> Held {
        Held { ledger: Arc::clone(ledger), bytes: 0 }
    }

    /// Holds `total` bytes, waiting for room at most for `patience`; `false` if there is none.
    pub(crate) async fn grow_to(&mut self, total: u64, patience: Duration) -> bool {
        let more = total.saturating_sub(self.bytes);
        let took = self.ledger.try_take(more)
            || tokio::time::timeout(patience, async {
                loop {
                    let freed = self.ledger.freed.notified();
                    if self.ledger.try_take(more) {
                        return;
                    }
                    freed.await;
                }
            })
            .await
            .is_ok();
        if took {
            self.bytes += more;
        }
        took
    }

    /// Holds so many more bytes, whether there is room or not: they exist already.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.ledger.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.ledger.held.fetch_sub(self.bytes, Ordering::Relaxed);
            self.ledger.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_bounded_and_comes_back() {
        let ledger = Ledger::new(100);
        let mut one = Held::nothing(&ledger);
        assert!(one.grow_to(60, Duration::ZERO).await);
        assert!(one.grow_to(40, Duration::ZERO).await, "there is more than that already");
        let mut other = Held::nothing(&ledger);
        assert!(!other.grow_to(41, Duration::from_millis(1)).await);
        assert_eq!(ledger.held(), 60);
        let waiting = tokio::spawn(async move { other.grow_to(100, Duration::from_secs(20)).await });
        tokio::task::yield_now().await;
        drop(one);
        assert!(waiting.await.expect("no panic"));
        assert_eq!(ledger.held(), 0);
    }
}
