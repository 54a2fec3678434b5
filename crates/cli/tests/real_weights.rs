//! Real small weights and pictures, which are not part of the project. `DIFFBIR_DATA` names a folder with
//! `weights/` (Real-ESRGAN x4plus, general-x4v3 and animevideov3, TAEF2, LPIPS, NIQE's statistics, RetinaFace,
//! YuNet), `real/real47/` and `real/diffbir_demo_bfr_whole/`, DiffBIR's own examples:
//!
//!     DIFFBIR_DATA=FOLDER cargo test --release --workspace --test real_weights -- --ignored

mod common;

use common::diffbir;
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use predicates::str::contains;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn data(path: &str) -> PathBuf {
    let folder =
        std::env::var_os("DIFFBIR_DATA").expect("DIFFBIR_DATA names the folder with weights/ and real/");
    // Tests run in their crate's folder, people call them from the workspace's.
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder).join(path);
    assert!(place.exists(), "{}: is missing", place.display());
    place
}

fn read(path: &Path) -> Raster {
    diffbir_imaging::decode(path).unwrap().to_raster()
}

#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn info_describes_them() {
    for (file, words) in [
        ("rrdbnet_realesrgan_x4plus_fp16.safetensors", "`rrdbnet`, stage 1 only, 702 tensors, 16.70 M"),
        ("srvgg_realesr_general_x4v3_fp16.safetensors", "as Real-ESRGAN general-x4v3"),
        // Written on a GPU, its members deflated, its tensors under `params`.
        ("realesr-animevideov3.pth", "as Real-ESRGAN animevideov3"),
        // In PyTorch's old format.
        ("retinaface_mobilenet0.25_Final.pth", "RetinaFace"),
        ("lpips_alex_fp16.safetensors", "LPIPS"),
        ("taef2_encoder.pth", "encoder of TAEF2"),
        ("taef2_decoder.pth", "decoder of TAEF2"),
        ("niqe_pris_params.npz", "NIQE's statistics"),
        ("yunet_n_dynamic.onnx", "YuNet, which finds faces"),
    ] {
        let file = data("weights").join(file);
        diffbir().arg("info").arg(&file).assert().success().stdout(contains(words));
    }
}

/// What these networks make of a degraded picture, reduced again, is near to it: 32 dB was measured with PyTorch on a
/// crop for x4plus.
#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn they_enlarge_dif_birs_own_examples() {
    let folder = TempDir::new().unwrap();
    for (weights, least_db) in [
        ("rrdbnet_realesrgan_x4plus_fp16.safetensors", 27.0),
        ("srvgg_realesr_general_x4v3_fp16.safetensors", 27.0),
        ("realesr-animevideov3.pth", 26.0),
    ] {
        for input in ["48.jpg", "22.jpg", "47.jpg"] {
            let input = data("real/real47").join(input);
            let output = folder.path().join(format!("{weights}.png"));
            let mut command = diffbir();
            command.args(["restore", "--device", "cpu", "--existing", "overwrite"]);
            command.arg("--model").arg(data("weights").join(weights)).arg(&input).arg("-o").arg(&output);
            command.assert().success();
            let (small, large) = (read(&input), read(&output));
            assert_eq!((large.width_px, large.height_px), (4 * small.width_px, 4 * small.height_px));
            let reduced = resize::float(&large, small.width_px, small.height_px, Filter::Box);
            let squares = reduced.data.iter().zip(&small.data).map(|(a, b)| f64::from(a - b).powi(2));
            let db = -10.0 * (squares.sum::<f64>() / small.data.len() as f64).log10();
            println!("{weights}, {}: {db:.1} dB", input.display());
            assert!(db > least_db, "{weights}: {db:.1} dB");
        }
    }
}

/// Photographs with one to four faces, by both detectors.
#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn faces_of_dif_birs_own_examples_are_restored() {
    let folder = TempDir::new().unwrap();
    for detector in ["retinaface_mobilenet0.25_Final.pth", "yunet_n_dynamic.onnx"] {
        for (input, faces) in [("01.jpg", 3), ("02.png", 2), ("Audrey_Hepburn.jpg", 1), ("Queen.jpeg", 4)] {
            let output = folder.path().join("out.png");
            let mut command = diffbir();
            command.args([
                "restore",
                "--device",
                "cpu",
                "--existing",
                "overwrite",
                "--upscale",
                "1",
                "--stage1-only",
            ]);
            command
                .args(["--task", "face-background", "--face-detector"])
                .arg(data("weights").join(detector));
            command.arg(data("real/diffbir_demo_bfr_whole").join(input)).arg("-o").arg(&output);
            command.assert().success().stderr(contains(format!("face {faces} of {faces}")));
        }
    }
}

#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn a_network_that_is_no_stage_1_is_refused_by_name() {
    let input = data("real/real47").join("48.jpg");
    let weights = data("weights").join("lpips_alex_fp16.safetensors");
    let mut command = diffbir();
    command.args(["restore", "--device", "cpu", "--model"]).arg(weights).arg(input);
    command.assert().code(2).stderr(contains("lpips_alex_fp16.safetensors: is no model"));
}
