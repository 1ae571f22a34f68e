//! Several requests at a time: they share a connection, and each ends once.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{Answer, Call, Client, Origin, Record, Reply, is_transient};
use crate::{
    Code, Error, Failure,
    message::{Message, Request, Timings},
    socket::Deadline,
};

/// Requests of one client that are open at the same time. Answers come in any order.
///
/// ```no_run
/// # use narrows_link::{Call, Client, Options};
/// # let mut client = Client::connect("127.0.0.1:7000", Options::default())?;
/// # let frames: Vec<Vec<u8>> = Vec::new();
/// let mut pipeline = client.pipeline();
/// for frame in &frames {
///     pipeline.submit(Call::new("layer2", frame));
/// }
/// while let Some((number, answer)) = pipeline.next() {
///     println!("request {number}: {} bytes", answer?.payload.len());
/// }
/// # Ok::<(), narrows_link::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipeline<'c, 'p> {
    client: &'c mut Client,
    open: Vec<Open<'p>>,
    done: VecDeque<(u64, Result<Answer, Error>)>,
    /// Sent on this session and given up: an answer may still come, and is to be ignored.
    forgotten: Vec<u64>,
}

/// A request that has not ended.
#[derive(Debug)]
struct Open<'p> {
    id: u64,
    call: Call<'p>,
    start: Instant,
    /// When the server is given up.
    deadline: Deadline,
    /// Of the session that exists now.
    sent: Option<Sent>,
    attempts: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    begun: Instant,
    took: Duration,
    bytes: u64,
}

impl<'c, 'p> Pipeline<'c, 'p> {
    pub(super) fn new(client: &'c mut Client) -> Pipeline<'c, 'p> {
        Pipeline { client, open: Vec::new(), done: VecDeque::new(), forgotten: Vec::new() }
    }

    /// Takes a request on, and sends it if the connection is there and the server takes one more;
    /// gives the number under which [`next`](Pipeline::next) hands out its end.
    pub fn submit(&mut self, call: Call<'p>) -> u64 {
        let open = self.begun(call);
        let id = open.id;
        self.open.push(open);
        if self.client.session.is_some()
            && let Err(error) = self.send_unsent()
        {
            self.lost(&error);
        }
        id
    }

    /// Takes a request on for the local tail alone.
    pub(super) fn submit_to_fallback(&mut self, call: Call<'p>) {
        let open = self.begun(call);
        self.end(&open, Err(Error::Closed));
    }

    fn begun(&mut self, call: Call<'p>) -> Open<'p> {
        let limit = call.timeout.unwrap_or(self.client.options.request_timeout);
        let reserve = self.client.options.fallback.as_ref().map_or(Duration::ZERO, |own| own.reserve);
        let start = Instant::now();
        let deadline = Deadline::after(start, limit.saturating_sub(reserve));
        Open { id: self.client.next_id(), call, start, deadline, sent: None, attempts: 0 }
    }

    /// Requests that have not been handed out by [`next`](Pipeline::next).
    pub fn len(&self) -> usize {
        self.open.len() + self.done.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until some request has ended, in whatever way; `None` if there is none.
    ///
    /// The errors are those of [`Client::call`].
    #[expect(clippy::should_implement_trait, reason = "an iterator would end; here more can be submitted")]
    pub fn next(&mut self) -> Option<(u64, Result<Answer, Error>)> {
        loop {
            if let Some(done) = self.done.pop_front() {
                return Some(done);
            }
            if self.open.is_empty() {
                return None;
            }
            if let Err(error) = self.advance() {
                self.lost(&error);
            }
        }
    }

    /// One step: connect, send, or receive. An error is the session's.
    fn advance(&mut self) -> Result<(), Error> {
        let soonest = self.open.iter().map(|open| open.deadline).reduce(Deadline::min);
        let soonest = soonest.expect("some request is open");
        if soonest.left().is_zero() {
            return Err(soonest.error("the answer"));
        }
        if self.client.session.is_none() {
            self.forgotten.clear();
            self.wait_to_connect(soonest)?;
            self.client.open(soonest)?;
        }
        self.send_unsent()?;
        if self.open.iter().all(|open| open.sent.is_none()) {
            return Ok(());
        }
        let session = self.client.session.as_mut().expect("a session was opened");
        let (id, reply) = session.receive(soonest)?;
        self.take(id, reply)
    }

    /// With a tail of one's own there is no point in waiting for the server's return.
    fn wait_to_connect(&mut self, soonest: Deadline) -> Result<(), Error> {
        if self.client.options.fallback.is_some() && !self.client.retry.wait().is_zero() {
            while let Some(open) = self.open.pop() {
                self.end(&open, Err(Error::Closed));
            }
            return Ok(());
        }
        self.client.wait_to_retry(soonest).map_err(|()| {
            // Nothing more will be tried for the soonest: its time ends while it waits.
            std::thread::sleep(soonest.left());
            soonest.error("the answer")
        })
    }

    /// Sends what fits into the server's bound on open requests. With no more than that open, the
    /// server always reads, and sending cannot wait for receiving.
    fn send_unsent(&mut self) -> Result<(), Error> {
        let Some(session) = &mut self.client.session else { return Ok(()) };
        let mut sent = self.open.iter().filter(|open| open.sent.is_some()).count() + self.forgotten.len();
        let mut index = 0;
        while index < self.open.len() && sent < session.greeting.max_in_flight {
            let open = &mut self.open[index];
            index += 1;
            if open.sent.is_some() {
                continue;
            }
            let left = open.deadline.left();
            if left.is_zero() {
                return Err(open.deadline.error("sending"));
            }
            let begun = Instant::now();
            let deadline_ms = u32::try_from(left.as_millis() + 1).unwrap_or(0);
            let Call { route, payload, .. } = open.call;
            let request = Message::Request(Request { id: open.id, deadline_ms, route, payload });
            match session.send(&request, open.deadline) {
                Ok(bytes) => {
                    open.attempts += 1;
                    open.sent = Some(Sent { begun, took: begun.elapsed(), bytes });
                    sent += 1;
                }
                // Nothing was sent: this request can never be.
                Err(error @ Error::LimitExceeded { .. }) => {
                    index -= 1;
                    let open = self.open.remove(index);
                    self.done.push_back((open.id, Err(error)));
                }
                Err(error) => {
                    open.attempts += 1;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Hands a reply to whoever waits for it.
    fn take(&mut self, id: u64, reply: Reply) -> Result<(), Error> {
        if let Some(index) = self.forgotten.iter().position(|&forgotten| forgotten == id) {
            self.forgotten.swap_remove(index);
            return Ok(());
        }
        let index = self.open.iter().position(|open| open.id == id && open.sent.is_some());
        let index = index.ok_or(Error::WrongId { received: id })?;
        match reply {
            Reply::Response(bytes, timings, payload) => {
                let open = self.open.swap_remove(index);
                let answer = open.answered(bytes, timings, payload);
                self.done.push_back((id, Ok(answer)));
            }
            Reply::Refusal(failure) if failure.code() == Code::Busy => self.busy(index, failure),
            Reply::Refusal(failure) => {
                let open = self.open.swap_remove(index);
                self.end(&open, Err(Error::Refused(failure)));
            }
            Reply::Profiles(_) | Reply::Pong => {
                return Err(Error::Unexpected { found: "another reply", expected: "a response" });
            }
        }
        Ok(())
    }

    /// The server had no room for a request: try again a little later, if that can help.
    fn busy(&mut self, index: usize, failure: Failure) {
        let (backoff, attempts) = (self.client.options.backoff, self.client.options.attempts);
        let open = &mut self.open[index];
        let wait = backoff.wait(open.attempts);
        if open.attempts < attempts && wait < open.deadline.left() {
            open.sent = None;
            std::thread::sleep(wait);
        } else {
            let open = self.open.swap_remove(index);
            self.end(&open, Err(Error::Refused(failure)));
        }
    }

    /// After an error of the session: ends what cannot go on, and has the rest sent again.
    fn lost(&mut self, error: &Error) {
        let heard_at = self.client.session.as_ref().map(|session| session.heard_at);
        // A deadline passed, but the server was heard since the request was sent: it lives.
        let lives = matches!(error, Error::Deadline { what: "the answer", .. })
            && heard_at.is_some_and(|heard_at| {
                let late = self.open.iter().filter(|open| open.deadline.left().is_zero());
                late.filter_map(|open| open.sent).all(|sent| sent.begun < heard_at)
            });
        if !lives {
            self.client.lose();
        }
        let most = self.client.options.attempts.max(1);
        for open in std::mem::take(&mut self.open) {
            let is_late = open.deadline.left().is_zero();
            let is_spent = !lives && (!is_transient(error) || open.attempts >= most);
            if is_late {
                if lives && open.sent.is_some() {
                    self.forgotten.push(open.id);
                }
                let late = open.deadline.error("the answer");
                self.end(&open, Err(late));
            } else if is_spent {
                self.end(&open, Err(error.clone()));
            } else if lives {
                self.open.push(open);
            } else {
                // A connection that was refused was an attempt too.
                let attempts = open.attempts + u32::from(open.sent.is_none() && heard_at.is_none());
                self.open.push(Open { sent: None, attempts, ..open });
            }
        }
    }

    /// Ends a request without the server's answer: with the local tail's, if there is one and the
    /// server did not refuse the request itself.
    fn end(&mut self, open: &Open<'p>, result: Result<Answer, Error>) {
        let result = match (&self.client.options.fallback, &result) {
            (Some(fallback), Err(error)) if is_transient(error) || is_expired(error) => {
                let Call { route, payload, .. } = open.call;
                let request = Request { id: open.id, deadline_ms: 0, route, payload };
                let mut reply = Vec::new();
                let tail = &fallback.tail;
                match catch_unwind(AssertUnwindSafe(|| tail.answer(&request, &mut reply))) {
                    Ok(Ok(work)) => {
                        let timings = Timings {
                            queue_ns: 0,
                            decode_ns: work.decode.as_nanos() as u64,
                            tail_ns: work.tail.as_nanos() as u64,
                        };
                        Ok(open.answered_locally(timings, reply))
                    }
                    Ok(Err(failure)) => Err(Error::Refused(failure)),
                    Err(_) => {
                        let text = "the local tail panicked on this request";
                        Err(Error::Refused(Failure::new(Code::Internal, text)))
                    }
                }
            }
            _ => result,
        };
        self.done.push_back((open.id, result));
    }
}

fn is_expired(error: &Error) -> bool {
    matches!(error, Error::Refused(failure) if failure.code() == Code::Expired)
}

impl Drop for Pipeline<'_, '_> {
    fn drop(&mut self) {
        // An answer that nobody waits for must not meet the next request.
        if self.open.iter().any(|open| open.sent.is_some()) || !self.forgotten.is_empty() {
            self.client.lose();
        }
    }
}

impl Open<'_> {
    fn answered(&self, bytes_received: u64, timings: Timings, payload: Vec<u8>) -> Answer {
        let sent = self.sent.expect("only what was sent is answered");
        let round_trip = self.start.elapsed();
        let [queue, decode, tail] =
            [timings.queue_ns, timings.decode_ns, timings.tail_ns].map(Duration::from_nanos);
        let record = Record {
            bytes_sent: sent.bytes,
            bytes_received,
            encode: self.call.encode,
            send: sent.took,
            wait: sent
                .begun
                .elapsed()
                .saturating_sub(sent.took + queue.saturating_add(decode).saturating_add(tail)),
            queue,
            decode,
            tail,
            total: round_trip + self.call.encode,
            attempts: self.attempts,
            origin: Origin::Server,
        };
        Answer { payload, timings, round_trip, record }
    }

    fn answered_locally(&self, timings: Timings, payload: Vec<u8>) -> Answer {
        let round_trip = self.start.elapsed();
        let [decode, tail] = [timings.decode_ns, timings.tail_ns].map(Duration::from_nanos);
        let record = Record {
            bytes_sent: 0,
            bytes_received: 0,
            encode: self.call.encode,
            send: Duration::ZERO,
            wait: round_trip.saturating_sub(decode + tail),
            queue: Duration::ZERO,
            decode,
            tail,
            total: round_trip + self.call.encode,
            attempts: self.attempts,
            origin: Origin::Local,
        };
        Answer { payload, timings, round_trip, record }
    }
}
