//! Degradations: from a true picture to the small, blurred, noisy, compressed one that it would have been.
//!
//! Blur, reduction, noise and JPEG in this order, drawn from ranges by a seed and a name, so that a
//! picture's degradation does not depend on which others are degraded with it.

use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::ops::RangeInclusive;

/// The range from which each step of a degradation is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges {
    /// Standard deviation of the Gaussian blur at full size, pixels.
    pub blur_sigma_px: RangeInclusive<f32>,
    /// Standard deviation of the noise, in levels of 255.
    pub noise_levels: RangeInclusive<f32>,
    /// JPEG quality.
    pub jpeg_quality: RangeInclusive<u8>,
    /// Chance that blur (in half of these), noise and JPEG come once more at the small size.
    pub second_chance: f32,
}

/// The strengths that `diffbir degrade` offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// A good small picture from the web.
    Mild,
    /// A small picture that has been around.
    Medium,
    /// A picture that was treated badly twice.
    Heavy,
}

impl Preset {
    /// The ranges of this strength.
    pub fn ranges(self) -> Ranges {
        let (blur_sigma_px, noise_levels, jpeg_quality, second_chance) = match self {
            Preset::Mild => (0.4..=1.2, 0.0..=4.0, 75..=95, 0.0),
            Preset::Medium => (0.8..=2.2, 2.0..=10.0, 45..=80, 0.0),
            Preset::Heavy => (1.5..=3.5, 6.0..=18.0, 30..=60, 1.0),
        };
        Ranges { blur_sigma_px, noise_levels, jpeg_quality, second_chance }
    }
}

/// How the picture is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Antialiased bicubic.
    Bicubic,
    /// Mean over the covered pixels.
    Box,
    /// Antialiased triangle.
    Bilinear,
}

/// Noise and compression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Damage {
    /// Standard deviation of the Gaussian noise in levels of 255.
    pub noise_levels: f32,
    /// Whether all three channels get the same noise.
    pub noise_grey: bool,
    /// JPEG quality, chroma at half size as most programs write it.
    pub jpeg_quality: u8,
}

/// A drawn degradation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Degradation {
    /// Blur at full size, pixels.
    pub blur_sigma_px: f32,
    /// How it is reduced.
    pub reduction: Reduction,
    /// By how much.
    pub factor: usize,
    /// Noise and compression at the small size.
    pub first: Damage,
    /// Blur at the small size (0 for none), noise and compression once more.
    pub second: Option<(f32, Damage)>,
}

/// The generator for one picture: from the seed and its name.
pub fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    ChaCha8Rng::seed_from_u64(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl Degradation {
    /// Draws one from `ranges`, reducing by `factor`.
    pub fn draw(ranges: &Ranges, factor: usize, random: &mut ChaCha8Rng) -> Self {
        let blur_sigma_px = random.random_range(ranges.blur_sigma_px.clone());
        let reduction =
            [Reduction::Bicubic, Reduction::Box, Reduction::Bilinear][random.random_range(0..3usize)];
        let first = Damage::draw(ranges, random);
        let second = (random.random::<f32>() < ranges.second_chance).then(|| {
            let blurred = random.random::<f32>() < 0.5;
            let sigma = random.random_range(ranges.blur_sigma_px.clone()) / factor as f32;
            (if blurred { sigma } else { 0.0 }, Damage::draw(ranges, random))
        });
        Self { blur_sigma_px, reduction, factor, first, second }
    }

    /// Degrades an RGB picture; the result has 1 / factor of its size, at least one pixel.
    pub fn apply(&self, picture: &Raster, random: &mut ChaCha8Rng) -> Raster {
        let mut small = gaussian_blur(picture, self.blur_sigma_px);
        if self.factor > 1 {
            let filter = match self.reduction {
                Reduction::Bicubic => Filter::Bicubic,
                Reduction::Box => Filter::Box,
                Reduction::Bilinear => Filter::Bilinear,
            };
            let side = |px: usize| (px / self.factor).max(1);
            small = resize::float(&small, side(small.width_px), side(small.height_px), filter);
        }
        small = self.first.apply(&small, random);
        if let Some((sigma, damage)) = &self.second {
            small = damage.apply(&gaussian_blur(&small, *sigma), random);
        }
        small
    }
}

impl Damage {
    fn draw(ranges: &Ranges, random: &mut ChaCha8Rng) -> Self {
        Self {
            noise_levels: random.random_range(ranges.noise_levels.clone()),
            noise_grey: random.random::<f32>() < 0.4,
            jpeg_quality: random.random_range(ranges.jpeg_quality.clone()),
        }
    }

    fn apply(&self, picture: &Raster, random: &mut ChaCha8Rng) -> Raster {
        let mut noisy = picture.clone();
        let sigma = self.noise_levels / 255.0;
        for pixel in noisy.data.chunks_exact_mut(picture.channels) {
            let grey = normal(random);
            for value in pixel {
                *value += sigma * if self.noise_grey { grey } else { normal(random) };
            }
        }
        jpeg(&noisy, self.jpeg_quality)
    }
}

/// A standard normal number (Box-Muller, one of the pair).
pub(crate) fn normal(random: &mut ChaCha8Rng) -> f32 {
    let (u, v) = (1.0 - random.random::<f32>(), random.random::<f32>());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

/// Gaussian blur, the edge pixels repeated outwards; sigma 0 changes nothing.
pub fn gaussian_blur(picture: &Raster, sigma_px: f32) -> Raster {
    if sigma_px <= 0.0 {
        return picture.clone();
    }
    let radius = (3.0 * sigma_px).ceil() as isize;
    let mut kernel: Vec<f32> =
        (-radius..=radius).map(|x| (-0.5 * (x as f32 / sigma_px).powi(2)).exp()).collect();
    let total: f32 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= total);
    let (width, height, channels) = (picture.width_px, picture.height_px, picture.channels);
    let pass = |source: &[f32], step: usize, length: usize, position: &dyn Fn(usize) -> usize| {
        let mut out = vec![0.0; source.len()];
        for (index, value) in out.iter_mut().enumerate() {
            let at = position(index) as isize;
            *value = kernel
                .iter()
                .zip(-radius..=radius)
                .map(|(weight, offset)| {
                    let moved = (at + offset).clamp(0, length as isize - 1) - at;
                    weight * source[(index as isize + moved * step as isize) as usize]
                })
                .sum();
        }
        out
    };
    let across = pass(&picture.data, channels, width, &|index| index / channels % width);
    let data = pass(&across, channels * width, height, &|index| index / (channels * width));
    Raster { data, ..*picture }
}

/// Through a JPEG file in memory, 4:2:0.
fn jpeg(picture: &Raster, quality: u8) -> Raster {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    let (width, height) = (picture.width_px as u16, picture.height_px as u16);
    encoder
        .encode(&picture.to_u8_rounding(), width, height, jpeg_encoder::ColorType::Rgb)
        .expect("a picture below 65536 pixels a side encodes in memory");
    diffbir_imaging::decode_bytes(&bytes, "degraded.jpg").expect("our own JPEG is whole").to_raster()
}
