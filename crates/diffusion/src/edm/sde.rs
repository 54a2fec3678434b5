//! The solvers of the stochastic equation, whose noise is increments of one Brownian motion
//! (DPM-Solver++, arXiv 2211.01095, after k-diffusion).

use super::ancestral::{exponential, split};
use super::{Run, Stride, euler};
use crate::Latent;
use crate::sampler::SampleError;
use crate::scalar::{exp, expm1, ln};

/// DPM-Solver++ with two ancestral steps from the same latent: to the middle, and with the estimate from
/// there to the end.
pub(super) fn dpmpp_sde<E>(
    run: &mut Run<E>,
    stride: Stride,
    x: &Latent,
    estimate: &Latent,
) -> Result<Latent, SampleError<E>> {
    if stride.next == 0.0 {
        return Ok(euler(x, estimate, stride.sigma, 0.0));
    }
    let (t, t_next) = (-ln(stride.sigma), -ln(stride.next));
    let middle = exp(-(t + (t_next - t) * 0.5));
    let halfway = noisy_step(run, x, estimate, t, middle);
    let second = run.estimate(&halfway, middle)?;
    Ok(noisy_step(run, x, &second, t, exp(-t_next)))
}

/// An ancestral step from time `t = -ln sigma` to the sigma `next`.
fn noisy_step<E>(run: &mut Run<E>, x: &Latent, estimate: &Latent, t: f32, next: f32) -> Latent {
    // Not the sigma it started from but that of its rounded logarithm, where the motion differs.
    let sigma = exp(-t);
    let (down, up) = split(sigma, next, run.settings.parameters.eta);
    let t_down = -ln(down);
    let moved = exponential(x, estimate, exp(-t_down) / sigma, t - t_down);
    moved.add_scaled(&run.increment(x, sigma, next), up)
}

/// DPM-Solver++(2M) SDE, midpoint form.
pub(super) fn dpmpp_2m_sde<E>(run: &mut Run<E>, stride: Stride, x: &Latent, estimate: &Latent) -> Latent {
    let Stride { index, sigma, next } = stride;
    if next == 0.0 {
        return estimate.clone();
    }
    let eta = run.settings.parameters.eta as f32;
    let h = log_step(sigma, next);
    let keep = next / sigma * exp(-(eta * h));
    let take = -expm1(-h - eta * h);
    let mut x = x.zip(estimate, |x, d| keep * x + take * d);
    if let Some(earlier) = run.history.first() {
        let r = log_step(run.sigmas.sigmas[index - 1], sigma) / h;
        let slope = 0.5 * take * (1.0 / r);
        x = x.add_scaled(&estimate.zip(earlier, |now, earlier| now - earlier), slope);
    }
    run.keep(estimate.clone(), 1);
    add_noise(run, x, stride, eta * h)
}

/// DPM-Solver++(3M) SDE.
pub(super) fn dpmpp_3m_sde<E>(run: &mut Run<E>, stride: Stride, x: &Latent, estimate: &Latent) -> Latent {
    let Stride { index, sigma, next } = stride;
    if next == 0.0 {
        return estimate.clone();
    }
    let eta = run.settings.parameters.eta as f32;
    let sigmas = &run.sigmas.sigmas;
    let h = log_step(sigma, next);
    let h_eta = h * (eta + 1.0);
    let (keep, take) = (exp(-h_eta), -expm1(-h_eta));
    let mut x = x.zip(estimate, |x, d| keep * x + take * d);
    let phi2 = expm1(-h_eta) / h_eta + 1.0;
    match &run.history[..] {
        [first, second] => {
            let r0 = log_step(sigmas[index - 1], sigma) / h;
            let r1 = log_step(sigmas[index - 2], sigmas[index - 1]) / h;
            let phi3 = phi2 / h_eta - 0.5;
            for (i, value) in x.data.iter_mut().enumerate() {
                let slope0 = (estimate.data[i] - first.data[i]) / r0;
                let slope1 = (first.data[i] - second.data[i]) / r1;
                let d1 = slope0 + (slope0 - slope1) * r0 / (r0 + r1);
                let d2 = (slope0 - slope1) / (r0 + r1);
                *value += phi2 * d1 - phi3 * d2;
            }
        }
        [first] => {
            let r = log_step(sigmas[index - 1], sigma) / h;
            x = x.add_scaled(&estimate.zip(first, |now, earlier| (now - earlier) / r), phi2);
        }
        _ => {}
    }
    run.keep(estimate.clone(), 2);
    // Here the reference takes eta times the step, not `h_eta`.
    add_noise(run, x, stride, h * eta)
}

/// The length of a step in `-ln sigma`.
fn log_step(sigma: f32, next: f32) -> f32 {
    ln(sigma) - ln(next)
}

/// The noise of a multistep SDE step, of which `eta_h` tells how much; none if that is 0.
fn add_noise<E>(run: &mut Run<E>, x: Latent, stride: Stride, eta_h: f32) -> Latent {
    if run.settings.parameters.eta == 0.0 {
        return x;
    }
    let spread = stride.next * (-expm1(-2.0 * eta_h)).sqrt();
    x.add_scaled(&run.increment(&x, stride.sigma, stride.next), spread)
}
