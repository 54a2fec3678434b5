//! Products by the ordinary units of a card: tiles of both matrices in fast memory, sums in registers.
//!
//! Small results with long sums, as gradients of weights are, have few tiles: their sums are shared out among cubes and
//! put together by a second kernel.

#![allow(unsafe_code, reason = "kernels hold their units back at the end of a matrix themselves")]

use super::{UNITS, element, empty, grid, widest};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// How many cubes keep a large card busy: four for each multiprocessor of an H100.
const ENOUGH_CUBES: usize = 528;

/// The shortest share of a sum.
const SHORTEST_SHARE: usize = 128;

/// Which side a tile has, and among how many cubes its sums are shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    /// Of 64 values each.
    quarters: usize,
    shares: usize,
}

impl Plan {
    /// For results of `rows` x `columns` that are sums over `length`.
    fn of(matrices: usize, rows: usize, columns: usize, length: usize) -> Self {
        let tiles = |side: usize| matrices * rows.div_ceil(side) * columns.div_ceil(side);
        let most_shares = (length / SHORTEST_SHARE).max(1);
        // Larger tiles read less, where they are filled and enough of them are left.
        let filled = 10 * 4 * tiles(128) <= 11 * tiles(64);
        let quarters = if filled && tiles(128) * most_shares >= ENOUGH_CUBES { 2 } else { 1 };
        let shares = (ENOUGH_CUBES / tiles(64 * quarters)).clamp(1, most_shares);
        Self { quarters, shares }
    }
}

/// A matrix, or several of one size, whose values lie in order along rows or along columns.
struct Lines {
    /// Whether these are rows.
    rows: bool,
    /// From one to the next.
    stride: usize,
    /// From one matrix to the next.
    matrix: usize,
    /// How many values are read at once.
    vector: usize,
}

impl Lines {
    fn of(x: &CubeTensor) -> Self {
        let (shape, strides) = (x.meta.shape(), x.meta.strides());
        let last = shape.num_dims() - 1;
        let rows = strides[last] == 1;
        let (stride, length) =
            if rows { (strides[last - 1], shape[last]) } else { (strides[last], shape[last - 1]) };
        let matrix = shape[last - 1] * shape[last];
        let whole = [stride, length, matrix].iter().all(|length| length.is_multiple_of(4));
        Self { rows, stride, matrix, vector: if whole { 4 } else { 1 } }
    }
}

/// `y[.., rows, out]` from `a[.., rows, in]` and `b[.., in, out]`, each in order along rows or columns.
pub(super) fn multiply(a: &CubeTensor, b: &CubeTensor, y: &CubeTensor) {
    let shape = a.meta.shape();
    let last = shape.num_dims() - 1;
    let (rows, length, columns) = (shape[last - 1], shape[last], b.meta.shape()[last]);
    let matrices: usize = shape[..last - 1].iter().product();
    let plan = Plan::of(matrices, rows, columns, length);
    let side = 64 * plan.quarters;
    let share = length.div_ceil(plan.shares).next_multiple_of(64).max(64);
    let shares = length.div_ceil(share).max(1);
    let parts = match shares {
        1 => y.clone(),
        _ => empty(y, Shape::from([matrices, shares, rows, columns]), DType::F32),
    };
    let (a_lines, b_lines) = (Lines::of(a), Lines::of(b));
    let (tiles_down, tiles_across) = (rows.div_ceil(side), columns.div_ceil(side));
    let forms = Forms { quarters: plan.quarters, a_rows: a_lines.rows, b_rows: b_lines.rows };
    // SAFETY: every unit that reads or writes past the end of a matrix is held back by the kernel itself.
    unsafe {
        tile_product::launch_unchecked(
            &a.client,
            grid(tiles_down * tiles_across * matrices * shares),
            CubeDim::new_1d(UNITS),
            a_lines.vector,
            b_lines.vector,
            if columns.is_multiple_of(4) { 4 } else { 1 },
            a.clone().into_buffer_arg(),
            b.clone().into_buffer_arg(),
            parts.clone().into_buffer_arg(),
            rows,
            columns,
            length,
            a_lines.stride,
            a_lines.matrix,
            b_lines.stride,
            b_lines.matrix,
            tiles_down,
            tiles_across,
            matrices * shares,
            shares,
            share,
            forms,
            a_lines.vector == 4,
            b_lines.vector == 4,
            columns.is_multiple_of(4),
            element(a.dtype),
            element(parts.dtype),
        );
    }
    if shares > 1 {
        put_together(&parts, y, shares);
    }
}

/// How the tiles lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Forms {
    quarters: usize,
    a_rows: bool,
    b_rows: bool,
}

/// A cube for each tile of each matrix and share. Tiles are in fast memory with `in` as the outer dimension, twice: one is
/// filled while the other is read. Of 16 x 16 units each sums up 4 x 4 values of each quarter.
#[cube(launch_unchecked)]
fn tile_product<F: Float, G: Float, A: Size, B: Size, Y: Size>(
    a: &[Vector<F, A>],
    b: &[Vector<F, B>],
    y: &mut [Vector<G, Y>],
    rows: usize,
    columns: usize,
    length: usize,
    a_stride: usize,
    a_matrix: usize,
    b_stride: usize,
    b_matrix: usize,
    tiles_down: usize,
    tiles_across: usize,
    parts: usize,
    shares: usize,
    share: usize,
    #[comptime] forms: Forms,
    #[comptime] a_wide: bool,
    #[comptime] b_wide: bool,
    #[comptime] y_wide: bool,
    #[define(F)] _numbers: ElemType,
    #[define(G)] _results: ElemType,
) {
    let quarters = comptime!(forms.quarters);
    let side = comptime!(64 * quarters);
    let depth = comptime!(32 / quarters);
    // In vectors of four.
    let across = comptime!(side / 4);
    let mut a_tile = Shared::new_slice(comptime!(2 * 32 / quarters * 16 * quarters));
    let mut b_tile = Shared::new_slice(comptime!(2 * 32 / quarters * 16 * quarters));
    let cube = CUBE_POS as usize;
    let part = cube / (tiles_across * tiles_down);
    if part >= parts {
        terminate!();
    }
    let row_start = cube / tiles_across % tiles_down * side;
    let column_start = cube % tiles_across * side;
    let from = part % shares * share;
    let matrix = part / shares;
    let mut to = from + share;
    if to > length {
        to = length;
    }
    let unit = UNIT_POS as usize;
    let unit_row = unit / 16;
    let unit_column = unit % 16;
    // Of the block of 4 x 4 values that a unit brings: half of the units bring those of `a`, the others those of `b`.
    let of_half = unit % 128;
    let warp = of_half / 32;
    let wide = of_half % 8 + warp % comptime!(2 * quarters) * 8;
    let deep = of_half / 8 % 4 + warp / comptime!(2 * quarters) * 4;
    let mut block = Array::<Vector<f32, Const<4>>>::new(4usize);
    let mut sums = Array::<Vector<f32, Const<4>>>::new(comptime!(4 * quarters * quarters));
    #[unroll]
    for index in 0..comptime!(4 * quarters * quarters) {
        sums[index] = Vector::<f32, Const<4>>::new(0.0);
    }
    let mut a_values = Array::<Vector<f32, Const<4>>>::new(quarters);
    let mut b_values = Array::<Vector<f32, Const<4>>>::new(quarters);
    if unit < 128 {
        let at = row_start + wide * 4;
        bring::<F, A>(
            a,
            &mut block,
            matrix * a_matrix,
            a_stride,
            at,
            rows,
            from + deep * 4,
            to,
            comptime!(forms.a_rows),
            a_wide,
        );
        lay(&mut a_tile, &block, deep * 4 * across + wide, across, comptime!(forms.a_rows));
    } else {
        let at = column_start + wide * 4;
        bring::<F, B>(
            b,
            &mut block,
            matrix * b_matrix,
            b_stride,
            at,
            columns,
            from + deep * 4,
            to,
            comptime!(!forms.b_rows),
            b_wide,
        );
        lay(&mut b_tile, &block, deep * 4 * across + wide, across, comptime!(!forms.b_rows));
    }
    sync_cube();
    let mut start = from;
    let mut half = 0usize;
    while start < to {
        let next = start + depth;
        if next < to {
            if unit < 128 {
                let at = row_start + wide * 4;
                bring::<F, A>(
                    a,
                    &mut block,
                    matrix * a_matrix,
                    a_stride,
                    at,
                    rows,
                    next + deep * 4,
                    to,
                    comptime!(forms.a_rows),
                    a_wide,
                );
            } else {
                let at = column_start + wide * 4;
                bring::<F, B>(
                    b,
                    &mut block,
                    matrix * b_matrix,
                    b_stride,
                    at,
                    columns,
                    next + deep * 4,
                    to,
                    comptime!(!forms.b_rows),
                    b_wide,
                );
            }
        }
        let tile = half * comptime!(depth * across);
        for inner in 0..depth {
            let line = tile + inner * across;
            #[unroll]
            for quarter in 0..quarters {
                a_values[quarter] = a_tile[line + quarter * 16 + unit_row];
                b_values[quarter] = b_tile[line + quarter * 16 + unit_column];
            }
            #[unroll]
            for down in 0..quarters {
                #[unroll]
                for index in 0..4usize {
                    let factor = Vector::<f32, Const<4>>::new(a_values[down].extract(index));
                    #[unroll]
                    for right in 0..quarters {
                        let sum = comptime!((down * 4 + index) * quarters + right);
                        sums[sum] = fma(factor, b_values[right], sums[sum]);
                    }
                }
            }
        }
        half = 1 - half;
        if next < to {
            let tile = half * comptime!(depth * across);
            if unit < 128 {
                lay(&mut a_tile, &block, tile + deep * 4 * across + wide, across, comptime!(forms.a_rows));
            } else {
                lay(&mut b_tile, &block, tile + deep * 4 * across + wide, across, comptime!(!forms.b_rows));
            }
        }
        sync_cube();
        start = next;
    }
    #[unroll]
    for down in 0..quarters {
        #[unroll]
        for index in 0..4usize {
            let row = row_start + down * 64 + unit_row * 4 + index;
            #[unroll]
            for right in 0..quarters {
                let column = column_start + right * 64 + unit_column * 4;
                let sum = sums[comptime!((down * 4 + index) * quarters + right)];
                let at = (part * rows + row) * columns + column;
                if row < rows {
                    if comptime!(y_wide) {
                        if column < columns {
                            y[at / 4] = Vector::cast_from(sum);
                        }
                    } else {
                        #[unroll]
                        for lane in 0..4usize {
                            if column + lane < columns {
                                y[at + lane] = Vector::cast_from(sum.extract(lane));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The block of 4 x 4 values at `at`, of so many, across and `inner` along the summed dimension, whose values lie in order
/// if `along`.
#[cube]
#[allow(clippy::too_many_arguments, reason = "what a block is")]
fn bring<F: Float, V: Size>(
    x: &[Vector<F, V>],
    block: &mut Array<Vector<f32, Const<4>>>,
    start: usize,
    stride: usize,
    at: usize,
    count: usize,
    inner: usize,
    end: usize,
    #[comptime] along: bool,
    #[comptime] wide: bool,
) {
    // A line is one place across, or one along.
    let mut line = at;
    let mut lines = count;
    let mut first = inner;
    let mut length = end;
    if comptime!(!along) {
        line = inner;
        lines = end;
        first = at;
        length = count;
    }
    #[unroll]
    for index in 0..4usize {
        let mut values = Vector::<f32, Const<4>>::new(0.0);
        let place = start + (line + index) * stride + first;
        if line + index < lines {
            if comptime!(wide) {
                if first < length {
                    values = Vector::cast_from(x[place / 4]);
                }
            } else {
                #[unroll]
                for lane in 0..4usize {
                    if first + lane < length {
                        values.insert(lane, f32::cast_from(x[place + lane].extract(0usize)));
                    }
                }
            }
        }
        block[index] = values;
    }
}

/// A block laid into a tile, turned if its lines go along the summed dimension.
#[cube]
fn lay(
    tile: &mut Shared<[Vector<f32, Const<4>>]>,
    block: &Array<Vector<f32, Const<4>>>,
    at: usize,
    across: usize,
    #[comptime] turned: bool,
) {
    #[unroll]
    for index in 0..4usize {
        if comptime!(turned) {
            let mut values = Vector::<f32, Const<4>>::empty();
            #[unroll]
            for line in 0..4usize {
                values.insert(line, block[line].extract(index));
            }
            tile[at + index * across] = values;
        } else {
            tile[at + index * across] = block[index];
        }
    }
}

/// `y[matrices, ..]` as the sum of `parts[matrices, shares, ..]`.
pub(super) fn put_together(parts: &CubeTensor, y: &CubeTensor, shares: usize) {
    let shape = parts.meta.shape();
    let of_matrix = shape[2] * shape[3];
    let vector = widest(of_matrix).min(4);
    let vectors = shape[0] * of_matrix / vector;
    sum_of_shares::launch(
        &parts.client,
        grid(vectors.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        vector,
        parts.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        vectors,
        of_matrix / vector,
        shares,
        element(y.dtype),
    );
}

#[cube(launch)]
fn sum_of_shares<F: Float, N: Size>(
    parts: &[Vector<f32, N>],
    y: &mut [Vector<F, N>],
    vectors: usize,
    of_matrix: usize,
    shares: usize,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= vectors {
        terminate!();
    }
    let start = at / of_matrix * shares * of_matrix + at % of_matrix;
    let mut sum = parts[start];
    for share in 1..shares {
        sum += parts[start + share * of_matrix];
    }
    y[at] = Vector::cast_from(sum);
}
