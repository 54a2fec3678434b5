//! Where sampling starts, and noise on its condition (reference 2.8). The draws come in this order: the
//! start, then the condition's. A start below the last timestep is SDEdit's (arXiv 2108.01073).

use crate::Latent;
use crate::noise::Noise;
use crate::schedule::{LAST_T, Schedule};
use std::fmt;
use std::str::FromStr;

/// The reference's `start_point_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPoint {
    /// Pure noise.
    #[default]
    Noise,
    /// A clean latent as it is left at the first timestep of sampling. At the last of the schedule that is 7 % of
    /// it, or nothing, pure noise, in a zero-SNR schedule.
    Cond,
}

impl StartPoint {
    /// Draws the start, `x_T` as a rule, `first_t` being its timestep. `clean` is the condition's latent before [`augment`]; for v2's "better start"
    /// it is the latent of the condition's low frequencies.
    pub fn draw(self, schedule: &Schedule, clean: &Latent, first_t: usize, noise: &mut dyn Noise) -> Latent {
        match self {
            Self::Noise => clean.with(noise.normal(clean.data.len())),
            Self::Cond => q_sample(schedule, clean, first_t, noise),
        }
    }
}

impl fmt::Display for StartPoint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Noise => "noise",
            Self::Cond => "cond",
        })
    }
}

impl FromStr for StartPoint {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "noise" => Ok(Self::Noise),
            "cond" => Ok(Self::Cond),
            _ => Err(format!("no start `{name}`: there are noise and cond")),
        }
    }
}

/// The way of a sampler that starts from the condition: how many of `steps`, and the timestep of the first.
/// `fidelity` is the share of the way that it is spared, 0 for none and below 1.
pub fn way(steps: usize, fidelity: f64) -> (usize, usize) {
    let share = 1.0 - fidelity;
    // Rounded first, so that .3 of 10 steps leaves 7 and not 8.
    let left = (steps as f64 * share * 1e6).round() / 1e6;
    ((left.ceil() as usize).max(1), ((LAST_T as f64 * share).round() as usize).max(1))
}

/// The condition's latent with the noise of timestep `noise_aug`, below 1000; as it is, without a draw,
/// for 0.
pub fn augment(schedule: &Schedule, condition: Latent, noise_aug: usize, noise: &mut dyn Noise) -> Latent {
    if noise_aug == 0 { condition } else { q_sample(schedule, &condition, noise_aug, noise) }
}

/// A clean latent with drawn noise, as it is at `t`.
fn q_sample(schedule: &Schedule, clean: &Latent, t: usize, noise: &mut dyn Noise) -> Latent {
    let drawn = noise.normal(clean.data.len());
    clean.with(schedule.q_sample(&clean.data, &drawn, t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Source, TorchNoise};
    use crate::schedule::Terminal;

    fn noise() -> TorchNoise {
        TorchNoise::new(Source::TorchCpu, 3)
    }

    #[test]
    fn a_start_from_the_condition_has_its_share_of_it() {
        let clean = Latent { batch: 1, channels: 1, height: 2, width: 8, data: vec![2.0; 16] };
        let pure = noise().normal(16);
        let draw =
            |start: StartPoint, terminal| start.draw(&Schedule::new(terminal), &clean, LAST_T, &mut noise());
        assert_eq!(draw(StartPoint::Noise, Terminal::Plain).data, pure);
        assert_eq!(draw(StartPoint::Cond, Terminal::ZeroSnr).data, pure);
        for (got, pure) in draw(StartPoint::Cond, Terminal::Plain).data.iter().zip(&pure) {
            let known = 0.068_265 * 2.0 + 0.997_667 * pure;
            assert!((got - known).abs() < 1e-5, "{got} is not {known}");
        }
    }

    #[test]
    fn fidelity_spares_a_share_of_the_way() {
        assert_eq!(way(10, 0.0), (10, LAST_T));
        assert_eq!(way(10, 0.3), (7, 699));
        assert_eq!(way(50, 0.5), (25, 500));
        assert_eq!(way(1, 0.9), (1, 100));
        assert_eq!(way(10, 0.9999), (1, 1));
    }

    #[test]
    fn a_condition_without_noise_draws_none() {
        let schedule = Schedule::new(Terminal::ZeroSnr);
        let clean = Latent { batch: 1, channels: 1, height: 2, width: 8, data: vec![2.0; 16] };
        let mut source = noise();
        assert_eq!(augment(&schedule, clean.clone(), 0, &mut source), clean);
        assert_eq!(source.normal(16), noise().normal(16));
        let noisy = augment(&schedule, clean.clone(), 150, &mut noise());
        assert_eq!(noisy.data, schedule.q_sample(&clean.data, &noise().normal(16), 150));
    }
}
