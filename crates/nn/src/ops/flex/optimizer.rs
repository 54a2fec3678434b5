//! The optimizer's arithmetic on burn's Flex backend. It has no gradient.

use super::{tensor, with_slice};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use burn_flex::FlexTensor;
use diffbir_kernels::adamw::{AdamW, Moments, sum_of_squares};

/// What a training step does with gradients, on vectors.
#[backend_extension(Flex, Autodiff)]
pub trait OptimizerKernels: Backend {
    /// The rows of [`AdamW::step`].
    fn adamw(
        value: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        average: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamW,
    ) -> FloatTensor<Self>;

    /// One number.
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl OptimizerKernels for Flex {
    fn adamw(
        value: FlexTensor,
        mean: FlexTensor,
        square: FlexTensor,
        average: FlexTensor,
        gradient: FlexTensor,
        step: AdamW,
    ) -> FlexTensor {
        let new = with_slice(&value, |value| {
            with_slice(&mean, |mean| {
                with_slice(&square, |square| {
                    with_slice(&average, |average| {
                        let before = Moments { value, mean, square, average };
                        with_slice(&gradient, |gradient| step.step(before, gradient))
                    })
                })
            })
        });
        let columns = new.len() / step.rows();
        tensor(new, [step.rows(), columns])
    }

    fn sum_of_squares(x: FlexTensor) -> FlexTensor {
        tensor(vec![with_slice(&x, sum_of_squares) as f32], [1])
    }
}

/// Gradients belong to no graph.
const NO_GRAPH: &str = "an optimizer works without gradients of its own";

impl<B: Backend + OptimizerKernels, C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy>
    OptimizerKernels for Autodiff<B, C>
{
    fn adamw(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: AdamW,
    ) -> FloatTensor<Self> {
        unreachable!("{NO_GRAPH}")
    }

    fn sum_of_squares(_: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{NO_GRAPH}")
    }
}
