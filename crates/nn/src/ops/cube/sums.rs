//! Sums over rows of channels, and of squares. Rows are shared out among cubes, so that a few channels keep a card busy,
//! and what the cubes found is added up by a second kernel.

use super::{UNITS, element, empty, widest};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Rows that one cube adds up, at least; and the most such chunks.
const CHUNK: usize = 64;
const MOST_CHUNKS: usize = 256;

/// Of so many rows, how many one cube adds up.
pub(super) fn chunk_of(rows: usize) -> usize {
    CHUNK.max(rows.div_ceil(MOST_CHUNKS))
}

/// The sum of each channel of `x[.., channels]` over all rows, in f32.
pub(super) fn of_columns(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let shape = x.meta.shape();
    let channels = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / channels;
    of_pictures(x, [1, rows, channels])
}

/// The sums of `x[batch, rows, channels]` over rows: `[batch · channels]`.
pub(super) fn of_pictures(x: CubeTensor, [batch, rows, channels]: [usize; 3]) -> CubeTensor {
    let chunk = chunk_of(rows);
    let chunks = rows.div_ceil(chunk);
    let numbers = element(x.dtype);
    let (vector, lanes, abreast) = across(channels);
    let y = empty(&x, Shape::from([batch * chunks * channels]), DType::F32);
    chunk_sums::launch(
        &x.client,
        CubeCount::Static(lanes.div_ceil(abreast) as u32, chunks as u32, batch as u32),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        chunk,
        lanes,
        abreast,
        numbers,
    );
    if chunks == 1 { y } else { of_pictures(y, [batch, chunks, channels]) }
}

/// How many channels a unit reads at once, how many such lanes there are, and how many of them a cube takes abreast.
pub(super) fn across(channels: usize) -> (usize, usize, usize) {
    let vector = widest(channels).min(4);
    let lanes = channels / vector;
    (vector, lanes, lanes.next_power_of_two().min(32))
}

/// Sums over chunks of the rows of `x[batch, rows, lanes]`: `y[batch, chunks, lanes]`. A cube for `abreast` lanes of each
/// chunk of each of the batch.
#[cube(launch)]
fn chunk_sums<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &mut [Vector<f32, N>],
    rows: usize,
    chunk: usize,
    #[comptime] lanes: usize,
    #[comptime] abreast: usize,
    #[define(F)] _numbers: ElemType,
) {
    let mut shared = Shared::new_slice(comptime!(UNITS as usize));
    let unit = UNIT_POS as usize;
    let lane = CUBE_POS_X as usize * abreast + unit % abreast;
    let batch = CUBE_POS_Z as usize;
    let first = CUBE_POS_Y as usize * chunk;
    let mut last = first + chunk;
    if last > rows {
        last = rows;
    }
    let mut sum = Vector::<f32, N>::new(0.0);
    if lane < lanes {
        let mut row = first + unit / abreast;
        while row < last {
            sum += Vector::cast_from(x[(batch * rows + row) * lanes + lane]);
            row += comptime!(UNITS as usize / abreast);
        }
    }
    shared[unit] = sum;
    sync_cube();
    if unit < abreast && lane < lanes {
        for other in 1..comptime!(UNITS as usize / abreast) {
            sum += shared[other * abreast + unit];
        }
        y[(batch * CUBE_COUNT_Y as usize + CUBE_POS_Y as usize) * lanes + lane] = sum;
    }
}

/// Values whose squares one cube adds up, at least; and the most such parts.
const PART: usize = 16 * UNITS as usize;
const MOST_PARTS: usize = 256;

/// The shape of [`of_squares`] of a tensor of this one.
pub(super) fn parts_of(x: &Shape) -> Shape {
    Shape::from([x.num_elements().div_ceil(PART).clamp(1, MOST_PARTS)])
}

/// The sum of squares of `x`, in parts that are to be added up.
pub(super) fn of_squares(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let shape = parts_of(x.meta.shape());
    let (count, cubes) = (x.meta.shape().num_elements(), shape[0]);
    let y = empty(&x, shape, DType::F32);
    let vector = widest(count).min(4);
    part_squares::launch(
        &x.client,
        CubeCount::Static(cubes as u32, 1, 1),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        count / vector,
        vector,
        element(x.dtype),
    );
    y
}

/// Every unit takes every so many vectors.
#[cube(launch)]
fn part_squares<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &mut [f32],
    vectors: usize,
    #[comptime] vector: usize,
    #[define(F)] _numbers: ElemType,
) {
    let mut shared = Shared::new_slice(comptime!(UNITS as usize));
    let unit = UNIT_POS as usize;
    let mut squares = Vector::<f32, N>::new(0.0);
    let mut at = ABSOLUTE_POS;
    while at < vectors {
        let value = Vector::<f32, N>::cast_from(x[at]);
        squares += value * value;
        at += CUBE_COUNT as usize * CUBE_DIM as usize;
    }
    let mut sum = 0f32;
    #[unroll]
    for lane in 0..vector {
        sum += squares.extract(lane);
    }
    shared[unit] = sum;
    sync_cube();
    let mut half = comptime!(UNITS as usize / 2).runtime();
    while half > 0 {
        if unit < half {
            shared[unit] = shared[unit] + shared[unit + half];
        }
        sync_cube();
        half /= 2;
    }
    if unit == 0 {
        y[CUBE_POS as usize] = shared[0];
    }
}
