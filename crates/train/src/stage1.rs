//! Training of stage 1, the degradation remover (paper section 3.1): plain squared error between its
//! output and the true picture.

use crate::data::{self, Augment, Crop, DataError, ExampleConfig, LoadConfig, OpenConfig, Pictures};
use crate::degrade::simple::Ranges;
use crate::degrade::{Recipe, generator, preset};
use crate::run::{Report, Run, RunConfig, TrainError, pair, to_tensor};
use burn::tensor::{Device, Tensor};
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use diffbir_models::stage1::{Stage1, Stage1Config};
use std::cell::RefCell;
use std::path::PathBuf;

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

/// Trains stage 1 on the pictures of `folders`; validates on those of `validation` degraded by `medium`.
pub fn train(
    network: &Stage1Config,
    config: &RunConfig,
    folders: &[PathBuf],
    validation: &[PathBuf],
    crop_px: usize,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    let pictures = Pictures::open(folders, &OpenConfig::new(Crop::Inside, crop_px), report)?;
    let held_out = validation_pairs(validation, report)?;
    let device = device.clone().autodiff();
    let examples = ExampleConfig {
        augment: Augment { mirror: true, flip: false, transpose: true },
        ..ExampleConfig::new(Recipe::Simple(training_ranges()))
    };
    let load = LoadConfig { seed: config.seed, batch: config.batch, workers: None };
    // A network that does not enlarge gets the picture at its final size.
    let input = |picture: &Raster, width_px: usize, height_px: usize| match network.upscale() {
        1 => resize::float(picture, width_px, height_px, Filter::Bicubic),
        _ => picture.clone(),
    };
    let run = Run::start(config, "stage1", &device, |params| network.build(params))?;
    let mut batches = pictures.batches(&examples, &load, run.steps())?;
    // Both the loop and the loader tell of what happens.
    let report = RefCell::new(report);
    let tell = |told| (report.borrow_mut())(told);
    run.train(
        || Ok(batches.next(&mut { tell })?),
        |network: &Stage1, mut batch| {
            for example in &mut batch {
                example.degraded = input(&example.degraded, crop_px, crop_px);
            }
            let (degraded, truth) = pair(&batch, &device);
            log_squared_error(network.forward(degraded), truth)
        },
        |network| {
            gain(&held_out, |small, truth| {
                let picture = input(small, truth.width_px, truth.height_px);
                network.forward(to_tensor([&picture], &device.clone().inner()))
            })
        },
        &mut { tell },
    )?;
    Ok(())
}

/// Mean over the batch of the logarithm of each picture's squared error: every picture counts alike,
/// however hard it is, as it does in a mean of decibels.
fn log_squared_error(output: Tensor<4>, truth: Tensor<4>) -> Tensor<1> {
    let [batch, ..] = output.dims();
    let errors = (output - truth).square().reshape([batch as i32, -1]).mean_dim(1);
    (errors + 1e-6).log().mean()
}

/// Side of the smallest picture that is measured on.
const LEAST_VALIDATION_PX: usize = 16;

/// A held-out picture, degraded by `medium`, and its truth.
type Pair = (Raster, Raster);

fn validation_pairs(folders: &[PathBuf], report: &mut dyn FnMut(Report)) -> Result<Vec<Pair>, TrainError> {
    let medium = preset("medium");
    let mut pairs = Vec::new();
    for file in data::pictures_in_all(folders)? {
        let truth = match data::decode(&file, LEAST_VALIDATION_PX) {
            Ok(truth) => truth,
            Err(why) => {
                report(Report::LeftOut { why });
                continue;
            }
        };
        // A whole multiple of four, and no more than what a validation should take.
        let side = |px: usize| px.min(384) / 4 * 4;
        let truth = truth.crop(0, 0, side(truth.width_px), side(truth.height_px));
        let mut random = generator(1, &file.file_name().unwrap_or_default().to_string_lossy());
        let degraded = medium.draw(&mut random).apply(&truth).expect("384 pixels a side are few");
        pairs.push((degraded, truth));
    }
    if pairs.is_empty() && !folders.is_empty() {
        return Err(DataError::Empty { folders: folders.to_vec(), least_px: LEAST_VALIDATION_PX }.into());
    }
    Ok(pairs)
}

/// Mean PSNR of the network and its gain over bicubic, in words.
fn gain(pairs: &[Pair], restore: impl Fn(&Raster, &Raster) -> Tensor<4>) -> String {
    if pairs.is_empty() {
        return "no validation pictures".into();
    }
    let (mut restored, mut enlarged) = (0.0, 0.0);
    for (small, truth) in pairs {
        let output: Vec<f32> = restore(small, truth).into_data().iter::<f32>().collect();
        restored += psnr(&output, &truth.data);
        let bicubic = resize::float(small, truth.width_px, truth.height_px, Filter::Bicubic);
        enlarged += psnr(&bicubic.data, &truth.data);
    }
    let count = pairs.len() as f64;
    format!(
        "{:.2} dB over {} pictures, {:+.2} dB over bicubic",
        restored / count,
        pairs.len(),
        (restored - enlarged) / count
    )
}

/// Peak signal to noise ratio over all values, clamped to 0..1, in dB.
fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.clamp(0.0, 1.0) - b).powi(2)).sum();
    -10.0 * (sum / a.len() as f64).max(1e-12).log10()
}
