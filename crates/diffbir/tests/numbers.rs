//! All networks, small, on burn's operations in f32 and in half floats: they go through, and give what our kernels
//! give. On the processor always; on a graphics card, Vulkan or Metal, by
//!
//! `cargo test --release --workspace --features gpu --test numbers -- --ignored --nocapture on_a_graphics_card`
//!
//! and on a Vulkan driver that computes on the processor, such as the one that Debian's Chromium brings along, by
//!
//! `VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json cargo test --release --workspace --features gpu --test numbers -- --ignored --nocapture on_vulkan_in_software`

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
use diffbir_nn::params::{Init, RandomInit, Source, build_in};
use diffbir_nn::{Params, Precision, WeightError, ops};

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

/// `run` on `device` without our kernels, in f32 and in f16, against our kernels in f32: largest differences over the
/// largest value.
fn compare<N, const D: usize>(
    name: &str,
    device: &Device,
    network: impl Fn(&Params) -> Result<N, WeightError>,
    run: impl Fn(&N, &Device) -> Tensor<D>,
) {
    let of = |precision, device: &Device| {
        let network = build_in(precision, &mut Drawn, device, &network);
        let data = run(&network.expect("every tensor is drawn"), device).into_data();
        data.iter::<f32>().collect::<Vec<_>>()
    };
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
        assert!(off <= tolerance * largest, "{name} in {precision:?}: off by {off} of {largest}");
        assert!(values.iter().all(|value| value.is_finite()), "{name} in {precision:?}: not finite");
    }
}

#[test]
fn on_the_processor() {
    all(&Device::flex());
}

#[test]
#[ignore = "needs a graphics card, and a build with --features gpu"]
fn on_a_graphics_card() {
    let choice = if cfg!(target_os = "macos") { DeviceChoice::Metal(0) } else { DeviceChoice::Vulkan(0) };
    all(&choice.open().expect("a graphics card").device);
}

#[test]
#[cfg(feature = "cuda")]
#[ignore = "needs an NVIDIA card"]
fn on_cuda() {
    let opened = DeviceChoice::Cuda(0).open().expect("a device");
    assert!(opened.name.starts_with("cuda"), "CUDA does not start");
    all(&opened.device);
}

#[test]
#[cfg(feature = "gpu")]
#[ignore = "needs a Vulkan driver that computes on the processor"]
fn on_vulkan_in_software() {
    all(&Device::vulkan(burn::tensor::DeviceKind::Cpu));
}

fn all(device: &Device) {
    first_stages(device);
    autoencoders(device);
    denoisers(device);
    text_and_faces(device);
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
