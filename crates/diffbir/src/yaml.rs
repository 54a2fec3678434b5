//! The reference's configuration files: what its YAML says of the networks (reference 4.3, 5).

use crate::config::{AutoencoderConfig, ModelConfig, SamplingDefaults, Stage2Config};
use crate::geometry::Geometry;
use diffbir_diffusion::{Prediction, Terminal};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::sizes::Checked;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use serde::Deserialize;
use std::path::PathBuf;

/// Channels of one head of the text encoder.
const TEXT_HEAD_CHANNELS: usize = 64;

/// A training configuration: the model, and where the weights of its frozen parts lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The model.
    pub config: ModelConfig,
    /// Stable Diffusion, as the file names it.
    pub base: PathBuf,
    /// Stage 1, as the file names it.
    pub stage1: PathBuf,
}

/// What v1's `configs/model/cldm.yaml` describes, sampled as `sampling` says.
///
/// # Errors
/// What is missing or wrong, in words.
pub fn v1_model(text: &str, sampling: SamplingDefaults) -> Result<ModelConfig, String> {
    let Target { params } = read::<Target<V1>>(text)?;
    let stage2 = Stage2Config {
        autoencoder: params.first_stage_config.params.ddconfig.sizes(params.scale_factor),
        text: Some(text_encoder(params.unet_config.params.context_dim)),
        unet: params.unet_config.params.sizes()?,
        prediction: Prediction::Eps,
        terminal: Terminal::Plain,
        sampling,
    };
    if params.control_stage_config.params != params.unet_config.params {
        return Err("control_stage_config differs from unet_config: the branch is a copy of the UNet".into());
    }
    checked(ModelConfig {
        name: "v1".into(),
        origin: Vec::new(),
        stage1: params.preprocess_config.params.sizes()?,
        stage2: Some(stage2),
        geometry: Geometry::Article,
    })
}

/// What a training configuration of v2 and v2.1 describes.
///
/// # Errors
/// What is missing or wrong, in words.
pub fn training(text: &str, sampling: SamplingDefaults) -> Result<Training, String> {
    let file = read::<TrainingFile>(text)?;
    let networks = file.model.cldm.params;
    let diffusion = file.model.diffusion.params;
    let text_cfg = networks.clip_cfg.text_cfg;
    let stage2 = Stage2Config {
        autoencoder: networks.vae_cfg.ddconfig.sizes(networks.latent_scale_factor),
        text: Some(ClipTextConfig {
            vocabulary: text_cfg.vocab_size,
            tokens: text_cfg.context_length,
            width: text_cfg.width,
            heads: text_cfg.heads,
            blocks: text_cfg.layers,
        }),
        unet: networks.unet_cfg.sizes()?,
        prediction: match diffusion.parameterization.as_str() {
            "eps" => Prediction::Eps,
            "v" => Prediction::V,
            other => return Err(format!("parameterization {other}: there are eps and v")),
        },
        terminal: if diffusion.zero_snr { Terminal::ZeroSnr } else { Terminal::Plain },
        sampling,
    };
    Ok(Training {
        config: checked(ModelConfig {
            name: "custom".into(),
            origin: Vec::new(),
            stage1: file.model.swinir.params.sizes()?,
            stage2: Some(stage2),
            geometry: Geometry::Reference,
        })?,
        base: file.train.sd_path.ok_or("train.sd_path is empty: it names the Stable Diffusion file")?,
        stage1: file.train.swinir_path.ok_or("train.swinir_path is empty: it names the SwinIR file")?,
    })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
}

fn checked(config: ModelConfig) -> Result<ModelConfig, String> {
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

fn text_encoder(width: usize) -> ClipTextConfig {
    let heads = (width / TEXT_HEAD_CHANNELS).max(1);
    ClipTextConfig { width, heads, ..ClipTextConfig::official() }
}

/// `params` under a `target`, as all classes are named.
#[derive(Deserialize)]
struct Target<T> {
    params: T,
}

#[derive(Deserialize)]
struct V1 {
    scale_factor: f64,
    control_stage_config: Target<UnetParams>,
    unet_config: Target<UnetParams>,
    first_stage_config: Target<VaeParams>,
    preprocess_config: Target<SwinIrParams>,
}

#[derive(Deserialize)]
struct TrainingFile {
    model: TrainingModel,
    train: TrainingPaths,
}

#[derive(Deserialize)]
struct TrainingModel {
    cldm: Target<CldmParams>,
    swinir: Target<SwinIrParams>,
    diffusion: Target<DiffusionParams>,
}

#[derive(Deserialize)]
struct TrainingPaths {
    sd_path: Option<PathBuf>,
    swinir_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct CldmParams {
    latent_scale_factor: f64,
    unet_cfg: UnetParams,
    vae_cfg: VaeParams,
    clip_cfg: ClipParams,
}

#[derive(Deserialize, PartialEq)]
struct UnetParams {
    in_channels: usize,
    model_channels: usize,
    attention_resolutions: Vec<usize>,
    num_res_blocks: usize,
    channel_mult: Vec<usize>,
    num_head_channels: usize,
    context_dim: usize,
    transformer_depth: usize,
    use_linear_in_transformer: bool,
}

impl UnetParams {
    fn sizes(&self) -> Result<UnetConfig, String> {
        if self.transformer_depth != 1 || !self.use_linear_in_transformer {
            return Err("only UNets with transformer_depth 1 and use_linear_in_transformer are known".into());
        }
        Ok(UnetConfig {
            latent_channels: self.in_channels,
            model_channels: self.model_channels,
            attention: (0..self.channel_mult.len())
                .map(|level| self.attention_resolutions.contains(&(1 << level)))
                .collect(),
            multipliers: self.channel_mult.clone(),
            blocks: self.num_res_blocks,
            head_channels: self.num_head_channels,
            context_channels: self.context_dim,
            ..UnetConfig::official()
        })
    }
}

#[derive(Deserialize)]
struct VaeParams {
    ddconfig: DdConfig,
}

#[derive(Deserialize)]
struct DdConfig {
    z_channels: usize,
    ch: usize,
    ch_mult: Vec<usize>,
    num_res_blocks: usize,
}

impl DdConfig {
    fn sizes(&self, scale: f64) -> AutoencoderConfig {
        AutoencoderConfig::Kl(KlConfig {
            channels: self.ch,
            multipliers: self.ch_mult.clone(),
            blocks: self.num_res_blocks,
            latent_channels: self.z_channels,
            scale,
            ..KlConfig::official()
        })
    }
}

#[derive(Deserialize)]
struct ClipParams {
    text_cfg: TextParams,
}

#[derive(Deserialize)]
struct TextParams {
    context_length: usize,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
}

#[derive(Deserialize)]
struct DiffusionParams {
    #[serde(default)]
    zero_snr: bool,
    #[serde(default = "eps")]
    parameterization: String,
}

fn eps() -> String {
    "eps".into()
}

#[derive(Deserialize)]
struct SwinIrParams {
    img_size: usize,
    embed_dim: usize,
    depths: Vec<usize>,
    num_heads: Vec<usize>,
    window_size: usize,
    mlp_ratio: usize,
    upsampler: String,
    unshuffle: bool,
    unshuffle_scale: usize,
}

impl SwinIrParams {
    fn sizes(&self) -> Result<Stage1Config, String> {
        if self.upsampler != "nearest+conv" || !self.unshuffle {
            return Err("only SwinIR with unshuffle and the upsampler nearest+conv is known".into());
        }
        Ok(Stage1Config::SwinIr(SwinIrConfig {
            unshuffle: self.unshuffle_scale,
            embed: self.embed_dim,
            depths: self.depths.clone(),
            heads: self.num_heads.clone(),
            window: self.window_size,
            mlp_ratio: self.mlp_ratio,
            nominal_grid: self.img_size,
            ..SwinIrConfig::official()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNET: &str = "{in_channels: 4, model_channels: 320, attention_resolutions: [4, 2, 1], num_res_blocks: 2, \
        channel_mult: [1, 2, 4, 4], num_head_channels: 64, use_linear_in_transformer: true, transformer_depth: 1, \
        context_dim: 1024, legacy: false}";
    const VAE: &str =
        "{embed_dim: 4, ddconfig: {z_channels: 4, ch: 128, ch_mult: [1, 2, 4, 4], num_res_blocks: 2}}";
    const SWINIR: &str = "{img_size: 64, embed_dim: 180, depths: [6, 6, 6, 6, 6, 6, 6, 6], \
        num_heads: [6, 6, 6, 6, 6, 6, 6, 6], window_size: 8, mlp_ratio: 2, upsampler: nearest+conv, \
        unshuffle: true, unshuffle_scale: 8}";

    #[test]
    fn the_official_sizes_are_read_as_the_official_networks() {
        let text = format!(
            "params:\n  scale_factor: 0.18215\n  control_stage_config: {{params: {UNET}}}\n  unet_config: \
             {{params: {UNET}}}\n  first_stage_config: {{params: {VAE}}}\n  preprocess_config: {{params: {SWINIR}}}"
        );
        let model = v1_model(&text, SamplingDefaults::default()).unwrap();
        let stage2 = model.stage2.unwrap();
        assert_eq!(model.stage1, Stage1Config::SwinIr(SwinIrConfig::official()));
        assert_eq!(stage2.unet, UnetConfig::official());
        assert_eq!(stage2.autoencoder, AutoencoderConfig::Kl(KlConfig::official()));
        assert_eq!(stage2.text, Some(ClipTextConfig::official()));
        let other = text.replacen("model_channels: 320", "model_channels: 64", 1);
        assert!(v1_model(&other, SamplingDefaults::default()).unwrap_err().contains("differs"));
        let odd = text.replacen("embed_dim: 180", "embed_dim: 100", 1);
        let told = v1_model(&odd, SamplingDefaults::default()).unwrap_err();
        assert_eq!(told, "stage1.embed: it is 100, but must be a multiple of 6, the heads of a group");
        assert!(v1_model("params: {}", SamplingDefaults::default()).unwrap_err().contains("scale_factor"));
    }

    #[test]
    fn a_training_file_says_where_its_weights_lie() {
        let text = format!(
            "model:\n  cldm: {{params: {{latent_scale_factor: 0.18215, unet_cfg: {UNET}, vae_cfg: {VAE}, clip_cfg: \
             {{text_cfg: {{context_length: 77, vocab_size: 49408, width: 1024, heads: 16, layers: 24}}}}}}}}\n  \
             swinir: {{params: {SWINIR}}}\n  diffusion: {{params: {{timesteps: 1000, zero_snr: true, \
             parameterization: v}}}}\ntrain:\n  sd_path: sd.ckpt\n  swinir_path: "
        );
        let missing = training(&text, SamplingDefaults::default()).unwrap_err();
        assert!(missing.contains("swinir_path"), "{missing}");
        let read = training(&format!("{text}s.pth"), SamplingDefaults::default()).unwrap();
        assert_eq!((read.base, read.stage1), (PathBuf::from("sd.ckpt"), PathBuf::from("s.pth")));
        let stage2 = read.config.stage2.unwrap();
        assert_eq!((stage2.prediction, stage2.terminal), (Prediction::V, Terminal::ZeroSnr));
        assert_eq!(stage2.text, Some(ClipTextConfig::official()));
    }
}
