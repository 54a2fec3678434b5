//! What all samplers have in common.

use crate::guidance::{Condition, Guidance};
use crate::noise::{Counting, Noise, Source, TorchNoise};
use crate::schedule::{LAST_T, Prediction, Schedule};
use crate::{Latent, ddim, dpmpp, edm, spaced};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// The samplers of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sampler {
    /// Ancestral DDPM on a part of the timesteps (reference 2.4).
    Spaced,
    /// DDIM without noise (reference 2.5).
    Ddim,
    /// DPM-Solver++(2M) on the schedule's own time (reference 2.6).
    DpmppM2,
    /// One of the k-diffusion solvers (reference 2.7).
    Edm(edm::Solver),
}

impl Sampler {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::DpmppM2,
        Self::Spaced,
        Self::Ddim,
        Self::Edm(edm::Solver::Euler),
        Self::Edm(edm::Solver::EulerA),
        Self::Edm(edm::Solver::Heun),
        Self::Edm(edm::Solver::Dpm2),
        Self::Edm(edm::Solver::Dpm2A),
        Self::Edm(edm::Solver::Lms),
        Self::Edm(edm::Solver::Dpmpp2sA),
        Self::Edm(edm::Solver::DpmppSde),
        Self::Edm(edm::Solver::Dpmpp2m),
        Self::Edm(edm::Solver::Dpmpp2mSde),
        Self::Edm(edm::Solver::Dpmpp3mSde),
    ];

    /// The reference's default.
    pub const DEFAULT: Self = Self::Edm(edm::Solver::Dpmpp3mSde);

    /// The reference's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spaced => "spaced",
            Self::Ddim => "ddim",
            Self::DpmppM2 => "dpm++_m2",
            Self::Edm(solver) => solver.name(),
        }
    }

    /// Whether it can start from a latent at any timestep, and not at the last alone.
    pub fn starts_midway(self) -> bool {
        !matches!(self, Self::Ddim | Self::DpmppM2)
    }

    /// The parameters that have an effect on it; it ignores the others.
    pub fn heeds(self) -> &'static [Parameter] {
        match self {
            Self::Spaced | Self::Ddim | Self::DpmppM2 => &[],
            Self::Edm(solver) => solver.heeds(),
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Sampler> for String {
    fn from(sampler: Sampler) -> Self {
        sampler.name().into()
    }
}

impl TryFrom<String> for Sampler {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl FromStr for Sampler {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|sampler| sampler.name() == name)
            .ok_or_else(|| format!("no sampler `{name}`: there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A setting that only some samplers heed: a field of [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// [`Parameters::s_churn`].
    SChurn,
    /// [`Parameters::s_tmin`].
    STmin,
    /// [`Parameters::s_tmax`].
    STmax,
    /// [`Parameters::s_noise`].
    SNoise,
    /// [`Parameters::eta`].
    Eta,
    /// [`Parameters::order`].
    Order,
}

/// The settings that only some samplers heed (reference 2.7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Noise added before the steps, over all of them; at most `steps · (sqrt(2) - 1)` counts.
    pub s_churn: f64,
    /// The smallest sigma at which it is added.
    pub s_tmin: f64,
    /// The largest.
    pub s_tmax: f64,
    /// Scale of all noise that a sampler adds.
    pub s_noise: f64,
    /// Share of noise in the ancestral and SDE samplers: 0 none, 1 all.
    pub eta: f64,
    /// Order of linear multistep, 1 to 8.
    pub order: usize,
}

impl Default for Parameters {
    /// The reference's.
    fn default() -> Self {
        Self { s_churn: 0.0, s_tmin: 0.0, s_tmax: 300.0, s_noise: 1.0, eta: 1.0, order: 1 }
    }
}

/// The settings of one run.
#[derive(Clone, Debug)]
pub struct Sampling<'a> {
    /// Of the network.
    pub schedule: &'a Schedule,
    /// Of the network.
    pub prediction: Prediction,
    /// The timestep at which the latent is that sampling starts from: [`LAST_T`] for pure noise.
    pub first_t: usize,
    /// Steps. Some samplers evaluate the network twice in a step.
    pub steps: usize,
    /// Guidance by text.
    pub guidance: Guidance,
    /// Whether there is a negative prompt to guide away from.
    pub has_negative: bool,
    /// What [`Sampler::heeds`] tells of.
    pub parameters: Parameters,
}

/// What a step tells.
pub struct Step<'a> {
    /// Steps done, from 1.
    pub done: usize,
    /// Of how many: [`Sampling::total`].
    pub total: usize,
    /// What the sampler goes on from.
    pub x: &'a Latent,
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

impl<E> SampleError<E> {
    /// A step count that a sampler cannot do.
    pub(crate) fn steps(sampler: &str, range: std::ops::RangeInclusive<usize>, steps: usize) -> Self {
        let (first, last) = range.into_inner();
        Self::Setting(format!("the sampler `{sampler}` takes {first} to {last} steps, not {steps}"))
    }
}

/// The network, and who pulls at what it makes. A closure that predicts is one.
pub trait Denoiser<E> {
    /// Its predictions for one latent at a network time, one for each condition. A guided
    /// evaluation is one call with `[Positive, Negative]` in every sampler, any other one with `[Positive]`.
    ///
    /// The reference does the same as two calls (`spaced`, EDM), as one batch (`ddim`), or as one batch in the
    /// other order (`dpm++_m2`); a batch does not mix its items, so the predictions are equal.
    fn predict(&mut self, x: &Latent, t: f64, conditions: &[Condition]) -> Result<Vec<Latent>, E>;

    /// What to go on with in place of an estimate of the clean latent at a timestep; a pull counts `1 / share`-fold, as
    /// the estimate has that share in the next latent. `spaced` alone asks.
    fn guide(
        &mut self,
        estimate: Latent,
        _t: usize,
        _share: f32,
        _noise: &mut dyn Noise,
    ) -> Result<Latent, E> {
        Ok(estimate)
    }

    /// What to go on with in place of an estimate of the clean latent at a timestep, at last. Samplers that can start
    /// midway ask.
    fn hold(&self, estimate: Latent, _t: f64) -> Latent {
        estimate
    }
}

impl<E, F: FnMut(&Latent, f64, &[Condition]) -> Result<Vec<Latent>, E>> Denoiser<E> for F {
    fn predict(&mut self, x: &Latent, t: f64, conditions: &[Condition]) -> Result<Vec<Latent>, E> {
        self(x, t, conditions)
    }
}

/// A network of any kind.
pub type Denoise<'a, E> = dyn Denoiser<E> + 'a;

impl Sampling<'_> {
    /// Samples from `x_t`, a latent at `first_t`, to a clean latent.
    ///
    /// # Errors
    /// When the settings do not go together, or the network fails.
    pub fn run<E>(
        &self,
        sampler: Sampler,
        x_t: Latent,
        noise: &mut dyn Noise,
        denoise: &mut Denoise<E>,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Latent, SampleError<E>> {
        if self.first_t != LAST_T && !sampler.starts_midway() {
            let text = format!("the sampler `{sampler}` can only start from noise, unlike spaced and edm_*");
            return Err(SampleError::Setting(text));
        }
        match sampler {
            Sampler::Spaced => spaced::sample(self, x_t, noise, denoise, on_step),
            Sampler::Ddim => ddim::sample(self, x_t, noise, denoise, on_step),
            Sampler::DpmppM2 => dpmpp::sample(self, x_t, denoise, on_step),
            Sampler::Edm(solver) => edm::sample(self, solver, x_t, noise, denoise, on_step),
        }
    }

    /// How many steps a sampler makes: as many as asked for, but for DDIM where 1000 does not divide.
    pub fn total(&self, sampler: Sampler) -> usize {
        match sampler {
            Sampler::Ddim => ddim::timesteps(self.steps).map_or(self.steps, |chosen| chosen.len()),
            Sampler::Spaced | Sampler::DpmppM2 | Sampler::Edm(_) => self.steps,
        }
    }

    /// Latents that a sampler holds at most, its noise among them: while it draws noise, and while it waits for a prediction.
    pub fn latents(&self, sampler: Sampler) -> (usize, usize) {
        // Where it is, an estimate and two before it, what is made of them, and both predictions of a guided step.
        const OWN: usize = 8;
        let mut noise = Counting::default();
        if matches!(sampler, Sampler::Edm(solver) if solver.is_brownian()) {
            let point = Latent { batch: 1, channels: 1, height: 1, width: 1, data: vec![0.0] };
            let mut predict = |x: &Latent, _: f64, which: &[Condition]| -> Result<_, Infallible> {
                Ok(vec![x.clone(); which.len()])
            };
            // Settings that do not go together are refused elsewhere.
            _ = self.run(sampler, point, &mut noise, &mut predict, &mut |_| {});
        }
        (OWN + noise.drawn, OWN + noise.kept)
    }

    /// Why these settings cannot work with a sampler, before any network is asked.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self, sampler: Sampler) -> Result<(), String> {
        let nothing = Latent { batch: 0, channels: 0, height: 0, width: 0, data: Vec::new() };
        // All of them look at their settings before they ask the network for the first time, which ends this.
        let mut end = |_: &Latent, _: f64, _: &[Condition]| Err(());
        match self.run(sampler, nothing, &mut TorchNoise::new(Source::TorchCpu, 0), &mut end, &mut |_| {}) {
            Err(SampleError::Setting(reason)) => Err(reason),
            _ => Ok(()),
        }
    }

    /// Refuses a model that predicts eps with a schedule whose end has no signal: nothing can be told from
    /// the noise there.
    pub(crate) fn check_eps<E>(&self) -> Result<(), SampleError<E>> {
        let end = self.schedule.alpha_bar.last().copied().unwrap_or(0.0);
        if self.prediction == Prediction::Eps && end <= 0.0 {
            return Err(SampleError::Setting(
                "a model that predicts eps does not go with a zero-SNR schedule: see the model's settings \
                 `prediction` and `terminal`"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Whether an evaluation with a guidance scale needs the negative prompt.
    pub(crate) fn is_guided(&self, scale: f64) -> bool {
        self.has_negative && scale != 1.0
    }

    /// The network's prediction for `x` at `t`, each through `convert`, then mixed by `scale` if there is one.
    pub(crate) fn evaluate<E>(
        x: &Latent,
        t: f64,
        scale: Option<f64>,
        denoise: &mut Denoise<E>,
        convert: impl Fn(Latent) -> Latent,
    ) -> Result<Latent, SampleError<E>> {
        let conditions = [Condition::Positive, Condition::Negative];
        let conditions = if scale.is_some() { &conditions[..] } else { &conditions[..1] };
        let predictions = denoise.predict(x, t, conditions).map_err(SampleError::Network)?;
        assert_eq!(predictions.len(), conditions.len(), "one prediction for each condition");
        let mut predictions = predictions.into_iter().map(convert);
        let positive = predictions.next().expect("counted");
        Ok(match (scale, predictions.next()) {
            (Some(scale), Some(negative)) => Guidance::mix(scale, &positive, &negative),
            _ => positive,
        })
    }
}
