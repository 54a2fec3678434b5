//! Differences pixel by pixel.

use crate::{Channels, MetricError, Picture};

/// Peak signal-to-noise ratio in dB: `10 log10(255² / mean squared error)`, infinite for equal pictures.
///
/// The mean is over all pixels and, in RGB, over the three channels. Luma is BT.601's studio luma
/// (16..235), not rounded, against a peak of 255 all the same: the convention of MATLAB's `rgb2ycbcr` in
/// floats, BasicSR and pyiqa (`psnr` with `test_y_channel`, which further adds 1e-8 to the error of values
/// 0..1: 2e-5 dB at 25 dB).
pub fn psnr(a: &Picture, b: &Picture, channels: Channels) -> Result<f64, MetricError> {
    a.same_size(b)?;
    a.at_least(1, "PSNR")?;
    // Exact in whole numbers, of which so many squares fit.
    const RUN: usize = 1024;
    let pairs = a.pixels().chunks(RUN).zip(b.pixels().chunks(RUN));
    let sum: f64 = match channels {
        Channels::Rgb => {
            let square = |(a, b): (&u8, &u8)| u32::from(a.abs_diff(*b)).pow(2);
            let of_run = |(a, b): (&[[u8; 3]], &[[u8; 3]])| -> u32 {
                a.as_flattened().iter().zip(b.as_flattened()).map(square).sum()
            };
            pairs.map(|pair| f64::from(of_run(pair))).sum::<f64>() / 3.0
        }
        Channels::Luma => {
            let thousandths = |(a, b): (&[u8; 3], &[u8; 3])| -> i64 {
                let [red, green, blue] = [0, 1, 2].map(|c| i64::from(a[c]) - i64::from(b[c]));
                (65481 * red + 128_553 * green + 24966 * blue).pow(2)
            };
            let of_run = |(a, b): (&[[u8; 3]], &[[u8; 3]])| -> i64 { a.iter().zip(b).map(thousandths).sum() };
            pairs.map(|pair| of_run(pair) as f64).sum::<f64>() / 255_000f64.powi(2)
        }
    };
    let mean = sum / a.pixels().len() as f64;
    Ok(10.0 * (255f64.powi(2) / mean).log10())
}

/// How far the mean colours of two pictures lie apart, in levels of 255: the mean over red, green and blue
/// of the absolute difference of the channel's means. 0 is best; a cast of five levels gives 5.
pub fn colour_difference(a: &Picture, b: &Picture) -> Result<f64, MetricError> {
    a.same_size(b)?;
    a.at_least(1, "the mean colour")?;
    let sum = |picture: &Picture, c: usize| -> i64 { picture.pixels().iter().map(|p| i64::from(p[c])).sum() };
    let apart: i64 = (0..3).map(|c| (sum(a, c) - sum(b, c)).abs()).sum();
    Ok(apart as f64 / (3 * a.pixels().len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(rgb: [u8; 3]) -> Picture {
        Picture { width_px: 4, height_px: 2, rgb: rgb.repeat(8) }
    }

    #[test]
    fn known_errors_give_known_decibels() {
        let (a, b) = (flat([100, 100, 100]), flat([105, 105, 105]));
        let db = |channels| psnr(&a, &b, channels).unwrap();
        assert!((db(Channels::Rgb) - 20.0 * 51f64.log10()).abs() < 1e-12);
        // Studio luma is narrower by 219/255.
        assert!((db(Channels::Luma) - 20.0 * (255f64 * 255.0 / (5.0 * 219.0)).log10()).abs() < 1e-12);
        assert_eq!(psnr(&a, &a, Channels::Luma).unwrap(), f64::INFINITY);
    }

    #[test]
    fn a_cast_is_measured_in_levels() {
        assert_eq!(colour_difference(&flat([10, 20, 30]), &flat([13, 20, 24])).unwrap(), 3.0);
    }

    #[test]
    fn pictures_of_other_sizes_are_refused() {
        let other = Picture { width_px: 2, height_px: 4, rgb: vec![0; 24] };
        let error = psnr(&flat([0; 3]), &other, Channels::Rgb).unwrap_err().to_string();
        assert!(error.contains("4 x 2 and 2 x 4"), "{error}");
    }
}
