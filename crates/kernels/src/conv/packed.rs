//! Weights laid out once for the forward pass.

use super::{count, doubled};
use crate::bf16;
use crate::pack::Right;
use crate::products::Products;
use crate::share::zeros;
use crate::simd::Isa;
use rayon::prelude::*;

/// Output channels of a panel: the columns of the widest tile.
pub(super) const PANEL: usize = 32;

/// The weight of a convolution in the order in which the forward pass reads it, so that a call need not
/// pack it anew. It takes the memory of the plain weight, and products in `f32` give its results to the last bit;
/// for products in bf16 it takes half of that, where an odd number of input channels counts as one more. For a doubled
/// convolution it holds the kernels of 2 x 2 that these see the small picture with, 16 values for 9.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    shape: [usize; 4],
    products: Products,
    kernels: Vec<Panels>,
}

/// One kernel, `[panel][row][column of the panel]`, a row being one cell (`tile.rs`): an input channel, or a pair of
/// them, of one pixel of the kernel.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    outputs: usize,
    /// Cells of one output channel.
    rows: usize,
    cells: Vec<f32>,
}

impl PackedWeight {
    /// Packs `weight` of shape `[out, kernel, kernel, in]` for such products.
    pub fn new(weight: &[f32], shape: [usize; 4], products: Products) -> Self {
        assert_eq!(weight.len(), count(&shape), "weight");
        let [outputs, height, width, inputs] = shape;
        let kernels = vec![Panels::of_columns(weight, [outputs, height * width, inputs], products)];
        PackedWeight { shape, products, kernels }
    }

    /// The same for a doubled convolution, `[out, 3, 3, in]`.
    pub fn doubled(weight: &[f32], shape: [usize; 4], products: Products) -> Self {
        let [outputs, _, _, inputs] = shape;
        let kernels = doubled::kernels(weight, [outputs, inputs]);
        let kernels = kernels.iter().map(|kernel| Panels::of_columns(kernel, [outputs, 4, inputs], products));
        PackedWeight { shape, products, kernels: kernels.collect() }
    }

    /// [`PackedWeight::bytes`] of one of this shape.
    pub fn bytes_of(
        [outputs, height, width, inputs]: [usize; 4],
        products: Products,
        doubled: bool,
    ) -> usize {
        let taps = if doubled { 16 } else { height * width };
        let cells = match products {
            Products::F32 => inputs,
            Products::Bf16 => inputs.div_ceil(2),
        };
        outputs * taps * cells * size_of::<f32>()
    }

    /// `[out, kernel, kernel, in]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Whether it is for a doubled convolution.
    pub fn is_doubled(&self) -> bool {
        self.kernels.len() > 1
    }

    /// In which numbers its products are formed.
    pub fn products(&self) -> Products {
        self.products
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.kernels.iter().map(|kernel| kernel.cells.len() * size_of::<f32>()).sum()
    }

    /// The kernel, or those of a doubled convolution's phases.
    pub(super) fn kernels(&self) -> &[Panels] {
        &self.kernels
    }
}

impl Panels {
    /// Packs `weight[outputs, taps, inputs]`.
    fn of_columns(weight: &[f32], sizes: [usize; 3], products: Products) -> Self {
        Self::new(Right::Columns { data: weight, depth: sizes[1] * sizes[2] }, sizes, products)
    }

    /// Packs a right side of `outputs` columns and, one pixel of the kernel after the other, `taps · inputs` rows.
    pub(super) fn new(right: Right, [outputs, taps, inputs]: [usize; 3], products: Products) -> Self {
        let (isa, depth) = (Isa::detect(), taps * inputs);
        let rows = match products {
            Products::F32 => depth,
            Products::Bf16 => taps * inputs.div_ceil(2),
        };
        let mut cells = zeros(outputs * rows);
        if cells.is_empty() {
            return Panels { outputs, rows, cells };
        }
        cells.par_chunks_mut(PANEL * rows).enumerate().for_each_init(Vec::new, |scratch, (panel, cells)| {
            let columns = panel * PANEL..outputs.min((panel + 1) * PANEL);
            let width = columns.len();
            match products {
                Products::F32 => right.pack(isa, 0..depth, columns, width, cells),
                Products::Bf16 => {
                    scratch.resize(inputs.next_multiple_of(2) * width, 0.0);
                    for (tap, cells) in cells.chunks_exact_mut(rows / taps * width).enumerate() {
                        let k = tap * inputs..(tap + 1) * inputs;
                        right.pack(isa, k, columns.clone(), width, scratch);
                        let pairs = scratch.chunks_exact(2 * width).zip(cells.chunks_exact_mut(width));
                        pairs.for_each(|(pair, cells)| {
                            bf16::join(isa, products.cells(), &pair[..width], &pair[width..], cells);
                        });
                    }
                }
            }
        });
        Panels { outputs, rows, cells }
    }

    /// Output channels, and cells of each.
    pub(super) fn size(&self) -> [usize; 2] {
        [self.outputs, self.rows]
    }

    /// The cell of `row` and `column`, and the distance to the next row; columns lie side by side up to the
    /// next multiple of 32.
    pub(super) fn at(&self, row: usize, column: usize) -> (&[f32], usize) {
        let panel = column / PANEL * PANEL;
        let width = PANEL.min(self.outputs - panel);
        (&self.cells[panel * self.rows + row * width + column - panel..], width)
    }
}
