//! The whole configuration of each trainer, and its defaults.

use super::network::{AutoencoderSizes, Network};
use super::sections::*;
use super::{Config, ConfigError};
use diffbir_diffusion::schedule::{LAST_T, Prediction, Terminal};
use diffbir_models::kl::KlConfig;
use diffbir_models::patch::PatchDiscriminator;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::unet::UnetConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `diffbir train stage1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage1Training {
    /// Which network.
    pub network: Network<Stage1Config>,
    /// To train on.
    pub data: PictureData,
    /// What becomes of them.
    pub degradation: DegradationConfig,
    /// What keeps the network from leaning on single layers.
    pub regularization: Regularization,
    /// To measure on.
    pub validation: PictureValidation,
    /// What is made small.
    pub loss: PictureLoss,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Its rate.
    pub schedule: ScheduleConfig,
    /// The run.
    pub run: RunConfig,
}

/// `diffbir train autoencoder`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderTraining {
    /// Which network.
    pub network: Network<KlConfig>,
    /// To train on.
    pub data: PictureData,
    /// To measure on.
    pub validation: PictureValidation,
    /// What is made small between pictures.
    pub loss: PictureLoss,
    /// And what else.
    pub latent: AutoencoderLoss,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Its rate.
    pub schedule: ScheduleConfig,
    /// The run.
    pub run: RunConfig,
}

/// `diffbir train prior`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorTraining {
    /// The UNet.
    pub network: Network<UnetConfig>,
    /// What it says.
    pub diffusion: DiffusionConfig,
    /// Whose latents.
    pub autoencoder: Trained<AutoencoderSizes>,
    /// What it reads.
    pub text: TextConfig,
    /// To train on.
    pub data: LatentData,
    /// To measure on.
    pub validation: LatentValidation,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Its rate.
    pub schedule: ScheduleConfig,
    /// The run.
    pub run: RunConfig,
}

/// `diffbir train stage2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage2Training {
    /// The UNet, and with it the branch.
    pub network: Network<UnetConfig>,
    /// What it says.
    pub diffusion: DiffusionConfig,
    /// The branch.
    pub control: ControlConfig,
    /// Whose latents.
    pub autoencoder: Trained<AutoencoderSizes>,
    /// Whose pictures are the condition.
    pub stage1: Trained<Stage1Config>,
    /// What the UNet reads.
    pub text: TextConfig,
    /// To train on.
    pub data: LatentData,
    /// To measure on.
    pub validation: LatentValidation,
    /// How it learns to do with one step.
    pub one_step: OneStepConfig,
    /// What is made small between pictures then.
    pub loss: PictureLoss,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Its rate.
    pub schedule: ScheduleConfig,
    /// The run.
    pub run: RunConfig,
}

impl Default for Stage1Training {
    fn default() -> Self {
        Self {
            network: Network::of("srvgg"),
            data: PictureData::crops_of(128),
            degradation: DegradationConfig::default(),
            regularization: Regularization { stochastic_depth: 0.0 },
            validation: PictureValidation::default(),
            loss: PictureLoss { mse_log: 1.0, ..PictureLoss::default() },
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::cosine(20),
            run: RunConfig::default(),
        }
    }
}

impl Default for AutoencoderTraining {
    fn default() -> Self {
        Self {
            network: Network::of("kl-f8"),
            data: PictureData::crops_of(256),
            validation: PictureValidation::default(),
            loss: PictureLoss { l1: 1.0, ..PictureLoss::default() },
            latent: AutoencoderLoss { kl: 1e-6, discriminator: 0.0, discriminator_start: 2500 },
            // Latent Diffusion's.
            optimizer: OptimizerConfig { rate: 4.5e-6, beta1: 0.5, beta2: 0.9, ..OptimizerConfig::default() },
            schedule: ScheduleConfig { shape: Shape::Constant, warm_up: 0 },
            run: RunConfig::default(),
        }
    }
}

impl Default for PriorTraining {
    fn default() -> Self {
        Self {
            network: Network::of("nano"),
            diffusion: DiffusionConfig {
                prediction: Prediction::V,
                terminal: Terminal::ZeroSnr,
                timesteps: Timesteps::Stratified,
            },
            autoencoder: Trained { path: PathBuf::new(), network: Network::of("taef2") },
            text: TextConfig::default(),
            data: LatentData::default(),
            validation: LatentValidation::default(),
            optimizer: OptimizerConfig::stage2(),
            schedule: ScheduleConfig::cosine(100),
            run: RunConfig::default(),
        }
    }
}

impl Default for Stage2Training {
    fn default() -> Self {
        let PriorTraining {
            network,
            diffusion,
            autoencoder,
            text,
            data,
            validation,
            optimizer,
            schedule,
            run,
        } = PriorTraining::default();
        Self {
            network,
            diffusion,
            control: ControlConfig {
                unet: PathBuf::new(),
                together_with: None,
                draws: 2,
                recipe: TRAINING.into(),
                by_batch: false,
                pool: 0,
                noise_aug_timestep: 0,
            },
            autoencoder,
            stage1: Trained { path: PathBuf::new(), network: Network::of("srvgg") },
            text,
            data,
            validation,
            one_step: OneStepConfig {
                timestep: 0,
                latent: 1.0,
                decoder: false,
                discriminator: 0.0,
                discriminator_start: 1000,
            },
            loss: PictureLoss::default(),
            optimizer,
            schedule,
            run,
        }
    }
}

impl Stage2Training {
    fn check_one_step(&self) -> Result<(), ConfigError> {
        let OneStepConfig { timestep, latent, discriminator, .. } = self.one_step;
        if timestep == 0 {
            let unused = self.loss == PictureLoss::default();
            return want(
                unused,
                "loss",
                "pictures are judged where one step is learned: give one_step.timestep",
            );
        }
        want(timestep <= LAST_T, "one_step.timestep", "it must be from 0 to 999")?;
        let together = self.control.together_with.is_some();
        want(together, "control.together_with", "UNet and branch learn one step together: give a branch")?;
        let weight = |weight: f64| weight >= 0.0 && weight.is_finite();
        want(weight(latent), "one_step.latent", "it must not be negative")?;
        want(weight(discriminator), "one_step.discriminator", "it must not be negative")?;
        self.loss.check()
    }
}

impl Config for Stage1Training {
    const TRAINER: &'static str = "stage1";
    const LOSS_TAG: &'static str = "train/loss";

    fn run(&self) -> &RunConfig {
        &self.run
    }

    fn optimizer(&self) -> (&OptimizerConfig, &ScheduleConfig) {
        (&self.optimizer, &self.schedule)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        Ok(self.network.check("network")?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        check_common(&self.run, &self.optimizer, &self.data.folders)?;
        self.loss.check()?;
        check_pool(self.degradation.pool, &self.run, "degradation.pool")?;
        let (share, layers) = (self.regularization.stochastic_depth, self.network.sizes.skippable());
        want((0.0..1.0).contains(&share), "regularization.stochastic_depth", "it must be from 0 to below 1")?;
        let has_layers = share == 0.0 || layers > 0;
        want(
            has_layers,
            "regularization.stochastic_depth",
            "the network has no layers to skip: it is for SwinIR",
        )?;
        // A crop is reduced to a quarter, and a network that works at full size wants whole windows.
        let multiple = self.network.sizes.multiple_px().max(4);
        check_side("data.crop_px", self.data.crop_px, multiple)
    }
}

impl Config for AutoencoderTraining {
    const TRAINER: &'static str = "autoencoder";
    const LOSS_TAG: &'static str = "train/loss";

    fn run(&self) -> &RunConfig {
        &self.run
    }

    fn optimizer(&self) -> (&OptimizerConfig, &ScheduleConfig) {
        (&self.optimizer, &self.schedule)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        Ok(self.network.check("network")?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        check_common(&self.run, &self.optimizer, &self.data.folders)?;
        self.loss.check()?;
        let weight = |weight: f64| weight >= 0.0 && weight.is_finite();
        want(weight(self.latent.kl), "latent.kl", "it must not be negative")?;
        let discriminator = self.latent.discriminator;
        want(weight(discriminator), "latent.discriminator", "it must not be negative")?;
        let (crop_px, multiple) = (self.data.crop_px, 1 << (self.network.sizes.multipliers.len() - 1));
        check_side("data.crop_px", crop_px, multiple)?;
        let least = PatchDiscriminator::LEAST_PX;
        let judged = discriminator == 0.0 || crop_px >= least;
        want(judged, "data.crop_px", &format!("the discriminator wants at least {least}"))
    }
}

impl Config for PriorTraining {
    const TRAINER: &'static str = "unet";
    const LOSS_TAG: &'static str = "loss/loss_simple";

    fn run(&self) -> &RunConfig {
        &self.run
    }

    fn optimizer(&self) -> (&OptimizerConfig, &ScheduleConfig) {
        (&self.optimizer, &self.schedule)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        self.network.check("network")?;
        self.autoencoder.network.check("autoencoder.network")?;
        Ok(self.text.network.check("text.network")?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        check_common(&self.run, &self.optimizer, &self.data.folders)?;
        self.data.check(&self.network.sizes)?;
        check_denoiser(&self.network.sizes, &self.autoencoder, &self.text)
    }
}

impl Config for Stage2Training {
    const TRAINER: &'static str = "control";
    const LOSS_TAG: &'static str = "loss/loss_simple";

    fn run(&self) -> &RunConfig {
        &self.run
    }

    fn optimizer(&self) -> (&OptimizerConfig, &ScheduleConfig) {
        (&self.optimizer, &self.schedule)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        self.network.check("network")?;
        self.autoencoder.network.check("autoencoder.network")?;
        self.stage1.network.check("stage1.network")?;
        Ok(self.text.network.check("text.network")?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        check_common(&self.run, &self.optimizer, &self.data.folders)?;
        self.data.check(&self.network.sizes)?;
        check_denoiser(&self.network.sizes, &self.autoencoder, &self.text)?;
        want(!self.stage1.path.as_os_str().is_empty(), "stage1.path", "give --stage1 or this field")?;
        want(!self.control.unet.as_os_str().is_empty(), "control.unet", "give --unet or this field")?;
        recipe(&self.control.recipe)?;
        let kept = !self.data.makes_anew() && (self.control.by_batch || self.control.pool > 0);
        let reason = "control.by_batch and control.pool are for latents that are made anew: leave it out";
        want(!kept, "data.latents", reason)?;
        check_pool(self.control.pool, &self.run, "control.pool")?;
        want((1..=100).contains(&self.control.draws), "control.draws", "it must be from 1 to 100")?;
        let times = self.control.noise_aug_timestep <= 1000;
        want(times, "control.noise_aug_timestep", "it must be from 0 to 1000")?;
        self.check_one_step()
    }
}
