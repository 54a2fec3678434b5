//! Group normalisation, channels last, with an optional SiLU behind it, and its backward pass.

use rayon::prelude::*;

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

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl GroupNorm {
    /// Mean and 1 / standard deviation of each channel's group in one image, `[channels]` each.
    fn statistics(&self, image: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let width = self.channels / self.groups;
        let mut sums = vec![0.0f64; self.channels];
        let mut squares = vec![0.0f64; self.channels];
        // Pairs of rows are summed in f32 blocks first: f64 for every element would halve the speed.
        let mut block_sum = vec![0.0f32; self.channels];
        let mut block_square = vec![0.0f32; self.channels];
        for block in image.chunks(64 * self.channels) {
            block_sum.fill(0.0);
            block_square.fill(0.0);
            for pixel in block.chunks_exact(self.channels) {
                for ((sum, square), &value) in block_sum.iter_mut().zip(&mut block_square).zip(pixel) {
                    *sum += value;
                    *square += value * value;
                }
            }
            for c in 0..self.channels {
                sums[c] += f64::from(block_sum[c]);
                squares[c] += f64::from(block_square[c]);
            }
        }
        let count = (self.pixels * width) as f64;
        let (mut means, mut rstds) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for group in 0..self.groups {
            let span = group * width..(group + 1) * width;
            let mean = sums[span.clone()].iter().sum::<f64>() / count;
            let variance = (squares[span.clone()].iter().sum::<f64>() / count - mean * mean).max(0.0);
            means[span.clone()].fill(mean as f32);
            rstds[span].fill((1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32);
        }
        (means, rstds)
    }

    /// `y` of the shape of `x`; `weight` and `bias` are `[channels]`.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let size = self.pixels * self.channels;
        let mut y = vec![0.0; x.len()];
        for (x, y) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)) {
            let (mean, rstd) = self.statistics(x);
            let scale: Vec<f32> = rstd.iter().zip(weight).map(|(r, w)| r * w).collect();
            let shift: Vec<f32> = mean.iter().zip(&scale).zip(bias).map(|((m, s), b)| b - m * s).collect();
            let strip = 256 * self.channels;
            x.par_chunks(strip).zip(y.par_chunks_mut(strip)).for_each(|(x, y)| {
                for (x, y) in x.chunks_exact(self.channels).zip(y.chunks_exact_mut(self.channels)) {
                    for c in 0..self.channels {
                        let value = x[c] * scale[c] + shift[c];
                        y[c] = if self.silu { value * sigmoid(value) } else { value };
                    }
                }
            });
        }
        y
    }

    /// The gradients of input, weight and bias, from `x` and the gradient of `y`.
    pub fn backward(&self, x: &[f32], weight: &[f32], bias: &[f32], dy: &[f32]) -> GroupNormGradients {
        let (channels, size) = (self.channels, self.pixels * self.channels);
        let width = channels / self.groups;
        let images: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)> = x
            .par_chunks_exact(size)
            .zip(dy.par_chunks_exact(size))
            .map(|(x, dy)| {
                let (mean, rstd) = self.statistics(x);
                let (mut dw, mut db) = (vec![0.0f32; channels], vec![0.0f32; channels]);
                // First the gradient before the SiLU, kept in dx, and its sums per channel.
                let mut dx = vec![0.0; size];
                for ((x, dy), dx) in
                    x.chunks_exact(channels).zip(dy.chunks_exact(channels)).zip(dx.chunks_exact_mut(channels))
                {
                    for c in 0..channels {
                        let normal = (x[c] - mean[c]) * rstd[c];
                        let grad = if self.silu {
                            let value = normal * weight[c] + bias[c];
                            let s = sigmoid(value);
                            dy[c] * s * (1.0 + value * (1.0 - s))
                        } else {
                            dy[c]
                        };
                        dw[c] += grad * normal;
                        db[c] += grad;
                        dx[c] = grad;
                    }
                }
                // Then dx = rstd (g - mean(g) - normal mean(g normal)), with g = grad · weight.
                let count = (self.pixels * width) as f32;
                let (mut mean_g, mut mean_gn) = (vec![0.0; channels], vec![0.0; channels]);
                for group in 0..self.groups {
                    let span = group * width..(group + 1) * width;
                    let sum = |v: &[f32]| span.clone().map(|c| v[c] * weight[c]).sum::<f32>() / count;
                    let (g, gn) = (sum(&db), sum(&dw));
                    mean_g[span.clone()].fill(g);
                    mean_gn[span].fill(gn);
                }
                for (x, dx) in x.chunks_exact(channels).zip(dx.chunks_exact_mut(channels)) {
                    for c in 0..channels {
                        let normal = (x[c] - mean[c]) * rstd[c];
                        dx[c] = rstd[c] * (dx[c] * weight[c] - mean_g[c] - normal * mean_gn[c]);
                    }
                }
                (dx, dw, db)
            })
            .collect();
        let mut total = GroupNormGradients {
            input: Vec::with_capacity(x.len()),
            weight: vec![0.0; channels],
            bias: vec![0.0; channels],
        };
        for (dx, dw, db) in images {
            total.input.extend_from_slice(&dx);
            for c in 0..channels {
                total.weight[c] += dw[c];
                total.bias[c] += db[c];
            }
        }
        total
    }
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
}
