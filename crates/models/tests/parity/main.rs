//! The networks against the reference's own results at reduced widths (goldens made by `goldens/make.py`,
//! which names the commits), and the names and shapes of official checkpoints.
//!
//! Weights and inputs follow from their names by a formula that both sides evaluate.

#![allow(clippy::excessive_precision, reason = "known values stand as they are published")]

mod clip;
mod faces;
mod support;
mod tiled;

use burn::tensor::{Device, Tensor};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::rrdb::{RrdbConfig, RrdbNames};
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::{Control, Unet, UnetConfig};
use diffbir_nn::ops;
use diffbir_nn::params::keys_of;
use support::{Golden, context, filler, given, keyed, made, picture, root3};

#[test]
fn the_formula_gives_its_known_values() {
    let known = [-0.156_609_77, -0.241_501_81, -0.472_544_2, -0.785_495_16];
    assert_eq!(filler(0, "out.2.bias", 4), known);
    assert_eq!(filler(1, "out.2.bias", 1), [-0.061_954_975]);
}

#[test]
fn swinir_is_the_references() {
    let golden = Golden::open("swinir");
    golden.check_keys("swinir", &keys_of(|params| SwinIrConfig::official().build(params)).unwrap());
    let small = SwinIrConfig { embed: 12, ..SwinIrConfig::official() };
    let tiny = SwinIrConfig { depths: vec![2, 2], heads: vec![6, 6], ..small.clone() };
    let input = |[height, width]: [usize; 2]| {
        given(&format!("swinir_{height}x{width}"), [1, 3, height, width], picture)
    };
    let (network, keys) = keyed(0, |params| small.build(params));
    // The reference leaves the picture as large as it was reflected to, of 60x124 so 64x128.
    let reflected = ops::pad_reflect_end(input([60, 124]), 4, 4);
    for (name, x) in [("64x64", input([64, 64])), ("60x124", reflected), ("128x192", input([128, 192]))] {
        let out = golden.check_layers(&format!("layers@{name}"), &keys, || network.forward(x));
        golden.check(&format!("out_{name}"), out);
    }
    // With other weights in the same process.
    let (other, _) = keyed(1, |params| small.build(params));
    golden.check("salt1.out_64x64", other.forward(input([64, 64])));
    golden.check("out_64x64", network.forward(input([64, 64])));

    // 512x512 is where the reference uses the masks of its files.
    let (network, keys) = keyed(0, |params| tiny.build(params));
    for size @ [height, width] in [[64, 64], [512, 512]] {
        let name = format!("tiny.layers@{height}x{width}");
        let out = golden.check_layers(&name, &keys, || network.forward(input(size)));
        golden.check(&format!("tiny.out_{height}x{width}"), out);
    }
    golden.check("tiny.out_64x192", network.forward(input([64, 192])));
}

#[test]
fn the_autoencoder_is_the_references() {
    let golden = Golden::open("vae");
    golden.check_keys("vae", &keys_of(|params| KlConfig::official().build(params)).unwrap());
    let small = KlConfig { channels: 32, scale: 1.0, ..KlConfig::official() };
    let (network, keys) = keyed(0, |params| small.build(params));
    let check_moments = |suffix: &str, moments: Tensor<4>| {
        golden.check(&format!("mean{suffix}"), moments.clone().slice_dim(3, 0..4));
        golden.check(&format!("logvar{suffix}"), moments.slice_dim(3, 4..8).clamp(-30.0, 20.0));
    };
    check_moments("", network.moments(given("vae", [1, 3, 64, 48], picture)));
    golden.check("decoded", network.decode(given("vae_latent", [1, 4, 8, 6], root3)) * 2.0 - 1.0);

    let x = given("vae_64x64", [1, 3, 64, 64], picture);
    let z = given("vae_latent_8x8", [1, 4, 8, 8], root3);
    let moments = golden.check_layers("encoder.layers@64x64", &keys, || network.moments(x.clone()));
    check_moments("_64x64", moments);
    let decoded = golden.check_layers("decoder.layers@64x64", &keys, || network.decode(z.clone()));
    golden.check("decoded_64x64", decoded * 2.0 - 1.0);

    let scaled = made(|params| KlConfig { scale: 0.18215, ..small.clone() }.build(params));
    golden.check("condition_64x64", scaled.encode(x));
    golden.check("restored_64x64", scaled.decode(z) * 2.0 - 1.0);
}

fn small_unet() -> UnetConfig {
    UnetConfig { model_channels: 32, context_channels: 32, head_channels: 8, ..UnetConfig::official() }
}

fn times<const N: usize>(timesteps: [f32; N]) -> Tensor<1> {
    Tensor::from_floats(timesteps, &Device::flex())
}

/// The denoiser with its control branch.
fn both(
    (unet, control): (&Unet, &ControlNet),
    (x, hint): (&Tensor<4>, &Tensor<4>),
    time: Tensor<1>,
    context: &Tensor<3>,
    strength: f64,
) -> Tensor<4> {
    let extra = control.forward(x.clone(), hint.clone(), time.clone(), context.clone(), strength);
    unet.forward(x.clone(), time, Some(context.clone()), Some(extra))
}

#[test]
fn unet_and_control_branch_are_the_references() {
    let golden = Golden::open("unet_control");
    golden.check_keys("unet", &keys_of(|params| UnetConfig::official().build(params)).unwrap());
    let official = keys_of(|params| ControlNet::new(params, &UnetConfig::official())).unwrap();
    golden.check_keys("controlnet", &official);

    let config = small_unet();
    let (unet, unet_keys) = keyed(0, |params| config.build(params));
    let (control, control_keys) = keyed(0, |params| ControlNet::new(params, &config));
    let (x, hint) = (given("x", [1, 4, 16, 16], root3), given("c_img", [1, 4, 16, 16], root3));
    let context = context("context", [1, 77, 32]);
    for (name, t) in [("0", 0.0), ("1", 1.0), ("499", 499.0), ("999", 999.0), ("123.4", 123.4f32)] {
        let plain = golden.check_layers(&format!("unet.layers@{name}"), &unet_keys, || {
            unet.forward(x.clone(), times([t]), Some(context.clone()), None)
        });
        golden.check(&format!("unet_{name}"), plain);
        let Control(extra) = golden.check_layers(&format!("control.layers@{name}"), &control_keys, || {
            control.forward(x.clone(), hint.clone(), times([t]), context.clone(), 1.0)
        });
        assert_eq!(extra.len(), 13);
        for (index, extra) in extra.into_iter().enumerate() {
            golden.check(&format!("control_{index}@{name}"), extra);
        }
        for (kind, strength) in [("both", 0.3), ("strength1", 1.0)] {
            let out = both((&unet, &control), (&x, &hint), times([t]), &context, strength);
            golden.check(&format!("{kind}_{name}"), out);
        }
    }
}

#[test]
fn the_denoiser_is_the_references_in_other_shapes_and_batches() {
    let golden = Golden::open("unet_control");
    let config = small_unet();
    let unet: Unet = made(|params| config.build(params));
    let control: ControlNet = made(|params| ControlNet::new(params, &config));
    let tokens = context("context", [1, 77, 32]);
    let inputs = |name: &str, [batch, height, width]: [usize; 3]| {
        let shape = [batch, 4, height, width];
        (given(&format!("x{name}"), shape, root3), given(&format!("c_img{name}"), shape, root3))
    };
    for (height, width) in [(16, 24), (64, 64)] {
        let (x, hint) = inputs(&format!("_{height}x{width}"), [1, height, width]);
        let out = both((&unet, &control), (&x, &hint), times([499.0]), &tokens, 1.0);
        golden.check(&format!("strength1_{height}x{width}"), out);
    }
    // Two at once, which have nothing in common, not even the time.
    let (x, hint) = inputs("_two", [2, 16, 24]);
    let two = context("context_two", [2, 77, 32]);
    let out = both((&unet, &control), (&x, &hint), times([123.4, 999.0]), &two, 1.0);
    golden.check("strength1_two", out);

    let (x, hint) = inputs("", [1, 16, 16]);
    let plain = unet.forward(x.clone(), times([499.0]), Some(tokens.clone()), None);
    let strength0 = both((&unet, &control), (&x, &hint), times([499.0]), &tokens, 0.0);
    assert_eq!(plain.into_data(), strength0.into_data(), "strength 0 is no control");

    // With other weights in the same process.
    let (other_unet, _) = keyed(1, |params| config.build(params));
    let (other_control, _) = keyed(1, |params| ControlNet::new(params, &config));
    let out = both((&other_unet, &other_control), (&x, &hint), times([499.0]), &tokens, 1.0);
    golden.check("salt1.strength1_499", out);
    golden.check("strength1_499", both((&unet, &control), (&x, &hint), times([499.0]), &tokens, 1.0));
}

#[test]
fn taef2_is_its_authors() {
    let golden = Golden::open("taef2");
    let (network, keys) = keyed(0, |params| Taef2Config::published().build(params));
    for (height, width) in [(32, 32), (40, 56)] {
        let name = |what: &str| format!("{what}@{height}x{width}");
        let x = given(&format!("taef2_{height}x{width}"), [1, 3, height, width], picture);
        let z = given(&format!("taef2_latent_{height}x{width}"), [1, 32, height / 8, width / 8], root3);
        let latents = golden.check_layers(&name("encoder.layers"), &keys, || network.encode(x));
        golden.check(&name("latents"), latents.clone());
        golden.check(&name("round_trip"), network.decode(latents));
        let decoded = golden.check_layers(&name("decoder.layers"), &keys, || network.decode(z));
        golden.check(&name("decoded"), decoded);
    }
}

#[test]
fn srvgg_is_its_authors() {
    let golden = Golden::open("srvgg");
    let config = SrvggConfig { features: 8, convolutions: 3, upscale: 4 };
    let (network, keys) = keyed(0, |params| config.build(params));
    for (height, width) in [(16, 16), (12, 20)] {
        let x = given(&format!("srvgg_{height}x{width}"), [1, 3, height, width], picture);
        let out =
            golden.check_layers(&format!("layers@{height}x{width}"), &keys, || network.forward(x.clone()));
        golden.check(&format!("out@{height}x{width}"), out);
    }
}

#[test]
fn rrdb_is_the_references() {
    let golden = Golden::open("rrdb");
    golden.check_keys("rrdb", &keys_of(|params| RrdbConfig::official().build(params)).unwrap());
    let config = RrdbConfig { features: 8, growth: 4, ..RrdbConfig::official() };
    let (network, keys) = keyed(0, |params| config.build(params));
    for (height, width) in [(64, 48), (12, 20)] {
        let x = given(&format!("rrdb_{height}x{width}"), [1, 3, height, width], picture);
        let out =
            golden.check_layers(&format!("layers@{height}x{width}"), &keys, || network.forward(x.clone()));
        golden.check(&format!("out@{height}x{width}"), out);
    }
}

#[test]
fn rrdb_enlarges_twice_too() {
    let golden = Golden::open("rrdb_x2");
    let (blocks, names) = (1, RrdbNames::BasicSr);
    let config = RrdbConfig { features: 8, growth: 32, blocks, upscale: 2, plain: false, names };
    let (network, _) = keyed(0, |params| config.build(params));
    let x = given("rrdb_x2_12x20", [1, 3, 12, 20], picture);
    golden.check("out@12x20", network.forward(x));
}

/// As KAIR's BSRGANx2: the input as it is, and one convolution that enlarges.
#[test]
fn rrdb_enlarges_twice_without_unshuffling() {
    let config =
        RrdbConfig { features: 8, growth: 4, blocks: 1, upscale: 2, plain: true, ..RrdbConfig::official() };
    let keys = keys_of(|params| config.build(params)).unwrap();
    let shape =
        |name: &str| keys.parameters().find(|(_, own, _)| *own == name).map(|(_, _, shape)| shape.to_vec());
    assert_eq!(shape("conv_first.weight"), Some(vec![8, 3, 3, 3]));
    assert!(shape("upconv1.weight").is_some() && shape("upconv2.weight").is_none());
    let (network, _) = keyed(0, |params| config.build(params));
    let x = given("rrdb_x2_12x20", [1, 3, 12, 20], picture);
    assert_eq!(network.forward(x).dims(), [1, 24, 40, 3]);
}

#[test]
fn rrdb_has_basic_srs_names_too() {
    let config = RrdbConfig { blocks: 1, names: RrdbNames::BasicSr, ..RrdbConfig::official() };
    let keys = keys_of(|params| config.build(params)).unwrap();
    let names: Vec<&str> = keys.parameters().map(|(_, name, _)| name).collect();
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
    let (network, keys) = keyed(0, |params| config.build(params));
    // The second has less in it than what is repeated beside it.
    for (height, width) in [(60, 100), (12, 20)] {
        let x = given(&format!("scunet_{height}x{width}"), [1, 3, height, width], picture);
        let out =
            golden.check_layers(&format!("layers@{height}x{width}"), &keys, || network.forward(x.clone()));
        golden.check(&format!("out@{height}x{width}"), out);
    }
}
