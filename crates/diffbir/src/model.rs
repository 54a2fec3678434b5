//! Models: a set of networks that belong together, in one file.

use crate::Error;
use burn::tensor::Device;
use diffbir_diffusion::{Parameters, Prediction, Schedule, Terminal};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::stage1::{Stage1, Stage1Config};
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::{Unet, UnetConfig};
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Precision, build_in};
use serde::{Deserialize, Serialize};
use std::path::Path;

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
}

/// The networks of stage 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage2Config {
    /// Pictures to latents and back.
    pub autoencoder: AutoencoderConfig,
    /// The denoiser, and with it the control branch.
    pub unet: UnetConfig,
    /// What the denoiser predicts.
    pub prediction: Prediction,
    /// Its noise schedule.
    pub terminal: Terminal,
    /// How it samples best where nothing else is asked for.
    #[serde(default)]
    pub sampling: SamplingDefaults,
}

/// How a model samples best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingDefaults {
    /// Of [`crate::Options::cfg_scale`].
    pub cfg_scale: f64,
    /// Scale of the noise that SDE samplers add on their way: 1 by theory. A small network takes away
    /// less of it than it should.
    pub s_noise: f64,
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        Self { cfg_scale: 1.0, s_noise: 1.0 }
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

/// A loaded model.
pub struct Model {
    /// What it is made of.
    pub config: ModelConfig,
    pub(crate) device: Device,
    pub(crate) stage1: Stage1,
    pub(crate) stage2: Option<Stage2>,
}

pub(crate) struct Stage2 {
    pub autoencoder: Box<dyn Autoencoder>,
    pub unet: Unet,
    pub control: ControlNet,
    pub multiple: usize,
    pub prediction: Prediction,
    pub schedule: Schedule,
    pub sampling: SamplingDefaults,
}

impl ModelConfig {
    /// The configuration that a model file carries.
    pub fn of(checkpoint: &Checkpoint, file: &str) -> Result<Self, WeightError> {
        let fail = |reason: String| WeightError::File { file: file.into(), reason };
        let text = checkpoint.metadata.get(CONFIG_KEY).ok_or_else(|| {
            fail("is no diffbir model: it holds tensors but does not say of which networks".into())
        })?;
        serde_json::from_str(text).map_err(|error| fail(format!("its description cannot be read: {error}")))
    }
}

impl Model {
    /// The model that is built in.
    pub fn nano(device: &Device, precision: Precision) -> Result<Self, Error> {
        const NAME: &str = "the built-in model";
        Self::load(&Checkpoint::from_static(diffbir_nano::NANO, NAME)?, NAME, device, precision)
    }

    /// A model file, its weights held in `precision`.
    pub fn open(path: &Path, device: &Device, precision: Precision) -> Result<Self, Error> {
        Self::load(&Checkpoint::open(path)?, &path.display().to_string(), device, precision)
    }

    fn load(
        checkpoint: &Checkpoint,
        file: &str,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, Error> {
        let config = ModelConfig::of(checkpoint, file)?;
        let place = Place { checkpoint, device, precision };
        let stage1 = place.part("stage1", |params| config.stage1.build(params))?;
        let stage2 = config
            .stage2
            .as_ref()
            .map(|stage2| -> Result<_, WeightError> {
                let autoencoder: Box<dyn Autoencoder> = match &stage2.autoencoder {
                    AutoencoderConfig::Kl(sizes) => {
                        Box::new(place.part("autoencoder", |params| sizes.build(params))?)
                    }
                    AutoencoderConfig::Taef2(sizes) => {
                        Box::new(place.part("autoencoder", |params| sizes.build(params))?)
                    }
                };
                Ok(Stage2 {
                    autoencoder,
                    unet: place.part("unet", |params| stage2.unet.build(params))?,
                    control: place.part("control", |p| ControlNet::new(p, &stage2.unet))?,
                    multiple: stage2.unet.multiple(),
                    prediction: stage2.prediction,
                    schedule: Schedule::new(stage2.terminal),
                    sampling: stage2.sampling,
                })
            })
            .transpose()?;
        Ok(Self { config, device: device.clone(), stage1, stage2 })
    }

    /// The settings of samplers where nothing else is asked for: the reference's, but for the noise that
    /// suits the model.
    pub fn parameters(&self) -> Parameters {
        let s_noise = self.stage2.as_ref().map(|stage2| stage2.sampling.s_noise);
        let reference = Parameters::default();
        Parameters { s_noise: s_noise.unwrap_or(reference.s_noise), ..reference }
    }

    /// Whether it can give detail back.
    pub fn has_stage2(&self) -> bool {
        self.stage2.is_some()
    }

    /// Whether it reads prompts.
    pub fn has_text(&self) -> bool {
        self.config.stage2.as_ref().is_some_and(|stage2| !stage2.unet.learned_context)
    }
}

/// From where, on which device and in which numbers the networks of a model are loaded.
struct Place<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    precision: Precision,
}

impl Place<'_> {
    /// One network from the tensors below `prefix`, all of which it must use.
    fn part<N>(
        &self,
        prefix: &str,
        network: impl FnOnce(&diffbir_nn::Params) -> Result<N, WeightError>,
    ) -> Result<N, WeightError> {
        let mut tensors = self.checkpoint.part(prefix);
        let network = build_in(self.precision, &mut tensors, self.device, network)?;
        tensors.expect_all_used()?;
        Ok(network)
    }
}
