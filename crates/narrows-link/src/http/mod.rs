//! HTTP beside the framed protocol: KServe v2, health, metrics, and the live page.
//!
//! | path | what |
//! |---|---|
//! | `/` | the live page; its figures are at `/live` |
//! | `/metrics` | OpenMetrics text for Prometheus |
//! | `/v2`, `/v2/health/live`, `/v2/health/ready` | the server: name, liveness, readiness |
//! | `/v2/models/{route}`, `.../ready`, `.../infer` | a route: its tensors, readiness, inference |
//!
//! Inference runs on the same threads, under the same limits, as requests of the framed protocol.

mod door;
mod form;
mod infer;
mod live;
mod tensor;

pub use tensor::{PlainTensor, TensorSpec, Tensors};

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{Code, Error, Failure, SOFTWARE, server::Host};

/// After how long a client that was told that there is no room may ask again, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// What the handlers share.
#[derive(Clone)]
struct App {
    host: Arc<Host>,
    tensors: Option<Arc<dyn Tensors>>,
}

/// The HTTP side of a running server.
pub(crate) struct Running {
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Returns when everything asked has been answered; it was told to end with the server.
    pub(crate) async fn ended(self) {
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Starts serving, if there is somewhere to.
pub(crate) fn start(
    listener: Option<(TcpListener, SocketAddr)>,
    host: Arc<Host>,
    tensors: Option<Arc<dyn Tensors>>,
) -> Result<Running, Error> {
    let Some((listener, address)) = listener else { return Ok(Running { tasks: Vec::new() }) };
    let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::io("starting HTTP"))?;
    tracing::info!(%address, "serving HTTP");
    let app = App { host: Arc::clone(&host), tensors };
    let serving = tokio::spawn(door::serve(listener, Arc::clone(&host), router(app)));
    let sampling = tokio::spawn(async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = seconds.tick() => host.stats.sample(),
                () = host.drained() => return,
            }
        }
    });
    Ok(Running { tasks: vec![serving, sampling] })
}

fn router(app: App) -> Router {
    let guarded = Router::new()
        .route("/live", get(live::figures))
        .route("/metrics", get(metrics))
        .route("/v2", get(server_metadata))
        .route("/v2/models/{route}", get(model_metadata))
        .route("/v2/models/{route}/versions/{version}", get(version_metadata))
        .route("/v2/models/{route}/infer", post(infer::infer))
        .route("/v2/models/{route}/versions/{version}/infer", post(infer::infer_version))
        .layer(middleware::from_fn_with_state(app.clone(), authorize));
    Router::new()
        .route("/", get(live::page))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{route}/ready", get(model_ready))
        .route("/v2/models/{route}/versions/{version}/ready", get(version_ready))
        .merge(guarded)
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .with_state(app)
}

/// Lets in who shows a token, where one is needed.
async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|shown| shown.strip_prefix("Bearer ")).unwrap_or("");
    if app.host.admits(token) {
        return next.run(request).await;
    }
    let mut response =
        Refusal::new(StatusCode::UNAUTHORIZED, "a bearer token is needed here").into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn ready(State(app): State<App>) -> StatusCode {
    if app.host.is_draining() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn model_ready(State(app): State<App>, Path(route): Path<String>) -> Result<StatusCode, Refusal> {
    app.host.route(&route)?;
    Ok(ready(State(app)).await)
}

async fn version_ready(
    state: State<App>,
    Path((route, _)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    model_ready(state, Path(route)).await
}

async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.host.open_metrics()).into_response()
}

async fn server_metadata() -> Json<serde_json::Value> {
    let (name, version) = SOFTWARE.split_once(' ').unwrap_or((SOFTWARE, ""));
    Json(json!({ "name": name, "version": version, "extensions": ["binary_tensor_data"] }))
}

async fn model_metadata(
    State(app): State<App>,
    Path(route): Path<String>,
) -> Result<Json<serde_json::Value>, Refusal> {
    app.host.route(&route)?;
    // One of the inputs is to be sent; the output of the same kind comes back.
    let frame = json!({ "name": infer::FRAME, "datatype": "BYTES", "shape": [1] });
    let (mut inputs, mut outputs) = (vec![frame.clone()], vec![frame]);
    if let Some((input, output)) = app.tensors.as_ref().and_then(|tensors| tensors.specs(&route)) {
        inputs.push(input.to_json());
        outputs.push(output.to_json());
    }
    Ok(Json(json!({
        "name": route,
        "versions": ["1"],
        "platform": "narrows",
        "inputs": inputs,
        "outputs": outputs,
    })))
}

async fn version_metadata(
    state: State<App>,
    Path((route, _)): Path<(String, String)>,
) -> Result<Json<serde_json::Value>, Refusal> {
    model_metadata(state, Path(route)).await
}

/// An answer that is an error, as KServe writes it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let status = match failure.code() {
            Code::UnknownRoute => StatusCode::NOT_FOUND,
            Code::OtherSplit => StatusCode::CONFLICT,
            Code::StreamGone => StatusCode::GONE,
            Code::BadPayload | Code::Malformed => StatusCode::BAD_REQUEST,
            Code::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Code::Expired | Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal { status, text: failure.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        (self.status, headers, Json(json!({ "error": self.text }))).into_response()
    }
}
