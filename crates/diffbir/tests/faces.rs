//! Faces cut from and laid back into a picture against the reference's and OpenCV's (goldens made by `goldens/faces.py`).

#[path = "../../models/tests/parity/support.rs"]
mod support;

use burn::tensor::Device;
use diffbir::catalog::{self, Task};
use diffbir::faces::{Face, Manner, Parser, Scene};
use diffbir::{ModelConfig, Progress, Stage};
use diffbir_imaging::similarity::Point;
use diffbir_imaging::{Raster, Similarity};
use diffbir_models::parsenet::ParseNetConfig;
use diffbir_nn::params::Precision;
use std::ops::ControlFlow;
use support::{Golden, filler, weights};

fn golden() -> Golden {
    Golden::read(&format!("{}/tests/goldens/faces.safetensors", env!("CARGO_MANIFEST_DIR")))
}

fn noise(key: &str, (width, height): (usize, usize)) -> Raster {
    let values = filler(0, &format!("in/{key}"), width * height * 3);
    let values: Vec<u8> = values.into_iter().map(|u| ((u + 1.0) * 128.0).floor() as u8).collect();
    Raster::from_u8(width, height, 3, &values)
}

/// The largest difference of 8-bit values, and how many differ.
fn levels(golden: &Golden, name: &str, got: &[u8]) -> (f32, usize) {
    let known = golden.values(&format!("{name}.sample"));
    let stride: usize = golden.fact(&format!("stride.{name}")).parse().unwrap();
    assert_eq!(golden.shape(name).iter().product::<usize>(), got.len());
    let off = got.iter().step_by(stride).zip(known).map(|(&got, known)| (f32::from(got) - known).abs());
    off.fold((0.0, 0), |(most, count), off| (off.max(most), count + usize::from(off > 0.0)))
}

const TEMPLATE: [Point; 5] = [
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
];

#[test]
fn landmarks_are_aligned_as_opencv_does() {
    let golden = golden();
    let (landmarks, maps) = (golden.values("landmarks"), golden.values("maps"));
    let mut furthest = 0f64;
    for (points, map) in landmarks.chunks_exact(10).zip(maps.chunks_exact(6)) {
        let points: Vec<Point> = points.chunks_exact(2).map(|p| (f64::from(p[0]), f64::from(p[1]))).collect();
        let Similarity { a, b, x0, y0 } = Similarity::robust(&points, &TEMPLATE).unwrap();
        let largest = map.iter().fold(0.0, |most, value| f64::from(value.abs()).max(most));
        let off = [a, -b, x0, b, a, y0]
            .into_iter()
            .zip(map)
            .map(|(ours, theirs)| (ours - f64::from(*theirs)).abs());
        furthest = off.fold(furthest, |most, off| most.max(off / largest));
    }
    println!("{} maps, {furthest:.1e} of the largest number in each", maps.len() / 6);
    // OpenCV refines in steps and stops a little before the least squares.
    assert!(furthest < 5e-6, "{furthest:e}");
}

#[test]
fn faces_are_cut_and_laid_back_as_the_reference_does() {
    let golden = golden();
    let size = (640, 560);
    let faces: Vec<Face> = golden
        .values("faces")
        .chunks_exact(10)
        .map(|points| Face {
            bounds: [0.0; 4],
            score: 1.0,
            landmarks: std::array::from_fn(|point| [points[2 * point], points[2 * point + 1]]),
        })
        .collect();
    let scene = Scene::new(noise("scene", size), faces, size, Manner::Reference);
    let config: ModelConfig = catalog::set("v2.1").unwrap().config(Task::Face);
    for index in 0..scene.count() {
        let (cut, upscale) = scene.cut(index, &config);
        assert_eq!(upscale, 1.0);
        let (most, count) = levels(&golden, &format!("cut_{index}"), &cut.to_raster().to_u8_rounding());
        println!("cut {index}: {count} differ, by {most} at most");
        assert!(most <= 2.0, "{index}: {most}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("parsenet.safetensors");
    let parsenet = weights(0, |params| ParseNetConfig::official().build(params));
    std::fs::write(&file, parsenet.to_safetensors(false).unwrap()).unwrap();
    let parser = Parser::open(&file, Precision::F32, &Device::flex()).unwrap();
    let restored: Vec<Raster> =
        (0..scene.count()).map(|n| noise(&format!("restored_{n}"), (512, 512))).collect();
    let restored: Vec<&Raster> = restored.iter().collect();
    for (name, parser) in [("parsed", Some(&parser)), ("feathered", None)] {
        let mut told = Vec::new();
        let mut watch = |progress: Progress| {
            told.push((progress.stage, progress.done));
            ControlFlow::Continue(())
        };
        let result = scene.paste(noise("background", size), &restored, parser, &mut watch).unwrap();
        assert_eq!(told.last(), Some(&(Stage::Paste, restored.len())));
        let (most, count) = levels(&golden, name, &result.to_u8_truncating());
        println!("{name}: {count} differ, by {most} at most");
        assert!(most <= 2.0, "{name}: {most}");
    }
}
