//! A linear map whose results gate each other (GEGLU, arXiv 2002.05202): what it gives of some rows is multiplied while it
//! is in the nearest cache, and only half of it is written.

use super::direct::PASS;
use super::packed::{PANEL, PackedWeight, Panels};
use super::{After, Conv2d};
use crate::activation::{geglu_with, phi};
use crate::bf16;
use crate::math::for_each_isa;
use crate::products::Products;
use crate::share::filled;
use crate::simd::Isa;
use crate::tile::{self, Cells, Onto, Then, Tile, even_parts};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows of a task, which all weights pass by.
const STRIP: usize = 512;

/// Rows whose sums stay in the first cache until they are multiplied: whole tiles of 14.
const BLOCK: usize = 126;

/// The linear map of `x[rows, in]` by `weight[2 · features, 1, 1, in]` and `bias[2 · features]`, and then the first half of
/// each row times the GELU of the second: `[rows, features]`. To the last bit what [`crate::activation::geglu`] makes of the
/// map's result.
pub fn gated_linear(x: &[f32], weight: &PackedWeight, bias: &[f32]) -> Vec<f32> {
    gated_linear_with(Isa::detect(), bf16::cells(), x, weight, bias)
}

/// `pairs` says how bf16 are multiplied.
fn gated_linear_with(isa: Isa, pairs: Cells, x: &[f32], weight: &PackedWeight, bias: &[f32]) -> Vec<f32> {
    let ([outputs, height, width, inputs], [kernel]) = (weight.shape(), weight.kernels()) else {
        panic!("a weight for a linear map")
    };
    assert!([height, width] == [1; 2] && outputs.is_multiple_of(2) && inputs > 0, "a weight of two halves");
    assert!(x.len().is_multiple_of(inputs) && bias.len() == outputs, "input and bias");
    let (rows, features) = (x.len() / inputs, outputs / 2);
    let cells = if weight.products() == Products::F32 { Cells::Single } else { pairs };
    if rows == 0 {
        return Vec::new();
    }
    if !features.is_multiple_of(PANEL) {
        // Halves that do not begin with a panel.
        let map = linear(rows, inputs, outputs).packed(isa, pairs, x, (weight, bias), After::default(), 0..1);
        return geglu_with(isa, &map, features);
    }
    let strip = rows.div_ceil(4 * rayon::current_num_threads()).clamp(BLOCK, STRIP);
    let map = Map { isa, cells, kernel, bias, inputs, features };
    let write = |y: &mut [MaybeUninit<f32>]| {
        let strips = x.par_chunks(strip * inputs).zip(y.par_chunks_mut(strip * features));
        strips.for_each_init(Vec::new, |scratch, (x, y)| map.strip(x, scratch, y));
    };
    // SAFETY: strips divide rows alike, and all features of all their rows are written.
    unsafe { filled(rows * features, write) }
}

/// A linear map as a convolution of one row of pixels.
fn linear(rows: usize, inputs: usize, outputs: usize) -> Conv2d {
    Conv2d {
        batch: 1,
        height: 1,
        width: rows,
        in_channels: inputs,
        out_channels: outputs,
        kernel: 1,
        stride: 1,
        pad_before: 0,
        pad_after: 0,
        doubled: false,
        products: Products::F32,
    }
}

struct Map<'a> {
    isa: Isa,
    cells: Cells,
    kernel: &'a Panels,
    bias: &'a [f32],
    inputs: usize,
    features: usize,
}

impl Map<'_> {
    /// Writes the features of the rows `x`.
    fn strip(&self, x: &[f32], scratch: &mut Vec<f32>, y: &mut [MaybeUninit<f32>]) {
        let Map { isa, cells, inputs, features, .. } = *self;
        let (rows, left) = (x.len() / inputs, bf16::left_cells(cells, inputs));
        let rounded = if cells == Cells::Single { 0 } else { rows * left };
        scratch.resize(rounded + BLOCK * 2 * PANEL, 0.0);
        let (window, sums) = scratch.split_at_mut(rounded);
        let x = if cells == Cells::Single {
            x
        } else {
            bf16::round_pixels(isa, cells, x, inputs, window);
            &*window
        };
        for column in (0..features).step_by(PANEL) {
            for (row, count) in even_parts(rows, BLOCK) {
                let x = &x[row * left..(row + count) * left];
                for half in 0..2 {
                    self.panel(x, count, half * features + column, &mut sums[half * PANEL..]);
                }
                let y = &mut y[row * features..(row + count) * features];
                gate(isa, sums, y, features, column);
            }
        }
    }

    /// The results of `rows` rows for the panel at `column`, `2 · PANEL` apart.
    fn panel(&self, x: &[f32], rows: usize, column: usize, sums: &mut [f32]) {
        let Map { isa, cells, kernel, bias, inputs, .. } = *self;
        let left = bf16::left_cells(cells, inputs);
        let [_, depth] = kernel.size();
        let ratio = left / depth;
        for (start, len) in even_parts(depth, PASS) {
            for at in (column..column + PANEL).step_by(isa.max_columns()) {
                let (b, b_k) = kernel.at(start, at);
                let columns = isa.max_columns().min(PANEL);
                assert!(b.len() + b_k >= len * b_k + columns, "the panel holds the pass");
                for (row, count) in even_parts(rows, cells.max_rows(isa)) {
                    let tile = Tile {
                        a: x[row * left + start * ratio..].as_ptr(),
                        a_row: left,
                        a_k: ratio,
                        a_run: 0,
                        b: b.as_ptr(),
                        b_k,
                        b_run: 0,
                        runs: 1,
                        len,
                        c: sums[row * 2 * PANEL + at - column..].as_mut_ptr(),
                        c_row: 2 * PANEL,
                        onto: if start > 0 { Onto::Output } else { Onto::Bias(bias[at..].as_ptr()) },
                        then: Then::NOTHING,
                    };
                    // SAFETY: `x` holds all cells of the rows, the right side those of the pass, as asserted, the bias and
                    // `sums` the columns of a panel.
                    unsafe { tile::run_cells(isa, cells, &tile, count, columns) };
                }
            }
        }
    }
}

#[inline(always)]
fn gate_rows<const FUSED: bool>(sums: &[f32], y: &mut [MaybeUninit<f32>], features: usize, column: usize) {
    for (sums, y) in sums.as_chunks::<{ 2 * PANEL }>().0.iter().zip(y.chunks_exact_mut(features)) {
        let y = &mut y[column..column + PANEL];
        for c in 0..PANEL {
            let gate = sums[PANEL + c];
            y[c].write(sums[c] * (gate * phi::<FUSED>(gate)));
        }
    }
}

for_each_isa! {
    /// The first half of each row of `2 · PANEL` times the GELU of the second, to the panel at `column`.
    fn gate(sums: &[f32], y: &mut [MaybeUninit<f32>], features: usize, column: usize) = gate_rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::tests::kernels;

    #[test]
    fn of_no_rows_it_makes_none() {
        let weight = PackedWeight::new(&[1.0; 64 * 4], [64, 1, 1, 4], Products::Bf16);
        assert!(gated_linear(&[], &weight, &[0.0; 64]).is_empty());
    }

    #[test]
    fn it_is_the_map_and_then_the_gate_to_the_last_bit() {
        let wave =
            |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        for (rows, inputs, features) in [(1, 3, 32), (700, 40, 64), (130, 1100, 32), (5, 16, 33)] {
            let (x, w) = (wave(rows * inputs, 0.7), wave(2 * features * inputs, 0.3));
            let bias = wave(2 * features, 1.1);
            let sizes = linear(rows, inputs, 2 * features);
            let plain = Isa::available().into_iter().map(|isa| (isa, Cells::Widened, Products::F32));
            let kernels = kernels().into_iter().map(|(isa, pairs)| (isa, pairs, Products::Bf16));
            for (isa, pairs, products) in plain.chain(kernels) {
                let packed = PackedWeight::new(&w, [2 * features, 1, 1, inputs], products);
                let map = sizes.packed(isa, pairs, &x, (&packed, &bias), After::default(), 0..1);
                let (want, got) =
                    (geglu_with(isa, &map, features), gated_linear_with(isa, pairs, &x, &packed, &bias));
                assert_eq!(got, want, "{isa:?} {pairs:?} {rows} x {inputs} to {features}");
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let again = pool.install(|| gated_linear_with(isa, pairs, &x, &packed, &bias));
                    assert_eq!(again, want, "{threads} threads");
                }
            }
        }
    }
}
