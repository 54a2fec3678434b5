//! Products on the matrix units of a card, by a whole cube at once (`VK_NV_cooperative_matrix2`): the driver brings the
//! tiles and lays them out.

use super::tiles::put_together;
use super::{empty, grid};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::cmma::{self, Cube, Matrix, MatrixIdent, MatrixLayout};
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use half::f16;

/// How many cubes keep a large card busy: one for each multiprocessor of an H100.
const ENOUGH_CUBES: usize = 132;

/// The shortest share of a sum.
const SHORTEST_SHARE: usize = 512;

/// Rows, columns and summed values of the tiles that a cube multiplies at once, its units, and among how many cubes a sum
/// is shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) tile: [usize; 3],
    pub(super) units: usize,
    pub(super) shares: usize,
}

impl Plan {
    /// For results of `rows` x `columns` that are sums over `length`.
    pub(super) fn of(matrices: usize, rows: usize, columns: usize, length: usize) -> Self {
        let tiles = |tile: [usize; 3]| matrices * rows.div_ceil(tile[0]) * columns.div_ceil(tile[1]);
        let large = [[128, 256, 32], [128, 128, 32], [64, 128, 32]];
        let tile = large.into_iter().find(|tile| tiles(*tile) >= ENOUGH_CUBES).unwrap_or([64, 64, 32]);
        let shares = (ENOUGH_CUBES / tiles(tile)).clamp(1, (length / SHORTEST_SHARE).max(1));
        Self { tile, units: 256, shares }
    }

    /// Whether the card multiplies such tiles.
    fn runs_on(&self, client: &Client) -> bool {
        let features = &client.properties().features.matmul;
        let half = ElemType::Float(FloatKind::F16);
        let [rows, columns, length] = self.tile.map(|side| side as u32);
        features.cmma_tensor_addressing
            && features.cube_mma.iter().any(|config| {
                config.a_type == half
                    && config.b_type == half
                    && config.cd_type == ElemType::Float(FloatKind::F32)
                    && config.units_per_block.is_none_or(|units| units == self.units as u32)
                    && rows.is_multiple_of(config.m_granularity)
                    && columns.is_multiple_of(config.n_granularity)
                    && length.is_multiple_of(config.k_granularity)
            })
    }
}

/// `y[.., rows, out]` from `a[.., rows, in]` and `b[.., in, out]` in half floats, each in order along rows or columns, where
/// the card has units for that.
pub(super) fn multiply(a: &CubeTensor, b: &CubeTensor, y: &CubeTensor) -> bool {
    let shape = a.meta.shape();
    let last = shape.num_dims() - 1;
    let matrices = shape[..last - 1].iter().product();
    let plan = Plan::of(matrices, shape[last - 1], b.meta.shape()[last], shape[last]);
    multiply_by(plan, a, b, y)
}

pub(super) fn multiply_by(plan: Plan, a: &CubeTensor, b: &CubeTensor, y: &CubeTensor) -> bool {
    let half = [a, b, y].iter().all(|x| x.dtype == DType::F16);
    if !half || !plan.runs_on(&a.client) {
        return false;
    }
    let shape = a.meta.shape();
    let last = shape.num_dims() - 1;
    let (rows, length, columns) = (shape[last - 1], shape[last], b.meta.shape()[last]);
    let matrices: usize = shape[..last - 1].iter().product();
    let [tile_rows, tile_columns, depth] = plan.tile;
    let share = length.div_ceil(plan.shares).next_multiple_of(depth);
    let shares = length.div_ceil(share);
    let parts = match shares {
        1 => y.clone(),
        _ => empty(y, Shape::from([matrices, shares, rows, columns]), DType::F32),
    };
    let stride = |x: &CubeTensor| {
        let strides = x.meta.strides();
        let by_rows = strides[last] == 1;
        (if by_rows { strides[last - 1] } else { strides[last] } as u32, by_rows)
    };
    let ((a_stride, a_rows), (b_stride, b_rows)) = (stride(a), stride(b));
    let (tiles_down, tiles_across) = (rows.div_ceil(tile_rows), columns.div_ceil(tile_columns));
    let aligned = a_stride.is_multiple_of(8) && b_stride.is_multiple_of(8) && columns.is_multiple_of(8);
    let whole = rows.is_multiple_of(tile_rows)
        && columns.is_multiple_of(tile_columns)
        && length.is_multiple_of(depth);
    let forms = Forms {
        tile_rows,
        tile_columns,
        depth,
        a_rows,
        b_rows,
        several: matrices > 1,
        shared_out: shares > 1,
        aligned,
        whole,
    };
    // SAFETY: tiles reach past the end of a matrix only where they are cut off there.
    unsafe {
        tile_product::launch_unchecked(
            &a.client,
            grid(tiles_down * tiles_across * matrices * shares),
            CubeDim::new_1d(plan.units as u32),
            a.clone().into_buffer_arg(),
            b.clone().into_buffer_arg(),
            parts.clone().into_buffer_arg(),
            rows as u32,
            columns as u32,
            length as u32,
            a_stride,
            b_stride,
            matrices as u32,
            tiles_down as u32,
            tiles_across as u32,
            shares as u32,
            share as u32,
            forms,
            super::element(parts.dtype),
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
    tile_rows: usize,
    tile_columns: usize,
    depth: usize,
    a_rows: bool,
    b_rows: bool,
    /// More than one matrix.
    several: bool,
    shared_out: bool,
    /// Lines begin at multiples of sixteen bytes.
    aligned: bool,
    /// No tile reaches past an end.
    whole: bool,
}

/// A cube for each tile of each matrix and share.
#[cube(launch_unchecked)]
fn tile_product<G: Numeric>(
    a: &[f16],
    b: &[f16],
    y: &mut [G],
    rows: u32,
    columns: u32,
    length: u32,
    a_stride: u32,
    b_stride: u32,
    matrices: u32,
    tiles_down: u32,
    tiles_across: u32,
    shares: u32,
    share: u32,
    #[comptime] forms: Forms,
    #[define(G)] _results: ElemType,
) {
    let tile_rows = comptime!(forms.tile_rows);
    let tile_columns = comptime!(forms.tile_columns);
    let depth = comptime!(forms.depth);
    let cube = CUBE_POS as u32;
    let part = cube / (tiles_across * tiles_down);
    if part >= matrices * shares {
        terminate!();
    }
    let row = cube / tiles_across % tiles_down * tile_rows as u32;
    let column = cube % tiles_across * tile_columns as u32;
    let from = part % shares * share;
    let matrix = part / shares;
    let mut to = from + share;
    if to > length {
        to = length;
    }
    // That they are multiples tells the driver to read sixteen bytes at a time.
    let mut a_line = a_stride;
    let mut b_line = b_stride;
    let mut y_line = columns;
    if comptime!(forms.aligned) {
        a_line = a_stride / 8 * 8;
        b_line = b_stride / 8 * 8;
        y_line = columns / 8 * 8;
    }
    let mut left = unsafe {
        Matrix::<f16, Cube>::uninitialized(
            MatrixIdent::A,
            tile_rows,
            tile_columns,
            depth,
            MatrixLayout::Undefined,
        )
    };
    let mut right = unsafe {
        Matrix::<f16, Cube>::uninitialized(
            MatrixIdent::B,
            tile_rows,
            tile_columns,
            depth,
            MatrixLayout::Undefined,
        )
    };
    let sums = Matrix::<f32, Cube>::from_value(
        MatrixIdent::Accumulator,
        tile_rows,
        tile_columns,
        depth,
        MatrixLayout::Undefined,
        0.0,
    );
    let several = comptime!(forms.several);
    let whole = comptime!(forms.whole);
    let a_lines = if comptime!(forms.a_rows) {
        view(a, matrices, rows, length, a_line, several, whole)
    } else {
        view(a, matrices, length, rows, a_line, several, whole)
    };
    let b_lines = if comptime!(forms.b_rows) {
        view(b, matrices, length, columns, b_line, several, whole)
    } else {
        view(b, matrices, columns, length, b_line, several, whole)
    };
    let mut inner = from;
    while inner < to {
        let a_tile = tile(&a_lines, matrix, row, inner, tile_rows, depth, comptime!(forms.a_rows), several);
        let b_tile =
            tile(&b_lines, matrix, inner, column, depth, tile_columns, comptime!(forms.b_rows), several);
        cmma::load_tensor(&mut left, &a_tile);
        cmma::load_tensor(&mut right, &b_tile);
        cmma::execute(&left, &right, &sums, &sums);
        inner += depth as u32;
    }
    let parted = comptime!(forms.several || forms.shared_out);
    let y_lines = view(&*y, matrices * shares, rows, columns, y_line, parted, whole);
    let mut y_tile = tile(&y_lines, part, row, column, tile_rows, tile_columns, true, parted);
    if comptime!(forms.shared_out) {
        cmma::store_tensor(&mut y_tile, &sums);
    } else {
        let halved: Matrix<f16, Cube> = cmma::cast(&sums);
        cmma::store_tensor(&mut y_tile, &halved);
    }
}

/// Matrices of so many `lines` of `length` values; one if not `several`.
#[cube]
#[allow(clippy::too_many_arguments, reason = "what matrices are")]
fn view<T: Numeric>(
    x: &[T],
    matrices: u32,
    lines: u32,
    length: u32,
    stride: u32,
    #[comptime] several: bool,
    #[comptime] whole: bool,
) -> TensorView<T> {
    let beyond = comptime!(if whole { TensorClampMode::Undefined } else { TensorClampMode::Constant(0) });
    if comptime!(several) {
        TensorView::new(x, seq![matrices, lines, length])
            .with_strides(seq![lines * stride, stride, 1])
            .with_clamp_mode(beyond)
            .finish()
    } else {
        TensorView::new(x, seq![lines, length]).with_strides(seq![stride, 1]).with_clamp_mode(beyond).finish()
    }
}

/// The tile of so many `rows` and `columns` from `row` and `column` on, where lines are rows if `by_rows`.
#[cube]
#[allow(clippy::too_many_arguments, reason = "what a tile is")]
fn tile<T: Numeric>(
    lines: &TensorView<T>,
    matrix: u32,
    row: u32,
    column: u32,
    #[comptime] rows: usize,
    #[comptime] columns: usize,
    #[comptime] by_rows: bool,
    #[comptime] several: bool,
) -> TensorView<T> {
    if comptime!(several) {
        if comptime!(by_rows) {
            lines.slice(seq![matrix, row, column], seq![1, rows as u32, columns as u32])
        } else {
            lines
                .slice(seq![matrix, column, row], seq![1, columns as u32, rows as u32])
                .permuted(seq![0, 2, 1])
        }
    } else {
        if comptime!(by_rows) {
            lines.slice(seq![row, column], seq![rows as u32, columns as u32])
        } else {
            lines.slice(seq![column, row], seq![columns as u32, rows as u32]).permuted(seq![1, 0])
        }
    }
}
