//! The networks against the reference's own results at reduced widths (goldens made by `goldens/make.py`,
//! which names the commit), and the names and shapes of official checkpoints.
//!
//! Weights and inputs follow from their names by a formula that both sides evaluate.

#![allow(clippy::excessive_precision, reason = "known values stand as they are published")]

use burn::tensor::{Device, Tensor, TensorData};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::{Control, Unet, UnetConfig};
use diffbir_nn::params::{Init, Keys, Source, build, keys_of};
use diffbir_nn::{Params, WeightError};
use safetensors::SafeTensors;

/// Uniform values in [-1, 1) from FNV-1a of the name and SplitMix64 of the index.
fn filler(key: &str, count: usize) -> Vec<f32> {
    let hash = fnv(&format!("0:{key}"));
    (0..count as u64)
        .map(|i| {
            let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            ((z >> 40) as f64 * 2f64.powi(-23) - 1.0) as f32
        })
        .collect()
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

struct Formula;

impl Source for Formula {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        const SMALL: [&str; 6] = ["out_layers.3", "to_out.0", "ff.net.2", "proj_out", "conv2", "mlp.fc2"];
        let name = key.rsplit_once('.').map_or(key, |(name, _)| name);
        let u = filler(key, shape.iter().product());
        // Only norms start at constants 1 and, beside such a weight, 0.
        let norm = shape.len() == 1 && matches!(init, Init::Constant(_)) && !is_zeroed_bias(key);
        let scale = |factor: f32, offset: f32| u.iter().map(|u| offset + factor * u).collect();
        Ok(if key.ends_with("relative_position_bias_table") {
            scale(0.5, 0.0)
        } else if norm && key.ends_with(".weight") {
            scale(0.2, 1.0)
        } else if norm {
            scale(0.1, 0.0)
        } else if key.ends_with(".bias") {
            scale(0.05, 0.0)
        } else {
            let mut gain = if SMALL.iter().any(|small| name.ends_with(small)) { 0.3 } else { 1.0 };
            if key.contains("zero_convs") || key.contains("middle_block_out") {
                gain = 0.5;
            }
            let fan_in: usize = shape[1..].iter().product();
            scale(((3.0 / fan_in as f64).sqrt() * gain) as f32, 0.0)
        })
    }
}

/// Biases of convolutions that start at zero, which are no norms.
fn is_zeroed_bias(key: &str) -> bool {
    ["out_layers.3.bias", "out.2.bias"].iter().any(|end| key.ends_with(end))
        || key.contains("zero_convs")
        || key.contains("middle_block_out")
}

/// An input `[b, c, h, w]` by the formula, as `[b, h, w, c]`, every value through `f`.
fn given(key: &str, shape: [usize; 4], f: impl Fn(f32) -> f32) -> Tensor<4> {
    let values: Vec<f32> = filler(&format!("in/{key}"), shape.iter().product()).into_iter().map(f).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex()).permute([0, 2, 3, 1])
}

fn root3(u: f32) -> f32 {
    u * 3f32.sqrt()
}

fn picture(u: f32) -> f32 {
    (u + 1.0) / 2.0
}

fn made<N>(network: impl FnOnce(&Params) -> Result<N, WeightError>) -> N {
    build(&mut Formula, &Device::flex(), network).expect("the formula knows every tensor").0
}

struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        let path = format!("{}/tests/goldens/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self(std::fs::read(path).expect("goldens are in the repository"))
    }

    /// Compares `[b, h, w, c]` with a golden `[b, c, h, w]`: the largest error over the largest value.
    fn check(&self, name: &str, got: Tensor<4>, tolerance: f32) {
        let file = SafeTensors::deserialize(&self.0).expect("a whole file");
        let golden = file.tensor(name).expect("a known name");
        let known: Vec<f32> =
            golden.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let got = got.permute([0, 3, 1, 2]);
        assert_eq!(golden.shape(), got.dims(), "{name}");
        let got: Vec<f32> = got.into_data().iter::<f32>().collect();
        let largest = known.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = got.iter().zip(&known).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
        println!("{name}: {error:.2e}");
        assert!(error < tolerance, "{name}: error {error:e} of the largest value");
    }

    /// Names and shapes at official size against the reference's.
    fn check_keys(&self, name: &str, keys: &Keys) {
        let mut lines: Vec<String> = keys
            .entries()
            .iter()
            .map(|entry| {
                let shape: Vec<String> = entry.shape.iter().map(ToString::to_string).collect();
                format!("{} {}", entry.key, shape.join("x"))
            })
            .collect();
        lines.sort();
        let (_, header) = SafeTensors::read_metadata(&self.0).expect("a whole file");
        let known = &header.metadata().as_ref().expect("metadata")[&format!("official_{name}")];
        assert_eq!(&format!("{} {:016x}", lines.len(), fnv(&lines.join("\n"))), known, "{name}");
    }
}

#[test]
fn the_formula_gives_its_known_values() {
    let known = [-0.156_609_77, -0.241_501_81, -0.472_544_2, -0.785_495_16];
    assert_eq!(filler("out.2.bias", 4), known);
}

#[test]
fn swinir_is_the_references() {
    let golden = Golden::open("swinir");
    golden.check_keys("swinir", &keys_of(|params| SwinIrConfig::official().build(params)).unwrap());
    let network = made(|params| SwinIrConfig { embed: 12, ..SwinIrConfig::official() }.build(params));
    for (height, width) in [(64, 64), (128, 192)] {
        let x = given(&format!("swinir_{height}x{width}"), [1, 3, height, width], picture);
        golden.check(&format!("out_{height}x{width}"), network.forward(x), 2e-5);
    }
}

#[test]
fn the_autoencoder_is_the_references_whole_and_in_tiles() {
    let golden = Golden::open("vae");
    golden.check_keys("vae", &keys_of(|params| KlConfig::official().build(params)).unwrap());
    let config = KlConfig { channels: 32, scale: 1.0, ..KlConfig::official() };
    let network = made(|params| config.build(params));
    let moments = network.moments(given("vae", [1, 3, 64, 48], picture));
    golden.check("mean", moments.clone().slice_dim(3, 0..4), 2e-5);
    golden.check("logvar", moments.slice_dim(3, 4..8).clamp(-30.0, 20.0), 2e-5);
    let decoded = network.decode(given("vae_latent", [1, 4, 8, 6], root3));
    golden.check("decoded", decoded * 2.0 - 1.0, 2e-5);

    let tile = |x: &Tensor<4>, window: diffbir_imaging::tiles::Window| {
        x.clone().slice_dim(1, window.y0..window.y1).slice_dim(2, window.x0..window.x1)
    };
    let join = |x: Tensor<4>, tiles: Vec<diffbir_imaging::tiles::VaeTile>, decode: bool| {
        let [_, height, width, _] = x.dims();
        let scale = |cells: usize| if decode { cells * 8 } else { cells / 8 };
        let channels = if decode { 3 } else { 4 };
        let mut whole = Tensor::<4>::zeros([1, scale(height), scale(width), channels], &Device::flex());
        let inputs = tiles.iter().map(|t| tile(&x, t.input)).collect();
        let mut put = |index: usize, result: Tensor<4>| {
            let (input, output) = (tiles[index].input.map(scale), tiles[index].output.map(scale));
            let kept = result
                .slice_dim(1, output.y0 - input.y0..output.y1 - input.y0)
                .slice_dim(2, output.x0 - input.x0..output.x1 - input.x0);
            whole = whole
                .clone()
                .slice_assign([0..1, output.y0..output.y1, output.x0..output.x1, 0..channels], kept);
        };
        if decode {
            network.decode_tiles(inputs, &mut put)
        } else {
            network.encode_tiles(inputs, &mut put)
        }
        whole
    };
    let every = |x: Tensor<4>, step: usize| {
        let [_, height, width, _] = x.dims();
        let pick = |n: usize| {
            let index: Vec<i64> = (0..n as i64).step_by(step).collect();
            Tensor::<1, burn::tensor::Int>::from_data(
                TensorData::new(index.clone(), [index.len()]),
                &Device::flex(),
            )
        };
        x.select(1, pick(height)).select(2, pick(width))
    };
    let tiles = diffbir_imaging::tiles::vae_tiles(192, 256, 64, 32);
    assert!(tiles.len() > 1);
    let moments = join(given("vae_big", [1, 3, 192, 256], picture), tiles, false);
    golden.check("tiled_mean", every(moments, 2), 1e-4);
    let tiles = diffbir_imaging::tiles::vae_tiles(40, 56, 16, 11);
    assert!(tiles.len() > 1);
    let decoded = join(given("vae_big_latent", [1, 4, 40, 56], root3), tiles, true);
    golden.check("tiled_decoded", every(decoded * 2.0 - 1.0, 7), 1e-4);
}

#[test]
fn unet_and_control_branch_are_the_references() {
    let golden = Golden::open("unet_control");
    golden.check_keys("unet", &keys_of(|params| UnetConfig::official().build(params)).unwrap());
    let official = keys_of(|params| ControlNet::new(params, &UnetConfig::official())).unwrap();
    golden.check_keys("controlnet", &official);

    let config =
        UnetConfig { model_channels: 32, context_channels: 32, head_channels: 8, ..UnetConfig::official() };
    let unet: Unet = made(|params| config.build(params));
    let control: ControlNet = made(|params| ControlNet::new(params, &config));
    let x = given("x", [1, 4, 16, 16], root3);
    let hint = given("c_img", [1, 4, 16, 16], root3);
    let context: Vec<f32> = filler("in/context", 77 * 32).into_iter().map(root3).collect();
    let context = Tensor::<3>::from_data(TensorData::new(context, [1, 77, 32]), &Device::flex());
    for (name, t) in [("0", 0.0), ("499", 499.0), ("999", 999.0), ("123.4", 123.4f32)] {
        let time = || Tensor::<1>::from_floats([t], &Device::flex());
        let plain = unet.forward(x.clone(), time(), Some(context.clone()), None);
        golden.check(&format!("unet_{name}"), plain, 1e-4);
        let Control(extra) = control.forward(x.clone(), hint.clone(), time(), context.clone(), 1.0);
        assert_eq!(extra.len(), 13);
        if name == "499" {
            for index in [0, 4, 11, 12] {
                golden.check(&format!("control_{index}"), extra[index].clone(), 1e-4);
            }
        }
        let extra = Control(extra.into_iter().map(|extra| extra * 0.3).collect());
        let both = unet.forward(x.clone(), time(), Some(context.clone()), Some(extra));
        golden.check(&format!("both_{name}"), both, 1e-4);
    }
}
