//! The gradients of a convolution's weight and bias: sums over all pixels.

use super::{Conv2d, count, paired};
use crate::share::{Shared, zeros};
use crate::simd::Isa;
use crate::tile::{self, Cells, Onto, Then, Tile, even_parts};
use rayon::prelude::*;
use std::ops::Range;

/// Output pixels that are summed in one pass over a tile.
const PASS_PIXELS: usize = 256;

/// Some rows and columns of one image's output.
pub(super) struct Pass {
    pub image: usize,
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

/// A piece of work: these output channels at these pixels of the kernel.
pub(super) struct Part {
    pub taps: Range<usize>,
    pub outputs: Range<usize>,
}

/// `dw[out, kernel, kernel, in]`: for each tap the product of `dy`, transposed, and the input that the tap
/// sees. Each element is summed by one task over all pixels in their order.
pub(super) fn weight(c: &Conv2d, isa: Isa, cells: Cells, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (inputs, outputs) = (c.in_channels, c.out_channels);
    let flat = c.kernel == 1 && c.stride == 1 && c.pad_before == 0 && c.pad_after == 0;
    let c = if flat {
        &Conv2d { batch: 1, height: 1, width: count(&[c.batch, c.height, c.width]), ..*c }
    } else {
        c
    };
    let (out_h, out_w) = c.out_size();
    assert_eq!(x.len(), c.batch * c.height * c.width * inputs, "input");
    assert_eq!(dy.len(), c.batch * out_h * out_w * outputs, "gradient of the output");
    let mut dw = zeros(outputs * c.kernel * c.kernel * inputs);
    if dw.is_empty() {
        return dw;
    }
    let output = Shared::new(&mut dw);
    if cells != Cells::Single {
        paired::add_weight(c, isa, cells, x, dy, output);
        return dw;
    }
    let passes = passes(c, PASS_PIXELS);
    parts(c, isa.max_rows()).into_par_iter().for_each(|part| {
        let mut seen_before = vec![false; part.taps.len()];
        for pass in &passes {
            for (tap, seen) in part.taps.clone().zip(&mut seen_before) {
                // Zeros are not read: their pages would be made twice.
                let onto = if *seen { Onto::Output } else { Onto::Nothing };
                *seen |= add_pass(c, isa, x, dy, pass, tap, part.outputs.clone(), onto, output);
            }
        }
    });
    dw
}

/// All of the output in passes of about `pixels`.
pub(super) fn passes(c: &Conv2d, pixels: usize) -> Vec<Pass> {
    let (out_h, out_w) = c.out_size();
    let mut passes = Vec::new();
    let cols = out_w.min(pixels);
    for image in 0..c.batch {
        for (row, rows) in even_parts(out_h, pixels / cols) {
            for (col, cols) in even_parts(out_w, cols) {
                passes.push(Pass { image, rows: row..row + rows, cols: col..col + cols });
            }
        }
    }
    passes
}

/// All of the weight in pieces for the threads, in tiles of `rows` output channels.
pub(super) fn parts(c: &Conv2d, rows: usize) -> Vec<Part> {
    let tasks = 4 * rayon::current_num_threads();
    let (taps, outputs) = (c.kernel * c.kernel, c.out_channels);
    let tap_groups = tasks.min(taps);
    let tile_groups = tasks.div_ceil(tap_groups).min(outputs.div_ceil(rows));
    let part = |task: usize| {
        let (tap_group, tile_group) = (task / tile_groups, task % tile_groups);
        Part {
            taps: tap_group * taps / tap_groups..(tap_group + 1) * taps / tap_groups,
            outputs: tile_group * outputs / tile_groups..(tile_group + 1) * outputs / tile_groups,
        }
    };
    (0..tap_groups * tile_groups).map(part).collect()
}

/// Adds one pass to the weights of `outputs` at `tap`; false if the tap sees nothing of the picture.
#[allow(clippy::too_many_arguments, reason = "the loop body of weight")]
fn add_pass(
    c: &Conv2d,
    isa: Isa,
    x: &[f32],
    dy: &[f32],
    pass: &Pass,
    tap: usize,
    outputs: Range<usize>,
    onto: Onto,
    output: Shared,
) -> bool {
    let (out_h, out_w) = c.out_size();
    let (ky, kx) = (tap / c.kernel, tap % c.kernel);
    let rows = seen(&pass.rows, ky, c.height, c);
    let cols = seen(&pass.cols, kx, c.width, c);
    if rows.is_empty() || cols.is_empty() {
        return false;
    }
    let (y, left) = (rows.start * c.stride + ky - c.pad_before, cols.start * c.stride + kx - c.pad_before);
    let b = ((pass.image * c.height + y) * c.width + left) * c.in_channels;
    let a = ((pass.image * out_h + rows.start) * out_w + cols.start) * c.out_channels;
    for (o, count) in even_parts(outputs.len(), isa.max_rows()) {
        let o = outputs.start + o;
        for i in (0..c.in_channels).step_by(isa.max_columns()) {
            let width = isa.max_columns().min(c.in_channels - i);
            // SAFETY: `seen` keeps rows and columns to those whose input lies in the picture, and the
            // lengths of x, dy and dw are those of the sizes; no other task has these outputs of this tap.
            unsafe {
                let tile = Tile {
                    a: dy.as_ptr().add(a + o),
                    a_row: 1,
                    a_k: c.out_channels,
                    a_run: out_w * c.out_channels,
                    b: x.as_ptr().add(b + i),
                    b_k: c.stride * c.in_channels,
                    b_run: c.stride * c.width * c.in_channels,
                    runs: rows.len(),
                    len: cols.len(),
                    c: output.at((o * c.kernel * c.kernel + tap) * c.in_channels + i),
                    c_row: c.kernel * c.kernel * c.in_channels,
                    onto,
                    then: Then::NOTHING,
                };
                tile::run(isa, &tile, count, width);
            }
        }
    }
    true
}

/// The part of the output positions `out` whose input at offset `tap` lies in a picture of `size`.
fn seen(out: &Range<usize>, tap: usize, size: usize, c: &Conv2d) -> Range<usize> {
    let first = c.pad_before.saturating_sub(tap).div_ceil(c.stride);
    let last = (size + c.pad_before).saturating_sub(tap).div_ceil(c.stride);
    let start = out.start.max(first);
    start..out.end.min(last).max(start)
}

/// The sum of `dy` over all pixels.
pub(super) fn bias(dy: &[f32], channels: usize) -> Vec<f32> {
    // Parts of fixed length: the order of the sums does not follow the threads.
    let parts: Vec<Vec<f32>> = dy
        .par_chunks(channels * 4096)
        .map(|part| {
            let mut sum = vec![0.0; channels];
            for pixel in part.chunks_exact(channels) {
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
            }
            sum
        })
        .collect();
    let mut sum = vec![0.0; channels];
    for part in parts {
        sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    sum
}
