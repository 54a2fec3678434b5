//! The solvers of the ordinary differential equation that may add noise before a step ("churn", algorithm 2
//! of EDM): Euler, Heun and DPM-Solver-2.

use super::{Run, Stride, euler};
use crate::Latent;
use crate::sampler::SampleError;
use crate::scalar::{exp, ln};

/// The latent with noise added at `sigma`, and the sigma it has then.
pub(super) fn add<E>(run: &mut Run<E>, x: Latent, sigma: f32) -> (Latent, f32) {
    let p = run.settings.parameters;
    let within = (p.s_tmin as f32..=p.s_tmax as f32).contains(&sigma);
    let most = std::f64::consts::SQRT_2 - 1.0;
    let gamma = if within { (p.s_churn / run.settings.steps as f64).min(most) } else { 0.0 };
    // The reference draws in every step.
    let drawn = run.normal(&x);
    if gamma <= 0.0 {
        return (x, sigma);
    }
    let raised = sigma * (gamma + 1.0) as f32;
    (x.add_scaled(&drawn, (raised * raised - sigma * sigma).sqrt()), raised)
}

/// The mean of the slopes at both ends.
pub(super) fn heun<E>(
    run: &mut Run<E>,
    stride: Stride,
    x: &Latent,
    estimate: &Latent,
) -> Result<Latent, SampleError<E>> {
    let Stride { sigma, next, .. } = stride;
    let guess = euler(x, estimate, sigma, next);
    if next == 0.0 {
        return Ok(guess);
    }
    let second = run.estimate(&guess, next)?;
    let slope = x.zip(estimate, |x, d| (x - d) / sigma);
    let slope_there = guess.zip(&second, |x, d| (x - d) / next);
    Ok(x.add_scaled(&slope.zip(&slope_there, |a, b| (a + b) / 2.0), next - sigma))
}

/// The slope at the geometric mean of both sigmas.
pub(super) fn dpm_2<E>(
    run: &mut Run<E>,
    stride: Stride,
    x: &Latent,
    estimate: &Latent,
) -> Result<Latent, SampleError<E>> {
    let Stride { sigma, next, .. } = stride;
    if next == 0.0 {
        return Ok(euler(x, estimate, sigma, next));
    }
    midpoint(run, x, estimate, sigma, next)
}

/// DPM-Solver-2 to a `next` above 0.
pub(super) fn midpoint<E>(
    run: &mut Run<E>,
    x: &Latent,
    estimate: &Latent,
    sigma: f32,
    next: f32,
) -> Result<Latent, SampleError<E>> {
    let (log, log_next) = (ln(sigma), ln(next));
    let middle = exp(log_next - (log_next - log) * 0.5);
    let halfway = euler(x, estimate, sigma, middle);
    let second = run.estimate(&halfway, middle)?;
    let slope = halfway.zip(&second, |x, d| (x - d) / middle);
    Ok(x.add_scaled(&slope, next - sigma))
}
