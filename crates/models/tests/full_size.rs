//! The networks at official size against the reference's own results (`goldens/full.py`), layer by layer.
//!
//!     cargo test --release --workspace --test full_size -- --ignored --nocapture --test-threads 1
//!
//! Each prints the largest error of its layers, its time and the peak of its process's memory.

#[path = "parity/support.rs"]
mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use std::time::Instant;
use support::{Golden, context, filler, given, keyed, picture, root3};

/// Runs a network, telling how long it took and the most memory that the process ever had.
fn measured<R>(name: &str, run: impl FnOnce() -> R) -> R {
    let since = Instant::now();
    let result = run();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim();
    println!("{name}: {:.1} s, {peak} at most", since.elapsed().as_secs_f64());
    result
}

#[test]
#[ignore = "official size: needs about .5 GB and 1 minute"]
fn swinir_is_the_references() {
    let golden = Golden::open("full_swinir");
    let (network, keys) = keyed(0, |params| SwinIrConfig::official().build(params));
    let x = given("full_swinir_512x512", [1, 3, 512, 512], picture);
    let out = measured("SwinIR 512x512", || golden.check_layers("layers", &keys, || network.forward(x)));
    golden.check("out", out);
}

#[test]
#[ignore = "official size: needs about 2 GB and some seconds"]
fn the_text_encoder_is_the_references() {
    let golden = Golden::open("full_clip");
    let (network, _) = keyed(0, |params| ClipTextConfig::official().build(params));
    let mut ids: Vec<i64> =
        filler(0, "in/clip", 77).into_iter().map(|u| ((f64::from(u) + 1.0) / 2.0 * 49408.0) as i64).collect();
    ids.extend([49406, 49407]);
    ids.resize(2 * 77, 0);
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 77]), &Device::flex());
    let out = measured("text encoder", || network.forward(ids));
    golden.compare("out", &out.dims(), &out.into_data().iter::<f32>().collect::<Vec<_>>());
}

#[test]
#[ignore = "official size: needs about 2 GB and 2 minutes"]
fn the_autoencoder_is_the_references() {
    let golden = Golden::open("full_vae");
    let config = KlConfig { scale: 1.0, ..KlConfig::official() };
    let (network, keys) = keyed(0, |params| config.build(params));
    let x = given("full_vae_512x512", [1, 3, 512, 512], picture);
    let moments = measured("VAE encode 512x512", || {
        golden.check_layers("encoder.layers", &keys, || network.moments(x))
    });
    golden.check("mean", moments.clone().slice_dim(3, 0..4));
    golden.check("logvar", moments.slice_dim(3, 4..8).clamp(-30.0, 20.0));
    let z = given("full_vae_latent_64x64", [1, 4, 64, 64], root3);
    let decoded =
        measured("VAE decode 512x512", || golden.check_layers("decoder.layers", &keys, || network.decode(z)));
    golden.check("decoded", decoded * 2.0 - 1.0);
}

#[test]
#[ignore = "official size: needs about 4 GB and 1 minute"]
fn unet_and_control_branch_are_the_references() {
    let golden = Golden::open("full_unet");
    let config = UnetConfig::official();
    let (x, hint) = (given("full_x", [1, 4, 64, 64], root3), given("full_c_img", [1, 4, 64, 64], root3));
    let (tokens, time) =
        (context("full_context", [1, 77, 1024]), Tensor::from_floats([499.0], &Device::flex()));
    let extra = {
        let (control, keys) = keyed(0, |params| ControlNet::new(params, &config));
        let run = || control.forward(x.clone(), hint, Tensor::clone(&time), tokens.clone(), 1.0);
        measured("ControlNet 64x64", || golden.check_layers("control.layers", &keys, run))
    };
    let (unet, keys) = keyed(0, |params| config.build(params));
    let run = || unet.forward(x.clone(), time, Some(tokens), Some(extra));
    let out = measured("UNet 64x64", || golden.check_layers("unet.layers", &keys, run));
    golden.check("both", out);
}
