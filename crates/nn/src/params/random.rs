//! How parameters start when a network is trained from nothing.

use super::keys::hash;
use super::{Source, WeightError};

/// How a parameter starts when a network is trained from nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in ±1/√fan-in, fan-in being the product of all dimensions but the first (PyTorch's
    /// default for convolutions and linear maps).
    FanIn,
    /// Uniform in ±1/√n, for a bias of a map with fan-in n.
    BiasOf(usize),
    /// Normal with this standard deviation.
    Normal(f32),
    /// A constant.
    Constant(f32),
}

/// Values for a training run: drawn from a seed and the tensor's name, so that the order in which a
/// network asks changes nothing.
pub struct RandomInit {
    /// The run's seed.
    pub seed: u64,
}

impl Source for RandomInit {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let count = shape.iter().product();
        let mut state = hash(key) ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut uniform = move || (split_mix(&mut state) >> 40) as f32 / (1 << 24) as f32;
        let fan_in = shape.iter().skip(1).product::<usize>();
        Ok(match init {
            Init::FanIn | Init::BiasOf(_) => {
                let fan_in = if let Init::BiasOf(n) = init { n } else { fan_in };
                let bound = (fan_in.max(1) as f32).powf(-0.5);
                (0..count).map(|_| (2.0 * uniform() - 1.0) * bound).collect()
            }
            Init::Normal(std) => (0..count)
                .map(|_| {
                    let (u, v) = (1.0 - uniform(), uniform());
                    std * (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
                })
                .collect(),
            Init::Constant(value) => vec![value; count],
        })
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
