//! Layer normalisation: rows of features, each by its own mean and variance, and its backward pass.

use crate::math::{for_each_isa, mul_add};
use crate::share::filled;
use crate::simd::Isa;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// About how many elements a task has; fixed, so that the order of sums does not follow the number of threads.
const PIECE: usize = 1 << 15;

/// Elements of which sums are kept apart, the same for every instruction set.
const LANES: usize = 16;

/// The sum of `term(index)` over a row.
#[inline(always)]
fn sum(length: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for (lane, index) in (whole..length).enumerate() {
        sums[lane] += term(index);
    }
    sums.iter().sum()
}

/// The sum of `term` over a row, where that of `nothing` is 0.
#[inline(always)]
fn sum_of(row: &[f32], nothing: f32, term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 2 * LANES];
    let (chunks, rest) = row.as_chunks::<{ 2 * LANES }>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += term(*value);
        }
    }
    let mut last = [nothing; 2 * LANES];
    last[..rest.len()].copy_from_slice(rest);
    for (sum, value) in sums.iter_mut().zip(last) {
        *sum += term(value);
    }
    sums.iter().sum()
}

/// Mean and 1 / standard deviation.
#[inline(always)]
fn statistics(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum_of(row, 0.0, |value| value) / count;
    let variance = sum_of(row, mean, |value| (value - mean) * (value - mean)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[inline(always)]
fn forward_rows<const FUSED: bool>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    y: &mut [MaybeUninit<f32>],
) {
    let features = weight.len();
    let bias = &bias[..features];
    for (x, y) in x.chunks_exact(features).zip(y.chunks_exact_mut(features)) {
        let (mean, rstd) = statistics(x, epsilon);
        for c in 0..features {
            y[c].write(mul_add::<FUSED>((x[c] - mean) * rstd, weight[c], bias[c]));
        }
    }
}

for_each_isa! {
    fn forward_piece(
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        epsilon: f32,
        y: &mut [MaybeUninit<f32>],
    ) = forward_rows
}

#[inline(always)]
fn backward_rows<const FUSED: bool>(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    dy: &[f32],
    dx: &mut [MaybeUninit<f32>],
    sums: &mut [f32],
) {
    let features = weight.len();
    let (dw, db) = sums.split_at_mut(features);
    let db = &mut db[..features];
    let rows = x.chunks_exact(features).zip(dy.chunks_exact(features));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(features)) {
        let (mean, rstd) = statistics(x, epsilon);
        let normal = |c: usize| (x[c] - mean) * rstd;
        let mean_g = sum(features, |c| dy[c] * weight[c]) / features as f32;
        let mean_gn = sum(features, |c| dy[c] * weight[c] * normal(c)) / features as f32;
        for c in 0..features {
            let normal = normal(c);
            dw[c] = mul_add::<FUSED>(dy[c], normal, dw[c]);
            db[c] += dy[c];
            dx[c].write(rstd * (dy[c] * weight[c] - mean_g - normal * mean_gn));
        }
    }
}

for_each_isa! {
    /// The gradient of the input, to `dx`; those of weight and bias, one after the other, are added to `sums`.
    fn backward_piece(
        x: &[f32],
        weight: &[f32],
        epsilon: f32,
        dy: &[f32],
        dx: &mut [MaybeUninit<f32>],
        sums: &mut [f32],
    ) = backward_rows
}

/// `x[.., features]`, each row normalised, then `· weight + bias`; `epsilon` is added to the variance.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    assert_eq!(weight.len(), bias.len(), "weight and bias");
    let (whole, isa) = (whole_rows(x, weight), Isa::detect());
    let write = |y: &mut [MaybeUninit<f32>]| {
        let pieces = x.par_chunks(whole).zip(y.par_chunks_mut(whole));
        pieces.for_each(|(x, y)| forward_piece(isa, x, weight, bias, epsilon, y));
    };
    // SAFETY: pieces are whole rows, and every element of each is written.
    unsafe { filled(x.len(), write) }
}

/// The gradients of input, weight and bias, one after the other, from `x` and the gradient of the output.
pub fn layer_norm_backward(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), dy.len(), "gradient");
    let (features, whole, isa) = (weight.len(), whole_rows(x, weight), Isa::detect());
    let write = |out: &mut [MaybeUninit<f32>]| {
        let (dx, rest) = out.split_at_mut(x.len());
        let pieces = x.par_chunks(whole).zip(dy.par_chunks(whole)).zip(dx.par_chunks_mut(whole));
        let sums: Vec<Vec<f32>> = pieces
            .map(|((x, dy), dx)| {
                let mut sums = vec![0.0f32; 2 * features];
                backward_piece(isa, x, weight, epsilon, dy, dx, &mut sums);
                sums
            })
            .collect();
        // Piece by piece in their order, so that threads change nothing.
        for (index, total) in rest.iter_mut().enumerate() {
            total.write(sums.iter().map(|sums| sums[index]).sum());
        }
    };
    // SAFETY: pieces are whole rows, every element of each is written, and so are the sums.
    unsafe { filled(x.len() + 2 * features, write) }
}

/// About [`PIECE`] elements, which are whole rows.
fn whole_rows(x: &[f32], weight: &[f32]) -> usize {
    assert!(!weight.is_empty() && x.len().is_multiple_of(weight.len()), "rows of features");
    PIECE.next_multiple_of(weight.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin() * 1.5 + 0.3).collect()
    }

    fn definition(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let count = weight.len() as f64;
        x.chunks(weight.len())
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / count;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                let rstd = 1.0 / (variance + 1e-5).sqrt();
                row.iter().zip(weight.iter().zip(bias)).map(move |(x, (w, b))| (x - mean) * rstd * w + b)
            })
            .collect()
    }

    #[test]
    fn rows_are_normalised_and_the_gradients_are_the_slopes() {
        for (rows, features) in [(1, 1), (3, 2), (5, 17), (2, 180), (9, 33), (PIECE / 64 + 3, 64)] {
            let (x, dy) = (wave(rows * features, 0.37), wave(rows * features, 0.11));
            let (weight, bias) = (wave(features, 0.7), wave(features, 0.9));
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let (x64, w64, b64) = (wide(&x), wide(&weight), wide(&bias));
            let want = definition(&x64, &w64, &b64);
            for (got, want) in layer_norm(&x, &weight, &bias, 1e-5).iter().zip(&want) {
                assert!((f64::from(*got) - want).abs() < 2e-5, "{rows} x {features}: {got} is not {want}");
            }
            let grads = layer_norm_backward(&x, &weight, 1e-5, &dy);
            let loss = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
                definition(x, w, b).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
            };
            let all = x.len() + 2 * features;
            assert_eq!(grads.len(), all);
            for index in (0..all).step_by(1 + all / 60) {
                let moved = |by: f64| {
                    let (mut x, mut w, mut b) = (x64.clone(), w64.clone(), b64.clone());
                    match index.checked_sub(x.len()) {
                        None => x[index] += by,
                        Some(at) if at < features => w[at] += by,
                        Some(at) => b[at - features] += by,
                    }
                    loss(&x, &w, &b)
                };
                if features == 1 && index < x.len() {
                    // The variance is 0: only that the gradient is 0 is known.
                    assert_eq!(grads[index], 0.0);
                    continue;
                }
                let want = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                let error = (f64::from(grads[index]) - want).abs();
                assert!(error < 2e-3 * want.abs().max(1.0), "{rows} x {features}, {index}: {want}");
            }
        }
    }

    #[test]
    fn no_result_depends_on_the_number_of_threads() {
        let (x, dy) = (wave(70_001 * 3, 0.37), wave(70_001 * 3, 0.11));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let weight = [0.5, 1.5, -1.0];
                [layer_norm(&x, &weight, &weight, 1e-5), layer_norm_backward(&x, &weight, 1e-5, &dy)]
            })
        };
        let one = run(1);
        assert!([2, 3, 16].into_iter().all(|threads| run(threads) == one));
    }
}
