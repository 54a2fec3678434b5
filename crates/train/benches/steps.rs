//! Seconds of a training step of networks of the built-in model's size: forward, backward, AdamW, on random numbers.
//!
//! `cargo bench --workspace --bench steps -- [part of a name] [--runs 9] [--device cpu] [--precision f32|bf16]`
//!
//! One line a network: the median of the steps, after two that do not count. `RAYON_NUM_THREADS` says how many
//! threads. `bench/training.py` runs this and PyTorch in turns, `bench/precision.py` this in f32 and bf16. On a graphics card stage 2 also at official size.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use diffbir::device::DeviceChoice;
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::params::{RandomInit, build_to_train};
use diffbir_nn::{Params, Products, WeightError, on_workers};
use diffbir_train::config::OptimizerConfig;
use diffbir_train::optimizer::{AdamW, Summed};
use std::time::Instant;

/// Steps that do not count.
const WARM_UP: usize = 2;

struct Bench {
    device: Device,
    products: Products,
    filter: String,
    runs: usize,
}

impl Bench {
    fn drawn(&self, shape: [usize; 4]) -> Tensor<4> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &self.device)
    }

    fn measure<N: Module>(
        &self,
        name: &str,
        network: impl FnOnce(&Params) -> Result<N, WeightError>,
        loss: impl Fn(&N) -> Tensor<1>,
    ) {
        if !name.contains(&self.filter) {
            return;
        }
        let mut random = RandomInit { seed: 0 };
        let (mut network, _) =
            build_to_train(self.products, &mut random, &self.device, network).expect("every tensor is drawn");
        let mut optimizer = AdamW::new(OptimizerConfig::default(), &network);
        let mut seconds = Vec::new();
        for _ in 0..WARM_UP + self.runs {
            let since = Instant::now();
            let gradients = loss(&network).backward();
            let mut sum = Summed::default();
            sum.add(&network, &gradients);
            (network, _) = optimizer.step(network, &sum, 1.0, 1e-4);
            seconds.push(since.elapsed().as_secs_f64());
        }
        let counted = &mut seconds[WARM_UP..];
        counted.sort_by(f64::total_cmp);
        println!("{name}: {:.4} s", counted[counted.len() / 2]);
    }
}

fn main() {
    let mut bench = Bench { device: Device::flex(), products: Products::F32, filter: String::new(), runs: 9 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--runs" => {
                bench.runs = arguments.next().and_then(|n| n.parse().ok()).expect("--runs wants a number");
            }
            "--device" => {
                let choice = arguments.next().and_then(|name| name.parse::<DeviceChoice>().ok());
                bench.device = choice.expect("--device wants a device").open().expect("it starts").device;
            }
            "--precision" => {
                bench.products = match arguments.next().as_deref() {
                    Some("f32") => Products::F32,
                    Some("bf16") => Products::Bf16,
                    _ => panic!("--precision wants f32 or bf16"),
                };
            }
            _ => bench.filter = argument,
        }
    }
    on_workers(&bench.device.clone(), || {
        let on_card = bench.device != Device::flex();
        bench.device = bench.device.clone().autodiff();
        small(&bench);
        if on_card {
            official(&bench);
        }
    });
}

/// Networks of the built-in model's size.
fn small(bench: &Bench) {
    let (small, truth) = (bench.drawn([4, 32, 32, 3]), bench.drawn([4, 128, 128, 3]));
    bench.measure(
        "srvgg",
        |params| SrvggConfig::general_x4v3().build(params),
        |network| (network.forward(small.clone()) - truth.clone()).square().mean(),
    );
    let swinir =
        SwinIrConfig { embed: 96, depths: vec![4; 4], heads: vec![6; 4], ..SwinIrConfig::official() };
    let degraded = bench.drawn([4, 128, 128, 3]);
    bench.measure(
        "swinir",
        |params| swinir.build(params),
        |network| (network.forward(degraded.clone()) - truth.clone()).square().mean(),
    );
    let kl = KlConfig { channels: 32, multipliers: vec![1, 2, 4], blocks: 1, ..KlConfig::official() };
    let picture = bench.drawn([2, 128, 128, 3]);
    bench.measure(
        "autoencoder",
        |params| kl.build(params),
        |network| {
            let mean = network.moments(picture.clone()).slice_dim(3, 0..kl.latent_channels);
            (network.decode(mean) - picture.clone()).square().mean()
        },
    );
    let unet = UnetConfig::nano();
    let [x, hint, target] = std::array::from_fn(|_| bench.drawn([16, 16, 16, 32]));
    let time = Tensor::<1>::from_floats([499.0; 16], &bench.device);
    bench.measure(
        "stage2",
        |params| Ok((unet.build(&params.at("unet"))?, ControlNet::new(&params.at("control"), &unet)?)),
        |(unet, control)| {
            let context = unet.context(None, 16);
            let extra = control.forward(x.clone(), hint.clone(), time.clone(), context, 1.0);
            (unet.forward(x.clone(), time.clone(), None, Some(extra)) - target.clone()).square().mean()
        },
    );
}

/// The control branch at the size of Stable Diffusion 2.1, under a UNet that does not learn, for a picture of 512 x 512.
fn official(bench: &Bench) {
    if !"official".contains(&bench.filter) {
        return;
    }
    let config = UnetConfig::official();
    let mut random = RandomInit { seed: 0 };
    let plain = bench.device.clone().inner();
    let (unet, _) = build_to_train(bench.products, &mut random, &plain, |params| config.build(params))
        .expect("every tensor is drawn");
    let unet = unet.train().no_grad();
    let [x, hint, target] = std::array::from_fn(|_| bench.drawn([1, 64, 64, 4]));
    let context = bench.drawn([1, 1, 77, 1024]).reshape([1, 77, 1024]);
    let time = Tensor::<1>::from_floats([499.0], &bench.device);
    bench.measure(
        "official",
        |params| ControlNet::new(params, &config),
        |control| {
            let (x, time, context) = (x.clone(), time.clone(), context.clone());
            let extra = control.forward(x.clone(), hint.clone(), time.clone(), context.clone(), 1.0);
            (unet.forward(x, time, Some(context), Some(extra)) - target.clone()).square().mean()
        },
    );
}
