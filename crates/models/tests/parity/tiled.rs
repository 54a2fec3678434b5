//! The tiled paths against the reference's.

use crate::support::{Golden, given, made, picture, root3};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_imaging::tiles::{Blend, VaeTile, Window, gaussian_weights, sliding_windows, vae_tiles};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::kl::KlConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::tiled::Statistics;
use std::ops::ControlFlow;

fn cut(x: &Tensor<4>, window: Window) -> Tensor<4> {
    x.clone().slice_dim(1, window.y0..window.y1).slice_dim(2, window.x0..window.x1)
}

/// Encodes or decodes `x` in `tiles`.
fn in_tiles(network: &dyn Autoencoder, x: &Tensor<4>, tiles: &[VaeTile], decode: bool) -> Tensor<4> {
    sharing(network, x, tiles, Statistics::Pooled, decode)
}

fn sharing(
    network: &dyn Autoencoder,
    x: &Tensor<4>,
    tiles: &[VaeTile],
    statistics: Statistics,
    decode: bool,
) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let scale = |cells: usize| if decode { cells * 8 } else { cells / 8 };
    let channels = if decode { 3 } else { 4 };
    let mut whole = Tensor::<4>::zeros([1, scale(height), scale(width), channels], &Device::flex());
    let inputs = tiles.iter().map(|tile| cut(x, tile.input)).collect();
    let mut put = |index: usize, result: Tensor<4>| {
        let (input, output) = (tiles[index].input.map(scale), tiles[index].output.map(scale));
        let kept = result
            .slice_dim(1, output.y0 - input.y0..output.y1 - input.y0)
            .slice_dim(2, output.x0 - input.x0..output.x1 - input.x0);
        let place = [0..1, output.y0..output.y1, output.x0..output.x1, 0..channels];
        whole = whole.clone().slice_assign(place, kept);
        ControlFlow::Continue(())
    };
    if decode {
        network.decode_tiles(statistics, inputs, &mut put)
    } else {
        network.encode_tiles(statistics, inputs, &mut put)
    }
    whole
}

/// Every `step`th row and column.
fn every(x: Tensor<4>, step: usize) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let pick = |n: usize| {
        let index: Vec<i64> = (0..n as i64).step_by(step).collect();
        Tensor::<1, burn::tensor::Int>::from_data(
            TensorData::new(index.clone(), [index.len()]),
            &Device::flex(),
        )
    };
    x.select(1, pick(height)).select(2, pick(width))
}

#[test]
fn the_autoencoder_in_tiles_is_the_references() {
    let config = KlConfig { channels: 32, scale: 1.0, ..KlConfig::official() };
    let network = made(|params| config.build(params));

    let golden = Golden::open("vae");
    let tiles = vae_tiles(192, 256, 64, 32);
    let mean = in_tiles(&network, &given("vae_big", [1, 3, 192, 256], picture), &tiles, false);
    golden.check("tiled_mean", every(mean, 2));
    let tiles = vae_tiles(40, 56, 16, 11);
    let decoded = in_tiles(&network, &given("vae_big_latent", [1, 4, 40, 56], root3), &tiles, true);
    golden.check("tiled_decoded", every(decoded * 2.0 - 1.0, 7));

    let golden = Golden::open("tiled_vae");
    for (height, width, count) in [(128, 128, 1), (136, 128, 2), (160, 192, 4), (160, 256, 6)] {
        let tiles = vae_tiles(height, width, 64, 32);
        assert_eq!(tiles.len(), count, "{height}x{width}");
        let x = given(&format!("tiled_{height}x{width}"), [1, 3, height, width], picture);
        golden.check(&format!("mean_{height}x{width}"), in_tiles(&network, &x, &tiles, false));
    }
    for (height, width, count) in [(38, 38, 1), (39, 38, 2), (40, 48, 4), (40, 56, 6)] {
        let tiles = vae_tiles(height, width, 16, 11);
        assert_eq!(tiles.len(), count, "{height}x{width}");
        let x = given(&format!("tiled_latent_{height}x{width}"), [1, 4, height, width], root3);
        let decoded = in_tiles(&network, &x, &tiles, true) * 2.0 - 1.0;
        golden.check(&format!("decoded_{height}x{width}"), decoded);
    }
}

#[test]
fn the_autoencoder_in_tiles_in_fast_mode_is_the_references() {
    let config = KlConfig { channels: 32, scale: 1.0, ..KlConfig::official() };
    let network = made(|params| config.build(params));
    let golden = Golden::open("tiled_vae_fast");
    let estimated = |whole: &Tensor<4>, tile, from_halving_pooled| Statistics::Estimated {
        whole: Box::new(whole.clone()),
        tile,
        from_halving_pooled,
    };
    let x = given("tiled_160x192", [1, 3, 160, 192], picture);
    for (fixes, name) in [(false, "mean_160x192"), (true, "fixed_mean_160x192")] {
        let mean = sharing(&network, &x, &vae_tiles(160, 192, 64, 32), estimated(&x, 64, fixes), false);
        golden.check(name, mean);
    }
    let z = given("tiled_latent_40x48", [1, 4, 40, 48], root3);
    let decoded = sharing(&network, &z, &vae_tiles(40, 48, 16, 11), estimated(&z, 16, false), true);
    golden.check("decoded_40x48", decoded * 2.0 - 1.0);
}

/// A network on overlapping tiles that are blended with weights.
fn blended(
    x: &Tensor<4>,
    [tile, stride, scale]: [usize; 3],
    weights: &[f32],
    network: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Tensor<4> {
    let [_, height, width, channels] = x.dims();
    let mut blend = Blend::new(width * scale, height * scale, channels);
    for window in sliding_windows(height, width, tile, stride) {
        let data = network(cut(x, window)).into_data().iter::<f32>().collect();
        let side = tile * scale;
        let out = Raster { width_px: side, height_px: side, channels, data };
        blend.add(&out, window.map(|border| border * scale), weights);
    }
    let out = blend.finish().data;
    Tensor::from_data(TensorData::new(out, [1, height * scale, width * scale, channels]), &Device::flex())
}

#[test]
fn stage_1_in_tiles_is_the_references() {
    let golden = Golden::open("tiled_stage1");
    let weights = gaussian_weights(64);
    golden.compare("weights_64", &[64, 64], &weights);

    let network = made(|params| SwinIrConfig { embed: 12, ..SwinIrConfig::official() }.build(params));
    let input = |height, width| given(&format!("stage1_{height}x{width}"), [1, 3, height, width], picture);
    let tiled =
        |x: &Tensor<4>, weights: &[f32]| blended(x, [64, 32, 1], weights, |tile| network.forward(tile));
    golden.check("tiled_96x160", tiled(&input(96, 160), &weights));
    golden.check("tiled_100x150", tiled(&input(100, 150), &weights));
    golden.check("tiled_uniform_100x150", tiled(&input(100, 150), &[1.0; 64 * 64]));

    let config = SrvggConfig { features: 8, convolutions: 3, upscale: 4 };
    let network = made(|params| config.build(params));
    let x = given("srvgg_40x56", [1, 3, 40, 56], picture);
    let out = blended(&x, [32, 16, 4], &gaussian_weights(128), |tile| network.forward(tile));
    Golden::open("srvgg").check("tiled@40x56", out);
}
