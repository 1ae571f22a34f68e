//! The `narrows` program, to be started by `main.rs` or from another program (the Python package does).

#![forbid(unsafe_code)]

mod commands;
mod destination;
mod engine_args;
mod evaluate;
mod failure;
mod input;
mod link_args;
mod options;
mod output;
mod plot;
mod tails;

use std::ffi::OsString;
use std::process::Command as Process;
use std::sync::OnceLock;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

#[cfg(feature = "train")]
use commands::train;
use commands::{
    bench, calibrate, choose, completions, cuts, decode, demo, embed, encode, eval, generate, inspect, link,
    pack, plan, run, serve, split, unpack,
};
use failure::Failure;
use output::Output;

/// Squeeze neural-network tensors through narrow places.
#[derive(Parser)]
#[command(name = "narrows", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// Print the result as JSON, and errors too; on standard error if data goes to standard output
    #[arg(long, global = true)]
    json: bool,
    /// Print neither progress nor summaries
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

/// Every command is a module of `commands` with `Args` and `run(&Args, &Output) -> Result<()>`.
#[derive(Subcommand)]
enum Command {
    /// Turn tensors into frames
    Encode(encode::Args),
    /// Turn a frame back into a tensor
    Decode(decode::Args),
    /// Show what a frame, or a file of packed weights, holds and where its bytes go
    Inspect(inspect::Args),
    /// Pack the weights of a checkpoint
    Pack(pack::Args),
    /// Turn packed weights back into a plain checkpoint
    Unpack(unpack::Args),
    /// Compare the ways to encode a tensor
    Plan(plan::Args),
    /// Make a profile from sample tensors
    Calibrate(calibrate::Args),
    /// List the tensors at which an ONNX model can be cut
    Cuts(cuts::Args),
    /// Find the best cut for a link and two machines
    Choose(choose::Args),
    /// Cut an ONNX model into head and tail
    Split(split::Args),
    /// Send sentences through a split encoder, and compare their embeddings
    Embed(embed::Args),
    /// Generate text with a split decoder, caches on their own sides
    Generate(generate::Args),
    /// Serve the tail of a split model
    Serve(serve::Args),
    /// Run the head of a split model and send its features to a server
    Run(run::Args),
    /// Put a slow or broken link between a client and a server
    Link(link::Args),
    /// Watch a split network classify images over a slow link
    Demo(demo::Args),
    /// Measure sizes, times and accuracy on the demo network
    Bench(bench::Args),
    /// Evaluate a model on a data set at cuts, bit widths and methods, and write a report
    Eval(eval::Args),
    /// Train a network so that its weights take less than a bit each
    #[cfg(feature = "train")]
    Train(train::Args),
    /// Print a shell's completion script
    Completions(completions::Args),
}

/// How to start this program once more; the demo's server is a process of its own.
static COMMAND: OnceLock<Vec<OsString>> = OnceLock::new();

/// Run the program and give its exit code.
///
/// `args` are its arguments, its own name first. `command` starts the same program in another process: a program and
/// the arguments before its own; empty if it is the running executable.
pub fn main(args: impl IntoIterator<Item = OsString>, command: Vec<OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let _ = COMMAND.set(command);
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, args.iter().any(|arg| arg == "--json")),
    };
    let output = Output::new(cli.json, cli.quiet);
    let result = match &cli.command {
        Command::Encode(args) => encode::run(args, &output),
        Command::Decode(args) => decode::run(args, &output),
        Command::Inspect(args) => inspect::run(args, &output),
        Command::Pack(args) => pack::run(args, &output),
        Command::Unpack(args) => unpack::run(args, &output),
        Command::Plan(args) => plan::run(args, &output),
        Command::Calibrate(args) => calibrate::run(args, &output),
        Command::Cuts(args) => cuts::run(args, &output),
        Command::Choose(args) => choose::run(args, &output),
        Command::Split(args) => split::run(args, &output),
        Command::Embed(args) => embed::run(args, &output),
        Command::Generate(args) => generate::run(args, &output),
        Command::Serve(args) => serve::run(args, &output),
        Command::Run(args) => run::run(args, &output),
        Command::Link(args) => link::run(args, &output),
        Command::Demo(args) => demo::run(args, &output),
        Command::Bench(args) => bench::run(args, &output),
        Command::Eval(args) => eval::run(args, &output),
        #[cfg(feature = "train")]
        Command::Train(args) => train::run(args, &output),
        Command::Completions(args) => completions::run(args, &output),
    };
    match result {
        Ok(()) => 0,
        // Whoever read our output has seen enough: that is no failure.
        Err(failure) if failure.is_closed_pipe() => 0,
        Err(failure) => {
            output.failure(&failure);
            failure.code as u8
        }
    }
}

/// What starts this program in another process.
fn command() -> std::io::Result<Process> {
    match COMMAND.get().and_then(|words| words.split_first()) {
        Some((program, args)) => {
            let mut command = Process::new(program);
            command.args(args);
            Ok(command)
        }
        None => std::env::current_exe().map(Process::new),
    }
}

/// Help and version on standard output; everything else that `clap` says is a wrong command line.
fn usage(error: &clap::Error, json: bool) -> u8 {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if json && error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let message = error.to_string();
        let (sentence, _) = message.split_once("\n\n").unwrap_or((&message, ""));
        let words: Vec<&str> = sentence.trim_start_matches("error: ").split_whitespace().collect();
        let failure = Failure::usage(words.join(" ")).hint("see --help");
        Output::new(true, false).failure(&failure);
    } else {
        // A closed pipe is all that can go wrong here.
        let _ = error.print();
    }
    if asked_for { 0 } else { failure::Code::Usage as u8 }
}
