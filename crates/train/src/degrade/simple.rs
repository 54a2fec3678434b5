//! The simple degradation, of which the built-in model was trained: blur, antialiased reduction, noise and
//! JPEG, the last two and sometimes a blur once more.

use super::limits::{self, Span};
use super::{DegradeError, codec, normal};
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::RangeInclusive;

/// The range from which each step is drawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// By how much the picture is reduced.
    #[serde(deserialize_with = "factor")]
    pub factor: usize,
    /// Standard deviation of the Gaussian blur at full size, pixels.
    #[serde(deserialize_with = "blur_sigma_px")]
    pub blur_sigma_px: RangeInclusive<f32>,
    /// Standard deviation of the noise, in levels of 255.
    #[serde(deserialize_with = "noise_levels")]
    pub noise_levels: RangeInclusive<f32>,
    /// JPEG quality.
    #[serde(deserialize_with = "jpeg_quality")]
    pub jpeg_quality: RangeInclusive<u8>,
    /// Chance that blur (in half of these), noise and JPEG come once more at the small size.
    #[serde(deserialize_with = "second_chance")]
    pub second_chance: f32,
}

fn factor<'de, D: Deserializer<'de>>(source: D) -> Result<usize, D::Error> {
    limits::whole_factor(source).map(|factor| factor as usize)
}

fn blur_sigma_px<'de, D: Deserializer<'de>>(source: D) -> Result<RangeInclusive<f32>, D::Error> {
    limits::blur_sigma_px(source).map(single)
}

fn noise_levels<'de, D: Deserializer<'de>>(source: D) -> Result<RangeInclusive<f32>, D::Error> {
    limits::noise_levels(source).map(single)
}

fn jpeg_quality<'de, D: Deserializer<'de>>(source: D) -> Result<RangeInclusive<u8>, D::Error> {
    limits::jpeg_quality(source).map(|Span { low, high }| low as u8..=high as u8)
}

fn second_chance<'de, D: Deserializer<'de>>(source: D) -> Result<f32, D::Error> {
    limits::second_chance(source).map(|chance| chance as f32)
}

fn single(Span { low, high }: Span) -> RangeInclusive<f32> {
    low as f32..=high as f32
}

/// How the picture is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// Standard deviation of the Gaussian noise in levels of 255.
    pub noise_levels: f32,
    /// Whether all three channels get the same noise.
    pub noise_grey: bool,
    /// JPEG quality, chroma at half size as most programs write it.
    pub jpeg_quality: u8,
}

/// A drawn degradation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// From which the noise follows.
    pub noise: Stream,
}

/// A place in a stream of random numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// ChaCha's, in files 64 hexadecimal digits.
    #[serde(serialize_with = "to_digits", deserialize_with = "from_digits")]
    key: [u8; 32],
    /// How many numbers of 32 bits come before.
    word: u64,
}

impl Stream {
    fn at(random: &ChaCha8Rng) -> Self {
        Self { key: random.get_seed(), word: random.get_word_pos() as u64 }
    }

    fn generator(&self) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::from_seed(self.key);
        random.set_word_pos(self.word.into());
        random
    }
}

fn to_digits<S: Serializer>(key: &[u8; 32], sink: S) -> Result<S::Ok, S::Error> {
    sink.serialize_str(&key.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn from_digits<'de, D: Deserializer<'de>>(source: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(source)?;
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    digits
        .filter(|digits| digits.len() == 64)
        .and_then(|digits| {
            digits.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect::<Vec<_>>().try_into().ok()
        })
        .ok_or_else(|| D::Error::custom("expected a key of 64 hexadecimal digits"))
}

impl Degradation {
    /// Draws one from `ranges`.
    pub fn draw(ranges: &Ranges, random: &mut ChaCha8Rng) -> Self {
        let factor = ranges.factor;
        let blur_sigma_px = random.random_range(ranges.blur_sigma_px.clone());
        let reduction =
            [Reduction::Bicubic, Reduction::Box, Reduction::Bilinear][random.random_range(0..3usize)];
        let first = Damage::draw(ranges, random);
        let second = (random.random::<f32>() < ranges.second_chance).then(|| {
            let blurred = random.random::<f32>() < 0.5;
            let sigma = random.random_range(ranges.blur_sigma_px.clone()) / factor as f32;
            (if blurred { sigma } else { 0.0 }, Damage::draw(ranges, random))
        });
        Self { blur_sigma_px, reduction, factor, first, second, noise: Stream::at(random) }
    }

    /// Degrades an RGB picture; the result has 1 / factor of its size, at least one pixel.
    pub fn apply(&self, picture: &Raster) -> Result<Raster, DegradeError> {
        let random = &mut self.noise.generator();
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
        small = self.first.apply(&small, random)?;
        if let Some((sigma, damage)) = &self.second {
            small = damage.apply(&gaussian_blur(&small, *sigma), random)?;
        }
        Ok(small)
    }

    /// The first thing that cannot be computed: what a file holds may be anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let mut sigmas = vec![self.blur_sigma_px];
        let mut damages = vec![self.first];
        if let Some((sigma, damage)) = self.second {
            sigmas.push(sigma);
            damages.push(damage);
        }
        let is_damage = |damage: &Damage| {
            limits::NOISE_LEVELS.admits(damage.noise_levels.into())
                && limits::JPEG_QUALITY.admits(damage.jpeg_quality.into())
        };
        if !limits::WHOLE_FACTOR.admits(self.factor as f64) {
            Some("factor is out of range")
        } else if !sigmas.iter().all(|&sigma| limits::BLUR_SIGMA_PX.admits(sigma.into())) {
            Some("a blur is out of range")
        } else if !damages.iter().all(is_damage) {
            Some("noise or a quality is out of range")
        } else {
            None
        }
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

    fn apply(&self, picture: &Raster, random: &mut ChaCha8Rng) -> Result<Raster, DegradeError> {
        let mut noisy = picture.clone();
        let sigma = self.noise_levels / 255.0;
        for pixel in noisy.data.chunks_exact_mut(picture.channels) {
            let grey = normal(random);
            for value in pixel {
                *value += sigma * if self.noise_grey { grey } else { normal(random) };
            }
        }
        codec::jpeg(&noisy, self.jpeg_quality)
    }
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
