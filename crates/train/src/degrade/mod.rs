//! Degradations: from a true picture to the small, blurred, noisy, compressed one that it would have been.
//!
//! A [`Recipe`] is data: ranges, read from TOML. [`Recipe::draw`] gives a [`Drawn`] degradation, which is data too
//! and holds the seeds of its noise, so that applied to the same picture it gives the same result. Drawn by a
//! [`generator`] from a seed and a name, a picture's degradation does not depend on which others are degraded
//! with it.

pub mod chain;
mod codec;
pub mod filter;
pub mod jpeg;
pub mod kernels;
pub mod limits;
pub mod noise;
pub mod pool;
pub mod presets;
pub mod resample;
pub mod simple;
pub mod usm;

pub use presets::{PRESETS, preset};

use chain::Chain;
use diffbir_imaging::Raster;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use simple::{Degradation, Ranges};

/// From what a degradation is drawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// Blur, reduction, noise and JPEG.
    Simple(Ranges),
    /// Any steps.
    Chain(Chain),
}

/// A drawn degradation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drawn {
    /// Blur, reduction, noise and JPEG.
    Simple(Degradation),
    /// Any steps.
    Chain(chain::Drawn),
}

/// What is wrong with a recipe.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RecipeError {
    /// Where, from 1.
    pub line: usize,
    /// What.
    pub reason: String,
}

/// A picture that a codec does not take.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{width_px} x {height_px} pixels are too many for {codec}, which takes {most_px} a side")]
pub struct DegradeError {
    /// Which.
    pub codec: &'static str,
    /// Of the picture on the way.
    pub width_px: usize,
    /// The same.
    pub height_px: usize,
    /// What it takes.
    pub most_px: u16,
}

impl Recipe {
    /// Leaves a picture as it is.
    pub fn nothing() -> Self {
        Self::Chain(Chain { factor: limits::one(), sharpen: false, steps: Vec::new() })
    }

    /// Reads a recipe: docs/degradations.md.
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            RecipeError { line, reason: error.message().to_string() }
        })?;
        let (steps, most) = (recipe.most_steps(), chain::MOST_STEPS);
        if steps > most {
            let reason = format!("up to {steps} steps with all repetitions; {most} are the most");
            return Err(RecipeError { line: 1, reason });
        }
        Ok(recipe)
    }

    fn most_steps(&self) -> usize {
        match self {
            Self::Simple(_) => 1,
            Self::Chain(chain) => chain.most_steps(),
        }
    }

    /// The same recipe, reducing by this factor; nothing where no step heeds it.
    pub fn with_factor(self, factor: usize) -> Option<Self> {
        match self {
            Self::Simple(ranges) => Some(Self::Simple(Ranges { factor, ..ranges })),
            Self::Chain(chain) if chain.heeds_factor() => {
                let factor = limits::Span { low: factor as f64, high: factor as f64 };
                Some(Self::Chain(Chain { factor, ..chain }))
            }
            Self::Chain(_) => None,
        }
    }

    /// Draws for a batch: with [`Chain::draw_batch`], and simple ones each for itself.
    pub fn draw_batch(&self, count: usize, random: &mut ChaCha8Rng) -> Vec<Drawn> {
        match self {
            Self::Simple(_) => (0..count).map(|_| self.draw(random)).collect(),
            Self::Chain(chain) => chain.draw_batch(count, random).into_iter().map(Drawn::Chain).collect(),
        }
    }

    /// Draws a degradation.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> Drawn {
        match self {
            Self::Simple(ranges) => Drawn::Simple(Degradation::draw(ranges, random)),
            Self::Chain(chain) => Drawn::Chain(chain.draw(random)),
        }
    }
}

impl Drawn {
    /// Degrades an RGB picture.
    pub fn apply(&self, picture: &Raster) -> Result<Raster, DegradeError> {
        match self {
            Self::Simple(degradation) => degradation.apply(picture),
            Self::Chain(drawn) => drawn.apply(picture),
        }
    }

    /// Both sides of a training pair: what is aimed at, which may be sharpened, and the degraded picture.
    pub fn pair(&self, picture: Raster) -> Result<(Raster, Raster), DegradeError> {
        match self {
            Self::Simple(degradation) => degradation.apply(&picture).map(|degraded| (picture, degraded)),
            Self::Chain(drawn) => {
                let truth = drawn.truth(&picture);
                drawn.apply_steps(truth.clone()).map(|degraded| (truth, degraded))
            }
        }
    }

    /// What cannot be computed of one that was read from a file.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Simple(degradation) => degradation.fault(),
            Self::Chain(drawn) => drawn.fault(),
        }
    }
}

/// The generator for one picture: from the seed and its name.
pub fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    ChaCha8Rng::seed_from_u64(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A standard normal number (Box-Muller, one of the pair).
pub(crate) fn normal(random: &mut ChaCha8Rng) -> f32 {
    let (u, v) = (1.0 - random.random::<f32>(), random.random::<f32>());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}
