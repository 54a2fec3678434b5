//! What autoencoders hold, step by step, whole, in bands or in tiles: the steps of `models/src/steps.rs` without their values.

use super::ledger::Ledger;
use crate::config::AutoencoderConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::taef2::Taef2Config;

/// What an autoencoder works on at once, in cells of its input.
pub(super) enum Work {
    /// All of them.
    Whole(usize),
    /// Bands of so many rows of a picture of this height and width, as `models/src/bands.rs` does.
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
enum Step {
    /// A function; where its result is a quarter or four times as large, so. `inside` channels are held beside its input
    /// and its result for a while.
    Map { channels: usize, size: Size, inside: usize },
    /// Attention, which holds queries, keys and values.
    Attention,
    /// A group norm.
    Norm,
    /// What is remembered.
    Keep,
    /// The remembered added, through a convolution of its own where widths differ.
    AddKept { channels: usize, shortcut: bool },
}

enum Size {
    Half,
    Same,
    Double,
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
            Step::Map { channels, ref size, inside } => {
                let pixels = match size {
                    Size::Half => self.pixels / 4,
                    Size::Same => self.pixels,
                    Size::Double => {
                        held.outgrow(channels * 4 * self.pixels);
                        4 * self.pixels
                    }
                };
                self.turn(held, inside * self.pixels, channels, pixels);
            }
            Step::Attention => self.turn(held, 3 * self.values(), self.channels, self.pixels),
            Step::Norm => self.turn(held, 0, self.channels, self.pixels),
            Step::Keep => {
                self.kept.push(self.values());
                self.is_kept = true;
            }
            Step::AddKept { channels, shortcut } => {
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

/// The most values that the encoder, or the decoder, holds, inputs and the results included, counted by `held`.
pub(super) fn values(config: &AutoencoderConfig, decodes: bool, work: &Work, mut held: Ledger) -> usize {
    let (steps, channels) = match (config, decodes) {
        (AutoencoderConfig::Kl(config), false) => (kl_encoder(config), 3),
        (AutoencoderConfig::Kl(config), true) => (kl_decoder(config), config.latent_channels),
        (AutoencoderConfig::Taef2(config), false) => (taef2_encoder(config), 3),
        (AutoencoderConfig::Taef2(config), true) => (taef2_decoder(config), config.latent_channels),
    };
    let new = |&pixels: &usize| State { pixels, channels, kept: Vec::new(), is_kept: false };
    let whole = |pixels: usize| {
        let (mut held, mut state) = (held, new(&pixels));
        held.take(state.values());
        steps.iter().for_each(|step| state.advance(step, &mut held));
        held.most()
    };
    let tiles = match work {
        Work::Whole(pixels) => return whole(*pixels),
        Work::Bands { size: (height, width), rows } => {
            return in_bands(&steps, new(&(height * width)), (*width, *rows), held);
        }
        Work::Apart(tiles) => {
            let all: usize = tiles.iter().map(|pixels| pixels * channels).sum();
            return all + whole(work.largest());
        }
        Work::Tiles(tiles) => tiles,
    };
    let mut states: Vec<State> = tiles.iter().map(new).collect();
    states.iter().for_each(|state| held.take(state.values()));
    // All tiles go up to a norm before one goes on.
    let mut rest = &steps[..];
    while let Some(at) = rest.iter().position(|step| matches!(step, Step::Norm)) {
        for state in &mut states {
            rest[..at].iter().for_each(|step| state.advance(step, &mut held));
        }
        for state in &mut states {
            held.need(2 * state.values());
            state.advance(&Step::Norm, &mut held);
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

/// The most values in bands of so many rows: from one norm, or one thing to remember, to the next, the input goes as the output
/// comes. In between, steps that see few rows together are done band by band, and between these legs a band waits; one step at a
/// time works.
fn in_bands(steps: &[Step], mut state: State, (mut width, rows): (usize, usize), mut held: Ledger) -> usize {
    held.take(state.values());
    let mut rest = steps;
    while let Some(first) = rest.first() {
        match first {
            Step::Keep => {
                state.kept.push(state.values());
                state.is_kept = true;
                rest = &rest[1..];
                continue;
            }
            // It runs whole.
            Step::Attention => {
                held.need(state.values());
                state.advance(first, &mut held);
                rest = &rest[1..];
                continue;
            }
            _ => {}
        }
        let is_end = |step: &Step| matches!(step, Step::Keep | Step::Norm | Step::Attention);
        let count = rest.iter().skip(1).position(is_end).map_or(rest.len(), |count| count + 1);
        let (section, behind) = rest.split_at(count);
        let (input, shared) = (state.values(), std::mem::take(&mut state.is_kept));
        let band = |state: &State, width: usize| state.channels * width * rows.min(state.pixels / width);
        // A band of the input goes when the one behind it is begun.
        let (mut waiting, mut working, mut added, mut around) = (band(&state, width), 0, 0, 0);
        for step in section {
            let before = band(&state, width);
            // Rows around a row that a step sees: a convolution, or three of them.
            let sees = match step {
                Step::Map { inside: 0, .. } | Step::AddKept { .. } => 2,
                Step::Map { .. } => 6,
                Step::Norm | Step::Keep | Step::Attention => 0,
            };
            let doubles = matches!(step, Step::Map { size: Size::Double, .. });
            if around > 0 && (doubles || around + sees > rows / 6) {
                // Two of them, for the rows that are wanted lie across.
                waiting += 2 * before;
                around = 0;
            }
            around += sees;
            let inside = match *step {
                Step::Map { channels, ref size, inside } => {
                    state.channels = channels;
                    match size {
                        Size::Half => (width, state.pixels) = (width / 2, state.pixels / 4),
                        Size::Same => {}
                        Size::Double => (width, state.pixels) = (2 * width, 4 * state.pixels),
                    }
                    inside * width * rows.min(state.pixels / width)
                }
                Step::AddKept { channels, .. } => {
                    added += state.kept.pop().expect("every addition follows a keep");
                    state.channels = channels;
                    before
                }
                Step::Norm | Step::Keep | Step::Attention => 0,
            };
            let after = band(&state, width);
            working = working.max(before + inside + after);
        }
        let output = state.values();
        // What is no longer wanted goes a band behind.
        let going = added + if shared { 0 } else { input };
        held.need(waiting + working + output.saturating_sub(going));
        held.take(output.saturating_sub(going));
        held.free(going.saturating_sub(output));
        rest = behind;
    }
    // The bands become one picture.
    held.need(state.values());
    held.most()
}

fn map(channels: usize) -> Step {
    Step::Map { channels, size: Size::Same, inside: 0 }
}

fn kl_block(steps: &mut Vec<Step>, input: usize, channels: usize) {
    steps.extend([Step::Keep, Step::Norm, map(channels), Step::Norm]);
    steps.push(Step::AddKept { channels, shortcut: input != channels });
}

/// Two blocks with attention between them.
fn kl_middle(steps: &mut Vec<Step>, channels: usize) {
    kl_block(steps, channels, channels);
    steps.extend([Step::Keep, Step::Norm]);
    steps.push(Step::Attention);
    steps.push(Step::AddKept { channels, shortcut: false });
    kl_block(steps, channels, channels);
}

fn kl_encoder(config: &KlConfig) -> Vec<Step> {
    let mut steps = vec![Step::Map { channels: config.channels, size: Size::Same, inside: 3 }];
    let mut width = config.channels;
    for (level, multiplier) in config.multipliers.iter().enumerate() {
        for _ in 0..config.blocks {
            let input = std::mem::replace(&mut width, config.channels * multiplier);
            kl_block(&mut steps, input, width);
        }
        if level + 1 < config.multipliers.len() {
            steps.push(Step::Map { channels: width, size: Size::Half, inside: 0 });
        }
    }
    kl_middle(&mut steps, width);
    steps.extend([Step::Norm, map(2 * config.latent_channels), map(config.latent_channels)]);
    steps
}

fn kl_decoder(config: &KlConfig) -> Vec<Step> {
    let levels = config.multipliers.len();
    let mut width = config.channels * config.multipliers[levels - 1];
    let mut steps = vec![map(width)];
    kl_middle(&mut steps, width);
    for level in (0..levels).rev() {
        for _ in 0..=config.blocks {
            let input = std::mem::replace(&mut width, config.channels * config.multipliers[level]);
            kl_block(&mut steps, input, width);
        }
        if level > 0 {
            steps.push(Step::Map { channels: width, size: Size::Double, inside: 0 });
        }
    }
    steps.extend([Step::Norm, map(3)]);
    steps
}

fn taef2_block(steps: &mut Vec<Step>, config: &Taef2Config, with_branch: bool) {
    if with_branch {
        steps.extend([Step::Keep, map(config.branch_features), Step::Norm]);
        steps.push(Step::AddKept { channels: config.features, shortcut: false });
    }
    steps.push(Step::Map { channels: config.features, size: Size::Same, inside: config.features });
}

const TAEF2_STAGES: usize = Taef2Config::DOWNSAMPLING.ilog2() as usize;
const TAEF2_BLOCKS: usize = 3;

fn taef2_encoder(config: &Taef2Config) -> Vec<Step> {
    let mut steps = vec![map(config.features)];
    taef2_block(&mut steps, config, false);
    for stage in 1..=TAEF2_STAGES {
        steps.push(Step::Map { channels: config.features, size: Size::Half, inside: 0 });
        (0..TAEF2_BLOCKS).for_each(|_| taef2_block(&mut steps, config, stage == TAEF2_STAGES));
    }
    steps.push(map(config.latent_channels));
    steps
}

fn taef2_decoder(config: &Taef2Config) -> Vec<Step> {
    let mut steps = vec![map(config.features)];
    for stage in 0..TAEF2_STAGES {
        (0..TAEF2_BLOCKS).for_each(|_| taef2_block(&mut steps, config, stage == 0));
        steps.push(Step::Map { channels: config.features, size: Size::Double, inside: 0 });
    }
    taef2_block(&mut steps, config, false);
    steps.push(map(3));
    steps
}
