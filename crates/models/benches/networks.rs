//! Seconds of the networks at official size, their weights drawn at random.
//!
//! `cargo bench --workspace --bench networks -- [part of a name] [--runs 3] [--precision f32|bf16]`
//!
//! One line a network: the median of the runs, after one that does not count. `RAYON_NUM_THREADS` says how many
//! threads. `bench/reference.py` runs this and the reference in turns.

use burn::tensor::{Device, Distribution, Tensor};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::params::{RandomInit, build_in};
use diffbir_nn::{Params, Precision, WeightError};
use std::hint::black_box;
use std::time::Instant;

fn made<N>(precision: Precision, network: impl FnOnce(&Params) -> Result<N, WeightError>) -> N {
    build_in(precision, &mut RandomInit { seed: 0 }, &Device::flex(), network).expect("every tensor is drawn")
}

fn drawn<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(0.0, 1.0), &Device::flex())
}

fn main() {
    let (mut filter, mut runs, mut precision) = (String::new(), 3, Precision::F32);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--runs" => runs = arguments.next().and_then(|n| n.parse().ok()).expect("--runs wants a number"),
            "--precision" => {
                precision = match arguments.next().as_deref() {
                    Some("f32") => Precision::F32,
                    Some("bf16") => Precision::Bf16,
                    _ => panic!("--precision wants f32 or bf16"),
                }
            }
            _ => filter = argument,
        }
    }
    let asked = |name: &str| name.contains(&filter);
    let measure = |name: &str, run: &dyn Fn()| {
        if !asked(name) {
            return;
        }
        run();
        let mut seconds: Vec<f64> = (0..runs)
            .map(|_| {
                let since = Instant::now();
                run();
                since.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        println!("{name}: {:.3} s", seconds[seconds.len() / 2]);
    };
    if asked("swinir") {
        let (network, x) =
            (made(precision, |params| SwinIrConfig::official().build(params)), drawn([1, 512, 512, 3]));
        measure("swinir", &|| drop(black_box(network.forward(x.clone()).into_data())));
    }
    if asked("encode") || asked("decode") {
        let network = made(precision, |params| KlConfig::official().build(params));
        let (x, z) = (drawn([1, 512, 512, 3]), drawn([1, 64, 64, 4]));
        measure("encode", &|| drop(black_box(network.encode(x.clone()).into_data())));
        measure("decode", &|| drop(black_box(network.decode(z.clone()).into_data())));
    }
    if asked("step") {
        // The two evaluations of a guided step, as one batch.
        let config = UnetConfig::official();
        let control = made(precision, |params| ControlNet::new(params, &config));
        let unet = made(precision, |params| config.build(params));
        let (x, hint, context) = (drawn([2, 64, 64, 4]), drawn([2, 64, 64, 4]), drawn([2, 77, 1024]));
        let time = Tensor::from_floats([499.0, 499.0], &Device::flex());
        measure("step", &|| {
            let (x, hint, context) = (x.clone(), hint.clone(), context.clone());
            let extra = control.forward(x.clone(), hint, Tensor::clone(&time), context.clone(), 1.0);
            drop(black_box(unet.forward(x, time.clone(), Some(context), Some(extra)).into_data()));
        });
    }
}
