//! GFPGAN's own program for photographs (goldens made by `goldens/gfpganer.py`) against `--face-engine` with the same landmarks:
//! what it cuts and restores, and where it lays faces back. What differs on purpose is told in `docs/engines.md`.

#[path = "../../models/tests/parity/support.rs"]
mod support;

use burn::tensor::Device;
use diffbir::faces::{Face, Manner, Parser, Scene};
use diffbir::geometry::Geometry;
use diffbir::model::{Loading, Parts};
use diffbir::{Model, ModelConfig, Options, Progress};
use diffbir_imaging::opencv::{self, Kernel};
use diffbir_imaging::{Raster, Similarity};
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::parsenet::ParseNetConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_nn::params::Precision;
use std::ops::ControlFlow;
use support::{Golden, filler, weights};

const SIZE: (usize, usize) = (520, 440);
const UPSCALE: usize = 2;

/// Of an aligned face the part whose pixels are all face, as far as its square is concerned, in pixels.
const INNER: std::ops::Range<f64> = 64.0..448.0;

fn small_gfpgan() -> Model {
    let stage1 = Stage1Config::Gfpgan(GfpganConfig { features: 32, style: 32, ..GfpganConfig::official() });
    let parts = Parts { stage1: weights(0, |params| stage1.build(params)), ..Parts::default() };
    let config =
        ModelConfig { name: "gfpgan".into(), origin: vec![], stage1, stage2: None, geometry: Geometry::Free };
    Model::assemble(config, parts, Loading::on(&Device::flex())).unwrap()
}

/// The differences of 8-bit values of the sample of a golden, with the place of each in the picture.
fn differences<'a>(
    golden: &'a Golden,
    name: &str,
    got: &'a [u8],
    width: usize,
) -> impl Iterator<Item = ((f64, f64), f32)> + 'a {
    let known = golden.values(&format!("{name}.sample"));
    let stride: usize = golden.fact(&format!("stride.{name}")).parse().unwrap();
    assert_eq!(golden.shape(name).iter().product::<usize>(), got.len());
    let off = got.iter().step_by(stride).zip(known).map(|(&got, known)| (f32::from(got) - known).abs());
    off.enumerate().map(move |(index, off)| {
        let pixel = index * stride / 3;
        (((pixel % width) as f64, (pixel / width) as f64), off)
    })
}

/// How many, their mean, and the largest.
fn summary(off: impl Iterator<Item = f32>) -> (usize, f32, f32) {
    let (count, sum, most) =
        off.fold((0, 0.0, 0f32), |(count, sum, most), off| (count + 1, sum + off, most.max(off)));
    (count, sum / count as f32, most)
}

#[test]
fn gfpgan_restores_faces_of_a_photograph_as_its_own_program_does() {
    let path = format!("{}/tests/goldens/gfpganer.safetensors", env!("CARGO_MANIFEST_DIR"));
    let golden = Golden::read(&path);
    let faces: Vec<Face> = golden
        .values("faces")
        .chunks_exact(10)
        .map(|points| Face {
            bounds: [0.0; 4],
            score: 1.0,
            landmarks: std::array::from_fn(|point| [points[2 * point], points[2 * point + 1]]),
        })
        .collect();
    let bytes: Vec<u8> = filler(0, "in/gfpganer", SIZE.0 * SIZE.1 * 3)
        .into_iter()
        .map(|u| ((u + 1.0) * 128.0).floor() as u8)
        .collect();
    let result = (SIZE.0 * UPSCALE, SIZE.1 * UPSCALE);
    let scene = Scene::new(Raster::from_u8(SIZE.0, SIZE.1, 3, &bytes), faces, result, Manner::Own);
    let model = small_gfpgan();
    let options = Options { upscale: 1.0, ..Options::of(&model) };
    let mut watch = |_: Progress| ControlFlow::Continue(());
    let mut restored = Vec::new();
    for index in 0..scene.count() {
        let (cut, _) = scene.cut(index, &model.config);
        let face = model.prepare(&cut, &options, false, &mut watch).unwrap().clean();
        // The second reaches out of the picture: there GFPGAN's is grey, and the network looks far.
        if index == 0 {
            let (of_cut, of_face) = (cut.to_raster().to_u8_rounding(), face.to_u8_rounding());
            let (_, mean, most) = summary(differences(&golden, "cut_0", &of_cut, 512).map(|(_, off)| off));
            println!("cut: {mean} on average, {most} at most");
            assert!(most <= 2.0, "{most}");
            let (_, mean, most) =
                summary(differences(&golden, "restored_0", &of_face, 512).map(|(_, off)| off));
            println!("restored: {mean} on average, {most} at most");
            assert!(most <= 2.0, "{most}");
        }
        restored.push(face);
    }

    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("parsenet.safetensors");
    let parsenet = weights(0, |params| ParseNetConfig::official().build(params));
    std::fs::write(&file, parsenet.to_safetensors(false).unwrap()).unwrap();
    let parser = Parser::open(&file, Precision::F32, &Device::flex()).unwrap();
    // As it enlarges what nothing else restores.
    let background = opencv::resize(&bytes, SIZE, 3, result, None, Kernel::Lanczos);
    let background = Raster::from_u8(result.0, result.1, 3, &background);
    let pasted =
        scene.paste(background, &restored.iter().collect::<Vec<_>>(), Some(&parser), &mut watch).unwrap();
    let pasted = pasted.to_u8_truncating();

    // From the result to the aligned face.
    let points = scene.faces().next().unwrap().landmarks.map(|[x, y]| (f64::from(x), f64::from(y)));
    let to_face =
        Similarity::resizing(1.0 / UPSCALE as f64).then(Similarity::robust(&points, &TEMPLATE).unwrap());
    let inside = |place: (f64, f64)| {
        let (x, y) = to_face.apply(place);
        INNER.contains(&x) && INNER.contains(&y)
    };
    let inner = |name: &str| {
        let inner = differences(&golden, name, &pasted, result.0).filter(|(place, _)| inside(*place));
        let (count, mean, most) = summary(inner.map(|(_, off)| off));
        println!("{name}: {count} values within the face, {mean} on average, {most} at most");
        (count, mean, most)
    };
    let (count, _, most) = inner("placed");
    assert!(count > 1000 && most <= 2.0, "{count}: {most}");
    // GFPGAN's own lays them half a pixel further down and right, which on noise is another picture.
    assert!(inner("whole").1 > 1.0);
}

const TEMPLATE: [(f64, f64); 5] = [
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
];
