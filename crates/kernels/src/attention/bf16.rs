//! The forward pass with both products in bf16: queries, keys, values and probabilities are rounded, scores,
//! sums and the softmax stay `f32`.

use super::{Attention, Task, pack_rows, scale};
use crate::bf16;
use crate::math::{self, Scores};
use crate::simd::Isa;
use crate::tile::{self, Cells, Onto, Then, Tile, even_parts};

/// Memory of a thread; cells as in `tile.rs`.
#[derive(Default)]
struct Block {
    /// Keys of a block, `[panel][feature][key]`, before they are joined to pairs.
    plain: Vec<f32>,
    /// `[panel][pair of features][key]`.
    keys: Vec<f32>,
    /// `[pair of keys][feature]`.
    values: Vec<f32>,
    /// `[query][feature]`.
    queries: Vec<f32>,
    /// `[query][key]`.
    scores: Vec<f32>,
    /// The same in cells.
    probabilities: Vec<f32>,
}

impl Task<'_> {
    /// [`Task::run`] in bf16.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn run_bf16(&self, y: *mut f32, logarithms: &mut [f32]) {
        let Attention { heads, keys, width, .. } = *self.sizes;
        let (isa, cells, y_row) = (self.isa, self.cells, heads * width);
        let (columns, most) = (isa.max_columns(), cells.max_rows(isa));
        let queries = logarithms.len();
        let pairs = width.div_ceil(2);
        let mut block = Block::default();
        let stride = keys.min(super::KEYS).next_multiple_of(columns);
        block.keys.resize(pairs * stride, 0.0);
        block.values.resize(stride / 2 * width, 0.0);
        block.scores.resize(most * stride, 0.0);
        block.probabilities.resize(most * bf16::left_cells(cells, stride), 0.0);
        let query_row = bf16::left_cells(cells, width);
        block.queries.resize(queries * query_row, 0.0);
        for (query, to) in block.queries.chunks_exact_mut(query_row).enumerate() {
            bf16::round_pixels(isa, cells, &self.q[query * self.rows[0]..][..width], width, to);
        }
        let mut largest = vec![f32::NEG_INFINITY; queries];
        let mut sums = vec![0.0; queries];
        let mut factors = vec![0.0; most];
        for (key, count) in even_parts(keys, super::KEYS) {
            let (plain, panels) = (&mut block.plain, &mut block.keys);
            pack_pairs(isa, cells, (self.k, self.rows[1]), (key, count), width, plain, panels);
            self.pack_values(key, count, &mut block);
            let probability_row = bf16::left_cells(cells, count);
            for (query, rows) in even_parts(queries, most) {
                let span = query..query + rows;
                let product = |a: &[f32], a_row: usize, b: &[f32], b_k: usize, len: usize| Tile {
                    a: a.as_ptr(),
                    a_row,
                    a_k: if cells == Cells::Widened { 2 } else { 1 },
                    a_run: 0,
                    b: b.as_ptr(),
                    b_k,
                    b_run: 0,
                    runs: 1,
                    len,
                    c: std::ptr::null_mut(),
                    c_row: 0,
                    onto: Onto::Nothing,
                    then: Then::NOTHING,
                };
                for (start, panel) in
                    (0..count).step_by(columns).zip(block.keys.chunks_exact(pairs * columns))
                {
                    let a = &block.queries[query * query_row..];
                    let c = block.scores[start..].as_mut_ptr();
                    let tile = Tile { c, c_row: stride, ..product(a, query_row, panel, columns, pairs) };
                    // SAFETY: the block holds `most` rows of scores, all queries and one panel.
                    unsafe { tile::run_cells(isa, cells, &tile, rows, columns.min(count - start)) };
                }
                let bias = self.bias.map(|bias| (&bias[query * keys + key..], keys));
                let values = &mut block.scores;
                let scores = Scores { values, stride, keys: count, scale: self.sizes.scale(), bias };
                let factors = &mut factors[..rows];
                math::softmax(isa, scores, &mut largest[span.clone()], &mut sums[span], factors);
                let scores = block.scores.chunks_exact(stride);
                for (scores, to) in
                    scores.zip(block.probabilities.chunks_exact_mut(probability_row)).take(rows)
                {
                    bf16::round_pixels(isa, cells, &scores[..count], count, to);
                }
                // SAFETY: the caller vouches for y; the block holds `rows` rows of probabilities for all keys
                // of the block, and their values.
                unsafe {
                    let y = y.add(query * y_row);
                    if key > 0 {
                        for (row, &factor) in factors.iter().enumerate() {
                            scale(y.add(row * y_row), width, factor);
                        }
                    }
                    let onto = if key == 0 { Onto::Nothing } else { Onto::Output };
                    for start in (0..width).step_by(columns) {
                        let (a, b) = (&block.probabilities, &block.values[start..]);
                        let tile = product(a, probability_row, b, width, count.div_ceil(2));
                        let tile = Tile { c: y.add(start), c_row: y_row, onto, ..tile };
                        tile::run_cells(isa, cells, &tile, rows, columns.min(width - start));
                    }
                }
            }
        }
        for (query, logarithm) in logarithms.iter_mut().enumerate() {
            // SAFETY: as above.
            unsafe { scale(y.add(query * y_row), width, 1.0 / sums[query]) };
            *logarithm = largest[query] + sums[query].ln();
        }
    }

    /// `count` values from `key` on.
    fn pack_values(&self, key: usize, count: usize, block: &mut Block) {
        let width = self.sizes.width;
        let value = |index: usize| &self.v[(key + index) * self.rows[2]..][..width];
        let zeros = vec![0.0; width];
        for (pair, to) in block.values.chunks_exact_mut(width).take(count.div_ceil(2)).enumerate() {
            let second = if 2 * pair + 1 < count { value(2 * pair + 1) } else { &zeros };
            bf16::join(self.isa, self.cells, value(2 * pair), second, to);
        }
    }
}

/// Packs `count` vectors, `row` apart in `data`, from number `first` on as the columns of a product, `[panel][pair of
/// features][column]`. `plain` is memory.
pub(super) fn pack_pairs(
    isa: Isa,
    cells: Cells,
    (data, row): (&[f32], usize),
    (first, count): (usize, usize),
    width: usize,
    plain: &mut Vec<f32>,
    out: &mut [f32],
) {
    let columns = isa.max_columns();
    let pairs = width.div_ceil(2);
    // An odd width leaves a row of zeros.
    plain.resize(2 * pairs * columns, 0.0);
    for (start, panel) in (0..count).step_by(columns).zip(out.chunks_exact_mut(pairs * columns)) {
        let vectors = columns.min(count - start);
        pack_rows(isa, data, row, first + start, vectors, width, &mut plain[..width * columns]);
        for (pair, to) in plain.chunks_exact(2 * columns).zip(panel.chunks_exact_mut(columns)) {
            bf16::join(isa, cells, &pair[..columns], &pair[columns..], to);
        }
    }
}
