//! An autoencoder's half as a list of steps, so that one description runs whole, in bands
//! ([`bands`](crate::bands)) or in tiles ([`tiled`](crate::tiled)).

use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, GroupNorm, KnownNorm};
use diffbir_nn::{on_workers, ops};

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

/// A function of activations.
pub type Function<'a> = Box<dyn Fn(Tensor<4>) -> Tensor<4> + Sync + 'a>;

/// One step over `[b, h, w, c]`.
pub enum Step<'a> {
    /// A function of each pixel by itself.
    Map(Function<'a>),
    /// A function of the same height and width that sees so many rows and columns around a pixel, and zeros around the picture.
    Near(usize, Function<'a>),
    /// A function of all pixels.
    Whole(Function<'a>),
    /// A convolution.
    Conv(&'a Conv2d),
    /// A group norm and what follows it.
    Norm(&'a GroupNorm, Activation),
    /// Remembers the activations.
    Keep,
    /// Adds what was remembered last.
    AddKept,
    /// A convolution, to which is added what was remembered last, through a second one, of single pixels, if it has another width.
    ConvOntoKept(&'a Conv2d, Option<&'a Conv2d>),
}

impl<'a> Step<'a> {
    /// A step of one function of each pixel.
    pub fn map(f: impl Fn(Tensor<4>) -> Tensor<4> + Sync + 'a) -> Self {
        Self::Map(Box::new(f))
    }

    /// A step of one function that sees `reach` pixels around.
    pub fn near(reach: usize, f: impl Fn(Tensor<4>) -> Tensor<4> + Sync + 'a) -> Self {
        Self::Near(reach, Box::new(f))
    }

    /// A step of one function that sees everything.
    pub fn whole(f: impl Fn(Tensor<4>) -> Tensor<4> + Sync + 'a) -> Self {
        Self::Whole(Box::new(f))
    }
}

/// The activation of what a norm gives.
pub(crate) fn activated(x: Tensor<4>, activation: Activation) -> Tensor<4> {
    match activation {
        Activation::None => x,
        Activation::Silu => ops::silu(x),
        Activation::Relu => ops::relu(x),
    }
}

/// A norm whose statistics are known, over the pieces of a picture one below the other.
pub(crate) fn normed(norm: &KnownNorm, after: Activation, pieces: Vec<Tensor<4>>) -> Tensor<4> {
    let y = norm.forward(pieces, after == Activation::Silu);
    if after == Activation::Relu { ops::relu(y) } else { y }
}

/// Activations on their way, with what was kept.
pub(crate) struct State {
    pub x: Tensor<4>,
    pub kept: Vec<Tensor<4>>,
}

impl State {
    pub fn new(x: Tensor<4>) -> Self {
        Self { x, kept: Vec::new() }
    }

    /// Through steps, one after the other.
    pub fn through(self, steps: &[Step]) -> Self {
        on_workers(&self.x.device(), || steps.iter().fold(self, Self::advance))
    }

    /// One step.
    pub fn advance(self, step: &Step) -> Self {
        let Self { x, mut kept } = self;
        let x = match step {
            Step::Map(f) | Step::Near(_, f) | Step::Whole(f) => f(x),
            Step::Conv(conv) => conv.forward(x),
            Step::Norm(norm, Activation::Silu) => norm.forward_silu(x),
            Step::Norm(norm, after) => activated(norm.forward(x), *after),
            Step::Keep => {
                kept.push(x.clone());
                x
            }
            Step::AddKept => ops::sum(kept.pop().expect(KEPT), x),
            Step::ConvOntoKept(conv, shortcut) => {
                conv.forward_onto(x, through(*shortcut, kept.pop().expect(KEPT)))
            }
        };
        Self { x, kept }
    }
}

/// What holds of every list of steps.
pub(crate) const KEPT: &str = "every addition follows a keep";

/// What was kept, through a convolution if there is one.
pub(crate) fn through(shortcut: Option<&Conv2d>, kept: Tensor<4>) -> Tensor<4> {
    shortcut.into_iter().fold(kept, |kept, shortcut| shortcut.forward(kept))
}

/// Runs all steps on a whole picture.
pub fn run(steps: &[Step], x: Tensor<4>) -> Tensor<4> {
    State::new(x).through(steps).x
}
