//! The tail server in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Code, Failure, Result};

/// How long the server may take to leave once told to.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running `narrows serve`; it is stopped when this is dropped, and stops by itself when this
/// process ends in any other way, as its standard input ends then.
pub struct TailServer {
    child: Child,
    address: SocketAddr,
    /// Kept open, so that the server can go on writing.
    _stdout: BufReader<ChildStdout>,
}

impl TailServer {
    /// Start serving the demo network's tails at these cuts.
    pub fn start(cuts: &[String]) -> Result<Self> {
        let failed =
            |cause: String| Failure::new(Code::TryAgain, "the tail server did not start").because(cause);
        let mut command = crate::command().map_err(|error| failed(error.to_string()))?;
        command.args(["--quiet", "serve", "--until-stdin-ends"]);
        for cut in cuts {
            command.args(["--demo-cut", cut]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let Some(stdout) = child.stdout.take() else {
            unreachable!("standard output was just piped");
        };
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        if let Ok(address) = line.trim().parse() {
            return Ok(Self { child, address, _stdout: stdout });
        }
        let cause = match (read, stop(&mut child)) {
            (Err(error), _) => error.to_string(),
            (Ok(0), Some(status)) => format!("it ended at once ({status})"),
            _ => format!("it said {line:?} instead of its address"),
        };
        Err(failed(cause))
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TailServer {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// End a server: by itself if it can, else by force. Nothing is left behind.
fn stop(child: &mut Child) -> Option<std::process::ExitStatus> {
    drop(child.stdin.take());
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    child.wait().ok()
}
