//! The goldens' networks, photographs and command lines, for the library.
#![allow(dead_code, reason = "no test file needs all of it")]

use super::support::{filler, weights};
use diffbir::catalog::{self, Task};
use diffbir::config::AutoencoderConfig;
use diffbir::model::{Loading, Parts};
use diffbir::restore::ColourFix;
use diffbir::tiling::{Cut, Joining, Sliding, Tiling};
use diffbir::{Model, ModelConfig, Options};
use diffbir_diffusion::restoration::{Loss, Space};
use diffbir_diffusion::{Parameters, Restoration, StartPoint};
use diffbir_imaging::{Encoded, Format, Metadata, Photo, Raster, Samples, decode_bytes};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::{Device, Precision};
use std::collections::HashMap;

/// The official model with networks of the goldens' sizes.
pub fn reduced(mut config: ModelConfig) -> ModelConfig {
    config.stage1 = match config.stage1 {
        Stage1Config::SwinIr(official) => Stage1Config::SwinIr(SwinIrConfig { embed: 12, ..official }),
        Stage1Config::Rrdb(official) => Stage1Config::Rrdb(RrdbConfig { features: 8, growth: 4, ..official }),
        Stage1Config::ScuNet(official) => {
            Stage1Config::ScuNet(ScuNetConfig { features: 16, head_features: 8, blocks: 2, ..official })
        }
        other => other,
    };
    let stage2 = config.stage2.as_mut().expect("official models have both stages");
    stage2.autoencoder = AutoencoderConfig::Kl(KlConfig { channels: 32, ..KlConfig::official() });
    stage2.unet =
        UnetConfig { model_channels: 32, context_channels: 32, head_channels: 32, ..UnetConfig::official() };
    stage2.text = Some(ClipTextConfig { width: 32, heads: 4, ..ClipTextConfig::official() });
    config
}

pub fn model(config: ModelConfig, precision: Precision) -> Model {
    let stage2 = config.stage2.clone().expect("official models have both stages");
    let AutoencoderConfig::Kl(autoencoder) = stage2.autoencoder else { unreachable!("official models") };
    let parts = Parts {
        stage1: weights(0, |params| config.stage1.build(params)),
        autoencoder: weights(0, |params| autoencoder.build(params)),
        unet: weights(0, |params| stage2.unet.build(params)),
        control: weights(1, |params| ControlNet::new(params, &stage2.unet)),
        text: weights(0, |params| stage2.text.as_ref().expect("set").build(params)),
    };
    Model::assemble(config, parts, Loading { precision, ..Loading::on(&Device::flex()) })
        .expect("all names are right")
}

/// The photograph of a case, by the formula.
pub fn photo(height: usize, width: usize) -> Photo {
    let values = filler(0, &format!("in/photo_{height}x{width}"), height * width * 3);
    let samples = values.iter().map(|u| ((f64::from(*u) + 1.0) * 128.0) as u8).collect();
    let encoded = Encoded {
        width_px: width,
        height_px: height,
        channels: 3,
        samples: &Samples::U8(samples),
        alpha: None,
        metadata: &Metadata::default(),
    };
    decode_bytes(&encoded.to_bytes(Format::Png, None).expect("a picture"), "photo").expect("a picture")
}

/// What a command line of the reference asks for, where it is not the default.
pub struct Command(HashMap<String, String>);

impl Command {
    pub fn new(line: &str) -> Self {
        let mut flags = HashMap::new();
        if !line.starts_with("--") {
            // The inputs of the article's demo, which always samples so.
            flags.insert("sampler".into(), "spaced".into());
            for (name, value) in line.split('\x1f').filter_map(|input| input.split_once('=')) {
                let name = match name {
                    "sr_scale" => "upscale",
                    "positive_prompt" => "pos_prompt",
                    "negative_prompt" => "neg_prompt",
                    "num_samples" => "n_samples",
                    other => other,
                };
                flags.insert(name.into(), value.into());
            }
            return Self(flags);
        }
        let mut words = line.split('\x1f').peekable();
        while let Some(flag) = words.next() {
            let value = words.next_if(|word| !word.starts_with("--")).unwrap_or_default();
            flags.insert(flag.trim_start_matches("--").to_string(), value.to_string());
        }
        Self(flags)
    }

    pub fn get<T: std::str::FromStr>(&self, flag: &str, default: T) -> T {
        match self.0.get(flag) {
            Some(value) => value.parse().ok().unwrap_or_else(|| panic!("--{flag} {value}")),
            None => default,
        }
    }

    pub fn has(&self, flag: &str) -> bool {
        self.0.contains_key(flag)
    }

    fn sliding(&self, part: &str) -> Cut<Sliding> {
        let tile_px = self.get(&format!("{part}_tile_size"), 512);
        let stride_px = self.get(&format!("{part}_tile_stride"), 256);
        if self.has(&format!("{part}_tiled")) {
            Cut::Tiles(Sliding { tile_px, stride_px })
        } else {
            Cut::Whole
        }
    }

    fn square(&self, part: &str) -> Cut<usize> {
        let tile_px = self.get(&format!("{part}_tile_size"), 256);
        if self.has(&format!("{part}_tiled")) { Cut::Tiles(tile_px) } else { Cut::Whole }
    }

    pub fn task(&self) -> Task {
        match self.get("task", "sr".to_string()).as_str() {
            "sr" => Task::Sr,
            "denoise" => Task::Denoise,
            "face" => Task::Face,
            // Of the background.
            "unaligned_face" => Task::Sr,
            other => panic!("--task {other}"),
        }
    }

    pub fn options(&self) -> Options {
        Options {
            upscale: self.get("upscale", 4.0),
            regions: None,
            image_size_px: None,
            keep_size: true,
            stage1: self.get("disable_preprocess_model", "False".to_string()) == "False",
            tiling: Tiling {
                cleaner: self.sliding("cleaner"),
                encoder: self.square("vae_encoder"),
                decoder: self.square("vae_decoder"),
                joining: Joining::Pooled,
                denoiser: match self.get("tiled", "False".to_string()).as_str() {
                    "True" => Cut::Tiles(Sliding {
                        tile_px: self.get("tile_size", 512),
                        stride_px: self.get("tile_stride", 256),
                    }),
                    _ => self.sliding("cldm"),
                },
            },
            sampler: self.get("sampler", diffbir_diffusion::Sampler::DEFAULT),
            parameters: Parameters::default(),
            start: self.get("start_point_type", StartPoint::Noise),
            fidelity: 0.0,
            better_start: false,
            steps: self.get("steps", 10),
            cfg_scale: self.get("cfg_scale", 6.0),
            guidance_apart: false,
            rescale_cfg: self.has("rescale_cfg"),
            prompt: self.get("pos_prompt", catalog::PROMPT_V21.to_string()),
            negative_prompt: self.get("neg_prompt", catalog::NEGATIVE_V21.to_string()),
            strength: self.get("strength", 1.0),
            noise_aug: self.get("noise_aug", 0),
            restoration: self.has("guidance").then(|| Restoration {
                loss: match self.get("g_loss", "w_mse".to_string()).as_str() {
                    "mse" => Loss::Mse,
                    _ => Loss::WeightedMse,
                },
                space: match self.get("g_space", "latent".to_string()).as_str() {
                    "rgb" => Space::Rgb,
                    _ => Space::Latent,
                },
                scale: self.get("g_scale", 0.0),
                start: self.get("g_start", 1001),
                stop: self.get("g_stop", -1),
                repeat: self.get("g_repeat", 1),
            }),
            colour_fix: match self.get("use_color_fix", "True".to_string()).as_str() {
                "True" => ColourFix::Wavelet,
                _ => ColourFix::None,
            },
        }
    }
}

/// `[h, w, c]` to `[c, h, w]`.
pub fn planes(picture: &Raster) -> Vec<f32> {
    (0..picture.channels)
        .flat_map(|c| picture.data.iter().skip(c).step_by(picture.channels))
        .copied()
        .collect()
}
