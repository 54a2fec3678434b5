//! Element-wise functions: the ReLU, and the GELU, `x · Phi(x)` with the normal distribution function
//! (arXiv 1606.08415), exact and not by its approximation with tanh.

use crate::math::{erf, exp, for_each_isa, mul_add};
use crate::share::filled;
use crate::simd::Isa;
use rayon::prelude::*;
use std::f32::consts::FRAC_1_SQRT_2;
use std::mem::MaybeUninit;

/// Elements of one task.
const PIECE: usize = 1 << 15;

#[inline(always)]
fn phi<const FUSED: bool>(x: f32) -> f32 {
    mul_add::<FUSED>(erf::<FUSED>(x * FRAC_1_SQRT_2), 0.5, 0.5)
}

#[inline(always)]
fn forward_piece<const FUSED: bool>(x: &[f32], y: &mut [MaybeUninit<f32>]) {
    for (x, y) in x.iter().zip(y) {
        y.write(*x * phi::<FUSED>(*x));
    }
}

for_each_isa! {
    fn forward(x: &[f32], y: &mut [MaybeUninit<f32>]) = forward_piece
}

#[inline(always)]
fn backward_piece<const FUSED: bool>(x: &[f32], dy: &[f32], dx: &mut [MaybeUninit<f32>]) {
    /// 1 / sqrt(2 pi)
    const DENSITY: f32 = 0.398_942_3;
    for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
        // Far out the density is 0 in any case, and its exponent would overflow.
        let near = if *x > 13.0 { 13.0 } else { *x };
        let near = if near < -13.0 { -13.0 } else { near };
        let density = DENSITY * exp::<FUSED>(near * near * -0.5);
        dx.write(*dy * mul_add::<FUSED>(near, density, phi::<FUSED>(*x)));
    }
}

for_each_isa! {
    fn backward(x: &[f32], dy: &[f32], dx: &mut [MaybeUninit<f32>]) = backward_piece
}

/// The GELU of each element.
pub fn gelu(x: &[f32]) -> Vec<f32> {
    let isa = Isa::detect();
    each(x, |x, y| forward(isa, x, y))
}

/// The gradient of `x`, from that of `gelu(x)`.
pub fn gelu_backward(x: &[f32], dy: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), dy.len(), "gradient");
    let isa = Isa::detect();
    both(x, dy, |x, dy, dx| backward(isa, x, dy, dx))
}

/// The larger of each element and 0.
pub fn relu(x: &[f32]) -> Vec<f32> {
    each(x, |x, y| {
        for (x, y) in x.iter().zip(y) {
            // Comparing so lets what is not a number through.
            y.write(if *x < 0.0 { 0.0 } else { *x });
        }
    })
}

/// The gradient of `x`, from `y = relu(x)` and its gradient.
pub fn relu_backward(y: &[f32], dy: &[f32]) -> Vec<f32> {
    assert_eq!(y.len(), dy.len(), "gradient");
    both(y, dy, |y, dy, dx| {
        for ((y, dy), dx) in y.iter().zip(dy).zip(dx) {
            dx.write(if *y > 0.0 { *dy } else { 0.0 });
        }
    })
}

/// As long as `x`, piece by piece written by `f`, which writes all of each.
fn each(x: &[f32], f: impl Fn(&[f32], &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    both(x, x, |x, _, y| f(x, y))
}

/// The same of two inputs of one length.
fn both(a: &[f32], b: &[f32], f: impl Fn(&[f32], &[f32], &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let write = |y: &mut [MaybeUninit<f32>]| {
        let pieces = a.par_chunks(PIECE).zip(b.par_chunks(PIECE)).zip(y.par_chunks_mut(PIECE));
        pieces.for_each(|((a, b), y)| f(a, b, y));
    };
    // SAFETY: the pieces of all three are of one length, and every `f` of this file writes each element.
    unsafe { filled(a.len(), write) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relu_keeps_what_is_not_a_number_and_its_gradient_stops_at_0() {
        let x = [-2.0, -0.0, 0.0, 3.5, f32::NAN, f32::INFINITY];
        let y = relu(&x);
        assert_eq!(y[..4], [0.0, 0.0, 0.0, 3.5]);
        assert!(y[4].is_nan() && y[5] == f32::INFINITY);
        assert_eq!(relu_backward(&y[..4], &[1.0, 2.0, 3.0, 4.0]), [0.0, 0.0, 0.0, 4.0]);
        let long: Vec<f32> = (0..3 * PIECE + 5).map(|i| i as f32 - 9.0).collect();
        assert!(relu(&long).iter().zip(&long).all(|(y, x)| *y == x.max(0.0)));
    }

    #[test]
    fn values_are_the_known_ones_and_the_gradient_is_the_slope() {
        // x · Phi(x), Phi from tables.
        for (x, want) in
            [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_25), (2.0, 1.954_499_7), (50.0, 50.0)]
        {
            assert!((gelu(&[x])[0] - want).abs() < 5e-7 * want.abs().max(1.0), "{x}");
        }
        let x: Vec<f32> = (-600..600).map(|i| i as f32 * 0.01).collect();
        let slope = gelu_backward(&x, &vec![2.0; x.len()]);
        for (x, slope) in x.into_iter().zip(slope) {
            let y = gelu(&[x + 5e-3, x - 5e-3]);
            let want = 2.0 * (y[0] - y[1]) / 1e-2;
            assert!((slope - want).abs() < 3e-4, "{x}: {slope} is not {want}");
        }
        let far = gelu_backward(&[1e30, -1e30], &[1.0, 1.0]);
        assert!((far[0] - 1.0).abs() < 1e-6 && far[1].abs() < 1e-6, "{far:?}");
    }
}
