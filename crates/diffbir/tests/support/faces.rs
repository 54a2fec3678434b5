//! What finds faces in the goldens `unaligned_*` (`goldens/unaligned.py`), and what tells their parts apart.

use super::support::{filler, weights};
use burn::tensor::TensorData;
use diffbir_models::parsenet::ParseNetConfig;
use diffbir_models::retinaface::RetinaFaceConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;
use std::path::{Path, PathBuf};

/// Points of an aligned face turned by 20 degrees, in tenths of its side from its middle.
const TEMPLATE: [f32; 10] = [-1.05, -0.71, 1.26, 0.13, -0.38, 1.07, -1.77, 1.75, 0.28, 2.5];

/// Of a logit, for each level of brightness.
const SLOPE: f32 = 0.05;

/// RetinaFace mobile0.25 that lets the middle of the first channel through every convolution: what is brighter than
/// `least` is a face, whose points that moves a little.
fn one_channel(least: f32) -> Checkpoint {
    let keys = keys_of(|params| RetinaFaceConfig::mobile().build(params)).unwrap();
    let tensors = keys.parameters().map(|(_, name, shape)| {
        let count = shape.iter().product();
        let mut values = vec![0f32; count];
        match name {
            // 104 is taken from what comes in; a score of .8 is a difference of ln 4.
            "ClassHead.2.conv1x1.bias" => {
                let bias = 4f64.ln() - f64::from(SLOPE) * f64::from(least - 104.0);
                values = vec![0.0, bias as f32, 9.0, 0.0];
            }
            "ClassHead.2.conv1x1.weight" => values[count / 4] = SLOPE,
            "LandmarkHead.2.conv1x1.bias" => values[..10].copy_from_slice(&TEMPLATE),
            "LandmarkHead.2.conv1x1.weight" => {
                let moved = filler(0, "points", 10);
                values.chunks_exact_mut(count / 20).zip(moved).for_each(|(row, u)| row[0] = u * 0.01);
            }
            name if name.starts_with("ClassHead") && name.ends_with("bias") => {
                values = vec![9.0, 0.0, 9.0, 0.0];
            }
            name if name.ends_with("running_var") => values.fill(1.0),
            name if shape.len() == 4 && !name.contains("Head") => values[shape[2] * shape[3] / 2] = 1.0,
            name if shape.len() == 1 && name.ends_with("weight") => values.fill(1.0),
            _ => {}
        }
        (name.to_string(), TensorData::new(values, shape.to_vec()))
    });
    Checkpoint::from_tensors(tensors.collect())
}

/// Files of the detector and of ParseNet, of official size, with weights by the formula.
pub fn files(folder: &Path, least: f32) -> (PathBuf, PathBuf) {
    let write = |name: &str, file: Checkpoint| {
        let path = folder.join(name);
        std::fs::write(&path, file.to_safetensors(false).unwrap()).unwrap();
        path
    };
    (
        write("one_channel.safetensors", one_channel(least)),
        write("parsing_parsenet.pth", weights(0, |params| ParseNetConfig::official().build(params))),
    )
}

/// Which share of the values of a picture may be off by one level: where one of what was cut is, it goes through all
/// networks, and ParseNet, with these weights, tells other parts of what they give.
pub fn share_off(picture: &str) -> f64 {
    if picture.contains("cropped") || picture.contains("background") {
        0.001
    } else if picture.contains("restored_faces") {
        0.01
    } else {
        0.02
    }
}
