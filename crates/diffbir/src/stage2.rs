//! Stage 2: encode the stage-1 picture, sample a latent under its control, decode (reference 3.3).

use crate::error::{Error, Stage};
use crate::model::Stage2;
use crate::restore::{Options, Watch, report, to_raster, to_tensor};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_diffusion::noise::{Source, TorchNoise};
use diffbir_diffusion::{Condition, Guidance, Latent, SampleError, Sampling, start, tiled};
use diffbir_imaging::Raster;
use diffbir_imaging::tiles::vae_tiles;
use std::ops::ControlFlow;

/// Side of a tile of the autoencoder in pixels, and what is read around it: 32 pixels by the encoder, 11
/// latent cells by the decoder, as the reference does.
const VAE_TILE_PX: usize = 512;
const ENCODER_PAD_PX: usize = 32;
const DECODER_PAD_CELLS: usize = 11;

/// Side of a tile of the denoiser in latent cells, and the step between tiles.
const TILE_CELLS: usize = 64;
const STRIDE_CELLS: usize = 32;

/// Above this many cells a side the denoiser runs in tiles.
const WHOLE_CELLS: usize = 128;

/// The picture with detail, of the size of `clean`.
pub(crate) fn detail(
    networks: &Stage2,
    device: &Device,
    clean: &Raster,
    options: &Options,
    watch: &mut Watch,
) -> Result<Raster, Error> {
    let cell = networks.autoencoder.downsampling();
    let padded = repeat_edges(clean, cell * networks.multiple);
    let condition = encode(networks, device, &padded, watch)?;
    let latent = sample(networks, device, condition, options, watch)?;
    let decoded = decode(networks, device, &latent, watch)?;
    Ok(decoded.crop(0, 0, clean.width_px, clean.height_px))
}

/// The last column and row repeated up to a multiple.
fn repeat_edges(picture: &Raster, multiple_px: usize) -> Raster {
    let (width, height, channels) = (picture.width_px, picture.height_px, picture.channels);
    let mut padded = picture.pad_end(multiple_px);
    let length = padded.width_px * channels;
    for y in 0..padded.height_px {
        let source = y.min(height - 1);
        for x in 0..padded.width_px {
            let from = (source * width + x.min(width - 1)) * channels;
            let to = y * length + x * channels;
            padded.data[to..to + channels].copy_from_slice(&picture.data[from..from + channels]);
        }
    }
    padded
}

/// The latent of a picture, in tiles if it is large.
fn encode(networks: &Stage2, device: &Device, picture: &Raster, watch: &mut Watch) -> Result<Latent, Error> {
    let cell = networks.autoencoder.downsampling();
    let tiles = vae_tiles(picture.height_px, picture.width_px, VAE_TILE_PX, ENCODER_PAD_PX);
    let total = tiles.len();
    report(watch, Stage::Encode, 0, total)?;
    let mut out = Raster::new(
        picture.width_px / cell,
        picture.height_px / cell,
        networks.autoencoder.latent_channels(),
    );
    let inputs = tiles
        .iter()
        .map(|tile| {
            let window = tile.input;
            to_tensor(&picture.crop(window.x0, window.y0, window.width(), window.height()), device)
        })
        .collect();
    let mut result = Ok(());
    networks.autoencoder.encode_tiles(inputs, &mut |index, latent| {
        let (input, output) =
            (tiles[index].input.map(|px| px / cell), tiles[index].output.map(|px| px / cell));
        let done = to_raster(latent, Stage::Encode).and_then(|latent| {
            let (x, y) = (output.x0 - input.x0, output.y0 - input.y0);
            out.paste(&latent.crop(x, y, output.width(), output.height()), output.x0, output.y0);
            report(watch, Stage::Encode, index + 1, total)
        });
        result = done;
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result?;
    Ok(to_latent(&out))
}

/// The picture of a latent, in tiles if it is large.
fn decode(networks: &Stage2, device: &Device, latent: &Latent, watch: &mut Watch) -> Result<Raster, Error> {
    let cell = networks.autoencoder.downsampling();
    let tiles = vae_tiles(latent.height, latent.width, VAE_TILE_PX / cell, DECODER_PAD_CELLS);
    let total = tiles.len();
    report(watch, Stage::Decode, 0, total)?;
    let mut out = Raster::new(latent.width * cell, latent.height * cell, 3);
    let inputs = tiles
        .iter()
        .map(|tile| {
            let window = tile.input;
            latent_tensor(&latent.crop(window.y0, window.x0, window.height(), window.width()), device)
        })
        .collect();
    let mut result = Ok(());
    networks.autoencoder.decode_tiles(inputs, &mut |index, picture| {
        let (input, output) = (tiles[index].input.map(|c| c * cell), tiles[index].output.map(|c| c * cell));
        let done = to_raster(picture, Stage::Decode).and_then(|picture| {
            let (x, y) = (output.x0 - input.x0, output.y0 - input.y0);
            out.paste(&picture.crop(x, y, output.width(), output.height()), output.x0, output.y0);
            report(watch, Stage::Decode, index + 1, total)
        });
        result = done;
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result?;
    Ok(out)
}

/// A latent drawn from noise under the control of `condition`.
fn sample(
    networks: &Stage2,
    device: &Device,
    condition: Latent,
    options: &Options,
    watch: &mut Watch,
) -> Result<Latent, Error> {
    let mut noise = TorchNoise::new(Source::TorchCpu, options.seed);
    let x_t = options.start.draw(&networks.schedule, &condition, &mut noise);
    let condition = start::augment(&networks.schedule, condition, options.noise_aug, &mut noise);
    let settings = Sampling {
        schedule: &networks.schedule,
        prediction: networks.prediction,
        steps: options.steps,
        guidance: Guidance {
            scale: options.cfg_scale.unwrap_or(networks.sampling.cfg_scale),
            rescale: options.rescale_cfg,
        },
        has_negative: true,
        parameters: options.parameters,
    };
    report(watch, Stage::Sample, 0, options.steps)?;
    let (height, width) = (condition.height, condition.width);
    let in_tiles = height.max(width) > WHOLE_CELLS && height.min(width) >= TILE_CELLS;
    let done = std::cell::Cell::new(0);
    let latent = {
        let mut denoise = |x: &Latent, t: f64, which: &[Condition]| -> Result<Vec<Latent>, Error> {
            // Every evaluation passes here: where a request to stop is heard.
            report(watch, Stage::Sample, done.get(), options.steps)?;
            let each = |x: &Latent, condition: &Latent| -> Result<Vec<Latent>, Error> {
                let controls = which.iter().map(|which| match which {
                    Condition::Positive => Some((condition, options.strength)),
                    Condition::Negative => None,
                });
                controls.map(|control| predict(networks, device, x, control, t)).collect()
            };
            let outs = if in_tiles {
                tiled::blend(x, TILE_CELLS, STRIDE_CELLS, which.len(), |x, window| {
                    report(watch, Stage::Sample, done.get(), options.steps)?;
                    each(x, &condition.crop(window.y0, window.x0, TILE_CELLS, TILE_CELLS))
                })?
            } else {
                each(x, &condition)?
            };
            if outs.iter().all(Latent::is_finite) { Ok(outs) } else { Err(Error::NotFinite(Stage::Sample)) }
        };
        settings.run(options.sampler, x_t, &mut noise, &mut denoise, &mut |step| done.set(step.done))
    };
    let latent = latent.map_err(|error| match error {
        SampleError::Setting(text) => Error::Option(text),
        SampleError::Network(error) => error,
    })?;
    report(watch, Stage::Sample, options.steps, options.steps)?;
    Ok(latent)
}

/// One evaluation of the UNet, with the control branch if there is a condition, of a strength.
fn predict(
    networks: &Stage2,
    device: &Device,
    x: &Latent,
    condition: Option<(&Latent, f64)>,
    t: f64,
) -> Result<Latent, Error> {
    let x = latent_tensor(x, device);
    let time = Tensor::<1>::from_floats([t as f32], device);
    let control = condition.map(|(condition, strength)| {
        let context = networks.unet.context(None, 1);
        let hint = latent_tensor(condition, device);
        networks.control.forward(x.clone(), hint, time.clone(), context, strength)
    });
    let out = networks.unet.forward(x, time, None, control);
    Ok(to_latent(&to_raster(out, Stage::Sample)?))
}

/// Channels-last cells as the samplers' channels-first latent.
fn to_latent(cells: &Raster) -> Latent {
    let (height, width, channels) = (cells.height_px, cells.width_px, cells.channels);
    let data = (0..channels).flat_map(|c| cells.data.iter().skip(c).step_by(channels)).copied().collect();
    Latent { batch: 1, channels, height, width, data }
}

/// The inverse of [`to_latent`], as a tensor.
fn latent_tensor(latent: &Latent, device: &Device) -> Tensor<4> {
    let shape = [latent.batch, latent.channels, latent.height, latent.width];
    Tensor::from_data(TensorData::new(latent.data.clone(), shape), device).permute([0, 2, 3, 1])
}
