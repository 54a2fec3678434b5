//! What masks of one channel need: erosion and blur.

use crate::Raster;
use rayon::prelude::*;
use std::collections::VecDeque;

/// The least value of a square of `side` pixels around each, which for an even side reaches one pixel further up and to
/// the left; nothing lies around the picture. As OpenCV's `erode` with a square of ones.
///
/// # Panics
/// When the mask has several channels.
pub fn erode(mask: &Raster, side: usize) -> Raster {
    assert_eq!(mask.channels, 1, "a mask has one channel");
    if side <= 1 {
        return mask.clone();
    }
    let rows = least(mask, side);
    transposed(&least(&transposed(&rows), side))
}

/// The least value along rows.
fn least(mask: &Raster, side: usize) -> Raster {
    let mut out = mask.clone();
    let (before, after) = (side / 2, side - 1 - side / 2);
    let width = mask.width_px;
    out.data.par_chunks_mut(width).zip(mask.data.par_chunks(width)).for_each(|(out, row)| {
        // Places of values that are the least of all behind them.
        let mut rising: VecDeque<usize> = VecDeque::new();
        let mut seen = 0;
        for (x, value) in out.iter_mut().enumerate() {
            while seen < (x + after + 1).min(width) {
                while rising.back().is_some_and(|&last| row[last] >= row[seen]) {
                    rising.pop_back();
                }
                rising.push_back(seen);
                seen += 1;
            }
            while rising.front().is_some_and(|&first| first + before < x) {
                rising.pop_front();
            }
            *value = rising.front().map_or(*value, |&first| row[first]);
        }
    });
    out
}

fn transposed(mask: &Raster) -> Raster {
    let (width, height) = mask.size();
    let data = (0..width).flat_map(|x| (0..height).map(move |y| mask.data[y * width + x])).collect();
    Raster { width_px: height, height_px: width, channels: 1, data }
}

/// A Gaussian blur over `2 · radius + 1` pixels across and down, the picture mirrored around its edges' pixels.
///
/// # Panics
/// When the mask has several channels.
pub fn blur(mask: &Raster, radius: usize, deviation: f64) -> Raster {
    assert_eq!(mask.channels, 1, "a mask has one channel");
    if radius == 0 {
        return mask.clone();
    }
    let weights: Vec<f64> = (0..=2 * radius)
        .map(|at| (-(at as f64 - radius as f64).powi(2) / (2.0 * deviation * deviation)).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|weight| (weight / total) as f32).collect();
    let rows = blurred(mask, &weights);
    transposed(&blurred(&transposed(&rows), &weights))
}

/// The deviation that OpenCV takes for a Gaussian blur of this radius where none is given.
pub fn deviation_of(radius: usize) -> f64 {
    0.3 * (radius as f64 - 1.0) + 0.8
}

fn blurred(mask: &Raster, weights: &[f32]) -> Raster {
    let (width, radius) = (mask.width_px, weights.len() / 2);
    let mut out = mask.clone();
    out.data.par_chunks_mut(width).zip(mask.data.par_chunks(width)).for_each(|(out, row)| {
        let around: Vec<f32> =
            (0..width + 2 * radius).map(|at| row[mirrored(at as isize - radius as isize, width)]).collect();
        for (x, value) in out.iter_mut().enumerate() {
            *value = weights.iter().zip(&around[x..]).map(|(weight, value)| weight * value).sum();
        }
    });
    out
}

/// A place within `0..count`, mirrored at the first and the last.
fn mirrored(at: isize, count: usize) -> usize {
    if count == 1 {
        return 0;
    }
    let period = 2 * (count - 1);
    let at = at.rem_euclid(period as isize) as usize;
    at.min(period - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(width_px: usize, data: Vec<f32>) -> Raster {
        Raster { width_px, height_px: data.len() / width_px, channels: 1, data }
    }

    proptest! {
        #[test]
        fn erosion_is_the_least_of_each_square(
            width in 1..12usize, height in 1..12usize, side in 1..9usize, seed in prop::collection::vec(0.0..1.0f32, 144),
        ) {
            let given = mask(width, seed[..width * height].to_vec());
            let eroded = erode(&given, side);
            let near = |at: usize, length: usize| at.saturating_sub(side / 2)..(at + side - side / 2).min(length);
            for y in 0..height {
                for x in 0..width {
                    let square = near(y, height).flat_map(|v| near(x, width).map(move |u| v * width + u));
                    let least = square.map(|at| given.data[at]).fold(f32::MAX, f32::min);
                    prop_assert_eq!(eroded.data[y * width + x], least);
                }
            }
        }

        #[test]
        fn a_blur_stays_within_what_was_there(width in 1..20usize, radius in 0..30usize, value in 0.0..1.0f32) {
            let even = blur(&mask(width, vec![value; width * 3]), radius, deviation_of(radius.max(1)));
            prop_assert!(even.data.iter().all(|blurred| (blurred - value).abs() < 1e-5));
        }
    }

    #[test]
    fn a_point_becomes_a_bell() {
        let mut point = mask(9, vec![0.0; 81]);
        point.data[40] = 1.0;
        let bell = blur(&point, 3, 1.0);
        assert!((bell.data.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(bell.data[40] > bell.data[41] && bell.data[41] == bell.data[31] && bell.data[36] == 0.0);
    }
}
