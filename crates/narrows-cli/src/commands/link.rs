//! `narrows link`: a slow or broken link between a client and a server, without a radio.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use narrows_link::emulator::{Fault, Faults, Link, Outage, OutageMode, Proxy, ProxyOptions, Trace, Traffic};
use serde_json::json;

use crate::evaluate::{parse_rate, rate_in_words};
use crate::failure::{Code, Failure, Result};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows link --bytes 56000
  narrows link --server 127.0.0.1:7000 --rate 143.6k --delay 20 --jitter 5
  narrows link --server 127.0.0.1:7000 --trace drive.csv
  narrows link --server 127.0.0.1:7000 --steps 10M,1M,100k --each 5
  narrows link --server 127.0.0.1:7000 --rate 10M --fault flip,reset --fault-probability 0.1

Clients connect to the address that is printed first instead of the server's. Both directions are
shaped in the same way. A trace is CSV of time_s,rate_bit_s,delay_ms, or JSON of objects with these names;
a rate of 0 is an outage.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The server's address
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "bytes")]
    server: Option<String>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Rate in bit/s, such as 143.6k or 10M [default: the epsilon-outage rate of the reference channel]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Delay in one direction, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    delay: f64,
    /// Further delay, uniform up to this, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    jitter: f64,
    /// Probability that a segment is lost, which stalls what follows for --stall
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss: f64,
    /// How long a lost segment takes to be repeated, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200.0)]
    stall: f64,
    /// A file that says rate and delay over time
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "steps", "drift", "outage"])]
    trace: Option<PathBuf>,
    /// These rates one after the other, each for --each seconds, again and again
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = parse_rate, conflicts_with_all = ["drift", "outage"])]
    steps: Vec<f64>,
    /// From one rate to another and back, every --each seconds
    #[arg(long, value_name = "FROM,TO", value_delimiter = ',', num_args = 2, value_parser = parse_rate, conflicts_with = "outage")]
    drift: Vec<f64>,
    /// The link is down for so many seconds at the end of every --each
    #[arg(long, value_name = "SECONDS")]
    outage: Option<f64>,
    /// Seconds of a step, of a drift there and back, or from outage to outage
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    each: f64,
    /// What breaks: drop, stall, truncate, flip, reset
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    fault: Vec<Fault>,
    /// Probability that a connection breaks
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    fault_probability: f64,
    /// A fault comes within so many bytes of one direction
    #[arg(long, value_name = "BYTES", default_value_t = 100_000)]
    fault_within: u64,
    /// Chooses jitter, losses and faults; the same number, the same choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Stop after so many seconds [default: Ctrl-C stops]
    #[arg(long = "for", value_name = "SECONDS")]
    duration: Option<f64>,
    /// Print how long so many bytes take on the reference channel, under each model, and stop
    #[arg(long, value_name = "BYTES", conflicts_with = "server")]
    bytes: Option<u64>,
    #[command(flatten)]
    channel: Channel,
}

/// A Rayleigh-fading channel.
#[derive(clap::Args)]
struct Channel {
    /// Bandwidth W in hertz
    #[arg(long, value_name = "HZ", default_value = "10M", value_parser = parse_rate)]
    bandwidth: f64,
    /// Mean signal-to-noise ratio in decibels
    #[arg(long, value_name = "DB", default_value_t = 10.0, allow_negative_numbers = true)]
    gamma: f64,
    /// Mean power gain of the channel, sigma squared
    #[arg(long, value_name = "GAIN", default_value_t = 1.0)]
    sigma: f64,
    /// Probability of outage
    #[arg(long, value_name = "P", default_value_t = 0.001)]
    epsilon: f64,
}

impl Channel {
    const fn outage(&self) -> Outage {
        Outage {
            bandwidth_hz: self.bandwidth,
            gamma_db: self.gamma,
            sigma_h2: self.sigma,
            epsilon: self.epsilon,
        }
    }
}

fn wrong(error: &narrows_link::Error) -> Failure {
    Failure::link("cannot set up the link", error)
}

fn duration(what: &str, amount: f64, unit: Duration) -> Result<Duration> {
    Duration::try_from_secs_f64(amount * unit.as_secs_f64())
        .map_err(|_| Failure::usage(format!("{what} is {amount}, it must be 0 or above")))
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    if let Some(bytes) = args.bytes {
        return print_models(&args.channel.outage(), bytes, output);
    }
    let server = args.server.as_deref().unwrap_or_default();
    let upstream = server.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let upstream =
        upstream.ok_or_else(|| Failure::new(Code::TryAgain, format!("no host is known as {server}")))?;
    let end = args.duration.map(|seconds| duration("--for", seconds, Duration::from_secs(1))).transpose()?;
    let options = options(args)?;
    let (words, faults) = (describe(args, &options), options.faults.is_some());
    let failed = |error| Failure::link(format!("cannot listen at {}", args.listen), &error);
    let proxy = Proxy::with(upstream, options).map_err(failed)?;
    let address = proxy.local_addr();
    if output.is_json() {
        output.print_json(&json!({ "address": address, "server": upstream }))?;
    } else {
        output.print(address)?;
        output.note(format!("a link to {upstream}: {words}; Ctrl-C stops"));
    }
    watch(&proxy, end, faults, output);
    let traffic = proxy.traffic();
    if output.is_json() {
        return output.print_json(&json!({
            "connections": traffic.connections,
            "bytes_up": traffic.bytes_up,
            "bytes_down": traffic.bytes_down,
            "faults": Fault::ALL.iter().zip(traffic.faults).map(|(fault, n)| (fault.to_string(), n.into()))
                .collect::<serde_json::Map<_, _>>(),
        }));
    }
    output.print(in_words(&traffic, faults))
}

/// Says what passes, whenever something has, until the end.
fn watch(proxy: &Proxy, end: Option<Duration>, faults: bool, output: &Output) {
    let start = Instant::now();
    let mut last = Traffic::default();
    loop {
        let left = end.map_or(Duration::from_secs(2), |end| end.saturating_sub(start.elapsed()));
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_secs(2)));
        let traffic = proxy.traffic();
        if traffic != last {
            output.note(in_words(&traffic, faults));
            last = traffic;
        }
    }
}

fn in_words(traffic: &Traffic, faults: bool) -> String {
    let Traffic { connections, bytes_up, bytes_down, .. } = traffic;
    let mut words = format!(
        "{} connections, {} bytes up, {} bytes down",
        grouped(*connections),
        grouped(*bytes_up),
        grouped(*bytes_down)
    );
    if faults {
        let counts = Fault::ALL.iter().zip(traffic.faults).filter(|(_, count)| *count > 0);
        let counts: Vec<_> = counts.map(|(fault, count)| format!("{} {fault}", grouped(count))).collect();
        let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        words = format!("{words}, faults: {counts}");
    }
    words
}

fn rate(args: &Args) -> Result<f64> {
    args.rate.map_or_else(|| args.channel.outage().rate().map_err(|error| wrong(&error)), Ok)
}

fn options(args: &Args) -> Result<ProxyOptions> {
    let (ms, s) = (Duration::from_millis(1), Duration::from_secs(1));
    let (delay, each) = (duration("--delay", args.delay, ms)?, duration("--each", args.each, s)?);
    let link = Link::at_rate(rate(args)?).and_then(|link| {
        let jitter = Duration::try_from_secs_f64(args.jitter / 1e3).unwrap_or_default();
        let stall = Duration::try_from_secs_f64(args.stall / 1e3).unwrap_or_default();
        link.with_delay(delay).with_jitter(jitter, args.seed).with_loss(args.loss, stall)
    });
    let link = link.map_err(|error| wrong(&error))?;
    let trace = match (&args.trace, args.steps.as_slice(), args.drift.as_slice(), args.outage) {
        (Some(path), ..) => Some(Trace::read(path)),
        (_, steps @ [_, ..], ..) => Some(Trace::steps(steps, each, delay)),
        (_, _, &[from, to], _) => Some(Trace::drift(from, to, each, delay)),
        (.., Some(down)) => Some(Trace::outage(rate(args)?, each, duration("--outage", down, s)?, delay)),
        _ => None,
    };
    let faults = (!args.fault.is_empty())
        .then(|| Faults::new(&args.fault, args.fault_probability, args.fault_within, args.seed));
    Ok(ProxyOptions {
        listen: args.listen,
        up: link,
        // Jitter and losses of the way back are others.
        down: link
            .with_jitter(Duration::try_from_secs_f64(args.jitter / 1e3).unwrap_or_default(), !args.seed),
        trace: trace.transpose().map_err(|error| wrong(&error))?,
        faults: faults.transpose().map_err(|error| wrong(&error))?,
    })
}

fn describe(args: &Args, options: &ProxyOptions) -> String {
    let rate = match (&options.trace, options.up.rate()) {
        (Some(_), _) => "its rate follows a trace".to_owned(),
        (None, Some(rate)) => rate_in_words(rate),
        (None, None) => "no bound on its rate".to_owned(),
    };
    format!("{rate}, {} ms delay each way", args.delay)
}

/// The two models, side by side.
fn print_models(outage: &Outage, bytes: u64, output: &Output) -> Result<()> {
    let modes = [
        ("outage", OutageMode::Outage, "R = W log2(1 - gamma sigma_h^2 ln(1 - eps)), time = 8 bytes / R"),
        (
            "paper-table3",
            OutageMode::PaperTable3,
            "time = (bytes / 8) / (W log2(1 - gamma ln eps)), for comparison only",
        ),
    ];
    let mut rows = Vec::new();
    for (name, mode, formula) in modes {
        let rate = outage.rate_in(mode).map_err(|error| wrong(&error))?;
        let time = outage.transfer_time(mode, bytes).map_err(|error| wrong(&error))?;
        rows.push((name, rate, time, formula));
    }
    if output.is_json() {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, rate, time, formula)| {
                json!({ "model": name, "rate_bit_s": rate, "seconds": time.as_secs_f64(), "formula": formula })
            })
            .collect();
        return output.print_json(&json!({ "bytes": bytes, "models": rows }));
    }
    let mut table = table(&[
        ("model", Align::Left),
        ("rate", Align::Right),
        ("time", Align::Right),
        ("formula", Align::Left),
    ]);
    for (name, rate, time, formula) in rows {
        let milliseconds = time.as_secs_f64() * 1e3;
        let time = if milliseconds < 1e3 {
            format!("{milliseconds:.2} ms")
        } else {
            format!("{:.2} s", milliseconds / 1e3)
        };
        table.add_row([name.to_owned(), rate_in_words(rate), time, formula.to_owned()]);
    }
    output.print(table)
}
