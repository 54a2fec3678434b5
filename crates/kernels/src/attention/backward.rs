//! The gradients of attention: probabilities are made anew from the scores, block by block.

use super::{Attention, Block, Heads, Left, pack_rows, times_packed, times_rows};
use crate::math::{self, Scores};
use crate::share::{Shared, zeros};
use crate::simd::Isa;
use crate::tile::even_parts;
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
        self.check(q, k, v, bias);
        let y = Heads::interleaved(y, self.queries, self.heads, self.width);
        y.check([self.batch, self.heads, self.queries, self.width]);
        dy.check([self.batch, self.heads, self.queries, self.width]);
        assert_eq!(logarithms.len(), self.batch * self.heads * self.queries, "logarithms");
        let given = Given { sizes: self, isa: Isa::detect(), q, k, v, bias, y, logarithms, dy };
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
        let (isa, row) = (self.isa, heads * width);
        let [q, k, v, y, dy] = [self.q, self.k, self.v, self.y, self.dy].map(|all| all.head(batch, head));
        let [q_row, k_row, v_row, y_row, dy_row] =
            [self.q, self.k, self.v, self.y, self.dy].map(|all| all.strides[2]);
        let logarithms = &self.logarithms[(batch * heads + head) * queries..][..queries];
        let bias = self.sizes.bias_of(self.bias, batch, head);
        let inner: Vec<f32> = (0..queries)
            .map(|query| {
                y[query * y_row..][..width].iter().zip(&dy[query * dy_row..]).map(|(y, dy)| y * dy).sum()
            })
            .collect();
        let at = |rows: usize, index: usize| ((batch * rows + index) * heads + head) * width;
        let stride = keys.min(KEYS).next_multiple_of(32);
        let [mut packed_k, mut packed_v] = [(); 2].map(|()| vec![0.0; stride * width]);
        let [mut scores, mut gradients] = [(); 2].map(|()| vec![0.0; QUERIES * stride]);
        for (key, count) in even_parts(keys, KEYS) {
            pack_rows(isa, k, k_row, key, count, width, &mut packed_k);
            pack_rows(isa, v, v_row, key, count, width, &mut packed_v);
            for (query, rows) in even_parts(queries, QUERIES) {
                let (q, dy) = (&q[query * q_row..], &dy[query * dy_row..]);
                for (start, rows) in even_parts(rows, isa.max_rows()) {
                    let (q, dy) = (&q[start * q_row..], &dy[start * dy_row..]);
                    let (scores, gradients) =
                        (&mut scores[start * stride..], &mut gradients[start * stride..]);
                    // SAFETY: all vectors were checked to be there; the blocks hold QUERIES rows.
                    unsafe {
                        times_packed(isa, q, q_row, rows, &packed_k, count, width, scores, stride);
                        times_packed(isa, dy, dy_row, rows, &packed_v, count, width, gradients, stride);
                    }
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
                let turned = |data| Left { data, row: 1, k: stride, rows: count };
                let [dq, dk, dv] = outputs;
                // SAFETY: as above; the outputs hold all vectors, and those of this head belong to this call.
                unsafe {
                    let (dk, dv) = (dk.at(at(keys, key)), dv.at(at(keys, key)));
                    let block = |data, row, count| Block { data, row, count };
                    times_rows(isa, turned(&scores), block(dy, dy_row, rows), width, dv, row, query == 0);
                    times_rows(isa, turned(&gradients), block(q, q_row, rows), width, dk, row, query == 0);
                    let left = Left { data: &gradients, row: stride, k: 1, rows };
                    let k = block(&k[key * k_row..], k_row, count);
                    times_rows(isa, left, k, width, dq.at(at(queries, query)), row, key == 0);
                }
            }
        }
    }
}
