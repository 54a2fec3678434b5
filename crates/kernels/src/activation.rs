//! Element-wise functions: the ReLU and its leaky kin, and the GELU, `x · Phi(x)` with the normal distribution function
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
pub(crate) fn phi<const FUSED: bool>(x: f32) -> f32 {
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

#[inline(always)]
fn geglu_rows<const FUSED: bool>(x: &[f32], y: &mut [MaybeUninit<f32>], features: usize) {
    for (x, y) in x.chunks_exact(2 * features).zip(y.chunks_exact_mut(features)) {
        let (x, gate) = x.split_at(features);
        for c in 0..features {
            y[c].write(x[c] * (gate[c] * phi::<FUSED>(gate[c])));
        }
    }
}

for_each_isa! {
    fn geglu_piece(x: &[f32], y: &mut [MaybeUninit<f32>], features: usize) = geglu_rows
}

/// `x[.., 2 · features]` to `[.., features]`: the first half of each row times the GELU of the second (arXiv 2002.05202).
pub fn geglu(x: &[f32], features: usize) -> Vec<f32> {
    geglu_with(Isa::detect(), x, features)
}

pub(crate) fn geglu_with(isa: Isa, x: &[f32], features: usize) -> Vec<f32> {
    assert!(features > 0 && x.len().is_multiple_of(2 * features), "rows of two halves");
    let piece = PIECE.next_multiple_of(features);
    let write = |y: &mut [MaybeUninit<f32>]| {
        let pieces = x.par_chunks(2 * piece).zip(y.par_chunks_mut(piece));
        pieces.for_each(|(x, y)| geglu_piece(isa, x, y, features));
    };
    // SAFETY: pieces are whole rows, and each element of them is written.
    unsafe { filled(x.len() / 2, write) }
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

#[inline(always)]
fn leaky_piece<const FUSED: bool>(x: &[f32], slope: f32, y: &mut [MaybeUninit<f32>]) {
    for (x, y) in x.iter().zip(y) {
        y.write(if *x < 0.0 { slope * *x } else { *x });
    }
}

for_each_isa! {
    fn leaky(x: &[f32], slope: f32, y: &mut [MaybeUninit<f32>]) = leaky_piece
}

#[inline(always)]
fn leaky_gradient_piece<const FUSED: bool>(y: &[f32], dy: &[f32], slope: f32, dx: &mut [MaybeUninit<f32>]) {
    for ((y, dy), dx) in y.iter().zip(dy).zip(dx) {
        dx.write(if *y > 0.0 { *dy } else { slope * *dy });
    }
}

for_each_isa! {
    fn leaky_gradient(y: &[f32], dy: &[f32], slope: f32, dx: &mut [MaybeUninit<f32>]) = leaky_gradient_piece
}

/// Each element where positive, else `slope` times as large; `slope` above 0.
pub fn leaky_relu(x: &[f32], slope: f32) -> Vec<f32> {
    let isa = Isa::detect();
    each(x, |x, y| leaky(isa, x, slope, y))
}

/// The gradient of `x`, from `y = leaky_relu(x)` and its gradient.
pub fn leaky_relu_backward(y: &[f32], dy: &[f32], slope: f32) -> Vec<f32> {
    assert_eq!(y.len(), dy.len(), "gradient");
    let isa = Isa::detect();
    both(y, dy, |y, dy, dx| leaky_gradient(isa, y, dy, slope, dx))
}

#[inline(always)]
fn prelu_pixels<const FUSED: bool>(x: &[f32], slopes: &[f32], y: &mut [MaybeUninit<f32>]) {
    let channels = slopes.len();
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        for c in 0..channels {
            y[c].write(if x[c] < 0.0 { slopes[c] * x[c] } else { x[c] });
        }
    }
}

for_each_isa! {
    fn prelu_piece(x: &[f32], slopes: &[f32], y: &mut [MaybeUninit<f32>]) = prelu_pixels
}

#[inline(always)]
fn prelu_gradient_pixels<const FUSED: bool>(
    x: &[f32],
    slopes: &[f32],
    dy: &[f32],
    dx: &mut [MaybeUninit<f32>],
    sums: &mut [f32],
) {
    let channels = slopes.len();
    let sums = &mut sums[..channels];
    let pixels = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
    for ((x, dy), dx) in pixels.zip(dx.chunks_exact_mut(channels)) {
        for c in 0..channels {
            dx[c].write(if x[c] > 0.0 { dy[c] } else { slopes[c] * dy[c] });
            sums[c] += if x[c] < 0.0 { x[c] * dy[c] } else { 0.0 };
        }
    }
}

for_each_isa! {
    /// The sums over pixels, which are the gradients of the slopes, are added to `sums`.
    fn prelu_gradient(
        x: &[f32],
        slopes: &[f32],
        dy: &[f32],
        dx: &mut [MaybeUninit<f32>],
        sums: &mut [f32],
    ) = prelu_gradient_pixels
}

/// The PReLU (arXiv 1502.01852) of `[pixels, channels]`: a slope for each channel.
pub fn prelu(x: &[f32], slopes: &[f32]) -> Vec<f32> {
    let (whole, isa) = (whole_pixels(x, slopes), Isa::detect());
    let write = |y: &mut [MaybeUninit<f32>]| {
        let pieces = x.par_chunks(whole).zip(y.par_chunks_mut(whole));
        pieces.for_each(|(x, y)| prelu_piece(isa, x, slopes, y));
    };
    // SAFETY: pieces are whole pixels, and every element of each is written.
    unsafe { filled(x.len(), write) }
}

/// The gradients of `x` and, after it in the same vector, of the slopes.
pub fn prelu_backward(x: &[f32], slopes: &[f32], dy: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), dy.len(), "gradient");
    let (whole, channels, isa) = (whole_pixels(x, slopes), slopes.len(), Isa::detect());
    let write = |out: &mut [MaybeUninit<f32>]| {
        let (dx, dslopes) = out.split_at_mut(x.len());
        let pieces = x.par_chunks(whole).zip(dy.par_chunks(whole)).zip(dx.par_chunks_mut(whole));
        let sums: Vec<Vec<f32>> = pieces
            .map(|((x, dy), dx)| {
                let mut sums = vec![0.0f32; channels];
                prelu_gradient(isa, x, slopes, dy, dx, &mut sums);
                sums
            })
            .collect();
        // Piece by piece in their order, so that threads change nothing.
        for (channel, dslope) in dslopes.iter_mut().enumerate() {
            dslope.write(sums.iter().map(|sums| sums[channel]).sum());
        }
    };
    // SAFETY: pieces are whole pixels, every element of each is written, and so is every slope's.
    unsafe { filled(x.len() + channels, write) }
}

/// About [`PIECE`] elements, which are whole pixels.
fn whole_pixels(x: &[f32], slopes: &[f32]) -> usize {
    assert!(!slopes.is_empty() && x.len().is_multiple_of(slopes.len()), "a slope for each channel");
    PIECE.next_multiple_of(slopes.len())
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
    fn leaky_relus_have_their_slopes() {
        for channels in [1, 3, 16, 64] {
            let count = (2 * PIECE / channels + 7) * channels;
            let x: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
            let dy: Vec<f32> = (0..count).map(|i| (i as f32 * 0.3).cos()).collect();
            let slopes: Vec<f32> = (0..channels).map(|c| c as f32 * 0.1 - 0.2).collect();
            let (y, grads) = (prelu(&x, &slopes), prelu_backward(&x, &slopes, &dy));
            let mut sums = vec![0f64; channels];
            for (i, (&x, &dy)) in x.iter().zip(&dy).enumerate() {
                // At 0 the gradient is that of the negative side, as in PyTorch.
                let slope = if x > 0.0 { 1.0 } else { slopes[i % channels] };
                assert_eq!((y[i], grads[i]), (x * slope, dy * slope), "{channels} channels, element {i}");
                sums[i % channels] += if x < 0.0 { f64::from(x) * f64::from(dy) } else { 0.0 };
            }
            for (got, want) in grads[count..].iter().zip(sums) {
                assert!((f64::from(*got) - want).abs() < 1e-2, "{channels} channels: {got} is not {want}");
            }
        }
        let y = leaky_relu(&[-2.0, 0.0, 3.0], 0.5);
        assert_eq!(y, [-1.0, 0.0, 3.0]);
        assert_eq!(leaky_relu_backward(&y, &[4.0, 4.0, 4.0], 0.5), [2.0, 2.0, 4.0]);
        let (x, dy) = ([f32::NAN, f32::INFINITY], [1.0; 2]);
        assert!(leaky_relu(&x, 0.5)[0].is_nan() && prelu(&x, &[0.5])[0].is_nan());
        assert_eq!(prelu_backward(&x, &[0.5, 0.5], &dy)[1], 1.0);
    }

    #[test]
    fn the_gated_gelu_multiplies_halves_of_rows() {
        for (rows, features) in [(3, 1), (2, 33), (PIECE / 80 + 3, 160)] {
            let x: Vec<f32> = (0..2 * rows * features).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
            let y = geglu(&x, features);
            for (x, y) in x.chunks_exact(2 * features).zip(y.chunks_exact(features)) {
                let gate = gelu(&x[features..]);
                assert!((0..features).all(|c| y[c] == x[c] * gate[c]), "{rows} x {features}");
            }
        }
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
