//! The restoration of one photograph.

use crate::error::{Error, Stage};
use crate::geometry::{Geometry, SHORT_SIDE_PX, to_short_side};
use crate::model::{Model, Stage2};
use crate::stage2::Latents;
use crate::tiling::Tiling;
use crate::{regions, stage1, stage2};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_diffusion::noise::Noise;
use diffbir_diffusion::{Latent, Parameters, Restoration, Sampler, StartPoint};
use diffbir_imaging::resize::Filter;
use diffbir_imaging::{Photo, Raster, colour_fix};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How a photograph is restored.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the output over that of the input.
    pub upscale: f64,
    /// The shorter side that the networks of an official model get at least, in pixels, instead of the reference's.
    pub image_size_px: Option<usize>,
    /// Whether results come back from the size that such networks saw to that which `upscale` says.
    pub keep_size: bool,
    /// Whether stage 1 runs; without it stage 2 sees the enlarged input.
    pub stage1: bool,
    /// In which tiles each part works.
    pub tiling: Tiling,
    /// How stage 2 gets from noise to a picture.
    pub sampler: Sampler,
    /// What some samplers heed; see [`Model::parameters`].
    pub parameters: Parameters,
    /// From what the sampler starts.
    pub start: StartPoint,
    /// Whether it starts, instead, from the latent of stage 1's low frequencies under the noise of the last
    /// timestep: v2's "better start", against grain in even backgrounds.
    pub better_start: bool,
    /// Share of the sampler's way that is spared by starting from the latent of stage 1 under that much less
    /// noise: 0 draws from noise, near 1 stays near stage 1.
    pub fidelity: f64,
    /// A fidelity of its own for each region instead: a mask of one channel from 0 to 1, 1 being stage 1 itself, of the
    /// shape of the photograph. With samplers that start from stage 1.
    pub regions: Option<Arc<Raster>>,
    /// Steps of the sampler for the whole way.
    pub steps: usize,
    /// How far to go from the unguided prediction to the guided one, and beyond: from that for the negative
    /// prompt, or, in a model without text, from that of the UNet without its control branch. 1 is the
    /// guided prediction alone.
    pub cfg_scale: f64,
    /// Whether the two predictions of a guided step come one after the other, which needs less memory and gives the same.
    pub guidance_apart: bool,
    /// Whether guidance rises from none at the noisy end to `cfg_scale` and 1 more at the clean end.
    pub rescale_cfg: bool,
    /// What the picture shows, for a model with text.
    pub prompt: String,
    /// What the result should not be, for a model with text.
    pub negative_prompt: String,
    /// Factor on what the control branch adds.
    pub strength: f64,
    /// Timestep of the noise that is laid on the condition, 0 for none.
    pub noise_aug: usize,
    /// How the sampler's estimates are pulled towards stage 1, if they are: by [`Sampler::Spaced`] alone.
    pub restoration: Option<Restoration>,
    /// How the colours of stage 1 come back.
    pub colour_fix: ColourFix,
}

impl Options {
    /// What suits a model: four times the size, its own way of sampling, tiles where a picture is large.
    pub fn of(model: &Model) -> Self {
        let sampling = model.sampling();
        Self {
            upscale: 4.0,
            image_size_px: None,
            keep_size: true,
            stage1: true,
            tiling: Tiling::default(),
            sampler: sampling.sampler,
            parameters: model.parameters(),
            start: StartPoint::Noise,
            better_start: false,
            fidelity: sampling.fidelity,
            regions: None,
            steps: sampling.steps,
            cfg_scale: sampling.cfg_scale,
            guidance_apart: false,
            rescale_cfg: false,
            prompt: sampling.prompt,
            negative_prompt: sampling.negative_prompt,
            strength: 1.0,
            noise_aug: 0,
            restoration: None,
            colour_fix: ColourFix::Wavelet,
        }
    }

    /// Whether anything is left to stage 2: a fidelity of 1 is stage 1 itself.
    pub fn draws(&self) -> bool {
        self.regions.is_some() || self.fidelity < 1.0
    }

    /// The fidelity of the region that is freest.
    pub fn least_fidelity(&self) -> f64 {
        self.regions.as_ref().map_or(self.fidelity, |mask| regions::least(mask))
    }

    /// The shorter side that networks get at least where pictures are sized in this way, in pixels.
    pub(crate) fn least_px(&self, geometry: Geometry) -> usize {
        self.image_size_px.unwrap_or(match geometry {
            Geometry::Article => self.tiling.least_px(),
            Geometry::Free | Geometry::Reference => SHORT_SIDE_PX,
        })
    }
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

impl ColourFix {
    /// `detailed` with the colours of `clean`.
    pub(crate) fn apply(self, detailed: Raster, clean: &Raster) -> Raster {
        match self {
            Self::Wavelet => colour_fix::wavelet(&detailed, clean),
            Self::Adain => colour_fix::adain(&detailed, clean),
            Self::None => detailed,
        }
    }
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

/// Something on the way of a picture, for who wants to see how a result comes about.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// What stage 1 made, at the size that stage 2 sees.
    Stage1(&'a Raster),
    /// Its latent.
    Condition(&'a Latent),
    /// After a step of the sampler.
    Step {
        /// Steps done, from 1.
        done: usize,
        /// What the sampler goes on from.
        x: &'a Latent,
        /// The clean latent as it is estimated now.
        estimate: &'a Latent,
    },
    /// The latent of one result.
    Sampled(&'a Latent),
    /// Its picture, before the colour fix and at the size that stage 2 saw.
    Decoded(&'a Raster),
}

/// Whoever watches a restoration. A closure that takes the progress is one.
pub trait Watch {
    /// Told of each step; says whether to go on.
    fn progress(&mut self, progress: Progress) -> ControlFlow<()>;

    /// Shown what comes about on the way.
    fn value(&mut self, _value: Value) {}
}

impl<F: FnMut(Progress) -> ControlFlow<()>> Watch for F {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        self(progress)
    }
}

/// A photograph after stage 1, ready for as many results of stage 2 as are wanted.
pub struct Prepared {
    /// What stage 1 made of it, at the size that stage 2 sees.
    stage1: Raster,
    /// Width and height of the part of it that is the picture; the rest is filled edges.
    inner: (usize, usize),
    /// Its latent, where there is a stage 2.
    condition: Option<Latent>,
    /// The latent that the sampler starts from, where it is another.
    start: Option<Latent>,
    /// The photograph's opacity at the size of the output.
    pub alpha: Option<Raster>,
    /// Width and height of the output in pixels.
    size: (usize, usize),
    geometry: Geometry,
}

impl Model {
    /// An error if the options do not go together with this model.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        let cleaner_px = self.config.stage1.multiple_px();
        let (cell_px, multiple) = match &self.stage2 {
            Some(stage2) => (stage2.cell_px, stage2.multiple),
            None => (1, 1),
        };
        options.tiling.check(cleaner_px, cell_px, cell_px * multiple)?;
        let stage2 = self.stage2.as_ref().filter(|_| options.draws());
        stage2.map_or(Ok(()), |networks| stage2::check(networks, options))
    }

    /// The first half, which has no chance in it: stage 1, and the latent of its picture if `stage2` is to
    /// follow.
    pub fn prepare(
        &self,
        photo: &Photo,
        options: &Options,
        stage2: bool,
        watch: &mut dyn Watch,
    ) -> Result<Prepared, Error> {
        let geometry = self.config.geometry;
        let (size, _) = geometry.output_size(photo.width_px, photo.height_px, options.upscale);
        let least_px = options.least_px(geometry);
        let stage1 = if options.stage1 {
            stage1::clean(self, photo, (size, least_px), options.tiling, watch)?
        } else {
            let resized = geometry.resized(photo, size, least_px);
            if geometry.enlarges(size, least_px) { to_short_side(&resized, least_px) } else { resized }
        };
        let inner = geometry.inner_size(&stage1, size, least_px);
        let size = if options.keep_size { size } else { inner };
        watch.value(Value::Stage1(&stage1));
        let condition = (stage2 && self.has_stage2() && options.draws())
            .then(|| stage2::latent_of(self, &stage1, options, watch))
            .transpose()?;
        if let Some(condition) = &condition {
            watch.value(Value::Condition(condition));
        }
        let start = (condition.is_some() && options.better_start)
            .then(|| stage2::latent_of(self, &colour_fix::low_frequencies(&stage1), options, watch))
            .transpose()?;
        let alpha = photo.resized_alpha(size.0, size.1, Filter::Bicubic);
        Ok(Prepared { stage1, inner, condition, start, alpha, size, geometry })
    }

    /// The second half: results of stage 2, as many as `samples` in one batch, drawn from `noise`. The
    /// same photograph, options and noise give the same results, whatever was restored before.
    pub fn detail(
        &self,
        prepared: &Prepared,
        samples: usize,
        options: &Options,
        noise: &mut dyn Noise,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Raster>, Error> {
        let Some(condition) = &prepared.condition else {
            return Ok(vec![prepared.clean(); samples]);
        };
        let clean = &prepared.stage1;
        let mask = options.regions.as_ref().map(|mask| regions::resized(mask, prepared.inner));
        let latents = Latents { condition, start: prepared.start.as_ref(), samples, mask: mask.as_ref() };
        let details = stage2::detail(self, clean, latents, options, noise, watch).map_err(|error| {
            match (error, options.restoration) {
                // No network's fault.
                (Error::NotFinite(_), Some(_)) => Error::Option(
                    "restoration guidance pulls so hard that no numbers are left: give a smaller --g-scale"
                        .into(),
                ),
                (error, _) => error,
            }
        })?;
        Ok(details.into_iter().map(|detailed| prepared.finished(&detailed)).collect())
    }

    pub(crate) fn networks(&self) -> &Stage2 {
        self.stage2.as_ref().expect("a latent is only made where there is a stage 2")
    }
}

impl Prepared {
    /// A picture that is its result.
    pub(crate) fn done(picture: Raster, alpha: Option<Raster>) -> Self {
        let size = picture.size();
        Self {
            stage1: picture,
            inner: size,
            condition: None,
            start: None,
            alpha,
            size,
            geometry: Geometry::Free,
        }
    }

    /// Whether stage 2 makes its results.
    pub fn is_detailed(&self) -> bool {
        self.condition.is_some()
    }

    /// What stage 1 made of the photograph, at the size of the output.
    pub fn clean(&self) -> Raster {
        self.finished(&self.stage1)
    }

    fn finished(&self, result: &Raster) -> Raster {
        self.geometry.finished(result, self.inner, self.size)
    }
}

/// Reports, and stops if asked to.
pub(crate) fn report(watch: &mut dyn Watch, stage: Stage, done: usize, total: usize) -> Result<(), Error> {
    match watch.progress(Progress { stage, done, total }) {
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
    Ok(Raster { width_px, height_px, channels, data: values(tensor, stage)? })
}

/// The numbers of a tensor, if the device got so far and they are numbers.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>, stage: Stage) -> Result<Vec<f32>, Error> {
    let data = tensor.try_into_data().map_err(|error| Error::device(stage, &error.to_string()))?;
    let values: Vec<f32> = data.iter::<f32>().collect();
    if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(Error::NotFinite(stage)) }
}
