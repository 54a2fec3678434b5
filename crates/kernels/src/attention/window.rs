//! Attention inside the square windows of a grid of tokens (Swin Transformer, arXiv 2103.14030), forward: tokens are
//! read where they lie, for all heads at once, and what they find is written there.

use super::bf16::probabilities;
use super::{Attention, Heads, Task};
use crate::bf16;
use crate::math::{Scores, for_each_isa};
use crate::pack::Right;
use crate::products::Products;
use crate::share::{Shared, filled};
use crate::simd::Isa;
use crate::tile::{self, Cells, Onto, Then, Tile, even_parts};
use rayon::prelude::*;

/// The sizes of one attention inside windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowAttention {
    /// Grids.
    pub batch: usize,
    /// Rows of a grid, whole windows.
    pub rows: usize,
    /// Its columns, whole windows.
    pub columns: usize,
    /// Heads.
    pub heads: usize,
    /// Features of a query, key or value; scores are divided by its square root.
    pub width: usize,
    /// Tokens of a window's side, at most 16.
    pub window: usize,
    /// By how many tokens windows are moved down and right; the grid starts anew at its edges.
    pub shift: usize,
    /// Of queries with keys and of probabilities with values.
    pub products: Products,
}

/// What the attention is given.
struct Given<'a> {
    sizes: WindowAttention,
    isa: Isa,
    cells: Cells,
    parts: &'a [f32],
    bias: &'a [f32],
    mask: Option<&'a [f32]>,
}

/// Memory of a thread; cells as in `tile.rs`.
#[derive(Default)]
struct Scratch {
    /// `[token][head][feature]`.
    queries: Vec<f32>,
    /// `[token][head][pair of features]`.
    keys: Vec<f32>,
    /// `[pair of tokens][head][feature]`.
    values: Vec<f32>,
    /// `[panel][pair of features][token]`.
    panels: Vec<f32>,
    /// `[query][token]`.
    scores: Vec<f32>,
    /// The same in cells.
    probabilities: Vec<f32>,
    /// `[query][token]`, with the mask.
    bias: Vec<f32>,
    /// `[token][head][feature]`.
    y: Vec<f32>,
    /// `[head][token]`.
    sums: Vec<f32>,
}

impl WindowAttention {
    fn tokens(&self) -> usize {
        self.window * self.window
    }

    /// `[batch, rows, columns, heads · width]` from `parts[batch, rows, columns, 3 · heads · width]`, queries, keys and
    /// values side by side. `bias[heads, tokens, tokens]` is added to the scores, and so is a `mask[windows of a grid,
    /// tokens, tokens]`.
    pub fn forward(&self, parts: &[f32], bias: &[f32], mask: Option<&[f32]>) -> Vec<f32> {
        let cells = self.products.cells();
        self.forward_with(Isa::detect(), cells, parts, bias, mask)
    }

    pub(super) fn forward_with(
        &self,
        isa: Isa,
        cells: Cells,
        parts: &[f32],
        bias: &[f32],
        mask: Option<&[f32]>,
    ) -> Vec<f32> {
        let (tokens, grid, features) = (self.tokens(), self.rows * self.columns, self.heads * self.width);
        assert!(self.rows.is_multiple_of(self.window) && self.columns.is_multiple_of(self.window), "windows");
        assert!((1..=16).contains(&self.window) && self.shift < self.window, "window");
        assert_eq!(parts.len(), self.batch * grid * 3 * features, "parts");
        assert_eq!(bias.len(), self.heads * tokens * tokens, "bias");
        assert!(mask.is_none_or(|mask| mask.len() == grid * tokens), "mask");
        let given = Given { sizes: *self, isa, cells, parts, bias, mask };
        let write = |room: &mut [_]| {
            let output = Shared::room(room);
            let windows = self.batch * grid / tokens;
            (0..windows).into_par_iter().for_each_init(Scratch::default, |scratch, window| {
                if cells == Cells::Single {
                    given.window(window, scratch);
                } else {
                    given.window_bf16(window, scratch);
                }
                for (token, y) in scratch.y.chunks_exact(features).enumerate() {
                    // SAFETY: the output has all features of all tokens, and each token is in one window.
                    unsafe {
                        let to = output.at(self.place(window, token) * features);
                        to.copy_from_nonoverlapping(y.as_ptr(), features);
                    }
                }
            });
        };
        // SAFETY: each token of the grids is in one of the windows.
        unsafe { filled(self.batch * grid * features, write) }
    }

    /// Where a window's token is among all tokens.
    fn place(&self, window: usize, token: usize) -> usize {
        let across = self.columns / self.window;
        let (down, left) = (window / across, window % across);
        // Windows of all grids, one below the other.
        let (grid, down) = (down / (self.rows / self.window), down % (self.rows / self.window));
        let row = (down * self.window + token / self.window + self.shift) % self.rows;
        let column = (left * self.window + token % self.window + self.shift) % self.columns;
        (grid * self.rows + row) * self.columns + column
    }
}

impl Given<'_> {
    /// Queries, keys or values (0, 1, 2) of a window's token, all heads.
    fn part(&self, window: usize, token: usize, part: usize) -> &[f32] {
        let features = self.sizes.heads * self.sizes.width;
        &self.parts[(3 * self.sizes.place(window, token) + part) * features..][..features]
    }

    /// The mask of a window, if it hides anything, which most do not.
    fn mask(&self, window: usize) -> Option<&[f32]> {
        let size = self.sizes.tokens() * self.sizes.tokens();
        let windows = self.sizes.rows * self.sizes.columns / self.sizes.tokens();
        let mask = self.mask.map(|mask| &mask[window % windows * size..][..size]);
        mask.filter(|mask| mask.iter().any(|value| *value != 0.0))
    }

    /// What is added to a head's scores: `room`, if there is a mask, else as it came.
    fn bias<'a>(&'a self, mask: Option<&[f32]>, head: usize, room: &'a mut Vec<f32>) -> &'a [f32] {
        let size = self.sizes.tokens() * self.sizes.tokens();
        let bias = &self.bias[head * size..][..size];
        let Some(mask) = mask else { return bias };
        room.clear();
        room.extend(bias.iter().zip(mask).map(|(bias, mask)| bias + mask));
        room
    }

    /// One window, to `scratch.y`, in f32.
    fn window(&self, window: usize, scratch: &mut Scratch) {
        let WindowAttention { heads, width, products, .. } = self.sizes;
        let (tokens, features) = (self.sizes.tokens(), heads * width);
        // Here with keys and values behind the queries.
        scratch.queries.resize(3 * tokens * features, 0.0);
        for (index, to) in scratch.queries.chunks_exact_mut(features).enumerate() {
            to.copy_from_slice(self.part(window, index % tokens, index / tokens));
        }
        scratch.y.resize(tokens * features, 0.0);
        scratch.sums.resize(tokens, 0.0);
        let sizes =
            Attention { batch: 1, heads, queries: tokens, keys: tokens, width, bias: Some([1, 1]), products };
        let parts = scratch.queries.chunks_exact(tokens * features);
        let [q, k, v] = [0, 1, 2].map(|part| {
            let data = parts.clone().nth(part).expect("there are three");
            Heads::interleaved(data, tokens, heads, width)
        });
        let mask = self.mask(window);
        for head in 0..heads {
            let task = Task {
                sizes: &sizes,
                isa: self.isa,
                cells: self.cells,
                q: q.head(0, head),
                k: k.head(0, head),
                v: v.head(0, head),
                rows: [features; 3],
                bias: Some(self.bias(mask, head, &mut scratch.bias)),
            };
            // SAFETY: y has all queries.
            unsafe {
                task.run(scratch.y[head * width..].as_mut_ptr(), &mut scratch.sums, &mut scratch.panels)
            };
        }
    }

    /// One window, to `scratch.y`, in bf16: queries, keys, values and probabilities are rounded.
    fn window_bf16(&self, window: usize, scratch: &mut Scratch) {
        let WindowAttention { heads, width, .. } = self.sizes;
        let (tokens, features) = (self.sizes.tokens(), heads * width);
        let (isa, cells, columns) = (self.isa, self.cells, self.isa.max_columns());
        let (pairs, query) = (width.div_ceil(2), bf16::left_cells(cells, width));
        scratch.queries.resize(tokens * heads * query, 0.0);
        for (token, to) in scratch.queries.chunks_exact_mut(heads * query).enumerate() {
            bf16::round_pixels(isa, cells, self.part(window, token, 0), width, to);
        }
        // Sixteen cells are packed at once: some behind the last ones.
        let depth = pairs.next_multiple_of(16);
        scratch.keys.resize(tokens * heads * pairs + depth, 0.0);
        for (token, to) in scratch.keys.chunks_exact_mut(heads * pairs).take(tokens).enumerate() {
            bf16::round_to_pairs(isa, cells, self.part(window, token, 1), width, to);
        }
        scratch.values.resize(tokens.div_ceil(2) * features, 0.0);
        let nothing = vec![0.0; if tokens.is_multiple_of(2) { 0 } else { features }];
        for (pair, to) in scratch.values.chunks_exact_mut(features).enumerate() {
            let second = if 2 * pair + 1 < tokens { self.part(window, 2 * pair + 1, 2) } else { &nothing };
            bf16::join(isa, cells, self.part(window, 2 * pair, 2), second, to);
        }
        let (stride, most) = (tokens.next_multiple_of(columns), cells.max_rows(isa));
        let probability = bf16::left_cells(cells, stride);
        scratch.panels.resize(stride * depth, 0.0);
        scratch.scores.resize(most * stride, 0.0);
        scratch.probabilities.resize(most * probability, 0.0);
        scratch.y.resize(tokens * features, 0.0);
        scratch.sums.clear();
        scratch.sums.resize(heads * tokens, 0.0);
        let mut factors = vec![0.0; most];
        let mask = self.mask(window);
        for head in 0..heads {
            for (start, panel) in
                (0..tokens).step_by(columns).zip(scratch.panels.chunks_exact_mut(depth * columns))
            {
                let keys = Right::Columns { data: &scratch.keys[head * pairs..], depth: heads * pairs };
                keys.pack(isa, 0..depth, start..tokens.min(start + columns), columns, panel);
            }
            let bias = self.bias(mask, head, &mut scratch.bias);
            for (first, rows) in even_parts(tokens, most) {
                let product = Tile {
                    a: scratch.queries[first * heads * query + head * query..].as_ptr(),
                    a_row: heads * query,
                    a_k: if cells == Cells::Widened { 2 } else { 1 },
                    a_run: 0,
                    b: std::ptr::null(),
                    b_k: columns,
                    b_run: 0,
                    runs: 1,
                    len: pairs,
                    c: std::ptr::null_mut(),
                    c_row: stride,
                    onto: Onto::Nothing,
                    then: Then::NOTHING,
                };
                let panels = scratch.panels.chunks_exact(depth * columns);
                for (start, panel) in (0..tokens).step_by(columns).zip(panels) {
                    let c = scratch.scores[start..].as_mut_ptr();
                    let tile = Tile { b: panel.as_ptr(), c, ..product };
                    // SAFETY: there are `most` rows of scores, the queries of all tokens, and `pairs` rows of the panel.
                    unsafe { tile::run_cells(isa, cells, &tile, rows, columns.min(tokens - start)) };
                }
                let scores = Scores {
                    values: &mut scratch.scores,
                    stride,
                    keys: tokens,
                    scale: (width as f32).sqrt().recip(),
                    bias: Some((&bias[first * tokens..], tokens)),
                };
                let mut largest = [f32::NEG_INFINITY; 16];
                let sums = &mut scratch.sums[head * tokens + first..][..rows];
                let state = (&mut largest[..rows], sums, &mut factors[..rows]);
                probabilities(isa, cells, scores, state, &mut scratch.probabilities);
                for start in (0..width).step_by(columns) {
                    let tile = Tile {
                        a: scratch.probabilities.as_ptr(),
                        a_row: probability,
                        b: scratch.values[head * width + start..].as_ptr(),
                        b_k: features,
                        len: tokens.div_ceil(2),
                        c: scratch.y[first * features + head * width + start..].as_mut_ptr(),
                        c_row: features,
                        ..product
                    };
                    // SAFETY: there are the probabilities of `rows` rows for all tokens, their values, and all of y.
                    unsafe { tile::run_cells(isa, cells, &tile, rows, columns.min(width - start)) };
                }
            }
        }
        divide(isa, &mut scratch.y, &scratch.sums, [heads, width]);
    }
}

#[inline(always)]
fn divide_tokens<const FUSED: bool>(y: &mut [f32], sums: &[f32], [heads, width]: [usize; 2]) {
    let tokens = sums.len() / heads;
    for (token, y) in y.chunks_exact_mut(heads * width).enumerate() {
        for (head, y) in y.chunks_exact_mut(width).enumerate() {
            let factor = 1.0 / sums[head * tokens + token];
            y.iter_mut().for_each(|y| *y *= factor);
        }
    }
}

for_each_isa! {
    /// Each head of `y[token][head][width]` by its sum, `[head][token]`.
    fn divide(y: &mut [f32], sums: &[f32], size: [usize; 2]) = divide_tokens
}
