//! `diffbir serve` gets models, engines and what finds faces, and restores with them.

#[path = "../../serve/tests/common/client.rs"]
mod client;
mod common;

use client::{ended, events, get, id, send, submit};
use common::server::Server;
use common::{detector, diffbir, picture, zeros_of};
use diffbir_models::srvgg::SrvggConfig;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use tempfile::TempDir;

const ENGINE: &str = "realesr-animevideov3";

/// Serves one file, and nothing else.
fn mirror(name: &str, content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/files", listener.local_addr().unwrap());
    let asks = format!("GET /files/{name} ");
    let answer = move |mut stream: TcpStream| -> std::io::Result<()> {
        let lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        if !head.first().is_some_and(|line| line.starts_with(&asks)) {
            return stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len())?;
        stream.write_all(&content)
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| _ = answer(stream)));
    address
}

fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture(24, 16).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// What is listed under a name.
fn listed(to: SocketAddr, id: &str) -> Value {
    let models = get(to, "/v1/models").json();
    models.as_array().unwrap().iter().find(|model| model["id"] == id).expect("it is listed").clone()
}

/// What the command line makes of the picture.
fn restored(models: &Path, flags: &[&str]) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let (input, output) = (folder.path().join("a.png"), folder.path().join("out.png"));
    std::fs::write(&input, png()).unwrap();
    let mut command = diffbir();
    command.env("DIFFBIR_MODELS", models).args(["restore", "--device", "cpu"]).args(flags);
    command.arg(&input).arg("-o").arg(&output).assert().success();
    std::fs::read(output).unwrap()
}

#[test]
fn an_engine_is_listed_asked_for_and_restores() {
    let (data, models) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let sizes = SrvggConfig { convolutions: 16, ..SrvggConfig::general_x4v3() };
    let weights = zeros_of(|params| sizes.build(params));
    let mirror = mirror("realesr-animevideov3.pth", weights.clone());
    let server = Server::with(data.path(), models.path(), &mirror);
    let to = server.address;
    let before = listed(to, ENGINE);
    assert_eq!(before["purpose"], "engine");
    assert_eq!((&before["tasks"], &before["ready"]), (&json!(["sr", "face-background"]), &json!([])));
    assert!(before["files"][0]["licence"].as_str().unwrap().contains("BSD-3-Clause"), "{before}");
    assert_eq!(listed(to, "gfpgan-v1.4")["tasks"], json!(["face"]));
    assert_eq!(listed(to, "v2.1")["purpose"], "model");
    assert_eq!(listed(to, "nano")["ready"], json!(["sr", "face-background"]));
    let options = [("model", ENGINE), ("upscale", "2")];
    let refused = submit(to, &png(), &options);
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("/v1/models/realesr-animevideov3/pull"), "{}", refused.detail());

    let begun = send(to, "POST", &format!("/v1/models/{ENGINE}/pull"), &[], b"");
    assert_eq!(begun.status, 202);
    let told = events(to, &begun.header("location"), 0);
    assert!(told[0].2["note"].as_str().unwrap().contains(&mirror), "{told:?}");
    let steps: Vec<_> =
        told.iter().filter(|(_, name, _)| name == "progress").map(|(.., data)| data).collect();
    assert!(steps.iter().any(|step| step["done"] == step["total"]), "{steps:?}");
    // What comes is not what its authors published. Who puts it there by hand is taken at their word.
    let (_, name, last) = told.last().unwrap();
    let detail = last["error"]["detail"].as_str().unwrap();
    assert!(name == "error" && detail.contains("is not the file it should be"), "{detail}");
    assert_eq!(listed(to, ENGINE)["present"], false);
    std::fs::write(models.path().join("realesr-animevideov3.pth"), weights).unwrap();
    let after = listed(to, ENGINE);
    assert_eq!((&after["present"], &after["ready"]), (&json!(true), &before["tasks"]));

    let job = ended(to, &id(&submit(to, &png(), &options)));
    assert_eq!(job["command"], "diffbir restore a.png --model=realesr-animevideov3 --upscale=2");
    let notes = job["notes"].to_string();
    assert!(notes.contains("realesr-animevideov3.pth"), "its doubtful content is told: {notes}");
    assert!(!notes.contains(&*models.path().to_string_lossy()), "{notes}");
    let result = get(to, job["results"][0]["href"].as_str().unwrap()).body;
    assert!(result == restored(models.path(), &["--model", ENGINE, "--upscale", "2"]));
    // What only stage 2 heeds is refused in the words of the command line.
    let job = ended(to, &id(&submit(to, &png(), &[("model", ENGINE), ("steps", "4")])));
    assert!(job["error"]["detail"].as_str().unwrap().contains("--steps"), "{job}");
}

#[test]
fn what_comes_in_the_place_of_a_file_is_told_without_the_servers_places() {
    // As networks in hotels answer.
    let page = b"<!doctype html><title>Welcome</title><p>Please log in.".repeat(100);
    let (data, models) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let server = Server::with(data.path(), models.path(), &mirror("realesr-animevideov3.pth", page));
    let to = server.address;
    let begun = send(to, "POST", &format!("/v1/models/{ENGINE}/pull"), &[], b"");
    let told = events(to, &begun.header("location"), 0);
    let (_, name, last) = told.last().unwrap();
    let detail = last["error"]["detail"].as_str().unwrap();
    assert!(name == "error" && detail.contains("realesr-animevideov3.pth"), "{detail}");
    let all = told.iter().map(|(.., data)| data.to_string()).collect::<String>();
    for place in [models.path(), data.path()] {
        assert!(!all.contains(&*place.to_string_lossy()), "{all}");
    }
    assert_eq!(listed(to, ENGINE)["present"], false);
}

#[test]
fn what_finds_faces_is_asked_for_and_used() {
    let (data, models) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let server = Server::with(data.path(), models.path(), &mirror("nothing", Vec::new()));
    let to = server.address;
    let faces = listed(to, "faces");
    assert_eq!((&faces["purpose"], &faces["tasks"]), (&json!("faces"), &json!(["face-background"])));
    assert_eq!((&faces["present"], faces["files"].as_array().unwrap().len()), (&json!(false), 4));
    let options = [("task", "face-background"), ("stage1_only", "true"), ("upscale", "2")];
    let refused = submit(to, &png(), &options);
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("/v1/models/faces/pull"), "{}", refused.detail());
    // A file that nobody has: which one, and why, but not where it would have been kept.
    let begun = send(to, "POST", "/v1/models/faces/pull", &[], b"");
    let mut all = events(to, &begun.header("location"), 0);
    let told = all.pop().unwrap();
    assert!(
        all.iter().any(|(.., data)| data["file"] == "parsing_parsenet.pth"),
        "the others are asked for, too"
    );
    let detail = told.2["error"]["detail"].as_str().unwrap();
    assert!(
        told.1 == "error" && detail.contains("detection_Resnet50_Final.pth") && detail.contains("404"),
        "{detail}"
    );
    assert!(!detail.contains(&*models.path().to_string_lossy()), "{detail}");

    // One of the files is enough.
    std::fs::rename(
        detector(models.path(), true),
        models.path().join("detection_mobilenet0.25_Final.safetensors"),
    )
    .unwrap();
    assert_eq!(listed(to, "faces")["ready"], json!(["face-background"]));
    let engine = submit(to, &png(), &[&options[..], &[("face_engine", "gfpgan-v1.4")]].concat());
    assert!(engine.detail().starts_with("face_engine") && engine.detail().contains("gfpgan-v1.4/pull"));
    let job = ended(to, &id(&submit(to, &png(), &options)));
    assert!(job["notes"].to_string().contains("faces found"), "{job}");
    let result = get(to, job["results"][0]["href"].as_str().unwrap()).body;
    let flags = ["--task", "face-background", "--stage1-only", "--upscale", "2"];
    assert!(result == restored(models.path(), &flags));
}
