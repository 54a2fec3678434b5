//! The forward pass with both products in bf16: queries, keys, values and probabilities are rounded, scores
//! and sums stay `f32`; exponentials are as exact as what is rounded need be.

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
            let probability_row = bf16::left_cells(cells, stride);
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
                let state = (&mut largest[span.clone()], &mut sums[span], &mut factors[..rows]);
                probabilities(isa, cells, scores, state, &mut block.probabilities);
                // SAFETY: the caller vouches for y; the block holds `rows` rows of probabilities for all keys
                // of the block, and their values.
                unsafe {
                    let y = y.add(query * y_row);
                    let onto = if key == 0 { Onto::Nothing } else { Onto::Scaled(factors.as_ptr()) };
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

/// What is known of some queries, one value each, and brought up to date: the largest score so far, the sum of
/// exponentials, and what earlier results are worth now.
pub(super) type State<'a> = (&'a mut [f32], &'a mut [f32], &'a mut [f32]);

/// One step of a softmax over blocks of keys, as [`math::softmax`], and what it makes of the scores rounded: `out[query]
/// [key]` in cells, as long as the scores' rows. Behind an odd number of keys is a zero.
pub(super) fn probabilities(
    isa: Isa,
    cells: Cells,
    scores: Scores,
    (largest, sums, factors): State,
    out: &mut [f32],
) {
    let (rows, stride) = (largest.len(), scores.stride);
    let out = &mut out[..rows * bf16::left_cells(cells, stride)];
    #[cfg(target_arch = "x86_64")]
    if cells == Cells::Pairs {
        // SAFETY: the machine has the instructions, or there were no such cells.
        return unsafe { probabilities_avx512(scores, (largest, sums, factors), out) };
    }
    let Scores { values, keys, scale, bias, .. } = scores;
    let scores = Scores { values: &mut *values, stride, keys, scale, bias };
    math::rough_softmax(isa, scores, largest, sums, factors);
    bf16::round_pixels(isa, cells, &values[..rows * stride], stride, out);
}

/// [`probabilities`] of pairs, without storing them as `f32`.
///
/// # Safety
/// The machine has AVX-512 F and bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn probabilities_avx512(scores: Scores, (largest, sums, factors): State, out: &mut [f32]) {
    use std::arch::x86_64::*;
    use std::f32::consts::LOG2_E;
    let Scores { values, stride, keys, scale, bias } = scores;
    let whole = keys.next_multiple_of(32);
    assert!(whole <= stride && largest.len() <= 16, "sixteen rows of whole vectors");
    let exp2 = |x: __m512| {
        // As `math::rough_exp2`.
        let x = _mm512_max_ps(x, _mm512_set1_ps(-200.0));
        let n = _mm512_roundscale_ps::<0>(x);
        let r = _mm512_sub_ps(x, n);
        let mut series = _mm512_set1_ps(math::EXP2[0]);
        for coefficient in &math::EXP2[1..] {
            series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(*coefficient));
        }
        _mm512_scalef_ps(series, n)
    };
    let mut added = [0.0; 16];
    let rows = values.chunks_exact_mut(stride).zip(out.chunks_exact_mut(stride / 2));
    for (index, (row, out)) in rows.enumerate().take(largest.len()) {
        row[keys..whole].fill(f32::NEG_INFINITY);
        let mut scale = scale;
        if let Some((bias, stride)) = bias {
            for (score, bias) in row[..keys].iter_mut().zip(&bias[index * stride..][..keys]) {
                *score = score.mul_add(scale, *bias);
            }
            scale = 1.0;
        }
        // SAFETY: the vectors lie within the chunks.
        let load = |chunk: &[f32]| unsafe {
            (_mm512_loadu_ps(chunk.as_ptr()), _mm512_loadu_ps(chunk[16..].as_ptr()))
        };
        let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
        let mut most = (lowest, lowest);
        for chunk in row[..whole].chunks_exact(32) {
            let (a, b) = load(chunk);
            most = (_mm512_max_ps(a, most.0), _mm512_max_ps(b, most.1));
        }
        let most = _mm512_reduce_max_ps(_mm512_max_ps(most.0, most.1)) * scale;
        let before = largest[index];
        let most = if most > before { most } else { before };
        // A row that is masked whole has no largest score to subtract.
        let base = if most == f32::NEG_INFINITY { 0.0 } else { most };
        let (by, shift) = math::exponents::<true>(&mut row[..whole], scale, base);
        let (by, shift) = (_mm512_set1_ps(by), _mm512_set1_ps(shift));
        let mut sum = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for (chunk, out) in row[..whole].chunks_exact(32).zip(out.chunks_exact_mut(16)) {
            let (a, b) = load(chunk);
            let (a, b) = (exp2(_mm512_fmadd_ps(a, by, shift)), exp2(_mm512_fmadd_ps(b, by, shift)));
            sum = (_mm512_add_ps(sum.0, a), _mm512_add_ps(sum.1, b));
            // SAFETY: vectors of the same size, and one fills the chunk.
            unsafe {
                let pairs = std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(b, a));
                _mm512_storeu_ps(out.as_mut_ptr(), pairs);
            }
        }
        largest[index] = most;
        factors[index] = before - base;
        added[index] = _mm512_reduce_add_ps(_mm512_add_ps(sum.0, sum.1));
    }
    let mask = ((1_u32 << largest.len()) - 1) as __mmask16;
    assert!(sums.len() == largest.len() && factors.len() == largest.len(), "rows");
    // SAFETY: masked lanes are not touched, the others lie within the slices.
    unsafe {
        let exponents = _mm512_maskz_loadu_ps(mask, factors.as_ptr());
        let worth = exp2(_mm512_mul_ps(exponents, _mm512_set1_ps(LOG2_E)));
        let sum = _mm512_maskz_loadu_ps(mask, sums.as_ptr());
        let sum = _mm512_fmadd_ps(sum, worth, _mm512_loadu_ps(added.as_ptr()));
        _mm512_mask_storeu_ps(factors.as_mut_ptr(), mask, worth);
        _mm512_mask_storeu_ps(sums.as_mut_ptr(), mask, sum);
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
