//! `--task face-background`, with a detector that is made up: real ones are no part of the project.

mod common;

use burn::tensor::{Device, TensorData};
use common::{detector, diffbir, names, picture, save};
use diffbir::ModelConfig;
use diffbir::geometry::Geometry;
use diffbir::model::Parts;
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

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
    let more = folder.path().join("more");
    restore(&sees, &[&input, &"-o", &more, &"--save-faces", &faces])
        .code(2)
        .stderr(contains("--save-faces: ").and(contains("exists already")));
    assert!(!more.exists(), "it is told before any work");
    // Of a face it is known only when it was found.
    std::fs::remove_dir_all(faces.join("restored_backgrounds")).unwrap();
    restore(&sees, &[&input, &"-o", &more, &"--save-faces", &faces])
        .code(1)
        .stderr(contains("a_face_0.png: exists already"));
    assert!(more.join("a.png").exists(), "the result itself is there");
}

#[test]
fn faces_of_two_pictures_never_have_one_name() {
    let folder = TempDir::new().unwrap();
    let sees = detector(folder.path(), true);
    let inputs = ["x/a.png", "y/a.png"].map(|name| save(folder.path(), name));
    // Large enough for faces of 16 pixels.
    inputs.iter().for_each(|input| picture(60, 50).save(input).unwrap());
    let faces = folder.path().join("faces");
    restore(&sees, &[&inputs[0], &inputs[1], &"--save-faces", &faces, &"--existing", &"overwrite"])
        .code(2)
        .stderr(contains("--save-faces: those of").and(contains("give them different names")));
    assert_eq!(names(&folder.path().join("x")), ["a.png"], "before any work");
    // A folder that is searched keeps them apart.
    let below: [&dyn AsRef<std::ffi::OsStr>; 6] =
        [&folder.path(), &"--recursive", &"-o", &folder.path().join("out"), &"--save-faces", &faces];
    restore(&sees, &below).success();
    for name in ["x/a_face_0.png", "y/a_face_0.png"] {
        assert!(faces.join("restored_faces").join(name).exists(), "{name}");
    }
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

/// The built-in stage 2 breaks the smallest faces most.
#[test]
fn small_faces_are_not_left_to_what_breaks_them() {
    let folder = TempDir::new().unwrap();
    let (sees, input) = (detector(folder.path(), true), save(folder.path(), "a.png"));
    let run = |name: &str, more: &[&str]| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--task", "face-background", "--faces", "center"]);
        command.args(["--upscale", "2", "--face-detector"]).arg(&sees).arg(&input);
        command.arg("-o").arg(folder.path().join(name)).args(more).assert().success()
    };
    // Its boxes are some ten pixels wide.
    run("a.jpg", &[]).stderr(contains("face 1 of 1"));
    run("b.jpg", &["--min-face-px", "16"]).stderr(contains("left to the background"));
    run("c.jpg", &["--stage1-only"]).stderr(contains("left to the background"));
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
    let run = |more: &[&str]| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--stage1-only", "--task", "unaligned_face"]);
        command.args(["--upscale", "2", "--model", "nano", "--faces", "center", "--face-detector"]);
        command.arg(&sees).arg("--input").arg(input.parent().unwrap()).arg("--output").arg(&out);
        command.args(more).assert().success()
    };
    run(&[]);
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
    // Faces of some five pixels in the photograph, though they are looked for at that size.
    run(&["--min-face-px", "10"]).stderr(contains("left to the background").and(contains("face 1 of").not()));
    run(&["--min-face-px", "2"]).stderr(contains("face 1 of"));
}

/// A model file of this stage 1 with random weights.
fn engine(folder: &Path, name: &str, stage1: Stage1Config) -> PathBuf {
    let (network, keys) =
        build(&mut RandomInit { seed: 1 }, &Device::flex(), |params| stage1.build(params)).unwrap();
    let parts = Parts { stage1: Checkpoint::from_tensors(keys.tensors(&network)), ..Parts::default() };
    let config =
        ModelConfig { name: name.into(), origin: vec![], stage1, stage2: None, geometry: Geometry::Free };
    let file = folder.join(format!("{name}.safetensors"));
    std::fs::write(&file, parts.into_file(&config).to_safetensors(false).unwrap()).unwrap();
    file
}

fn gfpgan(folder: &Path) -> PathBuf {
    let sizes = GfpganConfig { side_px: 16, features: 8, style: 4, ..GfpganConfig::official() };
    engine(folder, "small-gfpgan", Stage1Config::Gfpgan(sizes))
}

fn pixels(path: &Path) -> Vec<u8> {
    image::open(path).unwrap().to_rgb8().into_raw()
}

#[test]
fn an_engine_restores_faces_alone_or_by_its_share() {
    let folder = TempDir::new().unwrap();
    let (sees, face_engine) = (detector(folder.path(), true), gfpgan(folder.path()));
    let input = folder.path().join("a.png");
    picture(100, 50).save(&input).unwrap();
    let run = |name: &str, more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let (out, faces) = (folder.path().join(name).join("a.png"), folder.path().join(name));
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
            vec![&input, &"-o", &out, &"--save-faces", &faces, &"--faces", &"largest"];
        arguments.extend(more);
        restore(&sees, &arguments).success();
        let read = |kind: &str, name: &str| pixels(&faces.join(kind).join(name));
        (read("restored_faces", "a_face_0.png"), read("restored_backgrounds", "a.png"), pixels(&out))
    };
    let own = run("own", &[]);
    let engines = run("engines", &[&"--face-engine", &face_engine]);
    assert_eq!(engines.0.len(), 512 * 512 * 3, "cut as the engine wants it");
    assert_ne!(own.2, engines.2);
    assert_eq!(own.1, engines.1, "the background is the model's");
    assert_eq!(run("none", &[&"--face-engine", &face_engine, &"--face-blend", &"0"]), own);
    let blended = run("blended", &[&"--face-engine", &face_engine, &"--face-blend", &"0.5"]);
    assert_eq!(blended.0.len(), own.0.len());
    assert!(blended.0 != own.0 && blended.1 == own.1 && blended.2 != engines.2);
    // Nothing in it is left to chance.
    assert_eq!(run("again", &[&"--face-engine", &face_engine]), engines);
}

/// What is told of harm is of the result: its faces are in it.
#[test]
fn faces_that_contradict_the_photograph_are_told_and_kept_as_stage_1_made_them() {
    let folder = TempDir::new().unwrap();
    let (sees, face_engine) = (detector(folder.path(), true), gfpgan(folder.path()));
    let input = folder.path().join("a.png");
    picture(100, 50).save(&input).unwrap();
    // How many parts are harmed, and the picture; the background keeps so near to stage 1 that it harms few.
    let run = |name: &str, fidelity: &str, more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let out = folder.path().join(name);
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--json", "--upscale", "2", "--fidelity", fidelity]);
        command.args(["--steps", "10"]).arg(&input).arg("-o").arg(&out);
        command.args(more.iter().map(|argument| argument.as_ref()));
        let told = String::from_utf8_lossy(&command.assert().success().get_output().stdout).into_owned();
        let harmed = told.split(r#""harmed":"#).nth(1).unwrap().split(',').next().unwrap();
        (harmed.parse::<usize>().unwrap(), pixels(&out))
    };
    let faces: [&dyn AsRef<std::ffi::OsStr>; 6] =
        [&"--task", &"face-background", &"--face-detector", &sees, &"--face-engine", &face_engine];
    let (none, background) = run("background.png", "0.9", &[]);
    let (harmed, wild) = run("faces.png", "0.9", &faces);
    let (told, safe) = run("safe.png", "0.9", &[&faces[..], &[&"--safe"]].concat());
    assert!(harmed > none && told == harmed, "{none}, {harmed} and {told}");
    let distance =
        |a: &[u8]| -> u64 { a.iter().zip(&background).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum() };
    assert!(2 * distance(&safe) < distance(&wild), "{} and {}", distance(&safe), distance(&wild));
    // Where nothing but the faces is drawn, too.
    let (alone, _) = run("alone.png", "1", &faces);
    assert!(alone > 0 && alone <= harmed, "{alone} and {harmed}");
}

#[test]
fn an_engine_restores_the_background() {
    let folder = TempDir::new().unwrap();
    let sees = detector(folder.path(), true);
    let stage1 = Stage1Config::Srvgg(SrvggConfig { features: 4, convolutions: 1, upscale: 4 });
    let background_engine = engine(folder.path(), "small", stage1);
    let input = folder.path().join("a.png");
    picture(60, 50).save(&input).unwrap();
    let (out, faces) = (folder.path().join("out.png"), folder.path().join("faces"));
    let flag = "--background-engine";
    restore(&sees, &[&input, &"-o", &out, &"--save-faces", &faces, &flag, &background_engine]).success();
    let plain = folder.path().join("plain.png");
    common::restore(&[&input, &"-o", &plain, &"--upscale", &"2", &"--model", &background_engine]).success();
    assert_eq!(pixels(&faces.join("restored_backgrounds/a.png")), pixels(&plain));
    assert_ne!(pixels(&out), pixels(&plain), "faces are the model's");
    let missing =
        "realesrgan-x2plus: RealESRGAN_x2plus.pth is not here: `diffbir models pull realesrgan-x2plus`";
    restore(&sees, &[&input, &"-o", &folder.path().join("b.png"), &"--bg_upsampler", &"RealESRGAN"])
        .code(2)
        .stderr(contains(missing));
    restore(&sees, &[&input, &"-o", &folder.path().join("c.png"), &flag, &gfpgan(folder.path())])
        .code(2)
        .stderr(contains("goes with --face-engine"));
}

#[test]
fn gfpgan_takes_aligned_faces_alone() {
    let folder = TempDir::new().unwrap();
    let (file, input) = (gfpgan(folder.path()), save(folder.path(), "a.png"));
    let file = file.to_str().unwrap();
    let out = folder.path().join("out.png");
    let run = |arguments: &[&str]| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu"]).arg(&input).arg("-o").arg(&out).args(arguments);
        command.assert()
    };
    run(&["--model", file]).code(2).stderr(contains("use --task face, or").and(contains("--face-engine")));
    run(&["--model", "nano", "--stage1", file])
        .code(2)
        .stderr(contains("it goes with --model or --face-engine"));
    run(&["--task", "face", "--engine", "gfpgan-v1.4"])
        .code(2)
        .stderr(contains("GFPGANv1.4.pth is not here: `diffbir models pull gfpgan-v1.4` gets it"));
    run(&["--face-engine", "gfpgan-v1.4"])
        .code(2)
        .stderr(contains("--face-engine: goes with --task face-background"));
    run(&["--task", "face-background", "--face-blend", "0.5"])
        .code(2)
        .stderr(contains("--face-engine <NAME>"));
    run(&["--task", "face-background", "--face-engine", "x", "--face-blend", "1.5"])
        .code(2)
        .stderr(contains("--face-blend"));
    let sees = detector(folder.path(), true);
    let nowhere: [&dyn AsRef<std::ffi::OsStr>; 3] = [&input, &"--face-engine", &"nano"];
    restore(&sees, &nowhere).code(2).stderr(contains("--face-engine nano: is neither an engine"));
    assert!(!out.exists());
    run(&["--task", "face", "--model", file]).success();
    assert_eq!(image::image_dimensions(&out).unwrap(), (64, 48));
}
