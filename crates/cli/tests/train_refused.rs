//! What `diffbir train` does not begin, and what a model cannot be made of.

mod common;

use common::{diffbir, picture, save};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with one picture, and where a run is to go.
fn folders(folder: &TempDir) -> (PathBuf, PathBuf) {
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    (data, output)
}

/// One step.
fn train(trainer: &[&str], data: &Path, output: &Path) -> assert_cmd::assert::Assert {
    let mut command = diffbir();
    command.arg("train").args(trainer).args(["--batch", "1", "--steps", "1", "--data"]).arg(data);
    command.arg("-o").arg(output).assert()
}

/// Sizes of networks that cannot be: each is told by its field, before there is a folder.
#[test]
fn sizes_that_make_no_network_are_refused() {
    let folder = TempDir::new().unwrap();
    let (data, output) = folders(&folder);
    let prior = ["prior", "--autoencoder", "nano"];
    let stage2 = ["stage2", "--autoencoder", "nano", "--stage1", "nano", "--unet", "nano"];
    let stage1 = |base: &'static str| ["stage1", "--network", base];
    for (trainer, set, why) in [
        (
            &stage1("srvgg")[..],
            "network.features=0",
            "network.features: it is 0, but must be from 1 to 16384",
        ),
        (&stage1("srvgg"), "network.features=1000000000", "network.features: it is 1000000000"),
        (&stage1("srvgg"), "network.features=16384", "network.features: the network would have"),
        (&stage1("srvgg"), "network.upscale=0", "network.upscale: it is 0"),
        (&stage1("srvgg"), "network.upscale=2", "degradation.recipe: makes 32 pixels of 128"),
        (&stage1("srvgg"), "data.crop_px=1000000000", "data.crop_px: it must be a multiple of 4 and at most"),
        (
            &stage1("srvgg"),
            "degradation.pool=1000000000",
            "degradation.pool: it must be a multiple of run.batch and",
        ),
        (&stage1("swinir"), "network.embed=100", "network.embed: it is 100, but must be a multiple of 6"),
        (&stage1("swinir"), "network.heads=[5,5,5,5]", "a multiple of 5, the heads of a group"),
        (&stage1("swinir"), "network.heads=[6]", "network.heads: it has 1 values, but must have 4"),
        (&stage1("swinir"), "network.depths=[2,2]", "as many as depths"),
        (&stage1("swinir"), "network.window=0", "network.window: it is 0"),
        (&stage1("rrdb"), "network.features=0", "network.features: it is 0"),
        (&stage1("rrdb"), "network.upscale=3", "network.upscale: it is 3, but must be a power of two"),
        (&stage1("scunet"), "network.head_features=0", "network.head_features: it is 0"),
        (&stage1("scunet"), "network.head_features=33", "a multiple of 66, twice head_features"),
        (&["autoencoder"], "network.channels=10", "network.channels: it is 10"),
        (&["autoencoder"], "network.norm_groups=0", "network.norm_groups: it is 0"),
        (&["autoencoder"], "network.latent_channels=0", "network.latent_channels: it is 0"),
        (&["autoencoder"], "network.multipliers=[]", "network.multipliers: it has 0 values"),
        (&prior, "network.norm_groups=7", "a multiple of 7, norm_groups"),
        (&prior, "network.head_channels=48", "network.head_channels: it is 48, but must divide"),
        (&prior, "network.blocks=0", "network.blocks: it is 0"),
        (&prior, "network.model_channels=33", "network.model_channels: it is 33"),
        (&prior, "autoencoder.network.features=0", "autoencoder.network.features: it is 0"),
        (&stage2, "stage1.network.convolutions=1000000", "stage1.network.convolutions: it is 1000000"),
        (&stage2, "text.network.heads=0", "text.network.heads: it is 0"),
    ] {
        let told = train(&[trainer, &["--set", set]].concat(), &data, &output).code(2);
        told.stderr(contains(why).and(contains("panicked").not()));
        assert!(!output.exists(), "{set}");
    }
}

/// Of a run's configuration, and of a model's description.
#[test]
fn files_with_sizes_that_make_no_network_are_refused() {
    let folder = TempDir::new().unwrap();
    let (data, output) = folders(&folder);
    train(&["stage1"], &data, &output).success();
    let pack = |file: &Path| {
        let mut command = diffbir();
        command.args(["models", "pack"]).arg(&output).arg("-o").arg(file).assert()
    };
    let file = folder.path().join("own.safetensors");
    pack(&file).success();
    let mut bytes = std::fs::read(&file).unwrap();
    let text = br#"\"features\":64"#;
    let place = bytes.windows(text.len()).position(|part| part == text).unwrap();
    bytes[place + text.len() - 2..place + text.len()].copy_from_slice(b" 0");
    std::fs::write(&file, bytes).unwrap();
    let config = output.join("config.toml");
    let changed = std::fs::read_to_string(&config).unwrap().replace("features = 64", "features = 0");
    std::fs::write(&config, changed).unwrap();
    let input = save(folder.path(), "a.png");
    let restore = |model: &Path| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--model"]).arg(model).arg(&input).assert().code(2)
    };
    restore(&file)
        .stderr(contains("own.safetensors: its description makes no networks: stage1.features: it is 0"));
    let mut command = diffbir();
    command
        .arg("info")
        .arg(&file)
        .assert()
        .success()
        .stdout(contains("no model: ").and(contains("features: it is 0")));
    restore(&output).stderr(contains("config.toml: network.features: it is 0"));
    let other = folder.path().join("other.safetensors");
    pack(&other).code(2).stderr(contains("config.toml: network.features: it is 0"));
    let mut command = diffbir();
    command.env("DIFFBIR_MODELS", folder.path().join("models")).args(["models", "import"]).arg(&file);
    command.assert().code(2).stderr(contains("stage1.features: it is 0"));
}

#[test]
fn what_a_run_cannot_begin_with_is_named_and_leaves_no_folder() {
    let folder = TempDir::new().unwrap();
    let ((data, output), other) = (folders(&folder), folder.path().join("other"));
    let begin = |trainer: &[&str]| train(trainer, &data, &output).code(2);
    begin(&["stage1", "--network", "swinir", "--init", "nano"])
        .stderr(contains("is this file for another network?"));
    assert!(!output.exists());
    begin(&["stage1", "--device", "cuda:99", "--set", "run.precision=bf16"])
        .stderr(contains("which only the CPU trains in: give --device cpu"));
    assert!(!output.exists());
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "a file").unwrap();
    let latents = ["prior", "--autoencoder", "nano", "--latents", taken.to_str().unwrap()];
    train(&latents, &data, &output).code(1).stderr(contains("taken"));
    assert!(!output.exists());
    train(&["stage1"], &data, &other).success();
    let unet = other.to_str().unwrap();
    begin(&["stage2", "--autoencoder", "nano", "--stage1", "nano", "--unet", unet])
        .stderr(contains("other: is a folder without unet.safetensors or stage2.safetensors"));
    assert!(!output.exists());
    // Nothing to do is said.
    train(&["stage1"], &data, &other)
        .success()
        .stderr(contains("warning: run.steps: it is 1, and 1 are done"));
}
