//! Ancestral DDPM on a part of the timesteps (reference 2.4; arXiv 2102.09672).

use crate::Latent;
use crate::noise::Noise;
use crate::sampler::{Denoise, SampleError, Sampling, Step};
use crate::schedule::{Prediction, TIMESTEPS};

/// `count` timesteps from 0 to `first_t`, evenly spaced, rounded half to even.
pub fn timesteps(first_t: usize, count: usize) -> Vec<usize> {
    let stride = first_t as f64 / (count - 1) as f64;
    let mut at = 0.0f64;
    let mut steps: Vec<usize> = (0..count)
        .map(|_| {
            let step = at.round_ties_even() as usize;
            at += stride;
            step
        })
        .collect();
    steps.dedup();
    steps
}

/// The posterior's numbers at one of the chosen timesteps.
struct Coefficients {
    signal: f32,
    spread: f32,
    inverse_signal: f32,
    inverse_spread: f32,
    of_x0: f32,
    of_x: f32,
    deviation: f32,
}

fn coefficients(alpha_bar: f64, before: f64) -> Coefficients {
    let beta = 1.0 - alpha_bar / before;
    let variance = beta * (1.0 - before) / (1.0 - alpha_bar);
    Coefficients {
        signal: alpha_bar.sqrt() as f32,
        spread: (1.0 - alpha_bar).sqrt() as f32,
        inverse_signal: (1.0 / alpha_bar).sqrt() as f32,
        inverse_spread: (1.0 / alpha_bar - 1.0).sqrt() as f32,
        of_x0: (beta * before.sqrt() / (1.0 - alpha_bar)) as f32,
        of_x: ((1.0 - before) * (1.0 - beta).sqrt() / (1.0 - alpha_bar)) as f32,
        deviation: (variance as f32).sqrt(),
    }
}

/// Samples with `settings.steps` steps.
pub fn sample<E>(
    settings: &Sampling,
    x_t: Latent,
    noise: &mut dyn Noise,
    denoise: &mut Denoise<E>,
    on_step: &mut dyn FnMut(Step),
) -> Result<Latent, SampleError<E>> {
    if !(2..=TIMESTEPS).contains(&settings.steps) {
        return Err(SampleError::steps("spaced", 2..=TIMESTEPS, settings.steps));
    }
    settings.check_eps()?;
    let chosen = timesteps(settings.first_t, settings.steps);
    let total = chosen.len();
    let mut x = x_t;
    for (index, &t) in chosen.iter().enumerate().rev() {
        let before = if index == 0 { 1.0 } else { settings.schedule.alpha_bar[chosen[index - 1]] };
        let c = coefficients(settings.schedule.alpha_bar[t], before);
        let scale = settings.guidance.at(t as f64);
        let scale = settings.is_guided(scale).then_some(scale);
        let out = Sampling::evaluate(&x, t as f64, scale, denoise, |out| out)?;
        let x0 = match settings.prediction {
            Prediction::Eps => x.zip(&out, |x, eps| c.inverse_signal * x - c.inverse_spread * eps),
            Prediction::V => x.zip(&out, |x, v| c.signal * x - c.spread * v),
        };
        let x0 = denoise.guide(x0, t, c.of_x0, noise).map_err(SampleError::Network)?;
        let x0 = denoise.hold(x0, t as f64);
        let mean = x0.zip(&x, |x0, x| c.of_x0 * x0 + c.of_x * x);
        // The reference draws at the last step too, and multiplies by 0.
        let drawn = noise.normal(x.data.len());
        x = if index == 0 { mean } else { mean.add_scaled(&x.with(drawn), c.deviation) };
        on_step(Step { done: total - index, total, x: &x, estimate: &x0 });
    }
    Ok(x)
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "known values stand as they are published")]
mod tests {
    use super::*;
    use crate::schedule::{LAST_T, Schedule, Terminal};

    #[test]
    fn timesteps_are_the_known_ones() {
        assert_eq!(timesteps(LAST_T, 10), [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]);
        let fifty = timesteps(LAST_T, 50);
        assert_eq!(fifty[..8], [0, 20, 41, 61, 82, 102, 122, 143]);
        assert_eq!(fifty[44..], [897, 917, 938, 958, 979, 999]);
    }

    #[test]
    fn coefficients_are_the_known_ones() {
        let alpha_bar = Schedule::new(Terminal::Plain).alpha_bar;
        let chosen = timesteps(LAST_T, 50);
        for (index, variance, of_x0, of_x) in [
            (1, 8.120_241_6e-4, 0.954_916_44, 0.045_081_64),
            (25, 0.092_722_87, 0.070_597_24, 0.914_366_2),
            (49, 0.211_591_99, 0.016_367_04, 0.886_656),
        ] {
            let c = coefficients(alpha_bar[chosen[index]], alpha_bar[chosen[index - 1]]);
            assert!((c.deviation.powi(2) / variance - 1.0).abs() < 1e-5);
            assert!((c.of_x0 / of_x0 - 1.0).abs() < 1e-5);
            assert!((c.of_x / of_x - 1.0).abs() < 1e-5);
        }
    }
}
