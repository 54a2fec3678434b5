//! Structural similarity: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error
//! visibility to structural similarity" (2004), and over scales: Wang, Simoncelli, Bovik, "Multi-scale
//! structural similarity for image quality assessment" (2003).

use crate::filter::gaussian;
use crate::picture::Plane;
use crate::{Channels, MetricError, Picture};
use rayon::prelude::*;

/// The window's width.
const WINDOW_PX: usize = 11;
/// (K L)², K .01 for brightness and .03 for contrast, L 255.
const BRIGHTNESS: f64 = (0.01 * 255.0) * (0.01 * 255.0);
const CONTRAST: f64 = (0.03 * 255.0) * (0.03 * 255.0);
/// Exponents of the scales of [`ms_ssim`], finest first.
const SCALES: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// SSIM at the size of the pictures: 1 for equal ones, else less; never below 0.
///
/// Values 0..255, in RGB the mean over the channels, luma BT.601's studio luma rounded to whole numbers; an
/// 11x11 Gaussian of sigma 1.5 where it fits into the picture; K 0.01 and 0.03. Where contrast and
/// structure correlate negatively they count as 0, as in pyiqa (`ssim` with `color_space="ycbcr"`) and
/// unlike the paper, BasicSR and MATLAB, which let them count against. No reduction of large pictures.
pub fn ssim(a: &Picture, b: &Picture, channels: Channels) -> Result<f64, MetricError> {
    a.same_size(b)?;
    a.at_least(WINDOW_PX, "SSIM")?;
    let (a, b) = (a.planes(channels), b.planes(channels));
    Ok(mean(a.iter().zip(&b).map(|(a, b)| similarity(a, b).whole)))
}

/// SSIM over five scales: the product of contrast and structure at each, and of brightness at the
/// coarsest, each to its exponent (.0448, .2856, .3001, .2363, .1333).
///
/// Values, colours and window as in [`ssim`]. Between scales two by two values become their mean; an odd
/// last row or column is repeated, as MATLAB's symmetric border does (pyiqa adds a row of zeros at both
/// sides there, so that its values differ where a scale has an odd size).
pub fn ms_ssim(a: &Picture, b: &Picture, channels: Channels) -> Result<f64, MetricError> {
    a.same_size(b)?;
    // Of which 11 are left after four halvings, rounded up.
    a.at_least((WINDOW_PX - 1) * (1 << (SCALES.len() - 1)) + 1, "MS-SSIM")?;
    let (mut a, mut b) = (a.planes(channels), b.planes(channels));
    let mut product = 1.0;
    for (scale, exponent) in SCALES.iter().enumerate() {
        if scale > 0 {
            a = a.iter().map(halved).collect();
            b = b.iter().map(halved).collect();
        }
        let last = scale == SCALES.len() - 1;
        let scores = a.iter().zip(&b).map(|(a, b)| similarity(a, b));
        let score = mean(scores.map(|score| if last { score.whole } else { score.contrast }));
        product *= score.powf(*exponent);
    }
    Ok(product)
}

/// Means over all places of the window.
struct Similarity {
    /// Brightness, contrast and structure.
    whole: f64,
    /// Contrast and structure.
    contrast: f64,
}

fn similarity(a: &Plane, b: &Plane) -> Similarity {
    let window = gaussian(WINDOW_PX, 1.5);
    let rows: Vec<(f64, f64)> =
        (0..=a.height - WINDOW_PX).into_par_iter().map(|top| similarity_of_row(a, b, top, &window)).collect();
    let places = (rows.len() * (a.width + 1 - WINDOW_PX)) as f64;
    Similarity {
        whole: rows.iter().map(|row| row.0).sum::<f64>() / places,
        contrast: rows.iter().map(|row| row.1).sum::<f64>() / places,
    }
}

/// The sums over the window's places in one row.
fn similarity_of_row(a: &Plane, b: &Plane, top: usize, window: &[f64]) -> (f64, f64) {
    // Of a, b, a², b² and ab, each column under the window.
    let mut columns = vec![[0.0; 5]; a.width];
    for (y, weight) in (top..).zip(window) {
        for (sums, (&a, &b)) in columns.iter_mut().zip(a.row(y).iter().zip(b.row(y))) {
            add(sums, *weight, [a, b, a * a, b * b, a * b]);
        }
    }
    let mut total = (0.0, 0.0);
    for place in columns.windows(window.len()) {
        let mut sums = [0.0; 5];
        place.iter().zip(window).for_each(|(column, weight)| add(&mut sums, *weight, *column));
        let [mean_a, mean_b, square_a, square_b, product] = sums;
        let (var_a, var_b) = (square_a - mean_a * mean_a, square_b - mean_b * mean_b);
        let covariance = product - mean_a * mean_b;
        let contrast = ((2.0 * covariance + CONTRAST) / (var_a + var_b + CONTRAST)).max(0.0);
        let brightness =
            (2.0 * mean_a * mean_b + BRIGHTNESS) / (mean_a * mean_a + mean_b * mean_b + BRIGHTNESS);
        total.0 += brightness * contrast;
        total.1 += contrast;
    }
    total
}

fn add(sums: &mut [f64; 5], weight: f64, values: [f64; 5]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
}

fn halved(plane: &Plane) -> Plane {
    let (width, height) = (plane.width.div_ceil(2), plane.height.div_ceil(2));
    let rows = (0..height).map(|y| (plane.row(2 * y), plane.row((2 * y + 1).min(plane.height - 1))));
    let data = rows.flat_map(|(upper, lower)| {
        (0..width).map(move |x| {
            let (left, right) = (2 * x, (2 * x + 1).min(upper.len() - 1));
            (upper[left] + upper[right] + lower[left] + lower[right]) / 4.0
        })
    });
    Plane { width, height, data: data.collect() }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width_px: usize, height_px: usize, value: impl Fn(usize, usize) -> u8) -> Picture {
        let pixels = (0..height_px).flat_map(|y| (0..width_px).map(move |x| (x, y)));
        let rgb = pixels.flat_map(|(x, y)| [value(x, y); 3]).collect();
        Picture { width_px, height_px, rgb }
    }

    #[test]
    fn equal_pictures_give_one_and_opposite_ones_nothing_below_zero() {
        let a = picture(170, 165, |x, y| (x * 7 + y * 13) as u8);
        let b = picture(170, 165, |x, y| 255 - (x * 7 + y * 13) as u8);
        for channels in [Channels::Rgb, Channels::Luma] {
            assert!((ssim(&a, &a, channels).unwrap() - 1.0).abs() < 1e-12);
            assert!((ms_ssim(&a, &a, channels).unwrap() - 1.0).abs() < 1e-12);
            assert!((0.0..0.1).contains(&ssim(&a, &b, channels).unwrap()));
        }
    }

    #[test]
    fn flat_pictures_differ_in_brightness_alone() {
        let (a, b) = (picture(11, 11, |_, _| 100), picture(11, 11, |_, _| 50));
        let known = (2.0 * 5000.0 + BRIGHTNESS) / (12500.0 + BRIGHTNESS);
        assert!((ssim(&a, &b, Channels::Rgb).unwrap() - known).abs() < 1e-12);
    }

    #[test]
    fn what_is_too_small_is_refused() {
        let least = |size| picture(size, 200, |x, y| (x ^ y) as u8);
        assert!(ssim(&least(10), &least(10), Channels::Rgb).is_err());
        assert!(ms_ssim(&least(160), &least(160), Channels::Rgb).is_err());
        assert!(ms_ssim(&least(161), &least(161), Channels::Rgb).is_ok());
    }

    #[test]
    fn an_odd_edge_is_repeated_when_halved() {
        let half = halved(&Plane { width: 3, height: 1, data: vec![1.0, 3.0, 5.0] });
        assert_eq!((half.width, half.height, half.data), (2, 1, vec![2.0, 5.0]));
    }
}
