//! What goes over tensors once: biases, and windows of a picture.

use super::{UNITS, element, empty, grid, widest};
use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// `bias[channels]` in f32 added to the last dimension of `x`.
pub(super) fn add_bias(x: CubeTensor, bias: CubeTensor) -> CubeTensor {
    sum(x, bias, None)
}

/// `bias[channels]` in f32 and `rest` added to `x`.
pub(super) fn add(x: CubeTensor, bias: CubeTensor, rest: CubeTensor) -> CubeTensor {
    sum(x, bias, Some(into_contiguous(rest)))
}

fn sum(x: CubeTensor, bias: CubeTensor, rest: Option<CubeTensor>) -> CubeTensor {
    let x = into_contiguous(x);
    let x = if x.can_mut() { x } else { x.copy() };
    let onto = rest.is_some();
    let shape = x.meta.shape();
    let channels = shape[shape.num_dims() - 1];
    let vector = widest(channels);
    let vectors = shape.num_elements() / vector;
    let numbers = element(x.dtype);
    // Something has to be there for the rest.
    let rest = rest.unwrap_or_else(|| empty(&x, Shape::from([vector]), x.dtype));
    added::launch(
        &x.client,
        grid(vectors.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        into_contiguous(bias).into_buffer_arg(),
        rest.into_buffer_arg(),
        channels / vector,
        onto,
        numbers,
    );
    x
}

#[cube(launch)]
fn added<F: Float, N: Size>(
    x: &mut [Vector<F, N>],
    bias: &[Vector<f32, N>],
    rest: &[Vector<F, N>],
    #[comptime] lanes: usize,
    #[comptime] onto: bool,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= x.len() {
        terminate!();
    }
    let mut sum = Vector::<f32, N>::cast_from(x[at]) + bias[at % lanes];
    if comptime!(onto) {
        sum += Vector::<f32, N>::cast_from(rest[at]);
    }
    x[at] = Vector::cast_from(sum);
}

/// `x[.., channels]` multiplied by `factors[channels]` in f32.
pub(super) fn scale(x: CubeTensor, factors: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let shape = x.meta.shape().clone();
    let channels = shape[shape.num_dims() - 1];
    let vector = widest(channels);
    let vectors = shape.num_elements() / vector;
    let y = empty(&x, shape, x.dtype);
    multiplied::launch(
        &x.client,
        grid(vectors.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        into_contiguous(factors).into_buffer_arg(),
        y.clone().into_buffer_arg(),
        channels / vector,
        element(x.dtype),
    );
    y
}

#[cube(launch)]
fn multiplied<F: Float, N: Size>(
    x: &[Vector<F, N>],
    factors: &[Vector<f32, N>],
    y: &mut [Vector<F, N>],
    #[comptime] lanes: usize,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= y.len() {
        terminate!();
    }
    y[at] = Vector::cast_from(Vector::<f32, N>::cast_from(x[at]) * factors[at % lanes]);
}

/// The windows of `x[batch, rows, columns, channels]`, moved down and right by `shift`: `[windows, window², channels]`.
pub(super) fn windows(x: CubeTensor, window: usize, shift: usize) -> CubeTensor {
    let x = into_contiguous(x);
    let shape = x.meta.shape();
    let (batch, rows, columns, channels) = (shape[0], shape[1], shape[2], shape[3]);
    let count = batch * rows * columns / (window * window);
    let y = empty(&x, Shape::from([count, window * window, channels]), x.dtype);
    moved_windows(&x, &y, [rows, columns, channels], window, shift, true);
    y
}

/// The inverse of [`windows`], for pictures of `size`: batch, rows, columns.
pub(super) fn from_windows(x: CubeTensor, size: [usize; 3], window: usize, shift: usize) -> CubeTensor {
    let x = into_contiguous(x);
    let [batch, rows, columns] = size;
    let channels = x.meta.shape()[2];
    let y = empty(&x, Shape::from([batch, rows, columns, channels]), x.dtype);
    moved_windows(&x, &y, [rows, columns, channels], window, shift, false);
    y
}

fn moved_windows(
    x: &CubeTensor,
    y: &CubeTensor,
    [rows, columns, channels]: [usize; 3],
    window: usize,
    shift: usize,
    apart: bool,
) {
    let vector = widest(channels);
    let vectors = x.meta.shape().num_elements() / vector;
    window_moved::launch(
        &x.client,
        grid(vectors.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        columns,
        window,
        shift,
        channels / vector,
        apart,
        element(x.dtype),
    );
}

/// A unit for each vector of the tensor in windows, which is read if not `apart`.
#[cube(launch)]
fn window_moved<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    rows: usize,
    columns: usize,
    window: usize,
    shift: usize,
    #[comptime] lanes: usize,
    #[comptime] apart: bool,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= x.len() {
        terminate!();
    }
    let lane = at % lanes;
    let token = at / lanes % (window * window);
    let place = at / (lanes * window * window);
    let across = columns / window;
    let of_picture = across * (rows / window);
    let row = (place % of_picture / across * window + token / window + shift) % rows;
    let column = (place % across * window + token % window + shift) % columns;
    let of_whole = ((place / of_picture * rows + row) * columns + column) * lanes + lane;
    if comptime!(apart) {
        y[at] = x[of_whole];
    } else {
        y[of_whole] = x[at];
    }
}
