//! The live page and its figures.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::App;
use crate::{
    SOFTWARE,
    server::{Sample, Stage, Totals},
};

/// Style, script and figures come from the server itself, and nothing else does.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// What the page shows.
#[derive(Serialize)]
pub(super) struct Figures {
    software: &'static str,
    routes: Vec<String>,
    uptime_s: f64,
    is_draining: bool,
    connections: i64,
    open_requests: usize,
    queued_requests: usize,
    busy_workers: usize,
    workers: usize,
    memory_bytes: u64,
    max_memory_bytes: u64,
    stages: [&'static str; 5],
    totals: Totals,
    samples: Vec<Sample>,
}

pub(super) async fn figures(State(app): State<App>) -> Json<Figures> {
    let host = &app.host;
    Json(Figures {
        software: SOFTWARE,
        routes: host.routes.to_vec(),
        uptime_s: host.stats.started.elapsed().as_secs_f64(),
        is_draining: host.is_draining(),
        connections: host.stats.connections.get(),
        open_requests: host.open_requests(),
        queued_requests: host.pool.queued(),
        busy_workers: host.pool.busy(),
        workers: host.options.workers(),
        memory_bytes: host.memory.held(),
        max_memory_bytes: host.options.limits.max_memory_bytes,
        stages: Stage::ALL.map(Stage::name),
        totals: host.stats.totals(),
        samples: host.stats.samples(),
    })
}

pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, include_str!("page.html")).into_response()
}
