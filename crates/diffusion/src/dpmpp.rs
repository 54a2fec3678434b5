//! Multistep DPM-Solver++ of second order, which predicts the data (reference 2.6; arXiv 2211.01095).

use crate::Latent;
use crate::sampler::{Denoise, SampleError, Sampling, Step};
use crate::scalar::{exp, expm1, ln};
use crate::schedule::{Prediction, Schedule, TIMESTEPS};

/// Noisier timesteps than this half log signal-to-noise ratio are left out.
const LEAST_LAMBDA: f32 = -5.1;

/// The schedule in continuous time: timestep `k` of `n`, counted from 1, is time `k / n`.
struct Continuous {
    /// Logarithm of `sqrt(alpha_bar)` at each of the timesteps that are kept.
    log_alpha: Vec<f32>,
    times: Vec<f32>,
}

/// The shares of picture and noise at a time.
#[derive(Clone, Copy)]
struct Shares {
    alpha: f32,
    sigma: f32,
    /// `ln(alpha / sigma)`.
    lambda: f32,
}

impl Shares {
    fn new(log_alpha: f32) -> Self {
        let variance = 1.0 - exp(2.0 * log_alpha);
        Self { alpha: exp(log_alpha), sigma: variance.sqrt(), lambda: log_alpha - 0.5 * ln(variance) }
    }
}

impl Continuous {
    fn new(schedule: &Schedule) -> Self {
        let mut before = 1.0;
        let mut sum = 0.0;
        let log_alpha: Vec<f32> = schedule
            .alpha_bar
            .iter()
            .map(|&alpha_bar| {
                let beta = (1.0 - alpha_bar / before) as f32;
                before = alpha_bar;
                sum += f64::from(ln(1.0 - beta));
                0.5 * sum as f32
            })
            .take_while(|&log_alpha| Shares::new(log_alpha).lambda >= LEAST_LAMBDA)
            .collect();
        let times = linspace(0.0, 1.0, log_alpha.len() + 1).split_off(1);
        Self { log_alpha, times }
    }

    /// Linear between the timesteps.
    fn at(&self, time: f32) -> Shares {
        let (x, y) = (&self.times, &self.log_alpha);
        let right = x.partition_point(|&x| x < time).clamp(1, x.len() - 1);
        let left = right - 1;
        Shares::new(y[left] + (time - x[left]) * (y[right] - y[left]) / (x[right] - x[left]))
    }

    /// The network's time. It runs up to 999 although the noisiest timesteps of a zero-SNR schedule are
    /// left out: there the reference's network is told a noisier time than the latent's.
    fn network_time(&self, time: f32) -> f64 {
        f64::from((time - (1.0 / self.times.len() as f64) as f32) * 1000.0)
    }
}

/// `count` numbers from `start` to `end`, computed from the nearer end as PyTorch does.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|i| if i < count / 2 { start + step * i as f32 } else { end - step * (count - 1 - i) as f32 })
        .collect()
}

/// Samples in `settings.steps` evaluations from pure noise; draws nothing.
pub fn sample<E>(
    settings: &Sampling,
    x_t: Latent,
    denoise: &mut Denoise<E>,
    on_step: &mut dyn FnMut(Step),
) -> Result<Latent, SampleError<E>> {
    let steps = settings.steps;
    if !(2..=TIMESTEPS).contains(&steps) {
        return Err(SampleError::steps("dpm++_m2", 2..=TIMESTEPS, steps));
    }
    let schedule = Continuous::new(settings.schedule);
    let last = (1.0 / schedule.times.len() as f64) as f32;
    let times = linspace(1.0, last, steps + 1);
    let shares: Vec<Shares> = times.iter().map(|&time| schedule.at(time)).collect();
    let guided = settings.is_guided(settings.guidance.scale);
    let mut x = x_t;
    let mut earlier: Option<Latent> = None;
    for index in 0..steps {
        let (here, next) = (shares[index], shares[index + 1]);
        let t = schedule.network_time(times[index]);
        let scale = guided.then(|| settings.guidance.rising(t));
        let eps = Sampling::evaluate(&x, t, scale, denoise, |out| match settings.prediction {
            Prediction::Eps => out,
            Prediction::V => out.zip(&x, |v, x| here.alpha * v + here.sigma * x),
        })?;
        let x0 = x.zip(&eps, |x, eps| (x - here.sigma * eps) / here.alpha);
        let h = next.lambda - here.lambda;
        let (keep, take) = (next.sigma / here.sigma, next.alpha * expm1(-h));
        let mut moved = x.zip(&x0, |x, x0| keep * x - take * x0);
        // With few steps the last is of first order.
        let first_order = steps < 10 && index + 1 == steps;
        if let Some(earlier) = earlier.filter(|_| !first_order) {
            let r = (here.lambda - shares[index - 1].lambda) / h;
            let slope = x0.zip(&earlier, |now, earlier| 1.0 / r * (now - earlier));
            moved = moved.zip(&slope, |x, slope| x - 0.5 * take * slope);
        }
        x = moved;
        on_step(Step { done: index + 1, total: steps, x: &x, estimate: &x0 });
        earlier = Some(x0);
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Terminal;

    #[test]
    fn the_noisiest_timesteps_of_zero_snr_are_left_out() {
        assert_eq!(Continuous::new(&Schedule::new(Terminal::Plain)).times.len(), 1000);
        let zero = Continuous::new(&Schedule::new(Terminal::ZeroSnr));
        assert_eq!(zero.times.len(), 986);
        assert!((zero.at(1.0).alpha / 0.006_396_5 - 1.0).abs() < 1e-4);
        assert!((zero.network_time(1.0) - 998.98).abs() < 0.01);
    }
}
