//! Symmetric matrices in f64.

use rayon::prelude::*;

/// A square matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub width: usize,
    pub values: Vec<f64>,
}

impl Matrix {
    /// The symmetric one with these values at row i and column j, j not above i.
    pub fn symmetric(width: usize, value: impl Fn(usize, usize) -> f64 + Sync) -> Self {
        let rows: Vec<Vec<f64>> =
            (0..width).into_par_iter().map(|i| (0..=i).map(|j| value(i, j)).collect()).collect();
        let at = |i: usize, j: usize| if j <= i { rows[i][j] } else { rows[j][i] };
        Self { width, values: (0..width * width).map(|place| at(place / width, place % width)).collect() }
    }

    pub fn trace(&self) -> f64 {
        self.values.iter().step_by(self.width + 1).sum()
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..][..self.width]
    }
}

/// The sum of products, in an order that fills the processor's registers.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0; 16];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// Columns whose outer products add up to a matrix that is symmetric and not negative, as many as its rank:
/// Cholesky's factor, the largest pivot first, until what is left is noise.
pub fn root(matrix: &Matrix) -> Vec<Vec<f64>> {
    let width = matrix.width;
    let mut left: Vec<f64> = matrix.values.iter().step_by(width + 1).copied().collect();
    let largest = left.iter().copied().fold(0.0, f64::max);
    let noise = largest * width as f64 * f64::EPSILON;
    // The factor row by row, which grows by a column each time.
    let mut rows: Vec<Vec<f64>> = vec![Vec::new(); width];
    for _ in 0..width {
        let pivot = (0..width).max_by(|&i, &j| left[i].total_cmp(&left[j])).expect("it has rows");
        if left[pivot] <= noise {
            break;
        }
        let (scale, known) = (left[pivot].sqrt(), rows[pivot].clone());
        let values = matrix.row(pivot);
        rows.par_iter_mut().zip(&mut left).enumerate().with_min_len(64).for_each(|(i, (row, left))| {
            let value = (values[i] - dot(row, &known)) / scale;
            row.push(value);
            // Its own is used up but for rounding.
            *left = if i == pivot { 0.0 } else { *left - value * value };
        });
    }
    let rank = rows.first().map_or(0, Vec::len);
    (0..rank).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
}

/// The eigenvalues of a symmetric matrix, rising: by Householder's reflections to three diagonals, then by
/// bisection with Sturm's sequences, each to the last digit of the largest.
pub fn eigenvalues(matrix: Matrix) -> Vec<f64> {
    let (diagonal, beside) = three_diagonals(matrix);
    let reach = |i: usize| {
        let before = if i > 0 { beside[i - 1].abs() } else { 0.0 };
        diagonal[i].abs() + before + beside.get(i).map_or(0.0, |value| value.abs())
    };
    let bound = (0..diagonal.len()).map(reach).fold(0.0, f64::max);
    // A pivot of 0 stands for one that is barely not.
    let least = (bound * f64::EPSILON).max(f64::MIN_POSITIVE);
    let below = |x: f64| {
        let mut count = 0;
        let mut pivot = 1.0;
        for (i, value) in diagonal.iter().enumerate() {
            let before = if i > 0 { beside[i - 1] } else { 0.0 };
            pivot = value - x - before * before / pivot;
            if pivot.abs() < least {
                pivot = -least;
            }
            count += usize::from(pivot < 0.0);
        }
        count
    };
    let find = |index: usize| {
        let (mut low, mut high) = (-bound - least, bound + least);
        loop {
            let middle = low + (high - low) / 2.0;
            if high - low <= least || middle <= low || middle >= high {
                return middle;
            }
            if below(middle) > index { high = middle } else { low = middle }
        }
    };
    (0..diagonal.len()).into_par_iter().map(find).collect()
}

/// The diagonal, and what stands beside it, of the matrix turned so that the rest is 0.
fn three_diagonals(mut matrix: Matrix) -> (Vec<f64>, Vec<f64>) {
    let width = matrix.width;
    let mut beside = Vec::new();
    for k in 0..width.saturating_sub(1) {
        // The mirror takes what is right of the diagonal to its first place.
        let mut mirror = matrix.row(k)[k + 1..].to_vec();
        let length = dot(&mirror, &mirror).sqrt();
        let first = if mirror[0] > 0.0 { -length } else { length };
        beside.push(first);
        mirror[0] -= first;
        let square = dot(&mirror, &mirror);
        if square == 0.0 {
            continue;
        }
        let rows = &mut matrix.values[(k + 1) * width..];
        let mut product: Vec<f64> = rows
            .par_chunks(width)
            .with_min_len(64)
            .map(|row| 2.0 * dot(&row[k + 1..], &mirror) / square)
            .collect();
        let along = dot(&product, &mirror) / square;
        product.iter_mut().zip(&mirror).for_each(|(product, mirror)| *product -= along * mirror);
        rows.par_chunks_mut(width).with_min_len(64).enumerate().for_each(|(i, row)| {
            let (own, own_product) = (mirror[i], product[i]);
            for ((value, mirror), product) in row[k + 1..].iter_mut().zip(&mirror).zip(&product) {
                *value -= own * product + own_product * mirror;
            }
        });
    }
    (matrix.values.iter().step_by(width + 1).copied().collect(), beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That of the second difference: 2 beside -1.
    fn second_difference(width: usize) -> Matrix {
        Matrix::symmetric(width, |i, j| match i - j {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        })
    }

    #[test]
    fn known_eigenvalues_are_found() {
        let width = 40;
        let known = |k: usize| 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (width + 1) as f64).cos();
        for (k, found) in eigenvalues(second_difference(width)).iter().enumerate() {
            assert!((found - known(k)).abs() < 1e-14, "{k}: {found}");
        }
        // All ones: 0 but for one; nothing is on three diagonals before it is turned.
        let found = eigenvalues(Matrix { width: 30, values: vec![1.0; 900] });
        assert!(found[..29].iter().all(|value| value.abs() < 1e-12) && (found[29] - 30.0).abs() < 1e-12);
        assert!(eigenvalues(Matrix { width: 0, values: Vec::new() }).is_empty());
    }

    #[test]
    fn a_root_has_the_rank_and_gives_the_matrix() {
        let columns: Vec<Vec<f64>> =
            (0..3).map(|k| (0..50).map(|i| ((i * (k + 2)) as f64).sin()).collect()).collect();
        let matrix = Matrix::symmetric(50, |i, j| columns.iter().map(|column| column[i] * column[j]).sum());
        let found = root(&matrix);
        assert_eq!(found.len(), 3);
        for i in 0..50 {
            for j in 0..50 {
                let product: f64 = found.iter().map(|column| column[i] * column[j]).sum();
                assert!((product - matrix.row(i)[j]).abs() < 1e-13);
            }
        }
        assert_eq!(root(&second_difference(20)).len(), 20);
    }
}
