//! Softmax attention over heads, forward and backward, without a stored matrix of scores (FlashAttention,
//! arXiv 2205.14135): keys come in blocks, and what was summed before is scaled to the largest score so far.
//!
//! A query whose keys are all masked by `-inf` gives NaN; masked by large finite numbers they are as good as each other
//! forward, and their gradients are as many times too large as there are keys: a logarithm of sums holds no more digits.
//!
//! Blocks depend on the number of keys alone, so that a query's result depends neither on the queries
//! around it nor on the number of threads.

mod backward;
mod bf16;
#[cfg(test)]
mod tests;
mod window;

pub use backward::AttentionGradients;
pub use window::WindowAttention;

use crate::math::{self, Scores};
use crate::pack::Right;
use crate::products::Products;
use crate::share::{Shared, zeros};
use crate::simd::Isa;
use crate::tile::{self, Cells, Onto, Then, Tile, even_parts};
use rayon::prelude::*;

/// The sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Queries of a sequence.
    pub queries: usize,
    /// Keys of a sequence.
    pub keys: usize,
    /// Features of a query, key or value; scores are divided by its square root.
    pub width: usize,
    /// Whether a bias is added to the scores, and the first two of its dimensions, each whole or 1:
    /// `[batch or 1, heads or 1, queries, keys]`.
    pub bias: Option<[usize; 2]>,
    /// Of queries with keys and of probabilities with values, and of what their gradients are made of.
    pub products: Products,
}

/// Vectors `[batch, heads, rows, ..]` that need not lie in this order; the last dimension does.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The elements, from the first vector's first on.
    pub data: &'a [f32],
    /// Elements from one sequence, head and row to the next.
    pub strides: [usize; 3],
}

impl<'a> Heads<'a> {
    /// Vectors of `width` in the order `[batch, rows, heads, width]`, that of all results here.
    pub fn interleaved(data: &'a [f32], rows: usize, heads: usize, width: usize) -> Self {
        Heads { data, strides: [rows * heads * width, width, heads * width] }
    }

    /// The vectors of one head.
    fn head(&self, batch: usize, head: usize) -> &'a [f32] {
        &self.data[batch * self.strides[0] + head * self.strides[1]..]
    }

    /// Panics if a vector of the given sizes is not within the data.
    fn check(&self, [batch, heads, rows, width]: [usize; 4]) {
        let last = [batch, heads, rows]
            .into_iter()
            .zip(self.strides)
            .try_fold(width, |end, (n, stride)| end.checked_add(n.checked_sub(1)?.checked_mul(stride)?));
        assert!(last.is_some_and(|end| end <= self.data.len()), "too few vectors");
    }
}

/// Keys of a block in the forward pass, a multiple of 16.
const KEYS: usize = 256;

/// Fewest queries of a task: the keys are packed anew for each.
const QUERIES: usize = 256;

impl Attention {
    fn scale(&self) -> f32 {
        (self.width as f32).sqrt().recip()
    }

    /// One head's bias.
    fn bias_of<'a>(&self, bias: Option<&'a [f32]>, batch: usize, head: usize) -> Option<&'a [f32]> {
        let [batches, heads] = self.bias?;
        let size = self.queries * self.keys;
        bias.map(|bias| &bias[((batch % batches) * heads + head % heads) * size..][..size])
    }

    fn check(&self, q: Heads, k: Heads, v: Heads, bias: Option<&[f32]>) {
        q.check([self.batch, self.heads, self.queries, self.width]);
        k.check([self.batch, self.heads, self.keys, self.width]);
        v.check([self.batch, self.heads, self.keys, self.width]);
        if let Some([batches, heads]) = self.bias {
            let whole = |of: usize, all: usize| of == 1 || of == all;
            assert!(whole(batches, self.batch) && whole(heads, self.heads), "a bias is whole or 1");
            let size = batches * heads * self.queries * self.keys;
            assert!(bias.is_some_and(|bias| bias.len() == size), "bias");
        }
    }

    /// `y[batch, queries, heads, width]` (mind the order), and the logarithm of each query's sum of
    /// exponentials, `[batch, heads, queries]`, for the backward pass.
    ///
    /// Every size is at least 1.
    pub fn forward(&self, q: Heads, k: Heads, v: Heads, bias: Option<&[f32]>) -> (Vec<f32>, Vec<f32>) {
        self.forward_with(Isa::detect(), self.products.cells(), q, k, v, bias)
    }

    fn forward_with(
        &self,
        isa: Isa,
        cells: Cells,
        q: Heads,
        k: Heads,
        v: Heads,
        bias: Option<&[f32]>,
    ) -> (Vec<f32>, Vec<f32>) {
        self.check(q, k, v, bias);
        let all = self.batch * self.heads;
        let mut y = zeros(all * self.queries * self.width);
        let mut logarithms = vec![0.0; all * self.queries];
        let output = Shared::new(&mut y);
        let most = (all * self.queries / (4 * rayon::current_num_threads())).clamp(QUERIES, 4 * QUERIES);
        let tasks: Vec<(usize, &mut [f32])> = logarithms
            .chunks_exact_mut(self.queries)
            .enumerate()
            .flat_map(|(head, rows)| rows.chunks_mut(most).map(move |rows| (head, rows)))
            .collect();
        let first_query = |index: usize| index % self.queries.div_ceil(most) * most;
        tasks.into_par_iter().enumerate().for_each_init(Vec::new, |scratch, (index, (head, logarithms))| {
            let (batch, head) = (head / self.heads, head % self.heads);
            let start = first_query(index);
            let task = Task {
                sizes: self,
                isa,
                cells,
                q: &q.head(batch, head)[start * q.strides[2]..],
                k: k.head(batch, head),
                v: v.head(batch, head),
                rows: [q.strides[2], k.strides[2], v.strides[2]],
                bias: self.bias_of(bias, batch, head).map(|bias| &bias[start * self.keys..]),
            };
            // SAFETY: y holds all queries of all heads; a task has these queries of this head alone.
            unsafe {
                let at = ((batch * self.queries + start) * self.heads + head) * self.width;
                match cells {
                    Cells::Single => task.run(output.at(at), logarithms, scratch),
                    _ => task.run_bf16(output.at(at), logarithms),
                }
            }
        });
        (y, logarithms)
    }
}

/// Some queries of one head.
struct Task<'a> {
    sizes: &'a Attention,
    isa: Isa,
    cells: Cells,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// From one query, key, value to the next.
    rows: [usize; 3],
    bias: Option<&'a [f32]>,
}

impl Task<'_> {
    /// Attention of as many queries as there are `logarithms`.
    ///
    /// # Safety
    /// `y` may be written at `width` elements of every query, `heads · width` apart.
    unsafe fn run(&self, y: *mut f32, logarithms: &mut [f32], scratch: &mut Vec<f32>) {
        let Attention { heads, keys, width, .. } = *self.sizes;
        let (isa, columns, y_row) = (self.isa, self.isa.max_columns(), heads * width);
        let queries = logarithms.len();
        let block = keys.min(KEYS).next_multiple_of(columns);
        scratch.resize(block * width + isa.max_rows() * block, 0.0);
        let (packed, scores) = scratch.split_at_mut(block * width);
        let mut largest = vec![f32::NEG_INFINITY; queries];
        let mut sums = vec![0.0; queries];
        let mut factors = vec![0.0; isa.max_rows()];
        for (key, count) in even_parts(keys, KEYS) {
            pack_rows(isa, self.k, self.rows[1], key, count, width, packed);
            for (query, rows) in even_parts(queries, isa.max_rows()) {
                let span = query..query + rows;
                let q = &self.q[query * self.rows[0]..];
                // SAFETY: queries, keys and values were checked to hold all vectors, scores hold max_rows
                // rows of a block, and the caller vouches for y.
                unsafe {
                    let q = Left { data: q, row: self.rows[0], k: 1, rows };
                    times_packed(isa, Cells::Single, q, packed, count, width, scores, block);
                    let bias = self.bias.map(|bias| (&bias[query * keys + key..], keys));
                    let values = &mut *scores;
                    let block_scores =
                        Scores { values, stride: block, keys: count, scale: self.sizes.scale(), bias };
                    let factors = &mut factors[..rows];
                    math::softmax(isa, block_scores, &mut largest[span.clone()], &mut sums[span], factors);
                    let y = y.add(query * y_row);
                    let v = Block { data: &self.v[key * self.rows[2]..], row: self.rows[2], count };
                    let left = Left { data: scores, row: block, k: 1, rows };
                    let onto = if key == 0 { Onto::Nothing } else { Onto::Scaled(factors.as_ptr()) };
                    times_rows(isa, Cells::Single, left, v, width, y, y_row, onto);
                }
            }
        }
        for (query, logarithm) in logarithms.iter_mut().enumerate() {
            // SAFETY: as above.
            unsafe { scale(y.add(query * y_row), width, 1.0 / sums[query]) };
            *logarithm = largest[query] + sums[query].ln();
        }
    }
}

/// Multiplies `width` elements.
///
/// # Safety
/// They may be read and written.
unsafe fn scale(y: *mut f32, width: usize, factor: f32) {
    if factor != 1.0 {
        // SAFETY: as the caller.
        unsafe { std::slice::from_raw_parts_mut(y, width) }.iter_mut().for_each(|y| *y *= factor);
    }
}

/// Packs `count` vectors from row `first` on as the columns of a product, panel after panel.
fn pack_rows(isa: Isa, data: &[f32], row: usize, first: usize, count: usize, width: usize, out: &mut [f32]) {
    let columns = isa.max_columns();
    let right = Right::Columns { data, depth: row };
    for (start, panel) in (0..count).step_by(columns).zip(out.chunks_exact_mut(columns * width)) {
        let end = count.min(start + columns);
        right.pack(isa, 0..width, first + start..first + end, columns, panel);
    }
}

/// `scores[left.rows, count] = left[left.rows, width] · packed`, `width` in cells of the right side.
///
/// # Safety
/// The machine has `isa` and `cells`; every slice holds what the sizes say.
#[allow(clippy::too_many_arguments, reason = "a product has many sizes")]
unsafe fn times_packed(
    isa: Isa,
    cells: Cells,
    left: Left,
    packed: &[f32],
    count: usize,
    width: usize,
    scores: &mut [f32],
    stride: usize,
) {
    let columns = isa.max_columns();
    for (m, rows) in even_parts(left.rows, cells.max_rows(isa)) {
        for (start, panel) in (0..count).step_by(columns).zip(packed.chunks_exact(columns * width)) {
            let tile = Tile {
                a: left.data[m * left.row..].as_ptr(),
                a_row: left.row,
                a_k: left.k,
                a_run: 0,
                b: panel.as_ptr(),
                b_k: columns,
                b_run: 0,
                runs: 1,
                len: width,
                c: scores[m * stride + start..].as_mut_ptr(),
                c_row: stride,
                onto: Onto::Nothing,
                then: Then::NOTHING,
            };
            // SAFETY: as the caller.
            unsafe { tile::run_cells(isa, cells, &tile, rows, columns.min(count - start)) };
        }
    }
}

/// The left side of a product: cell (m, k) at `m · row + k · self.k`.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [f32],
    row: usize,
    k: usize,
    rows: usize,
}

/// `count` vectors, or pairs of them, `row` apart.
#[derive(Clone, Copy)]
struct Block<'a> {
    data: &'a [f32],
    row: usize,
    count: usize,
}

/// `y[left.rows, width] = left · right`, added to what `onto` says.
///
/// # Safety
/// The machine has `isa` and `cells`; the slices hold what the sizes say, and `y` may be written.
#[allow(clippy::too_many_arguments, reason = "a product has many sizes")]
unsafe fn times_rows(
    isa: Isa,
    cells: Cells,
    left: Left,
    right: Block,
    width: usize,
    y: *mut f32,
    y_row: usize,
    onto: Onto,
) {
    for (m, rows) in even_parts(left.rows, cells.max_rows(isa)) {
        for start in (0..width).step_by(isa.max_columns()) {
            // SAFETY: as the caller.
            unsafe {
                let tile = Tile {
                    a: left.data.as_ptr().add(m * left.row),
                    a_row: left.row,
                    a_k: left.k,
                    a_run: 0,
                    b: right.data.as_ptr().add(start),
                    b_k: right.row,
                    b_run: 0,
                    runs: 1,
                    len: right.count,
                    c: y.add(m * y_row + start),
                    c_row: y_row,
                    onto: match onto {
                        Onto::Scaled(factors) => Onto::Scaled(factors.add(m)),
                        onto => onto,
                    },
                    then: Then::NOTHING,
                };
                tile::run_cells(isa, cells, &tile, rows, isa.max_columns().min(width - start));
            }
        }
    }
}
