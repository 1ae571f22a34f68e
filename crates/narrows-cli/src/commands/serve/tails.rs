//! The tails of one or more split models, each behind the route of its cut's name.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use narrows::{Content, Decoder, EncodeOptions, Encoder, Profile, Profiles, Tensor, TensorView};
use narrows_link::http::{PlainTensor, TensorSpec, Tensors};
use narrows_link::{Code, Failure as Refusal, ProfileName, Request, Tail, Work};

use crate::evaluate::{Half, timed, without_batch};
use crate::failure::{Failure, Result};

/// Most profiles that clients may bring.
const MAX_BROUGHT_PROFILES: usize = 256;
/// What the tail's result is called.
const OUTPUT: &str = "output";

/// The tails, and what answering takes.
pub struct Tails {
    halves: Vec<Half>,
    profiles: RwLock<Known>,
    /// Rises with every profile, so that workers know theirs are too few.
    generation: AtomicU64,
    /// Those not in use; there are as many in all as requests were answered at a time.
    workers: Mutex<Vec<Worker>>,
}

/// The profiles that frames may name.
struct Known {
    profiles: Profiles,
    names: HashSet<ProfileName>,
    brought: usize,
}

/// What answering takes besides the models, kept from one request to the next.
struct Worker {
    generation: u64,
    decoder: Decoder,
    features: Tensor,
    encoder: Encoder,
}

fn refuse(code: Code, cause: &impl ToString) -> Refusal {
    Refusal::new(code, cause.to_string())
}

impl Tails {
    pub fn new(halves: Vec<Half>, profiles: Profiles) -> Result<Self> {
        for (index, tail) in halves.iter().enumerate() {
            if halves[..index].iter().any(|other| other.cut == tail.cut) {
                return Err(Failure::usage(format!("two tails were cut at `{}`", tail.cut))
                    .hint("serve one of them from another process"));
            }
        }
        let names = profiles.iter().map(|profile| ProfileName::of(&profile.to_bytes())).collect();
        Ok(Self {
            halves,
            profiles: RwLock::new(Known { profiles, names, brought: 0 }),
            generation: AtomicU64::new(0),
            workers: Mutex::default(),
        })
    }

    fn half(&self, route: &str) -> Result<&Half, Refusal> {
        self.halves.iter().find(|tail| tail.cut == route).ok_or_else(|| refuse(Code::UnknownRoute, &route))
    }

    fn worker(&self) -> Result<Worker, Refusal> {
        let generation = self.generation.load(Ordering::Acquire);
        let idle = self.workers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(worker) = idle.filter(|worker| worker.generation == generation) {
            return Ok(worker);
        }
        let profiles = self.profiles.read().unwrap_or_else(PoisonError::into_inner).profiles.clone();
        let encoder = Encoder::new(EncodeOptions::lossless());
        Ok(Worker {
            generation,
            decoder: Decoder::new().with_profiles(profiles),
            features: Tensor::default(),
            encoder: encoder.map_err(|error| refuse(Code::Internal, &error))?,
        })
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
}

impl Tail for Tails {
    fn routes(&self) -> Vec<String> {
        self.halves.iter().map(|tail| tail.cut.clone()).collect()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Refusal> {
        let tail = self.half(request.route)?;
        let mut worker = self.worker()?;
        let work = worker.answer(tail, request.payload, reply);
        self.keep(worker);
        Ok(Work { bits: self.bits(request.payload), ..work? })
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

impl Worker {
    /// Decode, run, encode the result.
    fn answer(&mut self, tail: &Half, frame: &[u8], reply: &mut Vec<u8>) -> Result<Work, Refusal> {
        let (decoded, decode) = timed(|| self.decoder.decode_into(frame, &mut self.features));
        decoded.map_err(|error| refuse(Code::BadPayload, &error))?;
        let (found, expected) = (without_batch(self.features.shape().dims()), tail.input_dims());
        if found != expected {
            let text =
                format!("the tail takes a tensor of shape {expected:?}, the frame holds one of {found:?}");
            return Err(refuse(Code::BadPayload, &text));
        }
        let features =
            self.features.as_f32().map_or_else(|| Cow::Owned(self.features.to_f32()), Cow::Borrowed);
        let (result, run) = timed(|| tail.run(&features));
        let result = result.map_err(|error| refuse(Code::TailFailed, &error))?;
        let encoded = self.encoder.encode_into(&result.view(), reply);
        encoded.map_err(|error| refuse(Code::Internal, &error))?;
        let tensor_bytes = self.features.view().bytes() as u64;
        Ok(Work { decode, tail: run, tensor_bytes, bits: None })
    }
}

/// Plain tensors travel as lossless frames behind the door.
impl Tensors for Tails {
    fn specs(&self, route: &str) -> Option<(TensorSpec, TensorSpec)> {
        let half = self.half(route).ok()?;
        let spec = |name: &str, dims: &[usize]| TensorSpec {
            name: name.into(),
            shape: dims.iter().map(|&dimension| dimension as i64).collect(),
        };
        Some((spec(&half.cut, half.input_dims()), spec(OUTPUT, half.output_dims())))
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
