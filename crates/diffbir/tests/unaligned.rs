//! Faces that are found, restored and laid back, in whole runs of v2 and v1 against the reference's own, with reduced
//! networks (goldens and what they are: `goldens/README.md`). The run of v2.1 goes through the binary: `reference_pictures`.

#[path = "support/faces.rs"]
mod faces;
#[path = "support/pipelines.rs"]
mod pipelines;
#[path = "../../models/tests/parity/support.rs"]
mod support;

use diffbir::catalog::{self, Task};
use diffbir::faces::{Detector, Finder, Manner, Parser, Rules, Scene, Which};
use diffbir::geometry::Geometry;
use diffbir::model::{Loading, Parts};
use diffbir::tiling::Tiling;
use diffbir::{Model, ModelConfig, Options, Progress};
use diffbir_diffusion::noise::{Source, TorchNoise};
use diffbir_imaging::Raster;
use diffbir_models::rrdb::{RrdbConfig, RrdbNames};
use diffbir_models::stage1::Stage1Config;
use diffbir_nn::{Device, Precision};
use pipelines::{Command, model, photo, planes, reduced};
use std::ops::ControlFlow;
use support::{Golden, weights};

/// An 8-bit picture of the reference's, or the one here, cut off.
fn compare_picture(golden: &Golden, name: &str, picture: &Raster) {
    compare_picture_but(golden, name, picture, 1.0);
}

/// The same where `times` as many values as elsewhere may be off by one level.
fn compare_picture_but(golden: &Golden, name: &str, picture: &Raster, times: f64) {
    let bytes = picture.to_u8_truncating();
    let picture = Raster::from_u8(picture.width_px, picture.height_px, 3, &bytes);
    let levels: Vec<f32> = planes(&picture).iter().map(|value| (value * 255.0).round()).collect();
    golden.compare_levels_but(name, &levels, times * faces::share_off(name));
}

/// What finds faces in the goldens `unaligned_*`.
fn finder(golden: &Golden) -> Finder {
    let folder = tempfile::TempDir::new().expect("a folder");
    let (detector, parser) = faces::files(folder.path(), golden.fact("least").parse().expect("a number"));
    let device = Device::flex();
    Finder {
        detector: Detector::open(&detector, &device).expect("a detector"),
        parser: Some(Parser::open(&parser, Precision::F32, &device).expect("a parser")),
    }
}

fn compare_landmarks(golden: &Golden, scene: &Scene) {
    let points: Vec<f32> = scene.faces().flat_map(|face| face.landmarks).flatten().collect();
    golden.compare_within("landmarks", &[scene.count(), 5, 2], &points, 1e-6);
}

/// Two samples of each face in one batch, by another network than that of the background; the command line's way through
/// the binary: `reference_pictures`.
#[test]
fn unaligned_v2() {
    let golden = Golden::open("unaligned_v2");
    let command = Command::new(golden.fact("command"));
    let set = catalog::set("v2").expect("an official version");
    let [background, of_faces] =
        [Task::Sr, Task::Face].map(|task| model(reduced(set.config(task)), Precision::F32));
    let (finder, photo, options) = (finder(&golden), photo(150, 204), command.options());
    let rules = Rules { manner: Manner::Reference, ..Rules::default() };
    let mut watch = |_: Progress| ControlFlow::Continue(());
    let geometry = background.config.geometry;
    let scene = finder.look(&photo, geometry, options.upscale, rules, &mut watch).expect("faces");
    compare_landmarks(&golden, &scene);

    let mut noise = TorchNoise::new(Source::TorchCpu, 231);
    let samples = command.get("n_samples", 1);
    let mut restored = Vec::new();
    for index in 0..scene.count() {
        let (cut, upscale) = scene.cut(index, &of_faces.config);
        // The reference names it after the last sample.
        let name = format!("cropped_faces/photo_face_{index}_{}", samples - 1);
        compare_picture(&golden, &name, &cut.to_raster());
        let options = Options { upscale, ..options.clone() };
        let prepared = of_faces.prepare(&cut, &options, true, &mut watch).expect("a face");
        let faces = of_faces.detail(&prepared, samples, &options, &mut noise, &mut watch).expect("faces");
        for (sample, face) in faces.iter().enumerate() {
            compare_picture(&golden, &format!("restored_faces/photo_face_{index}_{sample}"), face);
        }
        restored.push(faces);
    }
    let prepared = background.prepare(&photo, &options, true, &mut watch).expect("a picture");
    let pictures = background.detail(&prepared, samples, &options, &mut noise, &mut watch).expect("pictures");
    for (sample, picture) in pictures.into_iter().enumerate() {
        compare_picture(&golden, &format!("restored_backgrounds/photo_{sample}"), &picture);
        let faces: Vec<&Raster> = restored.iter().map(|faces| &faces[sample]).collect();
        let pasted = scene.paste(picture, &faces, finder.parser.as_ref(), &mut watch).expect("a picture");
        compare_picture(&golden, &format!("photo_{sample}"), &pasted);
    }
}

/// A run of v1's `inference_face.py`, where pictures have filled edges and faces are laid back before they come to their size.
/// The faces of a picture are one batch there. Of its pictures `times` as many values as elsewhere may be off by one level: how
/// many are when faces are cut depends on how they lie, and all that follows on those.
fn run_v1(name: &str, engine: Option<&Model>, times: f64) -> Scene {
    let compare_picture = |golden: &Golden, name: &str, picture: &Raster| {
        compare_picture_but(golden, name, picture, times);
    };
    let golden = Golden::open(name);
    let command = Command::new(golden.fact("command"));
    let mut config = reduced(catalog::set("v1").expect("an official version").config(Task::Sr));
    config.geometry = Geometry::Article;
    let model = model(config, Precision::F32);
    let size = golden.fact("photo").split(';').next().and_then(|size| size.split_once('x'));
    let (height, width) = size.expect("HxW");
    let photo = photo(height.parse().expect("a number"), width.parse().expect("a number"));
    let finder = finder(&golden);
    let options = Options {
        upscale: command.get("sr_scale", 2.0),
        keep_size: false,
        tiling: Tiling::WHOLE,
        sampler: diffbir_diffusion::Sampler::Spaced,
        steps: command.get("steps", 50),
        cfg_scale: 1.0,
        prompt: String::new(),
        negative_prompt: String::new(),
        ..Options::of(&model)
    };
    let which = if command.has("only_center_face") { Which::Centre } else { Which::All };
    let rules = Rules { which, manner: Manner::Reference, ..Rules::default() };
    let mut watch = |_: Progress| ControlFlow::Continue(());
    let scene = finder.look(&photo, Geometry::Article, options.upscale, rules, &mut watch).expect("faces");
    compare_landmarks(&golden, &scene);
    let (start, mut behind) = (TorchNoise::new(Source::TorchCpu, 231), None);
    let mut restored = Vec::new();
    for index in 0..scene.count() {
        let (cut, upscale) = scene.cut(index, &model.config);
        compare_picture(&golden, &format!("cropped_faces/photo_{index:02}"), &cut.to_raster());
        let options = Options { upscale, ..options.clone() };
        let prepared = model.prepare(&cut, &options, true, &mut watch).expect("a face");
        let mut noise = start.clone().among(index, scene.count());
        let mut faces = model.detail(&prepared, 1, &options, &mut noise, &mut watch).expect("a face");
        compare_picture(&golden, &format!("restored_faces/photo_{index:02}"), &faces[0]);
        restored.append(&mut faces);
        behind = Some(noise.among(0, 1));
    }
    let by = engine.unwrap_or(&model);
    let prepared = scene.prepare(by, &photo, &options, true, &mut watch).expect("a picture");
    let mut noise = behind.expect("a face");
    let background = by.detail(&prepared, 1, &options, &mut noise, &mut watch).expect("a picture").remove(0);
    compare_picture(&golden, "background", &background);
    let faces: Vec<&Raster> = restored.iter().collect();
    let pasted = scene.paste(background, &faces, finder.parser.as_ref(), &mut watch).expect("a picture");
    compare_picture(&golden, "restored_imgs/photo", &pasted);
    scene
}

/// The face in the middle.
#[test]
fn unaligned_v1() {
    let scene = run_v1("unaligned_v1", None, 1.0);
    assert!(scene.found > scene.count());
}

/// All faces: their noise is drawn at once, the background's behind it.
#[test]
fn unaligned_v1_batch() {
    assert!(run_v1("unaligned_v1_batch", None, 3.0).count() > 1);
}

/// The background by Real-ESRGAN, in two tiles.
#[test]
fn unaligned_v1_realesrgan() {
    let stage1 = Stage1Config::Rrdb(RrdbConfig {
        features: 8,
        growth: 4,
        upscale: 2,
        names: RrdbNames::BasicSr,
        ..RrdbConfig::official()
    });
    let parts = Parts { stage1: weights(0, |params| stage1.build(params)), ..Parts::default() };
    let config = ModelConfig {
        name: "realesrgan".into(),
        origin: vec![],
        stage1,
        stage2: None,
        geometry: Geometry::Free,
    };
    let engine = Model::assemble(config, parts, Loading::on(&Device::flex())).expect("all names are right");
    run_v1("unaligned_v1_realesrgan", Some(&engine), 2.0);
}
