//! Norms, and what is added to channels or multiplies them, with gradients that are sums over all rows.

use super::{attention_backward, norm, norm_backward, pointwise, sums};
use crate::ops::flex::FIRST_ORDER;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata, backend_extension};
use burn::tensor::{DType, Shape, Slice};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use diffbir_kernels::norm::GroupNorm;

/// Operations along the last dimension that have kernels of ours on graphics cards, and gradients. Weights, biases and
/// factors are in f32.
#[backend_extension(Cube, Fusion, Autodiff)]
pub trait CardChannels: Backend {
    /// `bias[channels]` added.
    #[fusion(dtype = x, shape = x)]
    fn card_add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Multiplied by `factors[channels]`.
    #[fusion(dtype = x, shape = x)]
    fn card_scale(x: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The sum of each channel over all rows.
    #[fusion(dtype = DType::F32, shape = channels_of(x))]
    fn card_column_sums(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Mean and 1 / standard deviation of the group of each channel, `[batch, 2, channels]`. They have no gradient of their
    /// own: that of what is normed by them holds it.
    #[fusion(dtype = DType::F32, shape = moments_of(sizes))]
    fn card_group_moments(x: FloatTensor<Self>, sizes: GroupNorm) -> FloatTensor<Self>;

    /// Group normalisation of `x[batch, .., channels]` by its moments, with SiLU if `sizes.silu`.
    #[fusion(dtype = x, shape = x)]
    fn card_group_normed(
        x: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: GroupNorm,
    ) -> FloatTensor<Self>;

    /// Sums over the pixels of each picture: of the gradient behind the norm, and of that times normed values.
    #[fusion(dtype = DType::F32, shape = moments_of(sizes))]
    fn card_group_sums(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: GroupNorm,
    ) -> FloatTensor<Self>;

    /// Gradient of the input of a group norm from these sums.
    #[fusion(dtype = x, shape = x)]
    fn card_group_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        sizes: GroupNorm,
    ) -> FloatTensor<Self>;

    /// Normalisation of the last dimension.
    #[fusion(dtype = x, shape = x)]
    fn card_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// Gradients of its bias and weight, `[2, channels]`.
    #[fusion(dtype = DType::F32, shape = pair_of(x))]
    fn card_layer_sums(x: FloatTensor<Self>, dy: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;

    /// Gradient of its input.
    #[fusion(dtype = x, shape = x)]
    fn card_layer_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// As [`super::super::relative_bias`].
    #[fusion(dtype = DType::F32, shape = pairs_of(table, *window))]
    fn card_relative_bias(table: FloatTensor<Self>, window: usize) -> FloatTensor<Self>;

    /// Gradient of its table.
    #[fusion(dtype = DType::F32, shape = table_of(dy, *window))]
    fn card_relative_bias_backward(dy: FloatTensor<Self>, window: usize) -> FloatTensor<Self>;
}

fn channels_of(x: &Shape) -> Shape {
    Shape::from([x[x.num_dims() - 1]])
}

fn pair_of(x: &Shape) -> Shape {
    Shape::from([2, x[x.num_dims() - 1]])
}

fn moments_of(sizes: &GroupNorm) -> Shape {
    Shape::from([sizes.batch, 2, sizes.channels])
}

fn pairs_of(table: &Shape, window: usize) -> Shape {
    Shape::from([table[1], window * window, window * window])
}

fn table_of(dy: &Shape, window: usize) -> Shape {
    Shape::from([(2 * window - 1) * (2 * window - 1), dy[0]])
}

impl CardChannels for CubeBackend {
    fn card_add_bias(x: CubeTensor, bias: CubeTensor) -> CubeTensor {
        pointwise::add_bias(x, bias)
    }

    fn card_scale(x: CubeTensor, factors: CubeTensor) -> CubeTensor {
        pointwise::scale(x, factors)
    }

    fn card_column_sums(x: CubeTensor) -> CubeTensor {
        sums::of_columns(x)
    }

    fn card_group_moments(x: CubeTensor, sizes: GroupNorm) -> CubeTensor {
        norm::group_moments(x, sizes)
    }

    fn card_group_normed(
        x: CubeTensor,
        moments: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        sizes: GroupNorm,
    ) -> CubeTensor {
        norm::group_normed(x, moments, weight, bias, sizes)
    }

    fn card_group_sums(
        x: CubeTensor,
        dy: CubeTensor,
        moments: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        sizes: GroupNorm,
    ) -> CubeTensor {
        norm_backward::group_sums(x, dy, moments, weight, bias, sizes)
    }

    fn card_group_backward(
        x: CubeTensor,
        dy: CubeTensor,
        moments: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        sums: CubeTensor,
        sizes: GroupNorm,
    ) -> CubeTensor {
        norm_backward::group_backward([x, dy, moments, weight, bias, sums], sizes)
    }

    fn card_layer_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, epsilon: f32) -> CubeTensor {
        norm::layer_norm(x, weight, bias, epsilon)
    }

    fn card_layer_sums(x: CubeTensor, dy: CubeTensor, epsilon: f32) -> CubeTensor {
        norm_backward::layer_sums(x, dy, epsilon)
    }

    fn card_layer_backward(x: CubeTensor, dy: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        norm_backward::layer_backward(x, dy, weight, epsilon)
    }

    fn card_relative_bias(table: CubeTensor, window: usize) -> CubeTensor {
        attention_backward::relative_bias(table, window)
    }

    fn card_relative_bias_backward(dy: CubeTensor, window: usize) -> CubeTensor {
        attention_backward::relative_bias_backward(dy, window)
    }
}

/// One of the rows of `x[rows, channels]`, as a vector.
fn row<B: Backend>(x: &FloatTensor<B>, index: usize) -> FloatTensor<B> {
    let channels = x.shape()[1];
    let slices = [Slice::from(index..index + 1), Slice::from(0..channels)];
    B::float_reshape(B::float_slice(x.clone(), &slices), Shape::from([channels]))
}

#[derive(Debug)]
struct AddBiasBackward;

impl<B: Backend + CardChannels> Backward<B, 2> for AddBiasBackward {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [node_x, node_bias] = ops.parents;
        if let Some(node) = node_bias {
            grads.register::<B>(node.id, B::card_column_sums(dy.clone()));
        }
        if let Some(node) = node_x {
            grads.register::<B>(node.id, dy);
        }
    }
}

#[derive(Debug)]
struct ScaleBackward;

impl<B: Backend + CardChannels> Backward<B, 2> for ScaleBackward {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([x, factors], [node_x, node_factors]) = (ops.state, ops.parents);
        if let Some(node) = node_factors {
            grads.register::<B>(node.id, B::card_column_sums(B::float_mul(x, dy.clone())));
        }
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::card_scale(dy, factors));
        }
    }
}

#[derive(Debug)]
struct GroupNormBackward;

impl<B: Backend + CardChannels> Backward<B, 3> for GroupNormBackward {
    type State = ([FloatTensor<B>; 4], GroupNorm);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([x, moments, weight, bias], sizes) = ops.state;
        let [node_x, node_weight, node_bias] = ops.parents;
        let sums =
            B::card_group_sums(x.clone(), dy.clone(), moments.clone(), weight.clone(), bias.clone(), sizes);
        if node_weight.is_some() || node_bias.is_some() {
            let shape = Shape::from([sizes.batch, 2 * sizes.channels]);
            let both = B::card_column_sums(B::float_reshape(sums.clone(), shape));
            let both = B::float_reshape(both, Shape::from([2, sizes.channels]));
            for (index, node) in [node_bias, node_weight].into_iter().enumerate() {
                if let Some(node) = node {
                    grads.register::<B>(node.id, row::<B>(&both, index));
                }
            }
        }
        if let Some(node) = node_x {
            let dx = B::card_group_backward(x, dy, moments, weight, bias, sums, sizes);
            grads.register::<B>(node.id, dx);
        }
    }
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: Backend + CardChannels> Backward<B, 3> for LayerNormBackward {
    type State = ([FloatTensor<B>; 2], f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([x, weight], epsilon) = ops.state;
        let [node_x, node_weight, node_bias] = ops.parents;
        if node_weight.is_some() || node_bias.is_some() {
            let both = B::card_layer_sums(x.clone(), dy.clone(), epsilon);
            for (index, node) in [node_bias, node_weight].into_iter().enumerate() {
                if let Some(node) = node {
                    grads.register::<B>(node.id, row::<B>(&both, index));
                }
            }
        }
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::card_layer_backward(x, dy, weight, epsilon));
        }
    }
}

#[derive(Debug)]
struct RelativeBiasBackward;

impl<B: Backend + CardChannels> Backward<B, 1> for RelativeBiasBackward {
    type State = usize;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([node], window) = (ops.parents, ops.state);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::card_relative_bias_backward(dy, window));
        }
    }
}

impl<B: Backend + CardChannels, C: CheckpointStrategy> CardChannels for Autodiff<B, C> {
    fn card_add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), bias.node()];
        let y = B::card_add_bias(x.into_primitive(), bias.into_primitive());
        match AddBiasBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn card_scale(x: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), factors.node()];
        let (x, factors) = (x.into_primitive(), factors.into_primitive());
        match ScaleBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::card_scale(x.clone(), factors.clone());
                prep.finish([x, factors], y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::card_scale(x, factors)),
        }
    }

    fn card_column_sums(_: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn card_group_moments(x: FloatTensor<Self>, sizes: GroupNorm) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::card_group_moments(x.into_primitive(), sizes))
    }

    fn card_group_normed(
        x: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: GroupNorm,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, moments, weight, bias] = [x, moments, weight, bias].map(|input| input.into_primitive());
        match GroupNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::card_group_normed(x.clone(), moments.clone(), weight.clone(), bias.clone(), sizes);
                prep.finish(([x, moments, weight, bias], sizes), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::card_group_normed(x, moments, weight, bias, sizes)),
        }
    }

    fn card_group_sums(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: GroupNorm,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn card_group_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: GroupNorm,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn card_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|input| input.into_primitive());
        match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::card_layer_norm(x.clone(), weight.clone(), bias, epsilon);
                prep.finish(([x, weight], epsilon), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::card_layer_norm(x, weight, bias, epsilon)),
        }
    }

    fn card_layer_sums(_: FloatTensor<Self>, _: FloatTensor<Self>, _: f32) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn card_layer_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f32,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn card_relative_bias(table: FloatTensor<Self>, window: usize) -> FloatTensor<Self> {
        let nodes = [table.node()];
        let y = B::card_relative_bias(table.into_primitive(), window);
        match RelativeBiasBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(window, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn card_relative_bias_backward(_: FloatTensor<Self>, _: usize) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}
