//! The `narrows` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(narrows_cli::main(std::env::args_os(), Vec::new()))
}
