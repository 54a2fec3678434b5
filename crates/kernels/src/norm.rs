//! Group normalisation, channels last, with an optional SiLU behind it, and its backward pass.

use crate::math::{for_each_isa, mul_add, sigmoid};
use crate::share::{filled, zeros};
use crate::simd::Isa;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// The sizes of one group normalisation over `[batch, pixels, channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// Images.
    pub batch: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Channels, a multiple of `groups`.
    pub channels: usize,
    /// Groups of neighbouring channels that are normalised together.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether `x · sigmoid(x)` follows.
    pub silu: bool,
}

/// The gradients of one group normalisation.
pub struct GroupNormGradients {
    /// As the input.
    pub input: Vec<f32>,
    /// `[channels]`.
    pub weight: Vec<f32>,
    /// `[channels]`.
    pub bias: Vec<f32>,
}

/// Pixels that are summed in f32 before f64 takes over: f64 for every element would halve the speed.
const BLOCK: usize = 64;

/// Pixels of one task; fixed, so that the order of sums does not follow the number of threads.
const STRIP: usize = 1024;

#[inline(always)]
fn add_moments<const FUSED: bool>(pixels: &[f32], sums: &mut [f32], squares: &mut [f32]) {
    let (first, rest) = pixels.split_at(sums.len());
    for pixel in rest.chunks_exact(first.len()) {
        let channels = sums.iter_mut().zip(&mut *squares).zip(pixel.iter().zip(first));
        for ((sum, square), (value, first)) in channels {
            let offset = value - first;
            *sum += offset;
            *square = mul_add::<FUSED>(offset, offset, *square);
        }
    }
}

for_each_isa! {
    /// Adds each channel's offsets from the first pixel, and their squares. Squares of the values themselves would be all
    /// mean where it is large, and lose the variance.
    fn moments(pixels: &[f32], sums: &mut [f32], squares: &mut [f32]) = add_moments
}

#[inline(always)]
fn apply_pixels<const FUSED: bool>(
    x: &[f32],
    y: &mut [MaybeUninit<f32>],
    scale: &[f32],
    shift: &[f32],
    silu: bool,
) {
    for (x, y) in x.chunks_exact(scale.len()).zip(y.chunks_exact_mut(scale.len())) {
        let values = x.iter().zip(scale.iter().zip(shift));
        let values = values.map(|(x, (scale, shift))| mul_add::<FUSED>(*x, *scale, *shift));
        if silu {
            for (y, value) in y.iter_mut().zip(values) {
                y.write(value * sigmoid::<FUSED>(value));
            }
        } else {
            for (y, value) in y.iter_mut().zip(values) {
                y.write(value);
            }
        }
    }
}

for_each_isa! {
    /// `x · scale + shift` for each channel, then SiLU.
    fn apply(
        x: &[f32],
        y: &mut [MaybeUninit<f32>],
        scale: &[f32],
        shift: &[f32],
        silu: bool,
    ) = apply_pixels
}

/// What a channel is normalised with, `[channels]` each.
struct Channels<'a> {
    mean: &'a [f32],
    rstd: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
}

#[inline(always)]
fn gradient_pixels<const FUSED: bool>(
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    of: Channels<'_>,
    silu: bool,
    sums: (&mut [f32], &mut [f32]),
) {
    let channels = of.mean.len();
    let (mean, rstd) = (&of.mean[..channels], &of.rstd[..channels]);
    let (weight, bias) = (&of.weight[..channels], &of.bias[..channels]);
    let (dw, db) = (&mut sums.0[..channels], &mut sums.1[..channels]);
    let pixels = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
    for ((x, dy), dx) in pixels.zip(dx.chunks_exact_mut(channels)) {
        for c in 0..channels {
            let normal = (x[c] - mean[c]) * rstd[c];
            let grad = if silu {
                let value = mul_add::<FUSED>(normal, weight[c], bias[c]);
                let s = sigmoid::<FUSED>(value);
                dy[c] * s * mul_add::<FUSED>(value, 1.0 - s, 1.0)
            } else {
                dy[c]
            };
            dw[c] = mul_add::<FUSED>(grad, normal, dw[c]);
            db[c] += grad;
            dx[c] = grad;
        }
    }
}

for_each_isa! {
    /// The gradient before the SiLU, to `dx`; its sums over pixels, with and without the normalised input,
    /// are added to `sums`.
    fn gradient(
        x: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        of: Channels<'_>,
        silu: bool,
        sums: (&mut [f32], &mut [f32]),
    ) = gradient_pixels
}

#[inline(always)]
fn gradient_apply_pixels<const FUSED: bool>(x: &[f32], dx: &mut [f32], factors: [&[f32]; 3]) {
    let channels = factors[0].len();
    let [by_dx, by_x, constant] = factors.map(|factor| &factor[..channels]);
    for (x, dx) in x.chunks_exact(channels).zip(dx.chunks_exact_mut(channels)) {
        for c in 0..channels {
            let rest = mul_add::<FUSED>(x[c], by_x[c], constant[c]);
            dx[c] = mul_add::<FUSED>(dx[c], by_dx[c], rest);
        }
    }
}

for_each_isa! {
    /// `dx · factors[0] + x · factors[1] + factors[2]`, for each channel.
    fn gradient_apply(x: &[f32], dx: &mut [f32], factors: [&[f32]; 3]) = gradient_apply_pixels
}

impl GroupNorm {
    fn check(&self) {
        let groups = self.groups > 0 && self.channels.is_multiple_of(self.groups);
        assert!(groups && self.channels > 0 && self.pixels > 0, "groups of channels, and pixels");
    }

    /// Sums of each group over `values`, one a channel; returned for each channel.
    fn by_group(&self, values: &[f64]) -> Vec<f64> {
        let width = self.channels / self.groups;
        values.chunks_exact(width).flat_map(|group| vec![group.iter().sum::<f64>(); width]).collect()
    }

    /// Each channel's values of one image, and their squares, summed up.
    fn sums(&self, isa: Isa, image: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let strips: Vec<(Vec<f64>, Vec<f64>)> = image
            .par_chunks(STRIP * self.channels)
            .map(|strip| {
                let (mut sums, mut squares) = (vec![0.0f64; self.channels], vec![0.0f64; self.channels]);
                let (mut sum, mut square) = (vec![0.0f32; self.channels], vec![0.0f32; self.channels]);
                for block in strip.chunks(BLOCK * self.channels) {
                    sum.fill(0.0);
                    square.fill(0.0);
                    moments(isa, block, &mut sum, &mut square);
                    let pixels = (block.len() / self.channels) as f64;
                    for (c, first) in block[..self.channels].iter().enumerate() {
                        let (first, sum, square) =
                            (f64::from(*first), f64::from(sum[c]), f64::from(square[c]));
                        sums[c] += sum + pixels * first;
                        squares[c] += square + first * (2.0 * sum + pixels * first);
                    }
                }
                (sums, squares)
            })
            .collect();
        let (mut sums, mut squares) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for (strip_sums, strip_squares) in strips {
            for c in 0..self.channels {
                sums[c] += strip_sums[c];
                squares[c] += strip_squares[c];
            }
        }
        (sums, squares)
    }

    /// Mean and 1 / standard deviation of each channel's group in one image, `[channels]` each.
    fn statistics(&self, isa: Isa, image: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (sums, squares) = self.sums(isa, image);
        let count = (self.pixels * self.channels / self.groups) as f64;
        let moments = self.by_group(&sums).into_iter().zip(self.by_group(&squares));
        moments
            .map(|(sum, square)| {
                let mean = sum / count;
                let variance = (square / count - mean * mean).max(0.0);
                (mean as f32, (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32)
            })
            .unzip()
    }

    /// Mean and variance of each group of one image, `[2, groups]`. Of a part of an image whose number of pixels divides
    /// by 64 they are made of the same sums of floats as those of the whole.
    pub fn moments(&self, image: &[f32]) -> Vec<f64> {
        self.check();
        assert_eq!(image.len(), self.pixels * self.channels, "input");
        let (sums, squares) = self.sums(Isa::detect(), image);
        let count = (self.pixels * self.channels / self.groups) as f64;
        let width = self.channels / self.groups;
        let mean =
            |sums: &[f64]| sums.chunks_exact(width).map(|group| group.iter().sum::<f64>() / count).collect();
        let (means, squares): (Vec<f64>, Vec<f64>) = (mean(&sums), mean(&squares));
        let variances = means.iter().zip(&squares).map(|(mean, square)| (square - mean * mean).max(0.0));
        means.iter().copied().chain(variances).collect()
    }

    /// `y` of the shape of `x`; `weight` and `bias` are `[channels]`.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let isa = Isa::detect();
        let size = self.pixels * self.channels;
        self.check();
        assert_eq!(x.len(), self.batch * size, "input");
        assert!(weight.len() == self.channels && bias.len() == self.channels, "weight and bias");
        let write = |y: &mut [MaybeUninit<f32>]| {
            for (x, y) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)) {
                let (mean, rstd) = self.statistics(isa, x);
                let scale: Vec<f32> = rstd.iter().zip(weight).map(|(r, w)| r * w).collect();
                let shift: Vec<f32> =
                    mean.iter().zip(&scale).zip(bias).map(|((m, s), b)| b - m * s).collect();
                let strip = STRIP * self.channels;
                let strips = x.par_chunks(strip).zip(y.par_chunks_mut(strip));
                strips.for_each(|(x, y)| apply(isa, x, y, &scale, &shift, self.silu));
            }
        };
        // SAFETY: images, strips and pixels divide without rest, by the assertions.
        unsafe { filled(x.len(), write) }
    }

    /// The gradients of input, weight and bias, from `x` and the gradient of `y`.
    pub fn backward(&self, x: &[f32], weight: &[f32], bias: &[f32], dy: &[f32]) -> GroupNormGradients {
        let isa = Isa::detect();
        let (channels, size) = (self.channels, self.pixels * self.channels);
        self.check();
        assert!(x.len() == self.batch * size && dy.len() == x.len(), "input and gradient");
        assert!(weight.len() == channels && bias.len() == channels, "weight and bias");
        let mut input = zeros(x.len());
        let (mut total_dw, mut total_db) = (vec![0.0; channels], vec![0.0; channels]);
        let images = x.chunks_exact(size).zip(dy.chunks_exact(size));
        for ((x, dy), dx) in images.zip(input.chunks_exact_mut(size)) {
            let (mean, rstd) = self.statistics(isa, x);
            let strip = STRIP * channels;
            let strips: Vec<(Vec<f32>, Vec<f32>)> = x
                .par_chunks(strip)
                .zip(dy.par_chunks(strip))
                .zip(dx.par_chunks_mut(strip))
                .map(|((x, dy), dx)| {
                    let (mut dw, mut db) = (vec![0.0; channels], vec![0.0; channels]);
                    let of = Channels { mean: &mean, rstd: &rstd, weight, bias };
                    gradient(isa, x, dy, dx, of, self.silu, (&mut dw, &mut db));
                    (dw, db)
                })
                .collect();
            let (mut dw, mut db) = (vec![0.0; channels], vec![0.0; channels]);
            for (strip_dw, strip_db) in strips {
                for c in 0..channels {
                    dw[c] += f64::from(strip_dw[c]);
                    db[c] += f64::from(strip_db[c]);
                }
            }
            // dx = rstd (g - mean(g) - normal mean(g normal)), with g = gradient · weight.
            let count = (self.pixels * channels / self.groups) as f64;
            let weigh = |sums: &[f64]| -> Vec<f64> {
                let weighted: Vec<f64> = sums.iter().zip(weight).map(|(s, w)| s * f64::from(*w)).collect();
                self.by_group(&weighted).into_iter().map(|sum| sum / count).collect()
            };
            let (mean_g, mean_gn) = (weigh(&db), weigh(&dw));
            let by_dx: Vec<f32> = rstd.iter().zip(weight).map(|(r, w)| r * w).collect();
            let by_x: Vec<f32> =
                rstd.iter().zip(&mean_gn).map(|(r, gn)| (-f64::from(r * r) * gn) as f32).collect();
            let constant: Vec<f32> = (0..channels)
                .map(|c| (-f64::from(rstd[c]) * mean_g[c] - f64::from(mean[c]) * f64::from(by_x[c])) as f32)
                .collect();
            x.par_chunks(strip)
                .zip(dx.par_chunks_mut(strip))
                .for_each(|(x, dx)| gradient_apply(isa, x, dx, [&by_dx, &by_x, &constant]));
            for c in 0..channels {
                total_dw[c] += dw[c] as f32;
                total_db[c] += db[c] as f32;
            }
        }
        GroupNormGradients { input, weight: total_dw, bias: total_db }
    }
}

/// `x · scale + shift` for each channel of the pixels of `pieces`, one piece after the other, with SiLU if `silu`: a norm
/// whose statistics are known. `scale` and `shift` are `[channels]`.
pub fn scale_and_shift(pieces: &[&[f32]], scale: &[f32], shift: &[f32], silu: bool) -> Vec<f32> {
    let (isa, channels) = (Isa::detect(), scale.len());
    let whole = |piece: &&[f32]| piece.len().is_multiple_of(channels);
    assert!(shift.len() == channels && pieces.iter().all(whole), "pieces of whole pixels");
    let write = |mut y: &mut [MaybeUninit<f32>]| {
        for x in pieces {
            let (here, rest) = std::mem::take(&mut y).split_at_mut(x.len());
            let strips = x.par_chunks(STRIP * channels).zip(here.par_chunks_mut(STRIP * channels));
            strips.for_each(|(x, y)| apply(isa, x, y, scale, shift, silu));
            y = rest;
        }
    };
    // SAFETY: the pieces are as long as the output, and consist of whole pixels, by the assertion.
    unsafe { filled(pieces.iter().map(|piece| piece.len()).sum(), write) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin() * 1.5 + 0.3).collect()
    }

    fn definition(n: &GroupNorm, x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let width = n.channels / n.groups;
        let mut y = vec![0.0; x.len()];
        for image in 0..n.batch {
            for group in 0..n.groups {
                let at: Vec<usize> = (0..n.pixels)
                    .flat_map(|p| {
                        (0..width).map(move |c| (image * n.pixels + p) * n.channels + group * width + c)
                    })
                    .collect();
                let mean = at.iter().map(|&i| x[i]).sum::<f64>() / at.len() as f64;
                let var = at.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f64>() / at.len() as f64;
                for i in at {
                    let c = i % n.channels;
                    let v = (x[i] - mean) / (var + f64::from(n.epsilon)).sqrt() * w[c] + b[c];
                    y[i] = if n.silu { v / (1.0 + (-v).exp()) } else { v };
                }
            }
        }
        y
    }

    fn wide(v: &[f32]) -> Vec<f64> {
        v.iter().map(|&v| f64::from(v)).collect()
    }

    #[test]
    fn forward_and_gradients_equal_the_definition() {
        for silu in [false, true] {
            let n = GroupNorm { batch: 2, pixels: 15, channels: 6, groups: 3, epsilon: 1e-5, silu };
            let x = wave(n.batch * n.pixels * n.channels, 0.7);
            let (w, b) = (wave(6, 1.3), wave(6, 2.1));
            let expected = definition(&n, &wide(&x), &wide(&w), &wide(&b));
            for (got, want) in n.forward(&x, &w, &b).iter().zip(&expected) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} is not {want}");
            }
            let dy = wave(x.len(), 0.37);
            let grads = n.backward(&x, &w, &b, &dy);
            let loss = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
                definition(&n, x, w, b).iter().zip(&dy).map(|(y, d)| y * f64::from(*d)).sum()
            };
            let step = 1e-5;
            let check = |which: usize, index: usize, got: f32| {
                let mut side = [0.0; 2];
                for (sign, side) in [-1.0, 1.0].into_iter().zip(&mut side) {
                    let mut arguments = [wide(&x), wide(&w), wide(&b)];
                    arguments[which][index] += sign * step;
                    *side = loss(&arguments[0], &arguments[1], &arguments[2]);
                }
                let want = (side[1] - side[0]) / (2.0 * step);
                assert!((f64::from(got) - want).abs() < 1e-3, "{which} {index}: {got} is not {want}");
            };
            for index in [0, 7, 50, 101, 179] {
                check(0, index, grads.input[index]);
            }
            for c in 0..6 {
                check(1, c, grads.weight[c]);
                check(2, c, grads.bias[c]);
            }
        }
    }

    /// Values a thousand deviations from zero.
    #[test]
    fn a_large_mean_leaves_the_variance() {
        let n = GroupNorm { batch: 1, pixels: 2500, channels: 6, groups: 3, epsilon: 0.0, silu: false };
        let x: Vec<f32> = wave(2500 * 6, 0.7).iter().map(|value| value + 1024.0).collect();
        let (w, b) = (vec![1.0; 6], vec![0.0; 6]);
        let expected = definition(&n, &wide(&x), &wide(&w), &wide(&b));
        for (got, want) in n.forward(&x, &w, &b).iter().zip(&expected) {
            assert!((f64::from(*got) - want).abs() < 2e-4, "{got} is not {want}");
        }
    }

    /// Statistics that are known before give what they give where they are found on the way.
    #[test]
    fn a_norm_in_two_steps_is_the_norm() {
        for silu in [false, true] {
            let n = GroupNorm { batch: 1, pixels: 2500, channels: 6, groups: 3, epsilon: 1e-5, silu };
            let (x, w, b) = (wave(2500 * 6, 0.7), wave(6, 1.3), wave(6, 2.1));
            let moments = n.moments(&x);
            let scale: Vec<f32> = (0..6)
                .map(|c| (1.0 / (moments[3 + c / 2] + f64::from(n.epsilon)).sqrt()) as f32 * w[c])
                .collect();
            let shift: Vec<f32> = (0..6).map(|c| b[c] - moments[c / 2] as f32 * scale[c]).collect();
            let (first, rest) = x.split_at(6 * 1111);
            let (second, third) = rest.split_at(6);
            assert_eq!(scale_and_shift(&[first, second, third], &scale, &shift, silu), n.forward(&x, &w, &b));
        }
    }
}
