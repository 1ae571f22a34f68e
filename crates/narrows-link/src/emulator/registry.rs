//! The open connections of a listener, so that it can be stopped from outside.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Who is connected, and whether the listener is closing.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Where the listener listens: a connection to it wakes its `accept`.
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closing: bool,
    next: u64,
    open: HashMap<u64, TcpStream>,
}

/// What became of a connection that wanted in.
pub(crate) enum Admission {
    /// It is in until the ticket is dropped.
    Admitted(Ticket),
    /// There are as many as may be.
    Full,
    /// The listener is closing.
    Closing,
}

impl Registry {
    pub(crate) fn new(address: SocketAddr) -> Arc<Registry> {
        Arc::new(Registry { address, state: Mutex::default() })
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Registers `stream`, unless `most` are open already.
    pub(crate) fn admit(self: &Arc<Self>, stream: &TcpStream, most: usize) -> io::Result<Admission> {
        let mut state = self.state();
        if state.closing {
            return Ok(Admission::Closing);
        }
        if state.open.len() >= most {
            return Ok(Admission::Full);
        }
        let key = state.next;
        state.open.insert(key, stream.try_clone()?);
        state.next += 1;
        Ok(Admission::Admitted(Ticket { registry: Arc::clone(self), key }))
    }

    /// Closes the listener: shuts every connection down in the way `how` and wakes `accept`. Only
    /// the first call does: later the port may be somebody else's.
    pub(crate) fn close(&self, how: Shutdown) {
        {
            let mut state = self.state();
            if std::mem::replace(&mut state.closing, true) {
                return;
            }
            for stream in state.open.values() {
                let _ = stream.shutdown(how);
            }
        }
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let _ = TcpStream::connect_timeout(&SocketAddr::new(ip, self.address.port()), WAKE_TIMEOUT);
    }

    /// A thread that panicked holding the lock left nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to be connected.
pub(crate) struct Ticket {
    registry: Arc<Registry>,
    key: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.state().open.remove(&self.key);
    }
}
