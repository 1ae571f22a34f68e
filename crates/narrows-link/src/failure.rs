//! Refusals that travel over the wire.

use std::fmt;

/// Longest text of a [`Failure`], in bytes.
pub const MAX_FAILURE_TEXT_BYTES: usize = 1024;

/// First code that belongs to applications; the protocol never gives these a meaning.
pub const FIRST_APPLICATION_CODE: u16 = 0x8000;

/// Why a request or a connection was refused; its number is what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The peer broke the protocol.
    Malformed,
    /// No protocol version in common.
    UnsupportedVersion,
    /// A message above the session's limit.
    MessageTooLarge,
    /// The server has all the connections or requests it takes; try again later.
    Busy,
    /// The peer was silent, or slow, for too long.
    TimedOut,
    /// No token, or one that the server does not know.
    Unauthorized,
    /// The server does not serve this route.
    UnknownRoute,
    /// The payload cannot be decoded.
    BadPayload,
    /// The answer is above the client's limit.
    ReplyTooLarge,
    /// The tail could not compute an answer.
    TailFailed,
    /// The tail broke down; the server lives on.
    Internal,
    /// The request's deadline passed before the tail could begin; nothing was computed.
    Expired,
    /// The profile offered is not taken.
    BadProfile,
    /// The head is of another split than the tail.
    OtherSplit,
    /// The tail does not have the state that the step goes on from; the stream has to begin again.
    StreamGone,
    /// A code unknown here: from a newer peer, or an application's own. Made with `Code::from`.
    Other(u16),
}

/// Every code with a name: number, code, words. The only place these are paired.
const NAMED: [(u16, Code, &str); 15] = [
    (1, Code::Malformed, "malformed message"),
    (2, Code::UnsupportedVersion, "unsupported protocol version"),
    (3, Code::MessageTooLarge, "message too large"),
    (4, Code::Busy, "busy"),
    (5, Code::TimedOut, "timed out"),
    (6, Code::Unauthorized, "unauthorized"),
    (16, Code::UnknownRoute, "unknown route"),
    (17, Code::BadPayload, "bad payload"),
    (18, Code::ReplyTooLarge, "reply too large"),
    (19, Code::TailFailed, "tail failed"),
    (20, Code::Internal, "internal error"),
    (21, Code::Expired, "expired"),
    (22, Code::BadProfile, "bad profile"),
    (23, Code::OtherSplit, "another split"),
    (24, Code::StreamGone, "stream gone"),
];

impl From<u16> for Code {
    fn from(number: u16) -> Code {
        NAMED.iter().find(|named| named.0 == number).map_or(Code::Other(number), |named| named.1)
    }
}

impl From<Code> for u16 {
    fn from(code: Code) -> u16 {
        match code {
            Code::Other(number) => number,
            code => NAMED.iter().find(|named| named.1 == code).map_or(0, |named| named.0),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMED.iter().find(|named| named.1 == *self) {
            Some(named) => f.write_str(named.2),
            None => write!(f, "code {}", u16::from(*self)),
        }
    }
}

/// A refusal: a code for programs, a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: Code,
    text: String,
}

impl Failure {
    /// A failure; a text above [`MAX_FAILURE_TEXT_BYTES`] is cut at a character.
    pub fn new(code: Code, text: impl Into<String>) -> Failure {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(MAX_FAILURE_TEXT_BYTES));
        Failure { code, text }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text, at most [`MAX_FAILURE_TEXT_BYTES`] bytes.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_the_way_through_a_code() {
        for number in 0..=u16::MAX {
            assert_eq!(u16::from(Code::from(number)), number);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let failure = Failure::new(Code::TailFailed, "é".repeat(MAX_FAILURE_TEXT_BYTES) + "x");
        assert_eq!(failure.text().len(), MAX_FAILURE_TEXT_BYTES);
        let failure = Failure::new(Code::TailFailed, format!("x{}", "é".repeat(MAX_FAILURE_TEXT_BYTES)));
        assert_eq!(failure.text().len(), MAX_FAILURE_TEXT_BYTES - 1);
    }
}
