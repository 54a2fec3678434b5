//! Stage 1 on a photograph of any size (reference 3.2).

use crate::error::{Error, Stage};
use crate::model::Model;
use crate::restore::{Watch, report, to_raster, to_size, to_tensor};
use diffbir_imaging::resize::Filter;
use diffbir_imaging::tiles::{Blend, VaeTile, Window, gaussian_weights, sliding_windows, vae_tiles};
use diffbir_imaging::{Photo, Raster};

/// Side of a tile, pixels of the network's input, and the step between blended tiles.
const TILE_PX: usize = 512;
const STRIDE_PX: usize = 256;

/// Above this side a picture is cut into tiles: twice a tile takes about a gigabyte.
const WHOLE_PX: usize = 1024;

/// The photograph without its degradation, at `size`.
pub(crate) fn clean(
    model: &Model,
    photo: &Photo,
    size: (usize, usize),
    watch: &mut Watch,
) -> Result<Raster, Error> {
    let config = &model.config.stage1;
    // A network that enlarges sees the photograph as it is, one that does not sees it at the final size.
    let input = match config.upscale() {
        1 => photo.resized(size.0, size.1, Filter::Bicubic),
        _ => photo.to_raster(),
    };
    // Each layer of each tile is a step of the progress, so that even one small tile shows how it goes on.
    let layers = model.stage1.layers();
    let mut run = |tile: &Raster, index: usize, tiles: usize| -> Result<Raster, Error> {
        let padded = to_tensor(&tile.pad_end(config.multiple_px()), &model.device);
        let mut before = |layer| report(watch, Stage::Stage1, index * layers + layer, tiles * layers);
        let out = to_raster(model.stage1.forward_watched(padded, &mut before)?, Stage::Stage1)?;
        report(watch, Stage::Stage1, (index + 1) * layers, tiles * layers)?;
        let scale = config.upscale();
        Ok(out.crop(0, 0, tile.width_px * scale, tile.height_px * scale))
    };
    let (width, height) = (input.width_px, input.height_px);
    // The reference tiles only what is at least one tile in both directions.
    if width.max(height) <= WHOLE_PX || width.min(height) < TILE_PX {
        return Ok(to_size(run(&input, 0, 1)?, size));
    }
    let scale = config.upscale();
    let cut = |window: Window| input.crop(window.x0, window.y0, window.width(), window.height());
    if let Some(reach_px) = config.reach_px() {
        // Tiles that see as far around them as the network does: what is kept of them is exact.
        let tiles = vae_tiles(height, width, TILE_PX, reach_px);
        let mut out = Raster::new(width * scale, height * scale, 3);
        for (index, VaeTile { input, output }) in tiles.iter().enumerate() {
            let tile = run(&cut(*input), index, tiles.len())?;
            let (x, y) = ((output.x0 - input.x0) * scale, (output.y0 - input.y0) * scale);
            let kept = tile.crop(x, y, output.width() * scale, output.height() * scale);
            out.paste(&kept, output.x0 * scale, output.y0 * scale);
        }
        return Ok(to_size(out, size));
    }
    let windows = sliding_windows(height, width, TILE_PX, STRIDE_PX);
    let weights = gaussian_weights(TILE_PX * scale);
    let mut blend = Blend::new(width * scale, height * scale, 3);
    for (index, window) in windows.iter().enumerate() {
        blend.add(&run(&cut(*window), index, windows.len())?, window.map(|border| border * scale), &weights);
    }
    Ok(to_size(blend.finish(), size))
}
