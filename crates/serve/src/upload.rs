//! What a request for a restoration brings: the picture onto the disk, the options into memory.

use crate::App;
use crate::engine::Options;
use crate::problem::Problem;
use axum::body::{Body, to_bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use base64::Engine as _;
use diffbir_imaging::Partial;
use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A picture that is being sent as base64 is held in memory.
const MOST_JSON_BYTES: u64 = 24 << 20;

/// The slowest upload, bytes a second over all of its time: one that drips would keep its place for ever.
const SLOWEST: u64 = 4 << 10;

/// Bytes of all options together.
const MOST_OPTION_BYTES: usize = 64 << 10;

/// Bytes that may come of a form before some of them are a picture or an option: until then they are held in memory.
const MOST_BETWEEN: u64 = 2 << 20;

/// What a field of a form costs beside its name and value.
const LEAST_OPTION_BYTES: usize = 64;

/// The field of another picture, which says where the first may be changed. Nothing it says is a place.
const MASK: &str = "mask";

/// What came.
pub struct Upload {
    /// The picture.
    pub picture: Picture,
    /// The mask of its regions, if one came.
    pub mask: Option<Picture>,
    /// The options as they were given.
    pub options: Options,
    /// A digest of all of it.
    pub digest: String,
}

/// A picture that came.
pub struct Picture {
    /// On its way to its place.
    pub file: Partial,
    /// Its bytes.
    pub bytes: u64,
    /// Its name, without a folder.
    pub name: String,
}

/// Base64 without the line breaks of mails and the head of a `data:` address, as which browsers give files.
fn plain_base64(text: String) -> String {
    let mut plain = match text.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((_, coded)) => coded.to_string(),
        None => text,
    };
    plain.retain(|letter| !letter.is_ascii_whitespace());
    plain
}

/// Takes a form with the field `image`, and `mask` if one is wanted, or JSON with the same as base64; other fields are options.
pub async fn take(app: &Arc<App>, request: Request) -> Result<Upload, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let silence = app.jobs.limits.silence;
    // Base64 takes four letters for three bytes.
    let most = app.jobs.limits.upload_bytes / 3 * 4 + (1 << 20);
    let flow = Arc::new(Flow::default());
    let most_held = if kind.starts_with(FORM) { MOST_BETWEEN } else { most };
    let request = request.map(|body| patient(body, silence, (most, most_held), flow.clone()));
    let taken = by_kind(app, &kind, request, &flow).await;
    match taken {
        Err(_) if flow.too_long.load(Ordering::Relaxed) => {
            Err(Problem::too_large(format!("the request is longer than {} MB", most >> 20)))
        }
        Err(_) if flow.too_much_between.load(Ordering::Relaxed) => {
            let detail = format!("there are more than {} MB between the form's values", MOST_BETWEEN >> 20);
            Err(Problem::too_large(detail))
        }
        Err(_) if flow.stalled.load(Ordering::Relaxed) => {
            let detail =
                format!("no byte came for {} s, or fewer than {SLOWEST} a second", silence.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
        taken => taken,
    }
}

/// The media type of forms with files.
const FORM: &str = "multipart/form-data";

/// How a body comes in.
#[derive(Default)]
struct Flow {
    /// Bytes since the last ones that were taken.
    held: AtomicU64,
    /// What ended it, if that was none of the reader's doing.
    stalled: AtomicBool,
    too_long: AtomicBool,
    too_much_between: AtomicBool,
}

impl Flow {
    /// What came so far is no longer held.
    fn taken(&self) {
        self.held.store(0, Ordering::Relaxed);
    }
}

/// A body that fails, and says so, when it brings nothing for so long, or too little since it began, or more than `most`
/// bytes, or more than `most_held` of which nothing is taken.
fn patient(body: Body, silence: Duration, (most, most_held): (u64, u64), flow: Arc<Flow>) -> Body {
    let (stream, since) = (body.into_data_stream(), Instant::now());
    Body::from_stream(stream::unfold((stream, 0), move |(mut stream, mut bytes)| {
        let flow = flow.clone();
        async move {
            // Who reads a form takes in all that is there before it looks at it: now it looks.
            tokio::task::yield_now().await;
            let due = since + silence + Duration::from_secs(bytes / SLOWEST);
            let next = tokio::time::timeout_at(due.min(Instant::now() + silence), stream.next()).await;
            let Ok(next) = next else {
                flow.stalled.store(true, Ordering::Relaxed);
                return Some((Err(axum::Error::new("silent for too long")), (stream, bytes)));
            };
            let more = next.as_ref().map_or(0, |next| next.as_ref().map_or(0, |next| next.len() as u64));
            bytes += more;
            let held = more + flow.held.fetch_add(more, Ordering::Relaxed);
            for (is_over, flag) in
                [(bytes > most, &flow.too_long), (held > most_held, &flow.too_much_between)]
            {
                if is_over {
                    flag.store(true, Ordering::Relaxed);
                    return Some((Err(axum::Error::new("too long")), (stream, bytes)));
                }
            }
            next.map(|next| (next, (stream, bytes)))
        }
    }))
}

async fn by_kind(app: &Arc<App>, kind: &str, request: Request, flow: &Flow) -> Result<Upload, Problem> {
    if kind.starts_with(FORM) {
        return form(app, request, flow).await;
    }
    if kind.starts_with("application/json") {
        return json(app, request).await;
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "send multipart/form-data with the picture in the field `image`, or application/json",
    ))
}

/// Bytes on their way to the disk.
struct Incoming {
    picture: Picture,
    hash: Sha256,
}

impl Incoming {
    fn new(app: &App, name: &str) -> Result<Self, Problem> {
        let file = Partial::of(&app.jobs.store.uploads()).map_err(Problem::internal)?;
        Ok(Self { picture: Picture { file, bytes: 0, name: plain_name(name) }, hash: Sha256::new() })
    }

    /// Takes bytes, of which so many may come yet.
    fn push(&mut self, bytes: &[u8], left: &mut u64, limit: u64) -> Result<(), Problem> {
        let more = bytes.len() as u64;
        *left = left.checked_sub(more).ok_or_else(|| too_many_bytes(limit))?;
        self.picture.bytes += more;
        self.hash.update(bytes);
        self.picture.file.write_all(bytes).map_err(Problem::internal)
    }
}

impl Upload {
    fn of(image: Incoming, mask: Option<Incoming>, options: Options) -> Self {
        let Incoming { picture, mut hash } = image;
        hash.update(serde_json::to_vec(&options).unwrap_or_default());
        // What is left empty is left out.
        let mask = mask.filter(|mask| mask.picture.bytes > 0).map(|mask| {
            hash.update(mask.hash.finalize());
            mask.picture
        });
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { picture, mask, options, digest }
    }
}

fn too_many_bytes(limit: u64) -> Problem {
    Problem::too_large(format!("the picture, its mask included, is larger than {} MB", limit >> 20))
}

async fn form(app: &Arc<App>, request: Request, flow: &Flow) -> Result<Upload, Problem> {
    let mut form =
        Multipart::from_request(request, &()).await.map_err(|error| malformed(&error.body_text()))?;
    let (mut image, mut mask) = (None, None);
    let limit = app.jobs.limits.upload_bytes;
    let mut left = limit;
    let (mut options, mut spent) = (Options::new(), 0);
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        flow.taken();
        let option = field.name().unwrap_or_default().to_string();
        let picture = match option.as_str() {
            "image" => Some(&mut image),
            MASK => Some(&mut mask),
            _ => None,
        };
        if let Some(place) = picture {
            if place.is_some() {
                let detail = format!("there are several fields `{option}`: one request restores one picture");
                return Err(malformed(&detail));
            }
            let named = field.file_name().is_some_and(|name| !name.is_empty());
            let file = place.insert(Incoming::new(app, field.file_name().unwrap_or_default())?);
            while let Some(bytes) = field.chunk().await.map_err(broken)? {
                flow.taken();
                file.push(&bytes, &mut left, limit)?;
            }
            if option == MASK && named && file.picture.bytes == 0 {
                return Err(malformed("the file of the field `mask` is empty"));
            }
            continue;
        }
        // Names count too: fields without a value would cost nothing.
        spent += option.len() + LEAST_OPTION_BYTES;
        let value = word(&mut field, &mut spent).await?;
        if options.insert(option.clone(), Value::String(value)).is_some() {
            return Err(malformed(&format!("the field `{option}` is there twice")));
        }
    }
    let image = image.ok_or_else(|| malformed("there is no field `image` with the picture"))?;
    Ok(Upload::of(image, mask, options))
}

async fn word(field: &mut Field<'_>, spent: &mut usize) -> Result<String, Problem> {
    let mut text = Vec::new();
    let fits = |spent: usize| match spent > MOST_OPTION_BYTES {
        true => Err(Problem::too_large("the options are longer than 64 KB")),
        false => Ok(()),
    };
    fits(*spent)?;
    while let Some(bytes) = field.chunk().await.map_err(broken)? {
        *spent += bytes.len();
        fits(*spent)?;
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).map_err(|_| malformed("an option is no UTF-8"))
}

async fn json(app: &Arc<App>, request: Request) -> Result<Upload, Problem> {
    let _slot = app
        .json_slots
        .try_acquire()
        .map_err(|_| Problem::busy("too many pictures come as JSON at once: send forms", 2))?;
    let limit = app.jobs.limits.upload_bytes.min(MOST_JSON_BYTES);
    let most = (limit / 3 * 4) as usize + MOST_OPTION_BYTES;
    let body = to_bytes(request.into_body(), most).await.map_err(|_| too_many_bytes(limit))?;
    let mut options: Options = serde_json::from_slice(&body)
        .map_err(|error| malformed(&format!("the body is no JSON object: {error}")))?;
    let mut text = |name| match options.remove(name) {
        Some(Value::String(text)) => Ok(Some(text)),
        None => Ok(None),
        Some(_) => Err(malformed(&format!("`{name}` must be a string"))),
    };
    let image = text("image")?.ok_or_else(|| malformed("`image` with the picture as base64 is missing"))?;
    let (name, mask) = (text("name")?.unwrap_or_default(), text(MASK)?);
    let mut left = limit;
    let mut take = |field: &str, name: &str, coded: String| {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(plain_base64(coded))
            .map_err(|error| malformed(&format!("`{field}` is no base64: {error}")))?;
        let mut incoming = Incoming::new(app, name)?;
        incoming.push(&bytes, &mut left, limit)?;
        Ok(incoming)
    };
    let image = take("image", &name, image)?;
    let mask = mask.map(|mask| take(MASK, MASK, mask)).transpose()?;
    Ok(Upload::of(image, mask, options))
}

fn malformed(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn broken(error: MultipartError) -> Problem {
    Problem::new(error.status(), error.body_text())
}

/// The last part of a name, without what could lead elsewhere or break a line.
fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String =
        last.chars().filter(|c| !c.is_control() && !"\"<>|:*?".contains(*c)).take(120).collect();
    let kept = kept.trim().trim_start_matches('.');
    if kept.is_empty() { "picture".into() } else { kept.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_folders_and_tricks() {
        assert_eq!(plain_name("C:\\photos\\a b.jpg"), "a b.jpg");
        assert_eq!(plain_name("../../etc/passwd"), "passwd");
        assert_eq!(plain_name("x\r\nSet-Cookie: a.png"), "xSet-Cookie a.png");
        assert_eq!(plain_name(".."), "picture");
        assert_eq!(plain_name("ä ß 字.png"), "ä ß 字.png");
    }
}
