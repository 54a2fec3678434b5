//! All networks, small, on burn's operations in f32 and in half floats: they go through, and give what our kernels
//! give. On the processor always; on a graphics card, Vulkan or Metal, by
//!
//! `cargo test --release --workspace --features gpu --test numbers -- --ignored --nocapture --test-threads 1 on_a_graphics_card`
//!
//! and on a Vulkan driver that computes on the processor, Mesa's lavapipe from 26.2 on, by
//!
//! `cargo test --release --workspace --features gpu --test numbers -- --ignored --nocapture --test-threads 1 on_vulkan_in_software`

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use diffbir::device::DeviceChoice;
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::parsenet::ParseNetConfig;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::ops::optimizer::{AdamW, Moments, adamw};
use diffbir_nn::params::{Init, RandomInit, Source, build_in, build_to_train};
use diffbir_nn::{Params, Precision, Products, WeightError, ops};

/// Values in -1..1, the same on every device.
fn drawn<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let mut state = 7u32;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Weights of which none is zero: layers that start at zero would hide what comes before them.
struct Drawn;

impl Source for Drawn {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let values = RandomInit { seed: 3 }.values(key, shape, Init::FanIn)?;
        let one = if init == Init::Constant(1.0) { 1.0 } else { 0.0 };
        Ok(values.into_iter().map(|value| value + one).collect())
    }
}

/// What `run` gives on `device` without the processor's kernels, in f32 and in f16, against these kernels in f32: largest
/// differences over the largest value.
fn compare_runs<const D: usize>(name: &str, device: &Device, run: impl Fn(Precision, &Device) -> Tensor<D>) {
    let of =
        |precision, device: &Device| run(precision, device).into_data().iter::<f32>().collect::<Vec<_>>();
    let expected = of(Precision::F32, &Device::flex());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::F16, 2e-2)] {
        if precision == Precision::F16 && !device.supports_dtype(DType::F16) {
            println!("{name}: this device has no half floats");
            continue;
        }
        let values = ops::without_kernels(|| of(precision, device));
        let off = values.iter().zip(&expected).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
        println!("{name} in {precision:?}: off by {:.1e} of the largest value", off / largest);
        assert_eq!(values.len(), expected.len(), "{name}");
        assert!(off <= tolerance * largest, "{name} in {precision:?}: off by {off} of {largest}");
        assert!(values.iter().all(|value| value.is_finite()), "{name} in {precision:?}: not finite");
    }
}

/// [`compare_runs`] of a network.
fn compare<N, const D: usize>(
    name: &str,
    device: &Device,
    network: impl Fn(&Params) -> Result<N, WeightError>,
    run: impl Fn(&N, &Device) -> Tensor<D>,
) {
    compare_runs(name, device, |precision, device| {
        let network = build_in(precision, &mut Drawn, device, &network).expect("every tensor is drawn");
        run(&network, device)
    });
}

/// A graphics card that starts.
fn card() -> Device {
    let choice = if cfg!(target_os = "macos") { DeviceChoice::Metal(0) } else { DeviceChoice::Vulkan(0) };
    choice.open().expect("a graphics card").device
}

#[cfg(feature = "cuda")]
fn cuda() -> Device {
    let opened = DeviceChoice::Cuda(0).open().expect("a device");
    assert!(opened.name.starts_with("cuda"), "CUDA does not start");
    opened.device
}

/// Each part of the suite on each kind of device, so that they can be run one by one.
macro_rules! parts {
    ($($part:ident)*) => {$(
        mod $part {
            use super::*;

            #[test]
            fn on_the_processor() {
                super::$part(&Device::flex());
            }

            #[test]
            #[ignore = "needs a graphics card, and a build with --features gpu"]
            fn on_a_graphics_card() {
                super::$part(&card());
            }

            #[test]
            #[cfg(feature = "cuda")]
            #[ignore = "needs an NVIDIA card"]
            fn on_cuda() {
                super::$part(&cuda());
            }

            #[test]
            #[cfg(feature = "gpu")]
            #[ignore = "needs a Vulkan driver that computes on the processor"]
            fn on_vulkan_in_software() {
                super::$part(&Device::vulkan(burn::tensor::DeviceKind::Cpu));
            }
        }
    )*};
}

parts!(operations first_stages autoencoders denoisers text_and_faces training);

fn operations(device: &Device) {
    fn of<const D: usize>(precision: Precision, shape: [usize; D], device: &Device) -> Tensor<D> {
        drawn(shape, device).cast(if precision == Precision::F16 { DType::F16 } else { DType::F32 })
    }
    let bias = |channels, device: &Device| Some(drawn([channels], device));
    // Some have long sums, which are shared out, or larger tiles. The last five are multiplied by planes where there are any,
    // in half floats: two of them have long sums, three larger tiles, and all but one tiles that are not full.
    let sizes = [
        (16, 24, 40),
        (320, 64, 130),
        (7, 5, 3),
        (64, 48, 4200),
        (768, 32, 48),
        (1030, 256, 2304),
        (40, 80, 72),
        (1032, 80, 72),
        (1032, 256, 2304),
        (40, 1008, 2056),
        (40, 1008, 4232),
    ];
    for (input, output, rows) in sizes {
        compare_runs(&format!("linear {input} to {output} of {rows}"), device, |precision, device| {
            let (x, weight) = (of(precision, [rows, input], device), of(precision, [output, input], device));
            ops::linear(x, weight, bias(output, device), Products::F32)
        });
    }
    for (kernel, stride, padding, input) in [
        (3, 1, (1, 1), 16),
        (3, 2, (1, 1), 12),
        (3, 2, (0, 1), 8),
        (1, 1, (0, 0), 20),
        (2, 2, (0, 0), 6),
        (3, 1, (1, 1), 3),
    ] {
        let name =
            format!("convolution {kernel} x {kernel}, step {stride}, padding {padding:?}, {input} channels");
        compare_runs(&name, device, |precision, device| {
            let x = of(precision, [2, 18, 14, input], device);
            let weight = of(precision, [10, kernel, kernel, input], device);
            ops::conv2d(x, weight, bias(10, device), stride, padding, Products::F32)
        });
    }
    for (kernel, padding, input) in [(3, 1, 16), (1, 0, 40), (3, 1, 136)] {
        let name = format!("convolution {kernel} x {kernel} of {input} to 80 channels");
        compare_runs(&name, device, |precision, device| {
            let x = of(precision, [2, 18, 14, input], device);
            let weight = of(precision, [80, kernel, kernel, input], device);
            ops::conv2d(x, weight, bias(80, device), 1, (padding, padding), Products::F32)
        });
    }
    compare_runs("convolution of doubled", device, |precision, device| {
        let (x, weight) = (of(precision, [2, 9, 7, 16], device), of(precision, [8, 3, 3, 16], device));
        ops::conv2d_doubled(x, weight, bias(8, device), Products::F32)
    });
    for (side, channels, groups) in [(6, 32, 4), (40, 24, 8), (5, 20, 2)] {
        compare_runs(&format!("group norm of {channels} at {side}"), device, |precision, device| {
            let x = of(precision, [2, side, side, channels], device) * 3.0 + 20.0;
            let weight = drawn([channels], device);
            ops::group_norm(x, weight.clone(), weight, groups, 1e-5, true)
        });
    }
    compare_runs("layer norm", device, |precision, device| {
        let (x, weight) = (of(precision, [3, 17, 100], device) * 3.0 + 5.0, drawn([100], device));
        ops::layer_norm(x, weight.clone(), weight, 1e-5)
    });
    // Scores of some grow from key to key.
    for (queries, keys, width, growth) in [
        (64, 64, 32, 0.0),
        (96, 77, 64, 0.0),
        (300, 33, 64, 0.0),
        (1, 100, 128, 0.0),
        (33, 5, 8, 0.0),
        (70, 200, 64, 30.0),
        (70, 200, 96, 15.0),
    ] {
        compare_runs(
            &format!("attention {queries} to {keys}, {width}, growth {growth}"),
            device,
            |precision, device| {
                let part = |tokens| of(precision, [2, tokens, 3, width], device).swap_dims(1, 2);
                let key =
                    Tensor::<1, Int>::arange(0..keys as i64, device).float() * (growth / keys as f32) + 1.0;
                let factor = key.reshape([1, 1, keys, 1]).cast(part(1).dtype());
                let y = ops::attention(part(queries), part(keys) * factor, part(keys), Products::F32);
                // As networks take it.
                y.swap_dims(1, 2).reshape([2, queries, 3 * width])
            },
        );
    }
    compare_runs("attention of parts", device, |precision, device| {
        let x = of(precision, [4, 9, 3 * 24], device);
        ops::attention_of_parts(x, 3, drawn([4, 3, 9, 9], device), Products::F32)
    });
    for shift in [0, 2] {
        compare_runs(&format!("windows moved by {shift}"), device, |precision, device| {
            ops::windows(of(precision, [2, 8, 12, 6], device), 4, shift)
        });
        compare_runs(&format!("a picture of windows moved by {shift}"), device, |precision, device| {
            let x = of(precision, [2, 8, 12, 6], device);
            ops::from_windows(ops::windows(x, 4, shift), [2, 8, 12], 4, shift)
        });
    }
    compare_runs("attention with a bias", device, |precision, device| {
        let part = |tokens| of(precision, [2, tokens, 3, 16], device).swap_dims(1, 2);
        let bias = drawn([2, 1, 20, 20], device);
        ops::attention_biased(part(20), part(20), part(20), bias, Products::F32)
    });
    compare_runs("a step of AdamW, whatever the precision", device, |_, device| {
        let part = || drawn([1000], device);
        let moments = Moments { mean: part() * 0.1, square: part().square(), average: Some(part() * 2.0) };
        let step = AdamW {
            beta1: 0.9,
            beta2: 0.99,
            corrections: [0.3, 0.02],
            epsilon: 1e-8,
            rate: 0.1,
            weight_decay: 0.01,
            scale: 0.7,
            average_decay: Some(0.95),
        };
        let (value, Moments { mean, square, average }) = adamw(part(), moments, part().flip([0]), step);
        Tensor::cat(vec![value, mean, square, average.expect("it is kept")], 0)
    });
    compare_runs("gelu", device, |precision, device| ops::gelu(of(precision, [3, 50], device) * 5.0));
}

fn first_stages(device: &Device) {
    let picture = |device: &Device| drawn([1, 32, 32, 3], device);
    let swinir = SwinIrConfig {
        unshuffle: 2,
        embed: 16,
        depths: vec![2],
        heads: vec![2],
        window: 8,
        mlp_ratio: 2,
        upsampling_features: 8,
        nominal_grid: 16,
        global_skip: false,
    };
    compare(
        "swinir",
        device,
        |params| swinir.build(params),
        |network, device| network.forward(picture(device)),
    );
    let srvgg = SrvggConfig { features: 8, convolutions: 2, upscale: 2 };
    compare(
        "srvgg",
        device,
        |params| srvgg.build(params),
        |network, device| network.forward(picture(device)),
    );
    let rrdb = RrdbConfig { features: 8, growth: 4, blocks: 1, ..RrdbConfig::official() };
    compare("rrdb", device, |params| rrdb.build(params), |network, device| network.forward(picture(device)));
    let scunet = ScuNetConfig { features: 16, head_features: 8, blocks: 2, window: 4 };
    compare(
        "scunet",
        device,
        |params| scunet.build(params),
        |network, device| network.forward(picture(device)),
    );
}

fn autoencoders(device: &Device) {
    let kl = KlConfig { channels: 8, norm_groups: 4, ..KlConfig::official() };
    let taef2 = Taef2Config { latent_channels: 4, features: 8, branch_features: 16 };
    let picture = |device: &Device| drawn([1, 32, 32, 3], device);
    let cells = |device: &Device| drawn([1, 4, 4, 4], device);
    compare(
        "kl encode",
        device,
        |params| kl.build(params),
        |network, device| network.encode(picture(device)),
    );
    compare("kl decode", device, |params| kl.build(params), |network, device| network.decode(cells(device)));
    compare(
        "taef2 encode",
        device,
        |params| taef2.build(params),
        |network, device| network.encode(picture(device)),
    );
    compare(
        "taef2 decode",
        device,
        |params| taef2.build(params),
        |network, device| network.decode(cells(device)),
    );
}

fn denoisers(device: &Device) {
    let with_text = UnetConfig {
        model_channels: 16,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![true, false],
        head_channels: 8,
        norm_groups: 8,
        context_channels: 12,
        ..UnetConfig::official()
    };
    let without = UnetConfig { learned_context: true, ..with_text.clone() };
    for (name, config) in [("text", with_text), ("no text", without)] {
        let build = |params: &Params| {
            Ok((config.build(&params.at("a"))?, ControlNet::new(&params.at("b"), &config)?))
        };
        compare(name, device, build, |(unet, control), device| {
            let (x, hint) = (drawn([2, 8, 8, 4], device), drawn([2, 8, 8, 4], device));
            let time = drawn([2], device) * 500.0 + 500.0;
            let given = (!config.learned_context).then(|| drawn([2, 5, 12], device));
            let context = unet.context(given.clone(), 2);
            let extra = control.forward(x.clone(), hint, time.clone(), context, 0.8);
            unet.forward(x, time, given, Some(extra))
        });
    }
}

fn text_and_faces(device: &Device) {
    let clip = ClipTextConfig { vocabulary: 50, tokens: 6, width: 16, heads: 2, blocks: 3 };
    let ids = |device: &Device| Tensor::<2, Int>::from_ints([[1, 7, 30, 2, 49, 0]], device);
    compare("clip", device, |params| clip.build(params), |network, device| network.forward(ids(device)));
    let faces = ParseNetConfig { features: 8, most: 16, levels: 2, blocks: 1 };
    compare(
        "parsenet",
        device,
        |params| faces.build(params),
        |network, device| network.forward(drawn([1, 64, 64, 3], device)),
    );
}

/// The gradients of all weights, one after the other.
struct Gradients<'a> {
    of: &'a burn::tensor::Gradients,
    values: Vec<Vec<f32>>,
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, weight: &Param<Tensor<D>>) {
        let gradient = weight.val().grad(self.of).expect("every weight has a gradient");
        self.values.push(gradient.into_data().iter::<f32>().collect());
    }
}

/// The gradients of all weights of a network under a loss, on `device` without the processor's kernels against these.
fn compare_gradients<N: Module, const D: usize>(
    name: &str,
    device: &Device,
    network: impl Fn(&Params) -> Result<N, WeightError>,
    run: impl Fn(&N, &Device) -> Tensor<D>,
) {
    let of = |device: &Device| {
        let device = device.clone().autodiff();
        let (network, _) =
            build_to_train(Products::F32, &mut Drawn, &device, &network).expect("every tensor is drawn");
        let y = run(&network, &device);
        // Another factor for each value, so that none of them is like another.
        let gradients = (y.clone() * drawn(y.dims(), &device) + y.square() * 0.5).mean().backward();
        let mut found = Gradients { of: &gradients, values: Vec::new() };
        network.visit(&mut found);
        found.values
    };
    let expected = of(&Device::flex());
    let values = ops::without_kernels(|| of(device));
    assert_eq!(values.len(), expected.len(), "{name}");
    let most = |values: &[f32]| values.iter().fold(0f32, |most, value| most.max(value.abs()));
    // A key's bias shifts all scores alike: its gradient is nothing but rounding.
    let floor = 1e-2 * expected.iter().map(|values| most(values)).fold(0f32, f32::max);
    let mut worst = 0f32;
    for (index, (values, expected)) in values.iter().zip(&expected).enumerate() {
        let off = values.iter().zip(expected).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
        let off = off / most(expected).max(floor);
        assert!(off <= 1e-3, "{name}: the gradient of weight {index} is off by {off} of its largest value");
        worst = worst.max(off);
    }
    println!("{name}: gradients off by at most {worst:.1e} of the largest value of their weight");
}

fn training(device: &Device) {
    let swinir = SwinIrConfig {
        unshuffle: 2,
        embed: 16,
        depths: vec![2],
        heads: vec![2],
        window: 8,
        mlp_ratio: 2,
        upsampling_features: 8,
        nominal_grid: 16,
        global_skip: false,
    };
    let picture = |device: &Device| drawn([2, 32, 32, 3], device);
    compare_gradients(
        "training swinir",
        device,
        |params| swinir.build(params),
        |network, device| network.forward(picture(device)),
    );
    let srvgg = SrvggConfig { features: 8, convolutions: 2, upscale: 2 };
    compare_gradients(
        "training srvgg",
        device,
        |params| srvgg.build(params),
        |network, device| network.forward(picture(device)),
    );
    let kl = KlConfig { channels: 8, norm_groups: 4, ..KlConfig::official() };
    compare_gradients(
        "training kl",
        device,
        |params| kl.build(params),
        |network, device| {
            let mean = network.moments(picture(device)).slice_dim(3, 0..kl.latent_channels);
            network.decode(mean)
        },
    );
    let unet = UnetConfig {
        model_channels: 16,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![true, false],
        head_channels: 8,
        norm_groups: 8,
        context_channels: 12,
        ..UnetConfig::official()
    };
    compare_gradients(
        "training unet and control",
        device,
        |params| Ok((unet.build(&params.at("a"))?, ControlNet::new(&params.at("b"), &unet)?)),
        |(network, control), device| {
            let (x, hint) = (drawn([2, 8, 8, 4], device), drawn([2, 8, 8, 4], device));
            let time = drawn([2], device) * 500.0 + 500.0;
            let context = drawn([2, 5, 12], device);
            let extra = control.forward(x.clone(), hint, time.clone(), context.clone(), 0.8);
            network.forward(x, time, Some(context), Some(extra))
        },
    );
}
