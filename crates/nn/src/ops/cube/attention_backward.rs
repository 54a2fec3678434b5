//! The way back through softmax, and the learned bias of relative places in windows.

use super::attention::ROW_UNITS;
use super::{UNITS, element, empty, grid};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Gradient of scores, whose softmax along the last dimension are `shares`, from that of the shares.
pub(super) fn softmax_backward(shares: CubeTensor, of_shares: CubeTensor) -> CubeTensor {
    let (shares, of_shares) = (into_contiguous(shares), into_contiguous(of_shares));
    let shape = shares.meta.shape().clone();
    let keys = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / keys;
    let y = empty(&shares, shape, shares.dtype);
    let numbers = element(shares.dtype);
    score_gradients::launch(
        &shares.client,
        grid(rows),
        CubeDim::new_1d(ROW_UNITS),
        shares.clone().into_buffer_arg(),
        of_shares.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        keys,
        numbers,
    );
    y
}

/// A cube for each row.
#[cube(launch)]
fn score_gradients<F: Float>(
    shares: &[F],
    of_shares: &[F],
    y: &mut [F],
    rows: usize,
    keys: usize,
    #[define(F)] _numbers: ElemType,
) {
    let mut shared = Shared::new_slice(comptime!(ROW_UNITS as usize));
    let row = CUBE_POS as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * keys;
    let mut mean = 0f32;
    let mut key = UNIT_POS as usize;
    while key < keys {
        mean += f32::cast_from(shares[start + key]) * f32::cast_from(of_shares[start + key]);
        key += CUBE_DIM as usize;
    }
    shared[UNIT_POS as usize] = mean;
    sync_cube();
    mean = shared[0];
    for other in 1..comptime!(ROW_UNITS as usize) {
        mean += shared[other];
    }
    key = UNIT_POS as usize;
    while key < keys {
        let off = f32::cast_from(of_shares[start + key]) - mean;
        y[start + key] = F::cast_from(f32::cast_from(shares[start + key]) * off);
        key += CUBE_DIM as usize;
    }
}

/// As [`super::super::relative_bias`].
pub(super) fn relative_bias(table: CubeTensor, window: usize) -> CubeTensor {
    let table = into_contiguous(table);
    let (tokens, heads) = (window * window, table.meta.shape()[1]);
    let y = empty(&table, Shape::from([heads, tokens, tokens]), DType::F32);
    relative_places::launch(
        &table.client,
        grid((heads * tokens * tokens).div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        table.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        heads,
        window,
    );
    y
}

/// A unit for each pair of tokens of each head.
#[cube(launch)]
fn relative_places(table: &[f32], y: &mut [f32], heads: usize, #[comptime] window: usize) {
    let tokens = comptime!(window * window);
    let at = ABSOLUTE_POS;
    if at >= heads * tokens * tokens {
        terminate!();
    }
    let key = at % tokens;
    let query = at / tokens % tokens;
    let down = query / window + window - 1 - key / window;
    let across = query % window + window - 1 - key % window;
    y[at] = table[(down * comptime!(2 * window - 1) + across) * heads + at / comptime!(tokens * tokens)];
}

/// Gradient of the table of [`relative_bias`].
pub(super) fn relative_bias_backward(dy: CubeTensor, window: usize) -> CubeTensor {
    let dy = into_contiguous(dy);
    let (heads, side) = (dy.meta.shape()[0], 2 * window - 1);
    let y = empty(&dy, Shape::from([side * side, heads]), DType::F32);
    sums_of_places::launch(
        &dy.client,
        grid((side * side * heads).div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        dy.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        heads,
        window,
    );
    y
}

/// A unit for each relative place of each head: the sum over all pairs of tokens that stand so.
#[cube(launch)]
fn sums_of_places(dy: &[f32], y: &mut [f32], heads: usize, #[comptime] window: usize) {
    let side = comptime!(2 * window - 1);
    let tokens = comptime!(window * window);
    let at = ABSOLUTE_POS;
    if at >= heads * comptime!(side * side) {
        terminate!();
    }
    let head = at % heads;
    let place = at / heads;
    // The query stands so many rows below the key, and columns beside it, less `window - 1`.
    let down = place / side;
    let across = place % side;
    let mut sum = 0f32;
    for key_row in 0..window {
        let query_row = key_row + down;
        if query_row >= comptime!(window - 1) && query_row < side {
            for key_column in 0..window {
                let query_column = key_column + across;
                if query_column >= comptime!(window - 1) && query_column < side {
                    let query =
                        (query_row - comptime!(window - 1)) * window + query_column - comptime!(window - 1);
                    sum += dy[(head * tokens + query) * tokens + key_row * window + key_column];
                }
            }
        }
    }
    y[at] = sum;
}
