//! KServe v2 inference: JSON and the binary tensor extension, frames and plain tensors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use super::{
    App, PlainTensor, Refusal,
    form::{Form, InputForm, Numbers},
};
use crate::{
    Code, Failure, Work,
    server::{Held, Job, Stage, no_room},
};

/// Name of the input and the output that are frames.
pub(super) const FRAME: &str = "frame";
/// Length of the JSON before the binary tensors.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Longest JSON before binary tensors.
const MAX_JSON_BYTES: usize = 1 << 20;

/// The one input of a request.
enum Input {
    Frame(Vec<u8>),
    Plain(PlainTensor),
}

/// What is to come back.
struct Wanted {
    name: String,
    is_frame: bool,
    is_binary: bool,
}

pub(super) async fn infer_version(
    state: State<App>,
    Path((route, _)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    infer(state, Path(route), headers, body).await
}

pub(super) async fn infer(
    State(app): State<App>,
    Path(route): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let place = app.host.route(&route)?;
    let limits = &app.host.options.limits;
    let start = Instant::now();
    let permit = timeout(limits.patience, Arc::clone(&app.host.in_flight).acquire_owned()).await;
    let permit = permit.map_err(|_| no_room("places for requests"))?.expect("never closed");
    let mut held = app.host.hold_nothing();
    let limit = limits.max_message_bytes as usize;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes: usize = announced.unwrap_or(limit);
    if bytes > limit {
        let text = format!("the body has {bytes} bytes, the limit is {limit}");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    if !held.grow_to(bytes as u64, limits.patience).await {
        return Err(no_room("memory").into());
    }
    let body = timeout(limits.message_timeout, axum::body::to_bytes(body, limit)).await;
    let body = body
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not end in time"))?
        .map_err(|error| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
    let request_bytes = body.len() as u64;
    app.host.stats.arrived(request_bytes, None);
    app.host.stats.stage(Stage::Receive, start.elapsed());

    let answered = match json_bytes(&headers, &body) {
        Ok(json) if held.grow_to(reading_takes(json, body.len()), limits.patience).await => {
            answer(&app, &route, place, json, body, &mut held).await
        }
        Ok(_) => Err(no_room("memory")),
        Err(failure) => Err(failure),
    };
    match &answered {
        Ok((work, reply)) => {
            app.host.stats.answered(&route, request_bytes, reply.body.len() as u64, Ok(work));
        }
        Err(failure) => app.host.stats.answered(&route, request_bytes, 0, Err(failure)),
    }
    let Reply { headers, body } = answered?.1;
    let body = Sending { body, _held: held, _place: permit };
    Ok((headers, Bytes::from_owner(body)).into_response())
}

/// Bytes that it may take to read a body of which the first `json` bytes are JSON, itself included.
///
/// A number and its comma take two bytes of JSON or more, and four in a list, which while it grows takes up to three times
/// that; when it is whole, a frame of it is made. Binary tensors are copied, and become frames.
const fn reading_takes(json: usize, all: usize) -> u64 {
    7 * json as u64 + 3 * (all - json) as u64
}

/// A response.
struct Reply {
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A body that is being sent, and what its request holds until it has been.
struct Sending {
    body: Vec<u8>,
    _held: Held,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn answer(
    app: &App,
    route: &str,
    place: usize,
    json: usize,
    body: Bytes,
    held: &mut Held,
) -> Result<(Work, Reply), Failure> {
    let mut form: Form =
        serde_json::from_slice(&body[..json]).map_err(|error| bad(format!("the request's JSON: {error}")))?;
    let (input, wanted) = read(app, route, &mut form, &body[json..])?;
    let frame = match input {
        Input::Frame(frame) => frame,
        Input::Plain(tensor) => {
            let (tensors, route) = (app.tensors.clone(), route.to_owned());
            computed(move || tensors.expect("read with it").encode(&route, &tensor)).await?
        }
    };
    // As Triton has it: microseconds.
    let limit = form.parameters.timeout.map(Duration::from_micros);
    let (work, reply) = ask_tail(app, place, frame, limit).await?;
    held.add(reply.len() as u64);
    let (shape, values) = if wanted.is_frame {
        (vec![1], Values::Frame(reply))
    } else {
        let (tensors, route) = (app.tensors.clone(), route.to_owned());
        let tensor = computed(move || tensors.expect("read with it").decode(&route, &reply)).await?;
        held.add((tensor.values.len() * size_of::<f32>()) as u64);
        (tensor.shape, Values::Plain(tensor.values))
    };
    let reply = write(route, form.id.as_deref(), &wanted, &shape, &values);
    held.add(reply.body.len() as u64);
    Ok((work, reply))
}

fn bad(text: impl Into<String>) -> Failure {
    Failure::new(Code::BadPayload, text)
}

/// How much of the body is JSON; binary tensors are behind it.
fn json_bytes(headers: &HeaderMap, body: &Bytes) -> Result<usize, Failure> {
    match headers.get(JSON_LENGTH) {
        None => Ok(body.len()),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|&length| length <= body.len().min(MAX_JSON_BYTES))
            .ok_or_else(|| bad("Inference-Header-Content-Length is no length within the body")),
    }
}

/// What came in, and what is to go out.
fn read(app: &App, route: &str, form: &mut Form, binary: &[u8]) -> Result<(Input, Wanted), Failure> {
    let [input] = form.inputs.as_mut_slice() else {
        return Err(bad(format!("one input is needed, {} were sent", form.inputs.len())));
    };
    let specs = app.tensors.as_ref().and_then(|tensors| tensors.specs(route));
    let raw = binary_of(input, binary)?;
    let read = match &specs {
        _ if input.name == FRAME => Input::Frame(read_frame(input, raw)?),
        Some((spec, _)) if input.name == spec.name => Input::Plain(read_plain(input, raw)?),
        specs => {
            let plain = specs.as_ref().map(|(spec, _)| format!(" or {:?}", spec.name)).unwrap_or_default();
            return Err(bad(format!("no input {:?}: it is {FRAME:?}{plain}", input.name)));
        }
    };
    let all_binary = form.parameters.binary_data_output;
    let plain_name = specs.map(|(_, spec)| spec.name);
    let wanted = match form.outputs.as_slice() {
        [] => {
            let is_frame = matches!(read, Input::Frame(_));
            let name = if is_frame { None } else { plain_name };
            Wanted { name: name.unwrap_or_else(|| FRAME.into()), is_frame, is_binary: all_binary }
        }
        [output] if output.name == FRAME || Some(&output.name) == plain_name.as_ref() => Wanted {
            name: output.name.clone(),
            is_frame: output.name == FRAME,
            is_binary: output.parameters.binary_data.unwrap_or(all_binary),
        },
        outputs => {
            let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).collect();
            let plain = plain_name.map(|name| format!(" or {name:?}")).unwrap_or_default();
            return Err(bad(format!("one output of {FRAME:?}{plain} can be asked for, not {names:?}")));
        }
    };
    // A frame is bytes, and JSON has none.
    if wanted.is_frame && !wanted.is_binary {
        return Err(bad("a frame comes back as binary data only: ask for it with binary_data"));
    }
    Ok((read, wanted))
}

/// The input's part of the binary data; `None` if its data are in the JSON.
fn binary_of<'b>(input: &InputForm, binary: &'b [u8]) -> Result<Option<&'b [u8]>, Failure> {
    let Some(size) = input.parameters.binary_data_size else {
        return if binary.is_empty() { Ok(None) } else { Err(bad("binary data that no input names")) };
    };
    if size == binary.len() as u64 {
        Ok(Some(binary))
    } else {
        Err(bad(format!("binary_data_size is {size}, {} bytes of binary data came", binary.len())))
    }
}

fn read_frame(input: &InputForm, raw: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
    if input.datatype != "BYTES" || input.shape.iter().product::<u64>() != 1 {
        let (datatype, shape) = (&input.datatype, &input.shape);
        return Err(bad(format!("a frame is one element of BYTES, not {datatype} of shape {shape:?}")));
    }
    let raw = raw.ok_or_else(|| bad("a frame is binary data, which JSON cannot carry"))?;
    // Each element of BYTES is a length and as many bytes.
    let (length, frame) = raw.split_first_chunk().ok_or_else(|| bad("BYTES without a length"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length != frame.len() {
        return Err(bad(format!("BYTES of length {length}, {} bytes came", frame.len())));
    }
    Ok(frame.into())
}

fn read_plain(input: &mut InputForm, raw: Option<&[u8]>) -> Result<PlainTensor, Failure> {
    let data = input.data.take();
    let InputForm { name, shape, datatype, .. } = input;
    if datatype != "FP32" {
        return Err(bad(format!("{name:?} is FP32, not {datatype}")));
    }
    let count = shape.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension));
    let values: Vec<f32> = match (raw, data) {
        (Some(raw), _) if !raw.len().is_multiple_of(4) => {
            return Err(bad(format!("{} bytes are no whole FP32 elements", raw.len())));
        }
        (Some(raw), _) => raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        (None, Some(Numbers(values))) => values,
        (None, None) => return Err(bad(format!("{name:?} has no data"))),
    };
    if count != Some(values.len() as u64) {
        return Err(bad(format!("{name:?} has shape {shape:?} and {} elements", values.len())));
    }
    Ok(PlainTensor { shape: shape.iter().map(|&dimension| dimension as usize).collect(), values })
}

/// Tells a queued job that nobody waits for it any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn ask_tail(
    app: &App,
    route: usize,
    frame: Vec<u8>,
    limit: Option<Duration>,
) -> Result<(Work, Vec<u8>), Failure> {
    let waiting = Waiting(Arc::default());
    let (respond, responded) = oneshot::channel();
    let arrived = Instant::now();
    app.host.pool.submit(Job {
        id: 0,
        route,
        bytes: frame.into(),
        payload_at: 0,
        arrived,
        expires: limit.map(|limit| crate::socket::after(arrived, limit)),
        gone: Arc::clone(&waiting.0),
        respond: Box::new(move |queued, result| {
            let _ = respond.send((queued, result));
        }),
    });
    let (queued, result) =
        responded.await.map_err(|_| Failure::new(Code::Internal, "the server is stopping"))?;
    app.host.stats.stage(Stage::Queue, queued);
    result
}

/// Runs what takes a while where it keeps nobody waiting.
async fn computed<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "converting the tensor broke down")))
}

enum Values {
    Frame(Vec<u8>),
    Plain(Vec<f32>),
}

/// The JSON of an answer.
#[derive(Serialize)]
struct ReplyForm<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: [OutputReply<'a>; 1],
}

#[derive(Serialize)]
struct OutputReply<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Size>,
}

#[derive(Serialize)]
struct Size {
    binary_data_size: usize,
}

fn write(route: &str, id: Option<&str>, wanted: &Wanted, shape: &[usize], values: &Values) -> Reply {
    let mut binary = Vec::new();
    let (datatype, data) = match values {
        Values::Frame(frame) => {
            binary.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            binary.extend_from_slice(frame);
            ("BYTES", None)
        }
        Values::Plain(values) if wanted.is_binary => {
            binary = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            ("FP32", None)
        }
        Values::Plain(values) => ("FP32", Some(values.as_slice())),
    };
    let parameters = wanted.is_binary.then_some(Size { binary_data_size: binary.len() });
    let output = OutputReply { name: &wanted.name, datatype, shape, data, parameters };
    let form = ReplyForm { model_name: route, model_version: "1", id, outputs: [output] };
    let mut body = serde_json::to_vec(&form).expect("values that can be written");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if wanted.is_binary {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(JSON_LENGTH, body.len().into());
        body.extend_from_slice(&binary);
    }
    Reply { headers, body }
}
