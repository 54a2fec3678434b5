//! The gradients of attention: probabilities are made anew from the scores, block by block.

use super::bf16::pack_pairs;
use super::{Attention, Block, Heads, Left, pack_rows, times_packed, times_rows};
use crate::bf16;
use crate::math::{self, Scores};
use crate::share::{Shared, zeros};
use crate::simd::Isa;
use crate::tile::{Cells, Onto, even_parts};
use rayon::prelude::*;

/// Queries and keys of a block; keys a multiple of 32.
const QUERIES: usize = 64;
const KEYS: usize = 128;

/// Into how many parts a batch that shares its bias is cut for the bias's gradient: fixed, so that the order
/// of the sums does not follow the number of threads.
const PARTS: usize = 8;

/// The gradients of one attention.
pub struct AttentionGradients {
    /// `[batch, queries, heads, width]`.
    pub q: Vec<f32>,
    /// `[batch, keys, heads, width]`.
    pub k: Vec<f32>,
    /// `[batch, keys, heads, width]`.
    pub v: Vec<f32>,
    /// As the bias; empty without one.
    pub bias: Vec<f32>,
}

/// What the backward pass is given.
struct Given<'a> {
    sizes: &'a Attention,
    isa: Isa,
    cells: Cells,
    q: Heads<'a>,
    k: Heads<'a>,
    v: Heads<'a>,
    bias: Option<&'a [f32]>,
    y: Heads<'a>,
    logarithms: &'a [f32],
    dy: Heads<'a>,
}

impl Attention {
    /// The gradients of all inputs, from those inputs, from what [`Attention::forward`] gave, and from the
    /// gradient `dy` of `y`.
    #[allow(clippy::too_many_arguments, reason = "all of it is needed")]
    pub fn backward(
        &self,
        q: Heads,
        k: Heads,
        v: Heads,
        bias: Option<&[f32]>,
        y: &[f32],
        logarithms: &[f32],
        dy: Heads,
    ) -> AttentionGradients {
        self.backward_with(Isa::detect(), self.products.cells(), q, k, v, bias, y, logarithms, dy)
    }

    #[allow(clippy::too_many_arguments, reason = "all of it is needed")]
    pub(super) fn backward_with(
        &self,
        isa: Isa,
        cells: Cells,
        q: Heads,
        k: Heads,
        v: Heads,
        bias: Option<&[f32]>,
        y: &[f32],
        logarithms: &[f32],
        dy: Heads,
    ) -> AttentionGradients {
        self.check(q, k, v, bias);
        let y = Heads::interleaved(y, self.queries, self.heads, self.width);
        y.check([self.batch, self.heads, self.queries, self.width]);
        dy.check([self.batch, self.heads, self.queries, self.width]);
        assert_eq!(logarithms.len(), self.batch * self.heads * self.queries, "logarithms");
        let given = Given { sizes: self, isa, cells, q, k, v, bias, y, logarithms, dy };
        let size = self.batch * self.heads * self.width;
        let [mut dq, mut dk, mut dv] = [self.queries, self.keys, self.keys].map(|rows| zeros(size * rows));
        let outputs = [&mut dq, &mut dk, &mut dv].map(|output| Shared::new(output));
        // A task has the heads that share a piece of the bias's gradient.
        let [batches, heads] = self.bias.unwrap_or([self.batch, self.heads]);
        let parts = if batches == 1 { self.batch.min(PARTS) } else { batches };
        let piece = if self.bias.is_some() { self.queries * self.keys } else { 0 };
        let mut pieces = vec![0.0; parts * heads * piece];
        let work = |index: usize, piece: &mut [f32]| {
            let (part, group) = (index / heads, index % heads);
            for batch in part * self.batch / parts..(part + 1) * self.batch / parts {
                for head in if heads == 1 { 0..self.heads } else { group..group + 1 } {
                    given.head(batch, head, piece, outputs);
                }
            }
        };
        if piece == 0 {
            (0..parts * heads).into_par_iter().for_each(|index| work(index, &mut []));
        } else {
            pieces.par_chunks_exact_mut(piece).enumerate().for_each(|(index, piece)| work(index, piece));
        }
        if batches == 1 {
            let (sum, rest) = pieces.split_at_mut(heads * piece);
            for part in rest.chunks_exact(sum.len().max(1)) {
                sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            }
            pieces.truncate(heads * piece);
        }
        AttentionGradients { q: dq, k: dk, v: dv, bias: pieces }
    }
}

impl Given<'_> {
    /// One head; the gradient of its bias is added to `dbias`, if there is one.
    fn head(&self, batch: usize, head: usize, dbias: &mut [f32], outputs: [Shared; 3]) {
        let Attention { heads, queries, keys, width, .. } = *self.sizes;
        let (isa, cells, row) = (self.isa, self.cells, heads * width);
        let [q, k, v, y, dy] = [self.q, self.k, self.v, self.y, self.dy].map(|all| all.head(batch, head));
        let [q_row, k_row, v_row, y_row, dy_row] =
            [self.q, self.k, self.v, self.y, self.dy].map(|all| all.strides[2]);
        let logarithms = &self.logarithms[(batch * heads + head) * queries..][..queries];
        let bias = self.sizes.bias_of(self.bias, batch, head);
        // With what probabilities are multiplied by, so that the slopes of a query add up to zero.
        let factor = |dy: f32| if cells == Cells::Single { dy } else { bf16::nearest(dy) };
        let inner: Vec<f32> = (0..queries)
            .map(|query| {
                let pairs = y[query * y_row..][..width].iter().zip(&dy[query * dy_row..]);
                pairs.map(|(y, dy)| y * factor(*dy)).sum()
            })
            .collect();
        let at = |rows: usize, index: usize| ((batch * rows + index) * heads + head) * width;
        let stride = keys.min(KEYS).next_multiple_of(32);
        // Cells of a vector on the right side.
        let deep = if cells == Cells::Single { width } else { width.div_ceil(2) };
        let [mut packed_k, mut packed_v] = [(); 2].map(|()| vec![0.0; stride * deep]);
        let [mut scores, mut gradients] = [(); 2].map(|()| vec![0.0; QUERIES * stride]);
        let mut rooms: [Vec<f32>; 8] = Default::default();
        let [plain, k_room, left_q, left_dy, right_q, right_dy, turned, left] = &mut rooms;
        // What is not the first part is added to the others.
        let onto = |part: usize| if part == 0 { Onto::Nothing } else { Onto::Output };
        for (key, count) in even_parts(keys, KEYS) {
            self.pack((k, k_row), (key, count), plain, &mut packed_k);
            self.pack((v, v_row), (key, count), plain, &mut packed_v);
            let k = Block { data: &k[key * k_row..], row: k_row, count };
            let k = self.right(k, width, k_room);
            for (query, rows) in even_parts(queries, QUERIES) {
                let q = Block { data: &q[query * q_row..], row: q_row, count: rows };
                let dy = Block { data: &dy[query * dy_row..], row: dy_row, count: rows };
                let (left_q, left_dy) = (self.left(q, width, left_q), self.left(dy, width, left_dy));
                // SAFETY: all vectors were checked to be there; the blocks hold QUERIES rows.
                unsafe {
                    times_packed(isa, cells, left_q, &packed_k, count, deep, &mut scores, stride);
                    times_packed(isa, cells, left_dy, &packed_v, count, deep, &mut gradients, stride);
                }
                let span = query..query + rows;
                let place = query * keys + key;
                let block = Scores {
                    values: &mut scores,
                    stride,
                    keys: count,
                    scale: self.sizes.scale(),
                    bias: bias.map(|bias| (&bias[place..], keys)),
                };
                let dbias = if dbias.is_empty() { None } else { Some((&mut dbias[place..], keys)) };
                let (logarithms, inner) = (&logarithms[span.clone()], &inner[span]);
                math::softmax_gradient(isa, block, &mut gradients, logarithms, inner, dbias);
                let block = |data| Block { data, row: stride, count: rows };
                let [dq, dk, dv] = outputs;
                // SAFETY: as above; the outputs hold all vectors, and those of this head belong to this call.
                unsafe {
                    let (dk, dv) = (dk.at(at(keys, key)), dv.at(at(keys, key)));
                    let (q, dy) = (self.right(q, width, right_q), self.right(dy, width, right_dy));
                    let probabilities = self.turned(block(&scores), count, turned);
                    times_rows(isa, cells, probabilities, dy, width, dv, row, onto(query));
                    let slopes = self.turned(block(&gradients), count, turned);
                    times_rows(isa, cells, slopes, q, width, dk, row, onto(query));
                    let slopes = self.left(block(&gradients), count, left);
                    times_rows(isa, cells, slopes, k, width, dq.at(at(queries, query)), row, onto(key));
                }
            }
        }
    }

    /// Vectors as the columns of a product.
    fn pack(&self, rows: (&[f32], usize), part: (usize, usize), plain: &mut Vec<f32>, out: &mut [f32]) {
        let width = self.sizes.width;
        match self.cells {
            Cells::Single => pack_rows(self.isa, rows.0, rows.1, part.0, part.1, width, out),
            cells => pack_pairs(self.isa, cells, rows, part, width, plain, out),
        }
    }

    /// Vectors as rows of the left side, their elements summed over; rounded in `room`.
    fn left<'b>(&self, rows: Block<'b>, width: usize, room: &'b mut Vec<f32>) -> Left<'b> {
        let Block { data, row, count } = rows;
        if self.cells == Cells::Single {
            return Left { data, row, k: 1, rows: count };
        }
        let to = bf16::left_cells(self.cells, width);
        room.resize(count * to, 0.0);
        for (index, out) in room.chunks_exact_mut(to).enumerate() {
            bf16::round_pixels(self.isa, self.cells, &data[index * row..][..width], width, out);
        }
        Left { data: room, row: to, k: bf16::left_cells(self.cells, 2), rows: count }
    }

    /// Vectors as columns of the left side, summed over; pairs of them in `room`.
    fn turned<'b>(&self, rows: Block<'b>, width: usize, room: &'b mut Vec<f32>) -> Left<'b> {
        if self.cells == Cells::Single {
            return Left { data: rows.data, row: 1, k: rows.row, rows: width };
        }
        let pair = bf16::left_cells(self.cells, 2);
        rows.join(width, pair, room, |first, second, out| {
            bf16::join_left(self.isa, self.cells, first, second, out);
        });
        Left { data: room, row: pair, k: width * pair, rows: width }
    }

    /// Vectors as rows of the right side, summed over; pairs of them in `room`.
    fn right<'b>(&self, rows: Block<'b>, width: usize, room: &'b mut Vec<f32>) -> Block<'b> {
        if self.cells == Cells::Single {
            return rows;
        }
        rows.join(width, 1, room, |first, second, out| {
            bf16::join(self.isa, self.cells, first, second, out);
        });
        Block { data: room, row: width, count: rows.count.div_ceil(2) }
    }
}

impl Block<'_> {
    /// Every two vectors to `width · cells` in `room`, zeros after the last one of an odd number.
    fn join(
        &self,
        width: usize,
        cells: usize,
        room: &mut Vec<f32>,
        join: impl Fn(&[f32], &[f32], &mut [f32]),
    ) {
        let zeros = vec![0.0; width];
        let vector = |index: usize| {
            if index < self.count { &self.data[index * self.row..][..width] } else { &zeros }
        };
        room.resize(self.count.div_ceil(2) * width * cells, 0.0);
        for (pair, out) in room.chunks_exact_mut(width * cells).enumerate() {
            join(vector(2 * pair), vector(2 * pair + 1), out);
        }
    }
}
