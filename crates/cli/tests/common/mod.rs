//! What the tests of the command line share.
#![allow(dead_code, reason = "no test file needs all of it")]

pub mod server;

use assert_cmd::Command;
use burn::tensor::TensorData;
use diffbir_models::retinaface::RetinaFaceConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;
use diffbir_nn::{Params, WeightError};
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

/// A file of a network's tensors, all zeros.
pub fn zeros_of<N>(network: impl FnOnce(&Params) -> Result<N, WeightError>) -> Vec<u8> {
    let keys = keys_of(network).unwrap();
    let tensors = keys.entries().iter().filter(|entry| entry.is_read()).map(|entry| {
        let zeros = TensorData::new(vec![0f32; entry.shape.iter().product()], entry.shape.clone());
        (entry.key.clone(), zeros)
    });
    Checkpoint::from_tensors(tensors.collect()).to_safetensors(true).unwrap()
}

/// A network that, whatever it is shown, sees a face in every square of 256 pixels, or none at all.
pub fn detector(folder: &Path, sees: bool) -> PathBuf {
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
