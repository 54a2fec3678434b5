//! Resizing without antialiasing, as degradations of the reference do it: PyTorch's `interpolate` with
//! unaligned corners, and OpenCV's bilinear.
//!
//! Coordinates are computed in the precision of the originals, since a coordinate of 500 in float32 is wrong by
//! 3e-5.

use diffbir_imaging::Raster;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// PyTorch's: the mean of all pixels that a new one touches.
    Area,
    /// PyTorch's: between two pixels a side.
    Bilinear,
    /// PyTorch's: Keys' cubic with a = -.75 over four pixels a side.
    Bicubic,
    /// OpenCV's.
    Cv2Bilinear,
}

/// The source places and weights of one output place.
type Taps = Vec<(usize, f32)>;

/// Resizes. `scale` is given where the size was asked for as a multiple, which then places the pixels.
///
/// # Panics
/// When a size is 0.
pub fn resize(
    picture: &Raster,
    width_px: usize,
    height_px: usize,
    scale: Option<f64>,
    filter: Filter,
) -> Raster {
    assert!(width_px * height_px > 0, "a picture has at least one pixel");
    let channels = picture.channels;
    let across = taps(picture.width_px, width_px, scale, filter);
    let down = taps(picture.height_px, height_px, scale, filter);
    let mut wide = Raster::new(width_px, picture.height_px, channels);
    let rows = picture.data.par_chunks(picture.width_px * channels);
    wide.data.par_chunks_mut(width_px * channels).zip(rows).for_each(|(out, row)| {
        for (pixel, taps) in out.chunks_exact_mut(channels).zip(&across) {
            for (channel, value) in pixel.iter_mut().enumerate() {
                *value = taps.iter().map(|(place, weight)| weight * row[place * channels + channel]).sum();
            }
        }
    });
    let length = width_px * channels;
    let mut out = Raster::new(width_px, height_px, channels);
    out.data.par_chunks_mut(length).zip(&down).for_each(|(out, taps)| {
        for (place, weight) in taps {
            for (value, source) in out.iter_mut().zip(&wide.data[place * length..]) {
                *value += weight * source;
            }
        }
    });
    out
}

fn taps(input: usize, output: usize, scale: Option<f64>, filter: Filter) -> Vec<Taps> {
    let step = scale.map_or(input as f32 / output as f32, |scale| (1.0 / scale) as f32);
    let source = |index: usize| step * (index as f32 + 0.5) - 0.5;
    let last = input - 1;
    let linear = |first: usize, between: f32| vec![(first, 1.0 - between), ((first + 1).min(last), between)];
    let one = |index: usize| match filter {
        Filter::Area => {
            let (start, end) = (index * input / output, ((index + 1) * input).div_ceil(output));
            (start..end).map(|place| (place, 1.0 / (end - start) as f32)).collect()
        }
        Filter::Bilinear if input == output => vec![(index, 1.0)],
        Filter::Bilinear => {
            let at = source(index).max(0.0);
            let first = (at as usize).min(last);
            linear(first, (at - first as f32).clamp(0.0, 1.0))
        }
        Filter::Bicubic => {
            let at = source(index);
            let first = (at.floor() as isize).min(last as isize);
            let between = (at - first as f32).clamp(0.0, 1.0);
            let place = |offset: isize| (first + offset).clamp(0, last as isize) as usize;
            let weights = [far(between + 1.0), near(between), near(1.0 - between), far(2.0 - between)];
            (-1..=2).map(place).zip(weights).collect()
        }
        Filter::Cv2Bilinear => {
            let at = ((index as f64 + 0.5) * (input as f64 / output as f64) - 0.5) as f32;
            match at.floor() {
                floor if floor < 0.0 => linear(0, 0.0),
                floor if floor as usize >= last => linear(last, 0.0),
                floor => linear(floor as usize, at - floor),
            }
        }
    };
    (0..output).map(one).collect()
}

const A: f32 = -0.75;

fn near(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

fn far(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}
