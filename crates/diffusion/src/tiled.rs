//! A denoiser for small latents made into one for large ones: the network sees windows, and their
//! predictions are averaged in every step (reference 2.9).

use crate::Latent;
use diffbir_imaging::tiles::{Window, sliding_windows};

/// Runs `predict`, which gives `count` latents, on each window of side `tile` every `stride` cells and
/// blends the results by `weights`, one a cell of a tile.
///
/// # Errors
/// Those of `predict`.
///
/// # Panics
/// When `tile` is larger than a side of the latent.
pub fn blend<E>(
    x: &Latent,
    tile: usize,
    stride: usize,
    weights: &[f32],
    count: usize,
    mut predict: impl FnMut(&Latent, Window) -> Result<Vec<Latent>, E>,
) -> Result<Vec<Latent>, E> {
    let plane = x.height * x.width;
    let mut sums = vec![vec![0.0; x.data.len()]; count];
    let mut total = vec![0.0; plane];
    for window in sliding_windows(x.height, x.width, tile, stride) {
        let place = |index: usize| (window.y0 + index / tile) * x.width + window.x0 + index % tile;
        let outs = predict(&x.crop(window.y0, window.x0, tile, tile), window)?;
        for (sum, out) in sums.iter_mut().zip(outs) {
            for (sum, out) in sum.chunks_exact_mut(plane).zip(out.data.chunks_exact(tile * tile)) {
                for (index, (value, weight)) in out.iter().zip(weights).enumerate() {
                    sum[place(index)] += value * weight;
                }
            }
        }
        for (index, weight) in weights.iter().enumerate() {
            total[place(index)] += weight;
        }
    }
    let mean = |mut sum: Vec<f32>| {
        for sum in sum.chunks_exact_mut(plane) {
            sum.iter_mut().zip(&total).for_each(|(sum, total)| *sum /= total);
        }
        x.with(sum)
    };
    Ok(sums.into_iter().map(mean).collect())
}
