//! What the program says when it cannot go on: a sentence, a cause, a hint, and an exit code.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Serialize, Serializer};

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

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// Why a command stopped.
#[derive(Debug, Serialize)]
pub struct Failure {
    pub code: Code,
    #[serde(rename = "message")]
    sentence: String,
    causes: Vec<String>,
    hint: Option<String>,
    #[serde(skip)]
    closed_pipe: bool,
}

/// A command's result.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), causes: Vec::new(), hint: None, closed_pipe: false }
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

    /// Writing `path` failed; that its folder is missing is not a missing input.
    pub fn output(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self { code: Code::Io, ..Self::io(what, path, error) }
    }

    /// Writing to standard output failed.
    pub fn stdout(error: &std::io::Error) -> Self {
        let closed_pipe = error.kind() == ErrorKind::BrokenPipe;
        Self { closed_pipe, ..Self::io("write to", Path::new("standard output"), error) }
    }

    /// The codec refused: what it said is the cause, unreworded.
    pub fn codec(sentence: impl Into<String>, error: &narrows::Error) -> Self {
        use narrows::Error as E;
        let code = match error {
            E::UnknownProfile { .. } | E::ProfileMismatch { .. } => Code::Configuration,
            E::InvalidOption { .. } => Code::Usage,
            _ => Code::Data,
        };
        let failure = Self::new(code, sentence).because(error);
        match error {
            E::Truncated { .. } => failure.hint("part of it is missing: copy or send it again"),
            E::Checksum { .. } => failure.hint("bytes changed on the way: copy or send it again"),
            E::BadMagic { .. } => failure.hint("is it another kind of file?"),
            E::UnsupportedVersion { .. } | E::UnsupportedFeature { .. } => {
                failure.hint("a later version of narrows wrote it: use that or a newer one")
            }
            E::LimitExceeded { .. } => failure.hint("if you trust it, raise the limit with --max-elements"),
            E::UnknownProfile { .. } => failure.hint("name the profile's file with --profile"),
            E::NonFinite { .. } => failure.hint("--lossless keeps every value, NaN and infinity included"),
            _ => failure,
        }
    }

    /// Weights could not be packed, unpacked or read: what was said is the cause, unreworded.
    pub fn weights(sentence: impl Into<String>, error: &narrows_weights::Error) -> Self {
        use narrows_weights::Error as E;
        let innermost = match error {
            E::InTensor { source, .. } => source,
            error => error,
        };
        let code = match innermost {
            E::Io { source, .. } if source.kind() == ErrorKind::NotFound => Code::NoInput,
            E::Io { .. } => Code::Io,
            E::InvalidOption { .. } | E::NoSuchTensor { .. } | E::TooFewBits { .. } => Code::Usage,
            _ => Code::Data,
        };
        let mut failure = Self::new(code, sentence).because(error);
        if let E::Io { source, .. } = innermost {
            failure = failure.because(source);
        }
        match innermost {
            E::Checksum { .. } | E::Truncated { .. } => {
                failure.hint("bytes changed or are missing: copy the file again")
            }
            E::UnsupportedVersion { .. } => {
                failure.hint("a later version of narrows wrote it: use that or a newer one")
            }
            E::NonFinite { .. } => {
                failure.hint("--lossless keeps every value; --keep NAME leaves a tensor as it is")
            }
            E::Onnx(narrows_weights::net::OnnxError::Decode { .. }) => {
                failure.hint("is it another kind of file?")
            }
            E::Container { .. } => {
                failure.hint("narrows packs .safetensors files, and .index.json of several")
            }
            _ => failure,
        }
    }

    /// A model could not be read, cut or run: what was said is the cause, unreworded.
    pub fn model(sentence: impl Into<String>, error: &narrows_split::Error) -> Self {
        use narrows_split::Error as E;
        let code = match error {
            E::Io { source, .. } if source.kind() == ErrorKind::NotFound => Code::NoInput,
            E::Io { .. } => Code::Io,
            E::NoSuchTensor { .. }
            | E::NotACut { .. }
            | E::NothingToSplit { .. }
            | E::NoSuchDimension { .. } => Code::Usage,
            E::EngineMissing { .. } => Code::Configuration,
            _ => Code::Data,
        };
        let failure = Self::new(code, sentence).because(error);
        match error {
            E::NoSuchTensor { nearest, .. }
            | E::NotACut { nearest, .. }
            | E::NothingToSplit { nearest, .. } => match nearest.first() {
                Some(name) => failure.hint(format!("did you mean `{name}`? `narrows cuts` lists them all")),
                None => failure,
            },
            E::Decode { .. } => failure.hint("is it another kind of file?"),
            _ => failure,
        }
    }

    /// The link failed or the other side refused: what was said is the cause, unreworded.
    pub fn link(sentence: impl Into<String>, error: &narrows_link::Error) -> Self {
        use narrows_link::{Code as Refusal, Error as E};
        let code = match error {
            E::InvalidSetting { .. } | E::Setting { .. } => Code::Usage,
            E::Tls { .. } => Code::Configuration,
            E::Refused(refusal) if refusal.code() == Refusal::Unauthorized => Code::Configuration,
            E::Refused(refusal) if refusal.code() == Refusal::UnknownRoute => Code::Usage,
            E::Refused(refusal) if refusal.code() == Refusal::OtherSplit => Code::Configuration,
            E::Refused(refusal) if refusal.code() == Refusal::BadPayload => Code::Data,
            _ => Code::TryAgain,
        };
        let failure = Self::new(code, sentence).because(error);
        match error {
            E::Io { source, .. } if source.kind() == ErrorKind::ConnectionRefused => {
                failure.hint("is `narrows serve` running there?")
            }
            E::Refused(refusal) if refusal.code() == Refusal::Unauthorized => {
                failure.hint("name the file of the server's token with --token-file")
            }
            E::Refused(refusal) if refusal.code() == Refusal::OtherSplit => failure.hint(
                "run the head and serve the tail of one `narrows split`: manifest.json says which it is",
            ),
            E::Refused(refusal) if refusal.code() == Refusal::StreamGone => failure
                .hint("begin again with all tokens; streams.idle_timeout_ms says how long a server waits"),
            E::Refused(refusal) if refusal.code() == Refusal::BadPayload => {
                failure.hint("the server may lack the profile: start it with --profile")
            }
            _ => failure,
        }
    }

    /// The same about the file that it happened to: `x.npy: not a whole .npy file`.
    #[must_use]
    pub fn in_file(mut self, file: &impl Display) -> Self {
        self.sentence = format!("{file}: {}", self.sentence);
        self
    }

    /// Whether nobody reads our output any more.
    pub const fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
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

    /// The same with another exit code.
    #[must_use]
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// A hint where there is none yet.
    #[must_use]
    pub fn or_hint(self, hint: &str) -> Self {
        if self.hint.is_none() { self.hint(hint) } else { self }
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
