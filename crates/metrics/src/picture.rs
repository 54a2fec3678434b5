//! The pictures that are measured, and planes of numbers made of them.

use crate::MetricError;
use diffbir_imaging::Raster;
use std::path::Path;

/// An 8-bit sRGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels a row.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// Red, green and blue of each pixel, row by row: `height_px · width_px · 3` values.
    pub rgb: Vec<u8>,
}

/// What a metric compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Red, green and blue, each counting the same.
    Rgb,
    /// [`Luma::Studio`].
    Luma,
}

/// Brightness by the weights of ITU-R BT.601, of gamma-coded values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luma {
    /// 16 to 235: `16 + (65.481 R + 128.553 G + 24.966 B) / 255`, as MATLAB's `rgb2ycbcr`, BasicSR and most
    /// papers on super-resolution.
    Studio,
    /// 0 to 255: `.299 R + .587 G + .114 B`, as MATLAB's `rgb2gray` and the defaults of pyiqa.
    Full,
}

/// Rows of numbers.
pub(crate) struct Plane {
    pub width: usize,
    pub height: usize,
    pub data: Vec<f64>,
}

impl Plane {
    pub fn row(&self, y: usize) -> &[f64] {
        &self.data[y * self.width..][..self.width]
    }
}

impl From<&Raster> for Picture {
    /// Of three channels, rounded to 8 bits.
    fn from(raster: &Raster) -> Self {
        Self { width_px: raster.width_px, height_px: raster.height_px, rgb: raster.to_u8_rounding() }
    }
}

impl Picture {
    /// Reads a file. What is not 8-bit sRGB is converted to it.
    pub fn open(path: &Path) -> Result<Self, MetricError> {
        Ok(Self::from(&diffbir_imaging::decode(path)?.to_raster()))
    }

    /// Without `border_px` pixels at each side, as papers on super-resolution by a factor of `border_px`
    /// measure.
    pub fn without_border(&self, border_px: usize) -> Result<Self, MetricError> {
        let least = 2 * border_px + 1;
        self.at_least(least, "a picture without its border")?;
        let (width_px, height_px) = (self.width_px - 2 * border_px, self.height_px - 2 * border_px);
        let rows = self.rgb.chunks_exact(3 * self.width_px).skip(border_px).take(height_px);
        let rgb = rows.flat_map(|row| &row[3 * border_px..][..3 * width_px]).copied().collect();
        Ok(Self { width_px, height_px, rgb })
    }

    pub(crate) fn pixels(&self) -> &[[u8; 3]] {
        self.rgb.as_chunks().0
    }

    pub(crate) fn at_least(&self, least_px: usize, metric: &'static str) -> Result<(), MetricError> {
        let Self { width_px, height_px, .. } = *self;
        if width_px.min(height_px) < least_px {
            return Err(MetricError::Small { metric, width_px, height_px, least_px });
        }
        Ok(())
    }

    /// An error if the other picture has another size.
    pub fn same_size(&self, other: &Self) -> Result<(), MetricError> {
        let (a, b) = ([self.width_px, self.height_px], [other.width_px, other.height_px]);
        if a == b { Ok(()) } else { Err(MetricError::Sizes { a, b }) }
    }

    /// Luma to the nearest whole number, halves away from zero as MATLAB rounds.
    pub(crate) fn rounded_luma(&self, luma: Luma) -> Plane {
        // In thousandths, so that halves are exact.
        let thousandths = |[r, g, b]: [u64; 3]| match luma {
            Luma::Studio => (65481 * r + 128_553 * g + 24966 * b, 255_000, 16),
            Luma::Full => (299 * r + 587 * g + 114 * b, 1000, 0),
        };
        self.plane(|pixel| {
            let (sum, unit, black) = thousandths(pixel.map(u64::from));
            ((2 * sum + unit) / (2 * unit) + black) as f64
        })
    }

    /// The planes of values 0 to 255 that structure is compared in: luma is rounded.
    pub(crate) fn planes(&self, channels: Channels) -> Vec<Plane> {
        match channels {
            Channels::Rgb => (0..3).map(|c| self.plane(|pixel| f64::from(pixel[c]))).collect(),
            Channels::Luma => vec![self.rounded_luma(Luma::Studio)],
        }
    }

    fn plane(&self, value: impl Fn([u8; 3]) -> f64) -> Plane {
        let data = self.pixels().iter().map(|&pixel| value(pixel)).collect();
        Plane { width: self.width_px, height: self.height_px, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pixels: &[[u8; 3]], width_px: usize) -> Picture {
        Picture { width_px, height_px: pixels.len() / width_px, rgb: pixels.as_flattened().to_vec() }
    }

    #[test]
    fn luma_is_bt_601s() {
        let picture = of(&[[0; 3], [255; 3], [255, 0, 0], [0, 255, 0], [0, 0, 255], [85, 0, 0]], 6);
        assert_eq!(picture.rounded_luma(Luma::Studio).data, [16.0, 235.0, 81.0, 145.0, 41.0, 38.0]);
        assert_eq!(picture.rounded_luma(Luma::Full).data, [0.0, 255.0, 76.0, 150.0, 29.0, 25.0]);
        // .114 x 250 = 28.5 exactly.
        assert_eq!(of(&[[0, 0, 250]], 1).rounded_luma(Luma::Full).data, [29.0]);
    }

    #[test]
    fn a_border_is_cut_at_each_side() {
        let pixels: Vec<[u8; 3]> = (0..20).map(|i| [i, i + 100, i + 200]).collect();
        let inner = of(&pixels, 5).without_border(1).unwrap();
        assert_eq!((inner.width_px, inner.height_px), (3, 2));
        assert_eq!(inner.pixels(), [6, 7, 8, 11, 12, 13].map(|i| [i, i + 100, i + 200]));
        let error = of(&pixels, 5).without_border(2).unwrap_err().to_string();
        assert!(error.contains("5 x 4") && error.contains("5 x 5"), "{error}");
    }
}
