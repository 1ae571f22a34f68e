//! The tails of one or more split models, each behind the route of its cut's name: what a server serves, and a device
//! falls back on.

mod served;
mod together;
mod worker;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use narrows::{Content, Profile, Profiles, TensorView};
use narrows_link::http::{PlainTensor, TensorSpec, Tensors};
use narrows_link::{
    Code, Failure as Refusal, Outputs, ProfileName, Request, Step, StreamLimits, Streams, Tail, Work,
};
use narrows_split::{Dim, Port, Session};

use crate::failure::{Failure, Result};
pub use served::{Served, split_id};
pub use worker::MAX_SIDE_ELEMENTS;
use worker::Worker;

/// Most profiles that clients may bring.
const MAX_BROUGHT_PROFILES: usize = 256;
/// What a plain tensor's result is called.
const OUTPUT: &str = "output";

/// The tails, and what answering takes.
pub struct Tails {
    served: Vec<Served>,
    profiles: RwLock<Known>,
    /// Rises with every profile, so that workers know theirs are too few.
    generation: AtomicU64,
    /// Those not in use; there are as many in all as requests were answered at a time.
    workers: Mutex<Vec<Worker>>,
    streams: Streams<Kept>,
    is_batched: bool,
}

/// The profiles that frames may name.
struct Known {
    profiles: Profiles,
    names: HashSet<ProfileName>,
    brought: usize,
}

/// What is kept of a stream.
struct Kept {
    cut: String,
    session: Session,
}

fn refuse(code: Code, cause: &impl ToString) -> Refusal {
    Refusal::new(code, cause.to_string())
}

impl Tails {
    pub fn new(served: Vec<Served>, profiles: Profiles, streams: StreamLimits) -> Result<Self> {
        for (index, tail) in served.iter().enumerate() {
            if served[..index].iter().any(|other| other.cut == tail.cut) {
                return Err(Failure::usage(format!("two tails were cut at `{}`", tail.cut))
                    .hint("serve one of them from another process"));
            }
        }
        let names = profiles.iter().map(|profile| ProfileName::of(&profile.to_bytes())).collect();
        Ok(Self {
            served,
            profiles: RwLock::new(Known { profiles, names, brought: 0 }),
            generation: AtomicU64::new(0),
            workers: Mutex::default(),
            streams: Streams::new(streams),
            is_batched: false,
        })
    }

    /// Runs requests of several clients together, where a tail takes batches of any size. The last bits of an answer may then
    /// depend on who else has asked.
    #[must_use]
    pub fn in_batches(self) -> Self {
        Self { is_batched: true, ..self }
    }

    /// Bytes of state kept for streams.
    pub fn state_bytes(&self) -> u64 {
        self.streams.state_bytes()
    }

    fn tail(&self, route: &str) -> Result<&Served, Refusal> {
        self.served.iter().find(|tail| tail.cut == route).ok_or_else(|| refuse(Code::UnknownRoute, &route))
    }

    fn worker(&self) -> Result<Worker, Refusal> {
        let generation = self.generation.load(Ordering::Acquire);
        let idle = self.workers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(worker) = idle.filter(|worker| worker.generation == generation) {
            return Ok(worker);
        }
        let profiles = self.profiles.read().unwrap_or_else(PoisonError::into_inner).profiles.clone();
        Worker::new(generation, profiles)
    }

    /// Gives a worker back for the next request.
    fn keep(&self, worker: Worker) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
    }

    fn bits(&self, frame: &[u8]) -> Option<u8> {
        let header = narrows::peek(frame).ok()?;
        let levels = match (&header.content, header.profile) {
            (Content::Quantized { dequantizer: Some(map), .. }, _) => map.levels(),
            (Content::Quantized { .. }, Some(id)) => {
                let known = self.profiles.read().unwrap_or_else(PoisonError::into_inner);
                known.profiles.find(id).ok()?.affine().levels()
            }
            _ => return None,
        };
        Some(u16::BITS as u8 - (levels - 1).leading_zeros() as u8)
    }

    fn step(
        &self,
        tail: &Served,
        worker: &mut Worker,
        step: &Step<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<Work, Refusal> {
        if !step.split.goes_with(tail.split) {
            let text = format!(
                "the head is of split {}, the tail served at {} is of split {}: of another model, or another cut",
                step.split, tail.cut, tail.split
            );
            return Err(refuse(Code::OtherSplit, &text));
        }
        let Some(place) = step.place else {
            if tail.session.has_state() {
                let text = format!("the tail at {} keeps state: a step needs a stream", tail.cut);
                return Err(refuse(Code::BadPayload, &text));
            }
            return worker.step(tail, &mut tail.session.clone(), step, reply);
        };
        if place.ends {
            self.streams.end(place.stream);
            let written = Outputs::default().write_into(reply);
            return written.map(|()| Work::default()).map_err(|error| refuse(Code::Internal, &error));
        }
        let open = || Ok(Kept { cut: tail.cut.clone(), session: tail.session.clone() });
        let taken = self.streams.step(place, reply, open, |kept, reply| {
            if kept.cut != tail.cut {
                let text = format!("the stream is one of the tail at {}, not {}", kept.cut, tail.cut);
                return Err(refuse(Code::BadPayload, &text));
            }
            let work = worker.step(tail, &mut kept.session, step, reply)?;
            Ok((work, kept.session.state_bytes() as u64))
        });
        taken.map(Option::unwrap_or_default)
    }
}

impl Tail for Tails {
    fn routes(&self) -> Vec<String> {
        self.served.iter().map(|tail| tail.cut.clone()).collect()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Refusal> {
        let tail = self.tail(request.route)?;
        let mut worker = self.worker()?;
        let (work, frame) = if Step::is_meant(request.payload) {
            let step = Step::from_bytes(request.payload).map_err(|error| refuse(Code::BadPayload, &error))?;
            (self.step(tail, &mut worker, &step, reply), step.frame)
        } else {
            (worker.frame(tail, request.payload, reply), request.payload)
        };
        self.keep(worker);
        Ok(Work { bits: self.bits(frame), ..work? })
    }

    fn max_batch(&self) -> usize {
        let takes_batches = self.is_batched && self.served.iter().any(Served::takes_batches);
        if takes_batches { together::MAX_BATCH } else { 1 }
    }

    fn answer_batch(&self, requests: &[Request<'_>], replies: &mut [Vec<u8>]) -> Vec<Result<Work, Refusal>> {
        let tail = requests.first().and_then(|request| self.tail(request.route).ok());
        let mut results = Vec::new();
        if let Some(tail) = tail.filter(|tail| self.is_batched && tail.takes_batches())
            && let Ok(mut worker) = self.worker()
        {
            results = together::together(tail, &mut worker, requests, replies);
            self.keep(worker);
        }
        results.resize_with(requests.len(), || None);
        let answers = results.into_iter().zip(requests).zip(replies);
        answers
            .map(|((result, request), reply)| result.unwrap_or_else(|| self.answer(request, reply)))
            .collect()
    }

    fn takes_profiles(&self) -> bool {
        true
    }

    fn has_profile(&self, name: &ProfileName) -> bool {
        self.profiles.read().unwrap_or_else(PoisonError::into_inner).names.contains(name)
    }

    fn take_profile(&self, name: &ProfileName, contents: &[u8]) -> Result<(), Refusal> {
        let profile = Profile::from_bytes(contents).map_err(|error| refuse(Code::BadProfile, &error))?;
        let mut known = self.profiles.write().unwrap_or_else(PoisonError::into_inner);
        if known.names.contains(name) {
            return Ok(());
        }
        if known.brought >= MAX_BROUGHT_PROFILES {
            let text =
                format!("clients have brought {MAX_BROUGHT_PROFILES} profiles already, no more are taken");
            return Err(refuse(Code::BadProfile, &text));
        }
        known.profiles.insert(profile);
        known.names.insert(*name);
        known.brought += 1;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// Plain tensors travel as lossless frames behind the door, where a frame is all that a tail takes.
impl Tensors for Tails {
    fn specs(&self, route: &str) -> Option<(TensorSpec, TensorSpec)> {
        let tail = self.tail(route).ok().filter(|tail| tail.takes_frames_alone())?;
        let spec = |name: &str, port: &Port| {
            let sizes = port.dims.iter().map(|dim| match dim {
                Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
                Dim::Open(_) => -1,
            });
            let mut shape: Vec<i64> = sizes.collect();
            // The batch is one, and left out.
            if shape.len() > 1 && matches!(shape[0], 1 | -1) {
                shape.remove(0);
            }
            TensorSpec { name: name.into(), shape }
        };
        Some((spec(&tail.cut, &tail.payload), spec(OUTPUT, tail.outputs.first()?)))
    }

    fn encode(&self, _route: &str, tensor: &PlainTensor) -> Result<Vec<u8>, Refusal> {
        let view = TensorView::new(&tensor.values, &tensor.shape)
            .map_err(|error| refuse(Code::BadPayload, &error))?;
        let mut worker = self.worker()?;
        let mut frame = Vec::new();
        let encoded = worker.encoder.encode_into(&view, &mut frame);
        self.keep(worker);
        encoded.map_err(|error| refuse(Code::BadPayload, &error))?;
        Ok(frame)
    }

    fn decode(&self, _route: &str, reply: &[u8]) -> Result<PlainTensor, Refusal> {
        let mut worker = self.worker()?;
        let decoded = worker.decoder.decode(reply);
        self.keep(worker);
        let tensor = decoded.map_err(|error| refuse(Code::Internal, &error))?;
        Ok(PlainTensor { shape: tensor.shape().dims().to_vec(), values: tensor.to_f32() })
    }
}
