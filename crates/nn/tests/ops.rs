//! The operations of the seam against burn's own, with their gradients.

use burn::tensor::module::{conv_transpose2d, conv2d as burn_conv2d};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Tensor, TensorData, activation};
use diffbir_nn::Products;
use diffbir_nn::ops::optimizer::{AdamW, Moments, adamw, sum_of_squares};
use diffbir_nn::{Device, ops};

fn wave<const D: usize>(shape: [usize; D], step: f32) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * step).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff())
}

fn close<const D: usize>(name: &str, got: Tensor<D>, want: Tensor<D>) {
    assert_eq!(got.dims(), want.dims(), "{name}");
    let largest = want.clone().abs().max().into_scalar::<f32>();
    let error = (got - want).abs().max().into_scalar::<f32>();
    assert!(error <= 2e-5 * largest.max(1.0), "{name}: {error} of {largest}");
}

#[test]
fn convolution_and_its_gradients_are_burns() {
    // Many channels go by another algorithm.
    let few = [3, 5];
    for (stride, padding, [inputs, outputs]) in
        [(1, (1, 1), few), (2, (1, 1), few), (2, (0, 1), few), (1, (1, 1), [64, 48])]
    {
        let [x, w] =
            [wave([2, 9, 12, inputs], 0.3), wave([outputs, 3, 3, inputs], 0.7)].map(Tensor::require_grad);
        let b = wave([outputs], 1.1).require_grad();
        let options = ConvOptions::new_with_padding([stride; 2], [padding; 2], [1, 1], 1);
        let ours = ops::conv2d(x.clone(), w.clone(), Some(b.clone()), stride, padding, Products::F32);
        let theirs = burn_conv2d(
            x.clone().permute([0, 3, 1, 2]),
            w.clone().permute([0, 3, 1, 2]),
            Some(b.clone()),
            options,
        )
        .permute([0, 2, 3, 1]);
        close("output", ours.clone(), theirs.clone());
        let weights = wave(ours.dims(), 0.13);
        let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
        close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
        close("weight", w.grad(&ours).unwrap(), w.grad(&theirs).unwrap());
        close("bias", b.grad(&ours).unwrap(), b.grad(&theirs).unwrap());
    }
}

/// Validation and pictures that are restored do not know of the algorithm that training takes.
#[test]
fn a_convolution_without_gradients_is_that_of_a_plain_device() {
    let (x, w) = (wave([1, 8, 10, 64], 0.3), wave([64, 3, 3, 64], 0.7));
    let forward = |x: &Tensor<4>, w: &Tensor<4>| {
        let y = ops::conv2d(x.clone(), w.clone(), None, 1, (1, 1), Products::F32);
        y.into_data().try_into_vec::<f32>().unwrap()
    };
    let plain = forward(&x.clone().inner(), &w.clone().inner());
    assert!(forward(&x, &w) == plain);
    let trained = forward(&x, &w.require_grad());
    assert!(trained != plain);
    let far = trained.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-4, "{far}");
}

#[test]
fn a_doubled_convolution_and_its_gradients_are_those_of_the_large_picture() {
    let [x, w] = [wave([2, 5, 6, 3], 0.3), wave([5, 3, 3, 3], 0.7)].map(Tensor::require_grad);
    let b = wave([5], 1.1).require_grad();
    let ours = ops::conv2d_doubled(x.clone(), w.clone(), Some(b.clone()), Products::F32);
    let large = ops::upsample_nearest2x(x.clone());
    let theirs = ops::conv2d(large, w.clone(), Some(b.clone()), 1, (1, 1), Products::F32);
    close("output", ours.clone(), theirs.clone());
    let weights = wave(ours.dims(), 0.13);
    let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
    close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
    close("weight", w.grad(&ours).unwrap(), w.grad(&theirs).unwrap());
    close("bias", b.grad(&ours).unwrap(), b.grad(&theirs).unwrap());
}

#[test]
fn transposed_convolution_and_its_gradients_are_burns() {
    let [x, w] = [wave([2, 3, 4, 6], 0.3), wave([6, 5, 2, 2], 0.7)].map(Tensor::require_grad);
    let ours = ops::conv_transpose_disjoint(x.clone(), w.clone());
    let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
    let theirs =
        conv_transpose2d(x.clone().permute([0, 3, 1, 2]), w.clone(), None, options).permute([0, 2, 3, 1]);
    close("output", ours.clone(), theirs.clone());
    let weights = wave(ours.dims(), 0.13);
    let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
    close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
    close("weight", w.grad(&ours).unwrap(), w.grad(&theirs).unwrap());
}

#[test]
fn linear_map_and_its_gradients_are_burns() {
    let [x, w] = [wave([2, 7, 19], 0.3), wave([1, 33, 19], 0.7)].map(Tensor::require_grad);
    let b = wave([33], 1.1).require_grad();
    let ours = ops::linear(x.clone(), w.clone().reshape([33, 19]), Some(b.clone()), Products::F32);
    let theirs = x.clone().matmul(w.clone().transpose().repeat_dim(0, 2)) + b.clone().unsqueeze();
    close("output", ours.clone(), theirs.clone());
    let weights = wave(ours.dims(), 0.13);
    let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
    close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
    close("weight", w.grad(&ours).unwrap(), w.grad(&theirs).unwrap());
    close("bias", b.grad(&ours).unwrap(), b.grad(&theirs).unwrap());
}

#[test]
fn a_linear_map_of_a_row_does_not_depend_on_the_batch() {
    let [x, w] = [wave([2, 1280], 0.3), wave([1280, 1280], 0.7)];
    let both = ops::linear(x.clone(), w.clone(), None, Products::F32).slice_dim(0, 0..1).into_data();
    let one = ops::linear(x.slice_dim(0, 0..1), w, None, Products::F32).into_data();
    assert_eq!(one, both);
}

#[test]
fn attention_and_its_gradients_are_burns() {
    for (bias_shape, keys) in [(None, 77), (Some([1, 4, 9, 6]), 6), (Some([2, 1, 1, 9]), 9)] {
        // As the networks have them: heads from a projection's features.
        let leaf = |rows: usize, step: f32| wave([2, rows, 4 * 5], step).require_grad();
        let (q, k, v) = (leaf(9, 0.3), leaf(keys, 0.7), leaf(keys, 1.1));
        let bias = bias_shape.map(|shape| wave(shape, 0.9).require_grad());
        let heads = |x: &Tensor<3>| {
            let rows = x.dims()[1];
            x.clone().reshape([2, rows, 4, 5]).swap_dims(1, 2)
        };
        let ours = match &bias {
            Some(bias) => ops::attention_biased(heads(&q), heads(&k), heads(&v), bias.clone(), Products::F32),
            None => ops::attention(heads(&q), heads(&k), heads(&v), Products::F32),
        };
        let scores = heads(&q).matmul(heads(&k).transpose()) / 5f32.sqrt();
        let scores = match &bias {
            Some(bias) => scores + bias.clone(),
            None => scores,
        };
        let theirs = activation::softmax(scores, 3).matmul(heads(&v));
        close("output", ours.clone(), theirs.clone());
        let weights = wave(ours.dims(), 0.13);
        let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
        for (name, x) in [("q", q), ("k", k), ("v", v)] {
            close(name, x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
        }
        if let Some(bias) = bias {
            close("bias", bias.grad(&ours).unwrap(), bias.grad(&theirs).unwrap());
        }
    }
}

#[test]
fn leaky_relus_and_their_gradients_are_burns() {
    let x = wave([3, 50, 6], 0.3).require_grad();
    let slopes = (wave([6], 0.7) * 0.4).detach().require_grad();
    let weights = wave([3, 50, 6], 0.17);
    let pairs = [
        (ops::leaky_relu(x.clone(), 0.2), activation::leaky_relu(x.clone(), 0.2)),
        (
            ops::prelu(x.clone(), slopes.clone()),
            activation::relu(x.clone()) - activation::relu(x.clone().neg()) * slopes.clone().unsqueeze(),
        ),
    ];
    for (ours, theirs) in pairs {
        close("output", ours.clone(), theirs.clone());
        let (ours, theirs) =
            ((ours * weights.clone()).sum().backward(), (theirs * weights.clone()).sum().backward());
        close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
        assert_eq!(slopes.grad(&ours).is_some(), slopes.grad(&theirs).is_some());
        if let (Some(ours), Some(theirs)) = (slopes.grad(&ours), slopes.grad(&theirs)) {
            close("slopes", ours, theirs);
        }
    }
}

/// Against the formulas, in burn's operations.
#[test]
fn a_step_of_the_optimizer_keeps_an_average_if_there_is_one() {
    let [value, mean, average, gradient] = [0.3, 0.7, 1.1, 0.2].map(|step| wave([1000], step).inner());
    let square = wave([1000], 0.9).inner().square();
    let step = AdamW {
        beta1: 0.9,
        beta2: 0.99,
        corrections: [0.19, 0.0199],
        epsilon: 1e-3,
        rate: 0.01,
        weight_decay: 0.1,
        scale: 0.5,
        average_decay: Some(0.8),
    };
    let first = mean.clone() * 0.9 + gradient.clone() * 0.05;
    let second = square.clone() * 0.99 + gradient.clone().square() * 0.0025;
    let change = first.clone() / 0.19 / ((second.clone() / 0.0199).sqrt() + 1e-3);
    let new = value.clone() * 0.999 - change * 0.01;
    for kept in [Some(average.clone()), None] {
        let moments = Moments { mean: mean.clone(), square: square.clone(), average: kept.clone() };
        let (got, moments) = adamw(value.clone(), moments, gradient.clone(), step);
        close("value", got, new.clone());
        close("mean", moments.mean, first.clone());
        close("square", moments.square, second.clone());
        assert_eq!(moments.average.is_some(), kept.is_some());
        if let Some(got) = moments.average {
            close("average", got, average.clone() * 0.8 + new.clone() * 0.2);
        }
    }
    let sum = f64::from(gradient.clone().square().sum().into_scalar::<f32>());
    assert!((f64::from(sum_of_squares(gradient).into_scalar::<f32>()) - sum).abs() < 1e-4 * sum);
}

#[test]
fn gelu_and_its_gradient_are_burns() {
    let x = (wave([3, 50, 7], 0.3) * 6.0).detach().require_grad();
    let (ours, theirs) = (ops::gelu(x.clone()), activation::gelu(x.clone()));
    close("output", ours.clone(), theirs.clone());
    let weights = wave([3, 50, 7], 0.17);
    let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
    close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
}

#[test]
fn relu_and_its_gradient_are_burns() {
    let x = (wave([3, 50, 7], 0.3) * 6.0).detach().require_grad();
    let (ours, theirs) = (ops::relu(x.clone()), activation::relu(x.clone()));
    close("output", ours.clone(), theirs.clone());
    let weights = wave([3, 50, 7], 0.17);
    let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
    close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
}

#[test]
fn group_norm_and_its_gradients_are_burns() {
    let x = wave([2, 5, 6, 8], 0.31).require_grad();
    let [w, b] = [wave([8], 0.9), wave([8], 1.7)].map(Tensor::require_grad);
    let ours = ops::group_norm(x.clone(), w.clone(), b.clone(), 4, 1e-5, true);
    let grouped = x.clone().reshape([2, 30, 4, 2]);
    let mean = grouped.clone().mean_dim(1).mean_dim(3);
    let centred = grouped - mean;
    let variance = centred.clone().square().mean_dim(1).mean_dim(3);
    let normal = (centred / (variance + 1e-5).sqrt()).reshape([2, 5, 6, 8]);
    let theirs = activation::silu(normal * w.clone().unsqueeze() + b.clone().unsqueeze());
    close("output", ours.clone(), theirs.clone());
    let weights = wave([2, 5, 6, 8], 0.17);
    let (ours, theirs) = ((ours * weights.clone()).sum().backward(), (theirs * weights).sum().backward());
    close("input", x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
    close("weight", w.grad(&ours).unwrap(), w.grad(&theirs).unwrap());
    close("bias", b.grad(&ours).unwrap(), b.grad(&theirs).unwrap());
}

#[test]
fn shuffling_is_undone_by_unshuffling() {
    let x = wave([1, 8, 12, 3], 0.2);
    let deep = ops::pixel_unshuffle(x.clone(), 4);
    assert_eq!(deep.dims(), [1, 2, 3, 48]);
    // Channel c·16 + i·4 + j comes from row i and column j.
    let value = |x: &Tensor<4>, at: [usize; 4]| {
        x.clone()
            .slice([at[0]..at[0] + 1, at[1]..at[1] + 1, at[2]..at[2] + 1, at[3]..at[3] + 1])
            .into_scalar::<f32>()
    };
    assert_eq!(value(&deep, [0, 1, 2, 2 * 16 + 3 * 4 + 1]), value(&x, [0, 7, 9, 2]));
    close("round trip", ops::pixel_shuffle(deep, 4), x);
}

#[test]
fn reflection_leaves_the_edge_out() {
    let x = Tensor::<4>::from_data(TensorData::new(vec![1f32, 2.0, 3.0], [1, 1, 3, 1]), &Device::flex());
    let padded: Vec<f32> = ops::pad_reflect_end(x, 0, 2).into_data().iter::<f32>().collect();
    assert_eq!(padded, [1.0, 2.0, 3.0, 2.0, 1.0]);
}

#[test]
fn a_gated_map_is_the_map_and_then_the_gate() {
    use diffbir_nn::layers::Linear;
    use diffbir_nn::params::{Precision, RandomInit, build_in};
    let device = Device::flex();
    let x = Tensor::<3>::from_data(wave([2, 9, 16], 0.3).into_data(), &device);
    for (precision, outputs) in
        [(Precision::F32, 128), (Precision::F32, 48), (Precision::Bf16, 128), (Precision::Bf16, 48)]
    {
        let linear = build_in(precision, &mut RandomInit { seed: 1 }, &device, |params| {
            Linear::new(params, 16, outputs)
        })
        .unwrap();
        let gated = linear.forward_gated(x.clone());
        assert_eq!(gated.dims(), [2, 9, outputs / 2]);
        let apart = ops::geglu(linear.forward(x.clone()));
        assert_eq!(gated.into_data(), apart.into_data(), "{precision:?} {outputs}");
    }
}

#[test]
fn weights_in_sixteen_bits_serve_activations_in_thirty_two() {
    use diffbir_nn::layers::{Conv2dConfig, GroupNorm, Linear};
    use diffbir_nn::params::{Precision, RandomInit, build_in};
    let device = Device::flex();
    let x = Tensor::<4>::from_data(wave([1, 5, 6, 8], 0.3).into_data(), &device);
    let run = |precision| {
        build_in(precision, &mut RandomInit { seed: 1 }, &device, |params| {
            let conv = Conv2dConfig::new(8, 16, 3).build(&params.at("conv"))?;
            let norm = GroupNorm::new(&params.at("norm"), 4, 16, 1e-5)?;
            let linear = Linear::new(&params.at("linear"), 16, 4)?;
            let full = Linear::new(&params.at("full").in_full(), 4, 4)?;
            let y = full.forward(linear.forward(norm.forward_silu(conv.forward(x.clone()))));
            assert_eq!(y.dtype(), burn::tensor::DType::F32);
            Ok(y.into_data().iter::<f32>().collect::<Vec<_>>())
        })
        .unwrap()
    };
    let exact = run(Precision::F32);
    for (precision, tolerance) in [(Precision::Bf16, 2e-2), (Precision::F16, 2e-3)] {
        let got = run(precision);
        let error = got.iter().zip(&exact).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error > 0.0 && error < tolerance, "{precision:?}: {error}");
    }
}

#[test]
fn replication_repeats_the_edge_however_often() {
    let x = Tensor::<4>::from_data(TensorData::new(vec![1f32, 2.0, 3.0, 4.0], [1, 2, 2, 1]), &Device::flex());
    let padded = ops::pad_replicate_end(x, 1, 3);
    assert_eq!(padded.dims(), [1, 3, 5, 1]);
    let values: Vec<f32> = padded.into_data().iter::<f32>().collect();
    assert_eq!(values, [1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0, 3.0, 4.0, 4.0, 4.0, 4.0]);
}

/// Statistics of parts together are those of the whole, however far apart the parts lie and however far from zero.
#[test]
fn a_norm_of_parts_is_the_norm_of_the_whole() {
    use diffbir_nn::layers::GroupNorm;
    use diffbir_nn::params::{Precision, RandomInit, build_in};
    let device = Device::flex();
    let x = Tensor::<4>::from_data(wave([1, 192, 8, 6], 0.3).into_data(), &device) + 1000.0;
    let steps = Tensor::<1, burn::tensor::Int>::arange(0..192, &device).float().reshape([1, 192, 1, 1]) * 3.0;
    let x = x + steps;
    let parts = [0..7, 7..64, 64..192].map(|rows| x.clone().slice_dim(1, rows));
    let norm = build_in(Precision::F32, &mut RandomInit { seed: 1 }, &device, |params| {
        GroupNorm::new(&params.at("norm"), 3, 6, 1e-5)
    });
    let norm = norm.unwrap();
    let run = || {
        let together = parts.iter().map(|part| ops::Moments::of(part.clone(), 3)).reduce(ops::Moments::and);
        norm.known(&together.unwrap()).forward(parts.to_vec(), true)
    };
    close("kernels", run(), norm.forward_silu(x.clone()));
    close("operations", ops::without_kernels(run), norm.forward_silu(x.clone()));
    // More pieces than the kernel takes at once.
    let known = norm.known(&ops::Moments::of(x.clone(), 3));
    let rows = (0..192).map(|row| x.clone().slice_dim(1, row..row + 1)).collect();
    close("rows", known.forward(rows, false), norm.forward(x));
}
