//! Autoencoders in bands of rows against the whole.

use burn::tensor::{Device, Distribution, Tensor};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::kl::KlConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_nn::ops::without_kernels;
use diffbir_nn::params::{Init, Precision, RandomInit, Source, build_in};
use diffbir_nn::{Params, WeightError};
use std::ops::ControlFlow;

/// Random numbers also where training starts at one or zero: norms that shift and scale hide nothing.
struct Lively;

impl Source for Lively {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let (mean, init) = match init {
            Init::Constant(value) => (value, Init::Normal(0.2)),
            init => (0.0, init),
        };
        let values = RandomInit { seed: 3 }.values(key, shape, init)?;
        Ok(values.into_iter().map(|value| value + mean).collect())
    }
}

fn made<N>(precision: Precision, network: impl FnOnce(&Params) -> Result<N, WeightError>) -> N {
    build_in(precision, &mut Lively, &Device::flex(), network).unwrap()
}

/// Numbers whose mean and deviation change from place to place, so that bands differ.
fn uneven(shape: [usize; 4], seed: u64) -> Tensor<4> {
    let device = Device::flex();
    device.seed(seed);
    let rows = Tensor::<1, burn::tensor::Int>::arange(0..shape[1] as i64, &device).float();
    let rows = rows.reshape([1, shape[1], 1, 1]) / shape[1] as f64;
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device) * (rows.clone() + 0.2) + rows
}

/// The largest difference, over the largest value.
fn error(a: &Tensor<4>, b: &Tensor<4>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let most = |x: Tensor<4>| x.abs().max().into_scalar::<f32>();
    most(a.clone() - b.clone()) / most(b.clone())
}

/// A number from `least` to `most` that follows from `seed`.
fn drawn(seed: u64, least: usize, most: usize) -> usize {
    let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    least + ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as usize % (most - least + 1)
}

fn networks(precision: Precision) -> [(usize, Box<dyn Autoencoder>); 3] {
    let kl = KlConfig { channels: 8, multipliers: vec![1, 2, 4], norm_groups: 4, ..KlConfig::official() };
    let deep = KlConfig { channels: 4, norm_groups: 2, ..KlConfig::official() };
    let taef2 = Taef2Config { latent_channels: 4, features: 8, branch_features: 16 };
    [
        (4, Box::new(made(precision, |params| kl.build(params)))),
        (8, Box::new(made(precision, |params| deep.build(params)))),
        (8, Box::new(made(precision, |params| taef2.build(params)))),
    ]
}

fn on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Compares both halves of `network` on pictures of random sizes in bands of random rows.
fn compare(network: &dyn Autoencoder, cell: usize, seeds: std::ops::Range<u64>, most: f32) {
    for seed in seeds {
        let (height, width) = (drawn(3 * seed, 3, 24), drawn(3 * seed + 1, 1, 9));
        let rows = drawn(3 * seed + 2, 1, 40);
        let what = format!("{height} x {width} cells of {cell} in bands of {rows}");
        let picture = uneven([1, height * cell, width * cell, 3], seed);
        let banded = network.encode_in_bands(picture.clone(), rows, &mut on).unwrap();
        let found = error(&banded, &network.encode(picture));
        assert!(found <= most, "encode {what}: {found}");
        let latent = uneven([1, height, width, 4], seed);
        let banded = network.decode_in_bands(latent.clone(), rows, &mut on).unwrap();
        let found = error(&banded, &network.decode(latent));
        assert!(found <= most, "decode {what}: {found}");
    }
}

#[test]
fn bands_of_any_height_give_what_the_whole_gives() {
    for (cell, network) in networks(Precision::F32) {
        compare(network.as_ref(), cell, 0..12, 1e-5);
    }
}

/// As on other devices, where norms are burn's operations.
#[test]
fn without_kernels_of_ours_too() {
    for (cell, network) in networks(Precision::F32) {
        without_kernels(|| compare(network.as_ref(), cell, 20..22, 1e-5));
    }
}

/// What the command line uses: sums of norms are then made of the same sums of floats, which also holds where products are
/// rounded to bf16.
#[test]
fn bands_of_64_rows_are_the_whole_to_the_last_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        for (cell, network) in networks(precision) {
            let picture = uneven([1, 200, 40, 3], 1);
            let mut told = Vec::new();
            let mut tell = |done, total| {
                told.push((done, total));
                ControlFlow::Continue(())
            };
            let banded = network.encode_in_bands(picture.clone(), 64, &mut tell).unwrap();
            assert_eq!(error(&banded, &network.encode(picture)), 0.0, "{precision:?}, cells of {cell}");
            let total = told.len() - 1;
            assert!(told.iter().enumerate().all(|(at, told)| *told == (at, total)), "{told:?}");
            let latent = uneven([1, 200 / cell, 40 / cell, 4], 2);
            let banded = network.decode_in_bands(latent.clone(), 64, &mut on).unwrap();
            assert_eq!(error(&banded, &network.decode(latent)), 0.0, "{precision:?}, cells of {cell}");
        }
    }
}

#[test]
fn bands_end_where_they_are_told_to() {
    let [(_, network), ..] = networks(Precision::F32);
    let mut calls = 0;
    let mut stop = |done, _| {
        calls += 1;
        if done == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(network.decode_in_bands(uneven([1, 40, 4, 4], 0), 16, &mut stop).is_none());
    assert_eq!(calls, 4, "before the first band, too");
}
