//! Pictures that show how far a denoiser is: drawn for held-out pictures (reference 5.2).

use crate::data::Pictures;
use crate::degrade::{Recipe, generator, normal};
use crate::latents::degraded_and_restored;
use crate::parts::{Cleaner, Texts};
use crate::run::{Measured, TrainError, to_tensor};
use crate::stage2::Objective;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_diffusion::noise::{Noise, Source, TorchNoise};
use diffbir_diffusion::schedule::LAST_T;
use diffbir_diffusion::{Guidance, Latent, Parameters, Sampler, Sampling};
use diffbir_imaging::Raster;
use diffbir_models::autoencoder::Autoencoder;
use rand::Rng;
use std::convert::Infallible;
use std::path::Path;

/// Steps of the sampler, the reference's.
const STEPS: usize = 50;

/// Crops of held-out pictures, with all that is drawn from.
pub(crate) struct Shown {
    truths: Vec<Raster>,
    /// Degraded, and what stage 1 makes of that.
    pairs: Option<(Vec<Raster>, Vec<Raster>)>,
    /// Latents of the latter.
    condition: Option<Tensor<4>>,
    /// The condition under the noise of random timesteps, where a branch is trained with that.
    noisy: Option<Tensor<4>>,
    prompts: Vec<String>,
    /// Of the latents drawn: `[pictures, side, side, channels]`.
    shape: [usize; 4],
}

/// Of what pictures are shown.
pub(crate) struct From<'a> {
    /// Held out.
    pub pictures: &'a Pictures,
    /// So many of them at most.
    pub count: usize,
    /// Side of a crop, cells.
    pub side: usize,
    /// Whose latents.
    pub autoencoder: &'a dyn Autoencoder,
    /// What makes conditions, from what, and the noise that they get.
    pub conditions: Option<(&'a Cleaner, &'a Recipe, usize)>,
    /// The prompt of a picture without a caption.
    pub prompt: &'a str,
}

impl Shown {
    /// Nothing where no picture can be read.
    pub fn open(from: From, objective: &Objective, device: &Device) -> Result<Option<Self>, TrainError> {
        let side_px = from.side * from.autoencoder.downsampling();
        let (mut truths, mut prompts) = (Vec::new(), Vec::new());
        let (mut degraded, mut cleaned) = (Vec::new(), Vec::new());
        for index in 0..from.pictures.len() {
            if truths.len() == from.count {
                break;
            }
            // What cannot be read has been told when latents were made.
            let Ok(picture) = from.pictures.picture(index) else { continue };
            let truth = picture.crop(0, 0, side_px, side_px);
            if let Some((cleaner, recipe, _)) = from.conditions {
                let name = from.pictures.name(index);
                let stem = Path::new(&name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let restore = |degraded: &Raster, size_px| cleaner.restore_to(degraded, size_px);
                let (low, clean) = degraded_and_restored(&truth, (recipe, 0, &stem), &restore)?;
                degraded.push(low);
                cleaned.push(clean);
            }
            let captions = from.pictures.captions(index).ok().flatten();
            prompts.push(captions.map_or_else(|| from.prompt.into(), |[short, _]| short));
            truths.push(truth);
        }
        if truths.is_empty() {
            return Ok(None);
        }
        let condition = from.conditions.map(|_| from.autoencoder.encode(to_tensor(cleaned.iter(), device)));
        let noisy = match (&condition, from.conditions) {
            (Some(condition), Some((_, _, below @ 1..))) => {
                let mut random = generator(0, "shown");
                let times: Vec<usize> = truths.iter().map(|_| random.random_range(0..below)).collect();
                let noise = (0..condition.shape().num_elements()).map(|_| normal(&mut random)).collect();
                let noise = Tensor::from_data(TensorData::new::<f32, _>(noise, condition.dims()), device);
                Some(objective.noised(condition.clone(), &noise, &times))
            }
            _ => None,
        };
        let shape = [truths.len(), from.side, from.side, from.autoencoder.latent_channels()];
        let pairs = from.conditions.map(|_| (degraded, cleaned));
        Ok(Some(Self { truths, pairs, condition, noisy, prompts, shape }))
    }

    /// `measured`, and the pictures that `predict` draws, of latents, conditions, times `[b]` and what the UNet reads.
    /// The noise is the same each time.
    pub fn draw(
        &self,
        measured: Measured,
        objective: &Objective,
        (autoencoder, texts): (&dyn Autoencoder, &Texts),
        device: &Device,
        predict: impl Fn(Tensor<4>, Option<Tensor<4>>, Tensor<1>, Option<Tensor<3>>) -> Tensor<4>,
    ) -> Measured {
        let [count, ..] = self.shape;
        let context = texts.context(&self.prompts, device);
        let sampling = Sampling {
            schedule: &objective.schedule,
            prediction: objective.prediction,
            first_t: LAST_T,
            steps: STEPS,
            guidance: Guidance { scale: 1.0, rescale: false },
            has_negative: false,
            parameters: Parameters::default(),
        };
        // The sampler goes number by number, so their order is free: here it is the network's.
        let tensor =
            |latent: &Latent| Tensor::from_data(TensorData::new(latent.data.clone(), self.shape), device);
        let mut noise = TorchNoise::new(Source::TorchCpu, 0);
        let [batch, height, width, channels] = self.shape;
        let data = noise.normal(self.shape.iter().product());
        let start = Latent { batch, channels, height, width, data };
        let mut denoise = |x: &Latent, t: f64, _: &[_]| -> Result<Vec<Latent>, Infallible> {
            let times = Tensor::from_floats(vec![t as f32; count].as_slice(), device);
            let out = predict(tensor(x), self.condition.clone(), times, context.clone());
            Ok(vec![x.with(out.into_data().iter::<f32>().collect())])
        };
        // A model that predicts eps cannot start where there is no signal.
        let sampled = sampling.run(Sampler::Spaced, start, &mut noise, &mut denoise, &mut |_| {}).ok();
        let decoded = |latents: Tensor<4>| rasters(autoencoder.decode(latents));
        let mut pictures = measured.pictures;
        pictures.extend(sampled.map(|latent| ("image/samples", decoded(tensor(&latent)))));
        pictures.push(("image/gt", self.truths.clone()));
        if let Some((degraded, cleaned)) = &self.pairs {
            pictures.push(("image/lq", degraded.clone()));
            pictures.push(("image/condition", cleaned.clone()));
        }
        let conditions =
            [("image/condition_decoded", &self.condition), ("image/condition_aug_decoded", &self.noisy)];
        for (tag, condition) in conditions {
            pictures.extend(condition.clone().map(|condition| (tag, decoded(condition))));
        }
        let prompts =
            self.prompts.iter().enumerate().map(|(index, prompt)| format!("{}. {prompt}\n", index + 1));
        let prompts = context.map(|_| ("image/prompt", prompts.collect()));
        Measured { pictures, texts: prompts.into_iter().collect(), ..measured }
    }
}

/// Pictures `[b, h, w, 3]` one by one, cut off at 0 and 1.
fn rasters(pictures: Tensor<4>) -> Vec<Raster> {
    let [_, height_px, width_px, channels] = pictures.dims();
    let data: Vec<f32> = pictures.clamp(0.0, 1.0).into_data().iter::<f32>().collect();
    data.chunks_exact(height_px * width_px * channels)
        .map(|data| Raster { width_px, height_px, channels, data: data.to_vec() })
        .collect()
}
