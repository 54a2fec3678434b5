//! A step of AdamW in one kernel: by burn's operations it is seventeen for each weight.

use super::{UNITS, empty, grid};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use diffbir_kernels::adamw::AdamW;

/// The rows of [`AdamW::step`], all of them in f32.
pub(super) fn adamw(parts: [CubeTensor; 5], step: AdamW) -> CubeTensor {
    let [value, mean, square, average, gradient] = parts.map(into_contiguous);
    let count = value.meta.shape().num_elements();
    let rows = empty(&value, rows_of(count, &step), DType::F32);
    stepped::launch(
        &value.client,
        grid(count.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
        value.clone().into_buffer_arg(),
        mean.into_buffer_arg(),
        square.into_buffer_arg(),
        average.into_buffer_arg(),
        gradient.into_buffer_arg(),
        rows.clone().into_buffer_arg(),
        step.beta1,
        step.beta2,
        step.epsilon,
        step.rate / step.corrections[0],
        step.corrections[1],
        1.0 - step.rate * step.weight_decay,
        step.scale,
        step.average_decay.unwrap_or(0.0),
        step.average_decay.is_some(),
    );
    rows
}

/// The shape of a step's result.
pub(super) fn rows_of(count: usize, step: &AdamW) -> Shape {
    Shape::from([step.rows(), count])
}

/// A unit for each value.
#[cube(launch)]
fn stepped(
    value: &[f32],
    mean: &[f32],
    square: &[f32],
    average: &[f32],
    gradient: &[f32],
    rows: &mut [f32],
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    rate: f32,
    correction: f32,
    keep: f32,
    scale: f32,
    decay: f32,
    #[comptime] averages: bool,
) {
    let at = ABSOLUTE_POS;
    let count = value.len();
    if at >= count {
        terminate!();
    }
    let gradient = gradient[at] * scale;
    let mean = mean[at] * beta1 + gradient * (1.0 - beta1);
    let square = square[at] * beta2 + gradient * gradient * (1.0 - beta2);
    let value = value[at] * keep - mean / ((square / correction).sqrt() + epsilon) * rate;
    rows[at] = value;
    rows[count + at] = mean;
    rows[2 * count + at] = square;
    if comptime!(averages) {
        rows[3 * count + at] = average[at] * decay + value * (1.0 - decay);
    }
}
