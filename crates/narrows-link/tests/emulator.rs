//! The link model's formulas, and the proxy: delays are bounded from below only, since a busy
//! machine may take any time longer.

mod common;

use std::time::{Duration, Instant};

use common::{millis, serve};
use narrows_link::{
    Client, Error, Limits, Options, Running,
    emulator::{Fault, Faults, Link, Outage, OutageMode, Proxy, ProxyOptions, Step, Trace},
};

fn echo_server() -> Running {
    serve(Limits::default(), common::Echo)
}

fn client_through(proxy: &Proxy) -> Client {
    Client::connect(proxy.local_addr(), Options { attempts: 1, ..Options::default() }).expect("a session")
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
fn table_3_of_the_reference_comes_out_of_its_own_formula_only() {
    let (outage, table3) = (Outage::default(), OutageMode::PaperTable3);
    for (bytes, milliseconds) in [(3_240_000, 6.62), (280_000, 0.57)] {
        let time = outage.transfer_time(table3, bytes).expect("valid parameters").as_secs_f64() * 1e3;
        assert!((time / milliseconds - 1.0).abs() < 0.004, "{bytes} bytes: {time} ms");
        let formula = (bytes as f64 / 8.0) / (10e6 * (1.0 - 10.0 * 0.001f64.ln()).log2()) * 1e3;
        assert!((time / formula - 1.0).abs() < 1e-6, "{time} ms, not {formula} ms");
        let right = outage.transfer_time(OutageMode::Outage, bytes).expect("valid parameters");
        assert!(right.as_secs_f64() * 1e3 > 1000.0 * time);
    }
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
fn a_loss_is_a_stall() {
    let link = Link::at_rate(8e6).expect("a rate").with_loss(0.1, millis(200)).expect("a probability");
    let times: Vec<Duration> = (0..10_000).map(|nth| link.transfer_time_of(nth, 1000)).collect();
    let stalled = times.iter().filter(|&&time| time == millis(201)).count();
    assert!((900..1100).contains(&stalled), "{stalled} of 10,000");
    assert_eq!(times.iter().filter(|&&time| time == millis(1)).count(), 10_000 - stalled);
    assert!(Link::ideal().with_loss(1.1, millis(1)).is_err());
}

fn step(time_s: f64, rate_bit_s: f64, delay_ms: f64) -> Step {
    Step { time_s, rate_bit_s, delay_ms }
}

#[test]
fn a_trace_reads_the_same_from_csv_and_json() {
    let csv = Trace::from_csv("time_s,rate_bit_s,delay_ms\n# radio\n0, 8e6, 20\n1.5,0,20\n\n2,1000000\n");
    let json = Trace::from_json(
        r#"[{"time_s":0,"rate_bit_s":8e6,"delay_ms":20},{"time_s":1.5,"rate_bit_s":0,"delay_ms":20},
            {"time_s":2,"rate_bit_s":1e6}]"#,
    );
    let steps = vec![step(0.0, 8e6, 20.0), step(1.5, 0.0, 20.0), step(2.0, 1e6, 0.0)];
    assert_eq!(csv.expect("a trace"), Trace::new(steps.clone()).expect("a trace"));
    assert_eq!(json.expect("a trace"), Trace::new(steps).expect("a trace"));
}

#[test]
fn what_is_no_trace_is_refused_with_its_line() {
    for (text, part) in [
        ("", "number of steps"),
        ("0,fast,1", "line 1"),
        ("0,1e6\n1;2e6", "line 2"),
        ("0,1e6\n0,2e6", "rising"),
        ("0,-1", "rate"),
        ("0,inf", "rate"),
        ("0,1,1e9", "delay"),
    ] {
        let error = Trace::from_csv(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
    assert!(Trace::from_json("{}").is_err() && Trace::from_json("[{\"rate\":1}]").is_err());
}

#[test]
fn bytes_cross_a_trace_at_the_rate_of_each_moment() {
    let trace = Trace::new(vec![step(0.0, 8000.0, 0.0), step(1.0, 0.0, 0.0), step(3.0, 16_000.0, 0.0)]);
    let trace = trace.expect("a trace");
    let sent_by = |start, bytes| trace.sent_by(millis(start), bytes).expect("an end");
    assert_eq!(sent_by(0, 500), millis(500));
    assert_eq!(sent_by(500, 500), millis(1000));
    assert_eq!(sent_by(500, 1000), millis(3250), "half before the outage, half after");
    let silent = Trace::new(vec![step(0.0, 8000.0, 0.0), step(1.0, 0.0, 0.0)]).expect("a trace");
    assert_eq!(silent.sent_by(millis(500), 501), None);
    let again = silent.repeating(millis(2000)).expect("a trace");
    assert_eq!(again.sent_by(millis(500), 1000), Some(millis(2500)));
    assert_eq!(again.at(millis(4999)).rate_bit_s, 8000.0);
}

#[test]
fn synthetic_traces_do_as_they_are_called() {
    let second = Duration::from_secs(1);
    let steps = Trace::steps(&[1e6, 2e6, 3e6], second, millis(5)).expect("a trace");
    let rates: Vec<f64> = (0..7).map(|s| steps.at(Duration::from_secs(s)).rate_bit_s).collect();
    assert_eq!(rates, [1e6, 2e6, 3e6, 1e6, 2e6, 3e6, 1e6]);
    let outage = Trace::outage(1e6, 10 * second, 2 * second, Duration::ZERO).expect("a trace");
    let down = (0..100).filter(|&s| outage.at(Duration::from_secs(s)).rate_bit_s == 0.0).count();
    assert_eq!(down, 20);
    let drift = Trace::drift(1e5, 1e7, 64 * second, Duration::ZERO).expect("a trace");
    assert_eq!(drift.at(Duration::ZERO).rate_bit_s, 1e5);
    assert!((drift.at(16 * second).rate_bit_s / 1e6 - 1.0).abs() < 1e-9, "the geometric mean half way");
    assert!((drift.at(32 * second).rate_bit_s / 1e7 - 1.0).abs() < 1e-9);
    assert!((drift.at(48 * second).rate_bit_s / 1e6 - 1.0).abs() < 1e-9);
    assert!(
        Trace::outage(1e6, second, second, second).is_err() && Trace::steps(&[], second, second).is_err()
    );
    assert!(Trace::steps(&[1.0, 2.0], Duration::MAX, Duration::ZERO).is_ok());
}

#[test]
fn the_proxy_follows_a_trace() {
    let server = echo_server();
    // 100 kbit/s for ever: 5 kB take 400 ms.
    let trace = Some(Trace::new(vec![step(0.0, 1e5, 30.0)]).expect("a trace"));
    let proxy = Proxy::with(server.local_addr(), ProxyOptions { trace, ..ProxyOptions::default() });
    let proxy = proxy.expect("a proxy");
    let mut client = client_through(&proxy);
    assert!(client.ping().expect("a pong") >= millis(60));
    let answer = client.request("echo", &[1; 5000]).expect("an echo");
    assert!(answer.round_trip >= millis(2 * 400 + 60), "{:?}", answer.round_trip);
    let traffic = proxy.traffic();
    assert_eq!(traffic.connections, 1);
    assert!(traffic.bytes_up > 5000 && traffic.bytes_down > 5000);
}

#[test]
fn every_fault_ends_the_request_and_is_counted() {
    let server = echo_server();
    for fault in Fault::ALL {
        assert_eq!(fault.to_string().parse::<Fault>().expect("a name"), fault);
        // Somewhere in the first 30 kB, up or down: in the middle of a request of 40 kB.
        let faults = Some(Faults::new(&[fault], 1.0, 30_000, 11).expect("faults"));
        let proxy = Proxy::with(server.local_addr(), ProxyOptions { faults, ..ProxyOptions::default() });
        let proxy = proxy.expect("a proxy");
        let options = Options { attempts: 1, request_timeout: millis(500), ..Options::default() };
        let ended = Client::connect(proxy.local_addr(), options)
            .and_then(|mut client| client.request("echo", &vec![5; 40_000]));
        match (fault, ended) {
            (Fault::Flip, Err(error)) => {
                let text = error.to_string();
                assert!(text.contains("checksum") || text.contains("malformed"), "{text}");
            }
            (Fault::Stall, Err(Error::Deadline { .. }))
            | (Fault::Drop | Fault::Truncate | Fault::Reset, Err(_)) => {}
            (fault, other) => panic!("{fault}: {other:?}"),
        }
        assert_eq!(proxy.traffic().faults.iter().sum::<u64>(), 1, "{fault}");
    }
    assert!("explode".parse::<Fault>().is_err());
    assert!(Faults::new(&[], 0.5, 1, 0).is_err() && Faults::new(&Fault::ALL, 1.5, 1, 0).is_err());
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
    assert!(!client.is_connected());
}
