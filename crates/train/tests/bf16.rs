//! Networks of all trainers whose products are in bf16, forward and backward, against the same in f32.

#[path = "../../models/tests/parity/support.rs"]
mod support;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::params::{Keys, build_to_train};
use diffbir_nn::{Params, Products, WeightError, recompute};
use diffbir_train::config::OptimizerConfig;
use diffbir_train::optimizer::{AdamW, Summed};
use support::{Formula, context, given, picture, root3};

fn tracked<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x)
}

/// The gradients of all parameters, but for a factor.
fn gradients<N: Module>(
    network: &N,
    keys: &Keys,
    recomputed: bool,
    loss: impl Fn(&N) -> Tensor<1>,
) -> Vec<f32> {
    let mut sum = Summed::default();
    if recomputed {
        recompute::backward(|| loss(network), |gradients| sum.add(network, gradients));
    } else {
        sum.add(network, &loss(network).backward());
    }
    let config = OptimizerConfig { clip_norm: f64::INFINITY, ema_decay: 0.0, ..OptimizerConfig::default() };
    let mut optimizer = AdamW::new(config, network);
    optimizer.step(network.clone(), &sum, 1.0, 1e-4);
    let means = optimizer.save(keys).part("mean");
    let names: Vec<String> = means.entries().map(|(name, ..)| name.to_string()).collect();
    names.iter().flat_map(|name| means.get(name).unwrap().unwrap().1).collect()
}

/// How far `b` is from `a`, over the length of `a`.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied())
}

fn compare<N: Module>(
    case: &str,
    network: impl Fn(&Params) -> Result<N, WeightError>,
    loss: impl Fn(&N) -> Tensor<1>,
) {
    let device = Device::flex().autodiff();
    let built = |products| build_to_train(products, &mut Formula { salt: 0 }, &device, &network).unwrap();
    let (exact, keys) = built(Products::F32);
    let exact = gradients(&exact, &keys, false, &loss);
    let (rounded, keys) = built(Products::Bf16);
    let once = gradients(&rounded, &keys, false, &loss);
    let far = apart(&exact, &once);
    assert!(far > 1e-4 && far < 2e-2, "{case}: {far}");
    assert!(gradients(&rounded, &keys, false, &loss) == once, "{case}: again");
    // Gradients that meet are added in another order.
    let far = apart(&once, &gradients(&rounded, &keys, true, &loss));
    assert!(far < 2e-3, "{case}: {far} if recomputed");
}

#[test]
fn gradients_of_stage_1_are_near_those_in_f32() {
    let [low, high] = ["train_lq1", "train_gt1"].map(|name| tracked(given(name, [2, 3, 64, 64], picture)));
    let swinir =
        SwinIrConfig { embed: 12, depths: vec![2, 2], heads: vec![6, 6], ..SwinIrConfig::official() };
    compare(
        "swinir",
        |params| swinir.build(params),
        |network| (network.forward(low.clone()) - high.clone()).square().mean(),
    );
    let srvgg = SrvggConfig { features: 24, convolutions: 4, upscale: 4 };
    let small = tracked(given("train_lq1", [2, 3, 16, 16], picture));
    compare(
        "srvgg",
        |params| srvgg.build(params),
        |network| (network.forward(small.clone()) - high.clone()).square().mean(),
    );
}

#[test]
fn gradients_of_an_autoencoder_are_near_those_in_f32() {
    let sizes = KlConfig {
        channels: 16,
        multipliers: vec![1, 2, 2],
        blocks: 1,
        latent_channels: 4,
        norm_groups: 4,
        scale: 0.5,
    };
    let truth = tracked(given("train_gt1", [2, 3, 33, 48], picture).slice_dim(1, 0..32));
    compare(
        "kl",
        |params| sizes.build(params),
        |network| {
            let moments = recompute::parting(network.moments(truth.clone()));
            let mean = moments.clone().slice_dim(3, 0..4);
            (network.decode(mean) - truth.clone()).square().mean() + moments.square().mean()
        },
    );
}

#[test]
fn gradients_of_stage_2_are_near_those_in_f32() {
    let sizes =
        UnetConfig { model_channels: 32, context_channels: 32, head_channels: 8, ..UnetConfig::official() };
    let [x, hint, target] = ["x", "hint", "target"].map(|name| tracked(given(name, [2, 4, 16, 16], root3)));
    let tokens = tracked(context("train_context", [2, 77, 32]));
    let time = Tensor::<1>::from_floats([17.0, 640.0], &Device::flex().autodiff());
    let build = |params: &Params| {
        let unet = sizes.build(&params.at("unet"))?;
        Ok((unet, ControlNet::new(&params.at("control"), &sizes)?))
    };
    compare("stage 2", build, |(unet, control)| {
        let (x, time, tokens) = (x.clone(), time.clone(), tokens.clone());
        let extra = control.forward(x.clone(), hint.clone(), time.clone(), tokens.clone(), 1.0);
        (unet.forward(x, time, Some(tokens), Some(extra)) - target.clone()).square().mean()
    });
}
