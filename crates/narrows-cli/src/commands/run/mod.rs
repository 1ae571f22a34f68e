//! `narrows run`.

mod adapt;
mod report;
mod ways;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use narrows::{Decoder, Profiles, Tensor};
use narrows_link::{Call, Error, Fallback, Origin, Output as Part, Outputs, Step, StreamLimits};
use narrows_split::Runtime;

use crate::engine_args::engine;
use crate::evaluate::{Batch, parse_time, timed};
use crate::failure::{Failure, Result};
use crate::link_args::{Connection, LinkArgs};
use crate::output::Output;
use crate::tails::{Served, Tails};
use adapt::Adaptive;
use report::{AnsweredBy, Record, best, microseconds};
use ways::{Coding, Head, Way};

const EXAMPLES: &str = "\
Examples:
  narrows run --head halves --server 127.0.0.1:7000 images.npy
  narrows run --head halves --server 127.0.0.1:7000 images.npy --bits 3 --top 5
  narrows run --head halves --server 127.0.0.1:7000 images.npy --link-rate 143.6k
  narrows run --head halves --server edge.example:7000 images.npy --ca ca.pem --token-file token
  narrows run --head halves --tail halves --server edge.example:7000 images.npy --deadline 200ms
                                             answered here when the link is gone, or too slow
  narrows run --head halves --adapt points --server edge.example:7000 images.npy --deadline 150ms --period 100ms
                                             each input at the bit width and profile that the link allows
  narrows run --head small --adapt small-points --head large --adapt large-points ...
                                             and by the model that it allows

A half is a folder made by `narrows split`, or its head.onnx or tail.onnx; --adapt takes a folder made by
`narrows calibrate --labels`. With --deadline a request that is not answered in time is recorded, and the next begins.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The head made by `narrows split`; with --adapt several
    #[arg(long, value_name = "PATH", required = true)]
    head: Vec<PathBuf>,
    /// The address that `narrows serve` printed
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// One input or a batch along the first axis: .npy of float32 or uint8, or .npz with an array `images`
    input: PathBuf,
    /// Multiply the input by this [default: 1/255 for uint8, 1 for float32]
    #[arg(long, value_name = "FACTOR")]
    scale: Option<f32>,
    /// The tail to ask for [default: the tensor that the head was cut at]
    #[arg(long, value_name = "NAME", conflicts_with = "adapt")]
    route: Option<String>,
    /// A tail to run here when the server does not answer in time
    #[arg(long, value_name = "PATH")]
    tail: Vec<PathBuf>,
    /// Choose for each input among these operating points, to answer within --deadline as accurately as the link allows
    #[arg(long, value_name = "PATH", requires = "deadline",
          conflicts_with_all = ["bits", "clip", "per_channel", "layout", "axis", "lossless", "profile"])]
    adapt: Vec<PathBuf>,
    /// From an input to its answer; what comes later is counted as missed
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "timeout")]
    deadline: Option<Duration>,
    /// From one input to the next [default: as soon as the one before has its answer]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    period: Option<Duration>,
    /// How many classes to print, best first
    #[arg(long, value_name = "K", default_value_t = 1)]
    top: usize,
    /// What runs the halves: tract, onnxruntime or onnxruntime-all
    #[arg(long, value_name = "ENGINE", default_value = "tract", value_parser = engine)]
    engine: Runtime,
    #[command(flatten)]
    coding: Coding,
    #[command(flatten)]
    link: LinkArgs,
}

/// All that a request needs.
struct Device {
    heads: Vec<Head>,
    ways: Vec<Way>,
    connection: Connection,
    decoder: Decoder,
    fallback: Option<Arc<Tails>>,
    top: usize,
    deadline: Option<Duration>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let heads = args.head.iter().map(|path| Head::read(path, args.engine)).collect::<Result<Vec<_>>>()?;
    if args.adapt.is_empty() && heads.len() > 1 {
        return Err(Failure::usage("one head is enough").hint("--adapt chooses among several"));
    }
    let batch = Batch::read(&args.input, heads[0].half.input_dims(), args.scale)?;
    if let Some(other) = heads.iter().find(|head| head.half.input_dims() != heads[0].half.input_dims()) {
        let (found, expected) = (other.half.input_dims(), heads[0].half.input_dims());
        return Err(Failure::usage("the heads take different inputs").because(format!(
            "{} takes {found:?}, {} takes {expected:?}",
            other.half.cut, heads[0].half.cut
        )));
    }
    let first = batch.iter().next().unwrap_or_default().to_vec();
    let mut ways = if args.adapt.is_empty() {
        let route = args.route.clone().unwrap_or_else(|| heads[0].half.cut.clone());
        vec![args.coding.way(route)?]
    } else {
        ways::of_tables(&args.adapt, &heads, &first)?
    };
    let mut profiles = Profiles::default();
    ways.iter().filter_map(|way| way.profile.clone()).for_each(|profile| {
        profiles.insert(profile);
    });
    let fallback = fallback(args, profiles)?;
    let reserve = match &fallback {
        Some(tails) => ways::slowest_tail(tails, &heads, &mut ways, &first)?,
        None => Duration::ZERO,
    };
    let own = fallback.clone().map(|tails| Fallback { tail: tails as _, reserve });
    let mut connection = args.link.connect(&args.server, args.deadline, own)?;
    greet(&mut connection, &ways, output)?;
    let mut adaptive = Adaptive::new(args.deadline.filter(|_| !args.adapt.is_empty()), &ways)?;
    let mut device = Device {
        heads,
        ways,
        connection,
        decoder: Decoder::new(),
        fallback,
        top: args.top,
        deadline: args.deadline,
    };
    let progress = output.progress(batch.len() as u64, "sending");
    let mut records = Vec::with_capacity(batch.len());
    let begun = Instant::now();
    for (index, input) in batch.iter().enumerate() {
        if let Some(period) = args.period {
            std::thread::sleep((period * index as u32).saturating_sub(begun.elapsed()));
        }
        if let Some(adaptive) = &mut adaptive {
            adaptive.listen(&mut device.connection.client);
        }
        records.push(Record { index, ..device.answer(input, &mut adaptive)? });
        progress.inc(1);
    }
    progress.finish_and_clear();
    report::show(&records, args.top, &args.server, args.deadline, output)
}

/// The tails to fall back on, if there are any.
fn fallback(args: &Args, profiles: Profiles) -> Result<Option<Arc<Tails>>> {
    if args.tail.is_empty() {
        return Ok(None);
    }
    let served = args.tail.iter().map(|path| Served::read(path, args.engine)).collect::<Result<Vec<_>>>()?;
    Ok(Some(Arc::new(Tails::new(served, profiles, StreamLimits::default())?)))
}

/// Whether the server, if it is there, serves what is to be asked; it gets the profiles that it lacks.
fn greet(connection: &mut Connection, ways: &[Way], output: &Output) -> Result<()> {
    let client = &mut connection.client;
    if !client.is_connected() {
        output.note("the server cannot be reached; the tail here answers until it can");
        return Ok(());
    }
    if let Some(way) = ways.iter().find(|way| !client.routes().contains(&way.route)) {
        return Err(Failure::usage(format!("the server does not serve `{}`", way.route))
            .because(format!("it serves {}", client.routes().join(", ")))
            .hint("was its tail cut at the same tensor? --route names another"));
    }
    if client.server_takes_profiles() {
        for profile in ways.iter().filter_map(|way| way.profile.as_ref()) {
            client
                .offer_profile(&profile.to_bytes())
                .map_err(|error| Failure::link("the server does not take the profile", &error))?;
        }
    }
    Ok(())
}

impl Device {
    /// Head, encoder, link, tail.
    fn answer(&mut self, input: &[f32], adaptive: &mut Option<Adaptive>) -> Result<Record> {
        let start = Instant::now();
        let chosen = match adaptive {
            Some(adaptive) => adaptive.decide(),
            None => Some(0),
        };
        let is_held = chosen.is_none();
        let nth = chosen.unwrap_or_default();
        if is_held && self.fallback.is_none() {
            let record = Record { error: Some("not sent: the link is gone".into()), ..Record::unanswered() };
            return Ok(record.ended(start, self.deadline));
        }
        let way = &mut self.ways[nth];
        let head = &self.heads[way.head];
        let (features, head_time) = timed(|| head.half.run(input));
        let features = features.map_err(|error| Failure::model("the head failed", &error))?;
        let (frame, encode_time) = timed(|| way.encoder.encode(&features.view()));
        let frame = frame.map_err(|error| Failure::codec("cannot encode the features", &error))?;
        let record = Record {
            cut: way.route.clone(),
            setting: way.name.clone(),
            bytes: frame.len(),
            head_us: microseconds(head_time),
            encode_us: microseconds(encode_time),
            ..Record::unanswered()
        };
        let step = Step::new(head.split, &frame).to_bytes();
        let payload = step.map_err(|error| Failure::link("the features cannot be sent", &error))?;
        let left = self.deadline.map(|deadline| deadline.saturating_sub(start.elapsed()));
        let call = Call { encode: encode_time, timeout: left, ..Call::new(&way.route, &payload) };
        let answered = match (is_held, adaptive.as_mut()) {
            // The fallback answers at once.
            (true, _) => self.connection.client.call_fallback(call),
            (false, Some(adaptive)) => adaptive.call(&mut self.connection.client, call),
            (false, None) => self.connection.client.call(call),
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) if self.deadline.is_some() && is_the_links(&error) => {
                let record = Record { error: Some(error.to_string()), ..record };
                return Ok(record.ended(start, self.deadline));
            }
            Err(error) => return Err(Failure::link("the server did not answer the request", &error)),
        };
        let logits = self.logits(&answer.payload)?;
        let record = Record {
            link_us: microseconds(answer.link_time()),
            send_us: microseconds(answer.record.send),
            queue_us: microseconds(answer.record.queue),
            decode_us: answer.timings.decode_ns as f64 / 1e3,
            tail_us: answer.timings.tail_ns as f64 / 1e3,
            attempts: answer.record.attempts,
            answered_by: match answer.record.origin {
                Origin::Server => AnsweredBy::Server,
                Origin::Local => AnsweredBy::Device,
            },
            top: best(&logits, self.top),
            logits,
            ..record
        };
        Ok(record.ended(start, self.deadline))
    }

    /// The first output that came back.
    fn logits(&mut self, reply: &[u8]) -> Result<Vec<f32>> {
        let Outputs(outputs) = Outputs::from_bytes(reply)
            .map_err(|error| Failure::link("cannot read the server's answer", &error))?;
        let Some(Part::Frame(frame)) = outputs.first() else {
            return Err(Failure::data("the server's answer holds no float32 tensor"));
        };
        let decoded: Result<Tensor, _> = self.decoder.decode(frame);
        let logits = decoded.map_err(|error| Failure::codec("cannot read the server's answer", &error))?;
        Ok(logits.to_f32())
    }
}

/// Whether an error tells of the link or of a server's state, and not of what was asked.
fn is_the_links(error: &Error) -> bool {
    match error {
        Error::Refused(failure) => matches!(
            failure.code(),
            narrows_link::Code::Busy | narrows_link::Code::Expired | narrows_link::Code::TimedOut
        ),
        Error::Deadline { .. }
        | Error::Closed
        | Error::Io { .. }
        | Error::Truncated { .. }
        | Error::Checksum { .. } => true,
        _ => false,
    }
}
