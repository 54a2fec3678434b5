//! Self-attention inside square windows of a grid of tokens (Swin Transformer, arXiv 2103.14030), as
//! [`crate::swinir`] and [`crate::scunet`] share it.

use burn::tensor::{DType, Tensor, TensorData};
use diffbir_nn::layers::Linear;
use diffbir_nn::{Device, ops};

/// Side of the largest window, in tokens: it has a score for each pair of them.
pub(crate) const MOST: usize = 32;

/// Attention inside windows of side `window` over `x[b, rows, columns, embed]`, whole windows in both
/// directions: `qkv` gives queries, keys and values, each of all heads, `bias[heads, tokens, tokens]` is
/// added to the scores. With a [`shift_mask`] the windows are moved by half a window. The result is added to `rest`, if
/// there is one.
pub(crate) fn attend(
    x: Tensor<4>,
    window: usize,
    qkv: &Linear,
    proj: &Linear,
    bias: Tensor<3>,
    mask: Option<&Tensor<3>>,
    rest: Option<Tensor<4>>,
) -> Tensor<4> {
    let [batch, rows, columns, _] = x.dims();
    let [heads, tokens, _] = bias.dims();
    let shift = if mask.is_some() { window / 2 } else { 0 };
    if ops::attends_in_windows(&x.device()) {
        let parts = qkv.forward(x);
        let y = ops::window_attention(parts, [window, shift], bias, mask.cloned(), qkv.products());
        return match rest {
            Some(rest) => proj.forward_onto(y, rest),
            None => proj.forward(y),
        };
    }
    let x = ops::windows(x, window, shift);
    let [windows, _, _] = x.dims();
    let products = qkv.products();
    let mut bias = bias.unsqueeze::<4>();
    if let Some(mask) = mask {
        let mask = mask.clone().reshape([windows / batch, 1, tokens, tokens]);
        bias = bias + if batch > 1 { mask.repeat_dim(0, batch) } else { mask };
    }
    let y = ops::attention_of_parts(qkv.forward(x), heads, bias, products);
    let y = ops::from_windows(proj.forward(y), [batch, rows, columns], window, shift);
    match rest {
        Some(rest) => ops::sum(rest, y),
        None => y,
    }
}

/// What hides a token: as good as minus infinity, which shaders may take for impossible.
pub(crate) const HIDDEN: f32 = f32::MIN;

/// The mask of shifted windows as a tensor `[windows, tokens, tokens]`; see [`mask_values`].
pub(crate) fn shift_mask(
    rows: usize,
    columns: usize,
    window: usize,
    masked: f32,
    device: &Device,
) -> Tensor<3> {
    let tokens = window * window;
    let shape = [rows * columns / tokens, tokens, tokens];
    let values = mask_values(rows, columns, window, masked);
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// 0 where two tokens of a shifted window come from the same region of the picture, else `masked`.
pub(crate) fn mask_values(rows: usize, columns: usize, window: usize, masked: f32) -> Vec<f32> {
    let shift = window / 2;
    // Three regions a direction: whole windows, the last window's first part, its wrapped part.
    let region =
        |at: usize, length: usize| usize::from(at + window >= length) + usize::from(at + shift >= length);
    let mut values = Vec::with_capacity(rows * columns * window * window);
    for top in (0..rows).step_by(window) {
        for left in (0..columns).step_by(window) {
            let label = |token: usize| {
                3 * region(top + token / window, rows) + region(left + token % window, columns)
            };
            for p in 0..window * window {
                for q in 0..window * window {
                    values.push(if label(p) == label(q) { 0.0 } else { masked });
                }
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_window_of_a_larger_grid_is_not_masked() {
        let mask = mask_values(16, 16, 8, -100.0);
        assert!(mask[..64 * 64].iter().all(|&value| value == 0.0));
        assert!(mask[3 * 64 * 64..].contains(&-100.0));
    }
}
