//! The operations on other devices than the CPU: burn's, on permuted views.
//!
//! A layer works in the numbers of its weight and gives activations in them. Norms, softmax and activation functions
//! are computed in f32 whatever numbers they are given, and give those back.

use burn::tensor::module::{
    attention as burn_attention, conv2d as burn_conv2d, layer_norm as burn_layer_norm,
};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{DType, Tensor, activation};
#[cfg(feature = "gpu")]
use {
    super::cube::{CardChannels, CardKernels, CardProducts},
    burn::backend::{Dispatch, DispatchDevice},
    burn::tensor::Device,
    diffbir_kernels::adamw::AdamW,
    diffbir_kernels::conv::Conv2d,
    diffbir_kernels::norm::GroupNorm,
};

/// `f` in f32, its result in the numbers of `x`.
pub(super) fn in_full<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let numbers = x.dtype();
    f(x.cast(DType::F32)).cast(numbers)
}

/// Whether our kernels for graphics cards run there that have no gradients.
#[cfg(feature = "gpu")]
pub(super) fn is_card(device: &Device) -> bool {
    !matches!(device.as_dispatch(), DispatchDevice::Flex(_) | DispatchDevice::Autodiff(_))
}

/// Whether our kernels for graphics cards run there that have gradients.
#[cfg(feature = "gpu")]
fn has_kernels(device: &Device) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => false,
        DispatchDevice::Autodiff(device) => !matches!(device.clone().inner(), DispatchDevice::Flex(_)),
        _ => true,
    }
}

/// As [`super::conv2d`].
pub(super) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
) -> Tensor<4> {
    let numbers = weight.dtype();
    #[cfg(feature = "gpu")]
    if has_kernels(&x.device()) {
        let sizes = super::conv2d_sizes(&x, weight.dims()[0], weight.dims()[1], stride, padding);
        return convolution(x, weight, bias, sizes);
    }
    let x = x.cast(numbers).permute([0, 3, 1, 2]);
    let bias = bias.map(|bias| bias.cast(numbers));
    let options = ConvOptions::new_with_padding([stride; 2], [padding; 2], [1, 1], 1);
    burn_conv2d(x, weight.permute([0, 3, 1, 2]), bias, options).permute([0, 2, 3, 1])
}

/// As [`super::conv2d_doubled`].
pub(super) fn conv2d_doubled(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
    #[cfg(feature = "gpu")]
    if is_card(&x.device()) {
        let sizes = super::conv2d_sizes(&x, weight.dims()[0], weight.dims()[1], 1, (1, 1));
        return convolution(x, weight, bias, Conv2d { doubled: true, ..sizes });
    }
    conv2d(super::upsample_nearest2x(x), weight, bias, 1, (1, 1))
}

#[cfg(feature = "gpu")]
fn convolution(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, sizes: Conv2d) -> Tensor<4> {
    let numbers = weight.dtype();
    let y = <Dispatch as CardProducts>::card_convolution(
        x.cast(numbers).into_dispatch(),
        weight.into_dispatch(),
        sizes,
    );
    with_bias(Tensor::from_dispatch(y), bias)
}

/// The bias added to the last dimension.
fn with_bias<const D: usize>(y: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let Some(bias) = bias else { return y };
    #[cfg(feature = "gpu")]
    if has_kernels(&y.device()) {
        let y = <Dispatch as CardChannels>::card_add_bias(y.into_dispatch(), bias.into_dispatch());
        return Tensor::from_dispatch(y);
    }
    let bias = bias.cast(y.dtype()).unsqueeze();
    y + bias
}

/// A linear map of rows: `x[rows, in]`, `weight[out, in]`, `bias[out]`.
pub(super) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let x = x.cast(weight.dtype());
    #[cfg(feature = "gpu")]
    if has_kernels(&x.device()) {
        let y =
            <Dispatch as CardProducts>::card_multiply(x.into_dispatch(), weight.transpose().into_dispatch());
        return with_bias(Tensor::from_dispatch(y), bias);
    }
    with_bias(x.matmul(weight.transpose()), bias)
}

/// As [`super::group_norm`].
pub(super) fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    epsilon: f32,
    silu: bool,
) -> Tensor<4> {
    let [batch, _, _, channels] = x.dims();
    #[cfg(feature = "gpu")]
    if has_kernels(&x.device()) {
        let pixels = x.dims()[1] * x.dims()[2];
        let sizes = GroupNorm { batch, pixels, channels, groups, epsilon, silu };
        let x = x.into_dispatch();
        let moments = <Dispatch as CardChannels>::card_group_moments(x.clone(), sizes);
        return Tensor::from_dispatch(<Dispatch as CardChannels>::card_group_normed(
            x,
            moments,
            weight.into_dispatch(),
            bias.into_dispatch(),
            sizes,
        ));
    }
    let of_group = channels / groups;
    // Columns, then rows, then channels: the first sum, the long one, has one thread for each of many results.
    let mean = |x: Tensor<4>| {
        let mean = x.mean_dim(2).mean_dim(1).reshape([batch, groups, of_group]).mean_dim(2);
        mean.repeat_dim(2, of_group).reshape([batch, 1, 1, channels])
    };
    in_full(x, |x| {
        let centred = x.clone() - mean(x);
        let variance = mean(centred.clone().square());
        let y = centred / (variance + epsilon).sqrt() * weight.unsqueeze() + bias.unsqueeze();
        if silu { activation::silu(y) } else { y }
    })
}

/// As [`super::attention_of_parts`].
#[cfg(feature = "gpu")]
pub(super) fn attention_of_parts(x: Tensor<3>, heads: usize, bias: Tensor<4>) -> Tensor<3> {
    let y =
        <Dispatch as CardKernels>::card_attention_of_parts(x.into_dispatch(), bias.into_dispatch(), heads);
    Tensor::from_dispatch(y)
}

/// As [`super::add`].
#[cfg(feature = "gpu")]
pub(super) fn add<const D: usize>(x: Tensor<D>, bias: Tensor<1>, rest: Tensor<D>) -> Tensor<D> {
    let (x, bias, rest) = (x.into_dispatch(), bias.into_dispatch(), rest.into_dispatch());
    Tensor::from_dispatch(<Dispatch as CardKernels>::card_add(x, bias, rest))
}

/// As [`super::windows`], where a card has a kernel for it.
#[cfg(feature = "gpu")]
pub(super) fn windows(x: Tensor<4>, window: usize, shift: usize) -> Result<Tensor<3>, Tensor<4>> {
    if !is_card(&x.device()) {
        return Err(x);
    }
    Ok(Tensor::from_dispatch(<Dispatch as CardKernels>::card_windows(x.into_dispatch(), window, shift)))
}

/// As [`super::from_windows`], where a card has a kernel for it.
#[cfg(feature = "gpu")]
pub(super) fn from_windows(
    x: Tensor<3>,
    size: [usize; 3],
    window: usize,
    shift: usize,
) -> Result<Tensor<4>, Tensor<3>> {
    if !is_card(&x.device()) {
        return Err(x);
    }
    let y = <Dispatch as CardKernels>::card_from_windows(x.into_dispatch(), size, window, shift);
    Ok(Tensor::from_dispatch(y))
}

/// As [`super::attention`].
pub(super) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "gpu")]
    if has_kernels(&q.device()) {
        let y = <Dispatch as CardProducts>::card_attention(
            q.into_dispatch(),
            k.into_dispatch(),
            v.into_dispatch(),
        );
        return Tensor::from_dispatch(y);
    }
    // Without options: burn's fused attention falls back to the naive one if it is told a scale, and its
    // own is 1 / sqrt(d).
    burn_attention(q, k, v, None, None, AttentionModuleOptions::default())
}

/// As [`super::attention_biased`].
pub(super) fn attention_biased(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "gpu")]
    if has_kernels(&q.device()) {
        let y = <Dispatch as CardProducts>::card_attention_biased(
            q.into_dispatch(),
            k.into_dispatch(),
            v.into_dispatch(),
            bias.into_dispatch(),
        );
        return Tensor::from_dispatch(y);
    }
    // Before the product, where 16 bits could overflow.
    let scale = (q.dims()[3] as f64).powf(-0.5);
    let scores = (q * scale).matmul(k.transpose());
    in_full(scores, |scores| activation::softmax(scores + bias, 3)).matmul(v)
}

/// The rows of [`AdamW::step`] of `[value, mean, square, average, gradient]`, on a card.
#[cfg(feature = "gpu")]
pub(super) fn adamw(parts: [Tensor<1>; 5], step: AdamW) -> Tensor<2> {
    let [value, mean, square, average, gradient] = parts.map(Tensor::into_dispatch);
    let rows = <Dispatch as CardKernels>::card_adamw(value, mean, square, average, gradient, step);
    Tensor::from_dispatch(rows)
}

/// The sum of squares on a card, in parts.
#[cfg(feature = "gpu")]
pub(super) fn squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as CardKernels>::card_squares(x.into_dispatch()))
}

/// `x[.., channels]` times `factors[channels]`.
pub(super) fn scale<const D: usize>(x: Tensor<D>, factors: Tensor<1>) -> Tensor<D> {
    // Without gradients it becomes part of the kernel of what stands around it.
    #[cfg(feature = "gpu")]
    if has_kernels(&x.device()) && !is_card(&x.device()) {
        let factors = factors.cast(DType::F32);
        let y = <Dispatch as CardChannels>::card_scale(x.into_dispatch(), factors.into_dispatch());
        return Tensor::from_dispatch(y);
    }
    let factors = super::as_activations(factors, &x);
    x * factors.unsqueeze()
}

/// As [`super::relative_bias`], where a card has a kernel for it.
#[cfg(feature = "gpu")]
pub(super) fn relative_bias(table: Tensor<2>, window: usize) -> Result<Tensor<3>, Tensor<2>> {
    if !has_kernels(&table.device()) {
        return Err(table);
    }
    let y = <Dispatch as CardChannels>::card_relative_bias(table.into_dispatch(), window);
    Ok(Tensor::from_dispatch(y))
}

/// As [`super::layer_norm`].
pub(super) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if has_kernels(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as CardChannels>::card_layer_norm(
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
            epsilon as f32,
        ));
    }
    in_full(x, |x| burn_layer_norm(x, weight, Some(bias), epsilon))
}
