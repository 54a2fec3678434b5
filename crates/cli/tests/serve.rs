//! `diffbir serve` gives what `diffbir restore` gives, and survives its death.

#[path = "../../serve/tests/common/client.rs"]
mod client;
mod common;

use client::{FORM, ended, events, form, get, id, send, submit, until};
use common::server::Server;
use common::{diffbir, picture};
use image::{DynamicImage, ImageFormat};
use predicates::str::contains;
use serde_json::json;
use std::io::Cursor;
use tempfile::TempDir;

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture(24, 16)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// What the command line makes of a file with these flags.
fn restored(bytes: &[u8], flags: &[&str], extension: &str) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join(format!("out.{extension}")));
    std::fs::write(&input, bytes).unwrap();
    let mut command = diffbir();
    command.args(["restore", "--device", "cpu"]).args(flags).arg(&input).arg("-o").arg(&output);
    command.assert().success();
    std::fs::read(output).unwrap()
}

#[test]
fn a_download_is_what_the_command_line_writes() {
    let data = TempDir::new().unwrap();
    let server = Server::on(data.path());
    let to = server.address;
    let png = encoded(ImageFormat::Png);
    let job = ended(to, &id(&submit(to, &png, &[("seed", "-1"), ("steps", "4"), ("upscale", "2")])));
    let seed = job["options"]["seed"].as_u64().unwrap();
    assert_eq!(job["results"][0]["seed"], seed, "the seed that was drawn is told");
    let flags = ["--seed", &seed.to_string(), "--steps", "4", "--upscale", "2"];
    let of = |part: &str| get(to, &format!("{}{part}", job["href"].as_str().unwrap())).body;
    assert!(of("/result") == restored(&png, &flags, "png"));
    assert!(of("/stage1") == restored(&png, &["--stage1-only", "--upscale", "2"], "png"));
    // The model is loaded already: what it did before changes nothing.
    let tiff = encoded(ImageFormat::Tiff);
    let options = [("steps", "4"), ("format", "tiff")];
    let job = ended(to, &id(&submit(to, &tiff, &options)));
    let of = |part: &str| get(to, &format!("{}{part}", job["href"].as_str().unwrap()));
    assert!(of("/result").body == restored(&tiff, &["--steps", "4"], "tiff"));
    // Browsers cannot show TIFF.
    for part in ["/result?view=true", "/stage1?view=true", "/before"] {
        assert_eq!(of(part).header("content-type"), "image/png", "{part}");
        assert_eq!(image::guess_format(&of(part).body).unwrap(), ImageFormat::Png);
    }
    let command = job["command"].as_str().unwrap();
    assert_eq!(command, "diffbir restore a.png --format=tiff --steps=4");
}

#[test]
fn a_restoration_is_told_step_by_step_with_previews() {
    let data = TempDir::new().unwrap();
    let server = Server::on(data.path());
    let to = server.address;
    let options = [("steps", "6"), ("samples", "2"), ("fidelity", "0")];
    let id = id(&submit(to, &encoded(ImageFormat::Jpeg), &options));
    let told = events(to, &format!("/v1/restorations/{id}/events"), 0);
    let stages: Vec<_> =
        told.iter().filter(|(_, name, _)| name == "stage").map(|(.., data)| &data["stage"]).collect();
    assert_eq!(stages[..4], ["load", "stage 1", "encode", "sample"]);
    let preview = told.iter().rfind(|(_, name, _)| name == "preview").unwrap();
    assert_eq!(preview.2["preview"], 12);
    let job = ended(to, &id);
    assert_eq!(job["results"].as_array().unwrap().len(), 2);
    assert_eq!(job["results"][1]["seed"], 232);
}

#[test]
fn what_the_command_line_refuses_is_refused_in_its_words() {
    let data = TempDir::new().unwrap();
    let server = Server::on(data.path());
    let to = server.address;
    let png = encoded(ImageFormat::Png);
    let said = |options: &[(&str, &str)]| {
        let answer = submit(to, &png, options);
        assert_eq!(answer.status, 422, "{}", answer.text());
        answer.detail()
    };
    assert!(said(&[("steps", "0")]).contains("1..=1000"));
    assert!(said(&[("model", "v2.1")]).contains("/v1/models/v2.1/pull"));
    assert!(said(&[("model", "/etc/passwd")]).contains("there is no model"));
    assert!(said(&[("output", "/tmp/x")]).contains("no such option"));
    // What follows from the model is known when it is loaded; a cut-off file when it is decoded.
    let late = |bytes: &[u8], options: &[(&str, &str)]| {
        let answer = submit(to, bytes, options);
        if answer.status == 422 {
            return answer.detail();
        }
        let job = ended(to, &id(&answer));
        job["error"]["detail"].as_str().unwrap().to_string()
    };
    assert!(late(&png, &[("task", "face")]).contains("no networks for faces"));
    for share in [2, 5, 9] {
        let cut = late(&png[..png.len() * share / 10], &[]);
        assert!(
            cut.starts_with("a.png: is damaged") && !cut.contains(&*data.path().to_string_lossy()),
            "{cut}"
        );
    }
    let controls = get(to, "/v1/controls").json();
    assert!(controls["options"].as_array().unwrap().iter().any(|option| option["name"] == "cfg_scale"));
    let models = get(to, "/v1/models").json();
    assert_eq!((&models[0]["id"], &models[0]["present"]), (&json!("nano"), &json!(true)));
}

#[test]
fn jobs_survive_a_kill() {
    let data = TempDir::new().unwrap();
    let png = encoded(ImageFormat::Png);
    let server = Server::on(data.path());
    let done = id(&submit(server.address, &png, &[("stage1_only", "true")]));
    ended(server.address, &done);
    let headers = [FORM, ("Idempotency-Key", "k")];
    let body = form("a.png", &png, &[("steps", "1000"), ("fidelity", "0")]);
    let running = id(&send(server.address, "POST", "/v1/restorations", &headers, &body));
    until(|| {
        (get(server.address, &format!("/v1/restorations/{running}")).json()["state"] == "running")
            .then_some(())
    });
    let waiting = id(&submit(server.address, &png, &[("stage1_only", "true")]));
    // Killed as by `kill -9`.
    drop(server);
    let server = Server::on(data.path());
    let to = server.address;
    assert_eq!(get(to, &format!("/v1/restorations/{done}")).json()["state"], "done");
    let again = send(to, "POST", "/v1/restorations", &headers, &body);
    assert_eq!((again.status, id(&again)), (200, running.clone()), "its key is known");
    // It is begun anew; then it is somebody else's turn.
    let told = get(to, &format!("/v1/restorations/{running}"));
    assert!(["queued", "running"].contains(&told.json()["state"].as_str().unwrap()));
    assert_eq!(send(to, "DELETE", &format!("/v1/restorations/{running}"), &[], b"").status, 204);
    assert_eq!(ended(to, &waiting)["state"], "done");
    drop(server);
    let server = Server::on(data.path());
    assert_eq!(
        get(server.address, &format!("/v1/restorations/{running}")).status,
        404,
        "removed stays removed"
    );
    assert_eq!(get(server.address, &format!("/v1/restorations/{waiting}/result")).status, 200);
}

#[test]
fn others_are_let_in_only_on_purpose() {
    let data = TempDir::new().unwrap();
    let serve = |flags: &[&str]| {
        let mut command = diffbir();
        command.args(["serve", "--port", "0", "--data"]).arg(data.path()).args(flags);
        command.assert().code(2)
    };
    serve(&["--listen", "0.0.0.0"]).stderr(contains("--token"));
    serve(&["--listen", "0.0.0.0", "--token", "short"]).stderr(contains("16 letters"));
    serve(&["--token", "0123456789abcdef", "--no-token"]).stderr(contains("cannot be used with"));
    let file = data.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let mut command = diffbir();
    command.args(["serve", "--port", "0", "--data"]).arg(&file).assert().code(2).stderr(contains("file"));
}
