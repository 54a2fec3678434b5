//! The operations under the layers: on the CPU a kernel of ours where there is one, elsewhere burn's.
//!
//! All activations are channels last. Every function gives the same result on every device up to
//! rounding.

#[cfg(feature = "gpu")]
mod cube;
mod flex;
mod gpu;
mod moments;
pub mod optimizer;
mod rows;
mod window;

pub use moments::Moments;
pub(crate) use moments::scale_and_shift;
pub use rows::{add_to_images, attends_in_windows, geglu, join, sum, window_attention};
pub use window::{from_windows, relative_bias, relative_index, windows};

use crate::observe;
use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::module::{conv2d as burn_conv2d, max_pool2d as burn_max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, activation};
use diffbir_kernels::Products;
use diffbir_kernels::attention::Attention;
use diffbir_kernels::conv::{Conv2d, PackedWeight, Rectifier};
use diffbir_kernels::norm::GroupNorm;
use flex::{ActivationKernels, AttentionKernel, Kernels, RowKernels};
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

thread_local! {
    static WITHOUT_KERNELS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `network` as on other devices than the CPU: for tests, where there is no other.
pub fn without_kernels<R>(network: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            WITHOUT_KERNELS.set(false);
        }
    }
    WITHOUT_KERNELS.set(true);
    let _reset = Reset;
    network()
}

/// Whether tensors of this device are on burn's CPU backend, where our kernels run.
pub(crate) fn on_cpu(device: &Device) -> bool {
    if WITHOUT_KERNELS.get() {
        return false;
    }
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(device) => matches!(device.clone().inner(), DispatchDevice::Flex(_)),
        #[allow(unreachable_patterns, reason = "other devices exist in a gpu build")]
        _ => false,
    }
}

/// Whether kernels run that do several things at once and have no gradients: on the CPU where nothing is trained, unless
/// somebody listens to what lies in between.
pub(crate) fn fuses(device: &Device) -> bool {
    on_cpu(device) && matches!(device.as_dispatch(), DispatchDevice::Flex(_)) && !observe::is_on()
}

/// Whether tensors of this device are multiplied so, forward and backward, where weights are not packed.
pub fn multiplies_in(products: Products, device: &Device) -> bool {
    products == Products::F32 || on_cpu(device)
}

/// A weight that is held in another precision than the activations `x`, in theirs.
pub(crate) fn as_activations<const D: usize, const E: usize>(weight: Tensor<D>, x: &Tensor<E>) -> Tensor<D> {
    if weight.dtype() == x.dtype() { weight } else { weight.cast(x.dtype()) }
}

/// Convolution: `x[batch, height, width, in]`, `weight[out, kernel, kernel, in]`, `bias[out]`, zeros
/// `padding.0` before and `padding.1` after each of height and width. On other devices than the CPU, products are those of
/// the weight.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
    products: Products,
) -> Tensor<4> {
    if on_cpu(&x.device()) {
        let weight = as_activations(weight, &x);
        let [out_channels, kernel, _, _] = weight.dims();
        let sizes = conv2d_sizes(&x, out_channels, kernel, stride, padding);
        return convolution(x, weight, bias, Conv2d { products, ..sizes });
    }
    gpu::conv2d(x, weight, bias, stride, padding)
}

/// Convolution of `x` made twice as large by repeating pixels, `weight[out, 3, 3, in]`, one zero on each side:
/// `[batch, height, width, in]` to `[batch, 2·height, 2·width, out]`.
pub fn conv2d_doubled(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    products: Products,
) -> Tensor<4> {
    if on_cpu(&x.device()) {
        let weight = as_activations(weight, &x);
        let [out_channels, kernel, _, _] = weight.dims();
        let sizes = conv2d_sizes(&x, out_channels, kernel, 1, (1, 1));
        return convolution(x, weight, bias, Conv2d { doubled: true, products, ..sizes });
    }
    gpu::conv2d_doubled(x, weight, bias)
}

/// A convolution of these sizes on the CPU.
fn convolution(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, sizes: Conv2d) -> Tensor<4> {
    let bias = bias.unwrap_or_else(|| Tensor::zeros([sizes.out_channels], &x.device()));
    Tensor::from_dispatch(<Dispatch as Kernels>::convolution(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        sizes,
    ))
}

/// What follows a convolution: what is added to it, and what becomes of negative results then.
pub(crate) struct Following {
    pub rest: Option<Tensor<4>>,
    pub rectifier: Rectifier,
    /// The rows of the output that are computed at all, if not all of them.
    pub rows: Option<Range<usize>>,
}

impl Following {
    pub(crate) const NOTHING: Self = Self { rest: None, rectifier: Rectifier::None, rows: None };
}

/// [`conv2d`], or [`conv2d_doubled`], on the CPU with a weight that was packed before.
pub(crate) fn conv2d_packed(
    x: Tensor<4>,
    weight: Arc<PackedWeight>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
    following: Following,
) -> Tensor<4> {
    let [out_channels, kernel, _, _] = weight.shape();
    let sizes = conv2d_sizes(&x, out_channels, kernel, stride, padding);
    let sizes = Conv2d { doubled: weight.is_doubled(), products: weight.products(), ..sizes };
    let bias = bias.unwrap_or_else(|| Tensor::zeros([out_channels], &x.device()));
    let rest = following.rest.unwrap_or_else(|| Tensor::zeros([1; 4], &x.device()));
    Tensor::from_dispatch(<Dispatch as Kernels>::convolution_packed(
        x.into_dispatch(),
        bias.into_dispatch(),
        rest.into_dispatch(),
        weight,
        sizes,
        following.rectifier,
        following.rows.unwrap_or(0..sizes.out_size().0),
    ))
}

fn conv2d_sizes(
    x: &Tensor<4>,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    padding: (usize, usize),
) -> Conv2d {
    let [batch, height, width, in_channels] = x.dims();
    let (pad_before, pad_after) = padding;
    Conv2d {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel,
        stride,
        pad_before,
        pad_after,
        doubled: false,
        products: Products::F32,
    }
}

/// 3x3 convolution of each channel by itself: `x[batch, height, width, channels]`, `weight[channels, 1, 3, 3]`, zeros
/// around the picture.
pub fn conv2d_depthwise(x: Tensor<4>, weight: Tensor<4>, stride: usize) -> Tensor<4> {
    let channels = x.dims()[3];
    let weight = as_activations(weight, &x);
    let options = ConvOptions::new_with_padding([stride; 2], [(1, 1); 2], [1, 1], channels);
    burn_conv2d(x.permute([0, 3, 1, 2]), weight, None, options).permute([0, 2, 3, 1])
}

/// Transposed convolution whose steps are as long as its kernel, so that outputs do not overlap:
/// `x[batch, height, width, in]`, `weight[in, out, kernel, kernel]` to `[batch, height·kernel,
/// width·kernel, out]`.
pub fn conv_transpose_disjoint(x: Tensor<4>, weight: Tensor<4>) -> Tensor<4> {
    let [inputs, outputs, kernel, _] = weight.dims();
    // Every input pixel becomes kernel x kernel output pixels by itself.
    let weight = weight.reshape([inputs, outputs * kernel * kernel]).transpose();
    pixel_shuffle(linear(x, weight, None, Products::F32), kernel)
}

/// Group normalisation of `x[batch, height, width, channels]`, followed by SiLU if `silu`.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    epsilon: f32,
    silu: bool,
) -> Tensor<4> {
    if on_cpu(&x.device()) {
        let [batch, height, width, channels] = x.dims();
        let sizes = GroupNorm { batch, pixels: height * width, channels, groups, epsilon, silu };
        return Tensor::from_dispatch(<Dispatch as Kernels>::group_norm(
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
            sizes,
        ));
    }
    gpu::group_norm(x, weight, bias, groups, epsilon, silu)
}

/// Linear map of the last dimension: `x[.., in]`, `weight[out, in]`, `bias[out]`; products as of [`conv2d`].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    products: Products,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [out_features, in_features] = weight.dims();
    let rows: usize = shape[..D - 1].iter().product();
    shape[D - 1] = out_features;
    if on_cpu(&x.device()) {
        // A pointwise convolution over a picture of one row.
        let (x, weight) =
            (x.reshape([1, 1, rows, in_features]), weight.reshape([out_features, 1, 1, in_features]));
        return conv2d(x, weight, bias, 1, (0, 0), products).reshape(shape);
    }
    gpu::linear(x.reshape([rows, in_features]), weight, bias).reshape(shape)
}

/// [`linear`] on the CPU with a weight that was packed before, and `rest` added.
pub(crate) fn linear_packed<const D: usize>(
    x: Tensor<D>,
    weight: Arc<PackedWeight>,
    bias: Option<Tensor<1>>,
    rest: Option<Tensor<D>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [out_features, _, _, in_features] = weight.shape();
    let rows: usize = shape[..D - 1].iter().product();
    shape[D - 1] = out_features;
    let rest = rest.map(|rest| rest.reshape([1, 1, rows, out_features]));
    let following = Following { rest, ..Following::NOTHING };
    conv2d_packed(x.reshape([1, 1, rows, in_features]), weight, bias, 1, (0, 0), following).reshape(shape)
}

/// [`linear_packed`] and then [`geglu`] as one operation, where [`fuses`].
pub(crate) fn gated_linear_packed<const D: usize>(
    x: Tensor<D>,
    weight: Arc<PackedWeight>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let bias = bias.unwrap_or_else(|| Tensor::zeros([weight.shape()[0]], &x.device()));
    let y = <Dispatch as RowKernels>::gated_linear(x.into_dispatch(), bias.into_dispatch(), weight);
    Tensor::from_dispatch(y)
}

/// Scaled dot-product attention over heads: `q[batch, heads, n, d]`, `k` and `v` `[batch, heads, m, d]`. On other
/// devices than the CPU, products are those of the tensors.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, products: Products) -> Tensor<4> {
    if on_cpu(&q.device()) {
        return attend(q, k, v, None, products);
    }
    gpu::attention(q, k, v)
}

/// Attention of `heads` heads over `x[n, tokens, 3 · width]`, queries, keys and values side by side, with a bias added to
/// the scores as in [`attention_biased`]: `[n, tokens, width]`.
pub fn attention_of_parts(x: Tensor<3>, heads: usize, bias: Tensor<4>, products: Products) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    if gpu::is_card(&x.device()) {
        return gpu::attention_of_parts(x, heads, bias);
    }
    let [n, tokens, width] = x.dims();
    let width = width / 3;
    // Views: the attention reads queries, keys and values where they lie.
    let parts = x.reshape([n, tokens, 3 * heads, width / heads]).swap_dims(1, 2);
    let part = |index: usize| parts.clone().slice_dim(1, index * heads..(index + 1) * heads);
    let y = attention_biased(part(0), part(1), part(2), bias, products);
    y.swap_dims(1, 2).reshape([n, tokens, width])
}

/// `x` and `rest`, and a bias along the last dimension if there is one, added up.
pub(crate) fn add<const D: usize>(x: Tensor<D>, bias: Option<Tensor<1>>, rest: Tensor<D>) -> Tensor<D> {
    let rest = as_activations(rest, &x);
    #[cfg(feature = "gpu")]
    if let (Some(bias), true) = (&bias, gpu::is_card(&x.device())) {
        return gpu::add(x, bias.clone(), rest);
    }
    match bias {
        Some(bias) => x.clone() + as_activations(bias, &x).unsqueeze() + rest,
        None => x + rest,
    }
}

/// Softmax attention with a bias added to the scores; shapes as [`attention`], bias broadcastable to
/// `[batch, heads, n, m]`.
pub fn attention_biased(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    products: Products,
) -> Tensor<4> {
    if on_cpu(&q.device()) {
        return attend(q, k, v, Some(bias), products);
    }
    gpu::attention_biased(q, k, v, bias)
}

/// Both attentions on the CPU.
fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Option<Tensor<4>>,
    products: Products,
) -> Tensor<4> {
    let [batch, heads, queries, width] = q.dims();
    let keys = k.dims()[2];
    let bias = bias.map(|bias| {
        let [batch, heads, _, _] = bias.dims();
        bias.expand([batch, heads, queries, keys])
    });
    let shape = bias.as_ref().map(|bias| [bias.dims()[0], bias.dims()[1]]);
    let sizes = Attention { batch, heads, queries, keys, width, bias: shape, products };
    let bias = bias.unwrap_or_else(|| Tensor::zeros([1; 4], &q.device()));
    Tensor::from_dispatch(<Dispatch as AttentionKernel>::attend(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        bias.into_dispatch(),
        sizes,
    ))
}

/// The largest value of each channel in windows of `kernel` x `kernel` pixels that lie wholly inside, every
/// `stride` pixels.
pub fn max_pool2d(x: Tensor<4>, kernel: usize, stride: usize) -> Tensor<4> {
    let options = MaxPoolOptions::new([kernel; 2]).with_stride([stride; 2]);
    burn_max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// Doubles height and width by repeating each pixel.
pub fn upsample_nearest2x(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    x.reshape([batch, height, 1, width, channels])
        .repeat(&[1, 1, 2, 1, 1])
        .reshape([batch, 2 * height, width, 1, channels])
        .repeat(&[1, 1, 1, 2, 1])
        .reshape([batch, 2 * height, 2 * width, channels])
}

/// `[b, h·f, w·f, c]` to `[b, h, w, c·f·f]`, channel `c·f·f + i·f + j` from offset (row i, column j),
/// the order of PyTorch's `PixelUnshuffle`.
pub fn pixel_unshuffle(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let (h, w) = (height / factor, width / factor);
    x.reshape([batch, h, factor, w, factor, channels]).permute([0, 1, 3, 5, 2, 4]).reshape([
        batch,
        h,
        w,
        channels * factor * factor,
    ])
}

/// The inverse of [`pixel_unshuffle`].
pub fn pixel_shuffle(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [batch, h, w, deep] = x.dims();
    let channels = deep / (factor * factor);
    x.reshape([batch, h, w, channels, factor, factor]).permute([0, 1, 4, 2, 5, 3]).reshape([
        batch,
        h * factor,
        w * factor,
        channels,
    ])
}

/// Zeros around height and width: `(before, after)` each.
pub fn pad_zero(x: Tensor<4>, height: (usize, usize), width: (usize, usize)) -> Tensor<4> {
    let [batch, h, w, channels] = x.dims();
    let device = x.device();
    let full = Tensor::zeros([batch, h + height.0 + height.1, w + width.0 + width.1, channels], &device);
    full.slice_assign([0..batch, height.0..height.0 + h, width.0..width.0 + w, 0..channels], x)
}

/// Reflection by one pixel at all edges, the edge itself not repeated, as PyTorch's `ReflectionPad2d(1)`.
pub fn pad_reflect_one(x: Tensor<4>) -> Tensor<4> {
    [1, 2].into_iter().fold(x, |x, dim| {
        let size = x.dims()[dim];
        let line = |at: usize| x.clone().slice_dim(dim, at..at + 1);
        let (before, after) = (line(1), line(size - 2));
        Tensor::cat(vec![before, x, after], dim)
    })
}

/// Reflection at the bottom and right edge by fewer pixels than the picture has (the edge itself is not
/// repeated).
pub fn pad_reflect_end(x: Tensor<4>, rows: usize, columns: usize) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let mut x = x;
    if rows > 0 {
        let tail = x.clone().slice_dim(1, height - 1 - rows..height - 1).flip([1]);
        x = Tensor::cat(vec![x, tail], 1);
    }
    if columns > 0 {
        let tail = x.clone().slice_dim(2, width - 1 - columns..width - 1).flip([2]);
        x = Tensor::cat(vec![x, tail], 2);
    }
    x
}

/// The last row repeated `rows` times at the bottom, then the last column `columns` times at the right.
pub fn pad_replicate_end(x: Tensor<4>, rows: usize, columns: usize) -> Tensor<4> {
    let mut x = x;
    for (dim, count) in [(1, rows), (2, columns)] {
        if count > 0 {
            let end = x.dims()[dim];
            let tail = x.clone().slice_dim(dim, end - 1..end).repeat_dim(dim, count);
            x = Tensor::cat(vec![x, tail], dim);
        }
    }
    x
}

/// `x` where positive, else `slope · x`, for a slope above 0.
pub fn leaky_relu<const D: usize>(x: Tensor<D>, slope: f64) -> Tensor<D> {
    if on_cpu(&x.device()) {
        let y = <Dispatch as ActivationKernels>::own_leaky_relu(x.into_dispatch(), slope as f32);
        return Tensor::from_dispatch(y);
    }
    activation::leaky_relu(x, slope)
}

/// `x` `[.., channels]` where positive, else multiplied by its channel's slope, `[channels]`.
pub fn prelu<const D: usize>(x: Tensor<D>, slopes: Tensor<1>) -> Tensor<D> {
    if on_cpu(&x.device()) {
        let y = <Dispatch as ActivationKernels>::own_prelu(x.into_dispatch(), slopes.into_dispatch());
        return Tensor::from_dispatch(y);
    }
    let positive = activation::relu(x.clone());
    // min(x, 0) = x - max(x, 0)
    positive.clone() + gpu::scale(x - positive, slopes)
}

/// The larger of `x` and 0.
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if on_cpu(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as ActivationKernels>::own_relu(x.into_dispatch()));
    }
    activation::relu(x)
}

/// The exact GELU: `x` times the normal distribution function of `x`.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if on_cpu(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as ActivationKernels>::own_gelu(x.into_dispatch()));
    }
    gpu::in_full(x, activation::gelu)
}

/// `x` times its logistic function.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gpu::in_full(x, activation::silu)
}

/// Normalisation of the last dimension: `weight` and `bias` are of its length.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    if on_cpu(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as RowKernels>::own_layer_norm(
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
            epsilon as f32,
        ));
    }
    gpu::layer_norm(x, weight, bias, epsilon)
}

/// Activations as a result: in f32 whatever a network works in.
pub fn as_result<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(DType::F32)
}
