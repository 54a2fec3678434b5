//! Where sampling starts, and noise on its condition (reference 2.8). The draws come in this order: the
//! start, then the condition's.

use crate::Latent;
use crate::noise::Noise;
use crate::schedule::{Schedule, TIMESTEPS};
use std::fmt;
use std::str::FromStr;

/// The reference's `start_point_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPoint {
    /// Pure noise.
    #[default]
    Noise,
    /// A clean latent as it is left at the last timestep: 7 % of it in a plain schedule, in a zero-SNR
    /// schedule nothing, so that the start is pure noise.
    Cond,
}

impl StartPoint {
    /// Draws the start `x_T`. `clean` is the condition's latent before [`augment`]; for v2's "better start"
    /// it is the latent of the condition's low frequencies.
    pub fn draw(self, schedule: &Schedule, clean: &Latent, noise: &mut dyn Noise) -> Latent {
        match self {
            Self::Noise => clean.with(noise.normal(clean.data.len())),
            Self::Cond => q_sample(schedule, clean, TIMESTEPS - 1, noise),
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
        let draw = |start: StartPoint, terminal| start.draw(&Schedule::new(terminal), &clean, &mut noise());
        assert_eq!(draw(StartPoint::Noise, Terminal::Plain).data, pure);
        assert_eq!(draw(StartPoint::Cond, Terminal::ZeroSnr).data, pure);
        for (got, pure) in draw(StartPoint::Cond, Terminal::Plain).data.iter().zip(&pure) {
            let known = 0.068_265 * 2.0 + 0.997_667 * pure;
            assert!((got - known).abs() < 1e-5, "{got} is not {known}");
        }
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
