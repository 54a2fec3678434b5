//! Attention as an operation of burn's Flex backend, with gradients.

use super::{FIRST_ORDER, tensor, with_slice};
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use burn::tensor::{DType, Shape, Slice};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{FlexTensor, Layout};
use diffbir_kernels::attention::{Attention, Heads};

/// Attention over `q[batch, heads, queries, width]`, `k` and `v` `[batch, heads, keys, width]`. `bias` is read
/// if `sizes` has one.
#[backend_extension(Flex, Autodiff)]
pub trait AttentionKernel: Backend {
    /// `[batch, heads, queries, width]`.
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Attention,
    ) -> FloatTensor<Self>;

    /// The result in the order `[batch, queries, heads, width]` and then what else the backward pass asks
    /// for, `[batch, heads, queries]`, in one vector.
    fn attend_saving(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Attention,
    ) -> FloatTensor<Self>;

    /// The gradients of `q`, `k` and `v`, in the order `[batch, rows, heads, width]`, and of the bias, one
    /// after the other in one vector.
    fn attend_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        sizes: Attention,
    ) -> FloatTensor<Self>;
}

/// Vectors where they lie, handed to `f`; copied first if the elements of one are not neighbours.
fn with_heads<R>(tensor: &FlexTensor, f: impl FnOnce(Heads) -> R) -> R {
    let layout = tensor.layout();
    match *layout.strides() {
        [batch, head, row, 1] if batch >= 0 && head >= 0 && row >= 0 => f(Heads {
            data: &tensor.storage::<f32>()[layout.start_offset()..],
            strides: [batch, head, row].map(|stride| stride as usize),
        }),
        _ => with_contiguous_heads(tensor, f),
    }
}

fn with_contiguous_heads<R>(tensor: &FlexTensor, f: impl FnOnce(Heads) -> R) -> R {
    let [_, heads, rows, width] = tensor.layout().shape().dims();
    with_slice(tensor, |data| f(Heads { data, strides: [heads * rows * width, rows * width, width] }))
}

/// Vectors `[batch, rows, heads, width]` as a tensor `[batch, heads, rows, width]`.
fn heads(values: Vec<f32>, sizes: &Attention, rows: usize) -> FlexTensor {
    let shape = [sizes.batch, rows, sizes.heads, sizes.width];
    let tensor = tensor(values, shape);
    let layout: Layout = tensor.layout().transpose(1, 2);
    tensor.with_layout(layout)
}

impl AttentionKernel for Flex {
    fn attend(q: FlexTensor, k: FlexTensor, v: FlexTensor, bias: FlexTensor, sizes: Attention) -> FlexTensor {
        heads(forward(&q, &k, &v, &bias, &sizes).0, &sizes, sizes.queries)
    }

    fn attend_saving(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        bias: FlexTensor,
        sizes: Attention,
    ) -> FlexTensor {
        let (mut saved, logarithms) = forward(&q, &k, &v, &bias, &sizes);
        saved.extend_from_slice(&logarithms);
        let length = saved.len();
        tensor(saved, [length])
    }

    fn attend_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        bias: FlexTensor,
        saved: FlexTensor,
        dy: FlexTensor,
        sizes: Attention,
    ) -> FlexTensor {
        let grads = with_heads(&q, |q| {
            with_heads(&k, |k| {
                with_heads(&v, |v| {
                    with_heads(&dy, |dy| {
                        with_slice(&bias, |bias| {
                            with_slice(&saved, |saved| {
                                let bias = sizes.bias.map(|_| bias);
                                let (y, logarithms) =
                                    saved.split_at(sizes.batch * sizes.queries * sizes.heads * sizes.width);
                                sizes.backward(q, k, v, bias, y, logarithms, dy)
                            })
                        })
                    })
                })
            })
        });
        let all = [grads.q, grads.k, grads.v, grads.bias].concat();
        let length = all.len();
        tensor(all, [length])
    }
}

fn forward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    bias: &FlexTensor,
    sizes: &Attention,
) -> (Vec<f32>, Vec<f32>) {
    assert_eq!(q.dtype(), DType::F32, "activations are f32");
    with_heads(q, |q| {
        with_heads(k, |k| {
            with_heads(v, |v| with_slice(bias, |bias| sizes.forward(q, k, v, sizes.bias.map(|_| bias))))
        })
    })
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: Backend + AttentionKernel> Backward<B, 4> for AttentionBackward {
    type State = ([FloatTensor<B>; 5], Attention);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([q, k, v, bias, saved], sizes) = ops.state;
        let all = B::attend_backward(q, k, v, bias, saved, dy, sizes);
        let Attention { batch, heads, queries, keys, width, .. } = sizes;
        let shapes = [
            [batch, queries, heads, width],
            [batch, keys, heads, width],
            [batch, keys, heads, width],
            sizes.bias.map_or([0; 4], |[batch, heads]| [batch, heads, queries, keys]),
        ];
        let mut start = 0;
        for (index, (node, shape)) in ops.parents.into_iter().zip(shapes).enumerate() {
            let length: usize = shape.iter().product();
            if let Some(node) = node
                && length > 0
            {
                let part = B::float_slice(all.clone(), &[Slice::from(start..start + length)]);
                let part = B::float_reshape(part, Shape::from(shape));
                let part = if index < 3 { B::float_swap_dims(part, 1, 2) } else { part };
                grads.register::<B>(node.id, part);
            }
            start += length;
        }
    }
}

impl<B: Backend + AttentionKernel, C: CheckpointStrategy> AttentionKernel for Autodiff<B, C> {
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Attention,
    ) -> FloatTensor<Self> {
        let inputs = [q, k, v, bias];
        let nodes = [0, 1, 2, 3].map(|index: usize| inputs[index].node());
        let [q, k, v, bias] = inputs.map(|input| input.into_primitive());
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let saved = B::attend_saving(q.clone(), k.clone(), v.clone(), bias.clone(), sizes);
                let shape = [sizes.batch, sizes.queries, sizes.heads, sizes.width];
                let length = shape.iter().product::<usize>();
                let y = B::float_slice(saved.clone(), &[Slice::from(0..length)]);
                let y = B::float_swap_dims(B::float_reshape(y, Shape::from(shape)), 1, 2);
                prep.finish(([q, k, v, bias, saved], sizes), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attend(q, k, v, bias, sizes)),
        }
    }

    fn attend_saving(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Attention,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn attend_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Attention,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}
