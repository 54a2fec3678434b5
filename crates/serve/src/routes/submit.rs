//! `POST /v1/restorations`.

use super::view::{Restoration, file_name};
use crate::App;
use crate::job::Job;
use crate::jobs::{New, Reserved};
use crate::problem::Problem;
use crate::record::State as JobState;
use crate::store::Of;
use crate::upload::{self, Picture, Upload};
use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use diffbir_imaging::{DecodeError, Outline};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// How long a request may wait for its result, seconds.
const LONGEST_WAIT: u64 = 600;

/// Pixels of a result that somebody may wait for in one request.
const SMALL_PIXELS: u64 = 4_194_304;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Wait so many seconds (600 at most) and answer with the picture itself; for small jobs with one result.
    wait: Option<u64>,
}

/// A picture and what is to be done with it. `GET /v1/controls` lists the options; each is a field of its own, `mask` a
/// file.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a form")]
pub struct Form {
    /// PNG, JPEG, WebP, TIFF, BMP or JPEG XL.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
}

/// The same as JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body")]
pub struct JsonForm {
    /// PNG, JPEG, WebP, TIFF, BMP or JPEG XL, as base64 or as a `data:` address of it.
    image: String,
    /// What the picture is called.
    name: Option<String>,
}

/// Restore a picture.
///
/// The picture is taken, and the job survives the server's end; its events say how it goes on. With an
/// `Idempotency-Key` the same request gives the same job, however often it is sent.
#[utoipa::path(
    post, path = "/v1/restorations", tag = "Restorations",
    params(Wait, ("Idempotency-Key" = Option<String>, Header, description = "Up to 200 characters of your own.")),
    request_body(content((Form = "multipart/form-data"), (JsonForm = "application/json"))),
    responses(
        (status = 202, description = "It is queued.", body = Restoration, headers(("Location" = String))),
        (status = 200, description = "With `wait`: the result. With a known key: the job.", content_type = "image/*"),
        (status = 409, description = "A request with this key is still being taken.", body = Problem),
        (status = 413, description = "More bytes or pixels than the server takes.", body = Problem),
        (status = 415, description = "Not a picture that is read.", body = Problem),
        (
            status = 410, body = Problem,
            description = "With `wait`: the job was removed meanwhile.",
        ),
        (
            status = 422, body = Problem,
            description = "An option is unknown or wrong, the model is not here, or the picture is damaged or of a kind \
                           that is not read, such as a JPEG in CMYK.",
        ),
        (status = 429, description = "The queue is full.", body = Problem, headers(("Retry-After" = u64))),
    ),
)]
pub async fn submit(
    State(app): State<Arc<App>>,
    Query(wait): Query<Wait>,
    request: Request,
) -> Result<Response, Problem> {
    let accepted = accept(&app, request).await.inspect_err(|_| app.jobs.metrics.refused.count())?;
    let (job, is_new) = accepted;
    if let Some(seconds) = wait.wait {
        let small = {
            let record = job.record();
            record.samples == 1 && record.pixels <= SMALL_PIXELS
        };
        if small {
            let wait = Duration::from_secs(seconds.min(LONGEST_WAIT));
            let mut closing = app.jobs.closing.subscribe();
            tokio::select! {
                _ = tokio::time::timeout(wait, job.log.wait()) => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
            if job.log.ended() {
                return finished(&app, &job).await;
            }
        }
    }
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = [(header::LOCATION, job.href(""))];
    Ok((status, location, Json(Restoration::of(&job, &app.jobs))).into_response())
}

/// The result of a job that has ended, as the answer itself.
async fn finished(app: &Arc<App>, job: &Job) -> Result<Response, Problem> {
    let record = job.record().clone();
    match record.state {
        JobState::Done => {
            let of = Of::Result { sample: 0, view: false };
            let name = file_name(&record.name, 0, 1, &record.extension);
            let mut response = super::files::send(app, &record, of, Some(&name)).await?;
            let seed = record.results.first().map_or(0, |made| made.seed);
            response.headers_mut().insert("restoration-seed", HeaderValue::from(seed));
            if let Ok(location) = job.href("").parse() {
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
        _ => Err(record.error.unwrap_or_else(Problem::cancelled)),
    }
}

/// The job of a request, and whether it is new.
async fn accept(app: &Arc<App>, request: Request) -> Result<(Arc<Job>, bool), Problem> {
    let _slot = app.uploads.try_acquire().map_err(|_| Problem::busy("too many uploads at once", 2))?;
    let key = match request.headers().get("idempotency-key").map(HeaderValue::to_str) {
        None => None,
        Some(Ok(key)) if (1..=200).contains(&key.len()) => Some(key.to_string()),
        Some(_) => {
            let detail = "Idempotency-Key must be 1 to 200 plain characters";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    let reserved = key.as_deref().map(|key| app.jobs.reserve(key)).transpose()?;
    // Told before the picture is sent; a job that is there already needs no room.
    if !matches!(reserved, Some(Reserved::Known(_))) {
        app.jobs.check_room()?;
    }
    let upload = upload::take(app, request).await?;
    if let Some(Reserved::Known(job)) = reserved {
        let same = job.record().key.as_ref().is_some_and(|(_, digest)| *digest == upload.digest);
        let detail = "this Idempotency-Key stands for another picture or other options";
        return if same { Ok((job, false)) } else { Err(Problem::refused(detail)) };
    }
    // Looking at a file takes the disk and a little arithmetic, so it is done elsewhere, for a few at a time.
    let _look = app.looks.acquire().await.map_err(Problem::internal)?;
    let own = app.clone();
    let job =
        tokio::task::spawn_blocking(move || settle(&own, upload, key)).await.map_err(Problem::internal)??;
    Ok((job, true))
}

/// Looks at the picture and the options, and accepts the job.
fn settle(app: &App, upload: Upload, key: Option<String>) -> Result<Arc<Job>, Problem> {
    let Upload { picture, mask, options, digest } = upload;
    let limits = &app.jobs.limits;
    let look = |what: &str, Picture { file, name, .. }: &Picture| {
        let bytes = file.read().map_err(Problem::internal)?;
        let outline = Outline::of(&bytes, name).map_err(|error| unreadable(&error))?;
        let pixels = outline.pixels() as u64;
        let size = (outline.width_px as u32, outline.height_px as u32);
        let way = "make it smaller, or start the server with a larger --max-pixels";
        if pixels > limits.pixels { Err(too_many_pixels(what, pixels, limits.pixels, way)) } else { Ok(size) }
    };
    let size = look("the picture has", &picture)?;
    mask.as_ref().map(|mask| look("the mask has", mask)).transpose()?;
    let plan = app.engine.plan(&options, size, mask.as_ref().map(|mask| mask.name.as_str()))?;
    let most = limits.output_pixels;
    let way = "give a lower upscale or a smaller picture, or start the server with a larger --max-output";
    if plan.pixels > most {
        return Err(too_many_pixels("the result would have", plan.pixels, most, way));
    }
    if plan.working_pixels > most {
        return Err(too_many_pixels("the networks would see", plan.working_pixels, most, way));
    }
    if plan.results > limits.results {
        return Err(Problem::too_large(format!("samples: at most {} are made here", limits.results)));
    }
    let new = New {
        plan,
        name: picture.name,
        mask: mask.as_ref().map(|mask| mask.name.clone()),
        size,
        bytes: picture.bytes + mask.as_ref().map_or(0, |mask| mask.bytes),
        key: key.map(|key| (key, digest)),
    };
    app.jobs.add(new, |place| {
        picture.file.keep(&place(Of::Input))?;
        mask.map_or(Ok(()), |mask| mask.file.keep(&place(Of::Mask)))
    })
}

/// Refuses more pixels than there may be, in as many digits as show that they are more, and says what to do.
fn too_many_pixels(what: &str, pixels: u64, limit: u64, way: &str) -> Problem {
    let [megapixels, limit] = [pixels, limit].map(|pixels| pixels as f64 / 1e6);
    let shown = |digits: usize| format!("{megapixels:.digits$}");
    let shows = |shown: &String| shown.parse::<f64>().is_ok_and(|shown| shown > limit);
    let pixels = (1..6).map(shown).find(shows).unwrap_or_else(|| shown(6));
    Problem::too_large(format!("{what} {pixels} megapixels, more than {limit}: {way}"))
}

/// Why a file is not taken.
pub fn unreadable(error: &DecodeError) -> Problem {
    let status = match error {
        DecodeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        DecodeError::Unsupported { .. } | DecodeError::NotAPicture { .. } => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        DecodeError::Empty { .. } | DecodeError::Damaged { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        DecodeError::Read { .. } => return Problem::internal(error),
    };
    Problem::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_told_apart_from_their_limit() {
        let said = |pixels, limit| too_many_pixels("it has", pixels, limit, "reduce it").detail;
        assert_eq!(said(49_000_000, 24_000_000), "it has 49.0 megapixels, more than 24: reduce it");
        assert_eq!(said(25_000, 20_000), "it has 0.03 megapixels, more than 0.02: reduce it");
        assert_eq!(said(50_000_001, 50_000_000), "it has 50.000001 megapixels, more than 50: reduce it");
        assert_eq!(said(8_400, 1_000), "it has 0.01 megapixels, more than 0.001: reduce it");
    }
}
