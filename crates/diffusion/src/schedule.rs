//! The noise schedule: how much of a latent is left at each of the 1000 timesteps (reference 2.1).

use serde::{Deserialize, Serialize};

/// Timesteps of training; network times run from 0 to one less.
pub const TIMESTEPS: usize = 1000;

/// The noisiest of them.
pub const LAST_T: usize = TIMESTEPS - 1;

/// What the network was trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prediction {
    /// The noise.
    Eps,
    /// The velocity, `sqrt(alpha_bar) · noise - sqrt(1 - alpha_bar) · x0` (arXiv 2202.00512).
    V,
}

/// Whether the last timestep still holds some of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terminal {
    /// As Stable Diffusion was trained: a little signal is left at the end.
    Plain,
    /// Rescaled so that the last timestep is pure noise (arXiv 2305.08891).
    ZeroSnr,
}

/// The products of `1 - beta` up to each timestep.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// `alpha_bar[t]`, falling from nearly 1.
    pub alpha_bar: Vec<f64>,
}

impl Schedule {
    /// Stable Diffusion's betas: squares of an even spacing from sqrt(.00085) to sqrt(.012).
    pub fn new(terminal: Terminal) -> Self {
        let (first, last) = (0.00085f64.sqrt(), 0.0120f64.sqrt());
        let step = (last - first) / (TIMESTEPS - 1) as f64;
        let mut product = 1.0;
        let mut alpha_bar: Vec<f64> = (0..TIMESTEPS)
            .map(|t| {
                let root = if t + 1 == TIMESTEPS { last } else { first + step * t as f64 };
                product *= 1.0 - root * root;
                product
            })
            .collect();
        if terminal == Terminal::ZeroSnr {
            let (first, last) = (alpha_bar[0].sqrt(), alpha_bar[TIMESTEPS - 1].sqrt());
            for value in &mut alpha_bar {
                *value = ((value.sqrt() - last) * first / (first - last)).powi(2);
            }
            // The reference goes through betas and back, which leaves its own rounding.
            let mut product = 1.0;
            let mut before = 1.0;
            for value in &mut alpha_bar {
                let beta = 1.0 - *value / before;
                before = *value;
                product *= 1.0 - beta;
                *value = product;
            }
        }
        Self { alpha_bar }
    }

    /// `(sqrt(alpha_bar), sqrt(1 - alpha_bar))` at `t`: the shares of picture and noise.
    pub fn shares(&self, t: usize) -> (f32, f32) {
        (self.alpha_bar[t].sqrt() as f32, (1.0 - self.alpha_bar[t]).sqrt() as f32)
    }

    /// The noisy latent at `t`: `sqrt(alpha_bar) · x0 + sqrt(1 - alpha_bar) · noise`.
    pub fn q_sample(&self, x0: &[f32], noise: &[f32], t: usize) -> Vec<f32> {
        let (signal, spread) = self.shares(t);
        x0.iter().zip(noise).map(|(x0, noise)| signal * x0 + spread * noise).collect()
    }

    /// The velocity that goes with [`Schedule::q_sample`].
    pub fn velocity(&self, x0: &[f32], noise: &[f32], t: usize) -> Vec<f32> {
        let (signal, spread) = self.shares(t);
        x0.iter().zip(noise).map(|(x0, noise)| signal * noise - spread * x0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_bar_has_the_known_values() {
        let known: [(usize, f64, f64); 7] = [
            (0, 0.99915, 0.99915),
            (1, 0.998296027838, 0.99823344614),
            (199, 0.755238361158, 0.738700107422),
            (499, 0.277669650456, 0.242359166556),
            (799, 0.0371949997887, 0.0178831638727),
            (899, 0.0142986768882, 0.00303307237065),
            (998, 0.00471669889988, 1.96788805662e-7),
        ];
        let (plain, zero) = (Schedule::new(Terminal::Plain), Schedule::new(Terminal::ZeroSnr));
        for (t, a, b) in known {
            assert!((plain.alpha_bar[t] / a - 1.0).abs() < 1e-11, "plain {t}: {}", plain.alpha_bar[t]);
            assert!((zero.alpha_bar[t] / b - 1.0).abs() < 1e-8, "zero {t}: {}", zero.alpha_bar[t]);
        }
        assert!((plain.alpha_bar[999] / 0.00466009851308 - 1.0).abs() < 1e-11);
        assert_eq!(zero.alpha_bar[999], 0.0);
    }

    #[test]
    fn velocity_and_noisy_latent_give_back_the_picture() {
        let schedule = Schedule::new(Terminal::ZeroSnr);
        let (x0, noise) = ([0.5, -1.0], [0.3, 2.0]);
        let (signal, spread) = schedule.shares(700);
        let x = schedule.q_sample(&x0, &noise, 700);
        let v = schedule.velocity(&x0, &noise, 700);
        for i in 0..2 {
            assert!((signal * x[i] - spread * v[i] - x0[i]).abs() < 1e-6);
        }
    }
}
