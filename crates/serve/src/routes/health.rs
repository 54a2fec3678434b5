//! What watches a server, and what it can do.

use crate::App;
use crate::engine::Controls;
use crate::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// What a client has to know of a server.
#[derive(Serialize, ToSchema)]
pub struct Described {
    #[serde(flatten)]
    controls: Controls,
    /// Whether requests carry a token.
    token: bool,
}

/// The options of a restoration, and sets of them.
#[utoipa::path(
    get, path = "/v1/controls", tag = "Restorations",
    responses((status = 200, description = "Names, ranges, defaults, a sentence each.", body = Described)),
)]
pub async fn controls(State(app): State<Arc<App>>) -> Json<Described> {
    Json(Described { controls: app.engine.controls(), token: app.settings.token.is_some() })
}

/// Whether the server lives.
#[utoipa::path(
    get, path = "/healthz", tag = "Health",
    responses((status = 200, description = "It does.", body = String, content_type = "text/plain")),
)]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the server takes jobs.
#[utoipa::path(
    get, path = "/readyz", tag = "Health",
    responses(
        (status = 200, description = "It does.", body = String, content_type = "text/plain"),
        (status = 429, description = "The queue is full.", body = Problem),
        (status = 503, description = "The server is about to end.", body = Problem),
    ),
)]
pub async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    app.jobs.check_room().map(|()| "ready\n")
}

/// Counts for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "Health",
    responses((status = 200, description = "Its text format.", body = String, content_type = "text/plain")),
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let now = app.jobs.now();
    let text = app.jobs.metrics.text(now.queued, now.running, now.kept, now.bytes);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
