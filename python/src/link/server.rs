//! A server whose tail is Python's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use narrows_link::tls::{Identity, ServerTls};
use narrows_link::{
    Code, Failure, Limits, Output, Outputs, ProfileName, Request, Running, ServerOptions, Step, Tail, Token,
    Work,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{raise, seconds};
use crate::failure::{self, Kind};

/// A handler of `narrows.server`: `routes`, `answer(route, frame)`, `has_profile(name)` and `take_profile(name, contents)`.
struct Handler {
    handler: Py<PyAny>,
    routes: Vec<String>,
}

/// What `answer` gives: a frame and nanoseconds of decoding and running and bytes of the tensor, or a refusal.
#[derive(FromPyObject)]
enum Reply<'py> {
    Frame(Bound<'py, PyBytes>, u64, u64, u64),
    Refusal(u16, String),
}

fn gone() -> Failure {
    Failure::new(Code::Internal, "the interpreter is shutting down")
}

/// An exception where the handler should not have let one through.
fn broken(py: Python<'_>, error: &PyErr) -> Failure {
    Failure::new(Code::Internal, error.value(py).to_string())
}

/// The frame of a request, and whether it came as a step. A tail in Python takes one tensor and keeps no state.
fn frame_of(payload: &[u8]) -> Result<(&[u8], bool), Failure> {
    if !Step::is_meant(payload) {
        return Ok((payload, false));
    }
    let refusal = |text: String| Failure::new(Code::BadPayload, text);
    let step = Step::from_bytes(payload).map_err(|error| refusal(format!("not a step: {error}")))?;
    if !step.side.is_empty() {
        return Err(refusal(format!("this tail takes no side tensors, {} came", step.side.len())));
    }
    if step.place.is_some() {
        return Err(refusal("this tail keeps no state: its steps are in no stream".into()));
    }
    Ok((step.frame, true))
}

impl Tail for Handler {
    fn routes(&self) -> Vec<String> {
        self.routes.clone()
    }

    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
        let (frame, is_step) = frame_of(request.payload)?;
        Python::try_attach(|py| {
            let frame = PyBytes::new(py, frame);
            let answer = self.handler.bind(py).call_method1("answer", (request.route, frame));
            match answer.and_then(|answer| answer.extract()) {
                Ok(Reply::Frame(frame, decode, tail, tensor_bytes)) => {
                    if is_step {
                        let written = Outputs(vec![Output::Frame(frame.as_bytes())]).write_into(reply);
                        written.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
                    } else {
                        reply.extend_from_slice(frame.as_bytes());
                    }
                    let (decode, tail) = (Duration::from_nanos(decode), Duration::from_nanos(tail));
                    Ok(Work { decode, tail, tensor_bytes, bits: None })
                }
                Ok(Reply::Refusal(code, text)) => Err(Failure::new(Code::from(code), text)),
                Err(error) => Err(broken(py, &error)),
            }
        })
        .unwrap_or_else(|| Err(gone()))
    }

    fn takes_profiles(&self) -> bool {
        true
    }

    fn has_profile(&self, name: &ProfileName) -> bool {
        let has = |py: Python<'_>| {
            let answer = self.handler.bind(py).call_method1("has_profile", (PyBytes::new(py, &name.0),));
            answer.and_then(|answer| answer.extract()).unwrap_or(false)
        };
        Python::try_attach(has).unwrap_or(false)
    }

    fn take_profile(&self, name: &ProfileName, contents: &[u8]) -> Result<(), Failure> {
        Python::try_attach(|py| {
            let arguments = (PyBytes::new(py, &name.0), PyBytes::new(py, contents));
            let taken = self.handler.bind(py).call_method1("take_profile", arguments);
            match taken.and_then(|refusal| refusal.extract::<Option<String>>()) {
                Ok(None) => Ok(()),
                Ok(Some(text)) => Err(Failure::new(Code::BadProfile, text)),
                Err(error) => Err(broken(py, &error)),
            }
        })
        .unwrap_or_else(|| Err(gone()))
    }
}

/// The Rust server behind `narrows.server`.
#[pyclass(frozen, module = "narrows._narrows", name = "_Server")]
pub(crate) struct Server {
    address: String,
    running: Mutex<Option<Running>>,
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (handler, routes, address, *, workers=None, max_message_bytes=None, max_in_flight=None, drain_timeout=None, tokens=Vec::new(), certificate=None, key=None, client_ca=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        handler: Py<PyAny>,
        routes: Vec<String>,
        address: &str,
        workers: Option<usize>,
        max_message_bytes: Option<u32>,
        max_in_flight: Option<usize>,
        drain_timeout: Option<f64>,
        tokens: Vec<String>,
        certificate: Option<&[u8]>,
        key: Option<&[u8]>,
        client_ca: Option<&[u8]>,
    ) -> PyResult<Self> {
        let mut limits = Limits::default();
        limits.max_message_bytes = max_message_bytes.unwrap_or(limits.max_message_bytes);
        limits.max_in_flight = max_in_flight.unwrap_or(limits.max_in_flight);
        if let Some(timeout) = drain_timeout {
            limits.drain_timeout = seconds(py, "drain_timeout", timeout)?;
        }
        let tls = match (certificate, key) {
            (Some(chain_pem), Some(key_pem)) => {
                Some(ServerTls::new(Identity { chain_pem, key_pem }, client_ca))
            }
            (None, None) => None,
            _ => {
                let text = "a certificate needs its key, and a key its certificate";
                return Err(failure::raise(py, Kind::Option, text));
            }
        };
        let options = ServerOptions {
            limits,
            workers,
            tokens: tokens.into_iter().map(Token::new).collect(),
            tls: tls.transpose().map_err(|error| raise(py, &error))?,
            ..ServerOptions::default()
        };
        let running = py.detach(|| {
            let server = narrows_link::Server::bind(address, options)?;
            server.spawn(Handler { handler, routes })
        });
        let running = running.map_err(|error| raise(py, &error))?;
        let address = running.local_addr().to_string();
        Ok(Self { address, running: Mutex::new(Some(running)) })
    }

    #[getter]
    fn address(&self) -> String {
        self.address.clone()
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let stopped = py.detach(|| {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
            running.map_or(Ok(()), Running::stop)
        });
        stopped.map_err(|error| raise(py, &error))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its threads need the GIL to come to an end.
        Python::try_attach(|py| py.detach(|| drop(self.running.get_mut().map(Option::take))));
    }
}
