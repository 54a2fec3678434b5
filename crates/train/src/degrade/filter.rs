//! Filters over pictures: sums of neighbours under a kernel, the picture mirrored at its edges without
//! repeating the edge itself (OpenCV's and PyTorch's "reflect").

use diffbir_imaging::Raster;
use rayon::prelude::*;

/// Correlates with a square kernel of odd side.
///
/// # Panics
/// When the weights are no such square.
pub fn square(picture: &Raster, weights: &[f64]) -> Raster {
    let size = weights.len().isqrt();
    assert!(size % 2 == 1 && size * size == weights.len(), "a kernel is a square of odd side");
    let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
    let padded = mirrored(picture, size / 2, size / 2);
    let (channels, length) = (picture.channels, picture.width_px * picture.channels);
    let stride = padded.width_px * channels;
    let mut out = Raster::new(picture.width_px, picture.height_px, channels);
    out.data.par_chunks_mut(length).enumerate().for_each(|(y, out)| {
        for (row, weights) in weights.chunks_exact(size).enumerate() {
            let source = &padded.data[(y + row) * stride..][..stride];
            for (column, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                let source = &source[column * channels..][..length];
                for (value, source) in out.iter_mut().zip(source) {
                    *value += weight * source;
                }
            }
        }
    });
    out
}

/// Correlates with the square that is the outer product of `line` with itself, in two passes.
pub fn separable(picture: &Raster, line: &[f64]) -> Raster {
    let line: Vec<f32> = line.iter().map(|&weight| weight as f32).collect();
    let (channels, length) = (picture.channels, picture.width_px * picture.channels);
    let padded = mirrored(picture, line.len() / 2, 0);
    let stride = padded.width_px * channels;
    let mut across = Raster::new(picture.width_px, picture.height_px, channels);
    across.data.par_chunks_mut(length).zip(padded.data.par_chunks(stride)).for_each(|(out, source)| {
        for (column, &weight) in line.iter().enumerate() {
            for (value, source) in out.iter_mut().zip(&source[column * channels..]) {
                *value += weight * source;
            }
        }
    });
    let padded = mirrored(&across, 0, line.len() / 2);
    let mut out = Raster::new(picture.width_px, picture.height_px, channels);
    out.data.par_chunks_mut(length).enumerate().for_each(|(y, out)| {
        for (row, &weight) in line.iter().enumerate() {
            for (value, source) in out.iter_mut().zip(&padded.data[(y + row) * length..]) {
                *value += weight * source;
            }
        }
    });
    out
}

/// The picture with its mirror image around it.
fn mirrored(picture: &Raster, across_px: usize, down_px: usize) -> Raster {
    let columns: Vec<usize> = mirror(picture.width_px, across_px).collect();
    let channels = picture.channels;
    let mut data = Vec::with_capacity(columns.len() * (picture.height_px + 2 * down_px) * channels);
    for y in mirror(picture.height_px, down_px) {
        let row = &picture.data[y * picture.width_px * channels..][..picture.width_px * channels];
        for x in &columns {
            data.extend_from_slice(&row[x * channels..][..channels]);
        }
    }
    Raster { width_px: columns.len(), height_px: picture.height_px + 2 * down_px, channels, data }
}

/// Places from `-reach` to `length + reach`, turned back at the ends as often as needed.
fn mirror(length: usize, reach: usize) -> impl Iterator<Item = usize> {
    let (length, reach) = (length as isize, reach as isize);
    let period = (2 * (length - 1)).max(1);
    (-reach..length + reach).map(move |place| {
        let folded = place.rem_euclid(period);
        folded.min(period - folded).min(length - 1) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_as_often_as_needed() {
        assert_eq!(mirror(3, 4).collect::<Vec<_>>(), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(mirror(1, 2).collect::<Vec<_>>(), [0; 5]);
    }

    #[test]
    fn two_passes_are_the_square() {
        let data = (0..7 * 5 * 3).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
        let picture = Raster { width_px: 7, height_px: 5, channels: 3, data };
        let line = [0.1, 0.2, 0.4, 0.25, 0.05];
        let outer: Vec<f64> = line.iter().flat_map(|a| line.iter().map(move |b| a * b)).collect();
        let (one, other) = (separable(&picture, &line), square(&picture, &outer));
        let differ = one.data.iter().zip(&other.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(differ < 1e-6, "{differ}");
    }
}
