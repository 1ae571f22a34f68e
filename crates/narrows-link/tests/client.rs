//! What the client does about lost connections, deadlines, busy servers, and a link that is gone.

#[path = "load/address.rs"]
mod address;
mod common;

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use address::quiet_address as nobody;
use common::*;
use narrows_link::{
    Backoff, Call, Client, Code, Error, Failure, Fallback, Limits, Options, Origin, ProfileName, Request,
    Running, Server, ServerOptions, Tail, Work,
};

/// Several attempts, close together.
fn persistent() -> Options {
    let backoff = Backoff { base: millis(5), most: millis(20) };
    Options { attempts: 20, backoff, ..options() }
}

fn server_at(address: SocketAddr, limits: &Limits) -> Running {
    let mut server = Server::bind(address, limits.clone());
    eventually("a free port", || {
        if server.is_err() {
            server = Server::bind(address, limits.clone());
        }
        server.is_ok()
    });
    server.and_then(|server| server.spawn(Echo)).expect("a server")
}

#[test]
fn answers_come_as_they_are_ready_and_each_once() {
    let server = echo_server(ServerOptions { workers: Some(4), ..limits().into() });
    let payloads: Vec<Vec<u8>> = (0..200u8).map(|i| vec![i; 100 * usize::from(i)]).collect();
    let mut client = client_of(&server);
    let mut pipeline = client.pipeline();
    let slow = pipeline.submit(Call::new("slow", b"slow"));
    let mut open: BTreeMap<u64, &Vec<u8>> =
        payloads.iter().map(|payload| (pipeline.submit(Call::new("echo", payload)), payload)).collect();
    let mut order = Vec::new();
    while let Some((id, answer)) = pipeline.next() {
        let payload = answer.expect("an answer").payload;
        if id == slow {
            assert_eq!(payload, b"slow");
        } else {
            assert!(&payload == open.remove(&id).expect("an id that is open"));
        }
        order.push(id);
    }
    assert!(open.is_empty() && pipeline.is_empty());
    assert_ne!(order[0], slow, "the slow one was sent first and must not hold up the others");
    assert_eq!(order.len(), 201);
}

#[test]
fn a_request_outlives_its_server() {
    let address = nobody();
    let server = server_at(address, &limits());
    let mut client = Client::connect(address, persistent()).expect("a session");
    client.request("echo", b"one").expect("an echo");
    drop(server);
    let restart = thread::spawn(move || {
        thread::sleep(millis(50));
        server_at(address, &limits())
    });
    let answer = client.request("echo", b"two").expect("an echo of the new server");
    assert_eq!(answer.payload, b"two");
    assert!(answer.record.attempts > 0 && answer.record.total == answer.round_trip);
    drop(restart.join().expect("no panic"));
}

#[test]
fn a_connection_that_the_server_ended_in_silence_is_made_again() {
    let server = echo_server(Limits { idle_timeout: millis(30), ..limits() });
    let mut client = Client::connect(server.local_addr(), persistent()).expect("a session");
    thread::sleep(millis(200));
    assert_eq!(client.request("echo", b"x").expect("an echo").record.attempts, 2);
    thread::sleep(millis(200));
    client.ping().expect("a pong");
}

#[test]
fn without_a_server_a_request_ends_at_its_deadline_or_before() {
    let address = nobody();
    let request_timeout = millis(200);
    let endless = Options { attempts: u32::MAX, request_timeout, ..persistent() };
    let mut client = Client::offline(address, endless).expect("an address");
    let start = Instant::now();
    assert!(matches!(client.request("echo", b"x"), Err(Error::Deadline { .. })));
    assert!((millis(150)..millis(2000)).contains(&start.elapsed()), "{:?}", start.elapsed());
    let mut once = Client::offline(address, options()).expect("an address");
    assert!(matches!(once.request("echo", b"x"), Err(Error::Io { .. })));
    assert!(Client::connect(address, options()).is_err());
}

#[test]
fn the_deadline_holds_against_a_server_that_says_nothing() {
    // Accepts into its backlog, and never reads.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let options = Options { request_timeout: millis(150), ..persistent() };
    let mut client =
        Client::offline(listener.local_addr().expect("an address"), options).expect("an address");
    let start = Instant::now();
    assert!(matches!(client.request("echo", b"x"), Err(Error::Deadline { .. })));
    assert!((millis(150)..millis(2000)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn a_late_answer_is_never_taken_for_the_next() {
    let server = echo_server(limits());
    let mut client = client_of(&server);
    let late = Call { timeout: Some(millis(50)), ..Call::new("slow", b"late") };
    match client.call(late) {
        Err(Error::Deadline { limit, .. }) => assert_eq!(limit, millis(50)),
        other => panic!("not late: {other:?}"),
    }
    for _ in 0..3 {
        assert_eq!(client.request("slow", b"next").expect("an answer").payload, b"next");
    }
}

#[test]
fn one_late_answer_does_not_cost_the_others_their_connection() {
    let server = echo_server(ServerOptions { workers: Some(4), ..limits().into() });
    let mut client = client_of(&server);
    let mut pipeline = client.pipeline();
    let late = pipeline.submit(Call { timeout: Some(millis(150)), ..Call::new("slow", b"late") });
    let patient = pipeline.submit(Call::new("slow", b"patient"));
    let quick = pipeline.submit(Call::new("echo", b"quick"));
    let mut ends = HashMap::new();
    while let Some((id, ended)) = pipeline.next() {
        assert!(ends.insert(id, ended).is_none(), "request {id} ended twice");
    }
    assert!(matches!(ends[&late], Err(Error::Deadline { .. })));
    assert_eq!(ends[&quick].as_ref().expect("an answer").payload, b"quick");
    let patient = ends[&patient].as_ref().expect("an answer");
    assert_eq!((patient.payload.as_slice(), patient.record.attempts), (b"patient".as_slice(), 1));
}

#[test]
fn a_busy_server_is_asked_again() {
    let limits = Limits { max_in_flight: 1, patience: Duration::ZERO, ..limits() };
    let server = echo_server(limits);
    let busy = Options { backoff: Backoff { base: millis(100), most: millis(200) }, ..persistent() };
    let attempts = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(server.local_addr(), busy.clone()).expect("a session");
                let answer = client.request("slow", b"x").expect("an answer");
                *attempts.lock().expect("no panic") += answer.record.attempts;
            });
        }
    });
    assert!(*attempts.lock().expect("no panic") > 3, "three at once, and nobody was turned away");
}

#[test]
fn a_record_says_where_the_time_went() {
    let server = echo_server(limits());
    let mut client = client_of(&server);
    let call = Call { encode: millis(7), ..Call::new("slow", &[1; 1000]) };
    let answer = client.call(call).expect("an answer");
    let record = answer.record;
    assert_eq!((record.origin, record.attempts, record.encode), (Origin::Server, 1, millis(7)));
    // Header, id, deadline and route; header, id and timings.
    assert_eq!((record.bytes_sent, record.bytes_received), (16 + 12 + 6 + 1000, 16 + 32 + 1000));
    assert_eq!((record.decode, record.tail), (WORK.decode, WORK.tail));
    assert!(record.total >= SLOW + millis(7) && record.total == answer.round_trip + millis(7));
    let parts = record.encode + record.send + record.wait + record.queue + record.decode + record.tail;
    assert!(parts <= record.total && record.total.abs_diff(parts) < millis(300), "{record:?}");
}

fn with_fallback(options: Options) -> Options {
    let fallback = Fallback { tail: Arc::new(Echo), reserve: millis(50) };
    Options { fallback: Some(fallback), ..options }
}

#[test]
fn without_a_link_the_local_tail_answers() {
    let mut client = Client::offline(nobody(), with_fallback(options())).expect("an address");
    for _ in 0..5 {
        let answer = client.request("echo", b"mine").expect("a local answer");
        assert_eq!((answer.payload.as_slice(), answer.record.origin), (b"mine".as_slice(), Origin::Local));
        assert_eq!(answer.record.tail, WORK.tail);
    }
    assert_eq!(code_of(client.request("panic", b"x")), Code::Internal);
    assert_eq!(code_of(client.request("fail", b"x")), Code::BadPayload);
}

#[test]
fn the_local_tail_steps_in_before_the_deadline_and_back_when_the_server_returns() {
    let address = nobody();
    let options = Options { request_timeout: millis(150), ..with_fallback(persistent()) };
    let listener = TcpListener::bind(address).expect("the port");
    let mut client = Client::offline(address, options).expect("an address");
    let answer = client.request("echo", b"x").expect("a local answer to a silent server");
    assert_eq!(answer.record.origin, Origin::Local);
    assert!(answer.round_trip >= millis(100), "{:?}", answer.round_trip);
    drop(listener);
    let _server = server_at(address, &limits());
    eventually("the server is asked again", || {
        client.request("echo", b"x").expect("an answer").record.origin == Origin::Server
    });
}

#[test]
fn what_the_server_refuses_the_local_tail_is_not_asked() {
    let server = echo_server(limits());
    let mut client = Client::connect(server.local_addr(), with_fallback(options())).expect("a session");
    assert_eq!(code_of(client.request("huge", b"x")), Code::ReplyTooLarge);
    assert_eq!(code_of(client.request("elsewhere", b"x")), Code::UnknownRoute);
}

/// Takes profiles that begin with `P`.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<ProfileName, Vec<u8>>>);

impl Tail for Shelf {
    fn routes(&self) -> Vec<String> {
        vec!["shelf".into()]
    }

    fn answer(&self, _: &Request<'_>, _: &mut Vec<u8>) -> Result<Work, Failure> {
        Ok(Work::default())
    }

    fn takes_profiles(&self) -> bool {
        true
    }

    fn has_profile(&self, name: &ProfileName) -> bool {
        self.0.lock().expect("no panic").contains_key(name)
    }

    fn take_profile(&self, name: &ProfileName, contents: &[u8]) -> Result<(), Failure> {
        match contents {
            [b'P', ..] => {
                self.0.lock().expect("no panic").insert(*name, contents.into());
                Ok(())
            }
            [b'!', ..] => panic!("a parser that breaks down"),
            _ => Err(Failure::new(Code::BadProfile, "no profile")),
        }
    }
}

#[test]
fn a_server_gets_the_profiles_that_it_lacks() {
    let shelf = Arc::new(Shelf::default());
    let server = serve(limits(), Arc::clone(&shelf));
    let mut client = client_of(&server);
    assert!(client.server_takes_profiles());
    let name = ProfileName::of(b"P one");
    assert_eq!(client.missing_profiles(&[name, no_profile()]).expect("a list"), [name, no_profile()]);
    assert_eq!(client.offer_profile(b"P one").expect("taken"), name);
    assert_eq!(client.missing_profiles(&[name, no_profile()]).expect("a list"), [no_profile()]);
    assert_eq!(client.offer_profile(b"P one").expect("there already"), name);
    assert_eq!(code_of(client.offer_profile(b"junk")), Code::BadProfile);
    assert_eq!(code_of(client.offer_profile(b"!")), Code::Internal);
    assert!(matches!(client.offer_profile(&vec![b'P'; (1 << 20) + 1]), Err(Error::LimitExceeded { .. })));
    client.request("shelf", b"").expect("the session lives");
    assert_eq!(shelf.0.lock().expect("no panic").len(), 1);
}

#[test]
fn a_profile_under_a_wrong_name_is_refused() {
    use narrows_link::message::Message;
    let server = serve(limits(), Shelf::default());
    let mut peer = Peer::welcomed(&server);
    peer.say(&Message::ProfileOffer { id: 5, name: no_profile(), contents: b"P one" });
    match peer.hear() {
        Ok(Message::Failure { id: 5, failure }) => assert_eq!(failure.code(), Code::BadProfile),
        other => panic!("not a refusal: {other:?}"),
    }
    let server = echo_server(limits());
    assert!(!client_of(&server).server_takes_profiles());
    assert_eq!(code_of(client_of(&server).offer_profile(b"P one")), Code::BadProfile);
}
