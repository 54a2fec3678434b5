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
    let weights = gaussian(radius, deviation);
    let exact = |around: &[f32]| -> f32 {
        let products =
            weights.iter().zip(around).map(|(&weight, &value)| f64::from(weight) * f64::from(value));
        products.sum::<f64>() as f32
    };
    across_and_down(mask, radius, &exact, &exact)
}

/// The same in float32 and in OpenCV's order of additions, which leaves some masks of ones a little above or below.
///
/// # Panics
/// When the mask has several channels.
pub fn blur_in_f32(mask: &Raster, radius: usize, deviation: f64) -> Raster {
    let weights = gaussian(radius, deviation);
    // Rounded once, as the processor's instruction has it.
    let add =
        |sum: f32, weight: f32, value: f32| (f64::from(weight) * f64::from(value) + f64::from(sum)) as f32;
    let across = |around: &[f32]| {
        weights.iter().zip(around).fold(0.0, |sum, (&weight, &value)| add(sum, weight, value))
    };
    let down = |around: &[f32]| {
        let pairs = (1..=radius).map(|by| (weights[radius + by], around[radius - by] + around[radius + by]));
        pairs.fold(weights[radius] * around[radius], |sum, (weight, pair)| add(sum, weight, pair))
    };
    across_and_down(mask, radius, &across, &down)
}

/// Weights that sum to 1.
fn gaussian(radius: usize, deviation: f64) -> Vec<f32> {
    let weight = |at: usize| (-(at as f64 - radius as f64).powi(2) / (2.0 * deviation * deviation)).exp();
    let weights: Vec<f64> = (0..=2 * radius).map(weight).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| (weight / total) as f32).collect()
}

/// What makes a value of those around it.
type Weigh<'a> = &'a (dyn Fn(&[f32]) -> f32 + Sync);

fn across_and_down(mask: &Raster, radius: usize, across: Weigh, down: Weigh) -> Raster {
    assert_eq!(mask.channels, 1, "a mask has one channel");
    if radius == 0 {
        return mask.clone();
    }
    let rows = blurred(mask, radius, across);
    transposed(&blurred(&transposed(&rows), radius, down))
}

/// The deviation that OpenCV takes for a Gaussian blur of this radius where none is given.
pub fn deviation_of(radius: usize) -> f64 {
    0.3 * (radius as f64 - 1.0) + 0.8
}

fn blurred(mask: &Raster, radius: usize, weigh: Weigh) -> Raster {
    let width = mask.width_px;
    let mut out = mask.clone();
    out.data.par_chunks_mut(width).zip(mask.data.par_chunks(width)).for_each(|(out, row)| {
        let around: Vec<f32> =
            (0..width + 2 * radius).map(|at| row[mirrored(at as isize - radius as isize, width)]).collect();
        for (x, value) in out.iter_mut().enumerate() {
            *value = weigh(&around[x..=x + 2 * radius]);
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

    /// Known values are those of opencv-python-headless 5.0.0.
    #[test]
    fn a_mask_of_ones_stays_one_or_becomes_what_opencv_makes_of_it() {
        let ones = mask(200, vec![1.0; 200 * 200]);
        for (radius, off) in [(5, 1.1920929e-7), (6, -5.9604645e-8), (20, -1.1920929e-7), (35, 3.5762787e-7)]
        {
            let deviation = deviation_of(radius);
            assert_eq!(blur_in_f32(&ones, radius, deviation).data[100 * 200 + 100] - 1.0, off, "{radius}");
            assert!(blur(&ones, radius, deviation).data.iter().all(|value| *value == 1.0), "{radius}");
        }
        assert!(blur(&ones, 50, 11.0).data.iter().all(|value| *value == 1.0));
    }
}
