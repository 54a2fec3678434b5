//! Models: networks that belong together, loaded.

use crate::Error;
use crate::config::{AutoencoderConfig, CONFIG_KEY, ModelConfig, SamplingDefaults, Stage2Config};
use crate::resident::Resident;
use crate::text::TextEncoder;
use burn::tensor::Device;
use diffbir_diffusion::{Parameters, Prediction, Schedule};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::stage1::Stage1;
use diffbir_models::unet::Unet;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Precision, keys_of};
use std::path::Path;
use std::sync::Arc;

/// A loaded model.
pub struct Model {
    /// What it is made of.
    pub config: ModelConfig,
    pub(crate) device: Device,
    pub(crate) stage1: Resident<Stage1>,
    /// Tensors that files of its stage 1 hold, that the network computes for itself, and that its file lacks.
    pub lacking: Vec<String>,
    /// Shared by models that differ in stage 1.
    pub(crate) stage2: Option<Arc<Stage2>>,
}

pub(crate) struct Stage2 {
    pub autoencoder: Resident<Box<dyn Autoencoder>>,
    /// Pixels per side of one of its latents' cells, and their channels.
    pub cell_px: usize,
    pub latent_channels: usize,
    /// Its weights at rest, for who needs it in another form.
    pub autoencoder_weights: Checkpoint,
    pub unet: Resident<Unet>,
    pub control: Resident<ControlNet>,
    pub text: Option<TextEncoder>,
    pub multiple: usize,
    pub prediction: Prediction,
    pub schedule: Schedule,
}

/// The weights of a model, network by network, each under its official names.
#[derive(Clone, Default)]
pub struct Parts {
    /// Of stage 1.
    pub stage1: Checkpoint,
    /// Of the autoencoder.
    pub autoencoder: Checkpoint,
    /// Of the denoiser.
    pub unet: Checkpoint,
    /// Of the control branch.
    pub control: Checkpoint,
    /// Of the text encoder.
    pub text: Checkpoint,
}

impl Parts {
    fn of_file(file: &Checkpoint) -> Self {
        Self {
            stage1: file.part("stage1"),
            autoencoder: file.part("autoencoder"),
            unet: file.part("unet"),
            control: file.part("control"),
            text: file.part("text"),
        }
    }

    /// A model file of them.
    pub fn into_file(self, config: &ModelConfig) -> Checkpoint {
        let mut file = Checkpoint::default();
        let Self { stage1, autoencoder, unet, control, text } = self;
        for (place, part) in ["stage1", "autoencoder", "unet", "control", "text"].into_iter().zip([
            stage1,
            autoencoder,
            unet,
            control,
            text,
        ]) {
            file.insert(place, part);
        }
        let config = serde_json::to_string(config).expect("a configuration is text");
        file.metadata.insert(CONFIG_KEY.into(), config);
        file
    }
}

/// How much of a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stages {
    /// All that it has.
    #[default]
    All,
    /// Stage 1 alone; of the rest neither files nor memory are needed.
    First,
}

/// How a model is loaded.
#[derive(Clone, Copy)]
pub struct Loading<'a> {
    /// Where its networks run.
    pub device: &'a Device,
    /// In which numbers its weights are held.
    pub precision: Precision,
    /// How much of it.
    pub stages: Stages,
    /// Whether networks stay at rest, to be read for each use and dropped after it, until [`Model::hold`] says otherwise.
    pub apart: bool,
}

impl<'a> Loading<'a> {
    /// All of a model, on this device, in 32 bits.
    pub fn on(device: &'a Device) -> Self {
        Self { device, precision: Precision::F32, stages: Stages::All, apart: false }
    }
}

impl Model {
    /// The model that is built in.
    pub fn nano(loading: Loading) -> Result<Self, Error> {
        const NAME: &str = "the built-in model";
        Self::of(&Checkpoint::from_static(diffbir_nano::NANO, NAME)?, NAME, loading)
    }

    /// A model file, or a published stage 1.
    pub fn open(path: &Path, loading: Loading) -> Result<Self, Error> {
        Self::of(&Checkpoint::open(path)?, &path.display().to_string(), loading)
    }

    /// The same of its weights; `file` is their name in errors.
    pub fn of(checkpoint: &Checkpoint, file: &str, loading: Loading) -> Result<Self, Error> {
        let config = ModelConfig::of(checkpoint, file)?;
        if !checkpoint.metadata.contains_key(CONFIG_KEY) {
            let stage1 = checkpoint.clone();
            return Self::assemble(config, Parts { stage1, ..Parts::default() }, loading);
        }
        let places = config.places();
        let known = |name: &str| name.split_once('.').is_some_and(|(place, _)| places.contains(&place));
        let names = checkpoint.entries().map(|(name, ..)| name.to_string());
        let names: Vec<String> = names.filter(|name| !known(name)).collect();
        if !names.is_empty() {
            return Err(WeightError::Unknown { file: file.into(), names }.into());
        }
        Self::assemble(config, Parts::of_file(checkpoint), loading)
    }

    /// A model of these weights, each of which it must use.
    pub fn assemble(config: ModelConfig, parts: Parts, loading: Loading) -> Result<Self, Error> {
        let stage1 = loading.stage1(&config, parts.stage1.clone())?;
        let stage2 = match loading.stages {
            Stages::All => config.stage2.as_ref().map(|stage2| loading.stage2(stage2, &parts)).transpose()?,
            Stages::First => None,
        };
        let lacking = parts.stage1.lacking(&keys_of(|params| config.stage1.build(params))?);
        Ok(Self { config, device: loading.device.clone(), stage1, lacking, stage2: stage2.map(Arc::new) })
    }

    /// This model with another stage 1, `config` being of the whole; stage 2 is in memory once.
    pub(crate) fn with_stage1(
        &self,
        config: ModelConfig,
        stage1: Checkpoint,
        loading: Loading,
    ) -> Result<Self, Error> {
        let lacking = stage1.lacking(&keys_of(|params| config.stage1.build(params))?);
        let stage1 = loading.stage1(&config, stage1)?;
        Ok(Self { config, device: self.device.clone(), stage1, lacking, stage2: self.stage2.clone() })
    }

    /// This model behind the stage 1 of another model's weights, or a published one; stage 2 is in memory once. `name` is
    /// theirs in errors.
    pub fn behind(&self, file: Checkpoint, name: &str, loading: Loading) -> Result<Self, Error> {
        let other = ModelConfig::of(&file, name)?;
        let is_whole = file.metadata.contains_key(CONFIG_KEY);
        let weights = if is_whole { Parts::of_file(&file).stage1 } else { file };
        let mut config = ModelConfig { stage1: other.stage1, ..self.config.clone() };
        config.origin.push(format!("stage 1 of {}", other.name));
        self.with_stage1(config, weights, loading)
    }

    /// Reads the networks of a model that was opened [`Loading::apart`], so that they stay, or, if `apart`, leaves them at
    /// rest; either in this precision.
    ///
    /// # Panics
    /// When another model shares its stage 2.
    pub fn hold(&mut self, precision: Precision, apart: bool) -> Result<(), Error> {
        self.stage1.hold(precision, apart)?;
        if let Some(stage2) = &mut self.stage2 {
            let stage2 = Arc::get_mut(stage2).expect("it is held before it is shared");
            stage2.autoencoder.hold(precision, apart)?;
            stage2.unet.hold(precision, apart)?;
            stage2.control.hold(precision, apart)?;
            if let Some(text) = &mut stage2.text {
                text.network.hold(precision, apart)?;
            }
        }
        Ok(())
    }

    /// How it samples where nothing else is asked for.
    pub fn sampling(&self) -> SamplingDefaults {
        self.config.stage2.as_ref().map(|stage2| stage2.sampling.clone()).unwrap_or_default()
    }

    /// The settings of samplers where nothing else is asked for: the reference's, but for the noise that
    /// suits the model.
    pub fn parameters(&self) -> Parameters {
        Parameters { s_noise: self.sampling().s_noise, ..Parameters::default() }
    }

    /// Whether it can give detail back: whether a stage 2 is loaded.
    pub fn has_stage2(&self) -> bool {
        self.stage2.is_some()
    }

    /// Whether its stage 2, loaded or not, reads prompts.
    pub fn has_text(&self) -> bool {
        self.config.stage2.as_ref().is_some_and(|stage2| stage2.text.is_some())
    }
}

impl Loading<'_> {
    /// One network from tensors all of which it must use.
    fn network<N>(
        &self,
        tensors: Checkpoint,
        network: impl Fn(&diffbir_nn::Params) -> Result<N, WeightError> + Send + Sync + 'static,
    ) -> Result<Resident<N>, WeightError> {
        Resident::new(tensors, (self.precision, self.device, self.apart), network)
    }

    fn stage1(&self, config: &ModelConfig, tensors: Checkpoint) -> Result<Resident<Stage1>, WeightError> {
        let sizes = config.stage1.clone();
        self.network(tensors, move |params| sizes.build(params))
    }

    fn stage2(&self, config: &Stage2Config, parts: &Parts) -> Result<Stage2, WeightError> {
        let tensors = parts.autoencoder.clone();
        let autoencoder = match config.autoencoder.clone() {
            AutoencoderConfig::Kl(sizes) => {
                self.network(tensors, move |params| sizes.build(params))?.map(boxed)
            }
            AutoencoderConfig::Taef2(sizes) => {
                self.network(tensors, move |params| sizes.build(params))?.map(boxed)
            }
        };
        let text = config.text.clone().map(|sizes| {
            let network = self.network(parts.text.clone(), move |params| sizes.build(params))?;
            Ok::<_, WeightError>(TextEncoder::new(network, self.device))
        });
        let (unet, control) = (config.unet.clone(), config.unet.clone());
        Ok(Stage2 {
            autoencoder,
            cell_px: config.autoencoder.downsampling(),
            latent_channels: config.autoencoder.latent_channels(),
            autoencoder_weights: parts.autoencoder.clone(),
            unet: self.network(parts.unet.clone(), move |params| unet.build(params))?,
            control: self.network(parts.control.clone(), move |params| ControlNet::new(params, &control))?,
            text: text.transpose()?,
            multiple: config.unet.multiple(),
            prediction: config.prediction,
            schedule: Schedule::new(config.terminal),
        })
    }
}

fn boxed<N: Autoencoder + 'static>(network: N) -> Box<dyn Autoencoder> {
    Box::new(network)
}
