//! Convolution and linear maps: which kernels multiply.

use super::{UNITS, convolved, element, empty, grid, planes, tiles, widest};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubek::convolution::{
    AcceleratedTileKind, ConvAlgorithm, ConvolutionArgs, ConvolutionInputs, Strategy as Way,
    launch_ref as launch_convolution,
};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref as launch_matmul;
use cubek::matmul::multi_level::Strategy;
use cubek::matmul::multi_level::components::tile::TileMatmulKind;
use cubek::matmul::multi_level::routines::batch::double_buffering::DoubleBufferingArgs;
use cubek::matmul::multi_level::routines::batch::simple::SimpleArgs;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::std::InputBinding;
use diffbir_kernels::conv::Conv2d;

/// Bytes that the pixels under the kernel may take, laid out as rows of a matrix.
const MOST_LAID_OUT: usize = 128 << 20;

/// Parts of a result begin at multiples of so many rows: cards want addresses to be multiples of 256 bytes at most.
const ALIGNED_ROWS: usize = 256;

/// `a[.., rows, in]` by `b[.., in, out]`, either of which may be a transposed view.
pub(super) fn multiply(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let y = empty(&a, super::trained::multiplied(a.meta.shape(), b.meta.shape()), a.dtype);
    multiply_into(a, b, y.clone());
    y
}

/// Matrices whose values lie in order along rows or along columns; rows of a single one may be apart from each other, as
/// those of weights are.
fn in_order(x: CubeTensor) -> CubeTensor {
    let (shape, strides) = (x.meta.shape(), x.meta.strides());
    let last = shape.num_dims() - 1;
    let (inner, outer) = if strides[last] == 1 { (last, last - 1) } else { (last - 1, last) };
    let mut length = shape[inner];
    let dense = [outer].into_iter().chain((0..last - 1).rev()).all(|dim| {
        let follows = shape[dim] == 1 || strides[dim] == length;
        length *= shape[dim];
        follows
    });
    let in_order = strides[inner] == 1 && (dense || last == 1);
    if in_order { x } else { into_contiguous(x) }
}

/// `y[.., rows, out]` from `a[.., rows, in]` and `b[.., in, out]`.
pub(super) fn multiply_into(a: CubeTensor, b: CubeTensor, y: CubeTensor) {
    let (a, b) = (in_order(a), in_order(b));
    // Accelerators take f32 for numbers of 19 bits.
    if a.dtype == DType::F32 {
        return tiles::multiply(&a, &b, &y);
    }
    if planes::multiply(&a, &b, &y) {
        return;
    }
    let shape = a.meta.shape();
    let (client, rows) = (a.client.clone(), shape[shape.num_dims() - 2]);
    let numbers = element(a.dtype);
    for way in ways(&client, rows) {
        let mut numbers_of =
            MatmulElems::from_globals(&MatmulGlobalElems { lhs: numbers, rhs: numbers, out: numbers });
        let input = |tensor: &CubeTensor| InputBinding::new(tensor.clone().binding(), numbers);
        let (a, b, y) = (input(&a), input(&b), y.clone().binding());
        if launch_matmul(&way.into(), &client, a, b, y, &mut numbers_of).is_ok() {
            return;
        }
    }
    tiles::multiply(&a, &b, &y);
}

/// The last two dimensions the other way round.
fn turned(mut x: CubeTensor) -> CubeTensor {
    let last = x.meta.shape().num_dims() - 1;
    x.meta.swap(last - 1, last);
    x
}

/// The kernels that may do it in half floats, the fastest first, as measured on an H200: those that take tiles by the
/// card's own engine for copies, then those whose threads do.
fn ways(client: &Client, rows: usize) -> Vec<Strategy> {
    use TileMatmulKind::{Cmma, Mma};
    let simple = |tile_matmul, multi_rows| SimpleArgs { multi_rows, tile_matmul };
    let double = |tile_matmul| DoubleBufferingArgs { specialized: false, tile_matmul };
    let (many, features) = (rows >= 4096, &client.properties().features);
    let mut ways = Vec::new();
    if !features.tma.is_empty() && rows >= 64 {
        ways.push(Strategy::SimpleTmaMma(BlueprintStrategy::Inferred(simple(Mma, many))));
    }
    if !features.matmul.mma.is_empty() {
        ways.push(Strategy::SimpleCyclicMma(BlueprintStrategy::Inferred(simple(Mma, many))));
    }
    if !features.matmul.cmma.is_empty() {
        ways.push(if many {
            Strategy::SimpleCyclicCmma(BlueprintStrategy::Inferred(simple(Cmma, true)))
        } else {
            Strategy::DoubleCyclicCmma(BlueprintStrategy::Inferred(double(Cmma)))
        });
        ways.push(Strategy::SimpleCyclicCmma(BlueprintStrategy::Inferred(simple(Cmma, false))));
    }
    ways
}

/// Convolution: where the card's engine for copies reads the picture, without laying it out first.
pub(super) fn convolution(x: CubeTensor, weight: CubeTensor, sizes: Conv2d) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let y = empty(&x, convolved(&sizes), x.dtype);
    let rows = sizes.batch * sizes.out_size().0 * sizes.out_size().1;
    let Conv2d { kernel, stride, in_channels, out_channels, doubled, .. } = sizes;
    let flat = |tensor: &CubeTensor, shape: [usize; 2]| reshape(tensor.clone(), Shape::from(shape));
    if kernel == 1 && stride == 1 {
        let weight = turned(flat(&weight, [out_channels, in_channels]));
        multiply_into(flat(&x, [rows, in_channels]), weight, flat(&y, [rows, out_channels]));
        return y;
    }
    if !doubled && implicit(&x, &weight, &y, &sizes) {
        return y;
    }
    let length = kernel * kernel * in_channels;
    let weight = turned(flat(&weight, [out_channels, length]));
    let y = flat(&y, [rows, out_channels]);
    for (first, count) in parts(rows, length * x.dtype.size()) {
        let laid_out = laid_out(&x, &sizes, first, count, length);
        multiply_into(laid_out, weight.clone(), some_rows(&y, first, count));
    }
    reshape(y, convolved(&sizes))
}

/// So many rows, each laid out in so many bytes, in parts of which each finds room: the first of a part, and how many.
fn parts(rows: usize, row_bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let parts = rows.div_ceil((MOST_LAID_OUT / row_bytes).max(1));
    let at_once = rows.div_ceil(parts).next_multiple_of(ALIGNED_ROWS);
    (0..rows).step_by(at_once).map(move |first| (first, at_once.min(rows - first)))
}

/// Rows of `x[rows, channels]`, where they lie.
fn some_rows(x: &CubeTensor, first: usize, count: usize) -> CubeTensor {
    let mut part = x.clone();
    part.handle = part.handle.offset_start((first * x.meta.shape()[1] * x.dtype.size()) as u64);
    part.meta.shape_mut()[0] = count;
    part
}

/// Gradient of the weight of [`convolution`]: a sum over all pixels.
pub(super) fn convolution_backward_weight(x: CubeTensor, dy: CubeTensor, sizes: Conv2d) -> CubeTensor {
    let (x, dy) = (into_contiguous(x), into_contiguous(dy));
    let Conv2d { kernel, stride, in_channels, out_channels, .. } = sizes;
    let rows = sizes.batch * sizes.out_size().0 * sizes.out_size().1;
    let length = kernel * kernel * in_channels;
    let dy = reshape(dy, Shape::from([rows, out_channels]));
    let plain = (kernel == 1 && stride == 1).then(|| reshape(x.clone(), Shape::from([rows, in_channels])));
    let mut sum = None;
    for (first, count) in parts(rows, length * x.dtype.size()) {
        let laid_out = match &plain {
            Some(x) => some_rows(x, first, count),
            None => laid_out(&x, &sizes, first, count, length),
        };
        let more = multiply(turned(some_rows(&dy, first, count)), laid_out);
        sum = Some(match sum {
            Some(sum) => CubeBackend::float_add(sum, more),
            None => more,
        });
    }
    let sum = sum.expect("a picture has pixels");
    reshape(sum, super::trained::weight_of(&sizes))
}

/// The convolution by a kernel that reads the picture where it lies, where there is one that does it fast.
fn implicit(x: &CubeTensor, weight: &CubeTensor, y: &CubeTensor, sizes: &Conv2d) -> bool {
    let features = &x.client.properties().features;
    // Its rows are read sixteen bytes at a time.
    let aligned = (sizes.in_channels * x.dtype.size()).is_multiple_of(16);
    if x.dtype == DType::F32 || features.tma.is_empty() || features.matmul.mma.is_empty() || !aligned {
        return false;
    }
    let numbers = element(x.dtype);
    let input = |tensor: &CubeTensor| InputBinding::new(tensor.clone().binding(), numbers);
    let (algorithm, tile_kind) = (ConvAlgorithm::SimpleAsyncTma, AcceleratedTileKind::Mma);
    let launched = launch_convolution::<2>(
        &Way::Inferred { algorithm, tile_kind },
        &x.client,
        ConvolutionInputs::Forward {
            input: input(x),
            weight: input(weight),
            bias: None,
            out: y.clone().binding(),
        },
        ConvolutionArgs { stride: [sizes.stride; 2], padding: [sizes.pad_before; 2], dilation: [1; 2] },
        MatmulElems::from_globals(&MatmulGlobalElems { lhs: numbers, rhs: numbers, out: numbers }),
    );
    launched.is_ok()
}

/// Of `count` pixels of the result, from the `first` on, what lies under the kernel: `[count, kernel · kernel · in]`.
fn laid_out(x: &CubeTensor, sizes: &Conv2d, first: usize, count: usize, length: usize) -> CubeTensor {
    let rows = empty(x, Shape::from([count, length]), x.dtype);
    let vector = widest(sizes.in_channels);
    let vectors = count * length / vector;
    let (height, width) = sizes.out_size();
    under_the_kernel::launch(
        &x.client,
        grid(vectors.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        rows.clone().into_buffer_arg(),
        first,
        height,
        width,
        sizes.height,
        sizes.width,
        sizes.stride,
        sizes.pad_before,
        sizes.kernel,
        sizes.in_channels / vector,
        sizes.doubled,
        element(x.dtype),
    );
    rows
}

/// See [`laid_out`]; `x[batch, in_height, in_width, lanes]` in vectors. A unit for each vector of the result.
#[cube(launch)]
fn under_the_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    rows: &mut [Vector<F, N>],
    first: usize,
    height: usize,
    width: usize,
    in_height: usize,
    in_width: usize,
    stride: usize,
    pad: usize,
    #[comptime] kernel: usize,
    #[comptime] lanes: usize,
    #[comptime] doubled: bool,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= rows.len() {
        terminate!();
    }
    let lane = at % lanes;
    let tap = at / lanes % comptime!(kernel * kernel);
    let pixel = first + at / comptime!(lanes * kernel * kernel);
    let column = pixel % width;
    let row = pixel / width % height;
    let batch = pixel / (width * height);
    // Shifted by the padding, so that nothing is below zero.
    let mut y = row * stride + tap / kernel;
    let mut x_at = column * stride + tap % kernel;
    let mut value = Vector::<F, N>::new(F::new(0.0));
    if y >= pad && x_at >= pad {
        y -= pad;
        x_at -= pad;
        if comptime!(doubled) {
            y /= 2;
            x_at /= 2;
        }
        if y < in_height && x_at < in_width {
            value = x[((batch * in_height + y) * in_width + x_at) * lanes + lane];
        }
    }
    rows[at] = value;
}
