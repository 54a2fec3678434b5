//! A fidelity of their own for regions of a picture: until its time has come, a cell of the latent is estimated to be that
//! of stage 1, whatever the denoiser says, and so follows stage 1 under the noise that it began with.

use diffbir_diffusion::Latent;
use diffbir_diffusion::schedule::LAST_T;
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};

/// Above this fidelity the pixels of stage 1 themselves show through, wholly at 1: the autoencoder is not without loss.
const PIXELS_FROM: f32 = 0.95;

/// The least fidelity of a mask, at which the sampler has to start.
pub(crate) fn least(mask: &Raster) -> f64 {
    f64::from(mask.data.iter().copied().fold(1.0, f32::min))
}

/// A mask, of one channel from 0 to 1, at the size of the part of stage 1's picture that is no filled edge.
pub(crate) fn resized(mask: &Raster, (width, height): (usize, usize)) -> Raster {
    if mask.size() == (width, height) {
        return mask.clone();
    }
    resize::float(mask, width, height, Filter::Bilinear)
}

/// Cells that are held at stage 1 for a while.
pub(crate) struct Held {
    /// The latent of stage 1, once for each result.
    clean: Latent,
    /// Of each cell the timestep above which it is held.
    above_t: Vec<f64>,
}

impl Held {
    /// By a [`resized`] mask; beyond it, where edges are filled, its last pixels count.
    pub fn new(mask: &Raster, clean: Latent, cell_px: usize) -> Self {
        let pixel = |y: usize, x: usize| {
            mask.data[y.min(mask.height_px - 1) * mask.width_px + x.min(mask.width_px - 1)]
        };
        let above_t = (0..clean.height * clean.width).map(|cell| {
            let (y, x) = (cell / clean.width * cell_px, cell % clean.width * cell_px);
            let sum: f32 = (y..y + cell_px).flat_map(|y| (x..x + cell_px).map(move |x| pixel(y, x))).sum();
            let fidelity = f64::from(sum) / (cell_px * cell_px) as f64;
            // Wholly faithful cells are held at timestep 0 too; others begin where `start::way` begins.
            if fidelity > 1.0 - 1e-6 { -1.0 } else { ((1.0 - fidelity) * LAST_T as f64).round().max(1.0) }
        });
        Self { above_t: above_t.collect(), clean }
    }

    /// The estimate at a timestep, with what is held.
    pub fn on(&self, mut estimate: Latent, t: f64) -> Latent {
        let cells = self.above_t.len();
        for (index, (value, clean)) in estimate.data.iter_mut().zip(&self.clean.data).enumerate() {
            if t > self.above_t[index % cells] {
                *value = *clean;
            }
        }
        estimate
    }
}

/// The result, where a [`resized`] mask asks for it with the pixels of stage 1.
pub(crate) fn with_pixels(mut result: Raster, clean: &Raster, mask: &Raster) -> Raster {
    let (width, channels) = (result.width_px, result.channels);
    for (y, row) in mask.data.chunks_exact(mask.width_px).enumerate() {
        for (x, fidelity) in row.iter().enumerate() {
            let share = ((fidelity - PIXELS_FROM) / (1.0 - PIXELS_FROM)).clamp(0.0, 1.0);
            if share > 0.0 {
                let at = (y * width + x) * channels;
                for (own, clean) in result.data[at..][..channels].iter_mut().zip(&clean.data[at..]) {
                    *own = (1.0 - share) * *own + share * clean;
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width_px: usize, height_px: usize, data: Vec<f32>) -> Raster {
        Raster { width_px, height_px, channels: 1, data }
    }

    #[test]
    fn cells_are_held_until_their_time() {
        // Cells of two pixels: free, half, and beyond the mask the faithful edge.
        let mask = mask(5, 2, vec![0.0, 0.0, 0.5, 0.5, 1.0, 0.0, 0.0, 0.5, 0.5, 1.0]);
        let clean = Latent { batch: 2, channels: 1, height: 1, width: 4, data: vec![7.0; 8] };
        let held = Held::new(&mask, clean.clone(), 2);
        let at = |t: f64| held.on(clean.map(|_| 0.0), t).data;
        assert_eq!(at(900.0), [0.0, 7.0, 7.0, 7.0, 0.0, 7.0, 7.0, 7.0]);
        assert_eq!(at(400.0), [0.0, 0.0, 7.0, 7.0, 0.0, 0.0, 7.0, 7.0]);
        assert_eq!(at(0.0), at(400.0));
        assert_eq!(least(&mask), 0.0);
    }

    #[test]
    fn pixels_of_stage_1_show_where_nothing_may_change() {
        let picture = |value: f32| Raster { width_px: 4, height_px: 1, channels: 3, data: vec![value; 12] };
        let mask = mask(3, 1, vec![1.0, 0.975, 0.5]);
        let found = with_pixels(picture(0.0), &picture(1.0), &mask);
        let each: Vec<f32> = found.data.chunks(3).map(|pixel| pixel[0]).collect();
        assert!(each[0] == 1.0 && (each[1] - 0.5).abs() < 1e-4 && each[2..] == [0.0; 2], "{each:?}");
    }
}
