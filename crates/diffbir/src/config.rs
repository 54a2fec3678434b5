//! What a model is made of: its networks, and how it is used best.

use crate::geometry::Geometry;
use crate::published;
use diffbir_diffusion::{Prediction, Sampler, Terminal};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::sizes::{Checked, SizeError};
use diffbir_models::stage1::Stage1Config;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Precision, Sizes, sizes_in};
use diffbir_nn::{Device, WeightError};
use serde::{Deserialize, Serialize};

/// Where a model file keeps its [`ModelConfig`], as JSON in the metadata.
pub const CONFIG_KEY: &str = "diffbir";

/// What a model is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// By which people ask for it.
    pub name: String,
    /// Where the weights come from and under which licence, for `info`.
    pub origin: Vec<String>,
    /// The degradation remover.
    pub stage1: Stage1Config,
    /// What gives the detail back, if the model has it.
    pub stage2: Option<Stage2Config>,
    /// How pictures are brought to the sizes that the networks take.
    #[serde(default)]
    pub geometry: Geometry,
}

/// The networks of stage 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage2Config {
    /// Pictures to latents and back.
    pub autoencoder: AutoencoderConfig,
    /// The denoiser, and with it the control branch.
    pub unet: UnetConfig,
    /// Prompts to what the denoiser reads; nothing where it brings a learned context.
    #[serde(default)]
    pub text: Option<ClipTextConfig>,
    /// What the denoiser predicts.
    pub prediction: Prediction,
    /// Its noise schedule.
    pub terminal: Terminal,
    /// How it samples best where nothing else is asked for.
    #[serde(default)]
    pub sampling: SamplingDefaults,
}

/// How a model samples best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingDefaults {
    /// Of [`crate::Options::sampler`].
    pub sampler: Sampler,
    /// Of [`crate::Options::steps`].
    pub steps: usize,
    /// Of [`crate::Options::fidelity`].
    pub fidelity: f64,
    /// Of [`crate::Options::cfg_scale`].
    pub cfg_scale: f64,
    /// Scale of the noise that SDE samplers add on their way: 1 by theory. A small network takes away
    /// less of it than it should.
    pub s_noise: f64,
    /// Of [`crate::Options::prompt`].
    pub prompt: String,
    /// Of [`crate::Options::negative_prompt`].
    pub negative_prompt: String,
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        Self {
            sampler: Sampler::DEFAULT,
            steps: 10,
            fidelity: 0.0,
            cfg_scale: 1.0,
            s_noise: 1.0,
            prompt: String::new(),
            negative_prompt: String::new(),
        }
    }
}

/// Which autoencoder, and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoencoderConfig {
    /// Stable Diffusion's.
    Kl(KlConfig),
    /// The tiny one.
    Taef2(Taef2Config),
}

impl AutoencoderConfig {
    /// Pixels per side of one latent cell.
    pub fn downsampling(&self) -> usize {
        match self {
            Self::Kl(sizes) => sizes.downsampling(),
            Self::Taef2(_) => Taef2Config::DOWNSAMPLING,
        }
    }

    /// What its weights take; see [`sizes_in`].
    pub(crate) fn sizes_in(&self, precision: Precision, device: &Device) -> Result<Sizes, WeightError> {
        match self {
            Self::Kl(sizes) => sizes_in(precision, device, |params| sizes.build(params)),
            Self::Taef2(sizes) => sizes_in(precision, device, |params| sizes.build(params)),
        }
    }

    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(sizes) => sizes.latent_channels,
            Self::Taef2(sizes) => sizes.latent_channels,
        }
    }
}

impl Checked for AutoencoderConfig {
    fn check(&self) -> Result<(), SizeError> {
        match self {
            Self::Kl(sizes) => sizes.check(),
            Self::Taef2(sizes) => sizes.check(),
        }
    }
}

impl Checked for ModelConfig {
    fn check(&self) -> Result<(), SizeError> {
        self.stage1.check().map_err(|error| error.within("stage1"))?;
        let Some(stage2) = &self.stage2 else { return Ok(()) };
        stage2.autoencoder.check().map_err(|error| error.within("stage2.autoencoder"))?;
        stage2.unet.check().map_err(|error| error.within("stage2.unet"))?;
        let text = stage2.text.as_ref().map_or(Ok(()), Checked::check);
        text.map_err(|error| error.within("stage2.text"))
    }
}

impl ModelConfig {
    /// Under which names a model file keeps its networks.
    pub fn places(&self) -> Vec<&'static str> {
        let mut places = vec!["stage1"];
        if let Some(stage2) = &self.stage2 {
            places.extend(["autoencoder", "unet", "control"]);
            places.extend(stage2.text.as_ref().map(|_| "text"));
        }
        places
    }

    /// That of the built-in model.
    ///
    /// # Panics
    /// Where the build was given a file that is no model.
    pub fn nano() -> Self {
        const NAME: &str = "the built-in model";
        let file = Checkpoint::from_static(diffbir_nano::NANO, NAME);
        file.and_then(|file| Self::of(&file, NAME)).expect("the model in the program is one")
    }

    /// The configuration that a model file carries, or that of a published stage 1 by its tensors.
    pub fn of(checkpoint: &Checkpoint, file: &str) -> Result<Self, WeightError> {
        let fail = |reason: String| WeightError::File { file: file.into(), reason };
        let Some(text) = checkpoint.metadata.get(CONFIG_KEY) else {
            return published::stage1_of(checkpoint).map_err(|closest| {
                let strange = || {
                    fail(
                        "is no model: it does not say of which networks its tensors are, and they are not those of \
                         a known stage 1"
                            .into(),
                    )
                };
                closest.unwrap_or_else(strange)
            });
        };
        let config: Self = serde_json::from_str(text)
            .map_err(|error| fail(format!("its description cannot be read: {error}")))?;
        config.check().map_err(|error| fail(format!("its description makes no networks: {error}")))?;
        Ok(config)
    }
}
