//! `/healthz`, `/livez`, `/readyz` and `/metrics`, on a port of their own.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use crate::process::Process;

/// The admin pages of a process.
pub fn router(process: Process) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(process)
}

async fn ready(State(process): State<Process>) -> impl IntoResponse {
    let missing = process.why_not_ready();
    if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
    }
}

async fn live(State(process): State<Process>) -> impl IntoResponse {
    let stuck = process.stuck();
    if stuck.is_empty() {
        (StatusCode::OK, "alive\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: {}\n", stuck.join(", ")))
    }
}

async fn metrics(State(process): State<Process>) -> impl IntoResponse {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], process.metrics_text())
}
