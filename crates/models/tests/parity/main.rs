//! The networks against the reference's own results at reduced widths (goldens made by `goldens/make.py`,
//! which names the commits), and the names and shapes of official checkpoints.
//!
//! Weights and inputs follow from their names by a formula that both sides evaluate.

#![allow(clippy::excessive_precision, reason = "known values stand as they are published")]

mod clip;
mod support;
mod tiled;

use burn::tensor::{Device, Tensor, TensorData};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::rrdb::{RrdbConfig, RrdbNames};
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::{Control, Unet, UnetConfig};
use diffbir_nn::params::keys_of;
use support::{Golden, filler, given, made, picture, root3};

#[test]
fn the_formula_gives_its_known_values() {
    let known = [-0.156_609_77, -0.241_501_81, -0.472_544_2, -0.785_495_16];
    assert_eq!(filler("out.2.bias", 4), known);
}

#[test]
fn swinir_is_the_references() {
    let golden = Golden::open("swinir");
    golden.check_keys("swinir", &keys_of(|params| SwinIrConfig::official().build(params)).unwrap());
    let network = made(|params| SwinIrConfig { embed: 12, ..SwinIrConfig::official() }.build(params));
    for (height, width) in [(64, 64), (128, 192)] {
        let x = given(&format!("swinir_{height}x{width}"), [1, 3, height, width], picture);
        golden.check(&format!("out_{height}x{width}"), network.forward(x), 2e-5);
    }
}

#[test]
fn the_autoencoder_is_the_references() {
    let golden = Golden::open("vae");
    golden.check_keys("vae", &keys_of(|params| KlConfig::official().build(params)).unwrap());
    let config = KlConfig { channels: 32, scale: 1.0, ..KlConfig::official() };
    let network = made(|params| config.build(params));
    let moments = network.moments(given("vae", [1, 3, 64, 48], picture));
    golden.check("mean", moments.clone().slice_dim(3, 0..4), 2e-5);
    golden.check("logvar", moments.slice_dim(3, 4..8).clamp(-30.0, 20.0), 2e-5);
    let decoded = network.decode(given("vae_latent", [1, 4, 8, 6], root3));
    golden.check("decoded", decoded * 2.0 - 1.0, 2e-5);
}

#[test]
fn unet_and_control_branch_are_the_references() {
    let golden = Golden::open("unet_control");
    golden.check_keys("unet", &keys_of(|params| UnetConfig::official().build(params)).unwrap());
    let official = keys_of(|params| ControlNet::new(params, &UnetConfig::official())).unwrap();
    golden.check_keys("controlnet", &official);

    let config =
        UnetConfig { model_channels: 32, context_channels: 32, head_channels: 8, ..UnetConfig::official() };
    let unet: Unet = made(|params| config.build(params));
    let control: ControlNet = made(|params| ControlNet::new(params, &config));
    let x = given("x", [1, 4, 16, 16], root3);
    let hint = given("c_img", [1, 4, 16, 16], root3);
    let context: Vec<f32> = filler("in/context", 77 * 32).into_iter().map(root3).collect();
    let context = Tensor::<3>::from_data(TensorData::new(context, [1, 77, 32]), &Device::flex());
    for (name, t) in [("0", 0.0), ("499", 499.0), ("999", 999.0), ("123.4", 123.4f32)] {
        let time = || Tensor::<1>::from_floats([t], &Device::flex());
        let plain = unet.forward(x.clone(), time(), Some(context.clone()), None);
        golden.check(&format!("unet_{name}"), plain, 1e-4);
        let Control(extra) = control.forward(x.clone(), hint.clone(), time(), context.clone(), 1.0);
        assert_eq!(extra.len(), 13);
        if name == "499" {
            for index in [0, 4, 11, 12] {
                golden.check(&format!("control_{index}"), extra[index].clone(), 1e-4);
            }
        }
        let extra = Control(extra.into_iter().map(|extra| extra * 0.3).collect());
        let both = unet.forward(x.clone(), time(), Some(context.clone()), Some(extra));
        golden.check(&format!("both_{name}"), both, 1e-4);
    }
}

#[test]
fn taef2_is_its_authors() {
    let golden = Golden::open("taef2");
    let network = made(|params| Taef2Config::published().build(params));
    for (height, width) in [(32, 32), (40, 56)] {
        let name = |what: &str| format!("{what}@{height}x{width}");
        let latents = network.encode(given(&name("taef2").replace('@', "_"), [1, 3, height, width], picture));
        golden.check(&name("latents"), latents.clone(), 2e-5);
        golden.check(&name("round_trip"), network.decode(latents), 2e-5);
        let given = given(&name("taef2_latent").replace('@', "_"), [1, 32, height / 8, width / 8], root3);
        golden.check(&name("decoded"), network.decode(given), 2e-5);
    }
}

#[test]
fn srvgg_is_its_authors() {
    let golden = Golden::open("srvgg");
    let config = SrvggConfig { features: 8, convolutions: 3, upscale: 4 };
    let network = made(|params| config.build(params));
    for (height, width) in [(16, 16), (12, 20)] {
        let x = given(&format!("srvgg_{height}x{width}"), [1, 3, height, width], picture);
        golden.check(&format!("out@{height}x{width}"), network.forward(x), 2e-5);
    }
}

#[test]
fn rrdb_is_the_references() {
    let golden = Golden::open("rrdb");
    golden.check_keys("rrdb", &keys_of(|params| RrdbConfig::official().build(params)).unwrap());
    let config = RrdbConfig { features: 8, growth: 4, ..RrdbConfig::official() };
    let network = made(|params| config.build(params));
    for (height, width) in [(64, 48), (12, 20)] {
        let x = given(&format!("rrdb_{height}x{width}"), [1, 3, height, width], picture);
        golden.check(&format!("features@{height}x{width}"), network.features(x.clone()), 2e-5);
        golden.check(&format!("out@{height}x{width}"), network.forward(x), 2e-5);
    }
}

#[test]
fn rrdb_has_basic_srs_names_too() {
    let config = RrdbConfig { blocks: 1, names: RrdbNames::BasicSr, ..RrdbConfig::official() };
    let keys = keys_of(|params| config.build(params)).unwrap();
    let names: Vec<&str> = keys.parameters().map(|(_, name)| name).collect();
    // As in Real-ESRGAN's x4plus file.
    let ends = ["weight", "bias"];
    let named = |layer: String| ends.map(|end| format!("{layer}.{end}"));
    let dense = (1..=3).flat_map(|n| (1..=5).map(move |k| format!("body.0.rdb{n}.conv{k}")));
    let around = ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"].map(String::from);
    let known: Vec<String> =
        ["conv_first".to_string()].into_iter().chain(dense).chain(around).flat_map(named).collect();
    assert_eq!(names, known);
}

#[test]
fn scunet_is_the_references() {
    let golden = Golden::open("scunet");
    golden.check_keys("scunet", &keys_of(|params| ScuNetConfig::official().build(params)).unwrap());
    let config = ScuNetConfig { features: 16, head_features: 8, blocks: 2, ..ScuNetConfig::official() };
    let network = made(|params| config.build(params));
    let input = |height, width| given(&format!("scunet_{height}x{width}"), [1, 3, height, width], picture);
    for (index, output) in network.encode(input(60, 100)).into_iter().enumerate() {
        let name = if index == 0 { "m_head".into() } else { format!("m_down{index}") };
        golden.check(&format!("{name}@60x100"), output, 2e-5);
    }
    // The second has less in it than what is repeated beside it.
    for (height, width) in [(60, 100), (12, 20)] {
        golden.check(&format!("out@{height}x{width}"), network.forward(input(height, width)), 2e-5);
    }
}
