//! What the UNet and its control branch hold, layer by layer.

use super::ledger::Ledger;
use diffbir_models::unet::UnetConfig;

/// The most values that one evaluation under control holds beside the weights, for so many latents of so many cells; of a
/// batch that is two conditions long where they come together.
pub(super) fn values(config: &UnetConfig, batch: usize, cells: usize) -> usize {
    let mut held = Ledger::default();
    let latent = config.latent_channels * batch * cells;
    // The noisy latent and the condition.
    held.take(2 * latent);
    held.take(2 * latent);
    let sizes = encoder(config, &mut held, batch * cells);
    held.free(2 * latent);
    // What the branch adds, a map at a time: the encoder's own go.
    for size in &sizes {
        held.turn(*size, *size);
    }
    let controls = sizes;
    let mut skips = encoder(config, &mut held, batch * cells);
    let mut controls = controls;
    let mut h = skips.pop().expect("the middle");
    held.need(h);
    held.free(controls.pop().expect("the middle"));
    let mut pixels = (batch * cells) >> (2 * (config.multipliers.len() - 1));
    for (level, multiplier) in config.multipliers.iter().enumerate().rev() {
        let channels = multiplier * config.model_channels;
        for index in 0..=config.blocks {
            let (skip, control) = (skips.pop().expect("a skip"), controls.pop().expect("a control"));
            held.take(h + skip);
            held.free(h + skip + control);
            let mut x = (h + skip, false);
            residual(&mut held, pixels, &mut x, channels);
            if config.attention[level] {
                transformer(&mut held, &mut x);
            }
            if index == config.blocks && level > 0 {
                held.turn(x.0, 4 * x.0);
                x.0 *= 4;
                pixels *= 4;
            }
            h = x.0;
        }
    }
    held.turn(h, h);
    held.turn(h, latent);
    held.most()
}

/// The way down and the middle: sizes of all outputs, which stay.
fn encoder(config: &UnetConfig, held: &mut Ledger, cells: usize) -> Vec<usize> {
    let mut pixels = cells;
    let first = config.model_channels * pixels;
    held.take(first);
    let mut sizes = vec![first];
    let mut last = first;
    let levels = config.multipliers.len();
    for (level, multiplier) in config.multipliers.iter().enumerate() {
        let channels = multiplier * config.model_channels;
        for _ in 0..config.blocks {
            let mut x = (last, true);
            residual(held, pixels, &mut x, channels);
            if config.attention[level] {
                transformer(held, &mut x);
            }
            last = x.0;
            sizes.push(last);
        }
        if level + 1 < levels {
            pixels /= 4;
            last = channels * pixels;
            held.take(last);
            sizes.push(last);
        }
    }
    let channels = config.multipliers[levels - 1] * config.model_channels;
    let mut x = (last, true);
    residual(held, pixels, &mut x, channels);
    transformer(held, &mut x);
    residual(held, pixels, &mut x, channels);
    sizes.push(x.0);
    sizes
}

/// A residual block, from values (and whether somebody else holds them too) to those of so many channels.
fn residual(held: &mut Ledger, pixels: usize, x: &mut (usize, bool), channels: usize) {
    let (input, kept) = *x;
    let output = channels * pixels;
    held.take(input);
    held.turn(input, output);
    held.turn(output, output);
    let (rest, kept) = if input == output {
        (input, kept)
    } else {
        held.take(output);
        held.free(if kept { 0 } else { input });
        (output, false)
    };
    held.turn(output, output);
    held.turn(output, output);
    held.free(if kept { 0 } else { rest });
    *x = (output, false);
}

/// Attention to all pixels, to the text, and the perceptron, of values of one size.
fn transformer(held: &mut Ledger, x: &mut (usize, bool)) {
    let (size, kept) = *x;
    held.take(size);
    held.turn(size, size);
    // Queries, keys and values, and what is made of them or they of.
    held.need(4 * size);
    held.turn(size, size);
    held.need(2 * size);
    held.turn(size, size);
    // What the perceptron has inside, which is half of what is multiplied.
    held.need(5 * size);
    held.turn(size, size);
    held.turn(size, size);
    held.free(if kept { 0 } else { size });
    *x = (size, false);
}
