//! Latents of training pictures, encoded once and kept in a folder, and the examples drawn from them.

use crate::data::DataError;
use crate::degrade::{Degradation, generator};
use crate::run::{TrainError, to_tensor};
use crate::stage1::training_ranges;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
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
        /// Stage 1: from a small picture to one four times as large.
        restore: &'a dyn Fn(&Raster) -> Raster,
        /// Tells one degradation of a picture from the next.
        draw: usize,
    },
}

/// A latent `[rows, columns, channels]`.
pub struct Latent {
    rows: usize,
    columns: usize,
    channels: usize,
    data: Vec<f32>,
}

impl Latent {
    /// A square crop of `side` cells.
    fn crop(&self, top: usize, left: usize, side: usize, out: &mut Vec<f32>) {
        for row in top..top + side {
            let start = (row * self.columns + left) * self.channels;
            out.extend_from_slice(&self.data[start..start + side * self.channels]);
        }
    }
}

/// The latents of all pictures in `folders`, from `cache` where they were made before.
pub fn encode_all(
    folders: &[PathBuf],
    cache: &Path,
    kind: &Kind,
    autoencoder: &dyn Autoencoder,
    device: &Device,
    report: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Latent>, TrainError> {
    let folder = match kind {
        Kind::Truth => cache.join("truth"),
        Kind::Stage1 { draw, .. } => cache.join(format!("stage1-{draw}")),
    };
    std::fs::create_dir_all(&folder).map_err(|source| TrainError::Write { file: folder.clone(), source })?;
    let mut files = Vec::new();
    for folder in folders {
        files.extend(crate::data::pictures_in(folder)?);
    }
    let mut latents = Vec::new();
    for (index, file) in files.iter().enumerate() {
        report(index, files.len());
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let kept = folder.join(format!("{stem}.safetensors"));
        if !kept.exists() {
            let latent = encode(file, &stem, kind, autoencoder, device)?;
            let mut checkpoint = Checkpoint::from_tensors(BTreeMap::from([("latent".into(), latent)]));
            checkpoint.metadata.insert("picture".into(), stem);
            let partial = kept.with_extension("partial");
            std::fs::write(&partial, checkpoint.to_safetensors(true)?)
                .and_then(|()| std::fs::rename(&partial, &kept))
                .map_err(|source| TrainError::Write { file: kept.clone(), source })?;
        }
        let checkpoint = Checkpoint::open(&kept)?;
        let (shape, data) = checkpoint.get("latent")?.ok_or_else(|| diffbir_nn::WeightError::File {
            file: kept.display().to_string(),
            reason: "holds no latent: remove it to have it made anew".into(),
        })?;
        latents.push(Latent { rows: shape[0], columns: shape[1], channels: shape[2], data });
    }
    Ok(latents)
}

fn encode(
    file: &Path,
    stem: &str,
    kind: &Kind,
    autoencoder: &dyn Autoencoder,
    device: &Device,
) -> Result<TensorData, TrainError> {
    let truth = diffbir_imaging::decode(file).map_err(DataError::from)?.to_raster();
    let side = |px: usize| px / 32 * 32;
    let truth = truth.crop(0, 0, side(truth.width_px), side(truth.height_px));
    let picture = match kind {
        Kind::Truth => truth,
        Kind::Stage1 { restore, draw } => {
            let mut random = generator(*draw as u64, stem);
            let degradation = Degradation::draw(&training_ranges(), 4, &mut random);
            let restored = restore(&degradation.apply(&truth, &mut random));
            resize::float(&restored, truth.width_px, truth.height_px, Filter::Bicubic)
        }
    };
    let latent = autoencoder.encode(to_tensor([&picture], device));
    let [_, rows, columns, channels] = latent.dims();
    Ok(latent.reshape([rows, columns, channels]).into_data())
}

/// What one step trains on: latents as `[batch, side, side, channels]`, times as `[batch]`.
pub struct LatentBatch {
    /// Latents of true crops.
    pub truth: Tensor<4>,
    /// Latents of the stage-1 pictures of the same crops, if there are any.
    pub condition: Option<Tensor<4>>,
    /// Standard normal noise.
    pub noise: Tensor<4>,
    /// Timesteps, whole numbers from 0 to 999.
    pub timesteps: Vec<usize>,
}

/// Draws the batch of one step; `conditions` holds for each draw one latent a picture.
pub fn batch(
    truths: &[Latent],
    conditions: &[Vec<Latent>],
    side: usize,
    count: usize,
    mut random: ChaCha8Rng,
    device: &Device,
) -> LatentBatch {
    let channels = truths[0].channels;
    let (mut truth, mut condition, mut timesteps) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..count {
        let picture = random.random_range(0..truths.len());
        let latent = &truths[picture];
        let top = random.random_range(0..=latent.rows - side);
        let left = random.random_range(0..=latent.columns - side);
        latent.crop(top, left, side, &mut truth);
        if !conditions.is_empty() {
            let draw = random.random_range(0..conditions.len());
            conditions[draw][picture].crop(top, left, side, &mut condition);
        }
        // One time from each of `count` equal spans: the loss of a batch varies less.
        let span = 1000.0 / count as f32;
        let time = (index as f32 + random.random::<f32>()) * span;
        timesteps.push((time as usize).min(999));
    }
    let shape = [count, side, side, channels];
    let noise = (0..truth.len()).map(|_| crate::degrade::normal(&mut random)).collect::<Vec<_>>();
    let tensor = |data: Vec<f32>| Tensor::from_data(TensorData::new(data, shape), device);
    LatentBatch {
        condition: (!conditions.is_empty()).then(|| tensor(condition)),
        truth: tensor(truth),
        noise: tensor(noise),
        timesteps,
    }
}
