//! The networks for faces against facexlib's and GFPGAN's.

use crate::support::{Golden, given, keyed, picture};
use burn::tensor::Tensor;
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::parsenet::ParseNetConfig;
use diffbir_models::retinaface::{Predictions, RetinaFaceConfig};
use diffbir_nn::params::keys_of;

#[test]
fn retinaface_is_facexlibs() {
    for (name, config) in [
        ("retinaface_mobile", RetinaFaceConfig::mobile()),
        ("retinaface_resnet50", RetinaFaceConfig::resnet50()),
    ] {
        let golden = Golden::open(name);
        golden.check_keys(name, &keys_of(|params| config.build(params)).unwrap());
        let (network, keys) = keyed(0, |params| config.build(params));
        for (height, width) in [(64, 96), (60, 100)] {
            let shape = [1, 3, height, width];
            let x = given(&format!("retinaface_{height}x{width}"), shape, |u| picture(u) * 255.0 - 114.0);
            let layers = format!("layers@{height}x{width}");
            let levels = golden.check_layers(&layers, &keys, || network.forward(x));
            // Levels one behind the other, and the squares of a cell.
            let check = |what: &str, values: usize, of: fn(&Predictions) -> &Tensor<4>| {
                let rows: Vec<f32> = levels
                    .iter()
                    .flat_map(|level| of(level).to_data().iter::<f32>().collect::<Vec<_>>())
                    .collect();
                let shape = [1, rows.len() / values, values];
                golden.compare(&format!("{what}@{height}x{width}"), &shape, &rows);
            };
            check("faces", 2, |level| &level.faces);
            check("boxes", 4, |level| &level.boxes);
            check("landmarks", 10, |level| &level.landmarks);
        }
    }
}

#[test]
fn parsenet_is_facexlibs() {
    let golden = Golden::open("parsenet");
    golden.check_keys("parsenet", &keys_of(|params| ParseNetConfig::official().build(params)).unwrap());
    let config = ParseNetConfig { features: 16, most: 64, ..ParseNetConfig::official() };
    let (network, keys) = keyed(0, |params| config.build(params));
    for (height, width) in [(64, 64), (48, 80)] {
        let x =
            given(&format!("parsenet_{height}x{width}"), [1, 3, height, width], |u| picture(u) * 2.0 - 1.0);
        let parts = golden.check_layers(&format!("layers@{height}x{width}"), &keys, || network.forward(x));
        golden.check(&format!("parts@{height}x{width}"), parts);
    }
}

#[test]
fn gfpgan_is_its_authors() {
    let golden = Golden::open("gfpgan");
    golden.check_keys("gfpgan", &keys_of(|params| GfpganConfig::official().build(params)).unwrap());
    let config = GfpganConfig { side_px: 128, features: 32, style: 32, ..GfpganConfig::official() };
    let (network, keys) = keyed(0, |params| config.build(params));
    let x = given("gfpgan_128x128", [1, 3, 128, 128], picture);
    let mut parts = Vec::new();
    let mut before = |part| {
        parts.push(part);
        Ok::<(), ()>(())
    };
    let out = golden.check_layers("layers", &keys, || network.forward_watched(x, &mut before)).unwrap();
    golden.check("out", out);
    assert_eq!(parts, (0..network.layers()).collect::<Vec<_>>());
}
