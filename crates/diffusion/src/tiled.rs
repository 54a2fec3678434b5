//! A denoiser for small latents made into one for large ones: the network sees windows, and their
//! predictions are averaged with Gaussian weights in every step (reference 2.9).

use crate::Latent;
use diffbir_imaging::tiles::{Window, gaussian_weights, sliding_windows};

/// Runs `predict` on each window of side `tile` every `stride` cells and blends the results.
///
/// # Panics
/// When `tile` is larger than a side of the latent.
pub fn blend<E>(
    x: &Latent,
    tile: usize,
    stride: usize,
    mut predict: impl FnMut(&Latent, Window) -> Result<Latent, E>,
) -> Result<Latent, E> {
    let weights = gaussian_weights(tile);
    let plane = x.height * x.width;
    let mut sum = vec![0.0; x.data.len()];
    let mut count = vec![0.0; plane];
    for window in sliding_windows(x.height, x.width, tile, stride) {
        let out = predict(&x.crop(window.y0, window.x0, tile, tile), window)?;
        for (sum, out) in sum.chunks_exact_mut(plane).zip(out.data.chunks_exact(tile * tile)) {
            for (index, (value, weight)) in out.iter().zip(&weights).enumerate() {
                sum[(window.y0 + index / tile) * x.width + window.x0 + index % tile] += value * weight;
            }
        }
        for (index, weight) in weights.iter().enumerate() {
            count[(window.y0 + index / tile) * x.width + window.x0 + index % tile] += weight;
        }
    }
    for sum in sum.chunks_exact_mut(plane) {
        sum.iter_mut().zip(&count).for_each(|(sum, count)| *sum /= count);
    }
    Ok(x.with(sum))
}
