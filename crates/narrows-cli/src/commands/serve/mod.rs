//! `narrows serve`.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use narrows_link::{Server, Settings, Tail};
use narrows_split::Runtime;

use crate::engine_args::engine;
use crate::evaluate::demo_model;
use crate::failure::{Code, Failure, Result};
use crate::options::profiles;
use crate::output::Output;
use crate::tails::{Served, Tails};

const EXAMPLES: &str = "\
Examples:
  narrows serve --tail halves
  narrows serve --tail halves --tail decoder-halves --listen 0.0.0.0:7000 --http 127.0.0.1:8000
  narrows serve --config serve.toml --set limits.max_connections=64 --set log.format=json
  NARROWS_SERVE_TLS_CERTIFICATE=server.pem NARROWS_SERVE_TLS_KEY=server.key narrows serve --config serve.toml

A setting is taken from the last of: its default, --config, the environment (NARROWS_SERVE_ and the
setting's name in capitals), the command line. --print-config shows all of them and where each came from.
With --http there are a live page at /, KServe v2 at /v2, and Prometheus metrics at /metrics.
SIGTERM and Ctrl-C let requests in flight be answered, within limits.drain_timeout_ms.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A folder made by `narrows split`, or its tail.onnx; several are told apart by the tensor they were cut at
    #[arg(long, value_name = "PATH")]
    tail: Vec<PathBuf>,
    /// Where to listen; port 0 takes a free one, the first line printed says which [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where to serve HTTP: the live page, KServe v2, health and metrics [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// A profile that frames may name; clients can bring others
    #[arg(long, value_name = "FILE")]
    profile: Vec<PathBuf>,
    /// What runs the tails: tract, onnxruntime or onnxruntime-all
    #[arg(long, value_name = "ENGINE", default_value = "tract", value_parser = engine)]
    engine: Runtime,
    /// Settings, as TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting by its name, such as log.format=json
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Print all settings, and where each came from, and stop
    #[arg(long)]
    print_config: bool,
    /// Serve the demo network's tail at this cut
    #[arg(long, value_name = "TENSOR", hide = true)]
    demo_cut: Vec<String>,
    /// Stop when standard input ends, so that no server outlives the program that started it
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give a name and a value, such as log.format=json")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Args {
    /// The settings that the command line gives, by name.
    fn flags(&self) -> Vec<(&str, String)> {
        let list = |paths: &[PathBuf]| {
            let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
            serde_json::json!(paths).to_string()
        };
        let mut flags: Vec<(&str, String)> =
            self.set.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        flags.extend(self.listen.map(|address| ("listen", address.to_string())));
        flags.extend(self.http.map(|address| ("http", address.to_string())));
        flags.extend((!self.tail.is_empty()).then(|| ("tails", list(&self.tail))));
        flags.extend((!self.profile.is_empty()).then(|| ("profiles", list(&self.profile))));
        flags
    }
}

fn misconfigured(error: &narrows_link::Error) -> Failure {
    Failure::new(Code::Configuration, "cannot use these settings")
        .because(error)
        .hint("--print-config shows the settings and where each came from")
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let settings = Settings::gather(args.config.as_deref(), std::env::vars(), args.flags())
        .map_err(|error| misconfigured(&error))?;
    if args.print_config {
        return output.print(settings.to_toml().trim_end());
    }
    start_log(&settings, output)?;
    let options = settings.server_options().map_err(|error| misconfigured(&error))?;
    let paths: Vec<PathBuf> = settings.profiles().iter().map(PathBuf::from).collect();
    let tails = Tails::new(tails(args, &settings)?, profiles(&paths)?, settings.streams())?;
    let tails = Arc::new(if options.batching.budget.is_zero() { tails } else { tails.in_batches() });
    let routes = tails.routes();

    let listen = settings.listen().map_err(|error| misconfigured(&error))?;
    let failed = |error| Failure::link(format!("cannot serve at {listen}"), &error);
    let server = Server::bind(listen, options).map_err(failed)?;
    let server = server.with_tensors(Arc::clone(&tails) as _).stopping_on_signals().map_err(failed)?;
    let (address, http) = (server.local_addr(), server.http_addr());
    if output.is_json() {
        let http = http.map(|address| address.to_string());
        output.print_json(&serde_json::json!({ "address": address, "http": http, "routes": routes }))?;
    } else {
        output.print(address)?;
        let page = http.map(|address| format!(", live page at http://{address}/")).unwrap_or_default();
        output.note(format!("serving {}{page}; Ctrl-C stops", routes.join(", ")));
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

/// Log events go to standard error.
fn start_log(settings: &Settings, output: &Output) -> Result<()> {
    let level = settings.log_level();
    let level: tracing_subscriber::filter::LevelFilter = level.parse().map_err(|_| {
        Failure::new(Code::Configuration, format!("there is no log level {level:?}"))
            .hint("log.level is off, error, warn, info, debug or trace")
    })?;
    let json = settings.logs_json().map_err(|error| misconfigured(&error))?;
    if output.is_quiet() {
        return Ok(());
    }
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // Another log in this process would have been started by nobody but us.
    let _ = if json {
        log.json().try_init()
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    Ok(())
}

fn tails(args: &Args, settings: &Settings) -> Result<Vec<Served>> {
    let mut tails = Vec::new();
    for path in settings.tails() {
        tails.push(Served::read(Path::new(path), args.engine)?);
    }
    if !args.demo_cut.is_empty() {
        let model = demo_model()?;
        for cut in &args.demo_cut {
            let split = narrows_split::split(&model, cut).map_err(|error| {
                Failure::model(format!("cannot split the demo network at `{cut}`"), &error)
            })?;
            tails.push(Served::new(&split.tail, cut, args.engine)?);
        }
    }
    if tails.is_empty() {
        return Err(Failure::usage("there is nothing to serve")
            .hint("name the folder of a split with --tail, or with `tails` in the file of --config"));
    }
    Ok(tails)
}
