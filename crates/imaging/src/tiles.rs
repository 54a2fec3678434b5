//! The geometry of tiles: sliding windows with Gaussian weights (reference 2.9), and the split of the
//! Tiled VAE (reference 3.4).

use crate::Raster;

/// A rectangle, ends exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub y0: usize,
    /// Behind the last row.
    pub y1: usize,
    /// First column.
    pub x0: usize,
    /// Behind the last column.
    pub x1: usize,
}

impl Window {
    /// Columns.
    pub fn width(&self) -> usize {
        self.x1 - self.x0
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.y1 - self.y0
    }

    /// All four borders through `f`.
    pub fn map(self, f: impl Fn(usize) -> usize) -> Self {
        Self { y0: f(self.y0), y1: f(self.y1), x0: f(self.x0), x1: f(self.x1) }
    }
}

/// Square windows of side `tile` every `stride`, row by row; the last of a direction is moved back to end
/// at the border.
///
/// # Panics
/// When `tile` is larger than a side.
pub fn sliding_windows(height: usize, width: usize, tile: usize, stride: usize) -> Vec<Window> {
    assert!(tile <= height && tile <= width, "a tile of {tile} does not fit into {width} x {height}");
    let starts = |length: usize| {
        let mut starts: Vec<usize> = (0..=length - tile).step_by(stride).collect();
        if !(length - tile).is_multiple_of(stride) {
            starts.push(length - tile);
        }
        starts
    };
    let columns = starts(width);
    starts(height)
        .into_iter()
        .flat_map(|y0| columns.iter().map(move |&x0| Window { y0, y1: y0 + tile, x0, x1: x0 + tile }))
        .collect()
}

/// The weights of a tile, row by row: a Gaussian of variance .01 tile sides whose centres, as in the
/// reference, differ by half a cell: `tile / 2` down and `(tile - 1) / 2` across.
pub fn gaussian_weights(tile: usize) -> Vec<f32> {
    const VARIANCE: f64 = 0.01;
    let side = tile as f64;
    let bell = |at: usize, centre: f64| {
        (-(at as f64 - centre).powi(2) / (side * side) / (2.0 * VARIANCE)).exp()
            / (2.0 * std::f64::consts::PI * VARIANCE).sqrt()
    };
    let across: Vec<f64> = (0..tile).map(|x| bell(x, (side - 1.0) / 2.0)).collect();
    (0..tile)
        .flat_map(|y| {
            let down = bell(y, side / 2.0);
            across.iter().map(move |across| (down * across) as f32).collect::<Vec<_>>()
        })
        .collect()
}

/// The weighted mean of overlapping tiles.
pub struct Blend {
    sum: Raster,
    weight: Vec<f32>,
}

impl Blend {
    /// For a result of this size.
    pub fn new(width_px: usize, height_px: usize, channels: usize) -> Self {
        Self { sum: Raster::new(width_px, height_px, channels), weight: vec![0.0; width_px * height_px] }
    }

    /// Adds a tile at its window with one weight a pixel.
    pub fn add(&mut self, tile: &Raster, window: Window, weights: &[f32]) {
        let (width, channels) = (self.sum.width_px, self.sum.channels);
        for (row, y) in (window.y0..window.y1).enumerate() {
            for (column, x) in (window.x0..window.x1).enumerate() {
                let weight = weights[row * window.width() + column];
                self.weight[y * width + x] += weight;
                let (from, to) = ((row * tile.width_px + column) * channels, (y * width + x) * channels);
                for c in 0..channels {
                    self.sum.data[to + c] += weight * tile.data[from + c];
                }
            }
        }
    }

    /// The blended picture.
    pub fn finish(mut self) -> Raster {
        let channels = self.sum.channels;
        for (pixel, weight) in self.sum.data.chunks_exact_mut(channels).zip(&self.weight) {
            pixel.iter_mut().for_each(|value| *value /= weight);
        }
        self.sum
    }
}

/// One tile of the Tiled VAE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaeTile {
    /// What the network reads, in input cells.
    pub input: Window,
    /// What is kept of it, in input cells.
    pub output: Window,
}

/// The Tiled VAE's split of a picture or latent into tiles of about `tile` with `pad` around them, row by
/// row. Not larger than `tile + 2 · pad`, it stays whole (one tile).
pub fn vae_tiles(height: usize, width: usize, tile: usize, pad: usize) -> Vec<VaeTile> {
    if height.max(width) <= 2 * pad + tile {
        let whole = Window { y0: 0, y1: height, x0: 0, x1: width };
        return vec![VaeTile { input: whole, output: whole }];
    }
    let (rows, columns) = (spans(height, tile, pad), spans(width, tile, pad));
    rows.iter()
        .flat_map(|row| {
            columns.iter().map(|column| VaeTile {
                input: Window { y0: row.0.0, y1: row.0.1, x0: column.0.0, x1: column.0.1 },
                output: Window { y0: row.1.0, y1: row.1.1, x0: column.1.0, x1: column.1.1 },
            })
        })
        .collect()
}

/// Rows of a band of a picture of this width with about as many pixels as a square of side `tile`, or more: a multiple of 64,
/// since the few rows around a band are computed twice.
pub fn band_rows(width: usize, tile: usize) -> usize {
    (tile * tile).div_ceil(width).next_multiple_of(64)
}

type Span = (usize, usize);

/// Input and output spans of one direction.
fn spans(length: usize, tile: usize, pad: usize) -> Vec<(Span, Span)> {
    let inner = length.saturating_sub(2 * pad);
    let count = inner.div_ceil(tile).max(1);
    let side = best_size(inner.div_ceil(count), tile);
    (0..count)
        .map(|index| {
            let (start, end) = (pad + index * side, (pad + (index + 1) * side).min(length));
            let near_start = start <= pad;
            let near_end = end + pad >= length;
            let output = (if near_start { 0 } else { start }, if near_end { length } else { end });
            ((start.saturating_sub(pad), (end + pad).min(length)), output)
        })
        .collect()
}

/// The tile side next to `side` that a power of two divides, without going above `limit`.
fn best_size(side: usize, limit: usize) -> usize {
    for divider in [32, 16, 8, 4, 2] {
        let rest = side % divider;
        if rest == 0 {
            return side;
        }
        let candidate = side - rest + divider;
        if candidate <= limit {
            return candidate;
        }
    }
    side
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "known values stand as they are published")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gaussian_weights_have_the_known_values() {
        let weights = gaussian_weights(64);
        for (index, known) in [(0, 3.256_709_4e-10), (32 * 64 + 32, 15.866_998), (64 * 64 - 1, 7.027_003e-10)]
        {
            assert!((weights[index] / known - 1.0).abs() < 1e-6, "{} is not {known}", weights[index]);
        }
    }

    proptest! {
        #[test]
        fn windows_cover_every_pixel_and_their_weights_sum_to_one(
            height in 1usize..70, width in 1usize..70, tile in 1usize..24, stride in 1usize..24, is_even in any::<bool>(),
        ) {
            let tile = tile.min(height).min(width);
            let stride = stride.min(tile);
            let weights = if is_even { vec![1.0; tile * tile] } else { gaussian_weights(tile) };
            let mut covering = vec![Vec::new(); height * width];
            let (mut ones, mut numbers) = (Blend::new(width, height, 1), Blend::new(width, height, 1));
            let even = |value| Raster { width_px: tile, height_px: tile, channels: 1, data: vec![value; tile * tile] };
            for (index, window) in sliding_windows(height, width, tile, stride).into_iter().enumerate() {
                prop_assert!(window.y1 <= height && window.x1 <= width);
                prop_assert!(window.height() == tile && window.width() == tile);
                for y in window.y0..window.y1 {
                    (window.x0..window.x1).for_each(|x| covering[y * width + x].push(index as f32));
                }
                ones.add(&even(1.0), window, &weights);
                numbers.add(&even(index as f32), window, &weights);
            }
            for ((one, number), windows) in ones.finish().data.iter().zip(numbers.finish().data).zip(covering) {
                prop_assert!((one - 1.0).abs() < 1e-5, "weights sum to {one}");
                // No window that does not cover a pixel has a share of it, and none a negative one.
                let (first, last) = (windows[0], windows[windows.len() - 1]);
                prop_assert!(first - 1e-3 <= number && number <= last * 1.000_01 + 1e-3, "{number} of {windows:?}");
            }
        }

        #[test]
        fn bands_hold_a_tile_or_more(width in 1usize..9000, tile in 1usize..1025) {
            let rows = band_rows(width, tile);
            prop_assert!(rows.is_multiple_of(64) && rows * width >= tile * tile);
            prop_assert!(rows == 64 || (rows - 64) * width < tile * tile, "too many");
        }

        #[test]
        fn vae_outputs_partition_the_picture(height in 1usize..300, width in 1usize..300, tile in 8usize..64, pad in 1usize..33) {
            let mut seen = vec![0u8; height * width];
            for VaeTile { input, output } in vae_tiles(height, width, tile, pad) {
                prop_assert!(input.y0 <= output.y0 && output.y1 <= input.y1);
                prop_assert!(input.x0 <= output.x0 && output.x1 <= input.x1);
                for y in output.y0..output.y1 {
                    for x in output.x0..output.x1 {
                        seen[y * width + x] += 1;
                    }
                }
            }
            prop_assert!(seen.into_iter().all(|seen| seen == 1), "not a partition");
        }

        #[test]
        fn a_blend_of_one_picture_is_that_picture(
            width in 9usize..40, height in 9usize..40, tile in 1usize..9, stride in 1usize..9,
        ) {
            let mut picture = Raster::new(width, height, 3);
            picture.data.iter_mut().enumerate().for_each(|(i, v)| *v = (i as f32 * 0.1).sin());
            let weights = gaussian_weights(tile);
            let mut blend = Blend::new(width, height, 3);
            for window in sliding_windows(height, width, tile, stride.min(tile)) {
                blend.add(&picture.crop(window.x0, window.y0, tile, tile), window, &weights);
            }
            for (a, b) in blend.finish().data.iter().zip(&picture.data) {
                prop_assert!((a - b).abs() < 1e-5);
            }
        }
    }
}
