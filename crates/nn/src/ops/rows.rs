//! Operations on rows of channels that the CPU has in one piece where nothing is trained: sums, joins, gated GELUs,
//! attention in windows.

use super::flex::RowKernels;
use super::{fuses, gelu, on_cpu};
use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor};
use diffbir_kernels::Products;
use diffbir_kernels::attention::WindowAttention;

/// Attention of `heads` heads inside windows of side `window` of `x[batch, rows, columns, 3 · width]`, queries, keys and
/// values side by side: the windows are moved by `shift`, `bias[heads, tokens, tokens]` and `mask[windows, tokens, tokens]`
/// are added to the scores. `[batch, rows, columns, width]`. Only where [`attends_in_windows`].
pub fn window_attention(
    x: Tensor<4>,
    [window, shift]: [usize; 2],
    bias: Tensor<3>,
    mask: Option<Tensor<3>>,
    products: Products,
) -> Tensor<4> {
    let ([batch, rows, columns, width], [heads, _, _]) = (x.dims(), bias.dims());
    let width = width / 3 / heads;
    let sizes = WindowAttention { batch, rows, columns, heads, width, window, shift, products };
    let masked = mask.is_some();
    let mask = mask.unwrap_or_else(|| Tensor::zeros([1; 3], &x.device()));
    Tensor::from_dispatch(<Dispatch as RowKernels>::attend_in_windows(
        x.into_dispatch(),
        bias.into_dispatch(),
        mask.into_dispatch(),
        masked,
        sizes,
    ))
}

/// Whether there is a [`window_attention`]; elsewhere tokens are moved together by [`windows`](super::windows) first.
pub fn attends_in_windows(device: &Device) -> bool {
    fuses(device)
}

/// The sum of two tensors of one shape.
pub fn sum<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    // Fewer are added in place and by one thread.
    const MANY: usize = 1 << 16;
    let whole = a.dims() == b.dims() && a.dims().iter().product::<usize>() >= MANY;
    if whole && on_cpu(&a.device()) {
        return Tensor::from_dispatch(<Dispatch as RowKernels>::own_sum(
            a.into_dispatch(),
            b.into_dispatch(),
        ));
    }
    a + b
}

/// `x[batch, height, width, channels]` with `values[batch, channels]` added to all pixels of each image.
pub fn add_to_images(x: Tensor<4>, values: Tensor<2>) -> Tensor<4> {
    if fuses(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as RowKernels>::own_add_to_images(
            x.into_dispatch(),
            values.into_dispatch(),
        ));
    }
    let [batch, channels] = values.dims();
    x + values.reshape([batch, 1, 1, channels])
}

/// The channels of `a` and then those of `b`, to which `added` is added.
pub fn join(a: Tensor<4>, b: Tensor<4>, added: Option<Tensor<4>>) -> Tensor<4> {
    if fuses(&a.device()) {
        let added = added.unwrap_or_else(|| Tensor::zeros([1; 4], &a.device()));
        return Tensor::from_dispatch(<Dispatch as RowKernels>::own_join(
            a.into_dispatch(),
            b.into_dispatch(),
            added.into_dispatch(),
        ));
    }
    let b = match added {
        Some(added) => b + added,
        None => b,
    };
    Tensor::cat(vec![a, b], 3)
}

/// The first half of the last dimension times the GELU of the second.
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if fuses(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as RowKernels>::own_geglu(x.into_dispatch()));
    }
    let parts = x.chunk(2, D - 1);
    parts[0].clone() * gelu(parts[1].clone())
}
