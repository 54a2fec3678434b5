//! Weights laid out once for the forward pass.

use crate::bf16;
use crate::pack::Right;
use crate::share::zeros;
use crate::simd::Isa;
use rayon::prelude::*;

/// How the elements of a [`PackedWeight`] are kept, and the input that it is multiplied by is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As they are; results are those of the plain weight to the last bit.
    F32,
    /// Weight and input are rounded to bf16 (8 bits of mantissa); products are added in `f32`.
    Bf16,
}

/// Output channels of a panel: the columns of the widest tile.
const PANEL: usize = 32;

/// The weight of a convolution in the order in which the forward pass reads it, so that a call need not
/// pack it anew. It takes the memory of the plain weight, half of it in bf16, where an odd number of input
/// channels counts as one more.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    shape: [usize; 4],
    precision: Precision,
    /// `[panel][row][column of the panel]`, a row being one cell (`tile.rs`): an input channel, or a pair of
    /// them, of one pixel of the kernel.
    cells: Vec<f32>,
}

impl PackedWeight {
    /// Packs `weight` of shape `[out, kernel, kernel, in]`.
    pub fn new(weight: &[f32], shape: [usize; 4], precision: Precision) -> Self {
        assert_eq!(weight.len(), shape.iter().product(), "weight");
        let [outputs, height, width, inputs] = shape;
        let (isa, taps, depth) = (Isa::detect(), height * width, height * width * inputs);
        let rows = rows(shape, precision);
        let mut cells = zeros(outputs * rows);
        if cells.is_empty() {
            return PackedWeight { shape, precision, cells };
        }
        let right = Right::Columns { data: weight, depth };
        cells.par_chunks_mut(PANEL * rows).enumerate().for_each_init(Vec::new, |scratch, (panel, cells)| {
            let columns = panel * PANEL..outputs.min((panel + 1) * PANEL);
            let width = columns.len();
            match precision {
                Precision::F32 => right.pack(isa, 0..depth, columns, width, cells),
                Precision::Bf16 => {
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
        PackedWeight { shape, precision, cells }
    }

    /// `[out, kernel, kernel, in]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// How the elements are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<f32>()
    }

    /// The cell of `row` and `column`, and the distance to the next row; columns lie side by side up to the
    /// next multiple of 32.
    pub(super) fn at(&self, row: usize, column: usize) -> (&[f32], usize) {
        let (panel, rows) = (column / PANEL * PANEL, rows(self.shape, self.precision));
        let width = PANEL.min(self.shape[0] - panel);
        (&self.cells[panel * rows + row * width + column - panel..], width)
    }
}

/// Cells of one output channel.
fn rows([_, height, width, inputs]: [usize; 4], precision: Precision) -> usize {
    let inputs = match precision {
        Precision::F32 => inputs,
        Precision::Bf16 => inputs.div_ceil(2),
    };
    height * width * inputs
}
