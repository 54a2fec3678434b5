//! Two-dimensional convolution, channels last: forward, gradient of the input, gradient of the weight.
//!
//! All three are products over tiles of registers (`tile.rs`) that read the picture where it lies;
//! nothing is unfolded. An output element is one sum in a fixed order, whatever its place in the picture,
//! the batch around it and the number of threads.

mod direct;
mod gradient;
mod packed;
#[cfg(test)]
mod packed_tests;
#[cfg(test)]
mod tests;

pub use packed::PackedWeight;

use crate::bf16;
use crate::pack::Right;
use crate::products::Products;
use crate::simd::Isa;
use crate::tile::Cells;
use direct::{Direct, Weight};

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
}

impl Conv2d {
    /// Height and width of the output.
    pub fn out_size(&self) -> (usize, usize) {
        let side = |n: usize| (n + self.pad_before + self.pad_after - self.kernel) / self.stride + 1;
        (side(self.height), side(self.width))
    }

    /// Elements of one output channel's weight.
    fn depth(&self) -> usize {
        self.kernel * self.kernel * self.in_channels
    }

    /// `y[batch, out_h, out_w, out]` from `x[batch, height, width, in]`, `weight[out, kernel, kernel, in]`
    /// and `bias[out]`.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        self.forward_with(Isa::detect(), x, weight, bias)
    }

    fn forward_with(&self, isa: Isa, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        assert_eq!(weight.len(), self.out_channels * self.depth(), "weight");
        let weight = Weight::Plain(Right::Columns { data: weight, depth: self.depth() });
        self.direct().run(isa, x, weight, Some(bias))
    }

    /// [`Conv2d::forward`] with a weight that was packed before.
    pub fn forward_packed(&self, x: &[f32], weight: &PackedWeight, bias: &[f32]) -> Vec<f32> {
        self.forward_packed_with(Isa::detect(), bf16::cells(), x, weight, bias)
    }

    /// `pairs` says how bf16 are multiplied.
    fn forward_packed_with(
        &self,
        isa: Isa,
        pairs: Cells,
        x: &[f32],
        weight: &PackedWeight,
        bias: &[f32],
    ) -> Vec<f32> {
        let shape = [self.out_channels, self.kernel, self.kernel, self.in_channels];
        assert_eq!(weight.shape(), shape, "weight");
        let cells = match weight.products() {
            Products::F32 => Cells::Single,
            Products::Bf16 => pairs,
        };
        self.direct().run(isa, x, Weight::Packed(weight, cells), Some(bias))
    }

    fn direct(&self) -> Direct {
        Direct {
            batch: self.batch,
            height: self.height,
            width: self.width,
            channels: self.in_channels,
            kernel: self.kernel,
            stride: self.stride,
            pad: self.pad_before,
            out: self.out_size(),
            columns: self.out_channels,
        }
    }

    /// The gradient of `x`, from that of `y`: the convolution of `dy`, spread out by the stride, with
    /// the kernel turned round.
    pub fn backward_input(&self, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        self.backward_input_with(Isa::detect(), dy, weight)
    }

    fn backward_input_with(&self, isa: Isa, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        assert_eq!(weight.len(), self.out_channels * self.depth(), "weight");
        let (out_h, out_w) = self.out_size();
        let (spread_h, spread_w) = ((out_h - 1) * self.stride + 1, (out_w - 1) * self.stride + 1);
        let spread;
        let dy = if self.stride == 1 {
            dy
        } else {
            let outputs = self.out_channels;
            let mut wide = vec![0.0; self.batch * spread_h * spread_w * outputs];
            for (index, pixel) in dy.chunks_exact(outputs).enumerate() {
                let (image, y, x) = (index / (out_h * out_w), index / out_w % out_h, index % out_w);
                let at = ((image * spread_h + y * self.stride) * spread_w + x * self.stride) * outputs;
                wide[at..at + outputs].copy_from_slice(pixel);
            }
            spread = wide;
            &spread
        };
        Direct {
            batch: self.batch,
            height: spread_h,
            width: spread_w,
            channels: self.out_channels,
            kernel: self.kernel,
            stride: 1,
            pad: self.kernel - 1 - self.pad_before,
            out: (self.height, self.width),
            columns: self.in_channels,
        }
        .run(
            isa,
            dy,
            Weight::Plain(Right::Turned {
                data: weight,
                taps: self.kernel * self.kernel,
                columns: self.in_channels,
            }),
            None,
        )
    }

    /// The gradient of `weight`, from `x` and the gradient of `y`.
    pub fn backward_weight(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        gradient::weight(self, Isa::detect(), x, dy)
    }

    /// The gradient of `bias`: the sum of `dy` over all pixels.
    pub fn backward_bias(&self, dy: &[f32]) -> Vec<f32> {
        gradient::bias(dy, self.out_channels)
    }
}
