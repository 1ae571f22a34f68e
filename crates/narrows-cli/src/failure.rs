//! What the program says when it cannot go on: a sentence, a cause, a hint, and an exit code.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;

/// Exit codes, as in `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The command line makes no sense.
    Usage = 2,
    /// The input is not what it should be.
    Data = 65,
    /// The input is not there.
    NoInput = 66,
    /// Reading or writing failed.
    Io = 74,
    /// It may work another time: a refused connection, a deadline.
    TryAgain = 75,
    /// A file that configures the command is wrong.
    Configuration = 78,
}

/// Why a command stopped.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    sentence: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// A command's result.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), causes: Vec::new(), hint: None }
    }

    /// Corrupt or unsuitable input.
    pub fn data(sentence: impl Into<String>) -> Self {
        Self::new(Code::Data, sentence)
    }

    /// A wrong command line.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Code::Usage, sentence)
    }

    /// Reading or writing `path` failed.
    pub fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let code = if error.kind() == ErrorKind::NotFound { Code::NoInput } else { Code::Io };
        Self::new(code, format!("cannot {what} {}", path.display())).because(error)
    }

    #[must_use]
    pub fn because(mut self, cause: impl Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error: {}", self.sentence)?;
        for cause in &self.causes {
            write!(f, "\n  because: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}
