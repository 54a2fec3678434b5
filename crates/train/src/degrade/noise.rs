//! Noise of Real-ESRGAN and CodeFormer (reference 5.4, 5.5): Gaussian and Poisson, in colour or the same in all
//! channels. The result is clamped to 0..1.

use super::normal;
use diffbir_imaging::Raster;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Drawn noise: the same seed gives the same noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Which, and how much.
    pub kind: Kind,
    /// Whether all channels get the same.
    pub grey: bool,
    /// From which it follows.
    pub seed: u32,
}

/// Kinds of noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// With this standard deviation, of 255.
    Gaussian(f32),
    /// Of as many photons at full brightness as the picture has levels, times this.
    Poisson(f32),
}

impl Noise {
    /// Adds it, and clamps to 0..1.
    pub fn apply(&self, picture: &Raster) -> Raster {
        let added = self.added(picture);
        let data = picture.data.iter().zip(added).map(|(value, add)| (value + add).clamp(0.0, 1.0));
        Raster { data: data.collect(), ..*picture }
    }

    /// What it adds to each value.
    pub fn added(&self, picture: &Raster) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed.into());
        let channels = if self.grey { 1 } else { picture.channels };
        let (scale, noise): (f32, Vec<f32>) = match self.kind {
            Kind::Gaussian(levels) => {
                let count = picture.width_px * picture.height_px * channels;
                (levels / 255.0, (0..count).map(|_| normal(&mut random)).collect())
            }
            Kind::Poisson(scale) if self.grey => (scale, poisson(&luma(picture), &mut random)),
            Kind::Poisson(scale) => (scale, poisson(&picture.data, &mut random)),
        };
        let copies = picture.channels / channels;
        noise.into_iter().flat_map(|value| std::iter::repeat_n(scale * value, copies)).collect()
    }
}

/// Luma of RGB; a grey picture is its own.
fn luma(picture: &Raster) -> Vec<f32> {
    let pixels = picture.data.chunks_exact(picture.channels);
    match picture.channels {
        3 => pixels.map(|rgb| 0.2989 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]).collect(),
        _ => pixels.map(|values| values[0]).collect(),
    }
}

/// What counting photons adds to the values, rounded to levels of 255. There are as many photons at full
/// brightness as there are different levels, rounded up to a power of two.
fn poisson(values: &[f32], random: &mut ChaCha8Rng) -> Vec<f32> {
    let level = |value: &f32| (value * 255.0).round_ties_even().clamp(0.0, 255.0) as u8;
    let mut seen = [false; 256];
    values.iter().for_each(|value| seen[usize::from(level(value))] = true);
    let photons = seen.iter().filter(|seen| **seen).count().next_power_of_two() as f64;
    // For each level that there is the distribution function, in which a count is looked up.
    let tables: Vec<Vec<f64>> = (0..256)
        .map(|level| if seen[level] { distribution(level as f64 / 255.0 * photons) } else { Vec::new() })
        .collect();
    let add = |value: &f32| {
        let level = level(value);
        let (table, at) = (&tables[usize::from(level)], random.random::<f64>());
        let count = table.partition_point(|below| *below <= at);
        (count as f64 / photons - f64::from(level) / 255.0) as f32
    };
    values.iter().map(add).collect()
}

/// Distribution function of the Poisson distribution of this mean, up to where nothing is left. The mean is at
/// most 256, so that exp(-mean) is a normal number.
fn distribution(mean: f64) -> Vec<f64> {
    let (mut term, mut sum) = ((-mean).exp(), 0.0);
    let most = (mean + 12.0 * mean.sqrt() + 30.0) as usize;
    (1..=most)
        .map(|count| {
            sum += term;
            term *= mean / count as f64;
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the pixels in front that are not flat.
    const RAMP: usize = 256 * 3;

    fn flat(value: f32) -> Raster {
        let mut picture = Raster::new(200, 100, 3);
        picture.data.fill(value);
        // All 256 levels, so that there are 256 photons.
        for (level, rgb) in picture.data[..RAMP].chunks_exact_mut(3).enumerate() {
            rgb.fill(level as f32 / 255.0);
        }
        picture
    }

    /// Mean, standard deviation and skewness of what noise adds away from the ramp.
    fn moments(noise: Noise, value: f32) -> [f64; 3] {
        let picture = flat(value);
        let out = noise.apply(&picture);
        let added: Vec<f64> =
            out.data[RAMP..].iter().zip(&picture.data[RAMP..]).map(|(a, b)| f64::from(a - b)).collect();
        let moment = |of: &dyn Fn(f64) -> f64| added.iter().map(|&x| of(x)).sum::<f64>() / added.len() as f64;
        let mean = moment(&|x| x);
        let deviation = moment(&|x| (x - mean).powi(2)).sqrt();
        [mean, deviation, moment(&|x| ((x - mean) / deviation).powi(3))]
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let value = 102.0 / 255.0;
        for grey in [false, true] {
            let [mean, deviation, skew] = moments(Noise { kind: Kind::Gaussian(20.0), grey, seed: 3 }, value);
            assert!(mean.abs() < 2e-3 && skew.abs() < 0.05, "{mean} {skew}");
            assert!((deviation * 255.0 - 20.0).abs() < 0.4, "{deviation}");
            // 256 photons: 102.4 a pixel, give or take their root, and skewed by one over it.
            let [mean, deviation, skew] = moments(Noise { kind: Kind::Poisson(1.5), grey, seed: 3 }, value);
            let root = (0.4f64 * 256.0).sqrt();
            assert!(mean.abs() < 2e-3 && (skew - 1.0 / root).abs() < 0.05, "{mean} {skew}");
            assert!((deviation / (1.5 * root / 256.0) - 1.0).abs() < 0.02, "{deviation}");
        }
    }

    #[test]
    fn grey_noise_is_the_same_in_all_channels_and_seeds_differ() {
        let picture = flat(0.5);
        for kind in [Kind::Gaussian(20.0), Kind::Poisson(1.0)] {
            let grey = Noise { kind, grey: true, seed: 1 }.apply(&picture);
            assert!(grey.data[RAMP..].chunks_exact(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]));
            let other = Noise { kind, grey: false, seed: 1 }.apply(&picture);
            assert!(other.data[RAMP..].chunks_exact(3).any(|rgb| rgb[0] != rgb[1]));
            assert_ne!(other, Noise { kind, grey: false, seed: 2 }.apply(&picture));
        }
    }
}
