//! Products with gradients: convolution, linear maps and attention, forward and backward by the same kernels.
//!
//! Scores of attention are not kept for the backward pass, they are computed again.

use super::channels::CardChannels;
use super::{attention, attention_backward, convolved, product};
use crate::ops::flex::FIRST_ORDER;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Slice};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use diffbir_kernels::conv::Conv2d;

/// Bytes that the scores of a backward pass may take at once, of which there are four.
const MOST_SCORES: usize = 1 << 29;

/// Products that have a kernel of ours on graphics cards, and gradients.
#[backend_extension(Cube, Fusion, Autodiff)]
pub trait CardProducts: Backend {
    /// `a[.., rows, in]` by `b[.., in, out]`, either of which may be a transposed view.
    #[fusion(dtype = a, shape = multiplied(a, b))]
    fn card_multiply(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Convolution of `x[batch, height, width, in]` by `weight[out, kernel, kernel, in]`.
    #[fusion(dtype = x, shape = convolved(sizes))]
    fn card_convolution(x: FloatTensor<Self>, weight: FloatTensor<Self>, sizes: Conv2d) -> FloatTensor<Self>;

    /// Gradient of the convolution's weight.
    #[fusion(dtype = x, shape = weight_of(sizes))]
    fn card_convolution_backward_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        sizes: Conv2d,
    ) -> FloatTensor<Self>;

    /// Attention of `q[batch, heads, n, d]` to `k` and `v`, `[batch, heads, m, d]`.
    #[fusion(dtype = q, shape = q)]
    fn card_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The same with `bias[batch or 1, heads or 1, n, m]` in f32 added to the scores.
    #[fusion(dtype = q, shape = q)]
    fn card_attention_biased(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Softmax of the last dimension of `scores[batch, heads, n, m]`, a bias in f32 added before if `biased`.
    #[fusion(dtype = scores, shape = scores)]
    fn card_softmax(scores: FloatTensor<Self>, bias: FloatTensor<Self>, biased: bool) -> FloatTensor<Self>;

    /// Gradient of the scores from their softmax and its gradient.
    #[fusion(dtype = shares, shape = shares)]
    fn card_softmax_backward(shares: FloatTensor<Self>, of_shares: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl CardProducts for CubeBackend {
    fn card_multiply(a: CubeTensor, b: CubeTensor) -> CubeTensor {
        product::multiply(a, b)
    }

    fn card_convolution(x: CubeTensor, weight: CubeTensor, sizes: Conv2d) -> CubeTensor {
        product::convolution(x, weight, sizes)
    }

    fn card_convolution_backward_weight(x: CubeTensor, dy: CubeTensor, sizes: Conv2d) -> CubeTensor {
        product::convolution_backward_weight(x, dy, sizes)
    }

    fn card_attention(q: CubeTensor, k: CubeTensor, v: CubeTensor) -> CubeTensor {
        attention::attention(q, k, v)
    }

    fn card_attention_biased(q: CubeTensor, k: CubeTensor, v: CubeTensor, bias: CubeTensor) -> CubeTensor {
        attention::attention_biased(q, k, v, bias)
    }

    fn card_softmax(scores: CubeTensor, bias: CubeTensor, biased: bool) -> CubeTensor {
        attention::softmax(scores, biased.then_some(bias))
    }

    fn card_softmax_backward(shares: CubeTensor, of_shares: CubeTensor) -> CubeTensor {
        attention_backward::softmax_backward(shares, of_shares)
    }
}

/// The shape of `a[.., rows, in]` by `b[.., in, out]`.
pub(super) fn multiplied(a: &Shape, b: &Shape) -> Shape {
    let last = a.num_dims() - 1;
    let mut shape = a.clone();
    shape[last] = b[last];
    shape
}

/// The shape of a convolution's weight.
pub(super) fn weight_of(sizes: &Conv2d) -> Shape {
    Shape::from([sizes.out_channels, sizes.kernel, sizes.kernel, sizes.in_channels])
}

/// The last two dimensions the other way round.
fn turned<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dims = x.shape().num_dims();
    B::float_swap_dims(x, dims - 2, dims - 1)
}

#[derive(Debug)]
struct MultiplyBackward;

impl<B: Backend + CardProducts> Backward<B, 2> for MultiplyBackward {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([a, b], [node_a, node_b]) = (ops.state, ops.parents);
        if let Some(node) = node_a {
            grads.register::<B>(node.id, B::card_multiply(dy.clone(), turned::<B>(b)));
        }
        if let Some(node) = node_b {
            grads.register::<B>(node.id, B::card_multiply(turned::<B>(a), dy));
        }
    }
}

#[derive(Debug)]
struct ConvolutionBackward;

impl<B: Backend + CardProducts> Backward<B, 2> for ConvolutionBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, Conv2d);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ((x, weight, sizes), [node_x, node_weight]) = (ops.state, ops.parents);
        if let Some(node) = node_x {
            grads.register::<B>(node.id, backward_input::<B>(dy.clone(), weight, sizes));
        }
        if let Some(node) = node_weight {
            grads.register::<B>(node.id, B::card_convolution_backward_weight(x, dy, sizes));
        }
    }
}

/// Gradient of the convolution's input: the convolution of `dy`, zeros between its pixels where the kernel went by
/// larger steps, with the kernel turned about its centre.
fn backward_input<B: Backend + CardProducts>(
    dy: FloatTensor<B>,
    weight: FloatTensor<B>,
    sizes: Conv2d,
) -> FloatTensor<B> {
    assert!(!sizes.doubled, "what is enlarged first is enlarged by an operation of its own");
    let Conv2d { batch, height, width, kernel, stride, pad_before, .. } = sizes;
    let (out_height, out_width) = sizes.out_size();
    let (rows, columns) = ((out_height - 1) * stride + 1, (out_width - 1) * stride + 1);
    let dy = if stride == 1 {
        dy
    } else {
        let channels = sizes.out_channels;
        // With the pixels at the end that no place of the kernel stood on, so many as there are.
        let shape = Shape::from([batch, height + pad_before, width + pad_before, channels]);
        let apart = B::float_zeros(shape, &dy.device(), dy.dtype().into());
        let step = |end: usize| Slice::new(0, Some(end as isize), stride as isize);
        let all = |end: usize| Slice::from(0..end);
        B::float_slice_assign(apart, &[all(batch), step(rows), step(columns), all(channels)], dy)
    };
    let shape = dy.shape();
    let back = Conv2d {
        height: shape[1],
        width: shape[2],
        in_channels: sizes.out_channels,
        out_channels: sizes.in_channels,
        stride: 1,
        pad_before: kernel - 1 - pad_before,
        pad_after: height + pad_before - shape[1],
        ..sizes
    };
    let weight = B::float_flip(B::float_permute(weight, &[3, 1, 2, 0]), &[1, 2]);
    B::card_convolution(dy, weight, back)
}

#[derive(Debug)]
struct AttentionBackward;

/// Of queries, keys and values, and of a bias where `N` is 4.
impl<B: Backend + CardProducts + CardChannels, const N: usize> Backward<B, N> for AttentionBackward {
    type State = ([FloatTensor<B>; 3], Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([q, k, v], bias) = ops.state;
        let all = attention_gradients::<B>(q, k, v, bias, dy);
        for (node, grad) in ops.parents.into_iter().zip(all) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

/// The gradients of queries, keys, values, and of the bias if there is one.
fn attention_gradients<B: Backend + CardProducts + CardChannels>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    dy: FloatTensor<B>,
) -> [Option<FloatTensor<B>>; 4] {
    let shape = q.shape();
    let (batch, heads, queries, width) = (shape[0], shape[1], shape[2], shape[3]);
    let keys = k.shape()[2];
    // A bias keeps its queries together: it is for windows, which are small.
    let at_once = if bias.is_some() { queries } else { MOST_SCORES / (4 * batch * heads * keys) };
    let scale = (width as f32).powf(-0.5);
    let scaled = B::float_mul_scalar(q, scale.into());
    let mut sums: [Option<FloatTensor<B>>; 2] = [None, None];
    let (mut of_queries, mut of_bias) = (Vec::new(), None);
    for first in (0..queries).step_by(at_once.max(1)) {
        let part = |x: &FloatTensor<B>| {
            let last = queries.min(first + at_once.max(1));
            let range = |end: usize| Slice::from(0..end);
            B::float_slice(x.clone(), &[range(batch), range(heads), Slice::from(first..last), range(width)])
        };
        let (q, dy) = (part(&scaled), part(&dy));
        let scores = B::card_multiply(q.clone(), turned::<B>(k.clone()));
        let added = bias.clone().unwrap_or_else(|| scores.clone());
        let shares = B::card_softmax(scores, added, bias.is_some());
        let of_shares = B::card_multiply(dy.clone(), turned::<B>(v.clone()));
        let of_scores = B::card_softmax_backward(shares.clone(), of_shares);
        of_queries.push(B::float_mul_scalar(B::card_multiply(of_scores.clone(), k.clone()), scale.into()));
        let of_keys = B::card_multiply(turned::<B>(of_scores.clone()), q);
        let of_values = B::card_multiply(turned::<B>(shares), dy);
        for (sum, more) in sums.iter_mut().zip([of_keys, of_values]) {
            *sum = Some(match sum.take() {
                Some(sum) => B::float_add(sum, more),
                None => more,
            });
        }
        of_bias = bias.as_ref().map(|bias| summed_as::<B>(of_scores, bias.shape()));
    }
    let of_queries = match of_queries.len() {
        1 => of_queries.pop(),
        _ => Some(B::float_cat(of_queries, 2)),
    };
    let [of_keys, of_values] = sums;
    [of_queries, of_keys, of_values, of_bias]
}

/// The gradient of a bias `[batch or 1, heads or 1, n, m]` from that of scores.
fn summed_as<B: Backend + CardChannels>(of_scores: FloatTensor<B>, bias: Shape) -> FloatTensor<B> {
    let scores = of_scores.shape();
    if bias[0] == 1 && scores[0] > 1 && bias[1] == scores[1] {
        let of_one = scores.num_elements() / scores[0];
        let rows = B::float_reshape(of_scores, Shape::from([scores[0], of_one]));
        return B::float_reshape(B::card_column_sums(rows), bias);
    }
    let repeated = (0..2).filter(|dim| bias[*dim] == 1);
    repeated.fold(of_scores, |sum, dim| B::float_sum_dim(sum, dim))
}

impl<B: Backend + CardProducts + CardChannels, C: CheckpointStrategy> CardProducts for Autodiff<B, C> {
    fn card_multiply(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [a.node(), b.node()];
        let (a, b) = (a.into_primitive(), b.into_primitive());
        match MultiplyBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::card_multiply(a.clone(), b.clone());
                prep.finish([a, b], y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::card_multiply(a, b)),
        }
    }

    fn card_convolution(x: FloatTensor<Self>, weight: FloatTensor<Self>, sizes: Conv2d) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        match ConvolutionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::card_convolution(x.clone(), weight.clone(), sizes);
                prep.finish((x, weight, sizes), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::card_convolution(x, weight, sizes)),
        }
    }

    fn card_convolution_backward_weight(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Conv2d,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn card_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [q.node(), k.node(), v.node()];
        let [q, k, v] = [q, k, v].map(|input| input.into_primitive());
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::card_attention(q.clone(), k.clone(), v.clone());
                prep.finish(([q, k, v], None), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::card_attention(q, k, v)),
        }
    }

    fn card_attention_biased(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [q.node(), k.node(), v.node(), bias.node()];
        let [q, k, v, bias] = [q, k, v, bias].map(|input| input.into_primitive());
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::card_attention_biased(q.clone(), k.clone(), v.clone(), bias.clone());
                prep.finish(([q, k, v], Some(bias)), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::card_attention_biased(q, k, v, bias)),
        }
    }

    fn card_softmax(_: FloatTensor<Self>, _: FloatTensor<Self>, _: bool) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn card_softmax_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}
