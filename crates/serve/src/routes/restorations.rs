//! Jobs: to read, to follow, to remove.

use super::view::Restoration;
use crate::App;
use crate::events::{self, Event};
use crate::problem::Problem;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::convert::Infallible;
use std::sync::Arc;

/// The jobs that are here, newest first.
#[utoipa::path(
    get, path = "/v1/restorations", tag = "Restorations",
    responses((status = 200, description = "All of them.", body = [Restoration])),
)]
pub async fn list(State(app): State<Arc<App>>) -> Response {
    // One after another: options may be long, and clients slow.
    let parts = app.jobs.list().into_iter().enumerate().map(move |(index, job)| {
        let job = serde_json::to_string(&Restoration::of(&job, &app.jobs)).unwrap_or_default();
        if index == 0 { job } else { format!(",{job}") }
    });
    let whole = std::iter::once("[".into()).chain(parts).chain(["]".into()]);
    let body = Body::from_stream(stream::iter(whole.map(Ok::<String, Infallible>)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Where a job is.
#[utoipa::path(
    get, path = "/v1/restorations/{id}", tag = "Restorations",
    params(("id" = String, Path)),
    responses((status = 200, description = "The job.", body = Restoration), (status = 404, body = Problem)),
)]
pub async fn read(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Restoration>, Problem> {
    let job = app.jobs.get(&id)?;
    Ok(Json(Restoration::of(&job, &app.jobs)))
}

/// Remove a job and its files.
///
/// One that waits or is being restored is cancelled, the latter after the layer that is being computed.
#[utoipa::path(
    delete, path = "/v1/restorations/{id}", tag = "Restorations",
    params(("id" = String, Path)),
    responses((status = 204, description = "It is removed."), (status = 404, body = Problem)),
)]
pub async fn remove(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    tokio::task::spawn_blocking(move || app.jobs.remove(&id)).await.map_err(Problem::internal)??;
    Ok(StatusCode::NO_CONTENT)
}

/// What happens to a job.
///
/// Events `queued`, `stage`, `step`, `preview`, `note`, and at last `done` or `error`. Who comes back with
/// `Last-Event-ID` gets what is new.
#[utoipa::path(
    get, path = "/v1/restorations/{id}/events", tag = "Restorations",
    params(("id" = String, Path), ("Last-Event-ID" = Option<u64>, Header)),
    responses(
        (status = 200, description = "Server-sent events.", body = Event, content_type = "text/event-stream"),
        (status = 404, body = Problem),
    ),
)]
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = app.jobs.get(&id)?;
    let stream = events::stream(job.log.clone(), last_event(&headers), app.jobs.closing.subscribe());
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

/// The number of the last event that a client saw.
pub fn last_event(headers: &HeaderMap) -> u64 {
    let given = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    given.and_then(|id| id.trim().parse().ok()).unwrap_or(0)
}
