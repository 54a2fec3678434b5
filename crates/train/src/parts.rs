//! Trained networks that a trainer uses and leaves as they are, and what they make of pictures and prompts.

use crate::anew::Anew;
use crate::config::{
    AutoencoderSizes, ConfigError, ControlConfig, LatentData, LatentValidation, RunConfig, TextConfig,
    Trained, recipe,
};
use crate::data::{Inventory, OpenConfig, Pictures};
use crate::degrade::generator;
use crate::files::{self, Part};
use crate::latents::{self, Drawing, Kind, Latent, LatentBatch, MULTIPLE_PX};
use crate::run::{Report, TrainError, to_tensor};
use crate::shown::{From, Shown};
use crate::stage1;
use crate::stage2::Objective;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::clip::ClipText;
use diffbir_models::stage1::{Stage1, Stage1Config};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{build, build_to_train};
use diffbir_nn::{Products, WeightError};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
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
    autoencoder_in(Products::F32, trained, device)
}

/// The same, multiplying in other numbers; its weights are constants where the device differentiates.
pub(crate) fn autoencoder_in(
    products: Products,
    trained: &Trained<AutoencoderSizes>,
    device: &Device,
) -> Result<Box<dyn Autoencoder>, WeightError> {
    let mut file = autoencoder_file(trained)?;
    let network: Box<dyn Autoencoder> = match &trained.network.sizes {
        AutoencoderSizes::Taef2(sizes) => {
            Box::new(build_to_train(products, &mut file, device, |params| sizes.build(params))?.0.no_grad())
        }
        AutoencoderSizes::Kl(sizes) => {
            Box::new(build_to_train(products, &mut file, device, |params| sizes.build(params))?.0.no_grad())
        }
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

    /// From a degraded picture to what stage 1 makes of it at this width and height.
    pub(crate) fn restore_to(&self, degraded: &Raster, (width_px, height_px): (usize, usize)) -> Raster {
        let picture = stage1::input(&self.sizes, degraded, width_px, height_px);
        let padded = picture.repeat_end(self.sizes.multiple_px());
        let out = self.network.forward(to_tensor([&padded], &self.device)).clamp(0.0, 1.0);
        let [_, rows, columns, channels] = out.dims();
        let data = out.into_data().iter::<f32>().collect();
        let (columns_inside, rows_inside) =
            (picture.width_px * columns / padded.width_px, picture.height_px * rows / padded.height_px);
        let restored = Raster { width_px: columns, height_px: rows, channels, data };
        let restored = restored.crop(0, 0, columns_inside, rows_inside);
        resize::float(&restored, width_px, height_px, Filter::Bicubic)
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
pub(crate) struct Sets<'a> {
    /// To train on.
    pub train: Source<'a>,
    /// To measure on.
    pub held_out: Pairs,
    /// To look at.
    pub shown: Option<Shown>,
}

/// Where batches come from.
pub(crate) enum Source<'a> {
    /// Latents that were made before, once for each degradation.
    Kept(Pairs),
    /// Pictures.
    Anew(Anew<'a>),
}

impl Source<'_> {
    /// The next batch, for a network on `device`; what is drawn of it is drawn from `random`.
    pub fn next(
        &mut self,
        drawing: &Drawing,
        random: ChaCha8Rng,
        device: &Device,
        report: &mut dyn FnMut(Report),
    ) -> Result<LatentBatch, TrainError> {
        match self {
            Self::Kept(Pairs { truths, conditions }) => {
                Ok(latents::batch(truths, conditions, drawing, random, device))
            }
            Self::Anew(anew) => anew.next(drawing, random, device, report),
        }
    }
}

/// Pictures of a run: to train on, and held out.
pub(crate) struct Opened {
    train: Pictures,
    held_out: Option<Pictures>,
}

impl Opened {
    /// What is trained on.
    pub fn inventory(&self) -> Inventory {
        self.train.inventory()
    }
}

/// Makes the latents of a run.
pub(crate) struct Encoder<'a> {
    pub(crate) data: &'a LatentData,
    pub(crate) held_out: &'a LatentValidation,
    pub(crate) text: &'a TextConfig,
    pub(crate) run: &'a RunConfig,
    pub(crate) autoencoder: Box<dyn Autoencoder>,
    /// What tells it from others.
    pub(crate) mark: String,
    /// What makes conditions, and from what.
    pub(crate) cleaner: Option<(Cleaner, &'a ControlConfig)>,
    pub(crate) device: Device,
}

impl Encoder<'_> {
    /// Finds the pictures: what can be wrong with a source is noticed before the first latent.
    pub(crate) fn open(&self, report: &mut dyn FnMut(Report)) -> Result<Opened, TrainError> {
        let (data, held_out) = (self.data, &self.held_out.folders);
        let mut kept =
            |sources: &[PathBuf]| latents::open(sources, data.side_cells, &*self.autoencoder, report);
        let held_out = (!held_out.is_empty()).then(|| kept(held_out)).transpose()?;
        if !data.makes_anew() {
            return Ok(Opened { train: kept(&data.folders)?, held_out });
        }
        let side_px = data.side_cells * self.autoencoder.downsampling();
        if !side_px.is_multiple_of(MULTIPLE_PX) {
            let reason =
                format!("makes crops of {side_px} pixels, which must be a multiple of {MULTIPLE_PX}");
            return Err(ConfigError::Field { field: "data.side_cells".into(), reason }.into());
        }
        let train = Pictures::open(&data.folders, &OpenConfig::new(data.crop, side_px), report)?;
        train.fill(self.run.batch)?;
        Ok(Opened { train, held_out })
    }

    /// What a run sees from the batch of number `first` on, counted from 0.
    pub(crate) fn sets(
        &self,
        Opened { train, held_out }: Opened,
        objective: &Objective,
        first: u64,
        report: &mut dyn FnMut(Report),
    ) -> Result<Sets<'_>, TrainError> {
        let train = match self.data.makes_anew() {
            true => Source::Anew(Anew::open(self, &train, self.text, self.run, first)?),
            false => Source::Kept(self.pairs(&train, "train", report)?),
        };
        let Some(pictures) = held_out else {
            return Ok(Sets { train, held_out: Pairs::default(), shown: None });
        };
        let held_out = self.pairs(&pictures, "valid", report)?;
        let conditions = self.cleaner.as_ref();
        let recipe = conditions.map(|(_, control)| recipe(&control.recipe)).transpose()?;
        let from = From {
            pictures: &pictures,
            count: self.held_out.shown,
            side: self.data.side_cells,
            autoencoder: &*self.autoencoder,
            conditions: conditions
                .zip(recipe.as_ref())
                .map(|((cleaner, control), recipe)| (cleaner, recipe, control.noise_aug_timestep)),
            prompt: &self.text.prompt,
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
        // Those of held-out pictures are kept in any case.
        let cache = match self.data.makes_anew() {
            true => self.run.output.join("latents").join(name),
            false => self.data.latents.join(name),
        };
        let side = self.data.side_cells;
        let mut encode = |kind: &Kind, made_by: &str| {
            let autoencoder = (&*self.autoencoder, made_by);
            latents::encode_all(pictures, &cache, kind, side, autoencoder, &self.device, report)
        };
        let truths = encode(&Kind::Truth, &self.mark)?;
        let mut conditions = Vec::new();
        if let Some((cleaner, ControlConfig { draws, recipe: name, .. })) = &self.cleaner {
            let restore = |degraded: &Raster, size_px| cleaner.restore_to(degraded, size_px);
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
