//! Blur kernels of Real-ESRGAN (reference 5.5): Gaussians, bells of other profiles, and the sinc that rings.

use super::limits::{self, Span};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// The kinds that are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A round Gaussian.
    Iso,
    /// A turned elliptic Gaussian.
    Aniso,
    /// A round bell exp(-q^beta / 2).
    GeneralizedIso,
    /// An elliptic one.
    GeneralizedAniso,
    /// A round plateau 1 / (1 + q^beta).
    PlateauIso,
    /// An elliptic one.
    PlateauAniso,
    /// The ideal low-pass filter, which rings.
    Sinc,
    /// None: the picture stays as it is.
    Impulse,
}

/// How a bell falls off with q, the squared distance in units of sigma.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// exp(-q / 2).
    Gaussian,
    /// exp(-q^beta / 2).
    Generalized(f32),
    /// 1 / (1 + q^beta).
    Plateau(f32),
}

/// A drawn kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kernel {
    /// A bell.
    Bell {
        /// Side, odd.
        size_px: usize,
        /// Along its axes.
        sigma_px: [f32; 2],
        /// By how much the first axis is turned.
        angle_rad: f32,
        /// How it falls off.
        profile: Profile,
    },
    /// The ideal low-pass filter.
    Sinc {
        /// Side, odd.
        size_px: usize,
        /// The highest frequency that passes; pi for all.
        cutoff_rad: f32,
    },
    /// Changes nothing.
    Impulse,
}

/// The step that blurs, or rings: from what its kernel is drawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    /// That it comes at all.
    #[serde(default = "limits::always", deserialize_with = "limits::chance")]
    pub chance: f64,
    /// Side; odd numbers between.
    #[serde(deserialize_with = "limits::size_px")]
    pub size_px: Span,
    /// Of bells, along each axis.
    #[serde(default = "limits::one", deserialize_with = "limits::sigma_px")]
    pub sigma_px: Span,
    /// Exponent of generalized bells: below and above 1 in half of the cases each.
    #[serde(default = "beta_generalized", deserialize_with = "limits::beta_generalized")]
    pub beta_generalized: Span,
    /// Exponent of plateaus, likewise.
    #[serde(default = "beta_plateau", deserialize_with = "limits::beta_plateau")]
    pub beta_plateau: Span,
    /// Cutoff of the sinc.
    #[serde(default = "cutoff_rad", deserialize_with = "limits::cutoff_rad")]
    pub cutoff_rad: Span,
    /// The same for kernels of 13 pixels and more.
    #[serde(default = "cutoff_rad_large", deserialize_with = "limits::cutoff_rad_large")]
    pub cutoff_rad_large: Span,
    /// Weights of the kinds.
    #[serde(deserialize_with = "limits::kinds")]
    pub kinds: BTreeMap<Kind, f64>,
}

// What Real-ESRGAN trains with.

fn beta_generalized() -> Span {
    Span { low: 0.5, high: 4.0 }
}

fn beta_plateau() -> Span {
    Span { low: 1.0, high: 2.0 }
}

fn cutoff_rad() -> Span {
    Span { low: PI / 3.0, high: PI }
}

fn cutoff_rad_large() -> Span {
    Span { low: PI / 5.0, high: PI }
}

/// From this side on a sinc has room for lower frequencies.
const LARGE_PX: usize = 13;

impl Blur {
    /// Draws a kernel.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> Kernel {
        let odd = |px: f64| (px as usize - 1) / 2;
        let size_px = 2 * random.random_range(odd(self.size_px.low)..=odd(self.size_px.high)) + 1;
        let mut left = random.random::<f64>() * self.kinds.values().sum::<f64>();
        let chosen = self.kinds.iter().find(|(_, weight)| {
            left -= **weight;
            left < 0.0
        });
        // The last one with a weight, should rounding leave a rest.
        let kind = chosen.or(self.kinds.iter().rfind(|(_, weight)| **weight > 0.0)).map(|(kind, _)| *kind);
        let is_round = matches!(kind, Some(Kind::Iso | Kind::GeneralizedIso | Kind::PlateauIso));
        let profile = match kind {
            Some(Kind::Iso | Kind::Aniso) => Profile::Gaussian,
            Some(Kind::GeneralizedIso | Kind::GeneralizedAniso) => {
                Profile::Generalized(around_one(self.beta_generalized, random) as f32)
            }
            Some(Kind::PlateauIso | Kind::PlateauAniso) => {
                Profile::Plateau(around_one(self.beta_plateau, random) as f32)
            }
            Some(Kind::Sinc) => {
                let cutoff = if size_px < LARGE_PX { self.cutoff_rad } else { self.cutoff_rad_large };
                return Kernel::Sinc { size_px, cutoff_rad: cutoff.draw(random) as f32 };
            }
            Some(Kind::Impulse) | None => return Kernel::Impulse,
        };
        let sigma = self.sigma_px.draw(random) as f32;
        let (sigma_px, angle_rad) = match is_round {
            true => ([sigma; 2], 0.0),
            false => {
                let turn = Span { low: -PI, high: PI };
                ([sigma, self.sigma_px.draw(random) as f32], turn.draw(random) as f32)
            }
        };
        Kernel::Bell { size_px, sigma_px, angle_rad, profile }
    }
}

fn around_one(span: Span, random: &mut ChaCha8Rng) -> f64 {
    let below = Span { low: span.low, high: 1.0 };
    let above = Span { low: 1.0, high: span.high };
    if random.random::<f64>() < 0.5 { below } else { above }.draw(random)
}

impl Kernel {
    /// Side in pixels.
    pub fn size_px(&self) -> usize {
        match *self {
            Self::Bell { size_px, .. } | Self::Sinc { size_px, .. } => size_px,
            Self::Impulse => 1,
        }
    }

    /// Whether it can be computed: what a file holds may be anything.
    pub(super) fn is_sound(&self) -> bool {
        let side = |px: usize| px % 2 == 1 && limits::SIZE_PX.admits(px as f64);
        match *self {
            Self::Impulse => true,
            Self::Sinc { size_px, cutoff_rad } => {
                side(size_px) && limits::CUTOFF_RAD.admits(cutoff_rad.into())
            }
            Self::Bell { size_px, sigma_px, angle_rad, profile } => {
                let beta = match profile {
                    Profile::Gaussian => 1.0,
                    Profile::Generalized(beta) | Profile::Plateau(beta) => beta,
                };
                side(size_px)
                    && sigma_px.iter().all(|&sigma| limits::SIGMA_PX.admits(sigma.into()))
                    && angle_rad.is_finite()
                    && limits::BETA_GENERALIZED.admits(beta.into())
            }
        }
    }

    /// Its weights, row by row; they sum to 1.
    pub fn weights(&self) -> Vec<f64> {
        let size = self.size_px();
        let radius = (size / 2) as f64;
        let at = |value: &dyn Fn(f64, f64) -> f64| {
            let cells = (0..size).flat_map(|y| (0..size).map(move |x| (x, y)));
            cells.map(|(x, y)| value(x as f64 - radius, y as f64 - radius)).collect::<Vec<f64>>()
        };
        let mut weights = match *self {
            Self::Impulse => vec![1.0],
            Self::Sinc { cutoff_rad, .. } => at(&|x, y| {
                let cutoff_rad = f64::from(cutoff_rad);
                let distance = x.hypot(y);
                if distance == 0.0 {
                    return cutoff_rad * cutoff_rad / (4.0 * PI);
                }
                cutoff_rad * libm::j1(cutoff_rad * distance) / (2.0 * PI * distance)
            }),
            Self::Bell { sigma_px, angle_rad, profile, .. } => {
                let (sin, cos) = f64::from(angle_rad).sin_cos();
                let [a, b] = sigma_px.map(|sigma| f64::from(sigma).powi(2));
                // The covariance, turned, and its inverse.
                let (xx, yy) = (a * cos * cos + b * sin * sin, a * sin * sin + b * cos * cos);
                let xy = (a - b) * sin * cos;
                let determinant = a * b;
                at(&|x, y| {
                    let q = (yy * x * x - 2.0 * xy * x * y + xx * y * y) / determinant;
                    match profile {
                        Profile::Gaussian => (-0.5 * q).exp(),
                        Profile::Generalized(beta) => (-0.5 * q.max(0.0).powf(beta.into())).exp(),
                        Profile::Plateau(beta) => 1.0 / (1.0 + q.max(0.0).powf(beta.into())),
                    }
                })
            }
        };
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        weights
    }
}
