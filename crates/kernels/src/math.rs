//! Elementary functions in a form that the compiler turns into vectors, and loops over rows made of them.
//!
//! `FUSED` says whether the machine has fused products; without the instruction they are slow calls.

use crate::simd::Isa;
use std::f32::consts::LOG2_E;

/// `a · b + c`.
#[inline(always)]
pub(crate) fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Adding it leaves the nearest integer in the last bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// `e^x` to two units in the last place for `x` up to 88; 0 below -87.3.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -87.3;
    let bounded = if x > LOWEST { x } else { LOWEST };
    let shifted = mul_add::<FUSED>(bounded, LOG2_E, ROUND);
    let n = shifted - ROUND;
    // x - n ln 2, in two steps, the first of them exact.
    let r = mul_add::<FUSED>(n, 2.121_944_4e-4, mul_add::<FUSED>(n, -0.693_359_4, bounded));
    let mut series = 1.987_569_2e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        series = mul_add::<FUSED>(series, r, coefficient);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = mul_add::<FUSED>(series, r * r, r + 1.0) * power;
    if x > LOWEST { y } else { 0.0 }
}

/// Of the polynomial for `2^r`, `r` from -1/2 to 1/2, the highest power first: of those that are exact at 0 the one whose
/// largest relative error is the least.
pub(crate) const EXP2: [f32; 4] = [5.500_894e-2, 2.422_11e-1, 6.932_829e-1, 1.0];

/// `2^x` to 1.1e-4 of its value for `x` up to 127; 0 below -126.5. Enough for what is then rounded to bf16, which is to 2e-3.
#[inline(always)]
pub(crate) fn rough_exp2<const FUSED: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -127.0;
    let bounded = if x > LOWEST { x } else { LOWEST };
    let shifted = bounded + ROUND;
    let r = bounded - (shifted - ROUND);
    let mut series = EXP2[0];
    for coefficient in &EXP2[1..] {
        series = mul_add::<FUSED>(series, r, *coefficient);
    }
    // Of the lowest the exponent is that of 0.
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    let bounded = if x > -88.0 { x } else { -88.0 };
    1.0 / (1.0 + exp::<FUSED>(-bounded))
}

/// The error function to 4e-7 of its value: a quotient of polynomials, as erf is 1 in f32 from 4 on.
#[inline(always)]
pub(crate) fn erf<const FUSED: bool>(x: f32) -> f32 {
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let square = x * x;
    let mut above = -2.726_142e-10;
    for coefficient in
        [2.770_681_4e-8, -2.101_024_1e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_4e-2]
    {
        above = mul_add::<FUSED>(above, square, coefficient);
    }
    let mut below = -1.456_607_2e-5;
    for coefficient in [-2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        below = mul_add::<FUSED>(below, square, coefficient);
    }
    let y = x * above / below;
    let y = if y > 1.0 { 1.0 } else { y };
    if y < -1.0 { -1.0 } else { y }
}

/// Compiles the body of a function for every instruction set and calls the one asked for.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $visible:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "a loop body")]
        $visible fn $name(isa: Isa, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "a loop body")]
            fn avx512($($argument: $type),*) {
                $body::<true>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "a loop body")]
            fn avx2($($argument: $type),*) {
                $body::<true>($($argument),*)
            }
            match isa {
                // SAFETY: an Isa says what the machine has.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($argument),*) },
                // Part of every such machine.
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => $body::<true>($($argument),*),
                Isa::Portable => {
                    $body::<{ cfg!(any(target_feature = "fma", target_arch = "aarch64")) }>($($argument),*)
                }
            }
        }
    };
}

pub(crate) use for_each_isa;

/// Elements of which sums are kept apart, the same for every instruction set.
const LANES: usize = 16;

/// The rows of a block of scores.
pub(crate) struct Scores<'a> {
    /// Scores, `stride` apart; behind `keys` up to a multiple of 16 they are overwritten.
    pub values: &'a mut [f32],
    /// From one row to the next, a multiple of 16.
    pub stride: usize,
    /// Scores in a row.
    pub keys: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// What is added to them then, and the distance between its rows.
    pub bias: Option<(&'a [f32], usize)>,
}

impl Scores<'_> {
    /// Row `index`, biased and filled up with `-inf` to a multiple of 16, and what its values are still to be multiplied
    /// by: with a bias they are scaled already.
    #[inline(always)]
    fn row<const FUSED: bool>(&mut self, index: usize) -> (&mut [f32], f32) {
        let row = &mut self.values[index * self.stride..][..self.keys.next_multiple_of(LANES)];
        row[self.keys..].fill(f32::NEG_INFINITY);
        let Some((bias, stride)) = self.bias else { return (row, self.scale) };
        for (score, bias) in row[..self.keys].iter_mut().zip(&bias[index * stride..][..self.keys]) {
            *score = mul_add::<FUSED>(*score, self.scale, *bias);
        }
        (row, 1.0)
    }
}

/// All lanes as one, by halves.
#[inline(always)]
fn fold(lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        eight[i] = f(lanes[i], lanes[i + 8]);
    }
    for i in 0..4 {
        four[i] = f(eight[i], eight[i + 4]);
    }
    f(f(four[0], four[2]), f(four[1], four[3]))
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// By what `row` is multiplied and what is added then for the exponents of `scale` times a score, less `base`, the largest of
/// them: of e, `ROUGH` of two.
#[inline(always)]
pub(crate) fn exponents<const ROUGH: bool>(row: &mut [f32], scale: f32, base: f32) -> (f32, f32) {
    // What products of larger ones, as where large numbers mask all keys, lose in rounding is more than the scores differ
    // by: all are rounded the same way.
    const MOST: f32 = 65536.0;
    let unit = if ROUGH { LOG2_E } else { 1.0 };
    if base.abs() <= MOST {
        return (scale * unit, -base * unit);
    }
    for score in row {
        *score = (*score * scale - base).min(0.0);
    }
    (unit, 0.0)
}

/// `ROUGH`: with [`rough_exp2`].
#[inline(always)]
fn softmax_block<const FUSED: bool, const ROUGH: bool>(
    mut scores: Scores<'_>,
    largest: &mut [f32],
    sums: &mut [f32],
    factors: &mut [f32],
) {
    for index in 0..largest.len() {
        let (row, scale) = scores.row::<FUSED>(index);
        let mut most = [f32::NEG_INFINITY; LANES];
        for chunk in row.as_chunks::<LANES>().0 {
            for (most, &score) in most.iter_mut().zip(chunk) {
                *most = larger(score, *most);
            }
        }
        let before = largest[index];
        let most = larger(fold(most, larger) * scale, before);
        // A row that is masked whole has no largest score to subtract.
        let base = if most == f32::NEG_INFINITY { 0.0 } else { most };
        let mut sum = [0.0; LANES];
        let (scale, shift) = exponents::<ROUGH>(row, scale, base);
        for chunk in row.as_chunks_mut::<LANES>().0 {
            for (sum, score) in sum.iter_mut().zip(chunk) {
                let power = mul_add::<FUSED>(*score, scale, shift);
                *score = if ROUGH { rough_exp2::<FUSED>(power) } else { exp::<FUSED>(power) };
                *sum += *score;
            }
        }
        let factor = before - base;
        let factor = if ROUGH { rough_exp2::<FUSED>(factor * LOG2_E) } else { exp::<FUSED>(factor) };
        largest[index] = most;
        factors[index] = factor;
        sums[index] = sums[index] * factor + fold(sum, |a, b| a + b);
    }
}

#[inline(always)]
fn exact_block<const FUSED: bool>(
    scores: Scores<'_>,
    largest: &mut [f32],
    sums: &mut [f32],
    factors: &mut [f32],
) {
    softmax_block::<FUSED, false>(scores, largest, sums, factors);
}

#[inline(always)]
fn rough_block<const FUSED: bool>(
    scores: Scores<'_>,
    largest: &mut [f32],
    sums: &mut [f32],
    factors: &mut [f32],
) {
    softmax_block::<FUSED, true>(scores, largest, sums, factors);
}

for_each_isa! {
    /// One step of a softmax over blocks of keys. Scores become `exp(score - largest so far)`; `largest` and
    /// `sums`, one a row, are brought up to date, and `factors` is what earlier results are worth now.
    pub(crate) fn softmax(scores: Scores<'_>, largest: &mut [f32], sums: &mut [f32], factors: &mut [f32]) = exact_block
}

for_each_isa! {
    /// The same with [`rough_exp2`].
    pub(crate) fn rough_softmax(
        scores: Scores<'_>,
        largest: &mut [f32],
        sums: &mut [f32],
        factors: &mut [f32],
    ) = rough_block
}

#[inline(always)]
fn gradient_block<const FUSED: bool>(
    mut scores: Scores<'_>,
    gradients: &mut [f32],
    logarithms: &[f32],
    inner: &[f32],
    mut bias_gradient: Option<(&mut [f32], usize)>,
) {
    let (stride, keys, scale) = (scores.stride, scores.keys, scores.scale);
    for index in 0..logarithms.len() {
        let (row, by) = scores.row::<FUSED>(index);
        let gradients = &mut gradients[index * stride..][..keys];
        for (score, gradient) in row[..keys].iter_mut().zip(&mut *gradients) {
            *score = exp::<FUSED>(mul_add::<FUSED>(*score, by, -logarithms[index]));
            *gradient = *score * (*gradient - inner[index]);
        }
        if let Some((bias, stride)) = &mut bias_gradient {
            for (bias, gradient) in bias[index * *stride..][..keys].iter_mut().zip(&*gradients) {
                *bias += *gradient;
            }
        }
        gradients.iter_mut().for_each(|gradient| *gradient *= scale);
    }
}

for_each_isa! {
    /// Scores become probabilities `exp(score - logarithm)`, and `gradients`, which comes as that of the
    /// probabilities, that of the product of queries and keys; `inner` is the sum of probability times
    /// gradient, one a row. The gradient of the bias is added to `bias_gradient`, given with its stride.
    pub(crate) fn softmax_gradient(
        scores: Scores<'_>,
        gradients: &mut [f32],
        logarithms: &[f32],
        inner: &[f32],
        bias_gradient: Option<(&mut [f32], usize)>,
    ) = gradient_block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_that_of_its_series() {
        for step in -400..=400 {
            let x = step as f32 * 1e-2;
            // erf(x) = 2/sqrt(pi) · sum of (-1)^n x^(2n+1) / (n! (2n+1))
            let (wide, mut term, mut sum) = (f64::from(x), f64::from(x), 0.0);
            for n in 0..200 {
                sum += term / f64::from(2 * n + 1);
                term *= -wide * wide / f64::from(n + 1);
            }
            let want = sum * std::f64::consts::FRAC_2_SQRT_PI;
            for got in [erf::<true>(x), erf::<false>(x)] {
                assert!((f64::from(got) - want).abs() <= 4e-7 * want.abs(), "{x}: {got} is not {want}");
            }
        }
        assert!(erf::<true>(30.0) > 1.0 - 2e-7 && erf::<true>(-30.0) < -1.0 + 2e-7);
    }

    #[test]
    fn the_rough_exponential_is_right_to_a_ten_thousandth() {
        for step in 0..253_000 {
            let x = step as f32 * 1e-3 - 126.4;
            let want = f64::from(x).exp2();
            for got in [rough_exp2::<true>(x), rough_exp2::<false>(x)] {
                assert!((f64::from(got) - want).abs() <= 1.1e-4 * want, "{x}: {got} is not {want}");
            }
        }
        for none in [f32::NEG_INFINITY, -1e30, -126.6] {
            assert_eq!(rough_exp2::<true>(none), 0.0, "{none}");
        }
    }

    #[test]
    fn exp_is_exact_to_two_units() {
        for step in 0..175_000 {
            let x = step as f32 * 1e-3 - 87.2;
            let (want, got) = (f64::from(x).exp(), [exp::<true>(x), exp::<false>(x)]);
            for got in got {
                assert!((f64::from(got) - want).abs() <= 2.5e-7 * want, "{x}: {got} is not {want}");
            }
        }
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(0.0), 1.0);
    }
}
