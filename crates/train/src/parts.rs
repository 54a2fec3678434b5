//! Trained networks that a trainer uses and leaves as they are, and what they make of pictures and prompts.

use crate::config::{
    AutoencoderSizes, ControlConfig, LatentData, LatentValidation, TextConfig, Trained, recipe,
};
use crate::data::Pictures;
use crate::degrade::generator;
use crate::files::{self, Part};
use crate::latents::{self, Kind, Latent};
use crate::run::{Report, TrainError, to_tensor};
use crate::shown::{From, Shown};
use crate::stage1;
use crate::stage2::Objective;
use burn::tensor::{Device, Int, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::clip::ClipText;
use diffbir_models::stage1::{Stage1, Stage1Config};
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::build;
use rand::Rng;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// An autoencoder's tensors.
pub fn autoencoder_file(trained: &Trained<AutoencoderSizes>) -> Result<Checkpoint, WeightError> {
    match &trained.network.sizes {
        AutoencoderSizes::Taef2(_) if trained.path.join("config.toml").exists() || !trained.path.is_dir() => {
            Part::Autoencoder.open(&trained.path)
        }
        AutoencoderSizes::Taef2(_) => files::taef2(&trained.path),
        AutoencoderSizes::Kl(_) => Part::Autoencoder.open(&trained.path),
    }
}

/// A text encoder's tensors, without a mask that some copies carry and that is computed.
pub fn text_file(file: &Path) -> Result<Checkpoint, WeightError> {
    let keep =
        |name: &str, shape: &[usize]| (name != "model.attn_mask").then(|| (name.into(), shape.to_vec()));
    Ok(Part::Text.open(file)?.renamed(keep))
}

pub(crate) fn autoencoder(
    trained: &Trained<AutoencoderSizes>,
    device: &Device,
) -> Result<Box<dyn Autoencoder>, WeightError> {
    let mut file = autoencoder_file(trained)?;
    let network: Box<dyn Autoencoder> = match &trained.network.sizes {
        AutoencoderSizes::Taef2(sizes) => Box::new(build(&mut file, device, |params| sizes.build(params))?.0),
        AutoencoderSizes::Kl(sizes) => Box::new(build(&mut file, device, |params| sizes.build(params))?.0),
    };
    file.expect_all_used()?;
    Ok(network)
}

/// A stage 1 whose pictures are conditions.
pub(crate) struct Cleaner {
    sizes: Stage1Config,
    network: Stage1,
    /// What tells it from others.
    mark: String,
    device: Device,
}

impl Cleaner {
    pub(crate) fn open(trained: &Trained<Stage1Config>, device: &Device) -> Result<Self, TrainError> {
        let sizes = trained.network.sizes.clone();
        let mut file = Part::Stage1.open(&trained.path)?;
        let (network, _) = build(&mut file, device, |params| sizes.build(params))?;
        file.expect_all_used()?;
        Ok(Self { sizes, network, mark: files::mark(Part::Stage1, &trained.path)?, device: device.clone() })
    }

    /// From a degraded picture to what stage 1 makes of it for a true picture of this size.
    pub(crate) fn restore(&self, degraded: &Raster, [width_px, height_px]: [usize; 2]) -> Raster {
        let picture = stage1::input(&self.sizes, degraded, width_px, height_px);
        let out = self.network.forward(to_tensor([&picture], &self.device)).clamp(0.0, 1.0);
        let [_, height_px, width_px, channels] = out.dims();
        let data = out.into_data().iter::<f32>().collect();
        Raster { width_px, height_px, channels, data }
    }
}

/// So many prompts are remembered.
const REMEMBERED: usize = 64;

/// A text encoder that remembers what it has made of each prompt.
pub(crate) struct Texts {
    network: Option<ClipText>,
    device: Device,
    known: Mutex<HashMap<String, Tensor<3>>>,
}

impl Texts {
    pub(crate) fn open(config: &TextConfig, device: &Device) -> Result<Self, WeightError> {
        let open = |file: &PathBuf| {
            let mut file = text_file(file)?;
            Ok(build(&mut file, device, |params| config.network.sizes.build(params))?.0)
        };
        let network = config.encoder.as_ref().map(open).transpose()?;
        Ok(Self { network, device: device.clone(), known: Mutex::default() })
    }

    /// What a denoiser on `device` reads of these prompts, `[b, tokens, width]`; nothing without an encoder.
    pub(crate) fn context(&self, prompts: &[String], device: &Device) -> Option<Tensor<3>> {
        let network = self.network.as_ref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > REMEMBERED {
            known.clear();
        }
        let mut encode = |prompt: &String| {
            let encoded = known.entry(prompt.clone()).or_insert_with(|| {
                let ids = diffbir_text::tokens(prompt).map(i64::from);
                let ids = TensorData::new(ids.to_vec(), [1, ids.len()]);
                network.forward(Tensor::<2, Int>::from_data(ids, &self.device))
            });
            Tensor::from_data(encoded.to_data(), device)
        };
        Some(Tensor::cat(prompts.iter().map(&mut encode).collect(), 0))
    }
}

/// Latents of pictures, and for each degradation those of their stage-1 pictures.
#[derive(Default)]
pub struct Pairs {
    /// Of the true pictures.
    pub truths: Vec<Latent>,
    /// Of the same pictures in the same order, once for each degradation.
    pub conditions: Vec<Vec<Latent>>,
}

/// What a run trains on and what it is only measured on.
pub(crate) struct Sets {
    /// To train on.
    pub train: Pairs,
    /// To measure on.
    pub held_out: Pairs,
    /// To look at.
    pub shown: Option<Shown>,
}

/// Makes the latents of a run.
pub(crate) struct Encoder<'a> {
    pub(crate) data: &'a LatentData,
    pub(crate) held_out: &'a LatentValidation,
    pub(crate) autoencoder: Box<dyn Autoencoder>,
    /// What tells it from others.
    pub(crate) mark: String,
    /// What makes conditions, and from what.
    pub(crate) cleaner: Option<(Cleaner, &'a ControlConfig)>,
    pub(crate) device: Device,
}

impl Encoder<'_> {
    /// `prompt` is that of pictures without a caption.
    pub(crate) fn sets(
        &self,
        objective: &Objective,
        prompt: &str,
        report: &mut dyn FnMut(Report),
    ) -> Result<Sets, TrainError> {
        // What can be wrong with a source is noticed before the first latent.
        let mut open =
            |sources: &[PathBuf]| latents::open(sources, self.data.side_cells, &*self.autoencoder, report);
        let train = open(&self.data.folders)?;
        let LatentValidation { folders, shown } = self.held_out;
        let held_out = (!folders.is_empty()).then(|| open(folders)).transpose()?;
        let train = self.pairs(&train, "train", report)?;
        let Some(pictures) = held_out else {
            return Ok(Sets { train, held_out: Pairs::default(), shown: None });
        };
        let held_out = self.pairs(&pictures, "valid", report)?;
        let conditions = self.cleaner.as_ref();
        let recipe = conditions.map(|(_, control)| recipe(&control.recipe)).transpose()?;
        let from = From {
            pictures: &pictures,
            count: *shown,
            side: self.data.side_cells,
            autoencoder: &*self.autoencoder,
            conditions: conditions
                .zip(recipe.as_ref())
                .map(|((cleaner, control), recipe)| (cleaner, recipe, control.noise_aug_timestep)),
            prompt,
        };
        let shown = Shown::open(from, objective, &self.device)?;
        Ok(Sets { train, held_out, shown })
    }

    fn pairs(
        &self,
        pictures: &Pictures,
        name: &str,
        report: &mut dyn FnMut(Report),
    ) -> Result<Pairs, TrainError> {
        let cache = self.data.latents.join(name);
        let side = self.data.side_cells;
        let mut encode = |kind: &Kind, made_by: &str| {
            let autoencoder = (&*self.autoencoder, made_by);
            latents::encode_all(pictures, &cache, kind, side, autoencoder, &self.device, report)
        };
        let truths = encode(&Kind::Truth, &self.mark)?;
        let mut conditions = Vec::new();
        if let Some((cleaner, ControlConfig { draws, recipe: name, .. })) = &self.cleaner {
            let restore = |degraded: &Raster, size: [usize; 2]| cleaner.restore(degraded, size);
            let recipe = recipe(name)?;
            let drawn_from: u64 = generator(0, &format!("{recipe:?}")).random();
            let made_by = format!("{} {} {drawn_from:016x}", self.mark, cleaner.mark);
            for draw in 0..*draws {
                let kind = Kind::Stage1 { restore: &restore, recipe: &recipe, truths: &truths, draw };
                conditions.push(encode(&kind, &made_by)?);
            }
        }
        Ok(Pairs { truths, conditions })
    }
}
