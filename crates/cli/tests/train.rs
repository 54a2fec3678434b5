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
    let pack = |flags: &[&str]| {
        diffbir().args(["train", "pack", "--stage1"]).arg(&weights).args(flags).arg("-o").arg(&model).assert()
    };
    for flags in [["--fidelity", "0.3"], ["--cfg-scale", "2"], ["--s-noise", "1.1"]] {
        pack(&flags).code(2).stderr(contains("--autoencoder"));
    }
    pack(&["--network", "swinir"]).code(2).stderr(contains("lacks the tensor"));
    assert!(!model.exists());
    pack(&[]).success();
    pack(&[]).code(2).stderr(contains("exists already"));
    let input = save(folder.path(), "a.png");
    let restore = |flags: &[&str]| {
        diffbir().args(["restore", "--device", "cpu", "--model"]).arg(&model).arg(&input).args(flags).assert()
    };
    // What is given counts, even where it says the default.
    let of_stage2 = "--steps 5;--sampler ddim;--s-churn 1;--s-tmin 1;--s-tmax 1;--s-noise 1;--eta 0;--order 2;\
        --start-point-type noise;--better-start;--fidelity 0.5;--cfg-scale 2;--rescale-cfg;--prompt a;\
        --negative-prompt b;--strength 1;--noise-aug 0;--seed 1;--seed-mode each;--noise torch-cpu;--samples 1;\
        --batch-size 2;--color-fix none;--vae-encoder-tiled;--vae-decoder-tiled;--cldm-tiled";
    for line in of_stage2.split(';') {
        let flags: Vec<&str> = line.split(' ').collect();
        let reason = format!("{}: custom has no stage 2, which alone heeds it", flags[0]);
        restore(&flags).code(2).stderr(contains(reason));
    }
    restore(&[]).success().stderr(contains("has no stage 2: it cleans and enlarges"));
}

#[test]
fn a_missing_file_is_noticed_before_latents_are_made() {
    let folder = TempDir::new().unwrap();
    let (data, output, latents) =
        (folder.path().join("data"), folder.path().join("run"), folder.path().join("latents"));
    std::fs::create_dir(&data).unwrap();
    let control = |flags: &[&str]| {
        let mut command = diffbir();
        command.args(["train", "control", "--autoencoder", "none", "--stage1", "none", "--steps", "1"]);
        command.arg("--latents").arg(&latents).arg("--data").arg(&data).arg("--output").arg(&output);
        command.args(flags).assert().code(2)
    };
    control(&["--unet", "no-unet.pth"]).stderr(contains("no-unet.pth"));
    control(&["--unet", "no-unet.pth", "--init", "no-start.pth"]).stderr(contains("no-start.pth"));
    control(&["--unet", "u", "--draws", "0"]).stderr(contains("--draws"));
    control(&["--unet", "u", "--checkpoint-every", "0"]).stderr(contains("--checkpoint-every"));
    assert!(!latents.exists() && !output.exists());
}

#[test]
fn a_loss_that_is_no_number_is_no_fault_of_the_command() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    let mut command = diffbir();
    command.args(["train", "stage1", "--steps", "4", "--batch", "1", "--rate", "1e30", "--data"]).arg(data);
    command.arg("--output").arg(folder.path().join("run"));
    command.assert().code(1).stderr(contains("the loss became"));
}
