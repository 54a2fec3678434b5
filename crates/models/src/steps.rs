//! An autoencoder's half as a list of steps, so that one description runs whole or in tiles.
//!
//! Tiles share nothing but the statistics of the group norms: all tiles go up to a norm, the norm's mean
//! and variance are pooled over them, and they go on (reference 3.4, the Tiled VAE in its exact mode).
//! After the last norm each tile runs to the end by itself, so that only one is large at a time.

use burn::tensor::{DType, Tensor};
use diffbir_nn::layers::{Conv2d, GroupNorm};
use diffbir_nn::{on_workers, ops};
use std::ops::ControlFlow;

/// What follows a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x · sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// One step over `[b, h, w, c]`.
pub enum Step<'a> {
    /// Any function that looks at neighbouring pixels at most.
    Map(Box<dyn Fn(Tensor<4>) -> Tensor<4> + Sync + 'a>),
    /// A group norm and what follows it; pooled over tiles.
    Norm(&'a GroupNorm, Activation),
    /// Remembers the activations.
    Keep,
    /// Adds what was remembered last.
    AddKept,
    /// A convolution, to which is added what was remembered last, through a second one if it has another width.
    ConvOntoKept(&'a Conv2d, Option<&'a Conv2d>),
}

impl<'a> Step<'a> {
    /// A step of one function.
    pub fn map(f: impl Fn(Tensor<4>) -> Tensor<4> + Sync + 'a) -> Self {
        Self::Map(Box::new(f))
    }

    /// A convolution.
    pub fn conv(conv: &'a Conv2d) -> Self {
        Self::map(|x| conv.forward(x))
    }
}

/// Activations on their way, with what was kept.
struct State {
    x: Tensor<4>,
    kept: Vec<Tensor<4>>,
}

impl State {
    fn new(x: Tensor<4>) -> Self {
        Self { x, kept: Vec::new() }
    }

    /// Through steps that are no pooled norms.
    fn through(self, steps: &[Step]) -> Self {
        on_workers(&self.x.device(), || steps.iter().fold(self, Self::advance))
    }

    /// One step that is not a pooled norm.
    fn advance(self, step: &Step) -> Self {
        let Self { x, mut kept } = self;
        let x = match step {
            Step::Map(f) => f(x),
            Step::Norm(norm, Activation::None) => norm.forward(x),
            Step::Norm(norm, Activation::Silu) => norm.forward_silu(x),
            Step::Norm(norm, Activation::Relu) => ops::relu(norm.forward(x)),
            Step::Keep => {
                kept.push(x.clone());
                x
            }
            Step::AddKept => ops::sum(kept.pop().expect("every addition follows a keep"), x),
            Step::ConvOntoKept(conv, shortcut) => {
                let skip = kept.pop().expect("every addition follows a keep");
                let skip = shortcut.iter().fold(skip, |skip, shortcut| shortcut.forward(skip));
                conv.forward_onto(x, skip)
            }
        };
        Self { x, kept }
    }
}

/// Runs all steps on a whole picture.
pub fn run(steps: &[Step], x: Tensor<4>) -> Tensor<4> {
    State::new(x).through(steps).x
}

/// Runs all steps on tiles that share the statistics of their norms, and hands each result, by its
/// index, to `done`, which may stop before the next.
pub fn run_tiled(
    steps: &[Step],
    tiles: Vec<Tensor<4>>,
    mut done: impl FnMut(usize, Tensor<4>) -> ControlFlow<()>,
) {
    if tiles.len() == 1 {
        for whole in tiles {
            _ = done(0, run(steps, whole));
        }
        return;
    }
    let mut states: Vec<State> = tiles.into_iter().map(State::new).collect();
    let mut rest = steps;
    while let Some(at) = rest.iter().position(|step| matches!(step, Step::Norm(..))) {
        let Step::Norm(norm, after) = &rest[at] else { unreachable!("found as a norm") };
        states = states.into_iter().map(|state| state.through(&rest[..at])).collect();
        let pooled = Pooled::over(states.iter().map(|state| &state.x), norm);
        for state in &mut states {
            let y = pooled.apply(state.x.clone(), norm);
            state.x = match after {
                Activation::None => y,
                Activation::Silu => ops::silu(y),
                Activation::Relu => ops::relu(y),
            };
        }
        rest = &rest[at + 1..];
    }
    for (index, state) in states.into_iter().enumerate() {
        if done(index, state.through(rest).x).is_break() {
            return;
        }
    }
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
