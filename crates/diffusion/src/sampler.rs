//! What all samplers have in common.

use crate::guidance::{Condition, Guidance};
use crate::noise::Noise;
use crate::schedule::{Prediction, Schedule};
use crate::{Latent, edm, spaced};
use std::fmt;
use std::str::FromStr;

/// The samplers by the reference's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// Ancestral DDPM on a part of the timesteps (reference 2.4).
    Spaced,
    /// DPM-Solver++(3M) SDE in k-diffusion's form (reference 2.7), the default.
    Dpmpp3mSde,
}

impl Sampler {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Spaced, Self::Dpmpp3mSde];
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Spaced => "spaced",
            Self::Dpmpp3mSde => "edm_dpm++_3m_sde",
        })
    }
}

impl FromStr for Sampler {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|sampler| sampler.to_string() == name).ok_or_else(|| {
            format!("no sampler `{name}`: there are {}", Self::ALL.map(|s| s.to_string()).join(", "))
        })
    }
}

/// The settings of one run.
#[derive(Clone, Debug)]
pub struct Sampling<'a> {
    /// Of the network.
    pub schedule: &'a Schedule,
    /// Of the network.
    pub prediction: Prediction,
    /// Evaluations of the network, guidance not counted.
    pub steps: usize,
    /// Guidance by text.
    pub guidance: Guidance,
    /// Whether there is a negative prompt to guide away from.
    pub has_negative: bool,
    /// Share of noise in the SDE samplers, 0 to 1.
    pub eta: f64,
    /// Scale of that noise.
    pub s_noise: f64,
}

/// What a step tells.
pub struct Step<'a> {
    /// Steps done, from 1.
    pub done: usize,
    /// Of how many.
    pub total: usize,
    /// The picture's latent as it is estimated now.
    pub estimate: &'a Latent,
}

/// Why sampling ended without a latent.
#[derive(Debug, thiserror::Error)]
pub enum SampleError<E> {
    /// Settings that do not go together.
    #[error("{0}")]
    Setting(String),
    /// The network, or whoever stopped it.
    #[error(transparent)]
    Network(E),
}

/// The network's prediction for a latent at a time with a text.
pub type Denoise<'a, E> = dyn FnMut(&Latent, f64, Condition) -> Result<Latent, E> + 'a;

impl Sampling<'_> {
    /// Samples from pure noise `x_t` to a clean latent.
    pub fn run<E>(
        &self,
        sampler: Sampler,
        x_t: Latent,
        noise: &mut dyn Noise,
        denoise: &mut Denoise<E>,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Latent, SampleError<E>> {
        match sampler {
            Sampler::Spaced => spaced::sample(self, x_t, noise, denoise, on_step),
            Sampler::Dpmpp3mSde => edm::sample_dpmpp_3m_sde(self, x_t, noise, denoise, on_step),
        }
    }
}
