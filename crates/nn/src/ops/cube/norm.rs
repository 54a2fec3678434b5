//! Norms. A group norm out of burn's operations goes over the picture six times; these go twice.

use super::{UNITS, element, empty, grid, widest};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use diffbir_kernels::norm::GroupNorm;

/// Of the cubes that put the moments of all chunks together.
const MERGING_UNITS: u32 = 64;

/// Pixels whose moments one cube computes, at least; and the most such chunks of a picture.
const CHUNK: usize = 32;
const MOST_CHUNKS: usize = 1024;

/// Mean and 1 / standard deviation of the group of each channel of `x[batch, .., channels]`: `[batch, 2, channels]`.
pub(super) fn group_moments(x: CubeTensor, sizes: GroupNorm) -> CubeTensor {
    let GroupNorm { batch, pixels, channels, groups, epsilon, .. } = sizes;
    let x = into_contiguous(x);
    let chunk = CHUNK.max(pixels.div_ceil(MOST_CHUNKS));
    let chunks = pixels.div_ceil(chunk);
    let partial = empty(&x, Shape::from([batch, chunks, groups, 2]), DType::F32);
    chunk_moments::launch(
        &x.client,
        CubeCount::Static(chunks as u32, batch as u32, 1),
        CubeDim::new_1d(UNITS),
        x.clone().into_buffer_arg(),
        partial.clone().into_buffer_arg(),
        pixels,
        chunk,
        channels,
        groups,
        element(x.dtype),
    );
    let moments = empty(&x, Shape::from([batch, 2, channels]), DType::F32);
    merged_moments::launch(
        &x.client,
        CubeCount::Static(groups as u32, batch as u32, 1),
        CubeDim::new_1d(MERGING_UNITS),
        partial.into_buffer_arg(),
        moments.clone().into_buffer_arg(),
        pixels,
        chunks,
        epsilon,
        chunk,
        channels,
        groups,
    );
    moments
}

/// Group normalisation of `x` by its [`group_moments`], with SiLU if `sizes.silu`; weight and bias in f32.
pub(super) fn group_normed(
    x: CubeTensor,
    moments: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    sizes: GroupNorm,
) -> CubeTensor {
    let GroupNorm { batch, pixels, channels, silu, .. } = sizes;
    let x = into_contiguous(x);
    let y = empty(&x, x.meta.shape().clone(), x.dtype);
    let vector = widest(channels);
    let vectors = batch * pixels * channels / vector;
    scaled::launch(
        &x.client,
        grid(vectors.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        moments.into_buffer_arg(),
        into_contiguous(weight).into_buffer_arg(),
        into_contiguous(bias).into_buffer_arg(),
        y.clone().into_buffer_arg(),
        pixels * channels / vector,
        channels / vector,
        silu,
        element(x.dtype),
    );
    y
}

/// Of each group of `x[batch, pixels, channels]` in a chunk of pixels the mean, and the sum of squared differences from
/// it: `partial[batch, chunks, groups, 2]`. A cube for each chunk of each picture.
#[cube(launch)]
fn chunk_moments<F: Float>(
    x: &[F],
    partial: &mut [f32],
    pixels: usize,
    #[comptime] chunk: usize,
    #[comptime] channels: usize,
    #[comptime] groups: usize,
    #[define(F)] _numbers: ElemType,
) {
    let of_group = comptime!(channels / groups);
    let mut sums = Shared::new_slice(comptime!(2 * channels));
    let place = CUBE_POS_X as usize;
    let batch = CUBE_POS_Y as usize;
    let first = place * chunk;
    let mut count = pixels - first;
    if count > chunk {
        count = chunk.runtime();
    }
    let start = (batch * pixels + first) * channels;
    let mut channel = UNIT_POS as usize;
    while channel < channels {
        // Differences from a value of the group: squares of large values would lose the small differences.
        let pivot = f32::cast_from(x[start + channel / of_group * of_group]);
        let mut sum = 0f32;
        let mut square = 0f32;
        for pixel in 0..count {
            let value = f32::cast_from(x[start + pixel * channels + channel]) - pivot;
            sum += value;
            square += value * value;
        }
        sums[2 * channel] = sum;
        sums[2 * channel + 1] = square;
        channel += CUBE_DIM as usize;
    }
    sync_cube();
    let mut group = UNIT_POS as usize;
    while group < groups {
        let pivot = f32::cast_from(x[start + group * of_group]);
        let mut sum = 0f32;
        let mut square = 0f32;
        for index in 0..of_group {
            let channel = group * of_group + index;
            sum += sums[2 * channel];
            square += sums[2 * channel + 1];
        }
        let mean = sum / f32::cast_from(count * of_group);
        let at = ((batch * CUBE_COUNT_X as usize + place) * groups + group) * 2;
        partial[at] = pivot + mean;
        partial[at + 1] = square - sum * mean;
        group += CUBE_DIM as usize;
    }
}

/// See [`group_moments`]. A cube for each group of each picture.
#[cube(launch)]
fn merged_moments(
    partial: &[f32],
    moments: &mut [f32],
    pixels: usize,
    chunks: usize,
    epsilon: f32,
    #[comptime] chunk: usize,
    #[comptime] channels: usize,
    #[comptime] groups: usize,
) {
    let of_group = comptime!(channels / groups);
    let mut counts = Shared::new_slice(comptime!(MERGING_UNITS as usize));
    let mut means = Shared::new_slice(comptime!(MERGING_UNITS as usize));
    let mut squares = Shared::new_slice(comptime!(MERGING_UNITS as usize));
    let group = CUBE_POS_X as usize;
    let batch = CUBE_POS_Y as usize;
    let unit = UNIT_POS as usize;
    let mut n = 0f32;
    let mut mean = 0f32;
    let mut square = 0f32;
    let mut place = UNIT_POS as usize;
    while place < chunks {
        let mut count = pixels - place * chunk;
        if count > chunk {
            count = chunk.runtime();
        }
        let at = ((batch * chunks + place) * groups + group) * 2;
        let more = f32::cast_from(count * of_group);
        let total = n + more;
        let off = partial[at] - mean;
        mean += off * more / total;
        square += partial[at + 1] + off * off * n * more / total;
        n = total;
        place += CUBE_DIM as usize;
    }
    counts[unit] = n;
    means[unit] = mean;
    squares[unit] = square;
    sync_cube();
    // Every unit adds up the same few numbers.
    n = counts[0];
    mean = means[0];
    square = squares[0];
    for other in 1..comptime!(MERGING_UNITS as usize) {
        let more = counts[other];
        if more > 0.0 {
            let total = n + more;
            let off = means[other] - mean;
            mean += off * more / total;
            square += squares[other] + off * off * n * more / total;
            n = total;
        }
    }
    let scale = 1.0 / (square / n + epsilon).sqrt();
    let mut index = UNIT_POS as usize;
    while index < of_group {
        let channel = group * of_group + index;
        moments[batch * 2 * channels + channel] = mean;
        moments[(batch * 2 + 1) * channels + channel] = scale;
        index += CUBE_DIM as usize;
    }
}

/// See [`group_normed`]. A unit for each vector.
#[cube(launch)]
fn scaled<F: Float, N: Size>(
    x: &[Vector<F, N>],
    moments: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
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
    let batch = at / picture;
    let lane = at % lanes;
    let mean = moments[batch * 2 * lanes + lane];
    let scale = moments[(batch * 2 + 1) * lanes + lane];
    let mut value = (Vector::<f32, N>::cast_from(x[at]) - mean) * scale * weight[lane] + bias[lane];
    if comptime!(silu) {
        let one = Vector::<f32, N>::new(1.0);
        value = value / (one + (-value).exp());
    }
    y[at] = Vector::cast_from(value);
}

/// Units of a cube that norms one row.
pub(super) const ROW_UNITS: u32 = 64;

/// Normalisation of the last dimension of `x[.., channels]`; weight and bias in f32.
pub(super) fn layer_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, epsilon: f32) -> CubeTensor {
    let x = into_contiguous(x);
    let shape = x.meta.shape().clone();
    let channels = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / channels;
    let y = empty(&x, shape, x.dtype);
    let numbers = element(x.dtype);
    normed_rows::launch(
        &x.client,
        grid(rows),
        CubeDim::new_1d(ROW_UNITS),
        x.clone().into_buffer_arg(),
        into_contiguous(weight).into_buffer_arg(),
        into_contiguous(bias).into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        epsilon,
        channels,
        numbers,
    );
    y
}

/// Mean and 1 / standard deviation of each row of `x[.., channels]`: `[rows, 2]`.
pub(super) fn row_moments(x: &CubeTensor, epsilon: f32) -> CubeTensor {
    let shape = x.meta.shape();
    let channels = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / channels;
    let y = empty(x, Shape::from([rows, 2]), DType::F32);
    kept_moments::launch(
        &x.client,
        grid(rows),
        CubeDim::new_1d(ROW_UNITS),
        x.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        epsilon,
        channels,
        element(x.dtype),
    );
    y
}

/// A cube for each row.
#[cube(launch)]
fn kept_moments<F: Float>(
    x: &[F],
    y: &mut [f32],
    rows: usize,
    epsilon: f32,
    #[comptime] channels: usize,
    #[define(F)] _numbers: ElemType,
) {
    let row = CUBE_POS as usize;
    if row >= rows {
        terminate!();
    }
    let (mean, scale) = moments_of_row::<F>(x, row * channels, epsilon, channels);
    if UNIT_POS == 0 {
        y[2 * row] = mean;
        y[2 * row + 1] = scale;
    }
}

/// Mean and 1 / standard deviation of the values from `start` on, by the whole cube.
#[cube]
pub(super) fn moments_of_row<F: Float>(
    x: &[F],
    start: usize,
    epsilon: f32,
    #[comptime] channels: usize,
) -> (f32, f32) {
    let mut sums = Shared::new_slice(comptime!(ROW_UNITS as usize));
    let mut squares = Shared::new_slice(comptime!(ROW_UNITS as usize));
    let unit = UNIT_POS as usize;
    // As in `chunk_moments`.
    let pivot = f32::cast_from(x[start]);
    let mut sum = 0f32;
    let mut square = 0f32;
    let mut channel = UNIT_POS as usize;
    while channel < channels {
        let value = f32::cast_from(x[start + channel]) - pivot;
        sum += value;
        square += value * value;
        channel += CUBE_DIM as usize;
    }
    sums[unit] = sum;
    squares[unit] = square;
    sync_cube();
    sum = sums[0];
    square = squares[0];
    for other in 1..comptime!(ROW_UNITS as usize) {
        sum += sums[other];
        square += squares[other];
    }
    let n = f32::cast_from(channels.runtime());
    let mean = sum / n;
    let scale = 1.0 / ((square - sum * mean) / n + epsilon).sqrt();
    (pivot + mean, scale)
}

/// `x[rows, channels]`, each row normalised. A cube for each row.
#[cube(launch)]
fn normed_rows<F: Float>(
    x: &[F],
    weight: &[f32],
    bias: &[f32],
    y: &mut [F],
    rows: usize,
    epsilon: f32,
    #[comptime] channels: usize,
    #[define(F)] _numbers: ElemType,
) {
    let row = CUBE_POS as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * channels;
    let (mean, scale) = moments_of_row::<F>(x, start, epsilon, channels);
    let mut channel = UNIT_POS as usize;
    while channel < channels {
        let value = (f32::cast_from(x[start + channel]) - mean) * scale;
        y[start + channel] = F::cast_from(value * weight[channel] + bias[channel]);
        channel += CUBE_DIM as usize;
    }
}
