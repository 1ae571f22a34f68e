//! Ways in which a link breaks, chosen by a seed.

use std::{fmt, str::FromStr};

use super::{check, fraction, split_mix};
use crate::Error;

/// Bytes that [`Fault::Drop`] takes out.
const DROPPED_BYTES: usize = 64;

/// What happens to a connection, in the middle of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Some bytes vanish; the rest goes on.
    Drop,
    /// Nothing more passes in this direction, and the connection stays open.
    Stall,
    /// The connection ends, as if by the sender.
    Truncate,
    /// One bit changes.
    Flip,
    /// The connection is reset.
    Reset,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [Fault::Drop, Fault::Stall, Fault::Truncate, Fault::Flip, Fault::Reset];
    const NAMES: [&str; 5] = ["drop", "stall", "truncate", "flip", "reset"];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Fault::NAMES[*self as usize])
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fault, Error> {
        let index = Fault::NAMES.iter().position(|&name| name == text);
        index.map(|index| Fault::ALL[index]).ok_or_else(|| Error::Setting {
            what: format!("fault {text:?}"),
            cause: format!("there is no such fault; there are {}", Fault::NAMES.join(", ")),
        })
    }
}

/// Which connections break, how and where: the same in every run with the same seed, as far as
/// connections come in the same order.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    kinds: Vec<Fault>,
    probability: f64,
    within_bytes: u64,
    seed: u64,
}

impl Faults {
    /// Breaks a connection with this probability, in one of the ways `kinds`, somewhere in the
    /// first `within_bytes` of one of its directions.
    ///
    /// # Errors
    /// The probability is not in 0..=1, or there is no kind or no byte to choose.
    pub fn new(kinds: &[Fault], probability: f64, within_bytes: u64, seed: u64) -> Result<Faults, Error> {
        check("probability of a fault", probability, "between 0 and 1", |p| (0.0..=1.0).contains(&p))?;
        check("kinds of faults", kinds.len() as f64, "at least 1", |kinds| kinds > 0.0)?;
        check("bytes before a fault", within_bytes as f64, "at least 1", |bytes| bytes > 0.0)?;
        Ok(Faults { kinds: kinds.into(), probability, within_bytes, seed })
    }

    /// What happens to the connection number `nth`: in its directions up and down, or not.
    pub(super) fn of(&self, nth: u64) -> [Option<Planned>; 2] {
        let roll = |which: u64| split_mix(self.seed, nth.wrapping_mul(4).wrapping_add(which));
        if fraction(roll(0)) >= self.probability {
            return [None, None];
        }
        let fault = self.kinds[(roll(1) % self.kinds.len() as u64) as usize];
        let planned = Some(Planned { fault, at: roll(2) % self.within_bytes });
        if roll(3) & 1 == 0 { [planned, None] } else { [None, planned] }
    }
}

/// A fault of one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) fault: Fault,
    /// Bytes that pass before it.
    at: u64,
}

impl Planned {
    /// Lets the next bytes pass, of which `passed` have before; `true` if the fault happens to them.
    /// What is left of them then still passes.
    pub(super) fn strike(&self, passed: u64, bytes: &mut Vec<u8>) -> bool {
        let end = passed + bytes.len() as u64;
        if !(passed..end).contains(&self.at) {
            return false;
        }
        let index = (self.at - passed) as usize;
        match self.fault {
            Fault::Drop => drop(bytes.drain(index..bytes.len().min(index + DROPPED_BYTES))),
            Fault::Flip => bytes[index] ^= 1 << (self.at % 8),
            Fault::Stall | Fault::Truncate | Fault::Reset => bytes.truncate(index),
        }
        true
    }
}
