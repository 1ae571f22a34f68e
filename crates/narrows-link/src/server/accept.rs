//! The door: who is let in, and how everybody is seen off.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tracing::Instrument as _;

use super::{
    Server,
    connection::{HANDSHAKE_TIMEOUT, converse, refuse},
    host::Host,
};
use crate::{Code, Error, Failure};

/// Most connections at a time that are being told that the server is busy; the rest is dropped.
const MAX_REFUSALS: usize = 16;
/// After `accept` failed (out of descriptors, for one): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Accepts until told to stop, then waits for what is in flight.
pub(super) async fn serve(server: Server, host: Arc<Host>) -> Result<(), Error> {
    let listener = TcpListener::from_std(server.listener).map_err(Error::io("starting the server"))?;
    let mut sessions = JoinSet::new();
    #[cfg(feature = "http")]
    let http = crate::http::start(server.http, Arc::clone(&host), server.tensors)?;
    tracing::info!(address = %server.address, routes = host.routes.join(","), "serving");
    let door = Arc::new(Door { refusals: AtomicUsize::new(0) });
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => receive(&host, &door, &mut sessions, stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = sessions.join_next() => {}
            () = host.drained() => break,
        }
    }
    drop(listener);
    tracing::info!(open_requests = host.open_requests(), connections = sessions.len(), "draining");
    let ended = async {
        while sessions.join_next().await.is_some() {}
        #[cfg(feature = "http")]
        http.ended().await;
    };
    let bound = host.options.limits.drain_timeout;
    if timeout(bound, ended).await.is_ok() {
        tracing::info!("stopped");
    } else {
        tracing::warn!(?bound, connections = sessions.len(), "cut what did not end in time");
    }
    sessions.abort_all();
    Ok(())
}

/// From now on (not only from the first poll on) the first signal that asks the process to end drains the
/// server, and the second one ends the process. To be called within a runtime.
pub(super) fn stop_on_signals(draining: tokio::sync::watch::Sender<bool>) -> std::io::Result<()> {
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        signals.next().await;
        draining.send_replace(true);
        signals.next().await;
        tracing::warn!("second signal: ending at once");
        std::process::exit(1);
    });
    Ok(())
}

/// Signals that ask the process to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(windows)]
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(windows)]
        let _ = self.interrupt.recv().await;
    }
}

struct Door {
    /// Refusals going on.
    refusals: AtomicUsize,
}

fn receive(
    host: &Arc<Host>,
    door: &Arc<Door>,
    sessions: &mut JoinSet<()>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let span = tracing::debug_span!("connection", %peer);
    let most = host.options.limits.max_connections;
    if host.stats.connections.get() < most as i64 {
        let visit = Visit::new(Arc::clone(host));
        sessions.spawn(async move { visit.hold(stream).await }.instrument(span));
        return;
    }
    host.stats.connection("busy");
    let door = Arc::clone(door);
    if door.refusals.fetch_add(1, Ordering::Relaxed) >= MAX_REFUSALS {
        door.refusals.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let tls = host.options.tls.clone();
    let text = format!("all {most} connections are in use, try again later");
    tokio::spawn(async move {
        let failure = Failure::new(Code::Busy, text);
        match tls {
            None => {
                let (receiver, sender) = stream.into_split();
                refuse(receiver, sender, failure).await;
            }
            Some(tls) => {
                if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
                    let (receiver, sender) = tokio::io::split(stream);
                    refuse(receiver, sender, failure).await;
                }
            }
        }
        door.refusals.fetch_sub(1, Ordering::Relaxed);
    });
}

/// An open connection, counted as long as it lives.
struct Visit {
    host: Arc<Host>,
}

impl Visit {
    fn new(host: Arc<Host>) -> Visit {
        host.stats.connections.inc();
        Visit { host }
    }

    async fn hold(&self, stream: TcpStream) {
        let host = Arc::clone(&self.host);
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.host.options.tls else {
            let (receiver, sender) = stream.into_split();
            return converse(host, receiver, sender).await;
        };
        match timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => {
                let (receiver, sender) = tokio::io::split(stream);
                converse(host, receiver, sender).await;
            }
            Ok(Err(error)) => {
                self.host.stats.connection("tls failed");
                tracing::info!(%error, "no TLS with this peer");
            }
            Err(_) => self.host.stats.connection("tls failed"),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.host.stats.connections.dec();
    }
}
