//! Unsharp masking as Real-ESRGAN sharpens its true pictures (reference 5.5, step 0): where the picture
//! differs from its blur by more than ten levels, and softly around, half of the difference is added.

use super::filter;
use diffbir_imaging::Raster;

const SIZE_PX: usize = 51;
/// OpenCV's sigma for a kernel of that side.
const SIGMA_PX: f64 = 0.3 * ((SIZE_PX - 1) as f64 * 0.5 - 1.0) + 0.8;
const AMOUNT: f32 = 0.5;
const THRESHOLD_LEVELS: f32 = 10.0;

/// The picture, sharpened.
pub fn sharpen(picture: &Raster) -> Raster {
    let radius = (SIZE_PX / 2) as f64;
    let mut line: Vec<f64> =
        (0..SIZE_PX).map(|x| (-0.5 * ((x as f64 - radius) / SIGMA_PX).powi(2)).exp()).collect();
    let total: f64 = line.iter().sum();
    line.iter_mut().for_each(|weight| *weight /= total);
    let blurred = filter::separable(picture, &line);
    let pairs = || picture.data.iter().zip(&blurred.data);
    let is_edge = |(x, blurred): (&f32, &f32)| f32::from((x - blurred).abs() * 255.0 > THRESHOLD_LEVELS);
    let mask = Raster { data: pairs().map(is_edge).collect(), ..*picture };
    let mask = filter::separable(&mask, &line);
    let data = pairs().zip(&mask.data).map(|((x, blurred), mask)| {
        let sharp = (x + AMOUNT * (x - blurred)).clamp(0.0, 1.0);
        mask * sharp + (1.0 - mask) * x
    });
    Raster { data: data.collect(), ..*picture }
}
