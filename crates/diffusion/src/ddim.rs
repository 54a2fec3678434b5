//! DDIM without noise (reference 2.5; arXiv 2010.02502).

use crate::Latent;
use crate::noise::Noise;
use crate::sampler::{Denoise, SampleError, Sampling, Step};
use crate::schedule::{Prediction, TIMESTEPS};

/// Every `1000 / steps`-th timestep from 1, which makes more than `steps` of them where 1000 does not divide.
/// None when the last would be 1000, which is no timestep.
pub fn timesteps(steps: usize) -> Option<Vec<usize>> {
    let stride = TIMESTEPS.checked_div(steps).filter(|&stride| stride > 0)?;
    let chosen: Vec<usize> = (1..=TIMESTEPS).step_by(stride).collect();
    (chosen.last() < Some(&TIMESTEPS)).then_some(chosen)
}

/// The timesteps, if this schedule has signal at all of them.
fn checked(settings: &Sampling, steps: usize) -> Option<Vec<usize>> {
    timesteps(steps).filter(|chosen| chosen.iter().all(|&t| settings.schedule.alpha_bar[t] > 0.0))
}

/// Samples from pure noise, which it takes for a latent at its first timestep, one below 999 as a rule.
pub fn sample<E>(
    settings: &Sampling,
    x_t: Latent,
    noise: &mut dyn Noise,
    denoise: &mut Denoise<E>,
    on_step: &mut dyn FnMut(Step),
) -> Result<Latent, SampleError<E>> {
    let steps = settings.steps;
    let chosen = checked(settings, steps).ok_or_else(|| {
        let works = |&steps: &usize| checked(settings, steps).is_some();
        let near = [(1..steps.min(TIMESTEPS)).rev().find(works), (steps + 1..TIMESTEPS).find(works)];
        let near: Vec<String> = near.iter().flatten().map(usize::to_string).collect();
        SampleError::Setting(format!(
            "the sampler `ddim` cannot do {steps} steps with this model: its timesteps would not fit into \
             the schedule; the nearest it can do: {}",
            near.join(" and ")
        ))
    })?;
    let alpha_bar = &settings.schedule.alpha_bar;
    let total = chosen.len();
    let mut x = x_t;
    for (index, &t) in chosen.iter().enumerate().rev() {
        let before = alpha_bar[if index == 0 { 0 } else { chosen[index - 1] }] as f32;
        let (signal, spread) = settings.schedule.shares(t);
        let root = (alpha_bar[t] as f32).sqrt();
        let scale = settings.guidance.at(t as f64);
        let scale = settings.is_guided(scale).then_some(scale);
        let out = Sampling::evaluate(&x, t as f64, scale, denoise, |out| out)?;
        let eps = match settings.prediction {
            Prediction::Eps => out,
            Prediction::V => out.zip(&x, |v, x| signal * v + spread * x),
        };
        let x0 = x.zip(&eps, |x, eps| (x - spread * eps) / root);
        let (keep, turn) = (before.sqrt(), (1.0 - before).sqrt());
        // The reference draws here, and multiplies by 0.
        noise.normal(x.data.len());
        x = x0.zip(&eps, |x0, eps| keep * x0 + turn * eps);
        on_step(Step { done: total - index, total, x: &x, estimate: &x0 });
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_are_the_references() {
        assert_eq!(timesteps(10), Some((0..10).map(|i| 100 * i + 1).collect()));
        let last = |steps| timesteps(steps).map(|chosen| (chosen.len(), *chosen.last().expect("not empty")));
        assert_eq!(last(50), Some((50, 981)));
        assert_eq!(last(30), Some((31, 991)));
        assert_eq!(last(7), Some((8, 995)));
        assert_eq!(last(500), Some((500, 999)));
        for steps in [0, 3, 9, 27, 36, 37, 101, 111, 251, 333, 501, 600, 1000, 1001] {
            assert_eq!(timesteps(steps), None, "{steps} steps");
        }
    }
}
