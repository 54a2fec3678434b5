//! How a result looks while it is still a latent, without a decoder.
//!
//! The autoencoder's work is nearly linear on the scale of a cell. The picture of stage 1 and its latent, both known before the
//! first step, say how colours follow from the values of a cell: a least-squares fit for each photograph, which holds for
//! any autoencoder and costs next to nothing.

use diffbir_diffusion::Latent;
use diffbir_imaging::resize::{Filter, float};
use diffbir_imaging::{Format, Raster, encode_rgb};

/// Quality of previews.
const JPEG_QUALITY: u8 = 80;

/// What is added to the diagonal, so that channels that never change do no harm.
const RIDGE: f64 = 1e-3;

/// From the values of a cell to its colour.
pub struct Preview {
    /// For each of red, green and blue: a factor for each channel, and the value at zero.
    weights: [Vec<f64>; 3],
    /// Width and height of the cells that are the picture.
    cells: (usize, usize),
}

impl Preview {
    /// Learns from the picture of stage 1 and its latent, which is for cells of a whole number of pixels.
    pub fn fit(stage1: &Raster, latent: &Latent) -> Option<Self> {
        let cell_px = stage1.width_px.div_ceil(latent.width).max(1);
        let cells = (stage1.width_px / cell_px, stage1.height_px / cell_px);
        if cells.0 == 0 || cells.1 == 0 || cells.0 > latent.width || cells.1 > latent.height {
            return None;
        }
        let size = latent.channels + 1;
        let (mut products, mut targets) = (vec![0.0; size * size], [const { Vec::new() }; 3]);
        targets.iter_mut().for_each(|target| *target = vec![0.0; size]);
        for y in 0..cells.1 {
            for x in 0..cells.0 {
                let values = values(latent, x, y);
                let colour = mean(stage1, (x * cell_px, y * cell_px), cell_px);
                for (i, a) in values.iter().enumerate() {
                    values.iter().enumerate().for_each(|(j, b)| products[i * size + j] += a * b);
                    targets.iter_mut().zip(colour).for_each(|(target, c)| target[i] += a * c);
                }
            }
        }
        let count = (cells.0 * cells.1) as f64;
        (0..size - 1).for_each(|i| products[i * size + i] += RIDGE * count);
        let weights = targets.map(|target| solve(products.clone(), target));
        Some(Self { weights, cells })
    }

    /// The picture of the first of these latents as JPEG, a pixel for each cell.
    pub fn jpeg(&self, latent: &Latent) -> Option<Vec<u8>> {
        let mut rgb = Vec::with_capacity(self.cells.0 * self.cells.1 * 3);
        for y in 0..self.cells.1 {
            for x in 0..self.cells.0 {
                let values = values(latent, x, y);
                rgb.extend(self.weights.iter().map(|weights| {
                    let value: f64 = weights.iter().zip(&values).map(|(weight, value)| weight * value).sum();
                    (value * 255.0).round().clamp(0.0, 255.0) as u8
                }));
            }
        }
        encode_rgb(self.cells, rgb, Format::Jpeg, Some(JPEG_QUALITY)).ok()
    }
}

/// A picture in 0..1 as JPEG, at most `side_px` wide and high.
pub fn jpeg_of(picture: &Raster, side_px: usize) -> Option<Vec<u8>> {
    let (width, height) = picture.size();
    let shrink = (side_px as f64 / width.max(height) as f64).min(1.0);
    let side = |px: usize| ((px as f64 * shrink) as usize).max(1);
    let small = float(picture, side(width), side(height), Filter::Bicubic);
    encode_rgb(small.size(), small.to_u8_rounding(), Format::Jpeg, Some(JPEG_QUALITY)).ok()
}

/// The mean colour of a square.
fn mean(picture: &Raster, (x0, y0): (usize, usize), side_px: usize) -> [f64; 3] {
    let mut sum = [0.0; 3];
    for y in y0..y0 + side_px {
        for pixel in picture.data[(y * picture.width_px + x0) * 3..][..side_px * 3].chunks_exact(3) {
            sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }
    sum.map(|sum| sum / (side_px * side_px) as f64)
}

/// The channels of a cell of the first latent, and 1.
fn values(latent: &Latent, x: usize, y: usize) -> Vec<f64> {
    let plane = latent.width * latent.height;
    let at = |channel: usize| f64::from(latent.data[channel * plane + y * latent.width + x]);
    (0..latent.channels).map(at).chain([1.0]).collect()
}

/// Solves the symmetric `matrix · x = right` by elimination.
fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Vec<f64> {
    let size = right.len();
    for pivot in 0..size {
        let divisor = matrix[pivot * size + pivot].max(f64::MIN_POSITIVE);
        for row in pivot + 1..size {
            let factor = matrix[row * size + pivot] / divisor;
            (pivot..size)
                .for_each(|column| matrix[row * size + column] -= factor * matrix[pivot * size + column]);
            right[row] -= factor * right[pivot];
        }
    }
    for pivot in (0..size).rev() {
        let known: f64 = (pivot + 1..size).map(|column| matrix[pivot * size + column] * right[column]).sum();
        right[pivot] = (right[pivot] - known) / matrix[pivot * size + pivot].max(f64::MIN_POSITIVE);
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours that follow from the latent by a rule are found again.
    #[test]
    fn a_linear_rule_is_learned() {
        let (width, height, cell) = (6, 5, 8);
        let value = |channel: usize, x: usize, y: usize| ((x * 7 + y * 3 + channel * 5) % 11) as f32 / 11.0;
        let mut latent = Latent { batch: 1, channels: 2, height, width, data: vec![0.0; 2 * width * height] };
        let mut picture = Raster::new(width * cell, height * cell, 3);
        for y in 0..height * cell {
            for x in 0..width * cell {
                let (cx, cy) = (x / cell, y / cell);
                let (a, b) = (value(0, cx, cy), value(1, cx, cy));
                latent.data[cy * width + cx] = a;
                latent.data[(height + cy) * width + cx] = b;
                let colour = [a * 0.5 + 0.2, b * 0.5 + 0.1, 0.3];
                picture.data[(y * width * cell + x) * 3..][..3].copy_from_slice(&colour);
            }
        }
        let preview = Preview::fit(&picture, &latent).unwrap();
        let [red, _, blue] = &preview.weights;
        let near = |found: f64, value: f64| (found - value).abs() < 0.02;
        assert!(near(red[0], 0.5) && near(red[1], 0.0) && near(red[2], 0.2), "{red:?}");
        assert!(near(blue[0], 0.0) && near(blue[1], 0.0) && near(blue[2], 0.3), "{blue:?}");
        assert_eq!(preview.jpeg(&latent).unwrap()[..2], [0xff, 0xd8]);
    }
}
