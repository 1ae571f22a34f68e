//! A socket, with or without TLS above it.

use std::{
    io::{self, IoSlice, Read, Write},
    net::TcpStream,
};

use crate::{
    Error,
    socket::{Deadline, Socket, Timed},
};

/// What carries a session's bytes.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
}

impl Transport {
    /// The bare socket.
    pub(super) fn plain(stream: TcpStream) -> Result<Transport, Error> {
        let socket = Socket::new(stream).map_err(Error::io("connecting"))?;
        Ok(Transport {
            socket,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// TLS above the socket; the handshake happens with the first bytes.
    #[cfg(feature = "tls")]
    pub(super) fn tls(stream: TcpStream, tls: rustls::ClientConnection) -> Result<Transport, Error> {
        Ok(Transport { tls: Some(Box::new(tls)), ..Transport::plain(stream)? })
    }

    /// The stream for a while; `what` is named when that is over.
    pub(super) fn until(&mut self, what: &'static str, deadline: Deadline) -> Channel<'_> {
        Channel {
            timed: self.socket.until(what, deadline),
            #[cfg(feature = "tls")]
            tls: self.tls.as_deref_mut(),
        }
    }
}

/// A transport for the time of one message.
pub(super) struct Channel<'a> {
    timed: Timed<'a>,
    #[cfg(feature = "tls")]
    tls: Option<&'a mut rustls::ClientConnection>,
}

impl Read for Channel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return rustls::Stream::new(*tls, &mut self.timed).read(buffer);
        }
        self.timed.read(buffer)
    }
}

impl Write for Channel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return rustls::Stream::new(*tls, &mut self.timed).write_vectored(slices);
        }
        self.timed.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return rustls::Stream::new(*tls, &mut self.timed).flush();
        }
        self.timed.flush()
    }
}
