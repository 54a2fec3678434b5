//! Kernels of ours for graphics cards, as operations of burn's backend for them, and which of burn's kernels multiply.
//!
//! Burn finds out for each size by itself which of a dozen kernels is the fastest, which takes seconds for each of the
//! hundred sizes of Stable Diffusion. Here the choice follows from the card and the numbers alone.

mod attention;
mod attention_backward;
mod channels;
mod flash;
mod norm;
mod norm_backward;
mod optimizer;
mod planes;
mod pointwise;
mod product;
mod sums;
mod tiles;
mod trained;

pub use channels::CardChannels;
pub use trained::CardProducts;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::CubeCount;
use diffbir_kernels::adamw::AdamW;
use diffbir_kernels::conv::Conv2d;

/// Operations that have a kernel of ours on graphics cards. They have no gradients.
#[backend_extension(Cube, Fusion)]
pub trait CardKernels: Backend {
    /// `bias[channels]` in f32 and `rest` added.
    #[fusion(dtype = x, shape = x)]
    fn card_add(x: FloatTensor<Self>, bias: FloatTensor<Self>, rest: FloatTensor<Self>) -> FloatTensor<Self>;

    /// As [`super::attention_of_parts`].
    #[fusion(dtype = x, shape = a_third(x))]
    fn card_attention_of_parts(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self>;

    /// As [`super::windows`].
    #[fusion(dtype = x, shape = apart(x, *window))]
    fn card_windows(x: FloatTensor<Self>, window: usize, shift: usize) -> FloatTensor<Self>;

    /// As [`super::from_windows`].
    #[fusion(dtype = x, shape = together(x, *size))]
    fn card_from_windows(
        x: FloatTensor<Self>,
        size: [usize; 3],
        window: usize,
        shift: usize,
    ) -> FloatTensor<Self>;

    /// The sum of squares, in parts that are to be added up.
    #[fusion(dtype = DType::F32, shape = sums::parts_of(x))]
    fn card_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The rows of [`AdamW::step`] of vectors.
    #[fusion(dtype = value, shape = optimizer::rows_of(value[0], step))]
    fn card_adamw(
        value: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        average: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamW,
    ) -> FloatTensor<Self>;
}

impl CardKernels for CubeBackend {
    fn card_add(x: CubeTensor, bias: CubeTensor, rest: CubeTensor) -> CubeTensor {
        pointwise::add(x, bias, rest)
    }

    fn card_attention_of_parts(x: CubeTensor, bias: CubeTensor, heads: usize) -> CubeTensor {
        attention::of_parts(x, bias, heads)
    }

    fn card_windows(x: CubeTensor, window: usize, shift: usize) -> CubeTensor {
        pointwise::windows(x, window, shift)
    }

    fn card_from_windows(x: CubeTensor, size: [usize; 3], window: usize, shift: usize) -> CubeTensor {
        pointwise::from_windows(x, size, window, shift)
    }

    fn card_squares(x: CubeTensor) -> CubeTensor {
        sums::of_squares(x)
    }

    fn card_adamw(
        value: CubeTensor,
        mean: CubeTensor,
        square: CubeTensor,
        average: CubeTensor,
        gradient: CubeTensor,
        step: AdamW,
    ) -> CubeTensor {
        optimizer::adamw([value, mean, square, average, gradient], step)
    }
}

/// The shape of a convolution's result.
fn convolved(sizes: &Conv2d) -> Shape {
    let (height, width) = sizes.out_size();
    Shape::from([sizes.batch, height, width, sizes.out_channels])
}

/// The shape of tokens out of those of queries, keys and values side by side.
fn a_third(x: &Shape) -> Shape {
    Shape::from([x[0], x[1], x[2] / 3])
}

/// The shape of a picture's windows.
fn apart(x: &Shape, window: usize) -> Shape {
    let tokens = window * window;
    Shape::from([x[0] * x[1] * x[2] / tokens, tokens, x[3]])
}

/// The shape of a picture put together from windows.
fn together(x: &Shape, [batch, rows, columns]: [usize; 3]) -> Shape {
    Shape::from([batch, rows, columns, x[2]])
}

/// Units of a cube where nothing speaks for another number.
const UNITS: u32 = 256;

/// So many cubes, in two dimensions: none may have more than 65535.
fn grid(cubes: usize) -> CubeCount {
    let cubes = cubes as u32;
    let rows = cubes.div_ceil(65_535).max(1);
    CubeCount::Static(cubes.div_ceil(rows), rows, 1)
}

/// A tensor beside `like` in which nothing stands yet.
fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// How many values of rows of this length are read and written at once.
fn widest(length: usize) -> usize {
    [8, 4, 2].into_iter().find(|size| length.is_multiple_of(*size)).unwrap_or(1)
}

fn element(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}
