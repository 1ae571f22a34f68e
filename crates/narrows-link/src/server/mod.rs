//! The server side: accepts connections and lets a [`Tail`] answer their requests.
//!
//! Connections are tasks of a tokio runtime that the server owns; the tail runs on threads of its
//! own. A request's way: `intake` takes it in as fast as there is room, `pool` runs the tail,
//! `outlet` sends the answer; `connection` is the conversation around them.

mod accept;
mod connection;
mod host;
mod intake;
mod ledger;
mod options;
mod outlet;
mod pool;
mod settings;
mod stats;

pub use options::{Batching, Limits, ServerOptions};
pub use settings::{Settings, Source};

#[cfg(feature = "http")]
pub(crate) use {
    host::Host, host::no_room, ledger::Held, pool::Job, stats::Sample, stats::Stage, stats::Totals,
};

use std::{
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::watch;

use crate::{Error, Tail};

/// How long the runtime may take to end once everything in it has been told to.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that has its address and does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    http: Option<(TcpListener, SocketAddr)>,
    options: ServerOptions,
    draining: watch::Sender<bool>,
    /// Made before it serves where signals are to be heard from then on.
    runtime: Option<tokio::runtime::Runtime>,
    #[cfg(feature = "http")]
    tensors: Option<Arc<dyn crate::http::Tensors>>,
}

impl Server {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// A limit that is zero, or the operating system's refusal.
    pub fn bind(address: impl ToSocketAddrs, options: impl Into<ServerOptions>) -> Result<Server, Error> {
        let options = options.into();
        options.check()?;
        let (listener, address) = bind(address, "binding the server")?;
        let http = options.http().map(|address| bind(address, "binding the HTTP server")).transpose()?;
        Ok(Server {
            listener,
            address,
            http,
            options,
            draining: watch::Sender::new(false),
            runtime: None,
            #[cfg(feature = "http")]
            tensors: None,
        })
    }

    /// The address it listens at, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of its HTTP, if it has one.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// A handle to stop the server with, from any thread.
    pub fn handle(&self) -> Handle {
        Handle { draining: self.draining.clone() }
    }

    /// Has the server drain and stop on SIGTERM and on Ctrl-C, from now on, before it serves too; the second signal
    /// ends the process.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn stopping_on_signals(mut self) -> Result<Server, Error> {
        let runtime = runtime()?;
        let within = runtime.enter();
        accept::stop_on_signals(self.draining.clone()).map_err(Error::io("listening for signals"))?;
        drop(within);
        self.runtime = Some(runtime);
        Ok(self)
    }

    /// Lets KServe clients send and get plain tensors.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn with_tensors(mut self, tensors: Arc<dyn crate::http::Tensors>) -> Server {
        self.tensors = Some(tensors);
        self
    }

    /// Serves until the handle's [`shutdown`](Handle::shutdown), and then until all requests in
    /// flight have been answered or [`Limits::drain_timeout`] has passed.
    ///
    /// # Errors
    /// The tail's routes are above the protocol's limits, or a thread cannot be started. Troubles
    /// with one connection end only that connection.
    pub fn serve(mut self, tail: impl Tail + 'static) -> Result<(), Error> {
        let drain_timeout = self.options.limits.drain_timeout;
        let host = host::Host::new(Arc::new(tail), self.options.clone(), self.draining.subscribe())?;
        let runtime = self.runtime.take().map_or_else(runtime, Ok)?;
        let workers = host.pool.start(host.options.workers())?;
        let pool = Arc::clone(&host.pool);
        let served = runtime.block_on(accept::serve(self, host));
        pool.close();
        runtime.shutdown_timeout(RUNTIME_TIMEOUT);
        // A tail that does not come back cannot be ended; it must not keep the server.
        let end = crate::socket::after(std::time::Instant::now(), drain_timeout.min(RUNTIME_TIMEOUT));
        for worker in workers {
            while !worker.is_finished() && std::time::Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
        served
    }

    /// Serves on a thread of its own, until the returned value is stopped or dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(self, tail: impl Tail + 'static) -> Result<Running, Error> {
        let (address, http, handle) = (self.address, self.http_addr(), self.handle());
        let thread = thread::Builder::new()
            .name("narrows link server".into())
            .spawn(move || self.serve(tail))
            .map_err(Error::io("starting the server thread"))?;
        Ok(Running { address, http, handle, thread: Some(thread) })
    }
}

fn bind(address: impl ToSocketAddrs, what: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind(address).map_err(Error::io(what))?;
    listener.set_nonblocking(true).map_err(Error::io(what))?;
    let address = listener.local_addr().map_err(Error::io(what))?;
    Ok((listener, address))
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(io_threads())
        .thread_name("narrows link")
        .enable_all()
        .build()
        .map_err(Error::io("starting the runtime"))
}

/// Sockets need little: most cores are the tail's.
fn io_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)).min(4)
}

/// Stops a server; the first call counts.
#[derive(Debug, Clone)]
pub struct Handle {
    draining: watch::Sender<bool>,
}

impl Handle {
    /// Accepts no more connections and requests, lets those in flight be answered, says goodbye.
    pub fn shutdown(&self) {
        self.draining.send_replace(true);
    }
}

/// A server on its own thread.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    http: Option<SocketAddr>,
    handle: Handle,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// The address it listens at.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of its HTTP, if it has one.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Shuts down and waits until all connections have ended.
    ///
    /// # Errors
    /// What [`Server::serve`] returned.
    ///
    /// # Panics
    /// When the tail's `routes` panicked.
    pub fn stop(mut self) -> Result<(), Error> {
        self.handle.shutdown();
        let thread = self.thread.take().expect("the thread is taken here and in drop only");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            let _ = thread.join();
        }
    }
}
