//! Tiles as the article's demo (v1) has them: each is steered by its own latent, their predictions count alike,
//! and each is decoded and has its colours fixed by itself (reference 2.9).

use crate::error::Error;
use crate::model::Model;
use crate::restore::{Options, Value, Watch};
use crate::stage2::{Tiles, decode, encode};
use crate::tiling::Tiling;
use diffbir_diffusion::Latent;
use diffbir_imaging::Raster;
use diffbir_imaging::tiles::{Blend, Window, sliding_windows};

/// The latent of each tile of the stage-1 picture `clean`, whose own latent is `whole`.
pub(crate) fn conditions(
    model: &Model,
    clean: &Raster,
    whole: &Latent,
    tiles: Tiles,
    watch: &mut dyn Watch,
) -> Result<Vec<Latent>, Error> {
    let cell_px = model.networks().cell_px;
    windows(whole, tiles)
        .map(|window| encode(model, &part(clean, window.map(|cell| cell * cell_px)), Tiling::WHOLE, watch))
        .collect()
}

/// The picture of a latent, tile by tile, with the colours of `clean`.
pub(crate) fn decoded(
    model: &Model,
    clean: &Raster,
    latent: &Latent,
    tiles: Tiles,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Raster, Error> {
    let cell_px = model.networks().cell_px;
    let side_px = tiles.tile * cell_px;
    let mut blend = Blend::new(clean.width_px, clean.height_px, clean.channels);
    for window in windows(latent, tiles) {
        let tile = latent.crop(window.y0, window.x0, tiles.tile, tiles.tile);
        let tile = decode(model, &tile, Tiling::WHOLE, watch)?;
        watch.value(Value::Decoded(&tile));
        let window = window.map(|cell| cell * cell_px);
        let fixed = options.colour_fix.apply(tile, &part(clean, window));
        blend.add(&fixed, window, &vec![1.0; side_px * side_px]);
    }
    Ok(blend.finish())
}

fn windows(latent: &Latent, tiles: Tiles) -> impl Iterator<Item = Window> {
    sliding_windows(latent.height, latent.width, tiles.tile, tiles.stride).into_iter()
}

fn part(picture: &Raster, window: Window) -> Raster {
    picture.crop(window.x0, window.y0, window.width(), window.height())
}
