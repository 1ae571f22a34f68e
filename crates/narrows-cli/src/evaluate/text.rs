//! Text models: what they take beside token numbers, and a split one in this process.

use std::sync::Arc;

use narrows::{Decoder, EncodeOptions, Encoder, Profile, Profiles, Tensor, TensorView};
use narrows_split::{Class, Manifest, Port, Runtime, Session, Split, Value};

use super::rate::encode_within;
use super::without_batch;
use crate::failure::{Failure, Result};

/// Tensors for the inputs of a text model, by name: `tokens` are new, `past` ones came before.
///
/// `input_ids` are the tokens, masks (of that name) let all through, positions count on, and token types are 0.
pub fn token_inputs(ports: &[Port], tokens: &[i64], past: usize) -> Result<Vec<(String, Value)>> {
    let total = past + tokens.len();
    let row = |values: Vec<i64>| {
        Value::new([1, values.len()], values).map_err(|error| Failure::model("no row", &error))
    };
    let input = |port: &Port| {
        let name = port.name.as_str();
        let values = match name {
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
        Ok((name.to_owned(), row(values)?))
    };
    ports.iter().map(input).collect()
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

/// Head and tail of a model side by side, with everything that would cross a link encoded and decoded.
pub struct SplitText {
    cut: String,
    head: Session,
    tail: Session,
    /// Inputs of the head that are no state, and side tensors of the tail.
    inputs: Vec<Port>,
    side: Vec<String>,
    coding: Crossing,
}

/// How a payload crosses.
#[derive(Clone, Debug)]
pub enum Crossing {
    /// As it is, 32 bits for each element.
    Plain,
    /// In a frame of at most so many bits for each element.
    Within(f32),
    /// In a frame that names a profile.
    Profile(Arc<Profile>),
}

impl SplitText {
    pub fn new(split: &Split, runtime: Runtime, coding: Crossing) -> Result<Self> {
        let failed = |error| Failure::model("cannot run the halves", &error);
        let manifest: Manifest = split.manifest().map_err(failed)?;
        let head = Session::new(&split.head, runtime).map_err(failed)?;
        let tail = Session::new(&split.tail, runtime).map_err(failed)?;
        let is_input = |port: &&Port| {
            manifest.head.inputs.iter().any(|tensor| tensor.name == port.name && tensor.class == Class::Input)
        };
        let side = manifest.tail.inputs.iter().filter(|tensor| tensor.class == Class::Side);
        Ok(Self {
            cut: manifest.cut.clone(),
            inputs: narrows_split::inputs(&split.head)
                .map_err(failed)?
                .iter()
                .filter(is_input)
                .cloned()
                .collect(),
            side: side.map(|tensor| tensor.name.clone()).collect(),
            head,
            tail,
            coding,
        })
    }

    /// Forget what came before.
    pub fn reset(&mut self) {
        self.head.reset();
        self.tail.reset();
    }

    /// How payloads cross from now on.
    pub fn set_coding(&mut self, coding: Crossing) {
        self.coding = coding;
    }

    /// The payload that the head makes of some inputs, as the codec takes it.
    pub fn payload(&mut self, all: &[(String, Value)]) -> Result<Tensor> {
        let given: Vec<_> = self.given(all).collect();
        let outputs = self.head.step(&given).map_err(|error| Failure::model("the head failed", &error))?;
        let payload = outputs.iter().find(|(name, _)| *name == self.cut);
        let Some((value, elements)) = payload.and_then(|(_, value)| Some((value, value.f32()?))) else {
            return Err(Failure::data("the payload is not float32"));
        };
        Tensor::new(elements.to_vec(), without_batch(value.shape()))
            .map_err(|error| Failure::codec("the payload cannot be sent", &error))
    }

    /// What the head takes of all inputs of the model.
    fn given<'a>(&self, all: &'a [(String, Value)]) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let given = all.iter().filter(|(name, _)| self.inputs.iter().any(|port| port.name == *name));
        given.map(|(name, value)| (name.as_str(), value))
    }

    /// Bytes of caches: of the head, and of the tail.
    pub fn state_bytes(&self) -> (usize, usize) {
        (self.head.state_bytes(), self.tail.state_bytes())
    }

    /// Run new tokens through both halves. Gives the model's outputs by name, and what crossed.
    pub fn step(&mut self, all: &[(String, Value)]) -> Result<(Vec<(String, Value)>, Crossed)> {
        let failed = |error| Failure::model("a half failed", &error);
        let given: Vec<_> = self.given(all).collect();
        let from_head = self.head.step(&given).map_err(failed)?;
        let mut crossed = Crossed::default();
        let mut arrived = Vec::new();
        for (name, value) in &from_head {
            if *name == self.cut {
                let (value, frame) = self.cross(value)?;
                crossed.elements = value.shape().iter().product();
                crossed.frame = frame;
                arrived.push((name.as_str(), value));
            }
        }
        for name in &self.side {
            let known = all.iter().chain(&from_head).find(|(known, _)| known == name);
            let Some(packed) = known.and_then(|(_, value)| value.pack()) else {
                return Err(Failure::data(format!("nothing makes the side tensor {name}")));
            };
            crossed.side += packed.len();
            let value = Value::unpack(&packed, MAX_SIDE)
                .map_err(|error| Failure::model("a side tensor was lost", &error))?;
            arrived.push((name.as_str(), value));
        }
        let arrived: Vec<_> = arrived.iter().map(|(name, value)| (*name, value)).collect();
        let mut outputs = self.tail.step(&arrived).map_err(failed)?;
        outputs.extend(from_head);
        Ok((outputs, crossed))
    }

    /// The payload on the other side, and the bytes of its frame.
    fn cross(&self, payload: &Value) -> Result<(Value, usize)> {
        let values = payload.f32().ok_or_else(|| Failure::data("the payload is not float32"))?;
        let failed = |error| Failure::codec("the payload cannot be sent", &error);
        let tensor = TensorView::new(values, without_batch(payload.shape())).map_err(failed)?;
        let mut profiles = Profiles::default();
        let frame = match &self.coding {
            Crossing::Plain => return Ok((payload.clone(), values.len() * 4)),
            Crossing::Within(rate) => encode_within(&tensor, values, *rate),
            Crossing::Profile(profile) => {
                profiles.insert(Arc::clone(profile));
                let options =
                    EncodeOptions { profile: Some(Arc::clone(profile)), ..EncodeOptions::default() };
                Encoder::new(options).and_then(|mut encoder| encoder.encode(&tensor))
            }
        };
        let frame = frame.map_err(failed)?;
        let decoded = Decoder::new().with_profiles(profiles).decode(&frame).map_err(failed)?.to_f32();
        let value = Value::new(payload.shape(), decoded)
            .map_err(|error| Failure::model("the payload was lost", &error))?;
        Ok((value, frame.len()))
    }
}

/// Elements that a side tensor may have.
const MAX_SIDE: usize = 1 << 20;

/// The cosine of the angle between two vectors.
pub fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt().max(f64::MIN_POSITIVE)
}
