//! `narrows run`.

use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use narrows::{Decoder, EncodeOptions, Encoder, Tensor};
use narrows_link::emulator::{Link, Proxy};
use narrows_link::tls::{ClientTls, Identity};
use narrows_link::{Call, Client, Options, Origin, Token};
use serde::Serialize;

use crate::evaluate::{Batch, Half, Samples, parse_rate, timed};
use crate::failure::{Code, Failure, Result};
use crate::options::{self, LayoutName, Quantization};
use crate::output::{Align, Output, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows run --head halves/head.onnx --server 127.0.0.1:7000 images.npy
  narrows run --head halves/head.onnx --server 127.0.0.1:7000 images.npy --bits 3 --top 5
  narrows run --head halves/head.onnx --server 127.0.0.1:7000 images.npy --link-rate 143.6k
  narrows run --head halves/head.onnx --server edge.example:7000 images.npy --ca ca.pem --token-file token";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The head made by `narrows split`
    #[arg(long, value_name = "FILE")]
    head: PathBuf,
    /// The address that `narrows serve` printed
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// One input or a batch along the first axis: .npy of float32 or uint8, or .npz with an array `images`
    input: PathBuf,
    /// Multiply the input by this [default: 1/255 for uint8, 1 for float32]
    #[arg(long, value_name = "FACTOR")]
    scale: Option<f32>,
    /// The tail to ask for [default: the tensor that the head was cut at]
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// How many classes to print, best first
    #[arg(long, value_name = "K", default_value_t = 1)]
    top: usize,
    /// Send over an emulated link of this rate in bit/s, such as 143.6k or 10M
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    link_rate: Option<f64>,
    #[command(flatten)]
    coding: Coding,
    #[command(flatten)]
    trust: Trust,
    /// Time for each request, in seconds, lost attempts included
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    timeout: f64,
}

/// How the two sides know each other.
#[derive(clap::Args)]
struct Trust {
    /// Speak TLS, and trust the authorities in this file (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name in the server's certificate [default: the host of --server]
    #[arg(long, value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
    /// Show this certificate (PEM) to the server
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Show the bearer token in this file to the server
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Trust {
    fn tls(&self, server: &str) -> Result<Option<ClientTls>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let (ca, chain, key) = (read(ca)?, self.certificate.as_deref(), self.key.as_deref());
        let pair = chain.zip(key).map(|(chain, key)| Ok((read(chain)?, read(key)?))).transpose()?;
        let identity = pair.as_ref().map(|(chain_pem, key_pem)| Identity { chain_pem, key_pem });
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let name = self.server_name.as_deref().unwrap_or_else(|| host.trim_matches(['[', ']']));
        let tls = ClientTls::new(&ca, name, identity);
        tls.map(Some).map_err(|error| Failure::link("cannot use these certificates", &error))
    }

    fn token(&self) -> Result<Option<Token>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = String::from_utf8(read(path)?)
            .map_err(|_| Failure::data(format!("{} is no text", path.display())))?;
        let token = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let missing = || Failure::data(format!("{} holds no token", path.display()));
        token.map(|token| Some(Token::new(token))).ok_or_else(missing)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Failure::io("read", path, &error))
}

/// How features become frames.
#[derive(clap::Args)]
struct Coding {
    #[command(flatten)]
    quantization: Quantization,
    /// The order of the symbols
    #[arg(long, value_enum, default_value_t = LayoutName::Auto)]
    layout: LayoutName,
    /// Keep every bit of the features
    #[arg(long, conflicts_with_all = ["bits", "clip", "per_channel", "layout", "profile"])]
    lossless: bool,
    /// Code with this profile; the server gets it if it lacks it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bits", "clip", "per_channel", "layout", "axis"])]
    profile: Option<PathBuf>,
}

impl Coding {
    fn encoder(&self) -> Result<Encoder> {
        let Quantization { axis, .. } = self.quantization;
        let options = match &self.profile {
            Some(path) => options::profile(path)?.options(),
            None if self.lossless => EncodeOptions { axis, ..EncodeOptions::lossless() },
            None => EncodeOptions {
                quantizer: self.quantization.quantizer(),
                layout: self.layout.into(),
                axis,
                ..EncodeOptions::default()
            },
        };
        Encoder::new(options).map_err(|error| Failure::codec("cannot set up the encoder", &error))
    }
}

/// One input's way through both halves, as `--json` prints it.
#[derive(Serialize)]
struct Record {
    index: usize,
    /// Of the frame.
    bytes: usize,
    head_us: f64,
    encode_us: f64,
    /// The way there and back: what the server's own work does not explain.
    link_us: f64,
    /// Of it, handing the request to the operating system.
    send_us: f64,
    /// Of it, waiting for the tail.
    queue_us: f64,
    decode_us: f64,
    tail_us: f64,
    /// How often the request was sent.
    attempts: u32,
    /// Whether the server answered.
    is_remote: bool,
    /// From the input to the logits.
    total_us: f64,
    top: Vec<Class>,
    logits: Vec<f32>,
}

#[derive(Serialize)]
struct Class {
    class: usize,
    logit: f32,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let head = Half::read(&args.head, Half::head)?;
    let route = args.route.as_ref().unwrap_or(&head.cut);
    let batch = Batch::read(&args.input, head.input_dims(), args.scale)?;
    let mut encoder = args.coding.encoder()?;
    // The proxy is dropped after the client, which says goodbye through it.
    let (_proxy, mut client) = connect(args)?;
    if !client.routes().contains(route) {
        return Err(Failure::usage(format!("the server does not serve `{route}`"))
            .because(format!("it serves {}", client.routes().join(", ")))
            .hint("was its tail cut at the same tensor? --route names another"));
    }
    if let Some(path) = &args.coding.profile
        && client.server_takes_profiles()
    {
        let profile = options::profile(path)?.to_bytes();
        client
            .offer_profile(&profile)
            .map_err(|error| Failure::link("the server does not take the profile", &error))?;
    }
    let progress = output.progress(batch.len() as u64, "sending");
    let mut decoder = Decoder::new();
    let mut records = Vec::with_capacity(batch.len());
    for (index, input) in batch.iter().enumerate() {
        let (record, total) =
            timed(|| send(input, &head, route, args.top, &mut encoder, &mut client, &mut decoder));
        records.push(Record { index, total_us: microseconds(total), ..record? });
        progress.inc(1);
    }
    progress.finish_and_clear();
    if output.is_json() {
        let server = &args.server;
        return output
            .print_json(&serde_json::json!({ "server": server, "route": route, "requests": records }));
    }
    print(&records, args.top, output)
}

fn connect(args: &Args) -> Result<(Option<Proxy>, Client)> {
    let request_timeout = Duration::try_from_secs_f64(args.timeout)
        .map_err(|_| Failure::usage(format!("--timeout is {}, it must be above 0", args.timeout)))?;
    let options = Options {
        request_timeout,
        token: args.trust.token()?,
        tls: args.trust.tls(&args.server)?,
        ..Options::default()
    };
    let failed = |error| Failure::link(format!("cannot reach the server at {}", args.server), &error);
    let Some(rate) = args.link_rate else {
        return Ok((None, Client::connect(&args.server, options).map_err(failed)?));
    };
    let address = args.server.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let Some(address) = address else {
        return Err(Failure::new(Code::TryAgain, format!("no host is known as {}", args.server)));
    };
    // A proxy accepts before it has reached the server: see first whether there is one.
    drop(Client::connect(address, options.clone()).map_err(failed)?);
    let link = Link::at_rate(rate).map_err(failed)?;
    let proxy = Proxy::start(address, link, link).map_err(failed)?;
    let client = Client::connect(proxy.local_addr(), options).map_err(failed)?;
    Ok((Some(proxy), client))
}

/// Head, encoder, link, tail: all but the total.
fn send(
    input: &[f32],
    head: &Half,
    route: &str,
    top: usize,
    encoder: &mut Encoder,
    client: &mut Client,
    decoder: &mut Decoder,
) -> Result<Record> {
    let (features, head_time) = timed(|| head.run(input));
    let features = features.map_err(|error| Failure::model("the head failed", &error))?;
    let (frame, encode_time) = timed(|| encoder.encode(&features.view()));
    let frame = frame.map_err(|error| Failure::codec("cannot encode the features", &error))?;
    let call = Call { encode: encode_time, ..Call::new(route, &frame) };
    let answer =
        client.call(call).map_err(|error| Failure::link("the server did not answer the request", &error))?;
    let logits: Tensor = decoder
        .decode(&answer.payload)
        .map_err(|error| Failure::codec("cannot read the server's answer", &error))?;
    let logits = logits.to_f32();
    Ok(Record {
        index: 0,
        bytes: frame.len(),
        head_us: microseconds(head_time),
        encode_us: microseconds(encode_time),
        link_us: microseconds(answer.link_time()),
        send_us: microseconds(answer.record.send),
        queue_us: microseconds(answer.record.queue),
        decode_us: answer.timings.decode_ns as f64 / 1e3,
        tail_us: answer.timings.tail_ns as f64 / 1e3,
        attempts: answer.record.attempts,
        is_remote: answer.record.origin == Origin::Server,
        total_us: 0.0,
        top: best(&logits, top),
        logits,
    })
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The `count` classes of the largest logits, best first.
fn best(logits: &[f32], count: usize) -> Vec<Class> {
    let mut classes: Vec<_> =
        logits.iter().enumerate().map(|(class, &logit)| Class { class, logit }).collect();
    classes.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    classes.truncate(count);
    classes
}

fn print(records: &[Record], top: usize, output: &Output) -> Result<()> {
    let top = if top == 1 { "class (logit)".to_owned() } else { format!("best {top} classes (logit)") };
    let mut table = table(&[
        ("#", Align::Right),
        ("bytes", Align::Right),
        ("head µs", Align::Right),
        ("encode µs", Align::Right),
        ("link µs", Align::Right),
        ("decode µs", Align::Right),
        ("tail µs", Align::Right),
        ("total µs", Align::Right),
        (&top, Align::Left),
    ]);
    let whole = |microseconds: f64| grouped(microseconds.round() as u64);
    for record in records {
        let top: Vec<_> =
            record.top.iter().map(|best| format!("{} ({:.2})", best.class, best.logit)).collect();
        table.add_row([
            record.index.to_string(),
            grouped(record.bytes as u64),
            whole(record.head_us),
            whole(record.encode_us),
            whole(record.link_us),
            whole(record.decode_us),
            whole(record.tail_us),
            whole(record.total_us),
            top.join(", "),
        ]);
    }
    output.print(table)?;
    let mut total = Samples::default();
    for record in records {
        total.record(Duration::from_secs_f64(record.total_us / 1e6));
    }
    let bytes: usize = records.iter().map(|record| record.bytes).sum();
    let mean = grouped((bytes as f64 / records.len() as f64).round() as u64);
    output.note(format!(
        "{} requests, {mean} bytes each on average, {} µs each as the median",
        grouped(records.len() as u64),
        whole(total.median_us())
    ));
    Ok(())
}
