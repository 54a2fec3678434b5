//! Gaussian windows, and the room they need around a plane.

use crate::picture::Plane;

/// A normalised Gaussian of `size` values around its middle. The outer product with itself is MATLAB's
/// `fspecial('gaussian', size, sigma)`.
pub fn gaussian(size: usize, sigma: f64) -> Vec<f64> {
    let middle = (size - 1) as f64 / 2.0;
    let values: Vec<f64> =
        (0..size).map(|i| (-(i as f64 - middle).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = values.iter().sum();
    values.iter().map(|value| value / sum).collect()
}

impl Plane {
    /// Values at the edge repeated `border` times outside it.
    pub fn padded(&self, border: usize) -> Self {
        let (width, height) = (self.width + 2 * border, self.height + 2 * border);
        let inside = |i: usize, length: usize| i.saturating_sub(border).min(length - 1);
        let rows = (0..height).map(|y| self.row(inside(y, self.height)));
        let data = rows.flat_map(|row| (0..width).map(move |x| row[inside(x, row.len())])).collect();
        Self { width, height, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_sum_to_one_around_their_middle() {
        let window = gaussian(11, 1.5);
        assert!((window.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert!((window[4] / window[5] - (-1.0f64 / 4.5).exp()).abs() < 1e-15 && window[4] == window[6]);
    }

    #[test]
    fn padding_repeats_the_edge() {
        let plane = Plane { width: 2, height: 1, data: vec![1.0, 2.0] }.padded(1);
        assert_eq!(plane.data, [1.0, 1.0, 2.0, 2.0].repeat(3));
    }
}
