//! How a client connects, waits, and gives up.

use std::{fmt, net::TcpStream, sync::Arc, time::Duration};

use super::{Backoff, transport::Transport};
use crate::{DEFAULT_MAX_MESSAGE_BYTES, Error, SOFTWARE, Tail};

/// How a client connects and waits.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time for a connection and its handshake.
    pub connect_timeout: Duration,
    /// Time for a request unless its call says otherwise: from the call until the answer's last
    /// byte, lost attempts included.
    pub request_timeout: Duration,
    /// The longest response, header included.
    pub max_message_bytes: u32,
    /// Name and version told to the server, at most 255 bytes.
    pub software: String,
    /// How often a request may be sent, at least 1. A request is sent again only if its connection
    /// was lost or the server was busy, and never after its answer.
    pub attempts: u32,
    /// The wait before the next attempt.
    pub backoff: Backoff,
    /// The bearer token to show. Without TLS anybody on the way can read it.
    pub token: Option<Token>,
    /// Who answers when the server cannot be asked in time.
    pub fallback: Option<Fallback>,
    /// TLS, instead of bare TCP.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::ClientTls>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_mins(1),
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            software: SOFTWARE.into(),
            attempts: 4,
            backoff: Backoff::default(),
            token: None,
            fallback: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Options {
    pub(super) fn transport(&self, stream: TcpStream) -> Result<Transport, Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Transport::tls(stream, tls.connection()?);
        }
        Transport::plain(stream)
    }
}

/// A secret text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token, at most [`MAX_TOKEN_BYTES`](crate::message::MAX_TOKEN_BYTES) bytes.
    pub fn new(secret: impl Into<String>) -> Token {
        Token(secret.into())
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A tail on the device, for when the link is gone.
#[derive(Clone)]
pub struct Fallback {
    /// The tail.
    pub tail: Arc<dyn Tail>,
    /// How long it takes at most: so long before a request's deadline the server is given up.
    pub reserve: Duration,
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("reserve", &self.reserve).finish_non_exhaustive()
    }
}
