//! Degradations as a list of steps: what DiffBIR trains with is made of these.

use super::kernels::{Blur, Kernel};
use super::limits::{self, Span};
use super::noise::{self, Noise};
use super::resample::{self, Filter};
use super::{DegradeError, codec, filter, jpeg, usm};
use diffbir_imaging::Raster;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A recipe: steps with the ranges that they are drawn from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The small size, which steps may ask for, is the picture's divided by this.
    #[serde(default = "limits::one", deserialize_with = "limits::factor")]
    pub factor: Span,
    /// Whether the true picture is sharpened first.
    #[serde(default)]
    pub sharpen: bool,
    /// In this order.
    #[serde(deserialize_with = "limits::some")]
    pub steps: Vec<Step>,
}

/// A step of a recipe.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Blurs, or rings.
    Blur(Blur),
    /// Resizes without antialiasing.
    Resize(Resize),
    /// Adds noise.
    Noise(AddNoise),
    /// Compresses and decompresses.
    Compress(Compress),
    /// One list of steps or another.
    Either(Either),
    /// A list of steps several times, drawn anew each time.
    Repeat(Repeat),
    /// Rounds to levels of 255.
    Round,
}

/// What a resize starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// The size that the picture has by then.
    #[default]
    Current,
    /// The small size.
    Small,
    /// The first size.
    Original,
}

/// Resizes to a multiple of a size.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Of which size.
    #[serde(default)]
    pub to: To,
    /// Chance of a multiple from 1 to the upper end of `scale`.
    #[serde(default, deserialize_with = "limits::up")]
    pub up: f64,
    /// Chance of one from the lower end of `scale` to 1. In the rest of the cases it is 1.
    #[serde(default, deserialize_with = "limits::down")]
    pub down: f64,
    /// The multiple.
    #[serde(default = "limits::one", deserialize_with = "limits::scale")]
    pub scale: Span,
    /// One of these.
    #[serde(deserialize_with = "limits::some")]
    pub filters: Vec<Filter>,
}

/// Adds Gaussian or Poisson noise.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddNoise {
    /// Chance that it is Gaussian.
    #[serde(default = "limits::always", deserialize_with = "limits::gaussian")]
    pub gaussian: f64,
    /// Standard deviation of Gaussian noise, of 255.
    #[serde(default = "limits::one", deserialize_with = "limits::sigma_levels")]
    pub sigma_levels: Span,
    /// Scale of Poisson noise.
    #[serde(default = "limits::one", deserialize_with = "limits::poisson_scale")]
    pub poisson_scale: Span,
    /// Chance that it is the same in all channels.
    #[serde(default, deserialize_with = "limits::grey")]
    pub grey: f64,
}

/// Codecs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Real-ESRGAN's, of any quality.
    DiffJpeg,
    /// A JPEG file, 4:2:0; of whole qualities, the fraction cut off.
    Jpeg,
    /// A lossy WebP file, likewise.
    WebP,
}

/// Compresses and decompresses.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compress {
    /// One of these.
    #[serde(deserialize_with = "limits::some")]
    pub codecs: Vec<Codec>,
    /// 1 to 100.
    #[serde(deserialize_with = "limits::quality")]
    pub quality: Span,
}

/// One list of steps or another.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Either {
    /// Of the first.
    #[serde(deserialize_with = "limits::chance")]
    pub chance: f64,
    /// One.
    pub first: Vec<Step>,
    /// The other.
    #[serde(default)]
    pub second: Vec<Step>,
}

/// A list of steps several times.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// How often; whole numbers between.
    #[serde(deserialize_with = "limits::times")]
    pub times: Span,
    /// What.
    #[serde(deserialize_with = "limits::some")]
    pub steps: Vec<Step>,
}

/// A drawn degradation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// By how much the small size is smaller.
    pub factor: f32,
    /// Whether the true picture is sharpened first.
    pub sharpen: bool,
    /// In this order.
    pub steps: Vec<DrawnStep>,
}

/// A drawn step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DrawnStep {
    /// Correlates with this kernel.
    Blur(Kernel),
    /// Resizes.
    Resize {
        /// A multiple of which size.
        to: To,
        /// Which.
        scale: f32,
        /// How.
        filter: Filter,
    },
    /// Adds noise.
    Noise(Noise),
    /// Compresses and decompresses.
    Compress {
        /// By this.
        codec: Codec,
        /// 1 to 100.
        quality: f32,
    },
    /// Rounds to levels of 255.
    Round,
}

/// The most steps of a recipe, repetitions counted.
pub(super) const MOST_STEPS: usize = 200;

/// No picture on the way has more than this many times the sides of the first.
const MOST_ENLARGED: usize = 4;

impl Chain {
    /// Draws a degradation.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> Drawn {
        self.draw_sharing(&mut ChaCha8Rng::from_rng(random), random)
    }

    /// Draws for a batch as the reference's training does: whether and how to resize, which noise, whether to
    /// blur, which order and the pattern of grey Gaussian noise are the same for all of its pictures.
    pub fn draw_batch(&self, count: usize, random: &mut ChaCha8Rng) -> Vec<Drawn> {
        let shared = ChaCha8Rng::from_rng(random);
        (0..count).map(|_| self.draw_sharing(&mut shared.clone(), random)).collect()
    }

    /// Nothing drawn from `own` decides how much is drawn from `shared`, so that clones of it stay in step.
    fn draw_sharing(&self, shared: &mut ChaCha8Rng, own: &mut ChaCha8Rng) -> Drawn {
        let factor = self.factor.draw(shared) as f32;
        let mut steps = Vec::new();
        draw_all(&self.steps, shared, own, &mut steps);
        Drawn { factor, sharpen: self.sharpen, steps }
    }

    /// The most steps that can be drawn.
    pub(super) fn most_steps(&self) -> usize {
        most(&self.steps)
    }

    /// Whether a step asks for the small size.
    pub(super) fn heeds_factor(&self) -> bool {
        heeds_factor(&self.steps)
    }
}

fn most(steps: &[Step]) -> usize {
    let one = |step: &Step| match step {
        Step::Either(Either { first, second, .. }) => most(first).max(most(second)),
        Step::Repeat(Repeat { times, steps }) => most(steps).saturating_mul(times.high as usize),
        _ => 1,
    };
    steps.iter().map(one).fold(0, usize::saturating_add)
}

fn heeds_factor(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Resize(resize) => resize.to == To::Small,
        Step::Either(Either { first, second, .. }) => heeds_factor(first) || heeds_factor(second),
        Step::Repeat(repeat) => heeds_factor(&repeat.steps),
        _ => false,
    })
}

fn draw_all(steps: &[Step], shared: &mut ChaCha8Rng, own: &mut ChaCha8Rng, out: &mut Vec<DrawnStep>) {
    for step in steps {
        match step {
            Step::Blur(blur) => {
                if shared.random::<f64>() < blur.chance {
                    out.push(DrawnStep::Blur(blur.draw(own)));
                }
            }
            Step::Resize(resize) => {
                let way = shared.random::<f64>();
                let (low, high) = if way < resize.up {
                    (1.0, resize.scale.high)
                } else if way < resize.up + resize.down {
                    (resize.scale.low, 1.0)
                } else {
                    (1.0, 1.0)
                };
                let scale = Span { low, high }.draw(shared) as f32;
                let filter = one_of(&resize.filters, shared);
                out.push(DrawnStep::Resize { to: resize.to, scale, filter });
            }
            Step::Noise(add) => {
                let is_gaussian = shared.random::<f64>() < add.gaussian;
                let common: u32 = shared.random();
                let kind = match is_gaussian {
                    true => noise::Kind::Gaussian(add.sigma_levels.draw(own) as f32),
                    false => noise::Kind::Poisson(add.poisson_scale.draw(own) as f32),
                };
                let grey = own.random::<f64>() < add.grey;
                let seed = own.random();
                let seed = if grey && is_gaussian { common } else { seed };
                out.push(DrawnStep::Noise(Noise { kind, grey, seed }));
            }
            Step::Compress(compress) => {
                let codec = one_of(&compress.codecs, shared);
                let drawn = compress.quality.draw(own) as f32;
                let quality = if codec == Codec::DiffJpeg { drawn } else { drawn.floor() };
                out.push(DrawnStep::Compress { codec, quality });
            }
            Step::Either(either) => {
                let is_first = shared.random::<f64>() < either.chance;
                draw_all(if is_first { &either.first } else { &either.second }, shared, own, out);
            }
            Step::Repeat(repeat) => {
                let (low, high) = (repeat.times.low as usize, repeat.times.high as usize);
                for _ in 0..shared.random_range(low..=high) {
                    draw_all(&repeat.steps, shared, own, out);
                }
            }
            Step::Round => out.push(DrawnStep::Round),
        }
    }
}

fn one_of<T: Copy>(list: &[T], random: &mut ChaCha8Rng) -> T {
    list[random.random_range(0..list.len())]
}

impl Drawn {
    /// What training aims at.
    pub fn truth(&self, picture: &Raster) -> Raster {
        if self.sharpen { usm::sharpen(picture) } else { picture.clone() }
    }

    /// Degrades an RGB picture.
    pub fn apply(&self, picture: &Raster) -> Result<Raster, DegradeError> {
        self.apply_steps(self.truth(picture))
    }

    /// Degrades what [`Drawn::truth`] gave.
    pub(super) fn apply_steps(&self, truth: Raster) -> Result<Raster, DegradeError> {
        let first = truth.size();
        let mut now = truth;
        for step in &self.steps {
            now = match *step {
                DrawnStep::Blur(Kernel::Impulse) => now,
                DrawnStep::Blur(kernel) => filter::square(&now, &kernel.weights()),
                DrawnStep::Resize { to, scale, filter } => {
                    let small = |side: usize| (side as f64 / f64::from(self.factor)) as usize;
                    let (width, height) = match to {
                        To::Current => (now.width_px, now.height_px),
                        To::Small => (small(first.0), small(first.1)),
                        To::Original => first,
                    };
                    let scaled = |side: usize, first: usize| {
                        ((side as f64 * f64::from(scale)) as usize).clamp(1, first * MOST_ENLARGED)
                    };
                    let (width, height) = (scaled(width, first.0), scaled(height, first.1));
                    // As a multiple of the current size PyTorch is given it.
                    let given = (to == To::Current).then_some(scale.into());
                    resample::resize(&now, width, height, given, filter)
                }
                DrawnStep::Noise(noise) => noise.apply(&now),
                DrawnStep::Compress { codec, quality } => {
                    now.data.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
                    match codec {
                        Codec::DiffJpeg => jpeg::diff_jpeg(&now, quality),
                        Codec::Jpeg => codec::jpeg(&now, quality as u8)?,
                        Codec::WebP => codec::webp(&now, quality as u8)?,
                    }
                }
                DrawnStep::Round => {
                    let round = |value: &mut f32| {
                        *value = (*value * 255.0).round_ties_even().clamp(0.0, 255.0) / 255.0;
                    };
                    now.data.iter_mut().for_each(round);
                    now
                }
            };
        }
        Ok(now)
    }

    /// The first thing that cannot be computed: what a file holds may be anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if !limits::FACTOR.admits(self.factor.into()) {
            return Some("factor is out of range");
        }
        if self.steps.len() > MOST_STEPS {
            return Some("there are too many steps");
        }
        self.steps.iter().find_map(|step| match *step {
            DrawnStep::Blur(kernel) => (!kernel.is_sound()).then_some("a kernel is out of range"),
            DrawnStep::Resize { scale, .. } => {
                (!limits::SCALE.admits(scale.into())).then_some("a scale is out of range")
            }
            DrawnStep::Noise(Noise { kind, .. }) => {
                let is_sound = match kind {
                    noise::Kind::Gaussian(levels) => limits::SIGMA_LEVELS.admits(levels.into()),
                    noise::Kind::Poisson(scale) => limits::POISSON_SCALE.admits(scale.into()),
                };
                (!is_sound).then_some("noise is out of range")
            }
            DrawnStep::Compress { quality, .. } => {
                (!limits::QUALITY.admits(quality.into())).then_some("a quality is out of range")
            }
            DrawnStep::Round => None,
        })
    }
}
