//! What a server puts up with: deadlines, open requests, memory, tokens, batches, drains.

mod common;

use std::{
    io::Write as _,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use common::*;
use narrows_link::{
    Batching, Client, Code, Error, Failure, Limits, Options, Request, ServerOptions, Tail, Token, Work,
    message::Message,
};

/// Answers nothing until it is opened, and counts what it sees.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    seen: AtomicUsize,
    batches: Mutex<Vec<usize>>,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().expect("no panic") = true;
        self.opened.notify_all();
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

impl Tail for Gate {
    fn routes(&self) -> Vec<String> {
        vec!["gate".into(), "other".into()]
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
        self.seen.fetch_add(1, Ordering::SeqCst);
        let is_open = self.is_open.lock().expect("no panic");
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).expect("no panic"));
        reply.extend_from_slice(request.payload);
        Ok(Work::default())
    }

    fn max_batch(&self) -> usize {
        8
    }

    fn answer_batch(&self, requests: &[Request<'_>], replies: &mut [Vec<u8>]) -> Vec<Result<Work, Failure>> {
        assert!(requests.iter().all(|request| request.route == requests[0].route));
        self.batches.lock().expect("no panic").push(requests.len());
        requests.iter().zip(replies).map(|(request, reply)| self.answer(request, reply)).collect()
    }
}

fn gated(options: impl Into<ServerOptions>) -> (Arc<Gate>, narrows_link::Running) {
    let gate = Arc::new(Gate::default());
    let server = serve(options, Arc::clone(&gate));
    (gate, server)
}

fn one_worker(limits: Limits) -> ServerOptions {
    let batching = Batching { max_requests: 1, ..Batching::default() };
    ServerOptions { workers: Some(1), batching, ..limits.into() }
}

#[test]
fn a_request_whose_time_is_over_is_refused_and_not_computed() {
    let (gate, server) = gated(one_worker(limits()));
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(1, "gate", b"first"));
    eventually("the first is at work", || gate.seen() == 1);
    peer.say(&Message::Request(Request { id: 2, deadline_ms: 30, route: "gate", payload: b"second" }));
    peer.say(&request(3, "gate", b"third"));
    peer.say(&Message::Ping(1));
    assert!(matches!(peer.hear(), Ok(Message::Pong(1))), "all three are in");
    thread::sleep(millis(60));
    gate.open();
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(match peer.hear() {
            Ok(Message::Response(response)) => (response.id, None),
            Ok(Message::Failure { id, failure }) => (id, Some(failure.code())),
            other => panic!("no end: {other:?}"),
        });
    }
    assert_eq!(ends, [(1, None), (2, Some(Code::Expired)), (3, None)]);
    assert_eq!(gate.seen(), 2);
}

#[test]
fn nobody_computes_for_a_client_that_has_gone() {
    let (gate, server) = gated(one_worker(limits()));
    let mut stays = Peer::welcomed(&server);
    stays.say(&request(1, "gate", b""));
    eventually("the first is at work", || gate.seen() == 1);
    let mut goes = Peer::welcomed(&server);
    (1..=5).for_each(|id| goes.say(&request(id, "gate", b"")));
    goes.say(&Message::Ping(1));
    assert!(matches!(goes.hear(), Ok(Message::Pong(1))));
    drop(goes);
    thread::sleep(millis(100));
    gate.open();
    assert!(matches!(stays.hear(), Ok(Message::Response(_))));
    stays.say(&request(2, "gate", b""));
    assert!(matches!(stays.hear(), Ok(Message::Response(_))));
    assert_eq!(gate.seen(), 2);
}

#[test]
fn a_connection_with_all_its_requests_open_is_not_read() {
    let (gate, server) = gated(Limits { max_in_flight_per_connection: 2, ..limits() });
    let mut peer = Peer::welcomed(&server);
    peer.stream.set_write_timeout(Some(millis(300))).expect("a socket option");
    let mut bytes = Vec::new();
    request(1, "gate", &vec![3; 400_000]).write_into(&mut bytes, u32::MAX).expect("a request");
    // Sockets hold some megabytes; a server that reads takes all of these.
    let mut sent = 0;
    let refused = (0..100).find(|_| match peer.stream.write(&bytes) {
        Ok(count) => {
            sent += count;
            count < bytes.len()
        }
        Err(_) => true,
    });
    assert!(refused.is_some(), "{sent} bytes were taken");
    assert!(gate.seen() <= 2);
    gate.open();
}

#[test]
fn requests_above_the_bound_of_all_connections_are_told_to_come_again() {
    let limits = Limits { max_in_flight: 2, patience: millis(20), ..limits() };
    let (gate, server) = gated(ServerOptions { workers: Some(2), ..limits.into() });
    let mut first = Peer::welcomed(&server);
    first.say(&request(1, "gate", b"a"));
    first.say(&request(2, "gate", b"b"));
    eventually("both are in", || gate.seen() == 2 || !gate.batches.lock().expect("no panic").is_empty());
    let mut second = client_of(&server);
    assert_eq!(code_of(second.request("gate", &vec![1; 100_000])), Code::Busy);
    assert!(second.is_connected(), "the connection lives on");
    gate.open();
    assert!(
        matches!(first.hear(), Ok(Message::Response(_))) && matches!(first.hear(), Ok(Message::Response(_)))
    );
    assert_eq!(second.request("gate", b"c").expect("room again").payload, b"c");
}

#[test]
fn memory_is_bounded_over_all_connections() {
    let limits = Limits { max_memory_bytes: 300_000, patience: millis(20), ..limits() };
    let (gate, server) = gated(limits);
    let mut holds = Peer::welcomed(&server);
    // Half a message holds what has come of it.
    let mut bytes = Vec::new();
    request(1, "gate", &vec![3; 280_000]).write_into(&mut bytes, u32::MAX).expect("a request");
    holds.say_bytes(&bytes[..270_000]);
    let mut other = client_of(&server);
    eventually(
        "the memory is held",
        || matches!(other.request("gate", &vec![1; 200_000]), Err(Error::Refused(f)) if f.code() == Code::Busy),
    );
    assert!(other.is_connected());
    drop(holds);
    gate.open();
    eventually("the memory is free", || other.request("gate", &vec![1; 200_000]).is_ok());
    // Above all the memory there is: never.
    assert_eq!(code_of(other.request("gate", &vec![1; 310_000])), Code::Busy);
}

#[test]
fn requests_of_several_clients_are_answered_together() {
    let batching = Batching { max_requests: 4, budget: millis(500) };
    let options = ServerOptions { workers: Some(1), batching, ..limits().into() };
    let (gate, server) = gated(options);
    gate.open();
    thread::scope(|scope| {
        for number in 0..8u8 {
            let server = &server;
            let route = if number < 4 { "gate" } else { "other" };
            scope.spawn(move || {
                let answer = client_of(server).request(route, &[number; 10]).expect("an answer");
                assert_eq!(answer.payload, [number; 10]);
            });
        }
    });
    let batches = gate.batches.lock().expect("no panic");
    assert_eq!(gate.seen(), 8);
    assert!(batches.iter().all(|&size| size <= 4) && batches.contains(&4), "{batches:?}");
}

#[test]
fn a_batch_with_the_wrong_number_of_answers_is_an_internal_error() {
    struct Short;
    impl Tail for Short {
        fn routes(&self) -> Vec<String> {
            vec!["short".into()]
        }
        fn answer(&self, _: &Request<'_>, _: &mut Vec<u8>) -> Result<Work, Failure> {
            Ok(Work::default())
        }
        fn max_batch(&self) -> usize {
            2
        }
        fn answer_batch(&self, _: &[Request<'_>], _: &mut [Vec<u8>]) -> Vec<Result<Work, Failure>> {
            Vec::new()
        }
    }
    let batching = Batching { max_requests: 2, budget: Duration::from_secs(20) };
    let server = serve(ServerOptions { workers: Some(1), batching, ..limits().into() }, Short);
    let mut client = client_of(&server);
    let mut pipeline = client.pipeline();
    let call = narrows_link::Call::new("short", b"");
    pipeline.submit(call);
    pipeline.submit(call);
    for _ in 0..2 {
        assert_eq!(code_of(pipeline.next().expect("an end").1), Code::Internal);
    }
}

#[test]
fn only_who_shows_a_known_token_is_served() {
    let tokens = ["alpha", "beta"].map(Token::new).to_vec();
    let server = echo_server(ServerOptions { tokens, ..limits().into() });
    let connect = |token: Option<&str>| {
        Client::connect(server.local_addr(), Options { token: token.map(Token::new), ..options() })
    };
    for token in [None, Some(""), Some("gamma"), Some("alph"), Some("alphabeta")] {
        assert_eq!(code_of(connect(token)), Code::Unauthorized, "{token:?}");
    }
    for token in ["alpha", "beta"] {
        assert_eq!(
            connect(Some(token)).expect("a session").request("echo", b"x").expect("an echo").payload,
            b"x"
        );
    }
    assert!(!format!("{:?}", Token::new("secret")).contains("secret"));
    assert!(matches!(connect(Some(&"x".repeat(2000))), Err(Error::LimitExceeded { what: "token", .. })));
}

#[test]
fn a_drain_answers_what_is_at_work_and_what_waits() {
    let (gate, server) = gated(one_worker(limits()));
    let mut peer = Peer::welcomed(&server);
    (1..=3).for_each(|id| peer.say(&request(id, "gate", b"x")));
    peer.say(&Message::Ping(1));
    assert!(matches!(peer.hear(), Ok(Message::Pong(1))), "all three are in");
    let stopping = thread::spawn(move || server.stop());
    thread::sleep(millis(50));
    // Too late: not begun, and not answered.
    peer.say(&request(4, "gate", b"x"));
    gate.open();
    for id in 1..=3 {
        assert!(matches!(peer.hear(), Ok(Message::Response(response)) if response.id == id));
    }
    assert!(matches!(peer.hear(), Ok(Message::Goodbye)));
    stopping.join().expect("no panic").expect("a server without errors");
    assert_eq!(gate.seen(), 3);
}
