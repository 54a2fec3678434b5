//! The page: files that are part of the program.

use crate::App;
use crate::problem::Problem;
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use std::sync::Arc;

/// Path, type, content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", HTML, include_bytes!("../../page/index.html")),
    ("/api", HTML, include_bytes!("../../page/api.html")),
    ("/style.css", CSS, include_bytes!("../../page/style.css")),
    ("/icon.svg", "image/svg+xml", include_bytes!("../../page/icon.svg")),
    ("/main.js", SCRIPT, include_bytes!("../../page/main.js")),
    ("/server.js", SCRIPT, include_bytes!("../../page/server.js")),
    ("/controls.js", SCRIPT, include_bytes!("../../page/controls.js")),
    ("/models.js", SCRIPT, include_bytes!("../../page/models.js")),
    ("/jobs.js", SCRIPT, include_bytes!("../../page/jobs.js")),
    ("/compare.js", SCRIPT, include_bytes!("../../page/compare.js")),
    ("/pick.js", SCRIPT, include_bytes!("../../page/pick.js")),
    ("/mask.js", SCRIPT, include_bytes!("../../page/mask.js")),
    ("/element.js", SCRIPT, include_bytes!("../../page/element.js")),
    ("/api.js", SCRIPT, include_bytes!("../../page/api.js")),
    ("/samples/cat.png", "image/png", include_bytes!("../../../../examples/chelsea-small.png")),
    ("/samples/coffee.png", "image/png", include_bytes!("../../../../examples/coffee-small.png")),
    ("/samples/city.png", "image/png", include_bytes!("../../../../examples/city-small.png")),
    ("/samples/portrait.png", "image/png", include_bytes!("../../../../examples/portrait-small.png")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Files of the page, and the description of the API.
pub fn router(description: &Value) -> Router<Arc<App>> {
    // One copy for all who read it.
    let text = Bytes::from(description.to_string());
    let describe = get(move || async move { ([(header::CONTENT_TYPE, "application/json")], text) });
    FILES.iter().fold(Router::new().route("/openapi.json", describe), |router, &(path, kind, content)| {
        router.route(path, get(move || async move { ([(header::CONTENT_TYPE, kind)], content) }))
    })
}

/// What is nowhere.
pub async fn missing(uri: Uri) -> Response {
    Problem::new(StatusCode::NOT_FOUND, format!("{}: there is no such page; /api lists them", uri.path()))
        .into_response()
}

/// What is there and takes other methods.
pub async fn not_so(uri: Uri) -> Response {
    let detail = format!("{}: is not asked for by this method; /api lists them", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response()
}
