//! The client side: asks a server's tail, over one connection that is made again when it is lost.

mod backoff;
mod options;
mod pipeline;
mod record;
mod session;
mod transport;

pub use backoff::Backoff;
pub use options::{Fallback, Options, Token};
pub use pipeline::Pipeline;
pub use record::{Answer, Origin, Record};

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use crate::{
    Code, Error,
    message::{Message, ProfileName},
    socket::Deadline,
};
use backoff::Retry;
use session::{Greeting, Reply, Session};

/// One request to be made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// One of the server's routes.
    pub route: &'a str,
    /// A frame.
    pub payload: &'a [u8],
    /// Time for the answer, if it is not the client's [`Options::request_timeout`].
    pub timeout: Option<Duration>,
    /// What encoding the frame took, for the record.
    pub encode: Duration,
}

impl<'a> Call<'a> {
    /// A request with the client's own timeout.
    pub fn new(route: &'a str, payload: &'a [u8]) -> Call<'a> {
        Call { route, payload, timeout: None, encode: Duration::ZERO }
    }
}

/// A client of one server. Its connection is made when it is needed, used by one request after the
/// other (or by several at a time, see [`pipeline`](Client::pipeline)), and made again when lost.
#[derive(Debug)]
pub struct Client {
    addresses: Vec<SocketAddr>,
    options: Options,
    session: Option<Session>,
    /// Of the latest session.
    greeting: Greeting,
    retry: Retry,
    /// Of the latest request or ping; goes on over reconnections, so that no answer finds another's
    /// request.
    id: u64,
}

impl Client {
    /// Connects to the first of `address`'s addresses that answers, and shakes hands.
    ///
    /// # Errors
    /// Nobody answers in time, or the server refuses ([`Error::Refused`]) or speaks otherwise.
    pub fn connect(address: impl ToSocketAddrs, options: Options) -> Result<Client, Error> {
        let mut client = Client::offline(address, options)?;
        let deadline = Deadline::after(Instant::now(), client.options.connect_timeout);
        client.open(deadline)?;
        Ok(client)
    }

    /// A client that connects when it is first asked something.
    ///
    /// # Errors
    /// The address names no host.
    pub fn offline(address: impl ToSocketAddrs, options: Options) -> Result<Client, Error> {
        let addresses = address.to_socket_addrs().map_err(Error::io("resolving the address"))?.collect();
        let (greeting, retry) = (Greeting::default(), Retry::default());
        Ok(Client { addresses, options, session: None, greeting, retry, id: 0 })
    }

    /// The models and cuts that the server named when it was last connected to.
    pub fn routes(&self) -> &[String] {
        &self.greeting.routes
    }

    /// The server's name for itself.
    pub fn server_software(&self) -> &str {
        &self.greeting.software
    }

    /// Whether there is a connection, as far as is known here.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Sends `payload` to `route` and waits for the answer.
    ///
    /// # Errors
    /// As of [`call`](Client::call).
    pub fn request(&mut self, route: &str, payload: &[u8]) -> Result<Answer, Error> {
        self.call(Call::new(route, payload))
    }

    /// Makes one request and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's failure, [`Error::LimitExceeded`] for a request above
    /// the server's limit, [`Error::Deadline`] at the end of the request's time, or what ended the
    /// last attempt's connection. The client can be used further after any of them.
    pub fn call(&mut self, call: Call<'_>) -> Result<Answer, Error> {
        let mut pipeline = self.pipeline();
        pipeline.submit(call);
        pipeline.next().map_or(Err(Error::Closed), |(_, ended)| ended)
    }

    /// Answers one request with the [`Fallback`], and does not ask the server.
    ///
    /// # Errors
    /// [`Error::Closed`] if there is none, [`Error::Refused`] with its failure.
    pub fn call_fallback(&mut self, call: Call<'_>) -> Result<Answer, Error> {
        let mut pipeline = self.pipeline();
        pipeline.submit_to_fallback(call);
        pipeline.next().map_or(Err(Error::Closed), |(_, ended)| ended)
    }

    /// Several requests at a time, over one connection.
    pub fn pipeline<'p>(&mut self) -> Pipeline<'_, 'p> {
        Pipeline::new(self)
    }

    /// The time of a ping there and its pong back: the link without payload or tail. Also keeps an
    /// idle connection open.
    ///
    /// # Errors
    /// As of a request.
    pub fn ping(&mut self) -> Result<Duration, Error> {
        let (reply, round_trip) = self.converse(Message::Ping)?;
        match reply {
            Reply::Pong => Ok(round_trip),
            _ => Err(Error::Unexpected { found: "another reply", expected: "a pong" }),
        }
    }

    /// Which of these profiles the server lacks.
    ///
    /// # Errors
    /// As of a request; or the server takes no profiles.
    pub fn missing_profiles(&mut self, names: &[ProfileName]) -> Result<Vec<ProfileName>, Error> {
        let (reply, _) = self.converse(|id| Message::ProfileQuery { id, names: names.to_vec() })?;
        let there = profiles_of(reply)?;
        Ok(names.iter().filter(|name| !there.contains(name)).copied().collect())
    }

    /// Gives the server a profile, unless it has it; gives the profile's name.
    ///
    /// # Errors
    /// As of a request; [`Error::Refused`] with [`Code::BadProfile`] if it is not taken.
    pub fn offer_profile(&mut self, contents: &[u8]) -> Result<ProfileName, Error> {
        let name = ProfileName::of(contents);
        if self.missing_profiles(&[name])?.is_empty() {
            return Ok(name);
        }
        let (reply, _) = self.converse(|id| Message::ProfileOffer { id, name, contents })?;
        profiles_of(reply)?;
        Ok(name)
    }

    /// Whether the server takes profiles, as it said when it was last connected to.
    pub fn server_takes_profiles(&self) -> bool {
        self.greeting.takes_profiles
    }

    /// Asks something that takes no tail, with as many attempts as a request; also says how long
    /// the answered attempt took.
    fn converse<'m>(&mut self, message: impl Fn(u64) -> Message<'m>) -> Result<(Reply, Duration), Error> {
        let deadline = Deadline::after(Instant::now(), self.options.request_timeout);
        let mut attempts = 1;
        loop {
            match self.converse_once(&message, deadline) {
                Ok((Reply::Refusal(failure), _)) => return Err(Error::Refused(failure)),
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    self.lose();
                    if !is_transient(&error) || attempts >= self.options.attempts.max(1) {
                        return Err(error);
                    }
                    self.wait_to_retry(deadline).map_err(|()| error)?;
                    attempts += 1;
                }
            }
        }
    }

    fn converse_once<'m>(
        &mut self,
        message: impl Fn(u64) -> Message<'m>,
        deadline: Deadline,
    ) -> Result<(Reply, Duration), Error> {
        let id = self.next_id();
        let session = self.open(deadline)?;
        let start = Instant::now();
        session.send(&message(id), deadline)?;
        match session.receive(deadline)? {
            (received, reply) if received == id => Ok((reply, start.elapsed())),
            (received, _) => Err(Error::WrongId { received }),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.id += 1;
        self.id
    }

    /// The open session, or a new one.
    fn open(&mut self, deadline: Deadline) -> Result<&mut Session, Error> {
        let session = match self.session.take() {
            Some(session) => Ok(session),
            None => self.connected(deadline),
        };
        Ok(self.session.insert(session?))
    }

    fn connected(&mut self, deadline: Deadline) -> Result<Session, Error> {
        let own = Deadline::after(Instant::now(), self.options.connect_timeout);
        let session = Session::open(&self.addresses, &self.options, own.min(deadline))
            .inspect_err(|_| self.retry.failed(&self.options.backoff))?;
        self.retry.succeeded();
        self.greeting = session.greeting.clone();
        Ok(session)
    }

    /// Forgets the session, of which nothing more is expected.
    fn lose(&mut self) {
        if let Some(session) = self.session.take() {
            session.abandon();
        }
    }

    /// Sleeps until the next attempt is due; `Err` if that is not before the deadline.
    fn wait_to_retry(&self, deadline: Deadline) -> Result<(), ()> {
        let wait = self.retry.wait();
        if wait >= deadline.left() {
            return Err(());
        }
        std::thread::sleep(wait);
        Ok(())
    }
}

fn profiles_of(reply: Reply) -> Result<Vec<ProfileName>, Error> {
    match reply {
        Reply::Profiles(names) => Ok(names),
        _ => Err(Error::Unexpected { found: "another reply", expected: "a profile list" }),
    }
}

/// Whether another attempt may end better: what a bad link or a restarting server can cause.
fn is_transient(error: &Error) -> bool {
    match error {
        Error::Refused(failure) => matches!(failure.code(), Code::Busy | Code::TimedOut | Code::Malformed),
        Error::Io { source, .. } => source.kind() != std::io::ErrorKind::InvalidInput && !is_tls(source),
        Error::Tls { .. }
        | Error::Setting { .. }
        | Error::InvalidSetting { .. }
        | Error::UnsupportedVersion { .. }
        | Error::BadMagic { .. }
        | Error::LimitExceeded { .. } => false,
        _ => true,
    }
}

/// A certificate that is not accepted now will not be a moment later.
fn is_tls(error: &std::io::Error) -> bool {
    #[cfg(feature = "tls")]
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        // A broken record is what a bad link makes of a good one.
        return matches!(
            error,
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::AlertReceived(
                    rustls::AlertDescription::CertificateRequired
                        | rustls::AlertDescription::UnknownCA
                        | rustls::AlertDescription::BadCertificate
                        | rustls::AlertDescription::CertificateUnknown
                )
        );
    }
    let _ = error;
    false
}
