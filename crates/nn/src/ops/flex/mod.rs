//! Our CPU kernels as operations of burn's Flex backend, with gradients.
//!
//! The slices go to [`diffbir_kernels`]; nothing is computed here.

mod activation;
mod attention;
mod optimizer;
mod rows;

pub use activation::ActivationKernels;
pub use attention::AttentionKernel;
pub use optimizer::OptimizerKernels;
pub use rows::RowKernels;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Shape};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{FlexTensor, Layout};
use diffbir_kernels::conv::{After, Conv2d, PackedWeight, Rectifier};
use diffbir_kernels::norm::GroupNorm;
use std::ops::Range;
use std::sync::Arc;

/// Operations that have a kernel of ours on the CPU. Each forward is followed by the backward passes
/// that its gradient is made of.
#[backend_extension(Flex, Autodiff)]
pub trait Kernels: Backend {
    /// Convolution of `[batch, height, width, in]`.
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Conv2d,
    ) -> FloatTensor<Self>;

    /// The same, up to rounding, where its gradients are asked for later.
    fn convolution_to_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Conv2d,
    ) -> FloatTensor<Self>;

    /// [`Kernels::convolution`], of which only `rows` are computed, with a weight that was packed before, which has no gradient; `rest` is
    /// added if it has as many elements as the output, then comes the rectifier.
    fn convolution_packed(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rest: FloatTensor<Self>,
        weight: Arc<PackedWeight>,
        sizes: Conv2d,
        rectifier: Rectifier,
        rows: Range<usize>,
    ) -> FloatTensor<Self>;

    /// Gradient of the convolution's input.
    fn convolution_backward_input(
        dy: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        sizes: Conv2d,
    ) -> FloatTensor<Self>;

    /// Gradient of the convolution's weight.
    fn convolution_backward_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        sizes: Conv2d,
    ) -> FloatTensor<Self>;

    /// Gradient of the convolution's bias.
    fn convolution_backward_bias(dy: FloatTensor<Self>, sizes: Conv2d) -> FloatTensor<Self>;

    /// Group normalisation of `[batch, .., channels]`, with SiLU if `sizes.silu`.
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: GroupNorm,
    ) -> FloatTensor<Self>;

    /// The gradients of input, weight and bias, one after the other in one vector.
    fn group_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        sizes: GroupNorm,
    ) -> FloatTensor<Self>;
}

/// A tensor as a plain slice handed to `f`; copied first if its memory is not in order.
fn with_slice<R>(tensor: &FlexTensor, f: impl FnOnce(&[f32]) -> R) -> R {
    match tensor.as_slice::<f32>() {
        Some(slice) => f(slice),
        None => f(tensor.to_contiguous().as_slice::<f32>().expect("a contiguous f32 tensor is a slice")),
    }
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

impl Kernels for Flex {
    fn convolution(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, sizes: Conv2d) -> FlexTensor {
        let y = with_slice(&x, |x| with_slice(&weight, |w| with_slice(&bias, |b| sizes.forward(x, w, b))));
        let (height, width) = sizes.out_size();
        tensor(y, [sizes.batch, height, width, sizes.out_channels])
    }

    fn convolution_to_train(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        sizes: Conv2d,
    ) -> FlexTensor {
        let y = with_slice(&x, |x| {
            with_slice(&weight, |w| with_slice(&bias, |b| sizes.forward_to_train(x, w, b)))
        });
        let (height, width) = sizes.out_size();
        tensor(y, [sizes.batch, height, width, sizes.out_channels])
    }

    fn convolution_packed(
        x: FlexTensor,
        bias: FlexTensor,
        rest: FlexTensor,
        weight: Arc<PackedWeight>,
        sizes: Conv2d,
        rectifier: Rectifier,
        rows: Range<usize>,
    ) -> FlexTensor {
        let shape = [sizes.batch, rows.len(), sizes.out_size().1, sizes.out_channels];
        let is_added = rest.layout().num_elements() == shape.iter().product::<usize>();
        let y = with_slice(&x, |x| {
            with_slice(&bias, |bias| {
                with_slice(&rest, |rest| {
                    let after = After { rest: is_added.then_some(rest), rectifier };
                    sizes.forward_packed_rows(x, &weight, bias, after, rows)
                })
            })
        });
        tensor(y, shape)
    }

    fn convolution_backward_input(dy: FlexTensor, weight: FlexTensor, sizes: Conv2d) -> FlexTensor {
        let dx = with_slice(&dy, |dy| with_slice(&weight, |w| sizes.backward_input(dy, w)));
        tensor(dx, [sizes.batch, sizes.height, sizes.width, sizes.in_channels])
    }

    fn convolution_backward_weight(x: FlexTensor, dy: FlexTensor, sizes: Conv2d) -> FlexTensor {
        let dw = with_slice(&x, |x| with_slice(&dy, |dy| sizes.backward_weight(x, dy)));
        tensor(dw, [sizes.out_channels, sizes.kernel, sizes.kernel, sizes.in_channels])
    }

    fn convolution_backward_bias(dy: FlexTensor, sizes: Conv2d) -> FlexTensor {
        tensor(with_slice(&dy, |dy| sizes.backward_bias(dy)), [sizes.out_channels])
    }

    fn group_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, sizes: GroupNorm) -> FlexTensor {
        let y = with_slice(&x, |x| with_slice(&weight, |w| with_slice(&bias, |b| sizes.forward(x, w, b))));
        tensor(y, x.layout().shape().clone())
    }

    fn group_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        dy: FlexTensor,
        sizes: GroupNorm,
    ) -> FlexTensor {
        let grads = with_slice(&x, |x| {
            with_slice(&weight, |w| with_slice(&bias, |b| with_slice(&dy, |dy| sizes.backward(x, w, b, dy))))
        });
        let all = [grads.input, grads.weight, grads.bias].concat();
        let length = all.len();
        tensor(all, [length])
    }
}

#[derive(Debug)]
struct Conv2dBackward;

impl<B: Backend + Kernels> Backward<B, 3> for Conv2dBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, Conv2d);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, sizes) = ops.state;
        let [node_x, node_weight, node_bias] = ops.parents;
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::convolution_backward_input(dy.clone(), weight, sizes));
        }
        if let Some(node) = node_weight {
            grads.register::<B>(node.id, B::convolution_backward_weight(x, dy.clone(), sizes));
        }
        if let Some(node) = node_bias {
            grads.register::<B>(node.id, B::convolution_backward_bias(dy, sizes));
        }
    }
}

#[derive(Debug)]
struct GroupNormBackward;

impl<B: Backend + Kernels> Backward<B, 3> for GroupNormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, GroupNorm, Shape);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, bias, sizes, shape) = ops.state;
        let all = B::group_norm_backward(x, weight, bias, dy, sizes);
        let (size, channels) = (sizes.batch * sizes.pixels * sizes.channels, sizes.channels);
        let part = |start: usize, length: usize| {
            B::float_slice(all.clone(), &[burn::tensor::Slice::from(start..start + length)])
        };
        let [node_x, node_weight, node_bias] = ops.parents;
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::float_reshape(part(0, size), shape));
        }
        if let Some(node) = node_weight {
            grads.register::<B>(node.id, part(size, channels));
        }
        if let Some(node) = node_bias {
            grads.register::<B>(node.id, part(size + channels, channels));
        }
    }
}

/// Gradients are first order, as burn's: a backward pass is not itself differentiable.
pub(super) const FIRST_ORDER: &str = "second derivatives are not supported";

impl<B: Backend + Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Conv2d,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match Conv2dBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::convolution_to_train(x.clone(), weight.clone(), bias, sizes);
                prep.finish((x, weight, sizes), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::convolution(x, weight, bias, sizes)),
        }
    }

    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: GroupNorm,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match GroupNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let shape = burn::backend::TensorMetadata::shape(&x);
                let y = B::group_norm(x.clone(), weight.clone(), bias.clone(), sizes);
                prep.finish((x, weight, bias, sizes, shape), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::group_norm(x, weight, bias, sizes)),
        }
    }

    fn convolution_to_train(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Conv2d,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn convolution_packed(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Arc<PackedWeight>,
        _: Conv2d,
        _: Rectifier,
        _: Range<usize>,
    ) -> FloatTensor<Self> {
        unreachable!("weights are packed for devices without gradients only")
    }

    fn convolution_backward_input(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Conv2d,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn convolution_backward_weight(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Conv2d,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn convolution_backward_bias(_: FloatTensor<Self>, _: Conv2d) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn group_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: GroupNorm,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}
