//! The pictures of a job.

use super::view::{file_name, stem};
use crate::App;
use crate::problem::Problem;
use crate::record::{Record, State as Phase, media_type};
use crate::store::Of;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use std::io::{self, ErrorKind};
use std::sync::{Arc, PoisonError};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use utoipa::IntoParams;

/// Bytes of a file that are in memory at a time, for each client.
const PIECE: usize = 64 << 10;

/// By so many bytes a file says what it is.
const STARTS: u64 = 64;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Which result, from 0.
    #[serde(default)]
    sample: usize,
    /// As browsers can show it, where they cannot show the file.
    #[serde(default)]
    view: bool,
}

/// A result.
///
/// Byte for byte what `diffbir restore` writes with the same options and seed.
#[utoipa::path(
    get, path = "/v1/restorations/{id}/result", tag = "Restorations",
    params(("id" = String, Path), Which),
    responses(
        (status = 200, description = "The file.", content_type = "image/*"),
        (status = 404, body = Problem),
        (status = 409, description = "It is not made yet.", body = Problem),
    ),
)]
pub async fn result(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let record = app.jobs.get(&id)?.record().clone();
    if which.sample >= record.results.len() {
        return Err(not_there(&record, "such result"));
    }
    let name = file_name(&record.name, which.sample, record.results.len(), &record.extension);
    let of = Of::Result { sample: which.sample, view: which.view };
    send(&app, &record, of, Some(&name)).await
}

/// What stage 1 made.
///
/// Clean and faithful, without the detail of stage 2.
#[utoipa::path(
    get, path = "/v1/restorations/{id}/stage1", tag = "Restorations",
    params(("id" = String, Path), Which),
    responses(
        (status = 200, description = "The file.", content_type = "image/*"),
        (status = 404, body = Problem),
        (status = 409, description = "It is not made yet.", body = Problem),
    ),
)]
pub async fn stage1(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let record = app.jobs.get(&id)?.record().clone();
    if !record.stage1 {
        return Err(not_there(&record, "stage 1"));
    }
    let name = format!("{}_stage1.{}", stem(&record.name), record.extension);
    send(&app, &record, Of::Stage1 { view: which.view }, Some(&name)).await
}

/// How much the results differ.
///
/// A map as `diffbir restore --stability` writes it: black where all agree, white from a deviation of 32 levels of 255.
#[utoipa::path(
    get, path = "/v1/restorations/{id}/stability", tag = "Restorations",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "A PNG.", content_type = "image/png"),
        (status = 404, description = "There is no such restoration, or it was not asked for.", body = Problem),
        (status = 409, description = "It is not made yet.", body = Problem),
    ),
)]
pub async fn stability(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let record = app.jobs.get(&id)?.record().clone();
    if record.stability.is_none() {
        return Err(not_there(&record, "map of stability"));
    }
    send(&app, &record, Of::Stability, Some(&format!("{}_restored_stability.png", stem(&record.name)))).await
}

/// The picture as it came, or as browsers can show it.
#[utoipa::path(
    get, path = "/v1/restorations/{id}/before", tag = "Restorations",
    params(("id" = String, Path)),
    responses((status = 200, description = "The file.", content_type = "image/*"), (status = 404, body = Problem)),
)]
pub async fn before(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let record = app.jobs.get(&id)?.record().clone();
    match send(&app, &record, Of::Before, None).await {
        Err(problem) if problem.status == 404 => send(&app, &record, Of::Input, None).await,
        sent => sent,
    }
}

/// How the result looks after the last step.
#[utoipa::path(
    get, path = "/v1/restorations/{id}/preview", tag = "Restorations",
    params(("id" = String, Path)),
    responses((status = 200, description = "A JPEG.", content_type = "image/jpeg"), (status = 404, body = Problem)),
)]
pub async fn preview(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let job = app.jobs.get(&id)?;
    let preview = job.preview.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let preview = preview.ok_or_else(|| Problem::missing("preview"))?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], preview).into_response())
}

/// Why a picture of a job cannot be had: it may come yet.
fn not_there(record: &Record, what: &str) -> Problem {
    if matches!(record.state, Phase::Queued | Phase::Running) {
        return Problem::new(
            StatusCode::CONFLICT,
            "it is not made yet: the events of the job say when it is",
        );
    }
    Problem::missing(what)
}

/// A file of a job, to be kept under a name where one is given.
pub async fn send(app: &Arc<App>, record: &Record, of: Of, name: Option<&str>) -> Result<Response, Problem> {
    let mut path = app.jobs.store.file(record, of);
    let is_view = matches!(of, Of::Stage1 { view: true } | Of::Result { view: true, .. });
    if is_view && !tokio::fs::try_exists(&path).await.unwrap_or(false) {
        // Browsers show the file itself.
        path = app.jobs.store.file(
            record,
            match of {
                Of::Result { sample, .. } => Of::Result { sample, view: false },
                _ => Of::Stage1 { view: false },
            },
        );
    }
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Problem::missing("such picture"),
        _ => Problem::internal(format_args!("{}: {error}", path.display())),
    };
    let mut file = File::open(&path).await.map_err(failed)?;
    let bytes = file.metadata().await.map_err(failed)?.len();
    let mut start = Vec::new();
    if of == Of::Input {
        (&mut file).take(STARTS).read_to_end(&mut start).await.map_err(failed)?;
        file.rewind().await.map_err(failed)?;
    }
    let kind = match of {
        Of::Input => diffbir_imaging::extension_of(&start).unwrap_or_default(),
        _ => path.extension().and_then(|extension| extension.to_str()).unwrap_or_default(),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type(kind))),
        (header::CONTENT_LENGTH, bytes.into()),
    ];
    let mut response = (StatusCode::OK, headers, pieces(file, bytes)).into_response();
    let headers = response.headers_mut();
    // A job's files never change.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600, immutable"));
    if let Some(name) = name.filter(|_| !is_view)
        && let Ok(value) = disposition(name).parse()
    {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// So many bytes of a file, read when the client has taken those before.
fn pieces(file: File, bytes: u64) -> Body {
    Body::from_stream(stream::try_unfold(file.take(bytes), |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, io::Error>((read > 0).then_some((piece, file)))
    }))
}

/// A name in plain ASCII for old programs, and as it is for others (RFC 6266).
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '_' })
        .collect();
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("inline; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_in_both_spellings() {
        assert_eq!(disposition("ä b.png"), "inline; filename=\"_ b.png\"; filename*=UTF-8''%C3%A4%20b.png");
    }
}
