//! The sections of configurations, what they are where nothing is said, and what they cannot be.

use super::ConfigError;
use super::network::{AutoencoderSizes, Network};
use crate::data::{Augment, Crop, OpenConfig};
use crate::degrade::{PRESETS, Recipe, preset};
use crate::stage1::training_ranges;
use diffbir_diffusion::schedule::{Prediction, Terminal};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::Products;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What every run has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Folder of the run; one that finds its own checkpoints there goes on from the last.
    pub output: PathBuf,
    /// Steps of the whole run.
    pub steps: u64,
    /// Examples a backward pass.
    pub batch: usize,
    /// Backward passes a step; their gradients are averaged.
    pub accumulate: u64,
    /// Numbers that convolutions, linear maps and attentions multiply in; all else is in 32 bits.
    pub precision: Precision,
    /// Compute the insides of SwinIR's groups, the UNet's and AutoencoderKL's blocks twice instead of keeping them for the way back.
    pub recompute: bool,
    /// From which examples and first weights follow.
    pub seed: u64,
    /// Steps between reports.
    pub log_every: u64,
    /// Steps between checkpoints, each with a validation.
    pub checkpoint_every: u64,
    /// The last checkpoints that are kept.
    pub keep: usize,
    /// Weights to start from instead of random ones: a file, the folder of a run, or [`super::BUILT_IN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
}

/// Numbers that a step multiplies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the range of 32, on the CPU; sums are in 32 bits.
    Bf16,
}

impl Precision {
    /// In which numbers networks multiply then.
    pub fn products(self) -> Products {
        match self {
            Self::F32 => Products::F32,
            Self::Bf16 => Products::Bf16,
        }
    }
}

/// AdamW and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Highest learning rate.
    pub rate: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay, on every parameter.
    pub weight_decay: f64,
    /// Largest norm over all gradients together; larger ones are scaled down. `inf` for none.
    pub clip_norm: f64,
    /// Decay of the averaged weights, which are what a run is for; 0 for no average.
    pub ema_decay: f64,
}

/// The learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// After the warm-up.
    pub shape: Shape,
    /// Steps in which the rate rises from zero.
    pub warm_up: u64,
}

/// How the learning rate goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// As it is.
    Constant,
    /// Half a cosine down to zero at the end of the run.
    Cosine,
}

/// Pictures to train on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureData {
    /// Folders, lists, shards, patterns: whatever [`crate::data::Pictures::open`] takes.
    pub folders: Vec<PathBuf>,
    /// Side of a true crop, pixels.
    pub crop_px: usize,
    /// How it is taken.
    pub crop: Crop,
    /// How it varies.
    pub augment: Augment,
}

/// How pictures are degraded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DegradationConfig {
    /// The name of a preset, a recipe in a TOML file, or `training` for wide ranges of simple degradations.
    pub recipe: String,
    /// Whether pictures of a batch share what Real-ESRGAN's training shares.
    pub by_batch: bool,
    /// Pairs in the pool that mixes batches, a multiple of the batch; 0 for none.
    pub pool: usize,
}

/// What keeps a stage 1 from leaning on single layers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regularization {
    /// Share of examples that skip SwinIR's last layer, the attention and the perceptron each by themselves; of those
    /// before it in proportion, the first is always there.
    pub stochastic_depth: f64,
}

/// Pictures to measure on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureValidation {
    /// As of the data.
    pub folders: Vec<PathBuf>,
    /// Weights of LPIPS with AlexNet, one file or two; it is not measured without.
    pub lpips_files: Vec<PathBuf>,
}

/// Terms of a loss between pictures with values 0..1, each times its weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureLoss {
    /// Sum of squares over the batch, the reference's.
    pub sse: f64,
    /// Mean over the batch of the logarithm of each picture's squared error: every picture counts alike,
    /// however hard it is, as it does in a mean of decibels.
    pub mse_log: f64,
    /// Mean absolute error.
    pub l1: f64,
    /// LPIPS, with VGG-16 or AlexNet, whichever the files are of.
    pub lpips: f64,
    /// Its weights, one file or two.
    pub lpips_files: Vec<PathBuf>,
}

/// How UNet and branch learn to give the picture in one step, judged by what the decoder makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneStepConfig {
    /// Steps begin with the condition's latent under the noise of a timestep up to this; 0 for the usual training.
    pub timestep: usize,
    /// Weight of the mean squared error of the latent, beside the terms between pictures.
    pub latent: f64,
    /// Whether the decoder learns with them.
    pub decoder: bool,
    /// Of what a discriminator of patches says; 0 for none.
    pub discriminator: f64,
    /// The step from which it is heard.
    pub discriminator_start: u64,
}

/// How an autoencoder's loss is made up, beside its terms between pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderLoss {
    /// Of the latent's divergence from the standard normal distribution, in nats a value of the picture.
    pub kl: f64,
    /// Of what a discriminator of patches says; 0 for none.
    pub discriminator: f64,
    /// The step from which it is heard.
    pub discriminator_start: u64,
}

/// What a denoiser is trained to say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionConfig {
    /// `eps` or `v`.
    pub prediction: Prediction,
    /// `plain` or `zero-snr`.
    pub terminal: Terminal,
    /// `stratified` or `independent`.
    pub timesteps: Timesteps,
}

/// How the timesteps of a batch are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timesteps {
    /// One from each of as many equal spans as there are examples: the loss of a batch varies less.
    Stratified,
    /// Each by itself, as the reference does.
    Independent,
}

/// Pictures whose latents are trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentData {
    /// Folders, lists, shards, patterns: whatever [`crate::data::Pictures::open`] takes.
    pub folders: Vec<PathBuf>,
    /// Folder for latents, which are made once; without one they are made anew in each step, of crops that are degraded anew.
    pub latents: PathBuf,
    /// Side of a latent crop, cells.
    pub side_cells: usize,
    /// How crops are taken where latents are made anew.
    pub crop: Crop,
    /// How they vary there.
    pub augment: Augment,
}

/// Pictures whose latents are measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentValidation {
    /// As of the data.
    pub folders: Vec<PathBuf>,
    /// So many of them are drawn anew at each validation, in 50 steps, to look at; 0 for none.
    pub shown: usize,
}

/// A trained network that is used as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    bound(deserialize = "Network<S>: Deserialize<'de>", serialize = "Network<S>: Serialize")
)]
pub struct Trained<S> {
    /// Its file; for `taef2` the folder of its two files.
    pub path: PathBuf,
    /// Its sizes.
    pub network: Network<S>,
}

/// The text that a denoiser reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// The text encoder's file, or a whole Stable Diffusion; without it the UNet brings a learned token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<PathBuf>,
    /// The encoder's sizes.
    pub network: Network<ClipTextConfig>,
    /// Of a picture that has no caption.
    pub prompt: String,
    /// Share of examples that get the long caption of a picture that has two.
    pub long_captions: f64,
    /// Share of examples whose prompt is emptied.
    pub dropout: f64,
}

/// How the control branch is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// The trained UNet: a file of its own or a whole Stable Diffusion.
    pub unet: PathBuf,
    /// A trained branch: go on with it and let the UNet learn too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together_with: Option<PathBuf>,
    /// Degradations of each picture whose latents are kept.
    pub draws: usize,
    /// What they are drawn from: the name of a preset, a recipe in a TOML file, or `training`.
    pub recipe: String,
    /// Whether pictures of a batch share what Real-ESRGAN's training shares, where latents are made anew.
    pub by_batch: bool,
    /// Pairs in the pool that mixes batches there, a multiple of the batch; 0 for none.
    pub pool: usize,
    /// The condition gets the noise of a timestep below this; 0 for none.
    pub noise_aug_timestep: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            output: PathBuf::new(),
            steps: 5000,
            batch: 4,
            accumulate: 1,
            precision: Precision::F32,
            recompute: false,
            seed: 1,
            log_every: 50,
            checkpoint_every: 500,
            keep: 2,
            init: None,
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            rate: 2e-4,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: 0.5,
            ema_decay: 0.999,
        }
    }
}

impl OptimizerConfig {
    /// What suits a denoiser.
    pub(super) fn stage2() -> Self {
        Self { beta2: 0.999, weight_decay: 0.01, clip_norm: 1.0, ..Self::default() }
    }
}

impl ScheduleConfig {
    pub(super) fn cosine(warm_up: u64) -> Self {
        Self { shape: Shape::Cosine, warm_up }
    }
}

impl PictureData {
    /// Crops of this side from anywhere.
    pub fn crops_of(crop_px: usize) -> Self {
        let augment = Augment { mirror: true, flip: false, transpose: true };
        Self { folders: Vec::new(), crop_px, crop: Crop::Inside, augment }
    }

    /// As the loader wants it.
    pub(crate) fn open(&self) -> OpenConfig {
        OpenConfig::new(self.crop, self.crop_px)
    }
}

impl Default for DegradationConfig {
    fn default() -> Self {
        Self { recipe: TRAINING.into(), by_batch: false, pool: 0 }
    }
}

/// The name of [`training_ranges`].
pub(crate) const TRAINING: &str = "training";

/// Whether this is a recipe's name and not a file's.
pub(super) fn is_named_recipe(name: &str) -> bool {
    name == TRAINING || PRESETS.iter().any(|(preset, _)| *preset == name)
}

/// The recipe of this name, or in this file.
pub(crate) fn recipe(name: &str) -> Result<Recipe, ConfigError> {
    match name {
        TRAINING => return Ok(Recipe::Simple(training_ranges())),
        name if is_named_recipe(name) => return Ok(preset(name)),
        _ => {}
    }
    let text =
        std::fs::read_to_string(name).map_err(|source| ConfigError::Read { file: name.into(), source })?;
    Recipe::from_toml(&text)
        .map_err(|error| ConfigError::Wrong { place: name.into(), reason: error.to_string() })
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            encoder: None,
            network: Network::of("sd2.1"),
            prompt: String::new(),
            long_captions: 0.0,
            dropout: 0.0,
        }
    }
}

impl Default for LatentValidation {
    /// The reference's number.
    fn default() -> Self {
        Self { folders: Vec::new(), shown: 8 }
    }
}

impl Default for LatentData {
    fn default() -> Self {
        let (crop, augment) = (Crop::Inside, Augment::default());
        Self { folders: Vec::new(), latents: PathBuf::new(), side_cells: 16, crop, augment }
    }
}

/// An error that names the field where `holds` does not.
pub(super) fn want(holds: bool, field: &'static str, reason: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Field { field: field.into(), reason: reason.into() }) }
}

pub(super) fn check_common(
    run: &RunConfig,
    optimizer: &OptimizerConfig,
    folders: &[PathBuf],
) -> Result<(), ConfigError> {
    let at_least_1 = "it must be at least 1";
    let below_1 = "it must be from 0 to below 1";
    want(!folders.is_empty(), "data.folders", "there are no training pictures: give --data or this field")?;
    want(!run.output.as_os_str().is_empty(), "run.output", "the run needs a folder: give -o or this field")?;
    want(run.steps > 0, "run.steps", at_least_1)?;
    want((1..=1024).contains(&run.batch), "run.batch", "it must be from 1 to 1024")?;
    want(run.accumulate > 0, "run.accumulate", at_least_1)?;
    want(run.log_every > 0, "run.log_every", at_least_1)?;
    want(run.checkpoint_every > 0, "run.checkpoint_every", at_least_1)?;
    want(run.keep > 0, "run.keep", at_least_1)?;
    let rate = optimizer.rate;
    want(rate > 0.0 && rate.is_finite(), "optimizer.rate", "it must be larger than 0")?;
    let share = |value: f64| (0.0..1.0).contains(&value);
    want(share(optimizer.beta1), "optimizer.beta1", below_1)?;
    want(share(optimizer.beta2), "optimizer.beta2", below_1)?;
    want(share(optimizer.ema_decay), "optimizer.ema_decay", below_1)?;
    want(optimizer.epsilon > 0.0, "optimizer.epsilon", "it must be larger than 0")?;
    want(optimizer.weight_decay >= 0.0, "optimizer.weight_decay", "it must not be negative")?;
    want(optimizer.clip_norm > 0.0, "optimizer.clip_norm", "it must be larger than 0; inf for no limit")
}

/// Most pairs of a pool: all of them are in memory.
const MOST_POOLED: usize = 1 << 16;

pub(super) fn check_pool(pool: usize, run: &RunConfig, field: &'static str) -> Result<(), ConfigError> {
    let fits = pool.is_multiple_of(run.batch) && pool <= MOST_POOLED;
    want(fits, field, &format!("it must be a multiple of run.batch and at most {MOST_POOLED}"))
}

/// Longest side of a crop, in pixels or cells: longer ones would take all memory there is.
const MOST_SIDE: usize = 8192;

pub(super) fn check_side(field: &'static str, side: usize, multiple: usize) -> Result<(), ConfigError> {
    let fits = (1..=MOST_SIDE).contains(&side) && side.is_multiple_of(multiple);
    want(fits, field, &format!("it must be a multiple of {multiple} and at most {MOST_SIDE}"))
}

impl PictureLoss {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let weights = [self.sse, self.mse_log, self.l1, self.lpips];
        let fine = weights.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
        want(
            fine && weights.iter().sum::<f64>() > 0.0,
            "loss",
            "its weights must be positive, or 0 for all but one",
        )?;
        let files = !self.lpips_files.is_empty() || self.lpips == 0.0;
        want(
            files,
            "loss.lpips_files",
            "LPIPS needs weights, best those of VGG-16: `diffbir models pull lpips-vgg`",
        )
    }
}

impl LatentData {
    /// Whether latents are made in the step that they are for.
    pub(crate) fn makes_anew(&self) -> bool {
        self.latents.as_os_str().is_empty()
    }

    pub(super) fn check(&self, network: &UnetConfig) -> Result<(), ConfigError> {
        let anew = self.makes_anew();
        let whole = anew || self.crop == Crop::Inside && self.augment == Augment::default();
        want(
            whole,
            "data.latents",
            "data.crop and data.augment are for latents that are made anew: leave it out",
        )?;
        check_side("data.side_cells", self.side_cells, network.multiple())
    }
}

pub(super) fn check_denoiser(
    network: &UnetConfig,
    autoencoder: &Trained<AutoencoderSizes>,
    text: &TextConfig,
) -> Result<(), ConfigError> {
    want(!autoencoder.path.as_os_str().is_empty(), "autoencoder.path", "give --autoencoder or this field")?;
    let channels = match &autoencoder.network.sizes {
        AutoencoderSizes::Taef2(sizes) => sizes.latent_channels,
        AutoencoderSizes::Kl(sizes) => sizes.latent_channels,
    };
    let reason = format!("the autoencoder's latents have {channels} channels");
    want(network.latent_channels == channels, "network.latent_channels", &reason)?;
    let width = text.network.sizes.width;
    let reason = format!("the text encoder's tokens have {width} channels");
    want(text.encoder.is_none() || network.context_channels == width, "network.context_channels", &reason)?;
    let reads = network.learned_context || text.encoder.is_some();
    want(reads, "text.encoder", "a network without a learned token needs a text encoder")?;
    let share = |share| (0.0..=1.0).contains(&share);
    want(share(text.long_captions), "text.long_captions", "it must be from 0 to 1")?;
    want(share(text.dropout), "text.dropout", "it must be from 0 to 1")
}
