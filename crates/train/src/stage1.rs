//! Training of stage 1, the degradation remover (paper section 3.1; reference 5.1).

use crate::config::{Config, ConfigError, Stage1Training, TRAINING, recipe};
use crate::data::{DataError, ExampleConfig, LoadConfig, Pictures};
use crate::degrade::simple::Ranges;
use crate::degrade::{Recipe, generator, preset};
use crate::files::Part;
use crate::held_out::{HeldOut, psnr};
use crate::losses::LossTerms;
use crate::run::{Batch, Measured, Report, Run, TrainError, pair, to_tensor};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use diffbir_models::stage1::{Stage1, Stage1Config};
use rand::Rng;
use std::cell::RefCell;

/// The ranges of training: wider than every preset, so that none lies at their edge.
pub fn training_ranges() -> Ranges {
    Ranges {
        factor: 4,
        blur_sigma_px: 0.2..=3.6,
        noise_levels: 0.0..=18.0,
        jpeg_quality: 30..=95,
        second_chance: 0.25,
    }
}

/// Trains stage 1; validates on held-out pictures degraded by the same recipe, those of wide ranges by `medium`.
pub fn train(
    config: &Stage1Training,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    config.check_on(device)?;
    let (sizes, crop_px) = (&config.network.sizes, config.data.crop_px);
    let recipe = recipe(&config.degradation.recipe)?;
    let pictures = Pictures::open(&config.data.folders, &config.data.open(), report)?;
    pictures.fill(config.run.batch)?;
    // Both what the network makes and a quarter have to be whole.
    let multiple = least_common_multiple(sizes.multiple_px() * sizes.upscale(), 4);
    let held_out = HeldOut::open(&config.validation, multiple, device, report)?;
    let measured_by = if config.degradation.recipe == TRAINING { preset("medium") } else { recipe.clone() };
    let measure = Measure::new(&held_out, &measured_by)?;
    // Told before anything is written.
    let blank =
        Raster { width_px: crop_px, height_px: crop_px, channels: 3, data: vec![0.5; 3 * crop_px * crop_px] };
    fits(sizes, &input(sizes, &degrade(&recipe, &blank, "blank")?, crop_px, crop_px), crop_px)?;
    let plain = device.clone();
    let device = device.clone().autodiff();
    let loss = LossTerms::open(&config.loss, config.run.accumulate, &device)?;
    let examples = ExampleConfig {
        augment: config.data.augment,
        by_batch: config.degradation.by_batch,
        pool: config.degradation.pool,
        ..ExampleConfig::new(recipe)
    };
    let load = LoadConfig { seed: config.run.seed, batch: config.run.batch, workers: None };
    let start = config.run.init.as_deref().map(|path| Part::Stage1.open(path)).transpose()?;
    let run = Run::start(config, Stage1Training::TRAINER, start, &device, |params| sizes.build(params))?;
    let mut position = run.batches();
    let mut batches = pictures.batches(&examples, &load, run.batches())?;
    // Both the loop and the loader tell of what happens.
    let report = RefCell::new(report);
    let tell = |told| (report.borrow_mut())(told);
    run.train(
        pictures.inventory(),
        || {
            let mut batch = batches.next(&mut { tell })?;
            for example in &mut batch {
                example.degraded = input(sizes, &example.degraded, crop_px, crop_px);
                fits(sizes, &example.degraded, crop_px)?;
            }
            let (degraded, truth) = pair(&batch, &device);
            position += 1;
            let share = config.regularization.stochastic_depth;
            let kept = (share > 0.0).then(|| {
                let mut random = generator(config.run.seed, &format!("depth {position}"));
                kept(sizes.skippable(), batch.len(), share, &mut random, &device)
            });
            Ok(Pairs { degraded, truth, kept })
        },
        |network: &Stage1, Pairs { degraded, truth, kept }| {
            loss.of(network.forward_skipping(degraded.clone(), kept.clone()), truth.clone())
        },
        |network| Ok(measure.of(sizes, network, &plain)),
        &mut { tell },
    )?;
    Ok(())
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    (1..=b).map(|times| a * times).find(|multiple| multiple.is_multiple_of(b)).unwrap_or(a * b)
}

/// What a network is given: one that does not enlarge gets the picture at its final size.
pub(crate) fn input(sizes: &Stage1Config, picture: &Raster, width_px: usize, height_px: usize) -> Raster {
    match sizes.upscale() {
        1 => resize::float(picture, width_px, height_px, Filter::Bicubic),
        _ => picture.clone(),
    }
}

/// A picture as a recipe degrades it, drawn by the picture's name.
fn degrade(recipe: &Recipe, truth: &Raster, name: &str) -> Result<Raster, DataError> {
    let size_px = truth.width_px.max(truth.height_px);
    let drawn = recipe.draw(&mut generator(1, name));
    drawn.apply(truth).map_err(|source| DataError::Degrade { size_px, source })
}

/// An error where what a recipe makes of a crop is not what the network enlarges to it.
fn fits(sizes: &Stage1Config, degraded: &Raster, crop_px: usize) -> Result<(), ConfigError> {
    let (side, upscale) = (degraded.width_px, sizes.upscale());
    if side * upscale == crop_px {
        return Ok(());
    }
    let reason =
        format!("makes {side} pixels of {crop_px}, and the network enlarges {upscale} times: take another");
    Err(ConfigError::Field { field: "degradation.recipe".into(), reason })
}

/// Pictures `[b, h, w, 3]`, and which layers are kept for each.
struct Pairs {
    degraded: Tensor<4>,
    truth: Tensor<4>,
    kept: Option<Tensor<4>>,
}

/// Factors `[layers, batch, 2, 1]` on what layers add: 0 for a share that rises from 0 to `share` over the layers, and
/// otherwise what keeps the mean.
fn kept(layers: usize, batch: usize, share: f64, random: &mut impl Rng, device: &Device) -> Tensor<4> {
    let mut factors = Vec::with_capacity(layers * batch * 2);
    for layer in 0..layers {
        let share = share * layer as f64 / (layers - 1).max(1) as f64;
        let factor = |skipped| if skipped { 0.0 } else { (1.0 / (1.0 - share)) as f32 };
        factors.extend((0..batch * 2).map(|_| factor(random.random_bool(share))));
    }
    Tensor::from_data(TensorData::new(factors, [layers, batch, 2, 1]), device)
}

impl Batch for Pairs {
    fn tensors(&self) -> Vec<(&'static str, TensorData)> {
        let mut tensors = vec![("degraded", self.degraded.to_data()), ("truth", self.truth.to_data())];
        tensors.extend(self.kept.iter().map(|kept| ("kept", kept.to_data())));
        tensors
    }
}

/// Measures on held-out pictures, degraded.
struct Measure<'a> {
    held_out: &'a HeldOut,
    degraded: Vec<Raster>,
    /// PSNR of bicubic enlarging.
    enlarged: f64,
}

impl<'a> Measure<'a> {
    fn new(held_out: &'a HeldOut, recipe: &Recipe) -> Result<Self, DataError> {
        let degraded = held_out.pictures.iter().map(|(name, truth)| degrade(recipe, truth, name));
        let degraded: Vec<Raster> = degraded.collect::<Result<_, _>>()?;
        let bicubic = degraded.iter().zip(&held_out.pictures).map(|(small, (_, truth))| {
            let enlarged = resize::float(small, truth.width_px, truth.height_px, Filter::Bicubic);
            psnr(&enlarged.data, &truth.data)
        });
        let enlarged = bicubic.sum::<f64>() / held_out.pictures.len().max(1) as f64;
        Ok(Self { held_out, degraded, enlarged })
    }

    fn of(&self, sizes: &Stage1Config, network: &Stage1, device: &Device) -> Measured {
        let measured = self.held_out.measure(device, |index, truth| {
            let picture = input(sizes, &self.degraded[index], truth.width_px, truth.height_px);
            network.forward(to_tensor([&picture], device))
        });
        let gain = measured.rank.map(|rank| format!(", {:+.2} dB over bicubic", -rank - self.enlarged));
        let mut pictures = measured.pictures;
        if let Some((_, restored)) = pictures.first() {
            pictures.push(("image/lq", self.degraded[..restored.len()].to_vec()));
        }
        Measured { text: measured.text + &gain.unwrap_or_default(), pictures, ..measured }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_are_skipped_more_often_and_the_mean_stays() {
        let (layers, batch, share) = (5, 4000, 0.2);
        let factors = kept(layers, batch, share, &mut generator(1, "a"), &Device::flex());
        assert_eq!(factors.dims(), [layers, batch, 2, 1]);
        let factors: Vec<f32> = factors.into_data().iter::<f32>().collect();
        for (layer, factors) in factors.chunks(batch * 2).enumerate() {
            let expected = share * layer as f64 / 4.0;
            let skipped = factors.iter().filter(|factor| **factor == 0.0).count() as f64 / 8000.0;
            assert!((skipped - expected).abs() < 0.015, "{skipped} for {expected}");
            let mean = factors.iter().sum::<f32>() / 8000.0;
            assert!((mean - 1.0).abs() < 0.015, "{mean}");
        }
        assert!(factors[..8000].iter().all(|factor| *factor == 1.0));
    }
}
