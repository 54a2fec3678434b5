//! `diffbir models` without any network.

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use std::path::Path;
use tempfile::TempDir;

fn models(folder: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("diffbir").expect("the binary is built");
    command.env("DIFFBIR_MODELS", folder.join("models")).env("HF_HUB_CACHE", folder.join("hub"));
    command.arg("models").args(arguments).assert()
}

#[test]
fn files_are_listed_found_and_imported() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    models(here, &["list"])
        .success()
        .stdout(contains("nano  built in").and(contains("v2.1  0 of 4 files here")));
    models(here, &["list"]).success().stdout(contains("lpips-vgg  0 of 2 files here: LPIPS with VGG-16"));
    models(here, &["path", "niqe"]).code(2).stderr(contains("models pull niqe_pris_params.npz"));
    models(here, &["path"]).success().stdout(contains("models"));
    models(here, &["path", "BSRNet.pth"]).code(2).stderr(contains("models pull BSRNet.pth"));
    models(here, &["pull", "v3"]).code(2).stderr(contains("v2.1, v2, v1"));
    models(here, &["verify"]).success().stderr(contains("none of these files is here"));

    // A file whose hash nobody published is taken at its word if it holds weights.
    let own = here.join("mine.pth");
    std::fs::write(&own, b"weights").unwrap();
    let file = own.clone();
    let own = own.to_str().unwrap();
    models(here, &["import", own]).code(2).stderr(contains("--name"));
    models(here, &["import", own, "--name", "BSRNet.pth"]).code(2).stderr(contains("mine.pth"));
    assert!(!here.join("models").exists());
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    std::fs::write(&file, &weights).unwrap();
    models(here, &["import", own, "--name", "BSRNet.pth"]).success();
    assert_eq!(std::fs::read(here.join("models/BSRNet.pth")).unwrap(), weights);
    models(here, &["list"]).success().stdout(contains("v2  1 of 5 files here"));
    models(here, &["verify"]).success().stdout(contains("BSRNet.pth: here, its hash is not published"));

    // One with a known hash is not.
    let refused = contains("is not the file it should be").and(contains("49477de7"));
    models(here, &["import", own, "--name", "DiffBIR_v2.1.pt"]).code(2).stderr(refused);
    assert!(!here.join("models/DiffBIR_v2.1.pt").exists());
    std::fs::write(here.join("models/DiffBIR_v2.1.pt"), b"weights").unwrap();
    models(here, &["verify", "v2.1"]).code(1).stdout(contains("DiffBIR_v2.1.pt: WRONG"));

    // What lies in the hub's cache is used there.
    let snapshot = here.join("hub/models--lxq007--DiffBIR-v2/snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("v2.pth"), b"weights").unwrap();
    models(here, &["path", "v2.pth"]).success().stdout(contains("snapshots"));
}
