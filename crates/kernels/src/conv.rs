//! Two-dimensional convolution, channels last: forward, gradient of the input, gradient of the weight.
//!
//! A strip of output rows is unfolded into a matrix `[pixels, kernel · kernel · in]`, which one matrix
//! product turns into `[pixels, out]`; the backward passes are the same products with other operands.

use crate::matrix::{View, product};
use rayon::prelude::*;

/// Output pixels unfolded at once: small enough that the unfolded strip stays in the second-level cache.
const STRIP_PIXELS: usize = 128;

/// Into how many parts the pixels are cut for the weight's gradient: fixed, so that the order of the
/// sums does not follow the number of threads.
const GRADIENT_PARTS: usize = 8;

/// The sizes of one convolution; lengths in pixels, the kernel square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Input height.
    pub height: usize,
    /// Input width.
    pub width: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros before the first row and column.
    pub pad_before: usize,
    /// Zeros after the last row and column.
    pub pad_after: usize,
}

impl Conv2d {
    /// Height and width of the output.
    pub fn out_size(&self) -> (usize, usize) {
        let side = |n: usize| (n + self.pad_before + self.pad_after - self.kernel) / self.stride + 1;
        (side(self.height), side(self.width))
    }

    /// Elements of one unfolded pixel.
    fn depth(&self) -> usize {
        self.kernel * self.kernel * self.in_channels
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pad_before == 0 && self.pad_after == 0
    }

    /// Writes the unfolded pixels `first..first + count` (counted over the whole batch) into `out`.
    fn unfold(&self, x: &[f32], first: usize, count: usize, out: &mut [f32]) {
        let (out_h, out_w) = self.out_size();
        let (kernel, channels) = (self.kernel, self.in_channels);
        for (pixel, row) in (first..first + count).zip(out.chunks_exact_mut(self.depth())) {
            let (image, rest) = (pixel / (out_h * out_w), pixel % (out_h * out_w));
            let (y, x0) = (rest / out_w * self.stride, rest % out_w * self.stride);
            for (ky, taps) in row.chunks_exact_mut(kernel * channels).enumerate() {
                let iy = (y + ky).wrapping_sub(self.pad_before);
                if iy >= self.height {
                    taps.fill(0.0);
                    continue;
                }
                let line = (image * self.height + iy) * self.width;
                // The taps inside the picture are neighbours in memory: one copy, zeros around it.
                let lead = self.pad_before.saturating_sub(x0).min(kernel);
                let start = x0 + lead - self.pad_before.min(x0 + lead);
                let inside = self.width.saturating_sub(start).min(kernel - lead);
                taps[..lead * channels].fill(0.0);
                let source = (line + start) * channels;
                taps[lead * channels..(lead + inside) * channels]
                    .copy_from_slice(&x[source..source + inside * channels]);
                taps[(lead + inside) * channels..].fill(0.0);
            }
        }
    }

    /// Runs `work(first pixel, unfolded rows)` over strips of `pixels`.
    fn strips(&self, x: &[f32], pixels: std::ops::Range<usize>, mut work: impl FnMut(usize, &[f32], usize)) {
        let depth = self.depth();
        if self.is_pointwise() {
            work(pixels.start, &x[pixels.start * depth..pixels.end * depth], pixels.len());
            return;
        }
        let mut columns = vec![0.0; STRIP_PIXELS.min(pixels.len()) * depth];
        for first in pixels.clone().step_by(STRIP_PIXELS) {
            let count = STRIP_PIXELS.min(pixels.end - first);
            self.unfold(x, first, count, &mut columns);
            work(first, &columns[..count * depth], count);
        }
    }

    /// `y[batch, out_h, out_w, out]` from `x[batch, height, width, in]`, `weight[out, kernel, kernel, in]`
    /// and `bias[out]`.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let (out_h, out_w) = self.out_size();
        let pixels = self.batch * out_h * out_w;
        let (depth, out) = (self.depth(), self.out_channels);
        let mut y = vec![0.0; pixels * out];
        let strip = 2 * STRIP_PIXELS;
        y.par_chunks_mut(strip * out).enumerate().for_each(|(index, y)| {
            for row in y.chunks_exact_mut(out) {
                row.copy_from_slice(bias);
            }
            let start = index * strip;
            self.strips(x, start..start + y.len() / out, |first, columns, count| {
                let y = &mut y[(first - start) * out..(first - start + count) * out];
                let weight = View::rows(weight, depth).transposed();
                product(y, View::rows(columns, depth), weight, [count, out, depth], true);
            });
        });
        y
    }

    /// The gradient of `x`, from that of `y`: the convolution of `dy`, spread out by the stride, with
    /// the kernel turned round.
    pub fn backward_input(&self, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        let (kernel, inputs, outputs) = (self.kernel, self.in_channels, self.out_channels);
        let mut turned = vec![0.0; weight.len()];
        for (o, taps) in weight.chunks_exact(self.depth()).enumerate() {
            for (tap, channels) in taps.chunks_exact(inputs).enumerate() {
                let tap = kernel * kernel - 1 - tap;
                for (i, &value) in channels.iter().enumerate() {
                    turned[(i * kernel * kernel + tap) * outputs + o] = value;
                }
            }
        }
        let (out_h, out_w) = self.out_size();
        let (spread_h, spread_w) = ((out_h - 1) * self.stride + 1, (out_w - 1) * self.stride + 1);
        let spread;
        let dy = if self.stride == 1 {
            dy
        } else {
            let mut wide = vec![0.0; self.batch * spread_h * spread_w * outputs];
            for (index, pixel) in dy.chunks_exact(outputs).enumerate() {
                let (image, y, x) = (index / (out_h * out_w), index / out_w % out_h, index % out_w);
                let at = ((image * spread_h + y * self.stride) * spread_w + x * self.stride) * outputs;
                wide[at..at + outputs].copy_from_slice(pixel);
            }
            spread = wide;
            &spread
        };
        let before = kernel - 1 - self.pad_before;
        // A stride that does not divide the input leaves rows and columns at the end that no output saw:
        // they get their zeros from a wider padding.
        let after_h = self.height + kernel - 1 - before - spread_h;
        let after_w = self.width + kernel - 1 - before - spread_w;
        let after = after_h.max(after_w);
        let turned_conv = Conv2d {
            batch: self.batch,
            height: spread_h,
            width: spread_w,
            in_channels: outputs,
            out_channels: inputs,
            kernel,
            stride: 1,
            pad_before: before,
            pad_after: after,
        };
        let dx = turned_conv.forward(dy, &turned, &vec![0.0; inputs]);
        if after_h == after_w {
            return dx;
        }
        let (_, full_w) = turned_conv.out_size();
        let full = dx.len() / self.batch;
        dx.chunks_exact(full)
            .flat_map(|image| image.chunks_exact(full_w * inputs).take(self.height))
            .flat_map(|row| &row[..self.width * inputs])
            .copied()
            .collect()
    }

    /// The gradient of `weight`, from `x` and the gradient of `y`.
    pub fn backward_weight(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (out_h, out_w) = self.out_size();
        let pixels = self.batch * out_h * out_w;
        let (depth, out) = (self.depth(), self.out_channels);
        let part = pixels.div_ceil(GRADIENT_PARTS).max(STRIP_PIXELS);
        let parts: Vec<Vec<f32>> = (0..pixels.div_ceil(part))
            .into_par_iter()
            .map(|index| {
                let mut dw = vec![0.0; out * depth];
                self.strips(x, index * part..pixels.min((index + 1) * part), |first, columns, count| {
                    let dy = View::rows(&dy[first * out..(first + count) * out], out).transposed();
                    product(&mut dw, dy, View::rows(columns, depth), [out, depth, count], true);
                });
                dw
            })
            .collect();
        sum_parts(parts)
    }

    /// The gradient of `bias`: the sum of `dy` over all pixels.
    pub fn backward_bias(&self, dy: &[f32]) -> Vec<f32> {
        let mut db = vec![0.0; self.out_channels];
        for pixel in dy.chunks_exact(self.out_channels) {
            for (sum, value) in db.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
        db
    }
}

/// Adds equally long vectors in their order.
fn sum_parts(parts: Vec<Vec<f32>>) -> Vec<f32> {
    parts
        .into_iter()
        .reduce(|mut sum, part| {
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            sum
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deterministic filling in [-1, 1).
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// The definition, in f64.
    fn reference(c: &Conv2d, x: &[f32], w: &[f32], b: &[f32]) -> Vec<f64> {
        let (oh, ow) = c.out_size();
        let mut y = Vec::new();
        for n in 0..c.batch {
            for oy in 0..oh {
                for ox in 0..ow {
                    for o in 0..c.out_channels {
                        let mut sum = f64::from(b[o]);
                        for ky in 0..c.kernel {
                            for kx in 0..c.kernel {
                                let iy = (oy * c.stride + ky).wrapping_sub(c.pad_before);
                                let ix = (ox * c.stride + kx).wrapping_sub(c.pad_before);
                                if iy >= c.height || ix >= c.width {
                                    continue;
                                }
                                for i in 0..c.in_channels {
                                    let xv = x[((n * c.height + iy) * c.width + ix) * c.in_channels + i];
                                    let wv = w[((o * c.kernel + ky) * c.kernel + kx) * c.in_channels + i];
                                    sum += f64::from(xv) * f64::from(wv);
                                }
                            }
                        }
                        y.push(sum);
                    }
                }
            }
        }
        y
    }

    fn cases() -> Vec<Conv2d> {
        let base = Conv2d {
            batch: 2,
            height: 7,
            width: 9,
            in_channels: 3,
            out_channels: 5,
            kernel: 3,
            stride: 1,
            pad_before: 1,
            pad_after: 1,
        };
        vec![
            base,
            Conv2d { stride: 2, ..base },
            Conv2d { stride: 2, height: 8, width: 6, pad_before: 0, ..base },
            Conv2d { stride: 2, height: 8, width: 9, ..base },
            Conv2d { kernel: 1, pad_before: 0, pad_after: 0, ..base },
            Conv2d { height: 1, width: 1, ..base },
            Conv2d { batch: 1, height: 24, width: 31, in_channels: 17, out_channels: 9, ..base },
            Conv2d { kernel: 5, pad_before: 2, pad_after: 2, ..base },
        ]
    }

    #[test]
    fn forward_equals_the_definition() {
        for c in cases() {
            let x = noise(c.batch * c.height * c.width * c.in_channels, 1);
            let w = noise(c.out_channels * c.depth(), 2);
            let b = noise(c.out_channels, 3);
            let expected = reference(&c, &x, &w, &b);
            let got = c.forward(&x, &w, &b);
            assert_eq!(got.len(), expected.len(), "{c:?}");
            for (g, e) in got.iter().zip(&expected) {
                assert!((f64::from(*g) - e).abs() < 1e-4, "{c:?}: {g} is not {e}");
            }
        }
    }

    /// <dy, conv(x)> is linear in x and in w, so the gradients must give the same inner product.
    #[test]
    fn gradients_are_the_adjoints() {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        for c in cases() {
            let x = noise(c.batch * c.height * c.width * c.in_channels, 4);
            let w = noise(c.out_channels * c.depth(), 5);
            let zero = vec![0.0; c.out_channels];
            let y = c.forward(&x, &w, &zero);
            let dy = noise(y.len(), 6);
            let whole = dot(&y, &dy);
            let by_input = dot(&c.backward_input(&dy, &w), &x);
            let by_weight = dot(&c.backward_weight(&x, &dy), &w);
            assert!((whole - by_input).abs() < 1e-3 * (1.0 + whole.abs()), "{c:?}: {whole} {by_input}");
            assert!((whole - by_weight).abs() < 1e-3 * (1.0 + whole.abs()), "{c:?}: {whole} {by_weight}");
            let ones = vec![1.0; c.out_channels];
            let by_bias = dot(&c.backward_bias(&dy), &ones);
            assert!((by_bias - dy.iter().map(|v| f64::from(*v)).sum::<f64>()).abs() < 1e-3);
        }
    }

    #[test]
    fn a_pixel_does_not_depend_on_the_batch_around_it() {
        let c = Conv2d { batch: 3, height: 33, width: 21, in_channels: 8, out_channels: 16, ..cases()[0] };
        let x = noise(c.batch * c.height * c.width * c.in_channels, 7);
        let w = noise(c.out_channels * c.depth(), 8);
        let b = noise(c.out_channels, 9);
        let all = c.forward(&x, &w, &b);
        let one = Conv2d { batch: 1, ..c };
        let size = x.len() / 3;
        let alone = one.forward(&x[size..2 * size], &w, &b);
        assert_eq!(alone, all[alone.len()..2 * alone.len()]);
    }
}
