//! Models: which there are, and getting their files.

use super::restorations::last_event;
use crate::App;
use crate::engine::Model;
use crate::events::{Log, PullEvent, stream};
use crate::problem::Problem;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Downloads, by model; those that ended are kept to be read.
#[derive(Default)]
pub struct Pulls(Mutex<HashMap<String, Arc<Pulling>>>);

struct Pulling {
    log: Arc<Log<PullEvent>>,
    stop: AtomicBool,
}

impl Pulls {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Pulling>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, model: &str) -> Result<Arc<Pulling>, Problem> {
        self.lock().get(model).cloned().ok_or_else(|| Problem::missing("such download"))
    }

    /// Stops all of them; what has come is kept.
    pub fn stop(&self) {
        self.lock().values().for_each(|pulling| pulling.stop.store(true, Ordering::SeqCst));
    }
}

/// The models, present or not.
#[utoipa::path(
    get, path = "/v1/models", tag = "Models",
    responses((status = 200, description = "All of them, with their files and licences.", body = [Model])),
)]
pub async fn models(State(app): State<Arc<App>>) -> Result<Json<Vec<Model>>, Problem> {
    let models = tokio::task::spawn_blocking(move || app.engine.models()).await;
    Ok(Json(models.map_err(Problem::internal)?))
}

/// Download the files of a model.
///
/// It goes on where it stopped. Asked for again while it goes on, it is not begun twice.
#[utoipa::path(
    post, path = "/v1/models/{id}/pull", tag = "Models",
    params(("id" = String, Path)),
    responses(
        (status = 202, description = "It has begun.", headers(("Location" = String))),
        (status = 404, body = Problem),
        (status = 429, description = "Another model is being downloaded.", body = Problem),
    ),
)]
pub async fn pull(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let own = app.clone();
    let known = tokio::task::spawn_blocking(move || own.engine.models()).await.map_err(Problem::internal)?;
    if !known.iter().any(|model| model.id == id && !model.files.is_empty()) {
        return Err(Problem::missing("model of this name with files to download"));
    }
    let begun = {
        let mut pulls = app.pulls.lock();
        let running = pulls.iter().find(|(_, pulling)| !pulling.log.ended()).map(|(model, _)| model.clone());
        match running {
            Some(model) if model != id => {
                return Err(Problem::busy(format!("{model} is being downloaded: wait for its end"), 60));
            }
            Some(_) => None,
            None => {
                let pulling = Arc::new(Pulling { log: Arc::new(Log::new(0)), stop: AtomicBool::new(false) });
                pulls.insert(id.clone(), pulling.clone());
                Some(pulling)
            }
        }
    };
    if let Some(pulling) = begun {
        let (app, id) = (app.clone(), id.clone());
        std::thread::Builder::new()
            .name("pull".into())
            .spawn(move || {
                let pulled = app.engine.pull(&id, &mut |progress| {
                    pulling.log.tell(PullEvent::Progress(progress));
                    if pulling.stop.load(Ordering::SeqCst) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                pulling.log.end(match pulled {
                    Ok(()) => PullEvent::Done { model: id },
                    Err(error) => PullEvent::Error { error },
                });
            })
            .map_err(Problem::internal)?;
    }
    let location = format!("/v1/models/{id}/pull/events");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response())
}

/// Stop a download.
///
/// What has come is kept: the next one goes on from there.
#[utoipa::path(
    delete, path = "/v1/models/{id}/pull", tag = "Models",
    params(("id" = String, Path)),
    responses((status = 204, description = "It stops."), (status = 404, body = Problem)),
)]
pub async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    app.pulls.get(&id)?.stop.store(true, Ordering::SeqCst);
    Ok(StatusCode::NO_CONTENT)
}

/// How far a download is.
///
/// Events `progress`, `note`, and at last `done` or `error`.
#[utoipa::path(
    get, path = "/v1/models/{id}/pull/events", tag = "Models", operation_id = "pull_events",
    params(("id" = String, Path), ("Last-Event-ID" = Option<u64>, Header)),
    responses(
        (status = 200, description = "Server-sent events.", body = PullEvent, content_type = "text/event-stream"),
        (status = 404, body = Problem),
    ),
)]
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let log = app.pulls.get(&id)?.log.clone();
    let stream = stream(log, last_event(&headers), app.jobs.closing.subscribe());
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}
