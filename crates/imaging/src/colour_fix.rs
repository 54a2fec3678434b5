//! Bringing the colours of stage 1 back into the result (reference 3.6; StableSR, arXiv 2305.07015).

use crate::Raster;
use rayon::prelude::*;

/// Levels of the wavelet: the fifth blur reaches 31 pixels to each side.
const LEVELS: u32 = 5;

/// The high frequencies of `sample` over the low frequencies of `style`.
///
/// # Panics
/// When the two differ in size.
pub fn wavelet(sample: &Raster, style: &Raster) -> Raster {
    same_size(sample, style);
    // The bands of a picture add up to it, so its high frequencies are what the last blur leaves out.
    let (low_sample, low_style) = (low_frequencies(sample), low_frequencies(style));
    let mut out = sample.clone();
    for ((value, own), other) in out.data.iter_mut().zip(&low_sample.data).zip(&low_style.data) {
        *value += other - own;
    }
    out
}

/// What the wavelet leaves of a picture after its last blur.
pub fn low_frequencies(picture: &Raster) -> Raster {
    (0..LEVELS).fold(picture.clone(), |low, level| blur(low, 1 << level))
}

/// `sample` with the mean and standard deviation of each channel of `style`.
///
/// # Panics
/// When the two differ in channels.
pub fn adain(sample: &Raster, style: &Raster) -> Raster {
    assert_eq!(sample.channels, style.channels, "channels differ");
    let mut out = sample.clone();
    for channel in 0..sample.channels {
        let ((own_mean, own_deviation), (mean, deviation)) =
            (statistics(sample, channel), statistics(style, channel));
        for value in out.data.iter_mut().skip(channel).step_by(sample.channels) {
            *value = (*value - own_mean) / own_deviation * deviation + mean;
        }
    }
    out
}

/// Mean and standard deviation (unbiased, 1e-5 added to the variance) of one channel.
fn statistics(picture: &Raster, channel: usize) -> (f32, f32) {
    let values =
        || picture.data.iter().skip(channel).step_by(picture.channels).map(|&value| f64::from(value));
    let count = (picture.width_px * picture.height_px) as f64;
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean as f32, (variance + 1e-5).sqrt() as f32)
}

/// Weights 1/4, 1/2, 1/4 at distance `radius` in both directions, the edge repeated outwards.
fn blur(picture: Raster, radius: usize) -> Raster {
    let (width, height, channels) = (picture.width_px, picture.height_px, picture.channels);
    let length = width * channels;
    let mut across = Raster::new(width, height, channels);
    across.data.par_chunks_mut(length).zip(picture.data.par_chunks(length)).for_each(|(out, row)| {
        for x in 0..width {
            let (left, right) = (x.saturating_sub(radius), (x + radius).min(width - 1));
            for c in 0..channels {
                out[x * channels + c] = 0.25 * row[left * channels + c]
                    + 0.5 * row[x * channels + c]
                    + 0.25 * row[right * channels + c];
            }
        }
    });
    drop(picture);
    let mut out = Raster::new(width, height, channels);
    out.data.par_chunks_mut(length).enumerate().for_each(|(y, out)| {
        let row = |y: usize| &across.data[y * length..(y + 1) * length];
        let (above, here, below) = (row(y.saturating_sub(radius)), row(y), row((y + radius).min(height - 1)));
        for (((out, a), b), c) in out.iter_mut().zip(above).zip(here).zip(below) {
            *out = 0.25 * a + 0.5 * b + 0.25 * c;
        }
    });
    out
}

fn same_size(a: &Raster, b: &Raster) {
    assert_eq!(
        (a.width_px, a.height_px, a.channels),
        (b.width_px, b.height_px, b.channels),
        "pictures differ in size"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(phase: f32) -> Raster {
        let mut raster = Raster::new(40, 30, 3);
        for (index, value) in raster.data.iter_mut().enumerate() {
            *value = 0.5 + 0.3 * (index as f32 * 0.37 + phase).sin();
        }
        raster
    }

    #[test]
    fn a_picture_is_its_own_fix() {
        let a = picture(0.0);
        let fixed = wavelet(&a, &a);
        assert!(fixed.data.iter().zip(&a.data).all(|(x, y)| (x - y).abs() < 1e-6));
    }

    #[test]
    fn a_shift_of_colour_is_undone() {
        let style = picture(0.0);
        let mut sample = style.clone();
        sample.data.iter_mut().for_each(|value| *value += 0.2);
        for fixed in [wavelet(&sample, &style), adain(&sample, &style)] {
            assert!(fixed.data.iter().zip(&style.data).all(|(x, y)| (x - y).abs() < 1e-4));
        }
    }
}
