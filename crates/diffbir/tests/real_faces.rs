//! Faces of real pictures against facexlib's and OpenCV's, with the same weights. `DIFFBIR_DATA` names a folder with
//! `weights/retinaface_mobilenet0.25_Final.pth`, `weights/yunet_n_dynamic.onnx` and `real/`, whose pictures
//! `goldens/real_faces.py` was given:
//!
//!     DIFFBIR_DATA=FOLDER cargo test --release --workspace --test real_faces -- --ignored

use burn::tensor::Device;
use diffbir::faces::{Detector, Face, Manner};
use diffbir_imaging::decode;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn data(path: &str) -> PathBuf {
    let folder =
        std::env::var_os("DIFFBIR_DATA").expect("DIFFBIR_DATA names the folder with weights/ and real/");
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder).join(path)
}

/// Box, score and landmarks, as facexlib gives them.
type Row = [f32; 15];

/// What this detector finds in the pictures of which others' faces are known, beside those.
fn agrees(weights: &str, known: &str, sure: f32) {
    let known: BTreeMap<String, Vec<Row>> = serde_json::from_str(known).unwrap();
    let detector = Detector::open(&data(weights), &Device::flex()).unwrap();
    let (mut pictures, mut faces, mut furthest) = (0, 0, 0f32);
    for (name, known) in &known {
        let photo = decode(&data("real").join(name)).unwrap();
        let found = detector.find_at_size(&photo.to_raster(), Manner::Own).unwrap();
        let rows: Vec<Row> = found
            .iter()
            .map(|face| {
                let all =
                    face.bounds.into_iter().chain([face.score]).chain(face.landmarks.into_iter().flatten());
                all.collect::<Vec<_>>().try_into().unwrap()
            })
            .collect();
        // A face that is hardly surer than the limit of .8 is found by one and not by the other.
        let is_sure = |row: &Row| row[4] > sure;
        for (ours, theirs) in [(&rows, known), (known, &rows)] {
            for row in ours.iter().filter(|row| is_sure(row)) {
                let off = |other: &Row| {
                    let each = row.iter().zip(other).enumerate().filter(|(column, _)| *column != 4);
                    each.map(|(_, (a, b))| (a - b).abs()).fold(0.0, f32::max)
                };
                let nearest = theirs.iter().map(off).fold(f32::INFINITY, f32::min);
                assert!(nearest < 1.0, "{name}: {row:?} is {nearest} px away from {theirs:?}");
                furthest = furthest.max(nearest);
            }
        }
        pictures += 1;
        faces += known.len();
    }
    println!("{weights}: {faces} faces in {pictures} pictures, at most {furthest} px apart");
    assert!(pictures > 100 && faces > 50);
}

#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn boxes_and_landmarks_are_facexlibs_within_a_pixel() {
    agrees("weights/retinaface_mobilenet0.25_Final.pth", include_str!("goldens/real_faces.json"), 0.801);
}

#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn yunets_boxes_and_landmarks_are_opencvs_within_a_pixel() {
    agrees("weights/yunet_n_dynamic.onnx", include_str!("goldens/real_faces_yunet.json"), 0.81);
}

/// YuNet is another network, trained on the same pictures: it finds the same faces, roughly.
#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn yunet_finds_the_faces_that_retinaface_is_sure_of() {
    let known = include_str!("goldens/real_faces.json");
    let known: BTreeMap<String, Vec<Row>> = serde_json::from_str(known).unwrap();
    let detector = Detector::open(&data("weights/yunet_n_dynamic.onnx"), &Device::flex()).unwrap();
    let (mut sure, mut found) = (0, 0);
    for (name, known) in known.iter().filter(|(_, known)| !known.is_empty()) {
        let photo = decode(&data("real").join(name)).unwrap();
        let faces = detector.find(&photo.to_raster(), Manner::Own).unwrap();
        for row in known.iter().filter(|row| row[4] > 0.99) {
            // Landmarks within a sixth of the width of the box.
            let near = |face: &Face| {
                let points = face.landmarks.into_iter().flatten().zip(&row[5..]);
                points.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < (row[2] - row[0]) / 6.0
            };
            sure += 1;
            found += usize::from(faces.iter().any(near));
        }
    }
    println!("{found} of {sure} faces");
    assert!(sure > 40 && found * 10 >= sure * 9, "{found} of {sure}");
}
