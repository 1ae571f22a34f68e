//! The `narrows` program.

#![forbid(unsafe_code)]

mod commands;
mod failure;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Squeeze neural-network tensors through narrow places.
#[derive(Parser)]
#[command(name = "narrows", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    // Every command is a module of `commands` with `Args` and `run(&Args) -> Result<()>`.
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result: failure::Result<()> = match cli.command {};
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}
