//! Resampling with antialiasing: Pillow's, bit for bit, for 8-bit pictures (reference 3.1), and the same
//! filters in floats, which is PyTorch's antialiased interpolation.
//!
//! Both are separable, widen the filter when they reduce, and go across first.

use crate::Raster;
use rayon::prelude::*;

/// The kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Mean over the covered pixels.
    Box,
    /// Triangle.
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
    /// Windowed sinc of three lobes.
    Lanczos,
}

impl Filter {
    /// Half the width of the kernel, in source pixels when nothing is reduced.
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            // Half open, so that a pixel on the border counts once.
            Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Bicubic => {
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Filter::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// For one output pixel the first source pixel and the weights from there on, which sum to 1.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

fn taps(input: usize, output: usize, filter: Filter) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let widened = scale.max(1.0);
    let support = filter.support() * widened;
    (0..output)
        .map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5) as isize).max(0) as usize;
            let last = ((centre + support + 0.5) as usize).min(input);
            let mut weights: Vec<f64> =
                (first..last).map(|at| filter.weight((at as f64 - centre + 0.5) * (1.0 / widened))).collect();
            let total: f64 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= total);
            }
            Taps { first, weights }
        })
        .collect()
}

/// Resamples 8-bit interleaved rows exactly as Pillow's `Image.resize` does: 22-bit fixed-point weights,
/// an 8-bit picture between the two passes, and no pass in a direction that keeps its size.
///
/// # Panics
/// When `pixels` is not `width · height · channels` long or a size is 0.
pub fn pil(
    pixels: &[u8],
    (width, height): (usize, usize),
    channels: usize,
    (new_width, new_height): (usize, usize),
    filter: Filter,
) -> Vec<u8> {
    assert_eq!(pixels.len(), width * height * channels, "pixels do not fit the size");
    assert!(width * height * new_width * new_height > 0, "a picture has at least one pixel");
    let across;
    let pixels = if width == new_width {
        pixels
    } else {
        let taps = fixed(&taps(width, new_width, filter));
        let mut out = vec![0; new_width * height * channels];
        out.par_chunks_mut(new_width * channels).zip(pixels.par_chunks(width * channels)).for_each(
            |(out, row)| {
                for (pixel, (first, weights)) in out.chunks_exact_mut(channels).zip(&taps) {
                    for (channel, value) in pixel.iter_mut().enumerate() {
                        let sum: i32 = weights
                            .iter()
                            .enumerate()
                            .map(|(k, weight)| weight * i32::from(row[(first + k) * channels + channel]))
                            .sum();
                        *value = clip(sum);
                    }
                }
            },
        );
        across = out;
        &across
    };
    if height == new_height {
        return pixels.to_vec();
    }
    let taps = fixed(&taps(height, new_height, filter));
    let length = new_width * channels;
    let mut out = vec![0; new_height * length];
    out.par_chunks_mut(length).zip(&taps).for_each(|(out, (first, weights))| {
        let mut sums = vec![0i32; length];
        for (row, weight) in pixels[first * length..].chunks_exact(length).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(value);
            }
        }
        for (value, sum) in out.iter_mut().zip(sums) {
            *value = clip(sum);
        }
    });
    out
}

/// Bits behind the point of a fixed-point weight: what 32 bits leave beside 8 bits of value and two of
/// overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

fn fixed(taps: &[Taps]) -> Vec<(usize, Vec<i32>)> {
    taps.iter()
        .map(|taps| {
            let one = f64::from(1u32 << PRECISION_BITS);
            let weights = taps
                .weights
                .iter()
                .map(|&weight| (weight * one + if weight < 0.0 { -0.5 } else { 0.5 }) as i32)
                .collect();
            (taps.first, weights)
        })
        .collect()
}

fn clip(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Resamples floats with the same filters, without clamping.
///
/// # Panics
/// When a size is 0.
pub fn float(picture: &Raster, new_width: usize, new_height: usize, filter: Filter) -> Raster {
    assert!(new_width * new_height > 0, "a picture has at least one pixel");
    let channels = picture.channels;
    let across = if picture.width_px == new_width {
        picture.clone()
    } else {
        let taps = taps(picture.width_px, new_width, filter);
        let mut out = Raster::new(new_width, picture.height_px, channels);
        out.data
            .par_chunks_mut(new_width * channels)
            .zip(picture.data.par_chunks(picture.width_px * channels))
            .for_each(|(out, row)| {
                for (pixel, taps) in out.chunks_exact_mut(channels).zip(&taps) {
                    for (channel, value) in pixel.iter_mut().enumerate() {
                        let source = row[taps.first * channels + channel..].iter().step_by(channels);
                        *value = taps.weights.iter().zip(source).map(|(&w, v)| w as f32 * v).sum();
                    }
                }
            });
        out
    };
    if across.height_px == new_height {
        return across;
    }
    let taps = taps(across.height_px, new_height, filter);
    let length = new_width * channels;
    let mut out = Raster::new(new_width, new_height, channels);
    out.data.par_chunks_mut(length).zip(&taps).for_each(|(out, taps)| {
        for (row, &weight) in across.data[taps.first * length..].chunks_exact(length).zip(&taps.weights) {
            for (value, source) in out.iter_mut().zip(row) {
                *value += weight as f32 * source;
            }
        }
    });
    out
}

/// The size with its shorter side `short_px` and the other cut to whole pixels (reference 3.1).
pub fn short_side_to(short_px: usize, width: usize, height: usize) -> (usize, usize) {
    let ratio = short_px as f64 / width.min(height) as f64;
    let scaled = |side: usize| (side as f64 * ratio) as usize;
    if width <= height { (short_px, scaled(height)) } else { (scaled(width), short_px) }
}
