//! FID's arithmetic: Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
//! equilibrium", arXiv 1706.08500. The network whose features are compared is not here.

use crate::linear::{Matrix, dot, eigenvalues, root};
use crate::{MetricError, npz};
use diffbir_nn::checkpoint::Checkpoint;
use rayon::prelude::*;
use std::io::Cursor;
use std::path::Path;

/// What a covariance in float32 may be off by, of its largest variance.
const ROUNDING: f64 = 1e-5;

/// Mean and covariance of a set's features.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    mean: Vec<f64>,
    covariance: Matrix,
}

impl Features {
    /// Of `values`, a row of `width` numbers for each picture; the covariance is over n - 1, as `numpy.cov` has
    /// it.
    ///
    /// Nothing for fewer than two rows, for rows that do not fill up, and for values that are no numbers.
    pub fn of_rows(values: &[f64], width: usize) -> Option<Self> {
        let count = values.len().checked_div(width)?;
        if count < 2 || count * width != values.len() || !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let column = |j: usize| values.iter().skip(j).step_by(width).copied();
        let mean: Vec<f64> = (0..width).map(|j| column(j).sum::<f64>() / count as f64).collect();
        let centred: Vec<Vec<f64>> =
            (0..width).into_par_iter().map(|j| column(j).map(|value| value - mean[j]).collect()).collect();
        let covariance = Matrix::symmetric(width, |i, j| dot(&centred[i], &centred[j]) / (count - 1) as f64);
        Some(Self { mean, covariance })
    }

    /// From a file: a matrix with a row for each picture as `.npy`, alone in `.npz`, or alone as safetensors or
    /// PyTorch's tensors; or `mu` and `sigma` in `.npz`, as pytorch-fid keeps statistics, where `sigma` has to be
    /// symmetric and nowhere negative.
    pub fn open(path: &Path) -> Result<Self, MetricError> {
        let fail = |reason| MetricError::Features { file: path.display().to_string(), reason };
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !matches!(ending, Some("npy" | "npz")) {
            let checkpoint = Checkpoint::open(path)?;
            let names: Vec<String> = checkpoint.entries().map(|(name, ..)| name.to_string()).collect();
            let (shape, values) = checkpoint.get(only(&names).map_err(fail)?)?.expect("its name is known");
            return matrix(&shape, &values.into_iter().map(f64::from).collect::<Vec<_>>()).map_err(fail);
        }
        let read = if ending == Some("npz") { statistics_or_rows } else { rows };
        std::fs::read(path).map_err(|error| error.to_string()).and_then(|bytes| read(&bytes)).map_err(fail)
    }

    /// Numbers of a picture.
    pub fn width(&self) -> usize {
        self.mean.len()
    }
}

/// Of a `.npy`.
fn rows(bytes: &[u8]) -> Result<Features, String> {
    let (shape, values) = npz::parse(bytes).ok_or("it is not a matrix of floats")?;
    matrix(&shape, &values)
}

/// Of a `.npz`.
fn statistics_or_rows(bytes: &[u8]) -> Result<Features, String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let names: Vec<String> =
        archive.file_names().flatten().map(|name| name.trim_end_matches(".npy").to_string()).collect();
    if !["mu", "sigma"].iter().all(|name| names.iter().any(|found| found == name)) {
        let (shape, values) = npz::any_array(&mut archive, only(&names)?)?;
        return matrix(&shape, &values);
    }
    let (_, mean) = npz::any_array(&mut archive, "mu")?;
    let covariance = npz::array(&mut archive, "sigma", &[mean.len(), mean.len()])?;
    if !mean.iter().chain(&covariance).all(|value| value.is_finite()) {
        return Err("it has values that are not numbers".into());
    }
    let covariance = Matrix { width: mean.len(), values: covariance };
    if !is_covariance(&covariance) {
        return Err("`sigma` is no covariance: it is not symmetric, or negative along some direction".into());
    }
    Ok(Features { covariance, mean })
}

/// Whether a matrix is symmetric and nowhere negative, but for the rounding of float32.
fn is_covariance(matrix: &Matrix) -> bool {
    let width = matrix.width;
    let at = |i: usize, j: usize| matrix.values[i * width + j];
    let largest = (0..width).map(|i| at(i, i)).fold(0.0, f64::max);
    let room = ROUNDING * largest;
    let symmetric = (0..width).all(|i| (0..i).all(|j| (at(i, j) - at(j, i)).abs() <= room));
    if largest == 0.0 {
        return matrix.values.iter().all(|value| *value == 0.0);
    }
    // With so much added to the diagonal, it has all its roots.
    let raised = Matrix::symmetric(width, |i, j| at(i, j) + if i == j { room } else { 0.0 });
    symmetric && root(&raised).len() == width
}

fn matrix(shape: &[usize], values: &[f64]) -> Result<Features, String> {
    let [_, width] = *shape else { return Err(format!("its array has shape {shape:?}")) };
    Features::of_rows(values, width).ok_or("it needs two rows or more, all of numbers".into())
}

fn only(names: &[String]) -> Result<&str, String> {
    match names {
        [name] => Ok(name),
        _ => Err(format!("it has {} arrays", names.len())),
    }
}

/// `|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁C₂)^½)`: 0 for equal statistics.
///
/// With `C = L Lᵀ`, the trace of the root is the sum of the singular values of `L₁ᵀ L₂`, which are the roots of
/// the eigenvalues of that matrix times its transpose: real and defined for any rank, so that nothing is added
/// to the diagonals, as is usual, where there are fewer pictures than numbers.
pub fn frechet_distance(a: &Features, b: &Features) -> Result<f64, MetricError> {
    if a.width() != b.width() {
        return Err(MetricError::Widths { a: a.width(), b: b.width() });
    }
    let apart: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let (left, right) = (root(&a.covariance), root(&b.covariance));
    let (few, many) = if left.len() < right.len() { (left, right) } else { (right, left) };
    let product: Vec<Vec<f64>> =
        few.par_iter().map(|few| many.iter().map(|many| dot(few, many)).collect()).collect();
    let squares = eigenvalues(Matrix::symmetric(product.len(), |i, j| dot(&product[i], &product[j])));
    let shared: f64 = squares.iter().map(|square| square.max(0.0).sqrt()).sum();
    let spread = a.covariance.trace() + b.covariance.trace() - 2.0 * shared;
    // Rounding may leave a little less than nothing, or a zero with a sign.
    Ok((apart + spread).max(0.0) + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_gaussians_along_axes_is_known() {
        let features = |mean: [f64; 2], variances: [f64; 2]| Features {
            mean: mean.to_vec(),
            covariance: Matrix { width: 2, values: vec![variances[0], 0.0, 0.0, variances[1]] },
        };
        let (a, b) = (features([0.0, 1.0], [4.0, 9.0]), features([3.0, 5.0], [1.0, 0.0]));
        // 25 + (2 - 1)² + (3 - 0)².
        let found = frechet_distance(&a, &b).unwrap();
        assert!((found - 35.0).abs() < 1e-12, "{found}");
        let same = frechet_distance(&a, &a).unwrap();
        assert!(same < 1e-12 && same.is_sign_positive(), "{same}");
    }

    #[test]
    fn distances_of_the_same_are_not_below_zero() {
        for seed in 0..40 {
            let rows: Vec<f64> = (0..60).map(|i| (f64::from(i * (seed + 3))).sin()).collect();
            let features = Features::of_rows(&rows, 6).unwrap();
            let found = frechet_distance(&features, &features).unwrap();
            assert!(found < 1e-9 && found.is_sign_positive(), "{seed}: {found}");
        }
    }

    #[test]
    fn what_is_no_covariance_is_known() {
        let of =
            |values: &[f64]| is_covariance(&Matrix { width: values.len().isqrt(), values: values.to_vec() });
        assert!(of(&[2.0, 1.0, 1.0, 2.0]) && of(&[1.0, 1.0, 1.0, 1.0]) && of(&[0.0; 4]) && of(&[]));
        // Of rank 1, and off by the rounding of float32.
        assert!(of(&[1.0, 1.0 + 1e-7, 1.0, 1.0 - 1e-7]));
        assert!(!of(&[-1.0]) && !of(&[1.0, 0.0, 0.0, -1e-3]) && !of(&[0.0, 1.0, 1.0, 0.0]));
        assert!(!of(&[1.0, 2.0, 2.0, 1.0]) && !of(&[1.0, 0.1, 0.2, 1.0]));
    }

    #[test]
    fn rows_are_counted_over_one_less() {
        let found = Features::of_rows(&[1.0, 0.0, 3.0, 4.0], 2).unwrap();
        assert_eq!(found.mean, [2.0, 2.0]);
        assert_eq!(found.covariance.values, [2.0, 4.0, 4.0, 8.0]);
        assert_eq!(Features::of_rows(&[1.0, 0.0], 2), None);
        assert_eq!(Features::of_rows(&[1.0, 0.0, 2.0], 2), None);
        assert_eq!(Features::of_rows(&[1.0, f64::NAN], 1), None);
        assert_eq!(Features::of_rows(&[], 0), None);
    }
}
