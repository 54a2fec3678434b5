//! Attention in half floats on the matrix units of a card, without stored scores (Dao et al., arXiv 2205.14135): a plane has some
//! queries, to which a cube's planes bring keys and values by tiles.
//!
//! What a plane holds of a matrix can be scaled by way of fast memory alone. So results are brought down to a new largest
//! score only where it has grown by [`MOST_GROWTH`]: until then shares are above one.

#![allow(unsafe_code, reason = "kernels hold their units back at the end of a matrix themselves")]

use super::planes::multiplying_plane;
use super::{empty, grid};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::features::Plane;
use cubecl::prelude::*;
use half::f16;

/// Planes of a cube.
const PLANES: usize = 8;

/// Keys of a tile.
const KEYS: usize = 32;

/// Fours of a line of scores: one more than are used, so that lines below each other lie in other banks.
const SCORES: usize = KEYS / 4 + 1;

/// Fours of a line of shares: an even number, for its matrices begin at multiples of sixteen bytes.
const SHARES: usize = KEYS / 4 + 2;

/// Widths of heads that fast memory holds are multiples of [`KEYS`] up to this.
const MOST_WIDTH: usize = 128;

/// By how much the largest score may grow before results are brought down to it: shares stay below e⁸, which half floats hold.
const MOST_GROWTH: f32 = 8.0;

/// The score of a key that is not there.
const NONE: f32 = -1e30;

/// Eight half floats.
type Eight = Vector<u32, Const<4>>;

/// Four half floats.
type Halves = Vector<f16, Const<4>>;

/// Four numbers.
type Four = Vector<f32, Const<4>>;

/// What is known of heads and of the card before a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Forms {
    /// Numbers of a head's line.
    width: usize,
    /// Units of a plane.
    plane: usize,
    /// Side of the matrices that a plane multiplies at once: so many queries it has.
    side: usize,
}

impl Forms {
    /// Eights of a line of keys or values: one more than are used, as of scores.
    fn line(self) -> usize {
        self.width / 8 + 1
    }

    /// Bytes of fast memory.
    fn fast_memory(self) -> usize {
        let rows = PLANES * self.side;
        2 * KEYS * self.line() * 16 + rows * SCORES * 16 + rows * SHARES * 8 + 4
    }
}

/// Attention of `q[batch, heads, n, d]` to `k` and `v`, `[batch, heads, m, d]`, if the card has units for it and heads are of a
/// width that it holds.
pub(super) fn attention(q: &CubeTensor, k: &CubeTensor, v: &CubeTensor) -> Option<CubeTensor> {
    let [matrices, heads, queries, width] = {
        let shape = q.meta.shape();
        [shape[0] * shape[1], shape[1], shape[2], shape[3]]
    };
    let (plane, side) = multiplying_plane(&q.client)?;
    let forms = Forms { width, plane, side };
    let properties = q.client.properties();
    let fits = [q, k, v].iter().all(|x| x.dtype == DType::F16)
        && properties.features.plane.contains(Plane::Sync)
        && (plane == side || properties.features.plane.contains(Plane::Ops))
        && width.is_multiple_of(KEYS)
        && width <= MOST_WIDTH
        && plane.is_multiple_of(side)
        && forms.fast_memory() <= properties.hardware.max_shared_memory_size;
    if !fits {
        return None;
    }
    // Lines are read eight numbers at a time, wherever they lie.
    let of_eights = |x: &CubeTensor| {
        let strides = x.meta.strides();
        let lie = strides[3] == 1 && strides[..3].iter().all(|stride| stride.is_multiple_of(8));
        if lie { x.clone() } else { into_contiguous(x.clone()) }
    };
    let [q, k, v] = [q, k, v].map(of_eights);
    let at = |x: &CubeTensor| {
        let strides = x.meta.strides();
        LinesLaunch::new(strides[0] / 8, strides[1] / 8, strides[2] / 8)
    };
    // Heads side by side, as layers behind it read them.
    let mut y = empty(&q, Shape::from([matrices / heads, queries, heads, width]), DType::F16);
    let blocks = queries.div_ceil(PLANES * side);
    // SAFETY: units that would read or write past the end of a matrix are held back by the kernel itself.
    unsafe {
        planes_attend::launch_unchecked(
            &q.client,
            grid(matrices * blocks),
            CubeDim::new_1d((PLANES * plane) as u32),
            q.clone().into_buffer_arg(),
            k.clone().into_buffer_arg(),
            v.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            at(&q),
            at(&k),
            at(&v),
            queries,
            k.meta.shape()[2],
            heads,
            matrices,
            blocks,
            (width as f32).powf(-0.5),
            forms,
        );
    }
    y.meta.swap(1, 2);
    Some(y)
}

/// How many eights a batch, a head and a line are from the next.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Lines {
    batch: usize,
    head: usize,
    line: usize,
}

/// A cube for each head and so many queries, a plane for `side` of them.
#[cube(launch_unchecked)]
fn planes_attend(
    q: &[Eight],
    k: &[Eight],
    v: &[Eight],
    y: &mut [Halves],
    q_lines: Lines,
    k_lines: Lines,
    v_lines: Lines,
    queries: usize,
    keys: usize,
    heads: usize,
    matrices: usize,
    blocks: usize,
    scale: f32,
    #[comptime] forms: Forms,
) {
    let side = comptime!(forms.side);
    let line = comptime!(forms.line());
    let units = comptime!(PLANES * forms.plane);
    let mut k_tile = Shared::<[Eight]>::new_slice(comptime!(KEYS * line));
    let mut v_tile = Shared::<[Eight]>::new_slice(comptime!(KEYS * line));
    let mut scores = Shared::<[Four]>::new_slice(comptime!(PLANES * side * SCORES));
    let mut shares = Shared::<[Halves]>::new_slice(comptime!(PLANES * side * SHARES));
    let mut grew = Shared::<[u32]>::new_slice(1usize);
    let cube = CUBE_POS as usize;
    let matrix = cube / blocks;
    if matrix >= matrices {
        terminate!();
    }
    let (batch, head) = (matrix / heads, matrix % heads);
    let q_start = batch * q_lines.batch + head * q_lines.head;
    let k_start = batch * k_lines.batch + head * k_lines.head;
    let v_start = batch * v_lines.batch + head * v_lines.head;
    let first = cube % blocks * comptime!(PLANES * side);

    // Each row of scores is a few units', each of which has a part of its columns.
    let plane = UNIT_POS as usize / comptime!(forms.plane);
    let row = UNIT_POS as usize % side;
    let part = UNIT_POS as usize % comptime!(forms.plane) / side;
    let fours = comptime!(KEYS * side / 4 / forms.plane);
    let of_plane = plane * comptime!(side * SCORES);
    let of_row = of_plane + row * comptime!(SCORES) + part * fours;
    let plane_shares = plane * comptime!(side * SHARES);

    let many = comptime!((KEYS * forms.width / 8).div_ceil(units));
    let mut k_next = Array::<Eight>::new(many);
    let mut v_next = Array::<Eight>::new(many);

    let mut asking = Sequence::<Matrix<f16>>::new();
    let mut results = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(forms.width / side) {
        asking.push(Matrix::from_value(
            MatrixIdent::A,
            side,
            side,
            side,
            MatrixLayout::RowMajor,
            f16::from_int(0),
        ));
        results.push(Matrix::from_value(
            MatrixIdent::Accumulator,
            side,
            side,
            side,
            MatrixLayout::Undefined,
            0.0,
        ));
    }
    // Queries come by way of the place of the keys: those of a few planes at a time.
    #[unroll]
    for round in 0..comptime!((PLANES * side).div_ceil(KEYS)) {
        bring(q, &mut k_next, q_start, q_lines.line, first + comptime!(round * KEYS), queries, forms);
        lay(&mut k_tile, &k_next, forms);
        sync_cube();
        if plane / comptime!(KEYS / side) == round {
            let start = plane % comptime!(KEYS / side) * side * line;
            #[unroll]
            for step in 0..comptime!(forms.width / side) {
                let at = start + comptime!(step * side / 8);
                cmma::load(
                    asking.index_mut(step),
                    k_tile.slice(at, at + comptime!((side - 1) * line + side / 8)),
                    comptime!(4 * line as u32).runtime(),
                );
            }
        }
        sync_cube();
    }

    bring(k, &mut k_next, k_start, k_lines.line, 0usize, keys, forms);
    bring(v, &mut v_next, v_start, v_lines.line, 0usize, keys, forms);
    let mut largest = NONE.runtime();
    let mut sum = 0.0f32;
    let mut own = Array::<Four>::new(fours);
    let mut start = 0usize;
    while start < keys {
        lay(&mut k_tile, &k_next, forms);
        lay(&mut v_tile, &v_next, forms);
        grew[0] = 0u32;
        sync_cube();
        let next = start + comptime!(KEYS);
        if next < keys {
            bring(k, &mut k_next, k_start, k_lines.line, next, keys, forms);
            bring(v, &mut v_next, v_start, v_lines.line, next, keys, forms);
        }
        #[unroll]
        for index in 0..comptime!(KEYS / side) {
            let products = Matrix::<f32>::from_value(
                MatrixIdent::Accumulator,
                side,
                side,
                side,
                MatrixLayout::Undefined,
                0.0,
            );
            #[unroll]
            for step in 0..comptime!(forms.width / side) {
                let at = comptime!(index * side * line + step * side / 8);
                let right = of_tile(&k_tile, at, MatrixLayout::ColMajor, forms);
                cmma::execute(asking.index(step), &right, &products, &products);
            }
            put(&mut scores, of_plane + comptime!(index * side / 4), &products, side);
        }
        sync_plane();
        let mut tile_largest = NONE.runtime();
        #[unroll]
        for index in 0..fours {
            let mut four = scores[of_row + index] * Four::new(scale);
            if next > keys {
                let column = start + (part * fours + index) * 4;
                #[unroll]
                for lane in 0..4usize {
                    if column + lane >= keys {
                        four.insert(lane, NONE.runtime());
                    }
                }
            }
            #[unroll]
            for lane in 0..4usize {
                tile_largest = max(tile_largest, four.extract(lane));
            }
            own[index] = four;
        }
        tile_largest = largest_of_row(tile_largest, forms);
        // All planes do the same: to drivers that compute in software, what a plane waits for is what its cube waits for.
        if tile_largest > largest + comptime!(MOST_GROWTH) {
            grew[0] = 1u32;
        }
        sync_cube();
        if grew[0] == 1u32 {
            let grown = max(largest, tile_largest);
            let factor = (largest - grown).exp();
            largest = grown;
            sum *= factor;
            // In the place of the scores, which all have read.
            #[unroll]
            for group in 0..comptime!(forms.width / KEYS) {
                #[unroll]
                for index in 0..comptime!(KEYS / side) {
                    let result = results.index(comptime!(group * (KEYS / side) + index));
                    put(&mut scores, of_plane + comptime!(index * side / 4), result, side);
                }
                sync_plane();
                #[unroll]
                for index in 0..fours {
                    scores[of_row + index] *= Four::new(factor);
                }
                sync_plane();
                #[unroll]
                for index in 0..comptime!(KEYS / side) {
                    let at = of_plane + comptime!(index * side / 4);
                    cmma::load_with_layout(
                        results.index_mut(comptime!(group * (KEYS / side) + index)),
                        scores.slice(at, at + comptime!((side - 1) * SCORES + side / 4)),
                        comptime!(4 * SCORES as u32).runtime(),
                        MatrixLayout::RowMajor,
                    );
                }
                sync_plane();
            }
        }
        #[unroll]
        for index in 0..fours {
            let four = (own[index] - Four::new(largest)).exp();
            #[unroll]
            for lane in 0..4usize {
                sum += four.extract(lane);
            }
            shares[plane_shares + row * comptime!(SHARES) + part * fours + index] = Halves::cast_from(four);
        }
        sync_plane();
        #[unroll]
        for step in 0..comptime!(KEYS / side) {
            // SAFETY: all of it is loaded before anything is multiplied.
            let mut left = unsafe {
                Matrix::<f16>::uninitialized(MatrixIdent::A, side, side, side, MatrixLayout::RowMajor)
            };
            let at = plane_shares + comptime!(step * side / 4);
            cmma::load(
                &mut left,
                shares.slice(at, at + comptime!((side - 1) * SHARES + side / 4)),
                comptime!(4 * SHARES as u32).runtime(),
            );
            #[unroll]
            for index in 0..comptime!(forms.width / side) {
                let at = comptime!(step * side * line + index * side / 8);
                let right = of_tile(&v_tile, at, MatrixLayout::RowMajor, forms);
                let result = results.index(index);
                cmma::execute(&left, &right, result, result);
            }
        }
        sync_cube();
        start = next;
    }

    let share = Four::new(1.0 / sum_of_row(sum, forms));
    let query = first + plane * side + row;
    #[unroll]
    for group in 0..comptime!(forms.width / KEYS) {
        #[unroll]
        for index in 0..comptime!(KEYS / side) {
            let result = results.index(comptime!(group * (KEYS / side) + index));
            put(&mut scores, of_plane + comptime!(index * side / 4), result, side);
        }
        sync_plane();
        if query < queries {
            let at = ((batch * queries + query) * heads + head) * comptime!(forms.width / 4)
                + comptime!(group * KEYS / 4)
                + part * fours;
            #[unroll]
            for index in 0..fours {
                y[at + index] = Halves::cast_from(scores[of_row + index] * share);
            }
        }
        sync_plane();
    }
}

/// The largest of what the units of a row have.
#[cube]
fn largest_of_row(value: f32, #[comptime] forms: Forms) -> f32 {
    let mut largest = value;
    #[unroll]
    for step in 0..comptime!((forms.plane / forms.side).ilog2()) {
        largest = max(largest, plane_shuffle_xor(largest, comptime!((forms.side << step) as u32)));
    }
    largest
}

/// The sum of what the units of a row have.
#[cube]
fn sum_of_row(value: f32, #[comptime] forms: Forms) -> f32 {
    let mut sum = value;
    #[unroll]
    for step in 0..comptime!((forms.plane / forms.side).ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!((forms.side << step) as u32));
    }
    sum
}

/// What a unit brings of the [`KEYS`] lines from `first` on, of so many: nothing is zero.
#[cube]
fn bring(
    x: &[Eight],
    next: &mut Array<Eight>,
    start: usize,
    stride: usize,
    first: usize,
    count: usize,
    #[comptime] forms: Forms,
) {
    #[unroll]
    for index in 0..comptime!((KEYS * forms.width / 8).div_ceil(PLANES * forms.plane)) {
        let at = comptime!(index * PLANES * forms.plane) + UNIT_POS as usize;
        let line = first + at / comptime!(forms.width / 8);
        let mut value = Eight::new(0u32);
        if at < comptime!(KEYS * forms.width / 8) && line < count {
            value = x[start + line * stride + at % comptime!(forms.width / 8)];
        }
        next[index] = value;
    }
}

/// What a unit brought, laid into a tile.
#[cube]
fn lay(tile: &mut Shared<[Eight]>, next: &Array<Eight>, #[comptime] forms: Forms) {
    #[unroll]
    for index in 0..comptime!((KEYS * forms.width / 8).div_ceil(PLANES * forms.plane)) {
        let at = comptime!(index * PLANES * forms.plane) + UNIT_POS as usize;
        if at < comptime!(KEYS * forms.width / 8) {
            let line = at / comptime!(forms.width / 8);
            tile[line * comptime!(forms.line()) + at % comptime!(forms.width / 8)] = next[index];
        }
    }
}

/// The right matrix at `at` of a tile.
#[cube]
fn of_tile(
    tile: &Shared<[Eight]>,
    #[comptime] at: usize,
    #[comptime] layout: MatrixLayout,
    #[comptime] forms: Forms,
) -> Matrix<f16> {
    let side = comptime!(forms.side);
    // SAFETY: all of it is loaded before anything is multiplied.
    let mut matrix = unsafe { Matrix::<f16>::uninitialized(MatrixIdent::B, side, side, side, layout) };
    let end = comptime!(at + (side - 1) * forms.line() + side / 8);
    cmma::load(&mut matrix, tile.slice(at, end), comptime!(4 * forms.line() as u32).runtime());
    matrix
}

/// A matrix, put among a plane's scores at `at`.
#[cube]
fn put(scores: &mut Shared<[Four]>, at: usize, matrix: &Matrix<f32>, #[comptime] side: usize) {
    cmma::store(
        scores.slice_mut(at, at + comptime!((side - 1) * SCORES + side / 4)),
        matrix,
        comptime!(4 * SCORES as u32).runtime(),
        MatrixLayout::RowMajor,
    );
}
