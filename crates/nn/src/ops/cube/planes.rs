//! Products in half floats on the matrix units of a card, by planes: tiles in fast memory, of which one pair is filled while
//! the other is multiplied.

use super::tiles::put_together;
use super::{UNITS, element, empty, grid};
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

/// Side of the matrices that a plane multiplies at once.
const SIDE: usize = 16;

/// Rows and columns of a cube's tile, and among how many cubes its sums are shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) shares: usize,
}

impl Plan {
    /// For results of `rows` x `columns` that are sums over `length`.
    pub(super) fn of(matrices: usize, rows: usize, columns: usize, length: usize) -> Self {
        let tiles = |[m, n]: [usize; 2]| matrices * rows.div_ceil(m) * columns.div_ceil(n);
        let most_shares = (length / SHORTEST_SHARE).max(1);
        let sides = [[128, 128], [64, 128], [64, 64]];
        let filled = |[m, n]: [usize; 2]| 10 * tiles([m, n]) * m * n <= 11 * tiles([64, 64]) * 64 * 64;
        let enough = |side: &[usize; 2]| filled(*side) && tiles(*side) * most_shares >= ENOUGH_CUBES;
        let side = sides.into_iter().find(enough).unwrap_or([64, 64]);
        let shares = (ENOUGH_CUBES / tiles(side)).clamp(1, most_shares);
        Self { rows: side[0], columns: side[1], shares }
    }
}

/// Whether the planes of a card multiply such matrices.
fn multiplies(client: &Client) -> bool {
    let half = ElemType::Float(FloatKind::F16);
    let (m, n, k) = (SIDE as u32, SIDE as u32, SIDE as u32);
    let config = MmaConfig { a_type: half, b_type: half, cd_type: ElemType::Float(FloatKind::F32), m, n, k };
    let properties = client.properties();
    // The kernel has eight planes of thirty-two units.
    let hardware = &properties.hardware;
    properties.features.matmul.cmma.contains(&config)
        && hardware.plane_size_min == 32
        && hardware.plane_size_max == 32
}

/// `y[.., rows, out]` from `a[.., rows, in]` and `b[.., in, out]` in half floats, each in order along rows or columns, where
/// the card has units for that and lines can be read sixteen bytes at a time.
pub(super) fn multiply(a: &CubeTensor, b: &CubeTensor, y: &CubeTensor) -> bool {
    let shape = a.meta.shape();
    let last = shape.num_dims() - 1;
    let matrices = shape[..last - 1].iter().product();
    let plan = Plan::of(matrices, shape[last - 1], b.meta.shape()[last], shape[last]);
    multiply_by(plan, a, b, y)
}

pub(super) fn multiply_by(plan: Plan, a: &CubeTensor, b: &CubeTensor, y: &CubeTensor) -> bool {
    let shape = a.meta.shape();
    let last = shape.num_dims() - 1;
    let (rows, length, columns) = (shape[last - 1], shape[last], b.meta.shape()[last]);
    let matrices: usize = shape[..last - 1].iter().product();
    let stride = |x: &CubeTensor| {
        let strides = x.meta.strides();
        let by_rows = strides[last] == 1;
        (if by_rows { strides[last - 1] } else { strides[last] }, by_rows)
    };
    let ((a_stride, a_rows), (b_stride, b_rows)) = (stride(a), stride(b));
    let eights = [a_stride, b_stride, length, if a_rows { length } else { rows }];
    // Only what layers multiply, `x` by rows and a weight turned, has been run on a card.
    if !a_rows
        || b_rows
        || [a, b, y].iter().any(|x| x.dtype != DType::F16)
        || !multiplies(&a.client)
        || eights.iter().any(|length| !length.is_multiple_of(8))
        || !rows.is_multiple_of(SIDE)
        || !columns.is_multiple_of(SIDE)
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
    let forms = Forms { rows: plan.rows, columns: plan.columns, a_rows, b_rows, shared_out: shares > 1 };
    // SAFETY: units that would read or write past the end of a matrix are held back by the kernel itself.
    unsafe {
        tile_product::launch_unchecked(
            &a.client,
            grid(tiles_down * tiles_across * matrices * shares),
            CubeDim::new_1d(UNITS),
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
    a_rows: bool,
    b_rows: bool,
    shared_out: bool,
}

/// Eight half floats.
type Eight = Vector<u32, Const<4>>;

/// A cube for each tile of each matrix and share. Of its eight planes each multiplies a half of the rows by a quarter of the
/// columns. A line of a tile has eight values more than are used, so that lines below each other lie in other banks.
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
    // Lines of tiles, in eights.
    let a_line = comptime!(if forms.a_rows { DEPTH / 8 + 1 } else { forms.rows / 8 + 1 });
    let b_line = comptime!(if forms.b_rows { forms.columns / 8 + 1 } else { DEPTH / 8 + 1 });
    let a_size = comptime!(a_line * if forms.a_rows { forms.rows } else { DEPTH });
    let b_size = comptime!(b_line * if forms.b_rows { DEPTH } else { forms.columns });
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
    let plane = UNIT_POS as usize / 32;
    let plane_row = plane / 4 * comptime!(tile_rows / 2);
    let plane_column = plane % 4 * comptime!(tile_columns / 4);
    let down = comptime!(tile_rows / 2 / SIDE);
    let across = comptime!(tile_columns / 4 / SIDE);
    let a_bring = comptime!(tile_rows * DEPTH / 8 / UNITS as usize);
    let b_bring = comptime!(tile_columns * DEPTH / 8 / UNITS as usize);
    let mut a_next = Array::<Eight>::new(a_bring);
    let mut b_next = Array::<Eight>::new(b_bring);
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(down * across) {
        sums.push(Matrix::from_value(
            MatrixIdent::Accumulator,
            comptime!(SIDE),
            comptime!(SIDE),
            comptime!(SIDE),
            MatrixLayout::Undefined,
            0.0,
        ));
    }
    bring(
        a,
        &mut a_next,
        matrix * a_matrix,
        a_stride,
        row_start,
        rows,
        from,
        to,
        a_bring,
        tile_rows,
        comptime!(forms.a_rows),
    );
    bring(
        b,
        &mut b_next,
        matrix * b_matrix,
        b_stride,
        column_start,
        columns,
        from,
        to,
        b_bring,
        tile_columns,
        comptime!(!forms.b_rows),
    );
    lay(&mut a_tile, &a_next, 0usize, a_bring, tile_rows, comptime!(forms.a_rows));
    lay(&mut b_tile, &b_next, 0usize, b_bring, tile_columns, comptime!(!forms.b_rows));
    sync_cube();
    let mut start = from;
    let mut half = 0usize;
    while start < to {
        let next = start + comptime!(DEPTH);
        if next < to {
            bring(
                a,
                &mut a_next,
                matrix * a_matrix,
                a_stride,
                row_start,
                rows,
                next,
                to,
                a_bring,
                tile_rows,
                comptime!(forms.a_rows),
            );
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
                tile_columns,
                comptime!(!forms.b_rows),
            );
        }
        #[unroll]
        for step in 0..comptime!(DEPTH / SIDE) {
            let inner = comptime!(step * SIDE);
            let mut right = Sequence::<Matrix<f16>>::new();
            #[unroll]
            for index in 0..across {
                let column = plane_column + comptime!(index * SIDE);
                let at = if comptime!(forms.b_rows) {
                    half * b_size + inner * b_line + column / 8
                } else {
                    half * b_size + column * b_line + inner / 8
                };
                let layout =
                    comptime!(if forms.b_rows { MatrixLayout::RowMajor } else { MatrixLayout::ColMajor });
                right.push(of_tile(&b_tile, at, b_line, MatrixIdent::B, layout));
            }
            #[unroll]
            for index in 0..down {
                let row = plane_row + comptime!(index * SIDE);
                let at = if comptime!(forms.a_rows) {
                    half * a_size + row * a_line + inner / 8
                } else {
                    half * a_size + inner * a_line + row / 8
                };
                let layout =
                    comptime!(if forms.a_rows { MatrixLayout::RowMajor } else { MatrixLayout::ColMajor });
                let left = of_tile(&a_tile, at, a_line, MatrixIdent::A, layout);
                #[unroll]
                for other in 0..across {
                    let sum = sums.index(comptime!(index * across + other));
                    cmma::execute(&left, right.index(other), sum, sum);
                }
            }
        }
        half = 1 - half;
        if next < to {
            lay(&mut a_tile, &a_next, half * a_size, a_bring, tile_rows, comptime!(forms.a_rows));
            lay(&mut b_tile, &b_next, half * b_size, b_bring, tile_columns, comptime!(!forms.b_rows));
        }
        sync_cube();
        start = next;
    }
    #[unroll]
    for index in 0..down {
        #[unroll]
        for other in 0..across {
            let row = row_start + plane_row + comptime!(index * SIDE);
            let column = column_start + plane_column + comptime!(other * SIDE);
            if row < rows && column < columns {
                let sum = sums.index(comptime!(index * across + other));
                let at = (part * rows + row) * columns + column;
                let end = at + comptime!(SIDE - 1) * columns + comptime!(SIDE);
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
fn place(#[comptime] index: usize, #[comptime] side: usize, #[comptime] along: bool) -> (usize, usize) {
    let at = comptime!(index * UNITS as usize) + UNIT_POS as usize;
    let of_line = comptime!(if along { DEPTH / 8 } else { side / 8 });
    (at / of_line, at % of_line)
}

/// What a unit brings of the tile at `at`, of so many, across and `inner` along the summed dimension, along which lines go if
/// `along`.
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
    #[comptime] side: usize,
    #[comptime] along: bool,
) {
    #[unroll]
    for index in 0..many {
        let (line, of_line) = place(index, side, along);
        let mut value = Eight::new(0u32);
        if comptime!(along) {
            if at + line < count && inner + of_line * 8 < end {
                value = x[start + (at + line) * stride + inner / 8 + of_line];
            }
        } else {
            if inner + line < end && at + of_line * 8 < count {
                value = x[start + (inner + line) * stride + at / 8 + of_line];
            }
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
    #[comptime] side: usize,
    #[comptime] along: bool,
) {
    let line_length = comptime!(if along { DEPTH / 8 + 1 } else { side / 8 + 1 });
    #[unroll]
    for index in 0..many {
        let (line, of_line) = place(index, side, along);
        tile[start + line * line_length + of_line] = next[index];
    }
}

/// The matrix at `at` of a tile with lines of so many eights.
#[cube]
fn of_tile(
    tile: &Shared<[Eight]>,
    at: usize,
    #[comptime] line: usize,
    #[comptime] ident: MatrixIdent,
    #[comptime] layout: MatrixLayout,
) -> Matrix<f16> {
    let mut matrix = unsafe {
        Matrix::<f16>::uninitialized(ident, comptime!(SIDE), comptime!(SIDE), comptime!(SIDE), layout)
    };
    // In numbers of the tile's, of which an eight has four.
    let stride = comptime!(4 * line as u32);
    cmma::load(&mut matrix, tile.slice(at, at + comptime!((SIDE - 1) * line + 2)), stride.runtime());
    matrix
}
