//! The ancestral solvers: a step goes to a lower sigma than the next, and fresh noise makes up for it.

use super::churn::midpoint;
use super::{Run, Stride, euler};
use crate::Latent;
use crate::sampler::SampleError;
use crate::scalar::{exp, expm1, ln};

/// The sigma to step to from `sigma`, and that of the noise which leads from there up to `next`.
pub(super) fn split(sigma: f32, next: f32, eta: f64) -> (f32, f32) {
    if eta == 0.0 {
        return (next, 0.0);
    }
    let (here, there) = (sigma * sigma, next * next);
    let up = next.min(eta as f32 * (there * (here - there) / here).sqrt());
    ((there - up * up).sqrt(), up)
}

/// Adds noise of sigma `up`.
fn roughen<E>(run: &mut Run<E>, x: &Latent, up: f32) -> Latent {
    x.add_scaled(&run.normal(x), up)
}

/// Euler.
pub(super) fn euler_a<E>(run: &mut Run<E>, stride: Stride, x: &Latent, estimate: &Latent) -> Latent {
    let Stride { sigma, next, .. } = stride;
    let (down, up) = split(sigma, next, run.settings.parameters.eta);
    let moved = euler(x, estimate, sigma, down);
    if next > 0.0 { roughen(run, &moved, up) } else { moved }
}

/// DPM-Solver-2. A step down to 0 gets no noise, even if the next sigma is above 0 (eta above 1).
pub(super) fn dpm_2_a<E>(
    run: &mut Run<E>,
    stride: Stride,
    x: &Latent,
    estimate: &Latent,
) -> Result<Latent, SampleError<E>> {
    let Stride { sigma, next, .. } = stride;
    let (down, up) = split(sigma, next, run.settings.parameters.eta);
    if down == 0.0 {
        return Ok(euler(x, estimate, sigma, down));
    }
    let moved = midpoint(run, x, estimate, sigma, down)?;
    Ok(roughen(run, &moved, up))
}

/// DPM-Solver++(2S), in time `-ln sigma`.
pub(super) fn dpmpp_2s_a<E>(
    run: &mut Run<E>,
    stride: Stride,
    x: &Latent,
    estimate: &Latent,
) -> Result<Latent, SampleError<E>> {
    let Stride { sigma, next, .. } = stride;
    let (down, up) = split(sigma, next, run.settings.parameters.eta);
    let moved = if down == 0.0 {
        euler(x, estimate, sigma, down)
    } else {
        let (t, t_down) = (-ln(sigma), -ln(down));
        let h = t_down - t;
        let middle = exp(-(t + 0.5 * h));
        let halfway = exponential(x, estimate, middle / exp(-t), -h * 0.5);
        let second = run.estimate(&halfway, middle)?;
        exponential(x, &second, exp(-t_down) / exp(-t), -h)
    };
    Ok(if next > 0.0 { roughen(run, &moved, up) } else { moved })
}

/// The exponential integrator's step: `keep · x - (e^minus_h - 1) · estimate`.
pub(super) fn exponential(x: &Latent, estimate: &Latent, keep: f32, minus_h: f32) -> Latent {
    let take = expm1(minus_h);
    x.zip(estimate, |x, d| keep * x - take * d)
}
