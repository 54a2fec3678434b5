//! Samplers in the form of EDM (arXiv 2206.00364) after k-diffusion: the latent is `x0 + sigma · noise`
//! (reference 2.7). A solver is one function: a step from a latent, and its estimate, to the next sigma.

mod ancestral;
mod churn;
mod multistep;
mod sde;

use crate::Latent;
use crate::noise::Noise;
use crate::sampler::{Denoise, Parameter, SampleError, Sampling, Step};
use crate::schedule::{LAST_T, Prediction, Schedule, TIMESTEPS};

/// How to get from one sigma to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Euler, algorithm 2 of EDM without its correction.
    Euler,
    /// Ancestral Euler.
    EulerA,
    /// Heun, algorithm 2 of EDM: two evaluations a step.
    Heun,
    /// Midpoint in log sigma (DPM-Solver-2, arXiv 2206.00927): two evaluations a step.
    Dpm2,
    /// The same, ancestral.
    Dpm2A,
    /// Linear multistep (Adams-Bashforth on uneven steps) of order 1 to 8.
    Lms,
    /// DPM-Solver++(2S) (arXiv 2211.01095), ancestral: two evaluations a step.
    Dpmpp2sA,
    /// DPM-Solver++ with Brownian noise at the midpoint too: two evaluations a step.
    DpmppSde,
    /// DPM-Solver++(2M).
    Dpmpp2m,
    /// DPM-Solver++(2M) SDE.
    Dpmpp2mSde,
    /// DPM-Solver++(3M) SDE.
    Dpmpp3mSde,
}

impl Solver {
    /// The reference's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euler => "edm_euler",
            Self::EulerA => "edm_euler_a",
            Self::Heun => "edm_heun",
            Self::Dpm2 => "edm_dpm_2",
            Self::Dpm2A => "edm_dpm_2_a",
            Self::Lms => "edm_lms",
            Self::Dpmpp2sA => "edm_dpm++_2s_a",
            Self::DpmppSde => "edm_dpm++_sde",
            Self::Dpmpp2m => "edm_dpm++_2m",
            Self::Dpmpp2mSde => "edm_dpm++_2m_sde",
            Self::Dpmpp3mSde => "edm_dpm++_3m_sde",
        }
    }

    /// The parameters that have an effect on it.
    pub fn heeds(self) -> &'static [Parameter] {
        use Parameter::*;
        match self {
            Self::Euler | Self::Heun | Self::Dpm2 => &[SChurn, STmin, STmax, SNoise],
            Self::EulerA | Self::Dpm2A | Self::Dpmpp2sA => &[Eta, SNoise],
            Self::DpmppSde | Self::Dpmpp2mSde | Self::Dpmpp3mSde => &[Eta, SNoise],
            Self::Lms => &[Order],
            Self::Dpmpp2m => &[],
        }
    }

    /// Whether its noise is increments of one Brownian motion.
    pub(crate) fn is_brownian(self) -> bool {
        matches!(self, Self::DpmppSde | Self::Dpmpp2mSde | Self::Dpmpp3mSde)
    }
}

/// Sigmas from the noisy end to 0, with the network time of each.
pub struct Sigmas {
    /// `steps + 1` values, the last 0.
    pub sigmas: Vec<f32>,
    /// Their network times.
    pub timesteps: Vec<usize>,
}

impl Sigmas {
    /// Evenly spaced times from `first_t` down. For a model that predicts v the sigma of 999 is 1e4, pure noise;
    /// one that predicts eps would give nothing but rounding errors there and starts at its schedule's own.
    pub fn new(schedule: &Schedule, prediction: Prediction, first_t: usize, steps: usize) -> Self {
        let first = first_t as f64;
        let mut timesteps: Vec<usize> =
            (0..steps).map(|i| (first - first / steps as f64 * i as f64) as usize).collect();
        let mut sigmas: Vec<f32> = timesteps
            .iter()
            .map(|&t| {
                let pure = t == LAST_T && prediction == Prediction::V;
                let alpha_bar = if pure { 1e-8 } else { schedule.alpha_bar[t] };
                ((1.0 - alpha_bar) / alpha_bar).sqrt() as f32
            })
            .collect();
        timesteps.push(0);
        sigmas.push(0.0);
        Self { sigmas, timesteps }
    }

    /// The network time of the nearest sigma, the first of equals.
    fn time_of(&self, sigma: f32) -> usize {
        let distances = self.sigmas.iter().map(|own| (own - sigma).abs());
        let nearest = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("never empty").0;
        self.timesteps[nearest]
    }
}

/// One run of a solver.
struct Run<'a, 'd, E> {
    settings: &'a Sampling<'a>,
    sigmas: Sigmas,
    noise: &'a mut dyn Noise,
    denoise: &'a mut Denoise<'d, E>,
    /// What a multistep solver keeps of its earlier steps, the newest first.
    history: Vec<Latent>,
}

/// A step: from the sigma at which the latent is, to the next.
#[derive(Clone, Copy)]
struct Stride {
    index: usize,
    sigma: f32,
    next: f32,
}

impl<E> Run<'_, '_, E> {
    /// The estimate of the clean latent at `sigma`, guided.
    fn estimate(&mut self, x: &Latent, sigma: f32) -> Result<Latent, SampleError<E>> {
        let settings = self.settings;
        let root = (sigma * sigma + 1.0).sqrt();
        let (skip, out) = match settings.prediction {
            Prediction::Eps => (1.0, -sigma),
            Prediction::V => (1.0 / (sigma * sigma + 1.0), -sigma / root),
        };
        let t = self.sigmas.time_of(sigma) as f64;
        // Unlike `spaced`, the configured scale decides whether the negative prompt is evaluated.
        let scale = settings.is_guided(settings.guidance.scale).then(|| settings.guidance.at(t));
        let scaled = x.map(|value| value * (1.0 / root));
        let estimate = Sampling::evaluate(&scaled, t, scale, self.denoise, |prediction| {
            prediction.zip(x, |prediction, x| prediction * out + skip * x)
        })?;
        Ok(self.denoise.hold(estimate, t))
    }

    /// The next field of normal numbers, scaled by `s_noise`.
    fn normal(&mut self, x: &Latent) -> Latent {
        let s_noise = self.settings.parameters.s_noise as f32;
        x.with(self.noise.normal(x.data.len())).map(|value| value * s_noise)
    }

    /// The Brownian motion's increment between two sigmas, scaled by `s_noise`.
    fn increment(&mut self, x: &Latent, sigma: f32, next: f32) -> Latent {
        let s_noise = self.settings.parameters.s_noise as f32;
        x.with(self.noise.interval(sigma, next)).map(|value| value * s_noise)
    }

    /// Keeps a latent for the next `count` steps.
    fn keep(&mut self, latent: Latent, count: usize) {
        self.history.insert(0, latent);
        self.history.truncate(count);
    }
}

/// Euler's step along the line from `x` through its estimate at `sigma`, to the sigma `next`.
fn euler(x: &Latent, estimate: &Latent, sigma: f32, next: f32) -> Latent {
    let along = next - sigma;
    x.zip(estimate, |x, d| x + (x - d) / sigma * along)
}

/// Samples from `x_t`, a latent at the first timestep.
pub(crate) fn sample<E>(
    settings: &Sampling,
    solver: Solver,
    x_t: Latent,
    noise: &mut dyn Noise,
    denoise: &mut Denoise<E>,
    on_step: &mut dyn FnMut(Step),
) -> Result<Latent, SampleError<E>> {
    settings.check_eps()?;
    let steps = settings.steps;
    if !(1..=TIMESTEPS).contains(&steps) {
        return Err(SampleError::steps(solver.name(), 1..=TIMESTEPS, steps));
    }
    if solver == Solver::Lms && !(1..=multistep::MOST_LMS).contains(&settings.parameters.order) {
        return Err(SampleError::Setting(format!(
            "the order of `{}` is 1 to {}, not {}",
            solver.name(),
            multistep::MOST_LMS,
            settings.parameters.order
        )));
    }
    let sigmas = Sigmas::new(settings.schedule, settings.prediction, settings.first_t, steps);
    let first = sigmas.sigmas[0];
    if solver.is_brownian() {
        noise.start_interval(x_t.data.len(), sigmas.sigmas[steps - 1], first);
    }
    let mut x = x_t.map(|value| value * (1.0 + first * first).sqrt());
    let mut run = Run { settings, sigmas, noise, denoise, history: Vec::new() };
    for index in 0..steps {
        let mut stride =
            Stride { index, sigma: run.sigmas.sigmas[index], next: run.sigmas.sigmas[index + 1] };
        if solver.heeds().contains(&Parameter::SChurn) {
            (x, stride.sigma) = churn::add(&mut run, x, stride.sigma);
        }
        let estimate = run.estimate(&x, stride.sigma)?;
        x = match solver {
            Solver::Euler => euler(&x, &estimate, stride.sigma, stride.next),
            Solver::Heun => churn::heun(&mut run, stride, &x, &estimate)?,
            Solver::Dpm2 => churn::dpm_2(&mut run, stride, &x, &estimate)?,
            Solver::EulerA => ancestral::euler_a(&mut run, stride, &x, &estimate),
            Solver::Dpm2A => ancestral::dpm_2_a(&mut run, stride, &x, &estimate)?,
            Solver::Dpmpp2sA => ancestral::dpmpp_2s_a(&mut run, stride, &x, &estimate)?,
            Solver::Lms => multistep::lms(&mut run, stride, &x, &estimate),
            Solver::Dpmpp2m => multistep::dpmpp_2m(&mut run, stride, &x, &estimate),
            Solver::DpmppSde => sde::dpmpp_sde(&mut run, stride, &x, &estimate)?,
            Solver::Dpmpp2mSde => sde::dpmpp_2m_sde(&mut run, stride, &x, &estimate),
            Solver::Dpmpp3mSde => sde::dpmpp_3m_sde(&mut run, stride, &x, &estimate),
        };
        on_step(Step { done: index + 1, total: steps, x: &x, estimate: &estimate });
    }
    run.noise.end_interval();
    Ok(x)
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "known values stand as they are published")]
mod tests {
    use super::*;
    use crate::schedule::Terminal;

    #[test]
    fn sigmas_are_the_known_ones() {
        let sigmas = Sigmas::new(&Schedule::new(Terminal::ZeroSnr), Prediction::V, LAST_T, 10);
        let known = [
            10_000.0,
            18.130_049,
            7.410_702_7,
            4.114_183_4,
            2.604_854_8,
            1.768_080_2,
            1.241_374_9,
            0.874_743_4,
            0.594_751_5,
            0.354_989_02,
            0.0,
        ];
        for (got, known) in sigmas.sigmas.iter().zip(known) {
            assert!((got - known).abs() <= 1e-5 * known, "{got} is not {known}");
        }
        assert_eq!(sigmas.timesteps[..3], [999, 899, 799]);
    }

    #[test]
    fn eps_starts_at_the_schedules_own_sigma() {
        let sigmas = Sigmas::new(&Schedule::new(Terminal::Plain), Prediction::Eps, LAST_T, 10).sigmas;
        for (got, known) in sigmas.iter().zip([14.614_641, 8.302_803_04, 5.087_763_31]) {
            assert!((got - known).abs() <= 1e-5 * known, "{got} is not {known}");
        }
    }
}
