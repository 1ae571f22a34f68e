//! The link model's formulas, and the proxy: delays are bounded from below only, since a busy
//! machine may take any time longer.

use std::time::{Duration, Instant};

use narrows_link::{
    Client, Error, Failure, Limits, Options, Request, Running, Server, Tail, Timings,
    emulator::{Link, Outage, Proxy},
};

struct Echo;

impl Tail for Echo {
    fn routes(&self) -> Vec<String> {
        vec!["echo".into()]
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure> {
        reply.extend_from_slice(request.payload);
        Ok(Timings::default())
    }
}

fn echo_server() -> Running {
    Server::bind("127.0.0.1:0", Limits::default()).and_then(|server| server.spawn(Echo)).expect("a server")
}

fn client_through(proxy: &Proxy) -> Client {
    Client::connect(proxy.local_addr(), Options::default()).expect("a session")
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn the_reference_channel_gives_143_6_kilobits_per_second() {
    let rate = Outage::default().rate().expect("valid parameters");
    assert!((rate - 143_624.398).abs() < 0.001, "{rate}");
    let same = Outage { bandwidth_hz: 10e6, gamma_db: 10.0, sigma_h2: 1.0, epsilon: 0.001 };
    assert_eq!(same.rate().expect("valid parameters"), rate);
}

#[test]
fn the_reference_tensor_takes_3_1_seconds() {
    let link = Link::at_rate(Outage::default().rate().expect("valid parameters")).expect("a rate");
    let seconds = link.transfer_time(56_000).as_secs_f64();
    assert!((seconds - 3.119).abs() < 0.001, "{seconds}");
}

#[test]
fn the_outage_rate_follows_its_formula() {
    // gamma = 20 dB = 100, x = -0.5 ln(0.9), R = 1e6 log2(1 + 100 x)
    let outage = Outage { bandwidth_hz: 1e6, gamma_db: 20.0, sigma_h2: 0.5, epsilon: 0.1 };
    let expected = 1e6 * (1.0 - 100.0 * 0.5 * 0.9f64.ln()).log2();
    assert!((outage.rate().expect("valid parameters") / expected - 1.0).abs() < 1e-12);
}

#[test]
fn parameters_outside_their_range_are_refused() {
    let good = Outage::default();
    let bad = [
        Outage { bandwidth_hz: 0.0, ..good },
        Outage { gamma_db: f64::NAN, ..good },
        Outage { sigma_h2: -1.0, ..good },
        Outage { epsilon: 0.0, ..good },
        Outage { epsilon: 1.0, ..good },
    ];
    for outage in bad {
        assert!(matches!(outage.rate(), Err(Error::InvalidSetting { .. })), "{outage:?}");
    }
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(Link::at_rate(rate), Err(Error::InvalidSetting { .. })), "{rate}");
    }
}

#[test]
fn a_transfer_takes_serialisation_and_delay() {
    let link = Link::at_rate(8000.0).expect("a rate").with_delay(millis(20));
    assert_eq!(link.transfer_time(500), millis(520));
    assert_eq!(link.transfer_time(0), millis(20));
    assert_eq!(Link::ideal().transfer_time(u64::MAX), Duration::ZERO);
    assert_eq!(Link::at_rate(1e-300).expect("a rate").transfer_time(1), Duration::MAX);
}

#[test]
fn jitter_is_bounded_spread_and_the_same_for_the_same_seed() {
    let link = Link::ideal().with_delay(millis(5)).with_jitter(millis(10), 42);
    let times: Vec<Duration> = (0..1000).map(|nth| link.transfer_time_of(nth, 100)).collect();
    assert!(times.iter().all(|&time| time >= millis(5) && time < millis(15)));
    assert!(times.iter().any(|&time| time < millis(6)) && times.iter().any(|&time| time > millis(14)));
    assert!((0..1000).all(|nth| link.transfer_time_of(nth, 100) == times[nth as usize]));
    let other = link.with_jitter(millis(10), 43);
    assert!((0..1000).any(|nth| other.jitter_of(nth) != link.jitter_of(nth)));
}

#[test]
fn an_echo_through_an_ideal_proxy_comes_back_whole() {
    let server = echo_server();
    let proxy = Proxy::start(server.local_addr(), Link::ideal(), Link::ideal()).expect("a proxy");
    let mut client = client_through(&proxy);
    for length in [0, 1, 1500, 56_000, 1_000_000] {
        let payload: Vec<u8> = (0..length).map(|i: u32| (i * 13) as u8).collect();
        assert!(client.request("echo", &payload).expect("an echo").payload == payload, "{length} bytes");
    }
}

#[test]
fn the_proxy_delays_both_ways() {
    let server = echo_server();
    let up = Link::ideal().with_delay(millis(30));
    let proxy = Proxy::start(server.local_addr(), up, Link::ideal().with_delay(millis(20))).expect("a proxy");
    let mut client = client_through(&proxy);
    assert!(client.ping().expect("a pong") >= millis(50));
    assert!(client.request("echo", b"x").expect("an echo").round_trip >= millis(50));
}

#[test]
fn the_proxy_serialises_at_its_rate() {
    let server = echo_server();
    let up = Link::at_rate(8e5).expect("a rate");
    let proxy = Proxy::start(server.local_addr(), up, Link::ideal()).expect("a proxy");
    let mut client = client_through(&proxy);
    let payload = vec![3; 20_000];
    let answer = client.request("echo", &payload).expect("an echo");
    assert!(answer.payload == payload);
    assert!(answer.round_trip >= up.transfer_time(20_000), "{:?}", answer.round_trip);
}

#[test]
fn connections_share_the_link() {
    let server = echo_server();
    let up = Link::at_rate(8e5).expect("a rate");
    let proxy = Proxy::start(server.local_addr(), up, Link::ideal()).expect("a proxy");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client_through(&proxy).request("echo", &[0; 5000]).map(|_| ()).expect("an echo"));
        }
    });
    assert!(start.elapsed() >= up.transfer_time(4 * 5000));
}

#[test]
fn jitter_keeps_the_order_of_bytes() {
    let server = echo_server();
    let link = Link::at_rate(1e8).expect("a rate").with_delay(millis(1)).with_jitter(millis(5), 7);
    let proxy = Proxy::start(server.local_addr(), link, link).expect("a proxy");
    let mut client = client_through(&proxy);
    let payload: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..3 {
        let answer = client.request("echo", &payload).expect("an echo");
        assert!(answer.payload == payload);
        assert!(answer.round_trip >= 2 * link.transfer_time(200_000));
    }
}

#[test]
fn stopping_the_proxy_cuts_connections_even_in_a_long_delay() {
    let server = echo_server();
    let slow = Link::ideal().with_delay(Duration::from_hours(1));
    let proxy = Proxy::start(server.local_addr(), Link::ideal(), slow).expect("a proxy");
    let address = proxy.local_addr();
    let waiting = std::thread::spawn(move || Client::connect(address, Options::default()).is_err());
    std::thread::sleep(millis(100));
    proxy.stop();
    assert!(waiting.join().expect("no panic"));
    assert!(Client::connect(address, Options::default()).is_err());
}

#[test]
fn the_end_of_the_server_is_the_end_of_the_proxied_session() {
    let server = echo_server();
    let proxy = Proxy::start(server.local_addr(), Link::ideal(), Link::ideal()).expect("a proxy");
    let mut client = client_through(&proxy);
    server.stop().expect("a server without errors");
    assert!(client.request("echo", b"x").is_err());
    assert!(client.is_poisoned());
}
