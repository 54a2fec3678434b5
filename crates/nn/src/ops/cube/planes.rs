//! Products in half floats on the matrix units of a card, by planes: tiles in fast memory, of which one pair is filled while
//! the other is multiplied.

#![allow(unsafe_code, reason = "kernels hold their units back at the end of a matrix themselves")]

use super::tiles::put_together;
use super::{element, empty, grid};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use half::f16;

/// How many cubes keep a large card busy: two for each multiprocessor of an H100.
const ENOUGH_CUBES: usize = 264;

/// The shortest share of a sum.
const SHORTEST_SHARE: usize = 256;

/// Summed values of a tile.
const DEPTH: usize = 32;

/// Eights of a tile's line: one more than are used, so that lines below each other lie in other banks.
const LINE: usize = DEPTH / 8 + 1;

/// Sides that the matrices may have which a plane multiplies at once, the best first.
const SIDES: [usize; 2] = [16, 8];

/// Rows and columns of a cube's tile, and among how many cubes its sums are shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    rows: usize,
    columns: usize,
    shares: usize,
}

impl Plan {
    /// For results of `rows` x `columns` that are sums over `length`, where a cube has so many bytes of fast memory.
    fn of(matrices: usize, rows: usize, columns: usize, length: usize, memory: usize) -> Self {
        let tiles = |[m, n]: [usize; 2]| matrices * rows.div_ceil(m) * columns.div_ceil(n);
        let most_shares = (length / SHORTEST_SHARE).max(1);
        let sides = [[128, 128], [64, 128], [64, 64]];
        let filled = |[m, n]: [usize; 2]| 10 * tiles([m, n]) * m * n <= 11 * tiles([64, 64]) * 64 * 64;
        let enough = |side: &[usize; 2]| {
            fast_memory(*side) <= memory && filled(*side) && tiles(*side) * most_shares >= ENOUGH_CUBES
        };
        let side = sides.into_iter().find(enough).unwrap_or([64, 64]);
        let shares = (ENOUGH_CUBES / tiles(side)).clamp(1, most_shares);
        Self { rows: side[0], columns: side[1], shares }
    }
}

/// Bytes of two pairs of tiles of such sides.
fn fast_memory([rows, columns]: [usize; 2]) -> usize {
    2 * (rows + columns) * LINE * size_of::<[u32; 4]>()
}

/// Planes of a cube.
const PLANES: usize = 8;

/// Units of a plane of a card whose planes multiply such matrices, and the side of what they multiply at once.
pub(super) fn multiplying_plane(client: &Client) -> Option<(usize, usize)> {
    let properties = client.properties();
    let half = ElemType::Float(FloatKind::F16);
    let has = |side: &usize| {
        let (m, n, k) = (*side as u32, *side as u32, *side as u32);
        let cd_type = ElemType::Float(FloatKind::F32);
        properties.features.matmul.cmma.contains(&MmaConfig { a_type: half, b_type: half, cd_type, m, n, k })
    };
    let hardware = &properties.hardware;
    let plane = hardware.plane_size_max as usize;
    let of_one_size = hardware.plane_size_min == hardware.plane_size_max;
    // The smallest tile has something to bring for every unit.
    let side = SIDES.into_iter().find(has).filter(|_| of_one_size && PLANES * plane <= 64 * DEPTH / 8)?;
    Some((plane, side))
}

/// `y[.., rows, out]` from `a[.., rows, in]` in order along rows and `b[.., in, out]` along columns, as layers multiply by
/// their weights, in half floats, where the card has units for that and lines can be read sixteen bytes at a time.
pub(super) fn multiply(a: &CubeTensor, b: &CubeTensor, y: &CubeTensor) -> bool {
    let shape = a.meta.shape();
    let last = shape.num_dims() - 1;
    let (rows, length, columns) = (shape[last - 1], shape[last], b.meta.shape()[last]);
    let matrices: usize = shape[..last - 1].iter().product();
    let (a_strides, b_strides) = (a.meta.strides(), b.meta.strides());
    let (a_stride, b_stride) = (a_strides[last - 1], b_strides[last]);
    if a_strides[last] != 1
        || b_strides[last] == 1
        || [a, b, y].iter().any(|x| x.dtype != DType::F16)
        || [a_stride, b_stride, length].iter().any(|length| !length.is_multiple_of(8))
    {
        return false;
    }
    let Some((plane, side)) = multiplying_plane(&a.client) else { return false };
    let memory = a.client.properties().hardware.max_shared_memory_size;
    let plan = Plan::of(matrices, rows, columns, length, memory);
    if fast_memory([plan.rows, plan.columns]) > memory
        || !rows.is_multiple_of(side)
        || !columns.is_multiple_of(side)
    {
        return false;
    }
    let share = length.div_ceil(plan.shares).next_multiple_of(DEPTH);
    let shares = length.div_ceil(share);
    let parts = match shares {
        1 => y.clone(),
        _ => empty(y, Shape::from([matrices, shares, rows, columns]), DType::F32),
    };
    let (tiles_down, tiles_across) = (rows.div_ceil(plan.rows), columns.div_ceil(plan.columns));
    let forms = Forms { rows: plan.rows, columns: plan.columns, shared_out: shares > 1, plane, side };
    // SAFETY: units that would read or write past the end of a matrix are held back by the kernel itself.
    unsafe {
        tile_product::launch_unchecked(
            &a.client,
            grid(tiles_down * tiles_across * matrices * shares),
            CubeDim::new_1d((PLANES * plane) as u32),
            a.clone().into_buffer_arg(),
            b.clone().into_buffer_arg(),
            parts.clone().into_buffer_arg(),
            rows,
            columns,
            length,
            a_stride / 8,
            rows * length / 8,
            b_stride / 8,
            length * columns / 8,
            tiles_down,
            tiles_across,
            matrices * shares,
            shares,
            share,
            forms,
            element(parts.dtype),
        );
    }
    if shares > 1 {
        put_together(&parts, y, shares);
    }
    true
}

/// How the tiles lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Forms {
    rows: usize,
    columns: usize,
    shared_out: bool,
    /// Units of a plane.
    plane: usize,
    /// Of what a plane multiplies at once.
    side: usize,
}

/// Eight half floats.
type Eight = Vector<u32, Const<4>>;

/// A cube for each tile of each matrix and share. Of its eight planes each multiplies a half of the rows by a quarter of the
/// columns.
#[cube(launch_unchecked)]
fn tile_product<G: Numeric>(
    a: &[Eight],
    b: &[Eight],
    y: &mut [G],
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
    #[define(G)] _results: ElemType,
) {
    let tile_rows = comptime!(forms.rows);
    let tile_columns = comptime!(forms.columns);
    let a_size = comptime!(LINE * forms.rows);
    let b_size = comptime!(LINE * forms.columns);
    let mut a_tile = Shared::<[Eight]>::new_slice(comptime!(2 * a_size));
    let mut b_tile = Shared::<[Eight]>::new_slice(comptime!(2 * b_size));
    let cube = CUBE_POS as usize;
    let part = cube / (tiles_across * tiles_down);
    if part >= parts {
        terminate!();
    }
    let row_start = cube / tiles_across % tiles_down * tile_rows;
    let column_start = cube % tiles_across * tile_columns;
    let from = part % shares * share;
    let matrix = part / shares;
    let mut to = from + share;
    if to > length {
        to = length;
    }
    let units = comptime!(PLANES * forms.plane);
    let plane = UNIT_POS as usize / comptime!(forms.plane);
    let plane_row = plane / 4 * comptime!(tile_rows / 2);
    let plane_column = plane % 4 * comptime!(tile_columns / 4);
    let side = comptime!(forms.side);
    let down = comptime!(tile_rows / 2 / side);
    let across = comptime!(tile_columns / 4 / side);
    let a_bring = comptime!(tile_rows * DEPTH / 8 / units);
    let b_bring = comptime!(tile_columns * DEPTH / 8 / units);
    let mut a_next = Array::<Eight>::new(a_bring);
    let mut b_next = Array::<Eight>::new(b_bring);
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(down * across) {
        sums.push(Matrix::from_value(
            MatrixIdent::Accumulator,
            comptime!(side),
            comptime!(side),
            comptime!(side),
            MatrixLayout::Undefined,
            0.0,
        ));
    }
    bring(a, &mut a_next, matrix * a_matrix, a_stride, row_start, rows, from, to, a_bring, units);
    bring(b, &mut b_next, matrix * b_matrix, b_stride, column_start, columns, from, to, b_bring, units);
    lay(&mut a_tile, &a_next, 0usize, a_bring, units);
    lay(&mut b_tile, &b_next, 0usize, b_bring, units);
    sync_cube();
    let mut start = from;
    let mut half = 0usize;
    while start < to {
        let next = start + comptime!(DEPTH);
        if next < to {
            bring(a, &mut a_next, matrix * a_matrix, a_stride, row_start, rows, next, to, a_bring, units);
            bring(
                b,
                &mut b_next,
                matrix * b_matrix,
                b_stride,
                column_start,
                columns,
                next,
                to,
                b_bring,
                units,
            );
        }
        #[unroll]
        for step in 0..comptime!(DEPTH / side) {
            let inner = comptime!(step * side);
            let mut right = Sequence::<Matrix<f16>>::new();
            #[unroll]
            for index in 0..across {
                let column = plane_column + comptime!(index * side);
                let at = half * b_size + column * comptime!(LINE) + inner / 8;
                right.push(of_tile(&b_tile, at, side, MatrixIdent::B, MatrixLayout::ColMajor));
            }
            #[unroll]
            for index in 0..down {
                let row = plane_row + comptime!(index * side);
                let at = half * a_size + row * comptime!(LINE) + inner / 8;
                let left = of_tile(&a_tile, at, side, MatrixIdent::A, MatrixLayout::RowMajor);
                #[unroll]
                for other in 0..across {
                    let sum = sums.index(comptime!(index * across + other));
                    cmma::execute(&left, right.index(other), sum, sum);
                }
            }
        }
        half = 1 - half;
        if next < to {
            lay(&mut a_tile, &a_next, half * a_size, a_bring, units);
            lay(&mut b_tile, &b_next, half * b_size, b_bring, units);
        }
        sync_cube();
        start = next;
    }
    #[unroll]
    for index in 0..down {
        #[unroll]
        for other in 0..across {
            let row = row_start + plane_row + comptime!(index * side);
            let column = column_start + plane_column + comptime!(other * side);
            if row < rows && column < columns {
                let sum = sums.index(comptime!(index * across + other));
                let at = (part * rows + row) * columns + column;
                let end = at + comptime!(side - 1) * columns + comptime!(side);
                if comptime!(forms.shared_out) {
                    cmma::store(y.slice_mut(at, end), sum, columns as u32, MatrixLayout::RowMajor);
                } else {
                    let halved: Matrix<f16> = cmma::cast(sum);
                    cmma::store(y.slice_mut(at, end), &halved, columns as u32, MatrixLayout::RowMajor);
                }
            }
        }
    }
}

/// Where in a tile the `index`th of the eights lies that a unit brings: its line, and which of the line.
#[cube]
fn place(#[comptime] index: usize, #[comptime] units: usize) -> (usize, usize) {
    let at = comptime!(index * units) + UNIT_POS as usize;
    (at / comptime!(DEPTH / 8), at % comptime!(DEPTH / 8))
}

/// What a unit brings of the tile at the line `at`, of so many, and at `inner` of them, which end at `end`.
#[cube]
#[allow(clippy::too_many_arguments, reason = "what a tile is")]
fn bring(
    x: &[Eight],
    next: &mut Array<Eight>,
    start: usize,
    stride: usize,
    at: usize,
    count: usize,
    inner: usize,
    end: usize,
    #[comptime] many: usize,
    #[comptime] units: usize,
) {
    #[unroll]
    for index in 0..many {
        let (line, of_line) = place(index, units);
        let mut value = Eight::new(0u32);
        if at + line < count && inner + of_line * 8 < end {
            value = x[start + (at + line) * stride + inner / 8 + of_line];
        }
        next[index] = value;
    }
}

/// What a unit brought, laid into a tile from `start` on.
#[cube]
fn lay(
    tile: &mut Shared<[Eight]>,
    next: &Array<Eight>,
    start: usize,
    #[comptime] many: usize,
    #[comptime] units: usize,
) {
    #[unroll]
    for index in 0..many {
        let (line, of_line) = place(index, units);
        tile[start + line * comptime!(LINE) + of_line] = next[index];
    }
}

/// The matrix at `at` of a tile.
#[cube]
fn of_tile(
    tile: &Shared<[Eight]>,
    at: usize,
    #[comptime] side: usize,
    #[comptime] ident: MatrixIdent,
    #[comptime] layout: MatrixLayout,
) -> Matrix<f16> {
    // SAFETY: all of it is loaded before anything is multiplied.
    let mut matrix = unsafe {
        Matrix::<f16>::uninitialized(ident, comptime!(side), comptime!(side), comptime!(side), layout)
    };
    // In numbers of the tile's, of which an eight has four.
    let stride = comptime!(4 * LINE as u32);
    cmma::load(&mut matrix, tile.slice(at, at + comptime!((side - 1) * LINE + side / 8)), stride.runtime());
    matrix
}
