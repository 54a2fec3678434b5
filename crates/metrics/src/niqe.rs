//! NIQE: Mittal, Soundararajan, Bovik, "Making a 'completely blind' image quality analyzer" (2013).
//!
//! How far the statistics of a picture's blocks lie from those of good photographs: each block of
//! brightness, made local (less its mean, over its deviation), is described by the shapes of its
//! distribution and of those of its neighbours' products, at two sizes.

use crate::filter::gaussian;
use crate::picture::Plane;
use crate::{Luma, MetricError, Picture, npz};
use libm::tgamma;
use rayon::prelude::*;
use std::path::Path;

/// Width of a block at the picture's size.
const BLOCK_PX: usize = 96;
/// Numbers that describe a block at one size, and at both.
const FEATURES: usize = 18;
const BOTH: usize = 2 * FEATURES;

/// The statistics of good photographs.
pub struct Niqe {
    /// Of the numbers of their blocks.
    mean: Vec<f64>,
    /// Row by row.
    covariance: Vec<f64>,
    shapes: Shapes,
}

impl Niqe {
    /// Reads `niqe_pris_params.npz` as BasicSR holds it: the authors' own statistics, `mu_pris_param` and
    /// `cov_pris_param`.
    pub fn open(path: &Path) -> Result<Self, MetricError> {
        let read = || {
            let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
            let mut archive = zip::ZipArchive::new(file).map_err(|error| error.to_string())?;
            let mean = npz::array(&mut archive, "mu_pris_param", &[BOTH])?;
            let covariance = npz::array(&mut archive, "cov_pris_param", &[BOTH, BOTH])?;
            if distance(covariance.clone(), mean.clone()).is_none() {
                return Err("`cov_pris_param` is not the covariance of anything".into());
            }
            Ok(Self { mean, covariance, shapes: Shapes::new() })
        };
        read().map_err(|reason| MetricError::Parameters { file: path.display().to_string(), reason })
    }

    /// About 2 to 20 and more, less is better; knows nothing of the truth.
    ///
    /// Luma of 0..255 rounded to whole numbers: the authors' MATLAB code and pyiqa's `niqe` take
    /// [`Luma::Full`], BasicSR [`Luma::Studio`]. Whole blocks of 96x96 pixels from the upper left corner, at
    /// half the size (MATLAB's antialiased bicubic) 48x48; local means by a 7x7 Gaussian of sigma 7/6, the
    /// edge repeated. Blocks without texture count for the mean as far as they have numbers, not for the
    /// covariance.
    ///
    /// pyiqa computes luma before its rounding, and the windows, in f32: most of its values differ from these by
    /// less than .005, those of pictures with flat places by up to .2.
    pub fn score(&self, picture: &Picture, luma: Luma) -> Result<f64, MetricError> {
        picture.at_least(BLOCK_PX, "NIQE")?;
        let mut plane = whole_blocks(&picture.rounded_luma(luma));
        let mut blocks = self.described(&plane, BLOCK_PX);
        plane = halved(&plane);
        for (block, half) in blocks.iter_mut().zip(self.described(&plane, BLOCK_PX / 2)) {
            block.extend(half);
        }
        let Some((mean, covariance)) = statistics(&blocks) else {
            let found = blocks.iter().filter(|block| is_whole(block)).count();
            return Err(MetricError::Flat { found });
        };
        let difference = self.mean.iter().zip(&mean).map(|(good, mean)| good - mean).collect();
        let between = self.covariance.iter().zip(&covariance).map(|(good, own)| (good + own) / 2.0).collect();
        Ok(distance(between, difference).expect("positive, as the covariance of good photographs is"))
    }

    /// [`FEATURES`] numbers of each block.
    fn described(&self, plane: &Plane, size: usize) -> Vec<Vec<f64>> {
        let local = local(plane);
        let (down, along) = (plane.height / size, plane.width / size);
        (0..down * along)
            .into_par_iter()
            .map(|index| {
                let (top, left) = (index / along * size, index % along * size);
                let rows = (top..top + size).map(|y| &local.row(y)[left..left + size]);
                self.shapes.of_block(&rows.flatten().copied().collect::<Vec<_>>(), size)
            })
            .collect()
    }
}

/// Cut at the right and bottom.
fn whole_blocks(plane: &Plane) -> Plane {
    let cut = |length: usize| length / BLOCK_PX * BLOCK_PX;
    let (width, height) = (cut(plane.width), cut(plane.height));
    let data = (0..height).flat_map(|y| &plane.row(y)[..width]).copied().collect();
    Plane { width, height, data }
}

/// Each value less the mean around it, over the deviation around it and 1.
///
/// By differences from the value itself, so that a flat place gives exactly 0 and counts for neither side of
/// a distribution; sums of squares would leave noise there, whose signs count.
fn local(plane: &Plane) -> Plane {
    const WINDOW_PX: usize = 7;
    let window = gaussian(WINDOW_PX, 7.0 / 6.0);
    let padded = plane.padded(WINDOW_PX / 2);
    let local_row = |y: usize| -> Vec<f64> {
        let centre = plane.row(y);
        // Mean difference and mean squared difference.
        let (mut mean, mut square) = (vec![0.0; plane.width], vec![0.0; plane.width]);
        for (i, vertical) in window.iter().enumerate() {
            for (j, horizontal) in window.iter().enumerate() {
                let weight = vertical * horizontal;
                let others = &padded.row(y + i)[j..j + plane.width];
                for (((mean, square), other), value) in
                    mean.iter_mut().zip(&mut square).zip(others).zip(centre)
                {
                    let difference = other - value;
                    *mean += weight * difference;
                    *square += weight * difference * difference;
                }
            }
        }
        mean.iter()
            .zip(&square)
            .map(|(mean, square)| -mean / ((square - mean * mean).abs().sqrt() + 1.0))
            .collect()
    };
    let rows: Vec<Vec<f64>> = (0..plane.height).into_par_iter().map(local_row).collect();
    Plane { width: plane.width, height: plane.height, data: rows.concat() }
}

/// MATLAB's `imresize(.., 0.5)`: Keys' cubic (a = -.5) over eight values, the border mirrored with its edge.
fn halved(plane: &Plane) -> Plane {
    let weights = [-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75].map(|x: f64| {
        let x = x.abs();
        let cubic = if x <= 1.0 {
            1.5 * x.powi(3) - 2.5 * x * x + 1.0
        } else {
            -0.5 * x.powi(3) + 2.5 * x * x - 4.0 * x + 2.0
        };
        cubic / 2.0
    });
    let mirrored = |i: isize, length: usize| {
        let last = length as isize - 1;
        (if i < 0 {
            -1 - i
        } else if i > last {
            2 * last + 1 - i
        } else {
            i
        }) as usize
    };
    let places = |i: usize, length: usize| {
        std::array::from_fn::<_, 8, _>(|k| mirrored((2 * i + k) as isize - 3, length))
    };
    let (width, height) = (plane.width / 2, plane.height / 2);
    let rows: Vec<Vec<f64>> = (0..height)
        .into_par_iter()
        .map(|y| {
            let rows = places(y, plane.height).map(|y| plane.row(y));
            let sum = |values: [f64; 8]| -> f64 { values.iter().zip(weights).map(|(v, w)| v * w).sum() };
            let middle: Vec<f64> = (0..plane.width).map(|x| sum(rows.map(|row| row[x]))).collect();
            (0..width).map(|x| sum(places(x, plane.width).map(|x| middle[x]))).collect()
        })
        .collect();
    Plane { width, height, data: rows.concat() }
}

/// Asymmetric generalised Gaussians, whose shape is looked up by the ratio of squared mean to mean square.
struct Shapes {
    /// .2, .201, .. 10.
    alphas: Vec<f64>,
    /// The ratio of each, rising.
    ratios: Vec<f64>,
}

/// One of them, fitted to values.
struct Fit {
    /// Shape.
    alpha: f64,
    /// Width below and above zero.
    left: f64,
    right: f64,
}

impl Shapes {
    fn new() -> Self {
        let alphas: Vec<f64> = (0..=9800).map(|i| 0.2 + f64::from(i) * 0.001).collect();
        let ratio = |a: &f64| tgamma(2.0 / a).powi(2) / (tgamma(1.0 / a) * tgamma(3.0 / a));
        let ratios = alphas.iter().map(ratio).collect();
        Self { alphas, ratios }
    }

    /// The numbers of a square block: the fit of its values, and of their products with the neighbour to
    /// the right, below and on both diagonals (around the block's edge).
    fn of_block(&self, block: &[f64], size: usize) -> Vec<f64> {
        let fit = self.fit(block);
        let mut features = vec![fit.alpha, (fit.left + fit.right) / 2.0];
        for (rows, columns) in [(0, 1), (1, 0), (1, 1), (1, size - 1)] {
            let other = |i: usize| block[(i / size + rows) % size * size + (i + columns) % size];
            let products: Vec<f64> = block.iter().enumerate().map(|(i, value)| value * other(i)).collect();
            let Fit { alpha, left, right } = self.fit(&products);
            let mean = (right - left) * tgamma(2.0 / alpha) / tgamma(1.0 / alpha);
            features.extend([alpha, mean, left, right]);
        }
        features
    }

    /// By moments. Not a number where all values have one sign or are 0.
    fn fit(&self, values: &[f64]) -> Fit {
        let deviation = |side: &dyn Fn(f64) -> bool| {
            let (count, sum) = values
                .iter()
                .filter(|value| side(**value))
                .fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value * value));
            f64::sqrt(sum / count)
        };
        let (left, right) = (deviation(&|value| value < 0.0), deviation(&|value| value > 0.0));
        let ratio = left / right;
        let count = values.len() as f64;
        let mean = values.iter().map(|value| value.abs()).sum::<f64>() / count;
        let square = values.iter().map(|value| value * value).sum::<f64>() / count;
        let wanted =
            mean * mean / square * (ratio.powi(3) + 1.0) * (ratio + 1.0) / (ratio * ratio + 1.0).powi(2);
        let alpha = self.alphas[self.nearest(wanted)];
        let width = (tgamma(1.0 / alpha) / tgamma(3.0 / alpha)).sqrt();
        Fit { alpha, left: left * width, right: right * width }
    }

    /// The place of the ratio nearest to `wanted`, the first if that is not a number.
    fn nearest(&self, wanted: f64) -> usize {
        let above = self.ratios.partition_point(|ratio| *ratio < wanted);
        let far = |i: usize| (self.ratios[i] - wanted).abs();
        match above {
            0 => 0,
            i if i == self.ratios.len() || far(i - 1) <= far(i) => i - 1,
            i => i,
        }
    }
}

fn is_whole(block: &[f64]) -> bool {
    block.iter().all(|value| !value.is_nan())
}

/// Mean of each number where it is one, and covariance (over n - 1) of the blocks that have all; nothing
/// for fewer than two of these.
fn statistics(blocks: &[Vec<f64>]) -> Option<(Vec<f64>, Vec<f64>)> {
    let mean_of = |blocks: &[&Vec<f64>]| -> Vec<f64> {
        let column = |i: usize| blocks.iter().map(move |block| block[i]).filter(|value| !value.is_nan());
        (0..BOTH).map(|i| column(i).sum::<f64>() / column(i).count() as f64).collect()
    };
    let whole: Vec<&Vec<f64>> = blocks.iter().filter(|block| is_whole(block)).collect();
    if whole.len() < 2 {
        return None;
    }
    let middle = mean_of(&whole);
    let moment = |i: usize, j: usize| {
        let products = whole.iter().map(|block| (block[i] - middle[i]) * (block[j] - middle[j]));
        products.sum::<f64>() / (whole.len() - 1) as f64
    };
    let covariance = (0..BOTH * BOTH).map(|index| moment(index / BOTH, index % BOTH)).collect();
    Some((mean_of(&blocks.iter().collect::<Vec<_>>()), covariance))
}

/// `√(dᵀ A⁻¹ d)` of a symmetric positive `a` by Cholesky's factor `L`: the length of `L⁻¹ d`. Nothing if `a`
/// is not positive.
fn distance(mut a: Vec<f64>, mut d: Vec<f64>) -> Option<f64> {
    let n = d.len();
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - known;
            if i == j && (rest <= 0.0 || rest.is_nan()) {
                return None;
            }
            a[i * n + j] = if i == j { rest.sqrt() } else { rest / a[j * n + j] };
        }
        let known: f64 = (0..i).map(|k| a[i * n + k] * d[k]).sum();
        d[i] = (d[i] - known) / a[i * n + i];
    }
    Some(d.iter().map(|value| value * value).sum::<f64>().sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_over_the_deviations() {
        assert_eq!(distance(vec![4.0, 0.0, 0.0, 9.0], vec![2.0, 6.0]), Some(5f64.sqrt()));
        // The inverse of [[2, 1], [1, 2]] is [[2, -1], [-1, 2]] / 3.
        let found = distance(vec![2.0, 1.0, 1.0, 2.0], vec![1.0, 3.0]).unwrap();
        assert!((found - (14.0f64 / 3.0).sqrt()).abs() < 1e-14);
        assert_eq!(distance(vec![1.0, 2.0, 2.0, 1.0], vec![1.0, 1.0]), None);
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = Niqe::open(&file).err().expect("refused").to_string();
        assert!(error.contains("Cargo.toml") && error.contains("niqe_pris_params.npz"), "{error}");
    }

    #[test]
    fn the_shape_of_a_gaussian_and_of_a_laplacian_are_found() {
        let shapes = Shapes::new();
        assert!(shapes.ratios.is_sorted());
        // E|x|² / E x² is 2/π and 1/2, both sides being equal.
        let alpha = |ratio: f64| shapes.alphas[shapes.nearest(ratio)];
        assert!((alpha(std::f64::consts::FRAC_2_PI) - 2.0).abs() < 1e-9);
        assert!((alpha(0.5) - 1.0).abs() < 1e-9);
        assert_eq!((alpha(f64::NAN), alpha(0.0)), (0.2, 0.2));
        assert!((alpha(1.0) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn half_a_ramp_is_a_ramp() {
        let plane = Plane { width: 32, height: 16, data: (0..512).map(|i| f64::from(i % 32)).collect() };
        let half = halved(&plane);
        assert_eq!((half.width, half.height), (16, 8));
        for x in 2..14 {
            assert!((half.row(3)[x] - (2.0 * x as f64 + 0.5)).abs() < 1e-12, "{}", half.row(3)[x]);
        }
    }

    #[test]
    fn a_flat_picture_has_no_score() {
        let niqe = Niqe {
            mean: vec![0.0; BOTH],
            covariance: (0..BOTH * BOTH).map(|i| f64::from(u8::from(i % (BOTH + 1) == 0))).collect(),
            shapes: Shapes::new(),
        };
        let flat = |size| Picture { width_px: size, height_px: size, rgb: vec![90; size * size * 3] };
        let error = niqe.score(&flat(200), Luma::Full).unwrap_err().to_string();
        assert!(error.contains("0 blocks"), "{error}");
        assert!(niqe.score(&flat(95), Luma::Full).unwrap_err().to_string().contains("95 x 95"));
    }
}
