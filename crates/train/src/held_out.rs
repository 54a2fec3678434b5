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

/// Of a longer side the middle is kept: the reference measures on pictures of this side, whole.
const MOST_PX: usize = 512;

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

/// The pictures of at least `least_px` a side that can be read, with their names, cut to whole multiples
/// of `multiple`.
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
        let before = |px: usize| px.saturating_sub(MOST_PX) / 2;
        let (width_px, height_px) = picture.size();
        let picture = picture.crop(before(width_px), before(height_px), side(width_px), side(height_px));
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

#[cfg(test)]
mod tests {
    use super::*;
    use diffbir_imaging::{Format, encode_rgb};

    #[test]
    fn pictures_are_whole_and_large_ones_their_middle() {
        let folder = tempfile::TempDir::new().unwrap();
        // Columns and rows tell where they come from.
        for (width_px, height_px) in [(400, 301), (514, 700)] {
            let value = |i: usize| [(i % width_px) % 251, (i / width_px) % 251, 0].map(|v| v as u8);
            let rgb = (0..width_px * height_px).flat_map(value).collect();
            let bytes = encode_rgb((width_px, height_px), rgb, Format::Png, None).unwrap();
            std::fs::write(folder.path().join(format!("{width_px}.png")), bytes).unwrap();
        }
        let found = read(&[folder.path().to_path_buf()], LEAST_PX, 4, &mut |_| {}).unwrap();
        let first =
            |picture: &Raster| [picture.data[0], picture.data[1]].map(|v| (v * 255.0).round() as usize);
        let seen: Vec<_> =
            found.iter().map(|(name, picture)| (name.as_str(), picture.size(), first(picture))).collect();
        assert_eq!(seen, [("400.png", (400, 300), [0, 0]), ("514.png", (512, 512), [1, 94])]);
    }
}
