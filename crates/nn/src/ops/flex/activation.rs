//! GELU and ReLUs as operations of burn's Flex backend, with their gradients.

use super::{FIRST_ORDER, tensor, with_slice};
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::Slice;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::FlexTensor;
use diffbir_kernels::activation;

/// Element-wise functions, of any shape.
#[backend_extension(Flex, Autodiff)]
pub trait ActivationKernels: Backend {
    /// The exact GELU.
    fn own_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of its input.
    fn own_gelu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The ReLU.
    fn own_relu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of its input, from its output.
    fn own_relu_backward(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The ReLU with a slope where negative.
    fn own_leaky_relu(x: FloatTensor<Self>, slope: f32) -> FloatTensor<Self>;

    /// The gradient of its input, from its output.
    fn own_leaky_relu_backward(y: FloatTensor<Self>, dy: FloatTensor<Self>, slope: f32) -> FloatTensor<Self>;

    /// The PReLU of `[.., channels]`.
    fn own_prelu(x: FloatTensor<Self>, slopes: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradients of input and slopes, one after the other in one vector.
    fn own_prelu_backward(
        x: FloatTensor<Self>,
        slopes: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl ActivationKernels for Flex {
    fn own_gelu(x: FlexTensor) -> FlexTensor {
        tensor(with_slice(&x, activation::gelu), x.layout().shape().clone())
    }

    fn own_gelu_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let dx = with_slice(&x, |x| with_slice(&dy, |dy| activation::gelu_backward(x, dy)));
        tensor(dx, x.layout().shape().clone())
    }

    fn own_relu(x: FlexTensor) -> FlexTensor {
        tensor(with_slice(&x, activation::relu), x.layout().shape().clone())
    }

    fn own_relu_backward(y: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let dx = with_slice(&y, |y| with_slice(&dy, |dy| activation::relu_backward(y, dy)));
        tensor(dx, y.layout().shape().clone())
    }

    fn own_leaky_relu(x: FlexTensor, slope: f32) -> FlexTensor {
        tensor(with_slice(&x, |x| activation::leaky_relu(x, slope)), x.layout().shape().clone())
    }

    fn own_leaky_relu_backward(y: FlexTensor, dy: FlexTensor, slope: f32) -> FlexTensor {
        let dx = with_slice(&y, |y| with_slice(&dy, |dy| activation::leaky_relu_backward(y, dy, slope)));
        tensor(dx, y.layout().shape().clone())
    }

    fn own_prelu(x: FlexTensor, slopes: FlexTensor) -> FlexTensor {
        let y = with_slice(&x, |x| with_slice(&slopes, |slopes| activation::prelu(x, slopes)));
        tensor(y, x.layout().shape().clone())
    }

    fn own_prelu_backward(x: FlexTensor, slopes: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let all = with_slice(&x, |x| {
            with_slice(&slopes, |slopes| with_slice(&dy, |dy| activation::prelu_backward(x, slopes, dy)))
        });
        let length = all.len();
        tensor(all, [length])
    }
}

#[derive(Debug)]
struct GeluBackward;

impl<B: Backend + ActivationKernels> Backward<B, 1> for GeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<B>(node.id, B::own_gelu_backward(ops.state, dy));
        }
    }
}

#[derive(Debug)]
struct ReluBackward;

impl<B: Backend + ActivationKernels> Backward<B, 1> for ReluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<B>(node.id, B::own_relu_backward(ops.state, dy));
        }
    }
}

#[derive(Debug)]
struct LeakyReluBackward;

impl<B: Backend + ActivationKernels> Backward<B, 1> for LeakyReluBackward {
    type State = (FloatTensor<B>, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        if let Some(node) = node {
            let (y, slope) = ops.state;
            grads.register::<B>(node.id, B::own_leaky_relu_backward(y, dy, slope));
        }
    }
}

#[derive(Debug)]
struct PReluBackward;

impl<B: Backend + ActivationKernels> Backward<B, 2> for PReluBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, slopes) = ops.state;
        let shape = x.shape();
        let (size, channels) = (shape.num_elements(), slopes.shape().num_elements());
        let all = B::own_prelu_backward(x, slopes, dy);
        let part = |start: usize, end: usize| B::float_slice(all.clone(), &[Slice::from(start..end)]);
        let [node_x, node_slopes] = ops.parents;
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::float_reshape(part(0, size), shape));
        }
        if let Some(node) = node_slopes {
            grads.register::<B>(node.id, part(size, size + channels));
        }
    }
}

impl<B: Backend + ActivationKernels, C: CheckpointStrategy> ActivationKernels for Autodiff<B, C> {
    fn own_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let x = x.into_primitive();
        match GeluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), B::own_gelu(x)),
            OpsKind::UnTracked(prep) => prep.finish(B::own_gelu(x)),
        }
    }

    fn own_relu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let y = B::own_relu(x.into_primitive());
        match ReluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(y.clone(), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn own_gelu_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn own_relu_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn own_leaky_relu(x: FloatTensor<Self>, slope: f32) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let y = B::own_leaky_relu(x.into_primitive(), slope);
        match LeakyReluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((y.clone(), slope), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn own_prelu(x: FloatTensor<Self>, slopes: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), slopes.node()];
        let (x, slopes) = (x.into_primitive(), slopes.into_primitive());
        let y = B::own_prelu(x.clone(), slopes.clone());
        match PReluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, slopes), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn own_leaky_relu_backward(_: FloatTensor<Self>, _: FloatTensor<Self>, _: f32) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn own_prelu_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}
