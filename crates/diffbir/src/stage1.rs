//! Stage 1 on a photograph of any size (reference 3.2).

use crate::error::{Error, Stage};
use crate::geometry::{to_short_side, to_size};
use crate::model::Model;
use crate::restore::{Watch, report, to_raster, to_tensor};
use crate::tiling::{Cut, Sliding, Tiling};
use diffbir_imaging::resize::Filter;
use diffbir_imaging::tiles::{Blend, VaeTile, Window, gaussian_weights, sliding_windows, vae_tiles};
use diffbir_imaging::{Photo, Raster};
use diffbir_models::stage1::{Stage1, Stage1Config};

/// The tiles of a picture that is large, in pixels of the network's input.
const SLIDING: Sliding = Sliding { tile_px: 512, stride_px: 256 };

/// How the network works on a picture of this size.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// In one piece.
    Whole,
    /// In tiles of this side that see as far around them as the network does.
    Exact(Sliding, usize),
    /// In tiles that overlap and are blended.
    Blended(Sliding),
}

/// Of a picture of `size`, which stage 2 wants `enlarged`, what the network sees, and its way with that.
pub(crate) fn way(
    config: &Stage1Config,
    size: (usize, usize),
    enlarged: (usize, usize),
    cut: Cut<Sliding>,
) -> ((usize, usize), Way) {
    let swinir = matches!(config, Stage1Config::SwinIr(_));
    // A limit of memory is one of what is seen.
    let judged = if swinir && matches!(cut, Cut::AtMost(_)) { enlarged } else { size };
    let (short, long) = (judged.0.min(judged.1), judged.0.max(judged.1));
    let sliding = match cut {
        Cut::Auto => (long > config.whole_px()).then_some(SLIDING),
        Cut::AtMost(tile_px) => (long > tile_px).then_some(Sliding { tile_px, stride_px: tile_px / 2 }),
        Cut::Whole => None,
        Cut::Tiles(sliding) => Some(sliding),
    };
    let way = match (sliding.filter(|sliding| short >= sliding.tile_px), config.reach_px()) {
        (None, _) => Way::Whole,
        (Some(sliding), Some(reach_px)) if matches!(cut, Cut::Auto | Cut::AtMost(_)) => {
            Way::Exact(sliding, reach_px)
        }
        (Some(sliding), _) => Way::Blended(sliding),
    };
    // The reference enlarges before SwinIR, where that does not work in tiles, and after the other networks.
    let seen = if swinir && matches!(way, Way::Whole) { enlarged } else { judged };
    (seen, way)
}

/// The photograph without its degradation, at the size that stage 2 sees: `size`, or larger where its
/// networks want a shorter side of `least_px`.
pub(crate) fn clean(
    model: &Model,
    photo: &Photo,
    (size, least_px): ((usize, usize), usize),
    tiling: Tiling,
    watch: &mut dyn Watch,
) -> Result<Raster, Error> {
    let (config, geometry) = (&model.config.stage1, model.config.geometry);
    // Reading the network and bringing the photograph to its size belong to the stage.
    report(watch, Stage::Stage1, 0, 1)?;
    let network = &*model.stage1.lend()?;
    if let Some(side) = config.side_px() {
        let face = photo.resized(side, side, Filter::Bicubic);
        return Ok(to_size(Cleaner { model, network, watch }.run(&face, 0, 1)?, size));
    }
    // A network that enlarges sees the photograph as it is, one that does not sees it at the final size.
    let grows = config.upscale() > 1;
    let mut input = if grows { photo.to_raster() } else { geometry.resized(photo, size, least_px) };
    let (seen, way) = way(config, input.size(), geometry.enlarged(input.size(), least_px), tiling.cleaner);
    if seen != input.size() {
        input = to_short_side(&input, least_px);
    }
    let mut cleaner = Cleaner { model, network, watch };
    let out = match way {
        Way::Whole => cleaner.run(&input, 0, 1)?,
        Way::Exact(sliding, reach_px) => cleaner.exact(&input, sliding.tile_px, reach_px)?,
        Way::Blended(sliding) => cleaner.blended(&input, sliding)?,
    };
    Ok(if geometry.enlarges(if grows { size } else { (out.width_px, out.height_px) }, least_px) {
        to_short_side(&out, least_px)
    } else if grows {
        to_size(out, size)
    } else {
        out
    })
}

struct Cleaner<'a> {
    model: &'a Model,
    network: &'a Stage1,
    watch: &'a mut dyn Watch,
}

impl Cleaner<'_> {
    fn scale(&self) -> usize {
        self.model.config.stage1.upscale()
    }

    /// The network on one picture, or on tile `index` of one.
    fn run(&mut self, tile: &Raster, index: usize, tiles: usize) -> Result<Raster, Error> {
        let (model, scale) = (self.model, self.scale());
        let padded = model.config.geometry.padded(tile, model.config.stage1.multiple_px());
        // Each layer of each tile is a step of the progress, so that even one small tile shows how it goes on.
        let layers = self.network.layers();
        let mut before = |layer| report(self.watch, Stage::Stage1, index * layers + layer, tiles * layers);
        let out = self.network.forward_watched(to_tensor(&padded, &model.device), &mut before)?;
        let out = to_raster(out, Stage::Stage1)?;
        report(self.watch, Stage::Stage1, (index + 1) * layers, tiles * layers)?;
        Ok(out.crop(0, 0, tile.width_px * scale, tile.height_px * scale))
    }

    /// In tiles that see as far around them as the network does: what is kept of them is exact.
    fn exact(&mut self, input: &Raster, tile_px: usize, reach_px: usize) -> Result<Raster, Error> {
        let scale = self.scale();
        let tiles = vae_tiles(input.height_px, input.width_px, tile_px, reach_px);
        let mut out = Raster::new(input.width_px * scale, input.height_px * scale, 3);
        for (index, VaeTile { input: window, output }) in tiles.iter().enumerate() {
            let tile = self.run(&cut(input, *window), index, tiles.len())?;
            let (x, y) = ((output.x0 - window.x0) * scale, (output.y0 - window.y0) * scale);
            let kept = tile.crop(x, y, output.width() * scale, output.height() * scale);
            out.paste(&kept, output.x0 * scale, output.y0 * scale);
        }
        Ok(out)
    }

    /// In tiles that overlap, as the reference does.
    fn blended(&mut self, input: &Raster, sliding: Sliding) -> Result<Raster, Error> {
        let scale = self.scale();
        let windows = sliding_windows(input.height_px, input.width_px, sliding.tile_px, sliding.stride_px);
        let weights = gaussian_weights(sliding.tile_px * scale);
        let mut blend = Blend::new(input.width_px * scale, input.height_px * scale, 3);
        for (index, window) in windows.iter().enumerate() {
            let tile = self.run(&cut(input, *window), index, windows.len())?;
            blend.add(&tile, window.map(|border| border * scale), &weights);
        }
        Ok(blend.finish())
    }
}

fn cut(picture: &Raster, window: Window) -> Raster {
    picture.crop(window.x0, window.y0, window.width(), window.height())
}

#[cfg(test)]
mod tests {
    use super::*;
    use diffbir_models::swinir::SwinIrConfig;

    #[test]
    fn swinir_sees_a_small_picture_enlarged_but_in_the_references_tiles() {
        let config = Stage1Config::SwinIr(SwinIrConfig::official());
        let of = |size, enlarged, cut| {
            let (seen, way) = way(&config, size, enlarged, cut);
            (seen, !matches!(way, Way::Whole))
        };
        let tiles = |tile_px| Cut::Tiles(Sliding { tile_px, stride_px: tile_px / 2 });
        let (small, large) = ((128, 97), (676, 512));
        assert_eq!(of(small, large, Cut::Auto), (large, false));
        assert_eq!(of(small, large, Cut::AtMost(128)), (large, true));
        assert_eq!(of(small, large, tiles(64)), (small, true));
        assert_eq!(of(small, large, tiles(512)), (large, false));
        // Long once it is enlarged: whole, as the reference has it.
        assert_eq!(of((600, 200), (1536, 512), Cut::Auto), ((1536, 512), false));
        assert_eq!(of((1100, 600), (1100, 600), Cut::Auto), ((1100, 600), true));
    }
}
