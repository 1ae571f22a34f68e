//! The `narrows` program.

#![forbid(unsafe_code)]

mod commands;
mod destination;
mod engine_args;
mod evaluate;
mod failure;
mod input;
mod options;
mod output;
mod plot;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

#[cfg(feature = "train")]
use commands::train;
use commands::{
    bench, calibrate, choose, completions, cuts, decode, demo, embed, encode, eval, generate, inspect, link,
    plan, run, serve, split,
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
    /// Show what a frame holds and where its bytes go
    Inspect(inspect::Args),
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

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.json, cli.quiet);
    let result = match &cli.command {
        Command::Encode(args) => encode::run(args, &output),
        Command::Decode(args) => decode::run(args, &output),
        Command::Inspect(args) => inspect::run(args, &output),
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
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough: that is no failure.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// Help and version on standard output; everything else that `clap` says is a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = std::env::args_os().any(|arg| arg == "--json");
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
    if asked_for { ExitCode::SUCCESS } else { ExitCode::from(failure::Code::Usage as u8) }
}
