//! `narrows serve`.

use std::borrow::Cow;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use narrows::{Decoder, EncodeOptions, Encoder, Profiles, Tensor};
use narrows_link::{Code, Limits, Request, Server, Tail, Timings};

use crate::evaluate::{Half, demo_model, timed, without_batch};
use crate::failure::{Failure, Result};
use crate::options::profiles;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  narrows serve --tail halves/tail.onnx
  narrows serve --tail halves/tail.onnx --listen 0.0.0.0:7000 --profile layer2.nrp";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A tail made by `narrows split`; several are told apart by the tensor they were cut at
    #[arg(long, value_name = "FILE", required_unless_present = "demo_cut")]
    tail: Vec<PathBuf>,
    /// Where to listen; port 0 takes a free one, the first line printed says which
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A profile that frames may name
    #[arg(long, value_name = "FILE")]
    profile: Vec<PathBuf>,
    /// Serve the demo network's tail at this cut
    #[arg(long, value_name = "TENSOR", hide = true)]
    demo_cut: Vec<String>,
    /// Stop when standard input ends, so that no server outlives the program that started it
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let tails = Tails::new(halves(args)?, profiles(&args.profile)?)?;
    let routes = tails.routes();
    let failed = |error| Failure::link(format!("cannot serve at {}", args.listen), &error);
    let server = Server::bind(args.listen, Limits::default()).map_err(failed)?;
    let address = server.local_addr();
    if output.is_json() {
        output.print_json(&serde_json::json!({ "address": address, "routes": routes }))?;
    } else {
        output.print(address)?;
        output.note(format!("serving {}; Ctrl-C stops", routes.join(", ")));
    }
    if args.until_stdin_ends {
        let handle = server.handle();
        std::thread::spawn(move || {
            // An error is an end too.
            let _ = std::io::copy(&mut std::io::stdin().lock().take(u64::MAX), &mut std::io::sink());
            handle.shutdown();
        });
    }
    server.serve(tails).map_err(failed)
}

fn halves(args: &Args) -> Result<Vec<Half>> {
    let mut halves = Vec::new();
    for path in &args.tail {
        halves.push(Half::read(path, Half::tail)?);
    }
    if !args.demo_cut.is_empty() {
        let model = demo_model()?;
        for cut in &args.demo_cut {
            let split = narrows_split::split(&model, cut).map_err(|error| {
                Failure::model(format!("cannot split the demo network at `{cut}`"), &error)
            })?;
            halves.push(Half::tail(&split.tail, cut)?);
        }
    }
    Ok(halves)
}

/// The tails of one or more split models, each behind the route of its cut's name.
struct Tails {
    halves: Vec<Half>,
    profiles: Profiles,
    /// Those not in use; there are as many in all as requests were answered at a time.
    workers: Mutex<Vec<Worker>>,
}

/// What answering takes besides the models, kept from one request to the next.
struct Worker {
    decoder: Decoder,
    features: Tensor,
    encoder: Encoder,
}

impl Tails {
    fn new(halves: Vec<Half>, profiles: Profiles) -> Result<Self> {
        for (index, tail) in halves.iter().enumerate() {
            if halves[..index].iter().any(|other| other.cut == tail.cut) {
                return Err(Failure::usage(format!("two tails were cut at `{}`", tail.cut))
                    .hint("serve one of them from another process"));
            }
        }
        Ok(Self { halves, profiles, workers: Mutex::default() })
    }

    fn worker(&self) -> narrows::Result<Worker> {
        let idle = self.workers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(
            || {
                Ok(Worker {
                    decoder: Decoder::new().with_profiles(self.profiles.clone()),
                    features: Tensor::default(),
                    encoder: Encoder::new(EncodeOptions::lossless())?,
                })
            },
            Ok,
        )
    }
}

impl Tail for Tails {
    fn routes(&self) -> Vec<String> {
        self.halves.iter().map(|tail| tail.cut.clone()).collect()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, narrows_link::Failure> {
        let refuse = |code, text: String| narrows_link::Failure::new(code, text);
        let tail = self.halves.iter().find(|tail| tail.cut == request.route);
        let tail = tail.ok_or_else(|| refuse(Code::UnknownRoute, request.route.into()))?;
        let mut worker = self.worker().map_err(|error| refuse(Code::Internal, error.to_string()))?;
        let timings = worker.answer(tail, request.payload, reply)?;
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        Ok(timings)
    }
}

impl Worker {
    /// Decode, run, encode the result.
    fn answer(
        &mut self,
        tail: &Half,
        frame: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Timings, narrows_link::Failure> {
        let refuse = |code, text: String| narrows_link::Failure::new(code, text);
        let (decoded, decode) = timed(|| self.decoder.decode_into(frame, &mut self.features));
        decoded.map_err(|error| refuse(Code::BadPayload, error.to_string()))?;
        let (found, expected) = (without_batch(self.features.shape().dims()), tail.input_dims());
        if found != expected {
            let text =
                format!("the tail takes a tensor of shape {expected:?}, the frame holds one of {found:?}");
            return Err(refuse(Code::BadPayload, text));
        }
        let features =
            self.features.as_f32().map_or_else(|| Cow::Owned(self.features.to_f32()), Cow::Borrowed);
        let (result, run) = timed(|| tail.run(&features));
        let result = result.map_err(|error| refuse(Code::TailFailed, error.to_string()))?;
        let encoded = self.encoder.encode_into(&result.view(), reply);
        encoded.map_err(|error| refuse(Code::Internal, error.to_string()))?;
        Ok(Timings { decode_ns: decode.as_nanos() as u64, tail_ns: run.as_nanos() as u64 })
    }
}
