//! A client that can say anything.
#![allow(dead_code, reason = "no test file needs all of it")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a server answered.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What a problem says is wrong.
    pub fn detail(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        assert_eq!(self.json()["status"], self.status);
        self.json()["detail"].as_str().unwrap().to_string()
    }

    pub fn header(&self, name: &str) -> String {
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.map(|line| line[name.len() + 1..].trim().to_string()).unwrap_or_default()
    }
}

/// Sends a request and reads the answer to its end. HTTP/1.0, so that bodies are as they are.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {address}\r\n");
    }
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    // A server that has refused already may not read the rest.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head[9..12].parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, "GET", path, &[], b"")
}

/// A form with a picture and options.
pub fn form(name: &str, picture: &[u8], options: &[(&str, &str)]) -> Vec<u8> {
    form_of(&[("image", name, picture)], options)
}

/// A form with files: field, name, content.
pub fn form_of(files: &[(&str, &str, &[u8])], options: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (option, value) in options {
        let part = format!("--B\r\nContent-Disposition: form-data; name=\"{option}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    for (field, name, content) in files {
        let part =
            format!("--B\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n");
        body.extend_from_slice(part.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B--\r\n");
    body
}

pub const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=B");

/// Sends a picture to be restored.
pub fn submit(address: SocketAddr, picture: &[u8], options: &[(&str, &str)]) -> Answer {
    send(address, "POST", "/v1/restorations", &[FORM], &form("a.png", picture, options))
}

/// The id of a job that was accepted.
pub fn id(answer: &Answer) -> String {
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_string()
}

/// The job, once it has ended.
pub fn ended(address: SocketAddr, id: &str) -> Value {
    until(|| {
        let job = get(address, &format!("/v1/restorations/{id}")).json();
        matches!(job["state"].as_str(), Some("done" | "failed")).then_some(job)
    })
}

/// What comes about in the end.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "it never came about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Number, name and data of the events after number `last`, to the end.
pub fn events(address: SocketAddr, path: &str, last: u64) -> Vec<(u64, String, Value)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nLast-Event-ID: {last}\r\n\r\n").unwrap();
    let (mut found, mut number, mut name) = (Vec::new(), 0, String::new());
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if let Some(value) = line.strip_prefix("id: ") {
            number = value.parse().unwrap();
        } else if let Some(value) = line.strip_prefix("event: ") {
            name = value.into();
        } else if let Some(value) = line.strip_prefix("data: ") {
            found.push((number, name.clone(), serde_json::from_str(value).unwrap()));
        }
    }
    found
}
