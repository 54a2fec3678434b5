//! One training step against the reference's (goldens made by `goldens/make_training.py`, which names the commit):
//! loss, gradients, parameters after AdamW, and the first weights of the control branch.

#[path = "../../models/tests/parity/support.rs"]
mod support;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use diffbir_diffusion::schedule::{Prediction, Terminal};
use diffbir_models::controlnet::ControlNet;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::params::{Keys, build};
use diffbir_nn::{Params, WeightError, recompute};
use diffbir_train::config::{DiffusionConfig, OptimizerConfig, PictureLoss, Timesteps};
use diffbir_train::latents::LatentBatch;
use diffbir_train::losses::LossTerms;
use diffbir_train::optimizer::{AdamW, Summed};
use diffbir_train::stage2::{Objective, control_loss, control_start};
use serde_json::Value;
use std::collections::BTreeMap;
use support::{Formula, context, given, picture, root3, weights};

fn golden(case: &str) -> Value {
    let whole: Value = serde_json::from_str(include_str!("goldens/training.json")).unwrap();
    assert!(whole[case].is_object());
    whole[case].clone()
}

fn keyed<N>(network: impl FnOnce(&Params) -> Result<N, WeightError>) -> (N, Keys) {
    build(&mut Formula { salt: 0 }, &Device::flex().autodiff(), network).unwrap()
}

/// A tensor on the device that differentiates.
fn tracked<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x)
}

/// A network of gradients, so that they get their official names and orders.
struct GradientsOf<'a>(&'a Gradients);

impl ModuleMapper for GradientsOf<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| Tensor::from_inner(x.grad(self.0).expect("every parameter is used")))
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The largest difference from the golden's values, over the largest of them.
fn difference(tensors: &BTreeMap<String, TensorData>, name: &str, stride: usize, golden: &Value) -> f64 {
    let golden = numbers(golden);
    let got: Vec<f64> = tensors[name].iter::<f32>().step_by(stride).map(f64::from).collect();
    assert_eq!(got.len(), golden.len(), "{name}");
    let largest = golden.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    got.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

/// Blocks that are run twice give the same gradients, in parts.
fn check_recomputed<N: Module>(
    case: &str,
    network: &N,
    keys: &Keys,
    once: &Gradients,
    loss: impl FnOnce() -> Tensor<1>,
) {
    let rows = |sum: &Summed| {
        // The first moments are gradients times one less the decay.
        let config =
            OptimizerConfig { clip_norm: f64::INFINITY, ema_decay: 0.0, ..OptimizerConfig::default() };
        let mut optimizer = AdamW::new(config, network);
        optimizer.step(network.clone(), sum, 1.0, 1e-4);
        let saved = optimizer.save(keys).part("mean");
        let names: Vec<String> = saved.entries().map(|(name, ..)| name.to_string()).collect();
        names.into_iter().map(|name| (name.clone(), saved.get(&name).unwrap().unwrap().1)).collect::<Vec<_>>()
    };
    let (mut whole, mut parts, mut count) = (Summed::default(), Summed::default(), 0);
    whole.add(network, once);
    recompute::backward(loss, |gradients| {
        count += 1;
        parts.add(network, gradients);
    });
    assert!(count > 4, "{case}: there are blocks");
    for ((name, whole), (_, parts)) in rows(&whole).into_iter().zip(rows(&parts)) {
        let largest = whole.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        assert!(largest > 0.0, "{case}: {name}");
        for (a, b) in whole.iter().zip(&parts) {
            // A bias that a norm takes away again has only rounding for a gradient.
            assert!((a - b).abs() < 1e-5 * largest + 1e-9, "{case}: {name}: {a} {b}");
        }
    }
}

fn check_step<N: Module>(case: &str, network: N, keys: &Keys, loss: impl Fn(&N) -> Tensor<1>) {
    let golden = golden(case);
    let value = loss(&network);
    let gradients = value.backward();
    let value = f64::from(value.into_scalar::<f32>());
    let known = golden["loss"].as_f64().unwrap();
    assert!((value - known).abs() < 1e-6 * known, "{case}: loss {value}, not {known}");
    check_recomputed(case, &network, keys, &gradients, || loss(&network));
    let as_network = network.clone().map(&mut GradientsOf(&gradients));
    let gradient_tensors = keys.tensors(&as_network.valid());
    let tensors = golden["tensors"].as_object().unwrap();
    assert_eq!(tensors.len(), 5);
    let mut sum = Summed::default();
    sum.add(&network, &gradients);
    for decay in [0.0, 0.01] {
        // torch's constants.
        let config = OptimizerConfig {
            rate: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: decay,
            clip_norm: f64::INFINITY,
            ema_decay: 0.0,
        };
        let (stepped, _) = AdamW::new(config, &network).step(network.clone(), &sum, 1.0, config.rate);
        let stepped = keys.tensors(&stepped.valid());
        for (name, golden) in tensors {
            let stride = golden["stride"].as_u64().unwrap() as usize;
            let apart = difference(&gradient_tensors, name, stride, &golden["gradient"]);
            assert!(apart < 1e-4, "{case}: the gradient of {name} differs by {apart:.1e}");
            let norm: f64 = gradient_tensors[name].iter::<f32>().map(|v| f64::from(v).powi(2)).sum();
            let known = golden["norm"].as_f64().unwrap();
            assert!((norm.sqrt() - known).abs() < 1e-4 * known, "{case}: {name}: norm");
            let apart = difference(&stepped, name, stride, &golden[format!("decay {decay}")]);
            assert!(apart < 1e-5, "{case}: {name} differs by {apart:.1e} after decay {decay}");
        }
    }
}

#[test]
fn a_step_of_stage_1_is_the_references() {
    let sizes = SwinIrConfig { embed: 12, depths: vec![2, 2], heads: vec![6, 6], ..SwinIrConfig::official() };
    let (network, keys) = keyed(|params| sizes.build(params));
    let [low, high] = ["train_lq1", "train_gt1"].map(|name| tracked(given(name, [2, 3, 64, 64], picture)));
    let weights = PictureLoss { sse: 1.0, ..PictureLoss::default() };
    let terms = LossTerms::open(&weights, 1, &Device::flex()).unwrap();
    check_step("stage1", network, &keys, |network| {
        terms.of(network.forward(low.clone()), high.clone()).total
    });
}

fn small_unet() -> UnetConfig {
    UnetConfig { model_channels: 32, context_channels: 32, head_channels: 8, ..UnetConfig::official() }
}

#[test]
fn a_step_of_stage_2_is_the_references() {
    let sizes = small_unet();
    let (unet, _) = keyed(|params| sizes.build(params));
    let unet = unet.no_grad();
    let (control, keys) = keyed(|params| ControlNet::new(params, &sizes));
    let latent = |name: &str| tracked(given(name, [2, 4, 16, 16], root3));
    let tokens = tracked(context("train_context", [2, 77, 32]));
    for (case, prediction, terminal, last, augmented) in [
        ("stage2 eps", Prediction::Eps, Terminal::Plain, 640, false),
        ("stage2 v", Prediction::V, Terminal::ZeroSnr, 999, true),
    ] {
        let objective =
            Objective::new(&DiffusionConfig { prediction, terminal, timesteps: Timesteps::Independent });
        let batch = LatentBatch {
            truth: latent("train_z"),
            condition: Some(latent("train_c_img")),
            noise: latent("train_noise"),
            timesteps: vec![17, last],
            augmentation: augmented.then(|| (latent("train_c_noise"), vec![3, 150])),
            prompts: Vec::new(),
            pictures: None,
        };
        check_step(case, control.clone(), &keys, |control| {
            control_loss(&objective, &unet, control, Some(tokens.clone()), &batch, None)
        });
    }
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn the_branch_starts_as_the_references_bit_for_bit() {
    let sizes = small_unet();
    let start = control_start(&weights(0, |params| sizes.build(params)), &sizes).unwrap();
    let names: Vec<String> = start.entries().map(|(name, ..)| name.to_string()).collect();
    let mut sum = 0u64;
    for name in &names {
        let (_, values) = start.get(name).unwrap().unwrap();
        let bits = values.iter().zip(0u64..).fold(0u64, |bits, (value, place)| {
            bits.wrapping_add(u64::from(value.to_bits()).wrapping_mul(2 * place + 1))
        });
        sum = sum.wrapping_add(bits ^ fnv(name));
    }
    let golden = golden("control start");
    assert_eq!(names.len() as u64, golden["tensors"].as_u64().unwrap());
    assert_eq!(format!("{sum:016x}"), golden["checksum"].as_str().unwrap());
}
