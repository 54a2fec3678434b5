//! Who may ask: the right host, no foreign page, the token.

use crate::App;
use crate::problem::Problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;

/// The cookie that carries the token of a page.
const COOKIE: &str = "diffbir_token";

/// What a browser shows to who has not opened the page with the token.
const FOR_PEOPLE: &str = "<!doctype html><html lang=en><meta name=viewport content=\"width=device-width\"><title>diffbir</title>\
    <h1>diffbir</h1><p>This server wants its token: open <code>/?token=TOKEN</code> with the one that it was started with.";

/// What every answer says. Nothing from elsewhere is loaded, nothing runs that is not one of our files.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
         form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Passes requests that may be answered, and adds the headers.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    app.jobs.metrics.requests.count();
    let mut response = match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => *refusal,
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn check(app: &App, request: &Request) -> Result<(), Box<Response>> {
    let refuse = |status, detail: &str| Err(Box::new(Problem::new(status, detail).into_response()));
    let headers = request.headers();
    let Some(host) = text(headers, header::HOST).filter(|host| is_ours(host, &app.settings.hosts)) else {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "this server does not go by that name: use its address in numbers, or start it with --host NAME",
        );
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && is_foreign(headers, host) {
        return refuse(StatusCode::FORBIDDEN, "the request comes from a page of another site");
    }
    let path = request.uri().path();
    let Some(token) = app.settings.token.as_deref().filter(|_| !matches!(path, "/healthz" | "/readyz"))
    else {
        return Ok(());
    };
    // Who opens the page by an address with the token gets a cookie, and the address without.
    let query = request.uri().query().unwrap_or_default();
    if path == "/" && query.strip_prefix("token=").is_some_and(|given| same(given, token)) {
        let cookie = format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/");
        let mut response = Redirect::to("/").into_response();
        if let Ok(cookie) = cookie.parse() {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        return Err(Box::new(response));
    }
    let bearer = text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let mut cookies = text(headers, header::COOKIE).unwrap_or_default().split(';').map(str::trim);
    let cookie = cookies.find_map(|cookie| cookie.strip_prefix(COOKIE)?.strip_prefix('='));
    if bearer.or(cookie).is_some_and(|given| same(given, token)) {
        return Ok(());
    }
    let detail = "the token is missing or wrong: send `Authorization: Bearer TOKEN`, or open /?token=TOKEN";
    let is_person = text(headers, header::ACCEPT).is_some_and(|kinds| kinds.contains("text/html"));
    let mut response = match is_person {
        true => (StatusCode::UNAUTHORIZED, Html(FOR_PEOPLE)).into_response(),
        false => Problem::new(StatusCode::UNAUTHORIZED, detail).into_response(),
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(Box::new(response))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a `Host` names this server: a page whose name was bound anew to this address does not know one that does.
fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether a browser says that another site's page asks. Programs say nothing of it.
fn is_foreign(headers: &HeaderMap, host: &str) -> bool {
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| {
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        own.is_none_or(|(_, own)| !own.eq_ignore_ascii_case(host))
    });
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    foreign_origin || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

/// Compares digests, whose first difference says nothing of the token.
fn same(given: &str, token: &str) -> bool {
    Sha256::digest(given) == Sha256::digest(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_localhost_and_given_names_are_ours() {
        let names = ["photos.example".to_string()];
        for host in
            ["127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860", "192.168.1.5", "photos.example:80"]
        {
            assert!(is_ours(host, &names), "{host}");
        }
        for host in ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost.evil"] {
            assert!(!is_ours(host, &names), "{host}");
        }
    }

    #[test]
    fn another_sites_page_is_foreign() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        let host = "127.0.0.1:7860";
        assert!(!is_foreign(&HeaderMap::new(), host));
        assert!(!is_foreign(&headers("origin", "http://127.0.0.1:7860"), host));
        assert!(is_foreign(&headers("origin", "http://127.0.0.1:8000"), host));
        assert!(is_foreign(&headers("origin", "null"), host));
        assert!(is_foreign(&headers("sec-fetch-site", "cross-site"), host));
    }
}
