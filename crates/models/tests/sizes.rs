//! Whatever number stands in a network's configuration: it is refused by the name of its field, or there is a network
//! that works.

use burn::tensor::{Int, Tensor};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::sizes::Checked;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::params::{RandomInit, build};
use diffbir_nn::{Device, Params, WeightError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Numbers that are tried in every place.
const TRIED: [u64; 7] = [0, 1, 7, 33, 1_000_000, 1_000_000_000, u64::MAX];

fn made<N>(network: impl FnOnce(&Params) -> Result<N, WeightError>) -> N {
    build(&mut RandomInit { seed: 1 }, &Device::flex(), network).unwrap().0
}

fn ones(shape: [usize; 4]) -> Tensor<4> {
    Tensor::ones(shape, &Device::flex())
}

/// Tries every number of a configuration, and lists of other lengths. `works` builds the network and runs it.
fn each_number<C: Checked + Serialize + DeserializeOwned>(start: &C, works: impl Fn(&C)) {
    start.check().unwrap();
    works(start);
    let start = serde_json::to_value(start).unwrap();
    for (field, value) in start.as_object().unwrap() {
        let mut others: Vec<Value> = Vec::new();
        match value {
            Value::Number(_) => others.extend(TRIED.map(Value::from)),
            Value::Array(values) => {
                others.extend([json!([]), Value::from([&values[..], &values[..1]].concat())]);
                others.push(Value::from(vec![values[0].clone(); 300]));
                for number in TRIED.iter().filter(|_| values[0].is_number()) {
                    let mut list = values.clone();
                    *list.last_mut().unwrap() = (*number).into();
                    others.push(list.into());
                }
            }
            _ => {}
        }
        for other in others {
            let mut changed = start.clone();
            changed[field] = other;
            // What is no number of this kind is refused as it is read.
            let Ok(config) = serde_json::from_value::<C>(changed.clone()) else { continue };
            match config.check() {
                Err(error) => assert!(error.to_string().contains(field.as_str()), "{changed}: {error}"),
                Ok(()) => works(&config),
            }
        }
    }
}

fn restores(config: Stage1Config) {
    config.check().unwrap();
    let side_px = config.side_px().unwrap_or(config.multiple_px().max(8));
    let network = made(|params| config.build(params));
    let enlarged = side_px * config.upscale();
    assert_eq!(network.forward(ones([1, side_px, side_px, 3])).dims(), [1, enlarged, enlarged, 3]);
}

#[test]
fn first_stages() {
    let swinir = SwinIrConfig {
        unshuffle: 2,
        embed: 12,
        depths: vec![1, 2],
        heads: vec![2, 3],
        window: 4,
        mlp_ratio: 2,
        upsampling_features: 4,
        nominal_grid: 8,
        global_skip: true,
    };
    each_number(&swinir, |config| restores(Stage1Config::SwinIr(config.clone())));
    let srvgg = SrvggConfig { features: 4, convolutions: 1, upscale: 2 };
    each_number(&srvgg, |config| restores(Stage1Config::Srvgg(config.clone())));
    let rrdb = RrdbConfig { features: 4, growth: 2, blocks: 1, ..RrdbConfig::official() };
    each_number(&rrdb, |config| restores(Stage1Config::Rrdb(config.clone())));
    let scunet = ScuNetConfig { features: 8, head_features: 2, blocks: 2, window: 2 };
    each_number(&scunet, |config| restores(Stage1Config::ScuNet(config.clone())));
    let gfpgan = GfpganConfig { side_px: 16, features: 8, style: 4, mapping: 1 };
    each_number(&gfpgan, |config| restores(Stage1Config::Gfpgan(config.clone())));
}

#[test]
fn autoencoders() {
    let returns = |network: &dyn Autoencoder, latent: usize| {
        let side = 2 * network.downsampling();
        let cells = network.encode(ones([1, side, side, 3]));
        assert_eq!(cells.dims(), [1, 2, 2, latent]);
        assert_eq!(network.decode(cells).dims(), [1, side, side, 3]);
    };
    let kl = KlConfig { channels: 8, multipliers: vec![1, 2], norm_groups: 4, ..KlConfig::official() };
    each_number(&kl, |config| returns(&made(|params| config.build(params)), config.latent_channels));
    let taef2 = Taef2Config { latent_channels: 4, features: 8, branch_features: 16 };
    each_number(&taef2, |config| returns(&made(|params| config.build(params)), config.latent_channels));
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = KlConfig { scale, ..kl.clone() }.check().unwrap_err();
        assert_eq!(error.field, "scale");
    }
}

#[test]
fn denoisers_and_text_encoders() {
    let unet = UnetConfig {
        latent_channels: 2,
        model_channels: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![true, false],
        head_channels: 4,
        norm_groups: 4,
        context_channels: 6,
        learned_context: true,
    };
    each_number(&unet, |config| {
        let (unet, control) =
            made(|params| Ok((config.build(&params.at("a"))?, ControlNet::new(&params.at("b"), config)?)));
        let shape = [1, config.multiple(), config.multiple(), config.latent_channels];
        let time = Tensor::<1>::from_floats([500.0], &Device::flex());
        let added = control.forward(ones(shape), ones(shape), time.clone(), unet.context(None, 1), 1.0);
        assert_eq!(unet.forward(ones(shape), time, None, Some(added)).dims(), shape);
    });
    let clip = ClipTextConfig { width: 6, heads: 3, blocks: 2, ..ClipTextConfig::official() };
    each_number(&clip, |config| {
        let ids = Tensor::<2, Int>::full([1, diffbir_text::CONTEXT], 49407, &Device::flex());
        let network = made(|params| config.build(params));
        assert_eq!(network.forward(ids).dims(), [1, diffbir_text::CONTEXT, config.width]);
    });
}

/// Each number by itself could be, but not all of them together.
#[test]
fn what_no_memory_holds_is_refused() {
    let error = SrvggConfig { features: 16384, convolutions: 256, upscale: 4 }.check().unwrap_err();
    assert!(error.to_string().starts_with("features: the network would have 61"), "{error}");
    let error = UnetConfig { model_channels: 16384, ..UnetConfig::nano() }.check().unwrap_err();
    assert!(error.to_string().contains("make it narrower"), "{error}");
    for config in [UnetConfig::official(), UnetConfig::nano()] {
        config.check().unwrap();
    }
    KlConfig::official().check().unwrap();
    ClipTextConfig::official().check().unwrap();
    Taef2Config::published().check().unwrap();
    for config in [
        Stage1Config::SwinIr(SwinIrConfig::official()),
        Stage1Config::Srvgg(SrvggConfig::general_x4v3()),
        Stage1Config::Rrdb(RrdbConfig::official()),
        Stage1Config::ScuNet(ScuNetConfig::official()),
        Stage1Config::Gfpgan(GfpganConfig::official()),
    ] {
        config.check().unwrap();
    }
}
