//! The way back through norms.

use super::norm::{ROW_UNITS, moments_of_row, row_moments};
use super::sums::{across, chunk_of, of_pictures};
use super::{UNITS, element, empty, grid, widest};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use diffbir_kernels::norm::GroupNorm;

/// Sums over the pixels of each picture, `[batch, 2, channels]`: of the gradient behind the norm (before SiLU), and of
/// that times the normed values. `moments` are those of [`super::norm::group_moments`].
pub(super) fn group_sums(
    x: CubeTensor,
    dy: CubeTensor,
    moments: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    sizes: GroupNorm,
) -> CubeTensor {
    let GroupNorm { batch, pixels, channels, silu, .. } = sizes;
    let sums = sums([x, dy, moments, weight, bias], [batch, pixels, channels], false, silu);
    sums_as(sums, Shape::from([batch, 2, channels]))
}

/// Gradients of weight and bias of [`super::norm::layer_norm`]: `[2, channels]`, the bias first.
pub(super) fn layer_sums(x: CubeTensor, dy: CubeTensor, epsilon: f32) -> CubeTensor {
    let x = into_contiguous(x);
    let shape = x.meta.shape();
    let channels = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / channels;
    let moments = row_moments(&x, epsilon);
    let dy_again = dy.clone();
    let sums = sums([x, dy, moments.clone(), moments, dy_again], [1, rows, channels], true, false);
    sums_as(sums, Shape::from([2, channels]))
}

fn sums_as(sums: CubeTensor, shape: Shape) -> CubeTensor {
    burn_cubecl::ops::reshape(sums, shape)
}

/// As [`group_sums`], of rows that are normed each by itself if `by_rows`: `[batch · 2 · channels]`.
fn sums(
    parts: [CubeTensor; 5],
    [batch, rows, channels]: [usize; 3],
    by_rows: bool,
    silu: bool,
) -> CubeTensor {
    let [x, dy, moments, weight, bias] = parts.map(into_contiguous);
    let chunk = chunk_of(rows);
    let chunks = rows.div_ceil(chunk);
    let (vector, lanes, abreast) = across(channels);
    let y = empty(&x, Shape::from([batch * chunks * 2 * channels]), DType::F32);
    let numbers = element(x.dtype);
    chunk_gradients::launch(
        &x.client,
        CubeCount::Static(lanes.div_ceil(abreast) as u32, chunks as u32, batch as u32),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        dy.into_buffer_arg(),
        moments.into_buffer_arg(),
        weight.into_buffer_arg(),
        bias.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        chunk,
        vector,
        lanes,
        abreast,
        by_rows,
        silu,
        numbers,
    );
    of_pictures(y, [batch, chunks, 2 * channels])
}

/// The gradient before SiLU, of `normed · weight + bias`.
#[cube]
fn before_silu<N: Size>(
    dy: Vector<f32, N>,
    normed: Vector<f32, N>,
    weight: Vector<f32, N>,
    bias: Vector<f32, N>,
) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0);
    let value = normed * weight + bias;
    let share = one / (one + (-value).exp());
    dy * share * (one + value * (one - share))
}

/// See [`sums`]: `y[batch, chunks, 2, lanes]`. `moments[rows, 2]` or `[batch, 2, lanes]`. A cube for `abreast` lanes of each
/// chunk of each of the batch.
#[cube(launch)]
fn chunk_gradients<F: Float, N: Size>(
    x: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    moments: &[f32],
    weight: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    y: &mut [Vector<f32, N>],
    rows: usize,
    chunk: usize,
    #[comptime] vector: usize,
    #[comptime] lanes: usize,
    #[comptime] abreast: usize,
    #[comptime] by_rows: bool,
    #[comptime] silu: bool,
    #[define(F)] _numbers: ElemType,
) {
    let mut shared = Shared::new_slice(comptime!(UNITS as usize));
    let mut shared_products = Shared::new_slice(comptime!(UNITS as usize));
    let unit = UNIT_POS as usize;
    let lane = CUBE_POS_X as usize * abreast + unit % abreast;
    let batch = CUBE_POS_Z as usize;
    let first = CUBE_POS_Y as usize * chunk;
    let mut last = first + chunk;
    if last > rows {
        last = rows;
    }
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut product = Vector::<f32, N>::new(0.0);
    if lane < lanes {
        let mut mean = Vector::<f32, N>::new(0.0);
        let mut scale = Vector::<f32, N>::new(0.0);
        let mut factor = Vector::<f32, N>::new(0.0);
        let mut shift = Vector::<f32, N>::new(0.0);
        if comptime!(!by_rows) {
            let start = (batch * 2 * lanes + lane) * vector;
            #[unroll]
            for index in 0..vector {
                mean.insert(index, moments[start + index]);
                scale.insert(index, moments[start + lanes * vector + index]);
            }
        }
        if comptime!(silu) {
            factor = weight[lane];
            shift = bias[lane];
        }
        let mut row = first + unit / abreast;
        while row < last {
            if comptime!(by_rows) {
                mean = Vector::new(moments[2 * row]);
                scale = Vector::new(moments[2 * row + 1]);
            }
            let at = (batch * rows + row) * lanes + lane;
            let normed = (Vector::<f32, N>::cast_from(x[at]) - mean) * scale;
            let mut gradient = Vector::<f32, N>::cast_from(dy[at]);
            if comptime!(silu) {
                gradient = before_silu::<N>(gradient, normed, factor, shift);
            }
            sum += gradient;
            product += gradient * normed;
            row += comptime!(UNITS as usize / abreast);
        }
    }
    shared[unit] = sum;
    shared_products[unit] = product;
    sync_cube();
    if unit < abreast && lane < lanes {
        for other in 1..comptime!(UNITS as usize / abreast) {
            sum += shared[other * abreast + unit];
            product += shared_products[other * abreast + unit];
        }
        let at = (batch * CUBE_COUNT_Y as usize + CUBE_POS_Y as usize) * 2 * lanes + lane;
        y[at] = sum;
        y[at + lanes] = product;
    }
}

/// Gradient of the input of a group norm; `sums` are those of [`group_sums`].
pub(super) fn group_backward(parts: [CubeTensor; 6], sizes: GroupNorm) -> CubeTensor {
    let [x, dy, moments, weight, bias, sums] = parts.map(into_contiguous);
    let GroupNorm { batch, pixels, channels, groups, silu, .. } = sizes;
    let means = empty(&x, Shape::from([batch, 2, channels]), DType::F32);
    group_means::launch(
        &x.client,
        grid((batch * channels).div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        sums.into_buffer_arg(),
        weight.clone().into_buffer_arg(),
        means.clone().into_buffer_arg(),
        batch,
        pixels * channels / groups,
        channels,
        groups,
    );
    let y = empty(&x, x.meta.shape().clone(), x.dtype);
    let vector = widest(channels).min(4);
    let vectors = batch * pixels * channels / vector;
    let numbers = element(x.dtype);
    group_gradient::launch(
        &x.client,
        grid(vectors.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        dy.into_buffer_arg(),
        moments.into_buffer_arg(),
        weight.into_buffer_arg(),
        bias.into_buffer_arg(),
        means.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        pixels * channels / vector,
        channels / vector,
        silu,
        numbers,
    );
    y
}

/// What [`group_sums`] found, times the weight, as means of each group: `means[batch, 2, channels]`. A unit for each
/// channel of each picture.
#[cube(launch)]
fn group_means(
    sums: &[f32],
    weight: &[f32],
    means: &mut [f32],
    batch: usize,
    values: usize,
    #[comptime] channels: usize,
    #[comptime] groups: usize,
) {
    let at = ABSOLUTE_POS;
    if at >= batch * channels {
        terminate!();
    }
    let of_group = comptime!(channels / groups);
    let channel = at % channels;
    let start = at / channels * comptime!(2 * channels);
    let group = channel / of_group * of_group;
    let mut sum = 0f32;
    let mut product = 0f32;
    for index in 0..of_group {
        sum += sums[start + group + index] * weight[group + index];
        product += sums[start + channels + group + index] * weight[group + index];
    }
    means[start + channel] = sum / f32::cast_from(values);
    means[start + channels + channel] = product / f32::cast_from(values);
}

/// A unit for each vector of `x[batch, picture]`.
#[cube(launch)]
fn group_gradient<F: Float, N: Size>(
    x: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    moments: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    means: &[Vector<f32, N>],
    y: &mut [Vector<F, N>],
    picture: usize,
    #[comptime] lanes: usize,
    #[comptime] silu: bool,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= y.len() {
        terminate!();
    }
    let lane = at % lanes;
    let of_picture = at / picture * 2 * lanes + lane;
    let scale = moments[of_picture + lanes];
    let factor = weight[lane];
    let normed = (Vector::<f32, N>::cast_from(x[at]) - moments[of_picture]) * scale;
    let mut gradient = Vector::<f32, N>::cast_from(dy[at]);
    if comptime!(silu) {
        gradient = before_silu::<N>(gradient, normed, factor, bias[lane]);
    }
    let centred = gradient * factor - means[of_picture] - normed * means[of_picture + lanes];
    y[at] = Vector::cast_from(centred * scale);
}

/// Gradient of the input of [`super::norm::layer_norm`].
pub(super) fn layer_backward(x: CubeTensor, dy: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
    let (x, dy) = (into_contiguous(x), into_contiguous(dy));
    let shape = x.meta.shape().clone();
    let channels = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / channels;
    let y = empty(&x, shape, x.dtype);
    let numbers = element(x.dtype);
    row_gradient::launch(
        &x.client,
        grid(rows),
        CubeDim::new_1d(ROW_UNITS),
        x.clone().into_buffer_arg(),
        dy.into_buffer_arg(),
        into_contiguous(weight).into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        epsilon,
        channels,
        numbers,
    );
    y
}

/// A cube for each row.
#[cube(launch)]
fn row_gradient<F: Float>(
    x: &[F],
    dy: &[F],
    weight: &[f32],
    y: &mut [F],
    rows: usize,
    epsilon: f32,
    #[comptime] channels: usize,
    #[define(F)] _numbers: ElemType,
) {
    let mut sums = Shared::new_slice(comptime!(ROW_UNITS as usize));
    let mut products = Shared::new_slice(comptime!(ROW_UNITS as usize));
    let row = CUBE_POS as usize;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let start = row * channels;
    let (mean, scale) = moments_of_row::<F>(x, start, epsilon, channels);
    let mut sum = 0f32;
    let mut product = 0f32;
    let mut channel = UNIT_POS as usize;
    while channel < channels {
        let gradient = f32::cast_from(dy[start + channel]) * weight[channel];
        sum += gradient;
        product += gradient * (f32::cast_from(x[start + channel]) - mean) * scale;
        channel += CUBE_DIM as usize;
    }
    sums[unit] = sum;
    products[unit] = product;
    sync_cube();
    sum = sums[0];
    product = products[0];
    for other in 1..comptime!(ROW_UNITS as usize) {
        sum += sums[other];
        product += products[other];
    }
    let n = f32::cast_from(channels.runtime());
    sum /= n;
    product /= n;
    channel = UNIT_POS as usize;
    while channel < channels {
        let normed = (f32::cast_from(x[start + channel]) - mean) * scale;
        let gradient = f32::cast_from(dy[start + channel]) * weight[channel];
        y[start + channel] = F::cast_from((gradient - sum - normed * product) * scale);
        channel += CUBE_DIM as usize;
    }
}
