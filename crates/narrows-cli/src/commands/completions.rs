//! `narrows completions`: a shell's completion script.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::destination::Destination;
use crate::failure::Result;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  narrows completions bash > ~/.local/share/bash-completion/completions/narrows
  narrows completions zsh > ~/.zfunc/_narrows
  narrows completions fish > ~/.config/fish/completions/narrows.fish";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "narrows", &mut script);
    if output.is_json() {
        let script = String::from_utf8_lossy(&script);
        return output.print_json(&serde_json::json!({ "shell": args.shell.to_string(), "script": script }));
    }
    Destination::Stdout.write(&script)
}
