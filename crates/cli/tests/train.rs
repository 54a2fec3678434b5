//! `diffbir train` on folders as they are.

mod common;

use common::{diffbir, names, picture, save};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::Path;
use tempfile::TempDir;

/// One step of stage 1.
fn train(data: &Path, output: &Path) -> assert_cmd::assert::Assert {
    let mut command = diffbir();
    command.args(["train", "stage1", "--steps", "1", "--batch", "1", "--data"]).arg(data);
    command.arg("--output").arg(output).assert()
}

#[test]
fn unsuitable_pictures_are_named_and_left_out() {
    let folder = TempDir::new().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    save(&data, "small.png");
    for name in ["text.png", "photo.HEIC"] {
        std::fs::write(data.join(name), b"\0\0\0\x18ftypheic\0\0\0\0").unwrap();
    }
    let left_out = || {
        contains("small.png: has 16 x 12 pixels, but 128 x 128 are needed: left out")
            .and(contains("text.png: HEIC is not supported"))
            .and(contains("photo.HEIC: HEIC is not supported"))
            .and(contains("left out").count(3))
    };
    train(&data, &output)
        .code(2)
        .stderr(left_out().and(contains("data: no picture of at least 128 x 128 pixels can be read")));
    assert!(!output.exists());
    picture(130, 140).save(data.join("good.png")).unwrap();
    train(&data, &output).success().stderr(left_out().and(contains("step 1: loss")));
    assert!(names(&output).contains(&"stage1.safetensors".into()));
}

#[test]
fn a_missing_folder_is_one_error_with_one_cause() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("nofolder");
    let told =
        train(&missing, &folder.path().join("run")).code(2).stderr(contains("nofolder: cannot be read"));
    let told = String::from_utf8(told.get_output().stderr.clone()).unwrap();
    let cause = std::fs::read_dir(&missing).unwrap_err().to_string();
    assert_eq!(told.matches(&cause).count(), 1, "{told}");
}

#[test]
fn a_model_without_stage_2_refuses_what_only_stage_2_heeds() {
    let folder = TempDir::new().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    train(&data, &output).success();
    let model = folder.path().join("own.safetensors");
    let weights = output.join("stage1.safetensors");
    diffbir().args(["train", "pack", "--stage1"]).arg(weights).arg("-o").arg(&model).assert().success();
    let input = save(folder.path(), "a.png");
    let restore = |flags: &[&str]| {
        diffbir().args(["restore", "--device", "cpu", "--model"]).arg(&model).arg(&input).args(flags).assert()
    };
    for flags in [["--steps", "5"], ["--fidelity", "0.5"], ["--strength", "0.5"], ["--samples", "2"]] {
        let reason = format!("{}: custom has no stage 2, which alone heeds it", flags[0]);
        restore(&flags).code(2).stderr(contains(reason));
    }
    restore(&[]).success().stderr(contains("has no stage 2: it cleans and enlarges"));
}
