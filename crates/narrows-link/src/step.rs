//! Payloads of splits whose tails take more than one tensor: [`Step`] there, [`Outputs`] back.
//!
//! A frame alone is enough for a tail of one input. A step carries beside it which split its head is of, the side
//! tensors, and its place in a *stream*: a row of steps whose state (key-value caches, for instance) the tail keeps. The
//! bytes are in `docs/protocol.md`; what is in frames and tensors is not this crate's business.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
};

use sha2::{Digest as _, Sha256};

use crate::{Error, message::Fields};

/// First four bytes of a step.
const STEP_MAGIC: [u8; 4] = *b"NRST";
/// First four bytes of outputs.
const OUTPUTS_MAGIC: [u8; 4] = *b"NRSO";
/// Version of both.
const VERSION: u8 = 1;
/// Flag bits of a step.
const IN_STREAM: u8 = 1;
const ENDS: u8 = 2;
/// Most side tensors of a step, and most outputs.
pub const MAX_TENSORS: usize = 64;

/// Which split a half is of: head and tail agree on it, or must not work together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SplitId([u8; 16]);

impl SplitId {
    /// Nobody knows: goes with every other.
    pub const UNKNOWN: SplitId = SplitId([0; 16]);

    /// The split at the tensor `cut` of the model whose file has this SHA-256, in lower-case hexadecimal.
    pub fn of(model_sha256: &str, cut: &str) -> SplitId {
        let digest =
            Sha256::new().chain_update(model_sha256).chain_update(b"\n").chain_update(cut).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        SplitId(id)
    }

    /// Whether halves of these splits may work together.
    pub fn goes_with(self, other: SplitId) -> bool {
        self == other || self == SplitId::UNKNOWN || other == SplitId::UNKNOWN
    }
}

/// The name of a stream, which the client makes up. Whoever knows it can go on with the stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId([u8; 16]);

impl StreamId {
    /// A name that nobody else has, nor can guess.
    pub fn random() -> StreamId {
        // Fresh states are keyed by the operating system's random numbers, and the keys do not show in their hashes.
        let [low, high] = [0u8, 1].map(|half| RandomState::new().hash_one(half).to_le_bytes());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&low);
        id[8..].copy_from_slice(&high);
        StreamId(id)
    }
}

macro_rules! shown_in_hexadecimal {
    ($($id:ident),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self)
            }
        }
    )*};
}

shown_in_hexadecimal!(SplitId, StreamId);

/// A place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The stream.
    pub stream: StreamId,
    /// Steps before this one. A step sent again has the same number, and gets the same answer.
    pub number: u32,
    /// There will be no further step: nothing is computed, the state is given up.
    pub ends: bool,
}

/// What a head makes of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'a> {
    /// The split that the head is of.
    pub split: SplitId,
    /// Where it belongs, if the tail has state.
    pub place: Option<Place>,
    /// Side tensors, packed, in the order of the tail's inputs.
    pub side: Vec<&'a [u8]>,
    /// The payload's frame.
    pub frame: &'a [u8],
}

impl<'a> Step<'a> {
    /// A frame of this split, with nothing beside it.
    pub const fn new(split: SplitId, frame: &'a [u8]) -> Step<'a> {
        Step { split, place: None, side: Vec::new(), frame }
    }

    /// Whether bytes are meant to be a step, and not a frame.
    pub fn is_meant(bytes: &[u8]) -> bool {
        bytes.starts_with(&STEP_MAGIC)
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for more than [`MAX_TENSORS`] side tensors, or one of 4 GiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = STEP_MAGIC.to_vec();
        let flags = self.place.map_or(0, |place| IN_STREAM | if place.ends { ENDS } else { 0 });
        bytes.extend([VERSION, flags]);
        bytes.extend(count(self.side.len())?.to_le_bytes());
        bytes.extend(self.split.0);
        if let Some(place) = self.place {
            bytes.extend(place.stream.0);
            bytes.extend(place.number.to_le_bytes());
        }
        for side in &self.side {
            bytes.extend(length(side)?.to_le_bytes());
            bytes.extend_from_slice(side);
        }
        bytes.extend_from_slice(self.frame);
        Ok(bytes)
    }

    /// The step that some bytes are; its parts are lent.
    ///
    /// # Errors
    /// What is wrong with them, before memory is taken.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Step<'a>, Error> {
        let mut fields = Fields::of(bytes);
        read_magic(&mut fields, STEP_MAGIC)?;
        let [flags] = fields.array("step")?;
        if flags & !(IN_STREAM | ENDS) != 0 || flags == ENDS {
            return Err(Error::Reserved { what: "step flags", value: flags.into() });
        }
        let sides = read_count(&mut fields, "number of side tensors")?;
        let split = SplitId(fields.array("split")?);
        let place = if flags & IN_STREAM == 0 {
            None
        } else {
            let stream = StreamId(fields.array("stream")?);
            Some(Place { stream, number: fields.u32("step number")?, ends: flags & ENDS != 0 })
        };
        let side = (0..sides).map(|_| read_part(&mut fields, "side tensor")).collect::<Result<_, _>>()?;
        Ok(Step { split, place, side, frame: fields.rest() })
    }
}

/// What a tail gives for a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs<'a>(pub Vec<Output<'a>>);

/// One tensor of the answer, in the order of the tail's outputs that are no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output<'a> {
    /// A frame.
    Frame(&'a [u8]),
    /// Integers or truth values, packed as side tensors are.
    Packed(&'a [u8]),
}

impl<'a> Outputs<'a> {
    /// Appends the bytes.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for more than [`MAX_TENSORS`] outputs, or one of 4 GiB.
    pub fn write_into(&self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        bytes.extend(OUTPUTS_MAGIC);
        bytes.extend([VERSION, 0]);
        bytes.extend(count(self.0.len())?.to_le_bytes());
        for output in &self.0 {
            let (kind, part) = match *output {
                Output::Frame(part) => (0, part),
                Output::Packed(part) => (1, part),
            };
            bytes.push(kind);
            bytes.extend(length(part)?.to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Ok(())
    }

    /// The outputs that some bytes are; they are lent.
    ///
    /// # Errors
    /// What is wrong with them, before memory is taken.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Outputs<'a>, Error> {
        let mut fields = Fields::of(bytes);
        read_magic(&mut fields, OUTPUTS_MAGIC)?;
        let [reserved] = fields.array("outputs")?;
        if reserved != 0 {
            return Err(Error::Reserved { what: "outputs", value: reserved.into() });
        }
        let count = read_count(&mut fields, "number of outputs")?;
        let mut outputs = Vec::new();
        for _ in 0..count {
            let [kind] = fields.array("output's kind")?;
            let part = read_part(&mut fields, "output")?;
            outputs.push(match kind {
                0 => Output::Frame(part),
                1 => Output::Packed(part),
                kind => return Err(Error::UnknownKind { kind }),
            });
        }
        fields.end("outputs")?;
        Ok(Outputs(outputs))
    }
}

fn read_magic(fields: &mut Fields<'_>, expected: [u8; 4]) -> Result<(), Error> {
    let found = fields.array("magic")?;
    if found != expected {
        return Err(Error::BadMagic { found });
    }
    match fields.array("version")? {
        [VERSION] => Ok(()),
        [version] => {
            Err(Error::UnsupportedVersion { version: version.into(), supported: u16::from(VERSION) })
        }
    }
}

fn read_count(fields: &mut Fields<'_>, what: &'static str) -> Result<u16, Error> {
    let count = fields.u16(what)?;
    if usize::from(count) > MAX_TENSORS {
        return Err(Error::LimitExceeded { what, value: count.into(), limit: MAX_TENSORS as u64 });
    }
    Ok(count)
}

fn read_part<'a>(fields: &mut Fields<'a>, what: &'static str) -> Result<&'a [u8], Error> {
    let length = fields.u32(what)?;
    fields.take(what, length as usize)
}

fn count(tensors: usize) -> Result<u16, Error> {
    let (what, limit) = ("number of tensors", MAX_TENSORS as u64);
    let fits = u16::try_from(tensors).ok().filter(|_| tensors <= MAX_TENSORS);
    fits.ok_or(Error::LimitExceeded { what, value: tensors as u64, limit })
}

fn length(part: &[u8]) -> Result<u32, Error> {
    let (value, limit) = (part.len() as u64, u64::from(u32::MAX));
    u32::try_from(part.len()).map_err(|_| Error::LimitExceeded { what: "tensor", value, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u32) -> Place {
        Place { stream: StreamId([7; 16]), number, ends: false }
    }

    fn step() -> Step<'static> {
        let side = vec![&[1u8, 2, 3][..], &[]];
        Step { split: SplitId::of("ab", "x"), place: Some(place(5)), side, frame: b"a frame" }
    }

    #[test]
    fn a_step_has_the_bytes_of_the_protocols_example() {
        let step = Step {
            split: SplitId([0x11; 16]),
            place: Some(Place { stream: StreamId([0x22; 16]), number: 3, ends: false }),
            side: vec![&[9, 8]],
            frame: &[7],
        };
        let expected = [
            b"NRST".as_slice(),
            &[1, 1, 1, 0],
            &[0x11; 16],
            &[0x22; 16],
            &[3, 0, 0, 0],
            &[2, 0, 0, 0, 9, 8],
            &[7],
        ];
        assert_eq!(step.to_bytes().unwrap(), expected.concat());
    }

    #[test]
    fn steps_and_outputs_survive() {
        let bytes = step().to_bytes().unwrap();
        assert!(Step::is_meant(&bytes) && !Step::is_meant(b"NRW"));
        assert_eq!(Step::from_bytes(&bytes).unwrap(), step());
        let outputs = Outputs(vec![Output::Packed(&[1]), Output::Frame(b"NRW"), Output::Frame(&[])]);
        let mut bytes = Vec::new();
        outputs.write_into(&mut bytes).unwrap();
        assert_eq!(Outputs::from_bytes(&bytes).unwrap(), outputs);
    }

    #[test]
    fn truncated_steps_and_outputs_are_refused() {
        let bytes = step().to_bytes().unwrap();
        for length in 0..bytes.len() - step().frame.len() {
            assert!(Step::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        let mut bytes = Vec::new();
        Outputs(vec![Output::Frame(b"abc"), Output::Packed(b"d")]).write_into(&mut bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(Outputs::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        bytes.push(0);
        assert!(matches!(Outputs::from_bytes(&bytes), Err(Error::TrailingBytes { count: 1, .. })));
    }

    #[test]
    fn damaged_steps_are_an_error_or_a_step() {
        let bytes = step().to_bytes().unwrap();
        for position in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[position / 8] ^= 1 << (position % 8);
            let read = Step::from_bytes(&damaged);
            if position < 7 * 8 {
                assert!(read.is_err() || read.unwrap() != step(), "{position}");
            }
        }
        let mut many = bytes;
        many[6..8].copy_from_slice(&65u16.to_le_bytes());
        assert!(matches!(Step::from_bytes(&many), Err(Error::LimitExceeded { value: 65, .. })));
    }

    #[test]
    fn a_split_that_nobody_knows_goes_with_every_other() {
        let [one, other] = ["a", "b"].map(|cut| SplitId::of("0123", cut));
        assert!(one.goes_with(one) && !one.goes_with(other));
        assert!(SplitId::UNKNOWN.goes_with(one) && one.goes_with(SplitId::UNKNOWN));
    }

    #[test]
    fn streams_have_names_of_their_own() {
        assert_ne!(StreamId::random(), StreamId::random());
    }
}
