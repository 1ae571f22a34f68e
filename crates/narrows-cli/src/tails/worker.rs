//! What answering takes besides the models, kept from one request to the next.

use std::time::Duration;

use narrows::{Decoder, EncodeOptions, Encoder, Profiles, Tensor, TensorView};
use narrows_link::{Code, Failure as Refusal, Output, Outputs, Step, Work};
use narrows_split::{Error, Session, Value};

use super::{Served, refuse};
use crate::evaluate::{timed, without_batch};

/// Elements that a side tensor may have.
pub const MAX_SIDE_ELEMENTS: usize = 1 << 20;

pub struct Worker {
    pub generation: u64,
    pub decoder: Decoder,
    pub encoder: Encoder,
    features: Tensor,
}

/// An output, coded.
enum Coded {
    Frame(Vec<u8>),
    Packed(Vec<u8>),
}

impl Worker {
    pub fn new(generation: u64, profiles: Profiles) -> Result<Self, Refusal> {
        let encoder = Encoder::new(EncodeOptions::lossless());
        Ok(Self {
            generation,
            decoder: Decoder::new().with_profiles(profiles),
            encoder: encoder.map_err(|error| refuse(Code::Internal, &error))?,
            features: Tensor::default(),
        })
    }

    /// Answer a frame with the frame of the first output.
    pub fn frame(&mut self, tail: &Served, frame: &[u8], reply: &mut Vec<u8>) -> Result<Work, Refusal> {
        if !tail.takes_frames_alone() {
            let text = format!("the tail at {} takes more than a frame: {}", tail.cut, tail.needs());
            return Err(refuse(Code::BadPayload, &text));
        }
        let (outputs, work) = self.run(tail, &mut tail.session.clone(), frame, &[])?;
        self.write_first(&outputs, reply)?;
        Ok(work)
    }

    /// Answer a step with all outputs.
    pub fn step(
        &mut self,
        tail: &Served,
        session: &mut Session,
        step: &Step<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<Work, Refusal> {
        let (outputs, work) = self.run(tail, session, step.frame, &step.side)?;
        // The state has moved on, and the answer is lost: the step cannot be taken again.
        let code = if session.has_state() { Code::StreamGone } else { Code::Internal };
        self.write_outputs(&outputs, reply).map_err(|failure| Refusal::new(code, failure.text()))?;
        Ok(work)
    }

    /// The frame of the first output.
    pub fn write_first(&mut self, outputs: &[Value], reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let first = outputs.first().and_then(|value| Some((value.f32()?, without_batch(value.shape()))));
        let Some((values, shape)) = first else {
            return Err(refuse(Code::TailFailed, &"the tail's first output is not float32"));
        };
        let result = TensorView::new(values, shape).and_then(|view| self.encoder.encode_into(&view, reply));
        result.map_err(|error| refuse(Code::Internal, &error))
    }

    /// All outputs, as the answer to a step.
    pub fn write_outputs(&mut self, outputs: &[Value], reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let coded = outputs.iter().map(|value| self.coded(value)).collect::<Result<Vec<_>, _>>()?;
        let outputs = coded.iter().map(|coded| match coded {
            Coded::Frame(bytes) => Output::Frame(bytes),
            Coded::Packed(bytes) => Output::Packed(bytes),
        });
        let written = Outputs(outputs.collect()).write_into(reply);
        written.map_err(|error| refuse(Code::Internal, &error))
    }

    /// What a frame holds, as the payload's input takes it, and how long decoding took.
    pub fn payload(&mut self, tail: &Served, frame: &[u8]) -> Result<(Value, Duration), Refusal> {
        let (decoded, decode) = timed(|| self.decoder.decode_into(frame, &mut self.features));
        decoded.map_err(|error| refuse(Code::BadPayload, &error))?;
        let payload = tail.payload_of(&self.features);
        Ok((payload.map_err(|error| refuse(Code::BadPayload, &error))?, decode))
    }

    fn coded(&mut self, value: &Value) -> Result<Coded, Refusal> {
        let Some(values) = value.f32() else {
            let packed = value.pack().ok_or_else(|| refuse(Code::Internal, &"an output cannot be packed"))?;
            return Ok(Coded::Packed(packed));
        };
        let frame = TensorView::new(values, value.shape()).and_then(|view| self.encoder.encode(&view));
        frame.map(Coded::Frame).map_err(|error| refuse(Code::Internal, &error))
    }

    /// Decode, and run. State is as before after an error.
    fn run(
        &mut self,
        tail: &Served,
        session: &mut Session,
        frame: &[u8],
        side: &[&[u8]],
    ) -> Result<(Vec<Value>, Work), Refusal> {
        let bad = |error: Error| refuse(Code::BadPayload, &error);
        let (payload, decode) = self.payload(tail, frame)?;
        if side.len() != tail.side.len() {
            let (cut, expected, found) = (&tail.cut, tail.side.len(), side.len());
            let text = format!("the tail at {cut} takes {expected} side tensors, {found} came");
            return Err(refuse(Code::BadPayload, &text));
        }
        let side = side.iter().map(|packed| Value::unpack(packed, MAX_SIDE_ELEMENTS).map_err(bad));
        let side = side.collect::<Result<Vec<_>, _>>()?;
        let mut inputs = vec![(tail.payload.name.as_str(), &payload)];
        inputs.extend(tail.side.iter().map(|port| port.name.as_str()).zip(&side));
        let (outputs, run) = timed(|| session.step(&inputs));
        let outputs = outputs.map_err(|error| match error {
            Error::InputMismatch { .. } => bad(error),
            error => refuse(Code::TailFailed, &error),
        })?;
        let tensor_bytes = self.features.view().bytes() as u64;
        let work = Work { decode, tail: run, tensor_bytes, bits: None };
        Ok((outputs.into_iter().map(|(_, value)| value).collect(), work))
    }
}
