//! `--task face-background`, with a detector that is made up: real ones are no part of the project.

mod common;

use burn::tensor::TensorData;
use common::{diffbir, names, picture, save};
use diffbir_models::retinaface::RetinaFaceConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;
use predicates::prelude::*;
use predicates::str::contains;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A network that, whatever it is shown, sees a face in every square of 256 pixels, or none at all.
fn detector(folder: &Path, sees: bool) -> PathBuf {
    let keys = keys_of(|params| RetinaFaceConfig::mobile().build(params)).unwrap();
    let tensors = keys.parameters().map(|(_, name, shape)| {
        let count = shape.iter().product();
        let values: Vec<f32> = match name {
            "ClassHead.2.conv1x1.bias" if sees => vec![0.0, 5.0, 9.0, 0.0],
            // For each of the two squares of a cell: eyes, nose, corners of the mouth, in tenths of its side.
            "LandmarkHead.2.conv1x1.bias" => [-2.0, -1.5, 2.0, -1.5, 0.0, 0.5, -1.5, 2.0, 1.5, 2.0].repeat(2),
            name if name.starts_with("ClassHead") && name.ends_with("bias") => vec![9.0, 0.0, 9.0, 0.0],
            name if name.ends_with("running_var") => vec![1.0; count],
            _ => vec![0.0; count],
        };
        (name.to_string(), TensorData::new(values, shape.to_vec()))
    });
    let file = folder.join(if sees { "sees.safetensors" } else { "blind.safetensors" });
    std::fs::write(&file, Checkpoint::from_tensors(tensors.collect()).to_safetensors(false).unwrap())
        .unwrap();
    file
}

fn restore(detector: &Path, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> assert_cmd::assert::Assert {
    let mut command = diffbir();
    command.args([
        "restore",
        "--device",
        "cpu",
        "--stage1-only",
        "--task",
        "face-background",
        "--upscale",
        "2",
    ]);
    command.arg("--face-detector").arg(detector).args(arguments.iter().map(|argument| argument.as_ref()));
    command.assert()
}

#[test]
fn faces_are_told_restored_and_written() {
    let folder = TempDir::new().unwrap();
    let (sees, input) = (detector(folder.path(), true), folder.path().join("a.png"));
    picture(100, 50).save(&input).unwrap();
    let (out, faces) = (folder.path().join("out"), folder.path().join("faces"));
    let run = restore(&sees, &[&input, &"-o", &out, &"--save-faces", &faces]);
    let told = String::from_utf8_lossy(&run.success().get_output().stderr).into_owned();
    let count: usize =
        told.split(" faces found").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(count > 2, "they overlap and reach out of the picture: {told}");
    assert!(told.contains(&format!("face {count} of {count}")), "{told}");
    assert_eq!(image::image_dimensions(out.join("a.png")).unwrap(), (200, 100));
    assert_eq!(names(&faces), ["cropped_faces", "restored_backgrounds", "restored_faces"]);
    assert_eq!(names(&faces.join("restored_backgrounds")), ["a.png"]);
    for kind in ["cropped_faces", "restored_faces"] {
        assert_eq!(names(&faces.join(kind)).len(), count);
        assert!(faces.join(kind).join("a_face_0.png").exists());
    }
    let read = |path: PathBuf| image::open(path).unwrap().to_rgb8().into_raw();
    assert_ne!(read(out.join("a.png")), read(faces.join("restored_backgrounds/a.png")));

    // One of them; what is there is not written over.
    let again: [&dyn AsRef<std::ffi::OsStr>; 7] =
        [&input, &"-o", &out, &"--existing", &"overwrite", &"--faces", &"largest"];
    restore(&sees, &again).success().stderr(contains("face 1 of 1").and(contains("left to the background")));
    restore(&sees, &[&input, &"-o", &folder.path().join("more"), &"--save-faces", &faces])
        .code(1)
        .stderr(contains("exists already"));
    assert!(folder.path().join("more/a.png").exists(), "the result itself is there");
}

#[test]
fn without_a_face_the_background_is_the_result() {
    let folder = TempDir::new().unwrap();
    let (blind, input) = (detector(folder.path(), false), save(folder.path(), "a.png"));
    let out = folder.path().join("out.png");
    restore(&blind, &[&input, &"-o", &out]).success().stderr(contains("no face found"));
    let plain = folder.path().join("plain.png");
    common::restore(&[&input, &"-o", &plain, &"--upscale", &"2"]).success();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&plain).unwrap());
    // Small faces are left to it too.
    let sees = detector(folder.path(), true);
    restore(&sees, &[&input, &"-o", &folder.path().join("b.png"), &"--min-face-px", &"900"])
        .success()
        .stderr(contains("found, ").and(contains("left to the background")));
    let events = restore(&blind, &[&input, &"-o", &folder.path().join("c.png"), &"--json"]).success();
    let events = String::from_utf8_lossy(&events.get_output().stdout).into_owned();
    assert!(
        events.contains(r#"{"event":"faces","input":"#) && events.contains(r#""found":0,"restored":0}"#),
        "{events}"
    );
}

#[test]
fn what_is_missing_or_no_detector_is_said_before_any_work() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let run = |arguments: &[&str]| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu"]).args(arguments).arg(&input);
        command.assert().code(2)
    };
    run(&["--task", "face-background"])
        .stderr(contains("models pull faces").and(contains("--face-detector")));
    run(&["--faces", "largest"]).stderr(contains("--faces: goes with --task face-background"));
    run(&["--task", "face-background", "--face-detector", "nowhere.pth"]).stderr(contains("nowhere.pth"));
    let other = folder.path().join("other.safetensors");
    let tensors = [("a".to_string(), TensorData::new(vec![0f32], [1]))];
    std::fs::write(&other, Checkpoint::from_tensors(tensors.into()).to_safetensors(false).unwrap()).unwrap();
    run(&["--task", "face-background", "--face-detector", other.to_str().unwrap()])
        .stderr(contains("other.safetensors").and(contains("is this file for another network?")));
    assert!(!folder.path().join("a_restored.png").exists());
}

#[test]
fn the_references_spelling_numbers_results_and_keeps_faces_beside_them() {
    let folder = TempDir::new().unwrap();
    let (sees, input) = (detector(folder.path(), true), save(folder.path(), "in/a.png"));
    let out = folder.path().join("out");
    let mut command = diffbir();
    command.args([
        "restore",
        "--device",
        "cpu",
        "--stage1-only",
        "--task",
        "unaligned_face",
        "--upscale",
        "2",
    ]);
    command.args(["--model", "nano", "--faces", "center", "--face-detector"]).arg(&sees);
    command.arg("--input").arg(input.parent().unwrap()).arg("--output").arg(&out).assert().success();
    assert_eq!(
        names(&out),
        ["a_0.png", "cropped_faces", "prompt.csv", "restored_backgrounds", "restored_faces"]
    );
    assert_eq!(names(&out.join("cropped_faces")), ["a_face_0_0.png"]);
    assert_eq!(names(&out.join("restored_faces")), ["a_face_0_0.png"]);
    let table = std::fs::read_to_string(out.join("prompt.csv")).unwrap();
    assert_eq!(
        table.lines().filter(|line| line.starts_with("a_face_0,") || line.starts_with("a,")).count(),
        2
    );
    // As the reference's results, a shorter side of 512 at least.
    assert_eq!(image::image_dimensions(out.join("a_0.png")).unwrap().1, 512);
}
