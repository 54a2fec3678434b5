//! Latents of training pictures, encoded once and kept in a folder, and the examples drawn from them.

use crate::config::{TextConfig, Timesteps};
use crate::data::{Crop, DataError, OpenConfig, Pictures};
use crate::degrade::{Recipe, generator, normal};
use crate::run::{Batch, Report, TrainError, to_tensor};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_imaging::{Raster, remove_orphans, write_atomic_with};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_nn::checkpoint::Checkpoint;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which latents of a picture are kept.
pub enum Kind<'a> {
    /// Of the true picture.
    Truth,
    /// Of what stage 1 makes of the picture degraded, drawn by this number.
    Stage1 {
        /// Stage 1: from a degraded picture to what it makes of it at this size.
        restore: &'a dyn Fn(&Raster, (usize, usize)) -> Raster,
        /// From which degradations are drawn.
        recipe: &'a Recipe,
        /// The latents of the true pictures.
        truths: &'a [Latent],
        /// Tells one degradation of a picture from the next.
        draw: usize,
    },
}

/// A latent `[rows, columns, channels]`; a true one that is drawn anew each time has its mean and, behind it, its
/// standard deviation.
pub struct Latent {
    rows: usize,
    columns: usize,
    channels: usize,
    data: Vec<f32>,
    /// The picture's own words, few and many.
    captions: Option<[String; 2]>,
}

impl Latent {
    fn cells(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// A square crop of `side` cells.
    fn crop(&self, top: usize, left: usize, side: usize, out: &mut Vec<f32>) {
        for row in top..top + side {
            let start = (row * self.columns + left) * self.channels;
            out.extend_from_slice(&self.data[start..start + side * self.channels]);
        }
    }
}

/// The key of a latent's metadata that tells by which networks it was made.
const MADE_BY: &str = "made_by";

/// Pictures are cut to whole multiples of this side.
pub(crate) const MULTIPLE_PX: usize = 32;

/// Of a longer side the middle is kept: networks go through a picture in one piece.
const MOST_PX: usize = 1024;

/// The pictures of some sources that latents with at least `side` cells a side can be made of.
pub fn open(
    sources: &[PathBuf],
    side: usize,
    autoencoder: &dyn Autoencoder,
    report: &mut dyn FnMut(Report),
) -> Result<Pictures, DataError> {
    let least_px = (side * autoencoder.downsampling()).next_multiple_of(MULTIPLE_PX);
    // Each picture is decoded once, if at all, so none is kept.
    let config = OpenConfig { memory_bytes: 0, ..OpenConfig::new(Crop::Inside, least_px) };
    Pictures::open(sources, &config, report)
}

/// The latents of all pictures that have at least `side` cells a side, from `cache` where they were made before by
/// the same networks, which `made_by` tells from others. The true ones come first: a picture that is left out of
/// them is reported and left out of the other kinds too, so that all kinds have the same pictures.
pub fn encode_all(
    pictures: &Pictures,
    cache: &Path,
    kind: &Kind,
    side: usize,
    (autoencoder, made_by): (&dyn Autoencoder, &str),
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<Vec<Latent>, TrainError> {
    let truths = cache.join("truth");
    let folder = match kind {
        Kind::Truth => truths.clone(),
        Kind::Stage1 { draw, .. } => cache.join(format!("stage1-{draw}")),
    };
    std::fs::create_dir_all(&folder).map_err(|source| TrainError::Write { file: folder.clone(), source })?;
    remove_orphans(&folder);
    let is_truth = matches!(kind, Kind::Truth);
    let mut latents = Vec::new();
    for index in 0..pictures.len() {
        report(Report::Latents { done: index, total: pictures.len() });
        let shown = pictures.name(index);
        let stem = Path::new(&shown).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{stem}-{:016x}.safetensors", hash_of(&shown));
        if !is_truth && !truths.join(&name).exists() {
            continue;
        }
        let kept = folder.join(name);
        if !kept.exists() {
            let picture = match pictures.picture(index) {
                Ok(picture) => picture,
                Err(why) if is_truth => {
                    report(Report::LeftOut { why });
                    continue;
                }
                Err(why) => return Err(DataError::Changed { why }.into()),
            };
            let latent = encode(&picture, &stem, kind, autoencoder, device)?;
            let mut checkpoint = Checkpoint::from_tensors(BTreeMap::from([("latent".into(), latent)]));
            checkpoint.metadata.insert("picture".into(), stem);
            checkpoint.metadata.insert(MADE_BY.into(), made_by.into());
            write_atomic_with(&kept, |out| checkpoint.write_safetensors(true, out))?;
        }
        let checkpoint = Checkpoint::open(&kept)?;
        let (shape, data) = checkpoint.get("latent")?.ok_or_else(|| diffbir_nn::WeightError::File {
            file: kept.display().to_string(),
            reason: "holds no latent: remove it to have it made anew".into(),
        })?;
        let another = || DataError::Changed {
            why: format!(
                "{}: is the latent of another picture, or made by other networks: remove {} to have all made anew",
                kept.display(),
                cache.display()
            ),
        };
        if checkpoint.metadata.get(MADE_BY).map(String::as_str) != Some(made_by) {
            return Err(another().into());
        }
        let latent = match shape[..] {
            [rows, columns, channels]
                if channels == autoencoder.latent_channels()
                    || is_truth && channels == 2 * autoencoder.latent_channels() =>
            {
                let captions = || pictures.captions(index).map_err(|why| DataError::Changed { why });
                let captions = if is_truth { captions()? } else { None };
                Latent { rows, columns, channels, data, captions }
            }
            _ => return Err(another().into()),
        };
        if let Kind::Stage1 { truths, .. } = kind
            && truths.get(latents.len()).is_none_or(|truth| truth.cells() != latent.cells())
        {
            return Err(another().into());
        }
        // One that was kept before may be of a picture that is too small.
        if latent.rows.min(latent.columns) >= side {
            latents.push(latent);
            continue;
        }
        let px = |cells: usize| cells * autoencoder.downsampling();
        let (width_px, height_px, needed) = (px(latent.columns), px(latent.rows), px(side));
        let why = format!("{shown}: has {width_px} x {height_px} pixels, but {needed} x {needed} are needed");
        match is_truth {
            true => report(Report::LeftOut { why }),
            false => return Err(DataError::Changed { why }.into()),
        }
    }
    if latents.is_empty() {
        return Err(pictures.nothing().into());
    }
    Ok(latents)
}

/// Tells pictures of one name in different folders apart.
fn hash_of(picture: &str) -> u64 {
    let place = Path::new(picture).canonicalize();
    generator(0, &place.map_or_else(|_| picture.into(), |place| place.to_string_lossy().into_owned()))
        .random()
}

fn encode(
    picture: &Raster,
    stem: &str,
    kind: &Kind,
    autoencoder: &dyn Autoencoder,
    device: &Device,
) -> Result<TensorData, DataError> {
    let whole = |px: usize| px.min(MOST_PX) / MULTIPLE_PX * MULTIPLE_PX;
    let before = |px: usize| px.saturating_sub(MOST_PX) / 2;
    let (width_px, height_px) = picture.size();
    let truth = picture.crop(before(width_px), before(height_px), whole(width_px), whole(height_px));
    let latent = match kind {
        Kind::Truth => autoencoder.distribution(to_tensor([&truth], device)),
        Kind::Stage1 { restore, recipe, draw, .. } => {
            let (_, restored) = degraded_and_restored(&truth, (recipe, *draw, stem), restore)?;
            autoencoder.encode(to_tensor([&restored], device))
        }
    };
    let [_, rows, columns, channels] = latent.dims();
    Ok(latent.reshape([rows, columns, channels]).into_data())
}

/// A picture as a recipe degrades it, by the draw of this number for a picture of this name, and what stage 1 makes of
/// that at the picture's size.
pub(crate) fn degraded_and_restored(
    truth: &Raster,
    (recipe, draw, stem): (&Recipe, usize, &str),
    restore: &dyn Fn(&Raster, (usize, usize)) -> Raster,
) -> Result<(Raster, Raster), DataError> {
    let drawn = recipe.draw(&mut generator(draw as u64, stem));
    let size_px = truth.width_px.max(truth.height_px);
    let degraded = drawn.apply(truth).map_err(|source| DataError::Degrade { size_px, source })?;
    let restored = restore(&degraded, truth.size());
    Ok((degraded, restored))
}

/// What one backward pass is on: latents as `[batch, side, side, channels]`.
pub struct LatentBatch {
    /// Latents of true crops.
    pub truth: Tensor<4>,
    /// Latents of the stage-1 pictures of the same crops, if there are any.
    pub condition: Option<Tensor<4>>,
    /// Standard normal noise.
    pub noise: Tensor<4>,
    /// Timesteps, whole numbers from 0 to 999.
    pub timesteps: Vec<usize>,
    /// Noise of the condition and its timesteps, where it gets any.
    pub augmentation: Option<(Tensor<4>, Vec<usize>)>,
    /// What the UNet reads, where it reads.
    pub prompts: Vec<String>,
    /// The true crops themselves, `[batch, height, width, 3]`, where latents are made anew.
    pub pictures: Option<TensorData>,
}

impl Batch for LatentBatch {
    fn tensors(&self) -> Vec<(&'static str, TensorData)> {
        let row = |times: &[usize]| {
            TensorData::new(times.iter().map(|&t| t as f32).collect::<Vec<_>>(), [times.len()])
        };
        let mut tensors = vec![
            ("truth", self.truth.to_data()),
            ("noise", self.noise.to_data()),
            ("timesteps", row(&self.timesteps)),
        ];
        tensors.extend(self.condition.iter().map(|condition| ("condition", condition.to_data())));
        tensors.extend(self.pictures.iter().map(|pictures| ("pictures", pictures.clone())));
        if let Some((noise, times)) = &self.augmentation {
            tensors.extend([("condition_noise", noise.to_data()), ("condition_timesteps", row(times))]);
        }
        tensors
    }
}

/// How a batch is drawn.
pub struct Drawing<'a> {
    /// Side of a crop, cells.
    pub side: usize,
    /// Examples.
    pub count: usize,
    /// Channels of a latent.
    pub channels: usize,
    /// The condition gets the noise of a timestep below this; 0 for none.
    pub noise_aug_timestep: usize,
    /// How timesteps are drawn.
    pub timesteps: Timesteps,
    /// Which words the UNet reads.
    pub text: &'a TextConfig,
}

impl Drawing<'_> {
    /// The timestep of an example.
    fn timestep(&self, index: usize, random: &mut ChaCha8Rng) -> usize {
        match self.timesteps {
            Timesteps::Independent => random.random_range(0..1000),
            Timesteps::Stratified => {
                let span = 1000.0 / self.count as f32;
                let time = (index as f32 + random.random::<f32>()) * span;
                (time as usize).min(999)
            }
        }
    }

    /// The timestep of the noise that a condition gets, if it gets any.
    fn noise_aug(&self, random: &mut ChaCha8Rng) -> Option<usize> {
        (self.noise_aug_timestep > 0).then(|| random.random_range(0..self.noise_aug_timestep))
    }

    fn is_emptied(&self, random: &mut ChaCha8Rng) -> bool {
        random.random_bool(self.text.dropout)
    }

    /// A batch of latents that are there, `truth` and `condition` as `[batch, side, side, channels]`; what is left to
    /// be drawn is noise.
    fn batch(
        &self,
        (truth, condition): (Vec<f32>, Option<Vec<f32>>),
        (timesteps, noise_aug): (Vec<usize>, Vec<usize>),
        prompts: Vec<String>,
        mut random: ChaCha8Rng,
        device: &Device,
    ) -> LatentBatch {
        let shape = [self.count, self.side, self.side, self.channels];
        let tensor = |data: Vec<f32>| Tensor::from_data(TensorData::new(data, shape), device);
        let mut noise = || tensor((0..shape.iter().product()).map(|_: usize| normal(&mut random)).collect());
        LatentBatch {
            noise: noise(),
            augmentation: (!noise_aug.is_empty()).then(|| (noise(), noise_aug)),
            condition: condition.map(tensor),
            truth: tensor(truth),
            timesteps,
            prompts,
            pictures: None,
        }
    }
}

/// A cell of a true latent, or one that is drawn from its distribution.
fn cell(cell: &[f32], channels: usize, random: &mut ChaCha8Rng, out: &mut Vec<f32>) {
    let (means, deviations) = cell.split_at(channels);
    if deviations.is_empty() {
        out.extend(means);
    } else {
        out.extend(means.iter().zip(deviations).map(|(m, d)| m + d * normal(random)));
    }
}

/// Latents of the crops of a batch, before anything is drawn for them.
pub(crate) struct Crops {
    /// `[batch, side, side, channels]`, or of twice as many channels where they are to be drawn.
    pub truth: Vec<f32>,
    /// `[batch, side, side, channels]`
    pub condition: Option<Vec<f32>>,
    /// Captions; nothing where a picture has none.
    pub prompts: Vec<String>,
    /// The crops as they are.
    pub pictures: TensorData,
}

impl Crops {
    /// The batch of one backward pass.
    pub fn drawn(self, drawing: &Drawing, mut random: ChaCha8Rng, device: &Device) -> LatentBatch {
        let width = self.truth.len() / (drawing.count * drawing.side * drawing.side);
        let mut truth = Vec::new();
        for values in self.truth.chunks_exact(width) {
            cell(values, drawing.channels, &mut random, &mut truth);
        }
        let (mut timesteps, mut noise_aug, mut prompts) = (Vec::new(), Vec::new(), Vec::new());
        for (index, own) in self.prompts.into_iter().enumerate() {
            timesteps.push(drawing.timestep(index, &mut random));
            noise_aug.extend(drawing.noise_aug(&mut random));
            let prompt = if own.is_empty() { drawing.text.prompt.clone() } else { own };
            prompts.push(if drawing.is_emptied(&mut random) { String::new() } else { prompt });
        }
        let pictures = Some(self.pictures);
        let latents = (truth, self.condition);
        LatentBatch { pictures, ..drawing.batch(latents, (timesteps, noise_aug), prompts, random, device) }
    }
}

/// Draws the batch of one backward pass; `conditions` holds for each draw one latent a picture.
pub fn batch(
    truths: &[Latent],
    conditions: &[Vec<Latent>],
    drawing: &Drawing,
    mut random: ChaCha8Rng,
    device: &Device,
) -> LatentBatch {
    let Drawing { side, count, channels, text, .. } = *drawing;
    let (mut truth, mut condition) = (Vec::new(), Vec::new());
    let (mut timesteps, mut noise_aug, mut prompts) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..count {
        let picture = random.random_range(0..truths.len());
        let latent = &truths[picture];
        let top = random.random_range(0..=latent.rows - side);
        let left = random.random_range(0..=latent.columns - side);
        let mut crop = Vec::new();
        latent.crop(top, left, side, &mut crop);
        for values in crop.chunks_exact(latent.channels) {
            cell(values, channels, &mut random, &mut truth);
        }
        if !conditions.is_empty() {
            let draw = random.random_range(0..conditions.len());
            conditions[draw][picture].crop(top, left, side, &mut condition);
        }
        timesteps.push(drawing.timestep(index, &mut random));
        noise_aug.extend(drawing.noise_aug(&mut random));
        let emptied = drawing.is_emptied(&mut random);
        let own = latent.captions.as_ref().map(|[short, long]| {
            // Nothing is drawn where there is nothing to choose, so that runs of earlier versions go on as they began.
            let is_long = text.long_captions > 0.0 && random.random_bool(text.long_captions);
            if is_long { long } else { short }
        });
        prompts.push(if emptied { String::new() } else { own.unwrap_or(&text.prompt).clone() });
    }
    let condition = (!conditions.is_empty()).then_some(condition);
    drawing.batch((truth, condition), (timesteps, noise_aug), prompts, random, device)
}
