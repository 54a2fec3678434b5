//! What an optimizer does with gradients, on vectors that are in no graph.

use super::flex::OptimizerKernels;
#[cfg(feature = "gpu")]
use super::gpu;
use super::on_cpu;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
pub use diffbir_kernels::adamw::AdamW;

/// What is kept of a parameter, each `[count]`.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Mean of gradients.
    pub mean: Tensor<1>,
    /// Mean of their squares.
    pub square: Tensor<1>,
    /// Average of values, if one is kept.
    pub average: Option<Tensor<1>>,
}

/// A step: the new value and moments. An average is kept where the step has a decay for it and there is one.
pub fn adamw(value: Tensor<1>, moments: Moments, gradient: Tensor<1>, step: AdamW) -> (Tensor<1>, Moments) {
    let step = AdamW { average_decay: step.average_decay.filter(|_| moments.average.is_some()), ..step };
    let [count] = value.dims();
    let average = moments.average.unwrap_or_else(|| value.clone());
    let parts = [value, moments.mean, moments.square, average, gradient];
    let device = parts[0].device();
    let rows = if on_cpu(&device) {
        let [value, mean, square, average, gradient] = parts.map(Tensor::into_dispatch);
        Tensor::from_dispatch(<Dispatch as OptimizerKernels>::adamw(
            value, mean, square, average, gradient, step,
        ))
    } else {
        #[cfg(feature = "gpu")]
        if gpu::is_card(&device) {
            return parted(gpu::adamw(parts, step), count, step);
        }
        return by_operations(parts, step);
    };
    parted(rows, count, step)
}

/// The new value and moments, which [`AdamW::step`] gives as rows.
fn parted(rows: Tensor<2>, count: usize, step: AdamW) -> (Tensor<1>, Moments) {
    let row = |index: usize| rows.clone().slice([index..index + 1, 0..count]).reshape([count]);
    let average = step.average_decay.map(|_| row(3));
    (row(0), Moments { mean: row(1), square: row(2), average })
}

/// The same by burn's operations.
fn by_operations(parts: [Tensor<1>; 5], step: AdamW) -> (Tensor<1>, Moments) {
    let [value, mean, square, average, gradient] = parts;
    let AdamW { beta1, beta2, corrections, epsilon, rate, weight_decay, scale, average_decay } = step;
    let gradient = gradient * scale;
    let mean = mean * beta1 + gradient.clone() * (1.0 - beta1);
    let square = square * beta2 + gradient.square() * (1.0 - beta2);
    let root = (square.clone() / corrections[1]).sqrt() + epsilon;
    let value = value * (1.0 - rate * weight_decay) - mean.clone() / root * (rate / corrections[0]);
    let average = average_decay.map(|decay| average * decay + value.clone() * (1.0 - decay));
    (value, Moments { mean, square, average })
}

/// The sum of squares, in parts that are to be added up; on a CPU one, which does not depend on threads.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    if on_cpu(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as OptimizerKernels>::sum_of_squares(x.into_dispatch()));
    }
    #[cfg(feature = "gpu")]
    if gpu::is_card(&x.device()) {
        return gpu::squares(x);
    }
    x.square().sum()
}
