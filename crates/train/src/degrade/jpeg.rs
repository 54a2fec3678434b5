//! DiffJPEG, the JPEG of Real-ESRGAN's training (reference 5.5): as libjpeg, but for a quality that need not be
//! whole, a luma table that is stored transposed, tables that are not rounded, black beyond the right and bottom
//! edge, and chroma that is neither smoothed nor rounded.

use diffbir_imaging::Raster;
use rayon::prelude::*;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

const BLOCK: usize = 8;
/// Chroma has half the size.
const PAD_PX: usize = 2 * BLOCK;

/// Luma by column and row, as the original has it.
#[rustfmt::skip]
const LUMA: [f32; 64] = [
    16.0, 12.0, 14.0, 14.0, 18.0, 24.0, 49.0, 72.0,
    11.0, 12.0, 13.0, 17.0, 22.0, 35.0, 64.0, 92.0,
    10.0, 14.0, 16.0, 22.0, 37.0, 55.0, 78.0, 95.0,
    16.0, 19.0, 24.0, 29.0, 56.0, 64.0, 87.0, 98.0,
    24.0, 26.0, 40.0, 51.0, 68.0, 81.0, 103.0, 112.0,
    40.0, 58.0, 57.0, 87.0, 109.0, 104.0, 121.0, 100.0,
    51.0, 60.0, 69.0, 80.0, 103.0, 113.0, 120.0, 103.0,
    61.0, 55.0, 56.0, 62.0, 77.0, 92.0, 101.0, 99.0,
];

#[rustfmt::skip]
const CHROMA: [f32; 64] = [
    17.0, 18.0, 24.0, 47.0, 99.0, 99.0, 99.0, 99.0,
    18.0, 21.0, 26.0, 66.0, 99.0, 99.0, 99.0, 99.0,
    24.0, 26.0, 56.0, 99.0, 99.0, 99.0, 99.0, 99.0,
    47.0, 66.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0,
    99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0,
    99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0,
    99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0,
    99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0,
];

/// An RGB picture of 0..1, compressed with this quality and read back; clamped to 0..1.
///
/// # Panics
/// When the picture has not three channels.
pub fn diff_jpeg(picture: &Raster, quality: f32) -> Raster {
    assert_eq!(picture.channels, 3, "DiffJPEG takes RGB");
    let factor = if quality < 50.0 { 5000.0 / quality } else { 200.0 - quality * 2.0 } / 100.0;
    let padded = picture.pad_end(PAD_PX);
    let (width, height) = (padded.width_px, padded.height_px);
    let [mut luma, mut cb, mut cr] = [(); 3].map(|()| vec![0.0f32; width * height]);
    for (place, rgb) in padded.data.chunks_exact(3).enumerate() {
        let [r, g, b] = [rgb[0] * 255.0, rgb[1] * 255.0, rgb[2] * 255.0];
        luma[place] = 0.299 * r + 0.587 * g + 0.114 * b;
        cb[place] = -0.168_736 * r - 0.331_264 * g + 0.5 * b + 128.0;
        cr[place] = 0.5 * r - 0.418_688 * g - 0.081_312 * b + 128.0;
    }
    let tables = [LUMA, CHROMA].map(|table| table.map(|step| step * factor));
    let luma = through(luma, width, &tables[0]);
    let [cb, cr] = [cb, cr].map(|plane| through(halved(&plane, width), width / 2, &tables[1]));
    let mut out = Raster::new(picture.width_px, picture.height_px, 3);
    for (place, rgb) in out.data.chunks_exact_mut(3).enumerate() {
        let (x, y) = (place % picture.width_px, place / picture.width_px);
        let half = y / 2 * (width / 2) + x / 2;
        let (luma, cb, cr) = (luma[y * width + x], cb[half] - 128.0, cr[half] - 128.0);
        let levels = [luma + 1.402 * cr, luma - 0.344_136 * cb - 0.714_136 * cr, luma + 1.772 * cb];
        for (value, level) in rgb.iter_mut().zip(levels) {
            *value = level.clamp(0.0, 255.0) / 255.0;
        }
    }
    out
}

/// Means of 2x2.
fn halved(plane: &[f32], width: usize) -> Vec<f32> {
    let rows = plane.chunks_exact(2 * width);
    let means = rows.flat_map(|two| {
        (0..width).step_by(2).map(move |x| (two[x] + two[x + 1] + two[width + x] + two[width + x + 1]) / 4.0)
    });
    means.collect()
}

/// Blocks of a plane to coefficients, rounded to multiples of `steps`, and back.
fn through(mut plane: Vec<f32>, width: usize, steps: &[f32; 64]) -> Vec<f32> {
    let waves = waves();
    plane.par_chunks_mut(width * BLOCK).for_each(|rows| {
        for left in (0..width).step_by(BLOCK) {
            let mut block = [[0.0f64; BLOCK]; BLOCK];
            for (y, row) in block.iter_mut().enumerate() {
                for (x, value) in row.iter_mut().enumerate() {
                    *value = f64::from(rows[y * width + left + x]) - 128.0;
                }
            }
            let mut coefficients = product(&product(&waves, &block), &transposed(&waves));
            for (row, steps) in coefficients.iter_mut().zip(steps.chunks_exact(BLOCK)) {
                for (value, step) in row.iter_mut().zip(steps) {
                    *value = f64::from((*value as f32 / step).round_ties_even() * step);
                }
            }
            let block = product(&product(&transposed(&waves), &coefficients), &waves);
            for (y, row) in block.iter().enumerate() {
                for (x, value) in row.iter().enumerate() {
                    rows[y * width + left + x] = (value + 128.0) as f32;
                }
            }
        }
    });
    plane
}

type Square = [[f64; BLOCK]; BLOCK];

/// The cosines, one frequency a row; an orthogonal matrix.
fn waves() -> Square {
    std::array::from_fn(|frequency| {
        let amount = 0.5 * if frequency == 0 { FRAC_1_SQRT_2 } else { 1.0 };
        std::array::from_fn(|place| amount * ((2 * place + 1) as f64 * frequency as f64 * PI / 16.0).cos())
    })
}

fn transposed(a: &Square) -> Square {
    std::array::from_fn(|row| std::array::from_fn(|column| a[column][row]))
}

fn product(a: &Square, b: &Square) -> Square {
    std::array::from_fn(|row| {
        std::array::from_fn(|column| (0..BLOCK).map(|k| a[row][k] * b[k][column]).sum())
    })
}
