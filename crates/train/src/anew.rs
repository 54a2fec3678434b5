//! Latents that are made in the step that they are for, as the reference does (5.2): of crops that threads have
//! degraded, by stage 1 and the autoencoder.

use crate::config::{RunConfig, TextConfig, recipe};
use crate::data::{Batches, Example, ExampleConfig, LoadConfig, Pictures};
use crate::degrade::Recipe;
use crate::latents::{Crops, Drawing, LatentBatch};
use crate::parts::Encoder;
use crate::run::{Report, TrainError, to_tensor};
use burn::tensor::{Device, Tensor};
use diffbir_imaging::Raster;
use rand_chacha::ChaCha8Rng;

/// Batches of a run whose latents are not kept.
pub(crate) struct Anew<'a> {
    encoder: &'a Encoder<'a>,
    batches: Batches,
}

impl<'a> Anew<'a> {
    /// From the batch of number `first` on, counted from 0.
    pub fn open(
        encoder: &'a Encoder<'a>,
        pictures: &Pictures,
        text: &TextConfig,
        run: &RunConfig,
        first: u64,
    ) -> Result<Self, TrainError> {
        let control = encoder.cleaner.as_ref().map(|(_, control)| *control);
        let recipe = control.map_or(Ok(Recipe::nothing()), |control| recipe(&control.recipe))?;
        let examples = ExampleConfig {
            augment: encoder.data.augment,
            by_batch: control.is_some_and(|control| control.by_batch),
            pool: control.map_or(0, |control| control.pool),
            long_caption: text.long_captions,
            ..ExampleConfig::new(recipe)
        };
        let load = LoadConfig { seed: run.seed, batch: run.batch, workers: None };
        Ok(Self { encoder, batches: pictures.batches(&examples, &load, first)? })
    }

    /// The next batch, for a network on `device`.
    pub fn next(
        &mut self,
        drawing: &Drawing,
        random: ChaCha8Rng,
        device: &Device,
        report: &mut dyn FnMut(Report),
    ) -> Result<LatentBatch, TrainError> {
        let examples = self.batches.next(report)?;
        let Encoder { autoencoder, cleaner, device: plain, .. } = self.encoder;
        let values = |latents: Tensor<4>| latents.into_data().iter::<f32>().collect::<Vec<_>>();
        let pictures = |pictures: &mut dyn Iterator<Item = &Raster>| to_tensor(pictures, plain);
        let crops = pictures(&mut examples.iter().map(|example| &example.truth));
        let truth = autoencoder.distribution(crops.clone());
        let condition = cleaner.as_ref().map(|(cleaner, _)| {
            let restored: Vec<Raster> = examples
                .iter()
                .map(|Example { truth, degraded, .. }| cleaner.restore_to(degraded, truth.size()))
                .collect();
            values(autoencoder.encode(pictures(&mut restored.iter())))
        });
        let prompts = examples.into_iter().map(|example| example.caption).collect();
        let crops = Crops { truth: values(truth), condition, prompts, pictures: crops.into_data() };
        Ok(crops.drawn(drawing, random, device))
    }
}
