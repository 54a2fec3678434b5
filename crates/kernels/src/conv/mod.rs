//! Two-dimensional convolution, channels last: forward, gradient of the input, gradient of the weight.
//!
//! All three are products over tiles of registers (`tile.rs`) that read the picture where it lies;
//! nothing is unfolded. An output element is one sum in a fixed order, whatever its place in the picture,
//! the batch around it and the number of threads.
//!
//! Where gradients are followed, in [`Conv2d::forward_to_train`] and both gradients, a convolution of 3 x 3 in f32 goes by
//! Winograd's algorithm if that takes less time (`winograd/`). A result then depends on its place in the picture, in its
//! last bits, and still on neither batch nor threads. [`Conv2d::forward`] and packed weights, with which pictures are
//! restored, never do so.

mod after;
mod direct;
mod doubled;
#[cfg(test)]
mod doubled_tests;
mod gated;
mod gradient;
mod packed;
#[cfg(test)]
mod packed_tests;
mod paired;
#[cfg(test)]
mod tests;
mod winograd;

pub use after::{After, Rectifier};
pub use gated::gated_linear;
pub use packed::PackedWeight;

use crate::bf16;
use crate::pack::Right;
use crate::products::Products;
use crate::share::{Shared, filled, zeros};
use crate::simd::Isa;
use crate::tile::Cells;
use direct::{Direct, Grid, Weight};
use packed::Panels;
use std::ops::Range;

const COUNTED: &str = "sizes whose product can be counted";

/// The elements of something of these sizes.
///
/// # Panics
/// When there are more than can be counted.
fn count(sizes: &[usize]) -> usize {
    sizes.iter().try_fold(1_usize, |count, &size| count.checked_mul(size)).expect(COUNTED)
}

/// The sizes of one convolution; lengths in pixels, the kernel square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Input height.
    pub height: usize,
    /// Input width.
    pub width: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros before the first row and column.
    pub pad_before: usize,
    /// Zeros after the last row and column.
    pub pad_after: usize,
    /// Whether the picture is made twice as large first, by repeating its pixels: for a kernel of 3, step 1 and one
    /// zero on each side.
    pub doubled: bool,
    /// In which numbers input and weight are multiplied, and for the gradients of both that of the output with either.
    /// A weight that was packed before says so itself.
    pub products: Products,
}

impl Conv2d {
    /// Height and width of the output.
    ///
    /// # Panics
    /// When the padded picture is smaller than the kernel, and when input, weight or output have more elements than can be
    /// counted.
    pub fn out_size(&self) -> (usize, usize) {
        let scale = if self.doubled { 2 } else { 1 };
        let side = |n: usize| {
            let padded = n
                .checked_mul(scale)
                .and_then(|n| n.checked_add(self.pad_before)?.checked_add(self.pad_after));
            let left = padded.expect(COUNTED).checked_sub(self.kernel);
            left.expect("a padded picture is as large as the kernel") / self.stride + 1
        };
        let (height, width) = (side(self.height), side(self.width));
        count(&[self.depth(), self.out_channels]);
        count(&[self.batch, self.height, self.width, self.in_channels]);
        count(&[self.batch, height, width, self.out_channels]);
        (height, width)
    }

    /// Elements of one output channel's weight.
    fn depth(&self) -> usize {
        count(&[self.kernel, self.kernel, self.in_channels])
    }

    /// `y[batch, out_h, out_w, out]` from `x[batch, height, width, in]`, `weight[out, kernel, kernel, in]`
    /// and `bias[out]`.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        if self.products == Products::F32 {
            return self.forward_with(Isa::detect(), x, weight, bias);
        }
        let shape = [self.out_channels, self.kernel, self.kernel, self.in_channels];
        let pack = if self.doubled { PackedWeight::doubled } else { PackedWeight::new };
        self.forward_packed(x, &pack(weight, shape, self.products), bias, After::default())
    }

    /// [`Conv2d::forward`] where gradients are asked for later: up to rounding the same, by Winograd's algorithm where that
    /// takes less time. A result then depends, in its last bits, on the place of the pixel in its picture.
    pub fn forward_to_train(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        if winograd::wins(self) {
            return winograd::forward(self, Isa::detect(), x, weight, bias);
        }
        self.forward(x, weight, bias)
    }

    /// In f32.
    fn forward_with(&self, isa: Isa, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        assert_eq!(weight.len(), self.out_channels * self.depth(), "weight");
        if self.doubled {
            let kernels = doubled::kernels(weight, [self.out_channels, self.in_channels]);
            let depth = 4 * self.in_channels;
            let weights = kernels.iter().map(|data| Weight::Plain(Right::Columns { data, depth }));
            return self.run(isa, x, weights, bias, After::default(), self.rows());
        }
        let weight = Weight::Plain(Right::Columns { data: weight, depth: self.depth() });
        self.run(isa, x, [weight].into_iter(), bias, After::default(), self.rows())
    }

    /// All rows of the output.
    fn rows(&self) -> Range<usize> {
        0..self.out_size().0
    }

    /// `weights` has one, or for a doubled convolution, of which all rows are computed, one for each phase.
    fn run<'a>(
        &self,
        isa: Isa,
        x: &[f32],
        weights: impl Iterator<Item = Weight<'a>>,
        bias: &[f32],
        after: After,
        rows: Range<usize>,
    ) -> Vec<f32> {
        assert!(rows.end <= self.out_size().0, "rows of the output");
        let directs: Vec<Direct> = if self.doubled {
            assert_eq!(rows, self.rows(), "a doubled convolution is computed whole");
            let usual = [self.kernel, self.stride, self.pad_before, self.pad_after] == [3, 1, 1, 1];
            assert!(usual, "only a usual convolution is doubled");
            doubled::PHASES.map(|phase| doubled::direct(self, phase)).into()
        } else {
            vec![self.direct(&rows)]
        };
        let length = self.batch * rows.len() * self.out_size().1 * self.out_channels;
        assert!(after.rest.is_none_or(|rest| rest.len() == length), "rest");
        // SAFETY: the direct convolution covers the output, and so do the four phases.
        unsafe {
            filled(length, |room| {
                let output = Shared::room(room);
                for (direct, weight) in directs.into_iter().zip(weights) {
                    direct.run(isa, x, weight, Some(bias), after, output);
                }
            })
        }
    }

    /// [`Conv2d::forward`] with a weight that was packed before, and what follows.
    pub fn forward_packed(&self, x: &[f32], weight: &PackedWeight, bias: &[f32], after: After) -> Vec<f32> {
        self.forward_packed_rows(x, weight, bias, after, self.rows())
    }

    /// [`Conv2d::forward_packed`], of which only some rows of the output are computed. A doubled convolution has to give all.
    pub fn forward_packed_rows(
        &self,
        x: &[f32],
        weight: &PackedWeight,
        bias: &[f32],
        after: After,
        rows: Range<usize>,
    ) -> Vec<f32> {
        self.packed(Isa::detect(), bf16::cells(), x, (weight, bias), after, rows)
    }

    /// [`Conv2d::forward_packed`] with these instructions; `pairs` says how bf16 are multiplied.
    #[cfg(test)]
    fn forward_packed_with(
        &self,
        isa: Isa,
        pairs: Cells,
        x: &[f32],
        weight: &PackedWeight,
        bias: &[f32],
        after: After,
    ) -> Vec<f32> {
        self.packed(isa, pairs, x, (weight, bias), after, self.rows())
    }

    /// `pairs` says how bf16 are multiplied.
    fn packed(
        &self,
        isa: Isa,
        pairs: Cells,
        x: &[f32],
        (weight, bias): (&PackedWeight, &[f32]),
        after: After,
        rows: Range<usize>,
    ) -> Vec<f32> {
        let shape = [self.out_channels, self.kernel, self.kernel, self.in_channels];
        assert_eq!(weight.shape(), shape, "weight");
        assert_eq!(weight.is_doubled(), self.doubled, "packed for a doubled convolution");
        let cells = match weight.products() {
            Products::F32 => Cells::Single,
            Products::Bf16 => pairs,
        };
        let weights = weight.kernels().iter().map(|kernel| Weight::Packed(kernel, cells));
        self.run(isa, x, weights, bias, after, rows)
    }

    fn direct(&self, rows: &Range<usize>) -> Direct {
        let size = [rows.len(), self.out_size().1];
        Direct {
            batch: self.batch,
            height: self.height,
            width: self.width,
            channels: self.in_channels,
            kernel: [self.kernel; 2],
            stride: self.stride,
            pad: [self.pad_before as isize - (rows.start * self.stride) as isize, self.pad_before as isize],
            out: size,
            columns: self.out_channels,
            onto: Grid::whole(size),
        }
    }

    /// The gradient of `x`, from that of `y`.
    pub fn backward_input(&self, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        self.backward_input_with(Isa::detect(), self.products.cells(), dy, weight)
    }

    /// `cells` says how they are multiplied.
    fn backward_input_with(&self, isa: Isa, cells: Cells, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        assert_eq!(weight.len(), self.out_channels * self.depth(), "weight");
        if cells == Cells::Single && winograd::wins(self) {
            return winograd::backward_input(self, isa, dy, weight);
        }
        // With the weight of so many taps.
        let run = |direct: Direct, weight: Right, taps: usize, output: Shared| {
            if cells == Cells::Single {
                return direct.run(isa, dy, Weight::Plain(weight), None, After::default(), output);
            }
            let sizes = [self.in_channels, taps, self.out_channels];
            let packed = Panels::new(weight, sizes, Products::Bf16);
            direct.run(isa, dy, Weight::Packed(&packed, cells), None, After::default(), output);
        };
        if self.doubled {
            let data = &doubled::kernel_of_four(weight, [self.out_channels, self.in_channels]);
            let order: [usize; 16] = std::array::from_fn(|tap| tap);
            let weight = Right::Taps { data, taps: 16, order: &order, columns: self.in_channels };
            let adjoint = doubled::adjoint(self);
            let direct = adjoint.direct(&adjoint.rows());
            let length = self.batch * self.height * self.width * self.in_channels;
            // SAFETY: the direct convolution covers its output.
            return unsafe { filled(length, |room| run(direct, weight, 16, Shared::room(room))) };
        }
        // Rows that differ by the stride see the same rows of the kernel: for each kind of rows and columns it is a
        // convolution of `dy` with a part of the kernel, turned round.
        let phases: Vec<Phase> = (0..self.stride).map(|first| self.phase(first)).collect();
        let (out_h, out_w) = self.out_size();
        let taps = |phase: &Phase| (phase.first_tap..self.kernel).step_by(self.stride).rev();
        let write = |output: Shared| {
            for (rows, cols) in phases.iter().flat_map(|rows| phases.iter().map(move |cols| (rows, cols))) {
                if taps(rows).len() * taps(cols).len() == 0 {
                    continue;
                }
                let order: Vec<usize> =
                    taps(rows).flat_map(|y| taps(cols).map(move |x| y * self.kernel + x)).collect();
                let direct = Direct {
                    batch: self.batch,
                    height: out_h,
                    width: out_w,
                    channels: self.out_channels,
                    kernel: [taps(rows).len(), taps(cols).len()],
                    stride: 1,
                    pad: [rows.pad, cols.pad],
                    out: [rows.count(self.height, self.stride), cols.count(self.width, self.stride)],
                    columns: self.in_channels,
                    onto: Grid {
                        size: [self.height, self.width],
                        first: [rows.first, cols.first],
                        step: self.stride,
                    },
                };
                let (taps, columns) = (self.kernel * self.kernel, self.in_channels);
                let weight = Right::Taps { data: weight, taps, order: &order, columns };
                run(direct, weight, order.len(), output);
            }
        };
        let length = self.batch * self.height * self.width * self.in_channels;
        if self.stride > self.kernel {
            // Nothing sees the pixels in between.
            let mut dx = zeros(length);
            write(Shared::new(&mut dx));
            return dx;
        }
        // SAFETY: every phase has taps, and together they cover the picture.
        unsafe { filled(length, |room| write(Shared::room(room))) }
    }

    /// Rows (or columns) `first`, `first + stride`, .. of the input.
    fn phase(&self, first: usize) -> Phase {
        let first_tap = (first + self.pad_before) % self.stride;
        let taps = (first_tap..self.kernel).step_by(self.stride).len();
        // The row of the output that `first` has its first tap in.
        let row = (first + self.pad_before) / self.stride;
        Phase { first, first_tap, pad: taps as isize - 1 - row as isize }
    }

    /// The gradient of `weight`, from `x` and the gradient of `y`.
    pub fn backward_weight(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        self.backward_weight_with(Isa::detect(), self.products.cells(), x, dy)
    }

    fn backward_weight_with(&self, isa: Isa, cells: Cells, x: &[f32], dy: &[f32]) -> Vec<f32> {
        if cells == Cells::Single && winograd::wins(self) {
            return winograd::weight(self, isa, x, dy);
        }
        if self.doubled {
            let of_four = gradient::weight(&doubled::adjoint(self), isa, cells, dy, x);
            return doubled::weight_gradient(self, &of_four);
        }
        gradient::weight(self, isa, cells, x, dy)
    }

    /// The gradient of `bias`: the sum of `dy` over all pixels.
    pub fn backward_bias(&self, dy: &[f32]) -> Vec<f32> {
        gradient::bias(dy, self.out_channels)
    }
}

/// Rows or columns of a convolution's input that see the same taps.
struct Phase {
    first: usize,
    first_tap: usize,
    /// Zeros before the first row of `dy`.
    pad: isize,
}

impl Phase {
    /// How many of `size` there are.
    fn count(&self, size: usize, stride: usize) -> usize {
        size.saturating_sub(self.first).div_ceil(stride)
    }
}
