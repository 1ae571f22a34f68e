//! Where HTTP connections come in, with or without TLS, and are served.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::server::Host;

/// Most HTTP connections; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From an answer, or the connection, to the end of the next request's header. So long may a connection be idle, too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// After `accept` failed: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Serves until the server is told to stop, and then what has begun.
pub(super) async fn serve(listener: TcpListener, host: Arc<Host>, router: Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            (place, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, place, Arc::clone(&host), router.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            () = host.drained() => break,
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection to its end. Handshakes happen here: one that is slow does not keep the others.
async fn converse(stream: TcpStream, place: OwnedSemaphorePermit, host: Arc<Host>, router: Router) {
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Stream> = match &host.options.tls {
        None => Box::new(stream),
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            _ => return,
        },
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    http.header_read_timeout(HEADER_TIMEOUT.min(host.options.limits.message_timeout));
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = host.drained() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
    drop(place);
}
