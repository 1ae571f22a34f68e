//! One client, from the hello to the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{UnboundedSender, unbounded_channel},
    },
    time::timeout,
};

use super::{
    host::{Host, no_room},
    intake::{Arrival, Intake},
    ledger::Held,
    outlet::{Outgoing, Outlet},
    pool::Job,
    stats::Stage,
};
use crate::{
    Code, Error, Failure, Work,
    message::{HEADER_BYTES, Header, Kind, Message, ProfileName, Response, Timings},
};

/// Bound on requests that come before the hello was welcomed; they are refused whatever their size.
const HANDSHAKE_LIMIT: u32 = 4096;
/// Time for a hello to arrive.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a last message to leave.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
/// After the last message: how long to take in what the peer still sends. Closing with unread
/// bytes would reset the connection, and the peer might never read why.
const LINGER: Duration = Duration::from_secs(1);

/// Holds one conversation to its end, whatever that is.
pub(super) async fn converse(
    host: Arc<Host>,
    receiver: impl AsyncRead + Unpin,
    sender: impl AsyncWrite + Unpin,
) {
    let Limits { message_timeout, .. } = Limits::of(&host);
    let mut intake = Intake::new(receiver, message_timeout);
    let mut outlet = Outlet::new(sender);
    let ended = match shake_hands(&host, &mut intake, &mut outlet).await {
        Ok(reply_limit) => talk(&host, &mut intake, &mut outlet, reply_limit).await,
        Err(error) => Err(error),
    };
    let last = match ended {
        Ok(()) => Message::Goodbye,
        Err(End::Mute) => return,
        Err(End::Error(Error::Closed | Error::Io { .. } | Error::Truncated { what: "message", .. })) => {
            return;
        }
        Err(End::Error(_)) if host.is_draining() => Message::Goodbye,
        Err(End::Error(error)) => {
            tracing::debug!(%error, "connection ended");
            Message::Failure { id: 0, failure: refusal(&error) }
        }
    };
    say_last(&mut intake, &mut outlet, &last).await;
}

/// Tells a peer that there is no room for it.
pub(super) async fn refuse(
    receiver: impl AsyncRead + Unpin,
    sender: impl AsyncWrite + Unpin,
    failure: Failure,
) {
    let (mut intake, mut outlet) = (Intake::new(receiver, LAST_TIMEOUT), Outlet::new(sender));
    say_last(&mut intake, &mut outlet, &Message::Failure { id: 0, failure }).await;
}

async fn say_last<R, W>(intake: &mut Intake<R>, outlet: &mut Outlet<W>, message: &Message<'_>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let said = async {
        outlet.say(message, LAST_TIMEOUT).await?;
        outlet.finish().await
    };
    if timeout(LAST_TIMEOUT, said).await.is_ok_and(|said| said.is_ok()) {
        let _ = timeout(LINGER, intake.drain()).await;
    }
}

/// The end of a conversation that is not a goodbye.
enum End {
    /// A message was sent in part, or the peer does not listen: nothing more can be said.
    Mute,
    Error(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Error(error)
    }
}

/// What tells a peer about an error of its making.
fn refusal(error: &Error) -> Failure {
    let code = match error {
        Error::Refused(failure) => return failure.clone(),
        Error::UnsupportedVersion { .. } => Code::UnsupportedVersion,
        Error::LimitExceeded { .. } => Code::MessageTooLarge,
        Error::Deadline { .. } => Code::TimedOut,
        _ => Code::Malformed,
    };
    Failure::new(code, error.to_string())
}

/// Waits for the hello and welcomes it; gives the longest response that the client takes.
async fn shake_hands<R, W>(host: &Host, intake: &mut Intake<R>, outlet: &mut Outlet<W>) -> Result<u32, End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Limits { message_timeout, .. } = Limits::of(host);
    let limit = message_timeout.min(HANDSHAKE_TIMEOUT);
    let arrival = timeout(limit, async {
        intake.begin().await?;
        let header = intake.header(HANDSHAKE_LIMIT).await?;
        if header.kind() != Kind::Hello {
            return Err(Error::Unexpected { found: header.kind().name(), expected: "a hello" });
        }
        let mut held = host.hold_nothing();
        let arrival = intake.message(header, &mut held, limit).await?;
        Ok((header, arrival.ok_or_else(|| Error::Refused(no_room("memory")))?))
    });
    let (header, arrival) = match arrival.await {
        Ok(arrived) => arrived?,
        Err(_) => return Err(Error::Deadline { what: "the hello", limit }.into()),
    };
    let Message::Hello(hello) = header.read_body(&arrival.bytes)? else { unreachable!("a hello's header") };
    if !host.admits(hello.token) {
        host.stats.connection("unauthorized");
        let text =
            if hello.token.is_empty() { "a token is needed here" } else { "the token is not known here" };
        return Err(Error::Refused(Failure::new(Code::Unauthorized, text)).into());
    }
    host.stats.connection("accepted");
    outlet.say(&host.welcome(hello.capabilities), message_timeout).await.map_err(|_| End::Mute)?;
    Ok(hello.max_message_bytes)
}

/// The limits of one connection, ready to be copied.
#[derive(Clone, Copy)]
struct Limits {
    max_message_bytes: u32,
    patience: Duration,
    idle_timeout: Duration,
    message_timeout: Duration,
    most: u32,
}

impl Limits {
    fn of(host: &Host) -> Limits {
        let limits = &host.options.limits;
        Limits {
            max_message_bytes: limits.max_message_bytes,
            patience: limits.patience,
            idle_timeout: limits.idle_timeout,
            message_timeout: limits.message_timeout,
            most: u32::try_from(limits.max_in_flight_per_connection)
                .unwrap_or(u32::MAX >> 3)
                .min(u32::MAX >> 3),
        }
    }
}

/// Receives and answers until somebody ends it; every request that was taken is answered first.
async fn talk<R, W>(
    host: &Arc<Host>,
    intake: &mut Intake<R>,
    outlet: &mut Outlet<W>,
    reply_limit: u32,
) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let limits = Limits::of(host);
    let (answers, outgoing) = unbounded_channel();
    let gone = Arc::new(AtomicBool::new(false));
    let mut listener = Listener {
        host,
        intake,
        answers,
        reply_limit,
        limits,
        places: Arc::new(Semaphore::new(limits.most as usize)),
        gone: Arc::clone(&gone),
    };
    let writing = outlet.send_all(outgoing, limits.message_timeout, &host.stats);
    tokio::pin!(writing);
    let heard = tokio::select! {
        heard = listener.listen() => heard,
        // Answers never end while the listener holds their entrance: this is an error.
        _ = &mut writing => {
            gone.store(true, Ordering::Relaxed);
            return Err(End::Mute);
        }
    };
    if let Err(Error::Closed | Error::Io { .. } | Error::Truncated { what: "message", .. }) = heard {
        gone.store(true, Ordering::Relaxed);
    }
    drop(listener);
    let written = writing.await;
    gone.store(true, Ordering::Relaxed);
    written.map_err(|_| End::Mute)?;
    Ok(heard?)
}

/// The receiving side of a connection.
struct Listener<'c, R> {
    host: &'c Arc<Host>,
    intake: &'c mut Intake<R>,
    answers: UnboundedSender<Outgoing>,
    reply_limit: u32,
    limits: Limits,
    /// A permit for each request of this connection that may be open.
    places: Arc<Semaphore>,
    /// Tells queued requests that nobody waits for them.
    gone: Arc<AtomicBool>,
}

/// What a request holds until its answer has been sent.
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
    held: Held,
}

impl<R: AsyncRead + Unpin> Listener<'_, R> {
    /// `Ok` is an end that the protocol foresees.
    async fn listen(&mut self) -> Result<(), Error> {
        let host = self.host;
        let drained = host.drained();
        tokio::pin!(drained);
        loop {
            // A message that is not here whole when the server is told to stop has not begun.
            tokio::select! {
                goes_on = self.next() => if !goes_on? { return Ok(()) },
                () = &mut drained => return Ok(()),
            }
        }
    }

    /// Takes in one message; `false` after a goodbye.
    async fn next(&mut self) -> Result<bool, Error> {
        self.begin().await?;
        let header = self.intake.header(self.limits.max_message_bytes).await?;
        if header.kind() == Kind::Request {
            self.request(header).await.map(|()| true)
        } else {
            self.control(header).await
        }
    }

    /// Waits for the next message; silence is an end only when nothing is owed to the client.
    async fn begin(&mut self) -> Result<(), Error> {
        let limit = self.limits.idle_timeout;
        loop {
            match timeout(limit, self.intake.begin()).await {
                Ok(begun) => return begun,
                Err(_) if self.places.available_permits() < self.limits.most as usize => {}
                Err(_) => return Err(Error::Deadline { what: "the next message", limit }),
            }
        }
    }

    /// Takes a request in and queues it. While there is no place nothing more is read.
    async fn request(&mut self, header: Header) -> Result<(), Error> {
        let patience = self.limits.patience;
        let own = Arc::clone(&self.places).acquire_owned().await.expect("never closed");
        let host = timeout(patience, Arc::clone(&self.host.in_flight).acquire_owned()).await;
        let Ok(host) = host.map(|permit| permit.expect("never closed")) else {
            return self.turn_away(header, "places for requests").await;
        };
        let mut held = self.host.hold_nothing();
        let Some(arrival) = self.intake.message(header, &mut held, patience).await? else {
            drop(host);
            return self.turn_away(header, "memory").await;
        };
        let place = Place { _own: own, _host: host, held };
        self.queue(header, arrival, place)
    }

    /// Drops a request for which there is no room, and says so.
    async fn turn_away(&mut self, header: Header, what: &str) -> Result<(), Error> {
        let id = u64::from_le_bytes(self.intake.discard(header).await?);
        let failure = no_room(what);
        self.host.stats.answered("", header.message_bytes() as u64, 0, Err(&failure));
        self.say(&Message::Failure { id, failure })
    }

    fn queue(&mut self, header: Header, arrival: Arrival, place: Place) -> Result<(), Error> {
        let Message::Request(request) = header.read_body(&arrival.bytes)? else {
            unreachable!("a request's header")
        };
        let (id, arrived) = (request.id, Instant::now());
        if id == 0 {
            return Err(Error::Reserved { what: "request id", value: 0 });
        }
        let stats = &self.host.stats;
        stats.arrived(arrival.bytes.len() as u64, arrival.rate);
        stats.stage(Stage::Receive, arrival.took);
        let reply = Reply {
            id,
            request_bytes: arrival.bytes.len() as u64,
            place,
            answers: self.answers.clone(),
            limit: self.reply_limit,
            host: Arc::clone(self.host),
        };
        let route = match self.host.route(request.route) {
            Ok(route) => route,
            Err(failure) => {
                reply.send("", Duration::ZERO, Err(failure));
                return Ok(());
            }
        };
        // The client counts from before it sent, so the time of arrival is part of its deadline.
        let deadline = Duration::from_millis(request.deadline_ms.into());
        let expires = (!deadline.is_zero()).then(|| arrived + deadline.saturating_sub(arrival.took));
        let payload_at = arrival.bytes.len() - request.payload.len();
        self.host.pool.submit(Job {
            id,
            route,
            bytes: arrival.bytes,
            payload_at,
            arrived,
            expires,
            gone: Arc::clone(&self.gone),
            respond: Box::new(move |queued, result| {
                let host = Arc::clone(&reply.host);
                reply.send(&host.routes[route], queued, result);
            }),
        });
        Ok(())
    }

    /// Takes in a message that is no request; `false` after a goodbye.
    async fn control(&mut self, header: Header) -> Result<bool, Error> {
        let mut held = self.host.hold_nothing();
        let arrival = self.intake.message(header, &mut held, self.limits.message_timeout).await?;
        let arrival = arrival.ok_or_else(|| Error::Refused(no_room("memory")))?;
        match header.read_body(&arrival.bytes)? {
            // An answer with id 0 would be about the connection.
            Message::ProfileQuery { id: 0, .. } | Message::ProfileOffer { id: 0, .. } => {
                return Err(Error::Reserved { what: "request id", value: 0 });
            }
            Message::Ping(nonce) => self.say(&Message::Pong(nonce))?,
            // Nobody is pinged here, and a pong harms nobody.
            Message::Pong(_) => {}
            Message::Goodbye => return Ok(false),
            Message::ProfileQuery { id, names } => {
                let names = names.into_iter().filter(|name| self.host.tail.has_profile(name)).collect();
                self.say(&Message::ProfileList { id, names })?;
            }
            Message::ProfileOffer { id, name, contents } => self.profile(id, name, contents)?,
            other => return Err(Error::Unexpected { found: other.kind().name(), expected: "a request" }),
        }
        Ok(true)
    }

    fn profile(&self, id: u64, name: ProfileName, contents: &[u8]) -> Result<(), Error> {
        let tail = &self.host.tail;
        let taken = if !tail.takes_profiles() {
            Err(Failure::new(Code::BadProfile, "no profiles are taken here"))
        } else if ProfileName::of(contents) == name {
            // A parser is a tail's own, and may have a tail's faults.
            let take = || tail.take_profile(&name, contents);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(take))
                .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the tail panicked on this profile")))
        } else {
            let text = format!("the profile's bytes hash to {}, not to {name}", ProfileName::of(contents));
            Err(Failure::new(Code::BadProfile, text))
        };
        match taken {
            Ok(()) => {
                tracing::info!(profile = %name, bytes = contents.len(), "profile taken");
                self.say(&Message::ProfileList { id, names: vec![name] })
            }
            Err(failure) => self.say(&Message::Failure { id, failure }),
        }
    }

    /// Queues a message without payload behind the answers that are ready.
    fn say(&self, message: &Message<'_>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        message.write_into(&mut bytes, 0)?;
        // If the sending side has ended, its error is the connection's.
        let _ = self.answers.send(Outgoing { head: bytes, payload: Vec::new(), place: None });
        Ok(())
    }
}

/// The way of an answer back to its client.
struct Reply {
    id: u64,
    request_bytes: u64,
    place: Place,
    answers: UnboundedSender<Outgoing>,
    /// Longest response that the client takes.
    limit: u32,
    host: Arc<Host>,
}

impl Reply {
    fn send(mut self, route: &str, queued: Duration, result: Result<(Work, Vec<u8>), Failure>) {
        let stats = &self.host.stats;
        stats.stage(Stage::Queue, queued);
        let mut head = Vec::new();
        let id = self.id;
        let staged = result.and_then(|(work, payload)| {
            let [queue_ns, decode_ns, tail_ns] =
                [queued, work.decode, work.tail].map(|time| time.as_nanos() as u64);
            let timings = Timings { queue_ns, decode_ns, tail_ns };
            let response = Message::Response(Response { id, timings, payload: &payload });
            match response.write_head_into(&mut head, self.limit) {
                Ok(_) => Ok((work, payload)),
                Err(error) => Err(Failure::new(Code::ReplyTooLarge, error.to_string())),
            }
        });
        let payload = match staged {
            Ok((work, payload)) => {
                stats.answered(route, self.request_bytes, (head.len() + payload.len()) as u64, Ok(&work));
                payload
            }
            Err(failure) => {
                tracing::debug!(route, %failure, "request failed");
                let message = Message::Failure { id, failure: failure.clone() };
                message.write_into(&mut head, 0).expect("a failure's text is bounded");
                stats.answered(route, self.request_bytes, head.len() as u64, Err(&failure));
                Vec::new()
            }
        };
        debug_assert!(head.len() >= HEADER_BYTES);
        self.place.held.add(payload.len() as u64);
        let _ = self.answers.send(Outgoing { head, payload, place: Some(self.place) });
    }
}
