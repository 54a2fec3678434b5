//! Layer norms, sums, joins of channels, gated GELUs, attention in windows and group norms in two steps as operations of
//! burn's Flex backend.

use super::{FIRST_ORDER, tensor, with_slice};
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape, Slice};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{FlexTensor, Layout};
use diffbir_kernels::attention::WindowAttention;
use diffbir_kernels::conv::{PackedWeight, gated_linear};
use diffbir_kernels::norm::{GroupNorm, scale_and_shift};
use diffbir_kernels::{activation, channels, layer_norm, layer_norm_backward};
use std::sync::Arc;

/// Operations on rows of channels. Only the layer norm and the sum have gradients.
#[backend_extension(Flex, Autodiff)]
pub trait RowKernels: Backend {
    /// Normalisation of `[.., features]`.
    fn own_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// The gradients of input, weight and bias, one after the other in one vector.
    fn own_layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// The sum of two tensors of one shape.
    fn own_sum(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `values[batch, channels]` added to all pixels of `x[batch, .., channels]`.
    fn own_add_to_images(x: FloatTensor<Self>, values: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The channels of `a` and then those of `b`; `added`, if it is of the shape of `b`, is added to it.
    fn own_join(a: FloatTensor<Self>, b: FloatTensor<Self>, added: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The first half of the last dimension times the GELU of the second.
    fn own_geglu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The linear map of `[.., in]` with a weight that was packed before, and then [`RowKernels::own_geglu`].
    fn gated_linear(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        weight: Arc<PackedWeight>,
    ) -> FloatTensor<Self>;

    /// Attention in windows of `parts[batch, rows, columns, 3 · features]`; `mask` is read if `masked`.
    fn attend_in_windows(
        parts: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        masked: bool,
        sizes: WindowAttention,
    ) -> FloatTensor<Self>;

    /// Mean and variance of each group of the one image `x`, `[2, groups]` in f64.
    fn group_moments(x: FloatTensor<Self>, sizes: GroupNorm) -> FloatTensor<Self>;

    /// The first `count` of the pieces `[1, rows, width, channels]`, one below the other, times `scale[channels]` plus
    /// `shift[channels]`, and SiLU if `silu`.
    fn scale_and_shift_rows(
        above: FloatTensor<Self>,
        middle: FloatTensor<Self>,
        below: FloatTensor<Self>,
        count: usize,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        silu: bool,
    ) -> FloatTensor<Self>;
}

/// The shape of `x` with another last dimension.
fn of_width(x: &FlexTensor, width: usize) -> Shape {
    let mut shape = x.layout().shape().clone();
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
}

/// Its last dimension.
fn width(x: &FlexTensor) -> usize {
    x.layout().shape().last().copied().unwrap_or(1)
}

impl RowKernels for Flex {
    fn own_layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, epsilon: f32) -> FlexTensor {
        let y = with_slice(&x, |x| {
            with_slice(&weight, |weight| with_slice(&bias, |bias| layer_norm(x, weight, bias, epsilon)))
        });
        tensor(y, x.layout().shape().clone())
    }

    fn own_layer_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        dy: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        let all = with_slice(&x, |x| {
            with_slice(&weight, |weight| with_slice(&dy, |dy| layer_norm_backward(x, weight, epsilon, dy)))
        });
        let length = all.len();
        tensor(all, [length])
    }

    fn own_sum(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        tensor(with_slice(&a, |a| with_slice(&b, |b| channels::sum(a, b))), a.layout().shape().clone())
    }

    fn own_add_to_images(x: FlexTensor, values: FlexTensor) -> FlexTensor {
        let width = width(&x);
        let y = with_slice(&x, |x| with_slice(&values, |values| channels::add_to_images(x, values, width)));
        tensor(y, x.layout().shape().clone())
    }

    fn own_join(a: FlexTensor, b: FlexTensor, added: FlexTensor) -> FlexTensor {
        let widths = [width(&a), width(&b)];
        let is_added = added.layout().shape() == b.layout().shape();
        let y = with_slice(&a, |a| {
            with_slice(&b, |b| {
                with_slice(&added, |added| channels::join(a, b, is_added.then_some(added), widths))
            })
        });
        tensor(y, of_width(&a, widths[0] + widths[1]))
    }

    fn own_geglu(x: FlexTensor) -> FlexTensor {
        let width = width(&x) / 2;
        tensor(with_slice(&x, |x| activation::geglu(x, width)), of_width(&x, width))
    }

    fn gated_linear(x: FlexTensor, bias: FlexTensor, weight: Arc<PackedWeight>) -> FlexTensor {
        let y = with_slice(&x, |x| with_slice(&bias, |bias| gated_linear(x, &weight, bias)));
        tensor(y, of_width(&x, weight.shape()[0] / 2))
    }

    fn attend_in_windows(
        parts: FlexTensor,
        bias: FlexTensor,
        mask: FlexTensor,
        masked: bool,
        sizes: WindowAttention,
    ) -> FlexTensor {
        let y = with_slice(&parts, |parts| {
            with_slice(&bias, |bias| {
                with_slice(&mask, |mask| sizes.forward(parts, bias, masked.then_some(mask)))
            })
        });
        tensor(y, of_width(&parts, sizes.heads * sizes.width))
    }

    fn group_moments(x: FlexTensor, sizes: GroupNorm) -> FlexTensor {
        let moments = with_slice(&x, |x| sizes.moments(x));
        let layout = Layout::contiguous([2, sizes.groups].into());
        FlexTensor::new(Bytes::from_elems(moments), layout, DType::F64)
    }

    fn scale_and_shift_rows(
        above: FlexTensor,
        middle: FlexTensor,
        below: FlexTensor,
        count: usize,
        scale: FlexTensor,
        shift: FlexTensor,
        silu: bool,
    ) -> FlexTensor {
        let pieces = [above, middle, below];
        let mut shape = pieces[0].layout().shape().clone();
        shape[1] = pieces[..count].iter().map(|piece| piece.layout().shape()[1]).sum();
        let [a, b, c] = &pieces;
        let y = with_slice(a, |a| {
            with_slice(b, |b| {
                with_slice(c, |c| {
                    with_slice(&scale, |scale| {
                        with_slice(&shift, |shift| scale_and_shift(&[a, b, c][..count], scale, shift, silu))
                    })
                })
            })
        });
        tensor(y, shape)
    }
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: Backend + RowKernels> Backward<B, 3> for LayerNormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, epsilon) = ops.state;
        let shape = x.shape();
        let (size, features) = (shape.num_elements(), weight.shape().num_elements());
        let all = B::own_layer_norm_backward(x, weight, dy, epsilon);
        let part = |start: usize, end: usize| B::float_slice(all.clone(), &[Slice::from(start..end)]);
        let [node_x, node_weight, node_bias] = ops.parents;
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::float_reshape(part(0, size), shape));
        }
        if let Some(node) = node_weight {
            grads.register::<B>(node.id, part(size, size + features));
        }
        if let Some(node) = node_bias {
            grads.register::<B>(node.id, part(size + features, size + 2 * features));
        }
    }
}

#[derive(Debug)]
struct SumBackward;

impl<B: Backend> Backward<B, 2> for SumBackward {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<B>(node.id, dy.clone());
        }
    }
}

/// What is only used where nothing is trained.
const WITHOUT_GRADIENTS: &str = "an operation for devices without gradients";

impl<B: Backend + RowKernels, C: CheckpointStrategy> RowKernels for Autodiff<B, C> {
    fn own_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let y = B::own_layer_norm(x.clone(), weight.clone(), bias, epsilon);
        match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight, epsilon), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn own_sum(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [a.node(), b.node()];
        let y = B::own_sum(a.into_primitive(), b.into_primitive());
        match SumBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn own_layer_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f32,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn own_add_to_images(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{WITHOUT_GRADIENTS}")
    }

    fn own_join(_: FloatTensor<Self>, _: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{WITHOUT_GRADIENTS}")
    }

    fn own_geglu(_: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{WITHOUT_GRADIENTS}")
    }

    fn gated_linear(_: FloatTensor<Self>, _: FloatTensor<Self>, _: Arc<PackedWeight>) -> FloatTensor<Self> {
        unreachable!("{WITHOUT_GRADIENTS}")
    }

    fn attend_in_windows(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: bool,
        _: WindowAttention,
    ) -> FloatTensor<Self> {
        unreachable!("{WITHOUT_GRADIENTS}")
    }

    fn group_moments(_: FloatTensor<Self>, _: GroupNorm) -> FloatTensor<Self> {
        unreachable!("{WITHOUT_GRADIENTS}")
    }

    fn scale_and_shift_rows(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: usize,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: bool,
    ) -> FloatTensor<Self> {
        unreachable!("{WITHOUT_GRADIENTS}")
    }
}
