//! `diffbir serve` gives what `diffbir restore` gives, and survives its death.

#[path = "../../serve/tests/common/client.rs"]
mod client;
mod common;

use client::{FORM, ended, events, form, form_of, get, id, send, submit, until};
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
fn samples_are_compared_as_the_command_line_does_and_harm_is_told() {
    let data = TempDir::new().unwrap();
    let server = Server::on(data.path());
    let to = server.address;
    let png = encoded(ImageFormat::Png);
    // One step from noise with far too much guidance is no picture any more.
    let wild = [("fidelity", "0"), ("steps", "1"), ("cfg_scale", "40"), ("color_fix", "none")];
    let options = [&wild[..], &[("samples", "2"), ("stability", "true")]].concat();
    let job = ended(to, &id(&submit(to, &png, &options)));
    assert_eq!(job["results"][1]["harm"], json!({"parts": 1, "harmed": 1, "kept": false}));
    assert!(job["stability"]["mean"].as_f64().unwrap() > 0.0, "{job}");
    let map = get(to, job["stability"]["href"].as_str().unwrap()).body;
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("a.png");
    std::fs::write(&input, &png).unwrap();
    let flags = "--fidelity 0 --steps 1 --cfg-scale 40 --color-fix none --samples 2 --stability";
    let mut command = diffbir();
    command.args(["restore", "--device", "cpu"]).args(flags.split(' ')).arg(&input);
    command.assert().success();
    assert!(map == std::fs::read(folder.path().join("a_restored_stability.png")).unwrap());

    let job = ended(to, &id(&submit(to, &png, &[&wild[..], &[("safe", "true")]].concat())));
    assert_eq!(job["results"][0]["harm"], json!({"parts": 1, "harmed": 1, "kept": true}));
    let of = |part: &str| get(to, &format!("{}{part}", job["href"].as_str().unwrap())).body;
    assert!(of("/result") == of("/stage1"), "the only part is stage 1's");
    let alone = submit(to, &png, &[("stability", "true")]);
    assert!(
        alone.status == 422 && alone.detail().starts_with("--stability: compares samples"),
        "{}",
        alone.text()
    );
}

#[test]
fn a_mask_is_that_of_the_command_line() {
    let data = TempDir::new().unwrap();
    let server = Server::on(data.path());
    let to = server.address;
    let png = encoded(ImageFormat::Png);
    let half = |size: (u32, u32)| {
        let light = |x| if x < size.0 / 2 { 255 } else { 0 };
        let mut bytes = Cursor::new(Vec::new());
        let mask = image::GrayImage::from_fn(size.0, size.1, |x, _| image::Luma([light(x)]));
        mask.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let submit = |mask: &[u8], options: &[(&str, &str)]| {
        let body = form_of(&[("image", "a.png", &png), ("mask", "keep the left.png", mask)], options);
        send(to, "POST", "/v1/restorations", &[FORM], &body)
    };
    let mask = half((48, 32));
    let job = ended(to, &id(&submit(&mask, &[("steps", "2")])));
    assert_eq!(job["command"], "diffbir restore a.png --steps=2 '--mask=keep the left.png'");
    let result = get(to, job["results"][0]["href"].as_str().unwrap()).body;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("keep the left.png");
    std::fs::write(&file, &mask).unwrap();
    assert!(result == restored(&png, &["--steps", "2", "--mask", file.to_str().unwrap()], "png"));
    assert!(result != restored(&png, &["--steps", "2"], "png"));
    let description = get(to, "/openapi.json").json();
    let field = |form: &str| description["components"]["schemas"][form]["properties"]["mask"].clone();
    assert_eq!((&field("Form")["format"], &field("JsonForm")["type"]), (&json!("binary"), &json!("string")));
    // What is wrong with it is told without the server's places.
    let refused = submit(&mask, &[("fidelity", "0.5")]);
    assert!(refused.status == 422 && refused.detail().contains("cannot be used with"), "{}", refused.text());
    let cut = |mask: &[u8]| mask[..mask.len() - 20].to_vec();
    for (mask, told) in
        [(half((30, 12)), "--mask: has another shape"), (cut(&mask), "--mask: keep the left.png: is damaged")]
    {
        let job = ended(to, &id(&submit(&mask, &[])));
        let detail = job["error"]["detail"].as_str().unwrap();
        assert!(detail.starts_with(told) && !detail.contains(&*data.path().to_string_lossy()), "{detail}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn answers_that_nobody_takes_need_no_memory() {
    use std::io::{Read, Write};
    let data = TempDir::new().unwrap();
    let server = Server::on(data.path());
    let to = server.address;
    let png = encoded(ImageFormat::Png);
    // The large one waits behind another, as it came.
    submit(to, &png, &[("steps", "1000"), ("fidelity", "0")]);
    let large = [&png[..], &vec![0; 20 << 20]].concat();
    let waits = id(&submit(to, &large, &[]));
    let clients: Vec<_> = (0..80)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(to).unwrap();
            write!(stream, "GET /v1/restorations/{waits}/before HTTP/1.1\r\nHost: {to}\r\n\r\n").unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
            stream
        })
        .collect();
    let held = server.memory();
    assert!(held < 700 << 20, "{} clients of 20 MB each: {held} bytes", clients.len());
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
