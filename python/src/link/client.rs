//! A client, frames in and frames out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use narrows_link::tls::{ClientTls, Identity};
use narrows_link::{Call, Error, Options, Origin, Token};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{raise, seconds};
use crate::failure::{self, Kind};
use crate::frame::Bytes;
use crate::profile::Profile;

/// A tail's answer: the frame it sent, and what the request took.
#[pyclass(frozen, module = "narrows.client")]
pub(crate) struct Answer(narrows_link::Answer);

#[pymethods]
impl Answer {
    /// The frame that the tail sent.
    #[getter]
    fn frame<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.payload)
    }

    /// Seconds from the call until the answer was complete.
    #[getter]
    fn round_trip(&self) -> f64 {
        self.0.round_trip.as_secs_f64()
    }

    /// Seconds the request waited for the tail, on the server.
    #[getter]
    fn queue_time(&self) -> f64 {
        self.0.record.queue.as_secs_f64()
    }

    /// Seconds the server took to decode the frame.
    #[getter]
    fn decode_time(&self) -> f64 {
        self.0.record.decode.as_secs_f64()
    }

    /// Seconds the tail ran.
    #[getter]
    fn tail_time(&self) -> f64 {
        self.0.record.tail.as_secs_f64()
    }

    /// Seconds that the tail's own times do not explain: the way there and back, and waiting for the tail.
    #[getter]
    fn link_time(&self) -> f64 {
        self.0.link_time().as_secs_f64()
    }

    /// Bytes sent for the answered attempt, all of the message.
    #[getter]
    fn bytes_sent(&self) -> u64 {
        self.0.record.bytes_sent
    }

    /// Bytes of the answering message.
    #[getter]
    fn bytes_received(&self) -> u64 {
        self.0.record.bytes_received
    }

    /// How often the request was sent.
    #[getter]
    fn attempts(&self) -> u32 {
        self.0.record.attempts
    }

    fn __repr__(&self) -> String {
        let Self(answer) = self;
        let from = if answer.record.origin == Origin::Local { ", local" } else { "" };
        let (bytes, milliseconds) = (answer.payload.len(), answer.round_trip.as_secs_f64() * 1e3);
        format!("<narrows.client.Answer {bytes} bytes after {milliseconds:.1} ms{from}>")
    }
}

/// The Rust client behind `narrows.client`.
#[pyclass(frozen, module = "narrows._narrows", name = "_Client")]
pub(crate) struct Client(Box<Mutex<Option<narrows_link::Client>>>);

impl Client {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut narrows_link::Client) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let worked = py.detach(|| {
            let mut client = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            client.as_mut().map(work)
        });
        match worked {
            Some(worked) => worked.map_err(|error| raise(py, &error)),
            None => Err(failure::raise(py, Kind::Link, "the client is closed")),
        }
    }
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (address, *, connect_timeout, request_timeout, attempts, token=None, ca=None, server_name=None, certificate=None, key=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        address: &str,
        connect_timeout: f64,
        request_timeout: f64,
        attempts: u32,
        token: Option<String>,
        ca: Option<&[u8]>,
        server_name: Option<&str>,
        certificate: Option<&[u8]>,
        key: Option<&[u8]>,
    ) -> PyResult<Self> {
        let identity = match (certificate, key) {
            (Some(chain_pem), Some(key_pem)) => Some(Identity { chain_pem, key_pem }),
            _ => None,
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let tls = ca.map(|ca| ClientTls::new(ca, server_name.unwrap_or(host), identity)).transpose();
        let options = Options {
            connect_timeout: seconds(py, "connect_timeout", connect_timeout)?,
            request_timeout: seconds(py, "request_timeout", request_timeout)?,
            attempts,
            software: concat!("narrows for Python ", env!("CARGO_PKG_VERSION")).into(),
            token: token.map(Token::new),
            tls: tls.map_err(|error| raise(py, &error))?,
            ..Options::default()
        };
        let client = py.detach(|| narrows_link::Client::connect(address, options));
        Ok(Self(Box::new(Mutex::new(Some(client.map_err(|error| raise(py, &error))?)))))
    }

    #[getter]
    fn routes(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |client| Ok(client.routes().to_vec()))
    }

    #[getter]
    fn server_software(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |client| Ok(client.server_software().to_owned()))
    }

    #[pyo3(signature = (route, frame: "typing_extensions.Buffer", *, timeout=None, encode_time=0.0))]
    fn request(
        &self,
        py: Python<'_>,
        route: &str,
        frame: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        encode_time: f64,
    ) -> PyResult<Answer> {
        let bytes = Bytes::of(frame)?;
        let timeout = timeout.map(|timeout| seconds(py, "timeout", timeout)).transpose()?;
        let encode = Duration::try_from_secs_f64(encode_time).unwrap_or_default();
        let call = Call { route, payload: bytes.get(py), timeout, encode };
        self.with(py, |client| client.call(call)).map(Answer)
    }

    fn ping(&self, py: Python<'_>) -> PyResult<f64> {
        self.with(py, narrows_link::Client::ping).map(|round_trip| round_trip.as_secs_f64())
    }

    fn offer(&self, py: Python<'_>, profile: &Bound<'_, Profile>) -> PyResult<()> {
        let contents = profile.get().0.to_bytes();
        self.with(py, |client| client.offer_profile(&contents)).map(|_| ())
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
