//! Text models: what they take beside token numbers, and the two halves of a split one, with everything that crosses
//! encoded and decoded.

use std::sync::Arc;

use narrows::{Decoder, EncodeOptions, Encoder, Profile, Tensor, TensorView};
use narrows_link::{Code, Error, Output, Outputs, Place, Request, SplitId, Step, StreamId, Tail};
use narrows_split::{Class, Manifest, Model, Runtime, Session, Value};

use super::rate::encode_within;
use super::without_batch;
use crate::failure::{Failure, Result};
use crate::link_args::Connection;
use crate::tails::{MAX_SIDE_ELEMENTS, Tails, split_id};

/// Tensors for the inputs of a text model, by name: `tokens` are new, `past` ones came before.
///
/// `input_ids` are the tokens, masks (of that name) let all through, positions count on, and token types are 0.
pub fn token_inputs(names: &[String], tokens: &[i64], past: usize) -> Result<Vec<(String, Value)>> {
    let total = past + tokens.len();
    let row = |values: Vec<i64>| {
        Value::new([1, values.len()], values).map_err(|error| Failure::model("no row", &error))
    };
    let input = |name: &String| {
        let values = match name.as_str() {
            "input_ids" => tokens.to_vec(),
            _ if name.contains("mask") => vec![1; total],
            _ if name.contains("position") => (past as i64..total as i64).collect(),
            _ if name.contains("token_type") => vec![0; tokens.len()],
            _ => {
                let failure = Failure::data(format!("nobody knows what to feed the input {name}"));
                return Err(
                    failure.because("a text model takes input_ids, a mask, positions and token types")
                );
            }
        };
        Ok((name.clone(), row(values)?))
    };
    names.iter().map(input).collect()
}

/// What crossed at one step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crossed {
    /// Elements of the payload.
    pub elements: usize,
    /// Bytes of its frame.
    pub frame: usize,
    /// Bytes of the side tensors, packed.
    pub side: usize,
}

/// How a payload crosses.
#[derive(Clone, Debug)]
pub enum Crossing {
    /// In a frame that keeps every bit.
    Lossless,
    /// In a frame of at most so many bits for each element.
    Within(f32),
    /// In a frame that names a profile.
    Profile(Arc<Profile>),
}

/// Where the tail is.
pub enum Far {
    /// In this process.
    Here(Box<Tails>),
    /// Behind a link.
    There(Box<Connection>),
}

impl Far {
    fn ask(&mut self, route: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Here(tails) => {
                let mut reply = Vec::new();
                let request = Request { id: 1, deadline_ms: 0, route, payload };
                tails.answer(&request, &mut reply).map(|_| reply).map_err(Error::Refused)
            }
            Self::There(connection) => connection.client.request(route, payload).map(|answer| answer.payload),
        }
    }

    /// Make a profile known there.
    fn learn(&mut self, profile: &Profile) -> Result<()> {
        let contents = profile.to_bytes();
        let told = match self {
            Self::Here(tails) => tails
                .take_profile(&narrows_link::ProfileName::of(&contents), &contents)
                .map_err(Error::Refused),
            Self::There(connection) => connection.client.offer_profile(&contents).map(|_| ()),
        };
        told.map_err(|error| Failure::link("the tail does not take the profile", &error))
    }
}

/// The head of a split model here, and its tail wherever that is.
pub struct SplitText {
    cut: String,
    split: SplitId,
    head: Session,
    /// Inputs of the head that are no state.
    inputs: Vec<String>,
    side: Vec<String>,
    outputs: Vec<String>,
    coding: Crossing,
    far: Far,
    decoder: Decoder,
    /// Of the stream, if the tail has state: the next step's place.
    place: Option<Place>,
    is_gone: bool,
}

impl SplitText {
    pub fn new(head: &Model, manifest: &Manifest, runtime: Runtime, far: Far) -> Result<Self> {
        let failed = |error| Failure::model("cannot run the head", &error);
        let of = |tensors: &[narrows_split::Described], class| -> Vec<String> {
            let wanted = tensors.iter().filter(|tensor| tensor.class == class);
            wanted.map(|tensor| tensor.name.clone()).collect()
        };
        let has_state = manifest.tail.inputs.iter().any(|tensor| tensor.class == Class::State);
        Ok(Self {
            cut: manifest.cut.clone(),
            split: split_id(head),
            head: Session::new(head, runtime).map_err(failed)?,
            inputs: of(&manifest.head.inputs, Class::Input),
            side: of(&manifest.tail.inputs, Class::Side),
            outputs: of(&manifest.tail.outputs, Class::Output),
            coding: Crossing::Lossless,
            far,
            decoder: Decoder::new(),
            place: has_state.then(first_place),
            is_gone: false,
        })
    }

    /// Forget what came before.
    pub fn reset(&mut self) {
        self.head.reset();
        self.end();
        self.is_gone = false;
    }

    /// Whether the tail has lost its state: what came before must be sent again.
    pub const fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether the tail keeps state.
    pub const fn has_stream(&self) -> bool {
        self.place.is_some()
    }

    /// How payloads cross from now on.
    pub fn set_coding(&mut self, coding: Crossing) -> Result<()> {
        if let Crossing::Profile(profile) = &coding {
            self.far.learn(profile)?;
        }
        self.coding = coding;
        Ok(())
    }

    /// The payload that the head makes of some inputs, as the codec takes it.
    pub fn payload(&mut self, all: &[(String, Value)]) -> Result<Tensor> {
        let outputs = self.run_head(all)?;
        let payload = outputs.iter().find(|(name, _)| *name == self.cut);
        let Some((value, elements)) = payload.and_then(|(_, value)| Some((value, value.f32()?))) else {
            return Err(Failure::data("the payload is not float32"));
        };
        Tensor::new(elements.to_vec(), without_batch(value.shape()))
            .map_err(|error| Failure::codec("the payload cannot be sent", &error))
    }

    fn run_head(&mut self, all: &[(String, Value)]) -> Result<Vec<(String, Value)>> {
        let given = all.iter().filter(|(name, _)| self.inputs.contains(name));
        let given: Vec<_> = given.map(|(name, value)| (name.as_str(), value)).collect();
        self.head.step(&given).map_err(|error| Failure::model("the head failed", &error))
    }

    /// Bytes of caches: of the head, and of the tail if it is in this process.
    pub fn state_bytes(&self) -> (usize, Option<u64>) {
        let tail = match &self.far {
            Far::Here(tails) => Some(tails.state_bytes()),
            Far::There(_) => None,
        };
        (self.head.state_bytes(), tail)
    }

    /// Run new tokens through both halves. Gives the model's outputs by name, and what crossed.
    pub fn step(&mut self, all: &[(String, Value)]) -> Result<(Vec<(String, Value)>, Crossed)> {
        let from_head = self.run_head(all)?;
        let payload = from_head.iter().find(|(name, _)| *name == self.cut).map(|(_, value)| value);
        let payload = payload.ok_or_else(|| Failure::data("the head gives no payload"))?;
        let frame = self.encode(payload)?;
        let side = self.side.iter().map(|name| {
            let known = all.iter().chain(&from_head).find(|(known, _)| known == name);
            let packed = known.and_then(|(_, value)| value.pack());
            packed.ok_or_else(|| Failure::data(format!("nothing makes the side tensor {name}")))
        });
        let side = side.collect::<Result<Vec<_>>>()?;
        let step = Step {
            split: self.split,
            place: self.place,
            side: side.iter().map(Vec::as_slice).collect(),
            frame: &frame,
        };
        let crossed = Crossed {
            elements: payload.shape().iter().product(),
            frame: frame.len(),
            side: side.iter().map(Vec::len).sum(),
        };
        let reply = self.ask(&step)?;
        if let Some(place) = &mut self.place {
            place.number += 1;
        }
        let mut outputs = self.read(&reply)?;
        outputs.extend(from_head);
        Ok((outputs, crossed))
    }

    fn ask(&mut self, step: &Step<'_>) -> Result<Vec<u8>> {
        let failed = |error: Error| Failure::link("the tail did not answer", &error);
        let payload = step.to_bytes().map_err(failed)?;
        self.far.ask(&self.cut, &payload).map_err(|error| {
            self.is_gone = matches!(&error, Error::Refused(failure) if failure.code() == Code::StreamGone);
            failed(error)
        })
    }

    /// The payload's frame.
    fn encode(&self, payload: &Value) -> Result<Vec<u8>> {
        let values = payload.f32().ok_or_else(|| Failure::data("the payload is not float32"))?;
        let failed = |error| Failure::codec("the payload cannot be sent", &error);
        let tensor = TensorView::new(values, without_batch(payload.shape())).map_err(failed)?;
        let with = |options| Encoder::new(options).and_then(|mut encoder| encoder.encode(&tensor));
        let frame = match &self.coding {
            Crossing::Lossless => with(EncodeOptions::lossless()),
            Crossing::Within(rate) => encode_within(&tensor, values, *rate),
            Crossing::Profile(profile) => with(profile.options()),
        };
        frame.map_err(failed)
    }

    /// The outputs that came back, by name.
    fn read(&mut self, reply: &[u8]) -> Result<Vec<(String, Value)>> {
        let Outputs(outputs) = Outputs::from_bytes(reply)
            .map_err(|error| Failure::link("the tail's answer cannot be read", &error))?;
        if outputs.len() != self.outputs.len() {
            let (found, expected) = (outputs.len(), self.outputs.len());
            return Err(Failure::data(format!("the tail gave {found} tensors, its manifest has {expected}")));
        }
        let names = self.outputs.clone();
        names.into_iter().zip(outputs).map(|(name, output)| Ok((name, self.value(output)?))).collect()
    }

    fn value(&mut self, output: Output<'_>) -> Result<Value> {
        let lost = |error| Failure::model("the tail's answer cannot be read", &error);
        match output {
            Output::Packed(packed) => Value::unpack(packed, MAX_SIDE_ELEMENTS).map_err(lost),
            Output::Frame(frame) => {
                let decoded = self.decoder.decode(frame);
                let tensor =
                    decoded.map_err(|error| Failure::codec("the tail's answer cannot be read", &error))?;
                Value::new(tensor.shape().dims(), tensor.to_f32()).map_err(lost)
            }
        }
    }

    /// Let the tail forget the stream, if there is one; the next step begins another.
    fn end(&mut self) {
        let Some(place) = self.place else { return };
        if place.number > 0 {
            let place = Some(Place { ends: true, ..place });
            let step = Step { split: self.split, place, side: Vec::new(), frame: &[] };
            // If it does not hear it, it forgets by itself.
            let _ = step.to_bytes().and_then(|payload| self.far.ask(&self.cut, &payload));
        }
        self.place = Some(first_place());
    }
}

impl Drop for SplitText {
    fn drop(&mut self) {
        self.end();
    }
}

fn first_place() -> Place {
    Place { stream: StreamId::random(), number: 0, ends: false }
}

/// The cosine of the angle between two vectors.
pub fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt().max(f64::MIN_POSITIVE)
}
