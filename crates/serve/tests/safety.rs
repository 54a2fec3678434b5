//! What strangers and broken programs may send.

mod common;

use common::client::{Answer, FORM, ended, form, get, id, send, submit, until};
use common::{picture, server};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn only_its_own_names_reach_it_and_no_other_sites_page() {
    let (server, _data) = server(|settings| settings.hosts = vec!["photos.example".into()]);
    let to = server.address;
    let asked = |host: &str| send(to, "GET", "/v1/restorations", &[("Host", host)], b"").status;
    assert_eq!((asked("evil.example"), asked("photos.example:80"), asked("localhost")), (421, 200, 200));
    let from = |name: &str, value: &str| {
        send(to, "POST", "/v1/restorations", &[FORM, (name, value)], &form("a.png", &picture(), &[])).status
    };
    assert_eq!(from("Origin", "http://evil.example"), 403);
    assert_eq!(from("Origin", "null"), 403);
    assert_eq!(from("Sec-Fetch-Site", "cross-site"), 403);
    assert_eq!(from("Origin", &format!("http://{to}")), 202);
    // A page of another site cannot read anything either: nothing allows it to.
    let answer = send(to, "GET", "/v1/restorations", &[("Origin", "http://evil.example")], b"");
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[test]
fn a_token_is_asked_for_everywhere_but_for_health() {
    let token = "0123456789abcdef";
    let (server, _data) = server(|settings| settings.token = Some(token.into()));
    let to = server.address;
    for path in ["/", "/main.js", "/v1/restorations", "/v1/controls", "/openapi.json", "/metrics"] {
        assert_eq!(get(to, path).status, 401, "{path}");
    }
    assert_eq!((get(to, "/healthz").status, get(to, "/readyz").status), (200, 200));
    let with = |name: &str, value: &str| send(to, "GET", "/v1/restorations", &[(name, value)], b"").status;
    assert_eq!(with("Authorization", "Bearer 0123456789abcdef"), 200);
    assert_eq!(with("Authorization", "Bearer 0123456789abcdee"), 401);
    assert_eq!(get(to, "/?token=wrong").status, 401);
    let shown = send(to, "GET", "/", &[("Accept", "text/html,*/*")], b"");
    assert!(shown.status == 401 && shown.header("content-type").starts_with("text/html"));
    assert!(shown.text().contains("/?token=TOKEN") && !shown.text().contains(token), "{}", shown.text());
    let opened = get(to, "/?token=0123456789abcdef");
    assert_eq!((opened.status, opened.header("location").as_str()), (303, "/"));
    let cookie = opened.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert_eq!(with("Cookie", cookie.split(';').next().unwrap()), 200);
}

#[test]
fn answers_carry_the_headers_that_keep_pages_apart() {
    let (server, _data) = server(|_| {});
    for path in ["/", "/main.js", "/v1/restorations", "/nowhere", "/healthz"] {
        let answer = get(server.address, path);
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
    }
    let page = get(server.address, "/").text();
    assert!(
        !page.contains("<script>") && !page.contains(" style=") && !page.contains("http"),
        "nothing inline or foreign"
    );
}

/// A PNG's head that claims so many pixels, with its checksum.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = picture();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = !png[12..29].iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    });
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    png
}

#[test]
fn what_is_no_picture_or_too_large_is_refused_by_what_it_is() {
    let (server, data) = server(|settings| {
        settings.limits.upload_bytes = 100_000;
        settings.limits.pixels = 1_000_000;
        settings.limits.output_pixels = 1_000_000;
        settings.limits.results = 3;
    });
    let to = server.address;
    let status = |bytes: &[u8]| submit(to, bytes, &[]).status;
    assert_eq!(status(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"), 415);
    assert_eq!(status(b"<!doctype html><script>alert(1)</script>"), 415);
    assert_eq!(status(b"GIF89a\x01\0\x01\0\0\0\0;"), 415);
    assert_eq!(status(b"%PDF-1.7"), 415);
    assert_eq!(status(b""), 422);
    assert_eq!(status(&picture()[..20]), 422);
    // Bombs: many pixels in few bytes.
    assert_eq!(status(&claiming(1200, 1000)), 413);
    assert_eq!(status(&claiming(100_000, 100_000)), 413);
    assert_eq!(status(&vec![0; 100_001]), 413);
    let options = |options: &[(&str, &str)]| submit(to, &picture(), options);
    assert_eq!(options(&[("factor", "1000000")]).status, 413);
    assert_eq!(options(&[("working", "1000001")]).status, 413);
    assert_eq!(options(&[("samples", "4")]).status, 413);
    assert_eq!(options(&[("x", &"x".repeat(70_000))]).status, 413);
    // Names cost, too, and so do fields without anything.
    let names: Vec<String> = (0..1100).map(|number| format!("x{number}")).collect();
    let empty: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(options(&empty).status, 413);
    assert_eq!(options(&[(&"x".repeat(70_000), "")]).status, 413);
    assert_eq!(options(&[("wrong", "1")]).status, 422);
    assert_eq!(
        std::fs::read_dir(data.path().join("jobs")).unwrap().count(),
        0,
        "nothing stays of what is refused"
    );
    let left = std::fs::read_dir(data.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".partial"));
    assert_eq!(left.count(), 0);
}

#[test]
fn forms_that_are_broken_are_the_clients_fault() {
    let (server, _data) = server(|_| {});
    let to = server.address;
    let post =
        |kind: &str, body: &[u8]| send(to, "POST", "/v1/restorations", &[("Content-Type", kind)], body);
    let form = "multipart/form-data; boundary=B";
    let is_refused =
        |answer: Answer| assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text());
    is_refused(post("text/plain", b"x"));
    is_refused(post("multipart/form-data", b"x"));
    is_refused(post(form, b"--B\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\ncut off"));
    is_refused(post(form, b"--B--\r\n"));
    let one = &common::client::form("a", &picture(), &[]);
    let end = one.len() - b"--B--\r\n".len();
    is_refused(post(form, &[&one[..end], one].concat()));
    is_refused(post("application/json", b"{\"image\": 5}"));
    is_refused(post("application/json", "[".repeat(100_000).as_bytes()));
    assert_eq!(send(to, "PUT", "/v1/restorations", &[], b"").status, 405);
    assert_eq!(get(to, "/v1/restorations?wait=x").status, 200);
    is_refused(send(to, "POST", "/v1/restorations?wait=x", &[FORM], b""));
}

#[test]
fn a_form_is_no_longer_than_a_picture_may_be() {
    let (server, _data) = server(|settings| settings.limits.upload_bytes = 90_000);
    let post = |length: usize| {
        let start = b"--B\r\nContent-Disposition: form-data; name=\"".to_vec();
        send(server.address, "POST", "/v1/restorations", &[FORM], &[start, vec![b'x'; length]].concat())
    };
    // The head of a field that never ends: held in memory until it is too long.
    let answer = post((1 << 20) + 130_000);
    assert_eq!(answer.status, 413);
    assert!(answer.detail().contains("the request is longer than 1 MB"), "{}", answer.text());
    assert_ne!(post(1000).status, 413);
    // Long before that, where the limit is high; a picture of the same length is looked at.
    let (server, _data) = self::server(|_| {});
    let post = |start: &[u8], fill: u8| {
        let body = [start, &vec![fill; 5 << 20], b"\r\n--B--\r\n"].concat();
        send(server.address, "POST", "/v1/restorations", &[FORM], &body)
    };
    let answer = post(b"--B\r\nContent-Disposition: form-data; name=\"", b'x');
    assert_eq!(answer.status, 413);
    assert!(answer.detail().contains("between the form's values"), "{}", answer.text());
    let answer = post(b"--B\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n", 0);
    assert_eq!(answer.status, 415);
    // A mask that was brought and is empty is no mask that was left out.
    let mask = |name: &str| {
        let body = form("a.png", &picture(), &[]);
        let end = body.len() - b"--B--\r\n".len();
        let part = format!(
            "--B\r\nContent-Disposition: form-data; name=\"mask\"; filename=\"{name}\"\r\n\r\n\r\n--B--\r\n"
        );
        send(server.address, "POST", "/v1/restorations", &[FORM], &[&body[..end], part.as_bytes()].concat())
    };
    assert_eq!(mask("").status, 202);
    let answer = mask("m.png");
    assert_eq!(
        (answer.status, answer.detail().contains("`mask` is empty")),
        (400, true),
        "{}",
        answer.text()
    );
}

#[test]
fn names_lead_nowhere() {
    let (server, data) = server(|_| {});
    let to = server.address;
    for name in [
        "../../../tmp/x.png",
        "..\\..\\x.png",
        "/etc/passwd",
        "a/../b.png",
        "\u{202e}gnp.exe",
        "%2e%2e%2fx.png",
    ] {
        let body = form(name, &picture(), &[]);
        let answer = send(to, "POST", "/v1/restorations", &[FORM], &body);
        let job = ended(to, &id(&answer));
        let kept = job["name"].as_str().unwrap();
        assert!(!kept.contains('/') && !kept.contains('\\') && !kept.starts_with('.'), "{kept}");
        assert_eq!(get(to, job["results"][0]["href"].as_str().unwrap()).body, picture());
    }
    for path in [
        "/v1/restorations/../../etc/passwd",
        "/v1/restorations/..%2f..%2fetc%2fpasswd",
        "/v1/restorations/%2e%2e/result",
        "/samples/../../../etc/passwd",
        "/v1/restorations/job.json",
    ] {
        assert!(matches!(get(to, path).status, 400 | 404), "{path}");
    }
    assert!(data.path().join("jobs").is_dir());
}

/// Opens a connection, says this, and no more.
fn half(to: SocketAddr, said: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(said.as_bytes()).unwrap();
    stream
}

#[test]
fn uploads_that_stop_half_way_end_and_hold_nobody_up() {
    let (server, data) = server(|settings| {
        settings.limits.silence = Duration::from_millis(1500);
        settings.limits.uploads = 4;
    });
    let to = server.address;
    let head = format!(
        "POST /v1/restorations HTTP/1.1\r\nHost: {to}\r\nContent-Type: {}\r\nContent-Length: 100000\r\n\r\n",
        FORM.1
    );
    let begun = format!("{head}--B\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nxxxx");
    // Some stop in the head, some in the picture.
    let many: Vec<TcpStream> = (0..300)
        .map(|index| half(to, if index % 2 == 0 { &begun } else { "GET / HTTP/1.1\r\nHo" }))
        .collect();
    let since = Instant::now();
    assert_eq!(get(to, "/healthz").status, 200);
    assert!(since.elapsed() < Duration::from_secs(1), "health does not wait for them");
    // As soon as they are given up, there is room again.
    until(|| (submit(to, &picture(), &[]).status == 202).then_some(()));
    let mut said = String::new();
    let mut first = many.into_iter().next().unwrap();
    first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = first.read_to_string(&mut said);
    assert!(said.contains(" 408 ") && said.contains("no byte came"), "{said}");
    until(|| {
        let names = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name());
        (!names.into_iter().any(|name| name.to_string_lossy().ends_with(".partial"))).then_some(())
    });
}

#[test]
fn an_upload_that_drips_is_given_up() {
    let (server, _data) = server(|settings| settings.limits.silence = Duration::from_millis(800));
    let to = server.address;
    let head = format!(
        "POST /v1/restorations HTTP/1.1\r\nHost: {to}\r\nContent-Type: {}\r\nContent-Length: 100000\r\n\r\n",
        FORM.1
    );
    let begun = format!("{head}--B\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n");
    let mut stream = half(to, &begun);
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut said = Vec::new();
    // Never silent for long, and never done.
    until(|| {
        let _ = stream.write_all(b"x");
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).unwrap_or(0);
        said.extend_from_slice(&answer[..read]);
        (!said.is_empty()).then_some(())
    });
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains(" 408 "), "{said}");
}

/// Asks for this and takes nothing of the answer.
fn asking(to: SocketAddr, path: &str) -> TcpStream {
    half(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n"))
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut_off() {
    let (server, _data) = server(|settings| {
        settings.limits.untaken = Duration::from_secs(2);
        settings.limits.connections = 8;
    });
    let to = server.address;
    // More than the system keeps for a client that does not read.
    let padding = 24 << 20;
    let job = ended(to, &id(&submit(to, &picture(), &[("pad", &padding.to_string())])));
    let path = job["results"][0]["href"].as_str().unwrap();
    let many: Vec<TcpStream> = (0..8).map(|_| asking(to, path)).collect();
    // All connections are taken by those: another one is answered when they are cut off.
    assert_eq!(get(to, "/healthz").status, 200);
    for mut stream in many {
        // Not read before it is cut off, or it would go on: what is written to it then fails.
        until(|| stream.write_all(b" ").is_err().then_some(()));
        let mut came = Vec::new();
        let _ = stream.read_to_end(&mut came);
        assert!(came.starts_with(b"HTTP/1.1 200") && came.len() < padding, "{} bytes came", came.len());
    }
    // Who takes it gets all of it, as slow as it may be.
    let mut stream = asking(to, path);
    let mut came = 0;
    let mut piece = vec![0; 2 << 20];
    while came < padding {
        came += stream.read(&mut piece).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(get(to, path).body.len(), picture().len() + padding);
}
