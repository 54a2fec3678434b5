//! The restoration of one photograph.

use crate::error::{Error, Stage};
use crate::model::Model;
use crate::{stage1, stage2};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_diffusion::{Parameters, Sampler, StartPoint};
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::{Photo, Raster, colour_fix};
use std::ops::ControlFlow;

/// Largest output that is made without being asked for less, in pixels.
pub const MAX_OUTPUT_PIXELS: usize = 24_000_000;

/// How a photograph is restored.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the output over that of the input.
    pub upscale: f64,
    /// Whether stage 1 runs; without it stage 2 sees the enlarged input.
    pub stage1: bool,
    /// Whether stage 2 runs, if the model has it.
    pub stage2: bool,
    /// How stage 2 gets from noise to a picture.
    pub sampler: Sampler,
    /// What some samplers heed; see [`Model::parameters`].
    pub parameters: Parameters,
    /// From what the sampler starts.
    pub start: StartPoint,
    /// Steps of the sampler.
    pub steps: usize,
    /// How far to go from the unguided prediction to the guided one, and beyond: from that for the negative
    /// prompt, or, in a model without text, from that of the UNet without its control branch. 1 is the
    /// guided prediction alone; `None` what suits the model.
    pub cfg_scale: Option<f64>,
    /// Whether guidance rises from none at the noisy end to `cfg_scale` and 1 more at the clean end.
    pub rescale_cfg: bool,
    /// Factor on what the control branch adds.
    pub strength: f64,
    /// Timestep of the noise that is laid on the condition, 0 for none.
    pub noise_aug: usize,
    /// Where the noise comes from.
    pub seed: u64,
    /// How the colours of stage 1 come back.
    pub colour_fix: ColourFix,
}

/// How the colours of stage 1 come back into the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourFix {
    /// The low frequencies of stage 1.
    Wavelet,
    /// Mean and deviation of each channel of stage 1.
    Adain,
    /// They do not.
    None,
}

/// Where a restoration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// In which stage.
    pub stage: Stage,
    /// Steps or tiles done.
    pub done: usize,
    /// Of how many.
    pub total: usize,
}

/// What whoever watches says: go on, or stop.
pub type Watch<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// A restored photograph in sRGB.
pub struct Restored {
    /// What stage 1 made of it, at the size of the output.
    pub stage1: Raster,
    /// The result.
    pub picture: Raster,
    /// The photograph's opacity at the same size.
    pub alpha: Option<Raster>,
}

/// The size of the output for a photograph of this size, cut to whole pixels, and the factor that it took:
/// less than asked for where the output would be larger than [`MAX_OUTPUT_PIXELS`].
pub fn output_size(width: usize, height: usize, upscale: f64) -> ((usize, usize), f64) {
    let largest = (MAX_OUTPUT_PIXELS as f64 / (width * height) as f64).sqrt();
    let upscale = upscale.min(largest.max(1.0).min(upscale));
    let side = |px: usize| ((px as f64 * upscale) as usize).max(1);
    ((side(width), side(height)), upscale)
}

impl Model {
    /// Restores one photograph. The same photograph and options give the same result, whatever was
    /// restored before.
    pub fn restore(&self, photo: &Photo, options: &Options, watch: &mut Watch) -> Result<Restored, Error> {
        let ((width, height), _) = output_size(photo.width_px, photo.height_px, options.upscale);
        let alpha = photo.resized_alpha(width, height, Filter::Bicubic);
        let clean = if options.stage1 {
            stage1::clean(self, photo, (width, height), watch)?
        } else {
            photo.resized(width, height, Filter::Bicubic)
        };
        let picture = match &self.stage2 {
            Some(stage2) if options.stage2 => {
                let detailed = stage2::detail(stage2, &self.device, &clean, options, watch)?;
                match options.colour_fix {
                    ColourFix::Wavelet => colour_fix::wavelet(&detailed, &clean),
                    ColourFix::Adain => colour_fix::adain(&detailed, &clean),
                    ColourFix::None => detailed,
                }
            }
            _ => clean.clone(),
        };
        Ok(Restored { stage1: clean, picture, alpha })
    }
}

/// Resizes if the size differs.
pub(crate) fn to_size(picture: Raster, (width, height): (usize, usize)) -> Raster {
    if (picture.width_px, picture.height_px) == (width, height) {
        return picture;
    }
    resize::float(&picture, width, height, Filter::Bicubic)
}

/// Reports, and stops if asked to.
pub(crate) fn report(watch: &mut Watch, stage: Stage, done: usize, total: usize) -> Result<(), Error> {
    match watch(Progress { stage, done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}

/// A picture as `[1, h, w, c]`.
pub(crate) fn to_tensor(picture: &Raster, device: &Device) -> Tensor<4> {
    let shape = [1, picture.height_px, picture.width_px, picture.channels];
    Tensor::from_data(TensorData::new(picture.data.clone(), shape), device)
}

/// The inverse, checked for numbers.
pub(crate) fn to_raster(tensor: Tensor<4>, stage: Stage) -> Result<Raster, Error> {
    let [_, height_px, width_px, channels] = tensor.dims();
    let data = tensor.into_data().iter::<f32>().collect();
    let raster = Raster { width_px, height_px, channels, data };
    if raster.is_finite() { Ok(raster) } else { Err(Error::NotFinite(stage)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_cut_to_whole_pixels_and_limited() {
        assert_eq!(output_size(101, 77, 1.5), ((151, 115), 1.5));
        let ((width, height), upscale) = output_size(4000, 3000, 4.0);
        assert!(width * height <= MAX_OUTPUT_PIXELS && upscale > 1.4, "{width} x {height}");
        // A picture that is larger than the limit already keeps its size.
        assert_eq!(output_size(8000, 6000, 4.0).0, (8000, 6000));
        assert_eq!(output_size(1, 1, 0.1).0, (1, 1));
    }
}
