//! Weights laid out once for the forward pass.

use crate::bf16;
use crate::pack::Right;
use crate::products::Products;
use crate::share::zeros;
use crate::simd::Isa;
use rayon::prelude::*;

/// Output channels of a panel: the columns of the widest tile.
const PANEL: usize = 32;

/// The weight of a convolution in the order in which the forward pass reads it, so that a call need not
/// pack it anew. It takes the memory of the plain weight, and products in `f32` give its results to the last bit;
/// for products in bf16 it takes half of that, where an odd number of input channels counts as one more.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    shape: [usize; 4],
    products: Products,
    /// `[panel][row][column of the panel]`, a row being one cell (`tile.rs`): an input channel, or a pair of
    /// them, of one pixel of the kernel.
    cells: Vec<f32>,
}

impl PackedWeight {
    /// Packs `weight` of shape `[out, kernel, kernel, in]` for such products.
    pub fn new(weight: &[f32], shape: [usize; 4], products: Products) -> Self {
        assert_eq!(weight.len(), shape.iter().product(), "weight");
        let [outputs, height, width, inputs] = shape;
        let (isa, taps, depth) = (Isa::detect(), height * width, height * width * inputs);
        let rows = rows(shape, products);
        let mut cells = zeros(outputs * rows);
        if cells.is_empty() {
            return PackedWeight { shape, products, cells };
        }
        let right = Right::Columns { data: weight, depth };
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
                            bf16::join(isa, &pair[..width], &pair[width..], cells);
                        });
                    }
                }
            }
        });
        PackedWeight { shape, products, cells }
    }

    /// `[out, kernel, kernel, in]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// In which numbers its products are formed.
    pub fn products(&self) -> Products {
        self.products
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<f32>()
    }

    /// The cell of `row` and `column`, and the distance to the next row; columns lie side by side up to the
    /// next multiple of 32.
    pub(super) fn at(&self, row: usize, column: usize) -> (&[f32], usize) {
        let (panel, rows) = (column / PANEL * PANEL, rows(self.shape, self.products));
        let width = PANEL.min(self.shape[0] - panel);
        (&self.cells[panel * rows + row * width + column - panel..], width)
    }
}

/// Cells of one output channel.
fn rows([_, height, width, inputs]: [usize; 4], products: Products) -> usize {
    let inputs = match products {
        Products::F32 => inputs,
        Products::Bf16 => inputs.div_ceil(2),
    };
    height * width * inputs
}
