//! Training of stage 1, the degradation remover (paper section 3.1; reference 5.1).

use crate::config::{Config, PictureValidation, Stage1Training};
use crate::data::{self, DataError, ExampleConfig, Pictures};
use crate::degrade::simple::Ranges;
use crate::degrade::{generator, preset};
use crate::losses::LossTerms;
use crate::run::{Batch, Measured, Report, Run, TrainError, pair, to_tensor};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use diffbir_metrics::{Backbone, Lpips};
use diffbir_models::stage1::{Stage1, Stage1Config};
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

/// Trains stage 1; validates on held-out pictures degraded by `medium`.
pub fn train(
    config: &Stage1Training,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    config.check()?;
    let (sizes, crop_px) = (&config.network.sizes, config.data.crop_px);
    let pictures = Pictures::open(&config.data.folders, crop_px, report)?;
    let held_out = HeldOut::open(&config.validation, device, report)?;
    let plain = device.clone();
    let device = device.clone().autodiff();
    let loss = LossTerms::open(&config.loss, config.run.accumulate, &plain)?;
    let examples = ExampleConfig { crop_px, ranges: training_ranges() };
    let run = Run::start(config, Stage1Training::TRAINER, None, &device, |params| sizes.build(params))?;
    let batches = pictures.batches(examples, config.run.seed, config.run.batch, run.batches());
    run.train(
        || {
            let mut batch = batches.recv().map_err(|_| TrainError::Loader)?;
            for example in &mut batch {
                example.degraded = input(sizes, &example.degraded, crop_px, crop_px);
            }
            let (degraded, truth) = pair(&batch, &device);
            Ok(Pairs { degraded, truth })
        },
        |network: &Stage1, Pairs { degraded, truth }| {
            loss.of(network.forward(degraded.clone()), truth.clone())
        },
        |network| held_out.measure(sizes, network, &plain),
        report,
    )?;
    Ok(())
}

/// What a network is given: one that does not enlarge gets the picture at its final size.
pub(crate) fn input(sizes: &Stage1Config, picture: &Raster, width_px: usize, height_px: usize) -> Raster {
    match sizes.upscale() {
        1 => resize::float(picture, width_px, height_px, Filter::Bicubic),
        _ => picture.clone(),
    }
}

/// Pictures `[b, h, w, 3]`.
struct Pairs {
    degraded: Tensor<4>,
    truth: Tensor<4>,
}

impl Batch for Pairs {
    fn tensors(&self) -> Vec<(&'static str, TensorData)> {
        vec![("degraded", self.degraded.to_data()), ("truth", self.truth.to_data())]
    }
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

/// Pictures to measure on, and with what.
struct HeldOut {
    pairs: Vec<Pair>,
    lpips: Option<Lpips>,
}

impl HeldOut {
    fn open(
        config: &PictureValidation,
        device: &Device,
        report: &mut dyn FnMut(Report),
    ) -> Result<Self, TrainError> {
        let files = &config.lpips_files;
        let lpips = (!files.is_empty()).then(|| Lpips::open(files, Backbone::AlexNet, device)).transpose()?;
        Ok(Self { pairs: validation_pairs(&config.folders, report)?, lpips })
    }

    /// Sum of squares, PSNR and LPIPS of the network's pictures, each the mean over all, and the gain in PSNR over
    /// bicubic.
    fn measure(
        &self,
        sizes: &Stage1Config,
        network: &Stage1,
        device: &Device,
    ) -> Result<Measured, TrainError> {
        if self.pairs.is_empty() {
            return Ok(Measured { text: "no validation pictures".into(), ..Measured::default() });
        }
        let count = self.pairs.len() as f64;
        let (mut squares, mut restored, mut enlarged, mut far) = (0.0, 0.0, 0.0, 0.0);
        for (small, truth) in &self.pairs {
            let picture = input(sizes, small, truth.width_px, truth.height_px);
            let output = network.forward(to_tensor([&picture], device));
            if let Some(lpips) = &self.lpips {
                let truth = to_tensor([truth], device);
                far += f64::from(lpips.between(output.clone(), truth).into_scalar::<f32>()) / count;
            }
            let output: Vec<f32> = output.into_data().iter::<f32>().collect();
            squares +=
                output.iter().zip(&truth.data).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / count;
            restored += psnr(&output, &truth.data) / count;
            let bicubic = resize::float(small, truth.width_px, truth.height_px, Filter::Bicubic);
            enlarged += psnr(&bicubic.data, &truth.data) / count;
        }
        let mut text = format!(
            "{restored:.2} dB over {} pictures, {:+.2} dB over bicubic",
            self.pairs.len(),
            restored - enlarged
        );
        let mut scalars = vec![("val/loss", squares), ("val/psnr", restored)];
        if self.lpips.is_some() {
            text += &format!(", LPIPS {far:.4}");
            scalars.push(("val/lpips", far));
        }
        Ok(Measured { text, scalars, rank: Some(-restored) })
    }
}

/// Peak signal to noise ratio over all values, clamped to 0..1, in dB.
fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.clamp(0.0, 1.0) - b).powi(2)).sum();
    10.0 * (1.0 / (sum / a.len() as f64 + 1e-8)).log10()
}
