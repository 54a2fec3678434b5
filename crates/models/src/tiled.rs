//! A list of steps over tiles that share the statistics of their norms and nothing else, as the reference's Tiled VAE has it
//! (reference 3.4).
//!
//! Either all tiles go up to a norm, its mean and variance are pooled over them, and they go on. Or the statistics come from
//! the picture made small, and each tile runs from start to end by itself: its fast mode, which takes the least memory.

use crate::steps::{State, Step, activated, normed, run};
use burn::tensor::{DType, Tensor, TensorData};
use diffbir_nn::layers::{GroupNorm, KnownNorm};
use diffbir_nn::on_workers;
use diffbir_nn::ops::Moments;
use std::ops::ControlFlow;

/// Where the statistics of norms come from.
#[allow(clippy::large_enum_variant, reason = "there is one a picture")]
pub enum Statistics {
    /// From all tiles together.
    Pooled,
    /// From the picture made small.
    Estimated {
        /// The picture, or the latent.
        whole: Tensor<4>,
        /// The longer side of what it is made, the side of a tile.
        tile: usize,
        /// Whether they are pooled from the first halving on: in the encoder estimates shift colours.
        from_halving_pooled: bool,
    },
}

/// Takes a finished tile by its index, and says whether to go on.
pub type TileDone<'a> = dyn FnMut(usize, Tensor<4>) -> ControlFlow<()> + 'a;

/// Runs all steps on tiles that share the statistics of their norms, and hands each result, by its
/// index, to `done`, which may stop before the next.
pub fn run_tiled(steps: &[Step], statistics: Statistics, tiles: Vec<Tensor<4>>, done: &mut TileDone) {
    if tiles.len() == 1 {
        for whole in tiles {
            _ = done(0, run(steps, whole));
        }
        return;
    }
    let known = match statistics {
        Statistics::Pooled => Vec::new(),
        Statistics::Estimated { whole, tile, from_halving_pooled } => {
            estimated(steps, whole, tile, from_halving_pooled)
        }
    };
    let known = |at: usize| known.get(at).and_then(Option::as_ref);
    let through = |state: State, from: usize, to: usize| {
        on_workers(&state.x.device(), || {
            (from..to).fold(state, |state, at| match (&steps[at], known(at)) {
                (Step::Norm(_, after), Some(norm)) => {
                    State { x: normed(norm, *after, vec![state.x]), kept: state.kept }
                }
                (step, _) => state.advance(step),
            })
        })
    };
    let mut states: Vec<State> = tiles.into_iter().map(State::new).collect();
    let mut from = 0;
    for (at, step) in steps.iter().enumerate() {
        let Step::Norm(norm, after) = step else { continue };
        if known(at).is_some() {
            continue;
        }
        states = states.into_iter().map(|state| through(state, from, at)).collect();
        let pooled = Pooled::over(states.iter().map(|state| &state.x), norm);
        for state in &mut states {
            state.x = activated(pooled.apply(state.x.clone(), norm), *after);
        }
        from = at + 1;
    }
    for (index, state) in states.into_iter().enumerate() {
        if done(index, through(state, from, steps.len()).x).is_break() {
            return;
        }
    }
}

/// The norms of all steps with the statistics of the picture made small, up to the first halving if so asked; none where
/// they are no numbers.
fn estimated(steps: &[Step], whole: Tensor<4>, tile: usize, until_halving: bool) -> Vec<Option<KnownNorm>> {
    // The picture is made small as the network sees it.
    let own = steps.iter().take_while(|step| matches!(step, Step::Map(_))).count();
    let mut state = State::new(reduced(State::new(whole).through(&steps[..own]).x, tile));
    let Some(last) = steps.iter().rposition(|step| matches!(step, Step::Norm(..))) else { return Vec::new() };
    let mut known: Vec<_> = (0..own).map(|_| None).collect();
    for (at, step) in steps.iter().enumerate().take(last + 1).skip(own) {
        if until_halving && matches!(step, Step::Conv(conv) if conv.stride() > 1) {
            break;
        }
        let device = state.x.device();
        let Step::Norm(norm, after) = step else {
            state = on_workers(&device, || state.advance(step));
            known.push(None);
            continue;
        };
        let moments = on_workers(&device, || Moments::of(state.x.clone(), norm.groups()));
        if !moments.are_finite() {
            return Vec::new();
        }
        let norm = norm.known(&moments);
        if at < last {
            state.x = on_workers(&device, || normed(&norm, *after, vec![state.x]));
        }
        known.push(Some(norm));
    }
    known
}

/// `x[1, h, w, c]` with a longer side of `tile`, every so many pixels taken (PyTorch's `nearest-exact`), brought back to the
/// mean and deviation of each channel that it had, and cut off at what all channels had at least and at most.
fn reduced(x: Tensor<4>, tile: usize) -> Tensor<4> {
    let ([_, height, width, channels], device) = (x.dims(), x.device());
    let scale = tile as f64 / height.max(width) as f64;
    let step = (1.0 / scale) as f32;
    let places = |length: usize| {
        (0..(length as f64 * scale) as usize)
            .map(|at| ((((at as f64 + 0.5) * f64::from(step)) as f32) as usize).min(length - 1))
            .collect::<Vec<_>>()
    };
    let (rows, columns) = (places(height), places(width));
    let values: Vec<f32> = x.into_data().iter().collect();
    let picked: Vec<f32> = rows
        .iter()
        .flat_map(|row| columns.iter().map(move |column| (row * width + column) * channels))
        .flat_map(|at| values[at..at + channels].iter().copied())
        .collect();
    let (least, most) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    let spreads = |values: &[f32]| (0..channels).map(|c| spread(values, channels, c)).collect::<Vec<_>>();
    let (before, after) = (spreads(&values), spreads(&picked));
    let restored: Vec<f32> = picked
        .iter()
        .enumerate()
        .map(|(at, value)| {
            let ((mean, deviation), (own_mean, own_deviation)) =
                (before[at % channels], after[at % channels]);
            ((value - own_mean) / own_deviation * deviation + mean).clamp(least, most)
        })
        .collect();
    Tensor::from_data(TensorData::new(restored, [1, rows.len(), columns.len(), channels]), &device)
}

/// Mean and (unbiased) standard deviation of one channel.
fn spread(values: &[f32], channels: usize, channel: usize) -> (f32, f32) {
    let of_channel = || values.iter().skip(channel).step_by(channels).map(|value| f64::from(*value));
    let count = (values.len() / channels) as f64;
    let mean = of_channel().sum::<f64>() / count;
    let squares = of_channel().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean as f32, (squares / (count - 1.0)).sqrt() as f32)
}

/// Mean and variance of each group, `[b, 1, groups, 1]`, pooled over tiles by their numbers of pixels. As
/// in the reference the variance between the tiles' means is left out and overlaps count twice.
struct Pooled {
    mean: Tensor<4>,
    variance: Tensor<4>,
}

impl Pooled {
    fn over<'a>(tiles: impl Iterator<Item = &'a Tensor<4>> + Clone, norm: &GroupNorm) -> Self {
        let pixels = |x: &Tensor<4>| (x.dims()[1] * x.dims()[2]) as f64;
        let total: f64 = tiles.clone().map(pixels).sum();
        tiles
            .map(|x| {
                let share = pixels(x) / total;
                let height = x.dims()[1];
                let grouped = grouped(x.clone(), norm.groups());
                let mean = mean_of(grouped.clone(), height);
                let variance = mean_of((grouped - mean.clone()).square(), height);
                Self { mean: mean * share, variance: variance * share }
            })
            .reduce(|a, b| Self { mean: a.mean + b.mean, variance: a.variance + b.variance })
            .expect("at least one tile")
    }

    fn apply(&self, x: Tensor<4>, norm: &GroupNorm) -> Tensor<4> {
        let (shape, numbers) = (x.dims(), x.dtype());
        let deviation = (self.variance.clone() + norm.epsilon()).sqrt();
        let normal = (grouped(x, norm.groups()) - self.mean.clone()) / deviation;
        norm.scale_and_shift(normal.reshape(shape)).cast(numbers)
    }
}

/// Mean of each group of `[b, h · w, groups, c / groups]` as `[b, 1, groups, 1]`: of channels, then rows, then
/// columns, because one long sum of floats would lose digits.
fn mean_of(grouped: Tensor<4>, height: usize) -> Tensor<4> {
    let [batch, pixels, groups, _] = grouped.dims();
    let pixelwise = grouped.mean_dim(3).reshape([batch, height, pixels / height, groups]);
    pixelwise.mean_dim(2).mean_dim(1).reshape([batch, 1, groups, 1])
}

/// `[b, h, w, c]` as `[b, h · w, groups, c / groups]`, in f32.
fn grouped(x: Tensor<4>, groups: usize) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    x.cast(DType::F32).reshape([batch, height * width, groups, channels / groups])
}
