//! Stage 2: encode the stage-1 picture, sample a latent under its control, decode (reference 3.3).

use crate::article;
use crate::error::{Error, Stage};
use crate::geometry::{Geometry, REFERENCE_MULTIPLE_PX};
use crate::guidance::Pull;
use crate::model::{Model, Stage2};
use crate::regions::{self, Held};
use crate::restore::{Options, Value, Watch, report, to_raster, to_tensor, values};
use crate::tiling::{Cut, Joining, Pieces, Sliding, Tiling};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_diffusion::noise::Noise;
use diffbir_diffusion::restoration::{Loss, Space};
use diffbir_diffusion::schedule::LAST_T;
use diffbir_diffusion::{
    Condition, Guidance, Latent, Prediction, SampleError, Sampler, Sampling, Schedule, StartPoint, start,
    tiled,
};
use diffbir_imaging::Raster;
use diffbir_imaging::tiles::{Window, gaussian_weights};
use diffbir_models::bands::run_in_bands;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::steps;
use diffbir_models::tiled::{Statistics, run_tiled};
use diffbir_models::unet::Unet;
use diffbir_nn::on_workers;
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

/// The tiles of the denoiser where nothing else is asked for, and the side above which they are used.
const SLIDING: Sliding = Sliding { tile_px: 512, stride_px: 256 };
const WHOLE_PX: usize = 1024;

/// What sampling goes out from.
#[derive(Clone, Copy)]
pub(crate) struct Latents<'a> {
    /// The latent of the stage-1 picture, which steers the denoiser.
    pub condition: &'a Latent,
    /// The latent to start from, if it is to be another.
    pub start: Option<&'a Latent>,
    /// How many results.
    pub samples: usize,
    /// The fidelity of each pixel, if they have their own.
    pub mask: Option<&'a Raster>,
}

/// The latent of a picture of the size of stage 1's.
pub(crate) fn latent_of(
    model: &Model,
    picture: &Raster,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Latent, Error> {
    encode(model, &filled(model, picture, options), options.tiling, watch)
}

/// The picture with edges added, up to a size that the networks take.
fn filled(model: &Model, picture: &Raster, options: &Options) -> Raster {
    let networks = model.networks();
    let cell_px = networks.cell_px;
    let in_tiles =
        |tiling: &Tiling| matches!(tiling.encoder, Cut::Tiles(_)) || matches!(tiling.denoiser, Cut::Tiles(_));
    let tiling = &options.tiling;
    let multiple_px = match model.config.geometry {
        // The reference leaves the rest to the latent if it is to work in tiles.
        Geometry::Reference if in_tiles(tiling) => cell_px,
        Geometry::Reference | Geometry::Article => REFERENCE_MULTIPLE_PX,
        Geometry::Free => cell_px * networks.multiple,
    };
    model.config.geometry.padded(picture, multiple_px)
}

/// Pictures with detail, of the size of `clean`, sampled in one batch.
pub(crate) fn detail(
    model: &Model,
    clean: &Raster,
    latents: Latents,
    options: &Options,
    noise: &mut dyn Noise,
    watch: &mut dyn Watch,
) -> Result<Vec<Raster>, Error> {
    let (height, width) = (latents.condition.height, latents.condition.width);
    let tiles = tiles(model.networks().cell_px, (height, width), options.tiling.denoiser);
    let own = match tiles {
        Some(tiles) if model.config.geometry == Geometry::Article => {
            article::conditions(model, clean, latents.condition, tiles, watch)?
        }
        _ => Vec::new(),
    };
    let pull = options.restoration.map(|how| {
        let clean = filled(model, clean, options);
        Pull::new(model, how, &clean, (latents.condition, tiles.is_some()), latents.samples)
    });
    let multiple = model.networks().multiple;
    let filled = |latent: &Latent| {
        let filled = if tiles.is_some() { latent.clone() } else { latent.pad_end(multiple) };
        filled.repeat(latents.samples)
    };
    let (condition, start) = (filled(latents.condition), latents.start.map(filled));
    let own: Vec<Latent> = own.iter().map(|latent| latent.repeat(latents.samples)).collect();
    let by_tile = !own.is_empty();
    let cell_px = model.networks().cell_px;
    let held = latents.mask.map(|mask| Held::new(mask, condition.clone(), cell_px));
    let hint = Hint { condition, tiles, own, pull: pull.transpose()?, held };
    let mask = latents.mask;
    let latents = sample(model, hint, start, options, noise, watch)?;
    latents
        .items()
        .map(|latent| {
            let latent = latent.crop(0, 0, height, width);
            watch.value(Value::Sampled(&latent));
            let detailed = if let (true, Some(tiles)) = (by_tile, tiles) {
                article::decoded(model, clean, &latent, tiles, options, watch)?
            } else {
                let decoded = decode(model, &latent, options.tiling, watch)?;
                let decoded = decoded.crop(0, 0, clean.width_px, clean.height_px);
                watch.value(Value::Decoded(&decoded));
                options.colour_fix.apply(decoded, clean)
            };
            Ok(match mask {
                Some(mask) => regions::with_pixels(detailed, clean, mask),
                None => detailed,
            })
        })
        .collect()
}

/// Tiles in latent cells.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    /// Side.
    pub tile: usize,
    /// Step from one to the next.
    pub stride: usize,
}

/// What steers the denoiser.
struct Hint {
    /// The latent of the stage-1 picture.
    condition: Latent,
    /// In which tiles the denoiser works, if it does.
    tiles: Option<Tiles>,
    /// The latent of each tile by itself, where a tile is not steered by its part of the whole latent.
    own: Vec<Latent>,
    /// What pulls at the sampler's estimates, if anything does.
    pull: Option<Pull>,
    /// What holds cells at stage 1 for a while.
    held: Option<Held>,
}

/// The denoiser's tiles of `height` by `width` cells, if it works in tiles.
pub(crate) fn tiles(cell_px: usize, (height, width): (usize, usize), cut: Cut<Sliding>) -> Option<Tiles> {
    let above = |size_px: usize, sliding| (height.max(width) * cell_px > size_px).then_some(sliding);
    let sliding = match cut {
        Cut::Auto => above(WHOLE_PX, SLIDING)?,
        Cut::AtMost(tile_px) => above(tile_px, Sliding { tile_px, stride_px: tile_px / 2 })?,
        Cut::Whole => return None,
        Cut::Tiles(sliding) => sliding,
    };
    let (tile, stride) = (sliding.tile_px / cell_px, sliding.stride_px / cell_px);
    (height.min(width) >= tile).then_some(Tiles { tile, stride })
}

/// The latent of a picture.
pub(crate) fn encode(
    model: &Model,
    picture: &Raster,
    tiling: Tiling,
    watch: &mut dyn Watch,
) -> Result<Latent, Error> {
    let tensor = |window: Option<Window>| match window {
        Some(window) => {
            let part = picture.crop(window.x0, window.y0, window.width(), window.height());
            to_tensor(&part, &model.device)
        }
        None => to_tensor(picture, &model.device),
    };
    let size = (picture.height_px, picture.width_px);
    let cells = half(model, (Stage::Encode, tiling), (size, &tensor), watch)?;
    to_latent(to_tensor(&cells, &Device::flex()), Stage::Encode)
}

/// The picture of a latent.
pub(crate) fn decode(
    model: &Model,
    latent: &Latent,
    tiling: Tiling,
    watch: &mut dyn Watch,
) -> Result<Raster, Error> {
    let tensor = |window: Option<Window>| match window {
        Some(window) => {
            let part = latent.crop(window.y0, window.x0, window.height(), window.width());
            latent_tensor(&part, &model.device)
        }
        None => latent_tensor(latent, &model.device),
    };
    half(model, (Stage::Decode, tiling), ((latent.height, latent.width), &tensor), watch)
}

/// What the half of the autoencoder that is this stage makes of something of `height` by `width` cells of its input, of which
/// `tensor` gives a window or all.
fn half(
    model: &Model,
    (stage, tiling): (Stage, Tiling),
    (size, tensor): ((usize, usize), &dyn Fn(Option<Window>) -> Tensor<4>),
    watch: &mut dyn Watch,
) -> Result<Raster, Error> {
    let networks = model.networks();
    let (cell, decodes) = (networks.cell_px, stage == Stage::Decode);
    let pieces = tiling.of_autoencoder(decodes, size, cell);
    // The network may have to be read, which belongs to the stage.
    report(watch, stage, 0, if let Pieces::Tiles(tiles, _) = &pieces { tiles.len() } else { 1 })?;
    let autoencoder = networks.autoencoder.lend()?;
    let steps = if decodes { autoencoder.decoder_steps() } else { autoencoder.encoder_steps() };
    let (tiles, side) = match pieces {
        Pieces::Tiles(tiles, side) => (tiles, side),
        Pieces::Whole => {
            let out = to_raster(steps::run(&steps, tensor(None)), stage)?;
            return report(watch, stage, 1, 1).map(|()| out);
        }
        Pieces::Bands(rows) => {
            let mut told = Ok(());
            let out = run_in_bands(&steps, tensor(None), rows, &mut |done, total| {
                told = report(watch, stage, done, total);
                if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            told?;
            return to_raster(out.expect("nobody stopped it"), stage);
        }
    };
    let place = |window: Window| window.map(|cells| if decodes { cells * cell } else { cells / cell });
    let whole = place(Window { y0: 0, y1: size.0, x0: 0, x1: size.1 });
    let channels = if decodes { 3 } else { networks.latent_channels };
    let mut out = Raster::new(whole.width(), whole.height(), channels);
    let statistics = statistics(tiling.joining, side, || tensor(None));
    let inputs = tiles.iter().map(|tile| tensor(Some(tile.input))).collect();
    let mut result = Ok(());
    run_tiled(&steps, statistics, inputs, &mut |index, tile| {
        let (input, output) = (place(tiles[index].input), place(tiles[index].output));
        result = to_raster(tile, stage).and_then(|tile| {
            let (x, y) = (output.x0 - input.x0, output.y0 - input.y0);
            out.paste(&tile.crop(x, y, output.width(), output.height()), output.x0, output.y0);
            report(watch, stage, index + 1, tiles.len())
        });
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result.map(|()| out)
}

/// Where the statistics of norms come from in tiles of side `tile`.
fn statistics(joining: Joining, tile: usize, whole: impl FnOnce() -> Tensor<4>) -> Statistics {
    match joining {
        Joining::Exact | Joining::Pooled => Statistics::Pooled,
        Joining::Estimated { colour_fix } => {
            Statistics::Estimated { whole: Box::new(whole()), tile, from_halving_pooled: colour_fix }
        }
    }
}

/// How the sampler works, and from which timestep.
pub(crate) fn settings<'a>(
    (schedule, prediction): (&'a Schedule, Prediction),
    options: &Options,
) -> Sampling<'a> {
    let (steps, first_t) = start::way(options.steps, options.least_fidelity());
    Sampling {
        schedule,
        prediction,
        first_t,
        steps,
        guidance: Guidance { scale: options.cfg_scale, rescale: options.rescale_cfg },
        has_negative: true,
        parameters: options.parameters,
    }
}

/// An error if a sampler cannot work so.
pub(crate) fn check(networks: &Stage2, options: &Options) -> Result<(), Error> {
    let settings = settings((&networks.schedule, networks.prediction), options);
    if let (Some(how), sampler) = (options.restoration, options.sampler) {
        if sampler != Sampler::Spaced {
            return Err(Error::Option(format!(
                "restoration guidance goes with the sampler {} alone, not with {sampler}",
                Sampler::Spaced
            )));
        }
        if (how.loss, how.space) == (Loss::WeightedMse, Space::Latent) {
            return Err(Error::Option(
                "restoration guidance weighted by edges goes with pictures, not with latents".into(),
            ));
        }
    }
    if options.regions.is_some() && !options.sampler.starts_midway() {
        return Err(Error::Option(format!(
            "a fidelity for each region goes with the samplers spaced and edm_*, not with {}",
            options.sampler
        )));
    }
    settings.check(options.sampler).map_err(|reason| {
        Error::Option(if settings.steps < options.steps {
            let (left, all, fidelity) = (settings.steps, options.steps, options.least_fidelity());
            format!("{reason}; a fidelity of {fidelity} leaves {left} of {all} steps")
        } else {
            reason
        })
    })
}

/// Latents drawn from noise, or from `start` or the condition under some, one for each item of the hint.
fn sample(
    model: &Model,
    hint: Hint,
    start: Option<Latent>,
    options: &Options,
    noise: &mut dyn Noise,
    watch: &mut dyn Watch,
) -> Result<Latent, Error> {
    let networks = model.networks();
    let settings = settings((&networks.schedule, networks.prediction), options);
    let (total, first_t) = (settings.total(options.sampler), settings.first_t);
    let point = if start.is_some() || first_t < LAST_T { StartPoint::Cond } else { options.start };
    let start = start.as_ref().unwrap_or(&hint.condition);
    let x_t = point.draw(&networks.schedule, start, first_t, noise);
    let condition = start::augment(&networks.schedule, hint.condition, options.noise_aug, noise);
    let weights = match hint.tiles {
        Some(Tiles { tile, .. }) if hint.own.is_empty() => gaussian_weights(tile),
        Some(Tiles { tile, .. }) => vec![1.0; tile * tile],
        None => Vec::new(),
    };
    let (watch, done) = (RefCell::new(watch), Cell::new(0));
    // Every evaluation passes here: where a request to stop is heard.
    let tell = || report(*watch.borrow_mut(), Stage::Sample, done.get(), total);
    tell()?;
    let prompts = [options.prompt.as_str(), &options.negative_prompt];
    let contexts = networks.text.as_ref().map(|text| text.contexts(prompts)).transpose()?;
    let (unet, control) = (networks.unet.lend()?, networks.control.lend()?);
    let denoiser = Denoiser {
        unet: &unet,
        control: &control,
        device: &model.device,
        contexts,
        strength: options.strength,
        apart: options.guidance_apart,
    };
    let predict = |x: &Latent, t: f64, which: &[Condition]| -> Result<Vec<Latent>, Error> {
        tell()?;
        match hint.tiles {
            Some(Tiles { tile, stride }) => {
                let mut own = hint.own.iter();
                tiled::blend(x, tile, stride, &weights, which.len(), |x, window| {
                    tell()?;
                    let part = || condition.crop(window.y0, window.x0, tile, tile);
                    let condition = own.next().map_or_else(part, Latent::clone);
                    on_workers(&model.device, || denoiser.predict(x, &condition, t, which))
                })
            }
            None => on_workers(&model.device, || denoiser.predict(x, &condition, t, which)),
        }
    };
    let mut network = Guided { predict, pull: hint.pull.as_ref(), held: hint.held.as_ref() };
    let latent = settings.run(options.sampler, x_t, noise, &mut network, &mut |step| {
        done.set(step.done);
        watch.borrow_mut().value(Value::Step { done: step.done, x: step.x, estimate: step.estimate });
    });
    let latent = latent.map_err(|error| match error {
        SampleError::Setting(text) => Error::Option(text),
        SampleError::Network(error) => error,
    })?;
    report(*watch.borrow_mut(), Stage::Sample, total, total)?;
    Ok(latent)
}

/// A denoiser whose estimates are pulled or held, if anything does that.
struct Guided<'a, F> {
    predict: F,
    pull: Option<&'a Pull>,
    held: Option<&'a Held>,
}

impl<F: FnMut(&Latent, f64, &[Condition]) -> Result<Vec<Latent>, Error>> diffbir_diffusion::Denoiser<Error>
    for Guided<'_, F>
{
    fn predict(&mut self, x: &Latent, t: f64, conditions: &[Condition]) -> Result<Vec<Latent>, Error> {
        (self.predict)(x, t, conditions)
    }

    fn guide(&mut self, x0: Latent, t: usize, share: f32, noise: &mut dyn Noise) -> Result<Latent, Error> {
        match self.pull {
            Some(pull) => pull.on(x0, t, share, noise),
            None => Ok(x0),
        }
    }

    fn hold(&self, x0: Latent, t: f64) -> Latent {
        match self.held {
            Some(held) => held.on(x0, t),
            None => x0,
        }
    }
}

/// UNet and control branch, with what stays the same from step to step.
struct Denoiser<'a> {
    unet: &'a Unet,
    control: &'a ControlNet,
    device: &'a Device,
    /// Of prompt and negative prompt, in a model with text.
    contexts: Option<[Tensor<3>; 2]>,
    strength: f64,
    /// Whether conditions come one after the other.
    apart: bool,
}

impl Denoiser<'_> {
    /// The predictions for `x` under each of `which`.
    fn predict(
        &self,
        x: &Latent,
        condition: &Latent,
        t: f64,
        which: &[Condition],
    ) -> Result<Vec<Latent>, Error> {
        if self.apart && which.len() > 1 {
            let each = which.iter().map(|which| self.predict(x, condition, t, std::slice::from_ref(which)));
            return Ok(each.collect::<Result<Vec<_>, _>>()?.concat());
        }
        let device = self.device;
        let time = |count: usize| Tensor::<1>::from_floats(vec![t as f32; count].as_slice(), device);
        let (latent, hint) = (latent_tensor(x, device), latent_tensor(condition, device));
        let Some([positive, negative]) = &self.contexts else {
            // Without text, what the control branch adds is the condition.
            return which
                .iter()
                .map(|which| {
                    let time = time(x.batch);
                    let control = (*which == Condition::Positive).then(|| {
                        let context = self.unet.context(None, x.batch);
                        let (latent, hint) = (latent.clone(), hint.clone());
                        self.control.forward(latent, hint, time.clone(), context, self.strength)
                    });
                    to_latent(self.unet.forward(latent.clone(), time, None, control), Stage::Sample)
                })
                .collect();
        };
        let context = which.iter().flat_map(|which| {
            let context = match which {
                Condition::Positive => positive,
                Condition::Negative => negative,
            };
            std::iter::repeat_n(context.clone(), x.batch)
        });
        let context = Tensor::cat(context.collect(), 0);
        let (latent, hint) = (latent.repeat(&[which.len(), 1, 1, 1]), hint.repeat(&[which.len(), 1, 1, 1]));
        let time = time(x.batch * which.len());
        let control =
            self.control.forward(latent.clone(), hint, time.clone(), context.clone(), self.strength);
        let out = self.unet.forward(latent, time, Some(context), Some(control));
        let items: Vec<Latent> = to_latent(out, Stage::Sample)?.items().collect();
        Ok(items.chunks_exact(x.batch).map(Latent::stack).collect())
    }
}

/// Channels-last cells as the samplers' channels-first latent.
pub(crate) fn to_latent(cells: Tensor<4>, stage: Stage) -> Result<Latent, Error> {
    let [batch, height, width, channels] = cells.dims();
    let data = values(cells.permute([0, 3, 1, 2]), stage)?;
    Ok(Latent { batch, channels, height, width, data })
}

/// The inverse of [`to_latent`].
pub(crate) fn latent_tensor(latent: &Latent, device: &Device) -> Tensor<4> {
    let shape = [latent.batch, latent.channels, latent.height, latent.width];
    Tensor::from_data(TensorData::new(latent.data.clone(), shape), device).permute([0, 2, 3, 1])
}
