//! What autoencoders hold, step by step, whole, in bands or in tiles: the steps of `models/src/steps.rs` without their values.

use super::bands;
use super::ledger::Ledger;
use crate::config::AutoencoderConfig;
use diffbir_models::flow::{Scale, Sight};
use diffbir_models::kl::KlConfig;
use diffbir_models::taef2::Taef2Config;

/// What an autoencoder works on at once, in cells of its input.
pub(super) enum Work {
    /// All of them.
    Whole(usize),
    /// Bands of so many rows of a picture of this height and width, as `bands.rs` counts them.
    Bands { size: (usize, usize), rows: usize },
    /// Tiles of so many cells, which go from norm to norm together.
    Tiles(Vec<usize>),
    /// The same, one after the other.
    Apart(Vec<usize>),
}

impl Work {
    /// Cells of the largest piece that goes in or comes out by itself.
    pub(super) fn largest(&self) -> usize {
        match self {
            Self::Whole(cells) => *cells,
            Self::Bands { size: (height, width), .. } => height * width,
            Self::Tiles(tiles) | Self::Apart(tiles) => tiles.iter().copied().max().unwrap_or_default(),
        }
    }

    /// How many pieces, and the side of the largest, of bands their rows.
    pub(super) fn told(&self) -> (usize, usize) {
        match self {
            Self::Whole(cells) => (1, cells.isqrt()),
            Self::Bands { size, rows } => (size.0.div_ceil(*rows), *rows),
            Self::Tiles(tiles) | Self::Apart(tiles) => (tiles.len(), self.largest().isqrt()),
        }
    }
}

/// A step, by the channels that it leads to.
pub(super) enum Step {
    /// A function that sees so many rows above and below a row. `inside` channels are held beside its input and its result for a
    /// while.
    Map { channels: usize, sees: (usize, usize), scale: Scale, inside: usize },
    /// Attention, which holds queries, keys and values.
    Attention,
    /// A group norm; what follows it makes its result anew if `twice`.
    Norm { twice: bool },
    /// What is remembered.
    Keep,
    /// The remembered added to what a convolution that sees so many rows makes, through one of its own where widths differ.
    AddKept { channels: usize, sees: usize, shortcut: bool },
}

impl Step {
    /// What it sees.
    pub(super) fn sight(&self) -> Sight {
        match *self {
            Self::Map { sees: (above, below), scale, .. } => Sight::Rows { above, below, scale, adds: false },
            Self::AddKept { sees, .. } => {
                Sight::Rows { above: sees, below: sees, scale: Scale::Same, adds: true }
            }
            Self::Attention => Sight::Whole,
            Self::Norm { .. } => Sight::Norm,
            Self::Keep => Sight::Keep,
        }
    }
}

/// Activations of one tile.
struct State {
    pixels: usize,
    channels: usize,
    /// Sizes of what is remembered.
    kept: Vec<usize>,
    /// Whether what is remembered last is what goes on.
    is_kept: bool,
}

impl State {
    fn values(&self) -> usize {
        self.pixels * self.channels
    }

    /// Lets the present activations go, unless they are remembered.
    fn turn(&mut self, held: &mut Ledger, inside: usize, channels: usize, pixels: usize) {
        held.take(channels * pixels);
        held.need(inside);
        if !std::mem::take(&mut self.is_kept) {
            held.free(self.values());
        }
        (self.channels, self.pixels) = (channels, pixels);
    }

    fn advance(&mut self, step: &Step, held: &mut Ledger) {
        match *step {
            Step::Map { channels, scale, inside, .. } => {
                let pixels = match scale {
                    Scale::Half => self.pixels / 4,
                    Scale::Same => self.pixels,
                    Scale::Double => 4 * self.pixels,
                };
                self.turn(held, inside * self.pixels, channels, pixels);
            }
            Step::Attention => self.turn(held, 3 * self.values(), self.channels, self.pixels),
            Step::Norm { .. } => self.turn(held, 0, self.channels, self.pixels),
            Step::Keep => {
                self.kept.push(self.values());
                self.is_kept = true;
            }
            Step::AddKept { channels, shortcut, .. } => {
                let mut kept = self.kept.pop().expect("every addition follows a keep");
                if shortcut {
                    held.turn(kept, channels * self.pixels);
                    kept = channels * self.pixels;
                }
                self.turn(held, 0, channels, self.pixels);
                held.free(kept);
            }
        }
    }
}

/// The most values that the encoder, or the decoder, holds, inputs and the results included.
pub(super) fn values(config: &AutoencoderConfig, decodes: bool, work: &Work) -> usize {
    let (steps, channels) = match (config, decodes) {
        (AutoencoderConfig::Kl(config), false) => (kl_encoder(config), 3),
        (AutoencoderConfig::Kl(config), true) => (kl_decoder(config), config.latent_channels),
        (AutoencoderConfig::Taef2(config), false) => (taef2_encoder(config), 3),
        (AutoencoderConfig::Taef2(config), true) => (taef2_decoder(config), config.latent_channels),
    };
    let new = |&pixels: &usize| State { pixels, channels, kept: Vec::new(), is_kept: false };
    let whole = |pixels: usize| {
        let (mut held, mut state) = (Ledger::default(), new(&pixels));
        held.take(state.values());
        steps.iter().for_each(|step| state.advance(step, &mut held));
        held.most()
    };
    let tiles = match work {
        Work::Whole(pixels) => return whole(*pixels),
        Work::Bands { size: (height, width), rows } => {
            return bands::values(&steps, (*height, *width, channels), *rows);
        }
        Work::Apart(tiles) => {
            let all: usize = tiles.iter().map(|pixels| pixels * channels).sum();
            return all + whole(work.largest());
        }
        Work::Tiles(tiles) => tiles,
    };
    let mut states: Vec<State> = tiles.iter().map(new).collect();
    let mut held = Ledger::default();
    states.iter().for_each(|state| held.take(state.values()));
    // All tiles go up to a norm before one goes on.
    let mut rest = &steps[..];
    while let Some(at) = rest.iter().position(|step| matches!(step, Step::Norm { .. })) {
        for state in &mut states {
            rest[..at].iter().for_each(|step| state.advance(step, &mut held));
        }
        for state in &mut states {
            held.need(2 * state.values());
            state.advance(&rest[at], &mut held);
        }
        rest = &rest[at + 1..];
    }
    // From there each goes to the end by itself.
    for mut state in states {
        rest.iter().for_each(|step| state.advance(step, &mut held));
        held.free(state.values());
    }
    held.most()
}

/// A convolution of three by three.
fn conv(channels: usize) -> Step {
    Step::Map { channels, sees: (1, 1), scale: Scale::Same, inside: 0 }
}

/// A convolution of single pixels, or a function of them.
fn pointwise(channels: usize) -> Step {
    Step::Map { channels, sees: (0, 0), scale: Scale::Same, inside: 0 }
}

fn doubling(channels: usize) -> Step {
    Step::Map { channels, sees: (1, 1), scale: Scale::Double, inside: 0 }
}

const NORM: Step = Step::Norm { twice: false };

fn kl_block(steps: &mut Vec<Step>, input: usize, channels: usize) {
    steps.extend([Step::Keep, NORM, conv(channels), NORM]);
    steps.push(Step::AddKept { channels, sees: 1, shortcut: input != channels });
}

/// Two blocks with attention between them.
fn kl_middle(steps: &mut Vec<Step>, channels: usize) {
    kl_block(steps, channels, channels);
    steps.extend([Step::Keep, NORM, Step::Attention]);
    steps.push(Step::AddKept { channels, sees: 0, shortcut: false });
    kl_block(steps, channels, channels);
}

fn kl_encoder(config: &KlConfig) -> Vec<Step> {
    let mut steps = vec![pointwise(3), conv(config.channels)];
    let mut width = config.channels;
    for (level, multiplier) in config.multipliers.iter().enumerate() {
        for _ in 0..config.blocks {
            let input = std::mem::replace(&mut width, config.channels * multiplier);
            kl_block(&mut steps, input, width);
        }
        if level + 1 < config.multipliers.len() {
            // Zeros at the right and bottom only.
            steps.push(Step::Map { channels: width, sees: (0, 1), scale: Scale::Half, inside: 0 });
        }
    }
    kl_middle(&mut steps, width);
    let moments = 2 * config.latent_channels;
    steps.extend([NORM, conv(moments), pointwise(moments), pointwise(config.latent_channels)]);
    steps
}

fn kl_decoder(config: &KlConfig) -> Vec<Step> {
    let levels = config.multipliers.len();
    let mut width = config.channels * config.multipliers[levels - 1];
    let mut steps = vec![pointwise(config.latent_channels), conv(width)];
    kl_middle(&mut steps, width);
    for level in (0..levels).rev() {
        for _ in 0..=config.blocks {
            let input = std::mem::replace(&mut width, config.channels * config.multipliers[level]);
            kl_block(&mut steps, input, width);
        }
        if level > 0 {
            steps.push(doubling(width));
        }
    }
    steps.extend([NORM, conv(3), pointwise(3)]);
    steps
}

fn taef2_block(steps: &mut Vec<Step>, config: &Taef2Config, with_branch: bool) {
    if with_branch {
        steps.extend([Step::Keep, pointwise(config.branch_features), Step::Norm { twice: true }]);
        steps.push(Step::AddKept { channels: config.features, sees: 0, shortcut: false });
    }
    steps.push(Step::Map {
        channels: config.features,
        sees: (3, 3),
        scale: Scale::Same,
        inside: config.features,
    });
}

const TAEF2_STAGES: usize = Taef2Config::DOWNSAMPLING.ilog2() as usize;
const TAEF2_BLOCKS: usize = 3;

fn taef2_encoder(config: &Taef2Config) -> Vec<Step> {
    let mut steps = vec![conv(config.features)];
    taef2_block(&mut steps, config, false);
    for stage in 1..=TAEF2_STAGES {
        steps.push(Step::Map { channels: config.features, sees: (1, 1), scale: Scale::Half, inside: 0 });
        (0..TAEF2_BLOCKS).for_each(|_| taef2_block(&mut steps, config, stage == TAEF2_STAGES));
    }
    steps.push(conv(config.latent_channels));
    steps
}

fn taef2_decoder(config: &Taef2Config) -> Vec<Step> {
    let mut steps = vec![pointwise(config.latent_channels), conv(config.features)];
    for stage in 0..TAEF2_STAGES {
        (0..TAEF2_BLOCKS).for_each(|_| taef2_block(&mut steps, config, stage == 0));
        steps.push(doubling(config.features));
    }
    taef2_block(&mut steps, config, false);
    steps.push(conv(3));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use diffbir_models::autoencoder::Autoencoder;
    use diffbir_models::bands::sight;
    use diffbir_nn::params::{RandomInit, build};
    use diffbir_nn::{Device, Module, Params, WeightError};

    fn made<N: Module>(network: impl Fn(&Params) -> Result<N, WeightError>) -> N {
        build(&mut RandomInit { seed: 3 }, &Device::flex(), network).unwrap().0
    }

    #[test]
    fn steps_see_what_those_of_the_networks_see() {
        let kl = KlConfig { channels: 4, norm_groups: 2, ..KlConfig::official() };
        let taef2 = Taef2Config { latent_channels: 4, features: 8, branch_features: 16 };
        let same = |network: &dyn Autoencoder, counted: [Vec<Step>; 2]| {
            for (steps, counted) in [network.encoder_steps(), network.decoder_steps()].iter().zip(counted) {
                let own: Vec<_> = counted.iter().map(Step::sight).collect();
                assert_eq!(own, steps.iter().map(sight).collect::<Vec<_>>());
            }
        };
        same(&made(|params| kl.build(params)), [kl_encoder(&kl), kl_decoder(&kl)]);
        same(&made(|params| taef2.build(params)), [taef2_encoder(&taef2), taef2_decoder(&taef2)]);
    }
}
