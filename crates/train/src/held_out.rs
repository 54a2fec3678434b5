//! Pictures that are only measured on.

use crate::config::PictureValidation;
use crate::data::{Crop, OpenConfig, Pictures};
use crate::run::{Measured, Report, TrainError, to_tensor};
use burn::tensor::{Device, Tensor};
use diffbir_imaging::Raster;
use diffbir_metrics::{Backbone, Lpips};
use std::path::{Path, PathBuf};

/// Side of the smallest picture that is measured on.
const LEAST_PX: usize = 32;

/// The most of a picture's side that a validation should take.
const MOST_PX: usize = 384;

/// So many pictures are shown, the reference's number.
const SHOWN: usize = 12;

/// Held-out pictures, and with what they are measured on.
pub(crate) struct HeldOut {
    /// With their names.
    pub(crate) pictures: Vec<(String, Raster)>,
    lpips: Option<Lpips>,
}

impl HeldOut {
    /// Sides are cut to a multiple of `multiple`.
    pub(crate) fn open(
        config: &PictureValidation,
        multiple: usize,
        device: &Device,
        report: &mut dyn FnMut(Report),
    ) -> Result<Self, TrainError> {
        let files = &config.lpips_files;
        let lpips = (!files.is_empty()).then(|| Lpips::open(files, Backbone::AlexNet, device)).transpose()?;
        let least_px = LEAST_PX.max(multiple);
        let pictures = match config.folders.as_slice() {
            [] => Vec::new(),
            sources => read(sources, least_px, multiple, report)?,
        };
        Ok(Self { pictures, lpips })
    }

    /// Sum of squares, PSNR and LPIPS of the pictures that `restore` makes of each true one and its index, each the mean
    /// over all.
    pub(crate) fn measure(&self, device: &Device, restore: impl Fn(usize, &Raster) -> Tensor<4>) -> Measured {
        if self.pictures.is_empty() {
            return Measured { text: "no validation pictures".into(), ..Measured::default() };
        }
        let count = self.pictures.len() as f64;
        let (mut squares, mut decibels, mut far) = (0.0, 0.0, 0.0);
        let mut restored = Vec::new();
        for (index, (_, truth)) in self.pictures.iter().enumerate() {
            let output = restore(index, truth);
            if let Some(lpips) = &self.lpips {
                let truth = to_tensor([truth], device);
                far += f64::from(lpips.between(output.clone(), truth).into_scalar::<f32>()) / count;
            }
            let output: Vec<f32> = output.into_data().iter::<f32>().collect();
            let each = output.iter().zip(&truth.data).map(|(a, b)| f64::from(a - b).powi(2));
            squares += each.sum::<f64>() / count;
            decibels += psnr(&output, &truth.data) / count;
            if restored.len() < SHOWN {
                restored.push(Raster { data: output, ..*truth });
            }
        }
        let mut text = format!("{decibels:.2} dB over {} pictures", self.pictures.len());
        let mut scalars = vec![("val/loss", squares), ("val/psnr", decibels)];
        if self.lpips.is_some() {
            text += &format!(", LPIPS {far:.4}");
            scalars.push(("val/lpips", far));
        }
        let truths = self.pictures.iter().take(SHOWN).map(|(_, truth)| truth.clone()).collect();
        let pictures = vec![("image/pred", restored), ("image/gt", truths)];
        Measured { text, scalars, rank: Some(-decibels), pictures, ..Measured::default() }
    }
}

/// The pictures of at least `least_px` a side that can be read, with their names, cut to whole multiples.
fn read(
    sources: &[PathBuf],
    least_px: usize,
    multiple: usize,
    report: &mut dyn FnMut(Report),
) -> Result<Vec<(String, Raster)>, TrainError> {
    let config = OpenConfig { memory_bytes: 0, ..OpenConfig::new(Crop::Inside, least_px) };
    let set = Pictures::open(sources, &config, report)?;
    let mut pictures = Vec::new();
    for index in 0..set.len() {
        let picture = match set.picture(index) {
            Ok(picture) => picture,
            Err(why) => {
                report(Report::LeftOut { why });
                continue;
            }
        };
        let side = |px: usize| px.min(MOST_PX) / multiple * multiple;
        let picture = picture.crop(0, 0, side(picture.width_px), side(picture.height_px));
        let name = set.name(index);
        let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        pictures.push((name, picture));
    }
    if pictures.is_empty() { Err(set.nothing().into()) } else { Ok(pictures) }
}

/// Peak signal to noise ratio over all values, clamped to 0..1, in dB.
pub(crate) fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.clamp(0.0, 1.0) - b).powi(2)).sum();
    10.0 * (1.0 / (sum / a.len() as f64 + 1e-8)).log10()
}
