//! What the tests of the command line share.
#![allow(dead_code, reason = "no test file needs all of it")]

use assert_cmd::Command;
use image::{Rgb, RgbImage};
use std::path::{Path, PathBuf};

pub fn diffbir() -> Command {
    let mut command = Command::cargo_bin("diffbir").expect("the binary is built");
    // What the person has pulled is no part of a test.
    command.env("DIFFBIR_MODELS", "no/models/here").env("HF_HUB_CACHE", "no/hub/here");
    command
}

/// A few pixels are enough, and the first stage alone is quick.
pub fn restore(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> assert_cmd::assert::Assert {
    let mut command = diffbir();
    command.args(["restore", "--stage1-only", "--device", "cpu"]);
    for argument in arguments {
        command.arg(argument);
    }
    command.assert()
}

pub fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 9) as u8, (y * 7) as u8, ((x + y) * 5) as u8]))
}

pub fn save(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture(16, 12).save(&path).unwrap();
    path
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
