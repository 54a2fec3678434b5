//! Samplers in the form of EDM (arXiv 2206.00364) after k-diffusion: the latent is `x0 + sigma · noise`
//! (reference 2.7).

use crate::Latent;
use crate::guidance::{Condition, Guidance};
use crate::noise::Noise;
use crate::sampler::{Denoise, SampleError, Sampling, Step};
use crate::schedule::{Prediction, Schedule, TIMESTEPS};

/// Sigmas from the noisy end to 0, with the network time of each.
pub struct Sigmas {
    /// `steps + 1` values, the last 0.
    pub sigmas: Vec<f32>,
    /// Their network times.
    pub timesteps: Vec<usize>,
}

impl Sigmas {
    /// Evenly spaced times from 999 down; pure noise has sigma 1e4.
    pub fn new(schedule: &Schedule, steps: usize) -> Self {
        let last = (TIMESTEPS - 1) as f64;
        let mut timesteps: Vec<usize> =
            (0..steps).map(|i| (last - last / steps as f64 * i as f64) as usize).collect();
        let mut sigmas: Vec<f32> = timesteps
            .iter()
            .enumerate()
            .map(|(index, &t)| {
                let alpha_bar = if index == 0 { 1e-8 } else { schedule.alpha_bar[t] };
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

/// The estimate of the clean latent at `sigma`, guided.
fn estimate<E>(
    settings: &Sampling,
    sigmas: &Sigmas,
    x: &Latent,
    sigma: f32,
    denoise: &mut Denoise<E>,
) -> Result<Latent, SampleError<E>> {
    let root = (sigma * sigma + 1.0).sqrt();
    let (skip, out) = match settings.prediction {
        Prediction::Eps => (1.0, -sigma),
        Prediction::V => (1.0 / (sigma * sigma + 1.0), -sigma / root),
    };
    let t = sigmas.time_of(sigma) as f64;
    let scaled = x.map(|value| value * (1.0 / root));
    let mut evaluate = |condition| -> Result<Latent, SampleError<E>> {
        let prediction = denoise(&scaled, t, condition).map_err(SampleError::Network)?;
        Ok(prediction.zip(x, |prediction, x| prediction * out + skip * x))
    };
    let positive = evaluate(Condition::Positive)?;
    // Unlike `spaced`, the configured scale decides whether the negative prompt is evaluated.
    if !settings.has_negative || settings.guidance.scale == 1.0 {
        return Ok(positive);
    }
    Ok(Guidance::mix(settings.guidance.at(t), &positive, &evaluate(Condition::Negative)?))
}

/// DPM-Solver++(3M) SDE, a multistep method of third order (arXiv 2211.01095).
pub fn sample_dpmpp_3m_sde<E>(
    settings: &Sampling,
    x_t: Latent,
    noise: &mut dyn Noise,
    denoise: &mut Denoise<E>,
    on_step: &mut dyn FnMut(Step),
) -> Result<Latent, SampleError<E>> {
    if settings.prediction == Prediction::Eps {
        return Err(SampleError::Setting(
            "the EDM samplers start at sigma 10000, where a model that predicts eps gives nothing but \
             rounding errors: choose --sampler spaced for it"
                .into(),
        ));
    }
    let steps = settings.steps;
    if !(1..=TIMESTEPS).contains(&steps) {
        return Err(SampleError::Setting(format!("steps must be 1 to {TIMESTEPS}, not {steps}")));
    }
    let sigmas = Sigmas::new(settings.schedule, steps);
    let first = sigmas.sigmas[0];
    let mut x = x_t.map(|value| value * (1.0 + first * first).sqrt());
    noise.start_interval(x.data.len(), sigmas.sigmas[steps - 1], first);
    let eta = settings.eta as f32;
    // Earlier estimates with the step sizes in log sigma behind them, the newest first.
    let mut history: Vec<(Latent, f32)> = Vec::new();
    for index in 0..steps {
        let (sigma, next) = (sigmas.sigmas[index], sigmas.sigmas[index + 1]);
        let denoised = estimate(settings, &sigmas, &x, sigma, denoise)?;
        if next == 0.0 {
            x = denoised.clone();
        } else {
            let h = sigma.ln() - next.ln();
            let h_eta = h * (eta + 1.0);
            let (keep, take) = ((-h_eta).exp(), -(-h_eta).exp_m1());
            x = x.zip(&denoised, |x, d| keep * x + take * d);
            let phi2 = (-h_eta).exp_m1() / h_eta + 1.0;
            match &history[..] {
                [(first, h1), (second, h2)] => {
                    let (r0, r1) = (h1 / h, h2 / h);
                    let phi3 = phi2 / h_eta - 0.5;
                    for (i, value) in x.data.iter_mut().enumerate() {
                        let slope0 = (denoised.data[i] - first.data[i]) / r0;
                        let slope1 = (first.data[i] - second.data[i]) / r1;
                        let d1 = slope0 + (slope0 - slope1) * r0 / (r0 + r1);
                        let d2 = (slope0 - slope1) / (r0 + r1);
                        *value += phi2 * d1 - phi3 * d2;
                    }
                }
                [(first, h1)] => {
                    let r = h1 / h;
                    for (i, value) in x.data.iter_mut().enumerate() {
                        *value += phi2 * ((denoised.data[i] - first.data[i]) / r);
                    }
                }
                _ => {}
            }
            if eta != 0.0 {
                let drawn = x.with(noise.interval(sigma, next));
                let spread = next * (-(-2.0 * h * eta).exp_m1()).sqrt() * settings.s_noise as f32;
                x = x.add_scaled(&drawn, spread);
            }
            history.insert(0, (denoised.clone(), h));
            history.truncate(2);
        }
        on_step(Step { done: index + 1, total: steps, estimate: &denoised });
    }
    Ok(x)
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "known values stand as they are published")]
mod tests {
    use super::*;
    use crate::schedule::Terminal;

    #[test]
    fn sigmas_are_the_known_ones() {
        let sigmas = Sigmas::new(&Schedule::new(Terminal::ZeroSnr), 10);
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
}
