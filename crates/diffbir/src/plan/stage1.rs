//! What the networks of stage 1 hold, layer by layer as they run on the CPU.

use super::ledger::Ledger;
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;

/// The most values that a network holds beside its weights on a picture of `height` by `width`, the picture and the
/// result included.
pub(super) fn values(config: &Stage1Config, [height, width]: [usize; 2]) -> usize {
    match config {
        Stage1Config::Srvgg(config) => srvgg(config, height * width),
        Stage1Config::Rrdb(config) => rrdb(config, height * width),
        Stage1Config::SwinIr(config) => {
            let side = |px: usize| px.next_multiple_of(config.unshuffle * config.window);
            swin_ir(config, side(height) * side(width))
        }
        Stage1Config::ScuNet(config) => {
            let side = |px: usize| px.next_multiple_of(config.window << 3);
            scu_net(config, side(height) * side(width))
        }
        Stage1Config::Gfpgan(config) => gfpgan(config),
    }
}

fn srvgg(config: &SrvggConfig, pixels: usize) -> usize {
    let mut held = Ledger::default();
    let (picture, features) = (3 * pixels, config.features * pixels);
    let large = picture * config.upscale.pow(2);
    held.take(picture);
    // The picture enlarged by repeating its pixels, first rows, then columns.
    held.take(picture * config.upscale);
    held.turn(picture * config.upscale, large);
    held.turn(picture, features);
    // Each convolution, each ReLU.
    held.need(features);
    held.turn(features, large);
    // In the order of pixels, and added.
    held.turn(large, large);
    held.most()
}

fn rrdb(config: &RrdbConfig, pixels: usize) -> usize {
    let mut held = Ledger::default();
    let picture = 3 * pixels;
    let pixels = pixels / config.unshuffle().pow(2);
    let (features, growth) = (config.features * pixels, config.growth * pixels);
    held.take(picture);
    if config.unshuffle() > 1 {
        held.turn(picture, picture);
    }
    held.turn(picture, features);
    // What the network came in with, a block, a dense block of it, and the channels that it has seen and goes on to see.
    held.take(2 * features);
    held.take(features + 3 * growth);
    held.take(growth);
    held.need(features + 4 * growth);
    held.free(3 * features + 4 * growth);
    // At twice, at four times the size: a convolution, then a ReLU.
    let mut size = features;
    for _ in 0..config.doublings() {
        held.turn(size, 4 * size);
        size *= 4;
        held.turn(size, size);
    }
    held.turn(size, size);
    held.most()
}

fn swin_ir(config: &SwinIrConfig, pixels: usize) -> usize {
    let mut held = Ledger::default();
    let picture = 3 * pixels;
    let tokens = pixels / config.unshuffle.pow(2);
    let embed = config.embed * tokens;
    // The picture with its mean taken off stays to the end.
    held.take(picture);
    held.need(picture);
    held.need(picture + embed);
    held.take(embed);
    let mask = config.window.pow(2) * tokens;
    held.take(mask);
    // A group's input, a layer's, and either queries, keys, values and what attention makes of them, or the perceptron.
    held.take(2 * embed);
    held.need(4 * embed);
    held.need(2 * config.mlp_ratio * embed);
    held.free(2 * embed);
    let features = config.upsampling_features * pixels;
    held.take(features / 4);
    held.turn(features / 4, features);
    held.turn(features, features);
    held.most()
}

fn scu_net(config: &ScuNetConfig, pixels: usize) -> usize {
    let mut held = Ledger::default();
    let (features, half) = (config.features * pixels, config.features * pixels / 2);
    held.take(3 * pixels);
    held.turn(3 * pixels, features);
    // A mask of each window, a block's input, and its two halves: the first has gone through its convolutions when the
    // second's perceptron, four times as wide, is at its widest.
    held.take(config.window.pow(2) * pixels);
    held.take(features);
    held.take(2 * half);
    held.take(half);
    held.need(2 * 4 * half);
    held.most()
}

/// Aligned faces of one size.
fn gfpgan(config: &GfpganConfig) -> usize {
    // Of the generator's last level, which is the widest, so many maps at once, as they were counted.
    let width = config.features * 64 / config.side_px.max(64);
    11 * width * config.side_px.pow(2) / 2
}
